//! The mind of the Kafka side (being written): what shards want goes in by
//! `handle_*`, what Kafka must be asked comes out by `poll_task`.

use std::time::Instant;

use crate::registry::message::Command;
use crate::registry::message::ReadError;
use crate::registry::message::SourceFailure;
use crate::registry::message::Task;
use crate::registry::message::TopicDescription;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::SourceId;
use crate::types::ids::TopicName;

/// Decides what is read from Kafka and when.
#[derive(Debug, Default)]
pub struct Intake {}

impl Intake {
    /// Takes a wish of a shard's.
    pub fn handle_command(&mut self, command: Command, now: Instant) {
        let _ = (command, now);
    }

    /// Takes the answer to [`Task::Describe`] for one topic.
    pub fn handle_described(
        &mut self,
        topic: &TopicName,
        result: Result<TopicDescription, SourceFailure>,
        now: Instant,
    ) {
        let _ = (topic, result, now);
    }

    /// Takes the answer to [`Task::ListOffsets`]: for each partition the oldest,
    /// the next and the looked-up offset.
    pub fn handle_offsets(
        &mut self,
        request: u64,
        result: Result<Vec<crate::registry::message::Bounds>, SourceFailure>,
        now: Instant,
    ) {
        let _ = (request, result, now);
    }

    /// Takes the news that the live reader of a partition stopped.
    pub fn handle_read_error(
        &mut self,
        source: SourceId,
        partition: PartitionId,
        error: ReadError,
        now: Instant,
    ) {
        let _ = (source, partition, error, now);
    }

    /// Takes the answer to [`Task::ReadHistory`]: what was inserted ends at the
    /// offset given.
    pub fn handle_history(
        &mut self,
        source: SourceId,
        partition: PartitionId,
        result: Result<Offset, ReadError>,
        now: Instant,
    ) {
        let _ = (source, partition, result, now);
    }

    /// Takes the passing of time.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// Returns when `handle_timeout` must be called at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// Returns the next thing to ask of Kafka; call until `None`.
    pub fn poll_task(&mut self) -> Option<Task> {
        None
    }
}
