//! Where metrics are kept until they are scraped.

use std::sync::OnceLock;

use metrics::Unit;
use metrics::describe_counter;
use metrics::describe_gauge;
use metrics::describe_histogram;
use metrics::gauge;
use metrics_exporter_prometheus::Matcher;
use metrics_exporter_prometheus::PrometheusBuilder;
use metrics_exporter_prometheus::PrometheusHandle;

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

    /// Returns everything measured, in Prometheus's text format.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds what was recorded since the last time; to be called every few
    /// seconds, for memory grows until then.
    pub fn fold(&self) {
        self.0.run_upkeep();
    }

    fn install() -> Self {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(
                Matcher::Full(metric::DELIVERY_LATENCY.to_owned()),
                metric::LATENCY_BUCKETS,
            )
            .expect("there are buckets")
            .install_recorder()
            .expect("nobody else sets a recorder in this process");
        for known in metric::ALL {
            match known.kind {
                Kind::Counter => describe_counter!(known.name, known.help),
                Kind::Gauge => describe_gauge!(known.name, known.help),
                Kind::Histogram => describe_histogram!(known.name, Unit::Seconds, known.help),
            }
        }
        gauge!(metric::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Self(handle)
    }
}

static RECORDER: OnceLock<Recorder> = OnceLock::new();
