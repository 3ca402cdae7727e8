//! The bound on bytes of all partitions of a process.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::Weak;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::log::partition::SharedPartition;

/// Counts the bytes of all partitions and says who must give some back.
///
/// A partition above its fair share pays for what it adds; otherwise the
/// largest pays. So a busy topic shortens its own memory before a quiet one's.
#[derive(Debug)]
pub struct Budget {
    tail: Pool,
    history: Pool,
    members: Mutex<Vec<Weak<SharedPartition>>>,
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

    /// Evicts until the bound holds, after `payer` added something.
    pub(in crate::log) fn make_room(&self, kind: Kind, payer: &SharedPartition) {
        while self.bytes(kind) > self.bytes_max(kind) {
            if payer.bytes(kind) > self.fair_share(kind) && payer.evict_oldest(kind) {
                continue;
            }
            let Some(largest) = self.largest(kind) else { return };
            if !largest.evict_oldest(kind) {
                return;
            }
        }
    }

    fn fair_share(&self, kind: Kind) -> u64 {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.bytes_max(kind) / members.max(1) as u64
    }

    fn largest(&self, kind: Kind) -> Option<Arc<SharedPartition>> {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.iter().filter_map(Weak::upgrade).max_by_key(|member| member.bytes(kind))
    }

    fn pool(&self, kind: Kind) -> &Pool {
        match kind {
            Kind::Tail => &self.tail,
            Kind::History => &self.history,
        }
    }
}
