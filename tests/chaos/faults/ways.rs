//! What befalls the ways from replicas to Kafka.

use brucke_checker::line::GapReason;

use crate::fault::Fault;
use crate::fault::Metric;
use crate::fault::Outage;
use crate::fault::Sees;
use crate::fault::seconds;
use crate::faults::brokers;
use crate::plan::FLEETING;
use crate::plan::PLANS;
use crate::proxy::Mode;
use crate::stage::Stage;

pub const FAULTS: &[&Fault] = &[
    &Fault {
        name: "way-cut",
        what: "a replica can't reach any broker for 5 s",
        sees: Sees::Nothing,
        metric: Metric::Grows("brucke_kafka_client_errors_total{error=\"all_brokers_down\"}"),
        outage: Outage::Some,
        within: seconds(10),
        first_record: None,
        act: |stage, _| block(stage, None, Mode::Cut, 5.0),
    },
    &Fault {
        name: "way-to-leader-cut",
        what: "a replica can't reach the leader of a partition for 8 s, and does reach the other brokers",
        sees: Sees::Nothing,
        metric: Metric::Grows("brucke_kafka_disconnects_total"),
        outage: Outage::Some,
        within: seconds(10),
        first_record: None,
        act: |stage, random| {
            let leader = brokers::leader(stage, random);
            block(stage, Some(leader), Mode::Cut, 8.0);
        },
    },
    &Fault {
        name: "way-reset",
        what: "all of a replica's connections to Kafka are reset, five times",
        sees: Sees::Nothing,
        metric: Metric::Grows("brucke_kafka_disconnects_total"),
        outage: Outage::None,
        within: seconds(10),
        first_record: None,
        act: |stage, _| {
            let replica = stage.crowded();
            for _ in 0..5 {
                stage.replicas[replica].way.set(None, Mode::Reset);
                stage.sleep(1.0);
            }
            stage.replicas[replica].way.heal();
        },
    },
    &Fault {
        name: "way-half-open",
        what: "a replica's connections to Kafka are dead for ever, and nobody says so",
        sees: Sees::Nothing,
        metric: Metric::Grows("brucke_kafka_request_errors_total"),
        outage: Outage::Some,
        within: seconds(10),
        first_record: None,
        act: |stage, _| block(stage, None, Mode::HalfOpen, 5.0),
    },
    &Fault {
        name: "way-stalled",
        what: "nothing moves between a replica and Kafka for 8 s, and then it does",
        sees: Sees::Nothing,
        metric: Metric::Above("brucke_topics_failing", 0),
        outage: Outage::Some,
        within: seconds(10),
        first_record: None,
        act: |stage, _| block(stage, None, Mode::Stall, 8.0),
    },
    &Fault {
        name: "way-slow",
        what: "a replica gets 20 kB/s over each connection to Kafka for 10 s",
        sees: Sees::Nothing,
        metric: Metric::None,
        outage: Outage::Some,
        within: seconds(10),
        first_record: None,
        act: |stage, _| block(stage, None, Mode::Slow(20_000), 10.0),
    },
    &Fault {
        name: "live-reader-overtaken",
        what: "replicas can't reach Kafka while DeleteRecords removes what they would read next",
        sees: Sees::Gap(GapReason::Retention),
        metric: Metric::Grows("brucke_gaps_total{reason=\"retention\"}"),
        outage: Outage::Some,
        within: seconds(10),
        first_record: None,
        act: |stage, random| {
            stage.replicas.iter().for_each(|replica| replica.way.set(None, Mode::Cut));
            stage.loader.speed(FLEETING, 20);
            stage.sleep(2.0);
            stage.loader.speed(FLEETING, 1);
            for (p, (_, end)) in (0..).zip(stage.eye.insist(&stage.topics, FLEETING)) {
                let before = i64::try_from(end).expect("small") - random.i64(0..20);
                stage.cluster.admin().delete_records(PLANS[FLEETING].name, p, before);
            }
            stage.eye.insist(&stage.topics, FLEETING);
            stage.replicas.iter().for_each(|replica| replica.way.heal());
        },
    },
];

/// Does it to the way of a replica to a broker, or to all. One without clients follows
/// nothing, and would not feel it.
fn block(stage: &mut Stage, broker: Option<usize>, mode: Mode, seconds: f64) {
    let replica = stage.strike_one();
    stage.replicas[replica].way.set(broker, mode);
    stage.sleep(seconds);
    stage.replicas[replica].way.heal();
}
