//! What readiness and metrics want to know of the Kafka side.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::types::ids::SourceId;
use crate::types::ids::TopicName;

/// The state of the connection to Kafka, shared by the threads of this room and
/// whoever asks.
#[derive(Debug, Default)]
pub struct KafkaStatus {
    state: Mutex<State>,
}

/// Whether any broker answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Brokers {
    /// None has been heard of yet.
    #[default]
    Connecting,
    /// One answered when last asked.
    Reachable,
    /// None answers; the reason is what the client last complained of.
    Unreachable { reason: String },
}

#[derive(Debug, Default)]
struct State {
    brokers: Brokers,
    complaint: Option<String>,
    /// Why the live reader of a topic last stopped; empty once it reads again.
    stopped: BTreeMap<TopicName, String>,
    counts: BTreeMap<SourceId, Arc<SourceCounts>>,
    failed_threads: BTreeSet<String>,
}

/// What was read of one source since the process began.
#[derive(Debug, Default)]
pub struct SourceCounts {
    live: AtomicU64,
    history: AtomicU64,
    unclassified: AtomicU64,
}

impl SourceCounts {
    /// Returns how many records came live.
    pub fn live(&self) -> u64 {
        self.live.load(Relaxed)
    }

    /// Returns how many records were read back.
    pub fn history(&self) -> u64 {
        self.history.load(Relaxed)
    }

    /// Returns how many of both went to nobody, because their tenant could not be
    /// told.
    pub fn unclassified(&self) -> u64 {
        self.unclassified.load(Relaxed)
    }

    pub(in crate::kafka) fn add_live(&self, records: u64, unclassified: u64) {
        self.live.fetch_add(records, Relaxed);
        self.unclassified.fetch_add(unclassified, Relaxed);
    }

    pub(in crate::kafka) fn add_history(&self, records: u64, unclassified: u64) {
        self.history.fetch_add(records, Relaxed);
        self.unclassified.fetch_add(unclassified, Relaxed);
    }
}

impl KafkaStatus {
    /// Says whether any broker answers.
    pub fn brokers(&self) -> Brokers {
        self.lock().brokers.clone()
    }

    /// Returns the topics whose reading stopped and has not begun again, each
    /// with the reason.
    pub fn stopped(&self) -> BTreeMap<TopicName, String> {
        self.lock().stopped.clone()
    }

    /// Returns the names of threads that met a fault of ours and ended. They don't
    /// come back: the process should begin anew.
    pub fn failed_threads(&self) -> BTreeSet<String> {
        self.lock().failed_threads.clone()
    }

    /// Returns what was read of each source that was ever followed.
    pub fn counts(&self) -> BTreeMap<SourceId, Arc<SourceCounts>> {
        self.lock().counts.clone()
    }

    pub(in crate::kafka) fn counts_of(&self, source: SourceId) -> Arc<SourceCounts> {
        Arc::clone(self.lock().counts.entry(source).or_default())
    }

    pub(in crate::kafka) fn brokers_answered(&self) {
        let mut state = self.lock();
        state.brokers = Brokers::Reachable;
        state.complaint = None;
    }

    pub(in crate::kafka) fn brokers_lost(&self) {
        let mut state = self.lock();
        let reason = state.complaint.clone().unwrap_or_else(|| "no broker answers".to_owned());
        state.brokers = Brokers::Unreachable { reason };
    }

    /// Keeps what a client complained of, to explain what fails next.
    pub(in crate::kafka) fn note_complaint(&self, text: &str) {
        self.lock().complaint = Some(text.to_owned());
    }

    /// Returns what a client last complained of.
    pub(in crate::kafka) fn complaint(&self) -> Option<String> {
        self.lock().complaint.clone()
    }

    pub(in crate::kafka) fn reading_stopped(&self, topic: &TopicName, reason: &str) {
        self.lock().stopped.insert(topic.clone(), reason.to_owned());
    }

    /// Notes that the topic is read again, or no longer wanted.
    pub(in crate::kafka) fn forget_stopped(&self, topic: &TopicName) {
        self.lock().stopped.remove(topic);
    }

    pub(in crate::kafka) fn thread_failed(&self, name: &str) {
        self.lock().failed_threads.insert(name.to_owned());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
