//! One connection between a client and a shard: bytes both ways, in pieces, late,
//! or lost.

use std::collections::VecDeque;
use std::time::Instant;

use brucke::delivery::subscription::ConnectionKey;

/// A connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) client: usize,
    pub(crate) replica: usize,
    pub(crate) shard: usize,
    pub(crate) key: ConnectionKey,
    /// To the server, in flight.
    pub(crate) up: VecDeque<u8>,
    /// To the client, in flight.
    pub(crate) down: VecDeque<u8>,
    /// Bytes that the sockets hold for the client.
    pub(crate) capacity: usize,
    pub(crate) pace: Pace,
    pub(crate) server: ServerEnd,
    pub(crate) client_end: ClientEnd,
}

/// How fast the client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    Free,
    /// So many bytes in one look.
    Slow(usize),
    /// Not before this moment.
    Stalled(Instant),
}

/// What the server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerEnd {
    /// Nothing is to be written that it knows of.
    Idle,
    /// It writes as soon as there is room.
    Writing,
    /// It has ended the connection; what is in flight still arrives.
    Ended,
}

/// What the client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientEnd {
    There,
    /// It is gone, and the server is told at this moment.
    Gone(Instant),
}

impl Link {
    /// Takes up to `bytes_max` bytes that are on their way to the server.
    pub(crate) fn take_up(&mut self, bytes_max: usize) -> Vec<u8> {
        self.up.drain(..bytes_max.min(self.up.len())).collect()
    }

    /// Takes what the client reads in one look.
    pub(crate) fn take_down(&mut self, now: Instant, rng: &mut fastrand::Rng) -> Vec<u8> {
        let bytes_max = match self.pace {
            Pace::Free if rng.u8(0..4) == 0 => rng.usize(1..100),
            Pace::Free => self.down.len(),
            Pace::Slow(bytes) => bytes,
            Pace::Stalled(until) if now < until => 0,
            Pace::Stalled(_) => {
                self.pace = Pace::Free;
                self.down.len()
            }
        };
        self.down.drain(..bytes_max.min(self.down.len())).collect()
    }

    /// Returns how many bytes the server's socket takes now.
    pub(crate) fn room(&self) -> usize {
        self.capacity.saturating_sub(self.down.len())
    }
}
