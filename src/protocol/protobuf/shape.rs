//! Which fields a client's message may have.
//!
//! Protobuf skips what it does not know. A server that skipped a newer
//! client's filter would send what was not asked for, so a client's bytes are
//! checked before they are read.

use prost::encoding::WireType;
use prost::encoding::decode_key;
use prost::encoding::decode_varint;

use crate::protocol::decode_error::DecodeError;

/// The fields of one message.
#[derive(Debug)]
pub(crate) struct Shape {
    name: &'static str,
    /// Field numbers, with the shape of those that are messages.
    fields: &'static [(u32, Option<&'static Shape>)],
}

include!(concat!(env!("OUT_DIR"), "/shapes.rs"));

impl Shape {
    /// Checks that `bytes` have no other fields than these, at any depth. The
    /// depth is that of the shapes, which is small.
    pub(crate) fn check(&self, mut bytes: &[u8]) -> Result<(), DecodeError> {
        while !bytes.is_empty() {
            let (number, wire_type) = decode_key(&mut bytes).map_err(|_| self.broken())?;
            let Some((_, inner)) = self.fields.iter().find(|(known, _)| *known == number) else {
                let name = self.name;
                return Err(DecodeError::bad_frame(format!("unknown field {number} in {name}")));
            };
            let payload = self.take_payload(wire_type, &mut bytes)?;
            if let (Some(inner), WireType::LengthDelimited) = (inner, wire_type) {
                inner.check(payload)?;
            }
        }
        Ok(())
    }

    /// Takes the value of a field; empty for a number.
    fn take_payload<'a>(
        &self,
        wire_type: WireType,
        bytes: &mut &'a [u8],
    ) -> Result<&'a [u8], DecodeError> {
        let len = match wire_type {
            WireType::Varint => {
                decode_varint(bytes).map_err(|_| self.broken())?;
                return Ok(&[]);
            }
            WireType::LengthDelimited => decode_varint(bytes).map_err(|_| self.broken())?,
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::StartGroup | WireType::EndGroup => return Err(self.broken()),
        };
        let (payload, rest) = usize::try_from(len)
            .ok()
            .and_then(|len| bytes.split_at_checked(len))
            .ok_or_else(|| self.broken())?;
        *bytes = rest;
        Ok(payload)
    }

    fn broken(&self) -> DecodeError {
        DecodeError::bad_frame(format!("the bytes are no {} of brucke.v1", self.name))
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use crate::protocol::error_code::ErrorCode;
    use crate::protocol::protobuf::client::read;
    use crate::protocol::protobuf::wire;

    fn check(bytes: &[u8], id: Option<u64>, sentence: &str) {
        let error = read(bytes).expect_err("not a frame");
        assert_eq!((error.id.map(|id| id.raw()), error.code), (id, ErrorCode::BadFrame), "{error}");
        assert!(error.message.contains(sentence), "{error}");
    }

    #[test]
    fn unknown_fields_are_refused_at_any_depth() {
        check(&[], None, "must hold one of");
        check(&[0x0a], None, "no ClientMessage");
        check(&[0x32, 0], None, "unknown field 6 in ClientMessage");
        // ping { 1: 1 }
        check(&[0x2a, 2, 0x08, 1], None, "unknown field 1 in Ping");
        // subscribe { id: 7, channel: "c", place { 4: "" } }
        check(
            &[0x12, 9, 8, 7, 0x12, 1, b'c', 0x4a, 2, 0x22, 0],
            Some(7),
            "unknown field 4 in Place",
        );
        // subscribe { id: 7, channel: "c", place { positions { 1: 0, 3: 0 } } }
        let entry = [0x12, 13, 8, 7, 0x12, 1, b'c', 0x4a, 6, 0x12, 4, 8, 0, 0x18, 0];
        check(&entry, Some(7), "unknown field 3 in Place.PositionsEntry");
        // A group of an unknown number.
        check(&[0x2a, 2, 0x0b, 0x0c], None, "");
    }

    #[test]
    fn absent_fields_have_their_defaults() {
        let subscribe = wire::Subscribe { channel: "c".to_owned(), ..Default::default() };
        let frame = wire::client_message::Frame::Subscribe(subscribe);
        let bytes = wire::ClientMessage { frame: Some(frame) }.encode_to_vec();
        let json = r#"{"type":"subscribe","id":0,"channel":"c"}"#;
        assert_eq!(read(&bytes), crate::protocol::json::decode(json));
    }
}
