//! What all threads share: the sources and the mailboxes of the shards
//! (being written).

use crate::tenancy::channel::SourceKey;
use crate::types::ids::PartitionId;
use crate::types::ids::SourceId;

/// The sources that somebody follows and the shards that follow them.
#[derive(Debug, Default)]
pub struct Directory {}

impl Directory {
    /// Tells every shard that follows `source` that `partition` has news.
    pub fn wake(&self, source: SourceId, partition: PartitionId) {
        let _ = (source, partition);
        unimplemented!()
    }

    /// Returns what `source` stands for.
    pub fn key(&self, source: SourceId) -> SourceKey {
        let _ = source;
        unimplemented!()
    }
}
