//! One connection: who it is, what it follows, what it has yet to be sent.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::delivery::outbox::Outbox;
use crate::delivery::settings::Settings;
use crate::delivery::subscription::ConnectionKey;
use crate::delivery::subscription::Subscription;
use crate::delivery::tally::TallySlot;
use crate::protocol::frame::Encoding;
use crate::protocol::websocket::read::FrameReader;
use crate::tenancy::principal::Principal;
use crate::tenancy::quota::ConnectionPlace;
use crate::types::address::ClientAddress;
use crate::types::ids::ConnectionId;
use crate::types::trace::Origin;

/// How a connection begins.
#[derive(Debug)]
pub struct Opening {
    pub encoding: Encoding,
    /// Who the client is, where the handshake told; otherwise its first frame
    /// must.
    pub principal: Option<Arc<Principal>>,
    /// What the client says it is, in a few words; only operators see it.
    pub user_agent: Option<Box<str>>,
    /// Where the client is, as far as is known; only operators see it.
    pub address: Option<ClientAddress>,
    /// The span of the handshake, where it is traced: what the client asks for
    /// is then traced below it.
    pub trace: Option<Origin>,
}

/// One connection of a shard.
#[derive(Debug)]
pub(in crate::delivery) struct Connection {
    pub(in crate::delivery) serial: u32,
    pub(in crate::delivery) id: ConnectionId,
    pub(in crate::delivery) encoding: Encoding,
    pub(in crate::delivery) opened_at: Instant,
    pub(in crate::delivery) user_agent: Option<Box<str>>,
    pub(in crate::delivery) address: Option<ClientAddress>,
    pub(in crate::delivery) phase: Phase,
    pub(in crate::delivery) reader: FrameReader,
    /// Places stay where they are while anybody knows them by number.
    pub(in crate::delivery) subscriptions: Vec<Option<Box<Subscription>>>,
    /// How many of them are behind.
    pub(in crate::delivery) behind: u32,
    pub(in crate::delivery) outbox: Outbox,
    pub(in crate::delivery) mark: Mark,
    pub(in crate::delivery) pulse: Pulse,
    pub(in crate::delivery) bucket: Bucket,
    /// Where its tenant is counted, once that is known.
    pub(in crate::delivery) tenant: Option<TallySlot>,
    /// Its place among its tenant's from then on, for as long as it is there.
    pub(in crate::delivery) place: Option<ConnectionPlace>,
}

/// What a connection is doing.
#[derive(Debug)]
pub(in crate::delivery) enum Phase {
    /// The client has yet to say who it is.
    Arriving {
        deadline: Instant,
    },
    Open(Box<Open>),
    /// The Close frame is in the outbox or sent. Nothing else will be.
    Closing {
        deadline: Instant,
        peer: Peer,
    },
}

/// A client that is known.
#[derive(Debug)]
pub(in crate::delivery) struct Open {
    pub(in crate::delivery) principal: Arc<Principal>,
    pub(in crate::delivery) warned: Warned,
}

/// Whether the client was told that its token runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delivery) enum Warned {
    No,
    Yes,
}

/// Whether the peer has sent its Close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delivery) enum Peer {
    Open,
    Closed,
}

/// Whether the edge has yet to be told that there is something to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delivery) enum Mark {
    Clean,
    Dirty,
}

/// Signs of life.
#[derive(Debug, Clone, Copy)]
pub(in crate::delivery) struct Pulse {
    /// When the peer last sent something or read something.
    pub(in crate::delivery) alive_at: Instant,
    /// When a ping was sent that has had no answer.
    pub(in crate::delivery) pinged_at: Option<Instant>,
    /// Bytes that the system held for the peer at the last look; `None` since
    /// the socket has taken more.
    pub(in crate::delivery) held: Option<u32>,
    /// Since when record frames wait to be written.
    pub(in crate::delivery) unsent_since: Option<Instant>,
}

impl Pulse {
    /// Takes how many bytes the system holds for the peer. Fewer than at the last
    /// look: it has read something, though not enough for its socket to take more.
    pub(in crate::delivery) fn look(&mut self, held: u32, now: Instant) {
        if self.held.is_some_and(|before| held < before) {
            self.alive_at = now;
        }
        self.held = Some(held);
    }
}

impl Connection {
    /// Returns the key of this connection, which stands at `slot`.
    pub(in crate::delivery) fn key(&self, slot: usize) -> ConnectionKey {
        let slot = u32::try_from(slot).expect("bounded by connections_max");
        ConnectionKey { slot, serial: self.serial }
    }

    /// Returns who the client is, once it is known and not leaving.
    pub(in crate::delivery) fn principal(&self) -> Option<&Arc<Principal>> {
        match &self.phase {
            Phase::Open(open) => Some(&open.principal),
            Phase::Arriving { .. } | Phase::Closing { .. } => None,
        }
    }

    /// Returns how many more bytes may be put into the outbox now.
    pub(in crate::delivery) fn room(&self, settings: &Settings) -> usize {
        settings.unsent_bytes_max.saturating_sub(self.outbox.bytes())
    }
}

/// Tokens for frames that a client may send: a token bucket.
#[derive(Debug, Clone, Copy)]
pub(in crate::delivery) struct Bucket {
    tokens: f32,
    filled_at: Instant,
}

impl Bucket {
    pub(in crate::delivery) fn full(settings: &Settings, now: Instant) -> Self {
        Self { tokens: settings.frames_burst as f32, filled_at: now }
    }

    /// Takes a token; says whether there was one.
    pub(in crate::delivery) fn take(&mut self, settings: &Settings, now: Instant) -> bool {
        let since: Duration = now.saturating_duration_since(self.filled_at);
        let added = since.as_secs_f32() * settings.frames_per_second as f32;
        self.tokens = (self.tokens + added).min(settings.frames_burst as f32);
        self.filled_at = now;
        let there_was = self.tokens >= 1.0;
        if there_was {
            self.tokens -= 1.0;
        }
        there_was
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_alive(looks: &[u32], expected: bool) {
        let began = Instant::now();
        let later = began + Duration::from_secs(1);
        let mut pulse = Pulse { alive_at: began, pinged_at: None, held: None, unsent_since: None };
        looks.iter().for_each(|held| pulse.look(*held, later));
        assert_eq!(pulse.alive_at == later, expected, "{looks:?}");
    }

    #[test]
    fn a_peer_of_whom_less_is_held_has_read() {
        check_alive(&[], false);
        check_alive(&[9_000], false);
        check_alive(&[9_000, 9_000], false);
        check_alive(&[9_000, 8_999], true);
    }
}
