//! The documents say what the code does.

use crate::protocol::close_code::CloseCode;
use crate::protocol::close_code::Reconnect;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::frame::GapReason;
use crate::protocol::json;

const PROTOCOL: &str = include_str!("../../docs/protocol.md");
const ASYNCAPI: &str = include_str!("../../docs/asyncapi.yaml");

const CLIENT_TYPES: [&str; 5] = ["authenticate", "subscribe", "unsubscribe", "ack", "ping"];
const SERVER_TYPES: [&str; 12] = [
    "welcome",
    "renewed",
    "expiring",
    "subscribed",
    "records",
    "progress",
    "gap",
    "live",
    "unsubscribed",
    "error",
    "closing",
    "pong",
];

/// Returns the rows of the table below a heading, cell by cell.
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, section) = PROTOCOL.split_once(&format!("\n## {heading}\n")).expect(heading);
    let rows = section.lines().skip_while(|line| !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

#[test]
fn the_table_of_error_codes_is_the_code() {
    let expected = ErrorCode::ALL
        .map(|code| (format!("`{}`", code.name()), if code.retry() { "yes" } else { "no" }));
    let rows = table("Error codes");
    let found: Vec<_> = rows.iter().map(|row| (row[0].to_owned(), row[1])).collect();
    assert_eq!(found, expected);
}

#[test]
fn the_table_of_close_codes_is_the_code() {
    let expected = CloseCode::ALL.map(|code| {
        let reconnect = match code.reconnect() {
            Reconnect::Soon => "soon",
            Reconnect::Backoff => "backoff",
            Reconnect::NewToken => "new token",
            Reconnect::Never => "never",
        };
        (code.number().to_string(), format!("`{}`", code.name()), reconnect)
    });
    let rows = table("Close codes");
    let found: Vec<_> =
        rows.iter().map(|row| (row[0].to_owned(), row[1].to_owned(), row[2])).collect();
    assert_eq!(found, expected);
}

#[test]
fn every_type_and_reason_is_documented() {
    for name in CLIENT_TYPES.into_iter().chain(SERVER_TYPES) {
        assert!(PROTOCOL.contains(&format!("\n### `{name}`\n")), "{name}");
        assert!(ASYNCAPI.contains(&format!("type: {{ const: {name} }}")), "{name}");
    }
    for reason in GapReason::ALL {
        assert!(PROTOCOL.contains(&format!("\n| `{}` |", reason.name())), "{reason:?}");
    }
    let reasons = GapReason::ALL.map(GapReason::name).join(", ");
    assert!(ASYNCAPI.contains(&format!("reason: {{ enum: [{reasons}] }}")));
}

#[test]
fn the_machine_readable_document_lists_every_code() {
    let list =
        |names: &[&str]| names.iter().map(|name| format!("        - {name}\n")).collect::<String>();
    let errors = list(&ErrorCode::ALL.map(ErrorCode::name));
    assert!(ASYNCAPI.contains(&format!("      enum:\n{errors}    closeCode:")));
    let closes = list(&CloseCode::ALL.map(CloseCode::name));
    assert!(ASYNCAPI.ends_with(&format!("      enum:\n{closes}")));
}

/// Returns the frames that stand in blocks of this language, whole frames only.
fn frames() -> Vec<String> {
    let mut frames = Vec::new();
    for block in PROTOCOL.split("```").skip(1).step_by(2) {
        let text = match block.split_once('\n') {
            Some(("json", text)) => text.to_owned(),
            // A conversation: who speaks stands before each frame.
            Some(("", text)) => text
                .lines()
                .filter_map(|line| line.strip_prefix("> ").or(line.strip_prefix("< ")))
                .collect::<Vec<_>>()
                .join("\n"),
            _ => continue,
        };
        let values = serde_json::Deserializer::from_str(&text);
        for value in values.into_iter::<Box<serde_json::value::RawValue>>() {
            frames.push(value.expect(&text).get().to_owned());
        }
    }
    frames
}

#[test]
fn every_example_is_a_frame() {
    let frames = frames();
    assert!(frames.len() > 30, "found only {}", frames.len());
    for frame in frames {
        let kind = |name: &&str| frame.starts_with(&format!("{{\"type\":\"{name}\""));
        if CLIENT_TYPES.iter().any(kind) {
            json::decode(&frame).expect(&frame);
        } else {
            assert!(SERVER_TYPES.iter().any(kind), "{frame}");
            json::decode_server(&frame).expect(&frame);
        }
    }
}
