//! What a run did, in numbers.

use std::time::Duration;

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows that changed here because of the server.
    pub rows_received: u64,
    /// Changesets that it refused; they are in the queue with their reasons.
    pub refused: u64,
    /// Edits that lost against somebody else's.
    pub edits_lost: u64,
    pub conflicts_opened: u64,
    pub frames: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// How much of the time nothing was to be done here: the network or the server was waited for.
    pub waited: Duration,
}

impl Summary {
    /// Adds what another run did.
    pub(crate) fn add(&mut self, other: &Self) {
        self.rows_received += other.rows_received;
        self.refused += other.refused;
        self.edits_lost += other.edits_lost;
        self.conflicts_opened += other.conflicts_opened;
        self.frames += other.frames;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.waited += other.waited;
    }

    /// What was done since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            rows_received: self.rows_received - earlier.rows_received,
            refused: self.refused - earlier.refused,
            edits_lost: self.edits_lost - earlier.edits_lost,
            conflicts_opened: self.conflicts_opened - earlier.conflicts_opened,
            frames: self.frames - earlier.frames,
            bytes_sent: self.bytes_sent - earlier.bytes_sent,
            bytes_received: self.bytes_received - earlier.bytes_received,
            waited: self.waited.saturating_sub(earlier.waited),
        }
    }
}
