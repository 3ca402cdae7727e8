//! One shard, step by step: what happens too seldom in the simulation to wait
//! for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use brucke::delivery::outbox::Outbox;
use brucke::delivery::settings::Settings;
use brucke::delivery::shard::Output;
use brucke::delivery::shard::Shard;
use brucke::delivery::subscription::ConnectionKey;
use brucke::log::batch::BatchBuilder;
use brucke::log::budget::Budget;
use brucke::log::partition::SharedPartition;
use brucke::protocol::error_code::ErrorCode;
use brucke::protocol::frame::ErrorFrame;
use brucke::protocol::frame::Gap;
use brucke::protocol::frame::GapReason;
use brucke::protocol::frame::ServerFrame;
use brucke::protocol::json;
use brucke::protocol::message::ServerMessage;
use brucke::registry::directory::Directory;
use brucke::registry::message::Bounds;
use brucke::registry::message::Command;
use brucke::registry::message::Event;
use brucke::types::ids::PartitionId;
use brucke::types::ids::RequestId;
use brucke::types::ids::ShardId;
use brucke::types::ids::SourceId;
use brucke::types::ids::Timestamp;
use brucke::types::ids::TopicId;
use brucke::types::moment::Moment;
use brucke::types::record::Owner;
use brucke::types::record::RawRecord;

use crate::channels::Kind;
use crate::channels::configuration;
use crate::channels::configuration_without;
use crate::ledger::offset;
use crate::replica::Verifier;
use crate::replica::opening;
use crate::socket;
use crate::socket::Incoming;

#[test]
fn a_client_that_joined_ahead_of_its_feed_hears_that_the_log_became_shorter() {
    let mut script = Script::start();
    script.subscribe(&["quiet"]);
    script.append("another", 10);
    // It begins at 1, where its feed of the quiet key has been told of 0 only.
    let late = script.subscribe(&["quiet", "busy"]);
    script.hear(late);
    script.append("busy", UNSENT_BYTES_MAX);
    // Nobody has read that, so there is no room for another, and it falls behind.
    script.append("quiet", UNSENT_BYTES_MAX);
    script.log.truncate(offset(0));
    script.advance();
    let gaps = script.hear(late).into_iter().filter_map(|message| match message {
        ServerMessage::Frame(ServerFrame::Gap(Gap { to, reason, .. })) => Some((to, reason)),
        _ => None,
    });
    let told = (offset(0), GapReason::Truncated);
    assert_eq!(gaps.collect::<Vec<_>>(), [told, told], "each of its subscriptions is told");
}

#[test]
fn who_waits_for_the_start_of_a_channel_that_is_taken_out_is_told_by_its_request() {
    let mut script = Script::start();
    let live = script.subscribe(&["busy"]);
    script.hear(live);
    let source = script.source;
    let waits = script.ask("audit", 7);
    let errors = |heard: Vec<ServerMessage>| -> Vec<ErrorFrame> {
        let error = |message| match message {
            ServerMessage::Frame(ServerFrame::Error(error)) => Some(error),
            _ => None,
        };
        heard.into_iter().filter_map(error).collect()
    };
    let settings = Settings { connections_max: 1, ..Settings::default() };
    let withdrawn = BTreeSet::from([Kind::Audit]);
    let ended = script.shard.handle_config(configuration_without(&withdrawn), settings);
    assert_eq!(ended, 1);
    let told = errors(script.hear(waits));
    let told: Vec<_> = told.iter().map(|error| (error.id, error.sub, error.code)).collect();
    assert_eq!(told, [(Some(RequestId::new(7)), None, ErrorCode::ChannelRemoved)]);
    script.source = source;
    script.append("busy", 10);
    let heard = script.hear(live);
    assert!(heard.iter().any(|message| matches!(message, ServerMessage::Records(_))), "{heard:?}");
    assert!(!script.shard.has_room(), "nobody more is let in, and nobody is sent away");
    assert_eq!(script.shard.connections(), 2);
}

#[test]
fn who_asks_on_and_reads_nothing_does_not_set_how_much_waits_for_it() {
    let mut script = Script::start();
    let client = script.subscribe(&["quiet"]);
    script.hear(client);
    let positions: Vec<String> = (0..200).map(|partition| format!("\"{partition}\":5")).collect();
    let positions = positions.join(",");
    let foreign = TopicId::from_kafka(0, 7);
    let waits = |script: &Script| script.shard.outbox(client).map_or(0, Outbox::bytes);
    let (mut longest, mut before) = (0, 0);
    for id in 10..30 {
        script.send(
            client,
            &format!(
                "{{\"type\":\"subscribe\",\"id\":{id},\"channel\":\"open\",\"keys\":[\"{id}\"],\"on_gap\":\"stop\",\
                 \"from\":{{\"topic_id\":\"{foreign}\",\"positions\":{{{positions}}}}}}}"
            ),
        );
        longest = longest.max(waits(&script) - before);
        before = waits(&script);
    }
    assert!(longest > 8 * UNSENT_BYTES_MAX, "one answer of {longest} bytes is a long one");
    assert!(before < 2 * longest, "{before} bytes wait, and an answer has {longest}");
    let refused = script.hear(client).into_iter().filter(|message| {
        let ServerMessage::Frame(ServerFrame::Error(error)) = message else { return false };
        error.code == ErrorCode::Unavailable && error.retry_after.is_some()
    });
    assert_eq!(refused.count(), 19, "all but the first");
    let answered = script.hear(client).len();
    script.send(client, r#"{"type":"subscribe","id":99,"channel":"open","keys":["more"]}"#);
    let heard = script.hear(client);
    let is_told = |message: &ServerMessage| {
        matches!(message, ServerMessage::Frame(ServerFrame::Subscribed { .. }))
    };
    assert_eq!((answered, heard.iter().filter(|m| is_told(m)).count()), (0, 1));
}

/// A shard that reads one partition of the channel `open`.
struct Script {
    shard: Shard,
    log: Arc<SharedPartition>,
    source: Option<SourceId>,
    now: Moment,
    rng: fastrand::Rng,
}

impl Script {
    fn start() -> Self {
        let settings = Settings { unsent_bytes_max: UNSENT_BYTES_MAX, ..Settings::default() };
        let directory = Arc::new(Directory::new(1));
        let shard = ShardId::new(0);
        let shard = Shard::new(shard, settings, directory, configuration(), Arc::new(Verifier), 1);
        let budget = Budget::new(1 << 20, 1 << 20);
        let partition = PartitionId::from_index(0);
        let id = TopicId::from_kafka(0, 1);
        let log = SharedPartition::new(partition, id, offset(0), offset(0), &budget);
        let now = Moment { instant: Instant::now(), wall: Timestamp::from_millis(0) };
        Self { shard, log, source: None, now, rng: fastrand::Rng::with_seed(1) }
    }

    /// Returns a client that follows each of these keys from here on.
    fn subscribe(&mut self, keys: &[&str]) -> ConnectionKey {
        let client = self.shard.handle_open(opening(), self.now).expect("there is room");
        for (id, key) in keys.iter().enumerate() {
            let asked =
                format!(r#"{{"type":"subscribe","id":{id},"channel":"open","keys":["{key}"]}}"#);
            self.send(client, &asked);
        }
        client
    }

    /// Sends a request, and lets the shard answer.
    fn send(&mut self, client: ConnectionKey, asked: &str) {
        let mut bytes = Vec::new();
        socket::write(&mut bytes, socket::TEXT, asked.as_bytes(), &mut self.rng);
        self.shard.handle_bytes(client, &mut bytes, self.now);
        self.settle();
    }

    /// Returns a client that asks for a channel and gets no answer yet.
    fn ask(&mut self, channel: &str, id: u64) -> ConnectionKey {
        let client = self.shard.handle_open(opening(), self.now).expect("there is room");
        let asked = format!(r#"{{"type":"subscribe","id":{id},"channel":"{channel}"}}"#);
        let mut bytes = Vec::new();
        socket::write(&mut bytes, socket::TEXT, asked.as_bytes(), &mut self.rng);
        self.shard.handle_bytes(client, &mut bytes, self.now);
        client
    }

    /// Appends a record that the shard then sees.
    fn append(&mut self, key: &str, bytes: usize) {
        let end = self.log.end();
        let value = vec![b'7'; bytes];
        let record = RawRecord {
            offset: end.offset,
            timestamp: Timestamp::from_millis(0),
            key: Some(key.as_bytes()),
            value: Some(&value),
            headers: &[],
        };
        let mut batch = BatchBuilder::new(end.offset);
        batch.push(&record, Owner::Shared, record.key);
        self.log.append(end.generation, batch.finish());
        self.advance();
    }

    fn advance(&mut self) {
        let source = self.source.expect("somebody follows it");
        let partition = self.log.id();
        self.shard.handle_event(Event::Advanced { source, partition }, self.now);
        self.settle();
    }

    /// Does all that the shard wants done, but for writing.
    fn settle(&mut self) {
        loop {
            while let Some(output) = self.shard.poll_output() {
                let event = match output {
                    Output::Command(Command::Follow { source, ticket, .. }) => {
                        self.source = Some(source);
                        let partitions = vec![Arc::clone(&self.log)];
                        Event::Ready { source, ticket, partitions }
                    }
                    Output::Command(Command::Resolve { ticket, .. }) => {
                        let (start, end) = (self.log.start(), self.log.end().offset);
                        let bounds = Bounds { start, end, at_timestamp: end, ..Bounds::default() };
                        Event::Resolved { ticket, result: Ok(vec![Some(bounds)]) }
                    }
                    _ => continue,
                };
                self.shard.handle_event(event, self.now);
            }
            if !self.shard.has_work() {
                return;
            }
            self.shard.handle_turn(self.now);
        }
    }

    /// Lets a client read all that there is for it.
    fn hear(&mut self, client: ConnectionKey) -> Vec<ServerMessage> {
        let mut reader = socket::Reader::default();
        let mut heard = Vec::new();
        loop {
            let outbox = self.shard.outbox(client).expect("it is connected");
            let bytes: Vec<u8> = outbox.pieces().flat_map(|piece| piece.to_vec()).collect();
            if bytes.is_empty() {
                return heard;
            }
            reader.push(&bytes);
            while let Some(incoming) = reader.next().expect("frames are right") {
                let Incoming::Text(text) = incoming else { continue };
                heard.push(json::decode_server(&text).expect("frames are right"));
            }
            self.shard.handle_written(client, bytes.len(), self.now);
            self.settle();
        }
    }
}

const UNSENT_BYTES_MAX: usize = 1_000;
