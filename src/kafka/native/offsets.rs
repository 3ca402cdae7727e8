//! The leader epochs in librdkafka's lists of partitions.

use rdkafka::TopicPartitionList;
use rdkafka_sys as native;

use crate::types::ids::LeaderEpoch;

/// Sets the leader epoch of the partition that was added last.
///
/// # Panics
///
/// When the list is empty.
pub(in crate::kafka) fn set_last_epoch(list: &mut TopicPartitionList, epoch: LeaderEpoch) {
    let last = list.count().checked_sub(1).expect("a partition was added");
    // SAFETY: the list is alive and borrowed for writing, and has this element.
    unsafe {
        let element = (*list.ptr()).elems.add(last);
        native::rd_kafka_topic_partition_set_leader_epoch(element, epoch.as_kafka());
    }
}

/// Returns the leader epochs of the list's partitions, in their order.
pub(in crate::kafka) fn epochs(list: &TopicPartitionList) -> Vec<Option<LeaderEpoch>> {
    let epoch = |index| {
        // SAFETY: the list is alive, and has so many elements.
        let raw = unsafe {
            let element = (*list.ptr()).elems.add(index);
            native::rd_kafka_topic_partition_get_leader_epoch(element)
        };
        LeaderEpoch::from_kafka(raw)
    };
    (0..list.count()).map(epoch).collect()
}
