//! What the threads that talk to Kafka tell the control thread.

use crate::kafka::inbox::AssignmentId;
use crate::registry::message::Located;
use crate::registry::message::ReadError;
use crate::registry::message::SourceFailure;
use crate::registry::message::TopicDescription;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::SourceId;
use crate::types::ids::TopicName;

/// An answer to a task of the intake's, or the news that a reader stopped.
#[derive(Debug)]
pub(in crate::kafka) enum Answer {
    Described {
        topic: TopicName,
        result: Result<TopicDescription, SourceFailure>,
    },
    Offsets {
        request: u64,
        result: Result<Located, SourceFailure>,
    },
    ReadStopped {
        assignment: AssignmentId,
        source: SourceId,
        partition: PartitionId,
        error: ReadError,
    },
    History {
        /// Which of the readers of history is free again.
        reader: usize,
        source: SourceId,
        partition: PartitionId,
        result: Result<Offset, ReadError>,
    },
}
