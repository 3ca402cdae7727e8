//! What came of one fault, and the table of all.

use std::time::Duration;

use brucke_checker::verdict::Verdict;

use crate::fault::Fault;
use crate::order::Order;

/// What came of one fault.
pub struct Row {
    pub fault: &'static Fault,
    pub lasted: Duration,
    /// From the first acknowledgement after it to the first record at a client.
    pub first_record: Option<Duration>,
    pub caught_up: Result<Duration, String>,
    pub deliveries: u64,
    pub gaps: u64,
    pub cuts: u64,
    /// Partitions that a replica began to read through another client.
    pub stalls: u64,
    pub ended: Ended,
    pub faults: Vec<String>,
}

/// Whether a fault could be brought about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Done,
    /// The cluster is in no state to go on with.
    StageFailed,
}

impl Row {
    /// Returns the row as the table has it.
    pub fn line(&self) -> String {
        let time = |time: Option<Duration>| seconds(time.unwrap_or(NEVER));
        format!(
            "{:<30} {:>8} {:>9} {:>9} {:>9} {:>6} {:>6} {:>6}  {}",
            self.fault.name,
            time(Some(self.lasted)),
            time(self.first_record),
            time(self.caught_up.as_ref().ok().copied()),
            self.deliveries,
            self.cuts,
            self.gaps,
            self.stalls,
            if self.faults.is_empty() { "as expected" } else { "NOT AS EXPECTED" },
        )
    }
}

fn seconds(time: Duration) -> String {
    match time == NEVER {
        true => "never".to_owned(),
        false => format!("{:.2} s", time.as_secs_f64()),
    }
}

/// Returns the heads of the table's columns.
pub fn head() -> String {
    format!(
        "{:<30} {:>8} {:>9} {:>9} {:>9} {:>6} {:>6} {:>6}",
        "fault", "lasted", "first", "all", "records", "cuts", "gaps", "deaf"
    )
}

/// Returns the faults that were run, each once, by name.
pub fn kinds(rows: &[Row]) -> Vec<&'static Fault> {
    let mut kinds: Vec<_> = rows.iter().map(|row| row.fault).collect();
    kinds.sort_unstable_by_key(|fault| fault.name);
    kinds.dedup_by_key(|fault| fault.name);
    kinds
}

/// Returns after how long the first record came, and in how many runs: a median, where
/// a fault was run so often that there is one. Where none came it is for ever.
fn median(rows: &[Row], fault: &Fault) -> Option<(Duration, usize)> {
    let runs = rows.iter().filter(|row| row.fault.name == fault.name);
    let mut firsts: Vec<_> = runs.map(|row| row.first_record.unwrap_or(NEVER)).collect();
    firsts.sort_unstable();
    (firsts.len() >= MEDIAN_OF_MIN).then(|| (firsts[firsts.len() / 2], firsts.len()))
}

/// Holds medians against the bounds that faults have.
pub fn judge_medians(rows: &[Row]) -> Vec<String> {
    let late = |fault: &'static Fault| {
        let ((median, runs), bound) = median(rows, fault).zip(fault.first_record)?;
        let name = fault.name;
        (median > bound).then(|| {
            let (median, bound) = (seconds(median), seconds(bound));
            format!("{name}: first record after {median}, median of {runs}, not {bound}")
        })
    };
    kinds(rows).into_iter().filter_map(late).collect()
}

/// Returns all that there is to say of a run.
pub fn report(order: &Order, rows: &[Row], verdict: &Verdict, elapsed: Duration) -> String {
    let kinds = kinds(rows);
    let mut lines: Vec<_> = rows.iter().map(Row::line).collect();
    lines.push("deaf: partitions read through another client, for one was deaf to them".to_owned());
    for fault in &kinds {
        if let Some((median, runs)) = median(rows, fault) {
            let (name, median) = (fault.name, seconds(median));
            lines.push(format!("{name}: first record after {median}, median of {runs}"));
        }
    }
    format!(
        "\nseed {}, {} clients, {} faults of {} kinds in {:.0?}\n\n{}\n{}\n\n{verdict}",
        order.seed,
        order.clients,
        rows.len(),
        kinds.len(),
        elapsed,
        head(),
        lines.join("\n"),
    )
}

/// After how long it comes where it does not.
const NEVER: Duration = Duration::MAX;
/// Times that a fault must have been run for a median.
const MEDIAN_OF_MIN: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults;

    fn row(fault: &'static Fault, first_record: Option<u64>) -> Row {
        Row {
            fault,
            lasted: Duration::ZERO,
            first_record: first_record.map(Duration::from_millis),
            caught_up: Ok(Duration::ZERO),
            deliveries: 0,
            gaps: 0,
            cuts: 0,
            stalls: 0,
            ended: Ended::Done,
            faults: Vec::new(),
        }
    }

    fn check_late(firsts: &[Option<u64>], late: usize) {
        let bound = faults::all().into_iter().find(|fault| fault.first_record.is_some());
        let bound = bound.expect("one has a bound");
        let rows: Vec<Row> = firsts.iter().map(|first| row(bound, *first)).collect();
        assert_eq!(judge_medians(&rows).len(), late, "{firsts:?}");
    }

    #[test]
    fn a_late_first_record_is_found_where_there_is_a_median() {
        check_late(&[Some(5_000), Some(5_000)], 0);
        check_late(&[Some(5_000), Some(900), Some(1_000)], 0);
        check_late(&[Some(5_000), Some(900), Some(1_001)], 1);
        check_late(&[None, Some(900), None], 1);
        check_late(&[Some(100), Some(5_000), Some(100), None, Some(1_000)], 0);
    }
}
