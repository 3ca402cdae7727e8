//! Where records come from.

use std::time::Duration;

use anyhow::Result;
use brucke::kafka::config::KafkaConfig;
use brucke::kafka::embedded::EmbeddedKafka;
use brucke::kafka::embedded::NewTopic;
use brucke::kafka::producer::NewRecord;
use brucke::kafka::producer::RecordProducer;
use brucke::types::ids::TopicName;

use crate::machine::Core;
use crate::plan::ClusterChoice;
use crate::process::Process;
use crate::support::kafka_cluster::KafkaCluster;

/// A running cluster.
pub struct Cluster {
    pub servers: String,
    pub choice: ClusterChoice,
    /// The topics that it has; each has a channel of the same name.
    pub topics: Vec<String>,
    /// What ends it when dropped.
    _owner: Owner,
}

enum Owner {
    Embedded { _process: Process },
    Apache { _cluster: Box<KafkaCluster> },
}

/// The topics, one for each measurement, with one partition but for those of the
/// storms.
const TOPICS: [&str; 17] = [
    "fanout",
    "intake",
    "memory-shared",
    "memory-own",
    "keys-few",
    "keys-few-deep",
    "keys-many",
    "keys-many-deep",
    "keys-progress",
    "latency",
    "storm",
    "storm-small",
    "storm-big",
    "tracing-off",
    "tracing-none",
    "tracing-some",
    "tracing-all",
];

/// Partitions of each topic of the storms.
pub const STORM_PARTITIONS: usize = 12;

/// Returns the name of the topic that has so many partitions.
pub fn many_partitions(count: usize) -> String {
    format!("{MANY}{count}")
}

fn partitions_of(topic: &str) -> usize {
    match topic.strip_prefix(MANY) {
        Some(count) => count.parse().expect("the name says how many"),
        None if topic.starts_with("storm") => STORM_PARTITIONS,
        None => 1,
    }
}

const MANY: &str = "partitions-";

impl Cluster {
    /// Starts the one that is wanted.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(choice: ClusterChoice) -> Result<Self> {
        Self::start_with(choice, TOPICS.map(str::to_owned).to_vec())
    }

    /// Starts one with other topics: a topic of many partitions is a burden to
    /// whatever else is measured.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start_with(choice: ClusterChoice, topics: Vec<String>) -> Result<Self> {
        let (servers, owner) = match choice {
            ClusterChoice::Embedded => {
                let mut arguments = vec!["kafka".to_owned()];
                arguments.extend(topics.iter().cloned());
                let mut process = Process::start_role(&arguments, Core::Client)?;
                (process.first_line()?, Owner::Embedded { _process: process })
            }
            ClusterChoice::Apache => {
                let cluster = Box::new(KafkaCluster::start(1));
                for topic in &topics {
                    cluster.admin().create_topic(topic, partitions_of(topic) as i32, &[]);
                }
                (cluster.bootstrap_servers(), Owner::Apache { _cluster: cluster })
            }
        };
        Ok(Self { servers, choice, topics, _owner: owner })
    }

    /// Returns properties of librdkafka without which the cluster can't be
    /// measured.
    pub fn properties(&self) -> &'static [(&'static str, &'static str)] {
        match self.choice {
            // The mock sleeps through the whole wait, records or not.
            ClusterChoice::Embedded => &[("fetch.wait.max.ms", "2")],
            ClusterChoice::Apache => &[],
        }
    }

    /// Returns a producer that waits so long for records to go together.
    ///
    /// # Errors
    ///
    /// When librdkafka refuses.
    pub fn producer(&self, linger: Duration) -> Result<Producer> {
        let mut config = KafkaConfig::new(vec![self.servers.clone()]);
        config.properties.insert("linger.ms".to_owned(), linger.as_millis().to_string());
        Ok(Producer { producer: RecordProducer::new(&config)? })
    }
}

/// Puts records into Kafka.
pub struct Producer {
    producer: RecordProducer,
}

impl Producer {
    /// Hands a record over.
    ///
    /// # Errors
    ///
    /// When it can't be sent.
    pub fn send(&self, topic: &str, key: &str, value: &str) -> Result<()> {
        self.send_with(topic, key, value, &[])
    }

    /// Hands a record with headers over.
    ///
    /// # Errors
    ///
    /// When it can't be sent.
    pub fn send_with(
        &self,
        topic: &str,
        key: &str,
        value: &str,
        headers: &[(&str, &[u8])],
    ) -> Result<()> {
        let record = NewRecord {
            partition: None,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers,
        };
        Ok(self.producer.send(&TopicName::new(topic), &record)?)
    }

    /// Waits until all is in Kafka.
    ///
    /// # Errors
    ///
    /// When it is not in time.
    pub fn flush(&self) -> Result<()> {
        Ok(self.producer.flush(Duration::from_secs(30))?)
    }
}

/// Is the embedded cluster, until it is killed.
///
/// # Errors
///
/// When it does not start.
pub fn run_embedded(topics: &[String]) -> Result<()> {
    let topics: Vec<_> = topics
        .iter()
        .map(|topic| NewTopic {
            name: TopicName::new(topic.as_str()),
            partitions: partitions_of(topic),
        })
        .collect();
    let cluster = EmbeddedKafka::start(&topics)?;
    println!("{}", cluster.config().bootstrap_servers.join(","));
    loop {
        std::thread::park();
    }
}
