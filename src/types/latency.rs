//! How long things took, counted in buckets.

use std::time::Duration;

use crate::types::ids::Timestamp;
use crate::types::trace::SpanId;
use crate::types::trace::TraceId;

/// How often something took how long: plain numbers, cheap to add to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Latencies {
    buckets: [u64; BUCKETS],
    sum_micros: u64,
    /// Takes no memory until something is traced.
    exemplars: Option<Box<Exemplars>>,
}

/// The last exemplar of each bucket.
pub type Exemplars = [Option<Exemplar>; BUCKETS];

/// One of the times that were counted, with the trace by which to find out why it
/// took so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exemplar {
    trace: TraceId,
    span: Option<SpanId>,
    took_micros: u64,
    at: Timestamp,
}

impl Latencies {
    /// Counts that something took so long, so many times.
    pub fn add(&mut self, took: Duration, times: u64) {
        let micros = micros(took);
        self.buckets[bucket(micros)] += times;
        self.sum_micros = self.sum_micros.saturating_add(micros.saturating_mul(times));
    }

    /// Keeps an exemplar of what was counted, in the place of the one before of its
    /// bucket.
    pub fn show(&mut self, exemplar: Exemplar) {
        let exemplars = self.exemplars.get_or_insert_default();
        exemplars[bucket(exemplar.took_micros)] = Some(exemplar);
    }

    /// Adds what was counted elsewhere.
    pub fn merge(&mut self, other: &Latencies) {
        for (own, others) in self.buckets.iter_mut().zip(&other.buckets) {
            *own += others;
        }
        self.sum_micros = self.sum_micros.saturating_add(other.sum_micros);
        other.exemplars().for_each(|exemplar| self.show(*exemplar));
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

    /// Returns the exemplars, one of a bucket at most.
    pub fn exemplars(&self) -> impl Iterator<Item = &Exemplar> {
        self.exemplars.iter().flat_map(|exemplars| exemplars.iter().flatten())
    }
}

impl Exemplar {
    /// Returns what is to be told of a trace; the span where it is known within
    /// which this was measured.
    pub fn new(trace: TraceId, span: Option<SpanId>, took: Duration, at: Timestamp) -> Self {
        Self { trace, span, took_micros: micros(took), at }
    }

    /// Returns the trace.
    pub fn trace(&self) -> TraceId {
        self.trace
    }

    /// Returns the span within it.
    pub fn span(&self) -> Option<SpanId> {
        self.span
    }

    /// Returns how long it took, in microseconds.
    pub fn took_micros(&self) -> u64 {
        self.took_micros
    }

    /// Returns when it was measured.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// Returns the place of its bucket, as [`Latencies::buckets`] counts.
    pub fn bucket(&self) -> usize {
        bucket(self.took_micros)
    }
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

fn bucket(micros: u64) -> usize {
    BOUNDS_MICROS.partition_point(|bound| *bound < micros)
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

    #[test]
    fn each_bucket_keeps_its_last_exemplar_and_what_is_not_traced_takes_no_memory() {
        let exemplar = |trace: u128, micros| {
            let trace = TraceId::from_number(trace).expect("not zero");
            Exemplar::new(trace, None, Duration::from_micros(micros), Timestamp::from_millis(1))
        };
        let mut latencies = Latencies::default();
        latencies.add(Duration::from_micros(80), 1);
        assert!(latencies.exemplars.is_none());
        let mut others = Latencies::default();
        for (trace, micros) in [(1, 80), (2, 100), (3, 101)] {
            others.show(exemplar(trace, micros));
        }
        latencies.show(exemplar(4, 90));
        latencies.merge(&others);
        let kept: Vec<_> = latencies.exemplars().copied().collect();
        assert_eq!(kept, [exemplar(2, 100), exemplar(3, 101)]);
        assert_eq!(kept.iter().map(Exemplar::bucket).collect::<Vec<_>>(), [0, 1]);
    }
}
