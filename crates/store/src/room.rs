//! A bound on what is read into memory at once.

use syncline_core::Row;

use crate::plan::values_bytes;

/// How many rows may be read at once, and how large they may be together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    pub rows: usize,
    /// Of keys and values. What is larger than all of it comes alone.
    pub bytes: usize,
}

impl Room {
    /// No bound.
    pub const ALL: Self = Self {
        rows: usize::MAX,
        bytes: usize::MAX,
    };
    /// Enough to see whether there is anything.
    pub const ONE: Self = Self { rows: 1, bytes: 1 };

    #[must_use]
    pub fn is_full(&self) -> bool {
        self.rows == 0 || self.bytes == 0
    }

    /// Counts a row with all its images that are kept.
    pub fn take<'r>(&mut self, key_bytes: usize, images: impl IntoIterator<Item = &'r Row>) {
        let bytes: usize = images.into_iter().map(values_bytes).sum();
        self.rows = self.rows.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(key_bytes + bytes);
    }
}
