//! The thread that sends spans to the collector.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crossbeam_channel::Receiver;
use crossbeam_channel::RecvTimeoutError;
use metrics::counter;
use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_otlp::WithTonicConfig as _;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use opentelemetry_sdk::trace::SpanExporter as _;
use thiserror::Error;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::telemetry::events::CollectorAnswers;
use crate::telemetry::events::CollectorFailed;
use crate::telemetry::metric;
use crate::telemetry::traces::config::TraceProtocol;
use crate::telemetry::traces::queue::Dropped;
use crate::telemetry::traces::queue::Parcel;
use crate::telemetry::traces::queue::Waiting;
use crate::telemetry::traces::settings::TracingSettings;
use crate::telemetry::traces::span_data::TimeOfDay;
use crate::telemetry::traces::span_data::span_data;
use crate::types::trace::ClusterName;

/// Why traces can't be sent.
#[derive(Debug, Error)]
pub enum ExporterError {
    /// An address, a header or a certificate can't be used.
    #[error("traces can't be sent to {endpoint}")]
    Settings {
        endpoint: String,
        #[source]
        source: ExporterBuildError,
    },
    /// The system gives no thread.
    #[error("the thread that sends traces can't be started")]
    Thread(#[from] io::Error),
}

/// What the thread owns.
pub(in crate::telemetry::traces) struct Exporter {
    runtime: Runtime,
    exporter: SpanExporter,
    parcels: Receiver<Parcel>,
    waiting: Arc<Waiting>,
    settings: TracingSettings,
    cluster_name: ClusterName,
    collector: Collector,
}

/// How the collector was when it was last asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Collector {
    Unheard,
    Answers,
    Fails,
}

/// Whether more will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    GoOn,
    End,
}

impl Exporter {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// [`ExporterError`]. A collector that does not answer is none: it is counted.
    pub(in crate::telemetry::traces) fn start(
        settings: &TracingSettings,
        resource: &Resource,
        parcels: Receiver<Parcel>,
        waiting: Arc<Waiting>,
        cluster_name: ClusterName,
    ) -> Result<(), ExporterError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let exporter = {
            // Both transports look for the runtime when they are made.
            let _entered = runtime.enter();
            build(settings)
        };
        let mut exporter = exporter.map_err(|source| ExporterError::Settings {
            endpoint: settings.endpoint.clone(),
            source,
        })?;
        exporter.set_resource(resource);
        let settings = settings.clone();
        let collector = Collector::Unheard;
        let this = Self { runtime, exporter, parcels, waiting, settings, cluster_name, collector };
        thread::Builder::new().name("traces".to_owned()).spawn(move || this.run())?;
        Ok(())
    }

    fn run(mut self) {
        let mut batch = Vec::new();
        // An order to end holds its sender until everything is sent.
        let mut ending = None;
        loop {
            let then = self.collect(&mut batch, &mut ending);
            for chunk in chunks(std::mem::take(&mut batch), self.settings.batch_spans_max) {
                let limit = if ending.is_some() { END_MAX } else { Duration::MAX };
                self.export(chunk, limit);
            }
            ending = None;
            if then == Then::End {
                return;
            }
        }
    }

    /// Waits for a first parcel, and then for more until they make a batch or the
    /// first has waited long enough.
    fn collect(
        &self,
        batch: &mut Vec<SpanData>,
        ending: &mut Option<crossbeam_channel::Sender<()>>,
    ) -> Then {
        let Ok(first) = self.parcels.recv() else { return Then::End };
        let deadline = Instant::now() + self.settings.export_interval;
        let clock = TimeOfDay::now();
        let mut parcel = first;
        loop {
            match parcel {
                Parcel::Notes(notes) => {
                    let cluster = self.cluster_name.told();
                    batch.extend(notes.into_iter().map(|note| span_data(note, clock, cluster)));
                }
                Parcel::Span(span) => batch.push(*span),
                Parcel::End(done) => {
                    *ending = Some(done);
                    return Then::GoOn;
                }
            }
            if batch.len() >= self.settings.batch_spans_max {
                return Then::GoOn;
            }
            parcel = match self.parcels.recv_deadline(deadline) {
                Ok(next) => next,
                Err(RecvTimeoutError::Timeout) => return Then::GoOn,
                Err(RecvTimeoutError::Disconnected) => return Then::End,
            };
        }
    }

    fn export(&mut self, spans: Vec<SpanData>, limit: Duration) {
        let count = spans.len();
        let limit = limit.min(self.settings.export_timeout + EXPORT_GRACE);
        let exported = async { timeout(limit, self.exporter.export(spans)).await };
        let result = match self.runtime.block_on(exported) {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {limit:?}")),
        };
        self.waiting.leave(count);
        match result {
            Ok(()) => {
                counter!(metric::SPANS_EXPORTED).increment(count as u64);
                if self.collector == Collector::Fails {
                    CollectorAnswers { endpoint: &self.settings.endpoint }.emit();
                }
                self.collector = Collector::Answers;
            }
            Err(reason) => {
                Dropped::ExportFailed.count(count);
                // Once, and not for each batch of a long absence.
                if self.collector != Collector::Fails {
                    CollectorFailed { endpoint: &self.settings.endpoint, reason: &reason }.emit();
                }
                self.collector = Collector::Fails;
            }
        }
    }
}

fn build(settings: &TracingSettings) -> Result<SpanExporter, ExporterBuildError> {
    let (endpoint, timeout) = (settings.endpoint.clone(), settings.export_timeout);
    match settings.protocol {
        TraceProtocol::Grpc => {
            let builder = SpanExporter::builder().with_tonic();
            let builder = match endpoint.starts_with("https:") {
                // By itself it would trust nobody.
                true => builder.with_tls_config(ClientTlsConfig::new().with_enabled_roots()),
                false => builder,
            };
            builder.with_endpoint(endpoint).with_timeout(timeout).build()
        }
        TraceProtocol::HttpProtobuf => {
            let builder = SpanExporter::builder().with_http();
            let builder = builder.with_protocol(opentelemetry_otlp::Protocol::HttpBinary);
            builder.with_endpoint(endpoint).with_timeout(timeout).build()
        }
    }
}

/// Cuts a list into pieces of at most so many.
fn chunks(mut spans: Vec<SpanData>, max: usize) -> impl Iterator<Item = Vec<SpanData>> {
    std::iter::from_fn(move || {
        let rest = spans.split_off(spans.len().min(max));
        let chunk = std::mem::replace(&mut spans, rest);
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// How long the last spans of a process may take.
pub(in crate::telemetry::traces) const END_MAX: Duration = Duration::from_secs(2);
/// The transports keep the time themselves; this catches what they do not.
const EXPORT_GRACE: Duration = Duration::from_secs(1);
