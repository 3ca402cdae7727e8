//! Frames of history, kept for a while for others who come the same way.
//!
//! After a restart thousands of clients of one feed return at once, each with a
//! place of its own. A frame that begins at or below a client's position is
//! harmless where one that begins above it is a loss, so whoever stands inside a
//! frame that was encoded for another is sent that frame, and from its end on
//! both go the same way: a return costs about one encoding for all, not one each.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::delivery::feed::FeedSerial;
use crate::delivery::tracing::CaughtUp;
use crate::log::partition::Cursor;
use crate::log::partition::Generation;
use crate::protocol::encode::WireFrame;
use crate::types::ids::Offset;
use crate::types::sabotage::Defect;

/// Where frames of one kind stand: equal only for those who can share bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::delivery) struct Lane {
    pub(in crate::delivery) feed: FeedSerial,
    /// Of the encoding.
    pub(in crate::delivery) lane: usize,
    pub(in crate::delivery) partition: usize,
    pub(in crate::delivery) generation: Generation,
}

/// A frame of records, and what it covers.
#[derive(Debug, Clone)]
pub(in crate::delivery) struct Kept {
    pub(in crate::delivery) from: Offset,
    pub(in crate::delivery) to: Offset,
    pub(in crate::delivery) records: u32,
    pub(in crate::delivery) frame: WireFrame,
    /// Its traced records, where it has any.
    pub(in crate::delivery) traced: Option<Arc<[CaughtUp]>>,
}

impl Kept {
    /// Says whether it joins what a client was told, and is mostly new to it.
    fn suits(&self, told: Offset) -> bool {
        let joins = self.from <= told || Defect::FrameOfOthersAhead.is_planted();
        joins && self.from.distance_to(told) <= told.distance_to(self.to)
    }
}

/// The frames of a shard that are kept, oldest first out.
#[derive(Debug, Default)]
pub(in crate::delivery) struct Shelf {
    /// By their ends, so that the one that covers an offset is found at once.
    frames: BTreeMap<(Lane, Offset), Kept>,
    arrivals: VecDeque<(Lane, Offset)>,
    bytes: usize,
}

impl Shelf {
    /// Returns the frame that brings a client furthest that was told of all below
    /// `told` and has looked at all below the cursor. Where it is near the end of
    /// the log, frames of many ends lie close together and each begins far back:
    /// one of which most would be repeats is left where it is.
    pub(in crate::delivery) fn find(&self, lane: Lane, told: Offset, at: Cursor) -> Option<&Kept> {
        let after = (lane, at.offset.next())..=(lane, Offset::MAX);
        let near = self.frames.range(after).take(LOOKED_AT_MAX).map(|(_, kept)| kept);
        near.filter(|kept| kept.suits(told)).last()
    }

    /// Keeps a frame, unless one with the same end is there.
    pub(in crate::delivery) fn keep(&mut self, lane: Lane, kept: Kept) {
        let bytes = kept.frame.bytes().len();
        let place = (lane, kept.to);
        if bytes > SHELF_BYTES_MAX || self.frames.contains_key(&place) {
            return;
        }
        self.frames.insert(place, kept);
        self.arrivals.push_back(place);
        self.bytes += bytes;
        while self.bytes > SHELF_BYTES_MAX {
            let oldest = self.arrivals.pop_front().expect("bytes are of frames");
            let gone = self.frames.remove(&oldest).expect("each arrival stands in the map");
            self.bytes -= gone.frame.bytes().len();
        }
    }
}

/// Frames that are looked at for one that suits.
const LOOKED_AT_MAX: usize = 32;
/// Bytes of frames that a shard keeps.
const SHELF_BYTES_MAX: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn offset(raw: i64) -> Offset {
        Offset::from_kafka(raw).expect("not negative")
    }

    fn lane(partition: usize) -> Lane {
        Lane { feed: FeedSerial::default(), lane: 0, partition, generation: Generation::default() }
    }

    fn kept(from: i64, to: i64, bytes: usize) -> Kept {
        let frame = WireFrame::new(Bytes::from(vec![0; bytes]));
        Kept { from: offset(from), to: offset(to), records: 1, frame, traced: None }
    }

    /// Looks for a frame from where a client was told and has looked.
    fn check_found(shelf: &Shelf, told: i64, at: i64, to: Option<i64>) {
        let cursor = Cursor { generation: Generation::default(), offset: offset(at) };
        let found = shelf.find(lane(0), offset(told), cursor).map(|kept| kept.to);
        assert_eq!(found, to.map(offset), "told {told}, at {at}");
    }

    #[test]
    fn a_frame_serves_whoever_stands_in_it_and_nobody_before_it() {
        let mut shelf = Shelf::default();
        shelf.keep(lane(0), kept(10, 20, 100));
        shelf.keep(lane(0), kept(20, 30, 100));
        shelf.keep(lane(1), kept(0, 90, 100));
        check_found(&shelf, 9, 9, None);
        check_found(&shelf, 9, 15, None);
        check_found(&shelf, 10, 10, Some(20));
        check_found(&shelf, 12, 19, Some(20));
        check_found(&shelf, 12, 20, None);
        check_found(&shelf, 16, 16, None);
        check_found(&shelf, 20, 20, Some(30));
        check_found(&shelf, 30, 30, None);
    }

    #[test]
    fn the_furthest_frame_is_taken_and_none_that_is_mostly_repeats() {
        let mut shelf = Shelf::default();
        for to in 20..40 {
            shelf.keep(lane(0), kept(0, to, 10));
        }
        check_found(&shelf, 10, 10, Some(39));
        check_found(&shelf, 19, 19, Some(39));
        check_found(&shelf, 20, 20, None);
    }

    #[test]
    fn the_oldest_frames_make_room() {
        let mut shelf = Shelf::default();
        let half = SHELF_BYTES_MAX / 2;
        for from in [0, 10, 20] {
            shelf.keep(lane(0), kept(from, from + 10, half));
        }
        shelf.keep(lane(0), kept(30, 40, SHELF_BYTES_MAX + 1));
        assert_eq!((shelf.frames.len(), shelf.arrivals.len(), shelf.bytes), (2, 2, 2 * half));
        check_found(&shelf, 5, 5, None);
        check_found(&shelf, 25, 25, Some(30));
    }
}
