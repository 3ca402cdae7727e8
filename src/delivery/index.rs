//! From a record to the feeds that want it, however many feeds there are.
//!
//! What a record costs depends on how many feeds match it and on how many
//! different lengths of prefixes its tenant asks for; not on how many feeds
//! exist.

use std::hash::Hash;
use std::ops::Range;

use hashbrown::Equivalent;
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::log::batch::Batch;
use crate::types::filter::KeyFilter;
use crate::types::ids::TenantId;
use crate::types::record::Owner;
use crate::types::record::Record;

/// Place of a feed in its shard.
pub type FeedSlot = usize;

/// Feeds of one place: mostly one, more where channels share a topic.
type Feeds = SmallVec<[FeedSlot; 1]>;

/// The feeds of one source.
#[derive(Debug, Default)]
pub struct Index {
    all: HashMap<OptionTenant, Feeds>,
    keys: HashMap<TenantKey, Feeds>,
    prefixes: HashMap<TenantKey, Feeds>,
    /// How many prefixes there are of each length.
    prefix_lengths: HashMap<OptionTenant, Vec<(usize, usize)>>,
}

/// A tenant; `None` stands for the feeds of a shared source.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OptionTenant(Option<TenantId>);

/// A tenant and a key or prefix: two fields, never joined text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TenantKey(Option<TenantId>, Key);

/// Bytes of a key: short ones stand in the table itself, where a look at them
/// costs no other line of the cache.
type Key = SmallVec<[u8; 24]>;

#[derive(Debug, Clone, Copy)]
struct TenantRef<'a>(Option<&'a str>);

#[derive(Debug, Clone, Copy)]
struct KeyRef<'a>(Option<&'a str>, &'a [u8]);

impl Hash for OptionTenant {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        TenantRef(self.0.as_ref().map(TenantId::as_str)).hash(state);
    }
}

impl Hash for TenantRef<'_> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Hash for TenantKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        KeyRef(self.0.as_ref().map(TenantId::as_str), &self.1).hash(state);
    }
}

impl Hash for KeyRef<'_> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
        self.1.hash(state);
    }
}

impl Equivalent<OptionTenant> for TenantRef<'_> {
    fn equivalent(&self, key: &OptionTenant) -> bool {
        self.0 == key.0.as_ref().map(TenantId::as_str)
    }
}

impl Equivalent<TenantKey> for KeyRef<'_> {
    fn equivalent(&self, key: &TenantKey) -> bool {
        self.0 == key.0.as_ref().map(TenantId::as_str) && self.1 == key.1.as_slice()
    }
}

impl Index {
    /// Adds a feed.
    pub fn insert(&mut self, tenant: Option<&TenantId>, filter: &KeyFilter, feed: FeedSlot) {
        let tenant = tenant.cloned();
        match filter {
            KeyFilter::All => self.all.entry(OptionTenant(tenant)).or_default().push(feed),
            KeyFilter::Keys(keys) => {
                for key in keys {
                    self.keys
                        .entry(TenantKey(tenant.clone(), Key::from_slice(key)))
                        .or_default()
                        .push(feed);
                }
            }
            KeyFilter::Prefix(prefix) => {
                let place = TenantKey(tenant.clone(), Key::from_slice(prefix));
                self.prefixes.entry(place).or_default().push(feed);
                let lengths = self.prefix_lengths.entry(OptionTenant(tenant)).or_default();
                match lengths.iter_mut().find(|(length, _)| *length == prefix.len()) {
                    Some((_, count)) => *count += 1,
                    None => lengths.push((prefix.len(), 1)),
                }
            }
        }
    }

    /// Takes a feed out again.
    pub fn remove(&mut self, tenant: Option<&TenantId>, filter: &KeyFilter, feed: FeedSlot) {
        let tenant = tenant.cloned();
        match filter {
            KeyFilter::All => take_out(&mut self.all, &OptionTenant(tenant), feed),
            KeyFilter::Keys(keys) => {
                for key in keys {
                    take_out(
                        &mut self.keys,
                        &TenantKey(tenant.clone(), Key::from_slice(key)),
                        feed,
                    );
                }
            }
            KeyFilter::Prefix(prefix) => {
                let place = TenantKey(tenant.clone(), Key::from_slice(prefix));
                take_out(&mut self.prefixes, &place, feed);
                let place = OptionTenant(tenant);
                let lengths = self.prefix_lengths.get_mut(&place).expect("inserted with it");
                for (length, count) in lengths.iter_mut() {
                    *count -= usize::from(*length == prefix.len());
                }
                lengths.retain(|(_, count)| *count > 0);
                if lengths.is_empty() {
                    self.prefix_lengths.remove(&place);
                }
            }
        }
    }

    /// Calls `found` with each feed that wants `record`, once each.
    pub fn matches(&self, record: &Record<'_>, mut found: impl FnMut(FeedSlot)) {
        let tenant = match record.owner {
            Owner::Shared => None,
            Owner::Tenant(tenant) => Some(tenant),
        };
        if let Some(feeds) = self.all.get(&TenantRef(tenant)) {
            feeds.iter().copied().for_each(&mut found);
        }
        let Some(key) = record.key else { return };
        if let Some(feeds) = self.keys.get(&KeyRef(tenant, key)) {
            feeds.iter().copied().for_each(&mut found);
        }
        if self.prefix_lengths.is_empty() {
            return;
        }
        let Some(lengths) = self.prefix_lengths.get(&TenantRef(tenant)) else { return };
        for (length, _) in lengths {
            if let Some(prefix) = key.get(..*length)
                && let Some(feeds) = self.prefixes.get(&KeyRef(tenant, prefix))
            {
                feeds.iter().copied().for_each(&mut found);
            }
        }
    }
}

/// The feeds that want each record of a run. The run is looked up as a whole: where
/// there are more keys than a cache holds, the processor then waits for several
/// places of the table at once and not for one after the other.
#[derive(Debug, Default)]
pub struct Matched {
    feeds: Vec<FeedSlot>,
    /// Each record's place in its batch, and where its feeds end.
    records: Vec<(usize, usize)>,
}

impl Matched {
    /// Finds the feeds of these records of `batch`.
    pub fn find(&mut self, index: &Index, batch: &Batch, run: Range<usize>) {
        self.feeds.clear();
        self.records.clear();
        for at in run {
            index.matches(&batch.record(at), |feed| self.feeds.push(feed));
            self.records.push((at, self.feeds.len()));
        }
    }

    /// Returns each record's place in its batch, and its feeds.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &[FeedSlot])> {
        self.records.iter().scan(0, |start, (at, end)| {
            let feeds = &self.feeds[*start..*end];
            *start = *end;
            Some((*at, feeds))
        })
    }
}

fn take_out<K: Hash + Eq>(places: &mut HashMap<K, Feeds>, place: &K, feed: FeedSlot) {
    let feeds = places.get_mut(place).expect("a feed is taken out where it was put in");
    feeds.retain(|known| *known != feed);
    if feeds.is_empty() {
        places.remove(place);
    }
}

/// Says whether one feed wants `record`: the same rule as [`Index::matches`],
/// for those who read the log on their own.
pub fn wants(tenant: Option<&TenantId>, filter: &KeyFilter, record: &Record<'_>) -> bool {
    mismatch(tenant, filter, record).is_none()
}

/// Returns the predicate by which one feed does not want `record`; `None` where it
/// does.
pub fn mismatch(
    tenant: Option<&TenantId>,
    filter: &KeyFilter,
    record: &Record<'_>,
) -> Option<Mismatch> {
    let owner = match record.owner {
        Owner::Shared => None,
        Owner::Tenant(tenant) => Some(tenant),
    };
    if owner != tenant.map(TenantId::as_str) {
        return Some(Mismatch::Tenant);
    }
    (!filter.matches(record.key)).then_some(Mismatch::Key)
}

/// Why a feed does not want a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// It is another tenant's.
    Tenant,
    /// Its key is not one that was asked for.
    Key,
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::types::ids::Offset;
    use crate::types::ids::Timestamp;
    use crate::types::record::Headers;
    use crate::types::record::Value;

    /// Few letters, so that prefixes, keys and tenants meet often.
    fn text() -> impl Strategy<Value = String> {
        "[ab]{1,3}"
    }

    fn tenant() -> impl Strategy<Value = Option<TenantId>> {
        proptest::option::of(text().prop_map(TenantId::new))
    }

    fn filter() -> impl Strategy<Value = KeyFilter> {
        prop_oneof![
            Just(KeyFilter::All),
            proptest::collection::vec(text().prop_map(Bytes::from), 1..4).prop_map(KeyFilter::keys),
            text().prop_map(|prefix| KeyFilter::Prefix(Bytes::from(prefix))),
        ]
    }

    fn found(index: &Index, record: &Record<'_>) -> Vec<FeedSlot> {
        let mut found = Vec::new();
        index.matches(record, |feed| found.push(feed));
        found.sort_unstable();
        found
    }

    proptest! {
        #[test]
        fn the_index_finds_what_each_feed_by_itself_would_want(
            feeds in proptest::collection::vec((tenant(), filter()), 0..20),
            removed in 0_usize..20,
            owner in tenant(),
            key in proptest::option::of(text()),
        ) {
            let mut index = Index::default();
            for (slot, (tenant, filter)) in feeds.iter().enumerate() {
                index.insert(tenant.as_ref(), filter, slot);
            }
            let removed = removed.min(feeds.len());
            for (slot, (tenant, filter)) in feeds.iter().enumerate().take(removed) {
                index.remove(tenant.as_ref(), filter, slot);
            }
            let record = Record {
                offset: Offset::ZERO,
                timestamp: Timestamp::from_millis(0),
                owner: owner.as_ref().map_or(Owner::Shared, |owner| Owner::Tenant(owner.as_str())),
                key: key.as_ref().map(|key| key.as_bytes()),
                value: Value::Null,
                headers: Headers::default(),
            };
            let wanted: Vec<FeedSlot> = (removed..feeds.len())
                .filter(|slot| wants(feeds[*slot].0.as_ref(), &feeds[*slot].1, &record))
                .collect();
            prop_assert_eq!(found(&index, &record), wanted);
            for (slot, (tenant, filter)) in feeds.iter().enumerate().skip(removed) {
                index.remove(tenant.as_ref(), filter, slot);
            }
            prop_assert!(index.all.is_empty() && index.keys.is_empty());
            prop_assert!(index.prefixes.is_empty() && index.prefix_lengths.is_empty());
        }
    }
}
