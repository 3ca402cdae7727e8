//! The bound on bytes of all partitions of a process.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::Weak;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::log::partition::SharedPartition;

/// Counts the bytes of all partitions and says who must give some back.
///
/// Of tails, a partition above its fair share pays for what it adds; otherwise
/// the largest pays. So a busy topic shortens its own memory before a quiet
/// one's. What was just added is the last to go, for nobody has read it yet.
///
/// Of history, what came first goes first, whoever's it is: those who waited for
/// it have had the longest time to read it, and those who wait for what has just
/// come have had none.
#[derive(Debug)]
pub struct Budget {
    tail: Pool,
    history: Pool,
    members: Mutex<Vec<Weak<SharedPartition>>>,
    /// Whose each chunk of history is, in the order in which they came. A chunk
    /// that went by itself still stands here; then the partition's next one goes.
    chunks: Mutex<VecDeque<Weak<SharedPartition>>>,
}

/// The two kinds of bytes that are bounded apart, so that catching up never
/// costs the live readers their memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Records kept as they came.
    Tail,
    /// Records read back from Kafka.
    History,
}

#[derive(Debug)]
struct Pool {
    bytes: AtomicU64,
    bytes_max: u64,
}

impl Budget {
    /// Returns a budget of so many bytes for tails and for history.
    pub fn new(tail_bytes_max: u64, history_bytes_max: u64) -> Arc<Self> {
        let pool = |bytes_max| Pool { bytes: AtomicU64::new(0), bytes_max };
        Arc::new(Self {
            tail: pool(tail_bytes_max),
            history: pool(history_bytes_max),
            members: Mutex::default(),
            chunks: Mutex::default(),
        })
    }

    /// Returns the bytes held now.
    pub fn bytes(&self, kind: Kind) -> u64 {
        self.pool(kind).bytes.load(Relaxed)
    }

    /// Returns the bytes that may be held.
    pub fn bytes_max(&self, kind: Kind) -> u64 {
        self.pool(kind).bytes_max
    }

    /// Counts a new partition among those that share the budget.
    pub(in crate::log) fn join(&self, member: &Arc<SharedPartition>) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|known| known.strong_count() > 0);
        members.push(Arc::downgrade(member));
    }

    pub(in crate::log) fn add(&self, kind: Kind, bytes: u64) {
        self.pool(kind).bytes.fetch_add(bytes, Relaxed);
    }

    pub(in crate::log) fn release(&self, kind: Kind, bytes: u64) {
        self.pool(kind).bytes.fetch_sub(bytes, Relaxed);
    }

    /// Evicts until the bound holds, after `payer` added to its tail.
    pub(in crate::log) fn make_room_for_tail(&self, payer: &SharedPartition) {
        while self.bytes(Kind::Tail) > self.bytes_max(Kind::Tail) {
            let greedy = payer.bytes(Kind::Tail) > self.fair_share();
            if greedy && payer.evict_tail_but_newest() {
                continue;
            }
            let largest = self.largest_tail_but(payer);
            let evicted = largest.is_some_and(|other| other.evict_oldest(Kind::Tail));
            if !evicted && !payer.evict_oldest(Kind::Tail) {
                return;
            }
        }
    }

    /// Evicts until the bounds hold, after `payer` got a chunk of history.
    pub(in crate::log) fn make_room_for_history(&self, payer: &Arc<SharedPartition>) {
        let chunks = || self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        chunks().push_back(Arc::downgrade(payer));
        loop {
            let first = {
                let mut chunks = chunks();
                let is_full = self.bytes(Kind::History) > self.bytes_max(Kind::History);
                if !is_full && chunks.len() <= HISTORY_CHUNKS_MAX {
                    return;
                }
                chunks.pop_front()
            };
            let Some(first) = first else { return };
            if let Some(owner) = first.upgrade() {
                owner.evict_oldest(Kind::History);
            }
        }
    }

    fn fair_share(&self) -> u64 {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.bytes_max(Kind::Tail) / members.max(1) as u64
    }

    fn largest_tail_but(&self, payer: &SharedPartition) -> Option<Arc<SharedPartition>> {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let others = members.iter().filter_map(Weak::upgrade);
        others.filter(|other| !std::ptr::eq(&**other, payer)).max_by_key(|m| m.bytes(Kind::Tail))
    }

    fn pool(&self, kind: Kind) -> &Pool {
        match kind {
            Kind::Tail => &self.tail,
            Kind::History => &self.history,
        }
    }
}

/// Chunks of history that are kept, however small they are.
const HISTORY_CHUNKS_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::batch::Batch;
    use crate::log::batch::BatchBuilder;
    use crate::log::partition::Added;
    use crate::log::partition::Read;
    use crate::types::ids::Offset;
    use crate::types::ids::PartitionId;
    use crate::types::ids::Timestamp;
    use crate::types::ids::TopicId;
    use crate::types::record::Owner;
    use crate::types::record::RawRecord;

    fn offset(raw: i64) -> Offset {
        Offset::from_kafka(raw).expect("not negative")
    }

    /// A batch of one record, of somewhat more than 1,000 bytes.
    fn batch(at: i64) -> Batch {
        let mut batch = BatchBuilder::new(offset(at));
        let record = RawRecord {
            offset: offset(at),
            timestamp: Timestamp::from_millis(0),
            key: None,
            value: Some(&[0; 1_000]),
            headers: &[],
        };
        batch.push(&record, Owner::Shared, None);
        batch.finish()
    }

    fn partition(index: usize, end: i64, budget: &Arc<Budget>) -> Arc<SharedPartition> {
        let id = PartitionId::from_index(index);
        SharedPartition::new(id, TopicId::UNKNOWN, Offset::ZERO, offset(end), budget)
    }

    fn has(partition: &SharedPartition, at: i64) -> bool {
        let cursor = crate::log::partition::Cursor { offset: offset(at), ..partition.end() };
        matches!(partition.read(cursor, Offset::MAX, 1), Read::Batches(_))
    }

    #[test]
    fn history_that_nobody_could_read_yet_is_not_given_up_for_older() {
        let budget = Budget::new(0, 3_500);
        let old = partition(0, 100, &budget);
        let new = partition(1, 100, &budget);
        for at in [0, 1, 2] {
            assert_eq!(old.insert_history(old.end().generation, batch(at)), Added::Stored);
        }
        assert_eq!(new.insert_history(new.end().generation, batch(7)), Added::Stored);
        assert!(has(&new, 7));
        assert!(!has(&old, 0) && has(&old, 1) && has(&old, 2));
        assert!(budget.bytes(Kind::History) <= 3_500);
    }

    #[test]
    fn what_was_just_appended_is_the_last_to_go() {
        let budget = Budget::new(2_500, 0);
        let quiet = partition(0, 0, &budget);
        let busy = partition(1, 0, &budget);
        let append = |to: &SharedPartition, at| to.append(to.end().generation, batch(at));
        append(&quiet, 0);
        append(&busy, 0);
        append(&busy, 1);
        assert!(has(&quiet, 0) && !has(&busy, 0) && has(&busy, 1), "the busy one pays");
        let third = partition(2, 0, &budget);
        append(&third, 0);
        assert!(has(&third, 0), "others pay for what nobody could read yet");
        assert!(budget.bytes(Kind::Tail) <= 2_500);
    }
}
