//! The start of a subscription, partition by partition.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::protocol::frame::GapReason;
use crate::protocol::frame::StartAt;
use crate::registry::message::Bounds;
use crate::registry::message::EpochEnd;
use crate::types::ids::LeaderEpoch;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::TopicId;
use crate::types::positions::Place;
use crate::types::positions::Reached;

/// Where one partition starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// The position that the client is told, and reads from.
    pub position: Offset,
    /// What lies between its position and where it really goes on.
    pub lost: Option<Lost>,
}

/// Offsets that a client speaks of and the topic does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    pub to: Offset,
    pub reason: GapReason,
}

/// Where all partitions start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The topic that the positions speak of: the client's, where its positions
    /// are of a topic that was made again.
    pub topic_id: TopicId,
    pub starts: Vec<Start>,
    /// Positions of partitions that the topic no longer has, since it was made
    /// again with fewer.
    pub vanished: Vec<(PartitionId, Offset)>,
}

/// Why a start was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StartError {
    /// The topic is not known to have this partition, or not yet.
    #[error("position names partition {partition}, and the topic has {count}")]
    UnknownPartition { partition: PartitionId, count: usize },
    /// Only its leader could say.
    #[error(
        "partition {0} has no leader that could say where to start: \
         resume from positions, or try again"
    )]
    NoLeader(PartitionId),
    /// Nobody could say where the log ends that was read.
    #[error(
        "kafka did not say what became of leader epoch {epoch} of partition {partition}: try again"
    )]
    NoEpoch { partition: PartitionId, epoch: LeaderEpoch },
    /// Its leader knows of no such epoch: it may not have heard of it yet.
    #[error(
        "the leader of partition {partition} knows no leader epoch {epoch}: \
         try again, and where that does not help, without `epochs`"
    )]
    UnknownEpoch { partition: PartitionId, epoch: LeaderEpoch },
}

/// What is known of a topic when a subscription starts.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    pub topic_id: TopicId,
    /// Where each partition's live reading stands; `None` of one that this replica
    /// has never met with a leader.
    pub live: &'a [Option<Offset>],
    /// What this replica itself has met of each partition: its oldest and its next
    /// offset.
    pub met: &'a [Option<Met>],
    /// What Kafka has, asked after the client asked; may be shorter than `live`
    /// where the topic was made again with fewer partitions.
    pub bounds: &'a [Option<Bounds>],
    /// Of which the client has read another leader's log than this replica.
    pub doubtful: &'a BTreeSet<PartitionId>,
}

/// What a replica has met of a partition, which may have more by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Met {
    pub start: Offset,
    pub end: Offset,
}

/// Returns where each partition starts.
///
/// # Errors
///
/// [`StartError`] for positions that cannot be of this topic.
pub fn plan(from: &StartAt, known: &Known<'_>) -> Result<Plan, StartError> {
    let each = |position: &dyn Fn(usize) -> Option<Offset>| {
        (0..known.live.len())
            .map(|index| match position(index) {
                Some(position) => Ok(Start { position, lost: None }),
                None => Err(StartError::NoLeader(PartitionId::from_index(index))),
            })
            .collect::<Result<Vec<Start>, StartError>>()
    };
    let starts = match from {
        StartAt::Latest => each(&|index| known.live[index]),
        StartAt::Earliest => each(&|index| match known.bounds.get(index) {
            None => Some(Offset::ZERO),
            Some(Some(bounds)) => Some(bounds.start),
            Some(None) => known.met[index].map(|met| met.start),
        }),
        StartAt::Timestamp(_) | StartAt::Ago(_) => each(&|index| match known.bounds.get(index) {
            None => Some(Offset::ZERO),
            Some(bounds) => bounds.as_ref().map(|bounds| bounds.at_timestamp),
        }),
        StartAt::Place(place) => return resume(place, known),
    };
    Ok(Plan { topic_id: known.topic_id, starts: starts?, vanished: Vec::new() })
}

fn resume(place: &Place, known: &Known<'_>) -> Result<Plan, StartError> {
    // A partition that the client does not name is new to it, from its first
    // record on.
    let asked = |index: usize| {
        let partition = PartitionId::from_index(index);
        place.positions.get(&partition).copied().unwrap_or(Offset::ZERO)
    };
    let beyond = |count: usize| {
        let beyond = place.positions.range(PartitionId::from_index(count)..);
        beyond.filter(|(_, at)| **at > Offset::ZERO).map(|(p, at)| (*p, *at))
    };
    if place.topic_id != known.topic_id {
        let lost = Some(Lost { to: Offset::ZERO, reason: GapReason::TopicRecreated });
        let starts = known.live.iter().enumerate();
        let starts = starts.map(|(index, _)| Start { position: asked(index), lost }).collect();
        let vanished = beyond(known.live.len()).collect();
        return Ok(Plan { topic_id: place.topic_id, starts, vanished });
    }
    // After a topic was made again with fewer partitions, those that are gone
    // still stand among the live ones, and nothing is known of them.
    let count = known.live.len().min(known.bounds.len());
    if let Some((partition, _)) = beyond(count).next() {
        return Err(StartError::UnknownPartition { partition, count });
    }
    let start = |index: usize| {
        let position = asked(index);
        let end = match known.bounds.get(index) {
            None => Offset::ZERO,
            Some(Some(bounds)) => match cut_at(place, index, bounds)? {
                Some(cut) if cut < position => bounds.end.min(cut),
                _ => bounds.end,
            },
            // What was met was there. What lies above it may have been taken back,
            // and whoever waits there would not hear of it.
            Some(None) => match known.met[index] {
                Some(met) if position > met.end => {
                    return Err(StartError::NoLeader(PartitionId::from_index(index)));
                }
                // Only its leader could say whether that is what the client has read.
                Some(_) if known.doubtful.contains(&PartitionId::from_index(index)) => {
                    return Err(StartError::NoLeader(PartitionId::from_index(index)));
                }
                // Of a partition that was never met the position is held against its
                // end once it is located.
                _ => return Ok(Start { position, lost: None }),
            },
        };
        let ahead = position > end;
        let lost = ahead.then_some(Lost { to: end, reason: GapReason::Truncated });
        Ok(Start { position, lost })
    };
    let starts = (0..known.live.len()).map(start).collect::<Result<_, _>>()?;
    Ok(Plan { topic_id: known.topic_id, starts, vanished: Vec::new() })
}

/// Returns where the log that a client has read was cut off, if it is known to have
/// been. What lies above is of another leader.
fn cut_at(place: &Place, index: usize, bounds: &Bounds) -> Result<Option<Offset>, StartError> {
    let partition = PartitionId::from_index(index);
    let Some(&Reached { epoch, to }) = place.epochs.get(&partition) else { return Ok(None) };
    let found = bounds.epoch_ends.iter().find(|(asked, _)| *asked == epoch);
    match found {
        None => Ok(None),
        Some((_, EpochEnd::At(end))) => Ok(Some(*end).filter(|end| *end < to)),
        Some((_, EpochEnd::Unknown)) => Err(StartError::UnknownEpoch { partition, epoch }),
        Some((_, EpochEnd::Unanswered)) => Err(StartError::NoEpoch { partition, epoch }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(raw: i64) -> Offset {
        Offset::from_kafka(raw).expect("not negative")
    }

    fn check(from: &StartAt, expected: &[(i64, Option<(i64, GapReason)>)]) {
        let bound = |start, end, at| Bounds {
            start: offset(start),
            end: offset(end),
            at_timestamp: offset(at),
            ..Bounds::default()
        };
        let met = |start, end| Some(Met { start: offset(start), end: offset(end) });
        let known = Known {
            topic_id: TopicId::from_kafka(0, 1),
            live: &[Some(offset(90)), Some(offset(40))],
            met: &[met(10, 95), met(0, 40)],
            bounds: &[Some(bound(10, 100, 50)), Some(bound(0, 40, 40))],
            doubtful: &BTreeSet::new(),
        };
        let plan = plan(from, &known).expect("a plan");
        let expected: Vec<Start> = expected
            .iter()
            .map(|(position, lost)| Start {
                position: offset(*position),
                lost: lost.map(|(to, reason)| Lost { to: offset(to), reason }),
            })
            .collect();
        assert_eq!(plan.starts, expected, "{from:?}");
    }

    fn place(topic: i64, positions: &[(usize, i64)]) -> StartAt {
        let at = |(p, o): &(usize, i64)| (PartitionId::from_index(*p), offset(*o));
        let positions = positions.iter().map(at).collect();
        StartAt::Place(Place::new(TopicId::from_kafka(0, topic), positions))
    }

    #[test]
    fn each_start_is_found() {
        check(&StartAt::Latest, &[(90, None), (40, None)]);
        check(&StartAt::Earliest, &[(10, None), (0, None)]);
        check(&StartAt::Ago(std::time::Duration::ZERO), &[(50, None), (40, None)]);
        check(&place(1, &[(0, 95), (1, 40)]), &[(95, None), (40, None)]);
    }

    #[test]
    fn a_partition_that_the_client_does_not_know_starts_at_zero() {
        check(&place(1, &[(0, 95)]), &[(95, None), (0, None)]);
    }

    #[test]
    fn a_position_ahead_of_the_log_is_told_as_truncated() {
        let lost = Some((40, GapReason::Truncated));
        check(&place(1, &[(0, 95), (1, 41)]), &[(95, None), (41, lost)]);
    }

    #[test]
    fn positions_of_another_topic_are_told_as_recreated() {
        let lost = Some((0, GapReason::TopicRecreated));
        check(&place(2, &[(0, 95), (1, 7)]), &[(95, lost), (7, lost)]);
    }

    #[test]
    fn what_another_leader_has_in_place_of_what_was_read_is_told_as_truncated() {
        let epoch = |raw| LeaderEpoch::from_kafka(raw).expect("not negative");
        let at = |raw| EpochEnd::At(offset(raw));
        let known = |epoch_ends: &[(i32, EpochEnd)]| Bounds {
            start: offset(10),
            end: offset(100),
            at_timestamp: offset(100),
            epoch: Some(epoch(7)),
            epoch_ends: epoch_ends.iter().map(|(e, end)| (epoch(*e), *end)).collect(),
        };
        let start_of = |to, bounds: Bounds| {
            let partition = PartitionId::from_index(0);
            let StartAt::Place(place) = place(1, &[(0, 60)]) else { unreachable!() };
            let reached = Reached { epoch: epoch(5), to: offset(to) };
            let epochs = [(partition, reached)].into();
            let known = Known {
                topic_id: TopicId::from_kafka(0, 1),
                live: &[Some(offset(100))],
                met: &[None],
                bounds: &[Some(bounds)],
                doubtful: &BTreeSet::new(),
            };
            plan(&StartAt::Place(Place { epochs, ..place }), &known).map(|plan| plan.starts[0])
        };
        let start = |bounds| start_of(60, bounds);
        let lost = |to| Some(Lost { to: offset(to), reason: GapReason::Truncated });
        let goes = |lost| Ok(Start { position: offset(60), lost });
        assert_eq!(start(known(&[])), goes(None), "its leader has not changed");
        assert_eq!(start(known(&[(5, at(60))])), goes(None));
        assert_eq!(start(known(&[(4, at(20)), (5, at(99))])), goes(None));
        assert_eq!(start(known(&[(4, at(20)), (5, at(59))])), goes(lost(59)));
        assert_eq!(start(known(&[(5, at(3))])), goes(lost(3)), "retention is told after it");
        // What is known reaches only as far as the last record below the position, or
        // further than the application has come.
        assert_eq!(start_of(55, known(&[(5, at(55))])), goes(None));
        assert_eq!(start_of(55, known(&[(5, at(54))])), goes(lost(54)));
        assert_eq!(start_of(70, known(&[(5, at(60))])), goes(None));
        let (partition, epoch) = (PartitionId::from_index(0), epoch(5));
        let unknown = Err(StartError::UnknownEpoch { partition, epoch });
        assert_eq!(start(known(&[(5, EpochEnd::Unknown)])), unknown);
        let unanswered = Err(StartError::NoEpoch { partition, epoch });
        assert_eq!(start(known(&[(5, EpochEnd::Unanswered)])), unanswered);
    }

    #[test]
    fn a_partition_that_never_was_is_refused() {
        let bounds = Bounds { end: offset(9), at_timestamp: offset(9), ..Bounds::default() };
        let known = Known {
            topic_id: TopicId::from_kafka(0, 1),
            live: &[Some(Offset::ZERO), Some(Offset::ZERO)],
            met: &[None, None],
            bounds: &[Some(bounds)],
            doubtful: &BTreeSet::new(),
        };
        let partition = PartitionId::from_index(3);
        let refused = plan(&place(1, &[(3, 5)]), &known);
        assert_eq!(refused, Err(StartError::UnknownPartition { partition, count: 1 }));
        assert!(plan(&place(1, &[(3, 0)]), &known).is_ok(), "zero says nothing");
        let gone = PartitionId::from_index(1);
        let refused = plan(&place(1, &[(1, 5)]), &known);
        assert_eq!(refused, Err(StartError::UnknownPartition { partition: gone, count: 1 }));
        let other = plan(&place(2, &[(3, 5)]), &known).expect("of another topic");
        assert_eq!(other.vanished, [(partition, offset(5))]);
    }

    /// What a start is where the second partition has no leader; `met` says what
    /// this replica has of it.
    fn leaderless(from: &StartAt, met: Option<(i64, i64)>) -> Result<Vec<Start>, StartError> {
        leaderless_in_doubt(from, met, &BTreeSet::new())
    }

    fn leaderless_in_doubt(
        from: &StartAt,
        met: Option<(i64, i64)>,
        doubtful: &BTreeSet<PartitionId>,
    ) -> Result<Vec<Start>, StartError> {
        let bounds = Bounds {
            start: offset(3),
            end: offset(9),
            at_timestamp: offset(5),
            ..Bounds::default()
        };
        let met = met.map(|(start, end)| Met { start: offset(start), end: offset(end) });
        let known = Known {
            topic_id: TopicId::from_kafka(0, 1),
            live: &[Some(offset(9)), met.map(|met| met.end)],
            met: &[Some(Met { start: offset(3), end: offset(9) }), met],
            bounds: &[Some(bounds), None],
            doubtful,
        };
        Ok(plan(from, &known)?.starts)
    }

    #[test]
    fn one_partition_without_a_leader_keeps_nobody_from_what_needs_none() {
        let no_leader = Err(StartError::NoLeader(PartitionId::from_index(1)));
        let starts = |first, second| {
            let start = |at| Start { position: offset(at), lost: None };
            Ok(vec![start(first), start(second)])
        };
        let met = Some((2, 40));
        assert_eq!(leaderless(&StartAt::Latest, met), starts(9, 40));
        assert_eq!(leaderless(&StartAt::Latest, None), no_leader);
        assert_eq!(leaderless(&StartAt::Earliest, met), starts(3, 2));
        assert_eq!(leaderless(&StartAt::Earliest, None), no_leader);
        let ago = StartAt::Ago(std::time::Duration::ZERO);
        assert_eq!(leaderless(&ago, met), no_leader, "only the leader knows when");
        let positions = |second| place(1, &[(0, 7), (1, second)]);
        assert_eq!(leaderless(&positions(40), met), starts(7, 40));
        assert_eq!(leaderless(&positions(41), met), no_leader, "it may have been taken back");
        assert_eq!(leaderless(&positions(41), None), starts(7, 41), "the same, told later");
        let doubtful = BTreeSet::from([PartitionId::from_index(1)]);
        let in_doubt = |met| leaderless_in_doubt(&positions(30), met, &doubtful);
        assert_eq!(in_doubt(met), no_leader, "it may have read another leader's log");
        assert_eq!(in_doubt(None), starts(7, 30));
    }
}
