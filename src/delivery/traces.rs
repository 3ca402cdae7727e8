//! What a shard remembers of traced records and connections.
//!
//! Which records are traced was decided when they were read; a batch without
//! any costs one look at an empty list. Of a traced record each step becomes a
//! [`SpanNote`], which the edge takes with [`Shard::take_spans`]. All lists here
//! are bounded, and what finds no room is counted: tracing may lose spans, never
//! records.
//!
//! [`Shard::take_spans`]: crate::delivery::shard::Shard::take_spans

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;
use std::time::Instant;

use hashbrown::HashMap;

use crate::delivery::flight::Flights;
use crate::delivery::index::FeedSlot;
use crate::delivery::span::Ack;
use crate::delivery::span::CommandKind;
use crate::delivery::span::Parent;
use crate::delivery::span::RecordRef;
use crate::delivery::span::SpanNote;
use crate::delivery::span::Work;
use crate::delivery::subscription::ConnectionKey;
use crate::delivery::subscription::SubRef;
use crate::types::ids::ChannelName;
use crate::types::ids::ConnectionId;
use crate::types::ids::Offset;
use crate::types::ids::SubId;
use crate::types::ids::Timestamp;
use crate::types::latency::Exemplar;
use crate::types::positions::Positions;
use crate::types::trace::Origin;
use crate::types::trace::SpanId;
use crate::types::trace::TraceId;

/// How a shard traces.
#[derive(Clone)]
pub struct TraceSettings {
    /// Reads the time between the steps of a traced record: the one clock that is
    /// lent to this room, and only for those.
    pub clock: fn() -> Instant,
    /// Clients of one fan-out that get a span each.
    pub clients_per_fanout_max: u32,
    pub keys: Keys,
}

impl fmt::Debug for TraceSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceSettings")
            .field("clients_per_fanout_max", &self.clients_per_fanout_max)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// Whether keys of records stand in spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    LeftOut,
    Told,
}

/// Whether an operator watches a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    Off,
    On,
}

/// What became of the wish to watch a connection, or no longer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    Done,
    /// The shard has no such connection.
    NoConnection,
    /// Nothing is traced here.
    TracingOff,
    /// The shard watches as many as it may.
    TooMany,
}

/// Spans that were taken.
#[derive(Debug, Default)]
pub struct Spans {
    pub notes: Vec<SpanNote>,
    /// Spans for which there was no room.
    pub dropped: u64,
}

/// Everything about traces in one shard.
#[derive(Debug)]
pub(in crate::delivery) struct Traces {
    settings: Option<TraceSettings>,
    rng: fastrand::Rng,
    spans: Spans,
    /// Records whose fan-out is not over; their spans end with it.
    processes: Vec<SpanNote>,
    /// Traced records in frames that are being written.
    writing: Vec<Writing>,
    pub(in crate::delivery) flights: Flights,
    /// Frames that were written and may be acknowledged, oldest first.
    awaiting: VecDeque<Awaiting>,
    connections: HashMap<ConnectionKey, ConnectionTrace>,
    watched: usize,
    commands: HashMap<SubRef, OpenCommand>,
}

/// A record that is being traced through a shard.
#[derive(Debug, Clone, Copy)]
pub(in crate::delivery) struct Begun {
    pub(in crate::delivery) trace: TraceId,
    pub(in crate::delivery) process: SpanId,
    pub(in crate::delivery) record: RecordRef,
    pub(in crate::delivery) reach: Reach,
}

impl Begun {
    /// Returns the exemplar of a time that was taken of this record.
    pub(in crate::delivery) fn exemplar(&self, took: Duration, at: Timestamp) -> Exemplar {
        Exemplar::new(self.trace, Some(self.process), took, at)
    }
}

/// For whom a record is traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delivery) enum Reach {
    Everybody,
    /// Only for connections that an operator watches.
    Watched,
}

/// A traced record in a frame.
#[derive(Debug, Clone, Copy)]
pub(in crate::delivery) struct Writing {
    pub(in crate::delivery) feed: FeedSlot,
    pub(in crate::delivery) begun: Begun,
    pub(in crate::delivery) deliver: SpanId,
    pub(in crate::delivery) started: Instant,
    pub(in crate::delivery) encode: Duration,
}

/// A frame that a client has and may acknowledge.
#[derive(Debug)]
pub(in crate::delivery) struct Awaiting {
    pub(in crate::delivery) key: ConnectionKey,
    pub(in crate::delivery) sub: SubId,
    pub(in crate::delivery) trace: TraceId,
    /// The span of the frame's way to the client.
    pub(in crate::delivery) client: SpanId,
    pub(in crate::delivery) written_at: Instant,
    pub(in crate::delivery) ack: Ack,
}

/// A traced record that a client has dealt with.
#[derive(Debug, Clone, Copy)]
pub(in crate::delivery) struct Acknowledged {
    pub(in crate::delivery) trace: TraceId,
    /// The span of the acknowledgement.
    pub(in crate::delivery) span: SpanId,
    pub(in crate::delivery) record: RecordRef,
}

/// A connection whose commands are traced.
#[derive(Debug, Clone, Copy)]
struct ConnectionTrace {
    origin: Origin,
    watch: Watch,
}

/// A command that has no answer yet.
#[derive(Debug, Clone)]
pub(in crate::delivery) struct OpenCommand {
    pub(in crate::delivery) origin: Origin,
    pub(in crate::delivery) started: Instant,
    pub(in crate::delivery) kind: CommandKind,
    pub(in crate::delivery) connection: ConnectionId,
    pub(in crate::delivery) channel: Option<ChannelName>,
}

impl Traces {
    /// Returns what traces nothing until it has settings.
    pub(in crate::delivery) fn off(seed: u64) -> Self {
        Self {
            settings: None,
            rng: fastrand::Rng::with_seed(seed ^ TRACES_SEED),
            spans: Spans::default(),
            processes: Vec::new(),
            writing: Vec::new(),
            flights: Flights::default(),
            awaiting: VecDeque::new(),
            connections: HashMap::new(),
            watched: 0,
            commands: HashMap::new(),
        }
    }

    pub(in crate::delivery) fn turn_on(&mut self, settings: TraceSettings) {
        self.settings = Some(settings);
    }

    pub(in crate::delivery) fn settings(&self) -> Option<&TraceSettings> {
        self.settings.as_ref()
    }

    /// Returns the time, for a step of something that is traced.
    pub(in crate::delivery) fn now(&self) -> Instant {
        let settings = self.settings.as_ref().expect("nothing is traced without settings");
        (settings.clock)()
    }

    pub(in crate::delivery) fn span_id(&mut self) -> SpanId {
        SpanId::from_number(self.rng.u64(1..)).expect("not zero")
    }

    /// Returns a place among so many, so that not the same clients are always
    /// the ones that have spans.
    pub(in crate::delivery) fn any_of(&mut self, count: usize) -> usize {
        if count == 0 { 0 } else { self.rng.usize(..count) }
    }

    /// Keeps a span until it is taken.
    pub(in crate::delivery) fn note(&mut self, note: SpanNote) {
        if self.spans.notes.len() < NOTES_MAX {
            self.spans.notes.push(note);
        } else {
            self.spans.dropped += 1;
        }
    }

    /// Counts spans that are not made.
    pub(in crate::delivery) fn drop_spans(&mut self, count: u64) {
        self.spans.dropped += count;
    }

    pub(in crate::delivery) fn has_spans(&self) -> bool {
        !self.spans.notes.is_empty() || self.spans.dropped > 0
    }

    pub(in crate::delivery) fn take(&mut self) -> Spans {
        std::mem::take(&mut self.spans)
    }

    /// Begins the span of a record, which ends with [`Traces::end_processes`].
    pub(in crate::delivery) fn begin_process(&mut self, note: SpanNote) {
        if self.processes.len() < NOTES_MAX {
            self.processes.push(note);
        } else {
            self.spans.dropped += 1;
        }
    }

    pub(in crate::delivery) fn end_processes(&mut self) {
        if self.processes.is_empty() {
            return;
        }
        let ended = self.now();
        let mut processes = std::mem::take(&mut self.processes);
        for note in processes.drain(..) {
            self.note(SpanNote { ended, ..note });
        }
        self.processes = processes;
    }

    /// Notes that a traced record stands in the frames of a feed.
    pub(in crate::delivery) fn write(&mut self, feed: FeedSlot, begun: Begun, started: Instant) {
        let encode = self.now().saturating_duration_since(started);
        let deliver = self.span_id();
        self.writing.push(Writing { feed, begun, deliver, started, encode });
    }

    /// Takes the traced records of a feed's frames; empty at the cost of one look
    /// where nothing is traced.
    pub(in crate::delivery) fn take_written(&mut self, feed: FeedSlot) -> Vec<Writing> {
        if self.writing.is_empty() {
            return Vec::new();
        }
        self.writing.extract_if(.., |writing| writing.feed == feed).collect()
    }

    /// Remembers a frame that a client may acknowledge; the oldest is forgotten
    /// where there are too many, for most clients never do.
    pub(in crate::delivery) fn await_ack(&mut self, awaiting: Awaiting) {
        if self.awaiting.len() == AWAITING_MAX {
            self.awaiting.pop_front();
        }
        self.awaiting.push_back(awaiting);
    }

    /// Notes that a client has dealt with all below these positions; returns the
    /// traced records among them.
    pub(in crate::delivery) fn acknowledged(
        &mut self,
        key: ConnectionKey,
        sub: SubId,
        positions: &Positions,
    ) -> Vec<Acknowledged> {
        if self.awaiting.is_empty() {
            return Vec::new();
        }
        let is_done = |awaiting: &Awaiting| {
            let RecordRef { partition, offset } = awaiting.ack.record;
            let position = positions.get(&partition).copied().unwrap_or(Offset::ZERO);
            awaiting.key == key && awaiting.sub == sub && position > offset
        };
        let (done, rest) = std::mem::take(&mut self.awaiting).into_iter().partition(is_done);
        self.awaiting = rest;
        let done: VecDeque<Awaiting> = done;
        let mut acknowledged = Vec::with_capacity(done.len());
        for Awaiting { trace, client, written_at, ack, .. } in done {
            let (span, ended) = (self.span_id(), self.now());
            acknowledged.push(Acknowledged { trace, span, record: ack.record });
            let (parent, work) = (Parent::Here(client), Work::Ack(ack));
            self.note(SpanNote { trace, span, parent, started: written_at, ended, work });
        }
        acknowledged
    }

    /// Traces what a connection asks for from now on, below `origin`.
    pub(in crate::delivery) fn follow(&mut self, key: ConnectionKey, origin: Origin) {
        if self.settings.is_some() && self.connections.len() < CONNECTIONS_MAX {
            self.connections.insert(key, ConnectionTrace { origin, watch: Watch::Off });
        }
    }

    /// Begins or ends to trace all that goes to a connection.
    pub(in crate::delivery) fn watch(&mut self, key: ConnectionKey, watch: Watch) {
        if self.settings.is_none() {
            return;
        }
        let trace = TraceId::from_number(self.rng.u128(1..)).expect("not zero");
        let fresh = Origin { trace, parent: None };
        let fresh = ConnectionTrace { origin: fresh, watch: Watch::Off };
        let found = self.connections.entry(key).or_insert(fresh);
        match (found.watch, watch) {
            (Watch::Off, Watch::On) => self.watched += 1,
            (Watch::On, Watch::Off) => self.watched -= 1,
            (Watch::Off, Watch::Off) | (Watch::On, Watch::On) => {}
        }
        found.watch = watch;
    }

    /// Says whether another connection may be watched.
    pub(in crate::delivery) fn has_room_to_watch(&self) -> bool {
        self.watched < WATCHED_MAX
    }

    /// Says whether anything is traced at all.
    pub(in crate::delivery) fn is_on(&self) -> bool {
        self.settings.is_some()
    }

    /// Forgets a connection that ends.
    pub(in crate::delivery) fn forget(&mut self, key: ConnectionKey) {
        if self.connections.is_empty() {
            return;
        }
        if self.connections.remove(&key).is_some_and(|trace| trace.watch == Watch::On) {
            self.watched -= 1;
        }
    }

    /// Says whether any connection is watched.
    pub(in crate::delivery) fn is_watching(&self) -> bool {
        self.watched > 0
    }

    /// Says whether this connection is watched.
    pub(in crate::delivery) fn watches(&self, key: ConnectionKey) -> bool {
        self.watched > 0 && self.connections.get(&key).is_some_and(|c| c.watch == Watch::On)
    }

    /// Returns the connections that are watched.
    pub(in crate::delivery) fn watched(&self) -> impl Iterator<Item = ConnectionKey> + '_ {
        let watched = self.connections.iter().filter(|(_, trace)| trace.watch == Watch::On);
        watched.map(|(key, _)| *key)
    }

    /// Begins the span of a command; `None` where the connection is not traced.
    pub(in crate::delivery) fn begin_command(
        &self,
        key: ConnectionKey,
        connection: ConnectionId,
        kind: CommandKind,
        channel: Option<ChannelName>,
    ) -> Option<OpenCommand> {
        if self.connections.is_empty() {
            return None;
        }
        let origin = self.connections.get(&key)?.origin;
        Some(OpenCommand { origin, started: self.now(), kind, connection, channel })
    }

    /// Keeps a command whose answer comes later.
    pub(in crate::delivery) fn keep_command(&mut self, of: SubRef, command: Option<OpenCommand>) {
        if let Some(command) = command {
            self.commands.insert(of, command);
        }
    }

    /// Takes a command that was kept.
    pub(in crate::delivery) fn take_command(&mut self, of: SubRef) -> Option<OpenCommand> {
        if self.commands.is_empty() {
            return None;
        }
        self.commands.remove(&of)
    }
}

/// Connections that are watched: while there is one, each record is looked at for
/// them.
pub(in crate::delivery) const WATCHED_MAX: usize = 16;
/// Spans that wait to be taken. Further ones are dropped and counted.
const NOTES_MAX: usize = 8_192;
/// Written frames that may be acknowledged. Beyond it the oldest is forgotten.
const AWAITING_MAX: usize = 1_024;
/// Connections whose commands are traced. Further ones have no such spans.
const CONNECTIONS_MAX: usize = 65_536;
/// Sets the names of spans apart from what else is drawn from the same seed.
const TRACES_SEED: u64 = 0x7472_6163_6573;
