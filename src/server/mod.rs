//! The room `server`.

pub mod config;
pub mod key;
pub mod origin;
pub mod signing_key;
pub mod token;
