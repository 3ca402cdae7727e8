//! From Kafka to a client's read: how old a record is when it has come.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::Offset;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;

use crate::fleet::Fleet;
use crate::fleet::age_of;
use crate::fleet::stamped_value;
use crate::fleet::subscribe_request;
use crate::kafka::Cluster;
use crate::plan::Plan;
use crate::report::millis;
use crate::report::quantile;
use crate::report::row;
use crate::report::say;
use crate::report::table;
use crate::server::Server;

/// Measures, and prints the table.
///
/// # Errors
///
/// When a record does not come.
pub fn measure(plan: &Plan, cluster: &Cluster) -> Result<()> {
    say("latency");
    let brucke = measure_brucke(plan, cluster)?;
    say("latency of a bare consumer");
    let bare = measure_consumer(plan, cluster)?;
    table(
        &format!("Age of a record when it is read, {} records/s, ms", plan.rate),
        &["reader", "p50", "p99", "p99.9", "most", "readings"],
    );
    let clients = format!("{} clients of Brücke", plan.subscribers);
    for (name, mut ages) in [(clients, brucke), ("a bare librdkafka consumer".to_owned(), bare)] {
        // The first second warms up.
        let warm_up = ages.len() / (plan.latency.as_secs().max(1) as usize + 1);
        ages.drain(..warm_up);
        ages.sort_unstable();
        let at = |share| millis(quantile(&ages, share));
        row(&[name, at(0.5), at(0.99), at(0.999), at(1.0), ages.len().to_string()]);
    }
    println!(
        "\nFrom the producer's `send` (linger 0, so with the way into Kafka) to the read from the \
         socket, by one clock.\n"
    );
    Ok(())
}

fn measure_brucke(plan: &Plan, cluster: &Cluster) -> Result<Vec<Duration>> {
    let server = Server::start(plan, cluster, "")?;
    let mut fleet = Fleet::new()?;
    let requests = vec![vec![subscribe_request(1, "latency", None)]; plan.subscribers];
    fleet.subscribe(server.address, requests)?;
    fleet.note_stamps();
    let due = (records(plan) * plan.subscribers) as u64;
    thread::scope(|scope| {
        let producing = scope.spawn(|| produce(plan, cluster));
        let read = fleet.run_until("records", |counts| counts.records >= due);
        producing.join().expect("the producer does not panic")?;
        read
    })?;
    Ok(fleet.take_stamps())
}

/// Reads the same records by a consumer without anything behind it.
fn measure_consumer(plan: &Plan, cluster: &Cluster) -> Result<Vec<Duration>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &cluster.servers).set("group.id", "bench");
    config.set("enable.auto.commit", "false").set("fetch.wait.max.ms", "100");
    for (name, value) in cluster.properties() {
        config.set(*name, *value);
    }
    let consumer: BaseConsumer = config.create()?;
    let (_, end) = consumer.fetch_watermarks("latency", 0, PATIENCE)?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("latency", 0, Offset::Offset(end))?;
    consumer.assign(&list)?;
    let failed = AtomicBool::new(false);
    thread::scope(|scope| {
        let producing = scope.spawn(|| {
            produce(plan, cluster).inspect_err(|_| failed.store(true, Ordering::Relaxed))
        });
        let mut ages = Vec::new();
        while ages.len() < records(plan) && !failed.load(Ordering::Relaxed) {
            let message = consumer.poll(PATIENCE).context("no record")??;
            ages.push(age_of(message.payload().context("a value")?)?);
        }
        producing.join().expect("the producer does not panic")?;
        Ok(ages)
    })
}

/// Sends records at an even pace.
pub fn produce(plan: &Plan, cluster: &Cluster) -> Result<()> {
    let producer = cluster.producer(Duration::ZERO)?;
    let begin = Instant::now();
    let interval = Duration::from_secs(1) / plan.rate;
    for index in 0..records(plan) {
        let due = begin + interval * u32::try_from(index)?;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        producer.send("latency", "key-1", &stamped_value(plan.value_bytes))?;
    }
    producer.flush()
}

/// Returns how many records are sent, with those that warm up.
pub fn records(plan: &Plan) -> usize {
    let seconds = plan.latency.as_secs_f64() + 1.0;
    (seconds * f64::from(plan.rate)) as usize
}

/// How long a record may take.
const PATIENCE: Duration = Duration::from_secs(30);
