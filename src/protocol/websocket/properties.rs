//! What must hold of a client's bytes, however the network cuts them.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::protocol::close_code::CloseCode;
use crate::protocol::websocket::error::ReadError;
use crate::protocol::websocket::read::FrameReader;
use crate::protocol::websocket::read::Input;
use crate::protocol::websocket::read::Message;
use crate::protocol::websocket::write::close_frame;
use crate::protocol::websocket::write::close_reply;
use crate::protocol::websocket::write::ping_frame;
use crate::protocol::websocket::write::pong_frame;

const LIMIT: usize = 4 << 10;

/// A message as a test compares it: what it is, and its payload.
type Heard = (&'static str, Vec<u8>);

/// Feeds `reader` these bytes in one piece and returns what it said.
fn feed(reader: &mut FrameReader, bytes: &[u8], heard: &mut Vec<Heard>) -> Result<(), ReadError> {
    let mut bytes = bytes.to_vec();
    let mut input = Input::new(&mut bytes);
    while let Some(message) = reader.poll_message(&mut input)? {
        heard.push(match message {
            Message::Text(text) => ("text", text.as_bytes().to_vec()),
            Message::Binary(bytes) => ("binary", bytes.to_vec()),
            Message::Ping(bytes) => ("ping", bytes.to_vec()),
            Message::Pong(bytes) => ("pong", bytes.to_vec()),
            Message::Close(None) => ("close", Vec::new()),
            Message::Close(Some(close)) => {
                ("close", [&close.code.to_be_bytes(), close.reason.as_bytes()].concat())
            }
        });
    }
    Ok(())
}

fn read_in_pieces(bytes: &[u8], cuts: &[usize]) -> (Vec<Heard>, Result<(), ReadError>) {
    let mut reader = FrameReader::new(LIMIT);
    let mut heard = Vec::new();
    let mut from = 0;
    for to in cuts.iter().copied().chain([bytes.len()]) {
        if let Err(error) = feed(&mut reader, &bytes[from..to], &mut heard) {
            assert_eq!(feed(&mut reader, &bytes[to..], &mut heard), Ok(()), "the rest is ignored");
            assert_eq!(reader.buffered_bytes(), 0);
            return (heard, Err(error));
        }
        assert!(reader.buffered_bytes() <= 3 * LIMIT, "memory follows the limit");
        from = to;
    }
    (heard, Ok(()))
}

/// Writes a masked frame as a client does, its length in the shortest form.
fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..126 => bytes.push(0x80 | len as u8),
        len @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

fn plain(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, payload, [1, 2, 3, 4])
}

/// A data message with what its frames carry and the pings between them.
#[derive(Debug, Clone)]
struct Script {
    is_text: bool,
    parts: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    mask: [u8; 4],
}

impl Script {
    fn write(&self, bytes: &mut Vec<u8>, expected: &mut Vec<Heard>) {
        let mut whole = Vec::new();
        for (index, (part, ping)) in self.parts.iter().enumerate() {
            let opcode = match (index, self.is_text) {
                (0, true) => 1,
                (0, false) => 2,
                _ => 0,
            };
            let last = index + 1 == self.parts.len();
            bytes.extend(frame(if last { 0x80 | opcode } else { opcode }, part, self.mask));
            whole.extend_from_slice(part);
            let Some(ping) = ping else { continue };
            if last {
                expected.push((if self.is_text { "text" } else { "binary" }, whole.clone()));
            }
            bytes.extend(frame(0x89, ping, self.mask));
            expected.push(("ping", ping.clone()));
        }
        if self.parts.last().is_some_and(|(_, ping)| ping.is_none()) {
            expected.push((if self.is_text { "text" } else { "binary" }, whole));
        }
    }
}

fn script() -> impl Strategy<Value = Script> {
    let ping = prop::option::weighted(0.3, vec(any::<u8>(), 0..126));
    let binary = vec((vec(any::<u8>(), 0..300), ping.clone()), 1..5);
    let text = (any::<String>(), vec((any::<prop::sample::Index>(), ping), 1..5)).prop_map(
        |(text, cuts)| {
            // Frames may cut a character in two.
            let mut rest = text.into_bytes();
            let mut parts = Vec::new();
            let count = cuts.len();
            for (index, (at, ping)) in cuts.into_iter().enumerate() {
                let at = if index + 1 == count { rest.len() } else { at.index(rest.len() + 1) };
                let tail = rest.split_off(at);
                parts.push((rest, ping));
                rest = tail;
            }
            parts
        },
    );
    let parts =
        prop_oneof![binary.prop_map(|parts| (false, parts)), text.prop_map(|parts| (true, parts)),];
    (parts, any::<[u8; 4]>()).prop_map(|((is_text, parts), mask)| Script { is_text, parts, mask })
}

fn cuts(indices: &[prop::sample::Index], len: usize) -> Vec<usize> {
    let mut cuts: Vec<_> = indices.iter().map(|index| index.index(len + 1)).collect();
    cuts.sort_unstable();
    cuts
}

proptest! {
    #[test]
    fn messages_do_not_depend_on_where_the_network_cuts(
        scripts in vec(script(), 0..4),
        indices in vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        scripts.iter().for_each(|script| script.write(&mut bytes, &mut expected));
        bytes.extend(plain(0x88, b"\x03\xe8bye"));
        expected.push(("close", b"\x03\xe8bye".to_vec()));
        bytes.extend(b"whatever follows a Close frame");
        let (heard, result) = read_in_pieces(&bytes, &cuts(&indices, bytes.len()));
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(&heard, &expected);
        let every_byte: Vec<_> = (0..bytes.len()).collect();
        prop_assert_eq!(read_in_pieces(&bytes, &every_byte), (expected, Ok(())));
    }

    #[test]
    fn errors_do_not_depend_on_where_the_network_cuts(
        scripts in vec(script(), 1..4),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        indices in vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut bytes = Vec::new();
        scripts.iter().for_each(|script| script.write(&mut bytes, &mut Vec::new()));
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let whole = read_in_pieces(&bytes, &[]);
        prop_assert_eq!(read_in_pieces(&bytes, &cuts(&indices, bytes.len())), whole);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(
        bytes in vec(any::<u8>(), 0..400),
        indices in vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let whole = read_in_pieces(&bytes, &[]);
        prop_assert_eq!(read_in_pieces(&bytes, &cuts(&indices, bytes.len())), whole);
    }
}

fn check_refused(bytes: &[u8], code: CloseCode) {
    for cuts in [Vec::new(), (0..bytes.len()).collect()] {
        let (heard, result) = read_in_pieces(bytes, &cuts);
        let error = result.expect_err("refused");
        assert_eq!(error.close_code(), code, "{bytes:x?}: {error}");
        assert_eq!(heard, [], "{bytes:x?}");
    }
}

#[test]
fn a_frame_that_breaks_rfc_6455_ends_the_connection() {
    let protocol = CloseCode::ProtocolError;
    check_refused(&[0x81, 0x00], protocol);
    for first in [0xc1, 0xa1, 0x91, 0x83, 0x87, 0x8b, 0x8f] {
        check_refused(&plain(first, b""), protocol);
    }
    for control in [0x08, 0x09, 0x0a] {
        check_refused(&plain(control, b""), protocol);
        check_refused(&plain(0x80 | control, &[0; 126]), protocol);
    }
    check_refused(&plain(0x80, b"continues nothing"), protocol);
    check_refused(&[plain(0x01, b"a"), plain(0x81, b"b")].concat(), protocol);
    check_refused(&[0x82, 0xfe, 0, 125, 0, 0, 0, 0], protocol);
    check_refused(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0], protocol);
    check_refused(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], protocol);
    check_refused(&plain(0x88, b"\x03"), protocol);
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        check_refused(&plain(0x88, &code.to_be_bytes()), protocol);
    }
}

#[test]
fn a_close_frame_may_carry_any_code_that_may_be_sent() {
    let codes = [1000u16, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014];
    for code in codes.into_iter().chain([3000, 3999, 4000, 4999]) {
        let payload = code.to_be_bytes();
        let (heard, result) = read_in_pieces(&plain(0x88, &payload), &[]);
        assert_eq!((heard, result), (vec![("close", payload.to_vec())], Ok(())));
    }
}

#[test]
fn a_text_that_is_not_utf8_is_refused_as_soon_as_that_is_known() {
    let invalid = CloseCode::InvalidPayload;
    check_refused(&plain(0x81, b"\xff"), invalid);
    check_refused(&plain(0x81, b"half a character \xc3"), invalid);
    check_refused(&plain(0x88, b"\x03\xe8\xff"), invalid);
    // The frame goes on, and the message would too: F4 90 begins no character.
    let start = &plain(0x01, b"abc\xf4\x90 and so on")[..11];
    check_refused(start, invalid);
    check_refused(&[plain(0x01, b"\xc3"), plain(0x80, b"")].concat(), invalid);
}

#[test]
fn a_size_above_the_limit_is_refused_before_it_is_kept() {
    let mut reader = FrameReader::new(LIMIT);
    let header = [0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4];
    let error = feed(&mut reader, &header, &mut Vec::new()).expect_err("1 GiB");
    assert_eq!(error, ReadError::TooLarge { bytes: 1 << 30, limit: LIMIT });
    assert_eq!((error.close_code(), reader.buffered_bytes()), (CloseCode::TooLarge, 0));
    let half = [0; LIMIT / 2 + 1];
    check_refused(&[plain(0x02, &half), plain(0x80, &half)].concat(), CloseCode::TooLarge);
    let (heard, result) = read_in_pieces(&plain(0x82, &[7; LIMIT]), &[100]);
    assert_eq!((heard, result), (vec![("binary", vec![7; LIMIT])], Ok(())));
}

#[test]
fn the_limit_can_grow_with_trust() {
    let mut reader = FrameReader::new(LIMIT);
    reader.set_message_bytes_max(16 * LIMIT);
    let mut heard = Vec::new();
    let message = plain(0x82, &[7; 16 * LIMIT]);
    assert_eq!(feed(&mut reader, &message, &mut heard), Ok(()));
    assert_eq!(heard.len(), 1);
}

#[test]
fn empty_fragments_do_not_go_on_for_ever() {
    let mut bytes = plain(0x02, b"");
    for _ in 0..1_000_000 {
        bytes.extend(plain(0x00, b""));
    }
    let mut reader = FrameReader::new(LIMIT);
    let error = feed(&mut reader, &bytes, &mut Vec::new()).expect_err("a million");
    assert_eq!(error, ReadError::TooManyFragments { limit: 256 });
    assert_eq!(error.close_code(), CloseCode::RateLimited);
}

#[test]
fn nothing_is_kept_between_messages() {
    let mut reader = FrameReader::new(LIMIT);
    let bytes = [plain(0x01, b"ab"), plain(0x89, b"ping"), plain(0x80, b"cd")].concat();
    let mut heard = Vec::new();
    for byte in &bytes {
        assert_eq!(feed(&mut reader, &[*byte], &mut heard), Ok(()));
    }
    assert_eq!(heard, [("ping", b"ping".to_vec()), ("text", b"abcd".to_vec())]);
    assert_eq!(reader.buffered_bytes(), 0);
}

#[test]
fn a_payload_that_comes_after_its_header_is_not_taken_for_two_messages() {
    let message = plain(0x81, b"abc");
    let mut reader = FrameReader::new(LIMIT);
    let mut heard = Vec::new();
    for part in [&message[..6], &message[6..], &message[..]] {
        assert_eq!(feed(&mut reader, part, &mut heard), Ok(()));
    }
    assert_eq!(heard, [("text", b"abc".to_vec()), ("text", b"abc".to_vec())]);
}

#[test]
fn control_frames_are_written_whole() {
    assert_eq!(&close_frame(CloseCode::Draining).bytes()[..], b"\x88\x0a\x03\xf4draining");
    assert_eq!(&close_reply(None).bytes()[..], b"\x88\x00");
    assert_eq!(&close_reply(Some(1000)).bytes()[..], b"\x88\x02\x03\xe8");
    assert_eq!(&ping_frame(b"a").bytes()[..], b"\x89\x01a");
    assert_eq!(&pong_frame(&[0; 125]).bytes()[..2], b"\x8a\x7d");
}
