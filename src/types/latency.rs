//! How long things took, counted in buckets.

use std::time::Duration;

/// How often something took how long: plain numbers, cheap to add to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Latencies {
    buckets: [u64; BUCKETS],
    sum_micros: u64,
}

impl Latencies {
    /// Counts that something took so long, so many times.
    pub fn add(&mut self, took: Duration, times: u64) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[bucket] += times;
        self.sum_micros = self.sum_micros.saturating_add(micros.saturating_mul(times));
    }

    /// Adds what was counted elsewhere.
    pub fn merge(&mut self, other: &Latencies) {
        for (own, others) in self.buckets.iter_mut().zip(&other.buckets) {
            *own += others;
        }
        self.sum_micros = self.sum_micros.saturating_add(other.sum_micros);
    }

    /// Returns how often each bucket was met, in the order of [`BOUNDS_MICROS`];
    /// the last holds all that took longer.
    pub fn buckets(&self) -> &[u64; BUCKETS] {
        &self.buckets
    }

    /// Returns the microseconds of all together.
    pub fn sum_micros(&self) -> u64 {
        self.sum_micros
    }
}

/// Upper bounds of the buckets, both ends included, in microseconds: from what a
/// worker's turn takes to what a person would call broken.
pub const BOUNDS_MICROS: [u64; BUCKETS - 1] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 60_000_000,
];

/// How many buckets there are, with that of all that took longer.
pub const BUCKETS: usize = 18;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let check = |micros, bucket: usize| {
            let mut latencies = Latencies::default();
            latencies.add(Duration::from_micros(micros), 3);
            assert_eq!(latencies.buckets()[bucket], 3, "{micros} µs");
            assert_eq!(latencies.sum_micros(), micros * 3);
        };
        check(0, 0);
        check(100, 0);
        check(101, 1);
        check(60_000_000, BUCKETS - 2);
        check(60_000_001, BUCKETS - 1);
    }
}
