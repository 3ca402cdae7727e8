//! Each fault alone, on a fresh stage for each seed.

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::time::Duration;

use crate::order::Order;
use crate::order::names;
use crate::row;
use crate::row::Row;
use crate::run;

/// Plays each fault alone with each seed, and prints a table of all. Panics at the
/// first that is not as expected, and says which.
pub fn play(order: &Order) {
    let names: Vec<&str> = match order.faults.is_empty() {
        true => names(),
        // Which also says where there is none of a name, before anything is played.
        false => order.schedule(&mut fastrand::Rng::new()).iter().map(|f| f.name).collect(),
    };
    let mut done = Done::default();
    for name in names {
        let begun = done.rows.len();
        for &seed in &order.alone {
            let faults = vec![name.to_owned()];
            let alone = Order { seed, faults, length: Duration::ZERO, ..order.clone() };
            done.play(&alone, name);
        }
        let late = row::judge_medians(&done.rows[begun..]);
        assert!(late.is_empty(), "{}\n{}", done.table(), late.join("\n"));
    }
    println!("{}", done.table());
}

/// What was played so far.
#[derive(Default)]
struct Done {
    rows: Vec<Row>,
    seeds: Vec<u64>,
    deliveries: u64,
}

impl Done {
    fn play(&mut self, alone: &Order, name: &str) {
        let seed = alone.seed;
        let Ok(outcome) = catch_unwind(AssertUnwindSafe(|| run::run(alone))) else {
            panic!("{}\n{name}, seed {seed}: the stage broke; it says why above", self.table());
        };
        let is_clean = outcome.is_clean();
        let report = row::report(alone, &outcome.rows, &outcome.verdict, outcome.elapsed);
        self.deliveries += outcome.verdict.deliveries;
        self.seeds.extend(outcome.rows.iter().map(|_| seed));
        self.rows.extend(outcome.rows);
        if !is_clean {
            panic!(
                "{}\n{report}\n{name} alone, with seed {seed}, is not as expected, and nothing \
                 after it was tried:\n{}\nreplay: {}\nlogs: {}",
                self.table(),
                outcome.faults.join("\n"),
                alone.command(),
                alone.folder.display(),
            );
        }
    }

    fn table(&self) -> String {
        let lines = self.seeds.iter().zip(&self.rows);
        let lines: Vec<_> = lines.map(|(seed, row)| format!("{seed:>4}  {}", row.line())).collect();
        format!(
            "\nseed  {}\n{}\n{} runs, {} deliveries checked",
            row::head(),
            lines.join("\n"),
            lines.len(),
            self.deliveries,
        )
    }
}
