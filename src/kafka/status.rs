//! What readiness and metrics want to know of the Kafka side.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::kafka::statistics::BrokerState;
use crate::kafka::statistics::Statistics;
use crate::kafka::statistics::Traffic;
use crate::registry::history::Sweeps;
use crate::registry::message::ReadError;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::SourceId;
use crate::types::ids::TopicName;
use crate::types::latency::Latencies;

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
    /// What each client that there is said last.
    clients: BTreeMap<ClientId, (Role, Statistics)>,
    clients_made: u64,
    /// What clients were sent that are no more.
    ended: BTreeMap<Role, Traffic>,
    client_errors: BTreeMap<&'static str, u64>,
    read_stops: BTreeMap<&'static str, u64>,
    sweeps: Sweeps,
    received: Latencies,
}

/// One of this process's clients of Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::kafka) struct ClientId(u64);

/// What a client of Kafka is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Records as they come.
    Live,
    /// Records of old.
    History,
    /// Questions about topics and offsets.
    Admin,
    /// What replicas tell each other.
    Journal,
}

impl Role {
    /// All that there are.
    pub const ALL: [Self; 4] = [Self::Live, Self::History, Self::Admin, Self::Journal];

    /// Returns its name, as metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::History => "history",
            Self::Admin => "admin",
            Self::Journal => "journal",
        }
    }
}

/// The connections to brokers, of all clients together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connections {
    /// Brokers, each by its best connection.
    pub brokers: BTreeMap<i32, BrokerState>,
    /// Since the process began.
    pub traffic: BTreeMap<Role, Traffic>,
    /// Of the slowest broker, at the 99th percentile.
    pub round_trip: Duration,
}

/// What was read of one source since the process began.
#[derive(Debug, Default)]
pub struct SourceCounts {
    live: AtomicU64,
    history: AtomicU64,
    unclassified: AtomicU64,
    live_bytes: AtomicU64,
    history_bytes: AtomicU64,
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

    /// Returns the bytes in memory of what came live.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes.load(Relaxed)
    }

    /// Returns the bytes in memory of what was read back.
    pub fn history_bytes(&self) -> u64 {
        self.history_bytes.load(Relaxed)
    }

    pub(in crate::kafka) fn add_live(&self, records: u64, bytes: u64, unclassified: u64) {
        self.live.fetch_add(records, Relaxed);
        self.live_bytes.fetch_add(bytes, Relaxed);
        self.unclassified.fetch_add(unclassified, Relaxed);
    }

    pub(in crate::kafka) fn add_history(&self, records: u64, bytes: u64, unclassified: u64) {
        self.history.fetch_add(records, Relaxed);
        self.history_bytes.fetch_add(bytes, Relaxed);
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

    /// Returns the state of the connections to brokers.
    pub fn connections(&self) -> Connections {
        let state = self.lock();
        let (brokers, traffic) = (BTreeMap::new(), state.ended.clone());
        let mut all = Connections { brokers, traffic, round_trip: Duration::ZERO };
        let mut slowest = 0;
        for (role, said) in state.clients.values() {
            for (number, broker) in &said.brokers {
                let best = all.brokers.entry(*number).or_default();
                *best = broker.state.max(*best);
                *all.traffic.entry(*role).or_default() += broker.traffic;
                slowest = slowest.max(broker.round_trip_micros);
            }
        }
        all.round_trip = Duration::from_micros(slowest);
        all
    }

    /// Returns up to where Kafka has committed each partition, as far as clients
    /// have said; a few seconds old.
    pub fn ends(&self) -> BTreeMap<(TopicName, PartitionId), Offset> {
        let state = self.lock();
        let mut all: BTreeMap<(TopicName, PartitionId), Offset> = BTreeMap::new();
        for (place, end) in state.clients.values().flat_map(|(_, said)| &said.ends) {
            let known = all.entry(place.clone()).or_insert(*end);
            *known = (*end).max(*known);
        }
        all
    }

    /// Returns what clients complained of by themselves, by kind.
    pub fn client_errors(&self) -> BTreeMap<&'static str, u64> {
        let mut all = CLIENT_ERRORS.map(|kind| (kind, 0)).into_iter().collect::<BTreeMap<_, _>>();
        all.extend(&self.lock().client_errors);
        all
    }

    /// Returns how often reading a partition stopped, by reason.
    pub fn read_stops(&self) -> BTreeMap<&'static str, u64> {
        let mut all = READ_STOPS.map(|reason| (reason, 0)).into_iter().collect::<BTreeMap<_, _>>();
        all.extend(&self.lock().read_stops);
        all
    }

    /// Returns how far the readings of history are.
    pub fn sweeps(&self) -> Sweeps {
        self.lock().sweeps.clone()
    }

    /// Gives a client that is made a name.
    pub(in crate::kafka) fn client_made(&self, role: Role) -> ClientId {
        let mut state = self.lock();
        state.clients_made += 1;
        let id = ClientId(state.clients_made);
        state.clients.insert(id, (role, Statistics::default()));
        id
    }

    pub(in crate::kafka) fn note_statistics(&self, client: ClientId, said: Statistics) {
        let mut state = self.lock();
        let State { clients, ended, .. } = &mut *state;
        let Some((role, known)) = clients.get_mut(&client) else { return };
        // A broker that was away begins at nothing, or is not there.
        for (number, before) in &known.brokers {
            let now = said.brokers.get(number).map(|broker| broker.traffic);
            if now.is_none_or(|now| now.received_bytes < before.traffic.received_bytes) {
                *ended.entry(*role).or_default() += before.traffic;
            }
        }
        *known = said;
    }

    /// Forgets a client that is no more: its connections and what it knew of the ends
    /// of logs. What it was sent still counts.
    pub(in crate::kafka) fn client_ended(&self, client: ClientId) {
        let mut state = self.lock();
        let Some((role, said)) = state.clients.remove(&client) else { return };
        let ended = state.ended.entry(role).or_default();
        said.brokers.values().for_each(|broker| *ended += broker.traffic);
    }

    pub(in crate::kafka) fn count_client_error(&self, kind: &'static str) {
        *self.lock().client_errors.entry(kind).or_default() += 1;
    }

    pub(in crate::kafka) fn count_read_stop(&self, error: &ReadError) {
        let reason = match error {
            ReadError::OutOfRange(_) => "out_of_range",
            ReadError::Truncated(_) => "truncated",
            ReadError::Failed(_) => "failed",
        };
        *self.lock().read_stops.entry(reason).or_default() += 1;
    }

    /// Counts a partition that was silent though there was more.
    pub(in crate::kafka) fn count_stall(&self) {
        *self.lock().read_stops.entry("stalled").or_default() += 1;
    }

    /// Returns how long records took from their timestamps to here, since this was
    /// last asked.
    pub fn take_received(&self) -> Latencies {
        std::mem::take(&mut self.lock().received)
    }

    pub(in crate::kafka) fn add_received(&self, received: &Latencies) {
        self.lock().received.merge(received);
    }

    pub(in crate::kafka) fn set_sweeps(&self, sweeps: Sweeps) {
        self.lock().sweeps = sweeps;
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

/// Kinds of complaints of clients.
const CLIENT_ERRORS: [&str; 7] =
    ["all_brokers_down", "transport", "resolve", "authentication", "tls", "timed_out", "other"];
/// Why the reading of a partition stops.
const READ_STOPS: [&str; 3] = ["out_of_range", "truncated", "failed"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::statistics::Broker;

    #[test]
    fn of_a_client_that_is_no_more_only_what_it_was_sent_counts() {
        let status = KafkaStatus::default();
        let place = (TopicName::new("t"), PartitionId::from_index(0));
        let end = |raw| Offset::from_kafka(raw).expect("not negative");
        let said = |received_bytes, raw| {
            let traffic = Traffic { received_bytes, connects: 1, ..Traffic::default() };
            let broker = Broker { state: BrokerState::Up, traffic, round_trip_micros: 5 };
            let ends = BTreeMap::from([(place.clone(), end(raw))]);
            Statistics { brokers: BTreeMap::from([(1, broker)]), ends }
        };
        let (first, other) = (status.client_made(Role::Live), status.client_made(Role::History));
        status.note_statistics(first, said(10, 70));
        status.note_statistics(other, said(5, 60));
        assert_eq!(status.ends()[&place], end(70));
        status.client_ended(first);
        assert_eq!(status.ends()[&place], end(60));
        let second = status.client_made(Role::Live);
        status.note_statistics(second, said(1, 61));
        let traffic = &status.connections().traffic;
        assert_eq!((traffic[&Role::Live].received_bytes, traffic[&Role::Live].connects), (11, 2));
        assert_eq!(traffic[&Role::History].received_bytes, 5);
        let nothing = Statistics { brokers: BTreeMap::new(), ends: BTreeMap::new() };
        status.note_statistics(second, nothing);
        assert_eq!(status.connections().traffic[&Role::Live].received_bytes, 11);
        status.note_statistics(second, said(2, 62));
        assert_eq!(status.connections().traffic[&Role::Live].received_bytes, 13);
        status.client_ended(second);
        status.client_ended(other);
        // Late words of a client that is no more.
        status.note_statistics(other, said(9, 99));
        let connections = status.connections();
        assert!(connections.brokers.is_empty() && status.ends().is_empty());
        assert_eq!(connections.traffic[&Role::Live].received_bytes, 13);
    }
}
