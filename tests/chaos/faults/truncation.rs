//! Logs that become shorter: an unclean election, after which a broker leads
//! that never had the newest records.

use std::time::Duration;
use std::time::Instant;

use brucke_checker::line::GapReason;
use brucke_checker::line::TruthLine;

use crate::client::Order;
use crate::fault::Fault;
use crate::fault::Metric;
use crate::fault::Outage;
use crate::fault::Sees;
use crate::fault::seconds;
use crate::plan;
use crate::plan::PLANS;
use crate::plan::SHAKY;
use crate::producers::Pen;
use crate::proxy::Mode;
use crate::stage::Stage;

pub const FAULTS: &[&Fault] = &[
    &Fault {
        name: "truncated",
        what: "an unclean election takes back records that clients have",
        sees: Sees::Gap(GapReason::Truncated),
        metric: Metric::Grows("brucke_gaps_total{reason=\"truncated\"}"),
        outage: Outage::Some,
        within: seconds(10),
        first_record: None,
        act: |stage, random| truncate(stage, random, Afterwards::Quiet),
    },
    &Fault {
        name: "truncated-and-regrown",
        what: "the same, and the log is longer than before when replicas reach it again",
        sees: Sees::Gap(GapReason::Truncated),
        metric: Metric::Grows("brucke_gaps_total{reason=\"truncated\"}"),
        outage: Outage::Some,
        within: seconds(10),
        first_record: None,
        act: |stage, random| truncate(stage, random, Afterwards::Regrown),
    },
    &Fault {
        name: "truncated-while-away",
        what: "an unclean election takes back records while half of those who have them are away, and the log is longer than before when they return",
        sees: Sees::Gap(GapReason::Truncated),
        metric: Metric::Grows("brucke_gaps_total{reason=\"truncated\"}"),
        outage: Outage::Some,
        within: seconds(10),
        first_record: None,
        act: |stage, random| truncate(stage, random, Afterwards::RegrownUnseen),
    },
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Afterwards {
    Quiet,
    /// New records stand under the offsets of the lost ones, and more, when replicas
    /// reach the log again.
    Regrown,
    /// The same when clients return that were away.
    RegrownUnseen,
}

fn truncate(stage: &mut Stage, random: &mut fastrand::Rng, afterwards: Afterwards) {
    stage.loader.pause(SHAKY);
    let replicas = stage.eye.insist_replicas(SHAKY, 0);
    let [leader, follower] = replicas[..] else { panic!("two replicas, not {replicas:?}") };
    let index = |id: i32| usize::try_from(id).expect("not negative") - 1;
    stage.cluster.kill(index(follower));
    // Until it is no longer in sync.
    stage.sleep(4.0);
    let lost = 20 + random.u64(..20);
    write(stage, lost, random);
    let before = stage.eye.insist(&stage.topics, SHAKY)[0].1;
    if let Err(text) = stage.catch_up(Duration::from_secs(10)) {
        stage.notes.push(format!("before the truncation: {text}"));
    }
    match afterwards {
        Afterwards::Quiet => {}
        Afterwards::Regrown => {
            stage.replicas.iter().for_each(|replica| replica.way.set(None, Mode::Cut));
        }
        Afterwards::RegrownUnseen => {
            stage.tell(Some(SHAKY), 2, Order::BeAway);
            stage.sleep(1.0);
        }
    }
    stage.cluster.kill(index(leader));
    stage.cluster.restart(index(follower));
    elect(stage, follower);
    let end = stage.eye.insist(&stage.topics, SHAKY)[0].1;
    let id = stage.topics.id(SHAKY).expect("it is there");
    let at = stage.clock.now();
    stage.truth.write(&TruthLine::Cut { topic: id, p: 0, end, at });
    if end >= before {
        stage.notes.push(format!("the log was not cut: {end} after {before}"));
    }
    // The next records are acknowledged after the cut.
    stage.sleep(0.01);
    match afterwards {
        Afterwards::Quiet => stage.mend(),
        Afterwards::Regrown => {
            write(stage, lost + 20, random);
            stage.replicas.iter().for_each(|replica| replica.way.heal());
            stage.mend();
        }
        Afterwards::RegrownUnseen => {
            stage.mend();
            // Those who stayed are told first, so that replicas have nothing of the old
            // log any more.
            stage.sleep(3.0);
            write(stage, lost + 20, random);
            stage.sleep(1.0);
            stage.tell(Some(SHAKY), 2, Order::Follow);
        }
    }
    stage.sleep(3.0);
    stage.cluster.restart(index(leader));
    stage.loader.resume(SHAKY);
}

fn write(stage: &Stage, count: u64, random: &mut fastrand::Rng) {
    let pen = Pen::new(&stage.cluster.bootstrap_servers(), &stage.acks);
    let id = stage.topics.id(SHAKY).expect("it is there");
    for _ in 0..count {
        let number = stage.loader.next_number(SHAKY);
        let draft = plan::draft(SHAKY, PLANS[SHAKY].partitions, number, 10, random);
        pen.write(SHAKY, &id, &draft, None);
    }
    pen.drain();
}

/// Waits until the broker leads, and asks for an unclean election if it does not
/// by itself; again where the controller does not know yet that it is there.
fn elect(stage: &Stage, broker: i32) {
    let began = Instant::now();
    let mut asked = Ok(String::new());
    let mut ask_at = ELECTION_BY_ITSELF;
    while stage.eye.insist_replicas(SHAKY, 0)[0] != broker {
        if began.elapsed() > ask_at {
            ask_at = began.elapsed() + ELECTION_AGAIN;
            let servers = stage.cluster.bootstrap_servers();
            let topic = PLANS[SHAKY].name;
            asked = stage.cluster.try_tool(
                "org.apache.kafka.tools.LeaderElectionCommand",
                &[
                    "--bootstrap-server",
                    &servers,
                    "--election-type",
                    "unclean",
                    "--topic",
                    topic,
                    "--partition",
                    "0",
                ],
            );
        }
        assert!(began.elapsed() < ELECTION_MAX, "nobody leads after {ELECTION_MAX:?}: {asked:?}");
        stage.sleep(0.1);
    }
}

const ELECTION_BY_ITSELF: Duration = Duration::from_secs(8);
const ELECTION_AGAIN: Duration = Duration::from_secs(3);
const ELECTION_MAX: Duration = Duration::from_secs(40);
