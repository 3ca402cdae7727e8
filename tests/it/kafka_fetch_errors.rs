//! Every error that a fetch can meet, once and several times in a row, on
//! librdkafka's mock cluster, which gives them at will.

use std::collections::HashMap;
use std::ffi::c_int;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use brucke::kafka::config::ClusterKind;
use brucke::kafka::config::KafkaConfig;
use brucke::tenancy::rule::TenancyRule;
use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::types::RDKafkaApiKey;
use rdkafka_sys as native;

use crate::support::kafka_client::KafkaProducer;
use crate::support::kafka_client::NewRecord;
use crate::support::kafka_rig::KafkaRig;
use crate::support::kafka_rig::Seen;

/// Errors after which reading goes on by itself, or the partition is assigned
/// anew: the number of each, and its name in Kafka's protocol.
const ERRORS: [(i32, &str); 24] = [
    // The mock cluster takes it for a wish to close the connection.
    (-195, "a broken connection"),
    (-1, "UNKNOWN_SERVER_ERROR"),
    (1, "OFFSET_OUT_OF_RANGE"),
    (2, "CORRUPT_MESSAGE"),
    (3, "UNKNOWN_TOPIC_OR_PARTITION"),
    (5, "LEADER_NOT_AVAILABLE"),
    (6, "NOT_LEADER_OR_FOLLOWER"),
    (7, "REQUEST_TIMED_OUT"),
    (8, "BROKER_NOT_AVAILABLE"),
    (9, "REPLICA_NOT_AVAILABLE"),
    (13, "NETWORK_EXCEPTION"),
    (29, "TOPIC_AUTHORIZATION_FAILED"),
    (35, "UNSUPPORTED_VERSION"),
    (56, "KAFKA_STORAGE_ERROR"),
    (70, "FETCH_SESSION_ID_NOT_FOUND"),
    (71, "INVALID_FETCH_SESSION_EPOCH"),
    (74, "FENCED_LEADER_EPOCH"),
    (75, "UNKNOWN_LEADER_EPOCH"),
    (76, "UNSUPPORTED_COMPRESSION_TYPE"),
    (78, "OFFSET_NOT_AVAILABLE"),
    (100, "UNKNOWN_TOPIC_ID"),
    // Of these librdkafka has no name.
    (103, "INCONSISTENT_TOPIC_ID"),
    (106, "FETCH_SESSION_TOPIC_ID_ERROR"),
    (109, "OFFSET_MOVED_TO_TIERED_STORAGE"),
];

/// A mock cluster that fails fetches, by numbers: Rust's enumeration of errors lacks
/// some that brokers have.
struct Cluster(BaseConsumer);

impl Cluster {
    fn start() -> Self {
        let mut config = ClientConfig::new();
        config.set("test.mock.num.brokers", "1").set("group.id", "host");
        Self(config.create().expect("the mock cluster starts"))
    }

    fn servers(&self) -> String {
        self.0.client().mock_cluster().expect("the client hosts one").bootstrap_servers()
    }

    fn create_topic(&self, name: &str) {
        let cluster = self.0.client().mock_cluster().expect("the client hosts one");
        cluster.create_topic(name, 1, 1).expect("the topic is made");
    }

    /// Lets the next fetches fail with this error, and waits until they have.
    fn fail_fetches(&self, code: i32, times: usize) {
        let fetch = RDKafkaApiKey::Fetch.into();
        let native = self.0.client().native_ptr();
        for _ in 0..times {
            // SAFETY: the client lives and hosts a cluster. What varies is one pair of C's
            // enumeration, which is an int, and of milliseconds.
            unsafe {
                let cluster = native::rd_kafka_handle_mock_cluster(native);
                let (code, delay): (c_int, c_int) = (code, 0);
                native::rd_kafka_mock_broker_push_request_error_rtts(
                    cluster, BROKER, fetch, 1, code, delay,
                );
            }
        }
        assert!(self.pending(fetch) > 0, "nothing fails");
        let deadline = Instant::now() + FAILED_MAX;
        while self.pending(fetch) > 0 {
            assert!(Instant::now() < deadline, "{code} is not met {times} times");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns how many requests have yet to fail.
    fn pending(&self, request: i16) -> usize {
        let mut count = 0;
        // SAFETY: the client lives and hosts a cluster, and the count outlives the call.
        unsafe {
            let cluster = native::rd_kafka_handle_mock_cluster(self.0.client().native_ptr());
            native::rd_kafka_mock_broker_error_stack_cnt(cluster, BROKER, request, &raw mut count);
        }
        count
    }
}

/// The only one there is.
const BROKER: i32 = 1;
/// How long fetches may take to come.
const FAILED_MAX: Duration = Duration::from_secs(20);

fn check(times: usize) {
    let cluster = Cluster::start();
    cluster.create_topic("faulty");
    let mut config = KafkaConfig::new(vec![cluster.servers()]);
    config.cluster = ClusterKind::Mock;
    // There is nothing to fetch until all have failed.
    config.properties.insert("fetch.wait.max.ms".to_owned(), "20".to_owned());
    let mut rig = KafkaRig::start(&config);
    let producer = KafkaProducer::new(&cluster.servers());
    let source = rig.source("faulty", TenancyRule::Shared);
    let partitions = rig.follow(source);
    for (at, (code, name)) in (0..).zip(ERRORS) {
        cluster.fail_fetches(code, times);
        producer.send("faulty", &[NewRecord::new(0, "k", name)]);
        let seen = rig.read(source, &partitions[0], at, at + 1);
        assert_eq!(seen, [Seen::shared(at, "k", name)], "{name}, {times} times");
    }
    assert_eq!(rig.handle.status().counts()[&source].live(), ERRORS.len() as u64);
    assert!(rig.handle.status().failed_threads().is_empty());
}

#[test]
fn reading_goes_on_after_each_error_of_a_fetch() {
    check(1);
}

#[test]
fn reading_goes_on_after_errors_in_a_row() {
    check(5);
}

#[test]
fn every_error_has_a_number_of_its_own() {
    let numbers: HashMap<_, _> = ERRORS.into_iter().collect();
    assert_eq!(numbers.len(), ERRORS.len());
}
