//! What befalls topics.

use std::time::Duration;
use std::time::Instant;

use brucke_checker::line::GapReason;

use crate::client::Order;
use crate::fault::Fault;
use crate::fault::Metric;
use crate::fault::Outage;
use crate::fault::Sees;
use crate::fault::seconds;
use crate::plan::AGAIN;
use crate::plan::FLEETING;
use crate::plan::GROWING;
use crate::plan::GUARDED;
use crate::plan::LEDGER;
use crate::plan::PLANS;
use crate::stage::BROKERS;
use crate::stage::Stage;
use crate::topics::Known;
use crate::topics::wait_until_gone;

pub const FAULTS: &[&Fault] = &[
    &Fault {
        name: "records-deleted",
        what: "DeleteRecords removes what half of the topic's clients have slept through",
        sees: Sees::Gap(GapReason::Retention),
        metric: Metric::Grows("brucke_gaps_total{reason=\"retention\"}"),
        outage: Outage::None,
        within: seconds(10),
        first_record: None,
        act: |stage, random| {
            stage.tell(Some(FLEETING), 2, Order::BeAway);
            stage.sleep(2.0);
            stage.loader.speed(FLEETING, 20);
            stage.sleep(2.0 + random.f64());
            stage.loader.speed(FLEETING, 1);
            let bounds = stage.eye.insist(&stage.topics, FLEETING);
            for (p, (_, end)) in (0..).zip(bounds) {
                let before = i64::try_from(end).expect("small") - random.i64(0..20);
                stage.cluster.admin().delete_records(PLANS[FLEETING].name, p, before);
            }
            stage.eye.insist(&stage.topics, FLEETING);
            stage.tell(Some(FLEETING), 2, Order::Follow);
        },
    },
    &Fault {
        name: "retention",
        what: "retention removes what half of the topic's clients have slept through",
        sees: Sees::Gap(GapReason::Retention),
        metric: Metric::Grows("brucke_gaps_total{reason=\"retention\"}"),
        outage: Outage::None,
        within: seconds(10),
        first_record: None,
        act: |stage, _| retain_little(stage),
    },
    &Fault {
        name: "topic-again-fewer",
        what: "a topic is deleted and made again with half of the partitions",
        sees: Sees::Gap(GapReason::TopicRecreated),
        metric: Metric::Grows("brucke_gaps_total{reason=\"topic_recreated\"}"),
        outage: Outage::None,
        within: seconds(10),
        first_record: None,
        act: |stage, _| make_again(stage, |partitions| partitions.div_ceil(2)),
    },
    &Fault {
        name: "topic-again-more",
        what: "a topic is deleted and made again with twice as many partitions",
        sees: Sees::Gap(GapReason::TopicRecreated),
        metric: Metric::Grows("brucke_gaps_total{reason=\"topic_recreated\"}"),
        outage: Outage::None,
        within: seconds(10),
        first_record: None,
        act: |stage, _| make_again(stage, |partitions| (partitions * 2).min(8)),
    },
    &Fault {
        name: "partitions-added",
        what: "a topic under load gets one more partition",
        sees: Sees::Nothing,
        metric: Metric::Meanwhile("`brucke_reader_lag_records` has the new partition"),
        outage: Outage::None,
        within: seconds(10),
        first_record: None,
        act: |stage, _| {
            let Known { id, partitions } = stage.topics.known(GROWING).expect("it is there");
            let partitions = partitions + 1;
            let count = usize::try_from(partitions).expect("few");
            stage.cluster.admin().create_partitions(PLANS[GROWING].name, count);
            // A new producer: the other does not know the partition yet.
            stage.loader.pause(GROWING);
            stage.topics.know(GROWING, Some(Known { id, partitions }));
            stage.loader.resume(GROWING);
            expect_partition(stage, partitions - 1);
        },
    },
    &Fault {
        name: "compaction",
        what: "compaction removes what a topic's clients have slept through",
        sees: Sees::Nothing,
        metric: Metric::None,
        outage: Outage::None,
        within: seconds(10),
        first_record: None,
        act: |stage, _| compact(stage),
    },
    &Fault {
        name: "acl-removed",
        what: "replicas may not read a topic for 6 s, and somebody subscribes",
        sees: Sees::Refusals,
        metric: Metric::Above("brucke_topics_failing", 0),
        outage: Outage::Some,
        within: seconds(10),
        first_record: None,
        act: |stage, _| forbid(stage),
    },
];

fn retain_little(stage: &mut Stage) {
    stage.tell(Some(FLEETING), 2, Order::BeAway);
    stage.sleep(1.0);
    let slept_from = stage.eye.insist(&stage.topics, FLEETING);
    stage.loader.speed(FLEETING, 20);
    stage.sleep(2.0);
    stage.loader.speed(FLEETING, 1);
    let name = PLANS[FLEETING].name;
    let mut config = PLANS[FLEETING].config.to_vec();
    config.extend([("segment.ms", "1000"), ("retention.ms", "2000")]);
    stage.cluster.admin().alter_config(name, &config);
    let deadline = Instant::now() + RETENTION_MAX;
    loop {
        let bounds = stage.eye.insist(&stage.topics, FLEETING);
        let gone = bounds.iter().zip(&slept_from).all(|((start, _), (_, from))| start > from);
        if gone {
            break;
        }
        if Instant::now() > deadline {
            stage.notes.push(format!("retention removed nothing: {bounds:?}"));
            break;
        }
        stage.sleep(0.2);
    }
    stage.cluster.admin().alter_config(name, PLANS[FLEETING].config);
    stage.sleep(1.0);
    stage.eye.insist(&stage.topics, FLEETING);
    stage.tell(Some(FLEETING), 2, Order::Follow);
}

fn make_again(stage: &mut Stage, next: fn(u32) -> u32) {
    let partitions = stage.topics.known(AGAIN).expect("it is there").partitions;
    let name = PLANS[AGAIN].name;
    stage.loader.pause(AGAIN);
    stage.topics.know(AGAIN, None);
    stage.cluster.admin().delete_topic(name);
    wait_until_gone(&stage.cluster, BROKERS, name);
    stage.make_topic(AGAIN, next(partitions));
    stage.loader.resume(AGAIN);
}

/// Waits until a replica tells how far it is behind a partition of the growing topic.
fn expect_partition(stage: &mut Stage, partition: u32) {
    let name = PLANS[GROWING].name;
    let series = format!("brucke_reader_lag_records{{topic=\"{name}\",partition=\"{partition}\"}}");
    let deadline = Instant::now() + PARTITION_MAX;
    while !stage.metrics().contains_key(&series) {
        if Instant::now() > deadline {
            stage.notes.push(format!("{series} is not told after {PARTITION_MAX:?}"));
            return;
        }
        stage.sleep(0.2);
    }
}

fn compact(stage: &mut Stage) {
    stage.tell(Some(LEDGER), 1, Order::BeAway);
    stage.loader.speed(LEDGER, 20);
    stage.sleep(4.0);
    stage.loader.speed(LEDGER, 1);
    let deadline = Instant::now() + COMPACTION_MAX;
    let end = stage.eye.insist(&stage.topics, LEDGER)[0].1;
    while stage.eye.count(LEDGER, 0, end) * 2 > end {
        if Instant::now() > deadline {
            stage.notes.push("compaction removed less than half".to_owned());
            break;
        }
        stage.sleep(0.5);
    }
    stage.tell(Some(LEDGER), 1, Order::Follow);
}

/// Lets only another user read the topic, and those who may do everything.
fn forbid(stage: &mut Stage) {
    let servers = stage.cluster.bootstrap_servers();
    let change = |how: &[&str]| {
        let rule = ["--bootstrap-server", &servers, "--topic", PLANS[GUARDED].name];
        let who = ["--allow-principal", "User:another"];
        let what = ["--operation", "All"];
        let arguments = [&rule[..], how, &who, &what].concat();
        stage.cluster.tool("org.apache.kafka.tools.AclCommand", &arguments);
    };
    stage.tell(Some(GUARDED), 2, Order::BeAway);
    change(&["--add"]);
    // Who comes back asks where to go on, and nobody can say it.
    stage.tell(Some(GUARDED), 2, Order::Follow);
    stage.sleep(6.0);
    change(&["--remove", "--force"]);
}

const PARTITION_MAX: Duration = Duration::from_secs(10);
const RETENTION_MAX: Duration = Duration::from_secs(20);
const COMPACTION_MAX: Duration = Duration::from_secs(30);
