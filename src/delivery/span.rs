//! Spans of work that is over, as plain data: the edge takes them now and then
//! and tells the collector. See [`crate::delivery::traces`].

use std::time::Duration;
use std::time::Instant;

use crate::protocol::error_code::ErrorCode;
use crate::types::ids::ChannelName;
use crate::types::ids::ConnectionId;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::Timestamp;
use crate::types::ids::TopicName;
use crate::types::trace::SpanId;
use crate::types::trace::TraceId;

/// One span.
#[derive(Debug, Clone)]
pub struct SpanNote {
    pub trace: TraceId,
    pub span: SpanId,
    pub parent: Parent,
    pub started: Instant,
    pub ended: Instant,
    pub work: Work,
}

/// What caused a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parent {
    /// Nothing: the trace begins with it.
    None,
    /// A span of this process.
    Here(SpanId),
    /// A span of whoever sent the record.
    Elsewhere(SpanId),
}

/// What was done.
#[derive(Debug, Clone)]
pub enum Work {
    Process(Process),
    Deliver(Deliver),
    Client(Client),
    Ack(Ack),
    Command(Command),
}

/// A record came and was matched, from its arrival to its last fan-out.
#[derive(Debug, Clone)]
pub struct Process {
    pub topic: TopicName,
    pub record: RecordRef,
    pub timestamp: Timestamp,
    /// Only where the operator asked for it.
    pub key: Option<Box<[u8]>>,
    /// Feeds that want the record.
    pub feeds: u32,
    pub path: Path,
}

/// Which record of the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef {
    pub partition: PartitionId,
    pub offset: Offset,
}

/// By which way records went out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// To all live followers of a feed at once.
    Live,
    /// To one subscription that reads at its own cursors.
    CatchUp,
}

/// A frame with the record was given to all who follow one feed.
#[derive(Debug, Clone)]
pub struct Deliver {
    pub channel: ChannelName,
    pub record: RecordRef,
    pub path: Path,
    /// Records in the frame.
    pub records: u32,
    /// Subscriptions that want the record.
    pub matched: u32,
    /// Those that were given it now.
    pub sent: u32,
    /// Those that were behind or fell behind: they read it at their own cursors.
    pub behind: u32,
}

/// The frame's way to one client.
#[derive(Debug, Clone)]
pub struct Client {
    pub channel: ChannelName,
    pub record: RecordRef,
    pub connection: ConnectionId,
    /// From the outbox to the first try to write it.
    pub queue_wait: Duration,
    /// Encoding the record, once for all who share the frame.
    pub encode: Duration,
    /// From that first try until the socket had taken all of it.
    pub write: Duration,
    pub fate: Fate,
}

/// What became of a frame in an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Written,
    /// The connection ended before.
    Lost,
}

/// A client acknowledged the record, from its last byte's write on.
#[derive(Debug, Clone)]
pub struct Ack {
    pub channel: ChannelName,
    pub record: RecordRef,
    pub connection: ConnectionId,
}

/// A client asked for something, and was answered.
#[derive(Debug, Clone)]
pub struct Command {
    pub kind: CommandKind,
    pub connection: ConnectionId,
    pub channel: Option<ChannelName>,
    pub outcome: Outcome,
}

/// What a client can ask for that has a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandKind {
    Authenticate,
    Subscribe,
    /// A subscription that begins where an earlier one stopped.
    Resume,
}

/// How a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Refused(ErrorCode),
    /// It ended before there was an answer.
    GivenUp,
}
