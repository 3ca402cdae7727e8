//! A run: troubles first, then calm, in which everybody must catch up.

use std::collections::BTreeSet;
use std::time::Duration;

use brucke::types::ids::TopicName;

use crate::channels::Kind;
use crate::client::Ends;
use crate::client::Liveness;
use crate::client::Phase;
use crate::client::Removal;
use crate::client::State;
use crate::ledger::Violation;
use crate::link::Pace;
use crate::trace;
use crate::trace::say;
use crate::world::World;

/// What a run came to.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Outcome {
    /// Records that applications have at the end.
    pub(crate) got: usize,
    /// Depends on every byte that a client read.
    pub(crate) sum: u64,
}

/// Runs one seed.
///
/// # Errors
///
/// The first broken promise.
pub(crate) fn run(seed: u64, prints: bool) -> Result<Outcome, Violation> {
    trace::begin(prints);
    let mut world = World::new(seed);
    say(|| format!("{:?}", world.profile));
    let result = live_through(&mut world);
    result.map_err(|what| format!("after {:?}: {what}", world.age()))?;
    let subs = world.clients.iter().flat_map(|client| &client.subs);
    Ok(Outcome { got: subs.map(|sub| sub.ledger.got()).sum(), sum: trace::sum() })
}

fn live_through(world: &mut World) -> Result<(), Violation> {
    let ends = world.profile.ends();
    for _ in 0..world.profile.steps {
        world.trouble();
        world.step(ends)?;
    }
    world.mend();
    for _ in 0..100 {
        if world.profile.stuck {
            world.stall_first();
        }
        world.produce();
        world.step(Ends::None)?;
    }
    // One that reads nothing at all, even now, is no reason for others to wait.
    if world.profile.stuck {
        say(|| "calm, but for client 0".to_owned());
        world.catch_up(Awaited::AllButFirst)?;
    }
    say(|| "calm".to_owned());
    world.catch_up(Awaited::All)
}

/// Who must catch up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    All,
    /// The first client reads nothing meanwhile.
    AllButFirst,
}

impl World {
    fn catch_up(&mut self, awaited: Awaited) -> Result<(), Violation> {
        let deadline = self.age() + CATCH_UP_MAX;
        loop {
            self.kafka.end_transactions(&mut self.rng);
            if awaited == Awaited::AllButFirst {
                self.stall_first();
            }
            self.step(Ends::None)?;
            match self.check_end(awaited) {
                Ok(()) => break,
                Err(what) if self.age() > deadline => {
                    return Err(format!("not caught up in {CATCH_UP_MAX:?}: {what}"));
                }
                Err(_) => {}
            }
        }
        if let Some(link) = self.link_of_client(0) {
            link.pace = Pace::Free;
        }
        Ok(())
    }

    fn stall_first(&mut self) {
        let until = self.now.instant + STALL;
        if let Some(link) = self.link_of_client(0) {
            link.pace = Pace::Stalled(until);
        }
    }

    fn topic(&mut self) -> TopicName {
        let index = self.rng.usize(..self.kafka.topics.len());
        self.kafka.topics.keys().nth(index).expect("within the number").clone()
    }

    fn produce(&mut self) {
        if self.rng.bool() {
            let topic = self.topic();
            let transactions = self.profile.transactions;
            self.kafka.produce(&topic, self.now.wall, transactions, &mut self.rng);
        }
    }

    /// Lets something happen, as the profile has it.
    fn trouble(&mut self) {
        self.produce();
        self.trouble_clients();
        if self.profile.kills && self.rng.u8(0..150) == 0 {
            let replica = self.rng.usize(..self.replicas.len());
            self.kill(replica);
        }
        if self.profile.deafness && self.rng.u8(0..100) == 0 {
            let replica = self.rng.usize(..self.replicas.len());
            self.replicas[replica].room.deafen_one(&mut self.rng);
        }
        self.trouble_configuration();
        self.trouble_topic();
    }

    /// Takes a channel out of the configuration of a replica, or puts it back.
    fn trouble_configuration(&mut self) {
        if self.profile.reloads && self.rng.u8(0..60) == 0 {
            let replica = self.rng.usize(..self.replicas.len());
            let kind = Kind::ALL[self.rng.usize(..Kind::ALL.len())];
            let mut withdrawn = self.replicas[replica].withdrawn.clone();
            if !withdrawn.remove(&kind) {
                withdrawn.insert(kind);
            }
            self.reload(replica, withdrawn);
        }
    }

    fn trouble_clients(&mut self) {
        let client = self.rng.usize(..self.clients.len());
        if self.profile.cuts && self.rng.u8(0..20) == 0 {
            // Half of the time the server learns of it much later.
            let unnoticed = if self.rng.bool() { self.rng.u64(0..20_000) } else { 0 };
            self.cut_client(client, self.now.instant + Duration::from_millis(unnoticed));
        }
        if self.profile.endings && self.rng.u8(0..60) == 0 {
            let client = &mut self.clients[client];
            if client.state == State::Open {
                client.close(self.now.instant, &mut self.rng);
            }
        }
        if self.profile.slowness && self.rng.u8(0..20) == 0 {
            let until = self.now.instant + Duration::from_millis(self.rng.u64(0..12_000));
            if let Some(link) = self.link_of_client(client) {
                link.pace = Pace::Stalled(until);
            }
        }
    }

    fn trouble_topic(&mut self) {
        let name = self.topic();
        let Self { profile, kafka, rng, now, .. } = self;
        if profile.outages && rng.u8(0..100) == 0 {
            let until = now.instant + Duration::from_millis(rng.u64(0..3_000));
            say(|| format!("{name} has no leader"));
            kafka.topics.get_mut(&name).expect("just chosen").down_until = Some(until);
        }
        if profile.recreation {
            let is_there = kafka.topics[&name].current.is_some();
            if !is_there && rng.u8(0..8) == 0 {
                say(|| format!("{name} is made again"));
                kafka.make(&name, rng.usize(1..=3));
            } else if is_there && rng.u8(0..100) == 0 {
                say(|| format!("{name} is deleted"));
                kafka.topics.get_mut(&name).expect("just chosen").current = None;
            }
        }
        let Some(log) = kafka.current_mut(&name) else { return };
        if profile.growth && log.partitions.len() < 5 && rng.u8(0..60) == 0 {
            say(|| format!("{name} gets a partition"));
            log.partitions.push(Default::default());
        }
        let index = rng.usize(..log.partitions.len());
        let partition = &mut log.partitions[index];
        if profile.lost_leaders && rng.u8(0..50) == 0 {
            let until = now.instant + Duration::from_millis(rng.u64(0..8_000));
            say(|| format!("{name} {index} has no leader"));
            partition.leaderless_until = Some(until);
        }
        if partition.has_leader() && rng.u8(0..40) == 0 {
            say(|| format!("{name} {index} has another leader"));
            partition.change_leader();
        }
        if profile.retention && rng.u8(0..15) == 0 {
            partition.delete_before(rng.u64(0..=partition.end));
            say(|| format!("{name} {index} begins at {}", partition.start));
        }
        if profile.compaction && rng.u8(0..15) == 0 {
            partition.compact(|| rng.bool());
        }
        if profile.truncation && rng.u8(0..25) == 0 && !partition.is_frozen() {
            let to = rng.u64(partition.end.saturating_sub(20)..=partition.end);
            if partition.truncate(to, now.instant) {
                say(|| format!("{name} {index} is cut off at {to}"));
            }
        }
    }

    /// Ends all troubles.
    fn mend(&mut self) {
        for name in self.kafka.topics.keys().cloned().collect::<Vec<_>>() {
            let topic = self.kafka.topics.get_mut(&name).expect("just listed");
            topic.down_until = None;
            if topic.current.is_none() {
                self.kafka.make(&name, self.rng.usize(1..=3));
            }
        }
        let logs = self.kafka.logs.values_mut();
        let now = self.now.instant;
        logs.flat_map(|log| &mut log.partitions).for_each(|p| p.find_leader(now));
        self.profile.slowness = false;
        self.profile.cuts = false;
        for replica in 0..self.replicas.len() {
            if !self.replicas[replica].withdrawn.is_empty() {
                self.reload(replica, BTreeSet::new());
            }
        }
        for link in self.links.values_mut() {
            link.pace = Pace::Free;
        }
    }

    /// Says who has not caught up.
    fn check_end(&self, awaited: Awaited) -> Result<(), Violation> {
        for client in self.clients.iter().skip(usize::from(awaited == Awaited::AllButFirst)) {
            for sub in &client.subs {
                let state = (client.state, sub.phase, sub.liveness);
                let (State::Open, Phase::Active(_), Liveness::Live) = state else {
                    return Err(format!("client {} {:?} is {state:?}", client.id, sub.kind));
                };
                if sub.removal == Removal::Owed {
                    let what = "was never told that its channel was taken out";
                    return Err(format!("client {} {:?} {what}", client.id, sub.kind));
                }
                sub.ledger.check_end(&self.kafka).map_err(|what| {
                    format!("client {} {:?} {:?}: {what}", client.id, sub.kind, sub.filter)
                })?;
            }
        }
        Ok(())
    }
}

/// How long it may take until all have caught up once the troubles are over:
/// what was cut off unnoticed is first found by a missing pong, and a world with
/// one reader of history and small chunks is slow.
const CATCH_UP_MAX: Duration = Duration::from_secs(90);
/// Longer than any step.
const STALL: Duration = Duration::from_secs(1);
