//! Which piece of history is read next: one sweep forward for all who wait, and
//! turns between tenants.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;
use std::time::Instant;

use crate::registry::turns::Order;
use crate::registry::turns::Place;
use crate::registry::turns::Turns;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::SourceId;
use crate::types::ids::TenantId;

/// The readers' plan. Each tenant that waits for something has its turn; in its
/// turn one chunk is read of one partition, for everybody whose cursor stands in
/// it, whosever that is. So thousands who stand close together cost one pass over
/// the log, and who stands elsewhere does not wait for that pass to come by.
#[derive(Debug)]
pub(in crate::registry) struct History {
    readers_max: usize,
    under_way: usize,
    wanted: BTreeMap<Place, Wanted>,
    turns: Turns,
    /// When to look at partitions that rest or gather; one that does something else by
    /// then is left alone.
    alarms: BTreeSet<(Instant, Place)>,
}

/// What is wanted of one partition.
#[derive(Debug)]
struct Wanted {
    /// By whom; only tenants that want something.
    tenants: BTreeMap<TenantId, Asked>,
    /// Where the last chunk ended: going on there costs Kafka least.
    sweep: Option<Offset>,
    /// Chunks read in a row without looking back.
    strides: u32,
    /// Where the newest reading began.
    from: Offset,
    state: State,
}

/// What one tenant wants of one partition.
#[derive(Debug)]
struct Asked {
    /// At most one for each cursor, and never none.
    offsets: BTreeSet<Offset>,
    /// Those of them that came while a chunk was being read. It may have been
    /// given up again before whoever asks now could read it.
    late: BTreeSet<Offset>,
    order: Order,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It can be read as soon as somebody who wants it has its turn.
    Open,
    /// Somebody asks where no sweep stands, and maybe others are about to: where
    /// thousands come back at once, a pass that begins below all of them serves all.
    Gathering {
        since: Instant,
        until: Instant,
    },
    Reading,
    /// Forgotten while a chunk was being read; the answer only frees the reader,
    /// for those who have asked since then ask for something else.
    Abandoned,
    Resting {
        until: Instant,
    },
}

/// How far the readings of history are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sweeps {
    /// Chunks that are being read.
    pub under_way: usize,
    /// Partitions of which something is wanted.
    pub partitions: usize,
    /// Offsets that are wanted: at most one for each cursor that waits.
    pub cursors: usize,
    /// What is wanted, of the first partitions only.
    pub wanted: Vec<Sweep>,
}

/// What is wanted of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sweep {
    pub source: SourceId,
    pub partition: PartitionId,
    /// Tenants that wait for something of it.
    pub tenants: usize,
    pub cursors: usize,
    /// The lowest offset that is wanted.
    pub lowest: Option<Offset>,
    /// Where the last chunk ended.
    pub stands_at: Option<Offset>,
    pub state: SweepState,
}

/// What is being done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SweepState {
    /// It waits for a reader, or for those who come with the first.
    Waiting,
    /// A chunk is being read.
    Reading,
    /// A reading failed and is tried again later.
    Resting,
}

/// For how long nobody else must have asked before a new sweep begins: clients of a
/// storm come less than a millisecond apart, but the first may be some ahead.
const GATHER_QUIET: Duration = Duration::from_millis(25);
/// How long it waits for others at most.
const GATHER_MAX: Duration = Duration::from_millis(250);
/// Chunks after which a sweep looks back for cursors that it left behind.
const STRIDES_MAX: u32 = 16;

/// The chunk to be read next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::registry) struct Next {
    pub(in crate::registry) source: SourceId,
    pub(in crate::registry) partition: PartitionId,
    pub(in crate::registry) from: Offset,
}

impl History {
    pub(in crate::registry) fn new(readers_max: usize) -> Self {
        let (wanted, turns, alarms) = (BTreeMap::new(), Turns::default(), BTreeSet::new());
        Self { readers_max, under_way: 0, wanted, turns, alarms }
    }

    /// Notes that a cursor of a tenant's waits at `offset`.
    pub(in crate::registry) fn demand(
        &mut self,
        source: SourceId,
        partition: PartitionId,
        tenant: &TenantId,
        offset: Offset,
        now: Instant,
    ) {
        let place = (source, partition);
        let wanted = self.wanted.entry(place).or_insert_with(Wanted::new);
        if wanted.tenants.is_empty() && wanted.state == State::Open && wanted.sweep != Some(offset)
        {
            wanted.state = State::Gathering { since: now, until: now + GATHER_QUIET };
            self.alarms.insert((now + GATHER_QUIET, place));
        }
        if !wanted.tenants.contains_key(tenant) {
            let order = self.turns.enter(tenant);
            let (offsets, late) = (BTreeSet::new(), BTreeSet::new());
            wanted.tenants.insert(tenant.clone(), Asked { offsets, late, order });
        }
        let asked = wanted.tenants.get_mut(tenant).expect("just entered");
        asked.offsets.insert(offset);
        match &mut wanted.state {
            State::Open => self.turns.open(tenant, asked.order, place),
            State::Gathering { since, until } => {
                *until = (now + GATHER_QUIET).min(*since + GATHER_MAX);
            }
            State::Reading | State::Abandoned => drop(asked.late.insert(offset)),
            State::Resting { .. } => {}
        }
    }

    /// Notes that a chunk up to `to` is in memory: all who stood in it are served, and
    /// the others wait on.
    pub(in crate::registry) fn handle_read(
        &mut self,
        source: SourceId,
        partition: PartitionId,
        to: Offset,
    ) {
        self.under_way = self.under_way.saturating_sub(1);
        let place = (source, partition);
        let Some(wanted) = self.wanted.get_mut(&place) else { return };
        if wanted.state == State::Abandoned {
            return self.open(place);
        }
        let turns = &mut self.turns;
        wanted.tenants.retain(|tenant, asked| {
            // Whoever stood in this chunk is woken by it, and asks again if it does not
            // find it any more. Whoever stands before it keeps its turn.
            let mut beyond = asked.offsets.split_off(&wanted.from).split_off(&to);
            asked.offsets.append(&mut beyond);
            asked.offsets.append(&mut asked.late);
            if asked.offsets.is_empty() {
                turns.leave(tenant, asked.order, place);
            }
            !asked.offsets.is_empty()
        });
        wanted.sweep = Some(to);
        self.open(place);
    }

    /// Notes that reading failed; it is tried again at `retry_at`, or when it is
    /// demanded again.
    pub(in crate::registry) fn handle_failure(
        &mut self,
        source: SourceId,
        partition: PartitionId,
        retry_at: Option<Instant>,
    ) {
        self.under_way = self.under_way.saturating_sub(1);
        let place = (source, partition);
        let Some(wanted) = self.wanted.get_mut(&place) else { return };
        wanted.sweep = None;
        match retry_at {
            // What was read is of no concern to those who ask now.
            _ if wanted.state == State::Abandoned => self.open(place),
            Some(until) => {
                wanted.tenants.values_mut().for_each(|asked| asked.late.clear());
                wanted.state = State::Resting { until };
                self.alarms.insert((until, place));
            }
            None => {
                self.nobody_wants(place);
                self.wanted.remove(&place);
            }
        }
    }

    pub(in crate::registry) fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, place)) = self.alarms.first() {
            if at > now {
                break;
            }
            self.alarms.pop_first();
            let state = self.wanted.get(&place).map(|wanted| wanted.state);
            match state {
                Some(State::Resting { until } | State::Gathering { until, .. }) if until > now => {
                    self.alarms.insert((until, place));
                }
                Some(State::Resting { .. } | State::Gathering { .. }) => self.open(place),
                Some(State::Open | State::Reading | State::Abandoned) | None => {}
            }
        }
    }

    pub(in crate::registry) fn next_deadline(&self) -> Option<Instant> {
        self.alarms.first().map(|(at, _)| *at)
    }

    /// Returns the next chunk to read, if a reader is free.
    pub(in crate::registry) fn poll(&mut self) -> Option<Next> {
        if self.under_way >= self.readers_max {
            return None;
        }
        let (tenant, place) = self.turns.next()?;
        let wanted = self.wanted.get_mut(&place).expect("what is in turn is wanted");
        for (tenant, asked) in &wanted.tenants {
            self.turns.close(tenant, asked.order, place);
        }
        let asked = wanted.tenants.get_mut(&tenant).expect("a tenant in turn wants something");
        asked.order = self.turns.serve(&tenant);
        let lowest = asked.offsets.first().copied();
        let goes_on = wanted.sweep.filter(|sweep| asked.offsets.contains(sweep));
        let goes_on = goes_on.filter(|_| wanted.strides < STRIDES_MAX);
        wanted.strides = if goes_on.is_some() { wanted.strides + 1 } else { 0 };
        wanted.state = State::Reading;
        self.under_way += 1;
        let from = goes_on.or(lowest).expect("a tenant that wants nothing is not there");
        wanted.from = from;
        let (source, partition) = place;
        Some(Next { source, partition, from })
    }

    /// Returns how far the readings are, with what is wanted of at most `max`
    /// partitions.
    pub(in crate::registry) fn sweeps(&self, max: usize) -> Sweeps {
        let is_busy = |wanted: &Wanted| match wanted.state {
            State::Open => !wanted.tenants.is_empty(),
            State::Gathering { .. } | State::Reading | State::Abandoned | State::Resting { .. } => {
                true
            }
        };
        let wanted = self.wanted.iter().filter(|(_, wanted)| is_busy(wanted));
        let sweep = |((source, partition), wanted): (&Place, &Wanted)| Sweep {
            source: *source,
            partition: *partition,
            tenants: wanted.tenants.len(),
            cursors: wanted.cursors(),
            lowest: wanted
                .tenants
                .values()
                .filter_map(|asked| asked.offsets.first().copied())
                .min(),
            stands_at: wanted.sweep,
            state: match wanted.state {
                State::Open | State::Gathering { .. } => SweepState::Waiting,
                State::Reading | State::Abandoned => SweepState::Reading,
                State::Resting { .. } => SweepState::Resting,
            },
        };
        Sweeps {
            under_way: self.under_way,
            partitions: wanted.clone().count(),
            cursors: wanted.clone().map(|(_, wanted)| wanted.cursors()).sum(),
            wanted: wanted.take(max).map(sweep).collect(),
        }
    }

    /// Drops all that is wanted of a source.
    pub(in crate::registry) fn forget(&mut self, source: SourceId) {
        let first = (source, PartitionId::from_index(0));
        let places = self.wanted.range(first..).map(|(place, _)| *place);
        let places: Vec<Place> = places.take_while(|(of, _)| *of == source).collect();
        for place in places {
            self.nobody_wants(place);
            let wanted = self.wanted.get_mut(&place).expect("just listed");
            match wanted.state {
                State::Reading | State::Abandoned => wanted.state = State::Abandoned,
                State::Open | State::Gathering { .. } | State::Resting { .. } => {
                    drop(self.wanted.remove(&place));
                }
            }
        }
    }

    /// Lets a partition be read again for all who want it.
    fn open(&mut self, place: Place) {
        let wanted = self.wanted.get_mut(&place).expect("the caller found it");
        let before = std::mem::replace(&mut wanted.state, State::Open);
        if wanted.tenants.is_empty() && before == State::Abandoned {
            self.wanted.remove(&place);
            return;
        }
        for (tenant, asked) in &mut wanted.tenants {
            asked.late.clear();
            self.turns.open(tenant, asked.order, place);
        }
    }

    /// Forgets what anybody wants of a partition.
    fn nobody_wants(&mut self, place: Place) {
        let wanted = self.wanted.get_mut(&place).expect("the caller found it");
        for (tenant, asked) in std::mem::take(&mut wanted.tenants) {
            self.turns.leave(&tenant, asked.order, place);
        }
    }
}

impl Wanted {
    fn new() -> Self {
        let (tenants, from, state) = (BTreeMap::new(), Offset::ZERO, State::Open);
        Self { tenants, sweep: None, strides: 0, from, state }
    }

    fn cursors(&self) -> usize {
        self.tenants.values().map(|asked| asked.offsets.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::LazyLock;

    use super::*;

    fn offset(raw: i64) -> Offset {
        Offset::from_kafka(raw).expect("not negative")
    }

    fn acme() -> TenantId {
        TenantId::new("acme")
    }

    /// Lets a cursor wait, with the time standing still.
    fn ask(
        history: &mut History,
        source: SourceId,
        partition: PartitionId,
        tenant: &TenantId,
        at: Offset,
    ) {
        history.demand(source, partition, tenant, at, *NOW);
    }

    /// Returns what is read when nobody else is about to ask.
    fn poll(history: &mut History) -> Option<Next> {
        history.handle_timeout(*NOW + GATHER_MAX);
        history.poll()
    }

    static NOW: LazyLock<Instant> = LazyLock::new(Instant::now);

    #[test]
    fn a_new_sweep_waits_a_moment_for_those_who_come_with_the_first() {
        let (source, p) = (SourceId::new(1), PartitionId::from_index(0));
        let mut history = History::new(1);
        let after = |millis| *NOW + Duration::from_millis(millis);
        let at = |history: &mut History, millis, from| {
            history.demand(source, p, &acme(), offset(from), after(millis));
            history.handle_timeout(after(millis));
        };
        at(&mut history, 0, 50);
        at(&mut history, 20, 30);
        history.handle_timeout(after(44));
        assert_eq!(history.poll(), None, "another came 24 milliseconds ago");
        assert_eq!(history.next_deadline(), Some(after(45)));
        history.handle_timeout(after(45));
        assert_eq!(history.poll().map(|next| next.from), Some(offset(30)));
        history.handle_read(source, p, offset(60));
        assert_eq!(history.next_deadline(), None);
        // Going on needs no gathering.
        at(&mut history, 50, 60);
        assert_eq!(history.poll().map(|next| next.from), Some(offset(60)));
        history.handle_read(source, p, offset(90));
        // However many come, it begins in the end.
        for millis in (0..250).step_by(10) {
            at(&mut history, 100 + millis, 29 - i64::try_from(millis % 20).expect("small"));
            assert_eq!(history.poll(), None);
        }
        history.handle_timeout(after(349));
        assert_eq!(history.poll(), None);
        history.handle_timeout(after(350));
        assert_eq!(history.poll().map(|next| next.from), Some(offset(19)));
    }

    #[test]
    fn one_sweep_serves_all_who_wait_along_its_way() {
        let (source, p) = (SourceId::new(1), PartitionId::from_index(0));
        let mut history = History::new(1);
        for at in [50, 10, 90] {
            ask(&mut history, source, p, &acme(), offset(at));
        }
        assert_eq!(poll(&mut history).map(|next| next.from), Some(offset(10)));
        assert_eq!(poll(&mut history), None, "one reader");
        ask(&mut history, source, p, &acme(), offset(60));
        history.handle_read(source, p, offset(60));
        assert_eq!(poll(&mut history).map(|next| next.from), Some(offset(60)), "goes on");
        history.handle_read(source, p, offset(80));
        assert_eq!(poll(&mut history).map(|next| next.from), Some(offset(90)), "jumps on");
        history.handle_read(source, p, offset(100));
        assert_eq!(poll(&mut history), None);
    }

    #[test]
    fn whoever_asks_during_a_reading_is_not_forgotten() {
        let (source, p) = (SourceId::new(1), PartitionId::from_index(0));
        let mut history = History::new(1);
        ask(&mut history, source, p, &acme(), offset(10));
        assert_eq!(poll(&mut history).map(|next| next.from), Some(offset(10)));
        // The chunk is in memory and out again before its answer is here.
        ask(&mut history, source, p, &acme(), offset(10));
        history.handle_read(source, p, offset(20));
        assert_eq!(poll(&mut history).map(|next| next.from), Some(offset(10)));
        history.handle_read(source, p, offset(20));
        assert_eq!(poll(&mut history), None);
    }

    #[test]
    fn whoever_asks_after_a_source_began_anew_is_not_served_with_what_was_before() {
        let (source, p) = (SourceId::new(1), PartitionId::from_index(0));
        for failed in [false, true] {
            let mut history = History::new(1);
            ask(&mut history, source, p, &acme(), offset(10));
            assert_eq!(poll(&mut history).map(|next| next.from), Some(offset(10)));
            history.forget(source);
            ask(&mut history, source, p, &acme(), offset(3));
            assert_eq!(poll(&mut history), None, "one reader");
            match failed {
                false => history.handle_read(source, p, offset(20)),
                true => history.handle_failure(source, p, None),
            }
            assert_eq!(poll(&mut history).map(|next| next.from), Some(offset(3)));
        }
    }

    #[test]
    fn partitions_take_turns() {
        let mut history = History::new(1);
        let (a, b) = (SourceId::new(1), SourceId::new(2));
        let p = PartitionId::from_index(0);
        for at in [0, 100] {
            ask(&mut history, a, p, &acme(), offset(at));
            ask(&mut history, b, p, &acme(), offset(at));
        }
        let mut order = Vec::new();
        while let Some(next) = poll(&mut history) {
            order.push(next.source);
            history.handle_read(next.source, p, offset(next.from.as_kafka() + 1));
        }
        assert_eq!(order, [a, b, a, b]);
    }

    /// Reads chunks of ten offsets until nobody waits or so many were read. The newest
    /// stay in memory; whoever has read what is there asks for what comes next, until
    /// its end. Returns after how many chunks each was done.
    fn run(history: &mut History, mut all: Vec<Reader>, chunks_max: usize) -> Vec<Option<usize>> {
        let mut done = vec![None; all.len()];
        for reader in &all {
            ask(history, reader.place.0, reader.place.1, &reader.tenant, offset(reader.at));
        }
        let mut memory: VecDeque<(Place, i64)> = VecDeque::new();
        for chunk in 1..=chunks_max {
            let Some(next) = poll(history) else { break };
            let (place, from) = ((next.source, next.partition), next.from.as_kafka());
            memory.push_back((place, from));
            if memory.len() > MEMORY_CHUNKS {
                memory.pop_front();
            }
            history.handle_read(next.source, next.partition, offset(from + 10));
            for (reader, done) in all.iter_mut().zip(&mut done) {
                while done.is_none() && memory.contains(&(reader.place, reader.at)) {
                    reader.at += 10;
                    if reader.at >= reader.end {
                        *done = Some(chunk);
                    }
                }
                // Whoever waits is woken by each chunk, and asks again.
                if done.is_none() && reader.place == place {
                    ask(history, place.0, place.1, &reader.tenant, offset(reader.at));
                }
            }
        }
        done
    }

    const MEMORY_CHUNKS: usize = 64;

    struct Reader {
        place: Place,
        tenant: TenantId,
        at: i64,
        end: i64,
    }

    /// A reader of so many chunks.
    fn reader(tenant: &str, source: u32, partition: usize, at: i64, chunks: i64) -> Reader {
        Reader {
            place: (SourceId::new(source), PartitionId::from_index(partition)),
            tenant: TenantId::new(tenant),
            at,
            end: at + chunks * 10,
        }
    }

    #[test]
    fn a_tenant_far_behind_in_the_same_partition_keeps_nobody_waiting() {
        for readers in [1, 2] {
            let mut history = History::new(readers);
            let far = reader("big", 1, 0, 0, 1_000);
            let near = reader("small", 1, 0, 100_000, 5);
            let done = run(&mut history, vec![far, near], 2_000);
            assert_eq!(done, [Some(1_005), Some(10)], "every second chunk is for the other");
            assert!(history.turns.is_empty());
        }
    }

    #[test]
    fn a_tenant_with_many_partitions_has_no_more_turns_than_another() {
        let mut history = History::new(1);
        let mut all: Vec<_> = (0..24).map(|p| reader("big", 1, p, 0, 100)).collect();
        all.extend((0..24).map(|p| reader("large", 2, p, 0, 100)));
        all.push(reader("small", 3, 0, 0, 10));
        let done = run(&mut history, all, 10_000);
        assert_eq!(done[48], Some(30), "every third chunk");
        assert!(done.iter().all(Option::is_some) && history.turns.is_empty());
    }

    #[test]
    fn many_cursors_of_many_tenants_cost_about_one_pass() {
        let mut history = History::new(2);
        let mut rng = fastrand::Rng::with_seed(1);
        let tenants: Vec<String> = (0..10).map(|tenant| format!("t{tenant}")).collect();
        let all: Vec<Reader> = (0..1_000)
            .map(|index: usize| {
                let at = rng.i64(0..500) * 10;
                reader(&tenants[index % 10], 1, 0, at, 500 - at / 10)
            })
            .collect();
        let done = run(&mut history, all, 5_000);
        let last = done.iter().copied().max().flatten().expect("all are done");
        assert!(done.iter().all(Option::is_some), "somebody waits for ever");
        assert!(last <= 600, "{last} chunks for a log of 500");
    }

    #[test]
    fn who_wants_what_is_being_read_for_another_keeps_its_turn() {
        let mut history = History::new(2);
        let (source, [p, q]) = (SourceId::new(1), [0, 1].map(PartitionId::from_index));
        let [big, small] = ["big", "small"].map(TenantId::new);
        ask(&mut history, source, p, &big, offset(0));
        ask(&mut history, source, q, &big, offset(0));
        assert_eq!(
            poll(&mut history).map(|next| (next.partition, next.from)),
            Some((p, offset(0)))
        );
        ask(&mut history, source, p, &small, offset(700));
        // The second reader need not stand idle meanwhile.
        assert_eq!(
            poll(&mut history).map(|next| (next.partition, next.from)),
            Some((q, offset(0)))
        );
        ask(&mut history, source, p, &big, offset(10));
        history.handle_read(source, p, offset(10));
        assert_eq!(poll(&mut history).map(|next| next.from), Some(offset(700)));
    }
}
