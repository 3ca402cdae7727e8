//! One worker thread's mind: its connections, and what each of them gets.
//!
//! A [`shard::Shard`] is just a reader of the log. It keeps one cursor for each
//! partition that its connections follow; what comes there is matched once and
//! each frame is encoded once for all who follow the same feed. A subscription
//! is *live*, and then has no position of its own, or *behind*, and then reads
//! the log at its own cursors until it meets the shard's.
//!
//! ```text
//!              subscribe        start found             met the shard's cursors
//!   (absent) ───────────► Starting ───────► Behind ─────────────────────► Live
//!                                             ▲                             │
//!                                             └─────────────────────────────┘
//!                                        unsent bytes or window used up
//! ```
//!
//! Input goes in by `handle_*`; what is to be done comes out by `poll_output`.
//! This room never knows what a socket, a clock or a task is.

pub mod admission;
pub mod behind;
pub mod connection;
pub mod counts;
pub mod explain;
pub mod feed;
mod flight;
mod gone;
pub mod index;
mod leaving;
pub mod live;
pub mod outbox;
mod reading;
pub mod recent;
pub mod requests;
pub mod settings;
pub mod shard;
mod shelf;
pub mod source;
pub mod span;
pub mod start;
pub mod subscription;
pub mod tally;
pub mod terms;
pub mod traces;
mod tracing;
pub mod turns;
pub mod upkeep;
pub mod view;
