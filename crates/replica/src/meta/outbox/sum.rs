//! What waits has no second copy anywhere: sums tell what a disk, or somebody else, made of it
//! (spec OB15).

use syncline_core::{TableNumber, Version};

use super::{Entry, Seq, id_of_piece};
use crate::error::ReplicaError;

/// Of a stored change: which row it is of and what it was based on, and what it does. Two sums, as
/// a change whose row is known can be computed anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChangeSum {
    place: u32,
    op: u32,
}

impl ChangeSum {
    pub(super) fn new(t: TableNumber, key: &[u8], base: Version, op: &[u8]) -> Self {
        let mut place = blake3::Hasher::new();
        place.update(&t.0.to_le_bytes());
        place.update(&base.0.to_le_bytes());
        place.update(key);
        Self {
            place: first4(&place.finalize()),
            op: first4(&blake3::hash(op)),
        }
    }

    pub(super) fn stored(self) -> i64 {
        (u64::from(self.place) << 32 | u64::from(self.op)).cast_signed()
    }

    /// Compares with what is stored; changes of older formats have nothing.
    pub(super) fn check(self, seq: Seq, stored: Option<i64>) -> Result<(), ReplicaError> {
        self.check_place(seq, stored)?;
        match stored {
            Some(sum) if sum != self.stored() => Err(damaged(seq, "what a change does is another")),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the row that it says is the one it was made of.
    pub(super) fn check_place(self, seq: Seq, stored: Option<i64>) -> Result<(), ReplicaError> {
        match stored {
            Some(sum) if sum.cast_unsigned() >> 32 != u64::from(self.place) => {
                Err(damaged(seq, "the row of a change is another"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Of a changeset: what it is known by and was cut from, when it was made, how many changes it has.
/// What is not sound does not become so by being written again.
pub(super) fn of_entry(entry: &Entry) -> i64 {
    let mut hash = blake3::Hasher::new();
    hash.update(&[u8::from(entry.is_sound)]);
    hash.update(&entry.id.0);
    hash.update(&entry.hlc.0.to_le_bytes());
    hash.update(&entry.changes.to_le_bytes());
    if let Some(whole) = entry.whole {
        hash.update(&whole.0);
    }
    i64::from(first4(&hash.finalize()))
}

/// Whether a changeset is as it was written, with so many changes.
pub(super) fn check_entry(entry: &Entry, found: u64) -> Result<(), ReplicaError> {
    if !entry.is_sound {
        return Err(damaged(entry.seq, "its id, time or size is another"));
    }
    if found != entry.changes {
        let what = format!("it has {found} of its {} changes", entry.changes);
        return Err(damaged(entry.seq, what));
    }
    Ok(())
}

/// Whether a piece has the changes that its id says.
pub(super) fn check_piece(
    entry: &Entry,
    positions: impl IntoIterator<Item = i64>,
) -> Result<(), ReplicaError> {
    match entry.whole {
        Some(whole) if entry.id != id_of_piece(whole, positions) => {
            Err(damaged(entry.seq, "the places of its changes are others"))
        }
        Some(_) | None => Ok(()),
    }
}

pub(super) fn damaged(seq: Seq, what: impl Into<String>) -> ReplicaError {
    ReplicaError::DamagedChangeset {
        seq,
        what: what.into(),
    }
}

fn first4(hash: &blake3::Hash) -> u32 {
    let [a, b, c, d, ..] = *hash.as_bytes();
    u32::from_le_bytes([a, b, c, d])
}
