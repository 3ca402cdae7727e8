//! The newest batches of a partition, as they were read.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::log::batch::Batch;
use crate::types::ids::Offset;

/// Batches that join without a hole.
#[derive(Debug)]
pub(in crate::log) struct Tail {
    batches: VecDeque<Arc<Batch>>,
    start: Offset,
    end: Offset,
    bytes: u64,
}

impl Tail {
    /// Returns a tail that begins at `at` and has nothing yet.
    pub(in crate::log) fn new(at: Offset) -> Self {
        Self { batches: VecDeque::new(), start: at, end: at, bytes: 0 }
    }

    /// Returns where it begins.
    pub(in crate::log) fn start(&self) -> Offset {
        self.start
    }

    /// Returns the first offset that it does not cover yet.
    pub(in crate::log) fn end(&self) -> Offset {
        self.end
    }

    /// Returns the bytes held.
    pub(in crate::log) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns how many batches are held.
    pub(in crate::log) fn len(&self) -> usize {
        self.batches.len()
    }

    /// Returns the batches from the one that covers `from` up to `limit`, and no further
    /// one once `bytes_max` are reached.
    pub(in crate::log) fn read(
        &self,
        from: Offset,
        limit: Offset,
        bytes_max: u64,
    ) -> Vec<Arc<Batch>> {
        let first = self.batches.partition_point(|batch| batch.to() <= from);
        let mut taken = Vec::new();
        let mut bytes = 0;
        for batch in self.batches.range(first..) {
            if batch.from() >= limit || (bytes >= bytes_max && !taken.is_empty()) {
                break;
            }
            bytes += batch.bytes();
            taken.push(Arc::clone(batch));
        }
        taken
    }

    /// Adds what was read from the end on.
    pub(in crate::log) fn append(&mut self, batch: Batch) {
        self.end = batch.to();
        self.bytes += batch.bytes();
        self.batches.push_back(Arc::new(batch));
    }

    /// Gives up what lies before `start`. When even the end does, the tail begins there.
    pub(in crate::log) fn expire(&mut self, start: Offset) {
        while self.batches.front().is_some_and(|batch| batch.to() <= start) {
            self.evict();
        }
        self.start = self.start.max(start);
        self.end = self.end.max(start);
    }

    /// Gives up the oldest batch; returns its bytes.
    pub(in crate::log) fn evict(&mut self) -> Option<u64> {
        let batch = self.batches.pop_front()?;
        self.start = batch.to();
        self.bytes -= batch.bytes();
        Some(batch.bytes())
    }
}
