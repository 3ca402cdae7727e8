//! What is read of Apache Kafka: transactions, compaction, deleted records, new
//! partitions, topics that were made again.

use std::time::Duration;
use std::time::Instant;

use brucke::kafka::config::KafkaConfig;
use brucke::registry::message::Event;
use brucke::registry::message::Lookup;
use brucke::tenancy::rule::TenancyRule;
use brucke::types::ids::Timestamp;
use brucke::types::ids::TopicId;

use crate::support::kafka_client::KafkaProducer;
use crate::support::kafka_client::NewRecord;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::fresh_topic;
use crate::support::kafka_rig::KafkaRig;
use crate::support::kafka_rig::Seen;
use crate::support::kafka_rig::offset;

fn config(cluster: &KafkaCluster) -> KafkaConfig {
    KafkaConfig::new(vec![cluster.bootstrap_servers()])
}

/// Returns the shared cluster with a topic, and the Kafka side on it.
fn begin(purpose: &str, partitions: i32, settings: &[(&str, &str)]) -> (String, KafkaRig) {
    let cluster = KafkaCluster::shared();
    let topic = fresh_topic(purpose);
    cluster.admin().create_topic(&topic, partitions, settings);
    (topic, KafkaRig::start(&config(cluster)))
}

#[test]
fn aborted_records_are_covered_and_never_seen() {
    let (topic, mut rig) = begin("aborted", 1, &[]);
    let cluster = KafkaCluster::shared();
    let source = rig.source(&topic, TenancyRule::Shared);
    let partitions = rig.follow(source);
    assert_ne!(partitions[0].topic_id(), TopicId::UNKNOWN);
    let producer = KafkaProducer::transactional(&cluster.bootstrap_servers(), &topic);
    let send = |key| producer.send(&topic, &[NewRecord::new(0, key, "v")])[0];
    producer.begin();
    send("kept-0");
    producer.commit();
    producer.begin();
    send("aborted-2");
    send("aborted-3");
    producer.abort();
    producer.begin();
    send("kept-5");
    producer.commit();
    // Markers stand at 1, 4 and 6: the last is known only from the log's end.
    let expected = [Seen::shared(0, "kept-0", "v"), Seen::shared(5, "kept-5", "v")];
    assert_eq!(rig.read(source, &partitions[0], 0, 7), expected, "live");
    let mut other = KafkaRig::start(&config(cluster));
    let source = other.source(&topic, TenancyRule::Shared);
    let partitions = other.follow(source);
    assert_eq!(partitions[0].tail(), (offset(7), offset(7)));
    assert_eq!(other.read(source, &partitions[0], 0, 7), expected, "history");
    assert_eq!(other.read(source, &partitions[0], 6, 7), [], "only a marker");
}

#[test]
fn an_open_transaction_holds_back_the_end() {
    let (topic, mut rig) = begin("open", 1, &[]);
    let cluster = KafkaCluster::shared();
    let producer = KafkaProducer::transactional(&cluster.bootstrap_servers(), &topic);
    let plain = cluster.producer();
    plain.send(&topic, &[NewRecord::new(0, "plain-0", "v")]);
    producer.begin();
    producer.send(&topic, &[NewRecord::new(0, "open-1", "v")]);
    plain.send(&topic, &[NewRecord::new(0, "plain-2", "v")]);
    let source = rig.source(&topic, TenancyRule::Shared);
    let partitions = rig.follow(source);
    let bounds = rig.resolve(source, Lookup::Bounds);
    assert_eq!(bounds[0].end, offset(1), "the last stable offset, not the newest");
    assert_eq!(partitions[0].tail(), (offset(1), offset(1)));
    producer.commit();
    assert_eq!(
        rig.read(source, &partitions[0], 0, 4),
        [
            Seen::shared(0, "plain-0", "v"),
            Seen::shared(1, "open-1", "v"),
            Seen::shared(2, "plain-2", "v")
        ]
    );
}

#[test]
fn offsets_are_found_by_time() {
    // The records are of 1970, and must outlive the broker's first look at it.
    let (topic, mut rig) = begin("times", 2, &[("retention.ms", "-1")]);
    let producer = KafkaCluster::shared().producer();
    let at = |millis| NewRecord { timestamp: Some(millis), ..NewRecord::new(0, "k", "v") };
    producer.send(&topic, &[at(1_000), at(2_000), at(3_000)]);
    let source = rig.source(&topic, TenancyRule::Shared);
    rig.follow(source);
    for (millis, found) in [(0, 0), (1_000, 0), (1_001, 1), (3_000, 2), (3_001, 3), (-5, 0)] {
        let lookup = Lookup::Timestamp(Timestamp::from_millis(millis));
        let bounds = rig.resolve(source, lookup);
        let first = (bounds[0].start, bounds[0].at_timestamp, bounds[0].end);
        assert_eq!(first, (offset(0), offset(found), offset(3)), "at {millis}");
        assert_eq!(bounds[1].at_timestamp, offset(0), "an empty partition begins at its end");
    }
}

#[test]
fn deleted_records_are_a_gap_for_history_and_bounds() {
    let (topic, mut rig) = begin("deleted", 1, &[]);
    let cluster = KafkaCluster::shared();
    let records: Vec<_> = (0..10).map(|_| NewRecord::new(0, "k", "v")).collect();
    cluster.producer().send(&topic, &records);
    let source = rig.source(&topic, TenancyRule::Shared);
    let partitions = rig.follow(source);
    cluster.admin().delete_records(&topic, 0, 6);
    let seen = rig.read(source, &partitions[0], 2, 10);
    assert_eq!(seen[0], Seen::Gap { from: 2, to: 6, reason: "retention" });
    assert_eq!(seen[1], Seen::shared(6, "k", "v"));
    assert_eq!(seen.len(), 5);
    assert_eq!(rig.resolve(source, Lookup::Bounds)[0].start, offset(6));
}

#[test]
fn the_live_reader_goes_on_after_it_was_overtaken() {
    let (topic, mut rig) = begin("overtaken", 1, &[]);
    let cluster = KafkaCluster::shared();
    let source = rig.source(&topic, TenancyRule::Shared);
    let partitions = rig.follow(source);
    let mut at = partitions[0].end();
    // The open transaction keeps the reader at 0, and meanwhile that place goes.
    let producer = KafkaProducer::transactional(&cluster.bootstrap_servers(), &topic);
    producer.begin();
    producer.send(&topic, &[NewRecord::new(0, "gone", "v"), NewRecord::new(0, "kept", "v")]);
    cluster.admin().delete_records(&topic, 0, 1);
    let seen = rig.read_from(source, &partitions[0], &mut at, 1);
    assert_eq!(seen, [Seen::Gap { from: 0, to: 1, reason: "retention" }]);
    producer.commit();
    assert_eq!(rig.read_from(source, &partitions[0], &mut at, 2), [Seen::shared(1, "kept", "v")]);
}

#[test]
fn a_compacted_topic_has_holes_and_no_gap() {
    let settings = [
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0.001"),
        ("segment.ms", "100"),
        ("delete.retention.ms", "0"),
        ("max.compaction.lag.ms", "200"),
    ];
    let cluster = KafkaCluster::shared();
    let topic = fresh_topic("compacted");
    cluster.admin().create_topic(&topic, 1, &settings);
    let producer = cluster.producer();
    producer.send(&topic, &[NewRecord::new(0, "same", "v"); 20]);
    let deadline = Instant::now() + Duration::from_secs(60);
    // Each look is by a reader with nothing in memory. The record before it
    // makes the segment before that old enough to be cleaned.
    loop {
        assert!(Instant::now() < deadline, "the topic is compacted");
        let last = producer.send(&topic, &[NewRecord::new(0, "same", "v")])[0];
        let next = u64::try_from(last).expect("not negative") + 1;
        let mut rig = KafkaRig::start(&config(cluster));
        let source = rig.source(&topic, TenancyRule::Shared);
        let partitions = rig.follow(source);
        let seen = rig.read(source, &partitions[0], 0, next);
        assert!(!seen.iter().any(|seen| matches!(seen, Seen::Gap { .. })), "{seen:?}");
        if seen.len() < 20 {
            return;
        }
    }
}

#[test]
fn new_partitions_are_read_from_their_beginning() {
    let (topic, mut rig) = begin("grown", 1, &[]);
    let cluster = KafkaCluster::shared();
    let source = rig.source(&topic, TenancyRule::Shared);
    assert_eq!(rig.follow(source).len(), 1);
    cluster.admin().create_partitions(&topic, 3);
    cluster.producer().send(&topic, &[NewRecord::new(2, "new", "v")]);
    let added = rig.wait_for("new partitions", |event| match event {
        Event::PartitionsAdded { partitions, .. } => Some(partitions.clone()),
        _ => None,
    });
    assert_eq!(added.len(), 2);
    cluster.producer().send(&topic, &[NewRecord::new(2, "newer", "v")]);
    let seen = rig.read(source, &added[1], 0, 2);
    assert_eq!(seen, [Seen::shared(0, "new", "v"), Seen::shared(1, "newer", "v")]);
}

#[test]
fn a_topic_that_was_made_again_is_told_apart() {
    let (topic, mut rig) = begin("again", 1, &[]);
    let cluster = KafkaCluster::shared();
    let source = rig.source(&topic, TenancyRule::Shared);
    let partitions = rig.follow(source);
    let before = partitions[0].topic_id();
    cluster.producer().send(&topic, &[NewRecord::new(0, "old", "v")]);
    let mut at = partitions[0].end();
    at.offset = offset(0);
    let seen = rig.read_from(source, &partitions[0], &mut at, 1);
    assert_eq!(seen, [Seen::shared(0, "old", "v")]);
    cluster.admin().delete_topic(&topic);
    cluster.admin().create_topic(&topic, 1, &[]);
    cluster.producer().send(&topic, &[NewRecord::new(0, "new", "v")]);
    let began = Instant::now();
    while partitions[0].topic_id() == before {
        assert!(began.elapsed() < Duration::from_secs(5), "it is noticed in time");
        rig.wait_for("news of the partition", |event| {
            matches!(event, Event::Advanced { .. }).then_some(())
        });
    }
    // The cursor is of the old topic: it is told, and then reads the new one.
    at.offset = offset(0);
    let seen = rig.read_from(source, &partitions[0], &mut at, 1);
    let told = Seen::Gap { from: 0, to: 0, reason: "recreated" };
    assert_eq!(seen, [told, Seen::shared(0, "new", "v")]);
}

#[test]
fn keys_values_headers_and_their_absence_come_through() {
    let (topic, mut rig) = begin("shapes", 1, &[]);
    let producer = KafkaCluster::shared().producer();
    let tenant: &[_] = &[("tenant", Some(&b"acme"[..])), ("none", None), ("empty", Some(&b""[..]))];
    let shapes = [
        NewRecord { key: None, value: None, headers: tenant, ..NewRecord::default() },
        NewRecord { key: Some(b""), value: Some(b""), headers: tenant, ..NewRecord::default() },
        NewRecord { key: Some(b"\xff"), value: Some(b"\x00"), ..NewRecord::default() },
    ];
    producer.send(&topic, &shapes);
    let source = rig.source(&topic, TenancyRule::Header("tenant".into()));
    let partitions = rig.follow(source);
    let acme = Some("acme".to_owned());
    let empty = Some(String::new());
    assert_eq!(
        rig.read(source, &partitions[0], 0, 3),
        [
            Seen::Record { offset: 0, tenant: acme.clone(), key: None, value: None },
            Seen::Record { offset: 1, tenant: acme, key: empty.clone(), value: empty },
        ],
        "the record without the header is seen by nobody"
    );
}

#[test]
fn a_record_larger_than_any_buffer_comes_through() {
    let settings = [("max.message.bytes", "20000000")];
    let (topic, mut rig) = begin("large", 1, &settings);
    let source = rig.source(&topic, TenancyRule::Shared);
    let partitions = rig.follow(source);
    let value = "x".repeat(9_000_000);
    let producer = KafkaCluster::shared().producer();
    let small = NewRecord::new(0, "small", "v");
    producer.send(&topic, &[small, NewRecord::new(0, "large", &value), small]);
    let expected = [
        Seen::shared(0, "small", "v"),
        Seen::shared(1, "large", &value),
        Seen::shared(2, "small", "v"),
    ];
    assert!(rig.read(source, &partitions[0], 0, 3) == expected, "live");
    let mut other = KafkaRig::start(&config(KafkaCluster::shared()));
    let source = other.source(&topic, TenancyRule::Shared);
    let partitions = other.follow(source);
    assert!(other.read(source, &partitions[0], 0, 3) == expected, "history");
}
