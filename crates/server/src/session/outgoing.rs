//! What waits to be sent: answers at once, the stream as far as the credit goes (spec SE15).

use std::collections::VecDeque;

use bytes::Bytes;

/// A session sends nothing more of the stream, and hears nothing more, while this much waits.
pub(crate) const OUT_BYTES_MAX: usize = 512 * 1024;

/// Frames on their way to the socket. Those of the stream are held back while there is no credit;
/// the session makes new ones only when none is held back, so few ever are.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    ready: VecDeque<Bytes>,
    ready_bytes: usize,
    held_back: VecDeque<Bytes>,
    credit: i64,
}

impl Outgoing {
    /// Queues a frame that costs nothing.
    pub(super) fn answer(&mut self, frame: Bytes) {
        self.ready_bytes += frame.len();
        self.ready.push_back(frame);
    }

    /// Queues frames of the stream, each to be sent when the credit is positive.
    pub(super) fn stream(&mut self, frames: Vec<Bytes>) {
        self.held_back.extend(frames);
        self.release();
    }

    pub(super) fn add_credit(&mut self, bytes: u64) {
        let more = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.credit = self.credit.saturating_add(more);
        self.release();
    }

    pub(super) fn has_credit(&self) -> bool {
        self.credit > 0
    }

    /// Whether enough waits for the socket.
    pub(super) fn is_full(&self) -> bool {
        self.ready_bytes >= OUT_BYTES_MAX
    }

    pub(super) fn ready_bytes(&self) -> usize {
        self.ready_bytes
    }

    pub(super) fn held_back_bytes(&self) -> usize {
        self.held_back.iter().map(Bytes::len).sum()
    }

    pub(super) fn has_frames(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let frame = self.ready.pop_front()?;
        self.ready_bytes -= frame.len();
        Some(frame)
    }

    /// Forgets what the session will not send any more because it ends.
    pub(super) fn drop_held_back(&mut self) {
        self.held_back.clear();
    }

    fn release(&mut self) {
        while self.credit > 0
            && let Some(frame) = self.held_back.pop_front()
        {
            self.credit = self
                .credit
                .saturating_sub(i64::try_from(frame.len()).unwrap_or(i64::MAX));
            self.answer(frame);
        }
    }
}
