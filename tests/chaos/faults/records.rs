//! What producers may do to a topic.

use std::time::Instant;

use brucke_checker::line::Tenant;
use brucke_checker::line::TransactionEnd;
use brucke_checker::line::TruthLine;

use crate::fault::Fault;
use crate::fault::Metric;
use crate::fault::Outage;
use crate::fault::Sees;
use crate::fault::seconds;
use crate::fault::value;
use crate::plan;
use crate::plan::Draft;
use crate::plan::ORDERS;
use crate::plan::PAYMENTS;
use crate::plan::PLANS;
use crate::plan::PRICES;
use crate::producers::Pen;
use crate::stage::Stage;

pub const FAULTS: &[&Fault] = &[
    &Fault {
        name: "transaction-open",
        what: "a transaction stays open for 6 s and is then committed",
        sees: Sees::Nothing,
        metric: Metric::Meanwhile("`brucke_channel_deliveries_total` of the channel stands still"),
        outage: Outage::None,
        within: seconds(10),
        first_record: None,
        act: |stage, random| hold_open(stage, random, TransactionEnd::Committed),
    },
    &Fault {
        name: "transaction-open-aborted",
        what: "a transaction stays open for 6 s and is then aborted",
        sees: Sees::Nothing,
        metric: Metric::Meanwhile("`brucke_channel_deliveries_total` of the channel stands still"),
        outage: Outage::None,
        within: seconds(10),
        first_record: None,
        act: |stage, random| hold_open(stage, random, TransactionEnd::Aborted),
    },
    &Fault {
        name: "transactions-mixed",
        what: "ten transactions follow each other, half of them aborted",
        sees: Sees::Nothing,
        metric: Metric::None,
        outage: Outage::None,
        within: seconds(10),
        first_record: None,
        act: |stage, random| {
            let ends = [TransactionEnd::Committed, TransactionEnd::Aborted].repeat(5);
            transact(stage, random, &ends, |stage| stage.sleep(0.1));
        },
    },
    &Fault {
        name: "record-oversized",
        what: "records of 3 and of 6 MB stand between small ones",
        sees: Sees::Nothing,
        metric: Metric::Grows("brucke_fell_behind_total"),
        outage: Outage::None,
        within: seconds(10),
        first_record: None,
        act: |stage, random| {
            let pen = pen(stage);
            let id = stage.topics.id(PAYMENTS).expect("it is there");
            for pad in [3_000_000, 10, 6_000_000] {
                let number = stage.loader.next_number(PAYMENTS);
                let draft = plan::draft(PAYMENTS, PLANS[PAYMENTS].partitions, number, pad, random);
                pen.write(PAYMENTS, &id, &draft, None);
            }
            pen.drain();
        },
    },
    &Fault {
        name: "record-unreadable",
        what: "records without tenant, without key, with keys and values that are no text",
        sees: Sees::Nothing,
        metric: Metric::Grows("brucke_kafka_records_without_tenant_total"),
        outage: Outage::None,
        within: seconds(10),
        first_record: None,
        act: |stage, random| {
            let pen = pen(stage);
            let id = stage.topics.id(ORDERS).expect("it is there");
            for draft in odd_drafts(stage, random) {
                pen.write(ORDERS, &id, &draft, None);
            }
            pen.drain();
        },
    },
    &Fault {
        name: "tenant-burst",
        what: "one tenant gets ten times as many records as all others, for 6 s",
        sees: Sees::Nothing,
        metric: Metric::Meanwhile(
            "`brucke_channel_deliveries_total` of the channel grows at more than twice its rate, that of another at more than half",
        ),
        outage: Outage::None,
        within: seconds(10),
        first_record: None,
        act: |stage, random| favour(stage, random),
    },
];

fn pen(stage: &Stage) -> Pen {
    Pen::new(&stage.cluster.bootstrap_servers(), &stage.acks)
}

/// Returns how many records of a topic went to clients.
fn deliveries(stage: &Stage, topic: usize) -> f64 {
    let name = PLANS[topic].name;
    let series = format!("brucke_channel_deliveries_total{{channel=\"{name}\"}}");
    value(&stage.metrics(), &series)
}

/// Lets a transaction stay open in all partitions, for 6 s. Nothing behind it comes.
fn hold_open(stage: &mut Stage, random: &mut fastrand::Rng, end: TransactionEnd) {
    let before = deliveries(stage, PAYMENTS);
    stage.sleep(2.0);
    if deliveries(stage, PAYMENTS) == before {
        stage.notes.push(format!("{before} deliveries before the transaction, and no more"));
    }
    transact(stage, random, &[end], |stage| {
        // Until what stands before it is delivered and counted.
        stage.sleep(2.5);
        let before = deliveries(stage, PAYMENTS);
        stage.sleep(3.5);
        let after = deliveries(stage, PAYMENTS);
        if after > before {
            stage.notes.push(format!("{before} deliveries, then {after}, while it was open"));
        }
    });
}

/// Gives one tenant a multiple of what all get. Who follows another topic goes on.
fn favour(stage: &mut Stage, random: &mut fastrand::Rng) {
    let count =
        |stage: &Stage| (Instant::now(), [deliveries(stage, ORDERS), deliveries(stage, PRICES)]);
    let quiet = count(stage);
    stage.sleep(3.0);
    let before = count(stage);
    let pen = pen(stage);
    let id = stage.topics.id(ORDERS).expect("it is there");
    for _ in 0..60 {
        for _ in 0..PLANS[ORDERS].rate {
            let number = stage.loader.next_number(ORDERS);
            let mut draft = plan::draft(ORDERS, PLANS[ORDERS].partitions, number, 40, random);
            draft.tenant = Tenant::One("acme".to_owned());
            draft.header = Some("acme");
            pen.write(ORDERS, &id, &draft, None);
        }
        stage.sleep(0.1);
    }
    pen.drain();
    let after = count(stage);
    let rate = |(from, less): (Instant, [f64; 2]), (to, more): (Instant, [f64; 2]), of: usize| {
        (more[of] - less[of]) / (to - from).as_secs_f64()
    };
    for (of, (topic, least)) in [(ORDERS, 2.0), (PRICES, 0.5)].into_iter().enumerate() {
        let (usual, now) = (rate(quiet, before, of), rate(before, after, of));
        if now <= least * usual {
            let name = PLANS[topic].name;
            stage.notes.push(format!("{name}: {now:.0} deliveries a second, before {usual:.0}"));
        }
    }
}

fn transact(
    stage: &mut Stage,
    random: &mut fastrand::Rng,
    ends: &[TransactionEnd],
    while_open: fn(&mut Stage),
) {
    let name = format!("chaos-{}", stage.clock.now());
    let pen = Pen::transactional(&stage.cluster.bootstrap_servers(), &stage.acks, &name);
    let id = stage.topics.id(PAYMENTS).expect("it is there");
    for how in ends {
        let tx = stage.clock.now();
        pen.begin();
        for _ in 0..20 {
            let number = stage.loader.next_number(PAYMENTS);
            let draft = plan::draft(PAYMENTS, PLANS[PAYMENTS].partitions, number, 10, random);
            pen.write(PAYMENTS, &id, &draft, Some(tx));
        }
        pen.drain();
        while_open(stage);
        match how {
            TransactionEnd::Committed => pen.commit(),
            TransactionEnd::Aborted => pen.abort(),
        }
        stage.truth.write(&TruthLine::Ended { tx, how: *how });
    }
}

/// Returns records of which each is odd in a way of its own.
fn odd_drafts(stage: &Stage, random: &mut fastrand::Rng) -> Vec<Draft> {
    let mut usual = || {
        let number = stage.loader.next_number(ORDERS);
        plan::draft(ORDERS, PLANS[ORDERS].partitions, number, 10, random)
    };
    let nobodys = Draft { tenant: Tenant::Nobody, header: None, ..usual() };
    let bytes = |bytes: &[u8]| Some(bytes.to_vec());
    vec![
        Draft { tenant: Tenant::Nobody, header: Some(""), ..usual() },
        Draft { value: None, ..nobodys },
        Draft { kafka_key: None, key: None, ..usual() },
        Draft { kafka_key: bytes(b"\xff\xfe"), key: Some("base64://4=".to_owned()), ..usual() },
        Draft { kafka_key: bytes(b""), key: Some(String::new()), ..usual() },
        Draft { value: None, ..usual() },
        Draft { value: bytes(b""), ..usual() },
        Draft { value: bytes(b"\xc3\x28 no text"), ..usual() },
        Draft { value: bytes(b"{\"half\":"), ..usual() },
        Draft { value: bytes(b"null"), ..usual() },
        Draft { value: bytes("[\"\u{2028}\\u0000\", 1e400]".as_bytes()), ..usual() },
        usual(),
    ]
}
