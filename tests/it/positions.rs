//! Positions from strangers: each wrong one has a code and a sentence; none is
//! taken for "everything", none hangs, and the connection goes on.

use serde_json::Value;
use serde_json::json;

use crate::support::raw_client::Incoming;
use crate::support::raw_client::RawClient;
use crate::support::raw_client::TEXT;
use crate::support::server_rig::Cluster;
use crate::support::server_rig::ServerRig;

#[test]
fn a_wrong_position_is_refused_and_replays_nothing() {
    let (_cluster, server) = start();
    let mut client = server.client("acme");
    for (id, (from, code, sentence)) in MALFORMED.iter().enumerate() {
        check_refused(&mut client, id, from, code, sentence);
    }
    let seventh = r#"{"positions":{"7":5},"topic_id":"ID"}"#;
    let sentence = "position names partition 7, and the topic has 1";
    check_refused(&mut client, 100, seventh, "unknown_partition", sentence);
    let many: Vec<String> = (0..4_000).map(|partition| format!("\"{partition}\":1")).collect();
    let many = format!(r#"{{"positions":{{{}}},"topic_id":"ID"}}"#, many.join(","));
    let sentence = "position names partition 1, and the topic has 1";
    check_refused(&mut client, 101, &many, "unknown_partition", sentence);
}

#[test]
fn a_position_ahead_of_the_log_is_told_as_truncated() {
    check_gap(&json!({ "positions": { "0": 999 }, "topic_id": ID }), 999, 3, "truncated");
    let most = i64::MAX;
    check_gap(&json!({ "positions": { "0": most }, "topic_id": ID }), most, 3, "truncated");
}

#[test]
fn a_position_in_another_topic_is_told_as_such() {
    let other = "ffffffffffffffffffffffffffffffff";
    check_gap(&json!({ "positions": { "0": 2 }, "topic_id": other }), 2, 0, "topic_recreated");
}

/// Returns a server and a topic with three records, and a canary tenant's.
fn start() -> (Cluster, ServerRig) {
    let topics = [("prices", 1), ("couriers", 1), ("acme.orders", 1), ("blub.orders", 1)];
    let cluster = Cluster::start(&topics);
    let server = ServerRig::start(&cluster.kafka.config(), &[]);
    for value in ["1", "2", "3"] {
        cluster.send("prices", "EURUSD", value);
    }
    cluster.flush();
    (cluster, server)
}

/// The next frames are the refusal, by this code and with this in its sentence, and
/// the answer to a ping, and nothing else.
fn check_refused(client: &mut RawClient, id: usize, from: &str, code: &str, sentence: &str) {
    let from = from.replace("ID", ID);
    let request = format!(r#"{{"type":"subscribe","id":{id},"channel":"prices","from":{from}}}"#);
    client.send_message(TEXT, request.as_bytes());
    let shown: String = request.chars().take(200).collect();
    let Incoming::Json(error) = client.next() else { panic!("no answer to {shown}") };
    let told = (&error["type"], &error["id"], &error["code"]);
    assert_eq!(told, (&json!("error"), &json!(id), &json!(code)), "{shown} {error}");
    assert!(error["message"].as_str().is_some_and(|text| text.contains(sentence)), "{error}");
    client.send(&json!({ "type": "ping" }));
    assert_eq!(client.next(), Incoming::Json(json!({ "type": "pong" })), "{shown}");
}

fn check_gap(from: &Value, at: i64, to: i64, reason: &str) {
    let (cluster, server) = start();
    let request = json!({ "channel": "prices", "from": from });
    let (mut client, subscribed) = server.subscriber("acme", request);
    assert_eq!(subscribed["positions"]["0"], at, "it begins where it was asked to");
    let gap = client.expect("gap");
    let told = (&gap["from"], &gap["to"], &gap["reason"]);
    assert_eq!(told, (&json!(at), &json!(to), &json!(reason)));
    cluster.put("prices", "EURUSD", "4");
    let values: Vec<i64> = (to + 1..=4).collect();
    assert_eq!(client.values(values.len()), values, "and goes on at what there is");
}

/// The mock cluster has no topic ids.
const ID: &str = "00000000000000000000000000000000";
/// Where to start, and by which code and with which words that is refused.
const MALFORMED: [(&str, &str, &str); 19] = [
    (r#"{"positions":[1],"topic_id":"ID"}"#, "bad_frame", "`positions` must be an object"),
    (r#"{"positions":{"0":-1},"topic_id":"ID"}"#, "bad_frame", WHOLE),
    (r#"{"positions":{"0":1.5},"topic_id":"ID"}"#, "bad_frame", WHOLE),
    (r#"{"positions":{"0":1e30},"topic_id":"ID"}"#, "bad_frame", WHOLE),
    (r#"{"positions":{"0":"1"},"topic_id":"ID"}"#, "bad_frame", "`positions` must be a number"),
    (r#"{"positions":{"0":null},"topic_id":"ID"}"#, "bad_frame", "`positions` must be a number"),
    (r#"{"positions":{"x":1},"topic_id":"ID"}"#, "invalid_argument", NUMBER),
    (r#"{"positions":{"-1":1},"topic_id":"ID"}"#, "invalid_argument", NUMBER),
    (r#"{"positions":{"4294967296":1},"topic_id":"ID"}"#, "invalid_argument", NUMBER),
    (r#"{"positions":{"2147483648":1},"topic_id":"ID"}"#, "invalid_argument", NUMBER),
    (r#"{"positions":{"0":1,"0":2},"topic_id":"ID"}"#, "bad_frame", "0 more than once"),
    (r#"{"positions":{"0":9223372036854775808},"topic_id":"ID"}"#, "invalid_argument", "2^63"),
    (r#"{"positions":{"0":1}}"#, "bad_frame", "`topic_id` is missing"),
    (r#"{"positions":{"0":1},"topic_id":"short"}"#, "invalid_argument", "32 hexadecimal digits"),
    (r#"{"positions":{"0":1},"topic_id":7}"#, "bad_frame", "`topic_id` must be"),
    (r#"{"positions":{"0":1},"topic_id":"ID","more":1}"#, "bad_frame", "unknown field `more`"),
    (r#"{"topic_id":"ID"}"#, "bad_frame", "`from` must be"),
    (r#""the beginning""#, "bad_frame", "`from` must be"),
    (r#"null"#, "bad_frame", "`from` must be"),
];
const WHOLE: &str = "`positions` must be a whole number, not negative";
const NUMBER: &str = "is not the decimal number of a partition";
