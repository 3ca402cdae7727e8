//! Where partitions are read from: to begin, to begin anew, and after a reader has
//! lost its place.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use crate::log::partition::SharedPartition;
use crate::registry::intake::Intake;
use crate::registry::message::Bounds;
use crate::registry::message::Event;
use crate::registry::message::Located;
use crate::registry::message::Lookup;
use crate::registry::message::Task;
use crate::registry::message::Through;
use crate::registry::message::TopicDescription;
use crate::registry::source::Awaited;
use crate::registry::source::Phase;
use crate::registry::source::Purpose;
use crate::registry::source::Request;
use crate::registry::source::Shortened;
use crate::registry::source::add_at_end;
use crate::registry::source::add_at_start;
use crate::registry::source::assignment;
use crate::types::ids::PartitionId;
use crate::types::ids::ShardId;
use crate::types::ids::SourceId;
use crate::types::positions::Reached;

impl Intake {
    /// Begins a source at its end: older records come from history.
    pub(in crate::registry) fn begin(
        &mut self,
        id: SourceId,
        count: usize,
        bounds: &[Option<Bounds>],
        now: Instant,
    ) {
        let source = self.sources.get_mut(&id).expect("the caller found it");
        source.phase = Phase::Reading;
        add_at_end(source, count, bounds, &self.budget);
        let unlocated = source.unlocated.clone();
        self.relocate_later(id, unlocated, now);
        self.assign(id, 0);
        self.announce_to_all(id);
        self.ask_all_queued(id);
    }

    /// Tells every reader that the topic was made again, all partitions before
    /// anybody is woken, and looks up where the new one begins.
    pub(in crate::registry) fn recreate(&mut self, id: SourceId, description: &TopicDescription) {
        let source = self.sources.get_mut(&id).expect("the caller found it");
        source.phase = Phase::Locating;
        source.topic_id = description.topic_id;
        source.unlocated.clear();
        source.locating = false;
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
        bounds: &[Option<Bounds>],
    ) {
        let source = self.sources.get_mut(&id).expect("the caller found it");
        source.phase = Phase::Reading;
        let known = source.partitions.len();
        source.partitions_live = known.min(count);
        for (partition, bounds) in source.partitions.iter().zip(bounds).take(count) {
            // One that has no leader is read from its beginning all the same.
            if let Some(bounds) = bounds {
                partition.expire(bounds.start);
            }
        }
        let added = add_at_start(source, count, bounds, &self.budget);
        self.assign(id, 0);
        // Who began to follow while the new topic could not be read has heard of no
        // partition yet; to all others it says nothing.
        self.announce_to_all(id);
        self.announce_added(id, added);
        for partition in 0..known {
            self.directory.wake(id, PartitionId::from_index(partition));
        }
        self.ask_all_queued(id);
    }

    /// Begins partitions that were added, from their first record: all of them
    /// are new to everybody.
    pub(in crate::registry) fn extend(
        &mut self,
        id: SourceId,
        count: usize,
        bounds: &[Option<Bounds>],
    ) {
        let source = self.sources.get_mut(&id).expect("the caller found it");
        if source.phase != Phase::Reading || count <= source.partitions_live {
            return;
        }
        let first = source.partitions_live;
        let added = add_at_start(source, count, bounds, &self.budget);
        self.assign(id, first);
        self.announce_added(id, added);
        let source = self.sources.get_mut(&id).expect("it was there before");
        for (lookup, asker) in std::mem::take(&mut source.doubted) {
            source.queued.entry(lookup).or_default().push(asker);
        }
        self.ask_all_queued(id);
    }

    /// Places the readers anew that were out of range, and for the first time
    /// those of partitions that have a leader now. A log that became shorter, or
    /// is shorter than clients said, may be that of a topic that was made again,
    /// which they must be told as what it is: then the topic is looked at first.
    pub(in crate::registry) fn relocate(
        &mut self,
        id: SourceId,
        partitions: BTreeSet<PartitionId>,
        mut bounds: Located,
        now: Instant,
    ) {
        let has_leader =
            |partition: &PartitionId| matches!(bounds.get(partition.index()), Some(Some(_)));
        let (partitions, leaderless) = partitions.into_iter().partition(has_leader);
        self.relocate_later(id, leaderless, now);
        let source = self.sources.get_mut(&id).expect("the caller found it");
        for partition in &partitions {
            let to = source.diverged.remove(partition);
            if let (Some(to), Some(Some(bounds))) = (to, bounds.get_mut(partition.index())) {
                bounds.end = bounds.end.min(to.max(bounds.start));
            }
        }
        let shorter = partitions.iter().any(|partition: &PartitionId| {
            let (log, bounds) =
                (source.partitions.get(partition.index()), &bounds[partition.index()]);
            let is_below = |log: &Arc<SharedPartition>| {
                bounds.as_ref().is_some_and(|bounds| log.end().offset > bounds.end)
            };
            source.unlocated.contains(partition) || log.is_some_and(is_below)
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
        bounds: &[Option<Bounds>],
    ) {
        let source = self.sources.get_mut(&id).expect("the caller found it");
        source.relocating.retain(|partition| !partitions.contains(partition));
        if source.phase != Phase::Reading {
            return;
        }
        for &partition in partitions {
            let (Some(log), Some(Some(bounds))) =
                (source.partitions.get(partition.index()), bounds.get(partition.index()))
            else {
                continue;
            };
            let end = log.end().offset;
            if source.unlocated.remove(&partition) {
                log.locate(bounds.start, bounds.end);
            } else if end > bounds.end {
                log.truncate(bounds.end);
            } else {
                log.expire(bounds.start);
            }
            if let Some(epoch) = bounds.epoch {
                log.begin_reached(Reached { epoch, to: bounds.end });
            }
            self.directory.wake(id, partition);
            self.tasks.push_back(assignment(id, &source.topic, log, Through::Usual));
        }
        self.end_locating(id);
        self.relocate_next(id);
    }

    /// Lets those begin who waited for partitions to be located.
    pub(in crate::registry) fn end_locating(&mut self, id: SourceId) {
        let source = self.sources.get_mut(&id).expect("the caller found it");
        if std::mem::take(&mut source.locating) {
            self.ask_all_queued(id);
        }
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
            source.locating =
                partitions.iter().any(|partition| source.unlocated.contains(partition));
            self.list_offsets(id, Lookup::Bounds, Purpose::Relocate { partitions });
        }
    }

    /// Looks up offsets anew after a while: they could not be had now.
    pub(in crate::registry) fn relocate_later(
        &mut self,
        id: SourceId,
        partitions: BTreeSet<PartitionId>,
        now: Instant,
    ) {
        let source = self.sources.get_mut(&id).expect("the caller found it");
        source.relocating.retain(|partition| !partitions.contains(partition));
        let at = now + self.settings.retry_interval;
        self.retries.extend(partitions.into_iter().map(|partition| (at, id, partition)));
    }

    /// Reads a partition again, or looks up first where it is read from.
    pub(in crate::registry) fn reassign(&mut self, id: SourceId, partition: PartitionId) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        if source.unlocated.contains(&partition) {
            source.relocating.insert(partition);
            source.relocating_next.insert(partition);
            return self.relocate_next(id);
        }
        if source.reads(partition) {
            let log = &source.partitions[partition.index()];
            self.tasks.push_back(assignment(id, &source.topic, log, Through::Usual));
        }
    }

    pub(in crate::registry) fn assign(&mut self, id: SourceId, first: usize) {
        let source = &self.sources[&id];
        let live = source.partitions[..source.partitions_live].to_vec();
        self.directory.set_partitions(id, live);
        let begun = source.partitions[first..source.partitions_live].iter();
        for partition in begun.filter(|log| !source.unlocated.contains(&log.id())) {
            self.tasks.push_back(assignment(id, &source.topic, partition, Through::Usual));
        }
    }

    pub(in crate::registry) fn announce(&self, id: SourceId, shard: ShardId) {
        let source = &self.sources[&id];
        let (ticket, partitions) = (source.followers[&shard], source.partitions.clone());
        self.directory.mailbox(shard).post(Event::Ready { source: id, ticket, partitions });
    }

    fn announce_to_all(&self, id: SourceId) {
        for shard in self.sources[&id].followers.keys() {
            self.announce(id, *shard);
        }
    }

    pub(in crate::registry) fn announce_added(
        &self,
        id: SourceId,
        added: Vec<Arc<SharedPartition>>,
    ) {
        if added.is_empty() {
            return;
        }
        for shard in self.sources[&id].followers.keys() {
            let partitions = added.clone();
            self.directory.mailbox(*shard).post(Event::PartitionsAdded { source: id, partitions });
        }
    }
}
