use crate::log::batch::BatchBuilder;
use crate::log::budget::Budget;
use crate::log::partition::Added;
use crate::log::partition::Cursor;
use crate::log::partition::SharedPartition;
use crate::types::ids::LeaderEpoch;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::TopicId;
use crate::types::positions::Reached;

fn offset(raw: i64) -> Offset {
    Offset::from_kafka(raw).expect("not negative")
}

fn reached(epoch: i32, to: i64) -> Reached {
    Reached { epoch: LeaderEpoch::from_kafka(epoch).expect("not negative"), to: offset(to) }
}

/// Returns a partition whose tail begins at 100.
fn begin() -> std::sync::Arc<SharedPartition> {
    let budget = Budget::new(1 << 20, 1 << 20);
    let id = PartitionId::from_index(0);
    SharedPartition::new(id, TopicId::UNKNOWN, Offset::ZERO, offset(100), &budget)
}

/// Appends what covers all up to an offset.
fn append(log: &SharedPartition, to: i64, known: Option<Reached>) {
    let end = log.end();
    let mut batch = BatchBuilder::new(end.offset);
    batch.skip_to(offset(to));
    let added = log.append(end.generation, batch.finish().under(known));
    assert_eq!(added, Added::Stored);
}

/// Holds what is known at an offset of the newest generation.
fn check(log: &SharedPartition, at: i64, known: Option<Reached>) {
    let at = Cursor { offset: offset(at), ..log.end() };
    assert_eq!(log.reached(at), known, "{at:?}");
}

#[test]
fn what_kafka_says_of_the_end_is_taken_of_what_was_read_only() {
    let log = begin();
    check(&log, 100, None);
    // Under whose leader it was read nobody knows.
    log.note_reached(log.end().generation, reached(5, 140));
    check(&log, 100, None);
    // More was there already when it was asked.
    log.begin_reached(reached(5, 140));
    check(&log, 140, Some(reached(5, 100)));
    check(&log, 60, Some(reached(5, 60)));
    append(&log, 110, Some(reached(5, 109)));
    check(&log, 110, Some(reached(5, 109)));
    // The end is a marker's, which only Kafka can tell.
    log.note_reached(log.end().generation, reached(5, 110));
    check(&log, 110, Some(reached(5, 110)));
    // What was read may have been cut off before this leader's log reached so far.
    log.note_reached(log.end().generation, reached(6, 110));
    check(&log, 110, Some(reached(5, 110)));
}

#[test]
fn what_was_read_last_counts() {
    let log = begin();
    log.begin_reached(reached(5, 100));
    // Of a transaction that was open over an election.
    append(&log, 103, Some(reached(4, 102)));
    check(&log, 103, Some(reached(4, 102)));
    append(&log, 106, Some(reached(6, 106)));
    check(&log, 106, Some(reached(6, 106)));
    append(&log, 108, None);
    check(&log, 108, Some(reached(6, 106)));
}

#[test]
fn history_of_a_later_leader_than_the_tail_is_not_taken() {
    let log = begin();
    log.begin_reached(reached(5, 100));
    let insert = |from: i64, known| {
        let mut batch = BatchBuilder::new(offset(from));
        batch.skip_to(offset(from + 10));
        log.insert_history(log.end().generation, batch.finish().under(known))
    };
    assert_eq!(insert(10, Some(reached(4, 20))), Added::Stored);
    assert_eq!(insert(20, None), Added::Stored);
    assert_eq!(insert(30, Some(reached(6, 40))), Added::Stale);
}

#[test]
fn a_log_that_was_cut_off_is_known_anew() {
    let log = begin();
    append(&log, 110, Some(reached(5, 110)));
    let before = log.end();
    log.truncate(offset(104));
    check(&log, 104, None);
    assert_eq!(log.reached(before), None);
    // An answer that was under way when the log was cut off.
    log.note_reached(before.generation, reached(5, 110));
    check(&log, 104, None);
    log.begin_reached(reached(6, 104));
    check(&log, 104, Some(reached(6, 104)));
    append(&log, 107, Some(reached(6, 107)));
    check(&log, 107, Some(reached(6, 107)));
    log.recreate(TopicId::from_kafka(0, 9));
    check(&log, 0, None);
}
