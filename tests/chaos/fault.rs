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
    /// A subscription that ends with a retryable error or stays silent, and no
    /// gap.
    Refusals,
}

/// What moves in the sum of all replicas' metrics.
#[derive(Debug, Clone, Copy)]
pub enum Metric {
    /// Nothing that tells this fault from a quiet day.
    None,
    /// A series that is higher afterwards.
    Grows(&'static str),
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
            Sees::Refusals => "silence, or an error that says to try again; no gap".to_owned(),
        };
        let metric = match self.metric {
            Metric::None => "nothing of its own".to_owned(),
            Metric::Grows(name) => format!("`{name}` grows"),
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
            }
        }
        if let Metric::Grows(name) = self.metric {
            let value = |metrics: &Metrics| metrics.get(name).copied().unwrap_or(0.0);
            let (was, is) = (value(&before.1), value(&after.1));
            expect(is > was, format!("{name} was {was} and is {is}"));
        }
        faults
    }
}

/// Seconds, for the tables of faults.
pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
