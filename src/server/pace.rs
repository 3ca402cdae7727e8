//! At which pace connections are let in.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

/// The turns of those who connect, shared by all workers.
///
/// Who comes too soon waits for a turn. Who would wait too long is sent away, and those
/// who are come back no faster than they can be let in. Nothing is kept for them: who
/// happens to come first has the turn.
#[derive(Debug, Default)]
pub(in crate::server) struct Pace(Mutex<Turns>);

#[derive(Debug, Default)]
struct Turns {
    rate: u32,
    /// The first that is free to be waited for.
    next: Option<Instant>,
    /// When nobody yet was told to come back.
    back: Option<Instant>,
}

/// No turn is near enough to wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) struct TooFast {
    pub(in crate::server) retry_after: Duration,
}

impl Pace {
    /// Takes a turn, of so many in a second (0: any number), for who comes now;
    /// returns how long to wait for it.
    pub(in crate::server) fn take(&self, rate: u32, now: Instant) -> Result<Duration, TooFast> {
        let Some(apart) = Duration::from_secs(1).checked_div(rate) else {
            return Ok(Duration::ZERO);
        };
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.rate != rate {
            *turns = Turns { rate, ..Turns::default() };
        }
        let next = turns.next.map_or(now, |next| next.max(now));
        let wait = next - now;
        if wait <= WAIT_MAX {
            turns.next = Some(next + apart);
            return Ok(wait);
        }
        let back = turns.back.map_or(next, |back| back.max(next));
        let mut retry_after = back - now;
        if retry_after <= AWAY_MAX {
            turns.back = Some(back + apart);
        } else {
            retry_after = AWAY_MAX.mul_f64(0.5 + fastrand::f64() / 2.0);
        }
        Err(TooFast { retry_after })
    }
}

/// How long a client may wait for its turn: far less than its patience for an answer.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// How long a client may be sent away. Meanwhile another replica may have room.
const AWAY_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_crowd_is_let_in_one_after_the_other_and_the_rest_comes_back_so() {
        let (pace, now) = (Pace::default(), Instant::now());
        for turn in 0..=200 {
            assert_eq!(pace.take(100, now), Ok(millis(turn * 10)));
        }
        for turn in 201..=1_000 {
            assert_eq!(pace.take(100, now), Err(TooFast { retry_after: millis(turn * 10) }));
        }
        let by_chance = pace.take(100, now).expect_err("ten seconds are full").retry_after;
        assert!((millis(5_000)..millis(10_000)).contains(&by_chance), "{by_chance:?}");
        // Who comes back in time is let in at once.
        for turn in [201, 202, 500, 1_000] {
            assert_eq!(pace.take(100, now + millis(turn * 10)), Ok(Duration::ZERO));
        }
    }

    #[test]
    fn all_get_in_at_the_rate_also_where_others_come_meanwhile() {
        let (pace, began) = (Pace::default(), Instant::now());
        // Half of them at once, the others over ten seconds.
        let arrivals = (0..2_000).map(|turn| if turn % 2 == 0 { 0 } else { turn * 5 });
        let mut coming: BinaryHeap<_> = arrivals.map(|at| Reverse(millis(at))).collect();
        let mut inside = Vec::new();
        while let Some(Reverse(at)) = coming.pop() {
            match pace.take(200, began + at) {
                Ok(wait) => inside.push(at + wait),
                Err(TooFast { retry_after }) => coming.push(Reverse(at + retry_after)),
            }
        }
        inside.sort_unstable();
        assert!(inside.windows(2).all(|pair| pair[1] - pair[0] >= millis(5)));
        // 2,000 turns of 5 ms, and little more.
        assert!(inside[1_999] < millis(12_000), "{:?}", inside[1_999]);
    }

    #[test]
    fn who_comes_slowly_never_waits_and_time_is_not_saved_up() {
        let (pace, now) = (Pace::default(), Instant::now());
        for second in 0..10 {
            assert_eq!(pace.take(1, now + millis(second * 1_000)), Ok(Duration::ZERO));
        }
        let later = now + millis(60_000);
        assert_eq!(pace.take(1, later), Ok(Duration::ZERO));
        assert_eq!(pace.take(1, later), Ok(millis(1_000)));
    }

    #[test]
    fn without_a_rate_nobody_waits_and_another_rate_begins_anew() {
        let (pace, now) = (Pace::default(), Instant::now());
        for _ in 0..10_000 {
            assert_eq!(pace.take(0, now), Ok(Duration::ZERO));
        }
        let waits = [0, 1_000, 2_000].map(millis);
        assert_eq!([(); 3].map(|()| pace.take(1, now)), waits.map(Ok));
        assert!(pace.take(1, now).is_err());
        assert_eq!([(); 2].map(|()| pace.take(100, now)), [0, 10].map(millis).map(Ok));
    }
}
