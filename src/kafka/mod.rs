//! The Kafka edge: the only room that names rdkafka.
//!
//! `control` runs the intake on a thread of its own and hands its tasks to the
//! threads that may block: `reader` follows partitions live, `history` reads
//! old ranges back, `admin` asks about topics and offsets. Answers come back to
//! the control thread, so the intake needs no lock.
//!
//! ```text
//! shards ──Command──► control (Intake) ──► reader ──► log ──► Directory::wake
//!                        ▲      ├────────► history ─┘
//!                        └──────┴────────► admin
//! ```
//!
//! `journal` reads what replicas tell each other, and `confirmed` writes it: both apart
//! from all this. `embedded` is a cluster within the process, for the demo and quick tests.
//! Unsafe code stands in `native` alone. This room never knows what a
//! connection, a subscription or a tenant's claim is.

pub mod config;
pub mod confirmed;
pub mod control;
pub mod embedded;
pub mod error;
pub mod inspect;
pub mod journal;
pub mod peek;
pub mod producer;
pub mod statistics;
pub mod status;

mod admin;
mod answer;
mod classify;
mod client;
mod epochs;
mod follower;
mod history;
mod inbox;
mod native;
mod reader;
