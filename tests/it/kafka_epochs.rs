//! Leader epochs on Apache Kafka: what is known of the log that was read, and where
//! the logs of earlier leaders end.

use std::time::Duration;
use std::time::Instant;

use brucke::kafka::config::KafkaConfig;
use brucke::log::partition::Read;
use brucke::registry::message::EpochEnd;
use brucke::registry::message::Lookup;
use brucke::tenancy::rule::TenancyRule;
use brucke::types::ids::LeaderEpoch;
use brucke::types::ids::Offset;
use brucke::types::ids::PartitionId;
use brucke::types::positions::Reached;

use crate::support::kafka_client::NewRecord;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::fresh_topic;
use crate::support::kafka_rig::KafkaRig;
use crate::support::kafka_rig::Seen;
use crate::support::kafka_rig::offset;

#[test]
fn the_ends_of_earlier_leaders_logs_are_found() {
    let mut cluster = KafkaCluster::start(1);
    let topic = fresh_topic("epochs");
    cluster.admin().create_topic(&topic, 2, &[]);
    let produce = |cluster: &KafkaCluster, keys: &[&str]| {
        let records: Vec<_> = keys.iter().map(|key| NewRecord::new(0, key, "v")).collect();
        cluster.producer().send(&topic, &records);
    };
    let mut rig = KafkaRig::start(&KafkaConfig::new(vec![cluster.bootstrap_servers()]));
    let source = rig.source(&topic, TenancyRule::Shared);
    let partitions = rig.follow(source);
    produce(&cluster, &["a", "b", "c"]);
    let read = |at| Seen::shared(at, ["a", "b", "c", "d", "e"][at as usize], "v");
    assert_eq!(rig.read(source, &partitions[0], 0, 3), [read(0), read(1), read(2)]);
    let first = reached(&partitions[0]);
    assert_eq!(first.to, offset(3), "all that was read is known to be of one leader's log");

    // A broker that starts again leads under another epoch.
    cluster.kill(0);
    cluster.restart(0);
    produce(&cluster, &["d", "e"]);
    assert_eq!(rig.read(source, &partitions[0], 3, 5), [read(3), read(4)]);
    let second = reached(&partitions[0]);
    assert!(second.epoch > first.epoch, "{second:?} after {first:?}");
    assert_eq!(second.to, offset(5));

    let none = LeaderEpoch::from_kafka(1_000).expect("not negative");
    let partition = PartitionId::from_index(0);
    let empty = PartitionId::from_index(1);
    let asked = vec![
        (partition, first.epoch),
        (partition, second.epoch),
        (partition, none),
        (empty, first.epoch),
    ];
    let began = Instant::now();
    let bounds = rig.resolve_with(source, Lookup::Bounds, asked);
    let took = began.elapsed();
    assert_eq!(bounds[0].epoch, Some(second.epoch));
    let mut ends: Vec<(LeaderEpoch, EpochEnd)> = bounds[0].epoch_ends.clone();
    ends.sort_by_key(|(epoch, _)| *epoch);
    let at = |raw| EpochEnd::At(offset(raw));
    let expected = [(first.epoch, at(3)), (second.epoch, at(5)), (none, EpochEnd::Unknown)];
    assert_eq!(ends, expected);
    assert_eq!(bounds[1].epoch_ends, [(first.epoch, at(0))]);
    println!("four questions in three rounds took {took:?}");

    // What a fresh replica reads back is known to be of the log as it is.
    let mut other = KafkaRig::start(&KafkaConfig::new(vec![cluster.bootstrap_servers()]));
    let source = other.source(&topic, TenancyRule::Shared);
    let partitions = other.follow(source);
    assert_eq!(reached(&partitions[0]), second, "before anything is read");
    let all: Vec<_> = (0..5).map(read).collect();
    assert_eq!(other.read(source, &partitions[0], 0, 5), all);
    let end = partitions[0].end();
    let start = brucke::log::partition::Cursor { offset: offset(0), ..end };
    let Read::Batches(batches) = partitions[0].read(start, Offset::MAX, 1 << 20) else {
        panic!("it was read just now");
    };
    let known = batches.last().and_then(|batch| batch.reached());
    assert_eq!(known, Some(second));
}

/// Waits until it is known in which leader's log the partition was read to its end.
fn reached(partition: &brucke::log::partition::SharedPartition) -> Reached {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let end = partition.end();
        match partition.reached(end) {
            Some(reached) if reached.to == end.offset => return reached,
            found => assert!(Instant::now() < deadline, "{found:?} at {end:?}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
