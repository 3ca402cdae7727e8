//! Each fault by itself for several seeds: one after the other on one stage for each
//! seed, or each on a stage of its own.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::time::Duration;

use crate::order::Order;
use crate::row;
use crate::row::Row;
use crate::run;

/// Plays each fault with each seed, and prints a table of all. Panics at the end
/// where anything was not as expected, and says what.
pub fn play(order: &Order) {
    let mut done = Done::default();
    for part in parts(order) {
        done.play(&part);
    }
    done.failures.extend(row::judge_medians(&done.rows));
    println!("{}", done.table());
    assert!(done.failures.is_empty(), "not as expected:\n{}", done.failures.join("\n"));
}

/// Returns what is to be played, each on a stage of its own.
fn parts(order: &Order) -> Vec<Order> {
    let mut parts = Vec::new();
    for &seed in &order.alone {
        let schedule = order.schedule(&mut fastrand::Rng::with_seed(seed));
        let names: Vec<_> = schedule.iter().map(|fault| fault.name.to_owned()).collect();
        let at_once = if order.fresh { 1 } else { names.len() };
        parts.extend(names.chunks(at_once).enumerate().map(|(index, faults)| Order {
            seed,
            faults: faults.to_vec(),
            length: Duration::ZERO,
            folder: order.folder.join(format!("seed-{seed}-{index}-{}", faults[0])),
            ..order.clone()
        }));
    }
    parts
}

/// What was played so far.
#[derive(Default)]
struct Done {
    rows: Vec<Row>,
    seeds: Vec<u64>,
    deliveries: u64,
    failures: Vec<String>,
}

impl Done {
    fn play(&mut self, part: &Order) {
        let (seed, command) = (part.seed, part.command());
        let Ok(outcome) = catch_unwind(AssertUnwindSafe(|| run::run(part))) else {
            self.failures.push(format!("the stage broke; it says why above\nreplay: {command}"));
            return;
        };
        println!("{}", row::report(part, &outcome.rows, &outcome.verdict, outcome.elapsed));
        if !outcome.is_clean() {
            let (folder, faults) = (part.folder.display(), outcome.faults.join("\n"));
            self.failures.push(format!("{faults}\nreplay: {command}\nlogs: {folder}"));
        }
        self.deliveries += outcome.verdict.deliveries;
        self.seeds.extend(outcome.rows.iter().map(|_| seed));
        self.rows.extend(outcome.rows);
    }

    fn table(&self) -> String {
        let mut lines: Vec<_> = self.seeds.iter().zip(&self.rows).collect();
        lines.sort_by_key(|(seed, row)| (row.fault.name, **seed));
        let lines = lines.iter().map(|(seed, row)| format!("{seed:>4}  {}", row.line()));
        let lines: Vec<_> = lines.collect();
        format!(
            "\nseed  {}\n{}\n{} runs, {} deliveries checked",
            row::head(),
            lines.join("\n"),
            lines.len(),
            self.deliveries,
        )
    }
}
