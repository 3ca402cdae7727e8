//! The order in which the connections of a shard leave, and come back elsewhere.

use std::time::Duration;
use std::time::Instant;

use crate::delivery::subscription::ConnectionKey;

/// A shard that says goodbye to its connections, one after the other.
///
/// Each has a turn, and its time to come back counts from that turn, not from when
/// it was told: where the shard is late and tells many at once, they come back as
/// evenly as if each had been told in time.
#[derive(Debug)]
pub(in crate::delivery) struct Leaving {
    since: Instant,
    window: Duration,
    connections: Vec<ConnectionKey>,
    told: usize,
}

impl Leaving {
    /// Begins now, to be over after `window`.
    pub(in crate::delivery) fn new(
        connections: Vec<ConnectionKey>,
        window: Duration,
        now: Instant,
    ) -> Self {
        Self { since: now, window, connections, told: 0 }
    }

    /// Returns a connection whose turn has come, and how long it is to stay away.
    pub(in crate::delivery) fn next(&mut self, now: Instant) -> Option<(ConnectionKey, Duration)> {
        let key = *self.connections.get(self.told)?;
        let share = self.told as f64 / self.connections.len() as f64;
        let passed = now.saturating_duration_since(self.since);
        if passed < self.window.mul_f64(share) {
            return None;
        }
        self.told += 1;
        let back = AWAY + self.window.max(RETURNS_MIN).mul_f64(share);
        Some((key, back.saturating_sub(passed)))
    }
}

/// How long a connection that is told in its turn stays away: also how late a shard
/// may be before those it tells come back sooner than one after the other.
const AWAY: Duration = Duration::from_secs(1);
/// Least time over which connections come back, however fast they are sent away.
const RETURNS_MIN: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets a hundred connections leave, with a look at the clock at each of these
    /// milliseconds, and returns when they were told and when they come back.
    fn leave(window: Duration, looks: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
        let began = Instant::now();
        let keys = (0..100).map(|slot| ConnectionKey { slot, serial: 0 }).collect();
        let mut leaving = Leaving::new(keys, window, began);
        let mut left = Vec::new();
        for look in looks {
            while let Some((key, wait)) = leaving.next(began + Duration::from_millis(look)) {
                assert_eq!(key.slot as usize, left.len());
                left.push((look, look + wait.as_millis() as u64));
            }
        }
        left
    }

    fn evenly(apart: u64) -> Vec<u64> {
        (0..100).map(|turn| 1_000 + turn * apart).collect()
    }

    #[test]
    fn all_are_told_within_the_window_and_come_back_one_after_the_other() {
        let left = leave(Duration::from_secs(10), (0..=10_000).step_by(50));
        let told: Vec<u64> = left.iter().map(|(told, _)| *told).collect();
        assert_eq!(told, (0..100).map(|turn| turn * 100).collect::<Vec<_>>());
        assert_eq!(left.iter().map(|(_, back)| *back).collect::<Vec<_>>(), evenly(100));
    }

    #[test]
    fn who_is_told_late_comes_back_in_turn_all_the_same() {
        let looks = [0, 930, 1_010, 2_000, 2_700, 3_690, 10_000];
        let left = leave(Duration::from_secs(10), looks.into_iter());
        assert_eq!(left.len(), 100);
        // Up to a second late.
        let backs: Vec<u64> = left.iter().map(|(_, back)| *back).collect();
        assert_eq!(backs[..37], evenly(100)[..37]);
        // Later, nobody waits for what is past.
        assert!(left[37..90].iter().all(|(told, back)| (*told, *back) == (10_000, 10_000)));
        assert_eq!(backs[90..], evenly(100)[90..]);
    }

    #[test]
    fn who_is_sent_away_at_once_does_not_come_back_at_once() {
        let left = leave(Duration::ZERO, std::iter::once(0));
        assert_eq!(left.iter().map(|(_, back)| *back).collect::<Vec<_>>(), evenly(30));
    }
}
