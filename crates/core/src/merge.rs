//! How columns change and how concurrent changes come together (docs/spec/merge.md).
//!
//! [`diff`] runs at sealing on a device, [`apply`] wherever an edit takes effect without
//! competition (replay over a shadow), [`merge()`] on the server where it competes, and
//! [`coalesce`] joins two unsent edits of one column. The same for whole rows: [`diff_row`],
//! [`apply_op`], [`merge_row`] and [`coalesce_ops`].
//!
//! Everything is pure and total: an edit that makes no sense is an [`EditError`], never a panic.

mod append;
mod clock;
mod coalesce;
mod contest;
mod counter;
mod json;
mod members;
pub(crate) mod path;
mod row;
mod set;
mod tree;
mod whole;

#[cfg(test)]
mod tests;

pub use clock::{Clock, ColumnState, Incoming};
pub use coalesce::coalesce;
pub use row::{Joined, MergedRow, apply_op, coalesce_ops, diff_row, insert_over_live, merge_row};

use json::Json;
use path::ROOT;
use tree::{Misfit, Tree};

use crate::planted;
use crate::{
    change::{Edit, PathEdit},
    schema::{Column, MergeStrategy},
    value::Value,
};

/// An edit that does not fit its column: a counter's difference that is no number, items that are
/// no JSON, a sum past 64 bits.
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
    /// The present value is later, or of a shape that the edit does not fit.
    Older,
    /// The strategy is server-wins.
    ServerWins,
    /// The strategy is manual: somebody has to decide between these.
    Conflict {
        base: Value,
        mine: Value,
        theirs: Value,
    },
}

/// The edit that turns `before` into `after` in this column, or `None` if they are equal.
///
/// Both are canonical. `apply` of it to `before` gives `after`: the same value, or the same JSON
/// where an operation on a document is what travels (spec ME1).
#[must_use]
pub fn diff(column: &Column, before: &Value, after: &Value) -> Option<Edit> {
    if before == after || (planted!(NocaseEditUnseen) && planted::differ_in_case(before, after)) {
        return None;
    }
    Some(operation(column, before, after).unwrap_or_else(|| Edit::Set(after.clone())))
}

/// The difference as an operation, where the column's strategy has one for these values.
fn operation(column: &Column, before: &Value, after: &Value) -> Option<Edit> {
    use MergeStrategy as S;
    match column.merge {
        S::Counter if planted!(CounterResultSent) => return Some(Edit::Add(after.clone())),
        S::Counter => return counter::difference(before, after, column.ty).map(Edit::Add),
        S::Set | S::Append | S::MergeFields => {}
        _ if path::is_divided(column, ROOT) => {}
        S::Manual => return Some(decision(before, after)),
        S::LastWriteWins | S::ServerWins | S::ClientWins | S::Collaborative => return None,
    }
    let old = Tree::parse(before);
    let old = old
        .as_ref()
        .and_then(Tree::root)
        .filter(|root| !root.is_null());
    let new = Tree::parse(after);
    match (column.merge, old, new.as_ref().and_then(Tree::root)) {
        (_, Some(Json::Object(old)), Some(Json::Object(new))) if path::is_divided(column, ROOT) => {
            Some(Edit::Members(members::difference(column, old, new)))
        }
        (S::Set, Some(Json::Array(old)), Some(Json::Array(new))) => {
            let (add, remove) = set::difference(old, new);
            Some(Edit::Items { add, remove })
        }
        (S::Append, Some(Json::Array(old)), Some(Json::Array(new))) => {
            append::difference(Some(old), new).map(Edit::Append)
        }
        (S::Append, None, Some(Json::Array(new))) if before.is_null() => {
            append::difference(None, new).map(Edit::Append)
        }
        (S::Manual, _, _) => Some(decision(before, after)),
        _ => None,
    }
}

fn decision(before: &Value, after: &Value) -> Edit {
    Edit::Decide {
        base: before.clone(),
        new: after.clone(),
    }
}

/// The value after `edit` where nothing competes with it.
///
/// An operation on a value of another shape (a counter that somebody made a text) does nothing.
///
/// # Errors
/// [`EditError`] if the edit makes no sense for any value, or a sum overflows.
pub fn apply(column: &Column, current: &Value, edit: &Edit) -> Result<Value, EditError> {
    match effect(column, current, edit) {
        Ok(value) => Ok(value),
        Err(Misfit::Shape) => Ok(current.clone()),
        Err(misfit) => Err(EditError::new(column, misfit)),
    }
}

/// As [`apply`], telling apart why nothing happens.
fn effect(column: &Column, current: &Value, edit: &Edit) -> Result<Value, Misfit> {
    let steps = match edit {
        Edit::Set(value) | Edit::Decide { new: value, .. } => {
            return Ok(value.clone().canonical(column.ty));
        }
        Edit::Add(delta) if !counter::is_delta(delta) => {
            return Err(Misfit::Malformed("a counter's difference is no number"));
        }
        Edit::Add(delta) => return Ok(counter::sum(current, delta, column.ty)?),
        Edit::Items { add, remove } => {
            vec![(
                ROOT,
                PathEdit::Items {
                    add: add.clone(),
                    remove: remove.clone(),
                },
            )]
        }
        Edit::Append(items) => vec![(ROOT, PathEdit::Append(items.clone()))],
        Edit::Members(edits) => {
            if edits.iter().any(|edit| edit.path == ROOT) {
                return Err(Misfit::Malformed("a path is malformed"));
            }
            edits
                .iter()
                .map(|member| (member.path.as_str(), member.edit.clone()))
                .collect()
        }
    };
    let mut tree = Tree::parse(current).ok_or(Misfit::Shape)?;
    let mut performed = Err(Misfit::Shape);
    for (path, edit) in &steps {
        match tree.perform(path, edit) {
            Ok(()) => performed = Ok(()),
            Err(Misfit::Shape) => {}
            Err(misfit) => return Err(misfit),
        }
    }
    performed.map(|()| tree.value())
}

/// Brings `edit` together with what the column holds; pure and total over valid edits.
///
/// # Errors
/// [`EditError`] if the edit makes no sense for any value, or a sum overflows.
pub fn merge(
    column: &Column,
    current: &Value,
    state: &ColumnState,
    edit: &Edit,
    incoming: &Incoming,
) -> Result<Merged, EditError> {
    check(column, edit)?;
    let in_parts = column.merge == MergeStrategy::Set || path::is_divided(column, ROOT);
    match edit {
        Edit::Members(_) | Edit::Items { .. } => {
            members::merge(column, current, state, edit, incoming)
        }
        Edit::Set(_) if in_parts => members::merge(column, current, state, edit, incoming),
        Edit::Set(_) | Edit::Add(_) | Edit::Append(_) | Edit::Decide { .. } => {
            whole::merge(column, current, state, edit, incoming)
        }
    }
}

/// Refuses an edit that makes no sense for any value, so that it cannot hide behind a loss.
fn check(column: &Column, edit: &Edit) -> Result<(), EditError> {
    match effect(column, &Value::Null, edit) {
        Ok(_) | Err(Misfit::Shape) => Ok(()),
        Err(misfit) => Err(EditError::new(column, misfit)),
    }
}

impl Merged {
    fn lost(current: &Value, lost: Lost) -> Self {
        Self {
            value: current.clone(),
            state: None,
            lost: Some(lost),
        }
    }
}

impl EditError {
    fn new(column: &Column, misfit: Misfit) -> Self {
        let reason = match misfit {
            Misfit::Shape => "the edit does not fit the value",
            Misfit::Malformed(reason) => reason,
            Misfit::Overflow => "the sum is too large for a number",
        };
        Self {
            column: column.name.clone(),
            reason: reason.to_owned(),
        }
    }
}
