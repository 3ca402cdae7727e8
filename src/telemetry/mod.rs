//! What operators see: logs, metrics and traces. `metric` is the table of all
//! metrics, `recorder` keeps them, `latency` those that are histograms, `publish` is
//! what a worker counts, `exposition` writes what is read where it stands, `events`
//! are the things that happen now and then, `arrivals` those before a client has its
//! WebSocket, `log` is how lines are written, `traces`
//! tells spans to a collector.
//!
//! No token, no key of a record and no name that a client chose freely is ever
//! written here: labels and fields are bounded or our own.

pub mod arrivals;
pub mod config;
pub mod events;
pub mod exposition;
pub mod latency;
pub mod log;
pub mod metric;
pub mod publish;
pub mod recorder;
pub mod traces;
