//! The join of history, tail and live by itself, under shuttle: whoever appends,
//! whoever reads back history and the shard take their steps in every order that
//! the scheduler thinks of, and each client gets each offset once.
//!
//! `JOIN_SCHEDULES=n` says how many orders are tried; `make join` tries 100,000.

use std::collections::BTreeMap;
use std::env;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use brucke::client::ranges::RangeChecker;
use brucke::delivery::settings::Settings;
use brucke::delivery::shard::Output;
use brucke::delivery::shard::Shard;
use brucke::delivery::subscription::ConnectionKey;
use brucke::log::batch::Batch;
use brucke::log::batch::BatchBuilder;
use brucke::log::budget::Budget;
use brucke::log::partition::SharedPartition;
use brucke::protocol::frame::ServerFrame;
use brucke::protocol::json;
use brucke::protocol::message::ServerMessage;
use brucke::registry::directory::Directory;
use brucke::registry::message::Bounds;
use brucke::registry::message::Command;
use brucke::registry::message::Event;
use brucke::types::ids::Offset;
use brucke::types::ids::PartitionId;
use brucke::types::ids::ShardId;
use brucke::types::ids::SourceId;
use brucke::types::ids::Timestamp;
use brucke::types::ids::TopicId;
use brucke::types::moment::Moment;
use brucke::types::record::Owner;
use brucke::types::record::RawRecord;
use shuttle::rand::Rng as _;
use shuttle::sync::Mutex;
use shuttle::thread;

use crate::channels::configuration;
use crate::ledger::offset;
use crate::replica::Verifier;
use crate::replica::opening;
use crate::socket;
use crate::socket::Incoming;

#[test]
fn history_tail_and_live_join_whatever_the_order() {
    let schedules = env::var("JOIN_SCHEDULES").map_or(SCHEDULES, |text| {
        text.parse().unwrap_or_else(|error| panic!("JOIN_SCHEDULES={text}: {error}"))
    });
    shuttle::check_random(join, schedules);
    println!("{schedules} orders, each offset once for each client");
}

/// What the threads share beside the log itself.
struct Stage {
    log: Arc<SharedPartition>,
    directory: Arc<Directory>,
    /// The next offset that Kafka gives.
    end: Mutex<u64>,
    /// Offsets that somebody waits for.
    demands: Mutex<Vec<Offset>>,
    /// Whether the clients have everything.
    done: Mutex<bool>,
}

/// One order of everything.
pub(crate) fn join() {
    // Little memory: what nobody has read yet is given up and read back.
    let budget = Budget::new(600, 500);
    let (partition, topic_id) = (PartitionId::from_index(0), TopicId::from_kafka(0, 1));
    let log = SharedPartition::new(partition, topic_id, offset(0), offset(FIRST), &budget);
    let directory = Arc::new(Directory::new(1));
    let stage = Arc::new(Stage {
        log,
        directory,
        end: Mutex::new(FIRST),
        demands: Mutex::default(),
        done: Mutex::new(false),
    });
    let appends = thread::spawn({
        let stage = Arc::clone(&stage);
        move || append(&stage)
    });
    let reads = thread::spawn({
        let stage = Arc::clone(&stage);
        move || read_back(&stage)
    });
    serve(&stage);
    *stage.done.lock().expect("nobody panics with it") = true;
    appends.join().expect("it appends all");
    reads.join().expect("it reads what is wanted");
}

/// The live reader: appends what comes, a few records at a time.
fn append(stage: &Stage) {
    let mut rng = shuttle::rand::thread_rng();
    let mut at = FIRST;
    while at < LAST {
        let to = LAST.min(at + rng.gen_range(1..=3));
        *stage.end.lock().expect("nobody panics with it") = to;
        thread::yield_now();
        let generation = stage.log.end().generation;
        stage.log.append(generation, batch(at, to));
        thread::yield_now();
        stage.directory.wake(SOURCE, stage.log.id());
        at = to;
    }
}

/// The reader of history: brings what is wanted, after a while.
fn read_back(stage: &Stage) {
    let mut rng = shuttle::rand::thread_rng();
    while !*stage.done.lock().expect("nobody panics with it") {
        let Some(from) = stage.demands.lock().expect("nobody panics with it").pop() else {
            thread::yield_now();
            continue;
        };
        let Some(until) = stage.log.history_until(from) else {
            stage.directory.wake(SOURCE, stage.log.id());
            continue;
        };
        thread::yield_now();
        let at = from.as_u64();
        let generation = stage.log.end().generation;
        let to = until.as_u64().min(at + rng.gen_range(1..=4));
        let read = batch(at, to);
        thread::yield_now();
        stage.log.insert_history(generation, read);
        thread::yield_now();
        stage.directory.wake(SOURCE, stage.log.id());
    }
}

/// The worker: lets the shard serve a client that begins at the oldest record and
/// one that begins at the newest, both of which read when it pleases them.
fn serve(stage: &Stage) {
    let settings = Settings { unsent_bytes_max: 700, ..Settings::default() };
    let (shard, seed) = (ShardId::new(0), 1);
    let (directory, channels) = (Arc::clone(&stage.directory), configuration());
    let mut shard = Shard::new(shard, settings, directory, channels, Arc::new(Verifier), seed);
    let mut now = Moment { instant: Instant::now(), wall: Timestamp::from_millis(0) };
    let mut clients = ["earliest", "latest"].map(|from| Client::new(&mut shard, from, now));
    let mut rng = shuttle::rand::thread_rng();
    for _ in 0..STEPS_MAX {
        thread::yield_now();
        for event in stage.directory.mailbox(ShardId::new(0)).take() {
            shard.handle_event(event, now);
        }
        thread::yield_now();
        if shard.has_work() {
            shard.handle_turn(now);
        }
        now.instant += Duration::from_millis(20);
        shard.handle_timeout(now);
        obey(stage, &mut shard, now);
        for client in &mut clients {
            if rng.gen_range(0..3) == 0 {
                client.read(&mut shard, now);
            }
        }
        if clients.iter().all(Client::has_all) {
            return;
        }
    }
    panic!("after {STEPS_MAX} steps clients stand at {:?}", clients.map(|client| client.ranges));
}

/// Does what the shard wants done.
fn obey(stage: &Stage, shard: &mut Shard, now: Moment) {
    while let Some(output) = shard.poll_output() {
        match output {
            Output::Command(Command::Follow { source, ticket, shard: follower }) => {
                assert_eq!(source, SOURCE, "there is one source");
                stage.directory.set_followers(source, vec![follower]);
                let partitions = vec![Arc::clone(&stage.log)];
                shard.handle_event(Event::Ready { source, ticket, partitions }, now);
            }
            Output::Command(Command::Resolve { ticket, .. }) => {
                let end = offset(*stage.end.lock().expect("nobody panics with it"));
                let bounds = Bounds { end, at_timestamp: end, ..Bounds::default() };
                let result = Ok(vec![Some(bounds)]);
                shard.handle_event(Event::Resolved { ticket, result }, now);
            }
            Output::Command(Command::Demand { offset, .. }) => {
                stage.demands.lock().expect("nobody panics with it").push(offset);
            }
            Output::Abort(_) | Output::Finish(_) => panic!("nobody gave a reason to end"),
            Output::Command(_) | Output::Write(_) | Output::Look(_) => {}
        }
    }
}

/// A client that keeps what it got.
struct Client {
    key: ConnectionKey,
    reader: socket::Reader,
    ranges: RangeChecker,
    begun: Option<u64>,
    /// How often each offset reached it.
    got: BTreeMap<u64, u32>,
}

impl Client {
    fn new(shard: &mut Shard, from: &str, now: Moment) -> Self {
        let key = shard.handle_open(opening(), now).expect("there is room");
        let asked = format!(r#"{{"type":"subscribe","id":1,"channel":"open","from":"{from}"}}"#);
        let (mut bytes, mut rng) = (Vec::new(), fastrand::Rng::with_seed(1));
        socket::write(&mut bytes, socket::TEXT, asked.as_bytes(), &mut rng);
        shard.handle_bytes(key, &mut bytes, now);
        let (reader, ranges) = (socket::Reader::default(), RangeChecker::new());
        Self { key, reader, ranges, begun: None, got: BTreeMap::new() }
    }

    fn read(&mut self, shard: &mut Shard, now: Moment) {
        let outbox = shard.outbox(self.key).expect("it is connected");
        let bytes: Vec<u8> = outbox.pieces().flat_map(|piece| piece.to_vec()).collect();
        shard.handle_written(self.key, bytes.len(), now);
        self.reader.push(&bytes);
        while let Some(incoming) = self.reader.next().expect("frames are right") {
            let Incoming::Text(text) = incoming else { continue };
            self.hear(json::decode_server(&text).expect("frames are right"));
        }
    }

    fn hear(&mut self, message: ServerMessage) {
        match message {
            ServerMessage::Records(frame) => {
                let offsets = frame.records.iter().map(|record| record.offset);
                let (partition, from, to) = (frame.partition, frame.from, frame.to);
                let repeats = self.ranges.handle_records(partition, from, to, frame.epoch, offsets);
                let repeats = repeats.expect("ranges join");
                for record in &frame.records[repeats..] {
                    *self.got.entry(record.offset.as_u64()).or_default() += 1;
                }
            }
            ServerMessage::Frame(ServerFrame::Subscribed {
                topic_id, positions, epochs, ..
            }) => {
                self.begun = positions.values().next().map(|at| at.as_u64());
                let begun = self.ranges.handle_subscribed(topic_id, &positions, &epochs);
                begun.expect("it begins once");
            }
            ServerMessage::Frame(ServerFrame::Progress { to, epochs, .. }) => {
                self.ranges.handle_progress(&to, &epochs).expect("progress of its partition");
            }
            ServerMessage::Frame(ServerFrame::Live { .. } | ServerFrame::Welcome { .. }) => {}
            ServerMessage::Frame(other) => panic!("not expected: {other:?}"),
        }
    }

    /// Says whether it stands at the end; then it has got each offset once.
    fn has_all(&self) -> bool {
        let Some(begun) = self.begun else { return false };
        if self.ranges.position(PartitionId::from_index(0)) < offset(LAST) {
            return false;
        }
        let expected: BTreeMap<u64, u32> = (begun..LAST).map(|at| (at, 1)).collect();
        assert_eq!(self.got, expected, "each offset from {begun} on, once");
        true
    }
}

fn batch(from: u64, to: u64) -> Batch {
    let mut batch = BatchBuilder::new(offset(from));
    for at in from..to {
        let record = RawRecord {
            offset: offset(at),
            timestamp: Timestamp::from_millis(0),
            key: None,
            value: Some(b"7777777777"),
            headers: &[],
        };
        batch.push(&record, Owner::Shared, None);
    }
    batch.finish()
}

/// The first source that a directory numbers.
const SOURCE: SourceId = SourceId::new(0);
/// Where the tail begins, and where everything ends.
const FIRST: u64 = 4;
const LAST: u64 = 16;
/// Orders that a run of the tests tries.
const SCHEDULES: usize = 3_000;
/// Steps of the shard after which somebody is stuck.
const STEPS_MAX: usize = 20_000;
