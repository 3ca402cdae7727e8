//! Traps into which others have fallen, each by the name of the harm.

use std::collections::BTreeSet;

use brucke::protocol::frame::ClientFrame;
use brucke::protocol::frame::OnGap;
use brucke::protocol::frame::ServerFrame;
use brucke::protocol::frame::StartAt;
use brucke::protocol::frame::Subscribe;
use brucke::protocol::frame::Token;
use brucke::protocol::message::ServerMessage;
use brucke::protocol::protobuf;
use brucke::types::filter::KeyFilter;
use brucke::types::ids::ChannelName;
use brucke::types::ids::RequestId;
use bytes::Bytes;
use serde_json::Value;
use serde_json::json;

use crate::support::raw_client::BINARY;
use crate::support::raw_client::Incoming;
use crate::support::raw_client::RawClient;
use crate::support::raw_client::TEXT;
use crate::support::raw_client::header;
use crate::support::server_rig::Cluster;
use crate::support::server_rig::ServerRig;
use crate::support::server_rig::token;

fn start(changes: &[(&str, &str)]) -> (Cluster, ServerRig) {
    let topics = [("prices", 1), ("couriers", 1), ("acme.orders", 1), ("blub.orders", 1)];
    let cluster = Cluster::start(&topics);
    let server = ServerRig::start(&cluster.kafka.config(), changes);
    (cluster, server)
}

/// Puts so many records in, with their number as value.
fn fill(cluster: &Cluster, records: i64) {
    for value in 0..records {
        cluster.send("prices", "EURUSD", &value.to_string());
    }
    cluster.flush();
}

/// Returns where a client goes on that got all below `next`.
fn resume(next: i64) -> Value {
    json!({ "positions": { "0": next }, "topic_id": "0".repeat(32) })
}

/// Returns the values and the offsets of the next `count` records.
fn records(client: &mut RawClient, count: usize) -> Vec<(i64, Value)> {
    let mut found = Vec::new();
    while found.len() < count {
        let frame = client.expect("records");
        for record in frame["records"].as_array().expect("records") {
            let offset = record["offset"].as_i64().expect("an offset");
            found.push((offset, record["value"].clone()));
        }
    }
    found
}

/// Returns a client that asks for one key of a tenant, in protobuf.
fn in_protobuf(server: &ServerRig, from: StartAt) -> RawClient {
    let client = server.try_connect(&["Sec-WebSocket-Protocol: brucke.v1.protobuf"]);
    let mut client = client.expect("a WebSocket");
    let asked = Subscribe {
        id: RequestId::new(1),
        channel: ChannelName::new("couriers"),
        filter: KeyFilter::keys([Bytes::from("c-1")]),
        from,
        on_gap: OnGap::Continue,
        window: None,
    };
    let authenticate = ClientFrame::Authenticate { token: Token::new(token("acme")) };
    for frame in [authenticate, ClientFrame::Subscribe(asked)] {
        client.send_message(BINARY, &protobuf::encode_client(&frame));
    }
    client
}

/// Returns the next message that is wanted.
fn next<T>(client: &mut RawClient, wanted: impl Fn(ServerMessage) -> Option<T>) -> T {
    loop {
        let Incoming::Binary(bytes) = client.next() else { panic!("not protobuf") };
        let message = protobuf::decode_server(Bytes::from(bytes)).expect("a message");
        if let Some(found) = wanted(message) {
            return found;
        }
    }
}

fn next_offsets(client: &mut RawClient) -> Vec<u64> {
    next(client, |message| match message {
        ServerMessage::Records(frame) => {
            Some(frame.records.iter().map(|record| record.offset.as_u64()).collect())
        }
        _ => None,
    })
}

#[test]
fn a_filter_is_bypassed_on_no_encoding() {
    let (cluster, server) = start(&[]);
    let live = &mut in_protobuf(&server, StartAt::Latest);
    next(live, |message| {
        matches!(message, ServerMessage::Frame(ServerFrame::Live { .. })).then_some(())
    });
    // The last of them matches, so that the first frame is after all of them.
    for key in ["acme:c-2", "blub:c-1", "acme:c-11", "c-1", "acme:c-1"] {
        cluster.put("couriers", key, "1");
    }
    assert_eq!(next_offsets(live), [4]);
    // Nor where history is read.
    assert_eq!(next_offsets(&mut in_protobuf(&server, StartAt::Earliest)), [4]);
    let request = json!({ "channel": "couriers", "keys": ["c-1"], "from": "earliest" });
    let (mut in_json, _) = server.subscriber("acme", request);
    assert_eq!(records(&mut in_json, 1), [(4, json!(1))]);
}

#[test]
fn a_long_recovery_does_not_come_in_one_frame() {
    let (cluster, server) = start(&[]);
    fill(&cluster, 3_000);
    let request = json!({ "channel": "prices", "from": "earliest" });
    let (mut client, _) = server.subscriber("acme", request);
    let mut seen = 0;
    while seen < 3_000 {
        let frame = client.expect("records");
        let count = frame["records"].as_array().expect("records").len();
        assert!(count <= 1_000 && frame.to_string().len() < 80_000, "{count} records in a frame");
        seen += count;
    }
    assert_eq!(seen, 3_000, "and none is left out at some round number");
}

#[test]
fn a_refused_token_does_not_reset_the_offset() {
    let (cluster, server) = start(&[]);
    fill(&cluster, 3);
    let mut refused = server.try_connect(&[]).expect("a WebSocket");
    refused.send(&json!({ "type": "authenticate", "token": "no token" }));
    let asked = json!({ "type": "subscribe", "id": 1, "channel": "prices", "from": resume(2) });
    refused.send(&asked);
    assert_eq!(refused.expect_close(), 4002);
    let (mut client, subscribed) =
        server.subscriber("acme", json!({ "channel": "prices", "from": resume(2) }));
    assert_eq!(subscribed["positions"]["0"], 2);
    assert_eq!(records(&mut client, 1), [(2, json!(2))]);
}

#[test]
fn a_position_on_a_record_that_does_not_match_goes_on() {
    let (cluster, server) = start(&[]);
    for key in ["acme:c-1", "acme:c-2", "acme:c-2", "acme:c-1"] {
        cluster.put("couriers", key, "1");
    }
    let request = json!({ "channel": "couriers", "keys": ["c-1"], "from": resume(1) });
    let (mut client, _) = server.subscriber("acme", request);
    let frame = client.expect("records");
    assert_eq!((&frame["from"], &frame["to"]), (&json!(1), &json!(4)));
    assert_eq!(frame["records"][0]["offset"], 3);
}

#[test]
fn an_idle_clients_position_is_not_left_behind() {
    let (cluster, server) = start(&[("SERVER_PROGRESS_INTERVAL", "1s")]);
    let (mut client, _) =
        server.subscriber("acme", json!({ "channel": "couriers", "keys": ["quiet"] }));
    client.expect("live");
    for _ in 0..5 {
        cluster.put("couriers", "acme:busy", "1");
    }
    while client.expect("progress")["to"]["0"] != 5 {}
    drop(client);
    cluster.put("couriers", "acme:quiet", "1");
    let request = json!({ "channel": "couriers", "keys": ["quiet"], "from": resume(5) });
    let (mut client, subscribed) = server.subscriber("acme", request);
    assert_eq!(subscribed["positions"]["0"], 5);
    let frame = client.expect("records");
    assert_eq!((&frame["from"], &frame["records"][0]["offset"]), (&json!(5), &json!(5)));
}

#[test]
fn a_second_drop_repeats_nothing_and_loses_nothing() {
    let (cluster, server) = start(&[]);
    fill(&cluster, 9);
    let (mut got, mut position) = (Vec::new(), 0);
    for _ in 0..3 {
        let request = json!({ "channel": "prices", "from": resume(position), "window": 3 });
        let (mut client, _) = server.subscriber("acme", request);
        let until = got.len() + 3;
        // As a client counts that goes away in the middle of what it could have.
        while got.len() < until {
            let frame = client.expect("records");
            let records = frame["records"].as_array().expect("records").iter();
            got.extend(records.map(|record| record["offset"].as_i64().expect("an offset")));
            position = frame["to"].as_i64().expect("an offset");
        }
    }
    assert_eq!(got, (0..9).collect::<Vec<i64>>());
}

#[test]
fn a_position_is_the_next_offset_wanted() {
    let (cluster, server) = start(&[]);
    fill(&cluster, 3);
    let (mut client, _) =
        server.subscriber("acme", json!({ "channel": "prices", "from": resume(1) }));
    assert_eq!(records(&mut client, 2), [(1, json!(1)), (2, json!(2))]);
}

#[test]
fn one_bad_record_unsubscribes_nobody() {
    let (cluster, server) = start(&[]);
    let (mut client, _) = server.subscriber("acme", json!({ "channel": "couriers" }));
    client.expect("live");
    cluster.put("couriers", "without a tenant", "{not json");
    cluster.put("couriers", "acme:c-1", "{not json either");
    cluster.put("couriers", "acme:c-1", "1");
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        let frame = client.expect("records");
        let offsets = frame["records"].as_array().expect("records").iter();
        seen.extend(offsets.map(|record| record["offset"].as_i64().expect("an offset")));
    }
    assert_eq!(seen, BTreeSet::from([1, 2]));
}

#[test]
fn subscribe_unsubscribe_subscribe_in_one_breath_is_one_subscription() {
    let (cluster, server) = start(&[]);
    let (mut client, subscribed) = server.subscriber("acme", json!({ "channel": "prices" }));
    let sub = subscribed["sub"].clone();
    for frame in [
        json!({ "type": "unsubscribe", "id": 2, "sub": sub }),
        json!({ "type": "subscribe", "id": 3, "channel": "prices" }),
        json!({ "type": "unsubscribe", "id": 4, "sub": sub }),
        json!({ "type": "subscribe", "id": 5, "channel": "prices" }),
    ] {
        client.send(&frame);
    }
    // The one in the middle ends before it has begun, or after: both are right.
    let mut answers = Vec::new();
    while answers.last() != Some(&5) {
        let Incoming::Json(frame) = client.next() else { continue };
        assert_ne!(frame["type"], "error", "{frame}");
        answers.extend(frame["id"].as_i64());
    }
    answers.retain(|id| *id != 3);
    assert_eq!(answers, [2, 4, 5]);
    client.expect("live");
    cluster.put("prices", "EURUSD", "1");
    assert_eq!(records(&mut client, 1), [(0, json!(1))]);
    client.send(&json!({ "type": "ping" }));
    assert_eq!(client.next(), Incoming::Json(json!({ "type": "pong" })), "and only once");
}

#[test]
fn latest_is_not_earliest() {
    let (cluster, server) = start(&[]);
    fill(&cluster, 3);
    let (mut client, subscribed) =
        server.subscriber("acme", json!({ "channel": "prices", "from": "latest" }));
    assert_eq!(subscribed["positions"]["0"], 3);
    cluster.put("prices", "EURUSD", "\"new\"");
    assert_eq!(records(&mut client, 1), [(3, json!("new"))]);
}

#[test]
fn a_frame_that_would_have_to_be_inflated_is_refused_by_its_header() {
    let (_cluster, server) = start(&[]);
    let mut client = server.client("acme");
    let mut bomb = header(TEXT, 60_000);
    // RSV1, which nobody agreed on.
    bomb[0] |= 0x40;
    client.send_bytes(&bomb).expect("it is taken");
    assert_eq!(client.expect_close(), 1002);
}

#[test]
fn an_unknown_place_is_answered() {
    let (_cluster, server) = start(&[]);
    let from = json!({ "positions": { "0": 1 }, "topic_id": "a".repeat(32) });
    let (mut client, _) = server.subscriber("acme", json!({ "channel": "prices", "from": from }));
    assert_eq!(client.expect("gap")["reason"], "topic_recreated");
    client.expect("live");
}
