//! The loop of one worker thread.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use tokio::select;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::sleep_until;

use crate::server::inquiry::Inquiry;
use crate::server::pulse::Pulses;
use crate::server::worker::Turn;
use crate::server::worker::Worker;
use crate::types::ids::ShardId;

/// What all workers are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Order {
    /// Serve whoever comes.
    Serve,
    /// Let nobody in, and ask all to leave within the window.
    Drain(Duration),
}

/// Drives a worker until its thread ends: mail, deadlines and turns of work as
/// they come due. Sockets drive it from their own tasks; between two turns of
/// work they have theirs.
pub(in crate::server) async fn drive(
    worker: Rc<Worker>,
    shard: ShardId,
    mut orders: watch::Receiver<Order>,
    drained: mpsc::Sender<ShardId>,
    pulses: Pulses,
    mut inquiries: mpsc::Receiver<Inquiry>,
) {
    let wake = Arc::clone(worker.wake());
    worker.mailbox().set_waker(move || wake.notify_one());
    let mut said = Said::Nothing;
    // When the loop should have come round: between busy turns at once, else when
    // it was armed to wake.
    let mut due = Instant::now();
    loop {
        pulses.beat(shard, worker.sockets());
        let begun = Instant::now();
        worker.note_late(begun.saturating_duration_since(due));
        worker.handle_mail();
        if let Ok(inquiry) = inquiries.try_recv() {
            worker.answer(inquiry);
        }
        worker.handle_deadline();
        worker.publish();
        worker.tell_spans();
        if said == Said::Nothing && worker.is_drained() {
            said = Said::Drained;
            // The channel has a place for each shard.
            let _ = drained.try_send(shard);
        }
        let turn = worker.turn();
        due = Instant::now();
        worker.note_late(due.saturating_duration_since(begun));
        if turn == Turn::Busy {
            yield_now().await;
            continue;
        }
        let deadline = worker.arm();
        due = due.max(deadline);
        select! {
            () = worker.wake().notified() => {}
            Some(inquiry) = inquiries.recv() => worker.answer(inquiry),
            () = sleep_until(deadline.into()) => {}
            Ok(()) = orders.changed() => {
                if let Order::Drain(window) = *orders.borrow_and_update() {
                    worker.drain(window);
                }
            }
        }
    }
}

/// Whether the end of a drain was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Nothing,
    Drained,
}
