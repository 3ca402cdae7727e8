//! What this replica says of itself to operators.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::time::Duration;

use crossbeam_channel::Sender;

use crate::admin::health::Health;
use crate::admin::health::Problem;
use crate::admin::health::ProblemKind;
use crate::kafka::journal::JournalState;
use crate::kafka::journal::JournalStatus;
use crate::kafka::status::Brokers;
use crate::kafka::status::KafkaStatus;
use crate::log::budget::Budget;
use crate::registry::directory::Directory;
use crate::registry::message::Command;
use crate::registry::message::SourceFailure;
use crate::server::pulse::Pulses;
use crate::telemetry::exposition::Format;
use crate::telemetry::recorder::Recorder;
use crate::tenancy::channel::Channel;
use crate::tenancy::channel::ChannelSource;
use crate::tenancy::channel::Channels;
use crate::tenancy::revocation::Revocations;
use crate::types::ids::TopicName;

/// Gathers what the parts know.
#[derive(Debug)]
pub struct ReplicaHealth {
    pub directory: Arc<Directory>,
    pub kafka: Arc<KafkaStatus>,
    pub budget: Arc<Budget>,
    pub recorder: Recorder,
    /// Those in force; a reload puts others in their place.
    pub channels: RwLock<Arc<Channels>>,
    /// Topics of which one at least must be readable for this replica to be ready:
    /// those that the channels named when the process began. One that a reload
    /// brought is not among them: it would take all replicas away at once.
    pub awaited: BTreeSet<TopicName>,
    /// Where wishes of workers wait for the Kafka side.
    pub commands: Sender<Command>,
    /// Partitions whose lag metrics tell apart.
    pub partitions_max: usize,
    /// Set once the workers run.
    pub pulses: OnceLock<Pulses>,
    /// What is revoked at this replica.
    pub revocations: Arc<Revocations>,
    /// How far those of others are read; `None` where replicas don't tell each other.
    pub journal: Option<Arc<JournalStatus>>,
    pub phase: Mutex<Phase>,
}

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Serving,
    Draining,
}

impl ReplicaHealth {
    /// Notes that the process goes on to another phase.
    pub fn enter(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// Returns the channels in force.
    pub fn channels(&self) -> Arc<Channels> {
        Arc::clone(&self.channels.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes that these channels are in force.
    pub fn set_channels(&self, channels: Arc<Channels>) {
        *self.channels.write().unwrap_or_else(PoisonError::into_inner) = channels;
    }

    pub(in crate::app) fn is_ready(&self) -> bool {
        self.ready_problems().is_empty()
    }

    pub(in crate::app) fn is_draining(&self) -> bool {
        self.phase() == Phase::Draining
    }

    fn phase(&self) -> Phase {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn phase_problem(&self) -> Option<Problem> {
        match self.phase() {
            Phase::Serving => None,
            Phase::Starting => Some(problem(ProblemKind::Starting, "the process is starting")),
            Phase::Draining => Some(problem(ProblemKind::Draining, "the process is going away")),
        }
    }

    fn broker_problem(&self) -> Option<Problem> {
        match self.kafka.brokers() {
            Brokers::Reachable => None,
            Brokers::Connecting => {
                Some(problem(ProblemKind::BrokerUnreachable, "no broker has answered yet"))
            }
            Brokers::Unreachable { reason } => {
                let message = format!("no broker answers: {reason}");
                Some(problem(ProblemKind::BrokerUnreachable, message))
            }
        }
    }

    /// Who comes before they are read might have been revoked.
    fn revocations_problem(&self) -> Option<Problem> {
        let journal = self.journal.as_ref()?;
        let JournalState::Unread { reason } = journal.state() else { return None };
        let reason = reason.unwrap_or_else(|| "it is being read".to_owned());
        let message = format!("what is revoked is not known yet, by topic {}", journal.topic());
        Some(of_revocations(journal, format!("{message}: {reason}")))
    }

    /// Where they were read once, nobody is served better by other replicas, which
    /// can't read on either.
    fn revocations_warning(&self) -> Option<Problem> {
        let journal = self.journal.as_ref()?;
        let JournalState::Failing { reason } = journal.state() else { return None };
        let message =
            format!("what is revoked elsewhere is not heard, by topic {}", journal.topic());
        Some(of_revocations(journal, format!("{message}: {reason}")))
    }

    /// Returns what is wrong with topics that channels name.
    fn topic_problems(&self) -> Vec<(TopicName, Problem)> {
        let channels = self.channels();
        let topics: BTreeSet<_> = channels.topics().collect();
        let mut failures = self.directory.failures();
        failures.retain(|topic, _| topics.contains(topic));
        let mut stopped = self.kafka.stopped();
        stopped.retain(|topic, _| topics.contains(topic) && !failures.contains_key(topic));
        let problem = |topic: TopicName, kind, message| {
            let problem = Problem { kind, topic: Some(topic.to_string()), message };
            (topic, problem)
        };
        let failed = failures.into_iter().map(|(topic, failure)| {
            let (kind, message) = (kind_of(&failure), failure.to_string());
            problem(topic, kind, message)
        });
        let stopped = stopped.into_iter().map(|(topic, reason)| {
            let message = format!("reading topic {topic} stopped: {reason}");
            problem(topic, ProblemKind::TopicUnusable, message)
        });
        failed.chain(stopped).collect()
    }

    /// Returns how many channels stand for a topic that they name and that fails, by
    /// no fault of the brokers'.
    pub(in crate::app) fn channels_failing(&self) -> usize {
        let mut of_topics = self.topic_problems();
        of_topics.retain(|(_, problem)| problem.kind != ProblemKind::BrokerUnreachable);
        let failing = of_topics.iter().map(|(topic, _)| topic).collect();
        self.channels().iter().filter(|channel| is_of_any(channel, &failing)).count()
    }

    /// Returns what is wrong with topics: what is a reason not to be ready, and what is
    /// none. A topic that fails is none as long as some other channel can be served:
    /// all replicas see the same, and would take the clients of all channels with them.
    fn topic_verdict(&self) -> (Vec<Problem>, Vec<Problem>) {
        let of_topics = self.topic_problems();
        let failing: BTreeSet<&TopicName> = of_topics.iter().map(|(topic, _)| topic).collect();
        let serves_some = self.channels().iter().any(|channel| !is_of_any(channel, &failing));
        let (reasons, others): (Vec<_>, Vec<_>) = of_topics
            .into_iter()
            .partition(|(topic, _)| !serves_some && self.awaited.contains(topic));
        let problems = |found: Vec<(TopicName, Problem)>| {
            found.into_iter().map(|(_, problem)| problem).collect()
        };
        (problems(reasons), problems(others))
    }
}

impl Health for ReplicaHealth {
    fn live_problems(&self) -> Vec<Problem> {
        let oldest = self.pulses.get().map(Pulses::oldest);
        let stuck = oldest.filter(|oldest| *oldest > PULSE_MAX);
        let stuck = stuck.map(|oldest| {
            let message = format!("a worker thread stands still for {} s", oldest.as_secs());
            problem(ProblemKind::WorkerStuck, message)
        });
        // A Kafka thread that has failed is not started again: the process is.
        let failed = self.kafka.failed_threads().into_iter().map(|name| {
            problem(ProblemKind::WorkerStuck, format!("the thread {name} has ended by a fault"))
        });
        stuck.into_iter().chain(failed).collect()
    }

    fn ready_problems(&self) -> Vec<Problem> {
        let (mut problems, _) = self.topic_verdict();
        problems.extend(self.broker_problem());
        problems.extend(self.revocations_problem());
        problems.extend(self.phase_problem());
        problems
    }

    fn warnings(&self) -> Vec<Problem> {
        let (_, mut warnings) = self.topic_verdict();
        warnings.extend(self.revocations_warning());
        warnings
    }

    fn metrics(&self, format: Format) -> String {
        self.scrape(format)
    }
}

/// Says whether a channel stands for one of these topics.
fn is_of_any(channel: &Channel, topics: &BTreeSet<&TopicName>) -> bool {
    match &channel.source {
        ChannelSource::Topic(source) => topics.contains(&source.topic),
        // Of a topic that is named after a tenant nobody knows whether it is there until
        // that tenant asks.
        ChannelSource::TopicPerTenant(_) => false,
    }
}

fn problem(kind: ProblemKind, message: impl Into<String>) -> Problem {
    Problem { kind, topic: None, message: message.into() }
}

fn of_revocations(journal: &JournalStatus, message: String) -> Problem {
    let topic = Some(journal.topic().to_string());
    Problem { kind: ProblemKind::RevocationsUnread, topic, message }
}

fn kind_of(failure: &SourceFailure) -> ProblemKind {
    match failure {
        SourceFailure::UnknownTopic(_) => ProblemKind::TopicMissing,
        SourceFailure::Forbidden(_) => ProblemKind::PermissionMissing,
        SourceFailure::Unreachable { .. } => ProblemKind::BrokerUnreachable,
        SourceFailure::TooManyPartitions { .. } => ProblemKind::TopicUnusable,
    }
}

/// How long a worker may stand still before the process is given up.
const PULSE_MAX: Duration = Duration::from_secs(30);
