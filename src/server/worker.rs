//! One worker thread: its shard, its sockets, and what moves bytes between them.

use std::cell::Cell;
use std::cell::RefCell;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use crossbeam_channel::Sender;
use hashbrown::HashMap;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::delivery::admission::Unopened;
use crate::delivery::connection::Opening;
use crate::delivery::shard::Output;
use crate::delivery::shard::Shard;
use crate::delivery::subscription::ConnectionKey;
use crate::registry::directory::Directory;
use crate::registry::directory::Mailbox;
use crate::registry::message::Command;
use crate::server::inquiry::Inquiry;
use crate::server::link;
use crate::server::link::Lingering;
use crate::server::link::Link;
use crate::server::link::LinkTask;
use crate::server::link::is_passing;
use crate::server::routes::Client;
use crate::server::settings::EdgeTerms;
use crate::server::settings::Terms;
use crate::server::stream::ClientStream;
use crate::server::tls::session;
use crate::server::tls::session::Opened;
use crate::telemetry::events::ConnectionEnded;
use crate::telemetry::events::ConnectionOpened;
use crate::telemetry::events::End;
use crate::telemetry::publish::Publisher;
use crate::telemetry::traces::queue::SpanQueue;
use crate::types::ids::ConnectionId;
use crate::types::ids::ShardId;
use crate::types::ids::Timestamp;
use crate::types::moment::Moment;

/// The shard of this thread and the sockets of its connections.
///
/// Every method runs to its end without waiting, and takes the shard for one
/// call at a time, so that no two borrows ever meet.
pub(in crate::server) struct Worker {
    shard: RefCell<Shard>,
    links: RefCell<HashMap<ConnectionKey, Rc<Link>>>,
    /// What is read from a socket, and the small frames that leave in one write,
    /// stand here for a moment: one buffer for all connections of the thread.
    scratch: RefCell<Box<[u8]>>,
    commands: Sender<Command>,
    directory: Arc<Directory>,
    id: ShardId,
    /// Wakes the driver; other threads do so through the mailbox.
    wake: Arc<Notify>,
    /// When the driver wakes by itself.
    armed: Cell<Option<Instant>>,
    /// When the last turn of work was over, and how long it took.
    turned: Cell<(Instant, Duration)>,
    /// Sockets that are no connections: not yet, or no longer but not closed.
    lingering: Rc<Cell<usize>>,
    mode: Cell<Mode>,
    edge: RefCell<Rc<EdgeTerms>>,
    publisher: RefCell<Publisher>,
    spans: SpanQueue,
}

/// Whether clients are welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Serving,
    Draining,
}

/// No place for another connection.
#[derive(Debug)]
pub(in crate::server) enum NoRoom {
    Full,
    /// The client's tenant has all the places that it may.
    TenantFull,
    Draining,
}

impl Worker {
    pub(in crate::server) fn new(
        id: ShardId,
        shard: Shard,
        edge: EdgeTerms,
        commands: Sender<Command>,
        directory: Arc<Directory>,
        spans: SpanQueue,
    ) -> Rc<Self> {
        Rc::new(Self {
            shard: RefCell::new(shard),
            links: RefCell::default(),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into()),
            commands,
            directory,
            id,
            wake: Arc::new(Notify::new()),
            armed: Cell::new(None),
            turned: Cell::new((Instant::now(), Duration::ZERO)),
            lingering: Rc::default(),
            mode: Cell::new(Mode::Serving),
            edge: RefCell::new(Rc::new(edge)),
            publisher: RefCell::new(Publisher::new(id)),
            spans,
        })
    }

    /// Returns what wakes the driver.
    pub(in crate::server) fn wake(&self) -> &Arc<Notify> {
        &self.wake
    }

    /// Says whether another connection would be let in.
    pub(in crate::server) fn room(&self) -> Result<(), NoRoom> {
        match self.mode.get() {
            Mode::Draining => Err(NoRoom::Draining),
            Mode::Serving if !self.shard.borrow().has_room() => Err(NoRoom::Full),
            Mode::Serving => Ok(()),
        }
    }

    /// Takes a place for a connection whose handshake is about to be answered.
    pub(in crate::server) fn open(&self, opening: Opening) -> Result<ConnectionKey, NoRoom> {
        self.room()?;
        let opened = self.shard.borrow_mut().handle_open(opening, now());
        opened.map_err(|reason| match reason {
            Unopened::Full => NoRoom::Full,
            Unopened::TenantFull => NoRoom::TenantFull,
        })
    }

    /// Gives the connection its socket, and what was read of it already; returns
    /// its name.
    pub(in crate::server) fn connect(
        self: &Rc<Self>,
        key: ConnectionKey,
        stream: ClientStream,
        client: Client,
        received: &mut [u8],
    ) -> Option<ConnectionId> {
        // The shard may have given it up before it had a socket.
        let id = self.shard.borrow().connection_id(key)?;
        ConnectionOpened { connection: id, address: client.address }.emit();
        let link = Link::new(key, id, stream, client.place);
        self.links.borrow_mut().insert(key, Rc::clone(&link));
        spawn_local(LinkTask { worker: Rc::clone(self), link: Rc::clone(&link) });
        if !received.is_empty() {
            self.shard.borrow_mut().handle_bytes(key, received, now());
        }
        // TLS may have opened more than HTTP has asked for.
        self.take_opened(&link);
        // What the shard said before there was a socket is still in the outbox.
        self.flush(&link);
        Some(id)
    }

    /// Forgets a connection whose handshake could not be answered.
    pub(in crate::server) fn close_unconnected(&self, key: ConnectionKey) {
        self.shard.borrow_mut().handle_closed(key);
        self.do_outputs();
        self.rearm();
    }

    /// Reads once from a socket that has something.
    pub(in crate::server) fn read(&self, link: &Rc<Link>) {
        let received = match link.tls() {
            None => self.read_plain(link),
            Some(mut tls) => {
                let received = tls.receive(&link.stream);
                drop(tls);
                self.read_opened(link, received)
            }
        };
        match received {
            Ok(0) => self.lose(link),
            Ok(length) => self.publisher.borrow_mut().read(length),
            Err(error) if is_passing(&error) => return,
            Err(_) => self.lose(link),
        }
        self.do_outputs();
        self.rearm();
    }

    fn read_plain(&self, link: &Link) -> io::Result<usize> {
        let mut scratch = self.scratch.borrow_mut();
        let received = link.stream.try_read(&mut scratch);
        if let Ok(length @ 1..) = received {
            let mut shard = self.shard.borrow_mut();
            shard.handle_bytes(link.key, &mut scratch[..length], now());
        }
        received
    }

    /// Does the same with TLS, of which `received` is what the socket gave.
    fn read_opened(&self, link: &Link, received: io::Result<()>) -> io::Result<usize> {
        let opened = self.take_opened(link);
        if link.tls().is_some_and(|tls| tls.has_unsent()) {
            link.block();
        }
        match (received, opened) {
            (Err(error), _) if !is_passing(&error) => Err(error),
            (_, Opened::Bytes(length)) => Ok(length),
            (_, Opened::Nothing) => Err(io::ErrorKind::WouldBlock.into()),
            (_, Opened::End) => Ok(0),
        }
    }

    /// Gives the shard what TLS has opened, and says whether there was any.
    fn take_opened(&self, link: &Link) -> Opened {
        let mut length = 0;
        loop {
            let mut scratch = self.scratch.borrow_mut();
            let opened = link.tls().map_or(Opened::Nothing, |mut tls| tls.open(&mut scratch));
            match opened {
                Opened::Bytes(more) => {
                    let mut shard = self.shard.borrow_mut();
                    shard.handle_bytes(link.key, &mut scratch[..more], now());
                    length += more;
                }
                // An end is told at the next turn, when what came before it has
                // been answered.
                Opened::Nothing | Opened::End if length > 0 => return Opened::Bytes(length),
                Opened::Nothing | Opened::End => return opened,
            }
        }
    }

    /// Writes to a socket that can be written again.
    pub(in crate::server) fn flush(&self, link: &Rc<Link>) {
        self.write(link);
        self.do_outputs();
        self.rearm();
    }

    /// Returns what other threads leave for the shard.
    pub(in crate::server) fn mailbox(&self) -> &Mailbox {
        self.directory.mailbox(self.id)
    }

    /// Takes mail, and does a turn of work if none was done for as long as the last one
    /// took, before a socket or a handshake has its turn: where there are thousands of
    /// them, those who are live don't wait for all, and those who are behind have half
    /// of the time.
    pub(in crate::server) fn attend(&self) {
        if self.mailbox().has_mail() {
            self.handle_mail();
            self.rearm();
        }
        // The clock is not read for each socket of a worker that has nothing to do.
        let (at, took) = self.turned.get();
        if self.shard.borrow().has_work() && at.elapsed() >= took {
            self.turn();
        }
    }

    /// Takes what other threads left for the shard.
    pub(in crate::server) fn handle_mail(&self) {
        let mail = self.mailbox().take();
        self.publisher.borrow_mut().mail(mail.len());
        for (index, event) in mail.into_iter().enumerate() {
            self.shard.borrow_mut().handle_event(event, now());
            // What several partitions bring leaves in one write, but not so much
            // that unsent bytes add up.
            if index % EVENTS_MAX == EVENTS_MAX - 1 {
                self.do_outputs();
            }
        }
        self.do_outputs();
    }

    /// Answers what an operator asks, or takes what a reload brings.
    pub(in crate::server) fn answer(&self, inquiry: Inquiry) {
        // Whoever asked may have given up.
        match inquiry {
            Inquiry::Question(question, reply) => {
                let answer = self.shard.borrow_mut().handle_question(question, now());
                let _ = reply.send(answer);
            }
            Inquiry::Terms(terms, reply) => {
                let Terms { channels, delivery, edge } = *terms;
                *self.edge.borrow_mut() = Rc::new(edge);
                let ended = self.shard.borrow_mut().handle_config(channels, delivery);
                let _ = reply.send(ended);
            }
        }
        self.do_outputs();
    }

    /// Returns by what connections begin now.
    pub(in crate::server) fn edge(&self) -> Rc<EdgeTerms> {
        Rc::clone(&self.edge.borrow())
    }

    /// Calls the shard when its deadline has come.
    pub(in crate::server) fn handle_deadline(&self) {
        let now = now();
        // A shard that never was called says no deadline.
        let due = self.shard.borrow().next_deadline().is_none_or(|at| at <= now.instant);
        if due {
            self.shard.borrow_mut().handle_timeout(now);
            self.do_outputs();
        }
    }

    /// Lets the shard do one turn of its work, if it has any.
    pub(in crate::server) fn turn(&self) -> Turn {
        if !self.shard.borrow().has_work() {
            return Turn::Idle;
        }
        let begun = now();
        self.shard.borrow_mut().handle_turn(begun);
        self.do_outputs();
        let over = Instant::now();
        self.turned.set((over, over.saturating_duration_since(begun.instant)));
        if self.shard.borrow().has_work() { Turn::Busy } else { Turn::Idle }
    }

    /// Lets nobody in any more, and asks all who are there to leave.
    pub(in crate::server) fn drain(&self, window: Duration) {
        self.mode.set(Mode::Draining);
        self.shard.borrow_mut().handle_drain(window, now());
        self.do_outputs();
    }

    /// Says whether a drain is over.
    pub(in crate::server) fn is_drained(&self) -> bool {
        self.mode.get() == Mode::Draining && self.sockets() == 0
    }

    /// Returns how many sockets of clients are open.
    pub(in crate::server) fn sockets(&self) -> usize {
        self.links.borrow().len() + self.lingering.get()
    }

    /// Counts a socket that waits to be let in, for as long as what it returns is
    /// kept: a drain is not over before it has its answer.
    pub(in crate::server) fn waiting(&self) -> Lingering {
        Lingering::new(&self.lingering, &self.wake)
    }

    /// Publishes what was counted, if it is time to.
    pub(in crate::server) fn publish(&self) {
        let mut publisher = self.publisher.borrow_mut();
        if publisher.is_due(Instant::now()) {
            publisher.publish(self.shard.borrow_mut().take_counts());
        }
    }

    /// Notes for how long the driver did not run when it was due.
    pub(in crate::server) fn note_late(&self, late: Duration) {
        self.publisher.borrow_mut().late(late);
    }

    /// Hands over the spans that have ended.
    pub(in crate::server) fn tell_spans(&self) {
        if self.shard.borrow().has_spans() {
            self.spans.offer(self.shard.borrow_mut().take_spans());
        }
    }

    /// Returns when the driver must run again, and remembers it: whoever brings
    /// an earlier deadline wakes the driver.
    pub(in crate::server) fn arm(&self) -> Instant {
        let publish_at = self.publisher.borrow().next_at();
        let deadline = self.shard.borrow().next_deadline();
        let at = deadline.map_or(publish_at, |deadline| deadline.min(publish_at));
        self.armed.set(Some(at));
        at
    }

    /// Wakes the driver if it sleeps too long for what the shard wants now.
    fn rearm(&self) {
        let shard = self.shard.borrow();
        let sooner = shard
            .next_deadline()
            .is_some_and(|deadline| self.armed.get().is_none_or(|armed| deadline < armed));
        if sooner || shard.has_work() {
            self.wake.notify_one();
        }
    }

    /// Does what the shard says, until it says nothing more.
    fn do_outputs(&self) {
        loop {
            let output = self.shard.borrow_mut().poll_output();
            match output {
                None => return,
                Some(Output::Command(command)) => self.send(command),
                Some(Output::Write(key)) => {
                    let link = self.links.borrow().get(&key).cloned();
                    // A connection that is being opened has no socket yet.
                    if let Some(link) = link {
                        self.write(&link);
                    }
                }
                Some(Output::Look(key)) => {
                    let link = self.links.borrow().get(&key).cloned();
                    if let Some(held) = link.and_then(|link| link.held()) {
                        self.shard.borrow_mut().handle_held(key, held, now());
                    }
                }
                Some(Output::Finish(key)) => {
                    if let Some(link) = self.take_link(key, End::Closed) {
                        self.finish(link);
                    }
                }
                Some(Output::Abort(key)) => {
                    if let Some(link) = self.take_link(key, End::CutOff) {
                        link.cut();
                    }
                }
            }
        }
    }

    /// Writes what is unsent until the socket takes no more.
    fn write(&self, link: &Rc<Link>) {
        for _ in 0..WRITES_MAX {
            if self.shard.borrow().is_traced(link.key) {
                self.shard.borrow_mut().handle_writing(link.key, Instant::now());
            }
            let written = {
                let shard = self.shard.borrow();
                let unsent = shard.outbox(link.key).filter(|outbox| !outbox.is_empty());
                let Some(unsent) = unsent else {
                    drop(shard);
                    self.settle(link);
                    return;
                };
                link.write_some(unsent, &mut self.scratch.borrow_mut())
            };
            match written {
                Ok(length) => {
                    self.publisher.borrow_mut().written(length);
                    self.shard.borrow_mut().handle_written(link.key, length, now());
                }
                Err(error) if is_passing(&error) => break,
                Err(_) => {
                    self.lose(link);
                    return;
                }
            }
        }
        // What is left waits for the socket, and others for their turn.
        link.block();
    }

    /// Ends the writing of a connection whose shard has nothing unsent. TLS may
    /// have, of its own.
    fn settle(&self, link: &Rc<Link>) {
        match link.flush_sealed() {
            Ok(()) => link.unblock(),
            Err(error) if is_passing(&error) => link.block(),
            Err(_) => self.lose(link),
        }
    }

    /// Forgets a connection whose socket failed or whose peer went away.
    fn lose(&self, link: &Rc<Link>) {
        if self.take_link(link.key, End::Lost).is_some() {
            self.shard.borrow_mut().handle_closed(link.key);
        }
    }

    fn finish(&self, link: Rc<Link>) {
        let lingering = Lingering::new(&self.lingering, &self.wake);
        spawn_local(async move {
            link::finish(&link).await;
            drop(lingering);
        });
    }

    fn take_link(&self, key: ConnectionKey, end: End) -> Option<Rc<Link>> {
        let link = self.links.borrow_mut().remove(&key)?;
        link.end();
        ConnectionEnded { connection: link.id, end }.emit();
        if self.mode.get() == Mode::Draining {
            self.wake.notify_one();
        }
        Some(link)
    }

    /// Hands a wish to the Kafka side. Where its channel is full this waits: the
    /// Kafka side never waits for a shard, so it always goes on.
    fn send(&self, command: Command) {
        // No receiver is left only when the process is about to end.
        let _ = self.commands.send(command);
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// Whether there is more to do at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Turn {
    Idle,
    Busy,
}

/// Reads both clocks.
pub(in crate::server) fn now() -> Moment {
    Moment { instant: Instant::now(), wall: Timestamp::from(SystemTime::now()) }
}

/// Bytes read or gathered at once.
const SCRATCH_BYTES: usize = 64 << 10;
/// Writes to one socket before others have their turn.
const WRITES_MAX: usize = 16;
/// Events taken before what they brought is written.
const EVENTS_MAX: usize = 16;

const _: () = assert!(session::RECORD_BYTES_MAX <= SCRATCH_BYTES);
