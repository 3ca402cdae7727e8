//! The span of a handshake, from the request to the socket that is taken over.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::Status;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::types::ids::ConnectionId;
use crate::types::trace::Origin;
use crate::types::trace::SpanId;
use crate::types::trace::TraceId;

/// What is logged within it has its trace's name. Costs nothing where traces are
/// off.
#[derive(Debug, Clone)]
pub struct HandshakeSpan(Span);

impl HandshakeSpan {
    /// Begins the span, below the one that the request names in its headers.
    pub fn start<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Self {
        let span = tracing::info_span!(
            target: HANDSHAKES,
            "handshake",
            otel.kind = "server",
            trace_id = Empty,
        );
        if span.is_disabled() {
            return Self(span);
        }
        let named = |name: &'static str| Some((name.to_owned(), header(name)?.to_owned()));
        let told: HashMap<String, String> = HEADERS.into_iter().filter_map(named).collect();
        // It fails where no layer makes spans of it, and then there is nothing to do.
        let _ = span.set_parent(TraceContextPropagator::new().extract(&told));
        span.set_attribute("http.request.method", "GET");
        let this = Self(span);
        if let Some(origin) = this.origin() {
            this.0.record("trace_id", origin.trace.to_string());
        }
        this
    }

    /// Returns `tracing`'s span, to be entered.
    pub fn span(&self) -> &Span {
        &self.0
    }

    /// Returns what is traced below the handshake; `None` where it is not traced.
    pub fn origin(&self) -> Option<Origin> {
        if self.0.is_disabled() {
            return None;
        }
        let context = self.0.context();
        let span = context.span();
        let span = span.span_context();
        let trace = TraceId::from_number(u128::from_be_bytes(span.trace_id().to_bytes()))?;
        let parent = SpanId::from_number(u64::from_be_bytes(span.span_id().to_bytes()));
        span.is_sampled().then_some(Origin { trace, parent })
    }

    /// Notes how the request was answered.
    pub fn answered(&self, status: u16) {
        if self.0.is_disabled() {
            return;
        }
        self.0.set_attribute("http.response.status_code", i64::from(status));
        // A client's own mistake is no fault of the server's.
        if status >= 500 {
            self.0.set_attribute("error.type", status.to_string());
            self.0.set_status(Status::error("the handshake was refused"));
        }
    }

    /// Notes the name of the connection that came of it.
    pub fn connected(&self, connection: ConnectionId) {
        if !self.0.is_disabled() {
            self.0.set_attribute("brucke.connection", connection.to_string());
        }
    }
}

/// The target of these spans, by which logs and traces know them.
pub(in crate::telemetry) const HANDSHAKES: &str = "brucke::handshakes";
/// Where a request names the span that caused it.
const HEADERS: [&str; 2] = ["traceparent", "tracestate"];
