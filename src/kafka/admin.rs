//! The threads that ask about topics and offsets. Their calls block, which is
//! why there are several: a topic without a leader must not hold up the others.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use crossbeam_channel::RecvTimeoutError;
use crossbeam_channel::Sender;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::metadata::MetadataPartition;
use rdkafka::metadata::MetadataTopic;

use crate::kafka::answer::Answer;
use crate::kafka::client;
use crate::kafka::client::Client;
use crate::kafka::config::ClusterKind;
use crate::kafka::config::KafkaConfig;
use crate::kafka::epochs::EpochLookup;
use crate::kafka::native::offsets;
use crate::kafka::native::topics;
use crate::kafka::native::topics::ErrorCode;
use crate::kafka::status::Brokers;
use crate::kafka::status::KafkaStatus;
use crate::registry::message::Bounds;
use crate::registry::message::ListOffsets;
use crate::registry::message::Located;
use crate::registry::message::Lookup;
use crate::registry::message::SourceFailure;
use crate::registry::message::TopicDescription;
use crate::types::ids::LeaderEpoch;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::TopicId;
use crate::types::ids::TopicName;
use crate::types::trace::ClusterName;

/// A question about topics or offsets.
#[derive(Debug)]
pub(in crate::kafka) enum Question {
    Describe { topics: Vec<TopicName> },
    ListOffsets(ListOffsets),
}

/// One of the threads that ask. They share a client and the questions.
#[derive(Clone)]
pub(in crate::kafka) struct Admin {
    client: Client,
    epochs: EpochLookup,
    cluster: ClusterKind,
    cluster_name: ClusterName,
    questions: Receiver<Question>,
    answers: Sender<Answer>,
    status: Arc<KafkaStatus>,
}

impl Admin {
    pub(in crate::kafka) fn new(
        client: Client,
        config: &KafkaConfig,
        questions: Receiver<Question>,
        answers: Sender<Answer>,
        status: Arc<KafkaStatus>,
    ) -> Self {
        let (cluster, cluster_name) = (config.cluster, config.cluster_name.clone());
        let epochs = EpochLookup::new(config.history(), Arc::clone(&status));
        Self { client, epochs, cluster, cluster_name, questions, answers, status }
    }

    /// Answers questions until nobody can ask any more.
    pub(in crate::kafka) fn run(self) {
        loop {
            match self.questions.recv_timeout(IDLE_INTERVAL) {
                Ok(Question::Describe { topics }) => self.describe(topics),
                Ok(Question::ListOffsets(question)) => {
                    let result = self.list_offsets(&question);
                    let result = result.map_err(|code| self.failure(&question.topic, code));
                    self.answer(Answer::Offsets { request: question.request, result });
                }
                // Nobody asks for anything: ask whether the brokers are back.
                Err(RecvTimeoutError::Timeout) if self.status.brokers() != Brokers::Reachable => {
                    let _ = self.heard(topics::probe(&self.client, TIMEOUT));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            client::serve(&self.client);
        }
    }

    fn describe(&self, topics: Vec<TopicName>) {
        let described = match self.cluster {
            ClusterKind::Kafka => topics::describe(&self.client, &topics, TIMEOUT),
            ClusterKind::Mock => Ok(topics
                .iter()
                .map(|topic| (topic.clone(), self.describe_without_id(topic)))
                .collect()),
        };
        let described = self.heard(described);
        for topic in topics {
            let result = match &described {
                Ok(described) => described.get(&topic).cloned().unwrap_or(Err(ErrorCode::Fail)),
                Err(code) => Err(*code),
            };
            let result = result.map_err(|code| self.failure(&topic, code));
            self.answer(Answer::Described { topic, result });
        }
    }

    /// Describes a topic of a cluster that knows no topic ids.
    fn describe_without_id(&self, topic: &TopicName) -> Result<TopicDescription, ErrorCode> {
        let partitions = self.metadata(topic, |found| found.partitions().len())?;
        Ok(TopicDescription { topic_id: TopicId::UNKNOWN, partitions })
    }

    /// Asks for the metadata of a topic, and returns what `read` takes from it.
    fn metadata<T>(
        &self,
        topic: &TopicName,
        read: impl FnOnce(&MetadataTopic) -> T,
    ) -> Result<T, ErrorCode> {
        let metadata = self.client.fetch_metadata(Some(topic.as_str()), TIMEOUT);
        let metadata = metadata.map_err(|error| code_of(&error))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic.as_str());
        let found = found.ok_or(ErrorCode::UnknownTopicOrPartition)?;
        match found.error().map(ErrorCode::from) {
            None | Some(ErrorCode::NoError) => Ok(read(found)),
            Some(code) => Err(code),
        }
    }

    fn list_offsets(&self, question: &ListOffsets) -> Result<Located, ErrorCode> {
        let ListOffsets { topic, partitions, lookup, epochs, .. } = question;
        let (partitions, lookup) = (*partitions, *lookup);
        // The client waits for the leaders of all that it is asked about.
        let led = self.led(topic, partitions)?;
        // The end is asked for last: it is then not below what was found before.
        let start = self.offsets_at(topic, &led, rdkafka::Offset::Beginning)?;
        let stamped = match lookup {
            Lookup::Bounds => BTreeMap::new(),
            Lookup::Timestamp(at) => {
                // Negative times are codes; nothing is stamped before the epoch.
                let time = rdkafka::Offset::Offset(at.as_millis().max(0));
                self.offsets_at(topic, &led, time)?
            }
        };
        let end = self.offsets_at(topic, &led, rdkafka::Offset::End)?;
        let asked: Vec<_> = epochs.iter().copied().filter(|(p, _)| led.contains(p)).collect();
        let mut epoch_ends = self.epochs.ask(topic, &asked);
        let of = |found: &Found, partition| found.get(&partition).map(|(offset, _)| *offset);
        (0..partitions)
            .map(|index| {
                let partition = PartitionId::from_index(index);
                if !led.contains(&partition) {
                    return Ok(None);
                }
                let start = of(&start, partition).ok_or(ErrorCode::UnknownPartition)?;
                let (end, epoch) = *end.get(&partition).ok_or(ErrorCode::UnknownPartition)?;
                let end = end.max(start);
                let at_timestamp = of(&stamped, partition).unwrap_or(end).clamp(start, end);
                let epoch_ends = epoch_ends.remove(&partition).unwrap_or_default();
                Ok(Some(Bounds { start, end, at_timestamp, epoch, epoch_ends }))
            })
            .collect()
    }

    /// Returns which of the partitions have a leader.
    fn led(
        &self,
        topic: &TopicName,
        partitions: usize,
    ) -> Result<BTreeSet<PartitionId>, ErrorCode> {
        let leaderless: BTreeSet<i32> = self.heard(self.metadata(topic, |found| {
            let leaderless = found.partitions().iter().filter(|partition| partition.leader() < 0);
            leaderless.map(MetadataPartition::id).collect()
        }))?;
        let all = (0..partitions).map(PartitionId::from_index);
        Ok(all.filter(|partition| !leaderless.contains(&partition.as_kafka())).collect())
    }

    /// Looks up one offset of each partition, and whose log it was found in; a
    /// partition that has none stamped so late is absent.
    fn offsets_at(
        &self,
        topic: &TopicName,
        partitions: &BTreeSet<PartitionId>,
        time: rdkafka::Offset,
    ) -> Result<Found, ErrorCode> {
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            // The list carries the time where it will carry the offset.
            list.add_partition_offset(topic.as_str(), partition.as_kafka(), time)
                .map_err(|error| code_of(&error))?;
        }
        let answer = self.client.offsets_for_times(list, TIMEOUT).map_err(|error| code_of(&error));
        let answer = self.heard(answer)?;
        let mut found = BTreeMap::new();
        for (element, epoch) in answer.elements().into_iter().zip(offsets::epochs(&answer)) {
            element.error().map_err(|error| code_of(&error))?;
            let offset = element.offset().to_raw().and_then(Offset::from_kafka);
            if let (Some(partition), Some(offset)) =
                (PartitionId::from_kafka(element.partition()), offset)
            {
                found.insert(partition, (offset, epoch));
            }
        }
        Ok(found)
    }

    /// Notes whether a broker answered at all.
    fn heard<T>(&self, answer: Result<T, ErrorCode>) -> Result<T, ErrorCode> {
        match &answer {
            Ok(_) => {
                self.status.brokers_answered();
                self.note_cluster_name();
            }
            Err(code) if is_unreachable(*code) => self.status.brokers_lost(),
            Err(_) => {}
        }
        answer
    }

    /// Passes on what the client has been told with other answers, without asking.
    fn note_cluster_name(&self) {
        if self.cluster_name.told().is_none()
            && let Some(name) = self.client.client().fetch_cluster_id(Duration::ZERO)
        {
            self.cluster_name.tell(name);
        }
    }

    fn failure(&self, topic: &TopicName, code: ErrorCode) -> SourceFailure {
        let topic = topic.clone();
        match code {
            ErrorCode::UnknownTopicOrPartition
            | ErrorCode::UnknownTopic
            | ErrorCode::UnknownPartition
            | ErrorCode::InvalidTopic => SourceFailure::UnknownTopic(topic),
            ErrorCode::TopicAuthorizationFailed | ErrorCode::ClusterAuthorizationFailed => {
                SourceFailure::Forbidden(topic)
            }
            code => {
                // The client's complaint says which broker, and what about it.
                let complaint = self.status.complaint().filter(|_| is_unreachable(code));
                let reason = complaint.unwrap_or_else(|| code.to_string());
                SourceFailure::Unreachable { topic, reason }
            }
        }
    }

    fn answer(&self, answer: Answer) {
        // Without the control thread nobody waits for an answer.
        let _ = self.answers.send(answer);
    }
}

/// An offset of each partition, and the leader in whose log it was found.
type Found = BTreeMap<PartitionId, (Offset, Option<LeaderEpoch>)>;

fn is_unreachable(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::OperationTimedOut
            | ErrorCode::AllBrokersDown
            | ErrorCode::BrokerTransportFailure
            | ErrorCode::Resolve
            | ErrorCode::Authentication
            | ErrorCode::SSL
    )
}

fn code_of(error: &ClientError) -> ErrorCode {
    error.rdkafka_error_code().unwrap_or(ErrorCode::Fail)
}

/// How long one call may block its thread.
const TIMEOUT: Duration = Duration::from_secs(4);
/// How often an idle thread serves the client's events.
const IDLE_INTERVAL: Duration = Duration::from_millis(500);
