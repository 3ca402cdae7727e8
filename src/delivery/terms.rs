//! Another configuration: who goes on as before, and who is told that its channel
//! is no more.

use std::sync::Arc;

use crate::delivery::settings::Settings;
use crate::delivery::shard::Shard;
use crate::protocol::error_code::ErrorCode;
use crate::tenancy::channel::Channels;
use crate::types::ids::ChannelName;
use crate::types::sabotage::Defect;

impl Shard {
    /// Takes other channels, limits and intervals, and returns how many
    /// subscriptions that ended.
    ///
    /// A subscription goes on untouched where its client may still read the same
    /// records by the new channels; elsewhere it ends with `channel_removed`. No
    /// connection is closed, also where there are now more than may be.
    pub fn handle_config(&mut self, channels: Arc<Channels>, settings: Settings) -> usize {
        self.settings = settings;
        let before = std::mem::replace(&mut self.channels, channels);
        let changed = before.changed_in(&self.channels);
        if changed.is_empty() || Defect::KeepRemovedChannel.is_planted() {
            return 0;
        }
        let is_changed = |channel: &ChannelName| changed.contains(channel);
        let slots: Vec<usize> = self.connections.iter().map(|(slot, _)| slot).collect();
        let mut ended = 0;
        for slot in slots {
            for sub in 0..self.connections[slot].subscriptions.len() {
                if self.loses_its_channel(slot, sub, is_changed) {
                    let message = "the channel is no more, or no longer what it was".to_owned();
                    self.end_with_error(slot, sub, ErrorCode::ChannelRemoved, message);
                    ended += 1;
                }
            }
        }
        ended
    }

    /// Says whether there is a subscription at this place of a channel that
    /// changed, and its client would not get the same records by the new one.
    fn loses_its_channel(
        &self,
        slot: usize,
        sub: usize,
        is_changed: impl Fn(&ChannelName) -> bool,
    ) -> bool {
        let connection = &self.connections[slot];
        let Some(subscription) = &connection.subscriptions[sub] else { return false };
        let key = &self.feeds.at(subscription.feed).key;
        if !is_changed(&key.channel) {
            return false;
        }
        let principal = connection.principal().expect("who subscribed is known");
        match self.channels.grant(principal, &key.channel, &key.filter) {
            Ok(grant) => grant.source != key.source || grant.tenant != key.tenant,
            Err(_) => true,
        }
    }
}
