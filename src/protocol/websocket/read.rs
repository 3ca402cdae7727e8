//! A client's bytes to messages.

use std::mem;

use crate::protocol::websocket::error::ReadError;
use crate::protocol::websocket::header::Header;
use crate::protocol::websocket::header::MASKED_HEADER_BYTES_MAX;
use crate::protocol::websocket::header::Opcode;

/// One message of a client's, or one control frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    /// The peer closes. Whatever follows is not read.
    Close(Option<PeerClose<'a>>),
}

/// Why the peer closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerClose<'a> {
    /// A code that RFC 6455 lets a peer send.
    pub code: u16,
    pub reason: &'a str,
}

/// Bytes as they came from the socket, and how many of them are used up.
#[derive(Debug)]
pub struct Input<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Input<'a> {
    /// Wraps bytes that nobody has read yet. Payloads are unmasked in place.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    fn use_up(&mut self) {
        self.at = self.bytes.len();
    }
}

/// Turns a client's bytes into messages, however the network cuts them.
///
/// ```text
///              header complete          payload complete, last of its message
///   Between ───────────────────▶ Inside ───────────────────▶ a message, Between
///      ▲                           │ payload complete, more to come
///      └───────────────────────────┘
///   Close received, or any error ──▶ Ended: the rest is ignored
/// ```
///
/// It keeps bytes only while a frame or message is incomplete: a message that
/// lies whole in the input is handed out from there, and between messages
/// nothing is held.
#[derive(Debug)]
pub struct FrameReader {
    message_bytes_max: usize,
    state: State,
    /// The data message under way, of which not everything has come.
    message: Option<Box<Assembly>>,
    /// The payload of a control frame, of which not everything has come.
    control: Vec<u8>,
    /// An assembled payload, until the next call.
    handed_out: Vec<u8>,
}

#[derive(Debug)]
enum State {
    /// Before a frame, with as much of its header as has come.
    Between { header: [u8; MASKED_HEADER_BYTES_MAX], header_len: usize },
    /// In the payload of a frame, of which `got` bytes have come.
    Inside { header: Header, got: usize },
    /// After a Close frame or an error.
    Ended,
}

const BETWEEN: State = State::Between { header: [0; MASKED_HEADER_BYTES_MAX], header_len: 0 };

/// Where a payload stands that is complete.
enum Payload {
    /// So many bytes of the input, just used up.
    Input(usize),
    HandedOut,
}

/// How reading goes on.
enum Step {
    Complete(Opcode, Payload),
    /// At the next frame.
    NextFrame,
    /// When more bytes have come.
    NeedInput,
}

impl FrameReader {
    /// Makes a reader that takes messages of at most so many bytes.
    pub fn new(message_bytes_max: usize) -> Self {
        Self {
            message_bytes_max,
            state: BETWEEN,
            message: None,
            control: Vec::new(),
            handed_out: Vec::new(),
        }
    }

    /// Changes the limit, from the next frame on.
    pub fn set_message_bytes_max(&mut self, message_bytes_max: usize) {
        self.message_bytes_max = message_bytes_max;
    }

    /// Returns how many bytes are kept for what is incomplete.
    pub fn buffered_bytes(&self) -> usize {
        self.message.as_ref().map_or(0, |message| message.bytes.capacity())
            + self.control.capacity()
            + self.handed_out.capacity()
    }

    /// Returns the next message; `None` once all of `input` is used up. Call it
    /// until then, so that nothing is lost and no buffer is kept.
    ///
    /// # Errors
    ///
    /// [`ReadError`], after which the connection must be closed; whatever else
    /// comes is ignored.
    pub fn poll_message<'a>(
        &'a mut self,
        input: &'a mut Input<'_>,
    ) -> Result<Option<Message<'a>>, ReadError> {
        self.handed_out = Vec::new();
        let step = self.advance(input).inspect_err(|_| self.end())?;
        let Some((opcode, payload)) = step else { return Ok(None) };
        if opcode == Opcode::Close {
            self.end();
        }
        let payload = match payload {
            Payload::Input(len) => &input.bytes[input.at - len..input.at],
            Payload::HandedOut => &self.handed_out[..],
        };
        let message = match opcode {
            Opcode::Ping => Ok(Message::Ping(payload)),
            Opcode::Pong => Ok(Message::Pong(payload)),
            Opcode::Close => peer_close(payload).map(Message::Close),
            Opcode::Binary => Ok(Message::Binary(payload)),
            Opcode::Text | Opcode::Continuation => text(payload).map(Message::Text),
        };
        if message.is_err() {
            // Not by `end`, for what is handed out may still be borrowed here.
            self.state = State::Ended;
        }
        message.map(Some)
    }

    /// Gives up whatever is incomplete.
    fn end(&mut self) {
        self.state = State::Ended;
        self.message = None;
        self.control = Vec::new();
    }

    /// Goes on until a message is complete or the input is used up.
    fn advance(&mut self, input: &mut Input<'_>) -> Result<Option<(Opcode, Payload)>, ReadError> {
        loop {
            let step = match self.state {
                State::Between { header, header_len } => {
                    self.read_header(header, header_len, input)?
                }
                State::Inside { header, got } => self.read_payload(header, got, input)?,
                State::Ended => {
                    input.use_up();
                    Step::NeedInput
                }
            };
            match step {
                Step::Complete(opcode, payload) => return Ok(Some((opcode, payload))),
                Step::NextFrame => {}
                Step::NeedInput => return Ok(None),
            }
        }
    }

    fn read_header(
        &mut self,
        mut header: [u8; MASKED_HEADER_BYTES_MAX],
        had: usize,
        input: &mut Input<'_>,
    ) -> Result<Step, ReadError> {
        let rest = input.rest();
        let taken = rest.len().min(MASKED_HEADER_BYTES_MAX - had);
        let header_len = had + taken;
        header[had..header_len].copy_from_slice(&rest[..taken]);
        match Header::parse(&header[..header_len])? {
            Some((header, used)) => {
                input.at += used - had;
                self.begin_frame(header)?;
                self.state = State::Inside { header, got: 0 };
                Ok(Step::NextFrame)
            }
            None => {
                input.at += taken;
                self.state = State::Between { header, header_len };
                Ok(Step::NeedInput)
            }
        }
    }

    /// Checks a frame by its header and by what came before it.
    fn begin_frame(&mut self, header: Header) -> Result<(), ReadError> {
        if header.opcode.is_control() {
            return Ok(());
        }
        let limit = self.message_bytes_max;
        let bytes_before = match (&mut self.message, header.opcode) {
            (Some(message), Opcode::Continuation) => {
                message.frames += 1;
                let frames_max = frames_max(limit);
                if message.frames > frames_max {
                    return Err(ReadError::TooManyFragments { limit: frames_max });
                }
                message.bytes.len() as u64
            }
            (None, Opcode::Continuation) => {
                return Err(ReadError::Protocol("a continuation of no message"));
            }
            (Some(_), _) => {
                return Err(ReadError::Protocol("a new message before the last one's end"));
            }
            (None, _) => 0,
        };
        // The header keeps lengths below 2^63, so that the sum fits.
        let bytes = bytes_before + header.payload_len;
        match bytes > limit as u64 {
            true => Err(ReadError::TooLarge { bytes, limit }),
            false => Ok(()),
        }
    }

    fn read_payload(
        &mut self,
        header: Header,
        got: usize,
        input: &mut Input<'_>,
    ) -> Result<Step, ReadError> {
        let len = usize::try_from(header.payload_len).expect("checked against the limit");
        let taken = (len - got).min(input.rest().len());
        if taken == 0 && got < len {
            // Nothing has come, so nothing is begun: the payload may yet come
            // in one piece.
            return Ok(Step::NeedInput);
        }
        let opcode = header.opcode;
        let part = &mut input.bytes[input.at..input.at + taken];
        input.at += taken;
        unmask(part, header.mask, got);
        if taken == len && header.is_final && opcode != Opcode::Continuation {
            self.state = BETWEEN;
            return Ok(Step::Complete(opcode, Payload::Input(len)));
        }
        if opcode.is_control() {
            self.control.extend_from_slice(part);
        } else {
            self.message.get_or_insert_with(|| Box::new(Assembly::new(opcode))).append(part)?;
        }
        if got + taken < len {
            self.state = State::Inside { header, got: got + taken };
            return Ok(Step::NeedInput);
        }
        self.state = BETWEEN;
        if opcode.is_control() {
            self.handed_out = mem::take(&mut self.control);
            return Ok(Step::Complete(opcode, Payload::HandedOut));
        }
        match header.is_final {
            true => {
                let message = self.message.take().expect("it was appended to above");
                self.handed_out = message.bytes;
                Ok(Step::Complete(message.opcode, Payload::HandedOut))
            }
            false => Ok(Step::NextFrame),
        }
    }
}

/// A data message of which not everything has come.
#[derive(Debug)]
struct Assembly {
    /// Text or Binary.
    opcode: Opcode,
    frames: usize,
    bytes: Vec<u8>,
    /// How many bytes at the start of a text are known to be UTF-8.
    utf8_len: usize,
}

impl Assembly {
    fn new(opcode: Opcode) -> Self {
        Self { opcode, frames: 1, bytes: Vec::new(), utf8_len: 0 }
    }

    /// Adds what came. A text that can't become UTF-8 any more is refused at
    /// once, not at its end.
    fn append(&mut self, part: &[u8]) -> Result<(), ReadError> {
        self.bytes.extend_from_slice(part);
        if self.opcode == Opcode::Binary {
            return Ok(());
        }
        match str::from_utf8(&self.bytes[self.utf8_len..]) {
            Ok(text) => self.utf8_len += text.len(),
            // The last character is not complete.
            Err(error) if error.error_len().is_none() => self.utf8_len += error.valid_up_to(),
            Err(_) => return Err(ReadError::NotUtf8),
        }
        Ok(())
    }
}

/// Returns how many frames a message may come in: one for each 16 bytes that
/// it may have, so that empty frames can't go on for ever.
fn frames_max(message_bytes_max: usize) -> usize {
    (message_bytes_max / 16).max(16)
}

fn text(payload: &[u8]) -> Result<&str, ReadError> {
    str::from_utf8(payload).map_err(|_| ReadError::NotUtf8)
}

fn peer_close(payload: &[u8]) -> Result<Option<PeerClose<'_>>, ReadError> {
    let [high, low, reason @ ..] = payload else {
        return match payload.is_empty() {
            true => Ok(None),
            false => Err(ReadError::Protocol("a Close frame of one byte")),
        };
    };
    let code = u16::from_be_bytes([*high, *low]);
    match code {
        // RFC 6455, 7.4 and the registry that it opens.
        1000..=1003 | 1007..=1014 | 3000..=4999 => {
            Ok(Some(PeerClose { code, reason: text(reason)? }))
        }
        _ => Err(ReadError::Protocol("a Close frame with a code that may not be sent")),
    }
}

/// Unmasks a part of a payload that starts at `at`.
fn unmask(part: &mut [u8], mut mask: [u8; 4], at: usize) {
    mask.rotate_left(at % 4);
    let word = u64::from(u32::from_ne_bytes(mask));
    let word = word << 32 | word;
    let mut words = part.chunks_exact_mut(8);
    for eight in &mut words {
        let bytes: [u8; 8] = (&*eight).try_into().expect("chunks of eight");
        eight.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ word).to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}
