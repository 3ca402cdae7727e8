//! Looks at records of one partition by themselves, for whoever asks why.
//!
//! It has a client of its own, which lives as long as the question, and disturbs
//! neither readers nor the log in memory. Records are classified as all readers
//! do.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError as ClientError;
use thiserror::Error;

use crate::kafka::classify;
use crate::kafka::classify::Fate;
use crate::kafka::classify::Rules;
use crate::kafka::client;
use crate::kafka::client::Client;
use crate::kafka::config::KafkaConfig;
use crate::kafka::error::KafkaError;
use crate::kafka::native::queue::Fetched;
use crate::kafka::native::queue::Item;
use crate::kafka::native::queue::PartitionQueue;
use crate::kafka::status::KafkaStatus;
use crate::kafka::status::Role;
use crate::log::batch::Batch;
use crate::log::batch::BatchBuilder;
use crate::tenancy::channel::SourceKey;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::limits::HISTORY_CHUNK_BYTES;
use crate::types::trace::Sampler;

/// What stands at an offset.
#[derive(Debug)]
pub enum Finding {
    /// A batch of this one record.
    Record(Batch),
    /// A record whose tenant can't be told.
    Unclassified,
    /// No record.
    Hole,
    /// The log begins later.
    Gone { oldest: Offset },
    /// The log ends before.
    NotWritten { end: Offset },
}

/// Why nothing could be found out.
#[derive(Debug, Error)]
pub enum PeekError {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error("kafka did not answer: {0}")]
    Client(#[from] ClientError),
    #[error("topic {topic} has no partition {partition}, or may not be read")]
    NoPartition { topic: String, partition: PartitionId },
    #[error("reading partition {partition} of topic {topic} failed: {reason}")]
    Failed { topic: String, partition: PartitionId, reason: String },
}

/// One partition that is looked at. Its calls block.
pub struct Peek {
    client: Client,
    source: SourceKey,
    partition: PartitionId,
}

impl Peek {
    /// Connects.
    ///
    /// # Errors
    ///
    /// When the configuration is refused.
    pub fn new(
        config: &KafkaConfig,
        source: SourceKey,
        partition: PartitionId,
    ) -> Result<Self, PeekError> {
        config.validate()?;
        let status = Arc::new(KafkaStatus::default());
        let client = client::connect(&config.history(), &status, Role::History)?;
        Ok(Self { client, source, partition })
    }

    /// Says what stands at `offset`.
    ///
    /// # Errors
    ///
    /// [`PeekError`] when Kafka does not say.
    pub fn find(&self, offset: Offset) -> Result<Finding, PeekError> {
        let (oldest, end) = self.bounds()?;
        if offset < oldest {
            return Ok(Finding::Gone { oldest });
        }
        if offset >= end {
            return Ok(Finding::NotWritten { end });
        }
        let mut finding = Finding::Hole;
        let reached = self.read(offset, offset.next(), |batch, unclassified| {
            if unclassified > 0 {
                finding = Finding::Unclassified;
            } else if !batch.is_empty() {
                finding = Finding::Record(batch);
            }
        })?;
        // Committed records end before it: a transaction is open.
        Ok(if reached <= offset { Finding::NotWritten { end: reached } } else { finding })
    }

    /// Reads `[from, to)`, or as far as the log goes, and hands on batches, each
    /// with how many records in it are nobody's; returns up to where it got.
    ///
    /// # Errors
    ///
    /// [`PeekError`] when Kafka does not say.
    pub fn read(
        &self,
        from: Offset,
        to: Offset,
        mut each: impl FnMut(Batch, u64),
    ) -> Result<Offset, PeekError> {
        let topic = &self.source.topic;
        let queue = PartitionQueue::split(&self.client, topic, self.partition);
        let queue = queue.ok_or_else(|| self.no_partition())?;
        let mut list = TopicPartitionList::new();
        let start = rdkafka::Offset::Offset(from.as_kafka());
        list.add_partition_offset(topic.as_str(), self.partition.as_kafka(), start)?;
        let mut fetched = Fetched::new(&self.client);
        self.client.incremental_assign(&list)?;
        let rules = Rules {
            tenancy: self.source.rule.clone(),
            // Nobody is delivered what is only looked at.
            sampler: Sampler::Off,
            topic: topic.clone(),
            partition: self.partition,
        };
        let mut batch = BatchBuilder::new(from);
        let mut unclassified = 0;
        let mut progress_at = Instant::now();
        let end = loop {
            if batch.to() >= to {
                break Ok(());
            }
            let Some(item) = fetched.front() else {
                fetched.wait(&queue, WAIT);
                if fetched.len() > 0 {
                    progress_at = Instant::now();
                } else if progress_at.elapsed() > SILENCE_MAX {
                    break Err(self.failed(format!("nothing came for {SILENCE_MAX:?}")));
                }
                client::serve(&self.client);
                continue;
            };
            match item {
                Item::Record(message) if message.offset() < batch.to() => {}
                Item::Record(message) if message.offset() >= to => batch.skip_to(to),
                Item::Record(message) => {
                    let fate = classify::add(&mut batch, &message, &rules);
                    unclassified += u64::from(fate == Fate::Unclassified);
                }
                Item::End(offset) => {
                    batch.skip_to(offset.min(to).max(batch.to()));
                    break Ok(());
                }
                Item::OutOfRange | Item::UnknownEpoch => {
                    break Err(self.failed("the offset is out of range".into()));
                }
                Item::Truncated(at) => break Err(self.failed(format!("it was cut off at {at}"))),
                Item::Failed(reason) => break Err(self.failed(reason)),
            }
            fetched.discard_front();
            if batch.bytes() >= HISTORY_CHUNK_BYTES {
                let next = BatchBuilder::new(batch.to());
                each(std::mem::replace(&mut batch, next).finish(), unclassified);
                unclassified = 0;
            }
        };
        let _ = self.client.incremental_unassign(&list);
        fetched.drain(&queue);
        end?;
        let reached = batch.to();
        if !batch.covers_nothing() {
            each(batch.finish(), unclassified);
        }
        Ok(reached)
    }

    /// Returns the oldest offset and the next one.
    ///
    /// # Errors
    ///
    /// [`PeekError`] when Kafka does not say.
    pub fn bounds(&self) -> Result<(Offset, Offset), PeekError> {
        let (topic, partition) = (self.source.topic.as_str(), self.partition.as_kafka());
        let metadata = self.client.fetch_metadata(Some(topic), TIMEOUT)?;
        let known = metadata.topics().iter().find(|found| found.name() == topic);
        let known = known.filter(|found| found.error().is_none());
        if !known.is_some_and(|found| found.partitions().iter().any(|p| p.id() == partition)) {
            return Err(self.no_partition());
        }
        let (oldest, end) = self.client.fetch_watermarks(topic, partition, TIMEOUT)?;
        let offset = |raw| Offset::from_kafka(raw).unwrap_or(Offset::ZERO);
        Ok((offset(oldest), offset(end)))
    }

    fn no_partition(&self) -> PeekError {
        PeekError::NoPartition { topic: self.source.topic.to_string(), partition: self.partition }
    }

    fn failed(&self, reason: String) -> PeekError {
        let topic = self.source.topic.to_string();
        PeekError::Failed { topic, partition: self.partition, reason }
    }
}

impl std::fmt::Debug for Peek {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peek")
            .field("source", &self.source)
            .field("partition", &self.partition)
            .finish_non_exhaustive()
    }
}

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long one look at an empty queue waits.
const WAIT: Duration = Duration::from_millis(50);
/// Without a record or an end for so long, reading has failed.
const SILENCE_MAX: Duration = Duration::from_secs(10);
