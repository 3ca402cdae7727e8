//! Traced frames that stand in outboxes, until their last byte is written.

use std::time::Duration;
use std::time::Instant;

use hashbrown::HashMap;

use crate::delivery::span::Ack;
use crate::delivery::span::Client;
use crate::delivery::span::Fate;
use crate::delivery::span::Parent;
use crate::delivery::span::SpanNote;
use crate::delivery::span::Work;
use crate::delivery::subscription::ConnectionKey;
use crate::delivery::traces::Awaiting;
use crate::types::ids::SubId;
use crate::types::trace::SpanId;
use crate::types::trace::TraceId;

/// One traced record in the outbox of one client.
#[derive(Debug)]
pub(in crate::delivery) struct Flight {
    pub(in crate::delivery) trace: TraceId,
    pub(in crate::delivery) span: SpanId,
    /// The span of the fan-out.
    pub(in crate::delivery) deliver: SpanId,
    pub(in crate::delivery) sub: SubId,
    pub(in crate::delivery) ack: Ack,
    pub(in crate::delivery) started: Instant,
    pub(in crate::delivery) encode: Duration,
    pub(in crate::delivery) pushed_at: Instant,
    /// Unsent bytes before the frame.
    pub(in crate::delivery) before: usize,
    /// Unsent bytes up to the frame's end.
    pub(in crate::delivery) through: usize,
    pub(in crate::delivery) begun_at: Option<Instant>,
}

/// All flights of a shard.
#[derive(Debug, Default)]
pub(in crate::delivery) struct Flights {
    queues: HashMap<ConnectionKey, Queue>,
    count: usize,
}

/// The flights of one connection, in the order of their frames.
#[derive(Debug, Default)]
struct Queue {
    /// When a write was last begun.
    writing_at: Option<Instant>,
    flights: Vec<Flight>,
}

/// Whether there was room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delivery) enum Launched {
    Yes,
    NoRoom,
}

impl Flights {
    /// Says whether a connection has any.
    pub(in crate::delivery) fn has(&self, key: ConnectionKey) -> bool {
        self.count > 0 && self.queues.contains_key(&key)
    }

    /// Adds one.
    pub(in crate::delivery) fn launch(&mut self, key: ConnectionKey, flight: Flight) -> Launched {
        if self.count == FLIGHTS_MAX {
            return Launched::NoRoom;
        }
        self.count += 1;
        self.queues.entry(key).or_default().flights.push(flight);
        Launched::Yes
    }

    /// Notes that a write begins.
    pub(in crate::delivery) fn writing(&mut self, key: ConnectionKey, now: Instant) {
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.writing_at = Some(now);
        }
    }

    /// Notes that so many bytes were written; returns the flights that are over.
    pub(in crate::delivery) fn written(
        &mut self,
        key: ConnectionKey,
        bytes: usize,
        now: Instant,
    ) -> Vec<Flight> {
        let Some(queue) = self.queues.get_mut(&key) else { return Vec::new() };
        for flight in &mut queue.flights {
            if flight.begun_at.is_none() && bytes > flight.before {
                flight.begun_at = Some(queue.writing_at.unwrap_or(now));
            }
            flight.before = flight.before.saturating_sub(bytes);
            flight.through = flight.through.saturating_sub(bytes);
        }
        let over: Vec<Flight> = queue.flights.extract_if(.., |f| f.through == 0).collect();
        if queue.flights.is_empty() {
            self.queues.remove(&key);
        }
        self.count -= over.len();
        over
    }

    /// Returns the flights of a connection that has ended.
    pub(in crate::delivery) fn end(&mut self, key: ConnectionKey) -> Vec<Flight> {
        let flights = self.queues.remove(&key).unwrap_or_default().flights;
        self.count -= flights.len();
        flights
    }
}

impl Flight {
    /// Ends it now; returns its span.
    pub(in crate::delivery) fn note(&self, fate: Fate, now: Instant) -> SpanNote {
        let begun_at = self.begun_at.unwrap_or(now);
        let client = Client {
            channel: self.ack.channel.clone(),
            record: self.ack.record,
            connection: self.ack.connection,
            queue_wait: begun_at.saturating_duration_since(self.pushed_at),
            encode: self.encode,
            write: now.saturating_duration_since(begun_at),
            fate,
        };
        SpanNote {
            trace: self.trace,
            span: self.span,
            parent: Parent::Here(self.deliver),
            started: self.started,
            ended: now,
            work: Work::Client(client),
        }
    }

    /// Returns what waits for the client's acknowledgement.
    pub(in crate::delivery) fn into_awaiting(self, key: ConnectionKey, now: Instant) -> Awaiting {
        let Self { trace, span, sub, ack, .. } = self;
        Awaiting { key, sub, trace, client: span, written_at: now, ack }
    }
}

/// Traced records that stand in outboxes. Further ones have no span of their
/// way to the client, which is counted.
const FLIGHTS_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::span::RecordRef;
    use crate::types::ids::ChannelName;
    use crate::types::ids::ConnectionId;
    use crate::types::ids::Offset;
    use crate::types::ids::PartitionId;

    const KEY: ConnectionKey = ConnectionKey { slot: 3, serial: 9 };

    fn flight(before: usize, through: usize, pushed_at: Instant) -> Flight {
        let span = SpanId::from_number(1).expect("not zero");
        let record = RecordRef { partition: PartitionId::from_index(0), offset: Offset::ZERO };
        let channel = ChannelName::new("orders");
        Flight {
            trace: TraceId::from_number(1).expect("not zero"),
            span,
            deliver: span,
            sub: SubId::new(1),
            ack: Ack { channel, record, connection: ConnectionId::new(1) },
            started: pushed_at,
            encode: Duration::ZERO,
            pushed_at,
            before,
            through,
            begun_at: None,
        }
    }

    #[test]
    fn the_wait_ends_with_the_write_that_takes_the_first_byte() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut flights = Flights::default();
        assert_eq!(flights.launch(KEY, flight(10, 30, start)), Launched::Yes);
        flights.writing(KEY, at(1));
        assert!(flights.written(KEY, 10, at(2)).is_empty(), "only what stands before it");
        flights.writing(KEY, at(5));
        assert!(flights.written(KEY, 15, at(6)).is_empty());
        flights.writing(KEY, at(9));
        let over = flights.written(KEY, 5, at(10));
        let [over] = &over[..] else { panic!("{over:?}") };
        let Work::Client(client) = over.note(Fate::Written, at(10)).work else { panic!() };
        assert_eq!(client.queue_wait, Duration::from_millis(5));
        assert_eq!(client.write, Duration::from_millis(5));
        assert!(!flights.has(KEY));
    }

    #[test]
    fn one_write_takes_several_frames_and_an_end_takes_the_rest() {
        let start = Instant::now();
        let mut flights = Flights::default();
        for at in [0, 20, 40] {
            flights.launch(KEY, flight(at, at + 20, start));
        }
        assert_eq!(flights.written(KEY, 41, start).len(), 2);
        assert!(flights.has(KEY));
        assert_eq!(flights.end(KEY).len(), 1);
        assert!(!flights.has(KEY) && flights.count == 0);
    }

    #[test]
    fn a_full_list_takes_no_more_until_some_are_over() {
        let start = Instant::now();
        let mut flights = Flights::default();
        for _ in 0..FLIGHTS_MAX {
            assert_eq!(flights.launch(KEY, flight(0, 1, start)), Launched::Yes);
        }
        assert_eq!(flights.launch(KEY, flight(0, 1, start)), Launched::NoRoom);
        flights.written(KEY, 1, start);
        assert_eq!(flights.launch(KEY, flight(0, 1, start)), Launched::Yes);
    }
}
