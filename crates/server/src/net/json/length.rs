//! How long an answer becomes.

use serde::Serialize;

/// Bytes of JSON. Text may be six times as long there as in the database.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Length(usize);

impl Length {
    pub(super) fn add(&mut self, value: &impl Serialize) {
        // Counting fails at nothing.
        drop(serde_json::to_writer(self, value));
    }

    pub(super) fn bytes(self) -> usize {
        self.0
    }
}

impl std::io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
