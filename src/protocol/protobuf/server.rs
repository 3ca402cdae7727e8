//! A server's frames, written, and read as a client reads them.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;

use crate::protocol::argument;
use crate::protocol::close_code::CloseCode;
use crate::protocol::decode_error::DecodeError;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::frame::ErrorFrame;
use crate::protocol::frame::Gap;
use crate::protocol::frame::GapReason;
use crate::protocol::frame::ServerFrame;
use crate::protocol::message::OwnedRecord;
use crate::protocol::message::Records;
use crate::protocol::message::ServerMessage;
use crate::protocol::protobuf::client::read_epochs;
use crate::protocol::protobuf::client::read_positions;
use crate::protocol::protobuf::client::write_epochs;
use crate::protocol::protobuf::client::write_positions;
use crate::protocol::protobuf::wire;
use crate::protocol::protobuf::wire::server_message::Frame;
use crate::types::ids::ChannelName;
use crate::types::ids::ConnectionId;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::TenantId;
use crate::types::ids::Timestamp;
use crate::types::moment::millis;

/// Writes a frame as one `ServerMessage`.
pub(crate) fn write(out: &mut Vec<u8>, frame: &ServerFrame) {
    let message = wire::ServerMessage { frame: Some(to_wire(frame)) };
    message.encode(out).expect("a Vec grows");
}

fn to_wire(frame: &ServerFrame) -> Frame {
    match frame {
        ServerFrame::Welcome { connection, tenant, heartbeat, expires_at } => {
            Frame::Welcome(wire::Welcome {
                connection: connection.raw(),
                tenant: tenant.as_str().to_owned(),
                heartbeat_ms: millis(*heartbeat),
                expires_at_ms: expires_at.map(Timestamp::as_millis),
            })
        }
        ServerFrame::Renewed { expires_at } => {
            Frame::Renewed(wire::Renewed { expires_at_ms: expires_at.map(Timestamp::as_millis) })
        }
        ServerFrame::Expiring { expires_at } => {
            Frame::Expiring(wire::Expiring { expires_at_ms: expires_at.as_millis() })
        }
        ServerFrame::Subscribed { id, sub, channel, topic_id, positions, epochs } => {
            Frame::Subscribed(wire::Subscribed {
                id: id.raw(),
                sub: sub.raw(),
                channel: channel.as_str().to_owned(),
                topic_id: topic_id.to_string(),
                positions: write_positions(positions),
                epochs: write_epochs(epochs),
            })
        }
        ServerFrame::Progress { sub, to, epochs } => Frame::Progress(wire::Progress {
            sub: sub.raw(),
            to: write_positions(to),
            epochs: write_epochs(epochs),
        }),
        ServerFrame::Gap(gap) => Frame::Gap(gap_to_wire(gap)),
        ServerFrame::Live { sub } => Frame::Live(wire::Live { sub: sub.raw() }),
        ServerFrame::Unsubscribed { id, sub } => {
            Frame::Unsubscribed(wire::Unsubscribed { id: id.raw(), sub: sub.raw() })
        }
        ServerFrame::Error(error) => Frame::Error(error_to_wire(error)),
        ServerFrame::Closing { code, retry_after } => Frame::Closing(wire::Closing {
            code: code.name().to_owned(),
            reconnect: code.reconnect().comes_back(),
            retry_after_ms: retry_after.map(millis),
        }),
        ServerFrame::Pong => Frame::Pong(wire::Pong {}),
    }
}

fn gap_to_wire(gap: &Gap) -> wire::Gap {
    let reason = match gap.reason {
        GapReason::Retention => wire::GapReason::Retention,
        GapReason::Truncated => wire::GapReason::Truncated,
        GapReason::TopicRecreated => wire::GapReason::TopicRecreated,
        GapReason::Skipped => wire::GapReason::Skipped,
    };
    wire::Gap {
        sub: gap.sub.raw(),
        partition: gap.partition.as_u32(),
        from: gap.from.as_u64(),
        to: gap.to.as_u64(),
        reason: reason.into(),
        topic_id: gap.topic_id.map(|topic_id| topic_id.to_string()),
    }
}

fn error_to_wire(error: &ErrorFrame) -> wire::Error {
    wire::Error {
        id: error.id.map(|id| id.raw()),
        sub: error.sub.map(|sub| sub.raw()),
        code: error.code.name().to_owned(),
        message: error.message.clone(),
        retry: error.code.retry(),
        retry_after_ms: error.retry_after.map(millis),
    }
}

/// Reads a frame; see [`crate::protocol::protobuf::decode_server`].
pub(crate) fn read(bytes: Bytes) -> Result<ServerMessage, DecodeError> {
    let message = wire::ServerMessage::decode(bytes)
        .map_err(|_| DecodeError::bad_frame("the bytes are no ServerMessage of brucke.v1"))?;
    let frame = message.frame.ok_or_else(|| {
        DecodeError::bad_frame("the ServerMessage holds no frame that this version knows")
    })?;
    match frame {
        Frame::Records(records) => from_wire_records(records).map(ServerMessage::Records),
        frame => from_wire(frame).map(ServerMessage::Frame),
    }
}

fn from_wire(frame: Frame) -> Result<ServerFrame, DecodeError> {
    Ok(match frame {
        Frame::Welcome(welcome) => ServerFrame::Welcome {
            connection: ConnectionId::new(welcome.connection),
            tenant: TenantId::new(welcome.tenant),
            heartbeat: Duration::from_millis(welcome.heartbeat_ms),
            expires_at: welcome.expires_at_ms.map(Timestamp::from_millis),
        },
        Frame::Renewed(renewed) => {
            ServerFrame::Renewed { expires_at: renewed.expires_at_ms.map(Timestamp::from_millis) }
        }
        Frame::Expiring(expiring) => {
            ServerFrame::Expiring { expires_at: Timestamp::from_millis(expiring.expires_at_ms) }
        }
        Frame::Subscribed(subscribed) => ServerFrame::Subscribed {
            id: argument::request_id(subscribed.id)?,
            sub: argument::sub(subscribed.sub)?,
            channel: ChannelName::new(subscribed.channel),
            topic_id: argument::topic_id(&subscribed.topic_id)?,
            positions: read_positions(subscribed.positions)?,
            epochs: read_epochs(subscribed.epochs)?,
        },
        Frame::Progress(progress) => ServerFrame::Progress {
            sub: argument::sub(progress.sub)?,
            to: read_positions(progress.to)?,
            epochs: read_epochs(progress.epochs)?,
        },
        Frame::Gap(gap) => ServerFrame::Gap(from_wire_gap(gap)?),
        Frame::Live(live) => ServerFrame::Live { sub: argument::sub(live.sub)? },
        Frame::Unsubscribed(unsubscribed) => ServerFrame::Unsubscribed {
            id: argument::request_id(unsubscribed.id)?,
            sub: argument::sub(unsubscribed.sub)?,
        },
        Frame::Error(error) => ServerFrame::Error(from_wire_error(error)?),
        Frame::Closing(closing) => ServerFrame::Closing {
            code: CloseCode::from_name(&closing.code)
                .ok_or_else(|| DecodeError::bad_frame("`code` is no close code"))?,
            retry_after: closing.retry_after_ms.map(Duration::from_millis),
        },
        Frame::Pong(wire::Pong {}) => ServerFrame::Pong,
        Frame::Records(_) => return Err(DecodeError::bad_frame("records are read elsewhere")),
    })
}

fn from_wire_gap(gap: wire::Gap) -> Result<Gap, DecodeError> {
    let reason = match gap.reason() {
        wire::GapReason::Retention => GapReason::Retention,
        wire::GapReason::Truncated => GapReason::Truncated,
        wire::GapReason::TopicRecreated => GapReason::TopicRecreated,
        wire::GapReason::Skipped => GapReason::Skipped,
        wire::GapReason::Unspecified => {
            return Err(DecodeError::bad_frame("`reason` is none of a gap"));
        }
    };
    Ok(Gap {
        sub: argument::sub(gap.sub)?,
        partition: partition(gap.partition)?,
        from: offset(gap.from)?,
        to: offset(gap.to)?,
        reason,
        topic_id: gap.topic_id.as_deref().map(argument::topic_id).transpose()?,
    })
}

fn from_wire_error(error: wire::Error) -> Result<ErrorFrame, DecodeError> {
    Ok(ErrorFrame {
        id: error.id.map(argument::request_id).transpose()?,
        sub: error.sub.map(argument::sub).transpose()?,
        code: ErrorCode::from_name(&error.code)
            .ok_or_else(|| DecodeError::bad_frame("`code` is no error code"))?,
        message: error.message,
        retry_after: error.retry_after_ms.map(Duration::from_millis),
    })
}

fn from_wire_records(records: wire::Records) -> Result<Records, DecodeError> {
    Ok(Records {
        sub: argument::sub(records.sub)?,
        partition: partition(records.partition)?,
        from: offset(records.from)?,
        to: offset(records.to)?,
        epoch: records.epoch.map(|e| argument::reached(e.epoch.into(), e.to)).transpose()?,
        records: records.records.into_iter().map(from_wire_record).collect::<Result<_, _>>()?,
    })
}

fn from_wire_record(record: wire::Record) -> Result<OwnedRecord, DecodeError> {
    Ok(OwnedRecord {
        offset: offset(record.offset)?,
        timestamp: record.timestamp_ms.map(Timestamp::from_millis),
        key: record.key,
        value: record.value,
        headers: record.headers.into_iter().map(|header| (header.name, header.value)).collect(),
    })
}

fn partition(raw: u32) -> Result<PartitionId, DecodeError> {
    PartitionId::from_client(raw)
        .ok_or_else(|| DecodeError::bad_frame("`partition` is above 2^31 - 1"))
}

fn offset(raw: u64) -> Result<Offset, DecodeError> {
    Offset::from_client(raw).ok_or_else(|| DecodeError::bad_frame("an offset is above 2^63 - 1"))
}
