//! Identities and places: who, which topic, which partition, which offset.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// Shows what a type wraps as that shows itself, also in `{:?}`.
macro_rules! shown_as_content {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

/// Position of a record within one partition. Counts records, not bytes.
///
/// Offsets grow but may skip: compaction and transactions leave holes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(u64);

impl Offset {
    /// The first offset that a partition can have.
    pub const ZERO: Offset = Offset(0);
    /// Above every offset that a record can have.
    pub const MAX: Offset = Offset(i64::MAX as u64);

    /// Wraps a raw Kafka offset; `None` for librdkafka's negative sentinels.
    pub fn from_kafka(raw: i64) -> Option<Self> {
        u64::try_from(raw).ok().map(Self)
    }

    /// Wraps an offset that a client sent; `None` above Kafka's largest.
    pub fn from_client(raw: u64) -> Option<Self> {
        (raw <= i64::MAX as u64).then_some(Self(raw))
    }

    /// Returns the least offset a reader may want after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Returns how many offsets lie in `[self, end)`; 0 when `end` is below.
    pub fn distance_to(self, end: Offset) -> u64 {
        end.0.saturating_sub(self.0)
    }

    /// Returns the raw number, as it stands on the wire.
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// Returns the number as Kafka's clients want it.
    pub fn as_kafka(self) -> i64 {
        i64::try_from(self.0).expect("both constructors stay within i64")
    }
}

shown_as_content!(Offset);

/// Number of a partition within its topic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(u32);

impl PartitionId {
    /// Wraps a raw Kafka partition number; `None` when negative.
    pub fn from_kafka(raw: i32) -> Option<Self> {
        u32::try_from(raw).ok().map(Self)
    }

    /// Wraps a partition number that a client sent; `None` above Kafka's largest.
    pub fn from_client(raw: u32) -> Option<Self> {
        (raw <= i32::MAX as u32).then_some(Self(raw))
    }

    /// Wraps a place in a list of partitions, which are numbered from zero.
    pub fn from_index(index: usize) -> Self {
        Self(u32::try_from(index).expect("Kafka numbers partitions with 31 bits"))
    }

    /// Returns the place of this partition in a list of all partitions.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// Returns the raw number, as it stands on the wire.
    pub fn as_u32(self) -> u32 {
        self.0
    }

    /// Returns the number as Kafka's clients want it.
    pub fn as_kafka(self) -> i32 {
        i32::try_from(self.0).expect("both constructors stay within i32")
    }
}

shown_as_content!(PartitionId);

/// How often a partition has had a new leader (KIP-101). A log that was cut off
/// goes on under a higher one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaderEpoch(u32);

impl LeaderEpoch {
    /// Reads what Kafka's clients say; `None` where they don't know, which is -1.
    pub fn from_kafka(raw: i32) -> Option<Self> {
        u32::try_from(raw).ok().map(Self)
    }

    /// Reads what a client names; `None` above Kafka's highest.
    pub fn from_client(raw: u64) -> Option<Self> {
        i32::try_from(raw).ok().and_then(Self::from_kafka)
    }

    /// Returns the number.
    pub fn as_u32(self) -> u32 {
        self.0
    }

    /// Returns the number as Kafka's clients want it.
    pub fn as_kafka(self) -> i32 {
        i32::try_from(self.0).expect("both constructors stay within i32")
    }
}

shown_as_content!(LeaderEpoch);

/// Identity of a topic (KIP-516): a topic that is deleted and made again under
/// the same name has another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(u128);

impl TopicId {
    /// The id of a topic on a cluster that has no topic ids, such as a mock.
    pub const UNKNOWN: TopicId = TopicId(0);

    /// Joins the two halves in which Kafka's clients carry a topic id.
    pub fn from_kafka(most_significant: i64, least_significant: i64) -> Self {
        let high = u128::from(most_significant.cast_unsigned());
        let low = u128::from(least_significant.cast_unsigned());
        Self(high << 64 | low)
    }

    /// Reads the text form, 32 hexadecimal digits; `None` for anything else.
    pub fn from_client(text: &str) -> Option<Self> {
        let plain = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        plain.then(|| Self(u128::from_str_radix(text, 16).expect("32 hexadecimal digits fit")))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Defines a name: text that is cheap to clone and compares byte by byte.
///
/// Two names are equal only when their bytes are: case, separators and Unicode
/// form all tell names apart.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps a name that has been checked where it entered.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// Returns the name's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        shown_as_content!($name);
    };
}

name! {
    /// What clients call a feed of records; the configuration maps it to a topic.
    ChannelName
}
name! {
    /// Name of a Kafka topic.
    TopicName
}
name! {
    /// Whose a record or a client is.
    TenantId
}

/// Defines a small number that names something.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident($raw:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($raw);

        impl $name {
            /// Wraps the raw number.
            pub const fn new(raw: $raw) -> Self {
                Self(raw)
            }

            /// Returns the raw number.
            pub const fn raw(self) -> $raw {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// Number that a client gave to one of its requests; the reply repeats it.
    RequestId(u64)
}
number! {
    /// The server's number of a feed, as frames carry it; below 2^53, so that
    /// every JSON parser reads it exactly.
    SubId(u64)
}
number! {
    /// One connection, unique within the life of a process.
    ConnectionId(u64)
}
number! {
    /// One topic read under one tenancy rule, within one process.
    SourceId(u32)
}
number! {
    /// One worker thread's share of the connections.
    ShardId(u16)
}

/// Milliseconds since the Unix epoch, as Kafka stamps its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Wraps milliseconds since the Unix epoch; -1 means that Kafka has none.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Returns milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }
}

impl From<SystemTime> for Timestamp {
    /// Takes the time of a clock; one before 1970 is 0.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}
