//! The operator's edge: health, metrics and the admin interface, on a listener of
//! its own.
//!
//! What is wrong is asked of a [`health::Health`], and all else of an
//! [`operator::Operator`], which the wiring provides: this room never knows Kafka, a
//! shard or a connection, and no answer of its holds a token or the value of a
//! record. `access` says who may ask, `accept` in which form metrics are wanted.

mod accept;
pub mod access;
pub mod config;
pub mod health;
mod interface;
pub mod listener;
pub mod operator;
