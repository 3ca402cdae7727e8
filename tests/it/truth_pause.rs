//! A client that reads nothing for a while goes on as soon as it reads again.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use brucke::protocol::frame::StartAt;

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
fn who_stops_reading_for_a_while_goes_on_at_once() {
    let topic = fresh_topic("pause");
    let cluster = KafkaCluster::shared();
    cluster.admin().create_topic(&topic, 1, &[]);
    let settings = [("SERVER_HEARTBEAT_INTERVAL", "2s")];
    let server = ServerProcess::start_with(&shared_feed(&topic), &settings);
    let stream = WatchedStream::connect(&server);
    let mut watcher =
        Watcher::over(stream, server.clients, &Wish::new(StartAt::Latest)).expect("it begins");
    while watcher.next() != Heard::Live {}

    let stop = AtomicBool::new(false);
    let (last, worst) = thread::scope(|scope| {
        let producing = scope.spawn(|| {
            let producer = cluster.producer();
            let value = "v".repeat(VALUE_BYTES);
            let mut last = 0;
            while !stop.load(Relaxed) {
                let records = vec![NewRecord::new(0, "k", &value); BATCH];
                last = *producer.send(&topic, &records).last().expect("a batch");
                thread::sleep(PACE);
            }
            last
        });
        thread::sleep(PAUSE);
        assert!(server.metric("brucke_fell_behind_total") >= 1.0, "nothing was felt");
        watcher.stream().wake();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            watcher.next();
        }
        let worst = watcher.stream().worst;
        stop.store(true, Relaxed);
        (producing.join().expect("records are produced"), worst)
    });
    loop {
        if let Heard::Record { offset, .. } = watcher.next()
            && offset == last as u64
        {
            break;
        }
    }
    assert!(worst < Duration::from_secs(1), "nothing came for {worst:?}");
}

/// A stream that notes for how long nothing came.
struct WatchedStream {
    stream: TcpStream,
    last: Instant,
    worst: Duration,
}

impl WatchedStream {
    fn connect(server: &ServerProcess) -> Self {
        let stream = dial_narrow(server.clients, 32 << 10);
        Self { stream, last: Instant::now(), worst: Duration::ZERO }
    }

    fn wake(&mut self) {
        (self.last, self.worst) = (Instant::now(), Duration::ZERO);
    }
}

impl Read for WatchedStream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(bytes)?;
        self.worst = self.worst.max(self.last.elapsed());
        self.last = Instant::now();
        Ok(read)
    }
}

impl Write for WatchedStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

const PAUSE: Duration = Duration::from_secs(10);
const PACE: Duration = Duration::from_millis(10);
const BATCH: usize = 20;
const VALUE_BYTES: usize = 100;
