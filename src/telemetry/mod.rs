//! What operators see: logs and metrics. `metric` is the table of all metrics,
//! `recorder` keeps them, `publish` is what a worker counts, `events` are the
//! things that happen now and then, `log` is how lines are written.
//!
//! No token, no key of a record and no name that a client chose freely is ever
//! written here: labels and fields are bounded or our own.

pub mod config;
pub mod events;
pub mod log;
pub mod metric;
pub mod publish;
pub mod recorder;
