//! One fault, or a mix of them, and what came of it.

use std::fs;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use brucke_checker::follower::Limits;
use brucke_checker::judge::judge;
use brucke_checker::verdict::Verdict;

use crate::fault::Fault;
use crate::fault::Metric;
use crate::fault::value;
use crate::order::Order;
use crate::peak::Peak;
use crate::replica::Metrics;
use crate::row;
use crate::row::Ended;
use crate::row::Row;
use crate::stage::Stage;

/// What came of a run.
pub struct Outcome {
    pub rows: Vec<Row>,
    pub verdict: Verdict,
    /// What was not as it must be, in words; what clients got is in the verdict.
    pub faults: Vec<String>,
    pub elapsed: Duration,
}

impl Outcome {
    /// Says whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty() && self.verdict.findings.are_clean()
    }
}

/// Plays what is ordered and prints the report. Panics where anything is not as
/// it must be.
pub fn play(order: &Order) {
    let outcome = run(order);
    println!("{}", row::report(order, &outcome.rows, &outcome.verdict, outcome.elapsed));
    if !outcome.is_clean() {
        let (faults, folder) = (outcome.faults.join("\n"), order.folder.display());
        panic!("{faults}\nreplay: {}\nlogs: {folder}", order.command());
    }
}

/// Plays what is ordered on a stage of its own. The logs stay where anything is not as
/// it must be.
pub fn run(order: &Order) -> Outcome {
    let began = Instant::now();
    let mut random = fastrand::Rng::with_seed(order.seed);
    let mut stage = Stage::set_up(&order.folder, order.clients, order.seed);
    let mut faults = Vec::new();
    match stage.catch_up(WARM_UP_MAX) {
        Ok(_) => stage.sleep(WARM_UP),
        Err(text) => faults.push(format!("before the first fault: {text}")),
    }
    let rows = follow(&mut stage, order, &mut random);
    faults.extend(rows.iter().flat_map(|row| row.faults.iter().cloned()));
    faults.extend(row::judge_medians(&rows));
    let tally = Arc::clone(&stage.tally);
    let logs: Vec<String> = stage.replicas.iter().map(|r| r.process.log()).collect();
    if let Err(text) = stage.strike() {
        faults.push(format!("at the end: {text}"));
    }
    faults.extend(tally.complaints().into_iter().take(20));
    let verdict = judge(&order.folder, Limits::default()).expect("the logs are readable");
    if verdict.clients != order.clients as u64 || verdict.deliveries == 0 {
        let (clients, deliveries) = (verdict.clients, verdict.deliveries);
        faults.push(format!("{clients} of {} clients had {deliveries} records", order.clients));
    }
    if order.is_long_mix() {
        faults.extend(judge_size(&rows, &verdict));
    }
    let outcome = Outcome { rows, verdict, faults, elapsed: began.elapsed() };
    if outcome.is_clean() {
        let _ = fs::remove_dir_all(&order.folder);
        return outcome;
    }
    for (number, log) in logs.iter().enumerate() {
        let _ = fs::write(order.folder.join(format!("replica-{number}.log")), log);
    }
    outcome
}

/// Lets faults follow each other for as long as is ordered.
fn follow(stage: &mut Stage, order: &Order, random: &mut fastrand::Rng) -> Vec<Row> {
    let schedule = order.schedule(random);
    let started = Instant::now();
    let mut rows = Vec::new();
    for (turn, fault) in schedule.iter().cycle().enumerate() {
        let all_done = turn >= schedule.len();
        let late = started.elapsed() >= order.length;
        if late && (all_done || order.faults.is_empty()) {
            break;
        }
        let row = perform(stage, fault, random);
        println!("{:>5.0} s  {}", started.elapsed().as_secs_f64(), row.line());
        let ended = row.ended;
        rows.push(row);
        if ended == Ended::StageFailed {
            break;
        }
    }
    rows
}

/// Says where a long mix came to less than it has to.
fn judge_size(rows: &[Row], verdict: &Verdict) -> Vec<String> {
    let (kinds, deliveries) = (row::kinds(rows).len(), verdict.deliveries);
    let few_kinds = kinds < KINDS_MIN;
    let few_kinds = few_kinds.then(|| format!("{kinds} kinds of fault, not {KINDS_MIN}"));
    let few = deliveries < DELIVERIES_MIN;
    let few = few.then(|| format!("{deliveries} deliveries were checked, not {DELIVERIES_MIN}"));
    few_kinds.into_iter().chain(few).collect()
}

fn perform(stage: &mut Stage, fault: &'static Fault, random: &mut fastrand::Rng) -> Row {
    let peak = watch(stage, fault);
    let before = (stage.tally.snapshot(), stage.metrics());
    let from = stage.clock.now();
    // Whatever the stage could not do, what was seen until then is judged.
    let acted = catch_unwind(AssertUnwindSafe(|| (fault.act)(stage, random)));
    let to = stage.clock.now();
    stage.end_fault(fault, from, to);
    stage.watch_if_not_yet();
    let caught_up = stage.catch_up(fault.within);
    // A little longer, for what comes of it late and for the counts.
    stage.sleep(SETTLE);
    let metrics = await_metric(stage, fault, &before.1, peak);
    let after = (stage.tally.snapshot(), metrics);
    let mut faults = fault.judge(&before, &after, stage.clients.len());
    if acted.is_err() {
        faults.push(format!("{}: the stage could not do it; it says why above", fault.name));
    }
    faults.extend(stage.notes.drain(..).map(|note| format!("{}: {note}", fault.name)));
    if let Err(text) = &caught_up {
        faults.push(format!("{}: not caught up after {:?}: {text}", fault.name, fault.within));
    }
    Row {
        fault,
        lasted: Duration::from_millis(to - from),
        first_record: stage.first_record(),
        caught_up,
        deliveries: after.0.deliveries - before.0.deliveries,
        gaps: after.0.all_gaps() - before.0.all_gaps(),
        cuts: after.0.disconnects - before.0.disconnects,
        stalls: stalls(&after.1).saturating_sub(stalls(&before.1)),
        ended: if acted.is_ok() { Ended::Done } else { Ended::StageFailed },
        faults,
    }
}

/// Begins to look at what a fault moves for a while only, once no replica tells that
/// much of it because of what came before.
fn watch(stage: &mut Stage, fault: &Fault) -> Option<Peak> {
    let Metric::Above(series, much) = fault.metric else { return None };
    let told = |stage: &Stage| {
        let values = stage.replicas.iter().map(|replica| value(&replica.insist_metrics(), series));
        values.fold(0.0, f64::max)
    };
    let deadline = Instant::now() + CALM_MAX;
    while told(stage) > f64::from(much) {
        if Instant::now() > deadline {
            stage.notes.push(format!("{series} was {} before", told(stage)));
            break;
        }
        stage.sleep(0.5);
    }
    let replicas = stage.replicas.iter().map(|replica| replica.process.admin_address());
    Some(Peak::watch(replicas.collect(), series))
}

/// Waits until what must move has moved, but not for ever: what Kafka's clients say
/// of connections comes every few seconds. Returns all metrics as they are then.
fn await_metric(stage: &mut Stage, fault: &Fault, before: &Metrics, peak: Option<Peak>) -> Metrics {
    let most = || peak.as_ref().map_or(0.0, Peak::most);
    let deadline = Instant::now() + METRIC_MAX;
    loop {
        let metrics = stage.metrics();
        let moved = match fault.metric {
            Metric::None | Metric::Meanwhile(_) => true,
            Metric::Grows(series) => value(&metrics, series) > value(before, series),
            Metric::Above(_, much) => most() > f64::from(much),
        };
        if moved {
            return metrics;
        }
        if Instant::now() > deadline {
            if let Metric::Above(series, much) = fault.metric {
                stage.notes.push(format!("{series} was at most {}, not above {much}", most()));
            }
            return metrics;
        }
        stage.sleep(0.5);
    }
}

/// Returns what replicas count since they started.
fn stalls(metrics: &Metrics) -> u64 {
    metrics
        .get("brucke_kafka_read_stops_total{reason=\"stalled\"}")
        .map_or(0, |count| *count as u64)
}

/// What a long mix must come to.
const DELIVERIES_MIN: u64 = 10_000_000;
const KINDS_MIN: usize = 20;
const WARM_UP_MAX: Duration = Duration::from_secs(30);
const WARM_UP: f64 = 3.0;
/// After a fault, before its counts are read.
const SETTLE: f64 = 1.5;
/// How long after that a metric may take to move: a little more than it takes Kafka's
/// clients to speak again.
const METRIC_MAX: Duration = Duration::from_secs(8);
/// How long what came before may be seen in a metric.
const CALM_MAX: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_mix_that_came_to_little_is_found() {
        let verdict = Verdict { deliveries: DELIVERIES_MIN - 1, ..Verdict::default() };
        assert_eq!(judge_size(&[], &verdict).len(), 2);
        let verdict = Verdict { deliveries: DELIVERIES_MIN, ..Verdict::default() };
        assert_eq!(judge_size(&[], &verdict).len(), 1);
    }
}
