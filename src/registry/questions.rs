//! Questions about offsets: those of subscriptions that start, and the intake's
//! own. Each is asked once, however many wait for its answer.

use crate::registry::intake::Intake;
use crate::registry::message::Bounds;
use crate::registry::message::Lookup;
use crate::registry::message::SourceFailure;
use crate::registry::message::Task;
use crate::registry::message::Through;
use crate::registry::message::TopicDescription;
use crate::registry::source::Asker;
use crate::registry::source::Phase;
use crate::registry::source::Purpose;
use crate::registry::source::Request;
use crate::registry::source::answer;
use crate::registry::source::assignment;
use crate::types::ids::SourceId;

impl Intake {
    pub(in crate::registry) fn resolve(&mut self, id: SourceId, lookup: Lookup, asker: Asker) {
        let Some(source) = self.sources.get_mut(&id) else {
            let failure = SourceFailure::UnknownTopic(self.directory.key(id).topic);
            return answer(&self.directory, &[asker], &Err(failure));
        };
        source.queued.entry(lookup).or_default().push(asker);
        if source.phase == Phase::Reading {
            self.ask_queued(id, lookup);
        }
    }

    /// Takes a description that is new enough for those who doubted the last:
    /// what it does not bear out is not so.
    pub(in crate::registry) fn believe(&mut self, id: SourceId, description: &TopicDescription) {
        let source = self.sources.get_mut(&id).expect("a description forgets no source");
        if source.phase == Phase::Reading && description.partitions > source.partitions_live {
            // The partitions that were found are begun first.
            return;
        }
        for (lookup, asker) in std::mem::take(&mut source.doubted) {
            source.queued.entry(lookup).or_default().push(Asker { claim: None, ..asker });
        }
        self.ask_all_queued(id);
    }

    pub(in crate::registry) fn refuse_doubted(&mut self, id: SourceId, failure: &SourceFailure) {
        let source = self.sources.get_mut(&id).expect("the caller found it");
        let doubted = std::mem::take(&mut source.doubted);
        let askers: Vec<Asker> = doubted.into_iter().map(|(_, asker)| asker).collect();
        answer(&self.directory, &askers, &Err(failure.clone()));
    }

    pub(in crate::registry) fn ask_all_queued(&mut self, id: SourceId) {
        for lookup in self.sources[&id].queued.keys().copied().collect::<Vec<_>>() {
            self.ask_queued(id, lookup);
        }
    }

    /// Asks what is queued, unless the same is under way: an answer that was
    /// asked for earlier may be older than what a client has seen elsewhere.
    pub(in crate::registry) fn ask_queued(&mut self, id: SourceId, lookup: Lookup) {
        let under_way = self.requests.values().any(|request| {
            request.source == id
                && matches!(&request.purpose, Purpose::Answer { lookup: l, .. } if *l == lookup)
        });
        let Some(source) = self.sources.get_mut(&id) else { return };
        if under_way || source.phase != Phase::Reading || source.locating {
            return;
        }
        let Some(askers) = source.queued.remove(&lookup) else { return };
        let (to, doubted): (Vec<Asker>, Vec<Asker>) =
            askers.into_iter().partition(|asker| asker.claim.is_none_or(|c| source.bears_out(c)));
        if !doubted.is_empty() {
            let doubted = doubted.into_iter().map(|asker| (lookup, asker));
            let topic = source.topic.clone();
            if self.describing.contains(&topic) {
                source.doubted_later.extend(doubted);
            } else {
                source.doubted.extend(doubted);
                self.describe([topic]);
            }
        }
        if !to.is_empty() {
            self.list_offsets(id, lookup, Purpose::Answer { lookup, to });
        }
    }

    /// Takes an answer that speaks of a topic which has been made again since:
    /// it says nothing of the one that goes by the name now.
    pub(in crate::registry) fn ask_anew(&mut self, id: SourceId, purpose: Purpose) {
        let source = self.sources.get_mut(&id).expect("the caller found it");
        match purpose {
            Purpose::Answer { lookup, to } => {
                source.queued.entry(lookup).or_default().extend(to);
                self.ask_queued(id, lookup);
            }
            Purpose::Relocate { .. } => self.relocate_next(id),
            // What was to be begun is so already.
            Purpose::Begin { .. } | Purpose::BeginAnew { .. } | Purpose::Extend { .. } => {}
            Purpose::Look => self.look_at_next(),
        }
    }

    /// Notes what Kafka no longer has. A reader that lags so far that its place
    /// is gone is placed anew.
    pub(in crate::registry) fn apply_bounds(&mut self, id: SourceId, bounds: &[Option<Bounds>]) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        if source.phase != Phase::Reading {
            return;
        }
        for (log, bounds) in source.partitions.iter().zip(bounds) {
            let Some(bounds) = bounds else { continue };
            if bounds.start <= log.start() || source.unlocated.contains(&log.id()) {
                continue;
            }
            let lagging = log.end().offset < bounds.start;
            log.expire(bounds.start);
            if lagging && source.reads(log.id()) {
                self.tasks.push_back(assignment(id, &source.topic, log, Through::Usual));
            }
            self.directory.wake(id, log.id());
        }
    }

    pub(in crate::registry) fn list_offsets(
        &mut self,
        id: SourceId,
        lookup: Lookup,
        purpose: Purpose,
    ) {
        let Some(source) = self.sources.get(&id) else { return };
        let partitions = match purpose {
            Purpose::Begin { partitions }
            | Purpose::BeginAnew { partitions }
            | Purpose::Extend { partitions } => partitions,
            Purpose::Relocate { .. } | Purpose::Look | Purpose::Answer { .. } => {
                source.partitions_live
            }
        };
        let request = self.next_request;
        self.next_request += 1;
        let topic_id = source.topic_id;
        self.requests.insert(request, Request { source: id, topic_id, purpose });
        let topic = source.topic.clone();
        self.tasks.push_back(Task::ListOffsets { request, topic, partitions, lookup });
    }
}
