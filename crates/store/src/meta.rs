//! What the server remembers of rows and devices.

use std::collections::BTreeMap;

use syncline_core::{
    BucketId, ColumnNumber, DeviceId, Lease, Timestamp, UserId, Value, Version,
    merge::{Clock, ColumnState},
};

/// The metadata of a row, also of a deleted one (then it is its tombstone).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowMeta {
    pub version: Version,
    /// Version of the insert that began this life of the row.
    pub created: Version,
    /// Who inserted it; `None` when another program did.
    pub owner: Option<UserId>,
    /// Who changed it last.
    pub author: Option<UserId>,
    /// The clock of every column that is not in `columns`; a tombstone's is the deletion's.
    pub clock: Clock,
    /// Columns whose state differs from `clock`.
    pub columns: ColumnStates,
    /// Where the row lies: sorted, without doubles, empty for a tombstone.
    pub buckets: Vec<BucketId>,
    pub deleted: bool,
    /// The last values of a deleted row, kept where a later update may revive it
    /// ([`syncline_core::Table::update_wins`]); else empty.
    pub remains: Vec<(ColumnNumber, Value)>,
    /// Where a deleted row lay, else empty: who could see it then may be told that it is gone.
    pub grave: Vec<BucketId>,
}

impl RowMeta {
    /// The state of one column.
    #[must_use]
    pub fn column(&self, number: ColumnNumber) -> ColumnState {
        self.columns
            .get(number)
            .cloned()
            .unwrap_or_else(|| ColumnState {
                clock: self.clock,
                members: BTreeMap::new(),
            })
    }
}

/// States of some columns, in the order of their numbers.
///
/// Most rows have none or one, and a group holds the metadata of every row it changes: a map would
/// take the room of eleven for one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ColumnStates(Vec<(ColumnNumber, ColumnState)>);

impl ColumnStates {
    fn place(&self, number: ColumnNumber) -> Result<usize, usize> {
        self.0.binary_search_by_key(&number, |(known, _)| *known)
    }
    /// The state of a column, if it is among them.
    #[must_use]
    pub fn get(&self, number: ColumnNumber) -> Option<&ColumnState> {
        Some(&self.0[self.place(number).ok()?].1)
    }
    /// Puts a state in, in place of the one that the column had.
    pub fn insert(&mut self, number: ColumnNumber, state: ColumnState) {
        match self.place(number) {
            Ok(place) => self.0[place].1 = state,
            Err(place) => {
                self.0.reserve_exact(1);
                self.0.insert(place, (number, state));
            }
        }
    }
    /// Takes a state out.
    pub fn remove(&mut self, number: ColumnNumber) {
        if let Ok(place) = self.place(number) {
            self.0.remove(place);
        }
    }
    /// All, in the order of the columns' numbers.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (ColumnNumber, &ColumnState)> {
        self.0.iter().map(|(number, state)| (*number, state))
    }
    /// The one state that all of them have.
    #[must_use]
    pub fn common(&self) -> Option<&ColumnState> {
        let (_, first) = self.0.first()?;
        self.0
            .iter()
            .all(|(_, state)| state == first)
            .then_some(first)
    }
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(ColumnNumber, ColumnState)> for ColumnStates {
    fn from_iter<I: IntoIterator<Item = (ColumnNumber, ColumnState)>>(states: I) -> Self {
        let mut all = Self::default();
        for (number, state) in states {
            all.insert(number, state);
        }
        all
    }
}

/// What a user owns: live rows that the user inserted, of tables that the configuration declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owned {
    pub rows: u64,
    /// Of their keys and values.
    pub bytes: u64,
}

/// What the server remembers of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceState {
    pub id: DeviceId,
    pub user: UserId,
    pub name: String,
    pub platform: String,
    /// The lease that the next Hello must show; all zero once a copy came, which nobody can show
    /// (spec SE2).
    pub lease: Lease,
    /// The lease that was exchanged for `lease`, in case the Welcome was lost; or the
    /// last one that counted.
    pub previous_lease: Lease,
    /// The last number taken from this device, accepted or refused.
    pub last_number: u64,
    /// Split off from another device's file (a copy, a restored backup).
    pub forked: bool,
    pub first_seen: Timestamp,
    /// When it was last connected, at most a minute late.
    pub last_seen: Timestamp,
    /// The newest checkpoint that it is known to have applied; zero for none.
    pub checkpoint: Version,
    /// Since when its user does not want it any more (spec DE4): it stays known by its id, and
    /// opens no session.
    pub deregistered: Option<Timestamp>,
    /// Its user wants removed what it synced (spec DE8).
    pub wipe: bool,
}
