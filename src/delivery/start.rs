//! How a subscription starts: its source is followed, its start is found, and
//! then it is behind.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::delivery::recent::Note;
use crate::delivery::recent::Whose;
use crate::delivery::shard::Shard;
use crate::delivery::source::Partition;
use crate::delivery::source::Phase;
use crate::delivery::span::Outcome;
use crate::delivery::subscription::Behind;
use crate::delivery::subscription::Question;
use crate::delivery::subscription::Queued;
use crate::delivery::subscription::Reader;
use crate::delivery::subscription::STARTS_KEPT_MAX;
use crate::delivery::subscription::Started;
use crate::delivery::subscription::State;
use crate::delivery::subscription::SubRef;
use crate::delivery::subscription::Waits;
use crate::log::partition::Cursor;
use crate::log::partition::SharedPartition;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::frame::Gap;
use crate::protocol::frame::GapReason;
use crate::protocol::frame::OnGap;
use crate::protocol::frame::ServerFrame;
use crate::protocol::frame::StartAt;
use crate::registry::message::Bounds;
use crate::registry::message::Claim;
use crate::registry::message::Command;
use crate::registry::message::Event;
use crate::registry::message::Located;
use crate::registry::message::Lookup;
use crate::registry::message::SourceFailure;
use crate::registry::message::Ticket;
use crate::resume::start::Known;
use crate::resume::start::Met;
use crate::resume::start::Plan;
use crate::resume::start::StartError;
use crate::resume::start::plan;
use crate::types::ids::ChannelName;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::SourceId;
use crate::types::ids::Timestamp;
use crate::types::ids::TopicId;
use crate::types::moment::Moment;
use crate::types::positions::Epochs;
use crate::types::positions::Place;
use crate::types::positions::Reached;
use crate::types::sabotage::Defect;

impl Shard {
    /// Takes what the intake says.
    pub fn handle_event(&mut self, event: Event, now: Moment) {
        match event {
            Event::Ready { source, ticket, partitions } => {
                self.source_ready(source, ticket, partitions, now);
            }
            Event::Failed { source, failure } => self.source_failed(source, &failure),
            Event::PartitionsAdded { source, partitions } => {
                self.partitions_added(source, &partitions, now);
            }
            Event::Resolved { ticket, result } => self.resolved(ticket, result, now),
            Event::Advanced { source, partition } => {
                let Some(slot) = self.source_slots.get(&source).copied() else { return };
                if partition.index() < self.sources[slot].partitions.len() {
                    self.advance(slot, partition.index(), now);
                }
            }
        }
    }

    /// Begins to find where a subscription starts.
    pub(in crate::delivery) fn find_start(&mut self, slot: usize, sub: usize, now: Moment) {
        let reference = self.reference(slot, sub);
        let source = self.source_of(slot, sub);
        let State::Starting(from) = &self.subscription(slot, sub).state else { return };
        if self.sources[source].phase == Phase::Waiting {
            return self.sources[source].starting.push(reference);
        }
        let lookup = match &**from {
            StartAt::Latest => return self.begin(slot, sub, &[], now),
            StartAt::Earliest | StartAt::Place(_) => Lookup::Bounds,
            StartAt::Timestamp(at) => Lookup::Timestamp(*at),
            StartAt::Ago(span) => Lookup::Timestamp(whole_second(now.wall_before(*span))),
        };
        let (claim, epochs) = match &**from {
            StartAt::Place(place) => {
                (Some(claim(place)), doubtful(place, &self.sources[source].partitions))
            }
            _ => (None, Vec::new()),
        };
        let ticket = self.ticket();
        let standing = self.sources[source].standing();
        self.tickets.insert(ticket, Question { subscription: reference, standing });
        let (shard, source) = (self.id, self.sources[source].id);
        let principal = self.connections[slot].principal();
        let tenant = principal.expect("who subscribes is known").tenant.clone();
        self.command(Command::Resolve { shard, ticket, source, lookup, claim, tenant, epochs });
    }

    pub(in crate::delivery) fn ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        ticket
    }

    /// Gives up starts that took too long.
    pub(in crate::delivery) fn expire_starts(&mut self, now: Moment) {
        while let Some(&(deadline, subscription)) = self.starting.front() {
            if deadline > now.instant {
                break;
            }
            self.starting.pop_front();
            let Some((slot, sub)) = self.find(subscription) else { continue };
            if matches!(self.subscription(slot, sub).state, State::Starting(_)) {
                let message = "kafka did not say in time where to start: try again".to_owned();
                self.end_with_error(slot, sub, ErrorCode::Unavailable, message);
            }
        }
        if self.starting.is_empty() {
            self.tickets.retain(|_, _| false);
        }
    }

    fn source_ready(
        &mut self,
        source: SourceId,
        ticket: Ticket,
        partitions: Vec<Arc<SharedPartition>>,
        now: Moment,
    ) {
        let Some(slot) = self.source_slots.get(&source).copied() else { return };
        // What an earlier ticket brings may be read no more.
        if self.sources[slot].phase == Phase::Reading || self.sources[slot].ticket != ticket {
            return;
        }
        let topic_id = partitions.first().map_or(TopicId::UNKNOWN, |log| log.topic_id());
        let source = &mut self.sources[slot];
        source.phase = Phase::Reading;
        source.topic_id = topic_id;
        source.partitions = partitions
            .into_iter()
            .map(|log| {
                let end = log.end();
                Partition::new(log, end)
            })
            .collect();
        for subscription in std::mem::take(&mut source.starting) {
            if let Some((slot, sub)) = self.find(subscription) {
                self.find_start(slot, sub, now);
            }
        }
    }

    fn source_failed(&mut self, source: SourceId, failure: &SourceFailure) {
        let Some(slot) = self.source_slots.get(&source).copied() else { return };
        for subscription in std::mem::take(&mut self.sources[slot].starting) {
            if let Some((slot, sub)) = self.find(subscription) {
                // The topic's name is the operator's business: it stands in the
                // log and in the admin interface, not in what a tenant is told.
                let message = match failure {
                    SourceFailure::Unreachable { .. } => "kafka can't be reached: try again",
                    _ => {
                        "the channel can't be read now: operators find the reason in /v1/channels \
                         and by `brucke doctor`"
                    }
                };
                self.end_with_error(slot, sub, ErrorCode::SourceUnavailable, message.to_owned());
            }
        }
    }

    /// Begins partitions that were added: everybody reads them from zero.
    fn partitions_added(&mut self, source: SourceId, added: &[Arc<SharedPartition>], now: Moment) {
        let Some(slot) = self.source_slots.get(&source).copied() else { return };
        if self.sources[slot].phase == Phase::Waiting {
            return;
        }
        // A topic that was made again with more partitions is told of first: what
        // those hold is not of the topic that clients know.
        for partition in 0..self.sources[slot].partitions.len() {
            self.advance(slot, partition, now);
        }
        for log in added {
            let Some(found) = self.sources.get(slot) else { return };
            if log.id().index() != found.partitions.len() {
                continue;
            }
            let offset = match Defect::NewPartitionAtEnd.is_planted() {
                false => Offset::ZERO,
                true => log.end().offset,
            };
            let cursor = Cursor { offset, ..log.end() };
            self.sources[slot].partitions.push(Partition::new(Arc::clone(log), cursor));
            let followed = self.feeds.slots_of(slot);
            for feed in followed {
                let feed = self.feeds.at_mut(feed);
                if !feed.is_unfollowed() {
                    feed.told.push(offset);
                }
            }
            self.extend_behind(slot, cursor);
        }
        for log in added {
            self.advance(slot, log.id().index(), now);
        }
    }

    fn extend_behind(&mut self, source: usize, cursor: Cursor) {
        let count = self.sources[source].partitions.len();
        let reader = Reader { cursor, told: cursor.offset, waits: Waits::Nothing };
        let mut extended = Vec::new();
        for (slot, connection) in &mut self.connections {
            for (sub, subscription) in connection.subscriptions.iter_mut().enumerate() {
                let Some(subscription) = subscription else { continue };
                if self.feeds.at(subscription.feed).source == source
                    && let State::Behind(behind) = &mut subscription.state
                    && behind.partitions.len() + 1 == count
                {
                    behind.partitions.push(reader);
                    extended.push((slot, sub));
                }
            }
        }
        for (slot, sub) in extended {
            self.queue(slot, sub);
        }
    }

    fn resolved(&mut self, ticket: Ticket, result: Result<Located, SourceFailure>, now: Moment) {
        let Some(Question { subscription, standing }) = self.tickets.remove(&ticket) else {
            return;
        };
        let Some((slot, sub)) = self.find(subscription) else { return };
        match result {
            // What was found is of a log that has been cut off or made again
            // meanwhile, or leaves out a partition.
            Ok(_) if self.sources[self.source_of(slot, sub)].standing() != standing => {
                self.find_start(slot, sub, now);
            }
            Ok(bounds) => self.begin(slot, sub, &bounds, now),
            Err(_) => {
                let message = "kafka did not say where to start: try again".to_owned();
                self.end_with_error(slot, sub, ErrorCode::Unavailable, message);
            }
        }
    }

    /// Puts a subscription at its start and says so.
    fn begin(&mut self, slot: usize, sub: usize, bounds: &[Option<Bounds>], now: Moment) {
        let source = self.source_of(slot, sub);
        let State::Starting(from) = &self.subscription(slot, sub).state else { return };
        let unsent = self.connections[slot].outbox.bytes();
        if unsent > self.settings.unsent_bytes_max.saturating_mul(UNSENT_ANSWERS) {
            let message = format!("{unsent} bytes wait for this client: read them first");
            return self.end_with_error(slot, sub, ErrorCode::Unavailable, message);
        }
        let places = &self.sources[source].partitions;
        let ends: Vec<Cursor> = places.iter().map(|place| place.log.end()).collect();
        let live = places.iter().map(|place| {
            let Cursor { generation, offset } = place.cursor;
            place.log.is_located(generation).then_some(offset)
        });
        let live: Vec<Option<Offset>> = live.collect();
        let met = places.iter().zip(&ends).map(|(place, end)| {
            let met = Met { start: place.log.start(), end: end.offset };
            place.log.is_located(end.generation).then_some(met)
        });
        let met: Vec<Option<Met>> = met.collect();
        // What is live is of the topic that the shard has told of, which may have
        // been made again since.
        let topic_id = match **from {
            StartAt::Latest => self.sources[source].topic_id,
            _ => places.first().map_or(TopicId::UNKNOWN, |place| place.log.topic_id()),
        };
        // Where there is a leader, it has been asked.
        let doubtful = match &**from {
            StartAt::Place(place) if bounds.iter().any(Option::is_none) => {
                doubtful(place, places).into_iter().map(|(partition, _)| partition).collect()
            }
            _ => BTreeSet::new(),
        };
        let known = Known { topic_id, live: &live, met: &met, bounds, doubtful: &doubtful };
        let plan = match plan(from, &known) {
            Ok(plan) => plan,
            Err(error) => {
                let code = match error {
                    StartError::UnknownPartition { .. } => ErrorCode::UnknownPartition,
                    StartError::NoLeader(_)
                    | StartError::NoEpoch { .. }
                    | StartError::UnknownEpoch { .. } => ErrorCode::Unavailable,
                };
                return self.end_with_error(slot, sub, code, error.to_string());
            }
        };
        let readers = plan.starts.iter().zip(places).zip(&ends).map(|((start, place), end)| {
            // What is live is of the shard's generation; what was looked up is
            // of the log's.
            let generation = match **from {
                StartAt::Latest => place.cursor.generation,
                _ => end.generation,
            };
            let cursor = Cursor { generation, offset: start.position };
            Reader { cursor, told: start.position, waits: Waits::Nothing }
        });
        let readers: Vec<Reader> = readers.collect();
        // Of what a client has read elsewhere it knows more than this replica.
        let known = match **from {
            StartAt::Place(_) => &[],
            _ => &places[..],
        };
        let known = known.iter().zip(&readers);
        let known = known.filter_map(|(place, reader)| {
            Some((place.log.id(), place.log.reached(reader.cursor)?))
        });
        let epochs: Epochs = known.collect();
        let behind = Behind {
            partitions: readers,
            topic_id,
            turn: 0,
            queued: Queued::No,
            told_at: now.instant,
            since: now.instant,
        };
        let started = (plan.starts.len() <= STARTS_KEPT_MAX).then(|| Started {
            topic_id,
            at: plan.starts.iter().map(|start| start.position).collect(),
        });
        let subscription = self.subscription_mut(slot, sub);
        subscription.started = started;
        subscription.state = State::Behind(Box::new(behind));
        self.begin_behind(slot, self.subscription(slot, sub).feed);
        self.announce(slot, sub, &plan, epochs);
        if self.tell_lost(slot, sub, &plan, topic_id, now) {
            self.queue(slot, sub);
        }
    }

    fn announce(&mut self, slot: usize, sub: usize, plan: &Plan, epochs: Epochs) {
        let subscription = self.subscription(slot, sub);
        let feed = self.feeds.at(subscription.feed);
        let places = plan.starts.iter().enumerate();
        let frame = ServerFrame::Subscribed {
            id: subscription.request,
            sub: feed.number,
            channel: ChannelName::clone(&feed.key.channel),
            topic_id: plan.topic_id,
            positions: places.map(|(p, s)| (PartitionId::from_index(p), s.position)).collect(),
            epochs,
        };
        self.send(slot, &frame);
        self.end_subscribing(self.reference(slot, sub), Outcome::Done);
    }

    /// Tells what the start has lost; says whether the subscription goes on.
    fn tell_lost(
        &mut self,
        slot: usize,
        sub: usize,
        plan: &Plan,
        topic_id: TopicId,
        now: Moment,
    ) -> bool {
        let number = self.feeds.at(self.subscription(slot, sub).feed).number;
        let mut gaps = Vec::new();
        for (index, start) in plan.starts.iter().enumerate() {
            let Some(lost) = start.lost else { continue };
            let recreated = lost.reason == GapReason::TopicRecreated;
            gaps.push(Gap {
                sub: number,
                partition: PartitionId::from_index(index),
                from: start.position,
                to: lost.to,
                reason: lost.reason,
                topic_id: recreated.then_some(topic_id),
            });
            let State::Behind(behind) = &mut self.subscription_mut(slot, sub).state else { break };
            behind.partitions[index].cursor.offset = lost.to;
            behind.partitions[index].told = lost.to;
        }
        gaps.extend(plan.vanished.iter().map(|(partition, from)| Gap {
            sub: number,
            partition: *partition,
            from: *from,
            to: Offset::ZERO,
            reason: GapReason::TopicRecreated,
            topic_id: Some(topic_id),
        }));
        let any = !gaps.is_empty();
        for gap in gaps {
            self.counts.gap(gap.reason);
            let whose = Whose::Subscription(self.subscription(slot, sub).serial);
            self.recent.note(Note::of_gap(whose, &gap, now.wall));
            self.send(slot, &ServerFrame::Gap(gap));
        }
        if any && self.subscription(slot, sub).on_gap == OnGap::Stop {
            let message = "wanted offsets are gone and on_gap is stop: subscribe again";
            self.end_with_error(slot, sub, ErrorCode::Gap, message.to_owned());
            return false;
        }
        true
    }

    /// Remembers when a start has to be found.
    pub(in crate::delivery) fn watch_start(&mut self, subscription: SubRef, now: Moment) {
        self.starting.push_back((now.instant + self.settings.start_timeout, subscription));
    }
}

/// Returns what a client says of a topic by naming this place in it.
fn claim(place: &Place) -> Claim {
    let mut named = place.positions.iter().filter(|(_, at)| **at > Offset::ZERO);
    let partitions = named.next_back().map_or(0, |(partition, _)| partition.index() + 1);
    Claim { topic_id: place.topic_id, partitions }
}

/// Returns the leader epochs of a place that must be held against Kafka, up to where the
/// client stands: all but those in whose logs this replica has itself read as far.
fn doubtful(place: &Place, partitions: &[Partition]) -> Vec<(PartitionId, Reached)> {
    let is_of_it = partitions.first().is_some_and(|known| known.log.topic_id() == place.topic_id);
    if !is_of_it || Defect::TrustEpochs.is_planted() {
        return Vec::new();
    }
    let named = place.epochs.iter().map(|(partition, reached)| {
        let at = place.positions.get(partition).copied().unwrap_or(Offset::ZERO);
        (*partition, reached.up_to(at))
    });
    let is_doubtful = |(partition, reached): &(PartitionId, Reached)| {
        partitions.get(partition.index()).is_none_or(|known| {
            let at = Cursor { offset: reached.to, ..known.log.end() };
            known.log.reached(at) != Some(*reached)
        })
    };
    named.filter(is_doubtful).collect()
}

/// Rounds down to a whole second, so that many who ask for "15 minutes ago" at
/// about the same time ask Kafka the same.
fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_millis(at.as_millis().div_euclid(1_000) * 1_000)
}

/// Times what may be unsent of records that may be unsent when another subscription
/// begins: a gap for each of ten thousand partitions is a long answer, and who asks on
/// and reads nothing would set how much memory such answers take.
const UNSENT_ANSWERS: usize = 8;
