//! Where a subscription starts is where it was asked to.

use std::time::Duration;
use std::time::SystemTime;

use brucke::protocol::frame::StartAt;
use brucke::types::ids::Timestamp;

use crate::support::kafka_client::NewRecord;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::fresh_topic;
use crate::support::server_process::ServerProcess;
use crate::support::server_process::shared_feed;
use crate::support::watcher::Heard;
use crate::support::watcher::Watcher;
use crate::support::watcher::Wish;

#[test]
fn a_subscription_starts_where_it_was_asked_to() {
    let topic = fresh_topic("starts");
    let cluster = KafkaCluster::shared();
    cluster.admin().create_topic(&topic, 2, &[]);
    let producer = cluster.producer();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let now = i64::try_from(now.as_millis()).expect("milliseconds fit");
    // Two records each second, one in each partition, that end an hour ago.
    let stamp = |offset: i64| now - HOUR - 1_000 * (OLD - offset);
    let old: Vec<_> = (0..OLD)
        .flat_map(|offset| {
            [0, 1].map(|partition| NewRecord {
                timestamp: Some(stamp(offset)),
                ..NewRecord::new(partition, "k", "old")
            })
        })
        .collect();
    producer.send(&topic, &old);
    let server = ServerProcess::start(&shared_feed(&topic));
    let watch = |from| Watcher::start(server.clients, &Wish::new(from));
    let end = OLD.cast_unsigned();

    let mut latest = watch(StartAt::Latest);
    assert_eq!(latest.starts(), [end, end]);
    let mut again = watch(StartAt::Latest);
    assert_eq!(again.starts(), [end, end], "also where the topic is followed already");

    let at = |offset: i64, more| StartAt::Timestamp(Timestamp::from_millis(stamp(offset) + more));
    for (from, start) in [
        (at(0, 0), 0),
        (at(1_234, 0), 1_234),
        (at(1_234, -1), 1_234),
        (at(1_234, 1), 1_235),
        (at(OLD - 1, 0), end - 1),
        (at(OLD - 1, 1), end),
        (StartAt::Ago(Duration::from_secs(1)), end),
        (StartAt::Ago(Duration::from_secs(36_000)), 0),
        (StartAt::Earliest, 0),
    ] {
        let mut watcher = watch(from.clone());
        assert_eq!(watcher.starts(), [start, start], "{from:?}");
        match watcher.next() {
            Heard::Live => assert_eq!(start, end, "{from:?}"),
            Heard::Record { offset, .. } => assert_eq!(offset, start, "{from:?}"),
            other => panic!("{other:?} for {from:?}"),
        }
    }
    // The server's clock has moved on since the test looked at its own.
    let span = HOUR + 1_000 * (OLD - 2_500);
    let watcher = watch(StartAt::Ago(Duration::from_millis(span.cast_unsigned())));
    let later = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let later = i64::try_from(later.as_millis()).expect("milliseconds fit") - now;
    let most = 2_500 + u64::try_from(later / 1_000).expect("clocks go on") + 1;
    for start in watcher.starts() {
        assert!((2_500..=most).contains(&start), "{start} and not 2500 to {most}");
    }

    producer.send(&topic, &[NewRecord::new(1, "k", "new")]);
    for watcher in [&mut latest, &mut again] {
        assert_eq!(watcher.next(), Heard::Live);
        assert_eq!(watcher.next(), Heard::record(1, end, "k", "new"), "none of the old ones");
    }
}

/// Old records of each partition.
const OLD: i64 = 5_000;
const HOUR: i64 = 3_600_000;
