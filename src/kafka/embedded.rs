//! A cluster within the process: librdkafka's mock, for the demo and for quick
//! tests. It keeps the newest 5 MiB of each partition, and knows no topic ids,
//! transactions, retention or compaction.

use std::thread;
use std::thread::JoinHandle;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use rdkafka::mocking::MockCluster;

use crate::kafka::config::ClusterKind;
use crate::kafka::config::KafkaConfig;
use crate::kafka::error::KafkaError;
use crate::types::ids::TopicName;

/// A running mock cluster of one broker; dropping it ends it.
#[derive(Debug)]
pub struct EmbeddedKafka {
    bootstrap_servers: String,
    /// Dropped to end the cluster's thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A topic and how many partitions it is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    pub name: TopicName,
    pub partitions: usize,
}

impl EmbeddedKafka {
    /// Starts a cluster that has these topics.
    ///
    /// # Errors
    ///
    /// [`KafkaError::Client`] when librdkafka can't make it,
    /// [`KafkaError::Thread`] when the system gives no thread.
    pub fn start(topics: &[NewTopic]) -> Result<Self, KafkaError> {
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let (started, outcome) = crossbeam_channel::bounded(1);
        let topics = topics.to_vec();
        // The cluster may not leave the thread that made it.
        let thread = thread::Builder::new()
            .name("kafka-embedded".to_owned())
            .spawn(move || run(&topics, &started, &stopped))?;
        let outcome = outcome.recv().expect("the thread says how it went before it ends");
        Ok(Self { bootstrap_servers: outcome?, stop: Some(stop), thread: Some(thread) })
    }

    /// Returns how the cluster is reached.
    pub fn config(&self) -> KafkaConfig {
        let mut config = KafkaConfig::new(vec![self.bootstrap_servers.clone()]);
        config.cluster = ClusterKind::Mock;
        config
    }
}

impl Drop for EmbeddedKafka {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been told; there is nothing left to end.
            let _ = thread.join();
        }
    }
}

fn run(topics: &[NewTopic], started: &Sender<Result<String, KafkaError>>, stopped: &Receiver<()>) {
    let cluster = match MockCluster::new(1) {
        Ok(cluster) => cluster,
        Err(error) => return drop(started.send(Err(error.into()))),
    };
    for topic in topics {
        let partitions = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
        if let Err(error) = cluster.create_topic(topic.name.as_str(), partitions, 1) {
            return drop(started.send(Err(error.into())));
        }
    }
    let _ = started.send(Ok(cluster.bootstrap_servers()));
    // Returns when the owner drops its end.
    let _ = stopped.recv();
}
