//! What shards, the intake and the Kafka threads say to each other.

use std::sync::Arc;

use thiserror::Error;

use crate::log::partition::Cursor;
use crate::log::partition::SharedPartition;
use crate::types::ids::LeaderEpoch;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::ShardId;
use crate::types::ids::SourceId;
use crate::types::ids::TenantId;
use crate::types::ids::Timestamp;
use crate::types::ids::TopicId;
use crate::types::ids::TopicName;
use crate::types::positions::Reached;

/// What a shard wants of the intake.
#[derive(Debug)]
pub enum Command {
    /// Read this source; answered by [`Event::Ready`] with the same ticket, or by
    /// [`Event::Failed`].
    Follow { shard: ShardId, ticket: Ticket, source: SourceId },
    /// This shard needs the source no longer.
    Unfollow { shard: ShardId, source: SourceId },
    /// A cursor of this tenant's waits for records of this offset on, which memory has
    /// not.
    Demand { source: SourceId, partition: PartitionId, tenant: TenantId, offset: Offset },
    /// Find out where a subscription starts; answered by [`Event::Resolved`]. A
    /// claim that goes beyond what is known is held against a new description of
    /// the topic first: another replica may have heard of changes earlier.
    Resolve {
        shard: ShardId,
        ticket: Ticket,
        source: SourceId,
        lookup: Lookup,
        claim: Option<Claim>,
        /// Whose start it is: where there is not room for all at once, tenants take turns.
        tenant: TenantId,
        /// Where the logs of these leaders end now is looked up as well. A log that ends
        /// below the offset is held against a new description of the topic first.
        epochs: Vec<(PartitionId, Reached)>,
    },
    /// Describe these topics though nobody follows them, and no others any more.
    Watch { topics: Vec<TopicName> },
}

/// A shard's own number for a question it asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What a client says of a topic by naming positions in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    pub topic_id: TopicId,
    /// How many partitions the topic must have at least.
    pub partitions: usize,
}

/// What is looked up for a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lookup {
    /// The oldest and the next offset of each partition, afresh.
    Bounds,
    /// The bounds, and the first offset stamped at or after this moment.
    Timestamp(Timestamp),
}

/// What the intake tells a shard.
#[derive(Debug, Clone)]
pub enum Event {
    /// The source is read; its partitions, in order from zero. Those of an earlier
    /// ticket may have been given up since.
    Ready { source: SourceId, ticket: Ticket, partitions: Vec<Arc<SharedPartition>> },
    /// The source can't be read now. The intake tries again by itself and then
    /// says `Ready`.
    Failed { source: SourceId, failure: SourceFailure },
    /// These partitions were found to exist as well, numbered on from those
    /// known. They are read from their beginning.
    PartitionsAdded { source: SourceId, partitions: Vec<Arc<SharedPartition>> },
    /// The answer to [`Command::Resolve`].
    Resolved { ticket: Ticket, result: Result<Located, SourceFailure> },
    /// Something is new in this partition: records, history, a gap.
    Advanced { source: SourceId, partition: PartitionId },
}

/// What Kafka has of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bounds {
    /// The oldest offset.
    pub start: Offset,
    /// The next offset that a committed record may get (last stable offset).
    pub end: Offset,
    /// The first offset stamped at or after the moment asked for; `end` when
    /// there is none or none was asked for.
    pub at_timestamp: Offset,
    /// Whose log was found to reach to `end`, where Kafka says so.
    pub epoch: Option<LeaderEpoch>,
    /// Where the logs of the leaders that were asked for end now.
    pub epoch_ends: Vec<(LeaderEpoch, EpochEnd)>,
}

/// Where the log of an earlier leader ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochEnd {
    /// There, or at the end of the whole log where that leader leads it still.
    At(Offset),
    /// The leader that answered knows of no such epoch.
    Unknown,
    /// Nobody answered in time.
    Unanswered,
}

/// What Kafka has of each partition of a topic, in order from zero; `None` of one
/// that has no leader, of which nobody can say it.
pub type Located = Vec<Option<Bounds>>;

/// Why a source can't be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SourceFailure {
    #[error("topic {0} does not exist")]
    UnknownTopic(TopicName),
    #[error("not permitted to read topic {0}")]
    Forbidden(TopicName),
    #[error("no broker answers for topic {topic}: {reason}")]
    Unreachable { topic: TopicName, reason: String },
    #[error("topic {topic} has {count} partitions, more than can be followed")]
    TooManyPartitions { topic: TopicName, count: usize },
}

/// What the intake asks of the Kafka threads.
#[derive(Debug)]
pub enum Task {
    /// Describe these topics; each answered by `Intake::handle_described`.
    Describe { topics: Vec<TopicName> },
    /// Look up offsets; answered by `Intake::handle_offsets` with the same `request`.
    ListOffsets(ListOffsets),
    /// Read this partition from the end of its log on and append what comes. One
    /// that is assigned already is read anew. Where the log ends is looked up
    /// when the reading begins and the earlier one has stopped, not before: what
    /// does not join is refused, and then nobody reads the partition.
    Assign { source: SourceId, topic: TopicName, partition: Arc<SharedPartition>, through: Through },
    /// Stop reading this partition; nothing is appended once this returns.
    Unassign { source: SourceId, topic: TopicName, partition: PartitionId },
    /// Read from `from` on, at most [`crate::types::limits::HISTORY_CHUNK_BYTES`]
    /// and not past `until`; insert into the log as history; answered by
    /// `Intake::handle_history`. At most as many at once as there are readers.
    ReadHistory {
        source: SourceId,
        topic: TopicName,
        partition: Arc<SharedPartition>,
        from: Cursor,
        until: Offset,
    },
}

/// A question about the offsets of partitions `0..partitions`.
#[derive(Debug)]
pub struct ListOffsets {
    pub request: u64,
    pub topic: TopicName,
    pub partitions: usize,
    pub lookup: Lookup,
    /// Each once; [`Bounds::epoch_ends`] has them in the answer.
    pub epochs: Vec<(PartitionId, LeaderEpoch)>,
}

/// By which client a partition is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Through {
    /// By that which reads the others of its topic.
    Usual,
    /// By another than the one that reads it, which brings nothing though there is
    /// something.
    Another,
}

/// What Kafka says of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    pub topic_id: TopicId,
    /// How many partitions it has.
    pub partitions: usize,
}

/// Why reading a partition stopped.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// The offset wanted is below the oldest or above the newest.
    #[error("offset {0} is out of range")]
    OutOfRange(Offset),
    /// The log was cut off at this offset and has grown since: from there on it
    /// has other records than were read.
    #[error("the log was cut off at offset {0}")]
    Truncated(Offset),
    /// Anything else; the partition will be tried again.
    #[error("{0}")]
    Failed(String),
}
