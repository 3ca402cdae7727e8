//! Positions from strangers on Apache Kafka, where topics have ids: each is answered
//! by its code and its sentence, brings nothing back, and the connection goes on.

use brucke::protocol::error_code::ErrorCode;
use brucke::protocol::frame::ClientFrame;
use brucke::protocol::frame::ErrorFrame;
use brucke::protocol::frame::OnGap;
use brucke::protocol::frame::ServerFrame;
use brucke::protocol::frame::StartAt;
use brucke::protocol::frame::Subscribe;
use brucke::protocol::frame::Token;
use brucke::protocol::message::ServerMessage;
use brucke::protocol::protobuf;
use brucke::types::filter::KeyFilter;
use brucke::types::ids::ChannelName;
use brucke::types::ids::PartitionId;
use brucke::types::ids::RequestId;
use brucke::types::ids::TopicId;
use brucke::types::limits::PARTITIONS_MAX;
use brucke::types::positions::Place;
use bytes::Bytes;
use serde_json::Value;
use serde_json::json;

use crate::support::kafka_client::NewRecord;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::fresh_topic;
use crate::support::kafka_rig::offset;
use crate::support::raw_client::BINARY;
use crate::support::raw_client::Incoming;
use crate::support::raw_client::RawClient;
use crate::support::server_process::ServerProcess;
use crate::support::server_process::token;

#[test]
fn a_place_in_another_tenants_topic_is_one_in_a_topic_that_never_was() {
    let stage = Stage::begin("theirs");
    let mut client = stage.client("acme");
    let own = stage.topic_id("acme");
    let answers = [stage.topic_id("blub"), "f".repeat(32)].map(|strange| {
        let from = json!({ "positions": { "0": 2 }, "topic_id": strange });
        let (before, error) = refused(&mut client, &from);
        check_error(&error, "gap", GONE);
        assert_eq!(before[0]["type"], "subscribed");
        assert_eq!(before[0]["topic_id"], strange, "it begins where it was asked to");
        assert_eq!(before[0]["positions"], json!({ "0": 2, "1": 0 }));
        assert_eq!(gaps(&before[1..]), [(0, 2, 0), (1, 0, 0)]);
        for gap in &before[1..] {
            let told = (&gap["reason"], &gap["topic_id"]);
            assert_eq!(told, (&json!("topic_recreated"), &json!(own)));
        }
        json!([before, error]).to_string().replace(&strange, "STRANGE")
    });
    assert_eq!(answers[0], answers[1], "whether a topic is there is nobody's business");
    stage.goes_on(&mut client);

    // Who goes on after the gap reads the own topic, and nothing of the other.
    let from = json!({ "positions": { "0": 2 }, "topic_id": stage.topic_id("blub") });
    let mut client = stage.client("acme");
    client.send(&json!({ "type": "subscribe", "id": 7, "channel": "feed", "from": from }));
    assert_eq!(client.expect("gap")["to"], 0);
    assert_eq!(client.values(4), ["acme", "acme", "acme", "next"]);
}

#[test]
fn many_positions_in_another_topic_are_each_told_to_be_gone_and_bring_nothing() {
    let stage = Stage::begin("many");
    let mut client = stage.client("acme");
    let positions: serde_json::Map<String, Value> =
        (0..MANY).map(|partition| (partition.to_string(), json!(1))).collect();
    let from = json!({ "positions": positions, "topic_id": stage.topic_id("blub") });
    let (before, error) = refused(&mut client, &from);
    check_error(&error, "gap", GONE);
    let mut told = gaps(&before[1..]);
    told.sort_unstable();
    assert_eq!(told, (0..MANY).map(|partition| (partition, 1, 0)).collect::<Vec<_>>());
    stage.goes_on(&mut client);
}

#[test]
fn positions_that_the_own_topic_does_not_have_are_refused() {
    let stage = Stage::begin("own");
    let mut client = stage.client("acme");
    let own = stage.topic_id("acme");
    let mut check = |positions: Value, told: &[(u64, u64, u64)], code: &str, message: &str| {
        let from = json!({ "positions": positions, "topic_id": own });
        let (before, error) = refused(&mut client, &from);
        check_error(&error, code, message);
        assert_eq!(gaps(before.get(1..).unwrap_or_default()), told);
    };
    let seventh = "position names partition 7, and the topic has 2";
    check(json!({ "7": 1 }), &[], "unknown_partition", seventh);
    let many: serde_json::Map<String, Value> =
        (0..MANY).map(|partition| (partition.to_string(), json!(1))).collect();
    let third = "position names partition 2, and the topic has 2";
    check(Value::Object(many), &[], "unknown_partition", third);
    let most = i64::MAX.cast_unsigned();
    check(json!({ "0": most }), &[(0, most, 3)], "gap", GONE);
    let text = "the position of partition 0 is above 2^63 - 1";
    check(json!({ "0": most + 1 }), &[], "invalid_argument", text);
    stage.goes_on(&mut client);
}

#[test]
fn epochs_that_no_frame_brought_are_refused() {
    let stage = Stage::begin("epochs");
    let mut client = stage.client("acme");
    let own = stage.topic_id("acme");
    let mut check = |epochs: Value, code: &str, retry: bool, message: &str| {
        let from = json!({ "positions": { "0": 3 }, "epochs": epochs, "topic_id": own });
        let (before, error) = refused(&mut client, &from);
        let told = (&error["code"], &error["message"], &error["retry"]);
        assert_eq!(told, (&json!(code), &json!(message), &json!(retry)), "{error}");
        assert!(before.is_empty(), "{before:?}");
    };
    let never = "the leader of partition 0 knows no leader epoch 1000: try again, and where that \
                 does not help, without `epochs`";
    check(json!({ "0": [1_000, 3] }), "unavailable", true, never);
    let strange = "`epochs` names partition 1, of which `positions` says nothing";
    check(json!({ "1": [0, 0] }), "invalid_argument", false, strange);
    let high = "a leader epoch is above 2^31 - 1";
    check(json!({ "0": [1_u64 << 31, 3] }), "invalid_argument", false, high);
    stage.goes_on(&mut client);
}

/// Only protobuf writes so many within one message: 0 costs nothing there.
#[test]
fn one_position_more_than_allowed_is_refused_and_as_many_are_not() {
    let stage = Stage::begin("limit");
    let protobuf = "Sec-WebSocket-Protocol: brucke.v1.protobuf";
    let mut client = RawClient::connect(stage.server.clients, &[protobuf]).expect("a WebSocket");
    say(&mut client, &ClientFrame::Authenticate { token: Token::new(token("acme")) });
    let ServerFrame::Welcome { .. } = hear(&mut client) else { panic!("no welcome") };
    let topic_id = TopicId::from_client(&stage.topic_id("acme")).expect("an id");
    // At the end of the one partition that has records.
    let position = |index| if index == 0 { offset(3) } else { offset(0) };
    let subscribe = |id: u64, count: usize| {
        let positions =
            (0..count).map(|index| (PartitionId::from_index(index), position(index))).collect();
        ClientFrame::Subscribe(Subscribe {
            id: RequestId::new(id),
            channel: ChannelName::new("feed"),
            filter: KeyFilter::All,
            from: StartAt::Place(Place::new(topic_id, positions)),
            on_gap: OnGap::Continue,
            window: None,
        })
    };
    say(&mut client, &subscribe(7, PARTITIONS_MAX + 1));
    let expected = ErrorFrame {
        id: Some(RequestId::new(7)),
        sub: None,
        code: ErrorCode::LimitExceeded,
        message: "`positions` names more than 10000 partitions".to_owned(),
        retry_after: None,
    };
    assert_eq!(hear(&mut client), ServerFrame::Error(expected));
    say(&mut client, &ClientFrame::Ping);
    assert_eq!(hear(&mut client), ServerFrame::Pong, "and nothing else");

    say(&mut client, &subscribe(8, PARTITIONS_MAX));
    let ServerFrame::Subscribed { positions, .. } = hear(&mut client) else {
        panic!("as many as allowed are taken");
    };
    let positions: Vec<_> = positions.into_values().collect();
    assert_eq!(positions, [offset(3), offset(0)], "those that the topic has not are at 0");
    let ServerFrame::Live { .. } = hear(&mut client) else { panic!("it is at the end") };
    stage.write_next();
    let ServerMessage::Records(records) = hear_any(&mut client) else { panic!("no records") };
    assert_eq!((records.from, records.records.len()), (offset(3), 1));
}

/// A topic for each of two tenants, and a replica that shows each its own.
struct Stage {
    topic: String,
    server: ServerProcess,
}

impl Stage {
    fn begin(purpose: &str) -> Self {
        let topic = fresh_topic(purpose);
        let cluster = KafkaCluster::shared();
        for tenant in ["acme", "blub"] {
            let topic = format!("{tenant}.{topic}");
            cluster.admin().create_topic(&topic, 2, &[]);
            let value = json!(tenant).to_string();
            cluster.producer().send(&topic, &[NewRecord::new(0, "k", &value); 3]);
        }
        let channels = format!("[[channels]]\nname = \"feed\"\ntopic = \"{{tenant}}.{topic}\"\n");
        Self { topic, server: ServerProcess::start(&channels) }
    }

    fn client(&self, tenant: &str) -> RawClient {
        let mut client = RawClient::connect(self.server.clients, &[]).expect("a WebSocket");
        client.send(&json!({ "type": "authenticate", "token": token(tenant) }));
        client.expect("welcome");
        client
    }

    /// Returns the id of a tenant's topic, as the tenant is told.
    fn topic_id(&self, tenant: &str) -> String {
        let mut client = self.client(tenant);
        client.send(&json!({ "type": "subscribe", "id": 1, "channel": "feed" }));
        let subscribed = client.expect("subscribed");
        subscribed["topic_id"].as_str().expect("an id").to_owned()
    }

    fn write_next(&self) {
        let topic = format!("acme.{}", self.topic);
        KafkaCluster::shared().producer().send(&topic, &[NewRecord::new(0, "k", "\"next\"")]);
    }

    /// A client that was refused resumes at the end on the same connection, and the
    /// next that it hears of is the next record.
    fn goes_on(&self, client: &mut RawClient) {
        let place = json!({ "positions": { "0": 3 }, "topic_id": self.topic_id("acme") });
        client.send(&json!({ "type": "subscribe", "id": 8, "channel": "feed", "from": place }));
        for kind in ["subscribed", "live"] {
            let Incoming::Json(frame) = client.next() else { panic!("no {kind}") };
            assert_eq!(frame["type"], kind, "{frame}");
        }
        self.write_next();
        let Incoming::Json(frame) = client.next() else { panic!("no records") };
        assert_eq!((&frame["type"], &frame["from"]), (&json!("records"), &json!(3)), "{frame}");
        assert_eq!(frame["records"][0]["value"], "next");
    }
}

/// Asks from a place, to stop where something is gone; returns what comes before the
/// error, and the error. After it comes the answer to a ping, and nothing else.
fn refused(client: &mut RawClient, from: &Value) -> (Vec<Value>, Value) {
    client.send(&json!({
        "type": "subscribe", "id": 7, "channel": "feed", "from": from, "on_gap": "stop",
    }));
    let mut before = Vec::new();
    let error = loop {
        let Incoming::Json(frame) = client.next() else { panic!("no answer to {from}") };
        if frame["type"] == "error" {
            break frame;
        }
        before.push(frame);
    };
    client.send(&json!({ "type": "ping" }));
    assert_eq!(client.next(), Incoming::Json(json!({ "type": "pong" })), "{from}");
    (before, error)
}

fn check_error(error: &Value, code: &str, message: &str) {
    let told = (&error["code"], &error["message"], &error["retry"]);
    assert_eq!(told, (&json!(code), &json!(message), &json!(false)), "{error}");
}

/// Returns partition, begin and end of gaps; there may be nothing else.
fn gaps(frames: &[Value]) -> Vec<(u64, u64, u64)> {
    let number = |value: &Value| value.as_u64().expect("a number");
    let gap = |frame: &Value| {
        assert_eq!(frame["type"], "gap", "{frame}");
        (number(&frame["partition"]), number(&frame["from"]), number(&frame["to"]))
    };
    frames.iter().map(gap).collect()
}

fn say(client: &mut RawClient, frame: &ClientFrame) {
    client.send_message(BINARY, &protobuf::encode_client(frame));
}

fn hear_any(client: &mut RawClient) -> ServerMessage {
    let Incoming::Binary(bytes) = client.next() else { panic!("not protobuf") };
    protobuf::decode_server(Bytes::from(bytes)).expect("a message")
}

fn hear(client: &mut RawClient) -> ServerFrame {
    match hear_any(client) {
        ServerMessage::Frame(frame) => frame,
        other => panic!("{other:?} comes again"),
    }
}

/// What who asked to stop at a gap is told.
const GONE: &str = "wanted offsets are gone and on_gap is stop: subscribe again";
/// As many positions as one message in JSON has room for, and a few less.
const MANY: u64 = 4_000;
