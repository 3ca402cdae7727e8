//! Writing JSON text into a buffer of bytes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::types::positions::Epochs;
use crate::types::positions::Positions;
use crate::types::positions::Reached;

/// Writes `"name":` and the like; the caller writes the value after it.
pub(crate) struct ObjectWriter<'a> {
    out: &'a mut Vec<u8>,
    separator: u8,
}

impl<'a> ObjectWriter<'a> {
    /// Opens an object.
    pub(crate) fn open(out: &'a mut Vec<u8>) -> Self {
        Self { out, separator: b'{' }
    }

    /// Opens a frame of this type.
    pub(crate) fn frame(out: &'a mut Vec<u8>, name: &str) -> Self {
        let mut object = Self::open(out);
        object.text("type", name);
        object
    }

    /// Writes the name of a field and returns the buffer for its value.
    pub(crate) fn field(&mut self, name: &str) -> &mut Vec<u8> {
        self.out.push(self.separator);
        self.separator = b',';
        write_string(self.out, name);
        self.out.push(b':');
        self.out
    }

    pub(crate) fn text(&mut self, name: &str, text: &str) {
        write_string(self.field(name), text);
    }

    pub(crate) fn number(&mut self, name: &str, number: u64) {
        write_number(self.field(name), number);
    }

    pub(crate) fn boolean(&mut self, name: &str, value: bool) {
        self.field(name).extend_from_slice(if value { b"true" } else { b"false" });
    }

    pub(crate) fn positions(&mut self, name: &str, positions: &Positions) {
        let mut object = ObjectWriter::open(self.field(name));
        let mut digits = itoa::Buffer::new();
        for (partition, offset) in positions {
            object.number(digits.format(partition.as_u32()), offset.as_u64());
        }
        object.close();
    }

    /// Writes in which leaders' logs stood what was read, where any is known.
    pub(crate) fn epochs(&mut self, epochs: &Epochs) {
        if epochs.is_empty() {
            return;
        }
        let mut object = ObjectWriter::open(self.field("epochs"));
        let mut digits = itoa::Buffer::new();
        for (partition, epoch) in epochs {
            write_epoch(object.field(digits.format(partition.as_u32())), *epoch);
        }
        object.close();
    }

    /// Closes the object.
    pub(crate) fn close(self) {
        if self.separator == b'{' {
            self.out.push(b'{');
        }
        self.out.push(b'}');
    }
}

/// Writes a number.
pub(crate) fn write_number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes in which leader's log stood what was read up to where.
pub(crate) fn write_epoch(out: &mut Vec<u8>, Reached { epoch, to }: Reached) {
    out.push(b'[');
    write_number(out, epoch.as_u32());
    out.push(b',');
    write_number(out, to.as_u64());
    out.push(b']');
}

/// Writes a string with its quotes.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    // Most texts need no escape and are copied whole.
    while let Some(at) = rest.iter().position(|byte| needs_escape(*byte)) {
        out.extend_from_slice(&rest[..at]);
        write_escape(out, rest[at]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Writes bytes as a string of base64, standard alphabet, padded.
pub(crate) fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    STANDARD.encode_slice(bytes, &mut out[start..]).expect("room for the encoded form was made");
    out.push(b'"');
}

/// Reads what [`write_base64`] writes; `None` for anything else.
pub(crate) fn read_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

#[cold]
fn write_escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => {
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        }
    }
}
