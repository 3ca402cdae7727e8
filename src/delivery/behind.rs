//! Catching up: a subscription that is behind reads the log at its own cursors,
//! as fast as its peer reads, until it meets the shard's. `reading` is how it
//! reads on in one partition.

use std::time::Instant;

use crate::delivery::feed::Follower;
use crate::delivery::feed::Pace;
use crate::delivery::feed::lane;
use crate::delivery::live::END_OF_TIME;
use crate::delivery::recent::Note;
use crate::delivery::recent::Whose;
use crate::delivery::shard::Shard;
use crate::delivery::source::Phase;
use crate::delivery::subscription::Announced;
use crate::delivery::subscription::Behind;
use crate::delivery::subscription::Queued;
use crate::delivery::subscription::Reader;
use crate::delivery::subscription::State;
use crate::delivery::subscription::SubRef;
use crate::delivery::subscription::Subscription;
use crate::delivery::subscription::Waits;
use crate::log::partition::Cursor;
use crate::log::partition::Read;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::frame::Gap;
use crate::protocol::frame::GapReason;
use crate::protocol::frame::OnGap;
use crate::protocol::frame::ServerFrame;
use crate::types::ids::Offset;
use crate::types::ids::TopicId;
use crate::types::moment::Moment;
use crate::types::positions::Epochs;
use crate::types::positions::Positions;
use crate::types::sabotage::Defect;

/// How reading on in one partition went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delivery) enum Step {
    /// The cursor moved; there may be more.
    Moved,
    /// The cursor has met the shard's.
    AtEnd,
    /// It goes on when history has come.
    Waiting,
    /// It goes on at the next tick.
    Later,
    /// It goes on when the peer has read or acknowledged.
    Full,
    /// The subscription has ended.
    Ended,
}

impl Shard {
    /// Does one bounded turn of work for those that are behind.
    pub fn handle_turn(&mut self, now: Moment) {
        for (source, partition) in std::mem::take(&mut self.unfinished) {
            if self.sources.get(source).is_some_and(|s| partition < s.partitions.len()) {
                self.advance(source, partition, now);
            }
        }
        let bytes_max = self.counts.bytes + BYTES_PER_TURN;
        for _ in 0..SUBSCRIPTIONS_PER_TURN.min(self.runnable.len()) {
            let Some(subscription) = self.runnable.pop() else { return };
            self.run(subscription, now);
            if self.counts.bytes >= bytes_max {
                return;
            }
        }
    }

    /// Puts a subscription in the queue of those that can read on.
    pub(in crate::delivery) fn queue(&mut self, slot: usize, sub: usize) {
        let connection = &mut self.connections[slot];
        let key = connection.key(slot);
        let Some(tenant) = connection.principal().map(|principal| principal.tenant.clone()) else {
            return;
        };
        let Some(Some(subscription)) = connection.subscriptions.get_mut(sub) else { return };
        let serial = subscription.serial;
        if let State::Behind(behind) = &mut subscription.state
            && behind.queued == Queued::No
        {
            behind.queued = Queued::Yes;
            let subscription = SubRef { connection: key, slot: sub as u16, serial };
            self.runnable.push(&tenant, subscription);
        }
    }

    /// Queues all of a connection's subscriptions that are behind.
    pub(in crate::delivery) fn queue_behind(&mut self, slot: usize) {
        // A connection may have thousands that are live, and this is called at each
        // write.
        if self.connections[slot].behind == 0 {
            return;
        }
        for sub in 0..self.connections[slot].subscriptions.len() {
            self.queue(slot, sub);
        }
    }

    /// Queues a subscription that has just fallen behind, where nothing that is
    /// unsent will wake it.
    pub(in crate::delivery) fn queue_if_room(&mut self, (slot, sub): (usize, usize)) {
        let connection = &self.connections[slot];
        if connection.outbox.bytes() * 2 <= self.settings.unsent_bytes_max {
            self.queue(slot, sub);
        }
    }

    /// Wakes those who wait for history of a partition, where some has come.
    pub(in crate::delivery) fn wake_waiting(&mut self, source: usize, partition: usize) {
        let place = &mut self.sources[source].partitions[partition];
        let version = place.log.history_version();
        if version == place.history_version {
            return;
        }
        place.history_version = version;
        place.demanded.clear();
        for waiting in std::mem::take(&mut place.waiting) {
            self.stop_waiting(waiting, partition);
        }
    }

    /// Wakes a subscription that waited for history of a partition.
    pub(in crate::delivery) fn stop_waiting(&mut self, subscription: SubRef, partition: usize) {
        let Some((slot, sub)) = self.find(subscription) else { return };
        let found = self.connections[slot].subscriptions[sub].as_mut().expect("just found");
        if let State::Behind(behind) = &mut found.state
            && let Some(reader) = behind.partitions.get_mut(partition)
        {
            reader.waits = Waits::Nothing;
            self.queue(slot, sub);
        }
    }

    /// Returns the places of a subscription that has not ended.
    pub(in crate::delivery) fn find(&self, subscription: SubRef) -> Option<(usize, usize)> {
        let slot = self.slot(subscription.connection)?;
        let sub = usize::from(subscription.slot);
        let found = self.connections[slot].subscriptions.get(sub)?.as_ref()?;
        (found.serial == subscription.serial).then_some((slot, sub))
    }

    fn run(&mut self, subscription: SubRef, now: Moment) {
        let Some((slot, sub)) = self.find(subscription) else { return };
        let Some(behind) = self.behind_mut(slot, sub) else { return };
        behind.queued = Queued::No;
        self.turn = Some(now);
        if self.must_begin_anew(slot, sub) {
            return;
        }
        let Some(behind) = self.behind_mut(slot, sub) else { return };
        let (first, count) = (behind.turn, behind.partitions.len());
        let (mut steps, mut settled) = (0, 0);
        for turn in 0..count {
            let partition = (first + turn) % count;
            loop {
                if steps == STEPS_PER_TURN {
                    if let Some(behind) = self.behind_mut(slot, sub) {
                        behind.turn = (partition + 1) % count;
                    }
                    self.tell_scanned(slot, sub, now.instant);
                    return self.queue(slot, sub);
                }
                match self.read_on(slot, sub, partition) {
                    Step::Moved => steps += 1,
                    Step::AtEnd => {
                        settled += 1;
                        break;
                    }
                    Step::Waiting => break,
                    Step::Later => {
                        self.upkeep.look_again(self.source_of(slot, sub));
                        break;
                    }
                    Step::Full => {
                        if let Some(behind) = self.behind_mut(slot, sub) {
                            behind.turn = partition;
                        }
                        return;
                    }
                    Step::Ended => return,
                }
            }
        }
        if settled == count && self.has_met(slot, sub) {
            return self.join(slot, sub, now);
        }
        let source = self.source_of(slot, sub);
        self.sources[source].at_end.insert(subscription);
        self.tell_scanned(slot, sub, now.instant);
    }

    /// Says that the topic was made again, where it was and the client does not
    /// know, before anything else is said: a partition that only the new topic
    /// has would be taken for one of the old. Says whether it can't be said yet
    /// or has ended the subscription.
    fn must_begin_anew(&mut self, slot: usize, sub: usize) -> bool {
        let source = self.source_of(slot, sub);
        let Some(place) = self.sources[source].partitions.first() else { return false };
        let topic_id = place.log.topic_id();
        let State::Behind(behind) = &self.subscription(slot, sub).state else { return true };
        if behind.topic_id == topic_id {
            return false;
        }
        match self.begin_anew(slot, sub, topic_id) {
            Step::Later => {
                let reference = self.reference(slot, sub);
                self.sources[source].at_end.insert(reference);
                self.upkeep.look_again(source);
                true
            }
            step => step == Step::Ended,
        }
    }

    /// Tells a gap, after the client's position has been brought up to it where
    /// that still means something.
    pub(in crate::delivery) fn tell_gap(
        &mut self,
        slot: usize,
        sub: usize,
        partition: usize,
        to: Cursor,
        reason: GapReason,
        topic_id: Option<TopicId>,
    ) -> Step {
        let Some(reader) = self.reader(slot, sub, partition) else { return Step::Ended };
        let source = self.source_of(slot, sub);
        let id = self.sources[source].partitions[partition].log.id();
        let number = self.feeds.at(self.subscription(slot, sub).feed).number;
        let from = told_before(reason, reader.told, reader.cursor.offset);
        if reader.told < from {
            // The gap says where it goes on, under whose log is yet to be heard.
            let (to, epochs) = (Positions::from([(id, from)]), Epochs::new());
            self.send(slot, &ServerFrame::Progress { sub: number, to, epochs });
        }
        let to = match Defect::GapTooLong.is_planted() {
            false => to,
            true => Cursor { offset: to.offset.next(), ..to },
        };
        let gap = Gap { sub: number, partition: id, from, to: to.offset, reason, topic_id };
        let whose = Whose::Subscription(self.subscription(slot, sub).serial);
        let turn = self.turn.expect("whoever reads on has its turn");
        self.recent.note(Note::of_gap(whose, &gap, turn.wall));
        self.send(slot, &ServerFrame::Gap(gap));
        self.counts.gap(reason);
        let subscription = self.subscription_mut(slot, sub);
        if let Some(window) = &mut subscription.window {
            window.forget(id);
        }
        if subscription.on_gap == OnGap::Stop {
            let message = "wanted offsets are gone and on_gap is stop: subscribe again";
            self.end_with_error(slot, sub, ErrorCode::Gap, message.to_owned());
            return Step::Ended;
        }
        let told = to.offset;
        self.set_reader(slot, sub, partition, Reader { cursor: to, told, waits: Waits::Nothing });
        Step::Moved
    }

    /// Tells that the topic was made again: of all partitions at once, so that
    /// a client never holds positions of two topics.
    pub(in crate::delivery) fn begin_anew(
        &mut self,
        slot: usize,
        sub: usize,
        topic_id: TopicId,
    ) -> Step {
        let source = self.source_of(slot, sub);
        if !self.is_recreated(source, topic_id) {
            return Step::Later;
        }
        for partition in 0..self.sources[source].partitions.len() {
            let Some(reader) = self.reader(slot, sub, partition) else { return Step::Ended };
            let log = &self.sources[source].partitions[partition].log;
            if let Read::Recreated { to, .. } = log.read(reader.cursor, END_OF_TIME, 1) {
                let reason = GapReason::TopicRecreated;
                let step = self.tell_gap(slot, sub, partition, to, reason, Some(topic_id));
                if step == Step::Ended {
                    return step;
                }
            }
        }
        if let Some(behind) = self.behind_mut(slot, sub) {
            behind.topic_id = topic_id;
        }
        Step::Moved
    }

    /// Says whether every cursor has met the shard's, so that from here on the
    /// feed's frames join without a hole.
    fn has_met(&self, slot: usize, sub: usize) -> bool {
        let State::Behind(behind) = &self.subscription(slot, sub).state else { return false };
        let places = &self.sources[self.source_of(slot, sub)].partitions;
        places.len() == behind.partitions.len()
            && places.iter().zip(&behind.partitions).all(|(p, r)| p.cursor == r.cursor)
    }

    /// Makes a subscription live: it goes on with its feed.
    fn join(&mut self, slot: usize, sub: usize, now: Moment) {
        self.tell_scanned_now(slot, sub, now.instant);
        let encoding = self.connections[slot].encoding;
        let feed_slot = self.subscription(slot, sub).feed;
        let source = self.source_of(slot, sub);
        let feed = self.feeds.at_mut(feed_slot);
        if feed.is_unfollowed() || Defect::JoinMovesFeed.is_planted() {
            let places = &self.sources[source].partitions;
            feed.told = places.iter().map(|place| place.cursor.offset).collect();
        }
        let subscription =
            self.connections[slot].subscriptions[sub].as_mut().expect("the caller found it");
        let pace = match subscription.window {
            Some(_) => Pace::Windowed,
            None => Pace::Free,
        };
        let followers = &mut feed.followers[lane(encoding)];
        let follower = u32::try_from(followers.len()).expect("bounded by connections_max");
        followers.push(Follower { connection: slot as u32, subscription: sub as u16, pace });
        subscription.state = State::Live { follower };
        let announced = std::mem::replace(&mut subscription.announced, Announced::Live);
        self.end_behind(slot, feed_slot);
        self.counts.became_live += 1;
        if announced == Announced::NotYet {
            let number = self.feeds.at(feed_slot).number;
            self.send(slot, &ServerFrame::Live { sub: number });
        }
    }

    /// Tells how far the cursors have come, once in a while.
    pub(in crate::delivery) fn tell_scanned(&mut self, slot: usize, sub: usize, now: Instant) {
        let interval = self.settings.progress_interval;
        let Some(behind) = self.behind_mut(slot, sub) else { return };
        if now.saturating_duration_since(behind.told_at) >= interval {
            self.tell_scanned_now(slot, sub, now);
        }
    }

    fn tell_scanned_now(&mut self, slot: usize, sub: usize, now: Instant) {
        let Some(behind) = self.behind_mut(slot, sub) else { return };
        behind.told_at = now;
        let mut moved: Vec<(usize, Cursor)> = Vec::new();
        for (index, reader) in behind.partitions.iter_mut().enumerate() {
            if reader.told < reader.cursor.offset {
                reader.told = reader.cursor.offset;
                moved.push((index, reader.cursor));
            }
        }
        if moved.is_empty() {
            return;
        }
        let (mut to, mut epochs) = (Positions::new(), Epochs::new());
        let places = &self.sources[self.source_of(slot, sub)].partitions;
        for (index, cursor) in moved {
            let log = &places[index].log;
            to.insert(log.id(), cursor.offset);
            if let Some(reached) = log.reached(cursor) {
                epochs.insert(log.id(), reached);
            }
        }
        let sub = self.feeds.at(self.subscription(slot, sub).feed).number;
        self.send(slot, &ServerFrame::Progress { sub, to, epochs });
    }

    pub(in crate::delivery) fn subscription(&self, slot: usize, sub: usize) -> &Subscription {
        self.connections[slot].subscriptions[sub].as_ref().expect("the caller found it")
    }

    pub(in crate::delivery) fn subscription_mut(
        &mut self,
        slot: usize,
        sub: usize,
    ) -> &mut Subscription {
        self.connections[slot].subscriptions[sub].as_mut().expect("the caller found it")
    }

    pub(in crate::delivery) fn source_of(&self, slot: usize, sub: usize) -> usize {
        self.feeds.at(self.subscription(slot, sub).feed).source
    }

    pub(in crate::delivery) fn reference(&self, slot: usize, sub: usize) -> SubRef {
        let serial = self.subscription(slot, sub).serial;
        SubRef { connection: self.connections[slot].key(slot), slot: sub as u16, serial }
    }

    /// Queues those that had met the shard's cursor in some partition.
    pub(in crate::delivery) fn queue_at_end(&mut self, source: usize) {
        if self.sources[source].phase == Phase::Waiting {
            return;
        }
        for subscription in std::mem::take(&mut self.sources[source].at_end) {
            if let Some((slot, sub)) = self.find(subscription) {
                self.queue(slot, sub);
            }
        }
    }

    pub(in crate::delivery) fn behind_mut(
        &mut self,
        slot: usize,
        sub: usize,
    ) -> Option<&mut Behind> {
        match &mut self.connections[slot].subscriptions.get_mut(sub)?.as_mut()?.state {
            State::Behind(behind) => Some(behind),
            State::Starting(_) | State::Live { .. } => None,
        }
    }

    pub(in crate::delivery) fn reader(
        &self,
        slot: usize,
        sub: usize,
        partition: usize,
    ) -> Option<Reader> {
        match &self.connections.get(slot)?.subscriptions.get(sub)?.as_ref()?.state {
            State::Behind(behind) => behind.partitions.get(partition).copied(),
            State::Starting(_) | State::Live { .. } => None,
        }
    }

    pub(in crate::delivery) fn set_reader(
        &mut self,
        slot: usize,
        sub: usize,
        partition: usize,
        reader: Reader,
    ) {
        if let Some(behind) = self.behind_mut(slot, sub) {
            behind.partitions[partition] = reader;
        }
    }
}

/// Returns where a gap begins for a client that was told of all below `told`,
/// while all below `cursor` was looked at. Nothing more is said of a topic that
/// was made again: a position in the old one, after the gap of another partition
/// has named the new one, would be taken for a position in the new one.
pub(in crate::delivery) fn told_before(reason: GapReason, told: Offset, cursor: Offset) -> Offset {
    match reason {
        GapReason::TopicRecreated => told,
        GapReason::Retention | GapReason::Truncated | GapReason::Skipped => cursor,
    }
}

/// Subscriptions served in one turn, and bytes after which it is over, so that
/// live records never wait long.
const SUBSCRIPTIONS_PER_TURN: usize = 64;
const BYTES_PER_TURN: u64 = 512 << 10;
/// Reads of the log for one subscription in one turn.
const STEPS_PER_TURN: usize = 4;
