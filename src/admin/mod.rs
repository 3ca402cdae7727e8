//! The room `admin`.

pub mod config;
