//! Builds what makes traces, and ends it.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::Sampler as HandshakeSampler;
use opentelemetry_sdk::trace::SdkTracer;
use opentelemetry_sdk::trace::SdkTracerProvider;
use opentelemetry_sdk::trace::Span;
use opentelemetry_sdk::trace::SpanData;
use opentelemetry_sdk::trace::SpanProcessor;
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;
use uuid::Uuid;

use crate::delivery::traces::TraceSettings;
use crate::telemetry::traces::exporter::END_MAX;
use crate::telemetry::traces::exporter::Exporter;
use crate::telemetry::traces::exporter::ExporterError;
use crate::telemetry::traces::queue::SpanQueue;
use crate::telemetry::traces::settings::TracingSettings;
use crate::telemetry::traces::span_data::scope;
use crate::types::trace::ClusterName;
use crate::types::trace::Parents;
use crate::types::trace::Sampler;

/// The traces of this process, or that there are none.
#[derive(Debug, Clone, Default)]
pub struct Tracing(Option<Arc<Running>>);

#[derive(Debug)]
struct Running {
    settings: TracingSettings,
    queue: SpanQueue,
    provider: SdkTracerProvider,
    cluster_name: ClusterName,
}

impl Tracing {
    /// Returns what traces nothing.
    pub fn off() -> Self {
        Self::default()
    }

    /// Starts to send traces.
    ///
    /// # Errors
    ///
    /// [`ExporterError`], when an address can't be used or there is no thread.
    pub fn start(settings: TracingSettings) -> Result<Self, ExporterError> {
        let (queue, parcels, waiting) = SpanQueue::new(settings.queue_spans_max);
        let resource = Resource::builder()
            .with_service_name(settings.service_name.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("service.instance.id", Uuid::new_v4().to_string()))
            .build();
        let cluster_name = ClusterName::default();
        Exporter::start(&settings, &resource, parcels, waiting, cluster_name.clone())?;
        let roots = HandshakeSampler::TraceIdRatioBased(settings.rules.roots.as_ratio());
        let sampler = match settings.rules.parents {
            Parents::Respected => HandshakeSampler::ParentBased(Box::new(roots)),
            Parents::Ignored => roots,
        };
        let provider = SdkTracerProvider::builder()
            .with_span_processor(IntoQueue(queue.clone()))
            .with_sampler(sampler)
            .with_resource(resource)
            .build();
        Ok(Self(Some(Arc::new(Running { settings, queue, provider, cluster_name }))))
    }

    /// Returns where spans go.
    pub fn queue(&self) -> SpanQueue {
        self.0.as_ref().map(|running| running.queue.clone()).unwrap_or_default()
    }

    /// Returns what decides which records are traced.
    pub fn sampler(&self) -> Sampler {
        self.0.as_ref().map(|running| running.settings.sampler()).unwrap_or_default()
    }

    /// Returns where spans look for what Kafka calls the cluster.
    pub fn cluster_name(&self) -> ClusterName {
        self.0.as_ref().map(|running| running.cluster_name.clone()).unwrap_or_default()
    }

    /// Returns what each shard needs to trace; `None` when it is not to.
    pub fn shard(&self) -> Option<TraceSettings> {
        self.0.as_ref().map(|running| running.settings.shard())
    }

    /// Returns what makes spans of `tracing`'s.
    pub(in crate::telemetry) fn layer<S>(&self) -> Option<OpenTelemetryLayer<S, SdkTracer>>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let running = self.0.as_ref()?;
        let tracer = running.provider.tracer_with_scope(scope());
        let layer = tracing_opentelemetry::layer()
            .with_location(false)
            .with_target(false)
            .with_threads(false)
            .with_tracked_inactivity(false);
        Some(layer.with_tracer(tracer))
    }

    /// Sends what is left, and waits for that a little.
    pub fn end(&self) {
        if let Some(running) = &self.0 {
            let _ = running.queue.end().recv_timeout(END_MAX + END_GRACE);
        }
    }
}

/// Puts spans that end into the queue.
#[derive(Debug)]
struct IntoQueue(SpanQueue);

impl SpanProcessor for IntoQueue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.0.offer_span(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

const END_GRACE: Duration = Duration::from_millis(500);
