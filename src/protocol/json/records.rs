//! The `records` frame, written record by record. This is the hot path of JSON.

use smallvec::SmallVec;

use crate::protocol::json::text::ObjectWriter;
use crate::protocol::json::text::write_base64;
use crate::protocol::json::text::write_epoch;
use crate::protocol::json::text::write_number;
use crate::protocol::json::text::write_string;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::SubId;
use crate::types::positions::Reached;
use crate::types::record::Headers;
use crate::types::record::Record;
use crate::types::record::Value;

/// Headers up to which repeated names are looked for by comparing all pairs.
const PAIRWISE_HEADERS_MAX: usize = 16;

/// Writes all that stands before the first record.
pub(crate) fn start(out: &mut Vec<u8>, sub: SubId, partition: PartitionId, from: Offset) {
    out.extend_from_slice(b"{\"type\":\"records\",\"sub\":");
    write_number(out, sub.raw());
    out.extend_from_slice(b",\"partition\":");
    write_number(out, partition.as_u32());
    out.extend_from_slice(b",\"from\":");
    write_number(out, from.as_u64());
    out.extend_from_slice(b",\"records\":[");
}

/// Writes one record, with the comma after the one before it.
pub(crate) fn push(out: &mut Vec<u8>, record: &Record<'_>) {
    // The list is still empty exactly when its bracket is the last byte: a
    // record ends with a brace.
    if out.last() != Some(&b'[') {
        out.push(b',');
    }
    out.reserve(record.value.as_bytes().map_or(0, <[u8]>::len) + 128);
    out.extend_from_slice(b"{\"offset\":");
    write_number(out, record.offset.as_u64());
    let millis = record.timestamp.as_millis();
    if millis != -1 {
        out.extend_from_slice(b",\"timestamp\":");
        write_number(out, millis);
    }
    if let Some(key) = record.key {
        write_key(out, key);
    }
    if !record.headers.is_empty() {
        out.extend_from_slice(b",\"headers\":");
        write_headers(out, record.headers);
    }
    write_value(out, record.value);
    out.push(b'}');
}

/// Writes all that stands after the last record.
pub(crate) fn finish(out: &mut Vec<u8>, to: Offset, epoch: Option<Reached>) {
    out.extend_from_slice(b"],\"to\":");
    write_number(out, to.as_u64());
    if let Some(epoch) = epoch {
        out.extend_from_slice(b",\"epoch\":");
        write_epoch(out, epoch);
    }
    out.push(b'}');
}

fn write_key(out: &mut Vec<u8>, key: &[u8]) {
    match str::from_utf8(key) {
        Ok(text) => {
            out.extend_from_slice(b",\"key\":");
            write_string(out, text);
        }
        Err(_) => {
            out.extend_from_slice(b",\"key_base64\":");
            write_base64(out, key);
        }
    }
}

fn write_value(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Null => out.extend_from_slice(b",\"value\":null"),
        Value::Json(text) if !is_json_null(text) => {
            out.extend_from_slice(b",\"value\":");
            out.extend_from_slice(text.as_bytes());
        }
        // The four letters `null` as a value: not a tombstone, and `value`
        // alone could not tell the two apart.
        Value::Json(text) => {
            out.extend_from_slice(b",\"value_base64\":");
            write_base64(out, text.as_bytes());
        }
        Value::Bytes(bytes) => {
            out.extend_from_slice(b",\"value_base64\":");
            write_base64(out, bytes);
        }
    }
}

fn is_json_null(text: &str) -> bool {
    text.bytes().find(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) == Some(b'n')
}

type Header<'a> = (&'a str, Option<&'a [u8]>);

fn write_headers(out: &mut Vec<u8>, headers: Headers<'_>) {
    let mut headers: SmallVec<[Header<'_>; PAIRWISE_HEADERS_MAX]> = headers.collect();
    if !names_differ(&headers) {
        // Stable, so that the values of one name keep their order.
        headers.sort_by_key(|(name, _)| *name);
    }
    let mut object = ObjectWriter::open(out);
    for group in headers.chunk_by(|(one, _), (other, _)| one == other) {
        let (name, first) = group[0];
        let out = object.field(name);
        if group.len() == 1 {
            write_header_value(out, first);
            continue;
        }
        for (index, (_, value)) in group.iter().enumerate() {
            out.push(if index == 0 { b'[' } else { b',' });
            write_header_value(out, *value);
        }
        out.push(b']');
    }
    object.close();
}

/// Says whether all names are known to differ; more than a few are not
/// compared, which a stranger's record could make slow.
fn names_differ(headers: &[Header<'_>]) -> bool {
    headers.len() <= PAIRWISE_HEADERS_MAX
        && headers
            .iter()
            .enumerate()
            .all(|(index, (name, _))| headers[..index].iter().all(|(other, _)| other != name))
}

fn write_header_value(out: &mut Vec<u8>, value: Option<&[u8]>) {
    let Some(value) = value else {
        out.extend_from_slice(b"null");
        return;
    };
    match str::from_utf8(value) {
        Ok(text) => write_string(out, text),
        Err(_) => {
            let mut object = ObjectWriter::open(out);
            write_base64(object.field("base64"), value);
            object.close();
        }
    }
}
