//! The whole pure core under one seed: a fake Kafka, two replicas, a bad network
//! and clients that come and go, on a clock that is moved by hand.
//!
//! `cargo test --test sim` runs many seeds. `SIM_SEEDS=n` changes how many,
//! `SIM_SEED=n` replays one, `SIM_TRACE=1` prints what happens in it. With the
//! feature `sabotage` the core is broken on purpose, in one way after the other,
//! and each must be found.

mod channels;
mod client;
mod excuses;
mod fair;
mod join;
mod kafka;
mod ledger;
mod link;
mod partition;
#[cfg(feature = "sabotage")]
mod planted;
mod profile;
mod replica;
mod room;
mod run;
mod scripted;
mod seeds;
mod socket;
mod trace;
mod world;
