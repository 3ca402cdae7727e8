//! What all threads share: the sources, who follows them, and the mailboxes of
//! the shards.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use dashmap::DashMap;

use crate::log::partition::SharedPartition;
use crate::registry::labels::Labels;
use crate::registry::message::Event;
use crate::registry::message::SourceFailure;
use crate::tenancy::channel::SourceKey;
use crate::tenancy::quota::QuotaRules;
use crate::tenancy::quota::Quotas;
use crate::types::ids::PartitionId;
use crate::types::ids::ShardId;
use crate::types::ids::SourceId;
use crate::types::ids::TopicName;
use crate::types::limits::SOURCES_MAX;

/// The sources that anybody named, the shards that follow them, and what is
/// wrong with topics.
///
/// Nothing here stands on a record's way out: shards hold their partitions
/// themselves, and are told once per batch that there is something to read.
pub struct Directory {
    ids: DashMap<SourceKey, SourceId>,
    keys: DashMap<SourceId, SourceKey>,
    next: AtomicU32,
    followers: DashMap<SourceId, Vec<ShardId>>,
    mailboxes: Vec<Mailbox>,
    failures: DashMap<TopicName, SourceFailure>,
    partitions: DashMap<SourceId, Vec<Arc<SharedPartition>>>,
    tenants: Labels,
    channels: Labels,
    quotas: Arc<Quotas>,
}

/// Every place for a source is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom;

impl Directory {
    /// Returns an empty directory for so many shards.
    pub fn new(shards: u16) -> Self {
        Self {
            ids: DashMap::new(),
            keys: DashMap::new(),
            next: AtomicU32::new(0),
            followers: DashMap::new(),
            mailboxes: (0..shards).map(|_| Mailbox::default()).collect(),
            failures: DashMap::new(),
            partitions: DashMap::new(),
            tenants: Labels::default(),
            channels: Labels::default(),
            quotas: Arc::default(),
        }
    }

    /// Tells tenants and channels apart in metrics, as far as these labels go.
    #[must_use]
    pub fn with_labels(self, tenants: Labels, channels: Labels) -> Self {
        Self { tenants, channels, ..self }
    }

    /// Gives tenants no more than these rules allow.
    #[must_use]
    pub fn with_quotas(self, rules: QuotaRules) -> Self {
        Self { quotas: Quotas::new(rules), ..self }
    }

    /// Returns what gives tenants their places.
    pub fn quotas(&self) -> &Arc<Quotas> {
        &self.quotas
    }

    /// Returns which tenants are told apart in metrics.
    pub fn tenant_labels(&self) -> &Labels {
        &self.tenants
    }

    /// Returns which channels are told apart in metrics.
    pub fn channel_labels(&self) -> &Labels {
        &self.channels
    }

    /// Returns the number of a source, which is the same for equal keys.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] beyond [`SOURCES_MAX`] different sources.
    pub fn source(&self, key: &SourceKey) -> Result<SourceId, NoRoom> {
        if let Some(known) = self.ids.get(key) {
            return Ok(*known);
        }
        if self.ids.len() >= SOURCES_MAX {
            return Err(NoRoom);
        }
        let id = *self.ids.entry(key.clone()).or_insert_with(|| {
            let id = SourceId::new(self.next.fetch_add(1, Relaxed));
            self.keys.insert(id, key.clone());
            id
        });
        Ok(id)
    }

    /// Returns what a source stands for.
    ///
    /// # Panics
    ///
    /// When the number was not given by [`Directory::source`].
    pub fn key(&self, source: SourceId) -> SourceKey {
        self.keys.get(&source).expect("numbers come from this directory").clone()
    }

    /// Returns the mailbox of a shard.
    pub fn mailbox(&self, shard: ShardId) -> &Mailbox {
        &self.mailboxes[usize::from(shard.raw())]
    }

    /// Says which shards follow a source.
    pub fn set_followers(&self, source: SourceId, shards: Vec<ShardId>) {
        if shards.is_empty() {
            self.followers.remove(&source);
        } else {
            self.followers.insert(source, shards);
        }
    }

    /// Tells every shard that follows `source` that `partition` has news.
    pub fn wake(&self, source: SourceId, partition: PartitionId) {
        let Some(shards) = self.followers.get(&source).map(|shards| shards.clone()) else { return };
        for shard in shards {
            self.mailbox(shard).post(Event::Advanced { source, partition });
        }
    }

    /// Notes which partitions of a source are read; none when it no longer is.
    pub fn set_partitions(&self, source: SourceId, partitions: Vec<Arc<SharedPartition>>) {
        if partitions.is_empty() {
            self.partitions.remove(&source);
        } else {
            self.partitions.insert(source, partitions);
        }
    }

    /// Returns the partitions of each source that is read.
    pub fn partitions(&self) -> BTreeMap<SourceId, Vec<Arc<SharedPartition>>> {
        self.partitions.iter().map(|entry| (*entry.key(), entry.value().clone())).collect()
    }

    /// Notes what is wrong with a topic; `None` when nothing is any longer.
    pub fn set_failure(&self, topic: &TopicName, failure: Option<SourceFailure>) {
        match failure {
            Some(failure) => drop(self.failures.insert(topic.clone(), failure)),
            None => drop(self.failures.remove(topic)),
        }
    }

    /// Returns what is wrong now, by topic.
    pub fn failures(&self) -> BTreeMap<TopicName, SourceFailure> {
        self.failures.iter().map(|entry| (entry.key().clone(), entry.value().clone())).collect()
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory")
            .field("sources", &self.ids.len())
            .field("shards", &self.mailboxes.len())
            .finish_non_exhaustive()
    }
}

/// What waits for one shard. News of a partition stands here once, however
/// often it came; other events answer a question of the shard's own, so that
/// their number is bounded by what it asked.
#[derive(Default)]
pub struct Mailbox {
    waiting: Mutex<Waiting>,
    /// Whether something waits: seen without the lock, and set under it.
    has_mail: AtomicBool,
    waker: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct Waiting {
    events: Vec<Event>,
    advanced: BTreeSet<(SourceId, PartitionId)>,
}

impl Mailbox {
    /// Says what to call when the empty mailbox gets something. Once only.
    pub fn set_waker(&self, waker: impl Fn() + Send + Sync + 'static) {
        assert!(self.waker.set(Box::new(waker)).is_ok(), "a mailbox has one reader");
    }

    /// Leaves an event for the shard.
    pub fn post(&self, event: Event) {
        let was_empty = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let was_empty = waiting.events.is_empty() && waiting.advanced.is_empty();
            match event {
                Event::Advanced { source, partition } => {
                    waiting.advanced.insert((source, partition));
                }
                other => waiting.events.push(other),
            }
            self.has_mail.store(true, Relaxed);
            was_empty
        };
        if was_empty && let Some(wake) = self.waker.get() {
            wake();
        }
    }

    /// Says whether something waits. A post that is just being made may be seen
    /// a little later; its waker is called all the same.
    pub fn has_mail(&self) -> bool {
        self.has_mail.load(Relaxed)
    }

    /// Takes all that waits: answers first, then news of partitions.
    pub fn take(&self) -> Vec<Event> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.has_mail.store(false, Relaxed);
        let mut events = std::mem::take(&mut waiting.events);
        let advanced = std::mem::take(&mut waiting.advanced);
        events.extend(
            advanced.into_iter().map(|(source, partition)| Event::Advanced { source, partition }),
        );
        events
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}
