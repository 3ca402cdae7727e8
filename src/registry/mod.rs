//! Which sources are wanted on this replica, by which shards, and what has to
//! be asked of Kafka for them.
//!
//! `intake` is the mind of the Kafka side: a machine without a clock or a
//! thread, which turns what shards want into tasks for the room `kafka` and
//! what `kafka` finds into events for the shards. `directory` holds what all
//! threads share. This room never knows what rdkafka or a connection is.

pub mod directory;
mod following;
pub mod history;
pub mod intake;
pub mod labels;
pub mod message;
mod placing;
mod questions;
mod source;
mod stalls;
mod turns;
