//! One partition in memory: its tail, what was read back of its history, and
//! what is known to be gone.
//!
//! ```text
//!   start          history chunks            tail_start        end
//!     |   ....[------)..[---------)....        [----------------)
//!   oldest that                             appended as it is read
//!   Kafka has
//! ```
//!
//! A reader holds a [`Cursor`] and asks for what stands there. The log never
//! knows its readers.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::log::batch::Batch;
use crate::log::budget::Budget;
use crate::log::budget::Kind;
use crate::log::history::History;
use crate::log::tail::Tail;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::Timestamp;
use crate::types::ids::TopicId;
use crate::types::positions::Reached;
use crate::types::sabotage::Defect;

/// Counts how often the offsets of a partition began to mean something else:
/// its log became shorter, or its topic was made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Generation(u32);

impl Generation {
    /// Returns how often.
    pub fn count(self) -> u32 {
        self.0
    }

    fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Where a reader stands: the next offset it wants, and of which generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    pub generation: Generation,
    pub offset: Offset,
}

/// What stands at a cursor.
#[derive(Debug, Clone)]
pub enum Read {
    /// Batches that join without a hole; the first covers the cursor.
    Batches(Vec<Arc<Batch>>),
    /// Nothing yet: the cursor is at the end, or beyond it.
    AtEnd,
    /// Kafka has it, memory has not.
    Missing,
    /// Kafka has it no longer; the oldest that it has is at `to`.
    Expired { to: Offset },
    /// The log became shorter than the cursor's offset or just moved on to a
    /// new generation; where `to` is the cursor's own offset, nothing is lost.
    Truncated { to: Cursor },
    /// The topic was made again; its records begin at `to`.
    Recreated { to: Cursor, topic_id: TopicId },
}

/// Whether what a Kafka thread brought was still wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    Stored,
    /// The partition meanwhile began anew or is read from elsewhere: what was
    /// brought has been dropped, and whoever brought it should stop.
    Stale,
}

/// One partition, shared by the threads that fill it and the shards that read.
#[derive(Debug)]
pub struct SharedPartition {
    id: PartitionId,
    budget: Arc<Budget>,
    log: Mutex<PartitionLog>,
}

impl SharedPartition {
    /// Returns an empty partition: Kafka's oldest record is at `start`, and the
    /// tail begins at `end`.
    pub fn new(
        id: PartitionId,
        topic_id: TopicId,
        start: Offset,
        end: Offset,
        budget: &Arc<Budget>,
    ) -> Arc<Self> {
        let log = Mutex::new(PartitionLog::new(topic_id, start, end));
        let partition = Arc::new(Self { id, budget: Arc::clone(budget), log });
        budget.join(&partition);
        partition
    }

    /// Returns a partition of which nobody can say yet where it begins and ends,
    /// since it has no leader. Cursors wait in it, also above its end, until
    /// [`SharedPartition::locate`].
    pub fn unlocated(id: PartitionId, topic_id: TopicId, budget: &Arc<Budget>) -> Arc<Self> {
        let partition = Self::new(id, topic_id, Offset::ZERO, Offset::ZERO, budget);
        partition.lock().located = Generation::default().next();
        partition
    }

    /// Returns the partition's number.
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// Returns the identity of the topic whose records these are.
    pub fn topic_id(&self) -> TopicId {
        self.lock().topic_id
    }

    /// Returns the first place that the tail does not cover yet: what must be
    /// appended next.
    pub fn end(&self) -> Cursor {
        let log = self.lock();
        log.at(log.tail.end())
    }

    /// Says whether offsets of this generation are Kafka's, or only what clients
    /// have named before anybody could say.
    pub fn is_located(&self, generation: Generation) -> bool {
        generation >= self.lock().located
    }

    /// Returns the oldest offset that Kafka is known to have.
    pub fn start(&self) -> Offset {
        self.lock().start
    }

    /// Returns when the newest record that came was stamped; `None` before one
    /// came.
    pub fn newest(&self) -> Option<Timestamp> {
        self.lock().newest
    }

    /// Returns the range of the tail.
    pub fn tail(&self) -> (Offset, Offset) {
        let log = self.lock();
        (log.tail.start(), log.tail.end())
    }

    /// Returns in which leader's log what was read up to this place stood, as far as
    /// that is known.
    pub fn reached(&self, at: Cursor) -> Option<Reached> {
        let log = self.lock();
        let reached = log.reached.filter(|_| at.generation == log.generation)?;
        Some(reached.up_to(at.offset))
    }

    /// Notes in which leader's log the end was found at which reading begins. To be
    /// called before anything is read of this generation.
    pub fn begin_reached(&self, found: Reached) {
        let mut log = self.lock();
        let found = found.up_to(log.tail.end());
        log.reached.get_or_insert(found);
    }

    /// Notes that the log of this leader was found to reach this far. It tells of what
    /// was read already only where that is known to be of the same leader's log.
    pub fn note_reached(&self, generation: Generation, found: Reached) {
        let mut log = self.lock();
        let found = found.up_to(log.tail.end());
        if log.generation == generation
            && let Some(known) = &mut log.reached
            && known.epoch == found.epoch
        {
            known.to = known.to.max(found.to);
        }
    }

    /// Returns a number that changes when history came or ranges were found
    /// gone, but not when the tail grew.
    pub fn history_version(&self) -> u64 {
        self.lock().history_version
    }

    /// Returns the bytes held.
    pub fn bytes(&self, kind: Kind) -> u64 {
        let log = self.lock();
        match kind {
            Kind::Tail => log.tail.bytes(),
            Kind::History => log.history.bytes(),
        }
    }

    /// Returns what stands at `at`: batches up to `limit`, and no further batch
    /// once `bytes_max` are reached.
    pub fn read(&self, at: Cursor, limit: Offset, bytes_max: u64) -> Read {
        self.lock().read(at, limit, bytes_max)
    }

    /// Returns where a reading of history at `from` should stop: at the next
    /// thing that memory has; `None` when it has `from` itself.
    pub fn history_until(&self, from: Offset) -> Option<Offset> {
        let log = self.lock();
        let tail = log.tail.start();
        if from >= tail || log.history.at(from).is_some() {
            return None;
        }
        Some(log.history.after(from).map_or(tail, |chunk| chunk.from().min(tail)))
    }

    /// Adds what was read from [`SharedPartition::end`] on.
    pub fn append(&self, generation: Generation, batch: Batch) -> Added {
        let bytes = batch.bytes();
        {
            let mut log = self.lock();
            if log.generation != generation || log.tail.end() != batch.from() {
                return Added::Stale;
            }
            log.append(batch);
        }
        self.budget.add(Kind::Tail, bytes);
        self.budget.make_room_for_tail(self);
        Added::Stored
    }

    /// Adds what was read back of history.
    pub fn insert_history(self: &Arc<Self>, generation: Generation, batch: Batch) -> Added {
        let bytes = batch.bytes();
        let replaced = {
            let mut log = self.lock();
            // A later leader's records below what was read of the log: it was cut off, and
            // the live reader is about to find out.
            let is_newer =
                |reached: Reached| log.reached.is_some_and(|known| known.epoch < reached.epoch);
            if log.generation != generation || batch.reached().is_some_and(is_newer) {
                return Added::Stale;
            }
            log.insert_history(batch)
        };
        self.budget.add(Kind::History, bytes);
        self.budget.release(Kind::History, replaced);
        self.budget.make_room_for_history(self);
        Added::Stored
    }

    /// Notes that Kafka's oldest record is at `start` now, and gives up what
    /// lies before it. When even the tail's end does, the tail begins there.
    pub fn expire(&self, start: Offset) {
        self.change(|log| log.expire(start));
    }

    /// Notes what is known now of an unlocated partition. To cursors that stand
    /// above its end the log became shorter.
    pub fn locate(&self, start: Offset, end: Offset) {
        self.change(|log| {
            log.truncate(end);
            if Defect::LocateInSilence.is_planted() {
                log.cuts.clear();
            }
            log.expire(start);
        });
    }

    /// Notes that the log became shorter: it ends at `end`.
    pub fn truncate(&self, end: Offset) {
        self.change(|log| log.truncate(end));
    }

    /// Notes that the topic was made again and begins anew.
    pub fn recreate(&self, topic_id: TopicId) {
        self.change(|log| log.recreate(topic_id));
    }

    /// Gives up the oldest batch; says whether there was one.
    pub(in crate::log) fn evict_oldest(&self, kind: Kind) -> bool {
        let bytes = {
            let mut log = self.lock();
            match kind {
                Kind::Tail => log.tail.evict(),
                Kind::History => log.history.evict(),
            }
        };
        self.budget.release(kind, bytes.unwrap_or(0));
        bytes.is_some()
    }

    /// Gives up the oldest batch of the tail, unless it is the only one; says
    /// whether it did.
    pub(in crate::log) fn evict_tail_but_newest(&self) -> bool {
        let bytes = {
            let mut log = self.lock();
            if log.tail.len() < 2 {
                return false;
            }
            log.tail.evict()
        };
        self.budget.release(Kind::Tail, bytes.unwrap_or(0));
        bytes.is_some()
    }

    fn change(&self, change: impl FnOnce(&mut PartitionLog)) {
        let (tail, history) = {
            let mut log = self.lock();
            let before = (log.tail.bytes(), log.history.bytes());
            change(&mut log);
            log.history_version += 1;
            (before.0 - log.tail.bytes(), before.1 - log.history.bytes())
        };
        self.budget.release(Kind::Tail, tail);
        self.budget.release(Kind::History, history);
    }

    fn lock(&self) -> MutexGuard<'_, PartitionLog> {
        // A panic elsewhere must not take the readers along: each change of the
        // log below leaves it whole.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SharedPartition {
    fn drop(&mut self) {
        let (tail, history) = {
            let log = self.lock();
            (log.tail.bytes(), log.history.bytes())
        };
        self.budget.release(Kind::Tail, tail);
        self.budget.release(Kind::History, history);
    }
}

#[derive(Debug)]
struct PartitionLog {
    topic_id: TopicId,
    generation: Generation,
    /// The first generation of which Kafka has said where the log ends.
    located: Generation,
    /// The generation in which the topic was last made again.
    recreated: Generation,
    /// Where the log was cut since then: each generation and its first end.
    cuts: Vec<(Generation, Offset)>,
    start: Offset,
    tail: Tail,
    history: History,
    history_version: u64,
    /// When the newest record that was appended was stamped.
    newest: Option<Timestamp>,
    /// In which leader's log what was read of this generation stood, where it is known.
    reached: Option<Reached>,
}

/// Cuts that are remembered one by one; older ones are taken for the lowest.
const CUTS_MAX: usize = 16;

impl PartitionLog {
    fn new(topic_id: TopicId, start: Offset, end: Offset) -> Self {
        Self {
            topic_id,
            generation: Generation::default(),
            located: Generation::default(),
            recreated: Generation::default(),
            cuts: Vec::new(),
            start,
            tail: Tail::new(end),
            history: History::default(),
            history_version: 0,
            newest: None,
            reached: None,
        }
    }

    fn at(&self, offset: Offset) -> Cursor {
        Cursor { generation: self.generation, offset }
    }

    fn read(&self, at: Cursor, limit: Offset, bytes_max: u64) -> Read {
        if at.generation != self.generation {
            return self.read_of_past(at);
        }
        if at.offset < self.start {
            return Read::Expired { to: self.start };
        }
        let limit = limit.min(self.tail.end());
        if at.offset >= limit {
            return Read::AtEnd;
        }
        if at.offset >= self.tail.start() {
            return Read::Batches(self.tail.read(at.offset, limit, bytes_max));
        }
        let mut chunk = self.history.at(at.offset);
        if Defect::ReadAfterHole.is_planted() {
            chunk = self.history.after(at.offset).or(chunk);
        }
        chunk.map_or(Read::Missing, |chunk| Read::Batches(vec![Arc::clone(chunk)]))
    }

    fn read_of_past(&self, at: Cursor) -> Read {
        if at.generation < self.recreated {
            return Read::Recreated { to: self.at(Offset::ZERO), topic_id: self.topic_id };
        }
        let cuts = self.cuts.iter().filter(|(generation, _)| *generation > at.generation);
        let lowest = cuts.map(|(_, end)| *end).min().unwrap_or(at.offset);
        Read::Truncated { to: self.at(at.offset.min(lowest)) }
    }

    fn append(&mut self, batch: Batch) {
        self.reached = batch.reached().or(self.reached);
        self.newest = batch.newest().or(self.newest);
        self.tail.append(batch);
    }

    /// Returns the bytes of a chunk that began at the same place.
    fn insert_history(&mut self, batch: Batch) -> u64 {
        self.history_version += 1;
        let reached = self.reached.map(|reached| reached.up_to(batch.to()));
        self.history.insert(batch.under(reached))
    }

    fn expire(&mut self, start: Offset) {
        self.start = self.start.max(start);
        self.tail.expire(self.start);
        self.history.expire(self.start);
    }

    fn truncate(&mut self, end: Offset) {
        self.begin_at(end);
        self.start = self.start.min(end);
        if self.cuts.len() == CUTS_MAX {
            let (_, oldest) = self.cuts.remove(0);
            self.cuts[0].1 = self.cuts[0].1.min(oldest);
        }
        self.cuts.push((self.generation, end));
    }

    fn recreate(&mut self, topic_id: TopicId) {
        self.begin_at(Offset::ZERO);
        self.start = Offset::ZERO;
        self.recreated = self.generation;
        self.cuts.clear();
        self.topic_id = topic_id;
    }

    /// Begins another generation, of which nothing is read yet.
    fn begin_at(&mut self, end: Offset) {
        self.generation = self.generation.next();
        self.tail = Tail::new(end);
        self.history = History::default();
        if !Defect::KeepReached.is_planted() {
            self.reached = None;
        }
    }
}

#[cfg(test)]
mod tests;
