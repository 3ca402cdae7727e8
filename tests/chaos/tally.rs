//! What all clients together see while a run goes on, for the expectations of
//! single faults. The verdict is the checker's.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use brucke_checker::line::GapReason;

/// Counts and moments that clients share.
#[derive(Debug, Default)]
pub struct Tally {
    deliveries: AtomicU64,
    disconnects: AtomicU64,
    /// When records were last delivered.
    delivered_at: AtomicU64,
    /// From here on the first delivery is noted.
    watch_from: AtomicU64,
    first_delivery: AtomicU64,
    gaps: Mutex<BTreeMap<GapReason, u64>>,
    closes: Mutex<BTreeMap<u16, u64>>,
    errors: Mutex<BTreeMap<String, u64>>,
    /// What no client should ever hear, in words.
    complaints: Mutex<Vec<String>>,
}

/// Counts at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub deliveries: u64,
    pub disconnects: u64,
    pub gaps: BTreeMap<GapReason, u64>,
    pub closes: BTreeMap<u16, u64>,
    pub errors: BTreeMap<String, u64>,
    pub complaints: usize,
}

impl Tally {
    /// Notes so many records that a client had not had before.
    pub fn delivered(&self, records: usize, at: u64) {
        if records == 0 {
            return;
        }
        self.deliveries.fetch_add(records as u64, Ordering::Relaxed);
        self.delivered_at.store(at, Ordering::Relaxed);
        let from = self.watch_from.load(Ordering::Relaxed);
        if from > 0 && at >= from {
            let _ =
                self.first_delivery.compare_exchange(0, at, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    pub fn disconnected(&self, code: Option<u16>) {
        self.disconnects.fetch_add(1, Ordering::Relaxed);
        if let Some(code) = code {
            *self.closes.lock().expect("no panic").entry(code).or_default() += 1;
        }
    }

    pub fn gap(&self, reason: GapReason) {
        *self.gaps.lock().expect("no panic").entry(reason).or_default() += 1;
    }

    pub fn error(&self, code: &str) {
        *self.errors.lock().expect("no panic").entry(code.to_owned()).or_default() += 1;
    }

    pub fn complain(&self, text: String) {
        self.complaints.lock().expect("no panic").push(text);
    }

    /// Notes the first delivery at or after a moment.
    pub fn watch(&self, from: u64) {
        self.watch_from.store(0, Ordering::Relaxed);
        self.first_delivery.store(0, Ordering::Relaxed);
        self.watch_from.store(from.max(1), Ordering::Relaxed);
    }

    /// Returns when the first delivery came since [`Tally::watch`].
    pub fn first_delivery(&self) -> Option<u64> {
        Some(self.first_delivery.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            deliveries: self.deliveries.load(Ordering::Relaxed),
            disconnects: self.disconnects.load(Ordering::Relaxed),
            gaps: self.gaps.lock().expect("no panic").clone(),
            closes: self.closes.lock().expect("no panic").clone(),
            errors: self.errors.lock().expect("no panic").clone(),
            complaints: self.complaints.lock().expect("no panic").len(),
        }
    }

    pub fn complaints(&self) -> Vec<String> {
        self.complaints.lock().expect("no panic").clone()
    }
}

impl Snapshot {
    pub fn gaps_of(&self, reason: GapReason) -> u64 {
        self.gaps.get(&reason).copied().unwrap_or(0)
    }

    pub fn all_gaps(&self) -> u64 {
        self.gaps.values().sum()
    }

    pub fn closes_of(&self, code: u16) -> u64 {
        self.closes.get(&code).copied().unwrap_or(0)
    }

    pub fn all_errors(&self) -> u64 {
        self.errors.values().sum()
    }
}
