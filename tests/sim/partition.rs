//! One partition of the fake Kafka, with all that it ever held: the oracle.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use brucke::types::ids::TenantId;
use brucke::types::ids::Timestamp;

/// What a producer wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    /// Whose it is under the topic's own rule; `None` when that can't be told.
    pub(crate) owner: Option<TenantId>,
    pub(crate) timestamp: Timestamp,
    /// The key as Kafka has it.
    pub(crate) key: Option<Vec<u8>>,
    /// The key as clients of the topic's own channel see it.
    pub(crate) own_key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

/// A record at one offset, in one line of the log's history.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) content: Rc<Content>,
    pub(crate) state: State,
    /// In which epoch it was written, and in which it was cut off.
    pub(crate) born: u32,
    pub(crate) died: u32,
    pub(crate) compacted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Of a transaction that is open.
    Open(u64),
    Committed,
    Aborted,
}

/// The log became shorter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Truncation {
    pub(crate) to: u64,
    pub(crate) at: Instant,
    /// When every replica had noticed.
    pub(crate) settled_at: Option<Instant>,
}

#[derive(Debug)]
struct Transaction {
    id: u64,
    first: u64,
    /// The marker's offset; `None` while it is open.
    marker: Option<u64>,
}

/// One partition.
#[derive(Debug, Default)]
pub(crate) struct Partition {
    pub(crate) start: u64,
    /// The highest start that there ever was.
    pub(crate) start_max: u64,
    pub(crate) end: u64,
    pub(crate) epoch: u32,
    /// Where the log of each leader began, but for the first.
    epoch_starts: Vec<(u32, u64)>,
    pub(crate) versions: BTreeMap<u64, Vec<Version>>,
    pub(crate) truncations: Vec<Truncation>,
    /// No broker leads it before this moment.
    pub(crate) leaderless_until: Option<Instant>,
    /// When it last had a leader again.
    led_since: Option<Instant>,
    transactions: Vec<Transaction>,
}

/// What one fetch brought.
#[derive(Debug)]
pub(crate) enum Fetched {
    OutOfRange,
    /// Records up to `to`; nothing else that is visible lies between.
    Records {
        records: Vec<(u64, Rc<Content>)>,
        to: u64,
        /// By which leader the last record was taken.
        epoch: Option<u32>,
    },
}

impl Partition {
    /// Returns the last stable offset: nothing at or above it is visible.
    pub(crate) fn stable_end(&self) -> u64 {
        let open = self.transactions.iter().filter(|t| t.marker.is_none()).map(|t| t.first);
        open.min().unwrap_or(self.end).max(self.start)
    }

    /// Says whether some broker answers for it.
    pub(crate) fn has_leader(&self) -> bool {
        self.leaderless_until.is_none()
    }

    /// Gives it a leader again.
    pub(crate) fn find_leader(&mut self, now: Instant) {
        if self.leaderless_until.take().is_some() {
            self.led_since = Some(now);
            self.change_leader();
        }
    }

    /// Says whether it has had a leader since that moment without a break.
    pub(crate) fn is_led_since(&self, at: Instant) -> bool {
        self.has_leader() && self.led_since.is_none_or(|since| since < at)
    }

    /// Says whether nothing may be written: what was cut off must be noticed
    /// before other records take its place, for nobody could tell them apart
    /// without leader epochs.
    pub(crate) fn is_frozen(&self) -> bool {
        self.truncations.iter().any(|cut| cut.settled_at.is_none())
    }

    pub(crate) fn append(&mut self, content: Content, state: State) -> u64 {
        let offset = self.end;
        let version = Version {
            content: Rc::new(content),
            state,
            born: self.epoch,
            died: u32::MAX,
            compacted: false,
        };
        self.versions.entry(offset).or_default().push(version);
        self.end += 1;
        offset
    }

    pub(crate) fn open_transactions(&self) -> Vec<u64> {
        self.transactions.iter().filter(|t| t.marker.is_none()).map(|t| t.id).collect()
    }

    /// Appends a record of a transaction, which begins with its first one.
    pub(crate) fn append_to(&mut self, transaction: u64, content: Content) {
        let first = self.append(content, State::Open(transaction));
        if !self.transactions.iter().any(|t| t.id == transaction) {
            self.transactions.push(Transaction { id: transaction, first, marker: None });
        }
    }

    /// Ends a transaction; its marker takes an offset.
    pub(crate) fn end_transaction(&mut self, id: u64, outcome: State) {
        let Some(transaction) = self.transactions.iter_mut().find(|t| t.id == id) else { return };
        transaction.marker = Some(self.end);
        self.end += 1;
        let first = transaction.first;
        for version in self.versions.range_mut(first..).flat_map(|(_, versions)| versions) {
            if version.state == State::Open(id) {
                version.state = outcome;
            }
        }
    }

    /// Removes records below `to`, as retention or DeleteRecords does.
    pub(crate) fn delete_before(&mut self, to: u64) {
        self.start = self.start.max(to.min(self.stable_end()));
        self.start_max = self.start_max.max(self.start);
    }

    /// Removes records that a newer one with the same key replaces.
    pub(crate) fn compact(&mut self, mut chosen: impl FnMut() -> bool) {
        let (start, end) = (self.start, self.stable_end());
        let mut newer: Vec<Option<Vec<u8>>> = Vec::new();
        for (_, versions) in self.versions.range_mut(start..end).rev() {
            let Some(version) = versions.iter_mut().find(|v| v.is_visible()) else { continue };
            let key = version.content.key.clone();
            if key.is_none() {
                continue;
            }
            if newer.contains(&key) {
                version.compacted |= chosen();
            } else {
                newer.push(key);
            }
        }
    }

    /// Cuts the log off at `to`, as an unclean election does; says whether it
    /// could. A transaction is cut off whole or not at all, for otherwise what
    /// was stable would be no longer.
    pub(crate) fn truncate(&mut self, to: u64, at: Instant) -> bool {
        let whole = |t: &Transaction| to <= t.first || t.marker.is_some_and(|marker| to > marker);
        if to >= self.end || !self.transactions.iter().all(whole) {
            return false;
        }
        self.transactions.retain(|t| t.first < to);
        for version in self.versions.range_mut(to..).flat_map(|(_, versions)| versions) {
            if version.died == u32::MAX {
                version.died = self.epoch;
            }
        }
        self.end = to;
        self.change_leader();
        self.start = self.start.min(to);
        self.truncations.push(Truncation { to, at, settled_at: None });
        true
    }

    /// Lets the log go on under another leader, which has all of it.
    pub(crate) fn change_leader(&mut self) {
        self.epoch += 1;
        // A later leader's log began where nothing of it is left.
        self.epoch_starts.retain(|(_, start)| *start < self.end);
        self.epoch_starts.push((self.epoch, self.end));
    }

    /// Returns where the log of a leader ends now, as Kafka says it; `None` of one that
    /// there never was.
    pub(crate) fn end_of_epoch(&self, epoch: u32) -> Option<u64> {
        let later = self.epoch_starts.iter().find(|(later, _)| *later > epoch);
        (epoch <= self.epoch).then(|| later.map_or(self.end, |(_, start)| *start))
    }

    /// Reads what is visible from `from` on, at most so many records.
    pub(crate) fn fetch(&self, from: u64, records_max: usize) -> Fetched {
        if from < self.start || from > self.end {
            return Fetched::OutOfRange;
        }
        let stable_end = self.stable_end().max(from);
        let mut records = Vec::new();
        let mut epoch = None;
        for (&offset, versions) in self.versions.range(from..stable_end) {
            let Some(version) = versions.iter().find(|version| version.is_visible()) else {
                continue;
            };
            if records.len() == records_max {
                let to = records.last().map_or(from, |(last, _)| last + 1);
                return Fetched::Records { records, to, epoch };
            }
            records.push((offset, Rc::clone(&version.content)));
            epoch = Some(version.born);
        }
        Fetched::Records { records, to: stable_end, epoch }
    }

    /// Returns the first visible offset stamped at or after `at`.
    pub(crate) fn offset_at(&self, at: Timestamp) -> u64 {
        let stable_end = self.stable_end();
        let mut visible = self.visible(self.start, stable_end);
        visible
            .find(|(_, version)| version.content.timestamp >= at)
            .map_or(stable_end, |(offset, _)| offset)
    }

    /// Returns what can be read now in `[from, to)`.
    pub(crate) fn visible(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, &Version)> {
        let from = from.max(self.start);
        let to = to.min(self.stable_end()).max(from);
        let versions = self.versions.range(from..to);
        versions.filter_map(|(offset, versions)| {
            versions.iter().find(|version| version.is_visible()).map(|version| (*offset, version))
        })
    }
}

impl Version {
    fn is_visible(&self) -> bool {
        self.died == u32::MAX && self.state == State::Committed && !self.compacted
    }

    /// Says whether it stood in the log as it was in this epoch.
    pub(crate) fn lived_in(&self, epoch: u32) -> bool {
        self.born <= epoch && epoch <= self.died
    }
}
