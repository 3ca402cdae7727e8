//! Which piece of history is read next: one sweep forward for all who wait.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::time::Instant;

use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::SourceId;

/// The readers' plan. Each partition that somebody waits for has its turn; in
/// its turn one chunk is read, for everybody whose cursor stands in it.
#[derive(Debug)]
pub(in crate::registry) struct History {
    readers_max: usize,
    under_way: usize,
    wanted: BTreeMap<(SourceId, PartitionId), Wanted>,
    turns: VecDeque<(SourceId, PartitionId)>,
}

/// What is wanted of one partition: at most one offset for each cursor.
#[derive(Debug, Default)]
struct Wanted {
    offsets: BTreeSet<Offset>,
    /// Those of them that came while a chunk was being read. It may have been
    /// given up again before whoever asks now could read it.
    late: BTreeSet<Offset>,
    /// Where the last chunk ended: going on there costs Kafka least.
    sweep: Option<Offset>,
    /// Chunks read in a row without looking back.
    strides: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Idle,
    Queued,
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
    /// It waits for a reader.
    Waiting,
    /// A chunk is being read.
    Reading,
    /// A reading failed and is tried again later.
    Resting,
}

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
        let wanted = BTreeMap::new();
        Self { readers_max, under_way: 0, wanted, turns: VecDeque::new() }
    }

    /// Notes that a cursor waits at `offset`.
    pub(in crate::registry) fn demand(
        &mut self,
        source: SourceId,
        partition: PartitionId,
        offset: Offset,
    ) {
        let wanted = self.wanted.entry((source, partition)).or_default();
        wanted.offsets.insert(offset);
        if matches!(wanted.state, State::Reading | State::Abandoned) {
            wanted.late.insert(offset);
        }
        if wanted.state == State::Idle {
            wanted.state = State::Queued;
            self.turns.push_back((source, partition));
        }
    }

    /// Notes that a chunk up to `to` is in memory: all who stood before `to` in
    /// it are served, and the others wait on.
    pub(in crate::registry) fn handle_read(
        &mut self,
        source: SourceId,
        partition: PartitionId,
        to: Offset,
    ) {
        self.under_way = self.under_way.saturating_sub(1);
        let Some(wanted) = self.wanted.get_mut(&(source, partition)) else { return };
        if wanted.state == State::Abandoned {
            wanted.late.clear();
            return self.requeue(source, partition);
        }
        // Whoever stood before `to` is woken by this chunk, and asks again if it
        // does not find it any more.
        wanted.offsets = wanted.offsets.split_off(&to);
        wanted.offsets.append(&mut wanted.late);
        wanted.sweep = Some(to);
        self.requeue(source, partition);
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
        let Some(wanted) = self.wanted.get_mut(&(source, partition)) else { return };
        wanted.sweep = None;
        match retry_at {
            // What was read is of no concern to those who ask now.
            _ if wanted.state == State::Abandoned => {
                wanted.late.clear();
                self.requeue(source, partition);
            }
            Some(until) => {
                wanted.late.clear();
                wanted.state = State::Resting { until };
            }
            None => drop(self.wanted.remove(&(source, partition))),
        }
    }

    pub(in crate::registry) fn handle_timeout(&mut self, now: Instant) {
        for (place, wanted) in &mut self.wanted {
            if matches!(wanted.state, State::Resting { until } if until <= now) {
                wanted.state = State::Queued;
                self.turns.push_back(*place);
            }
        }
    }

    pub(in crate::registry) fn next_deadline(&self) -> Option<Instant> {
        let resting = self.wanted.values().filter_map(|wanted| match wanted.state {
            State::Resting { until } => Some(until),
            _ => None,
        });
        resting.min()
    }

    /// Returns the next chunk to read, if a reader is free.
    pub(in crate::registry) fn poll(&mut self) -> Option<Next> {
        while self.under_way < self.readers_max {
            let (source, partition) = self.turns.pop_front()?;
            let Some(wanted) = self.wanted.get_mut(&(source, partition)) else { continue };
            let lowest = wanted.offsets.first().copied();
            let goes_on = wanted.sweep.filter(|sweep| wanted.offsets.contains(sweep));
            let goes_on = goes_on.filter(|_| wanted.strides < STRIDES_MAX);
            wanted.strides = if goes_on.is_some() { wanted.strides + 1 } else { 0 };
            let Some(from) = goes_on.or(lowest) else {
                wanted.state = State::Idle;
                continue;
            };
            wanted.state = State::Reading;
            self.under_way += 1;
            return Some(Next { source, partition, from });
        }
        None
    }

    /// Returns how far the readings are, with what is wanted of at most `max`
    /// partitions.
    pub(in crate::registry) fn sweeps(&self, max: usize) -> Sweeps {
        let wanted = self.wanted.iter().filter(|(_, wanted)| wanted.state != State::Idle);
        let sweep = |((source, partition), wanted): (&(SourceId, PartitionId), &Wanted)| Sweep {
            source: *source,
            partition: *partition,
            cursors: wanted.offsets.len(),
            lowest: wanted.offsets.first().copied(),
            stands_at: wanted.sweep,
            state: match wanted.state {
                State::Idle | State::Queued => SweepState::Waiting,
                State::Reading | State::Abandoned => SweepState::Reading,
                State::Resting { .. } => SweepState::Resting,
            },
        };
        Sweeps {
            under_way: self.under_way,
            partitions: wanted.clone().count(),
            cursors: wanted.clone().map(|(_, wanted)| wanted.offsets.len()).sum(),
            wanted: wanted.take(max).map(sweep).collect(),
        }
    }

    /// Drops all that is wanted of a source.
    pub(in crate::registry) fn forget(&mut self, source: SourceId) {
        let first = (source, PartitionId::from_index(0));
        let mut gone = Vec::new();
        for (place, wanted) in self.wanted.range_mut(first..) {
            if place.0 != source {
                break;
            }
            wanted.offsets.clear();
            wanted.late.clear();
            match wanted.state {
                State::Reading | State::Abandoned => wanted.state = State::Abandoned,
                _ => gone.push(*place),
            }
        }
        for place in gone {
            self.wanted.remove(&place);
        }
        self.turns.retain(|place| self.wanted.contains_key(place));
    }

    fn requeue(&mut self, source: SourceId, partition: PartitionId) {
        let place = (source, partition);
        let wanted = self.wanted.get_mut(&place).expect("the caller found it");
        if wanted.offsets.is_empty() {
            if wanted.state == State::Abandoned {
                self.wanted.remove(&place);
            } else {
                wanted.state = State::Idle;
            }
            return;
        }
        wanted.state = State::Queued;
        self.turns.push_back(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(raw: i64) -> Offset {
        Offset::from_kafka(raw).expect("not negative")
    }

    #[test]
    fn one_sweep_serves_all_who_wait_along_its_way() {
        let (source, p) = (SourceId::new(1), PartitionId::from_index(0));
        let mut history = History::new(1);
        for at in [50, 10, 90] {
            history.demand(source, p, offset(at));
        }
        assert_eq!(history.poll().map(|next| next.from), Some(offset(10)));
        assert_eq!(history.poll(), None, "one reader");
        history.demand(source, p, offset(60));
        history.handle_read(source, p, offset(60));
        assert_eq!(history.poll().map(|next| next.from), Some(offset(60)), "goes on");
        history.handle_read(source, p, offset(80));
        assert_eq!(history.poll().map(|next| next.from), Some(offset(90)), "jumps on");
        history.handle_read(source, p, offset(100));
        assert_eq!(history.poll(), None);
    }

    #[test]
    fn whoever_asks_during_a_reading_is_not_forgotten() {
        let (source, p) = (SourceId::new(1), PartitionId::from_index(0));
        let mut history = History::new(1);
        history.demand(source, p, offset(10));
        assert_eq!(history.poll().map(|next| next.from), Some(offset(10)));
        // The chunk is in memory and out again before its answer is here.
        history.demand(source, p, offset(10));
        history.handle_read(source, p, offset(20));
        assert_eq!(history.poll().map(|next| next.from), Some(offset(10)));
        history.handle_read(source, p, offset(20));
        assert_eq!(history.poll(), None);
    }

    #[test]
    fn whoever_asks_after_a_source_began_anew_is_not_served_with_what_was_before() {
        let (source, p) = (SourceId::new(1), PartitionId::from_index(0));
        for failed in [false, true] {
            let mut history = History::new(1);
            history.demand(source, p, offset(10));
            assert_eq!(history.poll().map(|next| next.from), Some(offset(10)));
            history.forget(source);
            history.demand(source, p, offset(3));
            assert_eq!(history.poll(), None, "one reader");
            match failed {
                false => history.handle_read(source, p, offset(20)),
                true => history.handle_failure(source, p, None),
            }
            assert_eq!(history.poll().map(|next| next.from), Some(offset(3)));
        }
    }

    #[test]
    fn partitions_take_turns() {
        let mut history = History::new(1);
        let (a, b) = (SourceId::new(1), SourceId::new(2));
        let p = PartitionId::from_index(0);
        for at in [0, 100] {
            history.demand(a, p, offset(at));
            history.demand(b, p, offset(at));
        }
        let mut order = Vec::new();
        while let Some(next) = history.poll() {
            order.push(next.source);
            history.handle_read(next.source, p, offset(next.from.as_kafka() + 1));
        }
        assert_eq!(order, [a, b, a, b]);
    }
}
