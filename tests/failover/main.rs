//! Replicas are killed while records flow, and no client loses, repeats or
//! swaps one, or sees another tenant's.
//!
//! `rolling` replaces them in order, behind the proxies that users have; `quiet` says
//! nothing for longer than those wait.
//!
//! The short run is a test like any other. `make failover` runs the long one
//! and prints its table.
#![allow(unreachable_pub)]

mod checker;
mod client;
mod mover;
mod opened;
mod proxy;
mod quiet;
mod rolling;
mod scenario;
#[path = "../support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::watch;

use crate::checker::Acknowledged;
use crate::checker::Findings;
use crate::client::Flow;
use crate::client::History;
use crate::scenario::CHANNELS;
use crate::scenario::FILTERS;
use crate::scenario::PARTITIONS;
use crate::scenario::Scale;
use crate::scenario::kind;
use crate::scenario::plan;
use crate::scenario::wanted;
use crate::support::brucke::Brucke;
use crate::support::kafka_client::NewRecord;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::fresh_topic;

#[test]
fn replicas_die_while_records_flow_and_every_client_gets_all_once_and_in_order() {
    let scale = Scale::from_environment();
    let cluster = KafkaCluster::shared();
    let topics = CHANNELS.map(|(channel, _)| fresh_topic(channel));
    for topic in &topics {
        let partitions = i32::try_from(PARTITIONS).expect("few");
        cluster.admin().create_topic(topic, partitions, &[]);
    }
    let server = "progress_interval = \"500ms\"";
    let mut replicas = start_replicas(REPLICAS, &cluster.bootstrap_servers(), server, &topics);
    let urls: Vec<String> = replicas.iter().map(Brucke::url).collect();
    let started = Instant::now();

    // Outlives the clients: they hear from it that it is over.
    let flow = Arc::new(watch::Sender::new(Flow::default()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let clients: Vec<_> = (0..scale.clients)
        .map(|number| runtime.spawn(join_and_follow(number, scale, urls.clone(), flow.subscribe())))
        .collect();

    let (kill, kills) = mpsc::sync_channel(0);
    let producer = thread::spawn({
        let flow = Arc::clone(&flow);
        move || produce(cluster, &topics, scale, &flow, &kill)
    });
    let mut killed = 0;
    for () in kills {
        let replica = &mut replicas[killed % REPLICAS];
        replica.kill();
        replica.restart();
        killed += 1;
    }
    let log = producer.join().expect("records are produced");
    let histories: Vec<History> = clients
        .into_iter()
        .map(|client| runtime.block_on(client).expect("a client does not panic"))
        .collect();

    let report = Report::new(&log, &histories, killed, started.elapsed());
    println!("{}", report.table());
    assert_eq!(killed, scale.kills, "kills while records flowed");
    assert!(report.is_clean(), "{}\n{}", report.table(), report.faults.join("\n"));
    assert!(report.findings.delivered > 0, "nobody got anything");
}

fn start_replicas(
    count: usize,
    kafka_servers: &str,
    server: &str,
    topics: &[String; CHANNELS.len()],
) -> Vec<Brucke> {
    let channels = CHANNELS.iter().zip(topics).fold(String::new(), |mut text, (channel, topic)| {
        let (name, tenant) = channel;
        writeln!(text, "[[channels]]\nname = \"{name}\"\ntopic = \"{topic}\"\ntenant = {tenant}")
            .expect("a string grows");
        text
    });
    (0..count).map(|_| Brucke::start(kafka_servers, server, &channels)).collect()
}

/// Lets half of the clients in at once and the others while records flow, so
/// that they start behind.
async fn join_and_follow(
    number: usize,
    scale: Scale,
    mut urls: Vec<String>,
    mut flow: watch::Receiver<Flow>,
) -> History {
    if number % 2 == 1 {
        let turn = scale.records * number as u64 / (2 * scale.clients as u64);
        let joined = flow.wait_for(|flow| flow.produced >= turn).await;
        assert!(joined.is_ok(), "production goes on until all have joined");
    }
    urls.rotate_left(number / 2 % REPLICAS);
    client::follow(number, &wanted(number), urls, flow, PATIENCE).await
}

/// Produces all records evenly over the time given and asks for the kills
/// between them.
fn produce(
    cluster: &KafkaCluster,
    topics: &[String; CHANNELS.len()],
    scale: Scale,
    flow: &watch::Sender<Flow>,
    kill: &mpsc::SyncSender<()>,
) -> Acknowledged {
    let producer = cluster.producer();
    let mut log = Acknowledged::default();
    let mut number = 0;
    let mut kills = 0;
    let began = Instant::now();
    while number < scale.records {
        // Records come at a rate, so that kills fall between them.
        let due = began.elapsed().as_secs_f64() / scale.flow.as_secs_f64();
        let due = ((due * scale.records as f64) as u64).min(scale.records);
        let end = due.min(number + BATCH_RECORDS_MAX);
        let batch: Vec<_> = (number..end).map(plan).collect();
        let sent: Vec<_> = batch
            .iter()
            .map(|planned| {
                let tenant = scenario::TENANTS[planned.entry.tenant].as_bytes();
                producer.enqueue(
                    &topics[planned.topic],
                    &NewRecord {
                        partition: i32::try_from(planned.partition).expect("few"),
                        key: Some(planned.key.as_bytes()),
                        value: Some(planned.value.as_bytes()),
                        headers: &[("tenant-id", Some(tenant))],
                        timestamp: None,
                    },
                )
            })
            .collect();
        for (planned, delivery) in batch.into_iter().zip(sent) {
            let offset = u64::try_from(producer.wait(delivery)).expect("an offset");
            log.insert(planned.topic, planned.partition, offset, planned.entry);
        }
        if end > number {
            number = end;
            flow.send_modify(|flow| flow.produced = number);
        }
        let kills_due = number * (scale.kills as u64 + 1) / scale.records;
        if kills_due > kills && kills < scale.kills as u64 {
            kills += 1;
            kill.send(()).expect("somebody kills");
        }
        thread::sleep(TICK);
    }
    let ends = (0..CHANNELS.len()).map(|topic| log.ends(topic, PARTITIONS)).collect();
    flow.send_modify(|flow| flow.ends = Some(ends));
    log
}

/// What came of it.
struct Report {
    /// Clients and findings for each kind of filter.
    rows: [(u64, Findings); FILTERS.len()],
    findings: Findings,
    repeats: u64,
    cuts: u64,
    gaps: u64,
    /// Clients that found a hole, or never had all offsets accounted for.
    unjoined: u64,
    resumes: Vec<Duration>,
    faults: Vec<String>,
    killed: usize,
    elapsed: Duration,
}

impl Report {
    fn new(log: &Acknowledged, histories: &[History], killed: usize, elapsed: Duration) -> Self {
        let mut report = Self {
            rows: Default::default(),
            findings: Findings::default(),
            repeats: 0,
            cuts: 0,
            gaps: 0,
            unjoined: 0,
            resumes: Vec::new(),
            faults: Vec::new(),
            killed,
            elapsed,
        };
        for (number, history) in histories.iter().enumerate() {
            let wanted = wanted(number);
            let findings = log.check(&wanted, &history.seen);
            let row = &mut report.rows[kind(&wanted.filter)];
            row.0 += 1;
            row.1 += findings;
            report.findings += findings;
            report.repeats += history.repeats;
            report.cuts += history.cuts;
            report.gaps += history.gaps;
            report.resumes.extend(&history.resumes);
            if let Some(fault) = &history.fault {
                report.unjoined += 1;
                report.faults.push(format!("client {number}, {wanted:?}: {fault}"));
            }
            if !findings.are_clean() {
                report.faults.push(format!("client {number}, {wanted:?}: {findings:?}"));
            }
        }
        report.resumes.sort_unstable();
        report
    }

    fn is_clean(&self) -> bool {
        self.findings.are_clean() && self.faults.is_empty() && self.gaps == 0
    }

    fn table(&self) -> String {
        let head = ["records", "lost", "repeated", "disordered", "foreign", "unasked", "changed"];
        let cells =
            |cells: &[String]| cells.iter().map(|c| format!(" {c:>10}")).collect::<String>();
        let mut text =
            format!("\n{:<12} {:>7}{}", "filter", "clients", cells(&head.map(String::from)));
        let total = (self.rows.iter().map(|row| row.0).sum(), self.findings);
        for (name, (clients, found)) in FILTERS.iter().zip(&self.rows).chain([(&"all", &total)]) {
            let changed = found.changed + found.invented;
            let numbers =
                [found.delivered, found.lost, found.repeated, found.disordered, found.foreign];
            let numbers = numbers.iter().chain([&found.unasked, &changed]).map(u64::to_string);
            let row = cells(&numbers.collect::<Vec<_>>());
            text += &format!("\n{name:<12} {clients:>7}{row}");
        }
        let resume = |part: usize| self.resumes.get((self.resumes.len() * part / 100).max(1) - 1);
        let resume = |part| resume(part).copied().unwrap_or_default();
        text + &format!(
            "\n\nreplicas killed {}, connections lost {}, clients whose ranges did not join {}, \
             gaps {}\nresumed after {:.1?} in the middle, {:.1?} at worst; repeats on the wire, \
             dropped by clients: {}\nall in {:.0?}\n",
            self.killed,
            self.cuts,
            self.unjoined,
            self.gaps,
            resume(50),
            resume(100),
            self.repeats,
            self.elapsed,
        )
    }
}

/// Who has it runs alone: some tests are about time, and there are few cores.
static ALONE: Mutex<()> = Mutex::new(());
/// Replicas that serve at once.
const REPLICAS: usize = 2;
/// How long a client may hear nothing before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often records are produced.
const TICK: Duration = Duration::from_millis(10);
/// Records that are produced at once.
const BATCH_RECORDS_MAX: u64 = 2_000;
