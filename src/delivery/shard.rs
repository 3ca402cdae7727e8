//! The state of one worker thread and its doors.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;
use slab::Slab;

use crate::delivery::admission::Unopened;
use crate::delivery::connection::Bucket;
use crate::delivery::connection::Connection;
use crate::delivery::connection::Mark;
use crate::delivery::connection::Opening;
use crate::delivery::connection::Peer;
use crate::delivery::connection::Phase;
use crate::delivery::connection::Pulse;
use crate::delivery::counts::Counts;
use crate::delivery::counts::Standing;
use crate::delivery::feed::Feeds;
use crate::delivery::index::FeedSlot;
use crate::delivery::index::Matched;
use crate::delivery::outbox::Outbox;
use crate::delivery::recent::Recent;
use crate::delivery::settings::Settings;
use crate::delivery::shelf::Shelf;
use crate::delivery::source::Source;
use crate::delivery::subscription::ConnectionKey;
use crate::delivery::subscription::Question;
use crate::delivery::subscription::SubRef;
use crate::delivery::tally::Tallies;
use crate::delivery::tally::Tally;
use crate::delivery::traces::Traces;
use crate::delivery::turns::Turns;
use crate::delivery::upkeep::Upkeep;
use crate::protocol::close_code::CloseCode;
use crate::protocol::encode::WireFrame;
use crate::protocol::encode::encode;
use crate::protocol::frame::ServerFrame;
use crate::protocol::websocket::read::FrameReader;
use crate::protocol::websocket::write::close_frame;
use crate::registry::directory::Directory;
use crate::registry::message::Command;
use crate::registry::message::Ticket;
use crate::tenancy::channel::Channels;
use crate::tenancy::verify::Verify;
use crate::types::ids::ConnectionId;
use crate::types::ids::ShardId;
use crate::types::ids::SourceId;
use crate::types::latency::Exemplar;
use crate::types::limits::CLIENT_FRAME_UNAUTHENTICATED_BYTES_MAX;
use crate::types::moment::Moment;

/// One worker thread's share of the connections, and its reader of the log.
#[derive(Debug)]
pub struct Shard {
    pub(in crate::delivery) id: ShardId,
    pub(in crate::delivery) settings: Settings,
    pub(in crate::delivery) directory: Arc<Directory>,
    pub(in crate::delivery) channels: Arc<Channels>,
    pub(in crate::delivery) verifier: Arc<dyn Verify>,
    pub(in crate::delivery) connections: Slab<Connection>,
    pub(in crate::delivery) sources: Slab<Source>,
    pub(in crate::delivery) source_slots: HashMap<SourceId, usize>,
    pub(in crate::delivery) feeds: Feeds,
    pub(in crate::delivery) shelf: Shelf,
    pub(in crate::delivery) tickets: HashMap<Ticket, Question>,
    pub(in crate::delivery) next_ticket: u64,
    /// Subscriptions that are behind and can read on; each stands here once.
    pub(in crate::delivery) runnable: Turns,
    /// Partitions in which more is to be read than one turn allowed.
    pub(in crate::delivery) unfinished: Vec<(usize, usize)>,
    /// Starts that are being found, in the order of their deadlines.
    pub(in crate::delivery) starting: VecDeque<(Instant, SubRef)>,
    /// Scratch of the live path, kept for its capacity.
    pub(in crate::delivery) matched: Matched,
    pub(in crate::delivery) touched: Vec<FeedSlot>,
    pub(in crate::delivery) outputs: VecDeque<Output>,
    /// Connections with something new to write; each stands here once.
    pub(in crate::delivery) dirty: Vec<u32>,
    pub(in crate::delivery) upkeep: Upkeep,
    /// When the turn began of whoever is behind and reads on now.
    pub(in crate::delivery) turn: Option<Moment>,
    pub(in crate::delivery) traces: Traces,
    pub(in crate::delivery) counts: Counts,
    pub(in crate::delivery) recent: Recent,
    pub(in crate::delivery) tenants: Tallies,
    pub(in crate::delivery) channel_tallies: Tallies,
    pub(in crate::delivery) subscriptions: usize,
    pub(in crate::delivery) rng: fastrand::Rng,
    next_serial: u32,
    next_connection: u64,
}

/// What the edge is to do.
#[derive(Debug)]
pub enum Output {
    /// There is something to write: try at once; what is left waits until the
    /// socket takes more.
    Write(ConnectionKey),
    /// Say by [`Shard::handle_held`] how many bytes the system holds for the
    /// peer, if the system tells.
    Look(ConnectionKey),
    /// Send this to the intake.
    Command(Command),
    /// All is said and sent: end the connection in order.
    Finish(ConnectionKey),
    /// End the connection at once; what is unsent is lost to this peer.
    Abort(ConnectionKey),
}

impl Shard {
    /// Returns a shard without connections. Equal seeds make equal choices.
    pub fn new(
        id: ShardId,
        settings: Settings,
        directory: Arc<Directory>,
        channels: Arc<Channels>,
        verifier: Arc<dyn Verify>,
        seed: u64,
    ) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let next_connection = rng.u64(..) >> 11;
        Self {
            id,
            settings,
            directory,
            channels,
            verifier,
            connections: Slab::new(),
            sources: Slab::new(),
            source_slots: HashMap::new(),
            feeds: Feeds::default(),
            shelf: Shelf::default(),
            tickets: HashMap::new(),
            next_ticket: 0,
            runnable: Turns::default(),
            unfinished: Vec::new(),
            starting: VecDeque::new(),
            matched: Matched::default(),
            touched: Vec::new(),
            outputs: VecDeque::new(),
            dirty: Vec::new(),
            upkeep: Upkeep::default(),
            turn: None,
            traces: Traces::off(seed),
            counts: Counts::default(),
            recent: Recent::default(),
            tenants: Tallies::default(),
            channel_tallies: Tallies::default(),
            subscriptions: 0,
            rng,
            next_serial: 0,
            next_connection,
        }
    }

    /// Says whether one more connection may be opened.
    pub fn has_room(&self) -> bool {
        self.connections.len() < self.settings.connections_max && !self.upkeep.is_draining()
    }

    /// Takes a connection whose handshake is done.
    ///
    /// # Errors
    ///
    /// [`Unopened`] when there is no room for it.
    pub fn handle_open(
        &mut self,
        opening: Opening,
        now: Moment,
    ) -> Result<ConnectionKey, Unopened> {
        if !self.has_room() {
            return Err(Unopened::Full);
        }
        let known = opening.principal.as_ref();
        let place = known.map(|principal| self.directory.quotas().connect(&principal.tenant));
        let place = place.transpose().map_err(|_| Unopened::TenantFull)?;
        let serial = self.serial();
        // A number from a random begin tells nobody how many others there are.
        let id = ConnectionId::new(self.next_connection);
        self.next_connection = self.rng.u64(..) >> 11;
        let deadline = now.instant + self.settings.authentication_timeout;
        let slot = self.connections.insert(Connection {
            serial,
            id,
            encoding: opening.encoding,
            opened_at: now.instant,
            user_agent: opening.user_agent,
            address: opening.address,
            phase: Phase::Arriving { deadline },
            reader: FrameReader::new(CLIENT_FRAME_UNAUTHENTICATED_BYTES_MAX),
            subscriptions: Vec::new(),
            behind: 0,
            outbox: Outbox::default(),
            mark: Mark::Clean,
            pulse: Pulse { alive_at: now.instant, pinged_at: None, held: None, unsent_since: None },
            bucket: Bucket::full(&self.settings, now.instant),
            tenant: None,
            place,
        });
        if let Some(principal) = opening.principal {
            self.welcome(slot, principal, now);
        }
        let key = self.connections[slot].key(slot);
        if let Some(origin) = opening.trace {
            self.traces.follow(key, origin);
        }
        Ok(key)
    }

    /// Takes bytes that the peer sent; they are unmasked where they stand.
    pub fn handle_bytes(&mut self, connection: ConnectionKey, bytes: &mut [u8], now: Moment) {
        if let Some(slot) = self.slot(connection) {
            self.read_frames(slot, bytes, now);
        }
    }

    /// Takes off what was written to the socket.
    pub fn handle_written(&mut self, connection: ConnectionKey, bytes: usize, now: Moment) {
        let Some(slot) = self.slot(connection) else { return };
        let traced = self.note_written(connection, bytes, now.instant);
        let connection = &mut self.connections[slot];
        connection.outbox.sent(bytes);
        if bytes > 0 {
            connection.pulse.alive_at = now.instant;
            connection.pulse.held = None;
        }
        if connection.outbox.is_empty()
            && let Some(since) = connection.pulse.unsent_since.take()
        {
            let took = now.instant.saturating_duration_since(since);
            self.counts.written.add(took, 1);
            if let Some((trace, span)) = traced {
                self.counts.written.show(Exemplar::new(trace, Some(span), took, now.wall));
            }
        }
        let connection = &self.connections[slot];
        if connection.outbox.bytes() * 2 <= self.settings.unsent_bytes_max {
            self.queue_behind(slot);
        }
        self.finish_if_done(slot);
    }

    /// Takes how many bytes the system holds for a peer whose socket takes no
    /// more.
    pub fn handle_held(&mut self, connection: ConnectionKey, bytes: u32, now: Moment) {
        let Some(slot) = self.slot(connection) else { return };
        self.connections[slot].pulse.look(bytes, now.instant);
    }

    /// Takes the news that the socket is gone.
    pub fn handle_closed(&mut self, connection: ConnectionKey) {
        let Some(slot) = self.slot(connection) else { return };
        if !matches!(self.connections[slot].phase, Phase::Closing { .. }) {
            self.counts.close(CloseCode::Normal);
        }
        self.remove(slot);
        if self.connections.is_empty() {
            self.dirty = Vec::new();
        }
    }

    /// Says whether another turn of [`Shard::handle_turn`] is due at once.
    pub fn has_work(&self) -> bool {
        !self.runnable.is_empty() || !self.unfinished.is_empty()
    }

    /// Returns the next thing to do; call until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        while let Some(slot) = self.dirty.pop() {
            let slot = slot as usize;
            if let Some(connection) = self.connections.get_mut(slot)
                && connection.mark == Mark::Dirty
            {
                connection.mark = Mark::Clean;
                return Some(Output::Write(connection.key(slot)));
            }
        }
        None
    }

    /// Returns what a connection has yet to be sent.
    pub fn outbox(&self, connection: ConnectionKey) -> Option<&Outbox> {
        self.slot(connection).map(|slot| &self.connections[slot].outbox)
    }

    /// Returns the name of a connection, as its client knows it.
    pub fn connection_id(&self, connection: ConnectionKey) -> Option<ConnectionId> {
        self.slot(connection).map(|slot| self.connections[slot].id)
    }

    /// Returns when [`Shard::handle_timeout`] must be called at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.upkeep.next_deadline()
    }

    /// Returns how many connections there are.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Returns what was counted since the last call, and what is there now.
    pub fn take_counts(&mut self) -> Counts {
        let mut counts = std::mem::take(&mut self.counts);
        let (mut unsent, mut behind) = (0, 0);
        for (_, connection) in &self.connections {
            unsent += connection.outbox.bytes() as u64;
            behind += connection.behind as usize;
        }
        counts.now = Standing {
            connections: self.connections.len(),
            subscriptions: self.subscriptions,
            behind,
            feeds: self.feeds.len(),
            unsent_bytes: unsent,
            waiting: self.waiting(),
            runnable: self.runnable.len(),
            unfinished: self.unfinished.len(),
            lag: self.upkeep.lag(),
        };
        if self.directory.tenant_labels().is_on() {
            counts.tenants = self.tenants.take();
        }
        if self.directory.channel_labels().is_on() {
            counts.channels = self.channel_tallies.take();
        }
        counts
    }

    /// Returns how many cursors wait for history.
    fn waiting(&self) -> usize {
        let partitions = self.sources.iter().flat_map(|(_, source)| &source.partitions);
        partitions.map(|partition| partition.waiting.len()).sum()
    }

    /// Changes what the tenant of a connection and the channel of a feed have.
    pub(in crate::delivery) fn tally(
        &mut self,
        slot: usize,
        feed: FeedSlot,
        count: impl Fn(&mut Tally),
    ) {
        count(self.channel_tallies.at(self.feeds.at(feed).tally));
        if let Some(tenant) = self.connections[slot].tenant {
            count(self.tenants.at(tenant));
        }
    }

    /// Counts a subscription that is behind from now on.
    pub(in crate::delivery) fn begin_behind(&mut self, slot: usize, feed: FeedSlot) {
        self.connections[slot].behind += 1;
        self.tally(slot, feed, |tally| tally.behind += 1);
    }

    /// Counts a subscription that was behind, and is not any more.
    pub(in crate::delivery) fn end_behind(&mut self, slot: usize, feed: FeedSlot) {
        self.connections[slot].behind -= 1;
        self.tally(slot, feed, |tally| tally.behind -= 1);
    }

    /// Puts a frame into a connection's outbox, unless it is closing.
    pub(in crate::delivery) fn send(&mut self, slot: usize, frame: &ServerFrame) {
        let connection = &self.connections[slot];
        if matches!(connection.phase, Phase::Closing { .. }) {
            return;
        }
        let frame = encode(frame, connection.encoding);
        self.counts.frames_encoded += 1;
        self.push(slot, &frame);
    }

    /// Puts encoded bytes into a connection's outbox.
    pub(in crate::delivery) fn push(&mut self, slot: usize, frame: &WireFrame) {
        let connection = &mut self.connections[slot];
        connection.outbox.push(frame);
        self.counts.frames += 1;
        self.counts.bytes += frame.bytes().len() as u64;
        if connection.mark == Mark::Clean {
            connection.mark = Mark::Dirty;
            self.dirty.push(slot as u32);
        }
    }

    /// Says goodbye: ends all subscriptions, sends `closing` and a Close frame.
    pub(in crate::delivery) fn close(
        &mut self,
        slot: usize,
        code: CloseCode,
        retry_after: Option<std::time::Duration>,
        now: Instant,
    ) {
        if matches!(self.connections[slot].phase, Phase::Closing { .. }) {
            return;
        }
        self.counts.close(code);
        self.end_subscriptions(slot);
        self.send(slot, &ServerFrame::Closing { code, retry_after });
        self.say_close(slot, code, Peer::Open, now);
    }

    /// Says goodbye to whoever is no longer believed: what waits was for somebody
    /// who was, and is not sent any more.
    pub(in crate::delivery) fn close_disbelieved(
        &mut self,
        slot: usize,
        code: CloseCode,
        now: Instant,
    ) {
        if !matches!(self.connections[slot].phase, Phase::Closing { .. }) {
            self.end_traces(self.connections[slot].key(slot));
            self.connections[slot].outbox.forget_unbegun();
            self.close(slot, code, None, now);
        }
    }

    /// Sends the Close frame; afterwards nothing else is sent.
    pub(in crate::delivery) fn say_close(
        &mut self,
        slot: usize,
        code: CloseCode,
        peer: Peer,
        now: Instant,
    ) {
        self.push(slot, &close_frame(code));
        let deadline = now + self.settings.close_timeout;
        self.connections[slot].phase = Phase::Closing { deadline, peer };
    }

    /// Gives a connection up without a word, for its peer does not read.
    pub(in crate::delivery) fn abort(&mut self, slot: usize, code: CloseCode) {
        self.counts.close(code);
        let key = self.connections[slot].key(slot);
        self.outputs.push_back(Output::Abort(key));
        self.remove(slot);
    }

    /// Ends a closing connection once everything is sent and answered.
    pub(in crate::delivery) fn finish_if_done(&mut self, slot: usize) {
        let connection = &self.connections[slot];
        let done = matches!(connection.phase, Phase::Closing { peer: Peer::Closed, .. });
        if done && connection.outbox.is_empty() {
            self.finish(slot);
        }
    }

    pub(in crate::delivery) fn finish(&mut self, slot: usize) {
        let key = self.connections[slot].key(slot);
        self.outputs.push_back(Output::Finish(key));
        self.remove(slot);
    }

    fn remove(&mut self, slot: usize) {
        self.end_subscriptions(slot);
        self.end_traces(self.connections[slot].key(slot));
        let connection = self.connections.remove(slot);
        if let Some(tenant) = connection.tenant {
            self.tenants.at(tenant).connections -= 1;
        }
    }

    /// Returns the place of a connection that is still there.
    pub(in crate::delivery) fn slot(&self, key: ConnectionKey) -> Option<usize> {
        let slot = key.slot as usize;
        self.connections.get(slot).filter(|c| c.serial == key.serial).map(|_| slot)
    }

    pub(in crate::delivery) fn serial(&mut self) -> u32 {
        self.next_serial = self.next_serial.wrapping_add(1);
        self.next_serial
    }

    pub(in crate::delivery) fn command(&mut self, command: Command) {
        self.outputs.push_back(Output::Command(command));
    }
}
