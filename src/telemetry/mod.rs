//! The room `telemetry`.

pub mod config;
