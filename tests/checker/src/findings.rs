//! What can be wrong with what a client got.

use std::ops::AddAssign;

/// A kind of fault. Counts are of records where not said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A record that Kafka has, and the client never got.
    Lost,
    /// A record that reached the application more than once.
    Repeated,
    /// A record that reached the application after a later one of its partition.
    Disordered,
    /// An offset under which two values were seen, or seen and produced.
    Inconsistent,
    /// A record of another tenant, or one whose tenant can't be told.
    Foreign,
    /// A record with a key that was not asked for.
    Unasked,
    /// A record of a transaction that was aborted.
    Aborted,
    /// A frame whose range does not join what came before, or is none.
    Unjoined,
    /// A subscription that did not begin where it was asked to begin.
    Misplaced,
    /// A gap that names offsets which were not gone, or a topic that the
    /// subscription's was not made again as.
    FalseGap,
    /// A record that Kafka removed before the client got it, and no gap said so; or a
    /// topic that was made again, and none did.
    MissingGap,
    /// A gap that was told too late.
    LateGap,
    /// A time without progress while there was data and a client that read.
    Stuck,
}

impl Kind {
    /// All kinds, in the order of the table.
    pub const ALL: [Self; 13] = [
        Self::Lost,
        Self::Repeated,
        Self::Disordered,
        Self::Inconsistent,
        Self::Foreign,
        Self::Unasked,
        Self::Aborted,
        Self::Unjoined,
        Self::Misplaced,
        Self::FalseGap,
        Self::MissingGap,
        Self::LateGap,
        Self::Stuck,
    ];

    /// Returns the name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Repeated => "repeated",
            Self::Disordered => "out of order",
            Self::Inconsistent => "inconsistent",
            Self::Foreign => "foreign",
            Self::Unasked => "unasked",
            Self::Aborted => "aborted",
            Self::Unjoined => "unjoined",
            Self::Misplaced => "misplaced",
            Self::FalseGap => "false gap",
            Self::MissingGap => "missing gap",
            Self::LateGap => "late gap",
            Self::Stuck => "stuck",
        }
    }
}

/// How much was wrong, by kind, with the first examples in words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    counts: [u64; Kind::ALL.len()],
    pub examples: Vec<String>,
}

impl Findings {
    /// Notes a fault; `example` says which, if one more example is kept.
    pub fn accuse(&mut self, kind: Kind, example: impl FnOnce() -> String) {
        self.counts[kind as usize] += 1;
        if self.counts[kind as usize] <= EXAMPLES_MAX {
            self.examples.push(format!("{}: {}", kind.name(), example()));
        }
    }

    /// Returns how much was found of one kind.
    pub fn of(&self, kind: Kind) -> u64 {
        self.counts[kind as usize]
    }

    /// Says whether nothing is wrong.
    pub fn are_clean(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }
}

impl AddAssign for Findings {
    fn add_assign(&mut self, other: Self) {
        let room = self.counts.map(|count| EXAMPLES_MAX.saturating_sub(count));
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        for (kind, room) in Kind::ALL.into_iter().zip(room) {
            let name = format!("{}: ", kind.name());
            let ours = other.examples.iter().filter(|example| example.starts_with(&name));
            let room = usize::try_from(room).expect("few examples");
            self.examples.extend(ours.take(room).cloned());
        }
    }
}

/// Examples of each kind that are kept in words.
const EXAMPLES_MAX: u64 = 6;
