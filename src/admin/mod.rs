//! The operator's edge: health and metrics, on a listener of its own.
//!
//! What is wrong is asked of a [`health::Health`] that the wiring provides: this
//! room never knows Kafka, a shard or a connection, and no answer of its holds a
//! token, a key of a record or a client's address.

pub mod config;
pub mod health;
pub mod listener;
