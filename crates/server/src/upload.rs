//! Changesets that arrive in parts.

use syncline_core::{
    ChangesetId,
    wire::{CHANGESET_BYTES_MAX, PUSH_PART_BYTES, Push, PushPart},
};

/// The one upload a session may have under way: parts follow their announcement in order.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    current: Option<Parts>,
}

#[derive(Debug)]
struct Parts {
    id: ChangesetId,
    expected: u32,
    received: u32,
    body: Vec<u8>,
}

/// Why a message does not belong here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UploadError {
    #[error("a changeset in parts may have 1 to {max} parts", max = PARTS_MAX)]
    Parts,
    #[error("another changeset's parts are still to come")]
    Unfinished,
    #[error("a part that no changeset announced, out of order or too long")]
    Unexpected,
}

#[expect(clippy::cast_possible_truncation, reason = "a constant of 256")]
pub(crate) const PARTS_MAX: u32 = (CHANGESET_BYTES_MAX / PUSH_PART_BYTES) as u32;

impl Upload {
    /// Bytes that are kept.
    pub(crate) fn bytes(&self) -> usize {
        self.current.as_ref().map_or(0, |parts| parts.body.len())
    }

    /// A Push arrived: its whole body, or `None` when parts follow.
    pub(crate) fn push(
        &mut self,
        push: Push,
    ) -> Result<Option<(ChangesetId, Vec<u8>)>, UploadError> {
        if self.current.is_some() {
            return Err(UploadError::Unfinished);
        }
        if push.parts == 0 {
            return Ok(Some((push.id, push.body)));
        }
        if push.parts > PARTS_MAX || !push.body.is_empty() {
            return Err(UploadError::Parts);
        }
        self.current = Some(Parts {
            id: push.id,
            expected: push.parts,
            received: 0,
            body: Vec::new(),
        });
        Ok(None)
    }

    /// A part arrived: the whole body with the last one.
    pub(crate) fn part(
        &mut self,
        part: &PushPart,
    ) -> Result<Option<(ChangesetId, Vec<u8>)>, UploadError> {
        let Some(parts) = &mut self.current else {
            return Err(UploadError::Unexpected);
        };
        if part.id != parts.id || part.index != parts.received || part.bytes.len() > PUSH_PART_BYTES
        {
            return Err(UploadError::Unexpected);
        }
        parts.body.extend_from_slice(&part.bytes);
        parts.received += 1;
        if parts.received < parts.expected {
            return Ok(None);
        }
        Ok(self.current.take().map(|parts| (parts.id, parts.body)))
    }
}
