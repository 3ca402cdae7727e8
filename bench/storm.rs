//! A storm: thousands of clients return at once, each at a place of its own, and
//! read history until they are live, while others are live all along. Those who
//! are live follow a key of their own: what a record costs them is not what it
//! costs to give it to thousands.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::Offset;
use rdkafka::Statistics;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use rdkafka::consumer::ConsumerContext;
use serde_json::Value;

use crate::fleet::Fleet;
use crate::fleet::stamped_value;
use crate::fleet::subscribe_request;
use crate::kafka::Cluster;
use crate::kafka::STORM_PARTITIONS;
use crate::machine;
use crate::plan::Plan;
use crate::report::figure;
use crate::report::millis;
use crate::report::quantile;
use crate::report::row;
use crate::report::say;
use crate::report::table;
use crate::server::Server;
use crate::support::raw_client::RawClient;

/// Measures, and prints the table.
///
/// # Errors
///
/// When a client misses a record, or a range does not join.
pub fn measure(plan: &Plan, cluster: &Cluster) -> Result<()> {
    say("storm: filling the topic");
    fill(plan, cluster, TOPIC)?;
    let clients = machine::connections(plan.storm_clients)?;
    let server = Server::start(plan, cluster, "connections_max = 20000")?;
    let ends = Ends::ask(server.address, TOPIC, None)?;
    let places = Places::draw(plan, &ends, clients);
    let stop = AtomicBool::new(false);
    let phase = AtomicU8::new(CALM);
    let (ages, storm, share) = thread::scope(|scope| {
        let live = scope.spawn(|| watch_live(plan, cluster, server.address, &phase, &stop));
        let came = break_loose(plan, cluster, &server, &ends, &places, &phase);
        // Whatever came of it: the watcher ends by this only.
        stop.store(true, Relaxed);
        let ages = live.join().expect("the watcher does not panic")?;
        came.map(|(storm, share)| (ages, storm, share))
    })?;
    let p99 = report(clients, &storm, share, ages);
    if clients >= FULL_STORM {
        ensure!(storm.read <= storm.wanted, "a range was read from Kafka twice");
        ensure!(share <= BYTES_MAX, "{share} times the bytes of what they lack");
        let [before, during, _] = p99;
        ensure!(during <= before * 2, "who is live waited {during:?}, and {before:?} before");
        let grown = storm.resident_most - storm.resident_before;
        let most = clients as u64 * MEMORY_EACH_MAX;
        ensure!(grown <= most, "{grown} bytes more for {clients} clients, not {most}");
    }
    Ok(())
}

/// Lets the clients return; returns what came of it, and the bytes that were read for
/// them, of those of the ranges that they lack.
fn break_loose(
    plan: &Plan,
    cluster: &Cluster,
    server: &Server,
    ends: &Ends,
    places: &Places,
    phase: &AtomicU8,
) -> Result<(Storm, f64)> {
    thread::sleep(plan.storm_calm.max(STATISTICS_AGE));
    // While nobody writes: a fetch brings all that there is.
    phase.store(HALT, Relaxed);
    thread::sleep(HALTED);
    say("storm: a bare consumer reads what they lack");
    let ranges = read_bare(cluster, &places.lowest)?;
    let before = server.metric(RECEIVED_BYTES)?;
    phase.store(STORM, Relaxed);
    say(&format!("storm: {} clients return", places.all.len()));
    // The clients stay for as long as is measured.
    let (storm, _fleet) = thread::scope(|scope| {
        scope.spawn(|| rush(server, ends, places)).join().expect("clients do not panic")
    })?;
    phase.store(AFTER, Relaxed);
    thread::sleep(STATISTICS_AGE);
    let received = server.metric(RECEIVED_BYTES)? - before;
    say(&format!("storm: {received} bytes of {ranges}"));
    Ok((storm, received as f64 / ranges as f64))
}

/// Where each client comes back to.
struct Places {
    all: Vec<BTreeMap<u32, u64>>,
    /// The lowest place that anybody asks for.
    lowest: BTreeMap<u32, u64>,
}

impl Places {
    fn draw(plan: &Plan, ends: &Ends, clients: usize) -> Self {
        let mut rng = fastrand::Rng::with_seed(7);
        let all: Vec<_> = (0..clients).map(|_| ends.place(&mut rng, plan.storm_behind)).collect();
        let lowest = |partition: &u32| all.iter().map(|place| place[partition]).min().unwrap_or(0);
        let lowest = ends.offsets.keys().map(|id| (*id, lowest(id))).collect();
        Self { all, lowest }
    }
}

/// What the storm came to.
#[derive(Debug)]
struct Storm {
    /// From the first connection to the last `live`.
    took: Duration,
    cpu: Duration,
    /// Records of the ranges that anybody asked for, each counted once.
    wanted: u64,
    /// Records of history that were read from Kafka.
    read: u64,
    deliveries: u64,
    resident_before: u64,
    resident_most: u64,
}

/// Prints the tables; returns the 99th percentile of ages before, in and after the storm.
fn report(clients: usize, storm: &Storm, received: f64, ages: Vec<Vec<Duration>>) -> [Duration; 3] {
    let title = format!("{clients} clients return at once, each some 1000 records behind");
    table(
        &title,
        &[
            "all are live after, s",
            "CPU, s",
            "records delivered",
            "read from Kafka, of those wanted",
            "bytes from Kafka, of those of the ranges",
            "resident, MB",
        ],
    );
    let share = storm.read as f64 / storm.wanted.max(1) as f64;
    row(&[
        figure(storm.took.as_secs_f64()),
        figure(storm.cpu.as_secs_f64()),
        storm.deliveries.to_string(),
        format!("{} of {} ({})", storm.read, storm.wanted, figure(share)),
        figure(received),
        format!("{} → {}", storm.resident_before >> 20, storm.resident_most >> 20),
    ]);
    println!();
    table(
        "Age of a record when a live client reads it, ms",
        &["", "p50", "p99", "most", "readings"],
    );
    let mut p99 = [Duration::ZERO; 3];
    let names = ["before", "during the storm", "after it"];
    for ((name, mut ages), p99) in names.into_iter().zip(ages).zip(&mut p99) {
        ages.sort_unstable();
        *p99 = quantile(&ages, 0.99);
        let at = |share| millis(quantile(&ages, share));
        row(&[name.to_owned(), at(0.5), at(0.99), at(1.0), ages.len().to_string()]);
    }
    println!(
        "\nEvery range of every client joined. The records wanted are those between the lowest place \
         of anybody and the end, partition by partition, when the places were drawn. Bytes are those that brokers sent to those who \
         read history, beside those that they sent, right before, to a bare consumer that read from the lowest places to where the log \
         ended; both with all that the protocol adds.\n"
    );
    p99
}

/// Puts into each partition what clients come back for.
///
/// # Errors
///
/// When it can't be written.
pub fn fill(plan: &Plan, cluster: &Cluster, topic: &str) -> Result<()> {
    let producer = cluster.producer(Duration::from_millis(5))?;
    for index in 0..plan.storm_behind * 2 {
        producer.send(topic, &format!("key-{index}"), &stamped_value(plan.value_bytes))?;
    }
    producer.flush()
}

/// Where the topic ends, and its identity.
#[derive(Debug)]
pub struct Ends {
    topic_id: String,
    offsets: BTreeMap<u32, u64>,
}

impl Ends {
    /// Asks the server, as whom the token says.
    ///
    /// # Errors
    ///
    /// When it does not say.
    pub fn ask(address: SocketAddr, topic: &str, token: Option<&String>) -> Result<Self> {
        let refused = |refused| anyhow::anyhow!("refused: {refused:?}");
        let header = token.map(|token| format!("Authorization: Bearer {token}"));
        let lines: Vec<&str> = header.iter().map(String::as_str).collect();
        let mut client = RawClient::connect(address, &lines).map_err(refused)?;
        client.send(&serde_json::from_str::<Value>(&subscribe_request(1, topic, None))?);
        let subscribed = client.expect("subscribed");
        let topic_id = subscribed["topic_id"].as_str().context("a topic id")?.to_owned();
        let positions = subscribed["positions"].as_object().context("positions")?;
        let offset = |(partition, offset): (&String, &Value)| {
            Ok((partition.parse()?, offset.as_u64().context("an offset")?))
        };
        Ok(Self { topic_id, offsets: positions.iter().map(offset).collect::<Result<_>>()? })
    }

    /// Returns a place about `behind` records before the end, another for each
    /// client.
    pub fn place(&self, rng: &mut fastrand::Rng, behind: usize) -> BTreeMap<u32, u64> {
        let each = (behind * 2 / STORM_PARTITIONS).max(1) as u64;
        let mut back = |end: u64| end.saturating_sub(rng.u64(0..=each));
        self.offsets.iter().map(|(partition, end)| (*partition, back(*end))).collect()
    }

    /// Returns how many records lie between a place and the end.
    pub fn behind(&self, place: &BTreeMap<u32, u64>) -> u64 {
        self.offsets.iter().map(|(partition, end)| end - place[partition]).sum()
    }

    /// Returns the request of a client that comes back to a place.
    ///
    /// # Errors
    ///
    /// When a place can't be written as JSON.
    pub fn resume(&self, topic: &str, place: &BTreeMap<u32, u64>) -> Result<String> {
        let positions = serde_json::to_string(place)?;
        Ok(format!(
            "{{\"type\":\"subscribe\",\"id\":1,\"channel\":\"{topic}\",\"keys\":{{\"prefix\":\"key-\"}},\
             \"from\":{{\"positions\":{positions},\"topic_id\":\"{}\"}}}}",
            self.topic_id
        ))
    }
}

/// Returns with the clients, who stay.
fn rush(server: &Server, ends: &Ends, places: &Places) -> Result<(Storm, Fleet)> {
    // Else those whose waiting is measured, and Kafka, would wait for these
    // thousands to be given the core.
    machine::yield_to_others()?;
    let wanted = ends.behind(&places.lowest);
    let expected: Vec<u64> = places.all.iter().map(|place| ends.behind(place)).collect();
    let mut fleet = Fleet::new()?;
    let read_before = server.metric(HISTORY_RECORDS)?;
    let (cpu, resident_before) = (server.process.cpu()?, server.process.resident_bytes()?);
    let begin = Instant::now();
    for place in &places.all {
        fleet.open(server.address, vec![ends.resume(TOPIC, place)?], place.clone())?;
        fleet.run_for(Duration::ZERO)?;
    }
    let live = places.all.len() as u64;
    fleet.run_until("all to be live", |counts| counts.live >= live)?;
    let took = begin.elapsed();
    ensure!(fleet.has_each(&expected), "a client is live and has not got all");
    let storm = Storm {
        took,
        cpu: server.process.cpu()? - cpu,
        wanted,
        read: server.metric(HISTORY_RECORDS)? - read_before,
        deliveries: fleet.counts().records,
        resident_before,
        resident_most: server.process.resident_most_bytes()?,
    };
    Ok((storm, fleet))
}

/// Reads from these places to where the log ends, by a consumer without anything behind
/// it; returns the bytes that brokers sent to it.
fn read_bare(cluster: &Cluster, lowest: &BTreeMap<u32, u64>) -> Result<u64> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &cluster.servers).set("group.id", "bench");
    config.set("enable.auto.commit", "false").set("statistics.interval.ms", "100");
    for (name, value) in cluster.properties() {
        config.set(*name, *value);
    }
    let consumer: BaseConsumer<Received> = config.create_with_context(Received::default())?;
    let mut list = TopicPartitionList::new();
    let mut missing = 0;
    for (partition, offset) in lowest {
        let (partition, offset) = (i32::try_from(*partition)?, i64::try_from(*offset)?);
        list.add_partition_offset(TOPIC, partition, Offset::Offset(offset))?;
        let (_, end) = consumer.fetch_watermarks(TOPIC, partition, PATIENCE)?;
        missing += end - offset;
    }
    consumer.assign(&list)?;
    for _ in 0..missing {
        consumer.poll(PATIENCE).context("no record")??;
    }
    let read_at = Instant::now();
    while read_at.elapsed() < Duration::from_millis(300) {
        consumer.poll(Duration::from_millis(50));
    }
    Ok(consumer.context().0.load(Relaxed))
}

/// Notes the bytes that a client has received.
#[derive(Debug, Default)]
struct Received(AtomicU64);

impl ClientContext for Received {
    fn stats(&self, statistics: Statistics) {
        let bytes = statistics.brokers.values().map(|broker| broker.rxbytes).sum();
        self.0.store(bytes, Relaxed);
    }
}

impl ConsumerContext for Received {}

/// Follows a key live while records come; returns how old they were before the
/// storm, in it and after it.
fn watch_live(
    plan: &Plan,
    cluster: &Cluster,
    address: SocketAddr,
    phase: &AtomicU8,
    stop: &AtomicBool,
) -> Result<Vec<Vec<Duration>>> {
    let mut fleet = Fleet::new()?;
    let request = subscribe_request(1, TOPIC, Some(LIVE_KEY));
    fleet.subscribe(address, vec![vec![request]; plan.subscribers])?;
    let producer = cluster.producer(Duration::ZERO)?;
    let (mut ages, mut now) = (Vec::new(), CALM);
    fleet.note_stamps();
    let interval = Duration::from_secs(1) / LIVE_RATE;
    let mut due = Instant::now();
    while !stop.load(Relaxed) {
        if phase.load(Relaxed) == HALT {
            fleet.run_for(interval)?;
            due = Instant::now();
            continue;
        }
        if phase.load(Relaxed) != now {
            now = phase.load(Relaxed);
            ages.push(fleet.take_stamps());
            fleet.note_stamps();
        }
        producer.send(TOPIC, LIVE_KEY, &stamped_value(plan.value_bytes))?;
        due += interval;
        fleet.run_for(due.saturating_duration_since(Instant::now()))?;
    }
    ages.push(fleet.take_stamps());
    // The first second warms up.
    let before = &mut ages[0];
    before.drain(..before.len().min(LIVE_RATE as usize * plan.subscribers));
    Ok(ages)
}

const TOPIC: &str = "storm";
/// From so many clients on it is held to what a storm may cost.
const FULL_STORM: usize = 9_000;
/// Bytes from Kafka, of those that a bare consumer has for the same ranges alone.
const BYTES_MAX: f64 = 1.2;
/// Resident bytes for each who comes back, whatever is read for all.
const MEMORY_EACH_MAX: u64 = 16 << 10;
const HISTORY_RECORDS: &str = "brucke_kafka_history_records_total";
const RECEIVED_BYTES: &str = "brucke_kafka_received_bytes_total{client=\"history\"}";
/// How old what the server says of those may be.
const STATISTICS_AGE: Duration = Duration::from_secs(6);
/// Whose records those who are live get all along, and how many a second.
const LIVE_KEY: &str = "live";
const LIVE_RATE: u32 = 100;
/// How long a record may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// What happens.
const CALM: u8 = 0;
/// Nothing is written.
const HALT: u8 = 1;
const STORM: u8 = 2;
const AFTER: u8 = 3;
/// How long until what was written last has been read.
const HALTED: Duration = Duration::from_millis(500);
