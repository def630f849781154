//! How columns change and how concurrent changes come together (docs/spec/merge.md).
//!
//! [`diff`] runs at sealing on a device, [`apply`] wherever an edit takes effect without
//! competition (replay over a shadow), [`merge`] on the server where it competes, and
//! [`coalesce`] joins two unsent edits of one column.

use crate::{
    change::Edit,
    hlc::Hlc,
    ids::{ChangesetId, DeviceId, Version},
    schema::Column,
    value::Value,
};
use std::collections::BTreeMap;

/// Who wrote a column last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Clock {
    pub version: Version,
    pub hlc: Hlc,
    pub changeset: ChangesetId,
    pub device: DeviceId,
}

/// What the server remembers of a column besides its value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ColumnState {
    pub clock: Clock,
    /// For set, merge-fields and path strategies: who wrote each path or added each item last
    /// (spec ME13). Empty while the whole value was written at `clock`.
    pub members: BTreeMap<String, Clock>,
}

impl ColumnState {
    /// `self` once the edit has its place in the log: fills in the version of every clock that
    /// belongs to the changeset of `self.clock`.
    #[must_use]
    pub fn at(mut self, version: Version) -> Self {
        let changeset = self.clock.changeset;
        for clock in self.members.values_mut().filter(|c| c.changeset == changeset) {
            clock.version = version;
        }
        self.clock.version = version;
        self
    }
}

/// The circumstances of an edit that arrives.
#[derive(Debug, Clone, Copy)]
pub struct Incoming {
    /// Already clamped.
    pub hlc: Hlc,
    pub changeset: ChangesetId,
    pub device: DeviceId,
    /// The row's version that the author had.
    pub base: Version,
}

/// An edit that does not fit its column: a counter's difference for text, items for no array.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {reason}")]
pub struct EditError {
    pub column: String,
    pub reason: String,
}

/// What came of an edit.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    pub value: Value,
    /// The value's state when the edit took effect (call [`ColumnState::at`] with its
    /// version); `None` when nothing changes.
    pub state: Option<ColumnState>,
    /// Why the edit, or a part of it, had no effect.
    pub lost: Option<Lost>,
}

/// Why an edit had no effect.
#[derive(Debug, Clone, PartialEq)]
pub enum Lost {
    /// The present value is later.
    Older,
    /// The strategy is server-wins.
    ServerWins,
    /// The strategy is manual: somebody has to decide between these.
    Conflict { base: Value, mine: Value, theirs: Value },
}

/// The edit that turns `before` into `after` in this column, or `None` if they are equal.
#[must_use]
pub fn diff(column: &Column, before: &Value, after: &Value) -> Option<Edit> {
    let _ = column;
    (before != after).then(|| Edit::Set(after.clone()))
}

/// The value after `edit` where nothing competes with it.
///
/// # Errors
/// [`EditError`] if the edit does not fit the value or the column.
pub fn apply(column: &Column, current: &Value, edit: &Edit) -> Result<Value, EditError> {
    let _ = (column, current);
    match edit {
        Edit::Set(value) => Ok(value.clone()),
        Edit::Add(_) | Edit::Items { .. } | Edit::Append(_) | Edit::Decide { .. } | Edit::Members(_) => {
            Err(EditError { column: column.name.clone(), reason: "unsupported".into() })
        }
    }
}

/// Brings `edit` together with what the column holds; pure and total over valid edits.
///
/// # Errors
/// [`EditError`] if the edit does not fit the value or the column.
pub fn merge(
    column: &Column,
    current: &Value,
    state: &ColumnState,
    edit: &Edit,
    incoming: &Incoming,
) -> Result<Merged, EditError> {
    let value = apply(column, current, edit)?;
    let clock = Clock { version: state.clock.version, hlc: incoming.hlc, changeset: incoming.changeset, device: incoming.device };
    Ok(Merged { value, state: Some(ColumnState { clock, members: BTreeMap::new() }), lost: None })
}

/// One edit with the effect of `first` and then `second`, or `None` if no single edit has it.
#[must_use]
pub fn coalesce(column: &Column, first: &Edit, second: &Edit) -> Option<Edit> {
    let _ = (column, first);
    Some(second.clone())
}
