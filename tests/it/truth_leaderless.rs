//! One partition without a leader: what all others hold goes on coming, to those
//! who begin meanwhile too, and on a replica that has never met the partition.

use std::time::Duration;
use std::time::Instant;

use brucke::protocol::error_code::ErrorCode;
use brucke::protocol::frame::StartAt;
use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;

use crate::support::kafka_client::KafkaProducer;
use crate::support::kafka_client::NewRecord;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::fresh_topic;
use crate::support::server_process::ServerProcess;
use crate::support::server_process::shared_feed;
use crate::support::watcher::Heard;
use crate::support::watcher::Watcher;
use crate::support::watcher::Wish;

/// A cluster and a topic whose partitions each have one replica, on brokers of
/// their own.
struct Split {
    cluster: KafkaCluster,
    topic: String,
    producer: KafkaProducer,
}

impl Split {
    fn start() -> Self {
        let cluster = KafkaCluster::start(BROKERS);
        let topic = fresh_topic("split");
        cluster.admin().create_topic(&topic, PARTITIONS, &[]);
        let producer = cluster.producer();
        Self { cluster, topic, producer }
    }

    fn replica(&self) -> ServerProcess {
        let servers = self.cluster.bootstrap_servers();
        let settings =
            [("KAFKA_BOOTSTRAP_SERVERS", servers.as_str()), ("KAFKA_RETRY_INTERVAL", "200ms")];
        ServerProcess::start_with(&shared_feed(&self.topic), &settings)
    }

    /// Writes one record to each of these partitions.
    fn send(&self, partitions: impl IntoIterator<Item = i32>, value: &str) {
        for partition in partitions {
            self.producer.send(&self.topic, &[NewRecord::new(partition, "k", value)]);
        }
    }

    /// Returns the leader of each partition, as a new client hears of it.
    fn leaders(&self) -> Vec<i32> {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.cluster.bootstrap_servers())
            .set("log_level", "0")
            .create()
            .expect("a client is made");
        let metadata =
            client.fetch_metadata(Some(&self.topic), PATIENCE).expect("a broker answers");
        let mut leaders: Vec<_> = metadata.topics()[0]
            .partitions()
            .iter()
            .map(|partition| (partition.id(), partition.leader()))
            .collect();
        leaders.sort_unstable();
        leaders.into_iter().map(|(_, leader)| leader).collect()
    }

    /// Takes the only replica of the last partition away; returns its broker.
    fn lose_last(&mut self) -> usize {
        let leader = self.leaders()[LAST as usize];
        let broker = usize::try_from(leader - 1).expect("ids count from one");
        self.cluster.kill(broker);
        let deadline = Instant::now() + PATIENCE;
        while self.leaders()[LAST as usize] >= 0 {
            assert!(Instant::now() < deadline, "the cluster does not notice");
        }
        broker
    }
}

#[test]
fn the_first_byte_does_not_wait_for_all_partitions() {
    let mut split = Split::start();
    assert_ne!(split.leaders()[0], split.leaders()[LAST as usize], "each is on its own broker");
    split.send(0..PARTITIONS, "before");
    let old = split.replica();
    let mut early = Watcher::start(old.clients, &Wish::new(StartAt::Earliest));
    let heard = early.hear_until(|heard| *heard == Heard::Live);
    assert_eq!(heard.len(), PARTITIONS as usize + 1);
    let place = early.place();
    split.send([LAST], "asleep");
    // The replica has it, so that for whoever comes later it is no news.
    assert!(early.next().has_value("asleep"));
    drop(early);
    let broker = split.lose_last();
    let led = || (0..PARTITIONS).filter(|partition| *partition != LAST);

    // A replica that has met the partition serves whoever comes.
    let mut latest = Watcher::start(old.clients, &Wish::new(StartAt::Latest));
    assert_eq!(latest.next(), Heard::Live);
    let mut resumed = Watcher::start(old.clients, &Wish::new(StartAt::Place(place.clone())));
    // One that has not serves whoever has positions, and tells the others why not.
    let new = split.replica();
    let wish = Wish::new(StartAt::Place(place));
    let mut moved = Watcher::start(new.clients, &wish);
    for from in [StartAt::Latest, StartAt::Earliest] {
        let refused = Watcher::try_start(new.clients, &Wish::new(from));
        let error = refused.map(|_| ()).expect_err("nobody can say where it starts");
        assert_eq!(error.code, ErrorCode::Unavailable, "{error:?}");
        assert!(error.message.contains("partition 2 has no leader"), "{error:?}");
    }
    split.send(led(), "meanwhile");
    for watcher in [&mut latest, &mut moved] {
        for _ in led() {
            let heard = watcher.next();
            assert!(heard.has_value("meanwhile"), "{heard:?}");
        }
    }
    assert!(moved.is_between_frames());
    let page = new.admin_page("/metrics");
    assert!(page.contains("\nbrucke_reader_partitions_unlocated 1\n"), "{page}");

    split.cluster.restart(broker);
    let asleep = Heard::record(LAST.cast_unsigned(), 1, "k", "asleep");
    assert_eq!(moved.next(), asleep, "what was written before it was lost");
    assert_eq!(moved.next(), Heard::Live, "from here on it is like all others");
    split.send(0..PARTITIONS, "after");
    for watcher in [&mut moved, &mut latest] {
        let after = watcher.hear_until(|heard| heard.has_value("after") && is_of_last(heard));
        assert!(after.iter().all(|heard| heard.has_value("after")), "{after:?}");
    }
    let all = resumed.hear_until(|heard| heard.has_value("after") && is_of_last(heard));
    assert_eq!(all.iter().filter(|heard| **heard == asleep).count(), 1, "{all:?}");
    assert_eq!(new.metric("brucke_reader_partitions_unlocated"), 0.0);
    Watcher::start(new.clients, &Wish::new(StartAt::Latest));
}

fn is_of_last(heard: &Heard) -> bool {
    matches!(heard, Heard::Record { partition, .. } if *partition == LAST.cast_unsigned())
}

const BROKERS: usize = 3;
const PARTITIONS: i32 = 3;
/// The partition whose broker goes.
const LAST: i32 = 2;
const PATIENCE: Duration = Duration::from_secs(30);
