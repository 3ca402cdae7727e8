//! Questions about offsets: those of subscriptions that start, and the intake's
//! own. Each is asked once, however many wait for its answer.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;
use std::time::Instant;

use crate::log::partition::Generation;
use crate::registry::intake::Intake;
use crate::registry::message::Bounds;
use crate::registry::message::EpochEnd;
use crate::registry::message::ListOffsets;
use crate::registry::message::Located;
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
use crate::types::ids::LeaderEpoch;
use crate::types::ids::PartitionId;
use crate::types::ids::SourceId;
use crate::types::ids::TenantId;
use crate::types::positions::Reached;

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
        let (to, later) = with_room(to);
        if !later.is_empty() {
            source.queued.insert(lookup, later);
        }

        self.doubt(id, lookup, doubted);
        if !to.is_empty() {
            self.list_offsets(id, lookup, Purpose::Answer { lookup, to });
        }
    }

    /// Lets these wait for a new description of the topic.
    fn doubt(&mut self, id: SourceId, lookup: Lookup, doubted: Vec<Asker>) {
        let source = self.sources.get_mut(&id).expect("the caller found it");
        if doubted.is_empty() {
            return;
        }
        let doubted = doubted.into_iter().map(|asker| (lookup, asker));
        let topic = source.topic.clone();
        if self.describing.contains(&topic) {
            source.doubted_later.extend(doubted);
        } else {
            source.doubted.extend(doubted);
            self.describe([topic]);
        }
    }

    /// Forgets those who can't wait for their answer any more.
    pub(in crate::registry) fn forget_gone_askers(&mut self, now: Instant) {
        for askers in self.sources.values_mut().flat_map(|source| source.queued.values_mut()) {
            askers.retain(|asker| asker.asked_at + ASKED_FOR_MAX > now);
        }
    }

    /// Answers those who asked for bounds. A leader epoch that the log does not have, or
    /// not as far as a client has read, may be of a topic that has been made again
    /// since: that is looked at first.
    pub(in crate::registry) fn answer_bounds(
        &mut self,
        id: SourceId,
        lookup: Lookup,
        to: Vec<Asker>,
        result: &Result<Located, SourceFailure>,
    ) {
        let (doubted, to) = to.into_iter().partition(|asker| {
            asker.claim.is_some() && result.as_ref().is_ok_and(|found| is_strange(found, asker))
        });
        self.doubt(id, lookup, doubted);
        answer(&self.directory, &to, result);
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
        let (topic, topic_id) = (source.topic.clone(), source.topic_id);
        let generations = source.partitions.iter().map(|log| log.end().generation).collect();
        let epochs: BTreeSet<(PartitionId, LeaderEpoch)> = match &purpose {
            Purpose::Answer { to, .. } => {
                let wanted = to.iter().flat_map(|asker| &asker.epochs);
                wanted.map(|(partition, reached)| (*partition, reached.epoch)).collect()
            }
            _ => BTreeSet::new(),
        };
        let epochs = epochs.into_iter().collect();
        self.requests.insert(request, Request { source: id, topic_id, generations, purpose });
        let question = ListOffsets { request, topic, partitions, lookup, epochs };
        self.tasks.push_back(Task::ListOffsets(question));
    }

    /// Notes whose logs reach how far, where those are still the logs that were asked
    /// about.
    pub(in crate::registry) fn note_reached(
        &self,
        id: SourceId,
        generations: &[Generation],
        bounds: &[Option<Bounds>],
    ) {
        let Some(source) = self.sources.get(&id) else { return };
        for ((log, generation), bounds) in source.partitions.iter().zip(generations).zip(bounds) {
            if let Some(Bounds { end, epoch: Some(epoch), .. }) = bounds {
                log.note_reached(*generation, Reached { epoch: *epoch, to: *end });
            }
        }
    }
}

/// Says whether a leader that somebody asked for was none of its partition, or its log
/// ends below what was read of it.
fn is_strange(found: &Located, asker: &Asker) -> bool {
    asker.epochs.iter().any(|(partition, reached)| {
        let bounds = found.get(partition.index()).and_then(Option::as_ref);
        let mut ends = bounds.into_iter().flat_map(|bounds| &bounds.epoch_ends);
        ends.any(|(epoch, end)| match end {
            _ if *epoch != reached.epoch => false,
            EpochEnd::At(end) => *end < reached.to,
            EpochEnd::Unknown => true,
            EpochEnd::Unanswered => false,
        })
    })
}

/// Parts those for whose leaders one question has room from those who wait for the
/// next. Tenants take turns, so that one that names many leaders keeps no other waiting.
fn with_room(askers: Vec<Asker>) -> (Vec<Asker>, Vec<Asker>) {
    let (mut to, askers): (Vec<Asker>, Vec<Asker>) =
        askers.into_iter().partition(|asker| asker.epochs.is_empty());
    let mut turns: BTreeMap<TenantId, usize> = BTreeMap::new();
    let turn = |asker: Asker| {
        let turn = turns.entry(asker.tenant.clone()).or_default();
        *turn += 1;
        (*turn, asker)
    };
    let mut askers: Vec<(usize, Asker)> = askers.into_iter().map(turn).collect();
    askers.sort_by_key(|(turn, _)| *turn);
    let mut asked: BTreeMap<PartitionId, BTreeSet<LeaderEpoch>> = BTreeMap::new();
    let (now, later): (Vec<Asker>, Vec<Asker>) =
        askers.into_iter().map(|(_, asker)| asker).partition(|asker| {
            let has_room = asker.epochs.iter().all(|(partition, reached)| {
                let known = asked.get(partition);
                known.is_none_or(|known| {
                    known.contains(&reached.epoch) || known.len() < EPOCHS_AT_ONCE
                })
            });
            if has_room {
                for (partition, reached) in &asker.epochs {
                    asked.entry(*partition).or_default().insert(reached.epoch);
                }
            }
            has_room
        });
    to.extend(now);
    (to, later)
}

/// Leaders of one partition that are asked about in one question: each costs a round
/// trip, and who asks may be a stranger.
const EPOCHS_AT_ONCE: usize = 4;
/// Nobody waits longer for an answer: workers give a start up before.
pub(in crate::registry) const ASKED_FOR_MAX: Duration = Duration::from_secs(30);
