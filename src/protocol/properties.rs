//! What must hold of every frame, in both encodings.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::btree_map;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::protocol::close_code::CloseCode;
use crate::protocol::encode::RecordsEncoder;
use crate::protocol::encode::WireFrame;
use crate::protocol::encode::encode;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::frame::ClientFrame;
use crate::protocol::frame::Encoding;
use crate::protocol::frame::ErrorFrame;
use crate::protocol::frame::Gap;
use crate::protocol::frame::GapReason;
use crate::protocol::frame::OnGap;
use crate::protocol::frame::ServerFrame;
use crate::protocol::frame::StartAt;
use crate::protocol::frame::Subscribe;
use crate::protocol::frame::Token;
use crate::protocol::json;
use crate::protocol::message::OwnedRecord;
use crate::protocol::message::Records;
use crate::protocol::message::ServerMessage;
use crate::protocol::protobuf;
use crate::types::filter::KeyFilter;
use crate::types::ids::ChannelName;
use crate::types::ids::ConnectionId;
use crate::types::ids::LeaderEpoch;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::RequestId;
use crate::types::ids::SubId;
use crate::types::ids::TenantId;
use crate::types::ids::Timestamp;
use crate::types::ids::TopicId;
use crate::types::positions::Epochs;
use crate::types::positions::Place;
use crate::types::positions::Positions;
use crate::types::positions::Reached;
use crate::types::record::Headers;
use crate::types::record::Owner;
use crate::types::record::Record;
use crate::types::record::Value;

proptest! {
    #[test]
    fn a_clients_words_are_the_same_in_both_encodings(frame in client_frame()) {
        let text = json::encode_client(&frame);
        prop_assert_eq!(json::decode(&text).expect(&text), frame.clone());
        let bytes = protobuf::encode_client(&frame);
        prop_assert_eq!(protobuf::decode(&bytes).expect("own bytes"), frame);
    }

    #[test]
    fn a_servers_words_are_the_same_in_both_encodings(frame in server_frame()) {
        prop_assert_eq!(hear(&encode(&frame, Encoding::Json)), ServerMessage::Frame(frame.clone()));
        prop_assert_eq!(hear(&encode(&frame, Encoding::Protobuf)), ServerMessage::Frame(frame));
    }

    #[test]
    fn records_are_the_same_in_both_encodings(records in records()) {
        for encoding in [Encoding::Json, Encoding::Protobuf] {
            let ServerMessage::Records(mut heard) = hear(&tell(&records, encoding)) else {
                panic!("records are heard as records");
            };
            // JSON groups equal names; the values of one name keep their order.
            heard.records.iter_mut().for_each(|r| r.headers.sort_by(|a, b| a.0.cmp(&b.0)));
            prop_assert_eq!(&heard, &records, "{:?}", encoding);
        }
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = protobuf::decode(&bytes);
        let _ = protobuf::decode_server(Bytes::from(bytes.clone()));
        let text = String::from_utf8_lossy(&bytes);
        let _ = json::decode(&text);
        let _ = json::decode_server(&text);
    }

    #[test]
    fn a_broken_frame_is_an_error_and_no_panic(
        frame in client_frame(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = protobuf::encode_client(&frame);
        let index = at.index(bytes.len());
        bytes[index] = byte;
        let _ = protobuf::decode(&bytes);
        bytes.truncate(index);
        let _ = protobuf::decode(&bytes);
        let mut text = json::encode_client(&frame).into_bytes();
        let index = at.index(text.len());
        text[index] = byte;
        let _ = json::decode(&String::from_utf8_lossy(&text));
        text.truncate(index);
        prop_assert!(json::decode(&String::from_utf8_lossy(&text)).is_err());
    }

    #[test]
    fn a_token_is_in_no_error(
        token in "[A-Za-z0-9_-]{20}\\.[A-Za-z0-9_-]{20}\\.[A-Za-z0-9_-]{20}",
        frame in select(vec![
            r#"{"type":"authenticate","token":"T","x":1}"#,
            r#"{"type":"authenticate","token":["T"]}"#,
            r#"{"type":"authenticate","T":"token"}"#,
            r#"{"type":"T","token":"T"}"#,
            r#"{"type":"authenticate","token":"T"#,
            r#"{"type":"authenticate","token":"T\u12"}"#,
            r#"{"type":"subscribe","id":1,"channel":"c","from":"T"}"#,
            r#"{"type":"subscribe","id":1,"channel":"c","on_gap":"T"}"#,
            r#"{"type":"subscribe","id":1,"channel":"c","from":{"ago":"T"}}"#,
            r#"{"type":"subscribe","id":1,"channel":"c","from":{"positions":{"T":1},"topic_id":"T"}}"#,
            r#"{"type":"subscribe","id":"T","channel":"c"}"#,
            r#"{"type":"ack","sub":1,"positions":{},"T":"T"}"#,
            r#"{"type":"welcome","token":"T"}"#,
            "T",
        ]),
    ) {
        let text = frame.replace('T', &token);
        let error = json::decode(&text).expect_err(&text);
        prop_assert!(!printed(&error).contains(&token[..8]), "{}", error);
        let bytes = protobuf::encode_client(&ClientFrame::Authenticate { token: Token::new(token.clone()) });
        let heard = protobuf::decode(&bytes).expect("own bytes");
        prop_assert!(!printed(&heard).contains(&token[..8]));
        for cut in 0..bytes.len() {
            if let Err(error) = protobuf::decode(&bytes[..cut]) {
                prop_assert!(!printed(&error).contains(&token[..8]), "{}", error);
            }
        }
    }
}

fn printed(thing: &impl fmt::Debug) -> String {
    format!("{thing:?}")
}

/// Reads what the server wrote, as a client does.
fn hear(wire: &WireFrame) -> ServerMessage {
    let bytes = wire.bytes();
    let header_len = match bytes[1] {
        0..126 => 2,
        126 => 4,
        _ => 10,
    };
    let declared = match header_len {
        2 => usize::from(bytes[1]),
        4 => usize::from(u16::from_be_bytes([bytes[2], bytes[3]])),
        _ => u64::from_be_bytes(bytes[2..10].try_into().expect("eight bytes")) as usize,
    };
    let payload = bytes.slice(header_len..);
    assert_eq!(declared, payload.len());
    match bytes[0] {
        0x81 => json::decode_server(str::from_utf8(&payload).expect("a text is UTF-8")),
        0x82 => protobuf::decode_server(payload),
        first => panic!("first byte {first:#x}"),
    }
    .expect("what the server writes can be read")
}

fn tell(records: &Records, encoding: Encoding) -> WireFrame {
    let Records { sub, partition, from, to, epoch, records } = records;
    let mut encoder = RecordsEncoder::start(encoding, *sub, *partition, *from);
    for record in records {
        let headers: Vec<_> =
            record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let mut packed = Vec::new();
        Headers::pack(&headers, &mut packed);
        encoder.push(&Record {
            offset: record.offset,
            timestamp: record.timestamp.unwrap_or(Timestamp::from_millis(-1)),
            owner: Owner::Shared,
            key: record.key.as_deref(),
            value: value(record.value.as_deref()),
            headers: Headers::packed(&packed),
        });
    }
    assert_eq!(encoder.records(), records.len());
    encoder.finish(*to, *epoch)
}

fn value(value: Option<&[u8]>) -> Value<'_> {
    let Some(bytes) = value else { return Value::Null };
    match str::from_utf8(bytes) {
        // White space around a value is no part of it, so it is not heard.
        Ok(text) if text.trim() != text => Value::Bytes(bytes),
        Ok(text) if serde_json::from_str::<serde_json::Value>(text).is_ok() => Value::Json(text),
        _ => Value::Bytes(bytes),
    }
}

fn id() -> impl Strategy<Value = RequestId> {
    (0..1u64 << 53).prop_map(RequestId::new)
}

fn sub() -> impl Strategy<Value = SubId> {
    (0..1u64 << 53).prop_map(SubId::new)
}

fn offset() -> impl Strategy<Value = Offset> {
    prop_oneof![0..1_000i64, 0..i64::MAX]
        .prop_map(|raw| Offset::from_kafka(raw).expect("not negative"))
}

fn partition() -> impl Strategy<Value = PartitionId> {
    (0..=i32::MAX).prop_map(|raw| PartitionId::from_kafka(raw).expect("not negative"))
}

fn positions() -> impl Strategy<Value = Positions> {
    btree_map(partition(), offset(), 0..5)
}

fn epoch() -> impl Strategy<Value = Reached> {
    (0..=i32::MAX, offset()).prop_map(|(raw, to)| {
        let epoch = LeaderEpoch::from_kafka(raw).expect("not negative");
        Reached { epoch, to }
    })
}

fn epochs() -> impl Strategy<Value = Epochs> {
    btree_map(partition(), epoch(), 0..5)
}

fn topic_id() -> impl Strategy<Value = TopicId> {
    any::<(i64, i64)>().prop_map(|(high, low)| TopicId::from_kafka(high, low))
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    (0..253_370_764_799_999i64).prop_map(Timestamp::from_millis)
}

fn duration() -> impl Strategy<Value = Duration> {
    (0..36_500u64 * 86_400_000).prop_map(Duration::from_millis)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        vec(any::<u8>(), 0..40).prop_map(Bytes::from),
        any::<String>().prop_map(Bytes::from),
    ]
}

fn client_frame() -> impl Strategy<Value = ClientFrame> {
    prop_oneof![
        "\\PC{1,80}".prop_map(|text| ClientFrame::Authenticate { token: Token::new(text) }),
        subscribe().prop_map(ClientFrame::Subscribe),
        (id(), sub()).prop_map(|(id, sub)| ClientFrame::Unsubscribe { id, sub }),
        (sub(), positions()).prop_map(|(sub, positions)| ClientFrame::Ack { sub, positions }),
        Just(ClientFrame::Ping),
    ]
}

fn subscribe() -> impl Strategy<Value = Subscribe> {
    let filter = prop_oneof![
        Just(KeyFilter::All),
        vec(bytes(), 1..5).prop_map(KeyFilter::keys),
        bytes().prop_filter("a prefix is not empty", |b| !b.is_empty()).prop_map(KeyFilter::Prefix),
    ];
    let from = prop_oneof![
        Just(StartAt::Latest),
        Just(StartAt::Earliest),
        timestamp().prop_map(StartAt::Timestamp),
        duration().prop_map(StartAt::Ago),
        (topic_id(), positions(), epochs()).prop_map(|(topic_id, mut positions, epochs)| {
            for partition in epochs.keys() {
                positions.entry(*partition).or_insert(Offset::ZERO);
            }
            StartAt::Place(Place { topic_id, positions, epochs })
        }),
    ];
    let on_gap = prop_oneof![Just(OnGap::Continue), Just(OnGap::Stop)];
    let window = (0..=100_000u32).prop_map(NonZeroU32::new);
    (id(), "\\PC{1,40}", filter, from, on_gap, window).prop_map(
        |(id, channel, filter, from, on_gap, window)| Subscribe {
            id,
            channel: ChannelName::new(channel),
            filter,
            from,
            on_gap,
            window,
        },
    )
}

fn server_frame() -> impl Strategy<Value = ServerFrame> {
    let expiry = || option::of(timestamp());
    prop_oneof![
        (any::<u64>(), any::<String>(), duration(), expiry()).prop_map(
            |(connection, tenant, heartbeat, expires_at)| ServerFrame::Welcome {
                connection: ConnectionId::new(connection),
                tenant: TenantId::new(tenant),
                heartbeat,
                expires_at,
            }
        ),
        expiry().prop_map(|expires_at| ServerFrame::Renewed { expires_at }),
        timestamp().prop_map(|expires_at| ServerFrame::Expiring { expires_at }),
        (id(), sub(), any::<String>(), topic_id(), positions(), epochs()).prop_map(
            |(id, sub, channel, topic_id, positions, epochs)| ServerFrame::Subscribed {
                id,
                sub,
                channel: ChannelName::new(channel),
                topic_id,
                positions,
                epochs,
            }
        ),
        (sub(), positions(), epochs()).prop_map(|(sub, to, epochs)| ServerFrame::Progress {
            sub,
            to,
            epochs
        }),
        gap().prop_map(ServerFrame::Gap),
        sub().prop_map(|sub| ServerFrame::Live { sub }),
        (id(), sub()).prop_map(|(id, sub)| ServerFrame::Unsubscribed { id, sub }),
        error().prop_map(ServerFrame::Error),
        (select(&CloseCode::ALL[..]), option::of(duration()))
            .prop_map(|(code, retry_after)| ServerFrame::Closing { code, retry_after }),
        Just(ServerFrame::Pong),
    ]
}

fn gap() -> impl Strategy<Value = Gap> {
    let place = (sub(), partition(), offset(), offset());
    (place, select(&GapReason::ALL[..]), option::of(topic_id())).prop_map(
        |((sub, partition, from, to), reason, topic_id)| Gap {
            sub,
            partition,
            from,
            to,
            reason,
            topic_id,
        },
    )
}

fn error() -> impl Strategy<Value = ErrorFrame> {
    let ids = (option::of(id()), option::of(sub()));
    (ids, select(&ErrorCode::ALL[..]), any::<String>(), option::of(duration())).prop_map(
        |((id, sub), code, message, retry_after)| ErrorFrame {
            id,
            sub,
            code,
            message,
            retry_after,
        },
    )
}

fn records() -> impl Strategy<Value = Records> {
    let range = (offset(), offset(), option::of(epoch()));
    (sub(), partition(), range, vec(record(), 0..4)).prop_map(
        |(sub, partition, (from, to, epoch), records)| Records {
            sub,
            partition,
            from,
            to,
            epoch,
            records,
        },
    )
}

fn record() -> impl Strategy<Value = OwnedRecord> {
    let json = select(vec![
        "{\"a\": [1, 2.50, \"\\u00e9\\ud83d\\ude00\"]}",
        "{\"a\":1,\"a\":2}",
        "1e400",
        "{\n \"deep\" : {} }",
        "\"\"",
        "null",
        "true",
    ]);
    let value = prop_oneof![
        Just(None),
        json.prop_map(|text| Some(Bytes::from(text))),
        bytes().prop_map(Some),
    ];
    let headers = vec((select(vec!["", "a", "b", "tracé\"\n"]), option::of(bytes())), 0..20);
    let stamp = option::of(0..i64::MAX).prop_map(|raw| raw.map(Timestamp::from_millis));
    (offset(), stamp, option::of(bytes()), value, headers).prop_map(
        |(offset, timestamp, key, value, mut headers)| {
            headers.sort_by_key(|(name, _)| *name);
            OwnedRecord {
                offset,
                timestamp,
                key,
                value,
                headers: headers.into_iter().map(|(n, v)| (n.to_owned(), v)).collect(),
            }
        },
    )
}
