//! Clients of a quiet key behind proxies that cut what is idle: the heartbeat keeps
//! them, and nothing else does.

use std::sync::PoisonError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::json;

use crate::proxy::Kind;
use crate::proxy::Proxy;
use crate::support::brucke::Brucke;
use crate::support::brucke::mint;
use crate::support::kafka_client::NewRecord;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::fresh_topic;
use crate::support::raw_client::Incoming;
use crate::support::raw_client::PONG;
use crate::support::raw_client::RawClient;

#[test]
fn a_quiet_client_outlives_the_idle_limit_of_haproxy() {
    check(Kind::HaProxy);
}

#[test]
fn a_quiet_client_outlives_the_idle_limit_of_nginx() {
    check(Kind::Nginx);
}

/// Lets two clients follow a key without records: one at a replica whose heartbeat is
/// under the limit of the proxy before it, one where it is above.
fn check(kind: Kind) {
    let _alone = crate::ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let topic = fresh_topic("quiet");
    let cluster = KafkaCluster::shared();
    cluster.admin().create_topic(&topic, 1, &[]);
    let rig = |heartbeat: &str| Rig::start(kind, &topic, heartbeat);
    let (under, above) = (rig("1s"), rig("10m"));
    thread::scope(|scope| {
        let cut = scope.spawn(|| above.until_cut());
        let mut client = under.follow();
        let pings = stay(&mut client, Instant::now() + LIMIT * TIMES);
        assert!(pings >= TIMES as usize, "{kind:?}: {pings} pings");
        // It is not only open: it is the one that gets what comes.
        cluster.producer().send(&topic, &[NewRecord::new(0, KEY, "\"at last\"")]);
        assert_eq!(client.values(1), ["at last"], "{kind:?}");
        let cut = cut.join().expect("it is cut");
        assert!((LIMIT / 2..LIMIT * TIMES).contains(&cut), "{kind:?}: cut after {cut:?}");
    });
}

/// A replica behind a proxy of its own.
struct Rig {
    proxy: Proxy,
    _replica: Brucke,
}

impl Rig {
    /// Starts both; nothing but the heartbeat tells an idle client anything.
    fn start(kind: Kind, topic: &str, heartbeat: &str) -> Self {
        let server = format!("heartbeat_interval = \"{heartbeat}\"\nprogress_interval = \"10m\"");
        let channel =
            format!("[[channels]]\nname = \"feed\"\ntopic = \"{topic}\"\ntenant = \"shared\"\n");
        let servers = KafkaCluster::shared().bootstrap_servers();
        let replicas = [Brucke::start(&servers, &server, &channel)];
        let proxy = Proxy::start_impatient(kind, &replicas, LIMIT);
        if kind == Kind::HaProxy {
            proxy.turn_to(&replicas, 1);
        }
        let [replica] = replicas;
        Self { proxy, _replica: replica }
    }

    /// Follows one key by way of the proxy.
    fn follow(&self) -> RawClient {
        let mut client = RawClient::connect(self.proxy.address(), &[]).expect("a WebSocket");
        client.send(&json!({ "type": "authenticate", "token": mint("acme") }));
        client.send(&json!({ "type": "subscribe", "id": 1, "channel": "feed", "keys": [KEY] }));
        client.expect("live");
        client
    }

    /// Follows, and returns after how long the connection was cut.
    fn until_cut(&self) -> Duration {
        let mut client = self.follow();
        let began = Instant::now();
        match client.next() {
            Incoming::End { .. } => began.elapsed(),
            other => panic!("nothing was to come but the end: {other:?}"),
        }
    }
}

/// Answers pings until then; returns how many there were.
fn stay(client: &mut RawClient, until: Instant) -> usize {
    let mut pings = 0;
    while Instant::now() < until {
        match client.next() {
            Incoming::Ping(payload) => client.send_message(PONG, &payload),
            other => panic!("after {pings} pings: {other:?}"),
        }
        pings += 1;
    }
    pings
}

const KEY: &str = "k";
/// How long the proxies wait. A heartbeat of a second comes within two.
const LIMIT: Duration = Duration::from_secs(4);
/// How many times that long the client stays.
const TIMES: u32 = 3;
