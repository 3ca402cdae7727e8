//! What is known of the topics now: ids and numbers of partitions change under
//! a run.

use std::fs;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::support::kafka_cluster::KafkaCluster;

/// A topic as it is now.
#[derive(Debug, Clone)]
pub struct Known {
    /// 32 hexadecimal digits.
    pub id: String,
    pub partitions: u32,
}

/// The topics by their place in the plans; `None` where one is being changed,
/// and nobody should speak of it.
#[derive(Debug)]
pub struct Topics(Mutex<Vec<Option<Known>>>);

impl Topics {
    /// Returns so many topics of which nothing is known.
    pub fn unknown(count: usize) -> Self {
        Self(Mutex::new(vec![None; count]))
    }

    pub fn know(&self, topic: usize, known: Option<Known>) {
        self.0.lock().expect("no panic")[topic] = known;
    }

    pub fn known(&self, topic: usize) -> Option<Known> {
        self.0.lock().expect("no panic")[topic].clone()
    }

    pub fn id(&self, topic: usize) -> Option<String> {
        self.known(topic).map(|known| known.id)
    }
}

/// Returns a topic's id as a broker wrote it beside the log: the client library
/// that the server stands on is not asked.
pub fn topic_id(cluster: &KafkaCluster, brokers: usize, topic: &str) -> String {
    let deadline = Instant::now() + APPEARS_MAX;
    loop {
        for broker in 0..brokers {
            let file = cluster.partition_folder(broker, topic, 0).join("partition.metadata");
            let text = fs::read_to_string(file).unwrap_or_default();
            let id = text.lines().find_map(|line| line.strip_prefix("topic_id: "));
            let bytes = id.and_then(|id| URL_SAFE_NO_PAD.decode(id.trim()).ok());
            if let Some(bytes) = bytes.filter(|bytes| bytes.len() == 16) {
                return bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            }
        }
        assert!(Instant::now() < deadline, "{topic} has no folder after {APPEARS_MAX:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until no broker has the topic's folders any more.
pub fn wait_until_gone(cluster: &KafkaCluster, brokers: usize, topic: &str) {
    let deadline = Instant::now() + APPEARS_MAX;
    while (0..brokers).any(|broker| cluster.partition_folder(broker, topic, 0).exists()) {
        assert!(Instant::now() < deadline, "{topic} is there after {APPEARS_MAX:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

const APPEARS_MAX: Duration = Duration::from_secs(30);
