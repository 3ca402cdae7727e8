//! Explain gives the right one of its answers, on Apache Kafka.

use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::support::kafka_client::KafkaProducer;
use crate::support::kafka_client::NewRecord;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::fresh_topic;
use crate::support::raw_client::RawClient;
use crate::support::server_process::ServerProcess;
use crate::support::server_process::token;
use crate::support::server_process::token_with;
use crate::support::server_rig::admin_order;

/// A client that follows a channel, and the name of its connection.
struct Viewer {
    client: RawClient,
    connection: String,
}

impl Viewer {
    /// Connects as `tenant` and subscribes as `request` says.
    fn start(server: &ServerProcess, tenant: &str, mut request: Value) -> Self {
        let mut client = RawClient::connect(server.clients, &[]).expect("a WebSocket");
        client.send(&json!({ "type": "authenticate", "token": token(tenant) }));
        let welcome = client.expect("welcome");
        let connection = welcome["connection"].as_str().expect("a name").to_owned();
        request["type"] = json!("subscribe");
        request["id"] = json!(1);
        client.send(&request);
        client.expect("subscribed");
        Self { client, connection }
    }

    /// Asks what became of an offset for this client.
    fn explain(&self, server: &ServerProcess, mut asked: Value) -> Value {
        asked["connection"] = json!(self.connection);
        asked["partition"] = json!(0);
        asked["channel"] = asked.get("channel").cloned().unwrap_or(json!("feed"));
        let host = [format!("Host: {}", server.admin)];
        let host: Vec<&str> = host.iter().map(String::as_str).collect();
        let (status, answer) = admin_order(server.admin, "POST /v1/explain", &host, &asked);
        assert_eq!(status, 200, "{answer}");
        answer
    }

    fn check(&self, server: &ServerProcess, offset: i64, verdict: &str) -> Value {
        let answer = self.explain(server, json!({ "offset": offset }));
        assert_eq!(answer["verdict"], verdict, "offset {offset}: {answer}");
        answer
    }
}

/// A topic whose records name their tenant in a header, and a server for it.
struct Rig {
    topic: String,
    server: ServerProcess,
}

impl Rig {
    fn start(more: &str) -> Self {
        let topic = fresh_topic("explain");
        KafkaCluster::shared().admin().create_topic(&topic, 1, &[]);
        let channels = format!(
            "[[channels]]\nname = \"feed\"\ntopic = \"{topic}\"\n\
             tenant = {{ header = \"tenant-id\" }}\n{more}"
        );
        let server = ServerProcess::start(&channels);
        Self { topic, server }
    }

    /// Writes a record of a tenant, or of nobody; returns its offset.
    fn put(&self, tenant: Option<&str>, key: &str) -> i64 {
        let header = tenant.map(|tenant| [("tenant-id", Some(tenant.as_bytes()))]);
        let record = NewRecord::new(0, key, "{\"v\":1}");
        let headers = header.as_ref().map_or(&[][..], |header| &header[..]);
        let record = NewRecord { headers, ..record };
        KafkaCluster::shared().producer().send(&self.topic, &[record])[0]
    }
}

#[test]
fn a_connection_is_told_what_became_of_each_record() {
    let rig = Rig::start("");
    let server = &rig.server;
    let before = rig.put(Some("acme"), "k-1");
    let mut viewer = Viewer::start(server, "acme", json!({ "channel": "feed", "keys": ["k-1"] }));
    viewer.client.expect("live");
    let other_key = rig.put(Some("acme"), "k-2");
    let other_tenant = rig.put(Some("blub"), "k-1");
    let nobodys = rig.put(None, "k-1");
    let own = rig.put(Some("acme"), "k-1");
    let frame = viewer.client.expect("records");
    assert_eq!(frame["records"][0]["offset"], own);

    let delivered = viewer.check(server, own, "delivered");
    let told = &delivered["frame"];
    assert_eq!((&told["from"], &told["to"]), (&frame["from"], &frame["to"]), "{delivered}");
    assert!(told["at_ms"].as_i64().is_some_and(|at| at > 1_700_000_000_000), "{delivered}");
    assert_eq!(viewer.check(server, other_key, "not_matched")["predicate"], "key");
    assert_eq!(viewer.check(server, other_tenant, "not_matched")["predicate"], "tenant");
    viewer.check(server, nobodys, "without_tenant");
    assert_eq!(viewer.check(server, before, "before_start")["start"], other_key);
    assert_eq!(viewer.check(server, own + 1, "not_written")["end"], own + 1);

    let elsewhere = json!({ "offset": own, "keys": ["k-9"] });
    assert_eq!(viewer.explain(server, elsewhere)["verdict"], "not_subscribed");
    let unknown = json!({ "offset": own, "channel": "nothing" });
    let denied = viewer.explain(server, unknown);
    assert_eq!(denied["verdict"], "denied", "{denied}");

    let counted = viewer.explain(server, json!({ "from": before, "to": own + 1 }));
    let count = |name: &str| counted[name].as_u64();
    assert_eq!(count("records"), Some(5), "{counted}");
    assert_eq!((count("matched"), count("other_keys")), (Some(2), Some(1)), "{counted}");
    assert_eq!((count("other_tenants"), count("without_tenant")), (Some(1), Some(1)));
}

#[test]
fn a_client_that_acknowledges_nothing_has_not_read_on() {
    let rig = Rig::start("");
    let first = rig.put(Some("acme"), "k");
    let second = rig.put(Some("acme"), "k");
    let asked = json!({ "channel": "feed", "from": "earliest", "window": 1 });
    let mut viewer = Viewer::start(&rig.server, "acme", asked);
    viewer.client.expect("records");
    viewer.check(&rig.server, first, "delivered");
    let waiting = viewer.check(&rig.server, second, "not_yet_read");
    assert_eq!(waiting["because"], "window_full", "{waiting}");
    assert_eq!(waiting["cursor"], second, "{waiting}");
}

#[test]
fn what_kafka_no_longer_has_is_told_apart() {
    let rig = Rig::start("");
    let offsets: Vec<i64> = (0..6).map(|_| rig.put(Some("acme"), "k")).collect();
    KafkaCluster::shared().admin().delete_records(&rig.topic, 0, offsets[4]);
    let from = json!({ "positions": { "0": offsets[1] }, "topic_id": topic_id(&rig) });
    let mut viewer = Viewer::start(&rig.server, "acme", json!({ "channel": "feed", "from": from }));
    let gap = viewer.client.expect("gap");
    assert_eq!((&gap["from"], &gap["to"]), (&json!(offsets[1]), &json!(offsets[4])));
    let told = viewer.check(&rig.server, offsets[2], "in_gap");
    assert_eq!(told["gap"], json!({ "from": offsets[1], "to": offsets[4], "reason": "retention" }));
    // It was gone before this client came.
    assert_eq!(viewer.check(&rig.server, offsets[0], "gone")["oldest"], offsets[4]);
}

#[test]
fn a_token_is_told_what_its_bearer_would_get() {
    let rig = Rig::start("key = \"{sub}\"\n");
    let own = rig.put(Some("acme"), "u1");
    let other = rig.put(Some("acme"), "u2");
    let servers = KafkaCluster::shared().bootstrap_servers();
    let transactional = KafkaProducer::transactional(&servers, &rig.topic);
    transactional.begin();
    let header = [("tenant-id", Some(&b"acme"[..]))];
    let record = NewRecord { headers: &header, ..NewRecord::new(0, "u1", "{}") };
    let aborted = transactional.send(&rig.topic, &[record])[0];
    transactional.abort();
    let sub = |sub: &str| token_with("acme", json!({ "sub": sub }));
    let check = |token: &str, key: &str, offset: i64, verdict: &str| {
        let offset = offset.to_string();
        let told = explain(&rig, token, &["--key", key, "--offset", &offset]);
        assert_eq!(told["verdict"], verdict, "offset {offset}: {told}");
        told
    };
    // The marker comes some time after the abort; what is written then comes after.
    let marker = (aborted + 1).to_string();
    let asked = ["--key", "u1", "--offset", &marker];
    let deadline = Instant::now() + Duration::from_secs(20);
    while explain(&rig, &sub("u1"), &asked)["verdict"] != "no_record" {
        assert!(Instant::now() < deadline, "the marker is no record");
    }
    let last = rig.put(Some("acme"), "u1");
    check(&sub("u1"), "u1", own, "matches");
    check(&sub("u1"), "u1", last, "matches");
    assert_eq!(check(&sub("u1"), "u1", other, "not_matched")["predicate"], "key");
    check(&sub("u1"), "u1", aborted, "no_record");
    check(&sub("u1"), "u1", last + 1, "not_written");
    let denied = check(&sub("u2"), "u1", own, "denied");
    assert_eq!(denied["claims"], json!({ "sub": "u2" }), "{denied}");
    let narrow = token_with("acme", json!({ "sub": "u1", "channels": ["another"] }));
    let denied = check(&narrow, "u1", own, "denied");
    assert_eq!(denied["claims"], json!({ "channels": ["another"] }), "{denied}");
    let expired = token_with("acme", json!({ "exp": 1 }));
    assert_eq!(check(&expired, "u1", own, "denied")["reason"], "expired");

    let counted = explain(&rig, &sub("u1"), &["--key", "u1", "--from", "0"]);
    assert_eq!((&counted["records"], &counted["matched"]), (&json!(3), &json!(2)), "{counted}");
}

/// Runs `brucke explain` with a token.
fn explain(rig: &Rig, token: &str, more: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_brucke"));
    command.args(["explain", "--channel", "feed", "--partition", "0", "--config"]);
    command.arg(rig.server.config_file()).args(more).env("BRUCKE_TOKEN", token);
    let output = command.output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains(token), "{said}");
    let answer = String::from_utf8(output.stdout).expect("text");
    assert!(!answer.contains(token), "{answer}");
    serde_json::from_str(&answer).expect("JSON")
}

/// Returns the id of the topic, as the server has it once somebody follows it.
fn topic_id(rig: &Rig) -> String {
    let mut client = RawClient::connect(rig.server.clients, &[]).expect("a WebSocket");
    client.send(&json!({ "type": "authenticate", "token": token("acme") }));
    client.send(&json!({ "type": "subscribe", "id": 1, "channel": "feed" }));
    client.expect("welcome");
    client.expect("subscribed")["topic_id"].as_str().expect("an id").to_owned()
}
