//! Proves against the log what a client got: nothing lost, repeated, out of
//! order, changed, or another tenant's.
//!
//! The log is what producers were told on acknowledgement. It knows nothing of
//! the ranges in which the server accounts for its offsets, so that a server
//! that lies about those is found out all the same.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::ops::AddAssign;

/// What producers were told is in the log.
#[derive(Debug, Default)]
pub struct Acknowledged {
    topics: HashMap<usize, BTreeMap<(u32, u64), Entry>>,
}

/// One record of the log, as a client of its tenant should see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub tenant: usize,
    pub key: String,
    /// Of the value's bytes; see [`checksum`].
    pub checksum: u64,
}

/// What a client asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub topic: usize,
    pub tenant: usize,
    pub filter: Filter,
}

/// Which keys a client asked for. Told apart here by other code than the
/// server's, which is under test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    All,
    Keys(Vec<String>),
    Prefix(String),
}

/// One record, as it reached an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub partition: u32,
    pub offset: u64,
    pub key: String,
    pub checksum: u64,
}

/// What is wrong with what a client got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Findings {
    /// Records that reached the application, each time.
    pub delivered: u64,
    pub lost: u64,
    pub repeated: u64,
    pub disordered: u64,
    /// Records of another tenant.
    pub foreign: u64,
    /// Records of the tenant with a key that was not asked for.
    pub unasked: u64,
    /// Records with another key or value than was produced.
    pub changed: u64,
    /// Records that nobody produced.
    pub invented: u64,
}

impl Findings {
    /// Says whether nothing is wrong.
    pub fn are_clean(self) -> bool {
        self == Self { delivered: self.delivered, ..Self::default() }
    }
}

impl AddAssign for Findings {
    fn add_assign(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.disordered += other.disordered;
        self.foreign += other.foreign;
        self.unasked += other.unasked;
        self.changed += other.changed;
        self.invented += other.invented;
    }
}

impl Filter {
    fn wants(&self, key: &str) -> bool {
        match self {
            Self::All => true,
            Self::Keys(keys) => keys.iter().any(|wanted| wanted == key),
            Self::Prefix(prefix) => key.starts_with(prefix.as_str()),
        }
    }
}

impl Acknowledged {
    /// Notes that the log has this record there.
    pub fn insert(&mut self, topic: usize, partition: u32, offset: u64, entry: Entry) {
        let before = self.topics.entry(topic).or_default().insert((partition, offset), entry);
        assert_eq!(before, None, "Kafka gave offset {offset} of partition {partition} twice");
    }

    /// Returns the next offset of each of `partitions` partitions.
    pub fn ends(&self, topic: usize, partitions: u32) -> Vec<u64> {
        let Some(records) = self.topics.get(&topic) else { return vec![0; partitions as usize] };
        let end = |partition| {
            let last = records.range((partition, 0)..(partition + 1, 0)).next_back();
            last.map_or(0, |((_, offset), _)| offset + 1)
        };
        (0..partitions).map(end).collect()
    }

    /// Compares what a client got, in the order in which it got it, to what it
    /// should have got from the first record on.
    pub fn check(&self, wanted: &Wanted, seen: &[Seen]) -> Findings {
        let nothing = BTreeMap::new();
        let log = self.topics.get(&wanted.topic).unwrap_or(&nothing);
        let mut findings = Findings::default();
        let mut spots = HashSet::new();
        let mut newest: HashMap<u32, u64> = HashMap::new();
        for record in seen {
            let spot = (record.partition, record.offset);
            findings.delivered += 1;
            if !spots.insert(spot) {
                findings.repeated += 1;
                continue;
            }
            let newest = newest.entry(record.partition).or_default();
            if record.offset < *newest {
                findings.disordered += 1;
            }
            *newest = record.offset.max(*newest);
            match log.get(&spot) {
                None => findings.invented += 1,
                Some(entry) if entry.tenant != wanted.tenant => findings.foreign += 1,
                Some(entry) if !wanted.filter.wants(&entry.key) => findings.unasked += 1,
                Some(entry) if entry.key != record.key || entry.checksum != record.checksum => {
                    findings.changed += 1;
                }
                Some(_) => {}
            }
        }
        let missing = log.iter().filter(|(spot, entry)| {
            entry.tenant == wanted.tenant
                && wanted.filter.wants(&entry.key)
                && !spots.contains(*spot)
        });
        findings.lost = missing.count() as u64;
        findings
    }
}

/// Returns the FNV-1a hash of `bytes`.
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACME: usize = 0;
    const OTHER: usize = 1;

    fn entry(tenant: usize, offset: u64) -> Entry {
        let key = ["eu-1", "eu-2", "us-1"][(offset / 2 % 3) as usize].to_owned();
        Entry { tenant, key, checksum: checksum(format!("{tenant} {offset}").as_bytes()) }
    }

    /// A log of two partitions: even offsets are Acme's, odd ones another's.
    fn log() -> Acknowledged {
        let mut log = Acknowledged::default();
        for partition in 0..2 {
            for offset in 0..12 {
                let tenant = if offset % 2 == 0 { ACME } else { OTHER };
                log.insert(0, partition, offset, entry(tenant, offset));
            }
        }
        log
    }

    fn seen(partition: u32, offset: u64, entry: &Entry) -> Seen {
        Seen { partition, offset, key: entry.key.clone(), checksum: entry.checksum }
    }

    /// All that a client of Acme's with `filter` should get.
    fn right(filter: &Filter) -> Vec<Seen> {
        let offsets = (0..2).flat_map(|partition| (0..12).step_by(2).map(move |o| (partition, o)));
        offsets
            .map(|(partition, offset)| seen(partition, offset, &entry(ACME, offset)))
            .filter(|record| filter.wants(&record.key))
            .collect()
    }

    /// Spoils the right history for `filter` and checks what is found.
    fn check(filter: Filter, spoil: impl FnOnce(&mut Vec<Seen>), expected: Findings) {
        let mut history = right(&filter);
        spoil(&mut history);
        let delivered = history.len() as u64;
        let wanted = Wanted { topic: 0, tenant: ACME, filter };
        assert_eq!(log().check(&wanted, &history), Findings { delivered, ..expected });
    }

    fn none() -> Findings {
        Findings::default()
    }

    #[test]
    fn a_right_history_is_not_accused() {
        let keys = ["eu-1", "us-1"].map(str::to_owned).to_vec();
        for filter in [Filter::All, Filter::Keys(keys), Filter::Prefix("eu-".to_owned())] {
            check(filter, |_| (), none());
        }
        // Partitions may come in any order among themselves.
        check(Filter::All, |history| history.sort_by_key(|record| record.offset), none());
        assert_eq!(log().ends(0, 3), [12, 12, 0]);
    }

    #[test]
    fn a_lost_record_is_found() {
        let lost = Findings { lost: 1, ..none() };
        for index in [0, 3, 11] {
            check(Filter::All, |history| drop(history.remove(index)), lost);
        }
        let all = Findings { lost: 12, ..none() };
        check(Filter::All, Vec::clear, all);
    }

    #[test]
    fn a_repeat_is_found() {
        let repeated = Findings { repeated: 1, ..none() };
        check(Filter::All, |history| history.insert(4, history[3].clone()), repeated);
        check(Filter::All, |history| history.push(history[0].clone()), repeated);
    }

    #[test]
    fn a_swap_is_found() {
        let disordered = Findings { disordered: 1, ..none() };
        check(Filter::All, |history| history.swap(2, 3), disordered);
    }

    #[test]
    fn a_wrong_byte_is_found() {
        let changed = Findings { changed: 1, ..none() };
        check(Filter::All, |history| history[5].checksum ^= 1, changed);
        check(Filter::All, |history| history[5].key.push('x'), changed);
        assert_ne!(checksum(b"acme 1"), checksum(b"acme 2"));
    }

    #[test]
    fn a_record_of_another_tenant_is_found() {
        let foreign = Findings { foreign: 1, ..none() };
        check(Filter::All, |history| history.insert(1, seen(0, 1, &entry(OTHER, 1))), foreign);
        // Also in the guise of our own.
        check(Filter::All, |history| history.insert(1, seen(0, 1, &entry(ACME, 1))), foreign);
    }

    #[test]
    fn a_record_that_nobody_asked_for_or_produced_is_found() {
        let unasked = Findings { unasked: 1, ..none() };
        let us = Filter::Prefix("us-".to_owned());
        check(us, |history| history.insert(0, seen(0, 0, &entry(ACME, 0))), unasked);
        let invented = Findings { invented: 1, ..none() };
        check(Filter::All, |history| history.push(seen(1, 12, &entry(ACME, 12))), invented);
    }
}
