//! The header of a client's frame, checked before a byte of its payload is
//! kept.

use crate::protocol::websocket::error::ReadError;

/// The longest payload of a Close, Ping or Pong frame.
pub const CONTROL_BYTES_MAX: usize = 125;
/// The longest header of a frame with a mask.
pub(crate) const MASKED_HEADER_BYTES_MAX: usize = 14;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    pub(crate) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// A header that keeps all rules that can be told from it alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) opcode: Opcode,
    /// Whether this is the last frame of its message.
    pub(crate) is_final: bool,
    pub(crate) payload_len: u64,
    pub(crate) mask: [u8; 4],
}

impl Header {
    /// Reads the header at the start of `bytes` and returns it with its length;
    /// `None` when more bytes are needed.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, ReadError> {
        let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
        let opcode = opcode(first)?;
        let is_final = first & 0x80 != 0;
        if second & 0x80 == 0 {
            return Err(ReadError::Protocol("a client's frame must be masked"));
        }
        let short = second & 0x7f;
        if opcode.is_control() && (!is_final || usize::from(short) > CONTROL_BYTES_MAX) {
            return Err(ReadError::Protocol("a control frame is one frame of at most 125 bytes"));
        }
        let (payload_len, len_bytes) = match short {
            126 => match rest.first_chunk() {
                Some(bytes) => (u64::from(u16::from_be_bytes(*bytes)), 2),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(bytes) => (u64::from_be_bytes(*bytes), 8),
                None => return Ok(None),
            },
            _ => (u64::from(short), 0),
        };
        let shortest = match len_bytes {
            0 => 0,
            2 => 126,
            _ => 1 << 16,
        };
        if payload_len < shortest || payload_len > i64::MAX as u64 {
            return Err(ReadError::Protocol("a frame's length is not in its shortest form"));
        }
        let Some(mask) = rest[len_bytes..].first_chunk() else { return Ok(None) };
        Ok(Some((Self { opcode, is_final, payload_len, mask: *mask }, 2 + len_bytes + 4)))
    }
}

fn opcode(first: u8) -> Result<Opcode, ReadError> {
    if first & 0x70 != 0 {
        return Err(ReadError::Protocol("a reserved bit is set and no extension was agreed"));
    }
    match first & 0x0f {
        0x0 => Ok(Opcode::Continuation),
        0x1 => Ok(Opcode::Text),
        0x2 => Ok(Opcode::Binary),
        0x8 => Ok(Opcode::Close),
        0x9 => Ok(Opcode::Ping),
        0xa => Ok(Opcode::Pong),
        _ => Err(ReadError::Protocol("the opcode of a frame is reserved")),
    }
}
