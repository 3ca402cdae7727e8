//! Traces, as an operator sees them: spans on their way to a collector.
//!
//! Records and commands are traced by the shards, which hand over plain
//! [`SpanNote`]s; handshakes by `tracing`, through [`handshake::HandshakeSpan`].
//! Both end in one bounded queue, from which a thread of its own sends them by
//! OTLP. A collector that is slow or gone costs its spans and nothing else: what
//! finds no room in the queue, and what the collector did not take in time, is
//! dropped and counted.
//!
//! Only this folder names OpenTelemetry.
//!
//! [`SpanNote`]: crate::delivery::span::SpanNote

pub mod config;
pub mod exporter;
pub mod handshake;
pub mod pipeline;
pub mod queue;
pub mod settings;
mod span_data;
