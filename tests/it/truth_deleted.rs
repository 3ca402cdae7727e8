//! A topic that is deleted while a replica serves it is its channel's trouble, and
//! nobody else's.

use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::json;

use crate::support::kafka_client::NewRecord;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::fresh_topic;
use crate::support::raw_client::RawClient;
use crate::support::server_process::ServerProcess;
use crate::support::server_process::token;

#[test]
fn a_deleted_topic_takes_no_replica_away_from_the_other_channels() {
    let cluster = KafkaCluster::shared();
    let (kept, deleted) = (fresh_topic("kept"), fresh_topic("deleted"));
    for topic in [&kept, &deleted] {
        cluster.admin().create_topic(topic, 1, &[]);
    }
    let channel = |name: &str, topic: &str| {
        format!("[[channels]]\nname = \"{name}\"\ntopic = \"{topic}\"\ntenant = \"shared\"\n")
    };
    let settings = [("KAFKA_REFRESH_INTERVAL", "1s")];
    let channels = channel("feed", &kept) + &channel("other", &deleted);
    let server = ServerProcess::start_with(&channels, &settings);
    until(&server, "ready", |page| page.starts_with("HTTP/1.1 200") && !has_warning(page));
    let mut client = RawClient::connect(server.clients, &[]).expect("a WebSocket");
    client.send(&json!({ "type": "authenticate", "token": token("acme") }));
    client.send(&json!({ "type": "subscribe", "id": 1, "channel": "feed" }));
    client.expect("live");

    cluster.admin().delete_topic(&deleted);
    let page = until(&server, "told", has_warning);
    assert!(page.starts_with("HTTP/1.1 200") && page.contains(&deleted), "{page}");
    assert_eq!(server.metric("brucke_topics_failing"), 1.0);
    assert_eq!(server.metric("brucke_ready"), 1.0);
    cluster.producer().send(&kept, &[NewRecord::new(0, "k", "\"still here\"")]);
    assert_eq!(client.values(1), ["still here"]);

    cluster.admin().delete_topic(&kept);
    let page = until(&server, "not ready", |page| page.starts_with("HTTP/1.1 503"));
    assert!(page.contains("topic_missing") && page.contains(&kept), "{page}");
}

fn has_warning(page: &str) -> bool {
    page.contains("\"warnings\":[{\"kind\":\"topic_missing\"")
}

/// Asks for `/readyz` until it is so; returns the answer.
fn until(server: &ServerProcess, what: &str, is_so: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let page = server.admin_page("/readyz");
        if is_so(&page) {
            return page;
        }
        assert!(Instant::now() < deadline, "never {what}: {page}");
        thread::sleep(Duration::from_millis(50));
    }
}
