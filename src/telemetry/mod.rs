//! What operators see: logs, metrics and traces. `metric` is the table of all metrics,
//! `recorder` keeps them, `publish` is what a worker counts, `events` are the
//! things that happen now and then, `log` is how lines are written, `traces` tells
//! spans to a collector.
//!
//! No token, no key of a record and no name that a client chose freely is ever
//! written here: labels and fields are bounded or our own.

pub mod config;
pub mod events;
pub mod log;
pub mod metric;
pub mod publish;
pub mod recorder;
pub mod traces;
