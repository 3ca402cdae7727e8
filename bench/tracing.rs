//! Cost of tracing: the same records to as many clients, from a server that does
//! not trace, and from servers to which producers say that none, one in a hundred
//! or each of the records is traced. They take turns, so that the ratios hold.

use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use anyhow::ensure;

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

/// Measures, and prints the table.
///
/// # Errors
///
/// When a client does not get exactly the records that it is to get, or a
/// collector gets nothing where it is to get spans.
pub fn measure(plan: &Plan, cluster: &Cluster) -> Result<()> {
    say("tracing");
    let ready = plan.ready.iter().copied().max().unwrap_or(1);
    let mut sides = Vec::new();
    for (topic, traced) in SIDES {
        sides.push(Side::start(plan, cluster, topic, traced)?);
    }
    for side in &mut sides {
        for _ in 0..WARM_UP_ROUNDS {
            side.round(ready)?;
        }
        side.collector.bytes.store(0, Relaxed);
    }
    for _ in 0..plan.runs {
        for side in &mut sides {
            side.run(ready)?;
        }
    }
    let title =
        format!("Cost of tracing, {} clients of one channel, {ready} records ready", plan.clients);
    table(
        &title,
        &[
            "traced records",
            "Brücke, µs CPU a delivery",
            "ratio to off",
            "KB to the collector a round",
        ],
    );
    // The last spans are sent within the interval.
    thread::sleep(FLUSH);
    let off = sides[0].micros.median();
    let rounds = (plan.runs * plan.rounds) as f64;
    for side in &sides {
        let bytes = side.collector.bytes.load(Relaxed);
        // Of few records, one in so many may be none.
        let right = match side.traced {
            Traced::Off | Traced::None => bytes == 0,
            Traced::OneIn(count) => bytes > 0 || count > 1,
        };
        ensure!(right, "{}: the collector got {bytes} bytes", side.traced.name());
        row(&[
            side.traced.name(),
            side.micros.to_string(),
            figure(side.micros.median() / off),
            figure(bytes as f64 / rounds / 1e3),
        ]);
    }
    println!(
        "\nEach record has a `traceparent`, the same bytes in every row but for its flag. The collector takes \
         what it gets by HTTP and keeps nothing. Of each fan-out up to 16 clients have spans.\n"
    );
    Ok(())
}

/// What producers say to one server.
#[derive(Debug, Clone, Copy)]
enum Traced {
    Off,
    None,
    /// Each so many records has its flag set.
    OneIn(u64),
}

impl Traced {
    fn name(self) -> String {
        match self {
            Self::Off => "tracing off".to_owned(),
            Self::None => "0 %".to_owned(),
            Self::OneIn(count) => format!("{} %", 100 / count),
        }
    }
}

/// A server, its clients, what feeds it and what it tells of it.
struct Side {
    plan: Plan,
    server: Server,
    fleet: Fleet,
    producer: Producer,
    collector: Collector,
    topic: &'static str,
    traced: Traced,
    sent: u64,
    micros: Series,
}

impl Side {
    fn start(plan: &Plan, cluster: &Cluster, topic: &'static str, traced: Traced) -> Result<Self> {
        let collector = Collector::start()?;
        let settings = match traced {
            Traced::Off => String::new(),
            Traced::None | Traced::OneIn(_) => format!(
                "[tracing]\nprotocol = \"http/protobuf\"\nendpoint = \"http://{}\"",
                collector.address
            ),
        };
        let server = Server::start(plan, cluster, &settings)?;
        let mut fleet = Fleet::new()?;
        let requests = vec![vec![subscribe_request(1, topic, None)]; plan.clients];
        fleet.subscribe(server.address, requests)?;
        let producer = cluster.producer(LINGER)?;
        let (plan, micros) = (plan.clone(), Series::default());
        Ok(Self { plan, server, fleet, producer, collector, topic, traced, sent: 0, micros })
    }

    /// Measures as many rounds as the plan has.
    fn run(&mut self, ready: usize) -> Result<()> {
        let cpu = self.server.process.cpu()?;
        for _ in 0..self.plan.rounds {
            self.round(ready)?;
        }
        let deliveries = (self.plan.rounds * self.plan.clients * ready) as f64;
        self.micros.push(micros(self.server.process.cpu()? - cpu) / deliveries);
        Ok(())
    }

    /// Has so many records come to every client.
    fn round(&mut self, ready: usize) -> Result<()> {
        let Self { plan, fleet, producer, topic, traced, sent, .. } = self;
        fleet.expect_each(ready as u64, || {
            for _ in 0..ready {
                *sent += 1;
                let flag = match traced {
                    Traced::OneIn(count) if sent.is_multiple_of(*count) => "01",
                    _ => "00",
                };
                let traceparent = format!("00-{:032x}-{:016x}-{flag}", *sent, *sent);
                let headers = [("traceparent", traceparent.as_bytes())];
                producer.send_with(topic, "key-1", &stamped_value(plan.value_bytes), &headers)?;
            }
            Ok(())
        })
    }
}

/// Takes requests by HTTP, and counts their bytes.
struct Collector {
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
}

impl Collector {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (address, bytes) = (listener.local_addr()?, Arc::new(AtomicU64::new(0)));
        let count = Arc::clone(&bytes);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A server that ends is not missed.
                let _ = answer(&stream, &count);
            }
        });
        Ok(Self { address, bytes })
    }
}

/// Answers the requests of one connection until it ends.
fn answer(stream: &TcpStream, bytes: &AtomicU64) -> Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            if line == "\r\n" {
                break;
            }
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
        bytes.fetch_add(length, Relaxed);
        let mut writer = stream;
        writer.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n",
        )?;
    }
}

/// Topics and what their producers say.
const SIDES: [(&str, Traced); 4] = [
    ("tracing-off", Traced::Off),
    ("tracing-none", Traced::None),
    ("tracing-some", Traced::OneIn(100)),
    ("tracing-all", Traced::OneIn(1)),
];
/// Rounds before anything is measured.
const WARM_UP_ROUNDS: usize = 5;
/// How long the producer waits, so that records which are ready at once also
/// come at once.
const LINGER: Duration = Duration::from_millis(1);
/// Longer than spans wait before they are sent.
const FLUSH: Duration = Duration::from_millis(1_500);
