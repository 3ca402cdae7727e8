//! Holds a cluster against a configuration, for `brucke doctor`: asks once, says
//! what came, and keeps nothing. Its calls block.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use rdkafka::admin::AdminClient;
use rdkafka::admin::AdminOptions;
use rdkafka::admin::ResourceSpecifier;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig as _;
use rdkafka::consumer::Consumer as _;

use crate::kafka::client;
use crate::kafka::client::Client;
use crate::kafka::config::KafkaConfig;
use crate::kafka::error::KafkaError;
use crate::kafka::native::topics;
use crate::kafka::native::topics::ErrorCode;
use crate::kafka::peek::Peek;
use crate::kafka::status::KafkaStatus;
use crate::kafka::status::Role;
use crate::tenancy::channel::SourceKey;
use crate::tenancy::rule::TenancyRule;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::Timestamp;
use crate::types::ids::TopicName;

/// A cluster that is looked at.
pub struct Inspector {
    config: KafkaConfig,
    client: Client,
    status: Arc<KafkaStatus>,
}

/// What a cluster says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterView {
    /// Addresses of brokers, as they advertise them.
    pub brokers: Vec<String>,
    pub topics: Vec<TopicName>,
}

/// Why a cluster does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    pub cause: Cause,
    /// What the client complained of, in its own words.
    pub complaint: String,
}

/// What is wrong with the way to the brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Name,
    Connection,
    Tls,
    Sasl,
    Unknown,
}

/// What there is of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicView {
    pub partitions: usize,
    pub retention: Retention,
    /// Bytes of a partition after which records go; `None` where size does not.
    pub retention_bytes: Option<u64>,
    /// Whether compaction takes records.
    pub compacted: Compacted,
    /// When the newest record was stamped, of the partitions looked at.
    pub newest: Option<Timestamp>,
}

/// How long records are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// The settings of the topic may not be seen.
    Unknown,
    /// No record goes by its age.
    Forever,
    For(Duration),
}

/// Whether only the newest record of each key stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compacted {
    No,
    Yes,
}

/// Why a topic can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicFault {
    Missing,
    /// It may not be described.
    Hidden,
    /// It may be described but not read.
    Unreadable(String),
    Unanswered(String),
}

impl Inspector {
    /// Makes a client, which connects by itself.
    ///
    /// # Errors
    ///
    /// When the configuration is refused.
    pub fn new(config: &KafkaConfig) -> Result<Self, KafkaError> {
        config.validate()?;
        let status = Arc::new(KafkaStatus::default());
        let client = client::connect(&config.admin(), &status, Role::Admin)?;
        Ok(Self { config: config.clone(), client, status })
    }

    /// Returns what the cluster says of itself.
    ///
    /// # Errors
    ///
    /// [`Silence`] where no broker answers for a while.
    pub fn cluster(&self) -> Result<ClusterView, Silence> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            client::serve(&self.client);
            match self.client.fetch_metadata(None, STEP) {
                Ok(metadata) => {
                    let broker = |b: &rdkafka::metadata::MetadataBroker| {
                        format!("{}:{}", b.host(), b.port())
                    };
                    let topics = metadata.topics().iter().map(|topic| TopicName::new(topic.name()));
                    return Ok(ClusterView {
                        brokers: metadata.brokers().iter().map(broker).collect(),
                        topics: topics.collect(),
                    });
                }
                Err(_) if self.is_refused() || Instant::now() >= deadline => {
                    return Err(self.silence());
                }
                Err(_) => {}
            }
        }
    }

    /// Returns what there is of a topic, after reading a record of it where there
    /// is one.
    ///
    /// # Errors
    ///
    /// [`TopicFault`] for the first thing that is wrong.
    pub fn topic(&self, topic: &TopicName) -> Result<TopicView, TopicFault> {
        let metadata = self.client.fetch_metadata(Some(topic.as_str()), PATIENCE);
        let metadata = metadata.map_err(|error| TopicFault::Unanswered(error.to_string()))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic.as_str());
        let found = found.ok_or(TopicFault::Missing)?;
        match found.error().map(ErrorCode::from) {
            None | Some(ErrorCode::NoError) => {}
            Some(ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopic) => {
                return Err(TopicFault::Missing);
            }
            Some(ErrorCode::TopicAuthorizationFailed) => return Err(TopicFault::Hidden),
            Some(code) => return Err(TopicFault::Unanswered(code.to_string())),
        }
        let partitions = found.partitions().len();
        if partitions == 0 {
            return Err(TopicFault::Missing);
        }
        let newest = self.read(topic, partitions)?;
        let settings = self.settings(topic);
        let number = |name: &str| settings.get(name).and_then(|text| text.parse::<i64>().ok());
        let limit = |name: &str| number(name).and_then(|number| u64::try_from(number).ok());
        let deletes = settings.get("cleanup.policy").is_none_or(|p| p.contains("delete"));
        let compacts = settings.get("cleanup.policy").is_some_and(|p| p.contains("compact"));
        Ok(TopicView {
            partitions,
            retention: match limit("retention.ms").filter(|_| deletes) {
                _ if settings.is_empty() => Retention::Unknown,
                None => Retention::Forever,
                Some(millis) => Retention::For(Duration::from_millis(millis)),
            },
            retention_bytes: limit("retention.bytes").filter(|_| deletes),
            compacted: if compacts { Compacted::Yes } else { Compacted::No },
            newest,
        })
    }

    /// Reads the newest records of the first partitions.
    fn read(&self, topic: &TopicName, partitions: usize) -> Result<Option<Timestamp>, TopicFault> {
        let mut newest = None;
        for partition in (0..partitions.min(PARTITIONS_READ)).map(PartitionId::from_index) {
            let source = SourceKey { topic: topic.clone(), rule: TenancyRule::Shared };
            let fault = |text: String| TopicFault::Unreadable(text);
            let peek = Peek::new(&self.config, source, partition);
            let peek = peek.map_err(|error| fault(error.to_string()))?;
            let (oldest, end) = peek.bounds().map_err(|error| fault(error.to_string()))?;
            let from = Offset::from_client(end.as_u64().saturating_sub(NEWEST));
            let from = from.unwrap_or(oldest).max(oldest);
            // Also an empty partition is asked for records: only that shows whether
            // it may be read.
            peek.read(from, end.next(), |batch, _| newest = newest.max(batch.newest()))
                .map_err(|error| fault(error.to_string()))?;
        }
        Ok(newest)
    }

    /// Returns the settings of a topic; none where they may not be seen.
    fn settings(&self, topic: &TopicName) -> BTreeMap<String, String> {
        let Ok(admin) = AdminClient::<DefaultClientContext>::from_config(&self.config.admin())
        else {
            return BTreeMap::new();
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return BTreeMap::new() };
        let resource = ResourceSpecifier::Topic(topic.as_str());
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let described = runtime.block_on(admin.describe_configs([&resource], &options));
        let entries = described.into_iter().flatten().flatten().flat_map(|found| found.entries);
        entries.filter_map(|entry| Some((entry.name, entry.value?))).collect()
    }

    /// Says whether the brokers have answered, and no.
    fn is_refused(&self) -> bool {
        let errors = self.status.client_errors();
        errors["authentication"] > 0 || errors["tls"] > 0
    }

    fn silence(&self) -> Silence {
        let errors = self.status.client_errors();
        let met = |kind: &str| errors[kind] > 0;
        let cause = match () {
            () if met("authentication") => Cause::Sasl,
            () if met("tls") => Cause::Tls,
            () if met("resolve") => Cause::Name,
            () if met("transport") || met("timed_out") => Cause::Connection,
            () => Cause::Unknown,
        };
        let probe = topics::probe(&self.client, STEP).err().map(|code| code.to_string());
        let complaint = self.status.complaint().or(probe).unwrap_or_default();
        Silence { cause, complaint }
    }
}

impl std::fmt::Debug for Inspector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inspector").field("config", &self.config).finish_non_exhaustive()
    }
}

/// How long a cluster has to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// After so long without an answer, what the client complains of is looked at.
const STEP: Duration = Duration::from_secs(1);
/// Partitions of a topic that are read.
const PARTITIONS_READ: usize = 3;
/// Newest records that are read of each.
const NEWEST: u64 = 10;
