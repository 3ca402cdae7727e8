//! What is due by the clock: deadlines, heartbeats, progress, leaving.
//!
//! There is no timer per connection. A tick comes ten times a second and looks
//! at a tenth of the connections, so that each is looked at once a second, and
//! at so many feeds that each is looked at once in the progress interval.

use std::collections::BTreeSet;
use std::time::Duration;
use std::time::Instant;

use crate::delivery::connection::Connection;
use crate::delivery::connection::Phase;
use crate::delivery::connection::Warned;
use crate::delivery::counts::Lag;
use crate::delivery::leaving::Leaving;
use crate::delivery::settings::Settings;
use crate::delivery::shard::Output;
use crate::delivery::shard::Shard;
use crate::delivery::subscription::State;
use crate::protocol::close_code::CloseCode;
use crate::protocol::frame::ServerFrame;
use crate::protocol::websocket::write::ping_frame;
use crate::types::ids::Timestamp;
use crate::types::moment::Moment;

/// Where the walks stand.
#[derive(Debug, Default)]
pub struct Upkeep {
    tick_at: Option<Instant>,
    connection: usize,
    feed: usize,
    demands_cleared_at: Option<Instant>,
    /// Sources to look at again, for something was not whole yet.
    again: BTreeSet<usize>,
    leaving: Option<Leaving>,
    /// Of the last whole round of connections.
    lag: Lag,
    /// Of the round that is under way.
    lag_so_far: Lag,
}

/// What is due for one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Nothing,
    Close(CloseCode),
    Abort(CloseCode),
    Finish,
    Look,
    Ping,
    Warn(Timestamp),
}

impl Upkeep {
    pub(in crate::delivery) fn next_deadline(&self) -> Option<Instant> {
        self.tick_at
    }

    pub(in crate::delivery) fn lag(&self) -> Lag {
        self.lag
    }

    pub(in crate::delivery) fn is_draining(&self) -> bool {
        self.leaving.is_some()
    }

    /// Remembers to look at a source again at the next tick.
    pub(in crate::delivery) fn look_again(&mut self, source: usize) {
        self.again.insert(source);
    }
}

impl Shard {
    /// Takes the passing of time; to be called at [`Shard::next_deadline`], and
    /// once at the start.
    pub fn handle_timeout(&mut self, now: Moment) {
        if self.upkeep.tick_at.is_some_and(|at| at > now.instant) {
            return;
        }
        self.upkeep.tick_at = Some(now.instant + TICK);
        self.expire_starts(now);
        self.look_at_sources(now);
        self.look_at_connections(now);
        self.look_at_feeds(now);
        self.leave(now);
    }

    /// Says goodbye to all connections, one after the other over `window`.
    pub fn handle_drain(&mut self, window: Duration, now: Moment) {
        let connections = self.connections.iter().map(|(slot, c)| c.key(slot)).collect();
        self.upkeep.leaving = Some(Leaving::new(connections, window, now.instant));
        self.leave(now);
    }

    fn look_at_sources(&mut self, now: Moment) {
        for source in std::mem::take(&mut self.upkeep.again) {
            let Some(found) = self.sources.get(source) else { continue };
            for partition in 0..found.partitions.len() {
                self.advance(source, partition, now);
            }
        }
        let slots: Vec<usize> = self.sources.iter().map(|(slot, _)| slot).collect();
        for source in &slots {
            self.queue_at_end(*source);
        }
        let cleared = *self.upkeep.demands_cleared_at.get_or_insert(now.instant);
        if now.instant.saturating_duration_since(cleared) >= DEMAND_AGAIN {
            self.upkeep.demands_cleared_at = Some(now.instant);
            for source in slots {
                for place in &mut self.sources[source].partitions {
                    place.demanded.clear();
                }
            }
        }
    }

    fn look_at_connections(&mut self, now: Moment) {
        let places = self.connections.capacity();
        for _ in 0..places.div_ceil(TICKS_PER_ROUND) {
            let slot = self.upkeep.connection;
            self.upkeep.connection = if slot + 1 < places { slot + 1 } else { 0 };
            if slot == 0 {
                self.upkeep.lag = std::mem::take(&mut self.upkeep.lag_so_far);
            }
            self.add_lag(slot, now.instant);
            let Some(connection) = self.connections.get(slot) else { continue };
            match due(connection, &self.settings, now) {
                Due::Nothing => {}
                Due::Close(CloseCode::TokenExpired) => {
                    self.close_disbelieved(slot, CloseCode::TokenExpired, now.instant);
                }
                Due::Close(code) => self.close(slot, code, None, now.instant),
                Due::Abort(code) => self.abort(slot, code),
                Due::Finish => self.finish(slot),
                Due::Look => {
                    let key = connection.key(slot);
                    self.outputs.push_back(Output::Look(key));
                }
                Due::Ping => {
                    self.connections[slot].pulse.pinged_at = Some(now.instant);
                    self.push(slot, &ping_frame(&[]));
                }
                Due::Warn(expires_at) => {
                    if let Phase::Open(open) = &mut self.connections[slot].phase {
                        open.warned = Warned::Yes;
                    }
                    self.send(slot, &ServerFrame::Expiring { expires_at });
                }
            }
        }
    }

    /// Adds how far a connection is behind to what this round has found.
    fn add_lag(&mut self, slot: usize, now: Instant) {
        let behind = self.connections.get(slot).filter(|connection| connection.behind > 0);
        let Some(connection) = behind else { return };
        let mut clients = 0;
        for subscription in connection.subscriptions.iter().flatten() {
            let State::Behind(behind) = &subscription.state else { continue };
            clients = 1;
            let source = &self.sources[self.feeds.at(subscription.feed).source];
            let offsets = behind.offsets(&source.partitions);
            let lag = &mut self.upkeep.lag_so_far;
            lag.offsets += offsets;
            lag.offsets_max = lag.offsets_max.max(offsets);
            lag.longest = lag.longest.max(now.saturating_duration_since(behind.since));
        }
        self.upkeep.lag_so_far.clients += clients;
    }

    fn look_at_feeds(&mut self, now: Moment) {
        let places = self.feeds.places();
        let ticks = self.settings.progress_interval.as_millis() / TICK.as_millis();
        let ticks = usize::try_from(ticks).unwrap_or(usize::MAX).max(1);
        for _ in 0..places.div_ceil(ticks) {
            let feed = self.upkeep.feed;
            self.upkeep.feed = if feed + 1 < places { feed + 1 } else { 0 };
            if self.feeds.contains(feed) {
                self.tell_progress(feed, now);
            }
        }
    }

    fn leave(&mut self, now: Moment) {
        let Some(mut leaving) = self.upkeep.leaving.take() else { return };
        while let Some((key, wait)) = leaving.next(now.instant) {
            if let Some(slot) = self.slot(key) {
                self.close(slot, CloseCode::Draining, Some(wait), now.instant);
            }
        }
        self.upkeep.leaving = Some(leaving);
    }
}

fn due(connection: &Connection, settings: &Settings, now: Moment) -> Due {
    let silent = now.instant.saturating_duration_since(connection.pulse.alive_at);
    let unsent = !connection.outbox.is_empty();
    match &connection.phase {
        Phase::Closing { deadline, .. } if now.instant >= *deadline => {
            return if unsent { Due::Abort(CloseCode::StuckReader) } else { Due::Finish };
        }
        Phase::Closing { .. } => return Due::Nothing,
        Phase::Arriving { deadline } if now.instant >= *deadline => {
            return Due::Close(CloseCode::AuthenticationTimeout);
        }
        Phase::Arriving { .. } => {}
        Phase::Open(open) => {
            if let Some(expires_at) = open.principal.expires_at {
                let left = expires_at.as_millis().saturating_sub(now.wall.as_millis());
                if left <= 0 {
                    return Due::Close(CloseCode::TokenExpired);
                }
                let warning = settings.expiry_warning.as_millis();
                if open.warned == Warned::No && (left as u128) <= warning {
                    return Due::Warn(expires_at);
                }
            }
        }
    }
    if unsent {
        // A peer that reads slowly answers a ping late, for it reads it late:
        // as long as it reads at all, it is alive.
        // A socket takes more only when much of what it holds was read, so a
        // look at what it holds comes before the verdict.
        return match silent {
            _ if silent >= settings.stuck_reader_timeout => Due::Abort(CloseCode::StuckReader),
            _ if silent >= settings.stuck_reader_timeout / 2 => Due::Look,
            _ => Due::Nothing,
        };
    }
    match connection.pulse.pinged_at {
        Some(at) if now.instant.saturating_duration_since(at) >= settings.pong_timeout => {
            Due::Abort(CloseCode::PongTimeout)
        }
        None if silent >= settings.heartbeat_interval => Due::Ping,
        _ => Due::Nothing,
    }
}

const TICK: Duration = Duration::from_millis(100);
/// Ticks in which each connection is looked at once.
const TICKS_PER_ROUND: usize = 10;
/// After so long, what is missing is demanded again, whatever became of the
/// first demand.
const DEMAND_AGAIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::connection::Bucket;
    use crate::delivery::connection::Mark;
    use crate::delivery::connection::Pulse;
    use crate::delivery::outbox::Outbox;
    use crate::protocol::frame::Encoding;
    use crate::protocol::websocket::read::FrameReader;
    use crate::types::ids::ConnectionId;

    /// A connection with something unsent since `now`.
    fn blocked(now: Moment) -> Connection {
        let mut outbox = Outbox::default();
        outbox.push(&ping_frame(b"unsent"));
        Connection {
            serial: 0,
            id: ConnectionId::new(1),
            encoding: Encoding::Json,
            phase: Phase::Arriving { deadline: now.instant + Duration::from_secs(1_000) },
            reader: FrameReader::new(1_000),
            subscriptions: Vec::new(),
            behind: 0,
            outbox,
            opened_at: now.instant,
            user_agent: None,
            address: None,
            mark: Mark::Clean,
            pulse: Pulse { alive_at: now.instant, pinged_at: None, held: None, unsent_since: None },
            bucket: Bucket::full(&Settings::default(), now.instant),
            tenant: None,
            place: None,
        }
    }

    fn check_stuck(second: u64, expected: Due) {
        let began = Moment { instant: Instant::now(), wall: Timestamp::from_millis(0) };
        let connection = blocked(began);
        let instant = began.instant + Duration::from_secs(second);
        assert_eq!(due(&connection, &Settings::default(), Moment { instant, ..began }), expected);
    }

    #[test]
    fn a_blocked_socket_is_looked_at_before_its_reader_is_called_stuck() {
        check_stuck(59, Due::Nothing);
        check_stuck(60, Due::Look);
        check_stuck(119, Due::Look);
        check_stuck(120, Due::Abort(CloseCode::StuckReader));
    }
}
