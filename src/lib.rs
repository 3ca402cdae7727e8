//! Brücke carries Kafka topics to browsers and services over WebSocket.
//!
//! The library is the house; `ARCHITECTURE.md` draws it. Imports go only
//! downward: `types`, then the pure rooms, then `delivery`, then the edges,
//! then the wiring.

pub mod admin;
pub mod app;
pub mod client;
pub mod config;
pub mod delivery;
pub mod kafka;
pub mod log;
pub mod protocol;
pub mod registry;
pub mod resume;
pub mod server;
pub mod telemetry;
pub mod tenancy;
pub mod types;
