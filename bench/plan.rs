//! What is to be measured: the program's arguments.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;

/// What the command line says.
#[derive(Debug, Parser)]
#[command(about = "What Brücke costs, beside a bare writer of the same bytes")]
pub struct Arguments {
    #[command(subcommand)]
    pub role: Option<Role>,
    #[command(flatten)]
    plan: Plan,
    /// Only see whether everything runs: a few seconds, no figures to keep.
    #[arg(long)]
    smoke: bool,
    /// What `cargo bench` adds by itself.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part that must be a process of its own.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// The bare writer.
    #[command(hide = true)]
    Floor { clients: usize },
    /// The embedded cluster, with these topics.
    #[command(hide = true)]
    Kafka { topics: Vec<String> },
    /// `brucke serve` for the embedded cluster.
    #[command(hide = true)]
    Serve { config: PathBuf },
}

/// What is measured, and how much of it.
#[derive(Debug, Clone, Args)]
pub struct Plan {
    /// What to measure.
    #[arg(long, env = "BENCH_PARTS", value_delimiter = ',',
          default_values = ["fanout", "memory", "keys", "latency", "slow", "storm", "tracing", "tls",
                            "partitions"])]
    pub parts: Vec<Part>,
    /// Where records come from.
    #[arg(long, env = "BENCH_KAFKA", default_value = "apache")]
    pub kafka: ClusterChoice,
    /// The server to measure; with the embedded cluster it is this program, which
    /// calls the same library.
    #[arg(long, env = "BENCH_BRUCKE", default_value = env!("CARGO_BIN_EXE_brucke"))]
    pub brucke: PathBuf,
    /// Bytes of each record's value.
    #[arg(long, env = "BENCH_VALUE_BYTES", default_value = "200")]
    pub value_bytes: usize,
    /// Runs of each of two sides that take turns.
    #[arg(long, env = "BENCH_RUNS", default_value = "7")]
    pub runs: usize,
    /// Fan-out: clients of one channel.
    #[arg(long, env = "BENCH_CLIENTS", default_value = "2000")]
    pub clients: usize,
    /// Fan-out: records that are ready at once.
    #[arg(long, env = "BENCH_READY", value_delimiter = ',', default_values = ["1", "8", "32"])]
    pub ready: Vec<usize>,
    /// Fan-out: times in one run that so many records come.
    #[arg(long, env = "BENCH_ROUNDS", default_value = "60")]
    pub rounds: usize,
    /// Memory: connections.
    #[arg(long, env = "BENCH_CONNECTIONS", default_value = "9500")]
    pub connections: usize,
    /// Memory: records of the burst that everybody gets.
    #[arg(long, env = "BENCH_BURST", default_value = "100")]
    pub burst: usize,
    /// Memory: how long idle CPU is watched; a ping comes every 25 s.
    #[arg(long, env = "BENCH_IDLE_SECONDS", default_value = "26", value_parser = seconds)]
    pub idle: Duration,
    /// Keys: single-key subscriptions of the small side, one a connection; the
    /// large side has as many on so many connections, too.
    #[arg(long, env = "BENCH_KEYS_FEW", default_value = "100")]
    pub keys_few: usize,
    /// Keys: connections over which the large side is spread.
    #[arg(long, env = "BENCH_KEYS_CONNECTIONS", default_value = "1000")]
    pub keys_connections: usize,
    /// Keys: single-key subscriptions of each of those connections.
    #[arg(long, env = "BENCH_KEYS_EACH", default_value = "100")]
    pub keys_each: usize,
    /// Keys: records of one run.
    #[arg(long, env = "BENCH_KEYS_RECORDS", default_value = "5000")]
    pub keys_records: usize,
    /// Latency: subscribers.
    #[arg(long, env = "BENCH_SUBSCRIBERS", default_value = "20")]
    pub subscribers: usize,
    /// Latency: records a second.
    #[arg(long, env = "BENCH_RATE", default_value = "1000")]
    pub rate: u32,
    /// Latency: how long.
    #[arg(long, env = "BENCH_LATENCY_SECONDS", default_value = "10", value_parser = seconds)]
    pub latency: Duration,
    /// Slow readers: how many read 1 KB a second.
    #[arg(long, env = "BENCH_SLOW_CLIENTS", default_value = "5")]
    pub slow_clients: usize,
    /// Slow readers: how many read as fast as they can.
    #[arg(long, env = "BENCH_SLOW_BESIDE", default_value = "95")]
    pub slow_beside: usize,
    /// Storm: clients that return at once.
    #[arg(long, env = "BENCH_STORM_CLIENTS", default_value = "9900")]
    pub storm_clients: usize,
    /// Storm: how many records each of them is behind, on average.
    #[arg(long, env = "BENCH_STORM_BEHIND", default_value = "1000")]
    pub storm_behind: usize,
    /// Storm: how long live clients are watched before it.
    #[arg(long, env = "BENCH_STORM_CALM_SECONDS", default_value = "8", value_parser = seconds)]
    pub storm_calm: Duration,
    /// Partitions: how many the followed topic has, one row each.
    #[arg(long, env = "BENCH_PARTITIONS", value_delimiter = ',', default_values = ["1", "100", "1000"])]
    pub partitions: Vec<usize>,
    /// Partitions: bytes of the records that are kept in the tail, one row each.
    #[arg(long, env = "BENCH_TAIL_VALUE_BYTES", value_delimiter = ',', default_values = ["100", "1000"])]
    pub tail_value_bytes: Vec<usize>,
    /// Partitions: how many of them are kept.
    #[arg(long, env = "BENCH_TAIL_RECORDS", default_value = "200000")]
    pub tail_records: usize,
    /// Partitions: how many are kept where each comes alone.
    #[arg(long, env = "BENCH_TAIL_ALONE", default_value = "3000")]
    pub tail_alone: usize,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    Fanout,
    Memory,
    Keys,
    Latency,
    Slow,
    Storm,
    Tracing,
    Tls,
    Partitions,
}

/// Where records come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClusterChoice {
    /// One broker of Apache Kafka; needs a JDK 17 and Maven.
    Apache,
    /// librdkafka's mock cluster, in a process of its own. It sleeps through the
    /// wait of a fetch, so that it must be polled hundreds of times a second:
    /// the server's figures are worse by that.
    Embedded,
}

impl ClusterChoice {
    /// Returns what it is, for the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "librdkafka's mock cluster, in a process of its own",
            Self::Apache => "one broker of Apache Kafka 4.3.1",
        }
    }
}

impl Arguments {
    /// Returns the plan, made small where only a smoke test is wanted.
    pub fn plan(&self) -> Plan {
        let plan = self.plan.clone();
        if !self.smoke {
            return plan;
        }
        Plan {
            kafka: ClusterChoice::Embedded,
            runs: 1,
            clients: 20,
            rounds: 2,
            connections: 50,
            burst: 5,
            idle: Duration::from_millis(100),
            keys_few: 10,
            keys_connections: 20,
            keys_each: 10,
            keys_records: 100,
            rate: 200,
            latency: Duration::from_millis(500),
            slow_clients: 1,
            slow_beside: 5,
            storm_clients: 50,
            storm_behind: 100,
            storm_calm: Duration::from_secs(2),
            partitions: vec![1, 5],
            tail_value_bytes: vec![100],
            tail_records: 500,
            tail_alone: 50,
            ..plan
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| format!("{text:?} is no number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
