//! Where a subscription stands: the next offset wanted, for each partition.

use std::collections::BTreeMap;

use crate::types::ids::LeaderEpoch;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::TopicId;

/// The next offset wanted of each partition.
pub type Positions = BTreeMap<PartitionId, Offset>;

/// What is known of the log that a position was reached in: what was read of it up to
/// this offset stood in the log of the leader of this epoch (KIP-320). Where that log
/// now ends below, what lies between was taken back, whatever stands there since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    pub epoch: LeaderEpoch,
    pub to: Offset,
}

impl Reached {
    /// Returns what it says of offsets below `to`.
    #[must_use]
    pub fn up_to(self, to: Offset) -> Self {
        Self { to: self.to.min(to), ..self }
    }
}

/// In which leader's log stood what was read of each partition.
pub type Epochs = BTreeMap<PartitionId, Reached>;

/// Positions together with the topic that they speak of: all that a client
/// needs to go on at any replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The topic whose offsets these are.
    pub topic_id: TopicId,
    /// The next offset wanted; a partition that is absent is wanted from its
    /// first record.
    pub positions: Positions,
    /// Of those partitions of which it is known; without it, what was taken back while
    /// nobody was there is not noticed once the log has grown again.
    pub epochs: Epochs,
}

impl Place {
    /// Returns a place that says nothing of leaders.
    pub fn new(topic_id: TopicId, positions: Positions) -> Self {
        Self { topic_id, positions, epochs: Epochs::new() }
    }
}
