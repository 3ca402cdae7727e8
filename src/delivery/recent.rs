//! What a shard did lately, so that it can tell when a record went out: a note
//! for each frame that was encoded and each gap that was told, whoever and
//! however many got it.

use std::collections::VecDeque;

use crate::protocol::frame::Gap;
use crate::protocol::frame::GapReason;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::SubId;
use crate::types::ids::Timestamp;

/// A frame that went out or a gap that was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    pub(in crate::delivery) whose: Whose,
    pub partition: PartitionId,
    /// The first offset covered.
    pub from: Offset,
    /// The first offset no longer covered.
    pub to: Offset,
    pub at: Timestamp,
    pub what: What,
}

impl Note {
    /// Returns the note of a gap.
    pub(in crate::delivery) fn of_gap(whose: Whose, gap: &Gap, at: Timestamp) -> Self {
        let (partition, from, to) = (gap.partition, gap.from, gap.to);
        Self { whose, partition, from, to, at, what: What::Gap(gap.reason) }
    }
}

/// Who got it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delivery) enum Whose {
    /// All who followed the feed live.
    Feed(SubId),
    /// One subscription, by its serial.
    Subscription(u32),
}

/// What went out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Records,
    Gap(GapReason),
}

/// The newest notes of a shard.
#[derive(Debug, Default)]
pub(in crate::delivery) struct Recent(VecDeque<Note>);

impl Recent {
    /// Keeps a note; the oldest goes where there are too many.
    pub(in crate::delivery) fn note(&mut self, note: Note) {
        if self.0.len() == NOTES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(note);
    }

    /// Returns the newest note of a subscription or its feed that covers an
    /// offset.
    pub(in crate::delivery) fn find(
        &self,
        whose: [Whose; 2],
        partition: PartitionId,
        offset: Offset,
    ) -> Option<Note> {
        let covers = |note: &&Note| {
            note.partition == partition
                && whose.contains(&note.whose)
                && (note.from..note.to).contains(&offset)
        };
        self.0.iter().rev().find(covers).copied()
    }
}

/// Notes that are kept: of the last seconds under load, of days where it is
/// quiet. They take 1 MB.
const NOTES_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    fn note(whose: Whose, from: i64, to: i64) -> Note {
        let offset = |raw| Offset::from_kafka(raw).expect("not negative");
        let partition = PartitionId::from_index(0);
        let at = Timestamp::from_millis(from);
        Note { whose, partition, from: offset(from), to: offset(to), at, what: What::Records }
    }

    #[test]
    fn a_frame_is_found_by_what_it_covers_and_whose_it_is() {
        let (feed, own) = (Whose::Feed(SubId::new(7)), Whose::Subscription(3));
        let mut recent = Recent::default();
        recent.note(note(own, 0, 5));
        recent.note(note(feed, 5, 9));
        recent.note(note(Whose::Feed(SubId::new(8)), 0, 100));
        let check = |offset, found: Option<i64>| {
            let offset = Offset::from_kafka(offset).expect("not negative");
            let note = recent.find([feed, own], PartitionId::from_index(0), offset);
            assert_eq!(note.map(|note| note.at.as_millis()), found);
        };
        check(4, Some(0));
        check(5, Some(5));
        check(9, None);
    }
}
