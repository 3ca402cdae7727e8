//! One source as a shard reads it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::delivery::index::Index;
use crate::delivery::subscription::Standing;
use crate::delivery::subscription::SubRef;
use crate::log::batch::Batch;
use crate::log::partition::Cursor;
use crate::log::partition::Generation;
use crate::log::partition::SharedPartition;
use crate::registry::message::Ticket;
use crate::types::ids::Offset;
use crate::types::ids::SourceId;
use crate::types::ids::TenantId;
use crate::types::ids::TopicId;
use crate::types::positions::Reached;

/// A source that some connection of the shard follows.
#[derive(Debug)]
pub struct Source {
    pub(in crate::delivery) id: SourceId,
    /// With which it was asked for.
    pub(in crate::delivery) ticket: Ticket,
    pub(in crate::delivery) phase: Phase,
    /// The topic that live followers have been told of.
    pub(in crate::delivery) topic_id: TopicId,
    pub(in crate::delivery) partitions: Vec<Partition>,
    pub(in crate::delivery) index: Index,
    /// Feeds of the source; with the last, the shard stops following it.
    pub(in crate::delivery) feeds: usize,
    /// Subscriptions that wait for the source to be read.
    pub(in crate::delivery) starting: Vec<SubRef>,
    /// Subscriptions that are behind elsewhere and have met the shard's cursor
    /// in some partition: they look again at the next tick.
    pub(in crate::delivery) at_end: BTreeSet<SubRef>,
}

/// Whether a source's partitions are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delivery) enum Phase {
    Waiting,
    Reading,
}

/// One partition as a shard reads it.
#[derive(Debug)]
pub(in crate::delivery) struct Partition {
    pub(in crate::delivery) log: Arc<SharedPartition>,
    /// Up to where all live feeds have been served.
    pub(in crate::delivery) cursor: Cursor,
    /// In which leader's log what was read stood, and of which generation that is.
    reached: Option<(Generation, Reached)>,
    /// Subscriptions that wait for history.
    pub(in crate::delivery) waiting: Vec<SubRef>,
    /// Offsets that have been demanded for each tenant since history last changed.
    pub(in crate::delivery) demanded: BTreeMap<TenantId, BTreeSet<Offset>>,
    pub(in crate::delivery) history_version: u64,
}

impl Partition {
    pub(in crate::delivery) fn new(log: Arc<SharedPartition>, cursor: Cursor) -> Self {
        let history_version = log.history_version();
        let (waiting, demanded) = (Vec::new(), BTreeMap::new());
        let reached = log.reached(cursor).map(|reached| (cursor.generation, reached));
        Self { log, cursor, reached, waiting, demanded, history_version }
    }

    /// Notes in which leader's log stood what is read from the cursor on.
    pub(in crate::delivery) fn note_reached(&mut self, batches: &[Arc<Batch>]) {
        if let Some(reached) = newest_reached(batches) {
            self.reached = Some((self.cursor.generation, reached));
        }
    }

    /// Returns in which leader's log what was read up to this offset stood, as far as
    /// that is known.
    pub(in crate::delivery) fn reached(&self, to: Offset) -> Option<Reached> {
        let (generation, reached) = self.reached?;
        (generation == self.cursor.generation).then(|| reached.up_to(to))
    }
}

/// Returns what the last batch that knows it says of the leader's log.
pub(in crate::delivery) fn newest_reached(batches: &[Arc<Batch>]) -> Option<Reached> {
    batches.iter().rev().find_map(|batch| batch.reached())
}

/// Whether an offset is new among those that were demanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delivery) enum Demanded {
    Already,
    Now,
}

impl Partition {
    /// Notes that a tenant's cursor waits at this offset.
    pub(in crate::delivery) fn demand(&mut self, tenant: &TenantId, offset: Offset) -> Demanded {
        let is_new = match self.demanded.get_mut(tenant) {
            Some(offsets) => offsets.insert(offset),
            None => self.demanded.insert(tenant.clone(), BTreeSet::from([offset])).is_none(),
        };
        if is_new { Demanded::Now } else { Demanded::Already }
    }
}

impl Source {
    /// Returns what the offsets of the source mean now.
    pub(in crate::delivery) fn standing(&self) -> Standing {
        let turns = self.partitions.iter().map(|p| p.log.end().generation.count());
        Standing { partitions: self.partitions.len(), turns: turns.map(u64::from).sum() }
    }

    pub(in crate::delivery) fn new(id: SourceId, ticket: Ticket) -> Self {
        Self {
            id,
            ticket,
            phase: Phase::Waiting,
            topic_id: TopicId::UNKNOWN,
            partitions: Vec::new(),
            index: Index::default(),
            feeds: 0,
            starting: Vec::new(),
            at_end: BTreeSet::new(),
        }
    }
}
