//! The end of a drain: who has not left by then is cut, what was measured of it is
//! told, and the process ends well.

use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::json;

use crate::support::jaeger::Jaeger;
use crate::support::kafka_client::NewRecord;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::fresh_topic;
use crate::support::raw_client::Incoming;
use crate::support::raw_client::PING;
use crate::support::raw_client::RawClient;
use crate::support::raw_client::dial;
use crate::support::raw_client::dial_narrow;
use crate::support::server_process::ServerProcess;
use crate::support::server_process::shared_feed;
use crate::support::server_process::token;
use crate::support::traced::Parent;
use crate::support::traced::follow;

#[test]
fn who_reads_nothing_is_cut_at_the_end_of_the_drain() {
    let topic = fresh_topic("cut");
    KafkaCluster::shared().admin().create_topic(&topic, 1, &[]);
    let settings = [
        ("SERVER_DRAIN_WINDOW", "1s"),
        // Else the shard would give it up by itself.
        ("SERVER_CLOSE_TIMEOUT", "1m"),
        ("SERVER_UNSENT_BYTES_MAX", "128KiB"),
        ("SERVER_SOCKET_SEND_BUFFER", "16KiB"),
    ];
    let mut server = ServerProcess::start_with(&shared_feed(&topic), &settings);
    let mut slow = subscriber(RawClient::connect_on(dial_narrow(server.clients, 4_096), &[]));
    let mut quick = subscriber(RawClient::connect_on(dial(server.clients), &[]));
    produce_more_than_fits(&topic);
    quick.values(RECORDS);
    let deadline = Instant::now() + PATIENCE;
    while server.metric("brucke_unsent_bytes") == 0.0 {
        assert!(Instant::now() < deadline, "nothing waits for the slow one");
        thread::sleep(Duration::from_millis(50));
    }

    let began = Instant::now();
    let leaver = thread::spawn(move || {
        assert_eq!(quick.expect("closing")["code"], "draining");
        assert_eq!(quick.expect_close(), 1012);
        quick.send_message(8, &1012_u16.to_be_bytes());
        quick.next()
    });
    let status = server.terminate();
    let took = began.elapsed();
    assert_eq!(leaver.join().expect("it leaves"), Incoming::End { reset: false });
    assert_eq!(status.code(), Some(0));
    assert!((WINDOW + GRACE..WINDOW + GRACE + LATE_MAX).contains(&took), "{took:?}");
    let log = server.log();
    let line = log.lines().find(|line| line.contains("drained")).expect("it is logged");
    assert!(line.contains("time was up") && line.contains("cut=1"), "{line}");
    // What the kernel still had for it comes, and then the end.
    let end = std::iter::from_fn(|| Some(slow.next()))
        .find(|incoming| matches!(incoming, Incoming::End { .. } | Incoming::Close(_)));
    assert!(matches!(end, Some(Incoming::End { .. })), "{end:?}");
}

#[test]
fn who_waits_to_be_let_in_is_told_of_a_drain() {
    let topic = fresh_topic("waiting");
    KafkaCluster::shared().admin().create_topic(&topic, 1, &[]);
    let settings = [("SERVER_DRAIN_WINDOW", "0s"), ("SERVER_CONNECTIONS_PER_SECOND", "1")];
    let mut server = ServerProcess::start_with(&shared_feed(&topic), &settings);
    let address = server.clients;
    drop(RawClient::connect(address, &[]).expect("the first does not wait"));
    let waiting = thread::spawn(move || RawClient::connect(address, &[]).map(drop));
    let deadline = Instant::now() + PATIENCE;
    while server.metric("brucke_handshakes_delayed_total") == 0.0 {
        assert!(Instant::now() < deadline, "nobody waits");
        thread::sleep(Duration::from_millis(10));
    }
    let status = server.terminate();
    let refused = waiting.join().expect("it has an answer").expect_err("nobody is let in");
    assert_eq!((refused.status, &*refused.code), (503, "draining"));
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_span_made_just_before_the_end_reaches_the_collector() {
    let jaeger = Jaeger::start();
    let topic = fresh_topic("last-span");
    let cluster = KafkaCluster::shared();
    cluster.admin().create_topic(&topic, 1, &[]);
    let endpoint = jaeger.grpc();
    // Nothing is sent by itself before the process ends.
    let settings = [
        ("TRACING_ENDPOINT", endpoint.as_str()),
        ("TRACING_EXPORT_INTERVAL", "1m"),
        ("SERVER_DRAIN_WINDOW", "0s"),
    ];
    let mut server = ServerProcess::start_with(&shared_feed(&topic), &settings);
    let mut client = follow(&server, &[]);
    let parent = Parent::new();
    let offset = parent.send(&cluster.producer(), &topic);
    client.client.expect("records");
    client.acknowledge(offset + 1);
    // What is answered after it was heard after it.
    client.client.send_message(PING, b"?");
    while client.client.next() != Incoming::Pong(b"?".to_vec()) {}
    assert!(!jaeger.knows(&parent.trace), "it would have been sent without an end");

    let leaver = thread::spawn(move || {
        assert_eq!(client.client.expect_close(), 1012);
        client.client.send_message(8, &1012_u16.to_be_bytes());
    });
    let status = server.terminate();
    leaver.join().expect("it leaves");
    assert_eq!(status.code(), Some(0));
    let process = format!("process {topic}");
    jaeger.trace(&parent.trace, &[&process, "deliver feed", "client feed", "ack feed"]);
}

/// Follows the channel over a connection that was opened.
fn subscriber<E: std::fmt::Debug>(client: Result<RawClient, E>) -> RawClient {
    let mut client = client.expect("a WebSocket");
    client.send(&json!({ "type": "authenticate", "token": token("acme") }));
    client.send(&json!({ "type": "subscribe", "id": 1, "channel": "feed" }));
    client.expect("live");
    client
}

/// Produces more than kernel and bounds keep for a client that reads nothing.
fn produce_more_than_fits(topic: &str) {
    let producer = KafkaCluster::shared().producer();
    let value = format!("\"{}\"", "-".repeat(VALUE_BYTES));
    let sent: Vec<_> =
        (0..RECORDS).map(|_| producer.enqueue(topic, &NewRecord::new(0, "k", &value))).collect();
    for delivery in sent {
        producer.wait(delivery);
    }
}

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);
const RECORDS: usize = 1_000;
const VALUE_BYTES: usize = 4_000;
/// As the test sets it.
const WINDOW: Duration = Duration::from_secs(1);
/// What the listener gives the last ones beyond it.
const GRACE: Duration = Duration::from_secs(3);
/// How much later a busy machine may be.
const LATE_MAX: Duration = Duration::from_secs(6);
