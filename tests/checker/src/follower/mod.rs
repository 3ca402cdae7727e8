//! One client, followed line by line through its log.

mod gaps;

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::findings::Kind;
use crate::judge::Sightings;
use crate::line::ClientLine;
use crate::line::Filter;
use crate::line::Start;
use crate::line::Tenant;
use crate::truth::Entry;
use crate::truth::Partition;
use crate::truth::State;
use crate::truth::Truth;
use crate::verdict::Verdict;

/// How long things may take, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From when a gap is known to when it is told.
    pub gap: u64,
    /// How often replicas look whether a topic was made again: only then can they
    /// know.
    pub refresh: u64,
    /// From the end of the last fault to when a client has everything.
    pub catch_up: u64,
    /// A client that is connected and reads has what the log had so long ago.
    pub stuck: u64,
    /// How much longer that is for who has just begun to read again. What its own
    /// system had no room for and dropped, the server's sends again by a timer that
    /// has grown meanwhile.
    pub awake: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { gap: 1_000, refresh: 1_000, catch_up: 10_000, stuck: 10_000, awake: 5_000 }
    }
}

/// Holds what a client may stand on, by the rule of the protocol, and all that
/// it handed to its application.
#[derive(Debug)]
pub struct Follower<'a> {
    truth: &'a Truth,
    limits: Limits,
    /// What clients saw under offsets that no producer was told.
    sightings: &'a mut Sightings,
    name: String,
    tenant: String,
    filter: Filter,
    start: Start,
    topic: Option<String>,
    /// Another topic goes by the name now, and the gap that says so must come.
    announced: Option<String>,
    /// What the gaps told that brought the topic; `None` before the first of them and
    /// once another frame came.
    renewed: Option<Renewal>,
    places: BTreeMap<u32, Place>,
    asked_at: u64,
    /// Who serves it.
    replica: Option<usize>,
    /// Since when it reads a subscription without a break.
    reads_since: Option<u64>,
    subscribed: bool,
    look_at: u64,
    verdict: Verdict,
}

/// Where a client stands in a partition, and what it had of it.
#[derive(Debug, Default)]
struct Place {
    /// The first offset that it wanted.
    start: u64,
    position: u64,
    reached_at: u64,
    /// Below this, nothing may be delivered any more.
    floor: u64,
    /// Offset and sum of all that reached the application.
    delivered: Vec<(u64, u32)>,
    gone: Vec<(u64, u64)>,
    /// The next of the partition's bounds to be held against the position.
    due: usize,
    stuck_at: Option<u64>,
}

/// A topic that was made again, as the client is being told of it.
#[derive(Debug)]
struct Renewal {
    /// Partitions of which a gap has told.
    told: BTreeSet<u32>,
    /// Where the client stood in the topic of before.
    positions: BTreeMap<u32, u64>,
}

/// A gap, as a client was told.
#[derive(Debug)]
struct Told {
    at: u64,
    p: u32,
    from: u64,
    to: u64,
}

impl<'a> Follower<'a> {
    /// Returns a follower of a client of which nothing is known yet.
    pub fn new(truth: &'a Truth, limits: Limits, sightings: &'a mut Sightings) -> Self {
        Self {
            truth,
            limits,
            sightings,
            name: String::new(),
            tenant: String::new(),
            filter: Filter::All,
            start: Start::Earliest,
            topic: None,
            announced: None,
            renewed: None,
            places: BTreeMap::new(),
            asked_at: 0,
            replica: None,
            reads_since: None,
            subscribed: false,
            look_at: 0,
            verdict: Verdict { clients: 1, ..Verdict::default() },
        }
    }

    /// Takes the next line of the client's log.
    pub fn handle_line(&mut self, line: ClientLine) {
        if let Some(at) = line.at()
            && at >= self.look_at
        {
            self.look_for_stalls(at);
            self.look_at = at + LOOK_INTERVAL;
        }
        if gaps::ends_renewal(&line) {
            self.renewed = None;
        }
        match line {
            ClientLine::Client { name, tenant, filter, start } => {
                (self.name, self.tenant) = (name, tenant);
                (self.filter, self.start) = (filter, start);
            }
            ClientLine::Connect { replica, .. } => {
                self.verdict.connects += 1;
                self.replica = replica;
            }
            ClientLine::Ask { at } => self.asked_at = at,
            ClientLine::Subscribed { at, topic, pos } => self.handle_subscribed(at, topic, &pos),
            ClientLine::Records { at, p, from, to, drop, r } => {
                self.verdict.frames += 1;
                self.handle_records((at, p, from, to), drop, &r);
            }
            ClientLine::Progress { at, to } => {
                self.check_announced("progress");
                to.iter().for_each(|(p, to)| self.advance(*p, *to, at));
            }
            ClientLine::Gap { at, p, from, to, why, topic } => {
                *self.verdict.gaps.entry(why).or_default() += 1;
                self.handle_gap(&Told { at, p, from, to }, why, topic);
            }
            ClientLine::Disconnect { .. } | ClientLine::Error { .. } => {
                self.subscribed = false;
                self.reads_since = None;
            }
            ClientLine::Asleep { .. } => self.reads_since = None,
            ClientLine::Awake { at } => {
                let since = at + self.limits.awake;
                self.reads_since = self.subscribed.then_some(since);
            }
            ClientLine::Live { .. } | ClientLine::Closing { .. } => {}
        }
    }

    /// Returns what came of it, once all lines were taken.
    pub fn finish(mut self) -> Verdict {
        self.settle();
        if let (Some(over), Some(topic)) = (self.truth.over(), self.topic.clone()) {
            self.look_at_end(over, &topic);
        } else if self.truth.over().is_some() {
            self.accuse(Kind::Stuck, || "never subscribed".to_owned());
        }
        self.verdict
    }

    fn handle_subscribed(&mut self, at: u64, topic: String, starts: &BTreeMap<u32, u64>) {
        self.subscribed = true;
        self.reads_since = Some(at);
        match &self.topic {
            None => {
                self.topic = Some(topic);
                for (&p, &start) in starts {
                    let place =
                        Place { start, position: start, reached_at: at, ..Place::default() };
                    self.places.insert(p, place);
                    self.check_start(at, p, start);
                }
            }
            Some(known) if *known == topic => {
                self.announced = None;
                for (&p, &start) in starts {
                    let position = self.position(p);
                    if start > position {
                        self.accuse(Kind::Unjoined, || {
                            format!("{p}: resumed at {start}, stood at {position}")
                        });
                    }
                }
            }
            Some(_) => self.announced = Some(topic),
        }
    }

    /// Holds the first position of a partition against what was asked for.
    fn check_start(&mut self, at: u64, p: u32, start: u64) {
        let Some(partition) = self.partition(p) else {
            return;
        };
        let (least, most) = match self.start {
            Start::Earliest => (0, partition.start_after(at)),
            Start::Latest => {
                let next = partition.bounds.iter().find(|bounds| bounds.asked >= at);
                let before = self.asked_at.saturating_sub(START_SLACK);
                (partition.end_before(before), next.map(|bounds| bounds.end))
            }
        };
        let is_cut = !partition.cuts.is_empty();
        if !is_cut && (start < least || most.is_some_and(|most| start > most)) {
            let asked = self.start;
            self.accuse(Kind::Misplaced, || {
                format!("{p}: {asked:?} began at {start}, not within {least} and {most:?}")
            });
        }
    }

    fn handle_records(
        &mut self,
        (at, p, from, to): (u64, u32, u64, u64),
        drop: usize,
        records: &[(u64, Option<String>, u32)],
    ) {
        self.check_announced("records");
        let position = self.position(p);
        if from > position {
            self.accuse(Kind::Unjoined, || {
                format!("{p}: records from {from}, stood at {position}")
            });
        }
        let offsets = || records.iter().map(|record| record.0);
        let grow = offsets().zip(offsets().skip(1)).all(|(one, next)| one < next);
        if to < from || !grow || offsets().any(|offset| offset < from || offset >= to) {
            self.accuse(Kind::Unjoined, || format!("{p}: no range of records: {from} to {to}"));
        }
        self.verdict.repeats_dropped += drop.min(records.len()) as u64;
        for (offset, key, sum) in records.iter().skip(drop) {
            self.deliver(p, *offset, key.as_deref(), *sum);
        }
        self.advance(p, to, at);
    }

    fn deliver(&mut self, p: u32, offset: u64, key: Option<&str>, sum: u32) {
        self.verdict.deliveries += 1;
        let place = self.places.entry(p).or_default();
        if offset < place.floor {
            let kind = match place.delivered.contains(&(offset, sum)) {
                true => Kind::Repeated,
                false => Kind::Disordered,
            };
            if kind == Kind::Disordered {
                place.delivered.push((offset, sum));
            }
            let floor = place.floor;
            self.accuse(kind, || format!("{p}: {offset} after {}", floor - 1));
            return;
        }
        place.floor = offset + 1;
        place.delivered.push((offset, sum));
        if let Some(kind) = self.judge_record(p, offset, key, sum) {
            self.accuse(kind, || format!("{p}: {offset}, key {key:?}, sum {sum}"));
        }
    }

    /// Says what is wrong with a record that reached the application.
    fn judge_record(&mut self, p: u32, offset: u64, key: Option<&str>, sum: u32) -> Option<Kind> {
        let truth = self.truth;
        let id = self.topic.as_deref()?;
        let known = truth.topic(id);
        let partition = known.and_then(|topic| topic.partitions.get(p as usize));
        let entries = partition.map_or(&[][..], |partition| partition.entries(offset, offset + 1));
        let Some(entry) = entries.iter().find(|entry| entry.sum == sum) else {
            let may = entries.is_empty() && known.is_some_and(|topic| topic.may_have(sum));
            let seen = self.sightings.entry((id.to_owned(), p, offset)).or_insert(sum);
            return (!may || *seen != sum).then_some(Kind::Inconsistent);
        };
        match truth.tenant(entry) {
            Tenant::Shared => {}
            Tenant::One(tenant) if *tenant == self.tenant => {}
            Tenant::One(_) | Tenant::Nobody => return Some(Kind::Foreign),
        }
        if truth.key(entry) != key {
            return Some(Kind::Inconsistent);
        }
        if entry.state == State::Aborted {
            return Some(Kind::Aborted);
        }
        (!self.filter.wants(key)).then_some(Kind::Unasked)
    }

    fn check_announced(&mut self, what: &str) {
        let Some(topic) = self.announced.take() else { return };
        self.accuse(Kind::Unjoined, || format!("{what} of topic {topic} before the gap"));
    }

    /// Accuses of what the client should have by now. Bounds are samples: each
    /// counts once its time has passed.
    fn look_for_stalls(&mut self, now: u64) {
        let truth = self.truth;
        let Some(topic) = self.topic.as_deref().and_then(|id| truth.topic(id)) else { return };
        for (p, partition) in (0..).zip(&topic.partitions) {
            let place = self.places.entry(p).or_default();
            let mut stuck = None;
            while let Some(bounds) = partition.bounds.get(place.due) {
                let deadline = bounds.at + self.limits.stuck;
                if deadline > now {
                    break;
                }
                place.due += 1;
                let reads = self.reads_since.is_some_and(|since| since <= bounds.at);
                let cut = partition.cuts.iter().any(|c| bounds.asked <= c.at && c.at <= deadline);
                if reads
                    && !cut
                    && place.position < bounds.end
                    && place.stuck_at != Some(place.position)
                    && !truth.is_excused(bounds.at, deadline, self.replica)
                {
                    place.stuck_at = Some(place.position);
                    stuck = Some((place.position, *bounds));
                }
            }
            if let Some((position, bounds)) = stuck {
                self.accuse(Kind::Stuck, || {
                    format!("{p}: at {position} since the log had {} at {}", bounds.end, bounds.at)
                });
            }
        }
    }

    fn look_at_end(&mut self, over: u64, topic: &str) {
        let truth = self.truth;
        if let Some(newer) = truth.successor(topic) {
            self.accuse(Kind::MissingGap, || {
                format!("ended in topic {topic}, and {newer} is there")
            });
        }
        let partitions = truth.topic(topic).map_or(&[][..], |topic| &topic.partitions);
        for (p, partition) in (0..).zip(partitions) {
            let end = partition.last_bounds().map_or(0, |bounds| bounds.end);
            let place = self.places.entry(p).or_default();
            let (position, after) = (place.position, place.reached_at.saturating_sub(over));
            if position < end {
                self.accuse(Kind::Stuck, || format!("{p}: ended at {position} of {end}"));
            } else if end > 0 {
                self.verdict.caught_up = self.verdict.caught_up.max(after);
                if after > self.limits.catch_up {
                    self.accuse(Kind::Stuck, || format!("{p}: caught up only after {after} ms"));
                }
            }
        }
    }

    /// Holds what was delivered of the topic against what should have been.
    fn settle(&mut self) {
        let truth = self.truth;
        let places = std::mem::take(&mut self.places);
        let topic = self.topic.as_deref().and_then(|id| truth.topic(id));
        for (&p, place) in &places {
            let mut delivered = place.delivered.clone();
            delivered.sort_unstable();
            for pair in delivered.windows(2).filter(|pair| pair[0] == pair[1]) {
                self.accuse(Kind::Repeated, || format!("{p}: {} came again", pair[0].0));
            }
            let Some(partition) = topic.and_then(|topic| topic.partitions.get(p as usize)) else {
                continue;
            };
            let start = partition.last_bounds().map_or(0, |bounds| bounds.start);
            for entry in partition.entries(place.start, place.position) {
                let had = delivered.binary_search(&(entry.offset, entry.sum)).is_ok();
                if had || !self.must_have(entry) || place.is_gone(entry.offset) {
                    continue;
                }
                let kind = if entry.offset < start { Kind::MissingGap } else { Kind::Lost };
                self.accuse(kind, || format!("{p}: {}, key {:?}", entry.offset, truth.key(entry)));
            }
        }
        self.places = places;
    }

    fn must_have(&self, entry: &Entry) -> bool {
        let ours = match self.truth.tenant(entry) {
            Tenant::Shared => true,
            Tenant::One(tenant) => *tenant == self.tenant,
            Tenant::Nobody => false,
        };
        ours && entry.state == State::Standing && self.filter.wants(self.truth.key(entry))
    }

    fn advance(&mut self, p: u32, to: u64, at: u64) {
        let place = self.places.entry(p).or_default();
        if to > place.position {
            (place.position, place.reached_at) = (to, at);
        }
    }

    fn position(&self, p: u32) -> u64 {
        self.places.get(&p).map_or(0, |place| place.position)
    }

    fn start_after(&self, p: u32, at: u64) -> u64 {
        self.partition(p).and_then(|partition| partition.start_after(at)).unwrap_or(0)
    }

    /// Returns what is known of a partition of the topic that is followed.
    fn partition(&self, p: u32) -> Option<&'a Partition> {
        let topic = self.truth.topic(self.topic.as_deref()?)?;
        topic.partitions.get(p as usize)
    }

    fn accuse(&mut self, kind: Kind, example: impl FnOnce() -> String) {
        let name = &self.name;
        self.verdict.findings.accuse(kind, || format!("{name}, {}", example()));
    }
}

impl Place {
    fn is_gone(&self, offset: u64) -> bool {
        self.gone.iter().any(|&(from, to)| (from..to).contains(&offset))
    }
}

/// Between two looks for stalls.
const LOOK_INTERVAL: u64 = 250;
/// How far what a server knows of a log's end may be behind.
const START_SLACK: u64 = 2_000;
