//! The client's end of a WebSocket: masked frames out, server frames in.

use bytes::Bytes;

/// What a server's frame holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    Text(String),
    Binary(Bytes),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

/// Bytes from the server, of which not everything has come.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    buffer: Vec<u8>,
}

impl Reader {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next whole frame.
    ///
    /// # Errors
    ///
    /// A frame that no server may send.
    pub(crate) fn next(&mut self) -> Result<Option<Incoming>, String> {
        let [first, second, rest @ ..] = &self.buffer[..] else { return Ok(None) };
        let (extended, len) = match second & 0x7f {
            126 => (2, rest.get(..2).map(|b| u64::from(u16::from_be_bytes([b[0], b[1]])))),
            127 => {
                let eight = rest.get(..8).map(|b| b.try_into().expect("eight bytes"));
                (8, eight.map(u64::from_be_bytes))
            }
            short => (0, Some(u64::from(short))),
        };
        let Some(len) = len else { return Ok(None) };
        let start = 2 + extended;
        let end = start + usize::try_from(len).map_err(|error| error.to_string())?;
        if self.buffer.len() < end {
            return Ok(None);
        }
        if first & 0xf0 != 0x80 || second & 0x80 != 0 {
            return Err(format!("the server sent a frame that begins {first:02x} {second:02x}"));
        }
        let (opcode, payload) = (first & 0x0f, self.buffer[start..end].to_vec());
        self.buffer.drain(..end);
        let incoming = match opcode {
            1 => Incoming::Text(String::from_utf8(payload).map_err(|error| error.to_string())?),
            2 => Incoming::Binary(payload.into()),
            8 => Incoming::Close(payload.get(..2).map(|b| u16::from_be_bytes([b[0], b[1]]))),
            9 => Incoming::Ping(payload),
            10 => Incoming::Pong,
            other => return Err(format!("the server sent opcode {other}")),
        };
        Ok(Some(incoming))
    }
}

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PONG: u8 = 10;

/// Appends a message to `out`, masked, sometimes in several frames.
pub(crate) fn write(out: &mut Vec<u8>, opcode: u8, payload: &[u8], rng: &mut fastrand::Rng) {
    let is_data = opcode < CLOSE;
    let cut = if is_data && rng.u8(0..8) == 0 { rng.usize(0..=payload.len()) } else { 0 };
    if cut > 0 {
        write_frame(out, opcode, &payload[..cut], rng);
        write_frame(out, 0x80, &payload[cut..], rng);
    } else {
        write_frame(out, 0x80 | opcode, payload, rng);
    }
}

fn write_frame(out: &mut Vec<u8>, first: u8, payload: &[u8], rng: &mut fastrand::Rng) {
    out.push(first);
    match payload.len() {
        short @ 0..126 => out.push(0x80 | short as u8),
        medium @ 126..0x1_0000 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    let mask = rng.u32(..).to_be_bytes();
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}
