//! Figures and the tables that they stand in.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;
use std::time::Instant;

/// The same figure from several runs.
#[derive(Debug, Clone, Default)]
pub struct Series(Vec<f64>);

impl Series {
    /// Adds the figure of one run.
    pub fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// Returns the figure in the middle; of an even number, the greater one.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        write!(f, "{} ({}–{})", figure(self.median()), figure(least), figure(most))
    }
}

/// Returns a figure with as many digits as mean something.
pub fn figure(value: f64) -> String {
    match value.abs() {
        0.0..1.0 => format!("{value:.3}"),
        1.0..100.0 => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    }
}

/// Returns the part of the sorted durations below which a share of them is.
pub fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * share).round() as usize;
    sorted.get(at).copied().unwrap_or_default()
}

/// Returns microseconds, with their fraction.
pub fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Returns milliseconds, as text.
pub fn millis(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64() * 1e3)
}

/// Prints the head of a table.
pub fn table(title: &str, head: &[impl AsRef<str>]) {
    println!("### {title}\n");
    let cells: Vec<_> = head.iter().map(AsRef::as_ref).collect();
    println!("| {} |", cells.join(" | "));
    println!("|{}", "---|".repeat(head.len()));
}

/// Prints a row of it.
pub fn row(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}

/// Says on standard error what is being done.
pub fn say(what: &str) {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    let seconds = BEGIN.get_or_init(Instant::now).elapsed().as_secs();
    eprintln!("bench: {seconds:4} s: {what}");
}
