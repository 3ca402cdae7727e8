//! What befalls brokers.

use crate::fault::Fault;
use crate::fault::Metric;
use crate::fault::Outage;
use crate::fault::Sees;
use crate::fault::seconds;
use crate::plan::ORDERS;
use crate::plan::PLANS;
use crate::plan::PRICES;
use crate::stage::BROKERS;
use crate::stage::Stage;

pub const FAULTS: &[&Fault] = &[
    &Fault {
        name: "brokers-down-3",
        what: "all brokers are killed and come back after 3 s",
        sees: Sees::Nothing,
        metric: Metric::Grows("brucke_kafka_client_errors_total{error=\"all_brokers_down\"}"),
        outage: Outage::Some,
        within: seconds(10),
        first_record: None,
        act: |stage, _| all_down(stage, 3.0),
    },
    &Fault {
        name: "brokers-down-25",
        what: "all brokers are killed and come back after 25 s",
        sees: Sees::Nothing,
        metric: Metric::Meanwhile("`/readyz` answers 503"),
        outage: Outage::Some,
        within: seconds(10),
        first_record: Some(seconds(1)),
        act: |stage, _| all_down(stage, 25.0),
    },
    &Fault {
        name: "brokers-down-120",
        what: "all brokers are killed and come back after 120 s",
        sees: Sees::Nothing,
        metric: Metric::Meanwhile("`/readyz` answers 503"),
        outage: Outage::Some,
        within: seconds(10),
        first_record: None,
        act: |stage, _| all_down(stage, 120.0),
    },
    &Fault {
        name: "broker-lost-25",
        what: "the leader of a partition is killed and comes back after 25 s",
        sees: Sees::Nothing,
        metric: Metric::Grows("brucke_kafka_connects_total"),
        outage: Outage::None,
        within: seconds(10),
        first_record: None,
        act: |stage, random| {
            let leader = leader(stage, random);
            stage.cluster.kill(leader);
            stage.sleep(25.0);
            stage.cluster.restart(leader);
        },
    },
    &Fault {
        name: "broker-stopped",
        what: "the leader of a partition gets SIGSTOP, and SIGCONT after 20 s",
        sees: Sees::Nothing,
        metric: Metric::Grows("brucke_kafka_connects_total"),
        outage: Outage::None,
        within: seconds(10),
        first_record: None,
        act: |stage, random| {
            let leader = leader(stage, random);
            stage.cluster.signal(leader, libc::SIGSTOP);
            stage.sleep(20.0);
            stage.cluster.signal(leader, libc::SIGCONT);
        },
    },
    &Fault {
        name: "brokers-rolled",
        what: "each broker in turn gets SIGTERM, ends and starts again",
        sees: Sees::Nothing,
        metric: Metric::Grows("brucke_kafka_connects_total"),
        outage: Outage::None,
        within: seconds(10),
        first_record: None,
        act: |stage, _| {
            for broker in 0..BROKERS {
                stage.cluster.stop(broker);
                stage.cluster.restart(broker);
                stage.sleep(2.0);
            }
        },
    },
    &Fault {
        name: "brokers-moved",
        what: "all brokers are killed and come back at other addresses",
        sees: Sees::Nothing,
        metric: Metric::Grows("brucke_kafka_client_errors_total{error=\"all_brokers_down\"}"),
        outage: Outage::Some,
        within: seconds(10),
        first_record: None,
        act: |stage, _| {
            (0..BROKERS).for_each(|broker| stage.cluster.kill(broker));
            let runtime = stage.runtime.handle().clone();
            let ways = stage.replicas.iter_mut().map(|replica| &mut replica.way);
            let told: Vec<Vec<u16>> = ways.map(|way| way.move_house(&runtime)).collect();
            for broker in 0..BROKERS {
                let ports: Vec<u16> = told.iter().map(|ports| ports[broker]).collect();
                stage.cluster.move_detours(broker, &ports);
            }
            stage.sleep(3.0);
            come_back(stage);
        },
    },
    &Fault {
        name: "leaders-moved",
        what: "partitions under load are reassigned and get other leaders",
        sees: Sees::Nothing,
        metric: Metric::None,
        outage: Outage::None,
        within: seconds(10),
        first_record: None,
        act: |stage, _| move_leaders(stage),
    },
];

fn all_down(stage: &mut Stage, seconds: f64) {
    (0..BROKERS).for_each(|broker| stage.cluster.kill(broker));
    stage.sleep(seconds);
    if seconds > READINESS_KNOWS {
        for replica in &stage.replicas {
            if replica.readiness() != Some(503) {
                stage.notes.push(format!("/readyz says {:?}", replica.readiness()));
            }
        }
    }
    come_back(stage);
}

/// Starts all brokers again. The first of them takes records before the last one is
/// there, so that the watch for the first begins before.
pub fn come_back(stage: &mut Stage) {
    stage.watch();
    stage.cluster.restart_all(&(0..BROKERS).collect::<Vec<_>>());
}

/// Returns the broker that leads a partition under load.
pub fn leader(stage: &Stage, random: &mut fastrand::Rng) -> usize {
    let partition = random.i32(0..i32::try_from(PLANS[PRICES].partitions).expect("few"));
    let replicas = stage.eye.insist_replicas(PRICES, partition);
    usize::try_from(replicas[0]).expect("not negative") - 1
}

/// Gives the partitions under load other leaders.
pub fn move_leaders(stage: &mut Stage) {
    let leaders = |stage: &Stage| -> Vec<i32> {
        let of = |topic: usize| {
            let partitions = i32::try_from(PLANS[topic].partitions).expect("few");
            (0..partitions).map(move |p| stage.eye.insist_replicas(topic, p)[0])
        };
        of(PRICES).chain(of(ORDERS)).collect()
    };
    let before = leaders(stage);
    let mut all = Vec::new();
    for topic in [PRICES, ORDERS] {
        for p in 0..PLANS[topic].partitions {
            let partition = i32::try_from(p).expect("few");
            let mut replicas = stage.eye.insist_replicas(topic, partition);
            replicas.rotate_left(1);
            all.push(serde_json::json!({
                "topic": PLANS[topic].name, "partition": p, "replicas": replicas,
            }));
        }
    }
    let file = stage.folder.join("reassignment.json");
    let plan = serde_json::json!({ "version": 1, "partitions": all });
    std::fs::write(&file, plan.to_string()).expect("a file");
    let servers = stage.cluster.bootstrap_servers();
    let file = file.display().to_string();
    stage.cluster.tool(
        "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
        &["--bootstrap-server", &servers, "--reassignment-json-file", &file, "--execute"],
    );
    stage.cluster.tool(
        "org.apache.kafka.tools.LeaderElectionCommand",
        &["--bootstrap-server", &servers, "--election-type", "preferred", "--all-topic-partitions"],
    );
    stage.sleep(1.0);
    let after = leaders(stage);
    let moved = before.iter().zip(&after).filter(|(one, other)| one != other).count();
    if moved == 0 {
        stage.notes.push(format!("no leader moved: {before:?}"));
    }
}

/// After so many seconds without a broker, readiness must know.
const READINESS_KNOWS: f64 = 20.0;
