//! Two things that break at once.

use crate::fault::Fault;
use crate::fault::Metric;
use crate::fault::Outage;
use crate::fault::Sees;
use crate::fault::seconds;
use crate::faults::brokers;
use crate::faults::replicas;
use crate::plan::PRICES;
use crate::proxy::Mode;
use crate::proxy::Whose;
use crate::stage::BROKERS;
use crate::stage::Stage;

pub const FAULTS: &[&Fault] = &[
    &Fault {
        name: "replica-killed-with-brokers",
        what: "while all brokers are away, a replica gets SIGKILL and starts again",
        sees: Sees::Cuts { one_in: 3 },
        metric: Metric::Grows("process_start_time_seconds"),
        outage: Outage::Some,
        within: seconds(10),
        first_record: None,
        act: |stage, _| {
            (0..BROKERS).for_each(|broker| stage.cluster.kill(broker));
            stage.sleep(1.0);
            let replica = stage.crowded();
            replicas::kill(stage, replica);
            stage.sleep(1.0);
            brokers::come_back(stage);
        },
    },
    &Fault {
        name: "clients-reset-as-leaders-move",
        what: "half of a replica's clients lose their connections before and after partitions get other leaders",
        sees: Sees::Cuts { one_in: 5 },
        metric: Metric::Grows("brucke_connections_opened_total"),
        outage: Outage::None,
        within: seconds(10),
        first_record: None,
        act: |stage, _| {
            reset(stage);
            brokers::move_leaders(stage);
            reset(stage);
        },
    },
    &Fault {
        name: "replica-drained-under-load",
        what: "a replica gets SIGTERM and drains while ten times the load flows, and starts again",
        sees: Sees::Close { code: 1012, one_in: 3 },
        metric: Metric::Above("brucke_draining", 0),
        outage: Outage::Some,
        within: seconds(10),
        first_record: None,
        act: |stage, _| {
            stage.loader.speed(PRICES, 10);
            stage.sleep(1.0);
            replicas::drain(stage);
            stage.sleep(1.0);
            stage.loader.speed(PRICES, 1);
        },
    },
];

fn reset(stage: &mut Stage) {
    let replica = stage.crowded();
    stage.replicas[replica].front.set(Mode::Reset, Whose::OneIn(2));
    stage.sleep(0.5);
    stage.replicas[replica].front.heal();
}
