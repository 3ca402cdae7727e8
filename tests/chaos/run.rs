//! One fault, or a mix of them, and the table of what came of it.

use std::env;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use brucke_checker::follower::Limits;
use brucke_checker::judge::judge;
use brucke_checker::verdict::Verdict;

use crate::fault::Fault;
use crate::fault::Outage;
use crate::faults;
use crate::replica::Metrics;
use crate::stage::Stage;

/// What a run is, by the environment.
#[derive(Debug)]
pub struct Order {
    pub seed: u64,
    pub clients: usize,
    /// For how long faults follow each other.
    pub length: Duration,
    /// The only faults, in this order; without any, all in the seed's order.
    pub faults: Vec<String>,
    pub folder: PathBuf,
}

/// What came of one fault.
struct Row {
    name: &'static str,
    lasted: Duration,
    /// From the first acknowledgement after it was mended to the first record
    /// at a client.
    first_record: Option<Duration>,
    caught_up: Result<Duration, String>,
    deliveries: u64,
    gaps: u64,
    cuts: u64,
    /// Partitions that a replica began to read through another client.
    stalls: u64,
    ended: Ended,
    faults: Vec<String>,
}

/// Whether a fault could be brought about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Done,
    /// The cluster is in no state to go on with.
    StageFailed,
}

impl Order {
    /// Reads `CHAOS_SEED`, `CHAOS_CLIENTS`, `CHAOS_SECONDS` and `CHAOS_FAULT`.
    /// Where none says what to break or for how long, it is `faults`, once.
    pub fn from_environment(clients: usize, faults: &[&str]) -> Self {
        let number = |name: &str, default: u64| {
            let text = env::var(name).ok().filter(|text| !text.is_empty());
            text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
        };
        let named = env::var("CHAOS_FAULT").ok().filter(|names| !names.is_empty());
        let is_long = number("CHAOS_SECONDS", 0) > 0;
        let usual = if is_long { String::new() } else { faults.join(",") };
        let names = named.unwrap_or(usual);
        let names = names.split(',').filter(|name| !name.is_empty()).map(str::to_owned);
        let folder = env::var_os("CHAOS_FOLDER").map(PathBuf::from);
        Self {
            seed: number("CHAOS_SEED", 1),
            clients: usize::try_from(number("CHAOS_CLIENTS", clients as u64)).expect("few"),
            length: Duration::from_secs(number("CHAOS_SECONDS", 0)),
            faults: names.collect(),
            folder: folder.unwrap_or_else(|| {
                env::temp_dir().join(format!("brucke-chaos-{}", std::process::id()))
            }),
        }
    }

    fn schedule(&self, random: &mut fastrand::Rng) -> Vec<&'static Fault> {
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
}

/// Returns the names of all faults.
pub fn names() -> Vec<&'static str> {
    faults::all().iter().map(|fault| fault.name).collect()
}

/// Plays what is ordered and prints the report. Panics where anything is not as
/// it must be.
pub fn play(order: &Order) {
    let began = Instant::now();
    let mut random = fastrand::Rng::with_seed(order.seed);
    let mut stage = Stage::set_up(&order.folder, order.clients, order.seed);
    let mut rows = Vec::new();
    let mut faults = Vec::new();
    match stage.catch_up(WARM_UP_MAX) {
        Ok(_) => stage.sleep(WARM_UP),
        Err(text) => faults.push(format!("before the first fault: {text}")),
    }
    let schedule = order.schedule(&mut random);
    let started = Instant::now();
    for (turn, fault) in schedule.iter().cycle().enumerate() {
        let all_done = turn >= schedule.len();
        let late = started.elapsed() >= order.length;
        if late && (all_done || order.faults.is_empty()) {
            break;
        }
        let row = perform(&mut stage, fault, &mut random);
        println!("{:>5.0} s  {}", started.elapsed().as_secs_f64(), row.line());
        faults.extend(row.faults.iter().cloned());
        let ended = row.ended;
        rows.push(row);
        if ended == Ended::StageFailed {
            break;
        }
    }
    let tally = std::sync::Arc::clone(&stage.tally);
    let logs: Vec<String> = stage.replicas.iter().map(|r| r.process.log()).collect();
    if let Err(text) = stage.strike() {
        faults.push(format!("at the end: {text}"));
    }
    faults.extend(tally.complaints().into_iter().take(20));
    let verdict = judge(&order.folder, Limits::default()).expect("the logs are readable");
    println!("{}", report(order, &rows, &verdict, began.elapsed()));
    let clean = faults.is_empty() && verdict.findings.are_clean();
    if clean {
        let _ = std::fs::remove_dir_all(&order.folder);
        return;
    }
    for (number, log) in logs.iter().enumerate() {
        let _ = std::fs::write(order.folder.join(format!("replica-{number}.log")), log);
    }
    let minutes = order.length.as_secs().div_ceil(60);
    let (seed, names) = (order.seed, order.faults.join(","));
    let replay = match order.faults.is_empty() {
        true => format!("make chaos MINUTES={minutes} SEED={seed}"),
        false => format!("make chaos SEED={seed} FAULT={names}"),
    };
    panic!("{}\nreplay: {replay}\nlogs: {}", faults.join("\n"), order.folder.display());
}

fn perform(stage: &mut Stage, fault: &'static Fault, random: &mut fastrand::Rng) -> Row {
    let before = (stage.tally.snapshot(), stage.metrics());
    let from = stage.clock.now();
    // Whatever the stage could not do, what was seen until then is judged.
    let acted = catch_unwind(AssertUnwindSafe(|| (fault.act)(stage, random)));
    let to = stage.clock.now();
    if fault.outage == Outage::Some {
        stage.excuse(from, to, fault.name);
    }
    stage.acks.watch(to);
    stage.tally.watch(to);
    let caught_up = stage.catch_up(fault.within);
    // A little longer, for what comes of it late and for the counts.
    stage.sleep(SETTLE);
    let after = (stage.tally.snapshot(), stage.metrics());
    let mut faults = fault.judge(&before, &after);
    if acted.is_err() {
        faults.push(format!("{}: the stage could not do it; it says why above", fault.name));
    }
    faults.extend(stage.notes.drain(..).map(|note| format!("{}: {note}", fault.name)));
    if let Err(text) = &caught_up {
        faults.push(format!("{}: not caught up after {:?}: {text}", fault.name, fault.within));
    }
    let first_record = stage.acks.first().zip(stage.tally.first_delivery());
    Row {
        name: fault.name,
        lasted: Duration::from_millis(to - from),
        first_record: first_record
            .map(|(ack, delivery)| Duration::from_millis(delivery.saturating_sub(ack))),
        caught_up,
        deliveries: after.0.deliveries - before.0.deliveries,
        gaps: after.0.all_gaps() - before.0.all_gaps(),
        cuts: after.0.disconnects - before.0.disconnects,
        stalls: stalls(&after.1).saturating_sub(stalls(&before.1)),
        ended: if acted.is_ok() { Ended::Done } else { Ended::StageFailed },
        faults,
    }
}

/// Returns what replicas count since they started.
fn stalls(metrics: &Metrics) -> u64 {
    metrics
        .get("brucke_kafka_read_stops_total{reason=\"stalled\"}")
        .map_or(0, |count| *count as u64)
}

impl Row {
    fn line(&self) -> String {
        let time = |time: Option<Duration>| {
            time.map_or("never".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()))
        };
        format!(
            "{:<26} {:>8} {:>9} {:>9} {:>9} {:>6} {:>6}  {}",
            self.name,
            time(Some(self.lasted)),
            time(self.first_record),
            time(self.caught_up.as_ref().ok().copied()),
            self.deliveries,
            self.cuts,
            self.gaps,
            if self.faults.is_empty() { "as expected" } else { "NOT AS EXPECTED" },
        )
    }
}

fn report(order: &Order, rows: &[Row], verdict: &Verdict, elapsed: Duration) -> String {
    let mut kinds: Vec<_> = rows.iter().map(|row| row.name).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let head = format!(
        "{:<26} {:>8} {:>9} {:>9} {:>9} {:>6} {:>6}",
        "fault", "lasted", "first", "all", "records", "cuts", "gaps"
    );
    let mut lines: Vec<_> = rows.iter().map(Row::line).collect();
    let stalls: u64 = rows.iter().map(|row| row.stalls).sum();
    lines.push(format!(
        "partitions read through another client, for one was deaf to them: {stalls}"
    ));
    for kind in &kinds {
        let mut firsts: Vec<Duration> =
            rows.iter().filter(|r| r.name == *kind).filter_map(|r| r.first_record).collect();
        firsts.sort_unstable();
        if firsts.len() >= MEDIAN_OF_MIN {
            let (count, median) = (firsts.len(), firsts[firsts.len() / 2].as_secs_f64());
            lines.push(format!("{kind}: first record after {median:.2} s, median of {count}"));
        }
    }
    format!(
        "\nseed {}, {} clients, {} faults of {} kinds in {:.0?}\n\n{head}\n{}\n\n{verdict}",
        order.seed,
        order.clients,
        rows.len(),
        kinds.len(),
        elapsed,
        lines.join("\n"),
    )
}

/// Times that a fault must have been run for a median.
const MEDIAN_OF_MIN: usize = 3;
const WARM_UP_MAX: Duration = Duration::from_secs(30);
const WARM_UP: f64 = 3.0;
/// After a fault, before its counts are read.
const SETTLE: f64 = 1.5;

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(seed: u64) -> Vec<&'static str> {
        let order = Order {
            seed,
            clients: 0,
            length: Duration::ZERO,
            faults: Vec::new(),
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
