//! Too little memory for the newest records.

use std::time::Duration;
use std::time::Instant;

use crate::fault::Fault;
use crate::fault::Metric;
use crate::fault::Outage;
use crate::fault::Sees;
use crate::fault::seconds;
use crate::fault::value;
use crate::plan;
use crate::plan::ORDERS;
use crate::plan::PLANS;
use crate::producers::Pen;
use crate::stage::REPLICAS;
use crate::stage::Stage;

pub const FAULTS: &[&Fault] = &[&Fault {
    name: "memory-tight",
    what: "replicas start anew with 1 MiB for tails, large records overtake who follows, and replicas start anew as before",
    // For the starts: the burst itself costs none.
    sees: Sees::Cuts { one_in: 2 },
    metric: Metric::Meanwhile("`brucke_kafka_history_bytes_total` grows"),
    outage: Outage::Some,
    within: seconds(10),
    first_record: None,
    act: |stage, random| overtake(stage, random),
}];

fn overtake(stage: &mut Stage, random: &mut fastrand::Rng) {
    start_anew(stage, &[(TAIL_KEY, TAIL)]);
    wait_until_live(stage);
    let before = (stage.tally.snapshot(), stage.metrics());
    let limits = value(&before.1, "brucke_tail_limit_bytes");
    if limits != (REPLICAS << 20) as f64 {
        stage.notes.push(format!("{REPLICAS} replicas have {limits} bytes for tails"));
    }
    burst(stage, random);
    if let Err(text) = stage.catch_up(CAUGHT_UP_MAX) {
        stage.notes.push(format!("{CAUGHT_UP_MAX:?} after the burst: {text}"));
    }
    // Workers tell their counts once a second.
    stage.sleep(1.5);
    let after = (stage.tally.snapshot(), stage.metrics());
    // On the connections that there were: who comes back reads history anyway.
    let (was, is) = (value(&before.1, HISTORY), value(&after.1, HISTORY));
    if is <= was {
        stage.notes.push(format!("{HISTORY} was {was} and is {is}: nobody was overtaken"));
    }
    let cuts = after.0.disconnects - before.0.disconnects;
    if cuts > 0 {
        stage.notes.push(format!("the burst itself cost {cuts} connections"));
    }
    start_anew(stage, &[]);
}

/// Starts all replicas anew with these variables and no others.
fn start_anew(stage: &mut Stage, variables: &[(&str, &str)]) {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    stage.replicas.iter_mut().for_each(|replica| replica.process.kill());
    for replica in &mut stage.replicas {
        replica.process.set_environment(variables.iter().map(own).collect());
        replica.process.restart();
    }
}

/// Waits until all clients are back and behind no more: those who come back read
/// history, whatever memory there is.
fn wait_until_live(stage: &mut Stage) {
    let deadline = Instant::now() + LIVE_MAX;
    let all = stage.clients.len() as f64;
    loop {
        let metrics = stage.metrics();
        let there = value(&metrics, "brucke_subscriptions");
        let behind = value(&metrics, "brucke_subscriptions_behind");
        if there >= all && behind == 0.0 {
            return;
        }
        if Instant::now() > deadline {
            stage.notes.push(format!("of {all} clients {there} are back, {behind} behind"));
            return;
        }
        stage.sleep(0.5);
    }
}

/// Writes many times what tails may hold, at once, more than once.
fn burst(stage: &Stage, random: &mut fastrand::Rng) {
    let pen = Pen::new(&stage.cluster.bootstrap_servers(), &stage.acks);
    let id = stage.topics.id(ORDERS).expect("it is there");
    for _ in 0..BURSTS {
        for _ in 0..BURST_RECORDS {
            let number = stage.loader.next_number(ORDERS);
            let draft = plan::draft(ORDERS, PLANS[ORDERS].partitions, number, PAD, random);
            pen.write(ORDERS, &id, &draft, None);
        }
        pen.drain();
        stage.sleep(1.0);
    }
}

const HISTORY: &str = "brucke_kafka_history_bytes_total";
const TAIL_KEY: &str = "BRUCKE_KAFKA_TAIL_BYTES_MAX";
/// The least that the configuration takes.
const TAIL: &str = "1MiB";
const BURSTS: usize = 3;
const BURST_RECORDS: usize = 400;
/// Bytes of each record of a burst.
const PAD: usize = 20_000;
/// How long until who was overtaken has all.
const CAUGHT_UP_MAX: Duration = Duration::from_secs(10);
/// How long clients may take to come back to replicas that were started anew.
const LIVE_MAX: Duration = Duration::from_secs(20);
