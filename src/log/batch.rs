//! An immutable run of records that covers a range of offsets.

use std::time::Instant;

use crate::types::ids::Offset;
use crate::types::ids::Timestamp;
use crate::types::positions::Reached;
use crate::types::record::Headers;
use crate::types::record::Owner;
use crate::types::record::RawRecord;
use crate::types::record::Record;
use crate::types::record::Value;
use crate::types::trace::Origin;

/// A run of records of one partition: all that somebody may see in
/// `[from, to)`. Its bytes stand in one piece of memory and never change.
#[derive(Debug)]
pub struct Batch {
    from: Offset,
    to: Offset,
    received_at: Option<Instant>,
    reached: Option<Reached>,
    entries: Box<[Entry]>,
    data: Box<[u8]>,
    /// The few that are traced, in order; mostly empty.
    traced: Box<[Traced]>,
}

/// A record of a batch that is traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traced {
    /// Its place, as [`Batch::record`] counts.
    pub index: usize,
    pub origin: Origin,
}

impl Batch {
    /// Returns the first offset covered.
    pub fn from(&self) -> Offset {
        self.from
    }

    /// Returns the first offset no longer covered.
    pub fn to(&self) -> Offset {
        self.to
    }

    /// Notes when the records came.
    #[must_use]
    pub fn received(mut self, at: Instant) -> Self {
        self.received_at = Some(at);
        self
    }

    /// Returns when the records came; `None` where nobody noted it.
    pub fn received_at(&self) -> Option<Instant> {
        self.received_at
    }

    /// Notes in which leader's log its records stood.
    #[must_use]
    pub fn under(mut self, reached: Option<Reached>) -> Self {
        self.reached = reached;
        self
    }

    /// Returns in which leader's log what was read up to the batch's end stood, as far
    /// as that is known.
    pub fn reached(&self) -> Option<Reached> {
        self.reached
    }

    /// Returns when the last record was stamped.
    pub fn newest(&self) -> Option<Timestamp> {
        self.entries.last().map(|entry| entry.timestamp)
    }

    /// Returns how many records there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Says whether the range holds no record that anybody may see.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the bytes that the batch takes in memory.
    pub fn bytes(&self) -> u64 {
        let lists = size_of_val(&*self.entries) + size_of_val(&*self.traced);
        (size_of::<Self>() + lists + self.data.len()) as u64
    }

    /// Returns the traced records from `index` on, in order.
    pub fn traced_from(&self, index: usize) -> &[Traced] {
        let first = self.traced.partition_point(|traced| traced.index < index);
        &self.traced[first..]
    }

    /// Returns the record at `index`, counted from zero.
    pub fn record(&self, index: usize) -> Record<'_> {
        let entry = &self.entries[index];
        let at = entry.start as usize;
        let (tenant, rest) = self.data[at..].split_at(entry.tenant_len as usize);
        let (key, rest) = rest.split_at(entry.key_len.max(0) as usize);
        let (headers, rest) = rest.split_at(entry.headers_len as usize);
        let value = &rest[..entry.value_len as usize];
        Record {
            offset: entry.offset,
            timestamp: entry.timestamp,
            owner: match entry.tenant_len {
                0 => Owner::Shared,
                _ => Owner::Tenant(str::from_utf8(tenant).expect("written from a str")),
            },
            key: (entry.key_len >= 0).then_some(key),
            value: match entry.kind {
                ValueKind::Null => Value::Null,
                ValueKind::Json => {
                    // SAFETY: `push` gives this kind only to bytes that it has
                    // checked to be UTF-8, and a batch never changes.
                    Value::Json(unsafe { str::from_utf8_unchecked(value) })
                }
                ValueKind::Bytes => Value::Bytes(value),
            },
            headers: Headers::packed(headers),
        }
    }

    /// Returns the place of the first record at or after `offset`.
    pub fn index_at(&self, offset: Offset) -> usize {
        if offset <= self.from {
            return 0;
        }
        self.entries.partition_point(|entry| entry.offset < offset)
    }
}

/// Collects the records of one batch, in the order of their offsets.
#[derive(Debug)]
pub struct BatchBuilder {
    from: Offset,
    to: Offset,
    entries: Vec<Entry>,
    data: Vec<u8>,
    traced: Vec<Traced>,
}

impl BatchBuilder {
    /// Begins a batch that covers offsets from `from` on.
    pub fn new(from: Offset) -> Self {
        Self { from, to: from, entries: Vec::new(), data: Vec::new(), traced: Vec::new() }
    }

    /// Adds a record that `owner` may see under `key`, which may be a part of
    /// Kafka's own key.
    ///
    /// # Panics
    ///
    /// When offsets do not grow: Kafka never gives them otherwise.
    pub fn push(&mut self, record: &RawRecord<'_>, owner: Owner<'_>, key: Option<&[u8]>) {
        self.skip_to(record.offset.next());
        let tenant = match owner {
            Owner::Shared => "",
            Owner::Tenant(tenant) => {
                assert!(!tenant.is_empty(), "a tenant has a name");
                tenant
            }
        };
        let start = u32_len(self.data.len());
        self.data.extend_from_slice(tenant.as_bytes());
        self.data.extend_from_slice(key.unwrap_or_default());
        let headers_start = self.data.len();
        Headers::pack(record.headers, &mut self.data);
        let headers_len = u32_len(self.data.len() - headers_start);
        self.data.extend_from_slice(record.value.unwrap_or_default());
        self.entries.push(Entry {
            offset: record.offset,
            timestamp: record.timestamp,
            start,
            tenant_len: u32_len(tenant.len()),
            key_len: key.map_or(-1, |key| i32::try_from(key.len()).expect("Kafka bounds keys")),
            headers_len,
            value_len: u32_len(record.value.map_or(0, <[u8]>::len)),
            kind: ValueKind::of(record.value),
        });
    }

    /// Notes that the record which was pushed last is traced.
    ///
    /// # Panics
    ///
    /// When none was pushed.
    pub fn trace(&mut self, origin: Origin) {
        let index = self.entries.len().checked_sub(1).expect("a record was pushed");
        self.traced.push(Traced { index, origin });
    }

    /// Covers all offsets below `to`: those not pushed are seen by nobody.
    ///
    /// # Panics
    ///
    /// When a record at or above `to` was pushed.
    pub fn skip_to(&mut self, to: Offset) {
        assert!(self.to <= to, "offsets grow: at {}, asked to go to {to}", self.to);
        self.to = to;
    }

    /// Returns the first offset that is not covered yet.
    pub fn to(&self) -> Offset {
        self.to
    }

    /// Returns the bytes collected so far.
    pub fn bytes(&self) -> usize {
        self.data.len() + self.entries.len() * size_of::<Entry>()
    }

    /// Says whether the batch covers nothing at all.
    pub fn covers_nothing(&self) -> bool {
        self.from == self.to
    }

    /// Ends the batch.
    pub fn finish(self) -> Batch {
        Batch {
            from: self.from,
            to: self.to,
            received_at: None,
            reached: None,
            entries: self.entries.into_boxed_slice(),
            data: self.data.into_boxed_slice(),
            traced: self.traced.into_boxed_slice(),
        }
    }
}

/// Where one record stands in `data`: tenant, key, headers, value, in a row.
#[derive(Debug)]
struct Entry {
    offset: Offset,
    timestamp: Timestamp,
    start: u32,
    tenant_len: u32,
    /// -1 for a record without a key.
    key_len: i32,
    headers_len: u32,
    value_len: u32,
    kind: ValueKind,
}

#[derive(Debug, Clone, Copy)]
enum ValueKind {
    Null,
    Json,
    Bytes,
}

impl ValueKind {
    fn of(value: Option<&[u8]>) -> Self {
        let Some(value) = value else { return Self::Null };
        let Ok(text) = str::from_utf8(value) else { return Self::Bytes };
        match serde_json::from_str::<serde::de::IgnoredAny>(text) {
            Ok(_) if depth(text.as_bytes()) <= JSON_DEPTH_MAX => Self::Json,
            _ => Self::Bytes,
        }
    }
}

/// Deeper values travel as bytes: clients' parsers recurse, and one record must
/// not stop a client from reading the frame that it shares with others.
const JSON_DEPTH_MAX: usize = 128;

/// Returns how deep valid JSON is nested, or less where it can't be too deep.
fn depth(json: &[u8]) -> usize {
    if memchr::memchr2_iter(b'[', b'{', json).count() <= JSON_DEPTH_MAX {
        return 0;
    }
    let (mut depth, mut deepest, mut bytes) = (0_usize, 0, json.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Goes on after the end of a string whose begin has been read.
fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

fn u32_len(len: usize) -> u32 {
    u32::try_from(len).expect("a batch stays far below 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::trace::TraceId;

    fn offset(raw: i64) -> Offset {
        Offset::from_kafka(raw).expect("not negative")
    }

    fn raw<'a>(at: i64, key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> RawRecord<'a> {
        RawRecord {
            offset: offset(at),
            timestamp: Timestamp::from_millis(at),
            key,
            value,
            headers: &[("h", Some(b"v")), ("n", None)],
        }
    }

    #[test]
    fn records_come_back_as_they_were_pushed() {
        let mut builder = BatchBuilder::new(offset(5));
        builder.push(&raw(7, Some(b"k"), Some(b"{\"a\": 1}")), Owner::Tenant("acme"), Some(b"k"));
        builder.push(&raw(9, None, None), Owner::Shared, None);
        builder.push(&raw(10, Some(b""), Some(b"\xff")), Owner::Shared, Some(b""));
        builder.skip_to(offset(20));
        let batch = builder.finish();
        assert_eq!((batch.from(), batch.to(), batch.len()), (offset(5), offset(20), 3));
        let first = batch.record(0);
        assert_eq!(first.owner, Owner::Tenant("acme"));
        assert_eq!(first.key, Some(&b"k"[..]));
        assert_eq!(first.value, Value::Json("{\"a\": 1}"));
        assert_eq!(first.headers.collect::<Vec<_>>(), [("h", Some(&b"v"[..])), ("n", None)]);
        assert_eq!((batch.record(1).key, batch.record(1).value), (None, Value::Null));
        assert_eq!(batch.record(2).key, Some(&b""[..]));
        assert_eq!(batch.record(2).value, Value::Bytes(b"\xff"));
    }

    #[test]
    fn traced_records_are_found_from_any_place_on() {
        let origin = |number| Origin {
            trace: TraceId::from_number(number).expect("not zero"),
            parent: None,
        };
        let mut builder = BatchBuilder::new(offset(0));
        for at in 0..4_u8 {
            builder.push(&raw(i64::from(at), None, None), Owner::Shared, None);
            if at % 2 == 1 {
                builder.trace(origin(u128::from(at)));
            }
        }
        let batch = builder.finish();
        let found = |from| batch.traced_from(from).iter().map(|t| t.index).collect::<Vec<_>>();
        assert_eq!((found(0), found(1), found(2)), (vec![1, 3], vec![1, 3], vec![3]));
        assert_eq!((found(4), batch.traced_from(3)[0].origin), (vec![], origin(3)));
    }

    #[test]
    fn a_hole_is_found_from_both_sides() {
        let mut builder = BatchBuilder::new(offset(0));
        builder.push(&raw(3, None, None), Owner::Shared, None);
        builder.push(&raw(8, None, None), Owner::Shared, None);
        let batch = builder.finish();
        for (at, index) in [(0, 0), (3, 0), (4, 1), (8, 1), (9, 2)] {
            assert_eq!(batch.index_at(offset(at)), index, "offset {at}");
        }
    }

    #[test]
    fn json_with_bad_utf8_or_depth_is_only_bytes() {
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        for value in [&b"\"\xff\""[..], b"{", b"", deep.as_bytes()] {
            let mut builder = BatchBuilder::new(offset(0));
            builder.push(&raw(0, None, Some(value)), Owner::Shared, None);
            assert_eq!(builder.finish().record(0).value, Value::Bytes(value));
        }
    }

    #[test]
    fn many_values_and_brackets_in_strings_are_not_depth() {
        let wide = format!("[{}[]]", "[],".repeat(1_000));
        let text = format!("[\"{}\\\"{}\"]", "[".repeat(500), "{".repeat(500));
        for value in [wide, text] {
            let mut builder = BatchBuilder::new(offset(0));
            builder.push(&raw(0, None, Some(value.as_bytes())), Owner::Shared, None);
            assert_eq!(builder.finish().record(0).value, Value::Json(&value));
        }
    }
}
