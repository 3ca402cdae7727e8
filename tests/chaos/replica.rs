//! A replica, with a proxy between it and everybody.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use tokio::runtime::Handle;

use crate::plan::PLANS;
use crate::proxy::Mode;
use crate::proxy::Proxy;
use crate::proxy::Target;
use crate::proxy::Whose;
use crate::proxy::unknown_target;
use crate::support::brucke::Brucke;

/// One of several.
pub struct Replica {
    pub process: Brucke,
    /// Between the clients and the replica.
    pub front: Proxy,
    pub way: Way,
}

/// The way from a replica to Kafka: a proxy for each broker, which the brokers
/// name, and one that stands for the address in the configuration.
pub struct Way {
    from: Ipv4Addr,
    targets: Vec<Target>,
    named: Vec<Proxy>,
    first: Vec<Proxy>,
}

/// Series of `/metrics` with their labels, and values.
pub type Metrics = BTreeMap<String, f64>;

impl Way {
    /// Lays the way of a replica to so many brokers, which are not there yet.
    pub fn lay(runtime: &Handle, replica: usize, brokers: usize) -> Self {
        let from = address(replica);
        let targets: Vec<Target> = (0..brokers).map(|_| unknown_target()).collect();
        let proxies = || {
            let targets = targets.iter().cloned();
            targets.map(|target| Proxy::start(runtime, target, from)).collect::<Vec<_>>()
        };
        let (named, first) = (proxies(), proxies());
        Self { from, targets, named, first }
    }

    /// Returns the ports that brokers must name.
    pub fn named_ports(&self) -> Vec<u16> {
        self.named.iter().map(|proxy| proxy.port).collect()
    }

    /// Says where a broker is.
    pub fn lead(&self, broker: usize, port: u16) {
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        *self.targets[broker].lock().expect("no panic") = Some(target);
    }

    /// Does it to the whole way, or to that to one broker.
    pub fn set(&self, broker: Option<usize>, mode: Mode) {
        for proxies in [&self.named, &self.first] {
            for (index, proxy) in proxies.iter().enumerate() {
                if broker.is_none_or(|broker| broker == index) {
                    proxy.set(mode, Whose::All);
                }
            }
        }
    }

    pub fn heal(&self) {
        self.set(None, Mode::Pass);
    }

    /// Gives each broker another address; nobody answers at the old ones.
    pub fn move_house(&mut self, runtime: &Handle) -> Vec<u16> {
        self.named.iter().for_each(|proxy| proxy.set(Mode::Cut, Whose::All));
        let targets = self.targets.iter().cloned();
        self.named = targets.map(|target| Proxy::start(runtime, target, self.from)).collect();
        self.named_ports()
    }
}

impl Replica {
    /// Starts one whose way to Kafka is laid.
    pub fn start(runtime: &Handle, way: Way) -> Self {
        let servers: Vec<_> = way.first.iter().map(|p| format!("127.0.0.1:{}", p.port)).collect();
        let server = "progress_interval = \"500ms\"\nheartbeat_interval = \"2s\"\n\
                      drain_window = \"2s\"\nstuck_reader_timeout = \"30s\"\n\
                      unsent_bytes_max = \"128KiB\"\nsocket_send_buffer = \"64KiB\"";
        let channels = PLANS.iter().fold(String::new(), |mut text, plan| {
            let (name, tenant) = (plan.name, plan.rule.config());
            writeln!(
                text,
                "[[channels]]\nname = \"{name}\"\ntopic = \"{name}\"\ntenant = {tenant}"
            )
            .expect("a string grows");
            text
        });
        let kafka = format!(
            "tail_bytes_max = \"{TAIL}\"\nrefresh_interval = \"1s\"\nsecurity = \"sasl_plaintext\"\n\
             sasl_mechanism = \"PLAIN\"\nusername = \"{KAFKA_USER}\"\npassword = \"{KAFKA_PASSWORD}\""
        );
        let process = Brucke::start_with(&servers.join("\", \""), server, &kafka, &channels);
        let target = unknown_target();
        *target.lock().expect("no panic") = Some(process.address());
        let front = Proxy::start(runtime, target, Ipv4Addr::LOCALHOST);
        Self { process, front, way }
    }

    /// Returns what `/metrics` says; nothing where nobody answers.
    pub fn metrics(&self) -> Metrics {
        metrics_of(self.process.admin_address())
    }

    /// Asks until there is an answer, for a while.
    pub fn insist_metrics(&self) -> Metrics {
        let deadline = Instant::now() + INSIST_MAX;
        loop {
            let metrics = self.metrics();
            if !metrics.is_empty() || Instant::now() > deadline {
                return metrics;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Returns the status of `/readyz`.
    pub fn readiness(&self) -> Option<u16> {
        self.page("/readyz")?.split(' ').nth(1)?.parse().ok()
    }

    /// Returns by how many seconds the replica's clock is ahead of the system's, as the
    /// head of an answer has it.
    pub fn clock_ahead(&self) -> Option<i64> {
        let answer = self.page("/livez")?;
        let date = answer.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("date").then(|| value.trim())
        });
        let told = DateTimeParser::new().parse_timestamp(date?).ok()?;
        Some(told.as_second() - Timestamp::now().as_second())
    }

    fn page(&self, path: &str) -> Option<String> {
        page(self.process.admin_address(), path)
    }
}

/// Returns what a replica's `/metrics` says; nothing where nobody answers.
pub fn metrics_of(operators: SocketAddr) -> Metrics {
    let page = page(operators, "/metrics").unwrap_or_default();
    let lines = page.lines().filter(|line| TOLD.iter().any(|told| line.starts_with(told)));
    let pairs = lines.filter_map(|line| line.rsplit_once(' '));
    pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}

fn page(operators: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&operators, ANSWER_MAX).ok()?;
    stream.set_read_timeout(Some(ANSWER_MAX)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Returns the address from which a replica comes to Kafka.
fn address(replica: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 10 + u8::try_from(replica).expect("few replicas"))
}

/// Who replicas are to Kafka.
pub const KAFKA_USER: &str = "brucke";
pub const KAFKA_PASSWORD: &str = "only-for-tests";
/// Small, so that who is behind reads history from Kafka.
const TAIL: &str = "2MiB";
const ANSWER_MAX: Duration = Duration::from_secs(1);
const INSIST_MAX: Duration = Duration::from_secs(10);
/// How the names of series begin that faults may move.
const TOLD: [&str; 2] = ["brucke_", "process_start_time_seconds"];
