//! What operators ask of a shard. Each question is one bounded step: whoever wants
//! more asks again from where the last answer ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::delivery::connection::Connection;
use crate::delivery::connection::Phase;
use crate::delivery::recent::Note;
use crate::delivery::recent::Whose;
use crate::delivery::shard::Shard;
use crate::delivery::subscription::State;
use crate::delivery::subscription::Subscription;
use crate::delivery::subscription::Waits;
use crate::delivery::traces::Watch;
use crate::delivery::traces::Watched;
use crate::protocol::close_code::CloseCode;
use crate::protocol::frame::Encoding;
use crate::tenancy::principal::Principal;
use crate::tenancy::revocation::Revoked;
use crate::types::address::ClientAddress;
use crate::types::filter::KeyFilter;
use crate::types::ids::ChannelName;
use crate::types::ids::ConnectionId;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::SubId;
use crate::types::ids::TenantId;
use crate::types::moment::Moment;

/// What is asked.
#[derive(Debug, Clone)]
pub enum Question {
    /// Some connections, from a place on.
    Connections(Walk),
    /// One connection with its subscriptions.
    Connection(ConnectionId),
    /// How many of what each tenant and channel has, among some connections.
    Census { from: u32 },
    /// Where a subscription stands that follows the channel with this filter, and
    /// what is known of one offset.
    Trail(TrailQuery),
    /// Send one connection away, to come back at once.
    Disconnect(ConnectionId),
    /// Close all connections whose token this is.
    Revoke(Revoked),
    /// Trace all that goes to one connection, whatever the records say, or end
    /// that.
    Trace(ConnectionId, Watch),
}

/// Which connections are wanted.
#[derive(Debug, Clone)]
pub struct Walk {
    /// The place to begin at; 0 at first.
    pub from: u32,
    /// Connections in one answer.
    pub max: usize,
    pub tenant: Option<TenantId>,
    pub state: Wanted,
}

/// Which state a connection must be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Any,
    /// One of its subscriptions is behind.
    Behind,
}

/// Whose record is asked about.
#[derive(Debug, Clone)]
pub struct TrailQuery {
    pub connection: ConnectionId,
    pub channel: ChannelName,
    /// `None` takes the first subscription to the channel.
    pub filter: Option<KeyFilter>,
    pub partition: PartitionId,
    pub offset: Offset,
}

/// What is answered.
#[derive(Debug)]
pub enum Answer {
    Connections {
        rows: Vec<ConnectionView>,
        /// Where to go on; `None` at the end.
        next: Option<u32>,
    },
    Connection(Option<Box<ConnectionDetail>>),
    Census {
        tenants: BTreeMap<TenantId, Share>,
        channels: BTreeMap<ChannelName, Share>,
        next: Option<u32>,
    },
    /// `None` where the connection is not of this shard.
    Trail(Option<Box<Trail>>),
    /// So many connections were closed.
    Closed(usize),
    Trace(Watched),
}

/// One connection.
#[derive(Debug, Clone)]
pub struct ConnectionView {
    pub id: ConnectionId,
    pub state: &'static str,
    /// `None` before the client has said who it is.
    pub principal: Option<Arc<Principal>>,
    pub age: Duration,
    pub user_agent: Option<Box<str>>,
    pub address: Option<ClientAddress>,
    pub encoding: Encoding,
    pub subscriptions: usize,
    pub behind: usize,
    /// Offsets that its subscriptions have yet to read.
    pub behind_offsets: u64,
    pub unsent_bytes: usize,
    /// Since when it neither sent nor read anything.
    pub silent: Duration,
}

/// One connection with its subscriptions, the first ones.
#[derive(Debug)]
pub struct ConnectionDetail {
    pub connection: ConnectionView,
    /// Whether all that goes to it is traced.
    pub watch: Watch,
    pub subscriptions: Vec<SubscriptionView>,
}

/// One subscription.
#[derive(Debug)]
pub struct SubscriptionView {
    pub sub: SubId,
    pub channel: ChannelName,
    pub filter: KeyFilter,
    pub state: &'static str,
    /// How long it is behind, if it is.
    pub behind_for: Option<Duration>,
    /// Records that it may have unacknowledged, and how many more it may.
    pub window: Option<(u32, u32)>,
    /// The first partitions.
    pub partitions: Vec<PartitionView>,
    pub partitions_in_all: usize,
}

/// Where a subscription stands in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionView {
    pub partition: PartitionId,
    /// The client's position.
    pub told: Offset,
    /// Up to where it was looked at for this client.
    pub cursor: Offset,
    /// Up to where the shard has served all who are live.
    pub served: Offset,
    pub waits_for_history: bool,
}

/// What a tenant or a channel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    pub connections: usize,
    pub subscriptions: usize,
    pub behind: usize,
    pub unsent_bytes: usize,
}

/// What is known of one client and one offset.
#[derive(Debug)]
pub struct Trail {
    pub principal: Option<Arc<Principal>>,
    /// `None` where it does not follow the channel with the filter.
    pub subscription: Option<SubscriptionTrail>,
}

/// The same, of the subscription.
#[derive(Debug, Clone)]
pub struct SubscriptionTrail {
    pub filter: KeyFilter,
    pub state: &'static str,
    /// `None` where the partition is not read yet.
    pub place: Option<PartitionView>,
    /// Where it began, where that is remembered.
    pub start: Option<Offset>,
    /// The frame or gap that covered the offset, where that is remembered.
    pub note: Option<Note>,
    pub unsent_bytes: usize,
    pub window_is_full: bool,
}

impl Shard {
    /// Answers what an operator asks.
    pub fn handle_question(&mut self, question: Question, now: Moment) -> Answer {
        match question {
            Question::Connections(walk) => self.walk(&walk, now),
            Question::Connection(id) => {
                let slot = self.slot_of(id);
                Answer::Connection(slot.map(|slot| Box::new(self.detail(slot, now))))
            }
            Question::Census { from } => self.census(from),
            Question::Trail(query) => {
                let slot = self.slot_of(query.connection);
                Answer::Trail(slot.map(|slot| Box::new(self.trail(slot, &query, now))))
            }
            Question::Disconnect(id) => {
                let slot = self.slot_of(id);
                if let Some(slot) = slot {
                    self.close(slot, CloseCode::Draining, Some(Duration::ZERO), now.instant);
                }
                Answer::Closed(usize::from(slot.is_some()))
            }
            Question::Revoke(revoked) => Answer::Closed(self.revoke(&revoked, now)),
            Question::Trace(id, watch) => Answer::Trace(self.watch(id, watch)),
        }
    }

    pub(in crate::delivery) fn slot_of(&self, id: ConnectionId) -> Option<usize> {
        self.connections.iter().find(|(_, connection)| connection.id == id).map(|(slot, _)| slot)
    }

    fn walk(&self, walk: &Walk, now: Moment) -> Answer {
        let mut rows = Vec::new();
        let mut place = walk.from as usize;
        let end = self.connections.capacity();
        let last = end.min(place.saturating_add(PLACES_PER_STEP));
        while place < last && rows.len() < walk.max {
            if let Some(connection) = self.connections.get(place)
                && walk.tenant.as_ref().is_none_or(|tenant| {
                    connection.principal().is_some_and(|own| own.tenant == *tenant)
                })
            {
                let row = self.view(connection, now);
                if walk.state == Wanted::Any || row.behind > 0 {
                    rows.push(row);
                }
            }
            place += 1;
        }
        Answer::Connections { rows, next: (place < end).then_some(place as u32) }
    }

    fn census(&self, from: u32) -> Answer {
        let mut tenants: BTreeMap<TenantId, Share> = BTreeMap::new();
        let mut channels: BTreeMap<ChannelName, Share> = BTreeMap::new();
        let end = self.connections.capacity();
        let last = end.min((from as usize).saturating_add(PLACES_PER_STEP));
        for connection in (from as usize..last).filter_map(|place| self.connections.get(place)) {
            let Some(principal) = connection.principal() else { continue };
            let mut own = Share { connections: 1, ..Share::default() };
            own.unsent_bytes = connection.outbox.bytes();
            for subscription in connection.subscriptions.iter().flatten() {
                let behind = usize::from(matches!(subscription.state, State::Behind(_)));
                own.subscriptions += 1;
                own.behind += behind;
                let channel = &self.feeds.at(subscription.feed).key.channel;
                let share = channels.entry(channel.clone()).or_default();
                share.subscriptions += 1;
                share.behind += behind;
            }
            tenants.entry(principal.tenant.clone()).or_default().add(own);
        }
        Answer::Census { tenants, channels, next: (last < end).then_some(last as u32) }
    }

    fn view(&self, connection: &Connection, now: Moment) -> ConnectionView {
        let mut view = ConnectionView {
            id: connection.id,
            state: match connection.phase {
                Phase::Arriving { .. } => "arriving",
                Phase::Open(_) => "open",
                Phase::Closing { .. } => "closing",
            },
            principal: connection.principal().cloned(),
            age: now.instant.saturating_duration_since(connection.opened_at),
            user_agent: connection.user_agent.clone(),
            address: connection.address,
            encoding: connection.encoding,
            subscriptions: 0,
            behind: 0,
            behind_offsets: 0,
            unsent_bytes: connection.outbox.bytes(),
            silent: now.instant.saturating_duration_since(connection.pulse.alive_at),
        };
        for subscription in connection.subscriptions.iter().flatten() {
            view.subscriptions += 1;
            if let State::Behind(behind) = &subscription.state {
                let source = &self.sources[self.feeds.at(subscription.feed).source];
                view.behind += 1;
                view.behind_offsets += behind.offsets(&source.partitions);
            }
        }
        view
    }

    fn detail(&self, slot: usize, now: Moment) -> ConnectionDetail {
        let connection = &self.connections[slot];
        let subscriptions = connection.subscriptions.iter().flatten().take(SUBSCRIPTIONS_MAX);
        let subscriptions = subscriptions.map(|subscription| {
            let feed = self.feeds.at(subscription.feed);
            let count = self.sources[feed.source].partitions.len();
            let partitions = (0..count.min(PARTITIONS_TOLD_MAX))
                .filter_map(|partition| self.place_of(subscription, partition));
            SubscriptionView {
                sub: feed.number,
                channel: feed.key.channel.clone(),
                filter: feed.key.filter.clone(),
                state: name_of(&subscription.state),
                behind_for: match &subscription.state {
                    State::Behind(behind) => {
                        Some(now.instant.saturating_duration_since(behind.since))
                    }
                    State::Starting(_) | State::Live { .. } => None,
                },
                window: subscription.window.as_ref().map(|w| (w.records_max(), w.room())),
                partitions: partitions.collect(),
                partitions_in_all: count,
            }
        });
        ConnectionDetail {
            connection: self.view(connection, now),
            watch: match self.traces.watches(connection.key(slot)) {
                true => Watch::On,
                false => Watch::Off,
            },
            subscriptions: subscriptions.collect(),
        }
    }

    fn trail(&self, slot: usize, query: &TrailQuery, now: Moment) -> Trail {
        let connection = &self.connections[slot];
        let mut all = connection.subscriptions.iter().flatten();
        let found = all.find(|subscription| {
            let key = &self.feeds.at(subscription.feed).key;
            let filter = query.filter.as_ref().is_none_or(|filter| *filter == key.filter);
            key.channel == query.channel && filter
        });
        let subscription = found.map(|subscription| {
            let feed = self.feeds.at(subscription.feed);
            let whose = [Whose::Subscription(subscription.serial), Whose::Feed(feed.number)];
            SubscriptionTrail {
                filter: feed.key.filter.clone(),
                state: name_of(&subscription.state),
                place: self.place_of(subscription, query.partition.index()),
                start: self.start_of(subscription, query.partition),
                note: self.recent.find(whose, query.partition, query.offset),
                unsent_bytes: connection.outbox.bytes(),
                window_is_full: subscription.window.as_ref().is_some_and(|w| w.room() == 0),
            }
        });
        Trail { principal: self.view(connection, now).principal, subscription }
    }

    /// Returns where a subscription began, if the topic is still the same.
    fn start_of(&self, subscription: &Subscription, partition: PartitionId) -> Option<Offset> {
        let started = subscription.started.as_ref()?;
        let source = &self.sources[self.feeds.at(subscription.feed).source];
        if started.topic_id != source.topic_id {
            return None;
        }
        started.at.get(partition.index()).copied()
    }

    fn place_of(&self, subscription: &Subscription, partition: usize) -> Option<PartitionView> {
        let feed = self.feeds.at(subscription.feed);
        let place = self.sources[feed.source].partitions.get(partition)?;
        let served = place.cursor.offset;
        let (told, cursor, waits) = match &subscription.state {
            State::Starting(_) => return None,
            State::Live { .. } => (*feed.told.get(partition)?, served, Waits::Nothing),
            State::Behind(behind) => {
                let reader = behind.partitions.get(partition)?;
                (reader.told, reader.cursor.offset, reader.waits)
            }
        };
        let waits_for_history = waits == Waits::History;
        let partition = PartitionId::from_index(partition);
        Some(PartitionView { partition, told, cursor, served, waits_for_history })
    }

    fn revoke(&mut self, revoked: &Revoked, now: Moment) -> usize {
        let covered = self.connections.iter().filter(|(_, connection)| {
            connection.principal().is_some_and(|principal| revoked.covers(principal))
        });
        let covered: Vec<usize> = covered.map(|(slot, _)| slot).collect();
        for slot in &covered {
            self.close_disbelieved(*slot, CloseCode::AuthenticationFailed, now.instant);
        }
        covered.len()
    }
}

impl Share {
    /// Adds what another part has.
    pub fn add(&mut self, other: Share) {
        self.connections += other.connections;
        self.subscriptions += other.subscriptions;
        self.behind += other.behind;
        self.unsent_bytes += other.unsent_bytes;
    }
}

fn name_of(state: &State) -> &'static str {
    match state {
        State::Starting(_) => "starting",
        State::Behind(_) => "behind",
        State::Live { .. } => "live",
    }
}

/// Places of connections that one step looks at.
const PLACES_PER_STEP: usize = 10_000;
/// Subscriptions of one connection that are told.
const SUBSCRIPTIONS_MAX: usize = 200;
/// Partitions of one subscription that are told.
const PARTITIONS_TOLD_MAX: usize = 200;
