//! Cost of a record with few and with many subscriptions to single keys: it is
//! to follow those that match, not those that exist.

use std::fmt;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;

use crate::fleet::Fleet;
use crate::fleet::stamped_value;
use crate::fleet::subscribe_request;
use crate::kafka::Cluster;
use crate::kafka::Producer;
use crate::plan::Plan;
use crate::report::Series;
use crate::report::figure;
use crate::report::micros;
use crate::report::row;
use crate::report::say;
use crate::report::table;
use crate::server::Server;

/// How many subscriptions a record matches.
#[derive(Debug, Clone, Copy)]
enum Matches {
    One,
    Nothing,
}

impl Matches {
    fn name(self) -> &'static str {
        match self {
            Self::One => "one subscription",
            Self::Nothing => "no subscription",
        }
    }
}

/// Measures, and prints the table.
///
/// # Errors
///
/// When a record does not come.
pub fn measure(plan: &Plan, cluster: &Cluster) -> Result<()> {
    let (few, many) = (plan.keys_few, plan.keys_connections);
    let all = many * plan.keys_each;
    // Each number of connections with few keys and with all of them: what a socket
    // more costs the system is no matter of keys.
    let shapes = [
        Shape { topic: "keys-few", connections: few, each: 1 },
        Shape { topic: "keys-few-deep", connections: few, each: all / few },
        Shape { topic: "keys-many", connections: many, each: 1 },
        Shape { topic: "keys-many-deep", connections: many, each: all / many },
    ];
    let mut sides = Vec::new();
    for shape in shapes {
        say(&format!("keys, {shape}"));
        sides.push(Side::start(plan, cluster, shape, NO_PROGRESS)?);
    }
    let head = ["each record matches", "connections", "a key each, µs"].map(str::to_owned);
    let head = head.into_iter().chain([format!("{all} keys, µs"), "ratio".to_owned()]);
    let title = "CPU per record, by the number of single-key subscriptions";
    table(title, &head.collect::<Vec<_>>());
    for matches in [Matches::One, Matches::Nothing] {
        say(&format!("keys, {}", matches.name()));
        let mut costs = vec![Series::default(); sides.len()];
        for side in &mut sides {
            side.run(matches)?;
        }
        for _ in 0..plan.runs {
            for (side, costs) in sides.iter_mut().zip(&mut costs) {
                costs.push(side.run(matches)?);
            }
        }
        for (shapes, costs) in shapes.chunks(2).zip(costs.chunks(2)) {
            row(&[
                matches.name().to_owned(),
                shapes[0].connections.to_string(),
                costs[0].to_string(),
                costs[1].to_string(),
                figure(costs[1].median() / costs[0].median()),
            ]);
        }
    }
    println!(
        "\n{} records to keys of different connections come at once, or {UNMATCHED_READY} that \
         nobody follows. Reading from Kafka is in it.\n",
        sides[0].ready(),
    );
    drop(sides);
    measure_progress(plan, cluster)
}

/// Measures what was left out above: telling every subscription where it is.
fn measure_progress(plan: &Plan, cluster: &Cluster) -> Result<()> {
    let (connections, each) = (plan.keys_connections, plan.keys_each);
    let shape = Shape { topic: "keys-progress", connections, each };
    say(&format!("progress, {shape}"));
    let mut side = Side::start(plan, cluster, shape, "")?;
    let frames = side.fleet.counts().progress;
    let (begin, cpu) = (Instant::now(), side.server.process.cpu()?);
    while begin.elapsed() < plan.idle.min(PROGRESS_WATCH) {
        side.send("nobody")?;
        side.fleet.run_for(PROGRESS_STEP)?;
    }
    let cpu = micros(side.server.process.cpu()? - cpu);
    let frames = side.fleet.counts().progress - frames;
    println!(
        "Not in it: progress, which a quiet subscription is told every 10 s. {shape} and hardly a \
         record took {} % of a core: {} µs for each progress frame.\n",
        figure(cpu / begin.elapsed().as_secs_f64() / 1e4),
        figure(cpu / frames.max(1) as f64),
    );
    Ok(())
}

/// How many connections a side has, and how many keys each of them follows.
#[derive(Debug, Clone, Copy)]
struct Shape {
    topic: &'static str,
    connections: usize,
    each: usize,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, each, .. } = self;
        write!(f, "{} subscriptions on {connections} connections", connections * each)
    }
}

/// A server and its connections, each with keys of its own.
struct Side<'a> {
    plan: &'a Plan,
    server: Server,
    fleet: Fleet,
    producer: Producer,
    shape: Shape,
    /// Counts records, so that each goes elsewhere than the last.
    turn: usize,
}

impl<'a> Side<'a> {
    fn start(plan: &'a Plan, cluster: &Cluster, shape: Shape, settings: &str) -> Result<Self> {
        let Shape { topic, connections, each } = shape;
        let limits = format!(
            "subscriptions_per_connection_max = {0}\nframes_burst = {0}\n{settings}",
            each.max(SUBSCRIPTIONS_DEFAULT),
        );
        let server = Server::start(plan, cluster, &limits)?;
        let mut fleet = Fleet::new()?;
        let request =
            |connection, key| subscribe_request(key + 1, topic, Some(&key_name(connection, key)));
        let requests =
            |connection| (0..each).map(|key| request(connection, key)).collect::<Vec<_>>();
        fleet.subscribe(server.address, (0..connections).map(requests).collect())?;
        let producer = cluster.producer(Duration::from_millis(1))?;
        Ok(Self { plan, server, fleet, producer, shape, turn: 0 })
    }

    /// Returns how many records come at once: no two go to the same connection.
    fn ready(&self) -> usize {
        self.plan.keys_few.min(self.shape.connections)
    }

    /// Sends records and returns the CPU for each in microseconds.
    fn run(&mut self, matches: Matches) -> Result<f64> {
        let cpu = self.server.process.cpu()?;
        let records = match matches {
            Matches::One => self.run_matched()?,
            Matches::Nothing => self.run_unmatched()?,
        };
        Ok(micros(self.server.process.cpu()? - cpu) / records as f64)
    }

    /// Sends records of which each matches one subscription, and returns how many.
    fn run_matched(&mut self) -> Result<usize> {
        let rounds = self.plan.keys_records / self.ready();
        for _ in 0..rounds {
            self.send_matched(self.ready())?;
        }
        Ok(rounds * self.ready())
    }

    /// Sends records that match nothing, and returns how many. One in a thousand
    /// matches, to see where they have come to.
    fn run_unmatched(&mut self) -> Result<usize> {
        let rounds = (self.plan.keys_records * UNMATCHED_FACTOR).div_ceil(UNMATCHED_READY);
        for _ in 0..rounds {
            for _ in 1..UNMATCHED_READY {
                self.send("nobody")?;
            }
            self.send_matched(1)?;
        }
        Ok(rounds * UNMATCHED_READY)
    }

    fn send_matched(&mut self, records: usize) -> Result<()> {
        let due = self.fleet.counts().records + records as u64;
        for _ in 0..records {
            self.turn += 1;
            // Walks over all connections, and over their keys in no simple order.
            let key = self.turn.wrapping_mul(STRIDE) % self.shape.each;
            self.send(&key_name(self.turn % self.shape.connections, key))?;
        }
        self.fleet.run_until("records by key", |counts| counts.records >= due)
    }

    fn send(&self, key: &str) -> Result<()> {
        self.producer.send(self.shape.topic, key, &stamped_value(self.plan.value_bytes))
    }
}

fn key_name(connection: usize, key: usize) -> String {
    format!("key-{connection:05}-{key:05}")
}

/// Progress would be most of what is measured, and is measured apart.
const NO_PROGRESS: &str = "progress_interval = \"10m\"";
/// Records at once that nobody follows, and how many times more of them than of
/// those that somebody does.
const UNMATCHED_READY: usize = 1_000;
const UNMATCHED_FACTOR: usize = 4;
/// How often a record moves the positions that progress tells.
const PROGRESS_STEP: Duration = Duration::from_millis(100);
/// How long progress is watched: a little more than its interval.
const PROGRESS_WATCH: Duration = Duration::from_secs(11);
/// What a connection may have if nobody says otherwise.
const SUBSCRIPTIONS_DEFAULT: usize = 200;
/// A prime, larger than the keys of a connection.
const STRIDE: usize = 7_919;
