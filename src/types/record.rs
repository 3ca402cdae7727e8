//! One record, as it is read from Kafka and as it stands in memory.

use crate::types::ids::Offset;
use crate::types::ids::Timestamp;

/// Whose a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner<'a> {
    /// Every tenant may see it: the configuration says so in so many words.
    Shared,
    /// This tenant's, and nobody else's.
    Tenant(&'a str),
}

/// A record as Kafka gave it, before its tenant is told.
#[derive(Debug, Clone, Copy)]
pub struct RawRecord<'a> {
    pub offset: Offset,
    pub timestamp: Timestamp,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// A record in memory: what is matched, encoded and sent.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    pub offset: Offset,
    pub timestamp: Timestamp,
    pub owner: Owner<'a>,
    /// The key as clients see it, which may be a part of Kafka's key.
    pub key: Option<&'a [u8]>,
    pub value: Value<'a>,
    pub headers: Headers<'a>,
}

/// The value of a record, told apart once, when it is read from Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A tombstone.
    Null,
    /// Valid JSON text, which JSON frames embed byte for byte.
    Json(&'a str),
    /// Anything else.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// Returns the raw bytes; `None` for a tombstone.
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        match self {
            Self::Null => None,
            Self::Json(text) => Some(text.as_bytes()),
            Self::Bytes(bytes) => Some(bytes),
        }
    }
}

/// The headers of a record, packed; iterate for names and values.
///
/// Packed as, for each header: name length (u32, little endian), name, value
/// length (u32, [`u32::MAX`] for none), value.
#[derive(Debug, Clone, Copy, Default)]
pub struct Headers<'a>(&'a [u8]);

impl<'a> Headers<'a> {
    /// Appends the packed form of `headers` to `out`.
    pub fn pack(headers: &[(&str, Option<&[u8]>)], out: &mut Vec<u8>) {
        for (name, value) in headers {
            out.extend_from_slice(&length(name.len()).to_le_bytes());
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(&value.map_or(ABSENT, |v| length(v.len())).to_le_bytes());
            out.extend_from_slice(value.unwrap_or_default());
        }
    }

    /// Wraps bytes that [`Headers::pack`] wrote.
    pub fn packed(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Says whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let name_len = take_length(&mut self.0);
        let name = take(&mut self.0, name_len as usize);
        let name = std::str::from_utf8(name).expect("packed from a str");
        let value = match take_length(&mut self.0) {
            ABSENT => None,
            len => Some(take(&mut self.0, len as usize)),
        };
        Some((name, value))
    }
}

const ABSENT: u32 = u32::MAX;

fn length(len: usize) -> u32 {
    u32::try_from(len).expect("Kafka bounds a record at 2 GiB")
}

fn take<'a>(from: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, rest) = from.split_at(len);
    *from = rest;
    taken
}

fn take_length(from: &mut &[u8]) -> u32 {
    u32::from_le_bytes(take(from, 4).try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_were_packed() {
        let headers: &[(&str, Option<&[u8]>)] =
            &[("a", Some(b"1")), ("", None), ("a", Some(b"")), ("traceparent", Some(b"\xff"))];
        let mut packed = Vec::new();
        Headers::pack(headers, &mut packed);
        assert_eq!(Headers::packed(&packed).collect::<Vec<_>>(), headers);
        assert!(Headers::packed(&[]).next().is_none());
    }
}
