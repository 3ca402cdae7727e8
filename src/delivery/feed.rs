//! What equal subscriptions share.

use std::hash::BuildHasher;
use std::hash::BuildHasherDefault;
use std::hash::DefaultHasher;
use std::sync::Arc;

use hashbrown::HashMap;
use slab::Slab;
use smallvec::SmallVec;

use crate::delivery::index::FeedSlot;
use crate::delivery::tally::TallySlot;
use crate::protocol::encode::RecordsEncoder;
use crate::protocol::frame::Encoding;
use crate::tenancy::channel::SourceKey;
use crate::types::filter::KeyFilter;
use crate::types::ids::ChannelName;
use crate::types::ids::Offset;
use crate::types::ids::SubId;
use crate::types::ids::TenantId;

/// What makes two subscriptions equal: whoever follows the same gets the same
/// bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FeedKey {
    pub channel: ChannelName,
    pub source: SourceKey,
    /// Whose records; `None` only for a source that all tenants share.
    pub tenant: Option<TenantId>,
    pub filter: KeyFilter,
}

/// One feed from its first member to its last. A place or a number may be another
/// feed's later; a serial never is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(in crate::delivery) struct FeedSerial(u64);

/// One feed of a shard.
#[derive(Debug)]
pub struct Feed {
    pub(in crate::delivery) serial: FeedSerial,
    pub(in crate::delivery) key: Arc<FeedKey>,
    pub(in crate::delivery) number: SubId,
    /// Place of its source in the shard.
    pub(in crate::delivery) source: usize,
    /// Up to where all live followers have been told everything; at or below
    /// the shard's own cursors. Without meaning while there is no follower.
    pub(in crate::delivery) told: SmallVec<[Offset; 2]>,
    /// Live subscriptions, by encoding.
    pub(in crate::delivery) followers: [Followers; 2],
    /// Subscriptions in whatever state.
    pub(in crate::delivery) members: u32,
    /// Where its channel is counted.
    pub(in crate::delivery) tally: TallySlot,
    /// The frames being written for the live followers.
    pub(in crate::delivery) writing: [Option<Box<RecordsEncoder>>; 2],
}

/// Most feeds of single keys have one or two, which then stand beside what else a
/// record touches and cost no other line of the cache.
pub(in crate::delivery) type Followers = SmallVec<[Follower; 2]>;

/// One live subscription.
#[derive(Debug, Clone, Copy)]
pub struct Follower {
    /// Place of the connection in the shard.
    pub(in crate::delivery) connection: u32,
    /// Place of the subscription in its connection.
    pub(in crate::delivery) subscription: u16,
    pub(in crate::delivery) pace: Pace,
}

/// Whether a subscription bounds what may be unacknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    Free,
    Windowed,
}

impl Feed {
    /// Says whether nobody follows it live.
    pub(in crate::delivery) fn is_unfollowed(&self) -> bool {
        self.followers.iter().all(|followers| followers.is_empty())
    }
}

/// Returns the place of an encoding in lists of both.
pub(in crate::delivery) fn lane(encoding: Encoding) -> usize {
    match encoding {
        Encoding::Json => 0,
        Encoding::Protobuf => 1,
    }
}

/// Both encodings, in the order of their lanes.
pub(in crate::delivery) const LANES: [Encoding; 2] = [Encoding::Json, Encoding::Protobuf];

/// All feeds of a shard.
#[derive(Debug, Default)]
pub struct Feeds {
    slots: Slab<Feed>,
    known: HashMap<Arc<FeedKey>, FeedSlot>,
    numbers: HashMap<SubId, FeedSlot>,
    next_serial: u64,
}

impl Feeds {
    /// Returns the feed of this key, and whether it is new; counts a member.
    pub(in crate::delivery) fn enter(
        &mut self,
        key: FeedKey,
        source: usize,
        tally: TallySlot,
    ) -> (FeedSlot, Entered) {
        if let Some(slot) = self.known.get(&key) {
            self.slots[*slot].members += 1;
            return (*slot, Entered::Known);
        }
        let number = self.number(&key);
        let key = Arc::new(key);
        let serial = FeedSerial(self.next_serial);
        self.next_serial += 1;
        let slot = self.slots.insert(Feed {
            serial,
            key: Arc::clone(&key),
            number,
            source,
            told: SmallVec::new(),
            followers: [SmallVec::new(), SmallVec::new()],
            members: 1,
            tally,
            writing: [None, None],
        });
        self.known.insert(key, slot);
        self.numbers.insert(number, slot);
        (slot, Entered::New)
    }

    /// Takes a member off; returns the feed when it was the last.
    pub(in crate::delivery) fn leave(&mut self, slot: FeedSlot) -> Option<Feed> {
        let feed = &mut self.slots[slot];
        feed.members -= 1;
        if feed.members > 0 {
            return None;
        }
        let feed = self.slots.remove(slot);
        self.known.remove(&feed.key);
        self.numbers.remove(&feed.number);
        Some(feed)
    }

    /// Returns the place of a feed, if it is known.
    pub(in crate::delivery) fn find(&self, key: &FeedKey) -> Option<FeedSlot> {
        self.known.get(key).copied()
    }

    pub(in crate::delivery) fn at(&self, slot: FeedSlot) -> &Feed {
        &self.slots[slot]
    }

    pub(in crate::delivery) fn at_mut(&mut self, slot: FeedSlot) -> &mut Feed {
        &mut self.slots[slot]
    }

    pub(in crate::delivery) fn contains(&self, slot: FeedSlot) -> bool {
        self.slots.contains(slot)
    }

    pub(in crate::delivery) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns the feeds of a source.
    pub(in crate::delivery) fn slots_of(&self, source: usize) -> Vec<FeedSlot> {
        let of_source = self.slots.iter().filter(|(_, feed)| feed.source == source);
        of_source.map(|(slot, _)| slot).collect()
    }

    /// Returns how many places there are to walk through, used or not.
    pub(in crate::delivery) fn places(&self) -> usize {
        self.slots.capacity()
    }

    /// Returns a number for a new feed. It is derived from what the feed is, so
    /// that it tells a tenant nothing of how many feeds others have, and is the
    /// same at every replica.
    fn number(&self, key: &FeedKey) -> SubId {
        let mut number = BuildHasherDefault::<DefaultHasher>::new().hash_one(key) >> NUMBER_SHIFT;
        while self.numbers.contains_key(&SubId::new(number)) {
            number = (number + 1) & (u64::MAX >> NUMBER_SHIFT);
        }
        SubId::new(number)
    }
}

/// Whether a feed was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delivery) enum Entered {
    New,
    Known,
}

/// Leaves 48 bits: numbers that every JSON parser reads exactly, and few enough
/// equal ones that looking for the next free number costs nothing.
const NUMBER_SHIFT: u32 = 16;
