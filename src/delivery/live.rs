//! The live path: what arrives is matched once, encoded once for each feed, and
//! shared by all who follow it.

use std::sync::Arc;
use std::time::Duration;

use crate::delivery::connection::Mark;
use crate::delivery::feed::LANES;
use crate::delivery::feed::Pace;
use crate::delivery::feed::lane;
use crate::delivery::index::FeedSlot;
use crate::delivery::recent::Note;
use crate::delivery::recent::What;
use crate::delivery::recent::Whose;
use crate::delivery::shard::Shard;
use crate::delivery::source::Partition;
use crate::delivery::subscription::Announced;
use crate::delivery::subscription::Behind;
use crate::delivery::subscription::Queued;
use crate::delivery::subscription::Reader;
use crate::delivery::subscription::State;
use crate::delivery::subscription::Waits;
use crate::delivery::traces::Begun;
use crate::delivery::tracing::Pushed;
use crate::delivery::tracing::origin_at;
use crate::log::batch::Batch;
use crate::log::partition::Cursor;
use crate::log::partition::Read;
use crate::protocol::encode::RecordsEncoder;
use crate::protocol::encode::WireFrame;
use crate::protocol::encode::encode;
use crate::protocol::frame::GapReason;
use crate::protocol::frame::ServerFrame;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::Timestamp;
use crate::types::moment::Moment;
use crate::types::positions::Epochs;
use crate::types::positions::Positions;
use crate::types::record::Record;
use crate::types::sabotage::Defect;

/// A live subscription that could not take a frame: connection, subscription.
pub(in crate::delivery) type Fallen = (usize, usize);

impl Shard {
    /// Serves what is new in a partition to all live feeds, up to a bound of
    /// work; what remains is left for the next turn.
    pub(in crate::delivery) fn advance(&mut self, source: usize, partition: usize, now: Moment) {
        for _ in 0..READS_PER_TURN {
            // A gap ends those who want to stop there, and the source with the
            // last of them.
            if !self.sources.contains(source) {
                return;
            }
            self.wake_waiting(source, partition);
            let place = &self.sources[source].partitions[partition];
            let at = place.cursor;
            match place.log.read(at, END_OF_TIME, READ_BYTES) {
                Read::AtEnd => return,
                Read::Batches(batches) => self.fan_out(source, partition, &batches, now),
                Read::Missing => self.skip_to_end(source, partition, now),
                Read::Expired { to } => {
                    let to = Cursor { offset: to, ..at };
                    self.lose(source, partition, to, GapReason::Retention, None, now);
                }
                Read::Truncated { to } if to.offset == at.offset => {
                    self.sources[source].partitions[partition].cursor = to;
                }
                Read::Truncated { to } => {
                    self.lose(source, partition, to, GapReason::Truncated, None, now);
                }
                Read::Recreated { topic_id, .. } => {
                    if !self.recreate(source, topic_id, now) {
                        return;
                    }
                }
            }
        }
        self.unfinished.push((source, partition));
    }

    /// Puts a live subscription on its own cursors. They stand at the shard's: what
    /// lies between those and where the feed has been told holds nothing for it,
    /// and its client may have heard so when it joined. Placed lower, a log that
    /// becomes shorter by just that much would not be told to it as shorter.
    pub(in crate::delivery) fn fall_behind(&mut self, (slot, sub): Fallen, now: Moment) {
        let encoding = self.connections[slot].encoding;
        let subscription = self.connections[slot].subscriptions[sub].as_mut().expect("it is live");
        let State::Live { follower } = subscription.state else { return };
        let feed = subscription.feed;
        let source = &self.sources[self.feeds.at(feed).source];
        let reader = |(place, told): (&Partition, &Offset)| Reader {
            cursor: Cursor { offset: place.cursor.offset.max(*told), ..place.cursor },
            told: *told,
            waits: Waits::Nothing,
        };
        let told = &self.feeds.at(feed).told;
        let partitions = source.partitions.iter().zip(told).map(reader).collect();
        subscription.state = State::Behind(Box::new(Behind {
            partitions,
            topic_id: source.topic_id,
            turn: 0,
            queued: Queued::No,
            told_at: now.instant,
            since: now.instant,
        }));
        if subscription.announced == Announced::Live {
            self.counts.fell_behind += 1;
        }
        self.begin_behind(slot, feed);
        self.unfollow_feed(feed, lane(encoding), follower);
    }

    /// Takes a follower out of its feed; the one that takes its place is told.
    pub(in crate::delivery) fn unfollow_feed(
        &mut self,
        feed: FeedSlot,
        lane: usize,
        follower: u32,
    ) {
        let followers = &mut self.feeds.at_mut(feed).followers[lane];
        followers.swap_remove(follower as usize);
        let Some(moved) = followers.get(follower as usize) else { return };
        let connection = &mut self.connections[moved.connection as usize];
        let subscription = connection.subscriptions[usize::from(moved.subscription)].as_mut();
        subscription.expect("a follower is a subscription").state = State::Live { follower };
    }

    /// Tells the live followers of a feed that its positions have moved, where
    /// they have.
    pub(in crate::delivery) fn tell_progress(&mut self, feed: FeedSlot, now: Moment) {
        let source = self.feeds.at(feed).source;
        if self.feeds.at(feed).is_unfollowed() || Defect::ForgetProgress.is_planted() {
            return;
        }
        let served = |place: &Partition| match Defect::ProgressTooEarly.is_planted() {
            false => place.cursor.offset,
            true => place.log.end().offset,
        };
        let places = self.sources[source].partitions.iter().zip(&self.feeds.at(feed).told);
        let moved: Positions = places
            .filter(|(place, told)| served(place) > **told)
            .map(|(place, _)| (place.log.id(), served(place)))
            .collect();
        if !moved.is_empty() {
            self.tell_positions(feed, moved, now);
        }
    }

    /// Tells all live followers of a feed where it stands.
    pub(in crate::delivery) fn tell_positions(
        &mut self,
        feed: FeedSlot,
        to: Positions,
        now: Moment,
    ) {
        let places = &self.sources[self.feeds.at(feed).source].partitions;
        let known = to.iter().filter_map(|(partition, offset)| {
            Some((*partition, places[partition.index()].reached(*offset)?))
        });
        let epochs: Epochs = known.collect();
        let sub = self.feeds.at(feed).number;
        let frame = ServerFrame::Progress { sub, to: to.clone(), epochs };
        self.tell(feed, &frame, now);
        let told = &mut self.feeds.at_mut(feed).told;
        for (partition, offset) in to {
            told[partition.index()] = offset;
        }
    }

    /// Gives a frame to all live followers; who has no room falls behind.
    pub(in crate::delivery) fn tell(&mut self, feed: FeedSlot, frame: &ServerFrame, now: Moment) {
        for (lane, encoding) in LANES.into_iter().enumerate() {
            if !self.feeds.at(feed).followers[lane].is_empty() {
                let frame = encode(frame, encoding);
                self.counts.frames_encoded += 1;
                self.share(feed, lane, &frame, Load::Words, None, now);
            }
        }
    }

    /// Serves a run of batches to the live feeds, in one frame for each where its
    /// limits allow.
    fn fan_out(&mut self, source: usize, partition: usize, batches: &[Arc<Batch>], now: Moment) {
        let mut matched = std::mem::take(&mut self.matched);
        let mut touched = std::mem::take(&mut self.touched);
        let from = self.sources[source].partitions[partition].cursor.offset;
        let to = batches.last().map_or(from, |batch| batch.to());
        self.sources[source].partitions[partition].note_reached(batches);
        let mut newest = None;
        for batch in batches {
            let first = batch.index_at(from);
            let waited = batch.received_at().map(|at| now.instant.saturating_duration_since(at));
            if let Some(waited) = waited {
                self.counts.dispatched.add(waited, 1);
            }
            let mut traced = batch.traced_from(first);
            self.counts.records_matched += (batch.len() - first) as u64;
            for start in (first..batch.len()).step_by(MATCHED_AT_ONCE) {
                let run = start..batch.len().min(start + MATCHED_AT_ONCE);
                matched.find(&self.sources[source].index, batch, run);
                for (index, feeds) in matched.iter() {
                    let is_traced = !traced.is_empty() || self.traces.is_watching();
                    if feeds.is_empty() && !is_traced {
                        continue;
                    }
                    let record = batch.record(index);
                    let begun = is_traced.then(|| {
                        let origin = origin_at(&mut traced, index);
                        let received = batch.received_at();
                        self.begin_record(source, partition, &record, origin, received, feeds)
                    });
                    let begun = begun.flatten();
                    if let (Some(begun), Some(waited)) = (&begun, waited) {
                        self.counts.dispatched.show(begun.exemplar(waited, now.wall));
                    }
                    for feed in feeds {
                        self.write(*feed, partition, &record, begun.as_ref(), &mut touched, now);
                    }
                }
                newest = batch.newest();
            }
        }
        for feed in touched.drain(..) {
            // Where the last record that it wants filled a frame, the feed has been told
            // up to there; what follows holds nothing for it, and is told as progress.
            let is_written = self.feeds.at(feed).writing.iter().any(Option::is_some);
            if is_written || Defect::TellPastFullFrame.is_planted() {
                self.deliver(feed, partition, to, newest, now);
            }
        }
        self.traces.end_processes();
        self.sources[source].partitions[partition].cursor.offset = to;
        self.matched = matched;
        self.touched = touched;
    }

    /// Adds a record to the frames of a feed.
    fn write(
        &mut self,
        slot: FeedSlot,
        partition: usize,
        record: &Record<'_>,
        begun: Option<&Begun>,
        touched: &mut Vec<FeedSlot>,
        now: Moment,
    ) {
        let begun = begun.filter(|begun| self.is_traced_for(begun, slot));
        let started = begun.map(|_| self.traces.now());
        let feed = self.feeds.at_mut(slot);
        if feed.is_unfollowed() {
            return;
        }
        if feed.writing.iter().all(Option::is_none) {
            touched.push(slot);
        }
        let (number, from) = (feed.number, feed.told[partition]);
        let limits = self.settings.frame;
        let mut full = false;
        for (lane, encoding) in LANES.into_iter().enumerate() {
            if feed.followers[lane].is_empty() {
                continue;
            }
            let frame = feed.writing[lane].get_or_insert_with(|| {
                let partition = PartitionId::from_index(partition);
                Box::new(RecordsEncoder::start(encoding, number, partition, from))
            });
            frame.push(record);
            full |= frame.bytes() >= limits.bytes || frame.records() >= limits.records;
        }
        if let (Some(begun), Some(started)) = (begun, started) {
            self.traces.write(slot, *begun, started);
        }
        if full {
            self.deliver(slot, partition, record.offset.next(), Some(record.timestamp), now);
        }
    }

    /// Ends the frames of a feed at `to` and gives them to all who follow.
    fn deliver(
        &mut self,
        slot: FeedSlot,
        partition: usize,
        to: Offset,
        newest: Option<Timestamp>,
        now: Moment,
    ) {
        let feed = self.feeds.at(slot);
        let reached = self.sources[feed.source].partitions[partition].reached(to);
        self.recent.note(Note {
            whose: Whose::Feed(feed.number),
            partition: PartitionId::from_index(partition),
            from: feed.told[partition],
            to,
            at: now.wall,
            what: What::Records,
        });
        let mut fan_out = self.begin_fan_out(slot);
        for lane in 0..LANES.len() {
            let Some(frame) = self.feeds.at_mut(slot).writing[lane].take() else { continue };
            let records = u32::try_from(frame.records()).expect("bounded by the frame's limit");
            let frame = frame.finish(to, reached);
            self.counts.frames_encoded += 1;
            let followers = self.feeds.at(slot).followers[lane].len();
            if let Some(newest) = newest {
                let millis = now.wall.as_millis().saturating_sub(newest.as_millis()).max(0);
                let took = Duration::from_millis(millis.cast_unsigned());
                self.counts.delivered.add(took, followers as u64);
                if let Some(fan_out) = &fan_out {
                    self.counts.delivered.show(fan_out.exemplar(took, now.wall));
                }
            }
            let load = Load::Records { partition: PartitionId::from_index(partition), to, records };
            let Some(fan_out) = &mut fan_out else {
                self.share(slot, lane, &frame, load, None, now);
                continue;
            };
            let mut pushed = Vec::new();
            self.share(slot, lane, &frame, load, Some(&mut pushed), now);
            fan_out.note_frame(records);
            self.launch_chosen(fan_out, &pushed, frame.bytes().len());
        }
        self.feeds.at_mut(slot).told[partition] = to;
        if let Some(fan_out) = fan_out {
            self.end_fan_out(fan_out);
        }
    }

    /// Puts one frame into the outbox of each follower. Who has no room for it
    /// falls behind, at the place that the feed had been told before. Who was
    /// given it is told where somebody wants to know.
    fn share(
        &mut self,
        slot: FeedSlot,
        lane: usize,
        frame: &WireFrame,
        load: Load,
        mut told: Option<&mut Vec<Pushed>>,
        now: Moment,
    ) {
        let mut fallen: Vec<Fallen> = Vec::new();
        let bytes = frame.bytes().len();
        let unsent_bytes_max = self.settings.unsent_bytes_max;
        let mut pushed = 0_u64;
        for follower in &self.feeds.at(slot).followers[lane] {
            let at = follower.connection as usize;
            let connection = &mut self.connections[at];
            let unsent = connection.outbox.bytes();
            if unsent > 0 && unsent + bytes > unsent_bytes_max {
                fallen.push((at, usize::from(follower.subscription)));
                continue;
            }
            if follower.pace == Pace::Windowed
                && let Load::Records { partition, to, records } = load
            {
                let subscription =
                    connection.subscriptions[usize::from(follower.subscription)].as_mut();
                let window = subscription.and_then(|s| s.window.as_mut());
                let window = window.expect("a windowed follower has a window");
                if window.room() < records {
                    fallen.push((at, usize::from(follower.subscription)));
                    continue;
                }
                window.sent(partition, to, records, now.instant);
            }
            connection.outbox.push(frame);
            if let Load::Records { records, .. } = load {
                if unsent == 0 {
                    connection.pulse.unsent_since = Some(now.instant);
                }
                if let Some(tenant) = connection.tenant {
                    let tally = self.tenants.at(tenant);
                    tally.deliveries += u64::from(records);
                    tally.bytes += bytes as u64;
                }
            }
            if let Some(told) = &mut told {
                told.push(Pushed { follower: *follower, before: unsent });
            }
            if connection.mark == Mark::Clean {
                connection.mark = Mark::Dirty;
                self.dirty.push(follower.connection);
            }
            pushed += 1;
        }
        self.counts.frames += pushed;
        self.counts.bytes += pushed * bytes as u64;
        if let Load::Records { records, .. } = load {
            self.counts.deliveries += pushed * u64::from(records);
            let tally = self.channel_tallies.at(self.feeds.at(slot).tally);
            tally.deliveries += pushed * u64::from(records);
            tally.bytes += pushed * bytes as u64;
        }
        for subscription in fallen {
            self.fall_behind(subscription, now);
            self.queue_if_room(subscription);
        }
    }

    /// Goes on at the end of the log: the shard itself was too slow for the
    /// tail. Whoever was live reads what lies between on its own.
    fn skip_to_end(&mut self, source: usize, partition: usize, now: Moment) {
        for feed in self.feeds.slots_of(source) {
            for subscription in self.followers_of(feed) {
                self.fall_behind(subscription, now);
                self.queue_if_room(subscription);
            }
        }
        let place = &mut self.sources[source].partitions[partition];
        place.cursor = place.log.end();
    }

    /// Returns who follows a feed live.
    pub(in crate::delivery) fn followers_of(&self, feed: FeedSlot) -> Vec<Fallen> {
        let followers = self.feeds.at(feed).followers.iter().flatten();
        followers
            .map(|follower| (follower.connection as usize, usize::from(follower.subscription)))
            .collect()
    }
}

/// What a frame carries, for those who count.
#[derive(Debug, Clone, Copy)]
enum Load {
    Words,
    Records { partition: PartitionId, to: Offset, records: u32 },
}

/// Reads of the log in one turn, so that a flood leaves room for others.
const READS_PER_TURN: usize = 4;
/// Records that are matched before the first of them is written.
const MATCHED_AT_ONCE: usize = 64;
/// Bytes of one read of the log.
const READ_BYTES: u64 = 1 << 20;
/// Above any offset that Kafka gives.
pub(in crate::delivery) const END_OF_TIME: Offset = Offset::MAX;
