//! A whole server on the mock cluster: what clients get, and how it ends.

use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::support::raw_client::Incoming;
use crate::support::server_rig::Cluster;
use crate::support::server_rig::ServerRig;

fn start(changes: &[(&str, &str)]) -> (Cluster, ServerRig) {
    let topics = [("prices", 1), ("couriers", 1), ("acme.orders", 1), ("blub.orders", 1)];
    let cluster = Cluster::start(&topics);
    let server = ServerRig::start(&cluster.kafka.config(), changes);
    (cluster, server)
}

#[test]
fn records_reach_the_tenant_that_they_are_for() {
    let (cluster, server) = start(&[]);
    let orders = json!({ "channel": "orders" });
    let (mut acme, _) = server.subscriber("acme", orders.clone());
    let (mut blub, _) = server.subscriber("blub", orders);
    acme.expect("live");
    blub.expect("live");
    cluster.put("acme.orders", "order-1", "{\"of\":\"acme\"}");
    cluster.put("blub.orders", "order-1", "{\"of\":\"blub\"}");
    assert_eq!(acme.values(1), [json!({ "of": "acme" })]);
    assert_eq!(blub.values(1), [json!({ "of": "blub" })]);
}

#[test]
fn a_key_filter_lets_only_its_key_through() {
    let (cluster, server) = start(&[]);
    let one = json!({ "channel": "couriers", "keys": ["c-1"] });
    let (mut client, _) = server.subscriber("acme", one);
    client.expect("live");
    for (key, value) in [("acme:c-2", "1"), ("blub:c-1", "2"), ("acme:c-1", "3")] {
        cluster.put("couriers", key, value);
    }
    let frame = client.expect("records");
    assert_eq!(frame["to"], 3);
    let records = frame["records"].as_array().expect("records");
    let seen: Vec<_> = records.iter().map(|r| (r["key"].clone(), r["value"].clone())).collect();
    assert_eq!(seen, [(json!("c-1"), json!(3))]);
}

#[test]
fn who_reads_back_a_topic_that_is_new_to_the_replica_waits_for_no_clock() {
    let topics = [0, 1, 2, 3, 4, 5, 6].map(|topic| format!("t{topic}"));
    let cluster = Cluster::start(&topics.each_ref().map(|topic| (topic.as_str(), 1)));
    for topic in &topics {
        cluster.send(topic, "k", "1");
    }
    cluster.flush();
    let channel = |topic: &String| {
        format!("{{ name = \"{topic}\", topic = \"{topic}\", tenant = \"shared\" }}")
    };
    let channels = format!("[{}]", topics.each_ref().map(channel).join(", "));
    let settings = [("CHANNELS", channels.as_str()), ("KAFKA_HISTORY_READERS", "1")];
    let server = ServerRig::start(&cluster.kafka.config(), &settings);
    let mut waits = topics.each_ref().map(|topic| {
        let asked = json!({ "channel": topic, "from": "earliest" });
        let (mut client, _) = server.subscriber("acme", asked);
        let subscribed = Instant::now();
        assert_eq!(client.values(1), [1]);
        subscribed.elapsed()
    });
    waits.sort_unstable();
    // A look once a second would make most of them wait for nearly as long.
    assert!(waits[topics.len() / 2] < Duration::from_millis(300), "{waits:?}");
}

#[test]
fn a_client_goes_on_at_another_replica() {
    let (cluster, first) = start(&[]);
    for value in ["1", "2", "3"] {
        cluster.send("prices", "EURUSD", value);
    }
    cluster.flush();
    let earliest = json!({ "channel": "prices", "from": "earliest" });
    let (mut client, subscribed) = first.subscriber("acme", earliest);
    assert_eq!(client.values(3), [1, 2, 3].map(Value::from));
    drop(first);
    cluster.put("prices", "EURUSD", "4");
    let second = ServerRig::start(&cluster.kafka.config(), &[]);
    let from = json!({ "positions": { "0": 3 }, "topic_id": subscribed["topic_id"] });
    let resume = json!({ "channel": "prices", "from": from });
    let (mut client, _) = second.subscriber("acme", resume);
    let frame = client.expect("records");
    assert_eq!((&frame["from"], &frame["to"]), (&json!(3), &json!(4)));
    assert_eq!(frame["records"][0]["value"], 4);
}

#[test]
fn a_client_that_floods_is_sent_away() {
    let changes = [("SERVER_FRAMES_BURST", "5"), ("SERVER_FRAMES_PER_SECOND", "1")];
    let (_cluster, server) = start(&changes);
    let mut client = server.client("acme");
    for _ in 0..20 {
        client.send(&json!({ "type": "ping" }));
    }
    assert_eq!(client.expect_close(), 4007);
}

#[test]
fn a_client_that_reads_nothing_is_cut_off_and_the_others_get_on() {
    let changes = [
        ("SERVER_STUCK_READER_TIMEOUT", "1s"),
        ("SERVER_UNSENT_BYTES_MAX", "128KiB"),
        ("SERVER_SOCKET_SEND_BUFFER", "16KiB"),
        ("SERVER_WORKERS", "1"),
    ];
    let (cluster, server) = start(&changes);
    let prices = json!({ "channel": "prices" });
    let (mut stuck, _) = server.subscriber("acme", prices.clone());
    let (mut reader, _) = server.subscriber("acme", prices);
    stuck.expect("live");
    reader.expect("live");
    let value = format!("\"{}\"", "v".repeat(50_000));
    // A little at a time, for the mock cluster forgets what is not read soon.
    for _ in 0..20 {
        for _ in 0..20 {
            cluster.send("prices", "EURUSD", &value);
        }
        cluster.flush();
        assert_eq!(reader.values(20).len(), 20);
    }
    server.admin_until("/metrics", |_, body| body.contains("closes_total{code=\"stuck_reader\"}"));
    // What the kernel still had for it comes, and then a reset.
    let end = std::iter::from_fn(|| Some(stuck.next()))
        .find(|incoming| matches!(incoming, Incoming::End { .. } | Incoming::Close(_)));
    assert!(matches!(end, Some(Incoming::End { .. })), "{end:?}");
}

#[test]
fn a_drain_sends_everybody_away_with_a_reason() {
    let (_cluster, mut server) = start(&[]);
    let (mut idle, _) = server.subscriber("acme", json!({ "channel": "prices" }));
    let mut unknown = server.try_connect(&[]).expect("a WebSocket");
    server.signal();
    let closing = idle.expect("closing");
    assert_eq!(closing["code"], "draining");
    assert_eq!(closing["reconnect"], true);
    assert!(closing["retry_after_ms"].is_u64(), "{closing}");
    assert_eq!(idle.expect_close(), 1012);
    assert_eq!(unknown.expect_close(), 1012);
    for client in [&mut idle, &mut unknown] {
        client.send_message(8, &1012_u16.to_be_bytes());
        assert_eq!(client.next(), Incoming::End { reset: false });
    }
    server.join().expect("it ends well");
}

#[test]
fn a_second_signal_hurries_the_end() {
    let (_cluster, mut server) = start(&[("SERVER_DRAIN_DELAY", "5m")]);
    let mut client = server.client("acme");
    server.signal();
    server.admin_until("/readyz", |status, body| status == 503 && body.contains("\"draining\""));
    // Clients are still let in while balancers take note.
    drop(server.client("acme"));
    server.signal();
    assert!(matches!(client.next(), Incoming::End { .. }));
    server.join().expect("it ends well");
}
