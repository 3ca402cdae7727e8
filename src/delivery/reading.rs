//! How a subscription that is behind reads on in one partition: from a frame that
//! was encoded for another, from memory, or, once Kafka has brought it, from
//! history.

use std::sync::Arc;

use crate::delivery::behind::Step;
use crate::delivery::feed::lane;
use crate::delivery::index::wants;
use crate::delivery::live::END_OF_TIME;
use crate::delivery::recent::Note;
use crate::delivery::recent::What;
use crate::delivery::recent::Whose;
use crate::delivery::shard::Shard;
use crate::delivery::shelf::Kept;
use crate::delivery::shelf::Lane;
use crate::delivery::source::Demanded;
use crate::delivery::source::newest_reached;
use crate::delivery::subscription::Reader;
use crate::delivery::subscription::State;
use crate::delivery::subscription::Waits;
use crate::delivery::tracing::CaughtUp;
use crate::delivery::tracing::TracedRecord;
use crate::delivery::tracing::origin_at;
use crate::log::batch::Batch;
use crate::log::partition::Cursor;
use crate::log::partition::Read;
use crate::protocol::encode::RecordsEncoder;
use crate::protocol::encode::WireFrame;
use crate::protocol::frame::GapReason;
use crate::registry::message::Command;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::record::Record;
use crate::types::sabotage::Defect;

impl Shard {
    pub(in crate::delivery) fn read_on(
        &mut self,
        slot: usize,
        sub: usize,
        partition: usize,
    ) -> Step {
        let source = self.source_of(slot, sub);
        let room = self.connections[slot].room(&self.settings);
        let Some(reader) = self.reader(slot, sub, partition) else { return Step::Ended };
        let place = &self.sources[source].partitions[partition];
        let of_now = place.cursor.generation == reader.cursor.generation;
        let limit = if of_now { place.cursor.offset } else { END_OF_TIME };
        if Defect::SkipAtJoin.is_planted() && reader.cursor.offset.next() == limit {
            let cursor = place.cursor;
            self.set_reader(slot, sub, partition, Reader { cursor, ..reader });
            return Step::AtEnd;
        }
        if of_now
            && let Some(lane) = self.shared_lane(slot, sub, partition, reader.cursor)
            // What others were sent says nothing of records that are traced only
            // for who is watched.
            && !self.traces.watches(self.connections[slot].key(slot))
            && let Some(kept) = self.shelf.find(lane, reader.told, reader.cursor)
            && kept.to <= limit
        {
            if room == 0 {
                return Step::Full;
            }
            let kept = kept.clone();
            return self.send_kept(slot, sub, partition, &kept);
        }
        match place.log.read(reader.cursor, limit, self.settings.frame.bytes as u64) {
            Read::AtEnd => Step::AtEnd,
            Read::Batches(batches) if room > 0 => {
                self.send_matching(slot, sub, partition, &batches, limit, room)
            }
            Read::Batches(_) => Step::Full,
            Read::Missing => self.wait_for_history(slot, sub, partition, reader.cursor.offset),
            Read::Expired { to } => {
                let to = Cursor { offset: to, ..reader.cursor };
                self.tell_gap(slot, sub, partition, to, GapReason::Retention, None)
            }
            Read::Truncated { to }
                if to.offset == reader.cursor.offset || Defect::SilentTruncation.is_planted() =>
            {
                self.set_reader(slot, sub, partition, Reader { cursor: to, ..reader });
                Step::Moved
            }
            Read::Truncated { to } => {
                self.tell_gap(slot, sub, partition, to, GapReason::Truncated, None)
            }
            Read::Recreated { topic_id, .. } => self.begin_anew(slot, sub, topic_id),
        }
    }

    /// Returns where the frames of a subscription that others can use stand;
    /// `None` where nobody else follows its feed, and where a window counts the
    /// client's records one by one.
    fn shared_lane(&self, slot: usize, sub: usize, partition: usize, at: Cursor) -> Option<Lane> {
        let subscription = self.subscription(slot, sub);
        let feed = self.feeds.at(subscription.feed);
        (feed.members > 1 && subscription.window.is_none()).then(|| Lane {
            feed: feed.serial,
            lane: lane(self.connections[slot].encoding),
            partition,
            generation: at.generation,
        })
    }

    /// Sends a frame that was encoded for another who follows the same feed. Its
    /// records below the client's position are repeats, which clients drop.
    fn send_kept(&mut self, slot: usize, sub: usize, partition: usize, kept: &Kept) -> Step {
        let Some(mut reader) = self.reader(slot, sub, partition) else { return Step::Ended };
        let turn = self.turn.expect("whoever reads on has its turn");
        self.recent.note(Note {
            whose: Whose::Subscription(self.subscription(slot, sub).serial),
            partition: PartitionId::from_index(partition),
            from: kept.from,
            to: kept.to,
            at: turn.wall,
            what: What::Records,
        });
        reader.cursor.offset = kept.to;
        reader.told = kept.to;
        self.set_reader(slot, sub, partition, reader);
        self.push_records(slot, sub, &kept.frame, kept.records);
        if let Some(traced) = &kept.traced {
            let traced = self.caught_up_again(traced);
            let bytes = kept.frame.bytes().len();
            self.note_catch_up((slot, sub), traced, bytes, kept.records);
        }
        Step::Moved
    }

    /// Puts a frame of so many records into the outbox, and counts it.
    fn push_records(&mut self, slot: usize, sub: usize, frame: &WireFrame, records: u32) {
        self.counts.deliveries += u64::from(records);
        let bytes = frame.bytes().len() as u64;
        let feed = self.subscription(slot, sub).feed;
        self.tally(slot, feed, |tally| {
            tally.deliveries += u64::from(records);
            tally.bytes += bytes;
        });
        self.push(slot, frame);
    }

    /// Sends the records that match, as many as one frame, the outbox and the
    /// window have room for. The frame covers from the client's position on, so
    /// that what was passed over in silence is accounted for.
    fn send_matching(
        &mut self,
        slot: usize,
        sub: usize,
        partition: usize,
        batches: &[Arc<Batch>],
        limit: Offset,
        room: usize,
    ) -> Step {
        let turn = self.turn.expect("whoever reads on has its turn");
        let encoding = self.connections[slot].encoding;
        let subscription = self.subscription(slot, sub);
        let feed = self.feeds.at(subscription.feed);
        let credit = subscription.window.as_ref().map_or(u32::MAX, |window| window.room());
        let records_max = self.settings.frame.records.min(credit as usize);
        let bytes_max = self.settings.frame.bytes.min(room);
        let State::Behind(behind) = &subscription.state else { return Step::Ended };
        let mut reader = behind.partitions[partition];
        let id = self.sources[feed.source].partitions[partition].log.id();
        let mut frame: Option<RecordsEncoder> = None;
        let watched = self.traces.watches(self.connections[slot].key(slot));
        let mut caught_up = Vec::new();
        let mut to = batches.last().map_or(reader.cursor.offset, |batch| batch.to()).min(limit);
        'batches: for batch in batches {
            let first = batch.index_at(reader.cursor.offset);
            let mut traced = batch.traced_from(first);
            for index in first..batch.len() {
                let record = batch.record(index);
                if record.offset >= limit {
                    break 'batches;
                }
                let wanted = match Defect::ForgetTenantInHistory.is_planted() {
                    false => wants(feed.key.tenant.as_ref(), &feed.key.filter, &record),
                    true => feed.key.filter.matches(record.key),
                };
                if !wanted {
                    continue;
                }
                let full = frame.as_ref().map_or(records_max == 0, |frame| {
                    frame.records() >= records_max || frame.bytes() >= bytes_max
                });
                if full {
                    to = record.offset;
                    if Defect::PassUnsent.is_planted() {
                        to = to.next();
                    }
                    if Defect::RepeatAfterFullFrame.is_planted()
                        && let Some(frame) = &mut frame
                    {
                        frame.push(&record);
                    }
                    break 'batches;
                }
                let start = || RecordsEncoder::start(encoding, feed.number, id, reader.told);
                let frame = frame.get_or_insert_with(start);
                let origin = origin_at(&mut traced, index);
                if origin.is_none() && !watched {
                    frame.push(&record);
                    continue;
                }
                let traced = self.traced_record(feed.source, partition, &record, origin);
                caught_up.push(self.push_traced(frame, &record, traced));
            }
        }
        let moved = reader.cursor.offset < to;
        reader.cursor.offset = to;
        let Some(frame) = frame else {
            self.set_reader(slot, sub, partition, reader);
            return if moved { Step::Moved } else { Step::Full };
        };
        let whose = Whose::Subscription(subscription.serial);
        let from = std::mem::replace(&mut reader.told, to);
        let (at, what) = (turn.wall, What::Records);
        self.recent.note(Note { whose, partition: id, from, to, at, what });
        self.set_reader(slot, sub, partition, reader);
        let records = u32::try_from(frame.records()).expect("bounded by the frame's limit");
        if let Some(window) = &mut self.subscription_mut(slot, sub).window {
            window.sent(id, to, records, turn.instant);
        }
        self.counts.frames_encoded += 1;
        let reached = newest_reached(batches).map(|reached| reached.up_to(to));
        let frame = frame.finish(to, reached);
        self.push_records(slot, sub, &frame, records);
        let traced = self.note_caught_up((slot, sub), caught_up, frame.bytes().len(), records);
        if let Some(lane) = self.shared_lane(slot, sub, partition, reader.cursor) {
            self.shelf.keep(lane, Kept { from, to, records, frame, traced });
        }
        Step::Moved
    }

    /// Adds a traced record to a frame.
    fn push_traced(
        &self,
        frame: &mut RecordsEncoder,
        record: &Record<'_>,
        traced: TracedRecord,
    ) -> CaughtUp {
        let started = self.traces.now();
        frame.push(record);
        let encode = self.traces.now().saturating_duration_since(started);
        CaughtUp { record: traced, started, encode }
    }

    /// Notes the traced records of a frame, and returns them for whoever is sent
    /// the frame after this client.
    fn note_caught_up(
        &mut self,
        subscription: (usize, usize),
        caught_up: Vec<CaughtUp>,
        bytes: usize,
        records: u32,
    ) -> Option<Arc<[CaughtUp]>> {
        if caught_up.is_empty() {
            return None;
        }
        let kept = Arc::from(caught_up.as_slice());
        self.note_catch_up(subscription, caught_up, bytes, records);
        Some(kept)
    }

    fn wait_for_history(
        &mut self,
        slot: usize,
        sub: usize,
        partition: usize,
        offset: Offset,
    ) -> Step {
        let subscription = self.reference(slot, sub);
        let source = self.source_of(slot, sub);
        let principal = self.connections[slot].principal();
        let tenant = principal.expect("who reads on is known").tenant.clone();
        let id = self.sources[source].id;
        let place = &mut self.sources[source].partitions[partition];
        let demanded = place.demand(&tenant, offset);
        let command = Command::Demand { source: id, partition: place.log.id(), tenant, offset };
        if let Some(behind) = self.behind_mut(slot, sub) {
            let reader = &mut behind.partitions[partition];
            if reader.waits == Waits::Nothing {
                reader.waits = Waits::History;
                self.sources[source].partitions[partition].waiting.push(subscription);
            }
        }
        if demanded == Demanded::Now {
            self.command(command);
        }
        Step::Waiting
    }
}
