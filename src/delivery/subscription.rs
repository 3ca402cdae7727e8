//! One subscription of one connection.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Instant;

use crate::delivery::index::FeedSlot;
use crate::delivery::source::Partition;
use crate::delivery::span::RecordRef;
use crate::log::partition::Cursor;
use crate::protocol::frame::OnGap;
use crate::protocol::frame::StartAt;
use crate::tenancy::quota::SubscriptionPlace;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::RequestId;
use crate::types::ids::TopicId;
use crate::types::positions::Positions;

/// A connection of a shard. A place that is used again gets another serial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionKey {
    pub(in crate::delivery) slot: u32,
    pub(in crate::delivery) serial: u32,
}

/// A subscription of a shard, also after it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubRef {
    pub(in crate::delivery) connection: ConnectionKey,
    pub(in crate::delivery) slot: u16,
    pub(in crate::delivery) serial: u32,
}

/// One subscription.
#[derive(Debug)]
pub struct Subscription {
    pub(in crate::delivery) serial: u32,
    pub(in crate::delivery) request: RequestId,
    pub(in crate::delivery) feed: FeedSlot,
    pub(in crate::delivery) on_gap: OnGap,
    pub(in crate::delivery) announced: Announced,
    pub(in crate::delivery) window: Option<Box<Window>>,
    pub(in crate::delivery) state: State,
    /// Where it began; not kept where that takes too much memory.
    pub(in crate::delivery) started: Option<Started>,
    /// Its place among its tenant's.
    pub(in crate::delivery) _place: SubscriptionPlace,
}

/// Where a subscription began.
#[derive(Debug)]
pub(in crate::delivery) struct Started {
    pub(in crate::delivery) topic_id: TopicId,
    pub(in crate::delivery) at: Box<[Offset]>,
}

/// Partitions of a topic beyond which nobody keeps where it began.
pub(in crate::delivery) const STARTS_KEPT_MAX: usize = 32;

/// Whether the client was told that it has caught up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delivery) enum Announced {
    NotYet,
    Live,
}

/// What a subscription is doing now.
#[derive(Debug)]
pub(in crate::delivery) enum State {
    /// Its start is being found.
    Starting(Box<StartAt>),
    /// It reads the log at its own cursors.
    Behind(Box<Behind>),
    /// It gets what its feed gets; `follower` is its place among the feed's.
    Live { follower: u32 },
}

/// A question that was asked for a start.
#[derive(Debug, Clone, Copy)]
pub(in crate::delivery) struct Question {
    pub(in crate::delivery) subscription: SubRef,
    pub(in crate::delivery) standing: Standing,
}

/// What the offsets of a source meant at some moment: how many partitions there
/// were, and how often any of them had begun anew. An answer that was asked for
/// at one standing says nothing of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delivery) struct Standing {
    pub(in crate::delivery) partitions: usize,
    pub(in crate::delivery) turns: u64,
}

/// The cursors of a subscription that does not go along with its feed.
#[derive(Debug)]
pub(in crate::delivery) struct Behind {
    pub(in crate::delivery) partitions: Vec<Reader>,
    /// The topic that the client believes to read.
    pub(in crate::delivery) topic_id: TopicId,
    /// The partition that is read first in the next turn.
    pub(in crate::delivery) turn: usize,
    pub(in crate::delivery) queued: Queued,
    /// When the client was last told how far the cursors have come.
    pub(in crate::delivery) told_at: Instant,
    pub(in crate::delivery) since: Instant,
}

impl Behind {
    /// Returns how many offsets lie between its cursors and the shard's.
    pub(in crate::delivery) fn offsets(&self, places: &[Partition]) -> u64 {
        let pairs = places.iter().zip(&self.partitions);
        pairs.map(|(place, reader)| reader.cursor.offset.distance_to(place.cursor.offset)).sum()
    }
}

/// Whether a subscription stands in the queue of those that can read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delivery) enum Queued {
    No,
    Yes,
}

/// One partition of a subscription that is behind.
#[derive(Debug, Clone, Copy)]
pub(in crate::delivery) struct Reader {
    /// The next offset to look at.
    pub(in crate::delivery) cursor: Cursor,
    /// The client's position: at or below the cursor, for the client need not
    /// be told at once of records that it does not want.
    pub(in crate::delivery) told: Offset,
    pub(in crate::delivery) waits: Waits,
}

/// What a reader waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delivery) enum Waits {
    Nothing,
    /// Stands among those that wait for history of the partition.
    History,
}

/// What may be unacknowledged, and what is.
#[derive(Debug)]
pub(in crate::delivery) struct Window {
    records_max: NonZeroU32,
    unacknowledged: u32,
    /// Frames sent and not acknowledged, in order; at most one a record.
    frames: VecDeque<Sent>,
}

/// A frame that is not acknowledged.
#[derive(Debug)]
pub(in crate::delivery) struct Sent {
    partition: PartitionId,
    to: Offset,
    records: u32,
    pub(in crate::delivery) at: Instant,
}

impl Sent {
    /// Says whether the frame is of the record's partition and ends after it.
    pub(in crate::delivery) fn ends_after(&self, record: RecordRef) -> bool {
        record.partition == self.partition && record.offset < self.to
    }
}

impl Window {
    pub(in crate::delivery) fn new(records_max: NonZeroU32) -> Self {
        Self { records_max, unacknowledged: 0, frames: VecDeque::new() }
    }

    /// Returns how many more records may be sent.
    pub(in crate::delivery) fn room(&self) -> u32 {
        self.records_max.get().saturating_sub(self.unacknowledged)
    }

    /// Returns how many records may be unacknowledged.
    pub(in crate::delivery) fn records_max(&self) -> u32 {
        self.records_max.get()
    }

    /// Notes a frame of so many records that ends at `to`.
    pub(in crate::delivery) fn sent(
        &mut self,
        partition: PartitionId,
        to: Offset,
        records: u32,
        at: Instant,
    ) {
        self.unacknowledged += records;
        self.frames.push_back(Sent { partition, to, records, at });
    }

    /// Notes that the client has dealt with all below these positions; calls
    /// `acknowledged` with each frame that this acknowledges, in their order.
    pub(in crate::delivery) fn acknowledge(
        &mut self,
        positions: &Positions,
        mut acknowledged: impl FnMut(&Sent),
    ) {
        let unacknowledged = &mut self.unacknowledged;
        self.frames.retain(|sent| {
            let done = positions.get(&sent.partition).is_some_and(|position| *position >= sent.to);
            if done {
                *unacknowledged -= sent.records;
                acknowledged(sent);
            }
            !done
        });
    }

    /// Forgets frames whose offsets mean something else now.
    pub(in crate::delivery) fn forget(&mut self, partition: PartitionId) {
        let unacknowledged = &mut self.unacknowledged;
        self.frames.retain(|sent| {
            if sent.partition == partition {
                *unacknowledged -= sent.records;
            }
            sent.partition != partition
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: usize, offset: i64) -> (PartitionId, Offset) {
        let offset = Offset::from_kafka(offset).expect("not negative");
        (PartitionId::from_index(partition), offset)
    }

    #[test]
    fn a_frame_is_acknowledged_when_its_end_is() {
        let mut window = Window::new(NonZeroU32::new(10).expect("not zero"));
        let (p, to) = at(0, 5);
        let now = Instant::now();
        window.sent(p, to, 4, now);
        let (q, to) = at(1, 9);
        window.sent(q, to, 6, now);
        assert_eq!(window.room(), 0);
        window.acknowledge(&Positions::from([at(0, 4)]), |_| panic!("too early"));
        assert_eq!(window.room(), 0, "the frame ends at 5");
        let mut acknowledged = 0;
        window.acknowledge(&Positions::from([at(0, 5)]), |_| acknowledged += 1);
        assert_eq!(acknowledged, 1);
        assert_eq!(window.room(), 4);
        window.forget(q);
        assert_eq!(window.room(), 10);
    }
}
