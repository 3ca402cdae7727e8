//! What a replica pays for what it follows, whoever its clients are: memory and CPU
//! of partitions on which nothing comes, and memory of records that the tail keeps.

use std::time::Duration;
use std::time::Instant;

use anyhow::Result;
use anyhow::ensure;
use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;

use crate::fleet::Fleet;
use crate::fleet::stamped_value;
use crate::fleet::subscribe_request;
use crate::kafka::Cluster;
use crate::kafka::Producer;
use crate::kafka::many_partitions;
use crate::memory::idle_cpu;
use crate::memory::settled;
use crate::plan::Plan;
use crate::report::figure;
use crate::report::row;
use crate::report::say;
use crate::report::table;
use crate::server::Server;

/// Measures, and prints the tables.
///
/// # Errors
///
/// When a subscription or a record does not come, or the tail keeps another number of
/// records than it got.
pub fn measure(plan: &Plan) -> Result<()> {
    let many = plan.partitions.iter().map(|count| many_partitions(*count));
    let cluster = Cluster::start_with(plan.kafka, many.chain([TAIL.to_owned()]).collect())?;
    await_leaders(&cluster)?;
    table(
        "Memory and CPU of partitions that are followed, idle",
        &[
            "partitions",
            "resident before, MB",
            "resident, MB",
            "KB each",
            "idle CPU before, % of a core",
            "idle CPU, % of a core",
        ],
    );
    for count in &plan.partitions {
        say(&format!("partitions, {count}"));
        follow(plan, &cluster, *count)?;
    }
    println!(
        "\nBefore: one client that follows a topic of one partition. Then a second one follows the \
         topic of so many. The readers' and that client's positions are in it; nothing is written.\n"
    );
    table(
        "Memory of a record in the tail",
        &["value, bytes", "they come", "records", "resident, bytes each", "counted, bytes each"],
    );
    for value_bytes in &plan.tail_value_bytes {
        for come in [Come::Together, Come::Alone] {
            say(&format!("tail, {value_bytes} bytes, {}", come.name()));
            keep(plan, &cluster, *value_bytes, come)?;
        }
    }
    println!(
        "\nBy what resident memory grew, and by what `brucke_tail_bytes` did, while so many records \
         came after a tenth of them. Keys of {} bytes, no headers.\n",
        KEY.len()
    );
    Ok(())
}

/// Waits until every partition has a leader: a broker takes its time to make a
/// thousand.
fn await_leaders(cluster: &Cluster) -> Result<()> {
    let mut config = ClientConfig::new();
    let client: BaseConsumer = config.set("bootstrap.servers", &cluster.servers).create()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = client.fetch_metadata(None, PATIENCE)?;
        let led = |name: &String| {
            let topic = found.topics().iter().find(|topic| topic.name() == name);
            topic.is_some_and(|topic| {
                let mut partitions = topic.partitions().iter();
                partitions.len() > 0 && partitions.all(|partition| partition.leader() >= 0)
            })
        };
        if cluster.topics.iter().all(led) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "partitions have no leaders");
    }
}

fn follow(plan: &Plan, cluster: &Cluster, count: usize) -> Result<()> {
    let server = Server::start(plan, cluster, "")?;
    let mut fleet = Fleet::new()?;
    fleet.subscribe(server.address, vec![vec![subscribe_request(1, TAIL, None)]])?;
    let watched = plan.idle.min(IDLE_MAX);
    let cpu_before = idle_cpu(&server, &mut fleet, watched)?;
    let before = settled(&server, &mut fleet)?;
    let topic = many_partitions(count);
    fleet.subscribe(server.address, vec![vec![subscribe_request(1, &topic, None)]])?;
    let cpu = idle_cpu(&server, &mut fleet, watched)?;
    let after = settled(&server, &mut fleet)?;
    let megabytes = |bytes: u64| figure(bytes as f64 / f64::from(1 << 20));
    row(&[
        count.to_string(),
        megabytes(before),
        megabytes(after),
        figure(after.saturating_sub(before) as f64 / 1024.0 / count as f64),
        figure(cpu_before / 1e4),
        figure(cpu / 1e4),
    ]);
    Ok(())
}

/// How records come to the tail. It keeps them as it got them.
#[derive(Debug, Clone, Copy)]
enum Come {
    /// As many at once as a fetch brings.
    Together,
    /// Each after the one before it was read.
    Alone,
}

impl Come {
    fn name(self) -> &'static str {
        match self {
            Self::Together => "together",
            Self::Alone => "one by one",
        }
    }
}

fn keep(plan: &Plan, cluster: &Cluster, value_bytes: usize, come: Come) -> Result<()> {
    let server = Server::start_keeping(plan, cluster, ENOUGH)?;
    let producer = cluster.producer(Duration::ZERO)?;
    let mut fleet = Fleet::new()?;
    fleet.subscribe(server.address, vec![vec![subscribe_request(1, TAIL, None)]])?;
    let (records, wave) = match come {
        Come::Together => (plan.tail_records, WAVE),
        Come::Alone => (plan.tail_alone, 1),
    };
    send(&producer, &mut fleet, value_bytes, records / 10, wave)?;
    let before = Kept::of(&server, &mut fleet)?;
    send(&producer, &mut fleet, value_bytes, records, wave)?;
    let after = Kept::of(&server, &mut fleet)?;
    let kept = after.offsets - before.offsets;
    ensure!(kept == records as u64, "the tail keeps {kept} of {records} records");
    let each = |after: u64, before: u64| figure(after.saturating_sub(before) as f64 / kept as f64);
    row(&[
        value_bytes.to_string(),
        come.name().to_owned(),
        records.to_string(),
        each(after.resident, before.resident),
        each(after.counted, before.counted),
    ]);
    Ok(())
}

/// Sends records in waves, each once the client has those before it.
fn send(
    producer: &Producer,
    fleet: &mut Fleet,
    value_bytes: usize,
    records: usize,
    wave: usize,
) -> Result<()> {
    let mut left = records;
    while left > 0 {
        let now = wave.min(left);
        fleet.expect_each(now as u64, || {
            for _ in 0..now {
                producer.send(TAIL, KEY, &stamped_value(value_bytes))?;
            }
            producer.flush()
        })?;
        // What the client got is of no use.
        drop(fleet.take_sample());
        left -= now;
    }
    Ok(())
}

/// What a server holds.
#[derive(Debug, Clone, Copy)]
struct Kept {
    offsets: u64,
    counted: u64,
    resident: u64,
}

impl Kept {
    fn of(server: &Server, fleet: &mut Fleet) -> Result<Self> {
        let resident = settled(server, fleet)?;
        let (offsets, counted) = (server.metric(OFFSETS)?, server.metric(BYTES)?);
        Ok(Self { offsets, counted, resident })
    }
}

const TAIL: &str = "tail";
const KEY: &str = "key-000000";
/// More than any of these keeps.
const ENOUGH: &str = "1GiB";
/// Records that are sent at once.
const WAVE: usize = 10_000;
/// How long idle CPU is watched at most.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// How long a broker may take.
const PATIENCE: Duration = Duration::from_secs(60);
const OFFSETS: &str = "brucke_tail_offsets";
const BYTES: &str = "brucke_tail_bytes";
