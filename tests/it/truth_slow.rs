//! Clients that read slowly are kept, cost no more than their bounds, and are no
//! burden to the others.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use brucke::protocol::frame::StartAt;
use crossbeam_channel::Receiver;
use crossbeam_channel::RecvTimeoutError;
use crossbeam_channel::bounded;
use crossbeam_channel::tick;

use crate::support::kafka_client::NewRecord;
use crate::support::kafka_cluster::KafkaCluster;
use crate::support::kafka_cluster::fresh_topic;
use crate::support::raw_client::dial_narrow;
use crate::support::server_process::ServerProcess;
use crate::support::server_process::shared_feed;
use crate::support::watcher::Heard;
use crate::support::watcher::Watcher;
use crate::support::watcher::Wish;

#[test]
fn slow_readers_are_kept_and_cost_the_others_nothing() {
    let alone = run(0);
    let beside = run(SLOW);
    println!("{FAST} clients alone:         {alone}");
    println!("{FAST} beside {SLOW} slow ones: {beside}");
}

/// Latencies of the fast clients, from before the producer's send.
struct Latencies(Vec<Duration>);

impl std::fmt::Display for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = |percent: usize| self.0[(self.0.len() - 1) * percent / 100];
        write!(f, "p50 {:?}, p99 {:?}, max {:?}", at(50), at(99), at(100))
    }
}

/// Produces for a few seconds to the fast clients and so many slow ones, and
/// then lets these hurry. All hear everything.
fn run(slow: usize) -> Latencies {
    let topic = fresh_topic("slow");
    let cluster = KafkaCluster::shared();
    cluster.admin().create_topic(&topic, 1, &[]);
    let settings = [
        ("KAFKA_TAIL_BYTES_MAX", "1MiB"),
        ("SERVER_UNSENT_BYTES_MAX", "128KiB"),
        ("SERVER_SOCKET_SEND_BUFFER", "16KiB"),
    ];
    let server = ServerProcess::start_with(&shared_feed(&topic), &settings);
    let wish = Wish::new(StartAt::Latest);
    let began = Instant::now();
    let (hurry, hurried) = bounded::<()>(0);
    thread::scope(|scope| {
        let wish = &wish;
        let slow: Vec<_> = (0..slow)
            .map(|_| {
                let stream = SlowStream::connect(&server, hurried.clone());
                let mut watcher = Watcher::over(stream, server.clients, wish).expect("it begins");
                scope.spawn(move || expect_all(&mut watcher, |_| {}))
            })
            .collect();
        let fast: Vec<_> = (0..FAST)
            .map(|_| {
                let mut watcher = Watcher::start(server.clients, wish);
                scope.spawn(move || {
                    let mut latencies = Vec::new();
                    expect_all(&mut watcher, |sent| latencies.push(began.elapsed() - sent));
                    latencies
                })
            })
            .collect();
        produce(&topic, began, || check_bounds(&server));
        let mut latencies: Vec<_> =
            fast.into_iter().flat_map(|fast| fast.join().expect("it hears all")).collect();
        latencies.sort_unstable();
        check_bounds(&server);
        assert!(server.metric("brucke_tail_limit_bytes") > 0.0, "bounds are told");
        assert!(slow.iter().all(|slow| !slow.is_finished()), "slow is what they were to be");
        let behind = server.metric("brucke_subscriptions_behind");
        assert!(behind >= slow.len() as f64, "{behind}: the server feels it");
        drop(hurry);
        for slow in slow {
            slow.join().expect("it hears all in the end");
        }
        let page = server.admin_page("/metrics");
        let mut closes = page
            .lines()
            .filter(|line| line.starts_with("brucke_closes_total{") && !line.ends_with(" 0"));
        assert_eq!(closes.find(|line| !line.contains("\"normal\"")), None);
        Latencies(latencies)
    })
}

/// Produces at an even pace; each value begins with the moment of its send.
fn produce(topic: &str, began: Instant, mut now_and_then: impl FnMut()) {
    let producer = KafkaCluster::shared().producer();
    let pace = tick(PACE);
    let sent: Vec<_> = (0..RECORDS)
        .map(|index| {
            pace.recv().expect("a clock goes on");
            if index % 50 == 0 {
                now_and_then();
            }
            let moment = began.elapsed().as_micros();
            let value = format!("{moment} {:->width$}", index, width = VALUE_BYTES);
            producer.enqueue(topic, &NewRecord::new(0, "k", &value))
        })
        .collect();
    for delivery in sent {
        producer.wait(delivery);
    }
}

/// Hears every record in order, and hands on the moment in each.
fn expect_all<S: Read + Write>(watcher: &mut Watcher<S>, mut hear: impl FnMut(Duration)) {
    let mut next = 0;
    while next < RECORDS {
        match watcher.next() {
            Heard::Live => {}
            Heard::Record { offset, value: Some(value), .. } if offset == next => {
                let micros = value.split(' ').next().and_then(|moment| moment.parse().ok());
                hear(Duration::from_micros(micros.expect("a moment")));
                next += 1;
            }
            other => panic!("instead of record {next}: {other:?}"),
        }
    }
}

/// Memory stays where it may be.
fn check_bounds(server: &ServerProcess) {
    let (tail, history) =
        (server.metric("brucke_tail_bytes"), server.metric("brucke_history_bytes"));
    assert!(tail <= server.metric("brucke_tail_limit_bytes"), "{tail}");
    assert!(history <= server.metric("brucke_history_limit_bytes"), "{history}");
    let unsent = server.metric("brucke_unsent_bytes");
    // One frame may go beyond the bound of each connection.
    let frame_bytes = 64 * 1_024 + 2 * VALUE_BYTES;
    let most = (FAST + SLOW) * (128 * 1_024 + frame_bytes);
    assert!(unsent <= most as f64, "{unsent}");
}

/// A stream that reads 1 KB a second until it may hurry.
struct SlowStream {
    stream: TcpStream,
    hurried: Receiver<()>,
    next: Instant,
}

impl SlowStream {
    fn connect(server: &ServerProcess, hurried: Receiver<()>) -> Self {
        // As little as the system allows, so that the server feels it.
        let stream = dial_narrow(server.clients, 4_096);
        Self { stream, hurried, next: Instant::now() - Duration::from_secs(1) }
    }
}

impl Read for SlowStream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.hurried.recv_deadline(self.next) {
            Err(RecvTimeoutError::Disconnected) => self.stream.read(bytes),
            Ok(()) | Err(RecvTimeoutError::Timeout) => {
                let most = bytes.len().min(1_024);
                let read = self.stream.read(&mut bytes[..most])?;
                // What was not read in the last second may be read at once.
                let earliest = Instant::now() - Duration::from_secs(1);
                self.next = self.next.max(earliest) + Duration::from_secs(1) * read as u32 / 1_024;
                Ok(read)
            }
        }
    }
}

impl Write for SlowStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

const FAST: usize = 95;
const SLOW: usize = 5;
const RECORDS: u64 = 400;
const VALUE_BYTES: usize = 4_000;
const PACE: Duration = Duration::from_millis(10);
