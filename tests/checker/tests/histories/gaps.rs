//! Gaps: true ones that come in time are not accused, and false, missing and late
//! ones are, of each reason.

use std::collections::BTreeMap;

use brucke_checker::findings::Kind;
use brucke_checker::line::ClientLine;
use brucke_checker::line::Filter;
use brucke_checker::line::GapReason;
use brucke_checker::line::Put;
use brucke_checker::line::Start;
use brucke_checker::line::TruthLine;

use crate::AGAIN;
use crate::FRAMES;
use crate::TOPIC;
use crate::bounds;
use crate::check;
use crate::check_spoilt;
use crate::client;
use crate::excuse;
use crate::frame;
use crate::put;
use crate::records;
use crate::right;
use crate::subscribed;
use crate::sum;
use crate::topic;
use crate::truth;

fn gap(at: u64, p: u32, from: u64, to: u64, why: GapReason) -> ClientLine {
    let topic = (why == GapReason::TopicRecreated).then(|| AGAIN.to_owned());
    ClientLine::Gap { at, p, from, to, why, topic }
}

/// The truth after offsets below `start` of partition 0 were removed at `at`.
fn removed(start: u64, at: u64) -> Vec<TruthLine> {
    let mut lines = truth();
    lines.retain(|line| !matches!(line, TruthLine::Bounds { p: 0, at: 2_000, .. }));
    lines.push(bounds(0, start, 30, at));
    lines.push(bounds(0, start, 30, 3_000));
    lines
}

/// A client that slept until 1,000 and is then told of a gap of partition 0.
fn slept(to: u64, told_at: u64) -> Vec<ClientLine> {
    let mut lines = stands_at_five();
    lines.push(ClientLine::Disconnect { at: 400, code: Some(1000) });
    lines.extend(subscribed(1_000, TOPIC, &[(0, 5), (1, 30)]));
    lines.extend(told(to, told_at));
    lines
}

/// A client that has all of partition 1 and stands at 5 of partition 0.
fn stands_at_five() -> Vec<ClientLine> {
    let mut lines = vec![client(Filter::All, Start::Earliest)];
    lines.extend(subscribed(50, TOPIC, &[(0, 0), (1, 0)]));
    lines.push(frame(300, 0, 0, 5, &Filter::All));
    lines.push(frame(300, 1, 0, 30, &Filter::All));
    lines
}

/// It is told of a gap, and gets the rest.
fn told(to: u64, told_at: u64) -> [ClientLine; 2] {
    let gap = gap(told_at, 0, 5, to, GapReason::Retention);
    [gap, frame(told_at + 10, 0, to, 30, &Filter::All)]
}

#[test]
fn a_true_gap_is_not_accused_and_false_missing_and_late_ones_are() {
    check(&removed(20, 900), &slept(20, 1_100), &[]);
    // More is said to be gone than is.
    check(&removed(15, 900), &slept(20, 1_100), &[(Kind::FalseGap, 1)]);
    check(&removed(20, 900), &slept(20, 2_600), &[(Kind::LateGap, 1)]);
    // It begins below or above what the client had.
    for from in [4, 6] {
        let mut unjoined = slept(20, 1_100);
        let place = unjoined.len() - 2;
        unjoined[place] = gap(1_100, 0, from, 20, GapReason::Retention);
        check(&removed(20, 900), &unjoined, &[(Kind::Unjoined, 1)]);
    }
    // Nobody could be told any earlier.
    let mut excused = removed(20, 900);
    excused.push(excuse(800, 2_000, None));
    check(&excused, &slept(20, 2_600), &[]);
    // Gone, and no gap says so.
    let mut silent = slept(20, 1_100);
    silent.retain(|line| !matches!(line, ClientLine::Gap { .. }));
    check(&removed(20, 900), &silent, &[(Kind::Unjoined, 1), (Kind::MissingGap, 10)]);
    let over = ClientLine::Progress { at: 1_100, to: BTreeMap::from([(0, 20)]) };
    silent.insert(silent.len() - 1, over);
    check(&removed(20, 900), &silent, &[(Kind::MissingGap, 10)]);
    check_spoilt(
        |lines| lines.push(gap(400, 0, 30, 40, GapReason::Skipped)),
        &[(Kind::FalseGap, 1)],
    );
}

/// A client that is there all the time, stands at 5 of partition 0, and is told of a
/// gap.
fn awake(to: u64, told_at: u64) -> Vec<ClientLine> {
    let mut lines = stands_at_five();
    lines.extend(told(to, told_at));
    lines
}

#[test]
fn who_is_there_is_told_of_deleted_records_within_a_second() {
    check(&removed(20, 900), &awake(20, 1_900), &[]);
    check(&removed(20, 900), &awake(20, 1_901), &[(Kind::LateGap, 1)]);
}

#[test]
fn an_excuse_counts_only_for_what_it_kept() {
    let excused = |excuses: &[(u64, u64)]| {
        let mut truth = removed(20, 900);
        truth.extend(excuses.iter().map(|&(from, to)| excuse(from, to, None)));
        truth
    };
    check(&excused(&[(1_899, 2_000)]), &awake(20, 2_900), &[]);
    check(&excused(&[(1_899, 2_000)]), &awake(20, 3_001), &[(Kind::LateGap, 1)]);
    // It began when the gap should have been told long before.
    check(&excused(&[(1_900, 2_500)]), &awake(20, 2_600), &[(Kind::LateGap, 1)]);
    // One began before the time after the other was over.
    check(&excused(&[(1_500, 2_300), (3_200, 4_000)]), &awake(20, 4_500), &[]);
    check(&excused(&[(1_500, 2_300), (3_300, 4_000)]), &awake(20, 4_500), &[(Kind::LateGap, 1)]);
}

#[test]
fn an_excuse_of_one_replica_counts_for_its_clients_only() {
    let excused = |replica| {
        let mut truth = removed(20, 900);
        truth.push(excuse(800, 2_000, Some(replica)));
        truth
    };
    check(&excused(0), &awake(20, 2_900), &[]);
    check(&excused(1), &awake(20, 2_900), &[(Kind::LateGap, 1)]);
}

#[test]
fn a_false_truncation_repeats_and_is_false() {
    let moved = |lines: &mut Vec<ClientLine>| {
        lines.push(gap(400, 0, 30, 27, GapReason::Truncated));
        lines.push(frame(410, 0, 27, 30, &Filter::All));
    };
    check_spoilt(moved, &[(Kind::FalseGap, 1), (Kind::Repeated, 2)]);
}

/// The truth after partition 0 was cut at 20, where 20 to 24 were written anew.
fn cut() -> Vec<TruthLine> {
    let mut truth: Vec<TruthLine> = truth()
        .into_iter()
        .filter(|line| !matches!(line, TruthLine::Bounds { p: 0, .. }))
        .collect();
    truth.push(TruthLine::Cut { topic: TOPIC.to_owned(), p: 0, end: 20, at: 500 });
    truth.extend((20..25).map(|o| {
        let TruthLine::Put(put) = put(0, o) else { panic!("a put") };
        TruthLine::Put(Put { sum: anew(o), at: 600 + o, ..put })
    }));
    truth.extend([bounds(0, 0, 30, 200), bounds(0, 0, 25, 2_000)]);
    truth
}

/// The sum of a record of partition 0 that was written after the cut.
fn anew(o: u64) -> u32 {
    sum(0, o) ^ 1
}

#[test]
fn a_cut_log_is_told_and_read_again() {
    let truth = cut();
    let mut told = right(&Filter::All);
    let mut again = frame(700, 0, 20, 25, &Filter::All);
    records(&mut again).iter_mut().for_each(|record| record.2 = anew(record.0));
    told.extend([gap(600, 0, 30, 20, GapReason::Truncated), again.clone()]);
    check(&truth, &told, &[]);
    // Silently moved on.
    check(&truth, &right(&Filter::All), &[(Kind::Lost, 3)]);
    // Told with the wrong range.
    let mut wrong = right(&Filter::All);
    let mut less = frame(700, 0, 22, 25, &Filter::All);
    records(&mut less).iter_mut().for_each(|record| record.2 = anew(record.0));
    wrong.extend([gap(600, 0, 30, 22, GapReason::Truncated), less]);
    check(&truth, &wrong, &[(Kind::FalseGap, 1), (Kind::Lost, 1)]);
    // Told of less than the client had.
    let mut short = right(&Filter::All);
    short.extend([gap(600, 0, 21, 20, GapReason::Truncated), again.clone()]);
    check(&truth, &short, &[(Kind::Unjoined, 1)]);
    // A client below the cut never hears of it.
    let mut below = vec![client(Filter::All, Start::Earliest)];
    below.extend(subscribed(50, TOPIC, &[(0, 0), (1, 0)]));
    below.push(frame(300, 0, 0, 20, &Filter::All));
    below.push(frame(300, 1, 0, 30, &Filter::All));
    below.push(again);
    check(&truth, &below, &[]);
}

#[test]
fn a_cut_is_told_within_a_second() {
    let told = |at: u64| {
        let mut lines = right(&Filter::All);
        let mut again = frame(at + 10, 0, 20, 25, &Filter::All);
        records(&mut again).iter_mut().for_each(|record| record.2 = anew(record.0));
        lines.extend([gap(at, 0, 30, 20, GapReason::Truncated), again]);
        lines
    };
    check(&cut(), &told(1_500), &[]);
    check(&cut(), &told(1_501), &[(Kind::LateGap, 1)]);
}

/// The truth after the topic was made again, which was known at a moment.
fn again(at: Option<u64>) -> Vec<TruthLine> {
    let mut lines = truth();
    lines.push(topic(AGAIN, "orders", at));
    let topic = AGAIN.to_owned();
    for o in 0..5 {
        let TruthLine::Put(put) = put(0, o) else { panic!("a put") };
        lines.push(TruthLine::Put(Put { topic: topic.clone(), at: 500, ..put }));
    }
    lines.push(TruthLine::Bounds { topic, p: 0, start: 0, end: 5, asked: 2_000, at: 2_000 });
    lines
}

/// A client that stands at 10 in both partitions, and what follows.
fn begun(then: impl IntoIterator<Item = ClientLine>) -> Vec<ClientLine> {
    let mut lines = right(&Filter::All);
    lines.truncate(FRAMES + 2);
    lines.extend(then);
    lines
}

/// Both partitions are told of, and then comes what the new topic has.
fn renewed(at: u64) -> [ClientLine; 3] {
    let gap = |p| gap(at, p, 10, 0, GapReason::TopicRecreated);
    [gap(0), gap(1), frame(at + 10, 0, 0, 5, &Filter::All)]
}

/// A gap that names this topic as the one that was made again.
fn naming(at: u64, p: u32, from: u64, topic: Option<&str>) -> ClientLine {
    let (why, topic) = (GapReason::TopicRecreated, topic.map(str::to_owned));
    ClientLine::Gap { at, p, from, to: 0, why, topic }
}

#[test]
fn a_topic_made_again_is_followed_on() {
    check(&again(Some(500)), &begun(renewed(600)), &[]);
    // Resumed on the new topic, and nobody says so.
    let mut silent = begun([ClientLine::Disconnect { at: 500, code: None }]);
    silent.extend(subscribed(510, AGAIN, &[(0, 10)]));
    silent.push(ClientLine::Progress { at: 520, to: BTreeMap::from([(0, 30), (1, 30)]) });
    let found = [(Kind::Unjoined, 1), (Kind::Lost, 26), (Kind::MissingGap, 1)];
    check(&again(Some(500)), &silent, &found);
    // Told of more than the client had.
    let mut more = renewed(600);
    more[1] = naming(600, 1, 11, Some(AGAIN));
    check(&again(Some(500)), &begun(more), &[(Kind::Unjoined, 1)]);
    // Never told of, and nothing else is wrong.
    check(&again(Some(500)), &right(&Filter::All), &[(Kind::MissingGap, 1)]);
}

#[test]
fn a_topic_made_again_is_told_within_a_second_after_replicas_look() {
    check(&again(Some(500)), &begun(renewed(2_500)), &[]);
    check(&again(Some(500)), &begun(renewed(2_501)), &[(Kind::LateGap, 2)]);
    // A log of before there was a time: the first bounds came at 2,000.
    check(&again(None), &begun(renewed(4_000)), &[]);
    check(&again(None), &begun(renewed(4_001)), &[(Kind::LateGap, 2)]);
    // Nobody could be told any earlier.
    let mut excused = again(Some(500));
    excused.push(excuse(400, 4_000, None));
    check(&excused, &begun(renewed(4_500)), &[]);
    // Nor was the client there.
    let resumed = |told_at: u64| {
        let mut lines = begun([ClientLine::Disconnect { at: 400, code: None }]);
        lines.extend(subscribed(5_000, TOPIC, &[(0, 10), (1, 10)]));
        lines.extend(renewed(told_at));
        lines
    };
    check(&again(Some(500)), &resumed(6_000), &[]);
    check(&again(Some(500)), &resumed(6_001), &[(Kind::LateGap, 2)]);
}

#[test]
fn a_topic_that_was_not_made_again_is_a_false_gap() {
    // One that never was.
    check(&truth(), &begun([naming(400, 0, 10, Some("topic-9"))]), &[(Kind::FalseGap, 1)]);
    // One of another name.
    let mut other = truth();
    other.push(topic("topic-3", "prices", Some(300)));
    check(&other, &begun([naming(400, 0, 10, Some("topic-3"))]), &[(Kind::FalseGap, 1)]);
    // The subscription's own, by its name or without one: all comes again.
    for own in [Some(TOPIC), None] {
        let twice = |lines: &mut Vec<ClientLine>| {
            lines.push(naming(400, 0, 30, own));
            lines.push(frame(410, 0, 0, 30, &Filter::All));
        };
        check_spoilt(twice, &[(Kind::FalseGap, 1), (Kind::Repeated, 20)]);
    }
    // The one before.
    let mut back = vec![client(Filter::All, Start::Earliest)];
    back.extend(subscribed(600, AGAIN, &[(0, 0)]));
    back.extend([frame(700, 0, 0, 5, &Filter::All), naming(800, 0, 5, Some(TOPIC))]);
    let found = [(Kind::FalseGap, 1), (Kind::MissingGap, 1), (Kind::Stuck, 2)];
    check(&again(Some(500)), &back, &found);
}

#[test]
fn each_partition_is_told_of_a_topic_made_again_once_and_before_anything_else() {
    let gap = |at, p| gap(at, p, 10, 0, GapReason::TopicRecreated);
    let frame = |at| frame(at, 0, 0, 5, &Filter::All);
    let twice = [gap(600, 0), gap(600, 0), frame(610)];
    check(&again(Some(500)), &begun(twice), &[(Kind::FalseGap, 1)]);
    let afterwards = [gap(600, 0), frame(610), gap(620, 1)];
    check(&again(Some(500)), &begun(afterwards), &[(Kind::FalseGap, 1)]);
}

#[test]
fn a_topics_line_without_a_time_is_still_read() {
    let text = r#"{"topic":{"topic":"topic-1","name":"orders","cleanup":"delete"}}"#;
    let line: TruthLine = serde_json::from_str(text).expect("a line of older logs");
    assert_eq!(line, topic(TOPIC, "orders", None));
    assert_eq!(serde_json::to_string(&line).expect("it is JSON"), text);
}
