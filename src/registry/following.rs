//! Which sources are wanted: from the first follower of each until a while after
//! the last.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Instant;

use crate::registry::intake::Intake;
use crate::registry::message::SourceFailure;
use crate::registry::message::Task;
use crate::registry::message::Ticket;
use crate::registry::source::Phase;
use crate::registry::source::Purpose;
use crate::registry::source::Source;
use crate::registry::source::answer;
use crate::types::ids::ShardId;
use crate::types::ids::SourceId;
use crate::types::ids::TopicId;
use crate::types::ids::TopicName;

impl Intake {
    pub(in crate::registry) fn follow(&mut self, shard: ShardId, ticket: Ticket, id: SourceId) {
        let topic = self.directory.key(id).topic;
        let source = self.sources.entry(id).or_insert_with(|| Source {
            topic: topic.clone(),
            phase: Phase::Describing,
            followers: BTreeMap::new(),
            idle_since: None,
            topic_id: TopicId::UNKNOWN,
            partitions: Vec::new(),
            partitions_live: 0,
            unlocated: BTreeSet::new(),
            locating: false,
            relocating: BTreeSet::new(),
            relocating_next: BTreeSet::new(),
            diverged: BTreeMap::new(),
            seen: BTreeMap::new(),
            shortened: None,
            queued: BTreeMap::new(),
            doubted: Vec::new(),
            doubted_later: Vec::new(),
        });
        source.followers.insert(shard, ticket);
        source.idle_since = None;
        self.directory.set_followers(id, source.followers.keys().copied().collect());
        match source.phase {
            Phase::Reading => self.announce(id, shard),
            // A new follower is a new reason to try.
            Phase::Failed { .. } => {
                source.phase = Phase::Describing;
                self.describe([topic]);
            }
            Phase::Describing => self.describe([topic]),
            // What is being begun anew is known already.
            Phase::Locating if !source.partitions.is_empty() => self.announce(id, shard),
            Phase::Locating => {}
        }
    }

    pub(in crate::registry) fn unfollow(&mut self, shard: ShardId, id: SourceId, now: Instant) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        source.followers.remove(&shard);
        if source.followers.is_empty() {
            source.idle_since = Some(now);
        }
        self.directory.set_followers(id, source.followers.keys().copied().collect());
    }

    /// Describes these topics from now on though nobody follows them.
    pub(in crate::registry) fn watch(&mut self, topics: Vec<TopicName>) {
        let before = std::mem::replace(&mut self.settings.watched, topics);
        for topic in before {
            self.clear_unwanted(&topic);
        }
        self.describe(self.settings.watched.clone());
    }

    /// Forgets what is wrong with a topic that nobody wants any more.
    fn clear_unwanted(&self, topic: &TopicName) {
        let is_followed = self.sources.values().any(|source| source.topic == *topic);
        if !is_followed && !self.settings.watched.contains(topic) {
            self.directory.set_failure(topic, None);
        }
    }

    pub(in crate::registry) fn forget(&mut self, id: SourceId) {
        let Some(source) = self.sources.remove(&id) else { return };
        self.directory.set_partitions(id, Vec::new());
        self.clear_unwanted(&source.topic);
        // An answer that comes later must not be taken for one to whoever
        // follows the source next.
        let gone = SourceFailure::UnknownTopic(source.topic.clone());
        for (_, request) in self.requests.extract_if(.., |_, request| request.source == id) {
            if let Purpose::Answer { to, .. } = request.purpose {
                answer(&self.directory, &to, &Err(gone.clone()));
            }
        }
        self.retries.retain(|(_, of, _)| *of != id);
        for partition in &source.partitions {
            self.tasks.push_back(Task::Unassign {
                source: id,
                topic: source.topic.clone(),
                partition: partition.id(),
            });
        }
        self.history.forget(id);
    }
}
