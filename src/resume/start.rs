//! The start of a subscription, partition by partition.

use thiserror::Error;

use crate::protocol::frame::GapReason;
use crate::protocol::frame::StartAt;
use crate::registry::message::Bounds;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::TopicId;
use crate::types::positions::Place;

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
}

/// What is known of a topic when a subscription starts.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    pub topic_id: TopicId,
    /// Where each partition's live reading stands.
    pub live: &'a [Offset],
    /// What Kafka has, asked after the client asked; may be shorter than `live`
    /// where the topic was made again with fewer partitions.
    pub bounds: &'a [Bounds],
}

/// Returns where each partition starts.
///
/// # Errors
///
/// [`StartError`] for positions that cannot be of this topic.
pub fn plan(from: &StartAt, known: &Known<'_>) -> Result<Plan, StartError> {
    let of_bounds = |place: fn(&Bounds) -> Offset| {
        let position = |index: usize| known.bounds.get(index).map_or(Offset::ZERO, place);
        (0..known.live.len()).map(|index| Start { position: position(index), lost: None }).collect()
    };
    let starts = match from {
        StartAt::Latest => {
            known.live.iter().map(|live| Start { position: *live, lost: None }).collect()
        }
        StartAt::Earliest => of_bounds(|bounds| bounds.start),
        StartAt::Timestamp(_) | StartAt::Ago(_) => of_bounds(|bounds| bounds.at_timestamp),
        StartAt::Place(place) => return resume(place, known),
    };
    Ok(Plan { topic_id: known.topic_id, starts, vanished: Vec::new() })
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
        let end = known.bounds.get(index).map_or(Offset::ZERO, |bounds| bounds.end);
        let ahead = position > end;
        let lost = ahead.then_some(Lost { to: end, reason: GapReason::Truncated });
        Start { position, lost }
    };
    let starts = (0..known.live.len()).map(start).collect();
    Ok(Plan { topic_id: known.topic_id, starts, vanished: Vec::new() })
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
        };
        let known = Known {
            topic_id: TopicId::from_kafka(0, 1),
            live: &[offset(90), offset(40)],
            bounds: &[bound(10, 100, 50), bound(0, 40, 40)],
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
        StartAt::Place(Place { topic_id: TopicId::from_kafka(0, topic), positions })
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
    fn a_partition_that_never_was_is_refused() {
        let bounds = Bounds { start: offset(0), end: offset(9), at_timestamp: offset(9) };
        let known = Known {
            topic_id: TopicId::from_kafka(0, 1),
            live: &[Offset::ZERO, Offset::ZERO],
            bounds: &[bounds],
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
}
