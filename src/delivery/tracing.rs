//! The steps of a traced record through a shard, and those of a traced command.

use std::time::Duration;
use std::time::Instant;

use crate::delivery::feed::Follower;
use crate::delivery::flight::Flight;
use crate::delivery::flight::Launched;
use crate::delivery::index::FeedSlot;
use crate::delivery::shard::Shard;
use crate::delivery::span::Ack;
use crate::delivery::span::Command;
use crate::delivery::span::CommandKind;
use crate::delivery::span::Deliver;
use crate::delivery::span::Fate;
use crate::delivery::span::Outcome;
use crate::delivery::span::Parent;
use crate::delivery::span::Path;
use crate::delivery::span::Process;
use crate::delivery::span::RecordRef;
use crate::delivery::span::SpanNote;
use crate::delivery::span::Work;
use crate::delivery::subscription::ConnectionKey;
use crate::delivery::subscription::State;
use crate::delivery::subscription::SubRef;
use crate::delivery::traces::Begun;
use crate::delivery::traces::Keys;
use crate::delivery::traces::OpenCommand;
use crate::delivery::traces::Reach;
use crate::delivery::traces::Spans;
use crate::delivery::traces::TraceSettings;
use crate::delivery::traces::Watch;
use crate::delivery::traces::Watched;
use crate::delivery::traces::Writing;
use crate::log::batch::Traced;
use crate::protocol::frame::StartAt;
use crate::types::ids::ChannelName;
use crate::types::ids::ConnectionId;
use crate::types::ids::PartitionId;
use crate::types::ids::SubId;
use crate::types::ids::Timestamp;
use crate::types::latency::Exemplar;
use crate::types::record::Record;
use crate::types::trace::Origin;
use crate::types::trace::RecordPlace;
use crate::types::trace::SpanId;
use crate::types::trace::TraceId;
use crate::types::trace::origin_of;

/// A fan-out of a frame with traced records.
#[derive(Debug)]
pub(in crate::delivery) struct FanOut {
    /// The traced records of the frame; not empty.
    written: Vec<Writing>,
    channel: ChannelName,
    sub: SubId,
    path: Path,
    records: u32,
    matched: u32,
    sent: u32,
    shared_at: Instant,
    /// How many clients have spans.
    clients: usize,
    /// Spans of clients that may still be made; those of clients that are watched
    /// do not count.
    spans_left: usize,
}

impl Shard {
    /// Makes the shard trace; without this call it never does.
    pub fn with_traces(mut self, settings: TraceSettings) -> Self {
        self.traces.turn_on(settings);
        self
    }

    /// Says whether there are spans to be taken.
    pub fn has_spans(&self) -> bool {
        self.traces.has_spans()
    }

    /// Returns the spans that ended since the last call.
    pub fn take_spans(&mut self) -> Spans {
        self.traces.take()
    }

    /// Says whether the next write to a connection's socket is to be announced by
    /// [`Shard::handle_writing`].
    pub fn is_traced(&self, connection: ConnectionKey) -> bool {
        self.traces.flights.has(connection)
    }

    /// Notes that a write to a socket begins.
    pub fn handle_writing(&mut self, connection: ConnectionKey, now: Instant) {
        self.traces.flights.writing(connection, now);
    }

    /// Traces all that goes to one connection, whatever the records say, or ends
    /// that.
    pub(in crate::delivery) fn watch(&mut self, id: ConnectionId, watch: Watch) -> Watched {
        let Some(slot) = self.slot_of(id) else { return Watched::NoConnection };
        let key = self.connections[slot].key(slot);
        if !self.traces.is_on() {
            return Watched::TracingOff;
        }
        if watch == Watch::On && !self.traces.watches(key) && !self.traces.has_room_to_watch() {
            return Watched::TooMany;
        }
        self.traces.watch(key, watch);
        Watched::Done
    }

    /// Begins the span of a record that is traced, for itself or for one of those
    /// who get it.
    pub(in crate::delivery) fn begin_record(
        &mut self,
        source: usize,
        partition: usize,
        record: &Record<'_>,
        origin: Option<Origin>,
        received_at: Option<Instant>,
        feeds: &[FeedSlot],
    ) -> Option<Begun> {
        if origin.is_none() && !feeds.iter().any(|feed| self.is_watched(*feed)) {
            return None;
        }
        let started = received_at.unwrap_or_else(|| self.traces.now());
        let record = self.traced_record(source, partition, record, origin);
        Some(self.begin_process(source, record, Path::Live, started, feeds.len()))
    }

    /// Returns what is to be remembered of a record that is traced; without an
    /// origin, for those who are watched.
    pub(in crate::delivery) fn traced_record(
        &self,
        source: usize,
        partition: usize,
        record: &Record<'_>,
        origin: Option<Origin>,
    ) -> TracedRecord {
        let partition = PartitionId::from_index(partition);
        let (offset, timestamp) = (record.offset, record.timestamp);
        let reach = if origin.is_some() { Reach::Everybody } else { Reach::Watched };
        let origin = origin.unwrap_or_else(|| {
            let topic = self.directory.key(self.sources[source].id).topic;
            let place = RecordPlace { topic: topic.as_str(), partition, offset, timestamp };
            origin_of(&place, record.headers)
        });
        let keys = self.traces.settings().map_or(Keys::LeftOut, |settings| settings.keys);
        let key = record.key.filter(|_| keys == Keys::Told).map(Box::from);
        TracedRecord { record: RecordRef { partition, offset }, timestamp, key, origin, reach }
    }

    fn begin_process(
        &mut self,
        source: usize,
        record: TracedRecord,
        path: Path,
        started: Instant,
        feeds: usize,
    ) -> Begun {
        let TracedRecord { record, timestamp, key, origin, reach } = record;
        let topic = self.directory.key(self.sources[source].id).topic;
        let process = self.traces.span_id();
        let feeds = u32::try_from(feeds).unwrap_or(u32::MAX);
        self.traces.begin_process(SpanNote {
            trace: origin.trace,
            span: process,
            parent: origin.parent.map_or(Parent::None, Parent::Elsewhere),
            started,
            ended: started,
            work: Work::Process(Process { topic, record, timestamp, key, feeds, path }),
        });
        Begun { trace: origin.trace, process, record, reach }
    }

    /// Says whether the record is traced for those who follow this feed.
    pub(in crate::delivery) fn is_traced_for(&self, begun: &Begun, feed: FeedSlot) -> bool {
        begun.reach == Reach::Everybody || self.is_watched(feed)
    }

    /// Says whether a connection that is watched follows this feed live.
    fn is_watched(&self, feed: FeedSlot) -> bool {
        self.traces.is_watching()
            && self.traces.watched().filter_map(|key| self.slot(key)).any(|slot| {
                let mut held = self.connections[slot].subscriptions.iter().flatten();
                held.any(|sub| sub.feed == feed && matches!(sub.state, State::Live { .. }))
            })
    }

    /// Begins the fan-out of a feed's frames; `None` where they hold no traced
    /// record.
    pub(in crate::delivery) fn begin_fan_out(&mut self, slot: FeedSlot) -> Option<FanOut> {
        let written = self.traces.take_written(slot);
        if written.is_empty() {
            return None;
        }
        let feed = self.feeds.at(slot);
        let (channel, sub, matched) = (feed.key.channel.clone(), feed.number, feed.members);
        Some(self.fan_out_of(written, channel, sub, Path::Live, matched))
    }

    fn fan_out_of(
        &self,
        written: Vec<Writing>,
        channel: ChannelName,
        sub: SubId,
        path: Path,
        matched: u32,
    ) -> FanOut {
        let settings = self.traces.settings().expect("nothing is traced without settings");
        let spans_left = settings.clients_per_fanout_max as usize;
        let everybody = written.iter().filter(|w| w.begun.reach == Reach::Everybody).count();
        let clients = if everybody == 0 { 0 } else { spans_left.div_ceil(everybody) };
        FanOut {
            written,
            channel,
            sub,
            path,
            records: 0,
            matched,
            sent: 0,
            shared_at: self.traces.now(),
            clients,
            spans_left,
        }
    }

    /// Ends a fan-out: each traced record of its frames has a span of it.
    pub(in crate::delivery) fn end_fan_out(&mut self, fan_out: FanOut) {
        let ended = self.traces.now();
        for Writing { begun, deliver, started, .. } in fan_out.written {
            let work = Work::Deliver(Deliver {
                channel: fan_out.channel.clone(),
                record: begun.record,
                path: fan_out.path,
                records: fan_out.records,
                matched: fan_out.matched,
                sent: fan_out.sent,
                behind: fan_out.matched.saturating_sub(fan_out.sent),
            });
            let parent = Parent::Here(begun.process);
            let trace = begun.trace;
            self.traces.note(SpanNote { trace, span: deliver, parent, started, ended, work });
        }
    }

    /// Sends a frame with traced records on its way to the one client that reads
    /// them at a cursor of its own.
    pub(in crate::delivery) fn note_catch_up(
        &mut self,
        (slot, sub): (usize, usize),
        traced: Vec<CaughtUp>,
        bytes: usize,
        records: u32,
    ) {
        let feed_slot = self.subscription(slot, sub).feed;
        let source = self.feeds.at(feed_slot).source;
        let now = self.traces.now();
        let mut written = Vec::with_capacity(traced.len());
        for CaughtUp { record, started, encode } in traced {
            let begun = self.begin_process(source, record, Path::CatchUp, started, 1);
            let deliver = self.traces.span_id();
            written.push(Writing { feed: feed_slot, begun, deliver, started, encode });
        }
        let feed = self.feeds.at(feed_slot);
        let (channel, number) = (feed.key.channel.clone(), feed.number);
        let mut fan_out = self.fan_out_of(written, channel, number, Path::CatchUp, 1);
        fan_out.shared_at = now;
        fan_out.note_frame(records);
        let connection = &self.connections[slot];
        let (key, id) = (connection.key(slot), connection.id);
        let before = connection.outbox.bytes().saturating_sub(bytes);
        self.launch(&mut fan_out, key, id, before, bytes);
        fan_out.sent = 1;
        self.end_fan_out(fan_out);
        self.traces.end_processes();
    }

    /// Returns the traced records of a frame that was encoded for another client.
    pub(in crate::delivery) fn caught_up_again(&self, traced: &[CaughtUp]) -> Vec<CaughtUp> {
        let (started, encode) = (self.traces.now(), Duration::ZERO);
        let again = traced.iter().filter(|traced| traced.record.reach == Reach::Everybody);
        again.map(|traced| CaughtUp { record: traced.record.clone(), started, encode }).collect()
    }

    fn launch(
        &mut self,
        fan_out: &mut FanOut,
        key: ConnectionKey,
        id: ConnectionId,
        before: usize,
        bytes: usize,
    ) {
        let watched = self.traces.watches(key);
        for index in 0..fan_out.written.len() {
            let written = fan_out.written[index];
            match (watched, written.begun.reach) {
                (true, _) => {}
                (false, Reach::Watched) => continue,
                (false, Reach::Everybody) if fan_out.spans_left == 0 => break,
                (false, Reach::Everybody) => fan_out.spans_left -= 1,
            }
            let flight = Flight {
                trace: written.begun.trace,
                span: self.traces.span_id(),
                deliver: written.deliver,
                sub: fan_out.sub,
                ack: Ack {
                    channel: fan_out.channel.clone(),
                    record: written.begun.record,
                    connection: id,
                },
                started: written.started,
                encode: written.encode,
                pushed_at: fan_out.shared_at,
                before,
                through: before + bytes,
                begun_at: None,
            };
            if self.traces.flights.launch(key, flight) == Launched::NoRoom {
                self.traces.drop_spans(1);
            }
        }
    }

    /// Sends the traced records of a frame on their way to the clients that were
    /// chosen, and to those that are watched.
    pub(in crate::delivery) fn launch_chosen(
        &mut self,
        fan_out: &mut FanOut,
        pushed: &[Pushed],
        bytes: usize,
    ) {
        let count = pushed.len();
        fan_out.sent += u32::try_from(count).unwrap_or(u32::MAX);
        if count == 0 {
            return;
        }
        let first = self.traces.any_of(count);
        for turn in 0..count {
            let chosen = turn < fan_out.clients;
            if !chosen && !self.traces.is_watching() {
                break;
            }
            let Pushed { follower, before } = pushed[(first + turn) % count];
            let slot = follower.connection as usize;
            let connection = &self.connections[slot];
            let (key, id) = (connection.key(slot), connection.id);
            if chosen || self.traces.watches(key) {
                self.launch(fan_out, key, id, before, bytes);
            }
        }
    }

    /// Notes what was written of traced frames; returns trace and span of the last
    /// that is over.
    pub(in crate::delivery) fn note_written(
        &mut self,
        key: ConnectionKey,
        bytes: usize,
        now: Instant,
    ) -> Option<(TraceId, SpanId)> {
        if !self.traces.flights.has(key) {
            return None;
        }
        let mut last = None;
        for flight in self.traces.flights.written(key, bytes, now) {
            last = Some((flight.trace, flight.span));
            self.traces.note(flight.note(Fate::Written, now));
            self.traces.await_ack(flight.into_awaiting(key, now));
        }
        last
    }

    /// Ends all that is traced of a connection that ends.
    pub(in crate::delivery) fn end_traces(&mut self, key: ConnectionKey) {
        self.traces.forget(key);
        if self.traces.flights.has(key) {
            let now = self.traces.now();
            for flight in self.traces.flights.end(key) {
                self.traces.note(flight.note(Fate::Lost, now));
            }
        }
    }

    /// Begins the span of a command.
    pub(in crate::delivery) fn begin_command(
        &self,
        slot: usize,
        kind: CommandKind,
        channel: Option<&ChannelName>,
    ) -> Option<OpenCommand> {
        let connection = &self.connections[slot];
        self.traces.begin_command(connection.key(slot), connection.id, kind, channel.cloned())
    }

    /// Ends the span of a command.
    pub(in crate::delivery) fn end_command(
        &mut self,
        command: Option<OpenCommand>,
        outcome: Outcome,
    ) {
        let Some(OpenCommand { origin, started, kind, connection, channel }) = command else {
            return;
        };
        let (span, ended) = (self.traces.span_id(), self.traces.now());
        let parent = origin.parent.map_or(Parent::None, Parent::Here);
        let work = Work::Command(Command { kind, connection, channel, outcome });
        self.traces.note(SpanNote { trace: origin.trace, span, parent, started, ended, work });
    }

    /// Ends the span of a subscription's request, if it has one.
    pub(in crate::delivery) fn end_subscribing(&mut self, of: SubRef, outcome: Outcome) {
        let command = self.traces.take_command(of);
        self.end_command(command, outcome);
    }
}

impl FanOut {
    /// Notes how many records the frame has.
    pub(in crate::delivery) fn note_frame(&mut self, records: u32) {
        self.records = records;
    }

    /// Returns the exemplar of a time that was taken of the frame.
    pub(in crate::delivery) fn exemplar(&self, took: Duration, at: Timestamp) -> Exemplar {
        let last = self.written.last().expect("not empty");
        Exemplar::new(last.begun.trace, Some(last.deliver), took, at)
    }
}

/// A follower that was given a frame.
#[derive(Debug, Clone, Copy)]
pub(in crate::delivery) struct Pushed {
    pub(in crate::delivery) follower: Follower,
    /// What was unsent before.
    pub(in crate::delivery) before: usize,
}

/// What is remembered of a record that is traced.
#[derive(Debug, Clone)]
pub(in crate::delivery) struct TracedRecord {
    record: RecordRef,
    timestamp: Timestamp,
    key: Option<Box<[u8]>>,
    origin: Origin,
    reach: Reach,
}

/// A traced record in a frame for clients that catch up.
#[derive(Debug, Clone)]
pub(in crate::delivery) struct CaughtUp {
    pub(in crate::delivery) record: TracedRecord,
    pub(in crate::delivery) started: Instant,
    pub(in crate::delivery) encode: Duration,
}

/// Returns the origin of the record at `index`, where it is traced; `traced` are
/// those of the batch that were not passed yet.
pub(in crate::delivery) fn origin_at(traced: &mut &[Traced], index: usize) -> Option<Origin> {
    while let Some((first, rest)) = traced.split_first() {
        if first.index > index {
            return None;
        }
        *traced = rest;
        if first.index == index {
            return Some(first.origin);
        }
    }
    None
}

/// Returns what a request for such a start is called.
pub(in crate::delivery) fn kind_of_start(start: &StartAt) -> CommandKind {
    match start {
        StartAt::Place(_) => CommandKind::Resume,
        StartAt::Latest | StartAt::Earliest | StartAt::Timestamp(_) | StartAt::Ago(_) => {
            CommandKind::Subscribe
        }
    }
}

#[cfg(test)]
mod tests;
