//! The client protocol: its vocabulary, its two encodings, its codes.
//!
//! `frame` holds the words; `json` and `protobuf` say them; `websocket` wraps
//! what they say into WebSocket frames. This room must never know what a
//! socket, a channel's configuration or a log is: it turns bytes into words
//! and words into bytes.

mod argument;
pub mod close_code;
pub mod decode_error;
#[cfg(test)]
mod documents;
pub mod encode;
pub mod error_code;
pub mod frame;
pub mod json;
pub mod message;
#[cfg(test)]
mod properties;
pub mod protobuf;
pub mod websocket;
