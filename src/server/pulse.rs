//! Whether the worker threads get on, and how many sockets they hold.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::time::Instant;

use crate::types::ids::ShardId;
use crate::types::moment::millis;

/// When each worker last went round its loop, which it does at least once a
/// second.
#[derive(Debug, Clone)]
pub struct Pulses {
    began_at: Instant,
    /// Milliseconds from the beginning to each worker's last round.
    rounds: Arc<[AtomicU64]>,
    /// The sockets of clients that each had then.
    sockets: Arc<[AtomicUsize]>,
}

impl Pulses {
    pub(in crate::server) fn new(workers: u16) -> Self {
        let rounds = (0..workers).map(|_| AtomicU64::new(0)).collect();
        let sockets = (0..workers).map(|_| AtomicUsize::new(0)).collect();
        Self { began_at: Instant::now(), rounds, sockets }
    }

    pub(in crate::server) fn beat(&self, shard: ShardId, sockets: usize) {
        self.sockets[usize::from(shard.raw())].store(sockets, Relaxed);
        let round = millis(self.began_at.elapsed());
        self.rounds[usize::from(shard.raw())].store(round, Relaxed);
    }

    /// Returns how long ago each worker went round, in their order.
    pub fn ages(&self) -> Vec<Duration> {
        let elapsed = self.began_at.elapsed();
        let age =
            |round: &AtomicU64| elapsed.saturating_sub(Duration::from_millis(round.load(Relaxed)));
        self.rounds.iter().map(age).collect()
    }

    /// Returns how many sockets of clients all workers had in their last rounds.
    pub fn sockets(&self) -> usize {
        self.sockets.iter().map(|sockets| sockets.load(Relaxed)).sum()
    }

    /// Returns how long ago the worker that is furthest behind went round.
    pub fn oldest(&self) -> Duration {
        let round = self.rounds.iter().map(|round| round.load(Relaxed)).min().unwrap_or(0);
        self.began_at.elapsed().saturating_sub(Duration::from_millis(round))
    }
}
