//! More clients come at once than may be there: those inside get everything, those
//! outside are told when to come back, and then get everything too.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use crate::support::kafka_client::NewRecord;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::fresh_topic;
use crate::support::raw_client::RawClient;
use crate::support::server_process::ServerProcess;
use crate::support::server_process::shared_feed;
use crate::support::server_process::token;

#[test]
fn who_finds_no_place_is_told_when_to_come_back_and_then_gets_everything() {
    let storm = Storm::start("full", &[WORKERS, ("SERVER_CONNECTIONS_MAX", "100")]);
    let came = storm.break_loose(&[("acme", 220), ("blub", 80)]);
    assert_eq!(came.inside.values().sum::<usize>(), 100, "{:?}", came.inside);
    assert_eq!(came.codes(), BTreeSet::from(["overloaded"]));
    check_spread(&came.waits(), 200);
}

#[test]
fn a_tenant_in_a_storm_takes_its_own_places_and_no_others() {
    let storm = Storm::start("tenant", &[WORKERS, ("TENANTS_CONNECTIONS_MAX", "60")]);
    let came = storm.break_loose(&[("acme", 240), ("blub", 40)]);
    assert_eq!(came.inside, BTreeMap::from([("acme", 60), ("blub", 40)]));
    assert_eq!(came.codes(), BTreeSet::from(["tenant_connections_full"]));
    let of_acme = |(tenant, ..): &(&str, String, u64)| *tenant == "acme";
    assert!(came.refused.iter().all(of_acme), "{:?}", came.refused);
    check_spread(&came.waits(), 180);
}

#[test]
fn who_comes_too_fast_is_let_in_at_the_rate_and_told_when_to_come_back() {
    const RATE: u32 = 40;
    const CLIENTS: u32 = 5 * RATE;
    let storm = Storm::start("pace", &[WORKERS, ("SERVER_CONNECTIONS_PER_SECOND", "40")]);
    let line = format!("Authorization: Bearer {}", token("acme"));
    let come = || {
        let mut refusals = 0;
        loop {
            match RawClient::connect(storm.server.clients, &[&line]) {
                Ok(mut client) => {
                    read_all(&mut client);
                    return refusals;
                }
                Err(refused) => {
                    assert_eq!((refused.status, &*refused.code), (429, "connecting_too_fast"));
                    assert!(refused.has_header("retry-after: "), "{}", refused.head);
                    thread::sleep(Duration::from_millis(wait_of(&refused.body)));
                    refusals += 1;
                }
            }
        }
    };
    let began = Instant::now();
    let refusals: u32 = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(come)).collect();
        clients.into_iter().map(|client| client.join().expect("each gets everything")).sum()
    });
    // However they come: the first at once, each after it a turn later.
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(1) * (CLIENTS - 1) / RATE, "{took:?}");
    let metric = |name: &str| storm.server.metric(name);
    let counted = metric("brucke_handshake_refusals_total{reason=\"connecting_too_fast\"}");
    assert!(refusals > 0, "nobody was refused");
    assert_eq!(counted, f64::from(refusals));
    assert!(metric("brucke_handshakes_delayed_total") >= f64::from(2 * RATE - 1));
}

/// A replica whose topic has what everybody wants.
struct Storm {
    server: ServerProcess,
}

/// What came of the first attempt of each client.
#[derive(Debug, Default)]
struct Came {
    inside: BTreeMap<&'static str, usize>,
    /// Whom, by which code, and for how many milliseconds.
    refused: Vec<(&'static str, String, u64)>,
}

impl Came {
    fn codes(&self) -> BTreeSet<&str> {
        self.refused.iter().map(|(_, code, _)| code.as_str()).collect()
    }

    fn waits(&self) -> Vec<u64> {
        self.refused.iter().map(|(.., wait)| *wait).collect()
    }
}

impl Storm {
    fn start(name: &str, settings: &[(&str, &str)]) -> Self {
        let topic = fresh_topic(&format!("storm-{name}"));
        KafkaCluster::shared().admin().create_topic(&topic, 1, &[]);
        let value = json!("x".repeat(200)).to_string();
        let records: Vec<_> = (0..RECORDS).map(|_| NewRecord::new(0, "k", &value)).collect();
        KafkaCluster::shared().producer().send(&topic, &records);
        Self { server: ServerProcess::start_with(&shared_feed(&topic), settings) }
    }

    /// Lets so many clients of each tenant come at once, and come back until each has
    /// had everything. Whoever is inside stays until all have tried.
    fn break_loose(&self, clients: &[(&'static str, usize)]) -> Came {
        let all: Vec<&'static str> =
            clients.iter().flat_map(|(tenant, count)| vec![*tenant; *count]).collect();
        let (came, tried) = (Mutex::new(Came::default()), Tried::new(all.len()));
        let before = self.server.metric(RESIDENT);
        let over = AtomicBool::new(false);
        let most = thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut most = before;
                while !over.load(Relaxed) {
                    most = self.server.metric(RESIDENT).max(most);
                    thread::sleep(Duration::from_millis(50));
                }
                most
            });
            let (came, tried) = (&came, &tried);
            let visit = |tenant| scope.spawn(move || self.visit(tenant, came, tried));
            let clients: Vec<_> = all.into_iter().map(visit).collect();
            let ended: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
            over.store(true, Relaxed);
            ended.into_iter().for_each(|client| client.expect("each client gets everything"));
            watch.join().expect("the metrics are there")
        });
        assert!(most - before < GROWTH_BYTES_MAX, "from {before} to {most} bytes");
        came.into_inner().expect("nobody panicked with it")
    }

    fn visit(&self, tenant: &'static str, came: &Mutex<Came>, tried: &Tried) {
        let token = format!("Authorization: Bearer {}", token(tenant));
        let attempt = || RawClient::connect(self.server.clients, &[&token]);
        match attempt() {
            Ok(mut client) => {
                *came.lock().expect("nobody panics with it").inside.entry(tenant).or_default() += 1;
                read_all(&mut client);
                tried.wait_for_all();
                return;
            }
            Err(refused) => {
                let wait = wait_of(&refused.body);
                let told = (tenant, refused.code, wait);
                came.lock().expect("nobody panics with it").refused.push(told);
                tried.wait_for_all();
                come_back_after(wait);
            }
        }
        loop {
            match attempt() {
                Ok(mut client) => return read_all(&mut client),
                Err(refused) => come_back_after(wait_of(&refused.body)),
            }
        }
    }
}

/// How many clients have had an answer to their first attempt.
struct Tried {
    all: usize,
    so_far: AtomicUsize,
}

impl Tried {
    fn new(all: usize) -> Self {
        Self { all, so_far: AtomicUsize::new(0) }
    }

    fn wait_for_all(&self) {
        self.so_far.fetch_add(1, Relaxed);
        let deadline = Instant::now() + PATIENCE;
        while self.so_far.load(Relaxed) < self.all {
            assert!(Instant::now() < deadline, "some clients have no answer");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Waits for a tenth of what was told, for a test's sake.
fn come_back_after(millis: u64) {
    thread::sleep(Duration::from_millis(millis) / 10);
}

fn wait_of(body: &str) -> u64 {
    let body: Value = serde_json::from_str(body).expect("JSON");
    body["retry_after_ms"].as_u64().unwrap_or_else(|| panic!("no time to come back: {body}"))
}

/// Follows the feed from its beginning until there is no more: every range joins, and
/// each offset comes once, in order.
fn read_all(client: &mut RawClient) {
    client.send(&json!({ "type": "subscribe", "id": 1, "channel": "feed", "from": "earliest" }));
    let start = client.expect("subscribed");
    assert_eq!(start["positions"], json!({ "0": 0 }));
    let (mut position, mut got) = (0, Vec::new());
    while got.len() < RECORDS {
        let frame = client.expect("records");
        let number = |value: &Value| value.as_u64().expect("a number");
        assert!(number(&frame["from"]) <= position, "a hole before {frame}");
        let offsets = frame["records"].as_array().expect("records");
        let offsets = offsets.iter().map(|record| number(&record["offset"]));
        got.extend(offsets.filter(|offset| *offset >= position));
        position = number(&frame["to"]).max(position);
    }
    assert!(got.iter().copied().eq(0..RECORDS as u64), "{got:?}");
}

/// Expects waits that are different and lie all over the range.
fn check_spread(waits: &[u64], count: usize) {
    assert_eq!(waits.len(), count);
    assert!(waits.iter().all(|wait| WAITS.contains(wait)), "{waits:?}");
    let different: BTreeSet<&u64> = waits.iter().collect();
    assert!(different.len() * 10 > waits.len() * 9, "{} of {count}", different.len());
    let part = (WAITS.end - WAITS.start) / 8;
    for begin in (WAITS.start..WAITS.end).step_by(part as usize) {
        let here = waits.iter().filter(|wait| (begin..begin + part).contains(*wait)).count();
        assert!(here * 8 * 4 > count, "{here} of {count} from {begin} on");
    }
}

const WORKERS: (&str, &str) = ("SERVER_WORKERS", "2");
const RECORDS: usize = 500;
const WAITS: Range<u64> = 2_000..10_000;
const PATIENCE: Duration = Duration::from_secs(30);
const RESIDENT: &str = "process_resident_memory_bytes";
/// Far more than a hundred clients with their unsent bytes need, and far less than
/// three hundred with a queue of copies each.
const GROWTH_BYTES_MAX: f64 = 48.0 * 1_048_576.0;
