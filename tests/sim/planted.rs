//! Whether the simulation finds what is wrong: each planted defect must break a
//! promise under some seed, and soon.

use std::panic;
use std::thread;

use brucke::types::sabotage::Defect;

use crate::seeds::attempt;

#[test]
fn each_planted_defect_is_found() {
    // A defect may well run into an assertion of the core's: that finds it too,
    // and need not fill the page.
    panic::set_hook(Box::new(|_| {}));
    let missed: Vec<Defect> = Defect::ALL.into_iter().filter(|defect| !is_found(*defect)).collect();
    drop(panic::take_hook());
    assert!(missed.is_empty(), "no seed below {SEEDS_MAX} finds {missed:?}");
}

fn is_found(defect: Defect) -> bool {
    // A thread of its own: a defect is planted in one thread.
    let search = move || {
        defect.plant();
        (0..SEEDS_MAX).find_map(|seed| attempt(seed, false).err().map(|what| (seed, what)))
    };
    let found = thread::spawn(search).join().expect("a run that panics is told as broken");
    let Some((seed, what)) = found else {
        println!("{defect:?}: not found");
        return false;
    };
    println!("{defect:?}: seed {seed}: {what}");
    let own = thread::spawn(move || attempt(seed, false)).join().expect("told as broken");
    assert!(own.is_ok(), "seed {seed} breaks a promise without any planted defect: {own:?}");
    true
}

/// Seeds that are tried; a run of the tests tries more than that without a defect.
const SEEDS_MAX: u64 = 3_000;
