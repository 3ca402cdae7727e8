//! Many seeds, on all cores.

use std::any::Any;
use std::env;
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use crate::ledger::Violation;
use crate::run::Outcome;
use crate::run::run;

/// Seeds that a run of the tests tries when nobody says how many.
const SEEDS: u64 = 2_000;

#[test]
fn no_seed_breaks_a_promise() {
    if let Some(seed) = number("SIM_SEED") {
        let prints = env::var_os("SIM_TRACE").is_some();
        let outcome =
            attempt(seed, prints).unwrap_or_else(|what| panic!("{}", report(seed, &what)));
        println!("seed {seed}: {outcome:?}");
        return;
    }
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS);
    let got = AtomicU64::new(0);
    let broken = Mutex::new(Vec::new());
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZeroUsize::get) {
            scope.spawn(|| {
                while let seed = next.fetch_add(1, Relaxed)
                    && seed < seeds
                {
                    match attempt(seed, false) {
                        Ok(outcome) => drop(got.fetch_add(outcome.got as u64, Relaxed)),
                        Err(what) => {
                            eprintln!("{}", report(seed, &what));
                            broken.lock().expect("nobody panics with it").push(seed);
                        }
                    }
                }
            });
        }
    });
    let mut broken = broken.into_inner().expect("nobody panicked with it");
    broken.sort_unstable();
    println!("{seeds} seeds, {} records delivered, broken: {broken:?}", got.into_inner());
    assert!(broken.is_empty(), "{} of {seeds} seeds broke a promise: {broken:?}", broken.len());
}

#[test]
fn a_seed_is_the_whole_history() {
    for seed in 0..20 {
        let sums = [(); 2].map(|()| attempt(seed, false).map(|outcome| outcome.sum));
        assert_eq!(sums[0], sums[1], "seed {seed} went two ways");
    }
}

/// Runs a seed; a panic is a broken promise too.
pub(crate) fn attempt(seed: u64, prints: bool) -> Result<Outcome, Violation> {
    catch_unwind(AssertUnwindSafe(|| run(seed, prints))).unwrap_or_else(|panic| Err(words(&*panic)))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("without words"))
}

fn report(seed: u64, what: &str) -> String {
    format!(
        "seed {seed}: {what}\n  replay: SIM_SEED={seed} SIM_TRACE=1 cargo test --test sim -- --nocapture"
    )
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}
