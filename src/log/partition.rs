//! One partition in memory (being written).

use std::sync::Mutex;

use crate::log::batch::Batch;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;

/// One partition, shared by the thread that appends and the shards that read.
#[derive(Debug)]
pub struct SharedPartition {
    id: PartitionId,
    inner: Mutex<()>,
}

impl SharedPartition {
    /// Returns the partition's number.
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// Returns the first offset that the tail does not cover yet: what the
    /// reader must append next.
    pub fn end(&self) -> Offset {
        let _ = &self.inner;
        unimplemented!()
    }

    /// Adds what was read from `end()` on. The batch must begin there.
    pub fn append(&self, batch: Batch) {
        let _ = batch;
        unimplemented!()
    }

    /// Adds what was read back of history, wherever it stands.
    pub fn insert_history(&self, batch: Batch) {
        let _ = batch;
        unimplemented!()
    }
}
