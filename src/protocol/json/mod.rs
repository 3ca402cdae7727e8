//! The words of the protocol as JSON text.
//!
//! `client` and `server` read and write the frames of either side, `records`
//! writes the one frame that must be fast; `tree` and `text` are their tools.

pub mod client;
pub(crate) mod records;
pub mod server;
mod text;
pub(crate) mod time;
mod tree;

use crate::protocol::decode_error::DecodeError;
use crate::protocol::frame::ClientFrame;
use crate::protocol::message::ServerMessage;

/// Reads a client's frame.
///
/// # Errors
///
/// [`DecodeError`] for anything but a frame of the protocol, whole and exact:
/// unknown fields and types are not ignored.
pub fn decode(text: &str) -> Result<ClientFrame, DecodeError> {
    client::read(text)
}

/// Writes a client's frame: what [`decode`] reads.
pub fn encode_client(frame: &ClientFrame) -> String {
    client::write(frame)
}

/// Reads a server's frame. Unknown fields are ignored, as every client should.
///
/// # Errors
///
/// [`DecodeError`] for anything but a frame that this version knows.
pub fn decode_server(text: &str) -> Result<ServerMessage, DecodeError> {
    server::read(text)
}
