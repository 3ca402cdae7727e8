//! What clients are told when the log itself changes under them: deleted
//! records, transactions, compaction, new partitions, topics made again.

use std::collections::BTreeSet;
use std::time::Duration;
use std::time::Instant;

use brucke::protocol::error_code::ErrorCode;
use brucke::protocol::frame::GapReason;
use brucke::protocol::frame::OnGap;
use brucke::protocol::frame::StartAt;
use brucke::types::filter::KeyFilter;
use brucke::types::ids::PartitionId;
use brucke::types::positions::Place;
use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::Offset;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;

use crate::support::kafka_client::KafkaProducer;
use crate::support::kafka_client::NewRecord;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::fresh_topic;
use crate::support::kafka_rig::offset;
use crate::support::server_process::ServerProcess;
use crate::support::server_process::shared_feed;
use crate::support::watcher::Heard;
use crate::support::watcher::Watcher;
use crate::support::watcher::Wish;

/// Makes a topic on the shared cluster and a replica that shows it to everybody.
fn begin(purpose: &str, partitions: i32, settings: &[(&str, &str)]) -> (String, ServerProcess) {
    let topic = fresh_topic(purpose);
    KafkaCluster::shared().admin().create_topic(&topic, partitions, settings);
    let settings = [("SERVER_PROGRESS_INTERVAL", "200ms")];
    let server = ServerProcess::start_with(&shared_feed(&topic), &settings);
    (topic, server)
}

fn watch(server: &ServerProcess, from: StartAt) -> Watcher {
    Watcher::start(server.clients, &Wish::new(from))
}

/// Follows all until `value` has come and returns the place after it.
fn place_after(server: &ServerProcess, from: StartAt, value: &str) -> Place {
    let mut watcher = watch(server, from);
    watcher.hear_until(|heard| heard.has_value(value));
    watcher.place()
}

#[test]
fn records_deleted_under_a_sleeping_client_are_a_gap_of_their_exact_range() {
    let (topic, server) = begin("slept", 1, &[]);
    let cluster = KafkaCluster::shared();
    let producer = cluster.producer();
    producer.send(&topic, &[NewRecord::new(0, "k", "read"); 4]);
    let mut awake = watch(&server, StartAt::Earliest);
    for offset in 0..4 {
        assert_eq!(awake.next(), Heard::record(0, offset, "k", "read"));
    }
    let place = awake.place();
    drop(awake);
    producer.send(&topic, &[NewRecord::new(0, "k", "slept"); 6]);
    // The other replica never read what is deleted, but it knows the topic.
    let other = ServerProcess::start(&shared_feed(&topic));
    let follower = watch(&other, StartAt::Latest);
    assert_eq!(follower.starts(), [10]);
    cluster.admin().delete_records(&topic, 0, 7);

    let gap = Heard::Gap { partition: 0, from: 4, to: 7, reason: GapReason::Retention };
    for filter in [KeyFilter::All, KeyFilter::keys([Bytes::from("k")])] {
        let wish = Wish { filter, ..Wish::new(StartAt::Place(place.clone())) };
        let began = Instant::now();
        let mut watcher = Watcher::start(other.clients, &wish);
        assert_eq!(watcher.next(), gap, "{wish:?}");
        let waited = began.elapsed();
        assert!(waited < Duration::from_secs(1), "the gap came after {waited:?}");
        for offset in 7..10 {
            assert_eq!(watcher.next(), Heard::record(0, offset, "k", "slept"));
        }
        assert_eq!(watcher.next(), Heard::Live);

        let wish = Wish { on_gap: OnGap::Stop, ..wish };
        let mut watcher = Watcher::start(other.clients, &wish);
        assert_eq!(watcher.next(), gap, "{wish:?}");
        assert_eq!(watcher.next(), Heard::Ended(ErrorCode::Gap), "{wish:?}");
    }
}

#[test]
fn aborted_records_are_never_delivered_and_are_no_gap() {
    let (topic, server) = begin("aborted", 1, &[]);
    let cluster = KafkaCluster::shared();
    let mut live = watch(&server, StartAt::Latest);
    assert_eq!(live.next(), Heard::Live);
    let producer = KafkaProducer::transactional(&cluster.bootstrap_servers(), &topic);
    let send = |key| producer.send(&topic, &[NewRecord::new(0, key, "v")])[0];
    for (keys, end) in [
        (&["kept-0"][..], KafkaProducer::commit as fn(&KafkaProducer)),
        (&["aborted-2", "aborted-3"], KafkaProducer::abort),
        (&["kept-5"], KafkaProducer::commit),
        (&["aborted-7"], KafkaProducer::abort),
    ] {
        producer.begin();
        for key in keys {
            send(key);
        }
        end(&producer);
    }
    // Markers stand at 1, 4, 6 and 8: the log ends in an aborted record and one.
    let kept = [Heard::record(0, 0, "kept-0", "v"), Heard::record(0, 5, "kept-5", "v")];
    assert_eq!([live.next(), live.next()], kept);
    live.progress_to(&[9]);

    let other = ServerProcess::start(&shared_feed(&topic));
    for filter in [KeyFilter::All, KeyFilter::Prefix(Bytes::from("kept-"))] {
        let wish = Wish { filter, ..Wish::new(StartAt::Earliest) };
        let mut late = Watcher::start(other.clients, &wish);
        assert_eq!([late.next(), late.next()], kept, "{wish:?}");
        assert_eq!(late.next(), Heard::Live, "{wish:?}");
        assert_eq!(late.positions(), [9], "{wish:?}");
    }
    let wish = Wish {
        filter: KeyFilter::keys([Bytes::from("aborted-3")]),
        ..Wish::new(StartAt::Earliest)
    };
    let mut none = Watcher::start(other.clients, &wish);
    assert_eq!(none.next(), Heard::Live, "nothing of what was aborted");

    let plain = cluster.producer();
    assert_eq!(plain.send(&topic, &[NewRecord::new(0, "kept-9", "v")]), [9]);
    assert_eq!(live.next(), Heard::record(0, 9, "kept-9", "v"));
}

#[test]
fn a_compacted_topic_is_read_without_a_gap() {
    let settings = [
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0.001"),
        ("segment.ms", "100"),
        ("delete.retention.ms", "0"),
        ("max.compaction.lag.ms", "200"),
    ];
    let (topic, server) = begin("compacted", 1, &settings);
    let producer = KafkaCluster::shared().producer();
    producer.send(&topic, &[NewRecord::new(0, "same", "old"); 20]);
    producer.send(&topic, &[NewRecord::new(0, "other", "kept")]);
    let deadline = Instant::now() + Duration::from_secs(60);
    // Each look is preceded by a record, which makes the segment before it old
    // enough to be cleaned.
    let end = loop {
        assert!(Instant::now() < deadline, "the topic is compacted");
        let last = producer.send(&topic, &[NewRecord::new(0, "same", "new")])[0];
        if offsets_in_kafka(&topic, last).range(..20).next().is_none() {
            break u64::try_from(last).expect("not negative");
        }
    };
    producer.send(&topic, &[NewRecord::new(0, "same", "end")]);
    let mut watcher = watch(&server, StartAt::Earliest);
    let topic_id = watcher.place().topic_id;
    let all = watcher.hear_until(|heard| heard.has_value("end"));
    assert_eq!(all[0], Heard::record(0, 20, "other", "kept"), "{all:?}");
    assert!(all.iter().all(|heard| matches!(heard, Heard::Record { .. })), "{all:?}");
    assert_eq!(watcher.next(), Heard::Live);
    assert_eq!(watcher.positions(), [end + 2]);
    // A client that stopped where there is a hole now.
    let positions = [(PartitionId::from_index(0), offset(5))].into();
    let mut watcher = watch(&server, StartAt::Place(Place::new(topic_id, positions)));
    let resumed = watcher.hear_until(|heard| heard.has_value("end"));
    assert_eq!(resumed, all);
}

#[test]
fn new_partitions_are_read_from_their_beginning_by_all() {
    let (topic, server) = begin("grown", 1, &[]);
    let cluster = KafkaCluster::shared();
    let producer = cluster.producer();
    producer.send(&topic, &[NewRecord::new(0, "k", "old")]);
    let place = place_after(&server, StartAt::Earliest, "old");
    let mut live = watch(&server, StartAt::Latest);
    assert_eq!(live.next(), Heard::Live);
    cluster.admin().create_partitions(&topic, 3);
    // A producer of its own: the other does not know the new partitions yet.
    let newer = cluster.producer();
    newer.send(&topic, &[NewRecord::new(2, "k", "first"), NewRecord::new(1, "k", "second")]);
    let expected = [Heard::record(1, 0, "k", "second"), Heard::record(2, 0, "k", "first")];
    let check = |watcher: &mut Watcher, who: &str| {
        let mut heard = [watcher.next(), watcher.next()];
        heard.sort_by_key(|heard| !heard.has_value("second"));
        assert_eq!(heard, expected, "{who}");
    };
    check(&mut live, "a live client");
    let other = ServerProcess::start(&shared_feed(&topic));
    for (replica, who) in [(&server, "back at the same replica"), (&other, "at another")] {
        let mut watcher = watch(replica, StartAt::Place(place.clone()));
        check(&mut watcher, who);
        assert_eq!(watcher.next(), Heard::Live, "{who}");
    }
    newer.send(&topic, &[NewRecord::new(2, "k", "third")]);
    assert_eq!(live.next(), Heard::record(2, 1, "k", "third"));
}

#[test]
fn a_topic_that_was_made_again_is_told_within_five_seconds() {
    let (topic, server) = begin("again", 2, &[]);
    let cluster = KafkaCluster::shared();
    let producer = cluster.producer();
    producer.send(&topic, &[NewRecord::new(0, "k", "gone"), NewRecord::new(1, "k", "old")]);
    let mut live = watch(&server, StartAt::Earliest);
    live.hear_until(|heard| *heard == Heard::Live);
    let place = live.place();
    assert_eq!(live.positions(), [1, 1]);
    cluster.admin().delete_topic(&topic);
    cluster.admin().create_topic(&topic, 2, &[]);
    let began = Instant::now();
    cluster.producer().send(&topic, &[NewRecord::new(1, "k", "new")]);
    let mut told = None;
    let heard = live.hear_until(|heard| {
        if told_recreated(heard) {
            told = told.or(Some(began.elapsed()));
        }
        heard.has_value("new")
    });
    check_recreated(heard, "a live client");
    let told = told.expect("a gap was heard");
    assert!(told < Duration::from_secs(5), "told after {told:?}");
    let other = ServerProcess::start(&shared_feed(&topic));
    for (replica, who) in [(&server, "back at the same replica"), (&other, "at another")] {
        let mut watcher = watch(replica, StartAt::Place(place.clone()));
        check_recreated(watcher.hear_until(|heard| heard.has_value("new")), who);
        assert_eq!(watcher.next(), Heard::Live, "{who}");
        assert_ne!(watcher.place().topic_id, place.topic_id, "{who}");
    }
}

fn told_recreated(heard: &Heard) -> bool {
    matches!(heard, Heard::Gap { reason: GapReason::TopicRecreated, .. })
}

/// Each partition is told of, and then comes what the new topic has.
fn check_recreated(mut heard: Vec<Heard>, who: &str) {
    assert_eq!(heard.pop(), Some(Heard::record(1, 0, "k", "new")), "{who}");
    heard.sort_by_key(|heard| matches!(heard, Heard::Gap { partition: 1, .. }));
    let gap = |partition| {
        let reason = GapReason::TopicRecreated;
        Heard::Gap { partition, from: 1, to: 0, reason }
    };
    assert_eq!(heard, [gap(0), gap(1)], "{who}");
}

/// Returns the offsets of a partition that Kafka has up to `last`.
fn offsets_in_kafka(topic: &str, last: i64) -> BTreeSet<i64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", KafkaCluster::shared().bootstrap_servers())
        .set("group.id", "none")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning).expect("a valid offset");
    consumer.assign(&list).expect("it is assigned");
    let mut offsets = BTreeSet::new();
    while offsets.last() != Some(&last) {
        let record = consumer.poll(Duration::from_secs(30)).expect("the last record comes");
        offsets.insert(record.expect("a record").offset());
    }
    offsets
}
