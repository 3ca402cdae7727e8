//! The commands: what the binary does, and the wiring of the house.
//!
//! `cli` reads the arguments and chooses; each command has a file of its own.

pub mod cli;
pub mod config_command;
pub mod demo;
pub mod doctor;
pub mod explain;
pub mod health;
pub mod operator;
pub mod reload;
mod revocations;
mod rows;
mod scrape;
pub mod serve;
pub mod tail;
pub mod token_command;
mod topics;
