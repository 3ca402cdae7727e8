//! The `records` frame, written record by record. This is the hot path of
//! protobuf, so it is written by hand; a test reads it by `proto/`.

use prost::encoding::encode_varint;
use prost::encoding::encoded_len_varint;

use crate::protocol::websocket::write::HEADER_BYTES_MAX;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::SubId;
use crate::types::positions::Reached;
use crate::types::record::Headers;
use crate::types::record::Record;

/// Room before the payload: for the WebSocket header, and for the key and the
/// length of `records`, which is known last.
pub(crate) const ROOM_BYTES: usize = HEADER_BYTES_MAX + 1 + VARINT_BYTES_MAX;
const VARINT_BYTES_MAX: usize = 10;

/// The key of a field: number and wire type.
const fn varint_key(field: u8) -> u8 {
    field << 3
}

const fn bytes_key(field: u8) -> u8 {
    field << 3 | 2
}

/// Writes all that stands before the first record.
pub(crate) fn start(out: &mut Vec<u8>, sub: SubId, partition: PartitionId, from: Offset) {
    write_number(out, 1, sub.raw());
    write_number(out, 2, partition.as_u32().into());
    write_number(out, 3, from.as_u64());
}

/// Writes one record.
pub(crate) fn push(out: &mut Vec<u8>, record: &Record<'_>) {
    let millis = Some(record.timestamp.as_millis()).filter(|millis| *millis != -1);
    let millis = millis.map(i64::cast_unsigned);
    let value = record.value.as_bytes();
    let headers_len: usize = match record.headers.is_empty() {
        true => 0,
        false => record.headers.map(|header| field_len(header_len(header))).sum(),
    };
    let len = 1
        + encoded_len_varint(record.offset.as_u64())
        + millis.map_or(0, |millis| 1 + encoded_len_varint(millis))
        + record.key.map_or(0, |key| field_len(key.len()))
        + headers_len
        + value.map_or(0, |value| field_len(value.len()));
    out.reserve(field_len(len));
    out.push(bytes_key(5));
    encode_varint(len as u64, out);
    write_number(out, 1, record.offset.as_u64());
    if let Some(millis) = millis {
        write_number(out, 2, millis);
    }
    if let Some(key) = record.key {
        write_bytes(out, 3, key);
    }
    write_headers(out, record.headers);
    if let Some(value) = value {
        write_bytes(out, 5, value);
    }
}

/// Writes all that stands after the last record, and the key and length of the
/// whole in the room before it. Returns where the payload starts.
pub(crate) fn finish(out: &mut Vec<u8>, to: Offset, epoch: Option<Reached>) -> usize {
    write_number(out, 4, to.as_u64());
    if let Some(Reached { epoch, to }) = epoch {
        let (epoch, to) = (u64::from(epoch.as_u32()), to.as_u64());
        out.push(bytes_key(6));
        let len = 2 + encoded_len_varint(epoch) + encoded_len_varint(to);
        encode_varint(len as u64, out);
        write_number(out, 1, epoch);
        write_number(out, 2, to);
    }
    let len = (out.len() - ROOM_BYTES) as u64;
    let start = ROOM_BYTES - encoded_len_varint(len) - 1;
    out[start] = bytes_key(1);
    encode_varint(len, &mut &mut out[start + 1..ROOM_BYTES]);
    start
}

fn write_headers(out: &mut Vec<u8>, headers: Headers<'_>) {
    for (name, value) in headers {
        out.push(bytes_key(4));
        encode_varint(header_len((name, value)) as u64, out);
        write_bytes(out, 1, name.as_bytes());
        if let Some(value) = value {
            write_bytes(out, 2, value);
        }
    }
}

fn header_len((name, value): (&str, Option<&[u8]>)) -> usize {
    field_len(name.len()) + value.map_or(0, |value| field_len(value.len()))
}

/// Returns the length of a field of so many bytes, its key included.
fn field_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

fn write_number(out: &mut Vec<u8>, field: u8, number: u64) {
    out.push(varint_key(field));
    encode_varint(number, out);
}

fn write_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(bytes_key(field));
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}
