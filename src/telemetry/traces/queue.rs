//! The queue of spans that wait for the collector.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use metrics::counter;
use opentelemetry_sdk::trace::SpanData;

use crate::delivery::span::SpanNote;
use crate::delivery::traces::Spans;
use crate::telemetry::metric;

/// Takes spans, from any thread and without waiting. Where traces are off, none.
#[derive(Debug, Clone, Default)]
pub struct SpanQueue(Option<Arc<Entrance>>);

#[derive(Debug)]
struct Entrance {
    parcels: Sender<Parcel>,
    waiting: Arc<Waiting>,
}

/// How many spans wait, and may.
#[derive(Debug)]
pub(in crate::telemetry::traces) struct Waiting {
    spans: AtomicUsize,
    spans_max: usize,
}

/// What goes through the queue.
#[derive(Debug)]
pub(in crate::telemetry::traces) enum Parcel {
    Notes(Vec<SpanNote>),
    Span(Box<SpanData>),
    /// Send what there is; then say so by dropping the sender.
    End(Sender<()>),
}

/// Why a span was dropped, as metrics name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// The shard had no room for it.
    ShardFull,
    /// Too many waited for the collector.
    QueueFull,
    /// The collector did not take it.
    ExportFailed,
}

impl Dropped {
    /// Counts so many.
    pub fn count(self, spans: usize) {
        let reason = match self {
            Self::ShardFull => "shard_full",
            Self::QueueFull => "queue_full",
            Self::ExportFailed => "export_failed",
        };
        counter!(metric::SPANS_DROPPED, "reason" => reason).increment(spans as u64);
    }
}

impl SpanQueue {
    /// Returns a queue for so many spans, and its other end.
    pub(in crate::telemetry::traces) fn new(
        spans_max: usize,
    ) -> (Self, Receiver<Parcel>, Arc<Waiting>) {
        // Bounded by the spans, of which each parcel but the last holds one.
        let (parcels, taken) = crossbeam_channel::unbounded();
        let waiting = Arc::new(Waiting { spans: AtomicUsize::new(0), spans_max });
        let entrance = Entrance { parcels, waiting: Arc::clone(&waiting) };
        (Self(Some(Arc::new(entrance))), taken, waiting)
    }

    /// Says whether anybody takes spans.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Takes the spans of a shard.
    pub fn offer(&self, spans: Spans) {
        if spans.dropped > 0 {
            Dropped::ShardFull.count(usize::try_from(spans.dropped).unwrap_or(usize::MAX));
        }
        let count = spans.notes.len();
        if count > 0 {
            self.put(count, Parcel::Notes(spans.notes));
        }
    }

    /// Takes one span that is whole.
    pub(in crate::telemetry::traces) fn offer_span(&self, span: SpanData) {
        self.put(1, Parcel::Span(Box::new(span)));
    }

    /// Asks that everything be sent; what is returned ends when it was.
    pub(in crate::telemetry::traces) fn end(&self) -> Receiver<()> {
        let (done, ended) = crossbeam_channel::bounded(0);
        if let Some(entrance) = &self.0 {
            let _ = entrance.parcels.send(Parcel::End(done));
        }
        ended
    }

    fn put(&self, spans: usize, parcel: Parcel) {
        let Some(entrance) = &self.0 else { return };
        if !entrance.waiting.enter(spans) {
            return Dropped::QueueFull.count(spans);
        }
        // Without a thread that takes them, nobody is left to be told.
        let _ = entrance.parcels.send(parcel);
    }
}

impl Waiting {
    fn enter(&self, spans: usize) -> bool {
        let enter = |waiting: usize| {
            let sum = waiting.saturating_add(spans);
            // A parcel that is larger than the queue finds room when it is empty.
            (sum <= self.spans_max || waiting == 0).then_some(sum)
        };
        self.spans.fetch_update(Relaxed, Relaxed, enter).is_ok()
    }

    /// Notes that so many were sent or dropped.
    pub(in crate::telemetry::traces) fn leave(&self, spans: usize) {
        self.spans.fetch_sub(spans, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_that_find_no_room_are_not_kept() {
        let waiting = Waiting { spans: AtomicUsize::new(0), spans_max: 10 };
        assert!(waiting.enter(6) && waiting.enter(4));
        assert!(!waiting.enter(1));
        waiting.leave(6);
        assert!(waiting.enter(5) && !waiting.enter(2) && waiting.enter(1));
        waiting.leave(10);
        assert!(waiting.enter(1_000), "a large parcel is not locked out for ever");
        assert!(!waiting.enter(1));
    }

    #[test]
    fn a_queue_that_is_off_takes_and_keeps_nothing() {
        let queue = SpanQueue::default();
        assert!(!queue.is_on());
        queue.offer(Spans::default());
        assert!(queue.end().recv().is_err(), "there is nothing to wait for");
    }
}
