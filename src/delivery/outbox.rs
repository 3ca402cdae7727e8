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
                return;
            }
            bytes -= front.len();
            self.frames.pop_front();
        }
        if self.frames.is_empty() {
            self.frames = VecDeque::new();
        }
    }
}
