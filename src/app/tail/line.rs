//! One record as one line of JSON, in the words of the protocol.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use serde_json::value::RawValue;

use crate::protocol::message::OwnedRecord;
use crate::types::ids::PartitionId;

/// A record as it stands on a line. A value that is JSON is embedded as it is,
/// another as `value_base64`; a tombstone is `"value":null`.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    partition: u32,
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    headers: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

impl<'a> Line<'a> {
    /// Returns the line of `record`.
    pub fn new(partition: PartitionId, record: &'a OwnedRecord) -> Self {
        let key = record.key.as_deref();
        let text = key.and_then(|key| str::from_utf8(key).ok());
        let value = embedded(record.value.as_ref());
        let bytes = record.value.as_deref().filter(|_| value.is_none());
        Self {
            partition: partition.as_u32(),
            offset: record.offset.as_u64(),
            timestamp: record.timestamp.map(|timestamp| timestamp.as_millis()),
            key: text,
            key_base64: key.filter(|_| text.is_none()).map(|key| STANDARD.encode(key)),
            headers: headers(&record.headers),
            value,
            value_base64: bytes.map(|bytes| STANDARD.encode(bytes)),
        }
    }
}

/// Returns the value that can stand in the line as it is, if it can.
fn embedded(value: Option<&Bytes>) -> Option<Box<RawValue>> {
    let Some(value) = value else {
        return Some(RawValue::NULL.to_owned());
    };
    let mut text = str::from_utf8(value).ok()?.to_owned();
    if text.contains(['\n', '\r']) {
        // Valid JSON has these between its tokens only: a line stays a line.
        text = text.replace(['\n', '\r'], " ");
    }
    // The text `null` is a value, not a tombstone.
    RawValue::from_string(text).ok().filter(|raw| raw.get() != RawValue::NULL.get())
}

fn headers(headers: &[(String, Option<Bytes>)]) -> Map<String, Value> {
    let mut map = Map::new();
    for (name, value) in headers {
        let value = value.as_ref().map_or(Value::Null, |value| match str::from_utf8(value) {
            Ok(text) => json!(text),
            Err(_) => json!({ "base64": STANDARD.encode(value) }),
        });
        match map.get_mut(name) {
            None => {
                map.insert(name.clone(), value);
            }
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = json!([first.take(), value]),
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::types::ids::Offset;
    use crate::types::ids::Timestamp;

    fn check(key: Option<&[u8]>, value: Option<&[u8]>, names: &[(&str, &[u8])], rest: &str) {
        let bytes = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
        let record = OwnedRecord {
            offset: Offset::ZERO,
            timestamp: Some(Timestamp::from_millis(5)),
            key: key.map(bytes),
            value: value.map(bytes),
            headers: names.iter().map(|(n, v)| ((*n).to_owned(), Some(bytes(v)))).collect(),
        };
        let line = Line::new(PartitionId::from_index(3), &record);
        let line = serde_json::to_string(&line).expect("a line is JSON");
        assert_eq!(line, format!("{{\"partition\":3,\"offset\":0,\"timestamp\":5{rest}}}"));
    }

    #[test]
    fn a_record_is_one_line_whatever_its_value() {
        check(Some(b"k"), Some(b"{ \"a\":1.50}"), &[], r#","key":"k","value":{ "a":1.50}"#);
        check(None, Some(b"{\n\"a\":\r\n\"b\"}"), &[], r#","value":{ "a":  "b"}"#);
        check(None, Some(b"\xff"), &[], r#","value_base64":"/w==""#);
        check(None, Some(b"text\n"), &[], r#","value_base64":"dGV4dAo=""#);
        check(Some(b"\xff"), None, &[], r#","key_base64":"/w==","value":null"#);
        check(None, Some(b"null"), &[], r#","value_base64":"bnVsbA==""#);
    }

    #[test]
    fn headers_of_one_name_stand_together() {
        let headers: &[(&str, &[u8])] = &[("a", b"1"), ("b", b"\xff"), ("a", b"2"), ("a", b"3")];
        let rest = r#","headers":{"a":["1","2","3"],"b":{"base64":"/w=="}},"value":1"#;
        check(None, Some(b"1"), headers, rest);
    }
}
