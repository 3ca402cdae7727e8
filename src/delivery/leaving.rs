//! The order in which the connections of a shard leave, and come back elsewhere.

use std::time::Duration;
use std::time::Instant;

use crate::delivery::subscription::ConnectionKey;

/// A shard that says goodbye to its connections, one after the other.
///
/// Each has a turn, and its time to come back counts from that turn, not from when
/// it was told: where the shard is late and tells many at once, they come back one
/// after the other all the same.
#[derive(Debug)]
pub(in crate::delivery) struct Leaving {
    since: Instant,
    window: Duration,
    connections: Vec<ConnectionKey>,
    told: usize,
    /// When the one that was told last comes back, from the beginning.
    back: Duration,
}

impl Leaving {
    /// Begins now, to be over after `window`.
    pub(in crate::delivery) fn new(
        connections: Vec<ConnectionKey>,
        window: Duration,
        now: Instant,
    ) -> Self {
        Self { since: now, window, connections, told: 0, back: Duration::ZERO }
    }

    /// Returns a connection whose turn has come, and how long it is to stay away.
    pub(in crate::delivery) fn next(&mut self, now: Instant) -> Option<(ConnectionKey, Duration)> {
        let key = *self.connections.get(self.told)?;
        let all = self.connections.len() as f64;
        let share = self.told as f64 / all;
        let passed = now.saturating_duration_since(self.since);
        if passed < self.window.mul_f64(share) {
            return None;
        }
        self.told += 1;
        let returns = self.window.max(RETURNS_MIN);
        let in_turn = AWAY + returns.mul_f64(share);
        // Later than a second, it is whoever was told before that counts.
        self.back = in_turn.max(passed).max(self.back + returns.mul_f64(1.0 / all));
        Some((key, self.back - passed))
    }
}

/// How long a connection that is told in its turn stays away: also how late a shard
/// may be without delaying anybody's return.
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
    fn who_is_told_up_to_a_second_late_comes_back_in_turn_all_the_same() {
        let looks = [0, 930, 1_010, 2_000, 2_700, 3_690, 4_650, 5_600, 6_500, 7_400, 8_300, 9_200];
        let left = leave(Duration::from_secs(10), looks.into_iter().chain([10_000]));
        assert_eq!(left.iter().map(|(_, back)| *back).collect::<Vec<_>>(), evenly(100));
    }

    #[test]
    fn who_is_told_later_still_comes_back_after_those_before() {
        let left = leave(Duration::from_secs(10), [0, 5_000, 10_000].into_iter());
        let backs: Vec<u64> = left.iter().map(|(_, back)| *back).collect();
        let (first, late) = (backs[0], &backs[1..]);
        assert_eq!((first, late.len()), (1_000, 99));
        assert!(late.iter().copied().eq((0..99).map(|turn| 5_000 + turn * 100)), "{late:?}");
    }

    #[test]
    fn who_is_sent_away_at_once_does_not_come_back_at_once() {
        let left = leave(Duration::ZERO, std::iter::once(0));
        assert_eq!(left.iter().map(|(_, back)| *back).collect::<Vec<_>>(), evenly(30));
    }
}
