//! Three brokers, two replicas, a proxy on each way between the two and to clients,
//! and everything that can break. What clients got is judged from logs, by a crate that shares no
//! line with the server.
//!
//! The short mix is a test like any other. `make chaos` runs the long one,
//! `make chaos FAULT=name` one fault alone, and `make chaos-each` each alone, for
//! three seeds.
#![allow(unreachable_pub)]

mod client;
mod clock;
mod each;
mod fault;
mod faults;
mod journal;
mod observer;
mod order;
mod peak;
mod plan;
mod producers;
mod proxy;
mod replica;
mod row;
mod run;
mod stage;
#[path = "../support/mod.rs"]
mod support;
mod tally;
mod topics;
mod wire;

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use crate::order::Order;

#[test]
fn what_breaks_costs_no_record_and_no_order() {
    let order = Order::from_environment(48, &SHORT);
    match order.alone.is_empty() {
        true => run::play(&order),
        false => each::play(&order),
    }
}

/// The faults of the short mix.
const SHORT: [&str; 9] = [
    "brokers-down-3",
    "records-deleted",
    "replica-killed",
    "topic-again-more",
    "partitions-added",
    "transactions-mixed",
    "way-cut",
    "clients-reset",
    "replica-drained",
];

#[test]
fn every_fault_stands_in_the_document_as_it_is_run() {
    let faults = faults::all();
    let names: HashSet<_> = faults.iter().map(|fault| fault.name).collect();
    assert_eq!(names.len(), faults.len(), "each has a name of its own");
    assert!(SHORT.iter().all(|name| names.contains(name)));
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guarantees.md");
    let page = fs::read_to_string(page).expect("the document");
    let rows: Vec<String> = faults.iter().map(|fault| fault.row()).collect();
    let missing = rows.iter().filter(|row| !page.lines().any(|line| line == row.as_str()));
    assert_eq!(missing.count(), 0, "the table must read\n{}", rows.join("\n"));
    let table = page.lines().skip_while(|line| !line.starts_with("| fault |")).skip(2);
    let written = table.take_while(|line| line.starts_with('|'));
    let strange = written.filter(|line| !rows.iter().any(|row| row == line));
    assert_eq!(strange.collect::<Vec<_>>(), Vec::<&str>::new(), "rows that nothing runs");
}
