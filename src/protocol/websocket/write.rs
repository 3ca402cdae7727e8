//! Writing a server's frames, which are not masked.

use bytes::Buf;
use bytes::Bytes;

use crate::protocol::close_code::CloseCode;
use crate::protocol::encode::WireFrame;
use crate::protocol::websocket::header::CONTROL_BYTES_MAX;

/// The longest header of a frame without a mask.
pub const HEADER_BYTES_MAX: usize = 10;

/// What a message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    Text,
    Binary,
}

/// Makes a whole frame of `buffer`, whose payload starts at `payload_start`:
/// the header goes into the room before it.
///
/// # Panics
///
/// When there are less than [`HEADER_BYTES_MAX`] bytes of room.
pub fn seal(mut buffer: Vec<u8>, payload_start: usize, kind: MessageKind) -> WireFrame {
    assert!(payload_start >= HEADER_BYTES_MAX, "room for the header is kept by who writes");
    let first = match kind {
        MessageKind::Text => 0x81,
        MessageKind::Binary => 0x82,
    };
    let len = buffer.len() - payload_start;
    let mut header = [first, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let header_len = match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short), _) if short < 126 => {
            header[1] = short;
            2
        }
        (_, Ok(medium)) => {
            header[1] = 126;
            header[2..4].copy_from_slice(&medium.to_be_bytes());
            4
        }
        _ => {
            header[1] = 127;
            header[2..10].copy_from_slice(&(len as u64).to_be_bytes());
            10
        }
    };
    let start = payload_start - header_len;
    buffer[start..payload_start].copy_from_slice(&header[..header_len]);
    let mut bytes = Bytes::from(buffer);
    bytes.advance(start);
    WireFrame::new(bytes)
}

/// Returns a Close frame with this code and its name as the reason.
pub fn close_frame(code: CloseCode) -> WireFrame {
    let mut payload = code.number().to_be_bytes().to_vec();
    payload.extend_from_slice(code.name().as_bytes());
    control(0x88, &payload)
}

/// Returns the answer to a peer's Close frame, which repeats its code.
pub fn close_reply(code: Option<u16>) -> WireFrame {
    match code {
        Some(code) => control(0x88, &code.to_be_bytes()),
        None => control(0x88, &[]),
    }
}

/// Returns a Ping frame.
///
/// # Panics
///
/// When the payload is longer than 125 bytes.
pub fn ping_frame(payload: &[u8]) -> WireFrame {
    control(0x89, payload)
}

/// Returns the answer to a Ping frame with this payload.
///
/// # Panics
///
/// When the payload is longer than 125 bytes.
pub fn pong_frame(payload: &[u8]) -> WireFrame {
    control(0x8a, payload)
}

fn control(first: u8, payload: &[u8]) -> WireFrame {
    assert!(payload.len() <= CONTROL_BYTES_MAX, "a control frame is short");
    let mut bytes = Vec::with_capacity(2 + payload.len());
    bytes.push(first);
    bytes.push(u8::try_from(payload.len()).expect("checked above"));
    bytes.extend_from_slice(payload);
    WireFrame::new(Bytes::from(bytes))
}
