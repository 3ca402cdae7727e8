//! Where partitions are read from: to begin, to begin anew, and after a reader has
//! lost its place.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::log::partition::SharedPartition;
use crate::registry::intake::Intake;
use crate::registry::message::Bounds;
use crate::registry::message::Event;
use crate::registry::message::Lookup;
use crate::registry::message::Task;
use crate::registry::message::TopicDescription;
use crate::registry::source::Awaited;
use crate::registry::source::Phase;
use crate::registry::source::Purpose;
use crate::registry::source::Request;
use crate::registry::source::Shortened;
use crate::registry::source::add_partitions;
use crate::registry::source::assignment;
use crate::registry::source::from_zero;
use crate::types::ids::PartitionId;
use crate::types::ids::ShardId;
use crate::types::ids::SourceId;

impl Intake {
    /// Begins a source at its end: older records come from history.
    pub(in crate::registry) fn begin(&mut self, id: SourceId, count: usize, bounds: &[Bounds]) {
        let source = self.sources.get_mut(&id).expect("the caller found it");
        source.phase = Phase::Reading;
        let begin = |bounds: &Bounds| (bounds.start, bounds.end);
        add_partitions(source, count, bounds, &self.budget, begin);
        self.assign(id, 0);
        for shard in self.sources[&id].followers.clone() {
            self.announce(id, shard);
        }
        self.ask_all_queued(id);
    }

    /// Tells every reader that the topic was made again, all partitions before
    /// anybody is woken, and looks up where the new one begins.
    pub(in crate::registry) fn recreate(&mut self, id: SourceId, description: &TopicDescription) {
        let source = self.sources.get_mut(&id).expect("the caller found it");
        source.phase = Phase::Locating;
        source.topic_id = description.topic_id;
        source.relocating.clear();
        source.relocating_next.clear();
        source.diverged.clear();
        self.retries.retain(|(_, of, _)| *of != id);
        source.shortened = None;
        for partition in &source.partitions {
            self.tasks.push_back(Task::Unassign {
                source: id,
                topic: source.topic.clone(),
                partition: partition.id(),
            });
            partition.recreate(description.topic_id);
        }
        self.history.forget(id);
        for partition in &source.partitions {
            self.directory.wake(id, partition.id());
        }
        let partitions = description.partitions;
        self.list_offsets(id, Lookup::Bounds, Purpose::BeginAnew { partitions });
    }

    pub(in crate::registry) fn begin_anew(
        &mut self,
        id: SourceId,
        count: usize,
        bounds: &[Bounds],
    ) {
        let source = self.sources.get_mut(&id).expect("the caller found it");
        source.phase = Phase::Reading;
        let known = source.partitions.len();
        source.partitions_live = known.min(count);
        for (partition, bounds) in source.partitions.iter().zip(bounds).take(count) {
            partition.expire(bounds.start);
        }
        let added = add_partitions(source, count, bounds, &self.budget, from_zero);
        self.assign(id, 0);
        self.announce_added(id, added);
        for partition in 0..known {
            self.directory.wake(id, PartitionId::from_index(partition));
        }
        self.ask_all_queued(id);
    }

    /// Begins partitions that were added, from their first record: all of them
    /// are new to everybody.
    pub(in crate::registry) fn extend(&mut self, id: SourceId, count: usize, bounds: &[Bounds]) {
        let source = self.sources.get_mut(&id).expect("the caller found it");
        if source.phase != Phase::Reading || count <= source.partitions_live {
            return;
        }
        let first = source.partitions_live;
        let added = add_partitions(source, count, bounds, &self.budget, from_zero);
        self.assign(id, first);
        self.announce_added(id, added);
        let source = self.sources.get_mut(&id).expect("it was there before");
        for (lookup, asker) in std::mem::take(&mut source.doubted) {
            source.queued.entry(lookup).or_default().push(asker);
        }
        self.ask_all_queued(id);
    }

    /// Places the readers anew that were out of range. A log that became shorter
    /// may be that of a topic that was made again, which clients must be told as
    /// what it is: then the topic is looked at first.
    pub(in crate::registry) fn relocate(
        &mut self,
        id: SourceId,
        partitions: BTreeSet<PartitionId>,
        mut bounds: Vec<Bounds>,
    ) {
        let source = self.sources.get_mut(&id).expect("the caller found it");
        for partition in &partitions {
            let to = source.diverged.remove(partition);
            if let (Some(to), Some(bounds)) = (to, bounds.get_mut(partition.index())) {
                bounds.end = bounds.end.min(to.max(bounds.start));
            }
        }
        let shorter = partitions.iter().any(|partition| {
            let (log, bounds) =
                (source.partitions.get(partition.index()), bounds.get(partition.index()));
            matches!((log, bounds), (Some(log), Some(bounds)) if log.end().offset > bounds.end)
        });
        if !shorter {
            return self.place_anew(id, &partitions, &bounds);
        }
        let topic = source.topic.clone();
        let under_way = self.describing.contains(&topic);
        let awaited = if under_way { Awaited::Older } else { Awaited::Newer };
        source.shortened = Some(Shortened { partitions, bounds, awaited });
        self.describe([topic]);
    }

    /// Takes the news that the topic is still the same one.
    pub(in crate::registry) fn confirm(&mut self, id: SourceId) {
        let source = self.sources.get_mut(&id).expect("the caller found it");
        let Some(shortened) = source.shortened.take() else { return };
        match shortened.awaited {
            Awaited::Older => {
                source.shortened = Some(Shortened { awaited: Awaited::Newer, ..shortened });
                let topic = source.topic.clone();
                self.describe([topic]);
            }
            Awaited::Newer => self.place_anew(id, &shortened.partitions, &shortened.bounds),
        }
    }

    /// Moves readers to where there are records, and says what is gone.
    pub(in crate::registry) fn place_anew(
        &mut self,
        id: SourceId,
        partitions: &BTreeSet<PartitionId>,
        bounds: &[Bounds],
    ) {
        let source = self.sources.get_mut(&id).expect("the caller found it");
        source.relocating.retain(|partition| !partitions.contains(partition));
        if source.phase != Phase::Reading {
            return;
        }
        for &partition in partitions {
            let (Some(log), Some(bounds)) =
                (source.partitions.get(partition.index()), bounds.get(partition.index()))
            else {
                continue;
            };
            let end = log.end().offset;
            if end > bounds.end {
                log.truncate(bounds.end);
            } else {
                log.expire(bounds.start);
            }
            self.directory.wake(id, partition);
            self.tasks.push_back(assignment(id, &source.topic, log));
        }
        self.relocate_next(id);
    }

    /// Looks up offsets for the readers that wait for it, unless others are being
    /// placed.
    pub(in crate::registry) fn relocate_next(&mut self, id: SourceId) {
        let relocates = |request: &Request| matches!(request.purpose, Purpose::Relocate { .. });
        let mut requests = self.requests.values();
        let asked = requests.any(|request| request.source == id && relocates(request));
        let source = self.sources.get_mut(&id).expect("the caller found it");
        if !asked && source.shortened.is_none() && !source.relocating_next.is_empty() {
            let partitions = std::mem::take(&mut source.relocating_next);
            self.list_offsets(id, Lookup::Bounds, Purpose::Relocate { partitions });
        }
    }

    pub(in crate::registry) fn reassign(&mut self, id: SourceId, partition: PartitionId) {
        let Some(source) = self.sources.get(&id) else { return };
        if source.reads(partition) {
            let log = &source.partitions[partition.index()];
            self.tasks.push_back(assignment(id, &source.topic, log));
        }
    }

    pub(in crate::registry) fn assign(&mut self, id: SourceId, first: usize) {
        let source = &self.sources[&id];
        let live = source.partitions[..source.partitions_live].to_vec();
        self.directory.set_partitions(id, live);
        for partition in &source.partitions[first..source.partitions_live] {
            self.tasks.push_back(assignment(id, &source.topic, partition));
        }
    }

    pub(in crate::registry) fn announce(&self, id: SourceId, shard: ShardId) {
        let partitions = self.sources[&id].partitions.clone();
        self.directory.mailbox(shard).post(Event::Ready { source: id, partitions });
    }

    pub(in crate::registry) fn announce_added(
        &self,
        id: SourceId,
        added: Vec<Arc<SharedPartition>>,
    ) {
        if added.is_empty() {
            return;
        }
        for shard in &self.sources[&id].followers {
            let partitions = added.clone();
            self.directory.mailbox(*shard).post(Event::PartitionsAdded { source: id, partitions });
        }
    }
}
