//! The client's rule: the ranges of one subscription join without a hole.

use thiserror::Error;

use crate::protocol::frame::Gap;
use crate::protocol::frame::GapReason;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::TopicId;
use crate::types::limits::PARTITIONS_MAX;
use crate::types::positions::Epochs;
use crate::types::positions::Place;
use crate::types::positions::Positions;
use crate::types::positions::Reached;

/// Follows one subscription, over as many connections as it takes, and holds
/// what the client may stand on: where it is, and that nothing was passed over.
///
/// Feed it every frame of the subscription in the order of arrival. After a
/// [`Violation`] it stands where it stood before the frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeChecker {
    /// `None` until the first `subscribed`.
    place: Option<Place>,
    /// The topic that goes by the name now, where it is another than that of
    /// `place` and the gap that must say so is still to come.
    announced: Option<TopicId>,
}

impl RangeChecker {
    /// Returns a checker that takes its start from the first `subscribed`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a checker that goes on at `place`.
    pub fn resume(place: Place) -> Self {
        Self { place: Some(place), announced: None }
    }

    /// Returns where to go on after a cut; `None` before the first `subscribed`.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// Returns the next offset wanted of `partition`.
    pub fn position(&self, partition: PartitionId) -> Offset {
        self.place.as_ref().map_or(Offset::ZERO, |place| position(place, partition))
    }

    /// Takes the start of the subscription, or of its continuation on another
    /// connection, which must not be above where the client stood.
    ///
    /// # Errors
    ///
    /// A start above the client's position: the server must begin there and
    /// then say what is gone.
    pub fn handle_subscribed(
        &mut self,
        topic_id: TopicId,
        starts: &Positions,
        epochs: &Epochs,
    ) -> Result<(), Violation> {
        check_partitions(starts)?;
        let Some(place) = &mut self.place else {
            let (positions, epochs) = (starts.clone(), epochs.clone());
            self.place = Some(Place { topic_id, positions, epochs });
            return Ok(());
        };
        if place.topic_id != topic_id {
            self.announced = Some(topic_id);
            return Ok(());
        }
        self.announced = None;
        for (&partition, &start) in starts {
            let position = position(place, partition);
            if start > position {
                return Err(Violation::Hole { partition, position, from: start });
            }
        }
        // A partition that the client has not seen before is known from now on.
        advance(place, starts, epochs);
        Ok(())
    }

    /// Takes a `records` frame: its range, in whose log it stood and the offsets of
    /// its records.
    /// Returns how many records, from the first on, are repeats: the rest is
    /// new to the application.
    ///
    /// # Errors
    ///
    /// A range that begins above the position or ends before it begins; records
    /// outside the range or out of order; another topic, and no gap said so.
    pub fn handle_records(
        &mut self,
        partition: PartitionId,
        from: Offset,
        to: Offset,
        epoch: Option<Reached>,
        offsets: impl IntoIterator<Item = Offset>,
    ) -> Result<usize, Violation> {
        check_partition(partition)?;
        let place = self.settled()?;
        let position = position(place, partition);
        check_joins(partition, position, from)?;
        if to < from {
            return Err(Violation::Backwards { partition, from, to });
        }
        let mut repeats = 0;
        let mut before = None;
        for offset in offsets {
            if offset < from || offset >= to {
                return Err(Violation::Outside { partition, offset, from, to });
            }
            if let Some(before) = before.filter(|&before| before >= offset) {
                return Err(Violation::Disorder { partition, before, offset });
            }
            before = Some(offset);
            repeats += usize::from(offset < position);
        }
        go_to(place, partition, to, epoch);
        Ok(repeats)
    }

    /// Takes a `progress` frame: up to these positions there is nothing more.
    ///
    /// # Errors
    ///
    /// A partition that no topic has; another topic, and no gap said so.
    pub fn handle_progress(&mut self, to: &Positions, epochs: &Epochs) -> Result<(), Violation> {
        check_partitions(to)?;
        let place = self.settled()?;
        advance(place, to, epochs);
        Ok(())
    }

    /// Takes a `gap` frame: what lies between is gone and the position is `to`,
    /// which is lower than before where the log became shorter or began anew.
    ///
    /// # Errors
    ///
    /// A gap that begins above the position, or whose ends are the wrong way
    /// round for its reason.
    pub fn handle_gap(&mut self, gap: &Gap) -> Result<(), Violation> {
        let Gap { partition, from, to, reason, topic_id, .. } = *gap;
        check_partition(partition)?;
        if reason != GapReason::TopicRecreated {
            self.settled()?;
        }
        let place = self.place.as_mut().ok_or(Violation::NotSubscribed)?;
        let position = position(place, partition);
        let backwards = Violation::Backwards { partition, from, to };
        let next = match reason {
            GapReason::Retention | GapReason::Skipped => {
                check_joins(partition, position, from)?;
                if to < from {
                    return Err(backwards);
                }
                position.max(to)
            }
            GapReason::Truncated => {
                check_joins(partition, position, from)?;
                if to > from {
                    return Err(backwards);
                }
                to
            }
            // All of the old topic is gone, whatever was read of it.
            GapReason::TopicRecreated => to,
        };
        let announced = self.announced.take();
        let topic_id = topic_id.or(announced).unwrap_or(place.topic_id);
        if topic_id != place.topic_id {
            // The other positions speak of a topic that is no more. Kept beside
            // the new id they would resume in the middle of the new topic.
            *place = Place::new(topic_id, Positions::new());
        }
        place.positions.insert(partition, next);
        if matches!(reason, GapReason::Truncated | GapReason::TopicRecreated) {
            // What was known of the log is true no longer.
            place.epochs.remove(&partition);
        }
        Ok(())
    }

    /// Returns the place that records and progress go on from.
    fn settled(&mut self) -> Result<&mut Place, Violation> {
        let place = self.place.as_mut().ok_or(Violation::NotSubscribed)?;
        match self.announced {
            Some(now) => Err(Violation::TopicChanged { was: place.topic_id, now }),
            None => Ok(place),
        }
    }
}

/// How a server broke its promise that every offset is accounted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Violation {
    /// Records may be lost: nothing covers the offsets between.
    #[error("partition {partition}: offsets {position} to {from} are covered by no frame")]
    Hole { partition: PartitionId, position: Offset, from: Offset },
    /// A range ends before it begins, or a truncation after.
    #[error("partition {partition}: range from {from} to {to} is the wrong way round")]
    Backwards { partition: PartitionId, from: Offset, to: Offset },
    /// A record does not lie in the range of its frame.
    #[error("partition {partition}: record {offset} lies outside its frame, {from} to {to}")]
    Outside { partition: PartitionId, offset: Offset, from: Offset, to: Offset },
    /// The offsets of a frame do not grow.
    #[error("partition {partition}: record {offset} follows {before}")]
    Disorder { partition: PartitionId, before: Offset, offset: Offset },
    /// Another topic goes by the same name, and no gap said so.
    #[error("topic {was} became {now} without a gap")]
    TopicChanged { was: TopicId, now: TopicId },
    /// A frame of a subscription that has not begun.
    #[error("a frame arrived before the subscription began")]
    NotSubscribed,
    /// A number above that of any partition.
    #[error("partition {partition} is beyond the {PARTITIONS_MAX} that a topic may have")]
    ImpossiblePartition { partition: PartitionId },
}

/// A partition that has no position is wanted from its first record.
fn position(place: &Place, partition: PartitionId) -> Offset {
    place.positions.get(&partition).copied().unwrap_or(Offset::ZERO)
}

fn advance(place: &mut Place, to: &Positions, epochs: &Epochs) {
    for (&partition, &to) in to {
        go_to(place, partition, to, epochs.get(&partition).copied());
    }
}

/// Moves a position on. What a frame says of the log is kept whatever the position.
fn go_to(place: &mut Place, partition: PartitionId, to: Offset, epoch: Option<Reached>) {
    let before = position(place, partition);
    place.positions.insert(partition, before.max(to));
    if let Some(epoch) = epoch {
        place.epochs.insert(partition, epoch);
    }
}

fn check_joins(partition: PartitionId, position: Offset, from: Offset) -> Result<(), Violation> {
    if from > position {
        return Err(Violation::Hole { partition, position, from });
    }
    Ok(())
}

fn check_partition(partition: PartitionId) -> Result<(), Violation> {
    if partition.index() >= PARTITIONS_MAX {
        return Err(Violation::ImpossiblePartition { partition });
    }
    Ok(())
}

fn check_partitions(positions: &Positions) -> Result<(), Violation> {
    positions.keys().try_for_each(|&partition| check_partition(partition))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::types::ids::LeaderEpoch;
    use crate::types::ids::SubId;

    const OLD: TopicId = TopicId::UNKNOWN;

    fn renewed() -> TopicId {
        TopicId::from_kafka(7, 7)
    }

    fn p(raw: u32) -> PartitionId {
        PartitionId::from_client(raw).expect("a small number")
    }

    fn o(raw: u64) -> Offset {
        Offset::from_client(raw).expect("a small number")
    }

    fn at(pairs: &[(u32, u64)]) -> Positions {
        pairs.iter().map(|&(partition, offset)| (p(partition), o(offset))).collect()
    }

    /// One frame, as a test writes it.
    #[derive(Debug, Clone, Copy)]
    enum Said<'a> {
        Subscribed(TopicId, &'a [(u32, u64)]),
        /// Partition, from, to, offsets, and how many of them are repeats.
        Records(u32, u64, u64, &'a [u64], usize),
        Progress(&'a [(u32, u64)]),
        Gap(u32, u64, u64, GapReason, Option<TopicId>),
    }

    use Said::*;

    fn feed(checker: &mut RangeChecker, said: &Said<'_>) -> Result<(), Violation> {
        match *said {
            Subscribed(topic_id, starts) => {
                checker.handle_subscribed(topic_id, &at(starts), &Epochs::new())
            }
            Records(partition, from, to, offsets, repeats) => {
                let offsets = offsets.iter().map(|&raw| o(raw));
                let (p, from, to) = (p(partition), o(from), o(to));
                let found = checker.handle_records(p, from, to, None, offsets)?;
                assert_eq!(found, repeats, "repeats in {said:?}");
                Ok(())
            }
            Progress(to) => checker.handle_progress(&at(to), &Epochs::new()),
            Gap(partition, from, to, reason, topic_id) => {
                checker.handle_gap(&crate::protocol::frame::Gap {
                    sub: SubId::new(1),
                    partition: p(partition),
                    from: o(from),
                    to: o(to),
                    reason,
                    topic_id,
                })
            }
        }
    }

    /// Feeds a history in which nothing is wrong; it ends at these positions.
    fn check_good(history: &[Said<'_>], topic_id: TopicId, end: &[(u32, u64)]) {
        let mut checker = RangeChecker::new();
        for said in history {
            assert_eq!(feed(&mut checker, said), Ok(()), "{said:?} in {history:?}");
        }
        assert_eq!(checker.place(), Some(&Place::new(topic_id, at(end))), "{history:?}");
    }

    /// Feeds a history whose last frame, and no other, is wrong.
    fn check_bad(history: &[Said<'_>], violation: Violation) {
        let (last, before) = history.split_last().expect("a history has a frame");
        let mut checker = RangeChecker::new();
        for said in before {
            assert_eq!(feed(&mut checker, said), Ok(()), "{said:?} in {history:?}");
        }
        let stood = checker.clone();
        assert_eq!(feed(&mut checker, last), Err(violation), "{history:?}");
        assert_eq!(checker, stood, "a wrong frame moved the checker");
    }

    #[test]
    fn ranges_that_join_are_not_accused() {
        let start = Subscribed(OLD, &[(0, 43), (1, 20)]);
        check_good(
            &[start, Records(0, 43, 57, &[44, 56], 0), Records(0, 57, 58, &[57], 0)],
            OLD,
            &[(0, 58), (1, 20)],
        );
        // Holes within a range are of the log: other keys, markers, compaction.
        check_good(
            &[Subscribed(OLD, &[(0, 0)]), Records(0, 0, 1_000, &[1, 500, 999], 0)],
            OLD,
            &[(0, 1_000)],
        );
        check_good(&[Subscribed(OLD, &[(0, 5)]), Records(0, 5, 5, &[], 0)], OLD, &[(0, 5)]);
    }

    #[test]
    fn a_frame_that_begins_below_the_position_brings_repeats() {
        let start = &[(0, 10)];
        check_good(
            &[Subscribed(OLD, start), Records(0, 4, 12, &[5, 9, 10, 11], 2)],
            OLD,
            &[(0, 12)],
        );
        check_good(&[Subscribed(OLD, start), Records(0, 4, 8, &[5, 7], 2)], OLD, &[(0, 10)]);
        check_good(&[Subscribed(OLD, start), Progress(&[(0, 8)])], OLD, &[(0, 10)]);
    }

    #[test]
    fn progress_moves_the_position() {
        check_good(
            &[
                Subscribed(OLD, &[(0, 0)]),
                Progress(&[(0, 70), (3, 5)]),
                Records(0, 70, 71, &[70], 0),
                Records(3, 5, 6, &[5], 0),
            ],
            OLD,
            &[(0, 71), (3, 6)],
        );
    }

    #[test]
    fn a_partition_without_a_position_starts_at_zero() {
        check_good(
            &[Subscribed(OLD, &[(0, 9)]), Records(1, 0, 2, &[0, 1], 0)],
            OLD,
            &[(0, 9), (1, 2)],
        );
        check_bad(
            &[Subscribed(OLD, &[(0, 9)]), Records(1, 1, 2, &[1], 0)],
            Violation::Hole { partition: p(1), position: o(0), from: o(1) },
        );
    }

    #[test]
    fn a_range_above_the_position_is_a_hole() {
        let start = &[(0, 10)];
        let hole = Violation::Hole { partition: p(0), position: o(10), from: o(11) };
        check_bad(&[Subscribed(OLD, start), Records(0, 11, 12, &[11], 0)], hole);
        check_bad(&[Subscribed(OLD, start), Records(0, 11, 12, &[], 0)], hole);
        for reason in [GapReason::Retention, GapReason::Skipped] {
            check_bad(&[Subscribed(OLD, start), Gap(0, 11, 12, reason, None)], hole);
        }
        check_bad(&[Subscribed(OLD, start), Gap(0, 11, 2, GapReason::Truncated, None)], hole);
        check_bad(
            &[Subscribed(OLD, start), Records(0, 10, 20, &[15], 0), Records(0, 21, 22, &[21], 0)],
            Violation::Hole { partition: p(0), position: o(20), from: o(21) },
        );
    }

    #[test]
    fn records_out_of_their_range_or_order_are_caught() {
        let start = &[(0, 10)];
        let outside = |offset| Violation::Outside {
            partition: p(0),
            offset: o(offset),
            from: o(10),
            to: o(12),
        };
        check_bad(&[Subscribed(OLD, start), Records(0, 10, 12, &[12], 0)], outside(12));
        check_bad(&[Subscribed(OLD, start), Records(0, 10, 12, &[9], 0)], outside(9));
        let disorder = |before, offset| Violation::Disorder {
            partition: p(0),
            before: o(before),
            offset: o(offset),
        };
        check_bad(&[Subscribed(OLD, start), Records(0, 10, 12, &[11, 10], 0)], disorder(11, 10));
        check_bad(&[Subscribed(OLD, start), Records(0, 10, 12, &[10, 10], 0)], disorder(10, 10));
        check_bad(
            &[Subscribed(OLD, start), Records(0, 10, 9, &[], 0)],
            Violation::Backwards { partition: p(0), from: o(10), to: o(9) },
        );
    }

    #[test]
    fn a_gap_accounts_for_what_is_gone() {
        for reason in [GapReason::Retention, GapReason::Skipped] {
            check_good(
                &[
                    Subscribed(OLD, &[(0, 57)]),
                    Gap(0, 57, 900, reason, None),
                    Records(0, 900, 901, &[900], 0),
                ],
                OLD,
                &[(0, 901)],
            );
            // A gap below the position concerns slower followers of the feed.
            check_good(
                &[Subscribed(OLD, &[(0, 57)]), Gap(0, 3, 50, reason, None)],
                OLD,
                &[(0, 57)],
            );
            check_bad(
                &[Subscribed(OLD, &[(0, 57)]), Gap(0, 57, 56, reason, None)],
                Violation::Backwards { partition: p(0), from: o(57), to: o(56) },
            );
        }
    }

    #[test]
    fn a_log_that_became_shorter_sets_the_position_back() {
        check_good(
            &[
                Subscribed(OLD, &[(0, 57), (1, 8)]),
                Gap(0, 57, 40, GapReason::Truncated, None),
                Records(0, 40, 42, &[40, 41], 0),
            ],
            OLD,
            &[(0, 42), (1, 8)],
        );
        check_bad(
            &[Subscribed(OLD, &[(0, 57)]), Gap(0, 57, 58, GapReason::Truncated, None)],
            Violation::Backwards { partition: p(0), from: o(57), to: o(58) },
        );
    }

    #[test]
    fn positions_in_a_topic_that_is_no_more_are_forgotten() {
        let recreated =
            |partition, from| Gap(partition, from, 0, GapReason::TopicRecreated, Some(renewed()));
        let start = &[(0, 57), (1, 8)];
        check_good(&[Subscribed(OLD, start), recreated(0, 57)], renewed(), &[(0, 0)]);
        check_good(
            &[
                Subscribed(OLD, start),
                recreated(0, 57),
                Records(0, 0, 3, &[2], 0),
                recreated(1, 8),
                Records(1, 0, 1, &[0], 0),
            ],
            renewed(),
            &[(0, 3), (1, 1)],
        );
    }

    #[test]
    fn another_topic_of_the_same_name_is_never_mistaken() {
        let (was, now) = (Subscribed(OLD, &[(0, 5)]), Subscribed(renewed(), &[(0, 5)]));
        let changed = Violation::TopicChanged { was: OLD, now: renewed() };
        check_bad(&[was, now, Records(0, 5, 6, &[5], 0)], changed);
        check_bad(&[was, now, Progress(&[(0, 6)])], changed);
        for named in [None, Some(renewed())] {
            let gap = Gap(0, 5, 0, GapReason::TopicRecreated, named);
            check_good(&[was, now, gap, Records(0, 0, 2, &[1], 0)], renewed(), &[(0, 2)]);
        }
    }

    #[test]
    fn a_resumed_subscription_goes_on_where_it_stood() {
        let [first, second] = [Subscribed(OLD, &[(0, 5)]), Records(0, 5, 9, &[8], 0)];
        check_good(
            &[first, second, Subscribed(OLD, &[(0, 9), (1, 0)]), Records(0, 9, 10, &[9], 0)],
            OLD,
            &[(0, 10), (1, 0)],
        );
        check_bad(
            &[first, second, Subscribed(OLD, &[(0, 10)])],
            Violation::Hole { partition: p(0), position: o(9), from: o(10) },
        );
        let place = Place::new(OLD, at(&[(0, 3)]));
        let mut resumed = RangeChecker::resume(place);
        assert_eq!(feed(&mut resumed, &Subscribed(OLD, &[(0, 2)])), Ok(()));
        assert_eq!(resumed.position(p(0)), o(3));
    }

    #[test]
    fn frames_that_no_subscription_can_have_are_caught() {
        check_bad(&[Records(0, 0, 1, &[0], 0)], Violation::NotSubscribed);
        check_bad(&[Progress(&[(0, 1)])], Violation::NotSubscribed);
        check_bad(&[Gap(0, 0, 1, GapReason::Retention, None)], Violation::NotSubscribed);
        let beyond = u32::try_from(PARTITIONS_MAX).expect("a bound that fits");
        let impossible = Violation::ImpossiblePartition { partition: p(beyond) };
        check_bad(&[Subscribed(OLD, &[(beyond, 0)])], impossible);
        check_bad(&[Subscribed(OLD, &[]), Progress(&[(beyond, 0)])], impossible);
        check_bad(&[Subscribed(OLD, &[]), Records(beyond, 0, 1, &[0], 0)], impossible);
    }

    #[test]
    fn the_newest_that_is_known_of_the_log_is_kept_until_a_gap() {
        let reached = |epoch, to| {
            let epoch = LeaderEpoch::from_kafka(epoch).expect("not negative");
            Reached { epoch, to: o(to) }
        };
        let mut checker = RangeChecker::new();
        let check = |checker: &RangeChecker, position, epoch: Option<Reached>| {
            let place = checker.place().expect("it began");
            assert_eq!(place.positions.get(&p(0)), Some(&o(position)));
            assert_eq!(place.epochs.get(&p(0)), epoch.as_ref());
        };
        let (first, second, third) = (reached(1, 5), reached(2, 8), reached(3, 9));
        checker.handle_subscribed(OLD, &at(&[(0, 5)]), &[(p(0), first)].into()).expect("begins");
        check(&checker, 5, Some(first));
        checker.handle_records(p(0), o(5), o(9), Some(second), [o(7)]).expect("it joins");
        check(&checker, 9, Some(second));
        let none = Epochs::new();
        checker.handle_subscribed(OLD, &at(&[(0, 9)]), &none).expect("it goes on");
        checker.handle_progress(&at(&[(0, 10)]), &none).expect("it joins");
        check(&checker, 10, Some(second));
        checker.handle_progress(&at(&[(0, 10)]), &[(p(0), third)].into()).expect("it joins");
        check(&checker, 10, Some(third));
        let gap = crate::protocol::frame::Gap {
            sub: SubId::new(1),
            partition: p(0),
            from: o(10),
            to: o(8),
            reason: GapReason::Truncated,
            topic_id: None,
        };
        checker.handle_gap(&gap).expect("it is true");
        check(&checker, 8, None);
    }
}
