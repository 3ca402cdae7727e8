//! Writes metrics in Prometheus's text format that are read where they stand
//! rather than recorded: what is told of something that is gone is gone too.

use std::fmt::Display;
use std::fmt::Write;

use crate::telemetry::metric;
use crate::telemetry::metric::Kind;

/// Text for Prometheus.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// Begins a metric of the table; its samples follow.
    ///
    /// # Panics
    ///
    /// When the table does not have it.
    pub fn family(&mut self, name: &'static str) {
        let known = metric::ALL.iter().find(|known| known.name == name);
        let known = known.expect("every metric stands in the table");
        let kind = match known.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = writeln!(self.0, "# HELP {name} {}\n# TYPE {name} {kind}", known.help);
    }

    /// Adds one number.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{before}{label}=\"");
            escape(text, &mut self.0);
            self.0.push('"');
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }

    /// Returns the text.
    pub fn finish(self) -> String {
        self.0
    }
}

fn escape(text: &str, out: &mut String) {
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_can_hold_any_text() {
        let mut out = Exposition::default();
        out.sample("a", &[], 1);
        out.sample("a", &[("x", "q\"\\\n"), ("y", "")], 0.5);
        assert_eq!(out.finish(), "a 1\na{x=\"q\\\"\\\\\\n\",y=\"\"} 0.5\n");
    }
}
