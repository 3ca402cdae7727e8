//! What befalls clients, and the ways from them to replicas.

use crate::client::Order;
use crate::fault::Fault;
use crate::fault::Metric;
use crate::fault::Outage;
use crate::fault::Sees;
use crate::fault::seconds;
use crate::plan::PRICES;
use crate::proxy::Mode;
use crate::proxy::Whose;
use crate::stage::Stage;

pub const FAULTS: &[&Fault] = &[
    &Fault {
        name: "clients-reset",
        what: "half of a replica's clients lose their connections, three times",
        sees: Sees::Cuts { one_in: 5 },
        metric: Metric::Grows("brucke_connections_opened_total"),
        outage: Outage::None,
        within: seconds(10),
        first_record: None,
        act: |stage, _| {
            let replica = stage.crowded();
            for _ in 0..3 {
                stage.replicas[replica].front.set(Mode::Reset, Whose::OneIn(2));
                stage.sleep(1.0);
            }
            stage.replicas[replica].front.heal();
        },
    },
    &Fault {
        name: "clients-cut",
        what: "nobody reaches any replica for 3 s",
        sees: Sees::Cuts { one_in: 2 },
        metric: Metric::Grows("brucke_connections_opened_total"),
        outage: Outage::Some,
        within: seconds(10),
        first_record: None,
        act: |stage, _| {
            stage.replicas.iter().for_each(|r| r.front.set(Mode::Cut, Whose::All));
            stage.sleep(3.0);
            stage.replicas.iter().for_each(|r| r.front.heal());
        },
    },
    &Fault {
        name: "clients-half-open",
        what: "a third of a replica's connections is dead for ever, and nobody says so",
        sees: Sees::Cuts { one_in: 10 },
        metric: Metric::Grows("brucke_connections_opened_total"),
        outage: Outage::Some,
        within: seconds(10),
        first_record: None,
        act: |stage, _| hold(stage, Mode::HalfOpen, 6.0),
    },
    &Fault {
        name: "clients-held",
        what: "nothing moves between a third of the clients and a replica for 3 s",
        sees: Sees::Nothing,
        metric: Metric::None,
        outage: Outage::Some,
        within: seconds(10),
        first_record: None,
        act: |stage, _| hold(stage, Mode::Stall, 3.0),
    },
    &Fault {
        name: "clients-stalled",
        what: "one in five clients reads nothing for 10 s while ten times the load flows",
        sees: Sees::Nothing,
        metric: Metric::Grows("brucke_fell_behind_total"),
        outage: Outage::None,
        within: seconds(10),
        first_record: None,
        act: |stage, _| {
            stage.tell(Some(PRICES), 5, Order::ReadNothing);
            stage.loader.speed(PRICES, 10);
            stage.sleep(10.0);
            stage.loader.speed(PRICES, 1);
            stage.tell(Some(PRICES), 5, Order::Follow);
        },
    },
    &Fault {
        name: "clients-slow",
        what: "one in four clients reads ten frames a second while ten times the load flows",
        sees: Sees::Nothing,
        metric: Metric::Grows("brucke_fell_behind_total"),
        outage: Outage::None,
        within: seconds(10),
        first_record: None,
        act: |stage, _| {
            stage.tell(Some(PRICES), 4, Order::ReadSlowly(10));
            stage.loader.speed(PRICES, 10);
            stage.sleep(6.0);
            stage.loader.speed(PRICES, 1);
            stage.tell(Some(PRICES), 4, Order::Follow);
        },
    },
    &Fault {
        name: "clients-stuck",
        what: "one in ten clients reads nothing for longer than a stuck reader may",
        sees: Sees::Cuts { one_in: 100 },
        metric: Metric::Grows("brucke_closes_total{code=\"stuck_reader\"}"),
        outage: Outage::None,
        // Who was not cut off waits for its peer's system, gives up after 13 s and
        // comes back.
        within: seconds(20),
        first_record: None,
        act: |stage, _| {
            stage.tell(Some(PRICES), 10, Order::ReadNothing);
            stage.loader.speed(PRICES, 10);
            stage.sleep(15.0);
            stage.loader.speed(PRICES, 1);
            stage.sleep(27.0);
            stage.tell(Some(PRICES), 10, Order::Follow);
        },
    },
    &Fault {
        name: "clients-away",
        what: "half of all clients are away for 12 s and come back at once",
        sees: Sees::Nothing,
        metric: Metric::Grows("brucke_became_live_total"),
        outage: Outage::None,
        within: seconds(10),
        first_record: None,
        act: |stage, _| {
            stage.tell(None, 2, Order::BeAway);
            stage.sleep(12.0);
            stage.tell(None, 2, Order::Follow);
        },
    },
];

fn hold(stage: &mut Stage, mode: Mode, seconds: f64) {
    let replica = stage.strike_one();
    stage.replicas[replica].front.set(mode, Whose::OneIn(3));
    stage.sleep(seconds);
    stage.replicas[replica].front.heal();
}
