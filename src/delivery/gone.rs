//! What is gone from a log, told to all who are live.

use crate::delivery::behind::told_before;
use crate::delivery::live::END_OF_TIME;
use crate::delivery::recent::Note;
use crate::delivery::recent::Whose;
use crate::delivery::shard::Shard;
use crate::log::partition::Cursor;
use crate::log::partition::Read;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::frame::Gap;
use crate::protocol::frame::GapReason;
use crate::protocol::frame::OnGap;
use crate::protocol::frame::ServerFrame;
use crate::types::ids::PartitionId;
use crate::types::ids::TopicId;
use crate::types::moment::Moment;
use crate::types::positions::Positions;

impl Shard {
    /// Tells all live followers of a source what is gone, and goes on at `to`.
    pub(in crate::delivery) fn lose(
        &mut self,
        source: usize,
        partition: usize,
        to: Cursor,
        reason: GapReason,
        topic_id: Option<TopicId>,
        now: Moment,
    ) {
        let place = &self.sources[source].partitions[partition];
        let (id, cursor) = (place.log.id(), place.cursor.offset);
        for feed in self.feeds.slots_of(source) {
            if self.feeds.at(feed).is_unfollowed() {
                continue;
            }
            let told = self.feeds.at(feed).told[partition];
            let from = told_before(reason, told, cursor);
            if told < from {
                self.tell_positions(feed, Positions::from([(id, from)]), now);
            }
            let sub = self.feeds.at(feed).number;
            let to = to.offset;
            let gap = Gap { sub, partition: id, from, to, reason, topic_id };
            self.recent.note(Note::of_gap(Whose::Feed(sub), &gap, now.wall));
            self.tell(feed, &ServerFrame::Gap(gap), now);
            self.counts.gap(reason);
            self.feeds.at_mut(feed).told[partition] = to;
            for (slot, sub) in self.followers_of(feed) {
                self.after_live_gap(slot, sub, id);
            }
        }
        if let Some(found) = self.sources.get_mut(source) {
            found.partitions[partition].cursor = to;
        }
    }

    fn after_live_gap(&mut self, slot: usize, sub: usize, partition: PartitionId) {
        let subscription = self.connections[slot].subscriptions[sub].as_mut().expect("it is live");
        if let Some(window) = &mut subscription.window {
            window.forget(partition);
        }
        if subscription.on_gap == OnGap::Stop {
            let message = "wanted offsets are gone and on_gap is stop: subscribe again";
            self.end_with_error(slot, sub, ErrorCode::Gap, message.to_owned());
        }
    }

    /// Tells all live followers that the topic was made again, once all of its
    /// partitions were; says whether they were.
    pub(in crate::delivery) fn recreate(
        &mut self,
        source: usize,
        topic_id: TopicId,
        now: Moment,
    ) -> bool {
        if !self.is_recreated(source, topic_id) {
            self.upkeep.look_again(source);
            return false;
        }
        for partition in 0..self.sources[source].partitions.len() {
            let Some(found) = self.sources.get(source) else { return false };
            let place = &found.partitions[partition];
            if let Read::Recreated { to, .. } = place.log.read(place.cursor, END_OF_TIME, 1) {
                let reason = GapReason::TopicRecreated;
                self.lose(source, partition, to, reason, Some(topic_id), now);
            }
        }
        let Some(found) = self.sources.get_mut(source) else { return false };
        found.topic_id = topic_id;
        true
    }

    /// Says whether all partitions of a source speak of this topic already:
    /// they turn one after the other, and clients are told of all at once.
    pub(in crate::delivery) fn is_recreated(&self, source: usize, topic_id: TopicId) -> bool {
        self.sources[source].partitions.iter().all(|place| place.log.topic_id() == topic_id)
    }
}
