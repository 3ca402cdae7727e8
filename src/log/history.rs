//! What was read back of a partition's history.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::log::batch::Batch;
use crate::types::ids::Offset;

/// Chunks below the tail, which need not join.
#[derive(Debug, Default)]
pub(in crate::log) struct History {
    /// Chunks by where they begin.
    chunks: BTreeMap<Offset, Arc<Batch>>,
    /// Where they begin, in the order in which they came.
    arrivals: VecDeque<Offset>,
    bytes: u64,
}

impl History {
    /// Returns the bytes held.
    pub(in crate::log) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the chunk that covers an offset.
    pub(in crate::log) fn at(&self, offset: Offset) -> Option<&Arc<Batch>> {
        let (_, chunk) = self.chunks.range(..=offset).next_back()?;
        (chunk.to() > offset).then_some(chunk)
    }

    /// Returns the first chunk that begins at an offset or above it.
    pub(in crate::log) fn after(&self, offset: Offset) -> Option<&Arc<Batch>> {
        self.chunks.range(offset..).next().map(|(_, chunk)| chunk)
    }

    /// Adds a chunk; returns the bytes of one that began at the same place.
    pub(in crate::log) fn insert(&mut self, chunk: Batch) -> u64 {
        let (from, bytes) = (chunk.from(), chunk.bytes());
        let replaced = self.chunks.insert(from, Arc::new(chunk)).map(|old| old.bytes());
        if replaced.is_some() {
            self.arrivals.retain(|arrival| *arrival != from);
        }
        self.arrivals.push_back(from);
        let replaced = replaced.unwrap_or(0);
        self.bytes = self.bytes + bytes - replaced;
        replaced
    }

    /// Gives up what lies before `start`.
    pub(in crate::log) fn expire(&mut self, start: Offset) {
        while self.chunks.first_key_value().is_some_and(|(_, chunk)| chunk.to() <= start) {
            let (from, chunk) = self.chunks.pop_first().expect("seen above");
            self.arrivals.retain(|arrival| *arrival != from);
            self.bytes -= chunk.bytes();
        }
    }

    /// Gives up the chunk that came first; returns its bytes.
    pub(in crate::log) fn evict(&mut self) -> Option<u64> {
        let from = self.arrivals.pop_front()?;
        let chunk = self.chunks.remove(&from).expect("each arrival stands in the map");
        self.bytes -= chunk.bytes();
        Some(chunk.bytes())
    }
}
