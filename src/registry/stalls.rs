//! Whether live readers bring what there is. A client may wait at a broker that no
//! longer leads a partition and hear nothing, also no error (librdkafka's #5593):
//! where a partition has brought nothing new, its end is looked up by another
//! client, and where that is another one, it is read through another client.

use std::collections::VecDeque;
use std::time::Duration;
use std::time::Instant;

use crate::log::partition::Cursor;
use crate::registry::intake::Intake;
use crate::registry::message::Bounds;
use crate::registry::message::Lookup;
use crate::registry::message::Through;
use crate::registry::source::Phase;
use crate::registry::source::Purpose;
use crate::registry::source::assignment;
use crate::types::ids::PartitionId;
use crate::types::ids::SourceId;
use crate::types::sabotage::Defect;

/// When readers are looked at.
#[derive(Debug, Default)]
pub(in crate::registry) struct Stalls {
    next_at: Option<Instant>,
    /// Sources that are yet to be looked at: one after the other, so that starts
    /// of clients never wait for many of them.
    due: VecDeque<SourceId>,
}

/// Where a log ended when its reader was last looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::registry) struct Seen {
    end: Cursor,
    found: Found,
}

/// Where Kafka's log ended by the last look: elsewhere it has more, or was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    ItsEnd,
    Another,
}

impl Stalls {
    pub(in crate::registry) fn next_deadline(&self) -> Option<Instant> {
        self.next_at
    }
}

impl Intake {
    /// Looks at all readers, if it is time to.
    pub(in crate::registry) fn look_at_readers(&mut self, now: Instant) {
        if self.stalls.next_at.is_some_and(|at| at > now) {
            return;
        }
        self.stalls.next_at = (!self.sources.is_empty()).then(|| now + LOOK_INTERVAL);
        if self.stalls.due.is_empty() {
            self.stalls.due.extend(self.sources.keys().copied());
        }
        self.look_at_next();
    }

    /// Asks for the end of the next source of which a partition stood still since
    /// the last look.
    pub(in crate::registry) fn look_at_next(&mut self) {
        if self.requests.values().any(|request| matches!(request.purpose, Purpose::Look)) {
            return;
        }
        while let Some(id) = self.stalls.due.pop_front() {
            if self.stands_still(id) {
                return self.list_offsets(id, Lookup::Bounds, Purpose::Look);
            }
        }
    }

    /// Notes where the partitions of a source end, and says whether one still ends
    /// where it did.
    fn stands_still(&mut self, id: SourceId) -> bool {
        let Some(source) = self.sources.get_mut(&id) else { return false };
        if source.phase != Phase::Reading {
            source.seen.clear();
            return false;
        }
        let mut stands_still = false;
        for log in &source.partitions {
            let (id, end) = (log.id(), log.end());
            if !source.reads(id) {
                source.seen.remove(&id);
            } else if source.seen.get(&id).is_some_and(|seen| seen.end == end) {
                stands_still = true;
            } else {
                source.seen.insert(id, Seen { end, found: Found::ItsEnd });
            }
        }
        stands_still
    }

    /// Takes what Kafka has of a source that was looked at.
    pub(in crate::registry) fn looked(
        &mut self,
        id: SourceId,
        bounds: &[Option<Bounds>],
        now: Instant,
    ) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        let mut stalled: Vec<PartitionId> = Vec::new();
        for (log, bounds) in source.partitions.iter().zip(bounds) {
            let Some(seen) = source.seen.get_mut(&log.id()) else { continue };
            if seen.end != log.end() {
                continue;
            }
            let ends_elsewhere =
                bounds.as_ref().is_some_and(|bounds| bounds.end != seen.end.offset);
            match (ends_elsewhere, seen.found) {
                (false, _) => seen.found = Found::ItsEnd,
                // It may have come just now.
                (true, Found::ItsEnd) => {
                    seen.found = Found::Another;
                    let soon = now + AGAIN;
                    self.stalls.next_at = self.stalls.next_at.map(|at| at.min(soon));
                }
                (true, Found::Another) => stalled.push(log.id()),
            }
        }
        for partition in stalled {
            source.seen.remove(&partition);
            if source.reads(partition) && !Defect::TrustReaders.is_planted() {
                let log = &source.partitions[partition.index()];
                self.tasks.push_back(assignment(id, &source.topic, log, Through::Another));
            }
        }
    }
}

/// Between two looks at the readers.
const LOOK_INTERVAL: Duration = Duration::from_secs(4);
/// How long a reader has for what was found to come.
const AGAIN: Duration = Duration::from_secs(2);
