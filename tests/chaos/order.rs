//! What a run is: which faults, for how long, by which seed.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use crate::fault::Fault;
use crate::faults;

/// What a run is, by the environment.
#[derive(Debug, Clone)]
pub struct Order {
    pub seed: u64,
    pub clients: usize,
    /// For how long faults follow each other.
    pub length: Duration,
    /// The only faults, in this order; without any, all in the seed's order.
    pub faults: Vec<String>,
    /// Seeds with each of which every fault is run once, by itself; without any, it is
    /// a mix by `seed`.
    pub alone: Vec<u64>,
    /// Whether each of those has a stage of its own, not each seed.
    pub fresh: bool,
    pub folder: PathBuf,
}

impl Order {
    /// Reads `CHAOS_SEED`, `CHAOS_CLIENTS`, `CHAOS_SECONDS`, `CHAOS_FAULT`,
    /// `CHAOS_EACH`, which holds seeds, and `CHAOS_FRESH`. Where none says what to break
    /// or for how long, it is `faults`, once.
    pub fn from_environment(clients: usize, faults: &[&str]) -> Self {
        let number = |name: &str, default: u64| {
            variable(name).map_or(default, |text| number_in(name, &text))
        };
        let (length, each) = (number("CHAOS_SECONDS", 0), variable("CHAOS_EACH"));
        let usual = match length == 0 && each.is_none() {
            true => faults.join(","),
            false => String::new(),
        };
        let names = variable("CHAOS_FAULT").unwrap_or(usual);
        let names = words(&names).map(str::to_owned);
        let seeds = each.unwrap_or_default();
        let seeds = words(&seeds).map(|seed| number_in("CHAOS_EACH", seed));
        let folder = env::var_os("CHAOS_FOLDER").map(PathBuf::from);
        Self {
            seed: number("CHAOS_SEED", 1),
            clients: usize::try_from(number("CHAOS_CLIENTS", clients as u64)).expect("few"),
            length: Duration::from_secs(length),
            faults: names.collect(),
            alone: seeds.collect(),
            fresh: variable("CHAOS_FRESH").is_some(),
            folder: folder.unwrap_or_else(|| {
                env::temp_dir().join(format!("brucke-chaos-{}", std::process::id()))
            }),
        }
    }

    /// Returns the faults in the order in which they are to come.
    pub fn schedule(&self, random: &mut fastrand::Rng) -> Vec<&'static Fault> {
        let all = faults::all();
        if self.faults.is_empty() {
            let mut all = all;
            random.shuffle(&mut all);
            return all;
        }
        let find = |name: &String| {
            let found = all.iter().find(|fault| fault.name == name.as_str());
            *found.unwrap_or_else(|| panic!("no fault is named {name}: {:?}", names()))
        };
        self.faults.iter().map(find).collect()
    }

    /// Returns the command that does the same again.
    pub fn command(&self) -> String {
        let Self { seed, clients, .. } = self;
        let (names, minutes) = (self.faults.join(","), self.length.as_secs().div_ceil(60));
        match self.faults.is_empty() {
            true => format!("CHAOS_CLIENTS={clients} make chaos MINUTES={minutes} SEED={seed}"),
            false => format!("CHAOS_CLIENTS={clients} make chaos SEED={seed} FAULT={names}"),
        }
    }

    /// Says whether it is the long mix of all, which has to come to large numbers.
    pub fn is_long_mix(&self) -> bool {
        self.faults.is_empty() && self.length >= LONG
    }
}

/// Returns the names of all faults.
pub fn names() -> Vec<&'static str> {
    faults::all().iter().map(|fault| fault.name).collect()
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|text| !text.is_empty())
}

fn number_in(name: &str, text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{name}: {text} is no number"))
}

/// Returns what stands between commas and spaces.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' ']).filter(|word| !word.is_empty())
}

/// From this length on a mix is long.
const LONG: Duration = Duration::from_secs(1_200);

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(seed: u64) -> Vec<&'static str> {
        let order = Order {
            seed,
            clients: 0,
            length: Duration::ZERO,
            faults: Vec::new(),
            alone: Vec::new(),
            fresh: false,
            folder: PathBuf::new(),
        };
        let faults = order.schedule(&mut fastrand::Rng::with_seed(seed));
        faults.iter().map(|fault| fault.name).collect()
    }

    #[test]
    fn a_seed_is_a_schedule_of_all_faults() {
        assert_eq!(schedule(1), schedule(1));
        assert_ne!(schedule(1), schedule(2));
        let sorted = |mut names: Vec<&'static str>| {
            names.sort_unstable();
            names
        };
        assert_eq!(sorted(schedule(1)), sorted(names()));
    }
}
