//! Clients that go from replica to replica while records flow: whatever they
//! follow and however it is encoded, they hear each record once, in order.

use std::net::SocketAddr;
use std::thread;

use brucke::protocol::frame::Encoding;
use brucke::protocol::frame::StartAt;
use brucke::types::filter::KeyFilter;
use bytes::Bytes;

use crate::support::kafka_client::NewRecord;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::fresh_topic;
use crate::support::server_process::ServerProcess;
use crate::support::server_process::shared_feed;
use crate::support::watcher::Heard;
use crate::support::watcher::Watcher;
use crate::support::watcher::Wish;

#[test]
fn nothing_is_lost_or_repeated_from_replica_to_replica() {
    let topic = fresh_topic("moving");
    let cluster = KafkaCluster::shared();
    cluster.admin().create_topic(&topic, PARTITIONS, &[]);
    let replicas = [(); 2].map(|()| ServerProcess::start(&shared_feed(&topic)));
    let addresses = replicas.each_ref().map(|replica| replica.clients);
    let key = |text: &'static str| Bytes::from(text);
    let filters = [
        KeyFilter::All,
        KeyFilter::keys([key("eu-3")]),
        KeyFilter::keys(["eu-1", "us-2", "none"].map(key)),
        KeyFilter::Prefix(key("eu-")),
    ];
    thread::scope(|scope| {
        for filter in &filters {
            for encoding in [Encoding::Json, Encoding::Protobuf] {
                let wish =
                    Wish { filter: filter.clone(), encoding, ..Wish::new(StartAt::Earliest) };
                scope.spawn(move || check_moves(&addresses, wish));
            }
        }
        let producer = cluster.producer();
        for batch in 0..BATCHES {
            let planned: Vec<_> =
                (0..BATCH_RECORDS).map(|index| plan(batch * BATCH_RECORDS + index)).collect();
            let records: Vec<_> = planned
                .iter()
                .map(|(partition, _, key, value)| NewRecord::new(*partition, key, value))
                .collect();
            let offsets = producer.send(&topic, &records);
            let expected = planned.iter().map(|(_, offset, ..)| *offset);
            assert!(offsets.into_iter().eq(expected), "the plan foretells the offsets");
        }
    });
}

/// Follows to the end of the plan, and changes the replica each time that
/// another part of the records was heard.
fn check_moves(replicas: &[SocketAddr; 2], mut wish: Wish) {
    let expected: [Vec<Heard>; 3] = std::array::from_fn(|partition| {
        let plans = (0..BATCHES * BATCH_RECORDS).map(plan);
        let mine = plans.filter(|(own, _, key, _)| {
            *own == i32::try_from(partition).expect("small")
                && wish.filter.matches(Some(key.as_bytes()))
        });
        let record = |(partition, offset, key, value): (i32, i64, String, String)| {
            Heard::record(partition.cast_unsigned(), offset.cast_unsigned(), &key, &value)
        };
        mine.map(record).collect()
    });
    let all: usize = expected.iter().map(Vec::len).sum();
    let mut heard: [Vec<Heard>; 3] = Default::default();
    let mut count = 0;
    for connection in 1..=CONNECTIONS {
        let mut watcher = Watcher::start(replicas[connection % 2], &wish);
        let enough = all * connection / CONNECTIONS;
        // The place is one between two frames, where all has been dealt with.
        while count < enough || !watcher.is_between_frames() {
            match watcher.next() {
                Heard::Live => {}
                Heard::Record { partition, offset, key, value } => {
                    count += 1;
                    let record = Heard::Record { partition, offset, key, value };
                    heard[partition as usize].push(record);
                }
                other => panic!("{other:?} for {wish:?}"),
            }
        }
        wish.from = StartAt::Place(watcher.place());
    }
    for (heard, expected) in heard.iter().zip(&expected) {
        let wrong = heard.iter().zip(expected).find(|(heard, expected)| heard != expected);
        assert_eq!(wrong, None, "{wish:?}");
        assert_eq!(heard.len(), expected.len(), "{wish:?}");
    }
}

/// Returns partition, offset, key and value of one of all records.
fn plan(index: i64) -> (i32, i64, String, String) {
    let partition = i32::try_from(index % i64::from(PARTITIONS)).expect("small");
    let region = if index % 2 == 0 { "eu" } else { "us" };
    let key = format!("{region}-{}", index % 7);
    (partition, index / i64::from(PARTITIONS), key, format!("value-{index}"))
}

const PARTITIONS: i32 = 3;
const BATCHES: i64 = 30;
const BATCH_RECORDS: i64 = 300;
const CONNECTIONS: usize = 12;
