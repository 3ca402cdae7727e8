//! The words of the protocol as protobuf.
//!
//! `wire` is what `proto/` says, as Rust; `client` and `server` turn it into
//! words and back; `records` writes the one frame that must be fast by hand;
//! `shape` refuses what a client may not send.

pub mod client;
pub(crate) mod records;
pub mod server;
mod shape;
mod wire;

use bytes::Bytes;

use crate::protocol::decode_error::DecodeError;
use crate::protocol::frame::ClientFrame;
use crate::protocol::message::ServerMessage;

/// Reads a client's frame.
///
/// # Errors
///
/// [`DecodeError`] for anything but a frame of the protocol, whole and exact:
/// unknown fields are not ignored.
pub fn decode(bytes: &[u8]) -> Result<ClientFrame, DecodeError> {
    client::read(bytes)
}

/// Writes a client's frame: what [`decode`] reads.
pub fn encode_client(frame: &ClientFrame) -> Vec<u8> {
    client::write(frame)
}

/// Reads a server's frame; keys, values and headers share its bytes. Unknown
/// fields are ignored, as every client should.
///
/// # Errors
///
/// [`DecodeError`] for anything but a frame that this version knows.
pub fn decode_server(bytes: Bytes) -> Result<ServerMessage, DecodeError> {
    server::read(bytes)
}
