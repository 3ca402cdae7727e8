//! One partition that is followed live: from its queue to its log.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use crate::kafka::classify;
use crate::kafka::classify::Fate;
use crate::kafka::classify::Rules;
use crate::kafka::client::Client;
use crate::kafka::inbox::Bell;
use crate::kafka::inbox::Inbox;
use crate::kafka::native::queue::Fetched;
use crate::kafka::native::queue::Item;
use crate::kafka::native::queue::PartitionQueue;
use crate::kafka::reader::Assignment;
use crate::kafka::status::KafkaStatus;
use crate::kafka::status::SourceCounts;
use crate::log::batch::BatchBuilder;
use crate::log::partition::Added;
use crate::registry::directory::Directory;
use crate::registry::message::ReadError;
use crate::types::ids::Timestamp;
use crate::types::latency::Exemplar;
use crate::types::latency::Latencies;
use crate::types::positions::Reached;

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kafka) enum Turn {
    /// The queue is empty; its bell rings when it no longer is.
    Drained,
    /// There may be more: the partition stands in line again.
    MoreToCome,
    /// The log meanwhile began anew or stands elsewhere.
    Stale,
    /// The partition can't be read on.
    Stopped(ReadError),
}

/// Whether the turn goes on after an item.
enum Step {
    Continue,
    End(Turn),
}

/// A partition that is followed.
pub(in crate::kafka) struct Follower {
    assignment: Assignment,
    lane: usize,
    rules: Rules,
    // Dropped before the queue that it was taken from.
    fetched: Fetched,
    queue: PartitionQueue,
    bell: Arc<Bell>,
    batch: BatchBuilder,
    /// In which leader's log the batch's records stand.
    reached: Option<Reached>,
    records: u64,
    unclassified: u64,
    hearing: Hearing,
    status: Arc<KafkaStatus>,
    counts: Arc<SourceCounts>,
}

/// Whether anything came of the assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hearing {
    Nothing,
    Something,
}

impl Follower {
    /// Begins to follow; the partition is to be assigned right after.
    pub(in crate::kafka) fn new(
        assignment: Assignment,
        lane: usize,
        client: &Client,
        mut queue: PartitionQueue,
        rules: Rules,
        inbox: &Arc<Inbox>,
        status: &Arc<KafkaStatus>,
    ) -> Self {
        let bell = Arc::new(Bell::new(assignment.id));
        queue.on_ready({
            let (bell, inbox) = (Arc::clone(&bell), Arc::clone(inbox));
            move || bell.ring(&inbox)
        });
        // What an earlier assignment left keeps the queue from becoming
        // non-empty: one look clears it away.
        bell.ring(inbox);
        Self {
            lane,
            rules,
            fetched: Fetched::new(client),
            queue,
            bell,
            batch: BatchBuilder::new(assignment.at.offset),
            reached: None,
            records: 0,
            unclassified: 0,
            hearing: Hearing::Nothing,
            status: Arc::clone(status),
            counts: status.counts_of(assignment.source),
            assignment,
        }
    }

    pub(in crate::kafka) fn assignment(&self) -> &Assignment {
        &self.assignment
    }

    pub(in crate::kafka) fn lane(&self) -> usize {
        self.lane
    }

    /// Says whether anything was heard of the partition since it was assigned.
    pub(in crate::kafka) fn is_heard(&self) -> bool {
        self.hearing == Hearing::Something
    }

    /// Moves what the queue has, but no more than is fair, to the log.
    pub(in crate::kafka) fn take_turn(
        &mut self,
        directory: &Directory,
        received: &mut Latencies,
    ) -> Turn {
        self.bell.reset();
        let mut bytes = 0;
        for _ in 0..TAKES_PER_TURN {
            let taken = self.fetched.take(&self.queue, RECORDS_PER_TAKE);
            while let Some(item) = self.fetched.front() {
                if self.hearing == Hearing::Nothing && !matches!(item, Item::Failed(_)) {
                    self.status.forget_stopped(&self.assignment.topic);
                }
                self.hearing = Hearing::Something;
                let before = self.batch.bytes();
                let step = match item {
                    Item::Record(message) if message.offset() < self.batch.to() => Step::Continue,
                    Item::Record(message) => {
                        let fate = classify::add(&mut self.batch, &message, &self.rules);
                        self.reached = message.reached();
                        self.records += 1;
                        self.unclassified += u64::from(fate == Fate::Unclassified);
                        Step::Continue
                    }
                    Item::End(offset) => {
                        if offset > self.batch.to() {
                            self.batch.skip_to(offset);
                        }
                        Step::Continue
                    }
                    Item::OutOfRange | Item::UnknownEpoch => {
                        Step::End(Turn::Stopped(ReadError::OutOfRange(self.batch.to())))
                    }
                    Item::Truncated(to) => Step::End(Turn::Stopped(ReadError::Truncated(to))),
                    Item::Failed(text) => Step::End(Turn::Stopped(ReadError::Failed(text))),
                };
                self.fetched.discard_front();
                bytes += self.batch.bytes().saturating_sub(before);
                if self.is_full() && self.publish(directory, received) == Added::Stale {
                    return Turn::Stale;
                }
                if let Step::End(turn) = step {
                    return self.end(directory, received, turn);
                }
            }
            if taken < RECORDS_PER_TAKE {
                return self.end(directory, received, Turn::Drained);
            }
            if bytes >= BATCH_BYTES_MAX {
                break;
            }
        }
        self.end(directory, received, Turn::MoreToCome)
    }

    /// Gives back what the queue still holds. To be called once the partition is
    /// no longer assigned.
    pub(in crate::kafka) fn discard_rest(mut self) {
        self.fetched.drain(&self.queue);
    }

    fn end(&mut self, directory: &Directory, received: &mut Latencies, turn: Turn) -> Turn {
        match self.publish(directory, received) {
            Added::Stored => turn,
            Added::Stale => Turn::Stale,
        }
    }

    fn is_full(&self) -> bool {
        self.batch.bytes() >= BATCH_BYTES_MAX || self.records >= BATCH_RECORDS_MAX
    }

    /// Appends what was collected and wakes whoever follows.
    fn publish(&mut self, directory: &Directory, received: &mut Latencies) -> Added {
        if self.batch.covers_nothing() {
            return Added::Stored;
        }
        let next = BatchBuilder::new(self.batch.to());
        let batch = std::mem::replace(&mut self.batch, next).finish();
        let batch = batch.received(Instant::now()).under(self.reached.take());
        let (bytes, age) = (batch.bytes(), batch.newest().map(age));
        let traced = batch.traced_from(0).last().map(|traced| traced.origin.trace);
        let (records, unclassified) = (self.records, self.unclassified);
        (self.records, self.unclassified) = (0, 0);
        let Assignment { source, partition, at, .. } = &self.assignment;
        let added = partition.append(at.generation, batch);
        if added == Added::Stored {
            self.counts.add_live(records, bytes, unclassified);
            if let Some(age) = age {
                received.add(age, 1);
                if let Some(trace) = traced {
                    // The workers that match it have not yet begun their spans.
                    received.show(Exemplar::new(trace, None, age, now()));
                }
            }
            directory.wake(*source, partition.id());
        }
        added
    }
}

/// Returns how long ago a record was stamped.
fn age(stamped: Timestamp) -> Duration {
    let stamped = u64::try_from(stamped.as_millis()).unwrap_or(0);
    since_epoch().saturating_sub(Duration::from_millis(stamped))
}

fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Bytes after which a batch is published, so that a backlog comes steadily.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// Records after which a batch is published.
const BATCH_RECORDS_MAX: u64 = 1_000;
/// Records that are taken from a queue at once.
const RECORDS_PER_TAKE: usize = 250;
/// Times that a queue is taken from in one turn.
const TAKES_PER_TURN: usize = 4;
