//! Histograms of latencies. Whoever measures counts into plain numbers and adds
//! them here once a second: a frame that goes to ten thousand clients is one
//! addition, where a recorder of single values would take ten thousand.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::telemetry::exposition::Exposition;
use crate::telemetry::metric;
use crate::types::latency::BOUNDS_MICROS;
use crate::types::latency::BUCKETS;
use crate::types::latency::Exemplars;
use crate::types::latency::Latencies;

/// A part of a record's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// From Kafka's timestamp to our memory.
    Received,
    /// From there to the turn of a worker.
    Dispatched,
    /// From a frame to the socket.
    Written,
    /// From a frame to its acknowledgement.
    Acknowledged,
    /// From Kafka's timestamp to a frame on its way to a client.
    Delivered,
}

impl Stage {
    const ALL: [Self; 5] =
        [Self::Received, Self::Dispatched, Self::Written, Self::Acknowledged, Self::Delivered];

    fn name(self) -> &'static str {
        match self {
            Self::Received => metric::RECEIVE_LATENCY,
            Self::Dispatched => metric::DISPATCH_LATENCY,
            Self::Written => metric::WRITE_LATENCY,
            Self::Acknowledged => metric::ACKNOWLEDGE_LATENCY,
            Self::Delivered => metric::DELIVERY_LATENCY,
        }
    }

    fn store(self) -> &'static Store {
        &STORES[self as usize]
    }
}

/// Adds what was counted since the last time.
pub fn add(stage: Stage, counted: &Latencies) {
    let store = stage.store();
    for (own, counted) in store.buckets.iter().zip(counted.buckets()) {
        if *counted > 0 {
            own.fetch_add(*counted, Relaxed);
        }
    }
    store.sum_micros.fetch_add(counted.sum_micros(), Relaxed);
    let mut shown = counted.exemplars().peekable();
    if shown.peek().is_some() {
        let mut exemplars = store.exemplars.lock().unwrap_or_else(PoisonError::into_inner);
        for exemplar in shown {
            let last = &mut exemplars[exemplar.bucket()];
            // Workers add one after the other what they saw at once, and Prometheus
            // takes the exemplars of a series only in the order of their times.
            if last.is_none_or(|last| last.at() <= exemplar.at()) {
                *last = Some(*exemplar);
            }
        }
    }
}

/// Writes all histograms.
pub fn expose(out: &mut Exposition) {
    for stage in Stage::ALL {
        let (name, store) = (stage.name(), stage.store());
        out.family(name);
        let bucket = format!("{name}_bucket");
        // Before the counts, so that what an exemplar shows has been counted.
        let exemplars = *store.exemplars.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        for (index, own) in store.buckets.iter().enumerate() {
            count += own.load(Relaxed);
            let bound = match BOUNDS_MICROS.get(index) {
                // As OpenMetrics writes a bound: the series is one and the same in both
                // formats.
                Some(micros) => format!("{:?}", seconds(*micros)),
                None => "+Inf".to_owned(),
            };
            out.bucket(&bucket, &bound, count, exemplars[index].as_ref());
        }
        out.sample(&format!("{name}_sum"), &[], seconds(store.sum_micros.load(Relaxed)));
        out.sample(&format!("{name}_count"), &[], count);
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// What the process has counted of one stage.
struct Store {
    buckets: [AtomicU64; BUCKETS],
    sum_micros: AtomicU64,
    /// Taken once a second by a worker that has traced something, and by a scrape.
    exemplars: Mutex<Exemplars>,
}

impl Store {
    const fn new() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            sum_micros: AtomicU64::new(0),
            exemplars: Mutex::new([None; BUCKETS]),
        }
    }
}

static STORES: [Store; Stage::ALL.len()] = [const { Store::new() }; Stage::ALL.len()];
