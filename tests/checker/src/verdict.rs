//! What came of one client, or of all.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use crate::findings::Findings;
use crate::findings::Kind;
use crate::line::GapReason;

/// Counts and findings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    pub clients: u64,
    /// Records that reached an application.
    pub deliveries: u64,
    /// Records that came again on the wire and were dropped by the client.
    pub repeats_dropped: u64,
    pub frames: u64,
    pub connects: u64,
    pub gaps: BTreeMap<GapReason, u64>,
    /// Milliseconds from the last fault until the last client had everything.
    pub caught_up: u64,
    pub findings: Findings,
}

impl AddAssign for Verdict {
    fn add_assign(&mut self, other: Self) {
        self.clients += other.clients;
        self.deliveries += other.deliveries;
        self.repeats_dropped += other.repeats_dropped;
        self.frames += other.frames;
        self.connects += other.connects;
        for (reason, count) in other.gaps {
            *self.gaps.entry(reason).or_default() += count;
        }
        self.caught_up = self.caught_up.max(other.caught_up);
        self.findings += other.findings;
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<28} {:>12}", "clients", self.clients)?;
        writeln!(f, "{:<28} {:>12}", "connections", self.connects)?;
        writeln!(f, "{:<28} {:>12}", "frames", self.frames)?;
        writeln!(f, "{:<28} {:>12}", "deliveries checked", self.deliveries)?;
        writeln!(f, "{:<28} {:>12}", "repeats dropped by clients", self.repeats_dropped)?;
        for (reason, count) in &self.gaps {
            writeln!(f, "{:<28} {count:>12}", format!("gaps told, {reason:?}"))?;
        }
        let caught_up = format!("{:.1} s", self.caught_up as f64 / 1_000.0);
        writeln!(f, "{:<28} {caught_up:>12}", "all caught up after")?;
        for kind in Kind::ALL {
            writeln!(f, "{:<28} {:>12}", kind.name(), self.findings.of(kind))?;
        }
        self.findings.examples.iter().try_for_each(|example| writeln!(f, "  {example}"))
    }
}
