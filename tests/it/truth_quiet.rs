//! A follower of a key that hardly ever comes: what others get meanwhile is not
//! read again for it.

use std::env;

use serde_json::Value;
use serde_json::json;

use crate::support::kafka_client::NewRecord;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::fresh_topic;
use crate::support::raw_client::RawClient;
use crate::support::server_process::ServerProcess;
use crate::support::server_process::shared_feed;
use crate::support::server_process::token;

/// `make quiet` has ten million records of others.
#[test]
fn who_follows_a_quiet_key_resumes_without_reading_what_was_not_for_it() {
    let foreign =
        env::var("QUIET_RECORDS").map_or(FOREIGN, |count| count.parse().expect("a count"));
    let topic = fresh_topic("quiet");
    let cluster = KafkaCluster::shared();
    cluster.admin().create_topic(&topic, 1, &[]);
    let producer = cluster.producer();
    let settings = [("SERVER_PROGRESS_INTERVAL", "500ms"), ("KAFKA_TAIL_BYTES_MAX", "1MiB")];
    let server = ServerProcess::start_with(&shared_feed(&topic), &settings);

    let (mut client, subscribed) = follow(&server, &json!("latest"));
    let topic_id = subscribed["topic_id"].clone();
    producer.send(&topic, &[NewRecord::new(0, "quiet", "1")]);
    assert_eq!(client.expect("records")["records"][0]["offset"], 0);
    for sent in (0..foreign).step_by(BATCH) {
        let records = vec![NewRecord::new(0, "loud", "1"); BATCH.min(foreign - sent)];
        producer.send(&topic, &records);
    }
    let end = foreign as u64 + 1;
    while client.expect("progress")["to"]["0"].as_u64().expect("a position") < end {}
    drop(client);

    producer.send(&topic, &[NewRecord::new(0, "quiet", "2")]);
    // The tail has forgotten what a fresh replica never read.
    drop(server);
    let server = ServerProcess::start_with(&shared_feed(&topic), &settings);
    let resume = |position: u64| json!({ "positions": { "0": position }, "topic_id": topic_id });
    let (mut client, _) = follow(&server, &resume(end));
    assert_eq!(client.expect("records")["records"][0]["offset"], end);
    let read = || server.metric("brucke_kafka_history_records_total");
    assert!(read() <= 1.0, "{} records were read again for one", read());

    // Somebody who was told nothing has to read them.
    let (mut client, _) = follow(&server, &resume(1));
    assert_eq!(client.expect("records")["records"][0]["offset"], end);
    assert!(read() >= foreign as f64, "{} records", read());
}

fn follow(server: &ServerProcess, from: &Value) -> (RawClient, Value) {
    let mut client = RawClient::connect(server.clients, &[]).expect("a WebSocket");
    client.send(&json!({ "type": "authenticate", "token": token("acme") }));
    client.expect("welcome");
    client.send(&json!({
        "type": "subscribe", "id": 1, "channel": "feed", "keys": ["quiet"], "from": from,
    }));
    let subscribed = client.expect("subscribed");
    (client, subscribed)
}

const FOREIGN: usize = 200_000;
/// Records that are acknowledged together.
const BATCH: usize = 10_000;
