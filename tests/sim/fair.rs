//! Catching up is fair between tenants: what one of them waits for does not grow with
//! what another wants. A shard and the Kafka side that reads for it, step by step.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use brucke::delivery::connection::Opening;
use brucke::delivery::settings::Settings;
use brucke::delivery::shard::Output;
use brucke::delivery::shard::Shard;
use brucke::delivery::subscription::ConnectionKey;
use brucke::log::batch::BatchBuilder;
use brucke::log::budget::Budget;
use brucke::protocol::frame::Encoding;
use brucke::protocol::frame::ServerFrame;
use brucke::protocol::json;
use brucke::protocol::message::ServerMessage;
use brucke::registry::directory::Directory;
use brucke::registry::intake::Intake;
use brucke::registry::intake::IntakeSettings;
use brucke::registry::message::Bounds;
use brucke::registry::message::ListOffsets;
use brucke::registry::message::Task;
use brucke::registry::message::TopicDescription;
use brucke::types::ids::ShardId;
use brucke::types::ids::Timestamp;
use brucke::types::ids::TopicId;
use brucke::types::moment::Moment;
use brucke::types::record::Owner;
use brucke::types::record::RawRecord;

use crate::channels::configuration;
use crate::channels::tenants;
use crate::ledger::offset;
use crate::replica::Verifier;
use crate::replica::principal;
use crate::socket;
use crate::socket::Incoming;

#[test]
fn a_tenant_with_fifty_times_the_clients_keeps_no_other_waiting_for_its_topic() {
    let mut rng = fastrand::Rng::with_seed(1);
    let small: Vec<Return> = (0..3).map(|_| Return::new(0, "open", || END - 200)).collect();
    let big: Vec<Return> =
        (0..150).map(|_| Return::new(1, "audit", || rng.u64(0..END - 200))).collect();
    check(&small, &big);
}

#[test]
fn a_tenant_far_behind_in_the_same_topic_keeps_no_other_waiting_for_its_sweep() {
    let mut rng = fastrand::Rng::with_seed(2);
    let small = [Return::new(0, "open", || END - 100)];
    let big: Vec<Return> =
        (0..50).map(|_| Return::new(1, "open", || rng.u64(0..END / 2))).collect();
    check(&small, &big);
}

/// Expects that the small tenant has every second reading at least.
fn check(small: &[Return], big: &[Return]) {
    let alone = readings_until_live(small, &[]);
    let beside = readings_until_live(small, big);
    assert!(alone > 10, "{alone} readings say nothing");
    // The readings that were under way already are the other's.
    assert!(beside <= 2 * alone + READERS, "{beside} readings, and {alone} alone");
}

/// A client that comes back.
struct Return {
    tenant: usize,
    channel: &'static str,
    positions: Vec<u64>,
}

impl Return {
    fn new(tenant: usize, channel: &'static str, position: impl FnMut() -> u64) -> Self {
        let positions = std::iter::repeat_with(position).take(PARTITIONS).collect();
        Self { tenant, channel, positions }
    }

    fn request(&self) -> String {
        let positions: Vec<String> =
            (0..).zip(&self.positions).map(|(p, at): (usize, _)| format!("\"{p}\":{at}")).collect();
        format!(
            r#"{{"type":"subscribe","id":1,"channel":"{}","from":{{"positions":{{{}}},"topic_id":"{}"}}}}"#,
            self.channel,
            positions.join(","),
            topic_id()
        )
    }
}

/// Lets the large tenant's clients come back first; returns how many chunks of history
/// are read until all clients of the small one are live.
fn readings_until_live(small: &[Return], big: &[Return]) -> usize {
    let mut stage = Stage::new();
    for client in big {
        stage.come_back(client);
    }
    stage.settle();
    let small: Vec<ConnectionKey> = small.iter().map(|client| stage.come_back(client)).collect();
    stage.settle();
    let mut readings = 0;
    while !small.iter().all(|client| stage.live.contains(client)) {
        stage.read();
        readings += 1;
        stage.settle();
    }
    readings
}

/// A shard, the mind of its Kafka side, and topics that have ended.
struct Stage {
    directory: Arc<Directory>,
    intake: Intake,
    shard: Shard,
    /// Chunks that are being read.
    under_way: VecDeque<Task>,
    hearing: BTreeMap<ConnectionKey, socket::Reader>,
    live: BTreeSet<ConnectionKey>,
    now: Moment,
    rng: fastrand::Rng,
}

impl Stage {
    fn new() -> Self {
        let directory = Arc::new(Directory::new(1));
        let settings = IntakeSettings {
            refresh_interval: Duration::from_secs(3_600),
            linger: Duration::from_secs(3_600),
            retry_interval: Duration::from_secs(1),
            history_readers: READERS,
            watched: Vec::new(),
        };
        let budget = Budget::new(1 << 20, HISTORY_BYTES_MAX);
        let shard = Shard::new(
            ShardId::new(0),
            Settings::default(),
            Arc::clone(&directory),
            configuration(),
            Arc::new(Verifier),
            1,
        );
        Self {
            intake: Intake::new(settings, Arc::clone(&directory), budget),
            directory,
            shard,
            under_way: VecDeque::new(),
            hearing: BTreeMap::new(),
            live: BTreeSet::new(),
            now: Moment { instant: Instant::now(), wall: Timestamp::from_millis(0) },
            rng: fastrand::Rng::with_seed(1),
        }
    }

    fn come_back(&mut self, client: &Return) -> ConnectionKey {
        let principal = Some(Arc::new(principal(&tenants()[client.tenant])));
        let (encoding, user_agent, address, trace) = (Encoding::Json, None, None, None);
        let opening = Opening { encoding, principal, user_agent, address, trace };
        let key = self.shard.handle_open(opening, self.now).expect("there is room");
        self.hearing.insert(key, socket::Reader::default());
        let mut bytes = Vec::new();
        socket::write(&mut bytes, socket::TEXT, client.request().as_bytes(), &mut self.rng);
        self.shard.handle_bytes(key, &mut bytes, self.now);
        key
    }

    /// Does all that can be done without reading history.
    fn settle(&mut self) {
        loop {
            let mut idle = true;
            while let Some(output) = self.shard.poll_output() {
                idle = false;
                match output {
                    Output::Command(command) => {
                        self.intake.handle_command(command, self.now.instant);
                    }
                    Output::Write(key) => self.hear(key),
                    Output::Look(_) => {}
                    Output::Finish(_) | Output::Abort(_) => panic!("nobody gave a reason to end"),
                }
            }
            while let Some(task) = self.intake.poll_task() {
                idle = false;
                self.take(task);
            }
            for event in self.directory.mailbox(ShardId::new(0)).take() {
                idle = false;
                self.shard.handle_event(event, self.now);
            }
            if self.shard.has_work() {
                idle = false;
                self.shard.handle_turn(self.now);
            }
            // A new sweep waits a moment for others who might join it.
            let soon = self.now.instant + Duration::from_millis(100);
            match self.intake.next_deadline().filter(|at| *at <= soon) {
                Some(at) if idle => {
                    self.now.instant = at.max(self.now.instant);
                    self.intake.handle_timeout(self.now.instant);
                }
                None if idle => return,
                _ => {}
            }
        }
    }

    fn take(&mut self, task: Task) {
        let now = self.now.instant;
        match task {
            Task::Describe { topics } => {
                for topic in topics {
                    let description =
                        TopicDescription { topic_id: topic_id(), partitions: PARTITIONS };
                    self.intake.handle_described(&topic, Ok(description), now);
                }
            }
            Task::ListOffsets(ListOffsets { request, partitions, .. }) => {
                let (start, end) = (offset(0), offset(END));
                let bounds = Bounds { start, end, at_timestamp: end, ..Bounds::default() };
                self.intake.handle_offsets(request, Ok(vec![Some(bounds); partitions]), now);
            }
            Task::Assign { .. } | Task::Unassign { .. } => {}
            Task::ReadHistory { .. } => self.under_way.push_back(task),
        }
    }

    /// Ends the reading that began first.
    fn read(&mut self) {
        let task = self.under_way.pop_front().expect("somebody waits for something");
        let Task::ReadHistory { source, partition, from, until, .. } = task else {
            panic!("only readings take time");
        };
        let end = until.as_u64().min(from.offset.as_u64() + CHUNK);
        let mut batch = BatchBuilder::new(from.offset);
        for at in from.offset.as_u64()..end {
            let record = RawRecord {
                offset: offset(at),
                timestamp: Timestamp::from_millis(0),
                key: Some(b"k"),
                value: Some(b"7"),
                headers: &[],
            };
            batch.push(&record, Owner::Shared, record.key);
        }
        let batch = batch.finish();
        let to = batch.to();
        partition.insert_history(from.generation, batch);
        self.directory.wake(source, partition.id());
        self.intake.handle_history(source, partition.id(), Ok(to), self.now.instant);
    }

    /// Lets a client read all that there is for it.
    fn hear(&mut self, key: ConnectionKey) {
        let outbox = self.shard.outbox(key).expect("it is connected");
        let bytes: Vec<u8> = outbox.pieces().flat_map(|piece| piece.to_vec()).collect();
        self.shard.handle_written(key, bytes.len(), self.now);
        let reader = self.hearing.get_mut(&key).expect("it came back");
        reader.push(&bytes);
        while let Some(incoming) = reader.next().expect("frames are right") {
            let Incoming::Text(text) = incoming else { continue };
            match json::decode_server(&text).expect("frames are right") {
                ServerMessage::Frame(ServerFrame::Live { .. }) => drop(self.live.insert(key)),
                ServerMessage::Frame(ServerFrame::Error(error)) => panic!("{error:?}"),
                _ => {}
            }
        }
    }
}

fn topic_id() -> TopicId {
    TopicId::from_kafka(0, 1)
}

const PARTITIONS: usize = 6;
/// The next offset of each partition.
const END: u64 = 2_000;
/// Offsets of one reading.
const CHUNK: u64 = 50;
const READERS: usize = 2;
/// Some of what is read is given up again before all have read it.
const HISTORY_BYTES_MAX: u64 = 200_000;
