//! What librdkafka offers and rdkafka does not, behind safe calls: the only
//! unsafe code of this room.
//!
//! `queue` reads one partition, and unlike the safe API says where a partition
//! ends and which offset was out of range; `topics` describes topics with their
//! ids; `offsets` has the leader epochs of lists of partitions.

pub(in crate::kafka) mod offsets;
pub(in crate::kafka) mod queue;
pub(in crate::kafka) mod topics;
