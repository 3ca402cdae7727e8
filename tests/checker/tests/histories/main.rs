//! Bad histories of each kind are caught, and good ones with holes are not
//! accused.

mod gaps;

use std::collections::BTreeMap;
use std::fs;

use brucke_checker::findings::Kind;
use brucke_checker::follower::Limits;
use brucke_checker::judge::judge;
use brucke_checker::judge::judge_lines;
use brucke_checker::line::Cleanup;
use brucke_checker::line::ClientLine;
use brucke_checker::line::Filter;
use brucke_checker::line::Maybe;
use brucke_checker::line::Put;
use brucke_checker::line::Start;
use brucke_checker::line::TOMBSTONE;
use brucke_checker::line::Tenant;
use brucke_checker::line::TransactionEnd;
use brucke_checker::line::TruthLine;
use brucke_checker::line::checksum;

const TOPIC: &str = "topic-1";
const AGAIN: &str = "topic-2";

fn sum(p: u32, o: u64) -> u32 {
    checksum(Some(format!("{p} {o}").as_bytes()))
}

/// The record of every third offset is another tenant's.
fn tenant(o: u64) -> Tenant {
    Tenant::One(if o % 3 == 2 { "globex" } else { "acme" }.to_owned())
}

fn key(o: u64) -> Option<String> {
    Some(format!("{}-{}", if o.is_multiple_of(2) { "eu" } else { "us" }, o % 5))
}

fn put(p: u32, o: u64) -> TruthLine {
    let (topic, at) = (TOPIC.to_owned(), 100 + o);
    TruthLine::Put(Put {
        topic,
        p,
        o,
        key: key(o),
        tenant: tenant(o),
        sum: sum(p, o),
        at,
        tx: None,
    })
}

fn topic(id: &str, name: &str, at: Option<u64>) -> TruthLine {
    let (topic, name) = (id.to_owned(), name.to_owned());
    TruthLine::Topic { topic, name, cleanup: Cleanup::Delete, at }
}

fn bounds(p: u32, start: u64, end: u64, at: u64) -> TruthLine {
    TruthLine::Bounds { topic: TOPIC.to_owned(), p, start, end, asked: at, at }
}

/// Two partitions with offsets 0 to 30, over at 2,000.
fn truth() -> Vec<TruthLine> {
    let mut lines = vec![topic(TOPIC, "orders", Some(10))];
    for p in 0..2 {
        lines.extend((0..30).map(|o| put(p, o)));
        lines.push(bounds(p, 0, 30, 200));
        lines.push(bounds(p, 0, 30, 2_000));
    }
    lines.push(TruthLine::Over { at: 2_000 });
    lines
}

/// Why nobody, or nobody at a replica, could be served for a while.
fn excuse(from: u64, to: u64, replica: Option<usize>) -> TruthLine {
    TruthLine::Excuse { from, to, why: "down".to_owned(), replica }
}

fn client(filter: Filter, start: Start) -> ClientLine {
    ClientLine::Client { name: "c".to_owned(), tenant: "acme".to_owned(), filter, start }
}

fn subscribed(at: u64, topic: &str, pos: &[(u32, u64)]) -> Vec<ClientLine> {
    let pos = pos.iter().copied().collect();
    vec![
        ClientLine::Connect { at, replica: Some(0) },
        ClientLine::Ask { at },
        ClientLine::Subscribed { at, topic: topic.to_owned(), pos },
    ]
}

fn frame(at: u64, p: u32, from: u64, to: u64, filter: &Filter) -> ClientLine {
    let acme = Tenant::One("acme".to_owned());
    let ours = (from..to).filter(|o| tenant(*o) == acme && filter.wants(key(*o).as_deref()));
    let r = ours.map(|o| (o, key(o), sum(p, o))).collect();
    ClientLine::Records { at, p, from, to, drop: 0, r }
}

/// Frames of ten offsets each, of both partitions.
fn right(filter: &Filter) -> Vec<ClientLine> {
    let mut lines = vec![client(filter.clone(), Start::Earliest)];
    lines.extend(subscribed(50, TOPIC, &[(0, 0), (1, 0)]));
    for from in [0, 10, 20] {
        lines.extend((0..2).map(|p| frame(300 + from, p, from, from + 10, filter)));
    }
    lines
}

/// Where the frames of [`right`] begin.
const FRAMES: usize = 4;

fn records(line: &mut ClientLine) -> &mut Vec<(u64, Option<String>, u32)> {
    let ClientLine::Records { r, .. } = line else { panic!("{line:?}") };
    r
}

/// Checks that of all kinds exactly these are found, so often.
fn check(truth: &[TruthLine], client: &[ClientLine], expected: &[(Kind, u64)]) {
    let verdict = judge_lines(truth, client, Limits::default());
    let found: BTreeMap<Kind, u64> = Kind::ALL
        .into_iter()
        .map(|kind| (kind, verdict.findings.of(kind)))
        .filter(|(_, count)| *count > 0)
        .collect();
    assert_eq!(found, expected.iter().copied().collect(), "{:#?}", verdict.findings.examples);
}

/// Spoils the right history and checks what is found.
fn check_spoilt(spoil: impl FnOnce(&mut Vec<ClientLine>), expected: &[(Kind, u64)]) {
    let mut lines = right(&Filter::All);
    spoil(&mut lines);
    check(&truth(), &lines, expected);
}

#[test]
fn a_right_history_is_not_accused() {
    let keys = Filter::Keys(vec!["eu-0".to_owned(), "us-1".to_owned()]);
    for filter in [Filter::All, keys, Filter::Prefix("eu-".to_owned())] {
        check(&truth(), &right(&filter), &[]);
    }
    let verdict = judge_lines(&truth(), &right(&Filter::All), Limits::default());
    assert_eq!((verdict.deliveries, verdict.frames, verdict.connects), (40, 6, 1));
}

#[test]
fn a_lost_record_is_found() {
    check_spoilt(|lines| drop(records(&mut lines[FRAMES + 1]).remove(0)), &[(Kind::Lost, 1)]);
    // Progress over what was never sent.
    let over = |lines: &mut Vec<ClientLine>| {
        let to = BTreeMap::from([(0, 30)]);
        lines.insert(FRAMES + 4, ClientLine::Progress { at: 315, to });
        records(&mut lines[FRAMES + 5]).clear();
    };
    check_spoilt(over, &[(Kind::Lost, 6)]);
    // A client that drops what it never had.
    let dropped = |lines: &mut Vec<ClientLine>| {
        let ClientLine::Records { drop, .. } = &mut lines[FRAMES] else { panic!("records") };
        *drop = 2;
    };
    check_spoilt(dropped, &[(Kind::Lost, 2)]);
}

#[test]
fn a_repeat_is_found() {
    let twice = |lines: &mut Vec<ClientLine>| lines.insert(FRAMES, lines[FRAMES].clone());
    check_spoilt(twice, &[(Kind::Repeated, 7)]);
    // A client that drops the repeats hands nothing on twice.
    let dropped = |lines: &mut Vec<ClientLine>| {
        let mut again = lines[FRAMES].clone();
        let ClientLine::Records { drop, r, .. } = &mut again else { panic!("records") };
        *drop = r.len();
        lines.insert(FRAMES + 1, again);
    };
    check_spoilt(dropped, &[]);
}

#[test]
fn disorder_is_found() {
    let swapped = |lines: &mut Vec<ClientLine>| lines.swap(FRAMES, FRAMES + 2);
    check_spoilt(swapped, &[(Kind::Disordered, 7), (Kind::Unjoined, 1)]);
    let within = |lines: &mut Vec<ClientLine>| records(&mut lines[FRAMES]).swap(0, 1);
    check_spoilt(within, &[(Kind::Disordered, 1), (Kind::Unjoined, 1)]);
}

#[test]
fn two_values_under_one_offset_are_found() {
    let changed = |lines: &mut Vec<ClientLine>| records(&mut lines[FRAMES])[0].2 ^= 1;
    check_spoilt(changed, &[(Kind::Inconsistent, 1), (Kind::Lost, 1)]);
    let other_key =
        |lines: &mut Vec<ClientLine>| records(&mut lines[FRAMES])[0].1 = Some("x".to_owned());
    check_spoilt(other_key, &[(Kind::Inconsistent, 1)]);
    let invented = |lines: &mut Vec<ClientLine>| {
        let r = vec![(30, key(30), 7)];
        lines.push(ClientLine::Records { at: 400, p: 0, from: 30, to: 31, drop: 0, r });
    };
    check_spoilt(invented, &[(Kind::Inconsistent, 1)]);
    // Two producers were told the same offset.
    let mut twice = truth();
    let TruthLine::Put(mut second) = put(0, 4) else { panic!("a put") };
    second.sum ^= 1;
    twice.push(TruthLine::Put(second));
    let verdict = judge_lines(&twice, &right(&Filter::All), Limits::default());
    assert_eq!(verdict.findings.of(Kind::Inconsistent), 1);
}

#[test]
fn a_record_of_another_tenant_is_found() {
    let foreign = |lines: &mut Vec<ClientLine>| {
        records(&mut lines[FRAMES]).insert(2, (2, key(2), sum(0, 2)));
    };
    check_spoilt(foreign, &[(Kind::Foreign, 1)]);
    let mut nobodys = truth();
    let TruthLine::Put(mut unclear) = put(0, 30) else { panic!("a put") };
    unclear.tenant = Tenant::Nobody;
    nobodys.push(TruthLine::Put(unclear));
    let mut lines = right(&Filter::All);
    check(&nobodys, &lines, &[]);
    let r = vec![(30, key(30), sum(0, 30))];
    lines.push(ClientLine::Records { at: 400, p: 0, from: 30, to: 31, drop: 0, r });
    check(&nobodys, &lines, &[(Kind::Foreign, 1)]);
}

#[test]
fn a_record_that_nobody_asked_for_is_found() {
    let filter = Filter::Prefix("eu-".to_owned());
    let mut lines = right(&filter);
    records(&mut lines[FRAMES]).insert(1, (1, key(1), sum(0, 1)));
    check(&truth(), &lines, &[(Kind::Unasked, 1)]);
}

#[test]
fn ranges_that_do_not_join_are_found() {
    let hole = |lines: &mut Vec<ClientLine>| drop(lines.remove(FRAMES + 2));
    check_spoilt(hole, &[(Kind::Unjoined, 1), (Kind::Lost, 7)]);
    let resumed = |lines: &mut Vec<ClientLine>| {
        let again = subscribed(305, TOPIC, &[(0, 11)]);
        let cut = ClientLine::Disconnect { at: 304, code: None };
        lines.splice(FRAMES + 2..FRAMES + 2, [cut].into_iter().chain(again));
    };
    check_spoilt(resumed, &[(Kind::Unjoined, 1)]);
    let outside = |lines: &mut Vec<ClientLine>| {
        let ClientLine::Records { to, .. } = &mut lines[FRAMES] else { panic!("records") };
        *to = 9;
    };
    check_spoilt(outside, &[(Kind::Unjoined, 2)]);
}

#[test]
fn a_start_elsewhere_is_found() {
    let mut lines = vec![client(Filter::All, Start::Earliest)];
    lines.extend(subscribed(300, TOPIC, &[(0, 20), (1, 0)]));
    lines.push(frame(310, 0, 20, 30, &Filter::All));
    lines.push(frame(310, 1, 0, 30, &Filter::All));
    check(&truth(), &lines, &[(Kind::Misplaced, 1)]);
    // Latest that is earliest, long after the log had records.
    let mut lines = vec![client(Filter::All, Start::Latest)];
    lines.extend(subscribed(2_500, TOPIC, &[(0, 0), (1, 30)]));
    lines.push(frame(2_600, 0, 0, 30, &Filter::All));
    check(&truth(), &lines, &[(Kind::Misplaced, 1)]);
    let mut lines = vec![client(Filter::All, Start::Latest)];
    lines.extend(subscribed(2_500, TOPIC, &[(0, 30), (1, 30)]));
    check(&truth(), &lines, &[]);
}

#[test]
fn a_stuck_client_is_found() {
    // Everything came, but for the last frame of a partition.
    check_spoilt(|lines| drop(lines.pop()), &[(Kind::Stuck, 1)]);
    // It came, but too late.
    let late = |lines: &mut Vec<ClientLine>| {
        let last = lines.pop().expect("a frame");
        let ClientLine::Records { p, from, to, .. } = last else { panic!("records") };
        lines.push(frame(12_500, p, from, to, &Filter::All));
    };
    check_spoilt(late, &[(Kind::Stuck, 2)]);
    // Nobody could be served, or the client did not want to be.
    let mut lines = right(&Filter::All);
    late(&mut lines);
    let mut excused = truth();
    excused.push(excuse(250, 11_000, None));
    excused.retain(|line| !matches!(line, TruthLine::Over { .. }));
    check(&excused, &lines, &[]);
    let mut without = truth();
    without.retain(|line| !matches!(line, TruthLine::Over { .. }));
    // Only those of another replica could not be.
    let mut others = without.clone();
    others.push(excuse(250, 11_000, Some(1)));
    check(&others, &lines, &[(Kind::Stuck, 1)]);
    check(&without, &lines, &[(Kind::Stuck, 1)]);
    lines.insert(FRAMES, ClientLine::Asleep { at: 150 });
    lines.insert(lines.len() - 1, ClientLine::Awake { at: 12_400 });
    check(&without, &lines, &[]);
    check(&truth(), &[client(Filter::All, Start::Earliest)], &[(Kind::Stuck, 1)]);
}

#[test]
fn aborted_records_must_not_come_and_committed_ones_must() {
    let mut truth = truth();
    for (o, tx) in [(30, 1), (31, 2), (33, 3)] {
        let TruthLine::Put(put) = put(0, o) else { panic!("a put") };
        truth.push(TruthLine::Put(Put { tx: Some(tx), ..put }));
    }
    truth.push(TruthLine::Ended { tx: 1, how: TransactionEnd::Aborted });
    truth.push(TruthLine::Ended { tx: 2, how: TransactionEnd::Committed });
    // Of the third nobody knows; 32 and 34 are markers.
    truth.push(bounds(0, 0, 35, 3_000));
    let with = |offsets: &[u64]| {
        let mut lines = right(&Filter::All);
        let r = offsets.iter().map(|o| (*o, key(*o), sum(0, *o))).collect();
        lines.push(ClientLine::Records { at: 400, p: 0, from: 30, to: 35, drop: 0, r });
        lines
    };
    check(&truth, &with(&[31]), &[]);
    check(&truth, &with(&[31, 33]), &[]);
    check(&truth, &with(&[30, 31]), &[(Kind::Aborted, 1)]);
    check(&truth, &with(&[33]), &[(Kind::Lost, 1)]);
}

#[test]
fn what_compaction_may_remove_may_be_missing() {
    let mut truth = truth();
    truth[0] = TruthLine::Topic {
        topic: TOPIC.to_owned(),
        name: "ledger".to_owned(),
        cleanup: Cleanup::Compact,
        at: None,
    };
    let TruthLine::Put(mut tombstone) = put(0, 30) else { panic!("a put") };
    tombstone.sum = TOMBSTONE;
    truth.push(TruthLine::Put(tombstone));
    let mut lines = right(&Filter::All);
    // Each key of the tenant stands again at a higher offset, but for 0 and 4,
    // whose later ones are a tombstone's or another's.
    records(&mut lines[FRAMES]).clear();
    lines.push(ClientLine::Progress { at: 400, to: BTreeMap::from([(0, 31)]) });
    check(&truth, &lines, &[]);
    // The last of its key must come.
    records(&mut lines[FRAMES + 4]).clear();
    let verdict = judge_lines(&truth, &lines, Limits::default());
    assert!(verdict.findings.of(Kind::Lost) > 0);
}

#[test]
fn a_record_without_acknowledgement_may_come_once_known_under_one_offset() {
    let mut truth = truth();
    truth.push(TruthLine::Maybe(Maybe {
        topic: TOPIC.to_owned(),
        key: key(30),
        tenant: tenant(30),
        sum: 99,
        at: 130,
    }));
    let mut lines = right(&Filter::All);
    check(&truth, &lines, &[]);
    let r = vec![(30, key(30), 99)];
    lines.push(ClientLine::Records { at: 400, p: 0, from: 30, to: 31, drop: 0, r });
    check(&truth, &lines, &[]);
    // Not where another was acknowledged.
    let mut wrong = right(&Filter::All);
    records(&mut wrong[FRAMES])[0].2 = 99;
    check(&truth, &wrong, &[(Kind::Inconsistent, 1), (Kind::Lost, 1)]);
    // Once it was found, it must come like any other.
    truth.push(TruthLine::Found { topic: TOPIC.to_owned(), p: 0, o: 30, sum: 99 });
    truth.push(bounds(0, 0, 31, 3_000));
    check(&truth, &lines, &[]);
    let mut over = right(&Filter::All);
    over.push(ClientLine::Progress { at: 400, to: BTreeMap::from([(0, 31)]) });
    check(&truth, &over, &[(Kind::Lost, 1)]);
}

#[test]
fn a_copy_that_a_producer_wrote_again_must_come_like_any_other() {
    let mut truth = truth();
    let copy = |sum| TruthLine::Found { topic: TOPIC.to_owned(), p: 0, o: 30, sum };
    let frame = |sum| {
        let r = vec![(30, key(4), sum)];
        ClientLine::Records { at: 400, p: 0, from: 30, to: 31, drop: 0, r }
    };
    let with = |sum| right(&Filter::All).into_iter().chain([frame(sum)]).collect::<Vec<_>>();
    check(&truth, &with(sum(0, 4)), &[(Kind::Inconsistent, 1)]);
    truth.push(copy(sum(0, 4)));
    truth.push(bounds(0, 0, 31, 3_000));
    check(&truth, &with(sum(0, 4)), &[]);
    check(&truth, &with(sum(0, 5)), &[(Kind::Inconsistent, 1), (Kind::Lost, 1)]);
    let mut over = right(&Filter::All);
    over.push(ClientLine::Progress { at: 400, to: BTreeMap::from([(0, 31)]) });
    check(&truth, &over, &[(Kind::Lost, 1)]);
}

#[test]
fn lines_are_read_as_they_are_written() {
    let folder = std::env::temp_dir().join(format!("brucke-checker-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let write = |name: &str, lines: Vec<String>| {
        std::fs::write(folder.join(name), lines.join("\n")).expect("a file");
    };
    let text = |line: &TruthLine| serde_json::to_string(line).expect("it is JSON");
    write("truth-1.jsonl", truth().iter().map(text).collect());
    let text = |line: &ClientLine| serde_json::to_string(line).expect("it is JSON");
    write("client-1.jsonl", right(&Filter::All).iter().map(text).collect());
    write("client-2.jsonl", right(&Filter::Prefix("us".to_owned())).iter().map(text).collect());
    let verdict = brucke_checker::judge::judge(&folder, Limits::default()).expect("readable");
    std::fs::remove_dir_all(&folder).expect("it is there");
    assert_eq!(verdict.clients, 2);
    assert!(verdict.findings.are_clean(), "{verdict}");
}

#[test]
fn a_folder_in_which_nobody_can_be_accused_is_refused() {
    let folder = std::env::temp_dir().join(format!("brucke-checker-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let write = |name: &str, lines: Vec<String>| {
        fs::write(folder.join(name), lines.join("\n")).expect("a file");
    };
    let refused = || judge(&folder, Limits::default()).expect_err("nobody is accused").to_string();
    let json = |line: &TruthLine| serde_json::to_string(line).expect("JSON");
    write("truth.jsonl", truth().iter().map(json).collect());
    assert!(refused().contains("no client"), "{}", refused());
    let client = right(&Filter::All);
    write(
        "client-0.jsonl",
        client.iter().map(|l| serde_json::to_string(l).expect("JSON")).collect(),
    );
    let verdict = judge(&folder, Limits::default()).expect("it is all there");
    assert!(verdict.findings.are_clean() && verdict.clients == 1);
    let endless = truth().into_iter().filter(|line| !matches!(line, TruthLine::Over { .. }));
    write("truth.jsonl", endless.map(|line| json(&line)).collect());
    assert!(refused().contains("when the run was over"), "{}", refused());
    fs::remove_dir_all(&folder).expect("it was there");
}
