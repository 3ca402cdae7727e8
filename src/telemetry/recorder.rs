//! Where metrics are kept until they are scraped.

use std::sync::OnceLock;

use metrics::counter;
use metrics::describe_counter;
use metrics::describe_gauge;
use metrics::gauge;
use metrics_exporter_prometheus::PrometheusBuilder;
use metrics_exporter_prometheus::PrometheusHandle;
use metrics_process::Collector;

use crate::delivery::counts::gap_name;
use crate::protocol::close_code::CloseCode;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::frame::GapReason;
use crate::telemetry::arrivals::CertificateRefused;
use crate::telemetry::arrivals::CertificateTaken;
use crate::telemetry::events::IGNORED;
use crate::telemetry::events::RELOAD_OUTCOMES;
use crate::telemetry::exposition::Exposition;
use crate::telemetry::latency;
use crate::telemetry::metric;
use crate::telemetry::metric::Kind;

/// The metrics of this process, as text for Prometheus.
#[derive(Clone)]
pub struct Recorder(PrometheusHandle);

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Recorder").finish()
    }
}

impl Recorder {
    /// Returns the recorder of this process, which is made when it is first
    /// asked for.
    ///
    /// # Panics
    ///
    /// When somebody else has set a recorder.
    pub fn of_process() -> Self {
        RECORDER.get_or_init(Self::install).clone()
    }

    /// Writes everything measured.
    pub fn render(&self, out: &mut Exposition) {
        Collector::default().collect();
        out.recorded(&self.0.render());
        latency::expose(out);
    }

    /// Folds what was recorded since the last time; to be called every few
    /// seconds, for memory grows until then.
    pub fn fold(&self) {
        self.0.run_upkeep();
    }

    fn install() -> Self {
        let handle = PrometheusBuilder::new()
            .install_recorder()
            .expect("nobody else sets a recorder in this process");
        for known in metric::ALL {
            match known.kind {
                Kind::Counter => describe_counter!(known.name, known.help),
                Kind::Gauge => describe_gauge!(known.name, known.help),
                // They are kept and written by `latency`.
                Kind::Histogram => {}
            }
        }
        begin(metric::GAPS, "reason", GapReason::ALL.map(gap_name));
        begin(metric::REFUSALS, "code", ErrorCode::ALL.map(ErrorCode::name));
        begin(metric::CLOSES, "code", CloseCode::ALL.map(CloseCode::name));
        begin(metric::REVOCATIONS_IGNORED, "reason", IGNORED);
        begin(metric::CONFIG_RELOADS, "outcome", RELOAD_OUTCOMES);
        gauge!(metric::CONFIG_REFUSED).set(0.0);
        let outcomes = [CertificateTaken::OUTCOME, CertificateRefused::OUTCOME];
        begin(metric::TLS_CERTIFICATE_LOADS, "outcome", outcomes);
        gauge!(metric::TLS_CERTIFICATE_NOT_AFTER).set(0.0);
        gauge!(metric::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Self(handle)
    }
}

/// Begins a counter at zero for each value of its label: Prometheus sees no growth
/// in a series that appears with its first happening.
pub fn begin(
    name: &'static str,
    label: &'static str,
    values: impl IntoIterator<Item = &'static str>,
) {
    for value in values {
        counter!(name, label => value).increment(0);
    }
}

static RECORDER: OnceLock<Recorder> = OnceLock::new();
