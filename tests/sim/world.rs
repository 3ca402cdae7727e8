//! All parts of a run together, moved step by step.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Duration;
use std::time::Instant;

use brucke::delivery::connection::Opening;
use brucke::delivery::shard::Output;
use brucke::delivery::subscription::ConnectionKey;
use brucke::types::ids::PartitionId;
use brucke::types::ids::ShardId;
use brucke::types::ids::Timestamp;
use brucke::types::limits::RECORDS_FRAME_BYTES;
use brucke::types::moment::Moment;

use crate::channels::Kind;
use crate::channels::tenants;
use crate::client::Client;
use crate::client::Ends;
use crate::client::State;
use crate::kafka::Kafka;
use crate::ledger::Violation;
use crate::link::ClientEnd;
use crate::link::Link;
use crate::link::Pace;
use crate::link::ServerEnd;
use crate::profile::Profile;
use crate::replica::Replica;
use crate::trace::say;

/// A world under one seed.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) rng: fastrand::Rng,
    pub(crate) now: Moment,
    pub(crate) profile: Profile,
    pub(crate) kafka: Kafka,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) links: BTreeMap<u64, Link>,
    links_made: u64,
    pub(crate) clients: Vec<Client>,
    began: Instant,
}

/// Whoever does something in a step.
#[derive(Debug, Clone, Copy)]
enum Actor {
    Room(usize),
    Shard(usize, usize),
    Link(u64),
    Client(usize),
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let profile = Profile::new(&mut rng);
        let began = base();
        let now = Moment { instant: began, wall: Timestamp::from_millis(1_800_000_000_000) };
        let mut kafka = Kafka::new(&mut rng);
        let tenants = tenants();
        for name in kafka.topics.keys().cloned().collect::<Vec<_>>() {
            for _ in 0..rng.usize(0..15) {
                let ago = Duration::from_millis(rng.u64(0..5_000));
                kafka.produce(&name, now.wall_before(ago), false, &mut rng);
            }
        }
        let clients = (0..profile.clients)
            .map(|id| Client::new(id, tenants[id % 3].clone(), &kafka, now, &mut rng))
            .collect();
        let replicas = (0..2).map(|_| Replica::start(&mut rng)).collect();
        let links = BTreeMap::new();
        Self { rng, now, profile, kafka, replicas, links, links_made: 0, clients, began }
    }

    /// Moves the clock and lets everybody do something, in any order.
    pub(crate) fn step(&mut self, ends: Ends) -> Result<(), Violation> {
        let millis = match self.rng.u8(0..32) {
            0 => self.rng.u64(0..400),
            _ => self.rng.u64(0..25),
        };
        self.pass(Duration::from_millis(millis));
        say(|| format!("at {:?}", self.age()));
        let mut actors: Vec<Actor> = (0..self.clients.len()).map(Actor::Client).collect();
        for (index, replica) in self.replicas.iter().enumerate() {
            actors.push(Actor::Room(index));
            actors.extend((0..replica.shards.len()).map(|shard| Actor::Shard(index, shard)));
        }
        actors.extend(self.links.keys().map(|id| Actor::Link(*id)));
        self.rng.shuffle(&mut actors);
        for actor in actors {
            if self.rng.u8(0..8) == 0 {
                continue;
            }
            if let Actor::Room(index) | Actor::Shard(index, _) = actor {
                say(|| format!(" {actor:?} of {index}"));
            }
            match actor {
                Actor::Room(replica) => {
                    let room = &mut self.replicas[replica].room;
                    room.step(&self.kafka, self.now.instant, &mut self.rng);
                }
                Actor::Shard(replica, shard) => self.move_shard(replica, shard),
                Actor::Link(id) => self.move_link(id)?,
                Actor::Client(client) => self.move_client(client, ends),
            }
        }
        self.settle_cuts();
        self.check_memory()
    }

    /// Returns how much time has passed since the world began.
    pub(crate) fn age(&self) -> Duration {
        self.now.instant.saturating_duration_since(self.began)
    }

    fn pass(&mut self, time: Duration) {
        let millis = i64::try_from(time.as_millis()).expect("steps are short");
        self.now.instant += time;
        self.now.wall = Timestamp::from_millis(self.now.wall.as_millis() + millis);
    }

    fn move_shard(&mut self, replica: usize, shard: usize) {
        let Self { replicas, now, rng, .. } = self;
        let found = &mut replicas[replica];
        let id = ShardId::new(u16::try_from(shard).expect("few shards"));
        let events = found.directory.mailbox(id).take();
        let mind = &mut found.shards[shard];
        // News may come right after the mailbox was looked at.
        let early = rng.u8(0..4) == 0;
        if early && mind.next_deadline().is_none_or(|deadline| deadline <= now.instant) {
            mind.handle_timeout(*now);
        }
        for event in events {
            mind.handle_event(event, *now);
        }
        if mind.next_deadline().is_none_or(|deadline| deadline <= now.instant) {
            mind.handle_timeout(*now);
        }
        for _ in 0..rng.u8(0..3) {
            if mind.has_work() {
                mind.handle_turn(*now);
            }
        }
        self.take_outputs(replica, shard);
    }

    fn take_outputs(&mut self, replica: usize, shard: usize) {
        while let Some(output) = self.replicas[replica].shards[shard].poll_output() {
            match output {
                Output::Command(command) => {
                    self.replicas[replica].room.commands.push_back(command);
                }
                Output::Write(key) => {
                    if let Some(link) = self.link_of(replica, shard, key) {
                        link.server = ServerEnd::Writing;
                    }
                }
                Output::Look(key) => {
                    let held = self.link_of(replica, shard, key).map(|link| link.down.len());
                    if let Some(held) = held {
                        let held = u32::try_from(held).expect("a link holds little");
                        let mind = &mut self.replicas[replica].shards[shard];
                        mind.handle_held(key, held, self.now);
                    }
                }
                Output::Finish(key) => {
                    if let Some(link) = self.link_of(replica, shard, key) {
                        link.server = ServerEnd::Ended;
                    }
                }
                Output::Abort(key) => {
                    if let Some(link) = self.link_of(replica, shard, key) {
                        link.server = ServerEnd::Ended;
                        link.down.clear();
                    }
                }
            }
        }
    }

    fn link_of(&mut self, replica: usize, shard: usize, key: ConnectionKey) -> Option<&mut Link> {
        let of_key = |link: &&mut Link| {
            (link.replica, link.shard, link.key) == (replica, shard, key)
                && link.server != ServerEnd::Ended
        };
        self.links.values_mut().find(of_key)
    }

    fn move_link(&mut self, id: u64) -> Result<(), Violation> {
        self.carry_up(id);
        self.write_down(id);
        self.carry_down(id)
    }

    fn carry_up(&mut self, id: u64) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let (replica, shard, key) = (link.replica, link.shard, link.key);
        if let ClientEnd::Gone(told_at) = link.client_end {
            if told_at > self.now.instant && link.server != ServerEnd::Ended {
                return;
            }
            let ended = link.server == ServerEnd::Ended;
            self.links.remove(&id);
            if !ended {
                self.replicas[replica].shards[shard].handle_closed(key);
                self.take_outputs(replica, shard);
            }
            return;
        }
        if link.server == ServerEnd::Ended {
            link.up.clear();
            return;
        }
        let bytes_max = if self.rng.bool() { usize::MAX } else { self.rng.usize(1..60) };
        let mut bytes = link.take_up(bytes_max);
        if !bytes.is_empty() {
            self.replicas[replica].shards[shard].handle_bytes(key, &mut bytes, self.now);
            self.take_outputs(replica, shard);
        }
    }

    fn write_down(&mut self, id: u64) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.server != ServerEnd::Writing || self.rng.u8(0..8) == 0 {
            return;
        }
        let (replica, shard, key) = (link.replica, link.shard, link.key);
        let mind = &mut self.replicas[replica].shards[shard];
        let Some(outbox) = mind.outbox(key) else { return };
        let mut room = link.room();
        if self.rng.u8(0..4) == 0 {
            room = self.rng.usize(0..=room);
        }
        let mut written = 0;
        for piece in outbox.pieces() {
            let bytes = &piece[..piece.len().min(room - written)];
            link.down.extend(bytes);
            written += bytes.len();
        }
        if written == outbox.bytes() {
            link.server = ServerEnd::Idle;
        }
        mind.handle_written(key, written, self.now);
        self.take_outputs(replica, shard);
    }

    fn carry_down(&mut self, id: u64) -> Result<(), Violation> {
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        if link.client_end != ClientEnd::There {
            return Ok(());
        }
        let bytes = link.take_down(self.now.instant, &mut self.rng);
        let client = &mut self.clients[link.client];
        if !bytes.is_empty() {
            client.handle_bytes(&bytes, &self.kafka, self.now, &mut self.rng)?;
        }
        if link.server == ServerEnd::Ended && link.down.is_empty() {
            client.disconnected(self.now.instant, &mut self.rng);
            self.links.remove(&id);
        }
        Ok(())
    }

    fn move_client(&mut self, index: usize, ends: Ends) {
        let now = self.now;
        let client = &mut self.clients[index];
        match client.state {
            State::Away(until) if until <= now.instant => self.connect(index),
            State::Away(_) => {}
            State::Leaving(until) if until <= now.instant => self.cut_client(index, now.instant),
            State::Arriving | State::Open | State::Leaving(_) => {
                client.act(&self.kafka, now, ends, &mut self.rng);
                let out = std::mem::take(&mut client.out);
                if let Some(link) = self.link_of_client(index) {
                    link.up.extend(out);
                }
            }
        }
    }

    pub(crate) fn link_of_client(&mut self, client: usize) -> Option<&mut Link> {
        let of_client =
            |link: &&mut Link| link.client == client && link.client_end == ClientEnd::There;
        self.links.values_mut().find(of_client)
    }

    fn connect(&mut self, client: usize) {
        let rng = &mut self.rng;
        let replica = rng.usize(..self.replicas.len());
        let shard = rng.usize(..self.replicas[replica].shards.len());
        let encoding = self.clients[client].encoding;
        let opening =
            Opening { encoding, principal: None, user_agent: None, address: None, trace: None };
        let mind = &mut self.replicas[replica].shards[shard];
        let Ok(key) = mind.handle_open(opening, self.now) else { return };
        let pace = match self.profile.slowness && rng.u8(0..4) == 0 {
            true => Pace::Slow(rng.usize(1..60)),
            false => Pace::Free,
        };
        let link = Link {
            client,
            replica,
            shard,
            key,
            up: Default::default(),
            down: Default::default(),
            capacity: rng.usize(200..8_000),
            pace,
            server: ServerEnd::Idle,
            client_end: ClientEnd::There,
        };
        say(|| format!("client {client} connects to replica {replica}, shard {shard}: {pace:?}"));
        self.links_made += 1;
        self.links.insert(self.links_made, link);
        let withdrawn = &self.replicas[replica].withdrawn;
        self.clients[client].connected(withdrawn, self.now, &mut self.rng);
        self.take_outputs(replica, shard);
    }

    /// Cuts a client off; the server hears of it at `told_at`.
    pub(crate) fn cut_client(&mut self, client: usize, told_at: Instant) {
        let Some(link) = self.link_of_client(client) else { return };
        link.client_end = ClientEnd::Gone(told_at);
        link.up.clear();
        self.clients[client].disconnected(self.now.instant, &mut self.rng);
    }

    /// Gives a replica another configuration: without these channels, and with
    /// other limits.
    pub(crate) fn reload(&mut self, replica: usize, withdrawn: BTreeSet<Kind>) {
        say(|| format!("replica {replica} has no longer {withdrawn:?}"));
        let found = &mut self.replicas[replica];
        let gone: Vec<Kind> = withdrawn.difference(&found.withdrawn).copied().collect();
        for link in self.links.values().filter(|link| link.replica == replica) {
            if link.client_end == ClientEnd::There {
                gone.iter().for_each(|kind| self.clients[link.client].withdraw(*kind));
            }
        }
        found.reload(withdrawn, &mut self.rng);
        for shard in 0..self.replicas[replica].shards.len() {
            self.take_outputs(replica, shard);
        }
    }

    /// Ends a replica at once; another takes its place.
    pub(crate) fn kill(&mut self, replica: usize) {
        say(|| format!("replica {replica} is killed"));
        let gone: Vec<u64> =
            self.links.iter().filter(|(_, l)| l.replica == replica).map(|(id, _)| *id).collect();
        for id in gone {
            let link = self.links.remove(&id).expect("just found");
            if link.client_end == ClientEnd::There {
                self.clients[link.client].disconnected(self.now.instant, &mut self.rng);
            }
        }
        self.replicas[replica] = Replica::start(&mut self.rng);
    }

    /// Notes which cuts of logs every replica has noticed by now.
    fn settle_cuts(&mut self) {
        let Self { kafka, replicas, clients, now, .. } = self;
        let subs = || clients.iter().flat_map(|client| &client.subs);
        for (topic_id, log) in &mut kafka.logs {
            for (index, partition) in log.partitions.iter_mut().enumerate() {
                if partition.leaderless_until.is_some_and(|until| until <= now.instant) {
                    partition.find_leader(now.instant);
                }
                if !partition.is_frozen() {
                    continue;
                }
                let (id, end) = (PartitionId::from_index(index), partition.end);
                let noticed = |r: &Replica| r.room.has_noticed(*topic_id, id, end);
                let cut_at = partition.truncations.last().map(|cut| cut.at);
                let waits = |at| subs().any(|sub| sub.waits_since_before(at));
                if replicas.iter().all(noticed) && !cut_at.is_some_and(waits) {
                    partition.truncations.iter_mut().for_each(|cut| {
                        cut.settled_at.get_or_insert(now.instant);
                    });
                }
            }
        }
    }

    fn check_memory(&self) -> Result<(), Violation> {
        self.replicas.iter().try_for_each(Replica::check_memory)?;
        for link in self.links.values().filter(|link| link.server != ServerEnd::Ended) {
            let replica = &self.replicas[link.replica];
            let unsent = replica.shards[link.shard].outbox(link.key).map_or(0, |o| o.bytes());
            let bytes_max = replica.unsent_bytes_max + FRAME_BYTES_MAX;
            if unsent > bytes_max {
                return Err(format!("client {}: {unsent} bytes unsent", link.client));
            }
        }
        Ok(())
    }
}

/// One frame more than is allowed may be unsent: a small one, for records here
/// are small.
const FRAME_BYTES_MAX: usize = 8 << 10;
const _: () = assert!(FRAME_BYTES_MAX < RECORDS_FRAME_BYTES);

/// Returns the moment at which every world begins: no test reads a clock twice.
fn base() -> Instant {
    static BASE: OnceLock<Instant> = OnceLock::new();
    *BASE.get_or_init(Instant::now)
}
