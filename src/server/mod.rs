//! The room `server`.

pub mod config;
pub mod key;
pub mod origin;
pub mod token;
