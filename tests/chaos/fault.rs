//! A fault as data: what is done, and what must come of it.

use std::time::Duration;

use brucke_checker::line::GapReason;

use crate::replica::Metrics;
use crate::stage::Stage;
use crate::tally::Snapshot;

/// Something that breaks, with the effect that was written down before it was
/// tried.
#[derive(Debug)]
pub struct Fault {
    pub name: &'static str,
    /// What is done.
    pub what: &'static str,
    /// What clients must and may see of it.
    pub sees: Sees,
    /// What must move in `/metrics`.
    pub metric: Metric,
    /// Whether anybody can be served meanwhile.
    pub outage: Outage,
    /// How long after it was mended until all have everything.
    pub within: Duration,
    /// How long after the first acknowledgement the first record may reach a client;
    /// a median, judged where a run has the fault several times.
    pub first_record: Option<Duration>,
    /// Breaks it and mends it.
    pub act: fn(&mut Stage, &mut fastrand::Rng),
}

/// What clients see of a fault.
#[derive(Debug, Clone, Copy)]
pub enum Sees {
    /// Neither a lost connection nor a gap; perhaps silence.
    Nothing,
    /// Lost connections, at least one for so many clients, and no gap.
    Cuts { one_in: usize },
    /// Connections closed with this code, at least one for so many clients, and no
    /// gap.
    Close { code: u16, one_in: usize },
    /// Gaps of this reason and no other, and no lost connection.
    Gap(GapReason),
    /// A retryable error for who subscribes, at least one, silence for all others, and
    /// no gap.
    Refusals,
}

/// What moves in the metrics of replicas.
#[derive(Debug, Clone, Copy)]
pub enum Metric {
    /// Nothing that tells this fault from a quiet day.
    None,
    /// A series whose sum over all replicas is higher afterwards.
    Grows(&'static str),
    /// A series of which a replica tells more than so much while the fault lasts or
    /// soon after, and none did before.
    Above(&'static str, u32),
    /// Readiness, or a series, differs while the fault lasts; the fault itself
    /// checks it.
    Meanwhile(&'static str),
}

/// Whether clients can be served while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// Everybody else, or everybody, is served.
    None,
    /// Some can't be, and nobody is accused of their standing still.
    Some,
}

impl Fault {
    /// Returns the fault as the document has it.
    pub fn row(&self) -> String {
        let Self { name, what, .. } = self;
        let sees = match self.sees {
            Sees::Nothing => "nothing, or silence".to_owned(),
            Sees::Cuts { .. } => "lost connections; no gap".to_owned(),
            Sees::Close { code, .. } => format!("close code {code}; no gap"),
            Sees::Gap(reason) => {
                let reason = serde_json::to_string(&reason).expect("a word");
                format!("gaps of reason `{}`", reason.trim_matches('"'))
            }
            Sees::Refusals => {
                "an error that says to try again, for who subscribes; else silence; no gap"
                    .to_owned()
            }
        };
        let metric = match self.metric {
            Metric::None => "nothing of its own".to_owned(),
            Metric::Grows(name) => format!("`{name}` grows"),
            Metric::Above(name, much) => format!("`{name}` is above {much}"),
            Metric::Meanwhile(text) => text.to_owned(),
        };
        let first = self.first_record.map(|first| format!("; first record {} s", first.as_secs()));
        let within = format!("{} s{}", self.within.as_secs(), first.unwrap_or_default());
        format!("| `{name}` | {what} | {sees} | {metric} | {within} |")
    }

    /// Holds what so many clients saw against what was expected.
    pub fn judge(
        &self,
        before: &(Snapshot, Metrics),
        after: &(Snapshot, Metrics),
        clients: usize,
    ) -> Vec<String> {
        let mut faults = Vec::new();
        let (seen, was) = (&after.0, &before.0);
        let cuts = seen.disconnects - was.disconnects;
        let gaps = seen.all_gaps() - was.all_gaps();
        let mut expect = |holds: bool, text: String| {
            if !holds {
                faults.push(format!("{}: {text}", self.name));
            }
        };
        let few = |count: u64, one_in: usize| count < (clients / one_in).max(1) as u64;
        expect(seen.complaints == was.complaints, "a client complains".to_owned());
        match self.sees {
            Sees::Nothing => {
                expect(cuts == 0, format!("{cuts} connections were lost"));
                expect(gaps == 0, format!("{gaps} gaps were told"));
                let errors = seen.all_errors() - was.all_errors();
                expect(errors == 0, format!("{errors} errors were sent: {:?}", seen.errors));
            }
            Sees::Cuts { one_in } => {
                let text = format!("{cuts} connections of {clients} clients were lost");
                expect(!few(cuts, one_in), text);
                expect(gaps == 0, format!("{gaps} gaps were told"));
            }
            Sees::Close { code, one_in } => {
                let closes = seen.closes_of(code) - was.closes_of(code);
                let text =
                    format!("{closes} of {clients} were closed with {code}: {:?}", seen.closes);
                expect(!few(closes, one_in), text);
                expect(gaps == 0, format!("{gaps} gaps were told"));
            }
            Sees::Gap(reason) => {
                let ours = seen.gaps_of(reason) - was.gaps_of(reason);
                expect(ours > 0, format!("no gap of {reason:?} was told"));
                expect(ours == gaps, format!("gaps of other reasons: {:?}", seen.gaps));
                expect(cuts == 0, format!("{cuts} connections were lost"));
            }
            Sees::Refusals => {
                expect(gaps == 0, format!("{gaps} gaps were told"));
                expect(cuts == 0, format!("{cuts} connections were lost"));
                let errors = seen.all_errors() - was.all_errors();
                expect(errors > 0, "nobody was told to try again".to_owned());
            }
        }
        if let Metric::Grows(name) = self.metric {
            let (was, is) = (value(&before.1, name), value(&after.1, name));
            expect(is > was, format!("{name} was {was} and is {is}"));
        }
        faults
    }
}

/// Returns what metrics say of a series; of one that they don't name, nothing.
pub fn value(metrics: &Metrics, series: &str) -> f64 {
    metrics.get(series).copied().unwrap_or(0.0)
}

/// Seconds, for the tables of faults.
pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sees: Sees, metric: Metric, seen: Snapshot, metrics: &[(&str, f64)], faults: usize) {
        let fault = Fault {
            name: "tried",
            what: "nothing",
            sees,
            metric,
            outage: Outage::None,
            within: seconds(1),
            first_record: None,
            act: |_, _| {},
        };
        let metrics = metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let found = fault.judge(&(Snapshot::default(), Metrics::new()), &(seen, metrics), 1);
        assert_eq!(found.len(), faults, "{found:?}");
    }

    #[test]
    fn a_refusal_that_nobody_saw_is_found() {
        let told =
            Snapshot { errors: [("unavailable".to_owned(), 1)].into(), ..Snapshot::default() };
        check(Sees::Refusals, Metric::None, told, &[], 0);
        check(Sees::Refusals, Metric::None, Snapshot::default(), &[], 1);
    }

    #[test]
    fn what_did_not_grow_is_found() {
        let quiet = Snapshot::default;
        check(Sees::Nothing, Metric::Grows("a_total"), quiet(), &[("a_total", 1.0)], 0);
        check(Sees::Nothing, Metric::Grows("a_total"), quiet(), &[("b_total", 1.0)], 1);
    }
}
