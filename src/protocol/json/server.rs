//! A server's frames, written, and read as a client reads them.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde::Deserializer;
use serde_json::value::RawValue;

use crate::protocol::argument;
use crate::protocol::close_code::CloseCode;
use crate::protocol::decode_error::DecodeError;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::frame::ErrorFrame;
use crate::protocol::frame::Gap;
use crate::protocol::frame::GapReason;
use crate::protocol::frame::ServerFrame;
use crate::protocol::json::client::read_epochs;
use crate::protocol::json::client::read_positions;
use crate::protocol::json::text::ObjectWriter;
use crate::protocol::json::text::read_base64;
use crate::protocol::json::time::read_timestamp;
use crate::protocol::json::time::write_timestamp;
use crate::protocol::json::tree::Fields;
use crate::protocol::json::tree::Node;
use crate::protocol::message::OwnedRecord;
use crate::protocol::message::Records;
use crate::protocol::message::ServerMessage;
use crate::types::ids::ChannelName;
use crate::types::ids::ConnectionId;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::SubId;
use crate::types::ids::TenantId;
use crate::types::ids::Timestamp;
use crate::types::ids::TopicId;
use crate::types::moment::millis;

/// Writes a frame as one JSON object.
pub(crate) fn write(out: &mut Vec<u8>, frame: &ServerFrame) {
    let mut object = ObjectWriter::frame(out, type_name(frame));
    match frame {
        ServerFrame::Welcome { connection, tenant, heartbeat, expires_at } => {
            object.text("connection", &connection.to_string());
            object.text("tenant", tenant.as_str());
            object.number("heartbeat_ms", millis(*heartbeat));
            write_expiry(&mut object, *expires_at);
        }
        ServerFrame::Renewed { expires_at } => write_expiry(&mut object, *expires_at),
        ServerFrame::Expiring { expires_at } => write_expiry(&mut object, Some(*expires_at)),
        ServerFrame::Subscribed { id, sub, channel, topic_id, positions, epochs } => {
            object.number("id", id.raw());
            object.number("sub", sub.raw());
            object.text("channel", channel.as_str());
            object.text("topic_id", &topic_id.to_string());
            object.positions("positions", positions);
            object.epochs(epochs);
        }
        ServerFrame::Progress { sub, to, epochs } => {
            object.number("sub", sub.raw());
            object.positions("to", to);
            object.epochs(epochs);
        }
        ServerFrame::Gap(gap) => {
            object.number("sub", gap.sub.raw());
            object.number("partition", gap.partition.as_u32().into());
            object.number("from", gap.from.as_u64());
            object.number("to", gap.to.as_u64());
            object.text("reason", gap.reason.name());
            if let Some(topic_id) = gap.topic_id {
                object.text("topic_id", &topic_id.to_string());
            }
        }
        ServerFrame::Live { sub } => object.number("sub", sub.raw()),
        ServerFrame::Unsubscribed { id, sub } => {
            object.number("id", id.raw());
            object.number("sub", sub.raw());
        }
        ServerFrame::Error(error) => write_error(&mut object, error),
        ServerFrame::Closing { code, retry_after } => {
            object.text("code", code.name());
            object.boolean("reconnect", code.reconnect().comes_back());
            write_retry_after(&mut object, *retry_after);
        }
        ServerFrame::Pong => {}
    }
    object.close();
}

fn type_name(frame: &ServerFrame) -> &'static str {
    match frame {
        ServerFrame::Welcome { .. } => "welcome",
        ServerFrame::Renewed { .. } => "renewed",
        ServerFrame::Expiring { .. } => "expiring",
        ServerFrame::Subscribed { .. } => "subscribed",
        ServerFrame::Progress { .. } => "progress",
        ServerFrame::Gap(_) => "gap",
        ServerFrame::Live { .. } => "live",
        ServerFrame::Unsubscribed { .. } => "unsubscribed",
        ServerFrame::Error(_) => "error",
        ServerFrame::Closing { .. } => "closing",
        ServerFrame::Pong => "pong",
    }
}

fn write_error(object: &mut ObjectWriter<'_>, error: &ErrorFrame) {
    if let Some(id) = error.id {
        object.number("id", id.raw());
    }
    if let Some(sub) = error.sub {
        object.number("sub", sub.raw());
    }
    object.text("code", error.code.name());
    object.text("message", &error.message);
    object.boolean("retry", error.code.retry());
    write_retry_after(object, error.retry_after);
}

fn write_expiry(object: &mut ObjectWriter<'_>, expires_at: Option<Timestamp>) {
    if let Some(expires_at) = expires_at {
        object.text("expires_at", &write_timestamp(expires_at));
    }
}

fn write_retry_after(object: &mut ObjectWriter<'_>, retry_after: Option<Duration>) {
    if let Some(retry_after) = retry_after {
        object.number("retry_after_ms", millis(retry_after));
    }
}

/// Reads a frame; see [`crate::protocol::json::decode_server`].
pub(crate) fn read(text: &str) -> Result<ServerMessage, DecodeError> {
    let kind = match text.starts_with("{\"type\":\"records\",") {
        true => Cow::Borrowed("records"),
        false => parse::<Kind<'_>>(text)?.name,
    };
    if kind == "records" {
        return parse::<RecordsText<'_>>(text)?.read().map(ServerMessage::Records);
    }
    let Node::Object(entries) = Node::parse(text)? else {
        return Err(DecodeError::bad_frame("a frame must be a JSON object"));
    };
    read_frame(&kind, &mut Fields::new("a frame", entries)).map(ServerMessage::Frame)
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, DecodeError> {
    serde_json::from_str(text)
        .map_err(|error| DecodeError::bad_frame(format!("the frame can't be read: {error}")))
}

fn read_frame(kind: &str, fields: &mut Fields) -> Result<ServerFrame, DecodeError> {
    Ok(match kind {
        "welcome" => ServerFrame::Welcome {
            connection: read_connection(&fields.text("connection")?)?,
            tenant: TenantId::new(fields.text("tenant")?),
            heartbeat: Duration::from_millis(fields.whole("heartbeat_ms")?),
            expires_at: read_expiry(fields)?,
        },
        "renewed" => ServerFrame::Renewed { expires_at: read_expiry(fields)? },
        "expiring" => ServerFrame::Expiring {
            expires_at: read_expiry(fields)?
                .ok_or_else(|| DecodeError::bad_frame("`expires_at` is missing in expiring"))?,
        },
        "subscribed" => ServerFrame::Subscribed {
            id: argument::request_id(fields.whole("id")?)?,
            sub: read_sub(fields)?,
            channel: ChannelName::new(fields.text("channel")?),
            topic_id: argument::topic_id(&fields.text("topic_id")?)?,
            positions: read_positions(fields.require("positions")?)?,
            epochs: read_epochs(fields)?,
        },
        "progress" => ServerFrame::Progress {
            sub: read_sub(fields)?,
            to: read_positions(fields.require("to")?)?,
            epochs: read_epochs(fields)?,
        },
        "gap" => ServerFrame::Gap(read_gap(fields)?),
        "live" => ServerFrame::Live { sub: read_sub(fields)? },
        "unsubscribed" => ServerFrame::Unsubscribed {
            id: argument::request_id(fields.whole("id")?)?,
            sub: read_sub(fields)?,
        },
        "error" => ServerFrame::Error(read_error(fields)?),
        "closing" => ServerFrame::Closing {
            code: CloseCode::from_name(&fields.text("code")?)
                .ok_or_else(|| DecodeError::bad_frame("`code` is no close code"))?,
            retry_after: read_retry_after(fields)?,
        },
        "pong" => ServerFrame::Pong,
        _ => return Err(DecodeError::bad_frame("`type` is none that a server sends")),
    })
}

fn read_connection(text: &str) -> Result<ConnectionId, DecodeError> {
    let number = text.parse().map_err(|_| DecodeError::bad_frame("`connection` is no number"))?;
    Ok(ConnectionId::new(number))
}

fn read_sub(fields: &mut Fields) -> Result<SubId, DecodeError> {
    argument::sub(fields.whole("sub")?)
}

fn read_gap(fields: &mut Fields) -> Result<Gap, DecodeError> {
    Ok(Gap {
        sub: read_sub(fields)?,
        partition: read_partition(fields.whole("partition")?)?,
        from: read_offset(fields.whole("from")?)?,
        to: read_offset(fields.whole("to")?)?,
        reason: GapReason::from_name(&fields.text("reason")?)
            .ok_or_else(|| DecodeError::bad_frame("`reason` is none of a gap"))?,
        topic_id: read_optional_topic_id(fields)?,
    })
}

fn read_optional_topic_id(fields: &mut Fields) -> Result<Option<TopicId>, DecodeError> {
    let Some(node) = fields.take("topic_id") else { return Ok(None) };
    argument::topic_id(&node.into_text("topic_id")?).map(Some)
}

fn read_error(fields: &mut Fields) -> Result<ErrorFrame, DecodeError> {
    let id = match fields.take("id") {
        None => None,
        Some(node) => Some(argument::request_id(node.into_whole("id")?)?),
    };
    let sub = match fields.take("sub") {
        None => None,
        Some(node) => Some(argument::sub(node.into_whole("sub")?)?),
    };
    let code = ErrorCode::from_name(&fields.text("code")?)
        .ok_or_else(|| DecodeError::bad_frame("`code` is no error code"))?;
    let message = fields.text("message")?;
    Ok(ErrorFrame { id, sub, code, message, retry_after: read_retry_after(fields)? })
}

fn read_expiry(fields: &mut Fields) -> Result<Option<Timestamp>, DecodeError> {
    let Some(node) = fields.take("expires_at") else { return Ok(None) };
    read_timestamp(&node.into_text("expires_at")?)
        .map(Some)
        .ok_or_else(|| DecodeError::bad_frame("`expires_at` is not RFC 3339"))
}

fn read_retry_after(fields: &mut Fields) -> Result<Option<Duration>, DecodeError> {
    let Some(node) = fields.take("retry_after_ms") else { return Ok(None) };
    Ok(Some(Duration::from_millis(node.into_whole("retry_after_ms")?)))
}

fn read_offset(raw: u64) -> Result<Offset, DecodeError> {
    Offset::from_client(raw).ok_or_else(|| DecodeError::bad_frame("an offset is above 2^63 - 1"))
}

fn read_partition(raw: u64) -> Result<PartitionId, DecodeError> {
    u32::try_from(raw)
        .ok()
        .and_then(PartitionId::from_client)
        .ok_or_else(|| DecodeError::bad_frame("`partition` is above 2^31 - 1"))
}

/// Only the type of a frame.
#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(rename = "type", borrow)]
    name: Cow<'a, str>,
}

/// A `records` frame, whose JSON values stay as they are.
#[derive(Deserialize)]
struct RecordsText<'a> {
    sub: u64,
    partition: u64,
    from: u64,
    #[serde(borrow)]
    records: Vec<RecordText<'a>>,
    to: u64,
    epoch: Option<[u64; 2]>,
}

#[derive(Deserialize)]
struct RecordText<'a> {
    offset: u64,
    timestamp: Option<i64>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    key_base64: Option<Cow<'a, str>>,
    headers: Option<Node>,
    /// Absent only beside `value_base64`; a tombstone is the text `null`.
    #[serde(borrow, default, deserialize_with = "present")]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    value_base64: Option<Cow<'a, str>>,
}

fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

impl RecordsText<'_> {
    fn read(self) -> Result<Records, DecodeError> {
        Ok(Records {
            sub: argument::sub(self.sub)?,
            partition: read_partition(self.partition)?,
            from: read_offset(self.from)?,
            to: read_offset(self.to)?,
            epoch: self.epoch.map(|[epoch, to]| argument::reached(epoch, to)).transpose()?,
            records: self.records.into_iter().map(RecordText::read).collect::<Result<_, _>>()?,
        })
    }
}

impl RecordText<'_> {
    fn read(self) -> Result<OwnedRecord, DecodeError> {
        let key = match (self.key, self.key_base64) {
            (Some(text), _) => Some(Bytes::from(text.into_owned())),
            (None, Some(text)) => Some(read_bytes("key_base64", &text)?),
            (None, None) => None,
        };
        let value = match (self.value, self.value_base64) {
            (Some(raw), None) if raw.get() == "null" => None,
            (Some(raw), None) => Some(Bytes::copy_from_slice(raw.get().as_bytes())),
            (None, Some(text)) => Some(read_bytes("value_base64", &text)?),
            _ => {
                return Err(DecodeError::bad_frame(
                    "a record must have one of `value` and `value_base64`",
                ));
            }
        };
        Ok(OwnedRecord {
            offset: read_offset(self.offset)?,
            timestamp: self.timestamp.map(Timestamp::from_millis),
            key,
            value,
            headers: self.headers.map_or(Ok(Vec::new()), read_headers)?,
        })
    }
}

fn read_bytes(name: &str, text: &str) -> Result<Bytes, DecodeError> {
    let bytes = read_base64(text)
        .ok_or_else(|| DecodeError::bad_frame(format!("`{name}` is not base64")))?;
    Ok(Bytes::from(bytes))
}

fn read_headers(node: Node) -> Result<Vec<(String, Option<Bytes>)>, DecodeError> {
    let mut headers = Vec::new();
    for (name, node) in node.into_entries("headers")? {
        let Node::List(values) = node else {
            headers.push((name, read_header_value(node)?));
            continue;
        };
        for value in values {
            headers.push((name.clone(), read_header_value(value)?));
        }
    }
    Ok(headers)
}

fn read_header_value(node: Node) -> Result<Option<Bytes>, DecodeError> {
    match node {
        Node::Null => Ok(None),
        Node::Text(text) => Ok(Some(Bytes::from(text))),
        Node::Object(entries) => {
            let text = Fields::new("a header", entries).text("base64")?;
            read_bytes("base64", &text).map(Some)
        }
        other => Err(other.is_not("headers", "null, a string or a {\"base64\":…} object")),
    }
}
