//! The admin interface, as an operator uses it.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;
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

/// A server with one channel, `feed`.
struct Rig {
    topic: String,
    server: ServerProcess,
}

impl Rig {
    fn start(settings: &[(&str, &str)]) -> Self {
        let topic = fresh_topic("admin");
        KafkaCluster::shared().admin().create_topic(&topic, 2, &[]);
        let server = ServerProcess::start_with(&shared_feed(&topic), settings);
        Self { topic, server }
    }

    /// Returns what is at a path, which must be there.
    fn look(&self, path: &str) -> Value {
        self.order(&format!("GET {path}"), &Value::Null)
    }

    /// Gives an order, which must be taken.
    fn order(&self, line: &str, body: &Value) -> Value {
        let host = format!("Host: {}", self.server.admin);
        let (status, answer) = admin_order(self.server.admin, line, &[&host], body);
        assert_eq!(status, 200, "{line}: {answer}");
        answer
    }

    /// Connects with these claims; returns the client and its connection's name.
    fn client(&self, tenant: &str, claims: Value) -> (RawClient, String) {
        let mut client = RawClient::connect(self.server.clients, &["User-Agent: a-browser/1.0"])
            .expect("it opens");
        let token = token_with(tenant, claims);
        client.send(&json!({ "type": "authenticate", "token": token }));
        let welcome = client.expect("welcome");
        (client, welcome["connection"].as_str().expect("a name").to_owned())
    }
}

#[test]
fn an_operator_sees_connections_and_what_they_follow() {
    let rig = Rig::start(&[]);
    let (mut client, name) = rig.client("acme", json!({ "jti": "t-1" }));
    client.send(&json!({ "type": "subscribe", "id": 1, "channel": "feed", "keys": [CANARY_KEY] }));
    client.expect("live");
    KafkaCluster::shared()
        .producer()
        .send(&rig.topic, &[NewRecord::new(0, CANARY_KEY, CANARY_VALUE)]);
    client.expect("records");
    let (_second, other) = rig.client("blub", json!({}));

    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = rig.look(&format!("/v1/connections?max=1{after}"));
        seen.extend(page["connections"].as_array().expect("a list").clone());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
    let row = seen.iter().find(|row| row["connection"] == json!(name)).expect("the first");
    assert_eq!((&row["tenant"], &row["subject"]), (&json!("acme"), &json!("test")));
    assert_eq!((&row["user_agent"], &row["subscriptions"]), (&json!("a-browser/1.0"), &json!(1)));
    assert!(!json!(seen).to_string().contains(CANARY_KEY), "no key in a list");
    let of_blub = walk(&rig, "tenant=blub");
    assert_eq!(of_blub.len(), 1, "{of_blub:?}");
    assert_eq!(of_blub[0]["connection"], json!(other));
    assert!(walk(&rig, "state=behind").is_empty(), "all are live");

    let one = rig.look(&format!("/v1/connections/{name}"));
    let subscription = &one["subscriptions"][0];
    assert_eq!(
        (&subscription["channel"], &subscription["state"]),
        (&json!("feed"), &json!("live"))
    );
    assert_eq!(subscription["keys"], json!([CANARY_KEY]), "it was asked for by name");
    assert_eq!(subscription["partitions"][0]["position"], 1, "{one}");
    assert_eq!(one["token_id"], "t-1");

    let tenants = rig.look("/v1/tenants");
    assert_eq!(tenants["tenants_in_all"], 2, "{tenants}");
    assert_eq!(tenants["tenants"][0]["share_of_connections"], 0.5, "{tenants}");
    let channels = rig.look("/v1/channels");
    assert_eq!(channels["channels"][0]["subscriptions"], 1, "{channels}");
    assert_eq!(channels["channels"][0]["topic"], json!(rig.topic), "{channels}");
    let partitions = rig.look("/v1/partitions?max=1");
    assert_eq!(partitions["partitions_in_all"], 2, "{partitions}");
    assert_eq!(partitions["partitions"][0]["tail"], json!({ "from": 0, "to": 1 }), "{partitions}");
    let rest = rig.look("/v1/partitions?after=1");
    assert_eq!(rest["partitions"][0]["partition"], 1, "{rest}");
    assert_eq!(rig.look("/v1/sweeps")["sweeps"], json!([]));
    for path in ["connections", "channels", "partitions", "tenants", "sweeps"] {
        let page = rig.look(&format!("/v1/{path}")).to_string();
        assert!(!page.contains(CANARY_VALUE) && !page.contains(CANARY_KEY), "{path}: {page}");
    }
    assert!(!one.to_string().contains(CANARY_VALUE));
    let page = rig.server.admin_page("/");
    assert!(page.contains("text/html") && page.contains("Brücke"), "{page}");
}

/// Returns all connections that a query finds.
fn walk(rig: &Rig, query: &str) -> Vec<Value> {
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = rig.look(&format!("/v1/connections?{query}{after}"));
        seen.extend(page["connections"].as_array().expect("a list").clone());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return seen,
        }
    }
}

#[test]
fn a_page_goes_on_with_the_next_worker_while_it_has_room() {
    let rig = Rig::start(&[("SERVER_WORKERS", "4")]);
    let (_only, name) = rig.client("acme", json!({}));
    let page = rig.look("/v1/connections");
    assert_eq!(page["connections"][0]["connection"], json!(name), "{page}");
    assert_eq!(page["next"], Value::Null, "nobody else is there: {page}");
    let _others: Vec<_> = (0..7).map(|_| rig.client("acme", json!({}))).collect();
    assert_eq!(rig.look("/v1/connections")["connections"].as_array().map(Vec::len), Some(8));
    let seen = walk(&rig, "max=3");
    let workers: BTreeSet<_> = seen.iter().map(|row| row["worker"].as_u64()).collect();
    assert!(workers.len() > 1, "one worker has all: {seen:?}");
    let names: BTreeSet<_> = seen.iter().map(|row| row["connection"].to_string()).collect();
    assert_eq!((seen.len(), names.len()), (8, 8), "{seen:?}");
}

#[test]
fn a_topic_that_is_missing_is_named_in_the_log() {
    let server = ServerProcess::start(&shared_feed("no-such-topic"));
    let said = "topic no-such-topic: does not exist: create it, or take the channel out";
    let deadline = Instant::now() + Duration::from_secs(20);
    while !server.log().contains(said) {
        assert!(Instant::now() < deadline, "it is not said: {}", server.log());
        std::thread::yield_now();
    }
    assert!(server.log().lines().any(|line| line.contains(said) && line.contains("WARN")));
}

#[test]
fn every_error_has_a_code_and_a_sentence() {
    let rig = Rig::start(&[]);
    let check = |line: &str, head: &str, body: &str, wanted: (u16, &str, &str)| {
        let address = rig.server.admin;
        let mut stream = TcpStream::connect(address).expect("the admin listener");
        let request = format!(
            "{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{head}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let (status, code, text) = wanted;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answer}");
        let (_, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        let said: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(said["code"], code, "{line}: {answer}");
        assert!(said["message"].as_str().is_some_and(|said| said.contains(text)), "{answer}");
        assert_eq!(said.as_object().map(serde_json::Map::len), Some(2), "{answer}");
    };
    let json = "Content-Type: application/json\r\n";
    check("GET /v1/nothing", "", "", (404, "not_found", "docs/admin.md"));
    check("POST /v1/channels", "", "", (405, "method_not_allowed", "takes GET alone"));
    check("GET /v1/log-level", "", "", (405, "method_not_allowed", "takes PUT alone"));
    check("PUT /readyz", "", "", (405, "method_not_allowed", "takes GET alone"));
    check("GET /v1/connections/abc", "", "", (400, "invalid", "by its number"));
    check("GET /v1/connections?max=x", "", "", (400, "invalid", "the query can't be read"));
    let level = r#"{"level":"info"}"#;
    check("PUT /v1/log-level", "", level, (400, "invalid", "Content-Type: application/json"));
    let number = r#"{"level":5}"#;
    check("PUT /v1/log-level", json, number, (400, "invalid", "expected a string"));
    check("PUT /v1/log-level", json, "{", (400, "invalid", "the body can't be read"));
}

#[test]
fn an_operator_sends_one_connection_away() {
    let rig = Rig::start(&[]);
    let (mut client, name) = rig.client("acme", json!({}));
    let (mut stays, _) = rig.client("acme", json!({}));
    let closed = rig.order(&format!("POST /v1/connections/{name}/disconnect"), &Value::Null);
    assert_eq!(closed["closed"], 1);
    assert_eq!(client.expect("closing")["reconnect"], true);
    assert_eq!(client.next(), Incoming::Close(1012));
    stays.send(&json!({ "type": "ping" }));
    stays.expect("pong");
    let host = format!("Host: {}", rig.server.admin);
    let gone = format!("GET /v1/connections/{}", u64::MAX >> 12);
    let (status, answer) = admin_order(rig.server.admin, &gone, &[&host], &Value::Null);
    assert_eq!((status, &answer["code"]), (404, &json!("not_found")));
}

#[test]
fn a_revoked_token_is_closed_at_once_and_not_let_in_again() {
    let rig = Rig::start(&[]);
    let (mut bad, _) = rig.client("acme", json!({ "jti": "stolen" }));
    let (mut good, _) = rig.client("acme", json!({ "jti": "fine" }));
    let (mut subject, _) = rig.client("blub", json!({ "sub": "mallory", "jti": "m" }));
    let began = Instant::now();
    let revoked = rig.order("POST /v1/revocations", &json!({ "jti": "stolen", "seconds": 600 }));
    assert_eq!((&revoked["closed"], &revoked["revocations"]), (&json!(1), &json!(1)));
    assert_eq!(bad.expect("closing")["code"], "authentication_failed");
    assert_eq!(bad.next(), Incoming::Close(4002));
    let by_subject = rig.order("POST /v1/revocations", &json!({ "sub": "mallory" }));
    assert_eq!(by_subject["closed"], 1);
    assert_eq!(subject.expect("closing")["code"], "authentication_failed");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    good.send(&json!({ "type": "ping" }));
    good.expect("pong");

    let token = token_with("acme", json!({ "jti": "stolen" }));
    let header = format!("Authorization: Bearer {token}");
    let refused = RawClient::connect(rig.server.clients, &[&header]).err().expect("refused");
    assert_eq!((refused.status, refused.code.as_str()), (401, "authentication_failed"));
    assert!(rig.server.admin_page("/metrics").contains("reason=\"revoked\"} 1"));
    // One that the subject gets later is good again.
    let later = std::time::SystemTime::now() + Duration::from_secs(2);
    let later = later.duration_since(std::time::SystemTime::UNIX_EPOCH).expect("after 1970");
    rig.client("blub", json!({ "sub": "mallory", "iat": later.as_secs() }));
}

#[test]
fn an_operator_changes_the_level_of_the_log() {
    let rig = Rig::start(&[]);
    let (_first, before) = rig.client("acme", json!({}));
    rig.order("PUT /v1/log-level", &json!({ "level": "debug" }));
    let (_second, during) = rig.client("acme", json!({}));
    let deadline = Instant::now() + Duration::from_secs(10);
    while !rig.server.log().contains(&during) {
        assert!(Instant::now() < deadline, "connections are told of: {}", rig.server.log());
        std::thread::yield_now();
    }
    assert!(!rig.server.log().contains(&before), "the level was higher then");
}

#[test]
fn the_interface_is_for_those_who_may() {
    let rig = Rig::start(&[]);
    let check = |rig: &Rig, headers: &[&str], wanted: (u16, &str)| {
        let (status, answer) =
            admin_order(rig.server.admin, "GET /v1/tenants", headers, &Value::Null);
        let code = answer["code"].as_str().unwrap_or("ok");
        assert_eq!((status, code), wanted, "{headers:?}");
    };
    check(&rig, &["Host: localhost:9090"], (200, "ok"));
    check(&rig, &["Host: evil.example"], (403, "foreign_page"));
    check(&rig, &["Host: localhost", "Origin: https://evil.example"], (403, "foreign_page"));
    drop(rig);

    let secret = "a token for operators only";
    let settings = [("ADMIN_TOKEN_ENV", "BRUCKE_TESTS_SECRET"), ("TESTS_SECRET", secret)];
    let rig = Rig::start(&settings);
    check(&rig, &["Host: localhost"], (401, "token_missing"));
    let wrong = format!("Authorization: Bearer {secret}x");
    check(&rig, &["Host: localhost", &wrong], (401, "token_wrong"));
    let right = format!("Authorization: Bearer {secret}");
    check(&rig, &["Host: anything", &right], (200, "ok"));
    for page in ["/livez", "/metrics"] {
        assert!(rig.server.admin_page(page).starts_with("HTTP/1.1 200"), "{page} asks nobody");
    }
    assert!(!rig.server.log().contains(secret));
    drop(rig);

    let rig = Rig::start(&[("ADMIN_LISTEN", "0.0.0.0:0")]);
    let port = rig.server.admin.port();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let headers = ["Host: localhost"];
    let (status, answer) = admin_order(address, "GET /v1/tenants", &headers, &Value::Null);
    assert_eq!((status, &answer["code"]), (403, &json!("admin_off")));
}

const CANARY_KEY: &str = "canary-key-of-admin";
const CANARY_VALUE: &str = "\"canary-value-of-admin\"";
