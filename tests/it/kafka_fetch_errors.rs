//! Every error that a fetch can meet, once and several times in a row, on
//! librdkafka's mock cluster, which gives them at will.

use brucke::kafka::config::ClusterKind;
use brucke::kafka::config::KafkaConfig;
use brucke::tenancy::rule::TenancyRule;
use rdkafka::mocking::MockCluster;
use rdkafka::types::RDKafkaApiKey;
use rdkafka::types::RDKafkaRespErr;

use crate::support::kafka_client::KafkaProducer;
use crate::support::kafka_client::NewRecord;
use crate::support::kafka_rig::KafkaRig;
use crate::support::kafka_rig::Seen;

/// Errors after which reading goes on by itself, or the partition is assigned
/// anew.
const ERRORS: [RDKafkaRespErr; 9] = [
    RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT,
    RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
    RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
    RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE,
    RDKafkaRespErr::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
    RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_LEADER_EPOCH,
    RDKafkaRespErr::RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH,
    RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE,
    RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN,
];

fn check(times: usize) {
    let cluster = MockCluster::new(1).expect("the mock cluster starts");
    cluster.create_topic("faulty", 1, 1).expect("the topic is made");
    let mut config = KafkaConfig::new(vec![cluster.bootstrap_servers()]);
    config.cluster = ClusterKind::Mock;
    let mut rig = KafkaRig::start(&config);
    let producer = KafkaProducer::new(&cluster.bootstrap_servers());
    let source = rig.source("faulty", TenancyRule::Shared);
    let partitions = rig.follow(source);
    for (at, error) in (0..).zip(ERRORS) {
        cluster.request_errors(RDKafkaApiKey::Fetch, &vec![error; times]);
        producer.send("faulty", &[NewRecord::new(0, "k", &format!("{error:?}"))]);
        let seen = rig.read(source, &partitions[0], at, at + 1);
        assert_eq!(seen, [Seen::shared(at, "k", &format!("{error:?}"))], "{times} times");
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
