//! RFC 6455 without sockets: a client's bytes to messages, the server's
//! messages to bytes.
//!
//! `read` is the machine for a client's bytes and `header` what it checks
//! first; `write` makes whole frames. Extensions are none, so that reserved
//! bits are errors.

pub mod error;
pub mod header;
#[cfg(test)]
mod properties;
pub mod read;
pub mod write;
