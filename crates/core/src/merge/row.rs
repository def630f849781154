//! Whole rows: differences, replay, merge and coalescing of changes (spec ME17–ME20).

use std::collections::BTreeMap;

use super::{ColumnState, EditError, Incoming, Lost, apply, coalesce, diff, merge};
use crate::{
    change::{ColumnEdit, Edit, Op},
    ids::{ColumnNumber, Version},
    row::Row,
    schema::{Column, Table},
    value::Value,
};

/// What two changes of one row come to.
#[derive(Debug, Clone, PartialEq)]
pub enum Joined {
    /// This one change.
    One(Op),
    /// No change at all: a row inserted and deleted again.
    Nothing,
    /// No single change has their effect.
    Apart,
}

/// What came of a change to a row that exists.
#[derive(Debug, Clone, PartialEq)]
pub struct MergedRow {
    pub row: Row,
    /// Positions of the columns where the change took effect, with their new states (without
    /// version: [`ColumnState::at`]).
    pub changed: BTreeMap<usize, ColumnState>,
    /// Positions of the columns where it, or a part of it, had none.
    pub lost: BTreeMap<usize, Lost>,
}

/// The change that turns the image `before` into `after` (`None` = no row), if there is one.
///
/// Both rows are canonical, aligned with `table` and of the same key. Generated columns never
/// travel; key columns only in an insert, whose edits are all [`Edit::Set`].
#[must_use]
pub fn diff_row(table: &Table, before: Option<&Row>, after: Option<&Row>) -> Option<Op> {
    let (before, after) = match (before, after) {
        (None, None) => return None,
        (Some(_), None) => return Some(Op::Delete),
        (None, Some(after)) => {
            let columns = table
                .columns
                .iter()
                .zip(&after.0)
                .filter(|(column, _)| !column.generated);
            let edit = |value: &Value| Edit::Set(value.clone());
            let edits = columns.map(|(c, value)| ColumnEdit {
                column: c.number,
                edit: edit(value),
            });
            return Some(Op::Insert(edits.collect()));
        }
        (Some(before), Some(after)) => (before, after),
    };
    let mut edits = Vec::new();
    for (position, column) in table.columns.iter().enumerate() {
        if !column.generated && !table.is_key(position) {
            let edit = diff(column, &before.0[position], &after.0[position]);
            edits.extend(edit.map(|edit| ColumnEdit {
                column: column.number,
                edit,
            }));
        }
    }
    (!edits.is_empty()).then_some(Op::Update(edits))
}

/// The image after `op` where nothing competes with it: replay over a shadow.
///
/// An insert replaces whatever row is there (columns it does not name are NULL); an update or a
/// delete of no row is still no row.
///
/// # Errors
/// [`EditError`] if an edit makes no sense, overflows, or names no column that can be written.
pub fn apply_op(table: &Table, current: Option<&Row>, op: &Op) -> Result<Option<Row>, EditError> {
    let (mut row, edits) = match (op, current) {
        (Op::Delete, _) | (Op::Update(_), None) => return Ok(None),
        (Op::Insert(edits), _) => (Row(vec![Value::Null; table.columns.len()]), edits),
        (Op::Update(edits), Some(row)) => (row.clone(), edits),
    };
    for (position, edit) in positions(table, op, edits)? {
        row.0[position] = apply(&table.columns[position], &row.0[position], edit)?;
    }
    Ok(Some(row))
}

/// Brings an insert or update together with the row that is there, column by column.
///
/// `states` tells what the server remembers of each column. An insert merges as if its author had
/// written each value over NULL at base zero, so what it leaves NULL stays as it is (spec ME19).
/// Deletes are the caller's decision; here they change nothing.
///
/// # Errors
/// [`EditError`] as [`apply_op`].
pub fn merge_row(
    table: &Table,
    current: &Row,
    states: impl Fn(ColumnNumber) -> ColumnState,
    op: &Op,
    incoming: &Incoming,
) -> Result<MergedRow, EditError> {
    let mut merged = MergedRow {
        row: current.clone(),
        changed: BTreeMap::new(),
        lost: BTreeMap::new(),
    };
    let (edits, incoming) = match op {
        Op::Delete => return Ok(merged),
        Op::Insert(edits) => (
            edits,
            Incoming {
                base: Version::ZERO,
                is_insert: true,
                ..*incoming
            },
        ),
        Op::Update(edits) => (edits, *incoming),
    };
    for (position, edit) in positions(table, op, edits)? {
        let column = &table.columns[position];
        let edit = match incoming.is_insert {
            true if table.is_key(position) => continue,
            true => insert_over_live(column, edit),
            false => Some(edit.clone()),
        };
        let Some(edit) = edit else { continue };
        let state = states(column.number);
        let outcome = merge(column, &current.0[position], &state, &edit, &incoming)?;
        merged.row.0[position] = outcome.value;
        merged
            .changed
            .extend(outcome.state.map(|state| (position, state)));
        merged
            .lost
            .extend(outcome.lost.map(|lost| (position, lost)));
    }
    Ok(merged)
}

/// What an insert's edit of a column other than the key means where the row lives already: the
/// difference from NULL, to be merged at base zero; `None` for NULL, which says nothing (spec ME19).
#[must_use]
pub fn insert_over_live(column: &Column, edit: &Edit) -> Option<Edit> {
    match edit {
        Edit::Set(value) => diff(column, &Value::Null, value),
        Edit::Add(_)
        | Edit::Items { .. }
        | Edit::Append(_)
        | Edit::Decide { .. }
        | Edit::Members(_) => Some(edit.clone()),
    }
}

/// One change of a row with the effect of `first` and then `second` (spec ME20).
///
/// A delete followed by an insert stays apart: the row begins a new life.
#[must_use]
pub fn coalesce_ops(table: &Table, first: &Op, second: &Op) -> Joined {
    let joined = match (first, second) {
        (Op::Insert(_), Op::Delete) => return Joined::Nothing,
        (Op::Delete, Op::Insert(_)) => return Joined::Apart,
        (Op::Update(_) | Op::Delete, Op::Delete) | (Op::Delete, Op::Update(_)) => Some(Op::Delete),
        (Op::Insert(_) | Op::Update(_), Op::Insert(edits)) => Some(Op::Insert(edits.clone())),
        (Op::Insert(first), Op::Update(second)) => {
            joined_edits(table, first, second, Some(&Edit::Set(Value::Null))).map(Op::Insert)
        }
        (Op::Update(first), Op::Update(second)) => {
            joined_edits(table, first, second, None).map(Op::Update)
        }
    };
    joined.map_or(Joined::Apart, Joined::One)
}

/// `untold` is what `first` means for a column it does not name.
fn joined_edits(
    table: &Table,
    first: &[ColumnEdit],
    second: &[ColumnEdit],
    untold: Option<&Edit>,
) -> Option<Vec<ColumnEdit>> {
    let mut edits = first.to_vec();
    for ColumnEdit {
        column: number,
        edit,
    } in second
    {
        let column = &table.columns[table.position_of(*number)?];
        let place = edits.iter().position(|earlier| earlier.column == *number);
        match place {
            Some(place) => edits[place].edit = coalesce(column, &edits[place].edit, edit)?,
            None => {
                let edit = match untold {
                    Some(untold) => coalesce(column, untold, edit)?,
                    None => edit.clone(),
                };
                edits.push(ColumnEdit {
                    column: *number,
                    edit,
                });
            }
        }
    }
    Some(edits)
}

/// The edits with the positions of their columns, each once and writable.
fn positions<'a>(
    table: &Table,
    op: &Op,
    edits: &'a [ColumnEdit],
) -> Result<BTreeMap<usize, &'a Edit>, EditError> {
    let mut found = BTreeMap::new();
    for ColumnEdit {
        column: number,
        edit,
    } in edits
    {
        let refuse = |column: String, reason: &str| EditError {
            column,
            reason: reason.into(),
        };
        let Some(position) = table.position_of(*number) else {
            let name = format!("number {}", number.0);
            return Err(refuse(
                name,
                &format!("table {} has no such column", table.name),
            ));
        };
        let name = || table.columns[position].name.clone();
        if table.columns[position].generated {
            return Err(refuse(name(), "a generated column cannot be written"));
        }
        if table.is_key(position) && matches!(op, Op::Update(_)) {
            return Err(refuse(name(), "an update cannot write a key column"));
        }
        if found.insert(position, edit).is_some() {
            return Err(refuse(name(), "the change names the column twice"));
        }
    }
    Ok(found)
}
