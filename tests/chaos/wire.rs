//! The frames of the protocol, read from its document alone: nothing here is
//! the server's code.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use brucke_checker::line::Filter;
use brucke_checker::line::GapReason;
use brucke_checker::line::Start;
use brucke_checker::line::checksum;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use serde_json::value::RawValue;

/// A frame from the server; which fields are there depends on the type.
#[derive(Debug, Deserialize)]
pub struct Frame<'a> {
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    pub id: Option<u64>,
    pub sub: Option<u64>,
    pub partition: Option<u32>,
    pub from: Option<u64>,
    /// A number, or an object of positions.
    #[serde(borrow)]
    pub to: Option<&'a RawValue>,
    #[serde(borrow)]
    pub records: Option<Vec<Record<'a>>>,
    pub positions: Option<BTreeMap<String, u64>>,
    /// Of the frame's partition: leader epoch and offset.
    pub epoch: Option<[u64; 2]>,
    /// The same by partition.
    pub epochs: Option<BTreeMap<String, [u64; 2]>>,
    pub topic_id: Option<String>,
    pub reason: Option<String>,
    pub code: Option<String>,
    pub message: Option<String>,
    pub retry: Option<bool>,
    pub retry_after_ms: Option<u64>,
    pub heartbeat_ms: Option<u64>,
}

/// One record.
#[derive(Debug, Deserialize)]
pub struct Record<'a> {
    pub offset: u64,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    key_base64: Option<String>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    value_base64: Option<String>,
}

impl Frame<'_> {
    /// Returns `to` where it is a number.
    pub fn to_number(&self) -> Option<u64> {
        self.to?.get().parse().ok()
    }

    /// Returns `to` where it is positions.
    pub fn to_positions(&self) -> Option<BTreeMap<u32, u64>> {
        numbered(&serde_json::from_str(self.to?.get()).ok()?)
    }

    /// Returns the reason of a gap.
    pub fn gap_reason(&self) -> Option<GapReason> {
        serde_json::from_value(Value::String(self.reason.clone()?)).ok()
    }
}

impl Record<'_> {
    /// Returns the key; one that is not UTF-8 in base64, marked.
    pub fn key(&self) -> Option<String> {
        let bytes = self.key_base64.as_ref().map(|text| format!("base64:{text}"));
        bytes.or_else(|| self.key.as_ref().map(|key| key.clone().into_owned()))
    }

    /// Returns the sum of the value's bytes.
    pub fn sum(&self) -> u32 {
        match (&self.value_base64, self.value) {
            (Some(text), _) => checksum(Some(&STANDARD.decode(text).expect("base64"))),
            (None, Some(raw)) => checksum(Some(raw.get().as_bytes())),
            (None, None) => checksum(None),
        }
    }
}

/// Returns positions with their partitions as numbers.
pub fn numbered(positions: &BTreeMap<String, u64>) -> Option<BTreeMap<u32, u64>> {
    positions.iter().map(|(p, offset)| Some((p.parse().ok()?, *offset))).collect()
}

/// Returns an `authenticate` frame.
pub fn authenticate(token: &str) -> String {
    json!({ "type": "authenticate", "token": token }).to_string()
}

/// Returns a `subscribe` frame that begins at the positions, or where the
/// client first wants to begin.
pub fn subscribe(
    channel: &str,
    filter: &Filter,
    start: Start,
    place: Option<(&str, &BTreeMap<u32, u64>)>,
    epochs: &BTreeMap<u32, [u64; 2]>,
) -> String {
    let mut frame = json!({ "type": "subscribe", "id": 1, "channel": channel });
    frame["from"] = match place {
        Some((topic_id, positions)) => {
            let positions: BTreeMap<String, u64> =
                positions.iter().map(|(p, offset)| (p.to_string(), *offset)).collect();
            let epochs: BTreeMap<String, [u64; 2]> =
                epochs.iter().map(|(p, epoch)| (p.to_string(), *epoch)).collect();
            json!({ "positions": positions, "epochs": epochs, "topic_id": topic_id })
        }
        None => match start {
            Start::Earliest => json!("earliest"),
            Start::Latest => json!("latest"),
        },
    };
    match filter {
        Filter::All => {}
        Filter::Keys(keys) => frame["keys"] = json!(keys),
        Filter::Prefix(prefix) => frame["keys"] = json!({ "prefix": prefix }),
    }
    frame.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_the_document_are_read() {
        let text = r#"{"type":"records","sub":7,"partition":0,"from":43,"records":[
            {"offset":44,"timestamp":1,"key":"order-17","headers":{"a":"b"},"value":{"status":"paid"}},
            {"offset":51,"key_base64":"/w==","value_base64":"CgVoZWxsbw=="},
            {"offset":56,"timestamp":2,"key":"order-17","value":null}],"to":57}"#;
        let frame: Frame<'_> = serde_json::from_str(text).expect("a frame");
        assert_eq!((&*frame.kind, frame.from, frame.to_number()), ("records", Some(43), Some(57)));
        let records = frame.records.expect("records");
        let sums: Vec<u32> = records.iter().map(Record::sum).collect();
        let values: [Option<&[u8]>; 3] =
            [Some(br#"{"status":"paid"}"#), Some(b"\x0a\x05hello"), None];
        assert_eq!(sums, values.map(checksum));
        let keys: Vec<_> = records.iter().map(Record::key).collect();
        let order = Some("order-17".to_owned());
        assert_eq!(keys, [order.clone(), Some("base64:/w==".to_owned()), order]);
        let progress = r#"{"type":"progress","sub":7,"to":{"0":1042,"1":998}}"#;
        let frame: Frame<'_> = serde_json::from_str(progress).expect("a frame");
        assert_eq!(frame.to_positions(), Some([(0, 1042), (1, 998)].into()));
        let gap = r#"{"type":"gap","sub":7,"partition":1,"from":9,"to":0,"reason":"topic_recreated","topic_id":"c0"}"#;
        let frame: Frame<'_> = serde_json::from_str(gap).expect("a frame");
        assert_eq!(frame.gap_reason(), Some(GapReason::TopicRecreated));
    }
}
