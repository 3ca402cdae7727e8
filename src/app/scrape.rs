//! What a scrape reads where it stands: the states of parts, beside what was
//! counted.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::counter;
use metrics::gauge;

use crate::app::explain::now;
use crate::app::health::ReplicaHealth;
use crate::kafka::journal::JournalState;
use crate::kafka::statistics::BrokerState;
use crate::kafka::statistics::Traffic;
use crate::kafka::status::Role;
use crate::kafka::status::SourceCounts;
use crate::log::budget::Kind;
use crate::log::partition::SharedPartition;
use crate::server::pulse::Pulses;
use crate::telemetry::exposition::Exposition;
use crate::telemetry::exposition::Format;
use crate::telemetry::latency;
use crate::telemetry::latency::Stage;
use crate::telemetry::metric;
use crate::telemetry::publish::OTHER;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::Timestamp;
use crate::types::ids::TopicName;

/// How far a live reader is behind its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::app) struct ReaderLag {
    pub(in crate::app) offsets: u64,
    pub(in crate::app) age: Duration,
}

/// What is told of readers, by topic and partition.
type Lags = BTreeMap<(TopicName, PartitionId), ReaderLag>;

impl ReplicaHealth {
    /// Returns everything measured.
    pub(in crate::app) fn scrape(&self, format: Format) -> String {
        self.set_counts();
        self.set_kafka();
        let partitions = self.directory.partitions();
        let count: usize = partitions.values().map(Vec::len).sum();
        gauge!(metric::READER_PARTITIONS).set(count as f64);
        let unlocated =
            partitions.values().flatten().filter(|log| !log.is_located(log.end().generation));
        gauge!(metric::READER_PARTITIONS_UNLOCATED).set(unlocated.count() as f64);
        let covered = partitions.values().flatten().map(|partition| {
            let (start, end) = partition.tail();
            start.distance_to(end)
        });
        gauge!(metric::TAIL_OFFSETS).set(covered.sum::<u64>() as f64);
        let mut out = Exposition::new(format);
        self.recorder.render(&mut out);
        expose_lags(&self.lags(), self.partitions_max, &mut out);
        out.finish()
    }

    /// Returns how far each live reader is behind.
    pub(in crate::app) fn lags(&self) -> Lags {
        let ends = self.kafka.ends();
        let now = now();
        let mut lags = Lags::new();
        for (source, partitions) in self.directory.partitions() {
            let topic = self.directory.key(source).topic;
            for partition in partitions {
                let place = (topic.clone(), partition.id());
                let lag = lag(&partition, ends.get(&place).copied(), now);
                let known = lags.entry(place).or_default();
                known.offsets = known.offsets.max(lag.offsets);
                known.age = known.age.max(lag.age);
            }
        }
        lags
    }

    fn set_counts(&self) {
        let counts = self.kafka.counts();
        let sum = |pick: fn(&SourceCounts) -> u64| counts.values().map(|counts| pick(counts)).sum();
        counter!(metric::KAFKA_RECORDS).absolute(sum(SourceCounts::live));
        counter!(metric::KAFKA_BYTES).absolute(sum(SourceCounts::live_bytes));
        counter!(metric::KAFKA_HISTORY_RECORDS).absolute(sum(SourceCounts::history));
        counter!(metric::KAFKA_HISTORY_BYTES).absolute(sum(SourceCounts::history_bytes));
        let unclassified = sum(SourceCounts::unclassified);
        counter!(metric::KAFKA_RECORDS_WITHOUT_TENANT).absolute(unclassified);
        for (kind, held, limit) in [
            (Kind::Tail, metric::TAIL_BYTES, metric::TAIL_LIMIT_BYTES),
            (Kind::History, metric::HISTORY_BYTES, metric::HISTORY_LIMIT_BYTES),
        ] {
            gauge!(held).set(self.budget.bytes(kind) as f64);
            gauge!(limit).set(self.budget.bytes_max(kind) as f64);
        }
        let ages = self.pulses.get().map(Pulses::ages).unwrap_or_default();
        for (worker, age) in ages.into_iter().enumerate() {
            let age = age.as_secs_f64();
            gauge!(metric::WORKER_PULSE, "worker" => worker.to_string()).set(age);
        }
        gauge!(metric::COMMANDS_WAITING).set(self.commands.len() as f64);
        gauge!(metric::TOPICS_FAILING).set(self.directory.failures().len() as f64);
        gauge!(metric::CHANNELS_FAILING).set(self.channels_failing() as f64);
        gauge!(metric::REVOCATIONS).set(self.revocations.count(now()) as f64);
        let unread = self.journal.as_ref().is_some_and(|j| j.state() != JournalState::Read);
        gauge!(metric::REVOCATIONS_UNREAD).set(if unread { 1.0 } else { 0.0 });
        gauge!(metric::READY).set(if self.is_ready() { 1.0 } else { 0.0 });
        gauge!(metric::DRAINING).set(if self.is_draining() { 1.0 } else { 0.0 });
    }

    fn set_kafka(&self) {
        latency::add(Stage::Received, &self.kafka.take_received());
        let connections = self.kafka.connections();
        for (state, name) in BROKER_STATES {
            let brokers = connections.brokers.values().filter(|broker| **broker == state);
            gauge!(metric::KAFKA_BROKERS, "state" => name).set(brokers.count() as f64);
        }
        let mut all = Traffic::default();
        for role in Role::ALL {
            let traffic = connections.traffic.get(&role).copied().unwrap_or_default();
            counter!(metric::KAFKA_RECEIVED_BYTES, "client" => role.name())
                .absolute(traffic.received_bytes);
            all += traffic;
        }
        counter!(metric::KAFKA_CONNECTS).absolute(all.connects);
        counter!(metric::KAFKA_DISCONNECTS).absolute(all.disconnects);
        counter!(metric::KAFKA_REQUEST_ERRORS).absolute(all.errors);
        gauge!(metric::KAFKA_ROUND_TRIP).set(connections.round_trip.as_secs_f64());
        for (kind, count) in self.kafka.client_errors() {
            counter!(metric::KAFKA_CLIENT_ERRORS, "error" => kind).absolute(count);
        }
        for (reason, count) in self.kafka.read_stops() {
            counter!(metric::KAFKA_READ_STOPS, "reason" => reason).absolute(count);
        }
        let sweeps = self.kafka.sweeps();
        gauge!(metric::HISTORY_SWEEPS).set(sweeps.partitions as f64);
        gauge!(metric::HISTORY_READINGS).set(sweeps.under_way as f64);
        gauge!(metric::HISTORY_OFFSETS_WAITING).set(sweeps.cursors as f64);
    }
}

/// Returns how far a reader is behind the end that Kafka has told.
fn lag(partition: &SharedPartition, end: Option<Offset>, now: Timestamp) -> ReaderLag {
    let offsets = end.map_or(0, |end| partition.end().offset.distance_to(end));
    if offsets == 0 {
        return ReaderLag::default();
    }
    let newest = partition.newest().map_or(0, |newest| now.as_millis() - newest.as_millis());
    ReaderLag { offsets, age: Duration::from_millis(u64::try_from(newest).unwrap_or(0)) }
}

/// Writes the lag of the first partitions by their names, and of all others by
/// the worst of them.
fn expose_lags(lags: &Lags, named_max: usize, out: &mut Exposition) {
    let mut samples: Vec<(String, String, ReaderLag)> = Vec::new();
    let mut others: Option<ReaderLag> = None;
    for ((topic, partition), lag) in lags {
        if samples.len() < named_max {
            samples.push((topic.to_string(), partition.to_string(), *lag));
            continue;
        }
        let worst = others.get_or_insert_default();
        worst.offsets = worst.offsets.max(lag.offsets);
        worst.age = worst.age.max(lag.age);
    }
    samples.extend(others.map(|lag| (OTHER.to_owned(), OTHER.to_owned(), lag)));
    if samples.is_empty() {
        return;
    }
    out.family(metric::READER_LAG_RECORDS);
    for (topic, partition, lag) in &samples {
        let labels = [("topic", topic.as_str()), ("partition", partition.as_str())];
        out.sample(metric::READER_LAG_RECORDS, &labels, lag.offsets);
    }
    out.family(metric::READER_LAG_SECONDS);
    for (topic, partition, lag) in &samples {
        let labels = [("topic", topic.as_str()), ("partition", partition.as_str())];
        out.sample(metric::READER_LAG_SECONDS, &labels, lag.age.as_secs_f64());
    }
}

const BROKER_STATES: [(BrokerState, &str); 4] = [
    (BrokerState::Up, "up"),
    (BrokerState::Connecting, "connecting"),
    (BrokerState::Down, "down"),
    (BrokerState::Idle, "idle"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_beyond_the_limit_are_told_by_their_worst() {
        let lags: Lags = [(0, 5), (1, 7), (2, 3)]
            .into_iter()
            .map(|(partition, offsets)| {
                let place = (TopicName::new("t"), PartitionId::from_index(partition));
                (place, ReaderLag { offsets, age: Duration::from_millis(offsets * 500) })
            })
            .collect();
        let check = |max, wanted: &[&str]| {
            let mut out = Exposition::default();
            expose_lags(&lags, max, &mut out);
            let text = out.finish();
            let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
            assert_eq!(samples, wanted);
        };
        check(
            1,
            &[
                "brucke_reader_lag_records{topic=\"t\",partition=\"0\"} 5",
                "brucke_reader_lag_records{topic=\"other\",partition=\"other\"} 7",
                "brucke_reader_lag_seconds{topic=\"t\",partition=\"0\"} 2.5",
                "brucke_reader_lag_seconds{topic=\"other\",partition=\"other\"} 3.5",
            ],
        );
    }
}
