//! Where a subscription stands: the next offset wanted, for each partition.

use std::collections::BTreeMap;

use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::TopicId;

/// The next offset wanted of each partition.
pub type Positions = BTreeMap<PartitionId, Offset>;

/// Positions together with the topic that they speak of: all that a client
/// needs to go on at any replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The topic whose offsets these are.
    pub topic_id: TopicId,
    /// The next offset wanted; a partition that is absent is wanted from its
    /// first record.
    pub positions: Positions,
}
