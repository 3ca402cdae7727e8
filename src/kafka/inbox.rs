//! Where the live reader sleeps: what it is told to do and which of its
//! partitions have something.

use std::collections::VecDeque;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::AcqRel;
use std::sync::atomic::Ordering::Release;
use std::time::Duration;
use std::time::Instant;

use crate::kafka::reader::Order;

/// Number of one assignment of a partition, never given twice: what an earlier
/// one still says can be told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::kafka) struct AssignmentId(pub(in crate::kafka) u64);

/// The live reader's inbox. Orders are bounded by the partitions that the intake
/// reads; a partition that has something stands here once.
#[derive(Debug, Default)]
pub(in crate::kafka) struct Inbox {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    orders: Vec<Order>,
    ready: VecDeque<AssignmentId>,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Running,
    Stopping,
}

/// What the reader was woken for.
#[derive(Debug)]
pub(in crate::kafka) enum Woken {
    /// Orders first, then partitions; both may be empty when the time is up.
    Work { orders: Vec<Order>, ready: VecDeque<AssignmentId> },
    /// Stop for good.
    Stop,
}

impl Inbox {
    /// Leaves orders for the reader.
    pub(in crate::kafka) fn order(&self, orders: impl IntoIterator<Item = Order>) {
        self.lock().orders.extend(orders);
        self.changed.notify_one();
    }

    /// Tells the reader to stop.
    pub(in crate::kafka) fn stop(&self) {
        self.lock().phase = Phase::Stopping;
        self.changed.notify_one();
    }

    /// Waits until there is something, or until `deadline`.
    pub(in crate::kafka) fn wait(&self, deadline: Instant) -> Woken {
        let mut waiting = self.lock();
        loop {
            if waiting.phase == Phase::Stopping {
                return Woken::Stop;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if !waiting.orders.is_empty() || !waiting.ready.is_empty() || left == Duration::ZERO {
                return Woken::Work {
                    orders: std::mem::take(&mut waiting.orders),
                    ready: std::mem::take(&mut waiting.ready),
                };
            }
            let woken = self.changed.wait_timeout(waiting, left);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says once that a partition has something, until the reader has looked.
#[derive(Debug)]
pub(in crate::kafka) struct Bell {
    assignment: AssignmentId,
    rung: AtomicBool,
}

impl Bell {
    pub(in crate::kafka) fn new(assignment: AssignmentId) -> Self {
        Self { assignment, rung: AtomicBool::new(false) }
    }

    /// Called by librdkafka's threads when the queue is no longer empty.
    pub(in crate::kafka) fn ring(&self, inbox: &Inbox) {
        if !self.rung.swap(true, AcqRel) {
            inbox.lock().ready.push_back(self.assignment);
            inbox.changed.notify_one();
        }
    }

    /// Called by the reader before it looks: what comes from now on rings again.
    pub(in crate::kafka) fn reset(&self) {
        self.rung.store(false, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: AssignmentId = AssignmentId(1);

    /// Returns how many partitions ring now.
    fn ready(inbox: &Inbox) -> usize {
        match inbox.wait(Instant::now()) {
            Woken::Work { ready, .. } => ready.len(),
            Woken::Stop => panic!("nobody said stop"),
        }
    }

    #[test]
    fn a_bell_rings_once_until_the_reader_has_looked() {
        let (inbox, bell) = (Inbox::default(), Bell::new(ID));
        bell.ring(&inbox);
        bell.ring(&inbox);
        assert_eq!(ready(&inbox), 1);
        bell.ring(&inbox);
        assert_eq!(ready(&inbox), 0, "the reader knows, and has not looked yet");
        bell.reset();
        bell.ring(&inbox);
        assert_eq!(ready(&inbox), 1);
    }

    #[test]
    fn a_sleeping_reader_is_woken_by_a_bell_and_by_stop() {
        let (inbox, bell) = (Inbox::default(), Bell::new(ID));
        let far = Instant::now() + Duration::from_secs(600);
        std::thread::scope(|scope| {
            scope.spawn(|| bell.ring(&inbox));
            assert!(matches!(inbox.wait(far), Woken::Work { .. }));
            scope.spawn(|| inbox.stop());
            assert!(matches!(inbox.wait(far), Woken::Stop));
        });
    }
}
