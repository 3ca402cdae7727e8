//! When to connect again: full jitter under a growing ceiling.

use std::time::Duration;

use crate::protocol::close_code::Reconnect;

/// Counts failed attempts and says how long to wait before the next.
///
/// Each wait is drawn evenly from zero to a ceiling that doubles, so that the
/// clients of a replica that died do not come back all at once.
#[derive(Debug)]
pub struct Retry {
    random: fastrand::Rng,
    attempts: u32,
}

impl Retry {
    /// Returns a counter whose jitter follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), attempts: 0 }
    }

    /// Notes that a connection works: the next wait is short again.
    pub fn handle_success(&mut self) {
        self.attempts = 0;
    }

    /// Returns how long to wait before the next attempt; `None` when there must
    /// be none. A wait that the server named is taken as it is: the server has
    /// spread its clients already.
    pub fn handle_failure(
        &mut self,
        advice: Reconnect,
        retry_after: Option<Duration>,
    ) -> Option<Duration> {
        let ceiling = match advice {
            Reconnect::Never => return None,
            Reconnect::Soon | Reconnect::NewToken => SOON_CEILING,
            Reconnect::Backoff => BACKOFF_CEILING,
        };
        let ceiling = ceiling.saturating_mul(1 << self.attempts.min(DOUBLINGS_MAX));
        self.attempts = self.attempts.saturating_add(1);
        let jitter = ceiling.min(CEILING_MAX).mul_f64(self.random.f64());
        Some(retry_after.map_or(jitter, |wait| wait.min(RETRY_AFTER_MAX)))
    }
}

/// Longest first wait where a client should come back soon.
const SOON_CEILING: Duration = Duration::from_millis(250);
/// Longest first wait where a client should give the server time.
const BACKOFF_CEILING: Duration = Duration::from_secs(2);
/// Longest wait of all.
const CEILING_MAX: Duration = Duration::from_secs(30);
/// Longest wait that a server may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// Doublings after which every ceiling has been reached.
const DOUBLINGS_MAX: u32 = 8;

const _: () = assert!(SOON_CEILING.as_millis() << DOUBLINGS_MAX > CEILING_MAX.as_millis());

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest of many first, second, … waits.
    fn check_ceilings(advice: Reconnect, ceilings: &[Duration]) {
        let mut longest = vec![Duration::ZERO; ceilings.len()];
        for seed in 0..1_000 {
            let mut retry = Retry::new(seed);
            for longest in &mut longest {
                let wait = retry.handle_failure(advice, None).expect("it comes back");
                *longest = wait.max(*longest);
            }
        }
        for (longest, ceiling) in longest.iter().zip(ceilings) {
            assert!(longest <= ceiling && *longest > ceiling.mul_f64(0.98), "{longest:?}");
        }
    }

    #[test]
    fn waits_are_spread_under_a_doubling_ceiling() {
        let millis = [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000];
        check_ceilings(Reconnect::Soon, &millis.map(Duration::from_millis));
        check_ceilings(Reconnect::Backoff, &[2, 4, 8, 16, 30, 30].map(Duration::from_secs));
    }

    #[test]
    fn a_wait_that_the_server_names_is_taken() {
        let mut retry = Retry::new(1);
        let named = Duration::from_millis(3_400);
        assert_eq!(retry.handle_failure(Reconnect::Soon, Some(named)), Some(named));
        let absurd = Duration::from_secs(1 << 40);
        assert_eq!(retry.handle_failure(Reconnect::Soon, Some(absurd)), Some(RETRY_AFTER_MAX));
        assert_eq!(retry.handle_failure(Reconnect::Never, Some(named)), None);
    }

    #[test]
    fn success_makes_the_next_wait_short_again() {
        let mut retry = Retry::new(1);
        for _ in 0..100 {
            retry.handle_failure(Reconnect::Backoff, None);
        }
        retry.handle_success();
        let wait = retry.handle_failure(Reconnect::Soon, None).expect("it comes back");
        assert!(wait <= SOON_CEILING, "{wait:?}");
    }
}
