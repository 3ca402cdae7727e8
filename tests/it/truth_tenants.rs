//! Tenants whose names are nearly the same never meet.

use std::collections::BTreeMap;

use brucke::protocol::error_code::ErrorCode;
use brucke::protocol::frame::Encoding;
use brucke::protocol::frame::StartAt;

use crate::support::kafka_client::NewRecord;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::fresh_topic;
use crate::support::server_process::ServerProcess;
use crate::support::server_process::feed;
use crate::support::watcher::Heard;
use crate::support::watcher::Watcher;
use crate::support::watcher::Wish;

#[test]
fn tenants_told_by_a_header_never_meet() {
    let topic = fresh_topic("header");
    let cluster = KafkaCluster::shared();
    cluster.admin().create_topic(&topic, 1, &[]);
    let channel = feed(&topic, "{ header = \"tenant-id\" }");
    let server = ServerProcess::start_with(&channel, &[("SERVER_PROGRESS_INTERVAL", "200ms")]);
    let producer = cluster.producer();
    let mut live = start_all(&server, StartAt::Latest);
    for watcher in live.values_mut() {
        assert_eq!(watcher.next(), Heard::Live);
    }
    for round in ["first", "second"] {
        for tenant in NEARLY_EQUAL {
            let headers = [("tenant-id", Some(tenant.as_bytes()))];
            let canary = format!("{round}-of-{tenant}");
            let record = NewRecord { headers: &headers, ..NewRecord::new(0, "k", &canary) };
            producer.send(&topic, &[record]);
        }
    }
    for from in ["live", "history"] {
        let mut watchers = match from {
            "live" => std::mem::take(&mut live),
            _ => start_all(&server, StartAt::Earliest),
        };
        for (tenant, watcher) in &mut watchers {
            for round in ["first", "second"] {
                let canary = format!("{round}-of-{tenant}");
                let heard = watcher.next();
                assert!(heard.has_value(&canary), "{tenant:?} heard {heard:?} from {from}");
            }
            if from == "history" {
                assert_eq!(watcher.next(), Heard::Live, "{tenant:?}");
            }
            // Nothing else lies between the last record and the end.
            watcher.progress_to(&[2 * NEARLY_EQUAL.len() as u64]);
        }
    }
}

#[test]
fn tenants_told_by_the_key_never_meet() {
    let topic = fresh_topic("prefix");
    let cluster = KafkaCluster::shared();
    cluster.admin().create_topic(&topic, 1, &[]);
    let server = ServerProcess::start(&feed(&topic, "{ key_prefix = \":\" }"));
    let producer = cluster.producer();
    let mut expected: BTreeMap<&str, Vec<Heard>> = BTreeMap::new();
    for (offset, tenant) in (0..).zip(NEARLY_EQUAL) {
        let canary = format!("canary-of-{tenant}");
        producer.send(&topic, &[NewRecord::new(0, &format!("{tenant}:k"), &canary)]);
        // The tenant ends at the first separator, whoever wrote the key.
        let (owner, rest) = match tenant.split_once(':') {
            Some((owner, rest)) => (owner, format!("{rest}:k")),
            None => (tenant, "k".to_owned()),
        };
        expected.entry(owner).or_default().push(Heard::record(0, offset, &rest, &canary));
    }
    for tenant in NEARLY_EQUAL {
        let wish = Wish { tenant: tenant.to_owned(), ..Wish::new(StartAt::Earliest) };
        match Watcher::try_start(server.clients, &wish) {
            Ok(mut watcher) => {
                let mut heard = watcher.hear_until(|heard| *heard == Heard::Live);
                heard.pop();
                assert_eq!(heard, expected.remove(tenant).unwrap_or_default(), "{tenant:?}");
            }
            Err(refusal) => {
                assert!(tenant.contains(':'), "{tenant:?}: {refusal:?}");
                assert_eq!(refusal.code, ErrorCode::ChannelForbidden);
            }
        }
    }
    assert_eq!(expected, BTreeMap::new(), "what nobody heard");
}

/// Subscribes every tenant, in both encodings by turns.
fn start_all(server: &ServerProcess, from: StartAt) -> BTreeMap<&'static str, Watcher> {
    let encodings = [Encoding::Json, Encoding::Protobuf].into_iter().cycle();
    let wishes = NEARLY_EQUAL.into_iter().zip(encodings).map(|(tenant, encoding)| {
        let wish = Wish { tenant: tenant.to_owned(), encoding, ..Wish::new(from.clone()) };
        (tenant, Watcher::start(server.clients, &wish))
    });
    wishes.collect()
}

/// Names that differ by separator, case, space or Unicode form alone.
const NEARLY_EQUAL: [&str; 14] = [
    "acme",
    "Acme",
    "ACME",
    "acme.",
    "acme-",
    "acme_",
    "acme/",
    "acme:",
    "acme:eu",
    "acme.eu",
    "acme eu",
    "caf\u{e9}",
    "cafe\u{301}",
    "\u{1d43}cme",
];
