//! What one connection has yet to be sent.

use std::collections::VecDeque;

use bytes::Buf;
use bytes::Bytes;

use crate::protocol::encode::WireFrame;

/// Frames in the order in which the peer gets them. Their bytes are shared; the
/// outbox itself takes no memory while it is empty.
#[derive(Debug, Default)]
pub struct Outbox {
    frames: VecDeque<Bytes>,
    bytes: usize,
    front: Front,
}

/// How much of the first frame the peer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Front {
    #[default]
    Nothing,
    Some,
}

impl Outbox {
    /// Adds a frame at the end.
    pub(in crate::delivery) fn push(&mut self, frame: &WireFrame) {
        self.bytes += frame.bytes().len();
        self.frames.push_back(frame.bytes().clone());
    }

    /// Returns how many bytes are unsent.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Says whether everything is sent.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Returns the unsent pieces, in order.
    pub fn pieces(&self) -> impl ExactSizeIterator<Item = &Bytes> {
        self.frames.iter()
    }

    /// Takes off what was sent.
    ///
    /// # Panics
    ///
    /// When more was sent than there was.
    pub(in crate::delivery) fn sent(&mut self, mut bytes: usize) {
        self.bytes = self.bytes.checked_sub(bytes).expect("nobody sends what is not there");
        while bytes > 0 {
            let front = self.frames.front_mut().expect("counted in bytes");
            if bytes < front.len() {
                front.advance(bytes);
                self.front = Front::Some;
                return;
            }
            bytes -= front.len();
            self.frames.pop_front();
            self.front = Front::Nothing;
        }
        if self.frames.is_empty() {
            self.frames = VecDeque::new();
        }
    }

    /// Forgets what the peer has nothing of: the peer may not have it any more. A
    /// frame that it has a part of has to end.
    pub(in crate::delivery) fn forget_unbegun(&mut self) {
        self.frames.truncate(match self.front {
            Front::Nothing => 0,
            Front::Some => 1,
        });
        self.bytes = self.frames.iter().map(Bytes::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::websocket::write::ping_frame;

    #[test]
    fn only_a_frame_that_was_begun_outlives_forgetting() {
        let frames = [ping_frame(b"one"), ping_frame(b"two")];
        let length = frames[0].bytes().len();
        for (sent, left) in [(0, 0), (1, length - 1), (length, 0), (length + 2, length - 2)] {
            let mut outbox = Outbox::default();
            frames.iter().for_each(|frame| outbox.push(frame));
            outbox.sent(sent);
            outbox.forget_unbegun();
            assert_eq!((outbox.bytes(), outbox.is_empty()), (left, left == 0), "{sent} sent");
            let pieces: usize = outbox.pieces().map(Bytes::len).sum();
            assert_eq!(pieces, left, "{sent} sent");
        }
    }
}
