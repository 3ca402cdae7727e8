//! One source as the intake knows it, and the questions about it that are under
//! way.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use crate::log::budget::Budget;
use crate::log::partition::Generation;
use crate::log::partition::SharedPartition;
use crate::registry::directory::Directory;
use crate::registry::message::Bounds;
use crate::registry::message::Claim;
use crate::registry::message::Event;
use crate::registry::message::Located;
use crate::registry::message::Lookup;
use crate::registry::message::SourceFailure;
use crate::registry::message::Task;
use crate::registry::message::Through;
use crate::registry::message::Ticket;
use crate::registry::stalls::Seen;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::ShardId;
use crate::types::ids::SourceId;
use crate::types::ids::TenantId;
use crate::types::ids::TopicId;
use crate::types::ids::TopicName;
use crate::types::positions::Reached;

/// A topic under one tenancy rule, while somebody wants it and a while longer.
#[derive(Debug)]
pub(in crate::registry) struct Source {
    pub(in crate::registry) topic: TopicName,
    pub(in crate::registry) phase: Phase,
    pub(in crate::registry) followers: BTreeMap<ShardId, Ticket>,
    /// Since when nobody follows it.
    pub(in crate::registry) idle_since: Option<Instant>,
    pub(in crate::registry) topic_id: TopicId,
    pub(in crate::registry) partitions: Vec<Arc<SharedPartition>>,
    /// How many of `partitions` the topic has now: fewer after it was made
    /// again with fewer.
    pub(in crate::registry) partitions_live: usize,
    /// Partitions that are not read yet: none leads them who could say where they
    /// end.
    pub(in crate::registry) unlocated: BTreeSet<PartitionId>,
    /// Whether the ends of some of them are being looked up. Nobody begins
    /// meanwhile: a position that is newer than what is looked up would seem to
    /// stand above the end.
    pub(in crate::registry) locating: bool,
    /// Partitions whose reader stopped and is being placed anew.
    pub(in crate::registry) relocating: BTreeSet<PartitionId>,
    /// Those of them whose offsets are yet to be looked up: what is under way may
    /// be older than what they have read.
    pub(in crate::registry) relocating_next: BTreeSet<PartitionId>,
    /// Where the logs of some of them were cut off, though they have grown since.
    pub(in crate::registry) diverged: BTreeMap<PartitionId, Offset>,
    /// Where the partitions ended when they were last looked at.
    pub(in crate::registry) seen: BTreeMap<PartitionId, Seen>,
    /// Bounds below what was read, until it is known whose they are.
    pub(in crate::registry) shortened: Option<Shortened>,
    /// Questions that wait for the answer to one like them.
    pub(in crate::registry) queued: BTreeMap<Lookup, Vec<Asker>>,
    /// Questions whose claims wait for the description that is under way.
    pub(in crate::registry) doubted: Vec<(Lookup, Asker)>,
    /// The same for the one after it: what is under way may be older than what
    /// these clients have seen.
    pub(in crate::registry) doubted_later: Vec<(Lookup, Asker)>,
}

/// Whose a question is.
#[derive(Debug, Clone)]
pub(in crate::registry) struct Asker {
    pub(in crate::registry) shard: ShardId,
    pub(in crate::registry) ticket: Ticket,
    /// What must be known before it is answered.
    pub(in crate::registry) claim: Option<Claim>,
    pub(in crate::registry) tenant: TenantId,
    /// Leaders of whose logs the ends are wanted, and up to where they are in doubt.
    pub(in crate::registry) epochs: Vec<(PartitionId, Reached)>,
    /// When it was asked: after a while nobody waits for the answer.
    pub(in crate::registry) asked_at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::registry) enum Phase {
    Describing,
    /// Offsets are being looked up, to begin or to begin anew.
    Locating,
    Reading,
    Failed {
        retry_at: Instant,
    },
}

/// Bounds of a log that became shorter, or of another topic that took its name:
/// a description that was asked for after them tells which.
#[derive(Debug)]
pub(in crate::registry) struct Shortened {
    pub(in crate::registry) partitions: BTreeSet<PartitionId>,
    pub(in crate::registry) bounds: Located,
    pub(in crate::registry) awaited: Awaited,
}

/// The description that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::registry) enum Awaited {
    /// It was asked for before the bounds came, and proves nothing.
    Older,
    Newer,
}

/// Why offsets were asked for.
#[derive(Debug)]
pub(in crate::registry) struct Request {
    pub(in crate::registry) source: SourceId,
    /// The topic that was asked about, as far as was known.
    pub(in crate::registry) topic_id: TopicId,
    /// Of each partition that was known then.
    pub(in crate::registry) generations: Vec<Generation>,
    pub(in crate::registry) purpose: Purpose,
}

#[derive(Debug)]
pub(in crate::registry) enum Purpose {
    /// To begin reading, newest first.
    Begin { partitions: usize },
    /// To begin a topic that was made again, oldest first.
    BeginAnew { partitions: usize },
    /// To begin partitions that were added, oldest first.
    Extend { partitions: usize },
    /// To place readers anew that were out of range before this was asked.
    Relocate { partitions: BTreeSet<PartitionId> },
    /// To see whether readers bring what there is.
    Look,
    /// For starts of subscriptions.
    Answer { lookup: Lookup, to: Vec<Asker> },
}

impl Source {
    /// Says whether a partition is to be read. One whose reader is being placed
    /// anew is not, until that is done: what is then found of its end is held
    /// against what was read.
    pub(in crate::registry) fn reads(&self, partition: PartitionId) -> bool {
        self.phase == Phase::Reading
            && partition.index() < self.partitions_live
            && !self.unlocated.contains(&partition)
            && !self.relocating.contains(&partition)
    }

    /// Says whether a client speaks of the topic as it is known.
    pub(in crate::registry) fn bears_out(&self, claim: Claim) -> bool {
        claim.topic_id == self.topic_id && claim.partitions <= self.partitions_live
    }
}

pub(in crate::registry) fn answer(
    directory: &Directory,
    to: &[Asker],
    result: &Result<Located, SourceFailure>,
) {
    for asker in to {
        let event = Event::Resolved { ticket: asker.ticket, result: result.clone() };
        directory.mailbox(asker.shard).post(event);
    }
}

/// Adds the partitions from the first unknown one up to `count`, which begin at
/// their end: older records come from history. One without a leader begins when
/// it has one. Returns those added.
pub(in crate::registry) fn add_at_end(
    source: &mut Source,
    count: usize,
    bounds: &[Option<Bounds>],
    budget: &Arc<Budget>,
) -> Vec<Arc<SharedPartition>> {
    let topic_id = source.topic_id;
    let mut unlocated = BTreeSet::new();
    let added = add_partitions(source, count, bounds, |id, bounds| match bounds {
        Some(Bounds { start, end, .. }) => SharedPartition::new(id, topic_id, *start, *end, budget),
        None => {
            unlocated.insert(id);
            SharedPartition::unlocated(id, topic_id, budget)
        }
    });
    source.unlocated.extend(unlocated);
    added
}

/// The same for partitions that begin at their first record: they are new to
/// everybody, and where none leads them yet they are empty.
pub(in crate::registry) fn add_at_start(
    source: &mut Source,
    count: usize,
    bounds: &[Option<Bounds>],
    budget: &Arc<Budget>,
) -> Vec<Arc<SharedPartition>> {
    let topic_id = source.topic_id;
    add_partitions(source, count, bounds, |id, bounds| {
        let start = bounds.as_ref().map_or(Offset::ZERO, |bounds| bounds.start);
        SharedPartition::new(id, topic_id, start, start, budget)
    })
}

fn add_partitions(
    source: &mut Source,
    count: usize,
    bounds: &[Option<Bounds>],
    mut make: impl FnMut(PartitionId, &Option<Bounds>) -> Arc<SharedPartition>,
) -> Vec<Arc<SharedPartition>> {
    let known = source.partitions.len();
    for (index, bounds) in bounds.iter().enumerate().take(count).skip(known) {
        let log = make(PartitionId::from_index(index), bounds);
        if let Some(Bounds { end, epoch: Some(epoch), .. }) = bounds {
            log.begin_reached(Reached { epoch: *epoch, to: *end });
        }
        source.partitions.push(log);
    }
    source.partitions_live = source.partitions.len().min(count);
    source.partitions[known.min(source.partitions.len())..].to_vec()
}

pub(in crate::registry) fn is_assignment(task: &Task, id: SourceId, wanted: PartitionId) -> bool {
    matches!(task, Task::Assign { source, partition, .. } if (*source, partition.id()) == (id, wanted))
}

pub(in crate::registry) fn assignment(
    source: SourceId,
    topic: &TopicName,
    partition: &Arc<SharedPartition>,
    through: Through,
) -> Task {
    Task::Assign { source, topic: topic.clone(), partition: Arc::clone(partition), through }
}
