//! The Kafka side on librdkafka's mock cluster: quick, and good for faults.

use std::time::Duration;

use brucke::kafka::embedded::EmbeddedKafka;
use brucke::kafka::embedded::NewTopic;
use brucke::kafka::producer::NewRecord;
use brucke::kafka::producer::RecordProducer;
use brucke::registry::message::Lookup;
use brucke::registry::message::SourceFailure;
use brucke::tenancy::rule::TenancyRule;
use brucke::types::ids::PartitionId;
use brucke::types::ids::TopicName;

use crate::support::kafka_rig::KafkaRig;
use crate::support::kafka_rig::Seen;
use crate::support::kafka_rig::offset;

fn cluster(topics: &[(&str, usize)]) -> EmbeddedKafka {
    let topics: Vec<_> = topics
        .iter()
        .map(|(name, partitions)| NewTopic { name: TopicName::new(*name), partitions: *partitions })
        .collect();
    EmbeddedKafka::start(&topics).expect("the mock cluster starts")
}

fn send(producer: &RecordProducer, topic: &str, partition: usize, key: &str, value: &str) {
    let record = NewRecord {
        partition: Some(PartitionId::from_index(partition)),
        key: Some(key.as_bytes()),
        value: Some(value.as_bytes()),
        headers: &[],
    };
    producer.send(&TopicName::new(topic), &record).expect("the record is taken");
}

fn flush(producer: &RecordProducer) {
    producer.flush(Duration::from_secs(10)).expect("the records are in");
}

#[test]
fn records_come_live_and_from_history_and_join() {
    let cluster = cluster(&[("orders", 2)]);
    let producer = RecordProducer::new(&cluster.config()).expect("a producer");
    send(&producer, "orders", 0, "a", "1");
    send(&producer, "orders", 0, "b", "2");
    flush(&producer);
    let mut rig = KafkaRig::start(&cluster.config());
    let source = rig.source("orders", TenancyRule::Shared);
    let partitions = rig.follow(source);
    assert_eq!(partitions.len(), 2);
    assert_eq!(partitions[0].tail(), (offset(2), offset(2)), "live begins with what comes next");
    send(&producer, "orders", 0, "c", "3");
    send(&producer, "orders", 1, "d", "4");
    flush(&producer);
    let live = rig.read(source, &partitions[0], 2, 3);
    assert_eq!(live, [Seen::shared(2, "c", "3")]);
    let all = rig.read(source, &partitions[0], 0, 3);
    assert_eq!(
        all,
        [Seen::shared(0, "a", "1"), Seen::shared(1, "b", "2"), Seen::shared(2, "c", "3")]
    );
    assert_eq!(rig.read(source, &partitions[1], 0, 1), [Seen::shared(0, "d", "4")]);
    let bounds = rig.resolve(source, Lookup::Bounds);
    assert_eq!((bounds[0].start, bounds[0].end), (offset(0), offset(3)));
    assert_eq!((bounds[1].start, bounds[1].end), (offset(0), offset(1)));
}

#[test]
fn one_topic_under_two_rules_is_two_sources() {
    let cluster = cluster(&[("mixed", 1)]);
    let producer = RecordProducer::new(&cluster.config()).expect("a producer");
    let mut rig = KafkaRig::start(&cluster.config());
    let shared = rig.source("mixed", TenancyRule::Shared);
    let split = rig.source("mixed", TenancyRule::KeyPrefix(":".into()));
    let shared_partitions = rig.follow(shared);
    let split_partitions = rig.follow(split);
    send(&producer, "mixed", 0, "acme:k", "1");
    send(&producer, "mixed", 0, "nobody", "2");
    flush(&producer);
    assert_eq!(
        rig.read(shared, &shared_partitions[0], 0, 2),
        [Seen::shared(0, "acme:k", "1"), Seen::shared(1, "nobody", "2")]
    );
    assert_eq!(
        rig.read(split, &split_partitions[0], 0, 2),
        [Seen::Record {
            offset: 0,
            tenant: Some("acme".to_owned()),
            key: Some("k".to_owned()),
            value: Some("1".to_owned()),
        }],
        "a record whose tenant can't be told is covered, and seen by nobody"
    );
    let counts = rig.handle.status().counts();
    assert_eq!((counts[&split].live(), counts[&split].unclassified()), (2, 1));
    assert_eq!((counts[&shared].live(), counts[&shared].unclassified()), (2, 0));
}

#[test]
fn a_topic_that_does_not_exist_is_named() {
    let cluster = cluster(&[("there", 1)]);
    let mut rig = KafkaRig::start(&cluster.config());
    let source = rig.source("not-there", TenancyRule::Shared);
    let failure = rig.fail_to_follow(source);
    assert_eq!(failure, SourceFailure::UnknownTopic(TopicName::new("not-there")));
}

#[test]
fn a_long_history_streams_in_and_meets_the_tail() {
    let cluster = cluster(&[("long", 1)]);
    let producer = RecordProducer::new(&cluster.config()).expect("a producer");
    let value = "v".repeat(500);
    for index in 0..6_000 {
        send(&producer, "long", 0, &format!("k{index}"), &value);
    }
    flush(&producer);
    let mut rig = KafkaRig::start(&cluster.config());
    let source = rig.source("long", TenancyRule::Shared);
    let partitions = rig.follow(source);
    let seen = rig.read(source, &partitions[0], 0, 6_000);
    assert_eq!(seen.len(), 6_000);
    assert_eq!(seen[5_999], Seen::shared(5_999, "k5999", &value));
    assert_eq!(rig.handle.status().counts()[&source].history(), 6_000, "each was read once");
}
