//! From words to bytes ready for the socket.

use bytes::Bytes;

use crate::protocol::frame::Encoding;
use crate::protocol::frame::ServerFrame;
use crate::protocol::json;
use crate::protocol::protobuf;
use crate::protocol::websocket::write::HEADER_BYTES_MAX;
use crate::protocol::websocket::write::MessageKind;
use crate::protocol::websocket::write::seal;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::SubId;
use crate::types::positions::Reached;
use crate::types::record::Record;

/// One whole WebSocket message of the server's, header and all, ready for the
/// socket and shared by everybody who gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireFrame(Bytes);

impl WireFrame {
    /// Wraps bytes that are a whole WebSocket frame.
    pub fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// Returns the bytes for the socket.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

/// Returns `frame`, encoded and framed.
pub fn encode(frame: &ServerFrame, encoding: Encoding) -> WireFrame {
    let mut out = Vec::with_capacity(256);
    out.resize(HEADER_BYTES_MAX, 0);
    match encoding {
        Encoding::Json => {
            json::server::write(&mut out, frame);
            seal(out, HEADER_BYTES_MAX, MessageKind::Text)
        }
        Encoding::Protobuf => {
            protobuf::server::write(&mut out, frame);
            seal(out, HEADER_BYTES_MAX, MessageKind::Binary)
        }
    }
}

/// Writes one `records` frame, record by record, into one buffer that becomes
/// the wire frame as it is.
#[derive(Debug)]
pub struct RecordsEncoder {
    encoding: Encoding,
    /// Room for the headers, then what is written so far.
    out: Vec<u8>,
    records: usize,
}

impl RecordsEncoder {
    /// Begins a frame that covers `partition` from `from` on.
    pub fn start(encoding: Encoding, sub: SubId, partition: PartitionId, from: Offset) -> Self {
        let mut out = Vec::with_capacity(512);
        match encoding {
            Encoding::Json => {
                out.resize(HEADER_BYTES_MAX, 0);
                json::records::start(&mut out, sub, partition, from);
            }
            Encoding::Protobuf => {
                out.resize(protobuf::records::ROOM_BYTES, 0);
                protobuf::records::start(&mut out, sub, partition, from);
            }
        }
        Self { encoding, out, records: 0 }
    }

    /// Adds a record; offsets must grow.
    pub fn push(&mut self, record: &Record<'_>) {
        self.records += 1;
        match self.encoding {
            Encoding::Json => json::records::push(&mut self.out, record),
            Encoding::Protobuf => protobuf::records::push(&mut self.out, record),
        }
    }

    /// Returns how many records the frame has.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Returns how many bytes the frame has so far, a few for its headers
    /// included.
    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    /// Ends the frame, which covers all up to `to`, exclusive, and says in whose log
    /// stood what was read.
    pub fn finish(mut self, to: Offset, epoch: Option<Reached>) -> WireFrame {
        match self.encoding {
            Encoding::Json => {
                json::records::finish(&mut self.out, to, epoch);
                seal(self.out, HEADER_BYTES_MAX, MessageKind::Text)
            }
            Encoding::Protobuf => {
                let start = protobuf::records::finish(&mut self.out, to, epoch);
                seal(self.out, start, MessageKind::Binary)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ids::LeaderEpoch;
    use crate::types::ids::Timestamp;
    use crate::types::record::Headers;
    use crate::types::record::Owner;
    use crate::types::record::Value;

    type Header<'a> = (&'a str, Option<&'a [u8]>);

    fn check_record(
        key: Option<&[u8]>,
        value: Value<'_>,
        headers: &[Header<'_>],
        millis: i64,
        expected: &str,
    ) {
        let mut packed = Vec::new();
        Headers::pack(headers, &mut packed);
        let from = Offset::from_kafka(43).expect("not negative");
        let mut encoder =
            RecordsEncoder::start(Encoding::Json, SubId::new(7), PartitionId::from_index(1), from);
        encoder.push(&Record {
            offset: from.next(),
            timestamp: Timestamp::from_millis(millis),
            owner: Owner::Tenant("acme"),
            key,
            value,
            headers: Headers::packed(&packed),
        });
        let to = Offset::from_kafka(57).expect("not negative");
        let epoch = LeaderEpoch::from_kafka(3).expect("not negative");
        let wire = encoder.finish(to, Some(Reached { epoch, to }));
        let text = format!(
            "{{\"type\":\"records\",\"sub\":7,\"partition\":1,\"from\":43,\
             \"records\":[{{\"offset\":44,{expected}}}],\"to\":57,\"epoch\":[3,57]}}"
        );
        let header_len = if text.len() < 126 { 2 } else { 4 };
        assert_eq!(str::from_utf8(&wire.bytes()[header_len..]), Ok(text.as_str()));
    }

    #[test]
    fn a_json_value_is_embedded_byte_for_byte() {
        let odd = "{ \"a\":1.50, \"a\":2,\n\"\\u00e9\":\"\u{2028}\" }";
        let expected = format!("\"timestamp\":5,\"key\":\"k\",\"value\":{odd}");
        check_record(Some(b"k"), Value::Json(odd), &[], 5, &expected);
    }

    #[test]
    fn what_json_cannot_say_travels_as_base64() {
        check_record(
            Some(b"\xff"),
            Value::Bytes(b"{"),
            &[],
            -1,
            r#""key_base64":"/w==","value_base64":"ew==""#,
        );
        check_record(Some(b""), Value::Null, &[], -1, r#""key":"","value":null"#);
        // Not a tombstone, and never to be taken for one.
        check_record(None, Value::Json(" null "), &[], -1, r#""value_base64":"IG51bGwg""#);
        check_record(
            Some(b"a\"\\\n\x01"),
            Value::Null,
            &[],
            -1,
            r#""key":"a\"\\\n\u0001","value":null"#,
        );
    }

    #[test]
    fn repeated_header_names_lose_nothing() {
        let headers: &[Header<'_>] =
            &[("b", Some(b"1")), ("a", Some(b"\xff")), ("b", None), ("b", Some(b"2"))];
        let expected = r#""headers":{"a":{"base64":"/w=="},"b":["1",null,"2"]},"value":null"#;
        check_record(None, Value::Null, headers, -1, expected);
        let headers: &[Header<'_>] = &[("b", Some(b"1")), ("a", None)];
        check_record(
            None,
            Value::Null,
            headers,
            -1,
            r#""headers":{"b":"1","a":null},"value":null"#,
        );
    }

    #[test]
    fn a_frame_of_any_size_has_the_right_header() {
        for (len, header) in [(60, 2), (1_000, 4), (70_000, 10)] {
            for encoding in [Encoding::Json, Encoding::Protobuf] {
                let value = vec![b'1'; len];
                let mut encoder = RecordsEncoder::start(
                    encoding,
                    SubId::new(1),
                    PartitionId::from_index(0),
                    Offset::ZERO,
                );
                encoder.push(&Record {
                    offset: Offset::ZERO,
                    timestamp: Timestamp::from_millis(-1),
                    owner: Owner::Shared,
                    key: None,
                    value: Value::Json(str::from_utf8(&value).expect("digits")),
                    headers: Headers::default(),
                });
                assert!(encoder.bytes() > len);
                let wire = encoder.finish(Offset::ZERO.next(), None);
                let bytes = wire.bytes();
                let expected = match encoding {
                    // The text around the value makes a short frame a medium one.
                    Encoding::Json => header.max(4),
                    Encoding::Protobuf => header,
                };
                let found = match bytes[1] {
                    126 => 4,
                    127 => 10,
                    _ => 2,
                };
                assert_eq!(found, expected, "{len} {encoding:?}");
            }
        }
    }
}
