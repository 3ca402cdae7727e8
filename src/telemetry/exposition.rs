//! Writes metrics as Prometheus reads them. Those that the recorder keeps it has
//! written already; the others are read where they stand rather than recorded: what
//! is told of something that is gone is gone too.

use std::fmt::Display;
use std::fmt::Write;

use crate::telemetry::metric;
use crate::telemetry::metric::Kind;
use crate::telemetry::metric::Metric;
use crate::types::latency::Exemplar;

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Prometheus's text format, 0.0.4.
    #[default]
    Text,
    /// OpenMetrics 1.0: the same series, with units and exemplars.
    OpenMetrics,
}

impl Format {
    /// Returns the type of the text.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Text for Prometheus.
#[derive(Debug, Default)]
pub struct Exposition {
    format: Format,
    text: String,
}

impl Exposition {
    /// Returns an empty text.
    pub fn new(format: Format) -> Self {
        Self { format, text: String::new() }
    }

    /// Begins a metric of the table; its samples follow.
    ///
    /// # Panics
    ///
    /// When the table does not have it.
    pub fn family(&mut self, name: &str) {
        self.begin(find(name).expect("every metric stands in the table"));
    }

    fn begin(&mut self, known: &Metric) {
        let name = known.name;
        let kind = match known.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        match self.format {
            Format::Text => {
                let _ = writeln!(self.text, "# HELP {name} {}\n# TYPE {name} {kind}", known.help);
            }
            Format::OpenMetrics => {
                let family = family_name(known);
                let _ = write!(self.text, "# TYPE {family} {kind}\n# HELP {family} ");
                escape(known.help, &mut self.text);
                self.text.push('\n');
                let unit = UNITS.iter().find(|unit| {
                    family.strip_suffix(**unit).is_some_and(|before| before.ends_with('_'))
                });
                if let Some(unit) = unit {
                    let _ = writeln!(self.text, "# UNIT {family} {unit}");
                }
            }
        }
    }

    /// Adds what the recorder has written, in the text format.
    pub fn recorded(&mut self, text: &str) {
        if self.format == Format::Text {
            self.text.push_str(text);
            return;
        }
        for line in text.lines() {
            match line.strip_prefix("# ").map(|told| told.split_once(' ')) {
                // Each metric has its type there; what else is said of it is in the table.
                Some(Some(("TYPE", told))) => {
                    if let Some(known) = told.split_once(' ').and_then(|(name, _)| find(name)) {
                        self.begin(known);
                    }
                }
                Some(_) => {}
                // OpenMetrics has no empty lines.
                None if line.is_empty() => {}
                None => {
                    self.text.push_str(line);
                    self.text.push('\n');
                }
            }
        }
    }

    /// Adds one number.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        self.labels(labels);
        let _ = writeln!(self.text, " {value}");
    }

    /// Adds a bucket of a histogram, with the exemplar of it where the format has
    /// such.
    pub fn bucket(&mut self, name: &str, bound: &str, count: u64, exemplar: Option<&Exemplar>) {
        self.text.push_str(name);
        self.labels(&[("le", bound)]);
        let _ = write!(self.text, " {count}");
        if let (Format::OpenMetrics, Some(exemplar)) = (self.format, exemplar) {
            let (trace, span) = (exemplar.trace().to_string(), exemplar.span());
            self.text.push_str(" # ");
            match span {
                Some(span) => self.labels(&[(TRACE, &trace), (SPAN, &span.to_string())]),
                None => self.labels(&[(TRACE, &trace)]),
            }
            let (took, at) = (exemplar.took_micros() as f64 / 1e6, exemplar.at().as_millis());
            let _ = write!(self.text, " {took} {}.{:03}", at / 1_000, at % 1_000);
        }
        self.text.push('\n');
    }

    /// Returns the text.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn labels(&mut self, labels: &[(&str, &str)]) {
        for (index, (label, text)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{label}=\"");
            escape(text, &mut self.text);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
    }
}

fn find(name: &str) -> Option<&'static Metric> {
    metric::ALL.iter().find(|known| known.name == name)
}

/// Returns what OpenMetrics calls a metric: a counter without the end of its
/// samples' name.
fn family_name(metric: &Metric) -> &'static str {
    match metric.kind {
        Kind::Counter => metric.name.strip_suffix("_total").unwrap_or(metric.name),
        Kind::Gauge | Kind::Histogram => metric.name,
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

/// Units of which metrics of the table are; the name of each ends in its own.
const UNITS: [&str; 2] = ["seconds", "bytes"];
/// Labels of an exemplar, as Grafana looks for them; with their values they are far
/// below the 128 characters that there may be.
const TRACE: &str = "trace_id";
const SPAN: &str = "span_id";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::types::ids::Timestamp;
    use crate::types::trace::SpanId;
    use crate::types::trace::TraceId;

    fn check(format: Format, write: impl Fn(&mut Exposition), wanted: &str) {
        let mut out = Exposition::new(format);
        write(&mut out);
        assert_eq!(out.finish(), wanted);
    }

    fn exemplar(span: Option<u64>) -> Exemplar {
        let trace = TraceId::from_hex("4bf92f3577b34da6a3ce929d0e0e4736").expect("an id");
        let span = span.map(|span| SpanId::from_number(span).expect("not zero"));
        let at = Timestamp::from_millis(1_763_884_800_042);
        Exemplar::new(trace, span, Duration::from_micros(1_700), at)
    }

    #[test]
    fn labels_can_hold_any_text() {
        let write = |out: &mut Exposition| {
            out.sample("a", &[], 1);
            out.sample("a", &[("x", "q\"\\\n"), ("y", "")], 0.5);
        };
        check(Format::Text, write, "a 1\na{x=\"q\\\"\\\\\\n\",y=\"\"} 0.5\n");
    }

    #[test]
    fn exemplars_stand_where_the_format_has_them() {
        let write = |out: &mut Exposition| {
            out.bucket("a_bucket", "0.001", 0, None);
            out.bucket("a_bucket", "0.0025", 3, Some(&exemplar(Some(0xab))));
            out.bucket("a_bucket", "+Inf", 3, Some(&exemplar(None)));
        };
        let text = "a_bucket{le=\"0.001\"} 0\na_bucket{le=\"0.0025\"} 3\na_bucket{le=\"+Inf\"} 3\n";
        check(Format::Text, write, text);
        let trace = "trace_id=\"4bf92f3577b34da6a3ce929d0e0e4736\"";
        let open = format!(
            "a_bucket{{le=\"0.001\"}} 0\n\
             a_bucket{{le=\"0.0025\"}} 3 # {{{trace},span_id=\"00000000000000ab\"}} 0.0017 1763884800.042\n\
             a_bucket{{le=\"+Inf\"}} 3 # {{{trace}}} 0.0017 1763884800.042\n# EOF\n"
        );
        check(Format::OpenMetrics, write, &open);
        let longest = format!("trace_id{}span_id{}", "0".repeat(32), "0".repeat(16));
        assert!(longest.len() <= 128);
    }

    #[test]
    fn what_the_recorder_wrote_becomes_openmetrics() {
        let recorded = "# HELP brucke_frame_bytes_total what it says itself\n\
                        # TYPE brucke_frame_bytes_total counter\n\
                        brucke_frame_bytes_total 7\n\n\
                        # TYPE brucke_worker_mail gauge\n\
                        brucke_worker_mail{worker=\"0\"} 1\n\n";
        check(Format::Text, |out| out.recorded(recorded), recorded);
        let mail =
            "Most events that lay in the mailbox of each worker at once, in the last second.";
        let open = format!(
            "# TYPE brucke_frame_bytes counter\n\
             # HELP brucke_frame_bytes Bytes of frames put on their way to clients.\n\
             # UNIT brucke_frame_bytes bytes\n\
             brucke_frame_bytes_total 7\n\
             # TYPE brucke_worker_mail gauge\n\
             # HELP brucke_worker_mail {mail}\n\
             brucke_worker_mail{{worker=\"0\"}} 1\n# EOF\n"
        );
        check(Format::OpenMetrics, |out| out.recorded(recorded), &open);
    }

    #[test]
    fn the_table_keeps_the_rules_of_openmetrics_for_names() {
        let names: BTreeSet<&str> = metric::ALL.iter().map(family_name).collect();
        assert_eq!(names.len(), metric::ALL.len(), "two metrics are one family");
        for known in metric::ALL {
            let is_counter = known.kind == Kind::Counter;
            assert_eq!(known.name.ends_with("_total"), is_counter, "{}", known.name);
            for suffix in ["_count", "_sum", "_bucket", "_created", "_info"] {
                let taken =
                    known.name.strip_suffix(suffix).is_some_and(|name| names.contains(name));
                assert!(!taken, "{} reads as a sample of another metric", known.name);
            }
        }
    }
}
