//! What is revoked at one replica is revoked at all of them, on Apache Kafka.

use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::support::kafka_client::NewRecord;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::fresh_topic;
use crate::support::raw_client::Incoming;
use crate::support::raw_client::RawClient;
use crate::support::server_process::ServerProcess;
use crate::support::server_process::shared_feed;
use crate::support::server_process::token_with;
use crate::support::server_rig::admin_order;

/// A topic with a channel, and the name of one for revocations.
struct Rig {
    topic: String,
    revoked: String,
}

impl Rig {
    fn new() -> Self {
        let topic = fresh_topic("shown");
        KafkaCluster::shared().admin().create_topic(&topic, 1, &[]);
        Self { topic, revoked: fresh_topic("revoked") }
    }

    fn make_topic(&self) {
        self.make_topic_with(&[]);
    }

    fn make_topic_with(&self, more: &[(&str, &str)]) {
        let settings = [&[("cleanup.policy", "compact")], more].concat();
        KafkaCluster::shared().admin().create_topic(&self.revoked, 1, &settings);
    }

    /// Starts a replica, which need not be ready.
    fn start(&self) -> ServerProcess {
        let settings = [("ADMIN_REVOCATIONS_TOPIC", self.revoked.as_str())];
        ServerProcess::start_with(&shared_feed(&self.topic), &settings)
    }

    fn start_ready(&self) -> ServerProcess {
        let server = self.start();
        until(&server, "ready", is_ready);
        server
    }
}

fn until(server: &ServerProcess, what: &str, so: impl Fn(&ServerProcess) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so(server) {
        let page = server.admin_page("/readyz");
        assert!(Instant::now() < deadline, "{what}: {page}\n{}", server.log());
        thread::sleep(PACE);
    }
}

fn is_ready(server: &ServerProcess) -> bool {
    server.admin_page("/readyz").starts_with("HTTP/1.1 200")
}

fn revoke(server: &ServerProcess, body: &Value) -> (u16, Value) {
    let host = format!("Host: {}", server.admin);
    admin_order(server.admin, "POST /v1/revocations", &[&host], body)
}

fn client(server: &ServerProcess, claims: Value) -> RawClient {
    let mut client = RawClient::connect(server.clients, &[]).expect("a WebSocket");
    client.send(&json!({ "type": "authenticate", "token": token_with("acme", claims) }));
    client.expect("welcome");
    client
}

fn is_let_in(server: &ServerProcess, claims: Value) -> bool {
    let header = format!("Authorization: Bearer {}", token_with("acme", claims));
    match RawClient::connect(server.clients, &[&header]) {
        Ok(_) => true,
        Err(refused) => {
            assert_eq!((refused.status, refused.code.as_str()), (401, "authentication_failed"));
            false
        }
    }
}

fn check_closed(mut client: RawClient) {
    assert_eq!(client.expect("closing")["code"], "authentication_failed");
    assert_eq!(client.next(), Incoming::Close(4002));
}

#[test]
fn what_one_replica_revokes_holds_at_the_others_and_at_those_that_start_later() {
    let rig = Rig::new();
    rig.make_topic();
    let (asked, other) = (rig.start_ready(), rig.start_ready());
    let stolen = client(&other, json!({ "jti": "stolen" }));
    let mallory = client(&other, json!({ "sub": "mallory" }));
    let mut fine = client(&other, json!({ "jti": "fine" }));
    let began = Instant::now();
    let (status, answer) = revoke(&asked, &json!({ "jti": "stolen", "seconds": 600 }));
    assert_eq!((status, &answer["scope"]), (200, &json!("all_replicas")), "{answer}");
    assert_eq!(answer["closed"], 0, "nobody is there");
    check_closed(stolen);
    let (status, answer) = revoke(&asked, &json!({ "sub": "mallory", "tenant": "acme" }));
    assert_eq!(status, 200, "{answer}");
    check_closed(mallory);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    fine.send(&json!({ "type": "ping" }));
    fine.expect("pong");
    let later = rig.start_ready();
    for server in [&asked, &other, &later] {
        assert!(!is_let_in(server, json!({ "jti": "stolen" })));
        assert!(!is_let_in(server, json!({ "sub": "mallory" })));
        assert!(is_let_in(server, json!({ "jti": "fine" })));
        assert_eq!(server.metric("brucke_revocations"), 2.0);
        assert_eq!(server.metric("brucke_revocations_unread"), 0.0);
    }
    // The last word counts, everywhere.
    let (status, answer) = revoke(&later, &json!({ "jti": "stolen", "seconds": 0 }));
    assert_eq!(status, 200, "{answer}");
    until(&other, "taken back", |server| is_let_in(server, json!({ "jti": "stolen" })));
}

#[test]
fn a_record_that_is_no_revocation_is_left_out_and_the_next_one_heard() {
    let rig = Rig::new();
    rig.make_topic();
    let junk = |key, value| NewRecord::new(0, key, value);
    let records = [
        junk("canary-key", "canary-value"),
        junk(r#"{"jti":"canary-jti"}"#, "canary-value"),
        junk(r#"{"sub":"canary-sub"}"#, r#"{"until_ms":9999999999999}"#),
        junk(r#"{"jti":"stolen"}"#, r#"{"until_ms":9999999999999}"#),
        junk(r#"{"jti":"old"}"#, r#"{"until_ms":1000}"#),
    ];
    let producer = KafkaCluster::shared().producer();
    producer.send(&rig.revoked, &records);
    let server = rig.start_ready();
    let ignored = "brucke_revocations_ignored_total{reason=\"unreadable\"}";
    assert_eq!(server.metric(ignored), 3.0);
    assert_eq!(server.metric("brucke_revocations"), 1.0);
    assert!(!is_let_in(&server, json!({ "jti": "stolen" })));
    assert!(is_let_in(&server, json!({ "jti": "old" })));
    let log = server.log();
    assert_eq!(log.matches("a record of the topic of revocations is left out").count(), 3, "{log}");
    assert!(log.contains("offset=1") && !log.contains("canary"), "{log}");
    let caught = client(&server, json!({ "jti": "next" }));
    producer.send(
        &rig.revoked,
        &[junk("", ""), junk(r#"{"jti":"next"}"#, r#"{"until_ms":9999999999999}"#)],
    );
    check_closed(caught);
    assert_eq!(server.metric(ignored), 4.0);
}

#[test]
fn a_revocation_that_kafka_does_not_take_holds_where_it_was_asked_for_and_says_so() {
    let rig = Rig::new();
    // No record is as small.
    rig.make_topic_with(&[("max.message.bytes", "20")]);
    let (asked, other) = (rig.start_ready(), rig.start_ready());
    let stolen = client(&asked, json!({ "jti": "stolen" }));
    let (status, answer) = revoke(&asked, &json!({ "jti": "stolen" }));
    assert_eq!((status, &answer["code"]), (503, &json!("unavailable")), "{answer}");
    let message = answer["message"].as_str().expect("a sentence");
    assert!(message.contains("which closed 1 connections, and at no other"), "{message}");
    check_closed(stolen);
    assert!(!is_let_in(&asked, json!({ "jti": "stolen" })));
    assert!(is_let_in(&other, json!({ "jti": "stolen" })));
}

#[test]
fn a_replica_without_the_topic_is_not_ready_and_says_so_also_when_it_goes() {
    let rig = Rig::new();
    let server = rig.start();
    until(&server, "said", |server| server.admin_page("/readyz").contains("create it"));
    let page = server.admin_page("/readyz");
    assert!(page.starts_with("HTTP/1.1 503") && page.contains("\"revocations_unread\""), "{page}");
    assert_eq!(server.metric("brucke_revocations_unread"), 1.0);
    let stolen = client(&server, json!({ "jti": "stolen" }));
    let (status, answer) = revoke(&server, &json!({ "jti": "stolen" }));
    assert_eq!((status, &answer["code"]), (503, &json!("unavailable")), "{answer}");
    let message = answer["message"].as_str().expect("a sentence");
    assert!(message.contains("revoked at this replica, which closed 1 connections"), "{message}");
    assert!(message.contains("does not exist"), "{message}");
    check_closed(stolen);
    assert!(!is_let_in(&server, json!({ "jti": "stolen" })), "it holds here");

    rig.make_topic();
    until(&server, "ready", is_ready);
    assert_eq!(server.metric("brucke_revocations_unread"), 0.0);
    assert_eq!(revoke(&server, &json!({ "jti": "stolen" })).0, 200);

    KafkaCluster::shared().admin().delete_topic(&rig.revoked);
    until(&server, "it is told", |server| server.metric("brucke_revocations_unread") == 1.0);
    assert!(is_ready(&server), "others can't read it either");
    let page = server.admin_page("/readyz");
    let warnings = page.split_once("\"warnings\"").expect("there are warnings").1;
    assert!(warnings.contains("\"revocations_unread\""), "{page}");
    assert!(server.log().contains("the topic can't be read"), "{}", server.log());
    assert!(!is_let_in(&server, json!({ "jti": "stolen" })), "what it knows holds");
    assert_eq!(revoke(&server, &json!({ "jti": "another" })).0, 503);
    rig.make_topic();
    until(&server, "it is read again", |s| s.metric("brucke_revocations_unread") == 0.0);
    until(&server, "it is written", |s| revoke(s, &json!({ "jti": "another" })).0 == 200);
    let later = rig.start_ready();
    assert!(!is_let_in(&later, json!({ "jti": "another" })), "it was told of the new topic");
}

const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at another process.
const PACE: Duration = Duration::from_millis(20);
