use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::delivery::connection::Opening;
use crate::delivery::settings::Settings;
use crate::delivery::shard::Output;
use crate::delivery::traces::WATCHED_MAX;
use crate::delivery::view::Answer;
use crate::delivery::view::Question;
use crate::log::batch::BatchBuilder;
use crate::log::budget::Budget;
use crate::log::partition::Added;
use crate::log::partition::SharedPartition;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::frame::Encoding;
use crate::protocol::frame::Token;
use crate::registry;
use crate::registry::directory::Directory;
use crate::registry::message::Bounds;
use crate::registry::message::Event;
use crate::registry::message::Ticket;
use crate::tenancy::channel::Channel;
use crate::tenancy::channel::ChannelSource;
use crate::tenancy::channel::Channels;
use crate::tenancy::channel::SourceKey;
use crate::tenancy::principal::ChannelAccess;
use crate::tenancy::principal::Principal;
use crate::tenancy::revocation::Revoked;
use crate::tenancy::rule::TenancyRule;
use crate::tenancy::verify::Refusal;
use crate::tenancy::verify::Verify;
use crate::types::ids::Offset;
use crate::types::ids::ShardId;
use crate::types::ids::SourceId;
use crate::types::ids::TenantId;
use crate::types::ids::Timestamp;
use crate::types::ids::TopicId;
use crate::types::ids::TopicName;
use crate::types::latency::Latencies;
use crate::types::moment::Moment;
use crate::types::record::Owner;
use crate::types::record::RawRecord;
use crate::types::trace::SpanId;
use crate::types::trace::TraceId;

thread_local! {
    static NOW: Cell<Instant> = Cell::new(Instant::now());
}

/// Each look at the clock is a microsecond later than the last.
fn clock() -> Instant {
    let now = NOW.get() + Duration::from_micros(1);
    NOW.set(now);
    now
}

fn moment() -> Moment {
    Moment { instant: clock(), wall: Timestamp::from_millis(1_000) }
}

#[derive(Debug)]
struct NoTokens;

impl Verify for NoTokens {
    fn verify(&self, _: &Token, _: Timestamp) -> Result<Principal, Refusal> {
        Err(Refusal { reason: "bad", message: "no token is good".to_owned() })
    }
}

fn principal() -> Principal {
    Principal {
        tenant: TenantId::new("acme"),
        subject: Some("u1".into()),
        channels: ChannelAccess::All,
        claims: BTreeMap::new(),
        expires_at: None,
        token_id: None,
        issued_at: None,
    }
}

/// A shard, one partition of the topic `orders`, and clients of the channel `feed`.
struct Rig {
    shard: Shard,
    source: SourceId,
    partition: Arc<SharedPartition>,
}

impl Rig {
    fn new(clients_per_fanout_max: u32) -> Self {
        let key = SourceKey { topic: TopicName::new("orders"), rule: TenancyRule::Shared };
        let channel = Channel {
            name: ChannelName::new("feed"),
            source: ChannelSource::Topic(key.clone()),
            keys: None,
            tenants: None,
        };
        let channels = Arc::new(Channels::new(vec![channel]).expect("one channel"));
        let directory = Arc::new(Directory::new(1));
        let source = directory.source(&key).expect("room");
        let settings = Settings::default();
        let verifier = Arc::new(NoTokens);
        let shard = Shard::new(ShardId::new(0), settings, directory, channels, verifier, 1)
            .with_traces(TraceSettings { clock, clients_per_fanout_max, keys: Keys::LeftOut });
        let budget = Budget::new(1 << 20, 1 << 20);
        let (id, zero) = (PartitionId::from_index(0), Offset::ZERO);
        let partition = SharedPartition::new(id, TopicId::UNKNOWN, zero, zero, &budget);
        Self { shard, source, partition }
    }

    /// Opens a connection; it is traced below `trace`.
    fn open(&mut self, trace: Option<Origin>) -> ConnectionKey {
        let principal = Some(Arc::new(principal()));
        let opening =
            Opening { encoding: Encoding::Json, principal, user_agent: None, address: None, trace };
        self.shard.handle_open(opening, moment()).expect("room")
    }

    /// Opens a connection that follows the channel live.
    fn follow(&mut self, more: &str) -> ConnectionKey {
        let key = self.open(None);
        self.subscribe(key, more);
        self.write_all();
        key
    }

    fn subscribe(&mut self, key: ConnectionKey, more: &str) {
        self.say(key, &format!(r#"{{"type":"subscribe","id":1,"channel":"feed"{more}}}"#));
        let partitions = vec![Arc::clone(&self.partition)];
        self.shard.handle_event(
            Event::Ready { source: self.source, ticket: Ticket(0), partitions },
            moment(),
        );
        self.work();
    }

    fn say(&mut self, key: ConnectionKey, text: &str) {
        let length = u8::try_from(text.len()).expect("short");
        let mut frame = match length {
            0..126 => vec![0x81, 0x80 | length],
            126.. => vec![0x81, 0x80 | 126, 0, length],
        };
        // Masked with zeros.
        frame.extend([0; 4]);
        frame.extend(text.as_bytes());
        self.shard.handle_bytes(key, &mut frame, moment());
    }

    fn work(&mut self) {
        while self.shard.has_work() {
            self.shard.handle_turn(moment());
        }
    }

    /// Opens a connection that follows the channel from its oldest record on.
    fn follow_from_earliest(&mut self) -> String {
        let key = self.open(None);
        self.subscribe(key, r#","from":"earliest""#);
        let mut outputs = std::iter::from_fn(|| self.shard.poll_output());
        let ticket = outputs.find_map(|output| match output {
            Output::Command(registry::message::Command::Resolve { ticket, .. }) => Some(ticket),
            _ => None,
        });
        let end = self.partition.end().offset;
        let bounds = Bounds { end, at_timestamp: end, ..Bounds::default() };
        let (ticket, result) = (ticket.expect("it asks where to start"), Ok(vec![Some(bounds)]));
        self.shard.handle_event(Event::Resolved { ticket, result }, moment());
        self.work();
        self.write_all()
    }

    /// Writes all outboxes; returns what clients read.
    fn write_all(&mut self) -> String {
        let mut read = Vec::new();
        while let Some(output) = self.shard.poll_output() {
            let Output::Write(key) = output else { continue };
            if self.shard.is_traced(key) {
                self.shard.handle_writing(key, clock());
            }
            let pieces = self.shard.outbox(key).expect("it is there").pieces();
            let piece: Vec<u8> = pieces.flat_map(|piece| piece.to_vec()).collect();
            self.shard.handle_written(key, piece.len(), moment());
            read.extend(piece);
        }
        self.work();
        String::from_utf8_lossy(&read).into_owned()
    }

    /// Appends one record after the others.
    fn append(&mut self, origin: Option<Origin>) {
        let at = self.partition.end();
        let mut batch = BatchBuilder::new(at.offset);
        let record = RawRecord {
            offset: at.offset,
            timestamp: Timestamp::from_millis(7),
            key: Some(b"key"),
            value: Some(b"1"),
            headers: &[],
        };
        batch.push(&record, Owner::Shared, record.key);
        if let Some(origin) = origin {
            batch.trace(origin);
        }
        let added = self.partition.append(at.generation, batch.finish().received(clock()));
        assert_eq!(added, Added::Stored);
        let partition = PartitionId::from_index(0);
        self.shard.handle_event(Event::Advanced { source: self.source, partition }, moment());
        self.work();
    }

    fn spans(&mut self) -> Vec<SpanNote> {
        let spans = self.shard.take_spans();
        assert_eq!(spans.dropped, 0);
        spans.notes
    }
}

fn origin() -> Origin {
    Origin { trace: TraceId::from_number(77).expect("not zero"), parent: SpanId::from_number(5) }
}

/// Returns the only span that `pick` finds, with what it found.
fn only<'s, T>(
    spans: &'s [SpanNote],
    pick: impl Fn(&'s Work) -> Option<&'s T>,
) -> (&'s SpanNote, &'s T) {
    let mut found = spans.iter().filter_map(|span| Some((span, pick(&span.work)?)));
    let first = found.next().unwrap_or_else(|| panic!("none in {spans:#?}"));
    assert!(found.next().is_none(), "more than one in {spans:#?}");
    first
}

fn process(work: &Work) -> Option<&Process> {
    if let Work::Process(process) = work { Some(process) } else { None }
}

fn deliver(work: &Work) -> Option<&Deliver> {
    if let Work::Deliver(deliver) = work { Some(deliver) } else { None }
}

fn client(work: &Work) -> Option<&crate::delivery::span::Client> {
    if let Work::Client(client) = work { Some(client) } else { None }
}

fn command(work: &Work) -> Option<&Command> {
    if let Work::Command(command) = work { Some(command) } else { None }
}

fn ack(work: &Work) -> Option<&Ack> {
    if let Work::Ack(ack) = work { Some(ack) } else { None }
}

/// Returns the number that a subscription was given.
fn sub_in(read: &str) -> &str {
    let (_, rest) = read.split_once("\"sub\":").expect("a frame of a subscription");
    &rest[..rest.find([',', '}']).expect("the frame ends")]
}

#[test]
fn a_traced_record_has_a_span_of_each_step() {
    let mut rig = Rig::new(16);
    let key = rig.follow("");
    rig.append(Some(origin()));
    let read = rig.write_all();
    rig.say(key, &format!(r#"{{"type":"ack","sub":{},"positions":{{"0":1}}}}"#, sub_in(&read)));
    let spans = rig.spans();
    assert!(spans.iter().all(|span| span.trace == origin().trace && span.started <= span.ended));
    let (processed, told) = only(&spans, process);
    assert_eq!(processed.parent, Parent::Elsewhere(origin().parent.expect("has one")));
    assert_eq!((told.topic.as_str(), told.feeds, told.path), ("orders", 1, Path::Live));
    assert_eq!(told.key, None, "keys are told only where the operator asks");
    let (delivered, told) = only(&spans, deliver);
    assert_eq!(delivered.parent, Parent::Here(processed.span));
    assert_eq!((told.records, told.matched, told.sent, told.behind), (1, 1, 1, 0));
    let (reached, told) = only(&spans, client);
    assert_eq!(reached.parent, Parent::Here(delivered.span));
    assert_eq!(told.fate, Fate::Written);
    let steps = [told.encode, told.queue_wait, told.write];
    assert!(steps.iter().all(|step| *step > Duration::ZERO), "{steps:?}");
    assert!(steps.iter().sum::<Duration>() <= reached.ended - reached.started, "{steps:?}");
    let (acknowledged, told) = only(&spans, ack);
    assert_eq!(acknowledged.parent, Parent::Here(reached.span));
    assert_eq!(told.record.offset, Offset::ZERO);
    assert_eq!(acknowledged.started, reached.ended);
    assert_eq!(spans.len(), 4);
    assert!(processed.started <= delivered.started && delivered.started <= reached.started);
}

#[test]
fn the_latencies_of_a_traced_record_show_its_spans() {
    let mut rig = Rig::new(16);
    let key = rig.follow(r#","window":10"#);
    rig.append(None);
    let read = rig.write_all();
    let sub = sub_in(&read).to_owned();
    rig.say(key, &format!(r#"{{"type":"ack","sub":{sub},"positions":{{"0":1}}}}"#));
    let counts = rig.shard.take_counts();
    let all = [&counts.dispatched, &counts.delivered, &counts.written, &counts.acknowledged];
    for latencies in all {
        assert_eq!(latencies.buckets().iter().sum::<u64>(), 1);
        assert_eq!(latencies.exemplars().count(), 0);
    }
    rig.append(Some(origin()));
    rig.write_all();
    rig.say(key, &format!(r#"{{"type":"ack","sub":{sub},"positions":{{"0":2}}}}"#));
    let (counts, spans) = (rig.shard.take_counts(), rig.spans());
    let check = |latencies: &Latencies, span: &SpanNote| {
        let shown: Vec<_> = latencies.exemplars().collect();
        let [shown] = shown[..] else { panic!("{shown:?}") };
        assert_eq!((shown.trace(), shown.span()), (origin().trace, Some(span.span)));
        assert_eq!(shown.took_micros(), latencies.sum_micros(), "the one that was counted");
        assert_eq!(shown.at(), moment().wall);
    };
    check(&counts.dispatched, only(&spans, process).0);
    check(&counts.delivered, only(&spans, deliver).0);
    check(&counts.written, only(&spans, client).0);
    check(&counts.acknowledged, only(&spans, ack).0);
}

#[test]
fn a_record_that_is_not_traced_leaves_nothing() {
    let mut rig = Rig::new(16);
    rig.follow("");
    rig.append(None);
    assert!(rig.write_all().contains("\"offset\":0"));
    assert!(!rig.shard.has_spans());
}

#[test]
fn an_acknowledgement_below_the_record_says_nothing_of_it() {
    let mut rig = Rig::new(16);
    let key = rig.follow("");
    rig.append(None);
    rig.append(Some(origin()));
    let read = rig.write_all();
    let sub = sub_in(&read).to_owned();
    rig.say(key, &format!(r#"{{"type":"ack","sub":{sub},"positions":{{"0":1}}}}"#));
    assert!(!rig.spans().iter().any(|span| ack(&span.work).is_some()));
    rig.say(key, &format!(r#"{{"type":"ack","sub":{sub},"positions":{{"0":2}}}}"#));
    let spans = rig.spans();
    only(&spans, ack);
    rig.say(key, &format!(r#"{{"type":"ack","sub":{sub},"positions":{{"0":2}}}}"#));
    assert!(rig.spans().is_empty(), "it is acknowledged once");
}

#[test]
fn few_clients_have_spans_and_the_fan_out_counts_all() {
    let mut rig = Rig::new(2);
    for _ in 0..5 {
        rig.follow("");
    }
    rig.append(Some(origin()));
    rig.write_all();
    let spans = rig.spans();
    let (_, told) = only(&spans, deliver);
    assert_eq!((told.matched, told.sent, told.behind), (5, 5, 0));
    assert_eq!(spans.iter().filter(|span| client(&span.work).is_some()).count(), 2);
    let mut none = Rig::new(0);
    none.follow("");
    none.append(Some(origin()));
    none.write_all();
    assert_eq!(none.spans().len(), 2, "the record and its fan-out");
}

#[test]
fn a_watched_connection_has_spans_of_all_records_and_nobody_else_has() {
    let mut rig = Rig::new(0);
    let watched = rig.follow("");
    rig.follow("");
    let id = rig.shard.connection_id(watched).expect("it is there");
    assert_eq!(rig.shard.watch(id, Watch::On), Watched::Done);
    rig.append(None);
    rig.write_all();
    let spans = rig.spans();
    let (_, told) = only(&spans, client);
    assert_eq!(told.connection, id);
    only(&spans, process);
    let (_, told) = only(&spans, deliver);
    assert_eq!((told.matched, told.sent), (2, 2));
    assert_eq!(rig.shard.watch(id, Watch::Off), Watched::Done);
    rig.append(None);
    rig.write_all();
    assert!(!rig.shard.has_spans());
    let nobody = ConnectionId::new(0);
    assert_eq!(rig.shard.watch(nobody, Watch::On), Watched::NoConnection);
}

#[test]
fn no_more_connections_are_watched_than_a_shard_can_look_for() {
    let mut rig = Rig::new(0);
    let ids: Vec<_> = (0..=WATCHED_MAX)
        .map(|_| {
            let key = rig.follow("");
            rig.shard.connection_id(key).expect("it is there")
        })
        .collect();
    let (last, first) = ids.split_last().expect("there are some");
    for id in first {
        assert_eq!(rig.shard.watch(*id, Watch::On), Watched::Done);
    }
    assert_eq!(rig.shard.watch(*last, Watch::On), Watched::TooMany);
    assert_eq!(rig.shard.watch(first[0], Watch::On), Watched::Done, "as it is");
    assert_eq!(rig.shard.watch(first[0], Watch::Off), Watched::Done);
    assert_eq!(rig.shard.watch(*last, Watch::On), Watched::Done);
}

#[test]
fn a_client_whose_window_is_full_is_behind_and_catches_up() {
    let mut rig = Rig::new(16);
    let key = rig.follow(r#","window":1"#);
    rig.append(None);
    rig.append(Some(origin()));
    let read = rig.write_all();
    let spans = rig.spans();
    let (_, told) = only(&spans, deliver);
    assert_eq!((told.matched, told.sent, told.behind, told.path), (1, 0, 1, Path::Live));
    rig.say(key, &format!(r#"{{"type":"ack","sub":{},"positions":{{"0":1}}}}"#, sub_in(&read)));
    rig.work();
    assert!(rig.write_all().contains("\"offset\":1"));
    let spans = rig.spans();
    let (processed, told) = only(&spans, process);
    assert_eq!(told.path, Path::CatchUp);
    let (delivered, told) = only(&spans, deliver);
    assert_eq!((told.matched, told.sent, told.behind, told.path), (1, 1, 0, Path::CatchUp));
    assert_eq!(delivered.parent, Parent::Here(processed.span));
    let (reached, _) = only(&spans, client);
    assert_eq!(reached.parent, Parent::Here(delivered.span));
    assert!(spans.iter().all(|span| span.trace == origin().trace));
}

#[test]
fn whoever_is_sent_the_frame_of_another_has_spans_of_its_own() {
    let mut rig = Rig::new(16);
    rig.follow("");
    rig.append(Some(origin()));
    rig.write_all();
    assert_eq!(rig.spans().len(), 3);
    for encoded in [true, false] {
        assert!(rig.follow_from_earliest().contains("\"offset\":0"));
        let spans = rig.spans();
        assert_eq!(only(&spans, process).1.path, Path::CatchUp);
        assert_eq!(only(&spans, deliver).1.path, Path::CatchUp);
        let (_, told) = only(&spans, client);
        assert_eq!((told.fate, told.encode > Duration::ZERO), (Fate::Written, encoded));
        assert!(spans.iter().all(|span| span.trace == origin().trace));
    }
}

#[test]
fn what_a_lost_client_did_not_read_is_told_as_lost() {
    let mut rig = Rig::new(16);
    let key = rig.follow("");
    rig.append(Some(origin()));
    rig.shard.handle_closed(key);
    let spans = rig.spans();
    assert_eq!(only(&spans, client).1.fate, Fate::Lost);
}

#[test]
fn a_revoked_client_is_sent_nothing_that_waited() {
    let mut rig = Rig::new(16);
    let key = rig.follow("");
    rig.append(Some(origin()));
    let issued_before = Timestamp::from_millis(i64::MAX);
    let revoked = Revoked::Subject { subject: "u1".into(), tenant: None, issued_before };
    let answer = rig.shard.handle_question(Question::Revoke(revoked), moment());
    assert!(matches!(answer, Answer::Closed(1)), "{answer:?}");
    assert_eq!(only(&rig.spans(), client).1.fate, Fate::Lost);
    assert_eq!(rig.shard.outbox(key).expect("it says goodbye").pieces().len(), 2);
    let told = rig.write_all();
    assert!(told.contains("closing") && !told.contains("records"), "{told}");
}

#[test]
fn commands_are_traced_below_the_handshake() {
    let mut rig = Rig::new(16);
    let key = rig.open(Some(origin()));
    rig.subscribe(key, "");
    let spans = rig.spans();
    let (span, told) = only(&spans, command);
    assert_eq!(span.trace, origin().trace);
    assert_eq!(span.parent, Parent::Here(origin().parent.expect("has one")));
    assert_eq!((told.kind, told.outcome), (CommandKind::Subscribe, Outcome::Done));
    assert_eq!(told.channel.as_ref().map(ChannelName::as_str), Some("feed"));
    rig.say(key, r#"{"type":"subscribe","id":2,"channel":"none"}"#);
    let forbidden = Outcome::Refused(ErrorCode::ChannelForbidden);
    assert_eq!(only(&rig.spans(), command).1.outcome, forbidden);
    rig.say(key, r#"{"type":"authenticate","token":"x"}"#);
    let spans = rig.spans();
    let (_, told) = only(&spans, command);
    let failed = Outcome::Refused(ErrorCode::AuthenticationFailed);
    assert_eq!((told.kind, told.outcome), (CommandKind::Authenticate, failed));

    let other = rig.open(None);
    rig.subscribe(other, "");
    assert!(!rig.shard.has_spans(), "a handshake that is not traced has no commands that are");
}
