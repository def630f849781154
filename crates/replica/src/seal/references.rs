//! Which unacknowledged changesets a new one needs (spec SL6).

use rusqlite::{OptionalExtension, params_from_iter};
use syncline_core::{Edit, Op, Row, RowKey, TableNumber, Value, schema::ForeignKey};

use super::{Sealed, is_insert};
use crate::{
    db::Doing,
    error::ReplicaError,
    meta::outbox::{self, State},
    rows::Bind,
    sql,
    tables::SyncedTable,
    work::Work,
};

/// Fills in what `sealed` depends on: changesets that touch a row it touches, and those that
/// insert a row it references.
pub(super) fn find(work: &Work<'_>, sealed: &mut Sealed) -> Result<(), ReplicaError> {
    for stored in &sealed.changes {
        let change = &stored.change;
        for pending in outbox::pending(work.conn, change.table, &change.key)? {
            if pending.state == State::Sealed {
                sealed.depends.insert(pending.seq);
            }
        }
        let Some(table) = work.table(change.table) else {
            continue;
        };
        for (parent, key) in parents(work, table, &change.key, &change.op)? {
            for pending in outbox::pending(work.conn, parent, &key)? {
                if pending.state == State::Sealed && is_insert(&pending.op) {
                    sealed.depends.insert(pending.seq);
                }
            }
        }
    }
    Ok(())
}

/// The rows of synced tables that a change references by the columns it sets.
pub(crate) fn parents(
    work: &Work<'_>,
    table: &SyncedTable,
    key: &RowKey,
    op: &Op,
) -> Result<Vec<(TableNumber, RowKey)>, ReplicaError> {
    let (Op::Insert(edits) | Op::Update(edits)) = op else {
        return Ok(Vec::new());
    };
    let sets = |position: usize| {
        let number = table.table.columns[position].number;
        edits.iter().find(|edit| edit.column == number)
    };
    let mut found = Vec::new();
    let mut visible: Option<Option<Row>> = None;
    for foreign_key in &table.table.foreign_keys {
        if !foreign_key.columns.iter().any(|&p| sets(p).is_some()) {
            continue;
        }
        let Some(parent) = work.tables.named(&foreign_key.parent) else {
            continue;
        };
        let mut values = Vec::new();
        for &position in &foreign_key.columns {
            values.push(match sets(position).map(|edit| &edit.edit) {
                Some(Edit::Set(value) | Edit::Decide { new: value, .. }) => value.clone(),
                _ => {
                    if visible.is_none() {
                        visible = Some(work.visible(table, key)?);
                    }
                    let row = visible.as_ref().and_then(Option::as_ref);
                    row.map_or(Value::Null, |row| row.0[position].clone())
                }
            });
        }
        if let Some(key) = parent_key(work, parent, foreign_key, values)? {
            found.push((parent.number(), key));
        }
    }
    Ok(found)
}

/// The key of the row that `values` reference, if there is one.
pub(crate) fn parent_key(
    work: &Work<'_>,
    parent: &SyncedTable,
    foreign_key: &ForeignKey,
    values: Vec<Value>,
) -> Result<Option<RowKey>, ReplicaError> {
    const DOING: &str = "looking for a referenced row";
    if values.iter().any(Value::is_null) {
        return Ok(None);
    }
    let table = &parent.table;
    if !parent.is_here {
        return Ok(None);
    }
    let named: Option<Vec<usize>> = foreign_key
        .parent_columns
        .iter()
        .map(|name| table.position(name))
        .collect();
    let Some(positions) = named else {
        return Ok(None);
    };
    if positions.is_empty() || positions == table.primary_key {
        if values.len() != table.primary_key.len() {
            return Ok(None);
        }
        let values: Vec<_> = values
            .into_iter()
            .zip(&table.primary_key)
            .map(|(value, &p)| value.canonical(table.columns[p].ty))
            .collect();
        return Ok(RowKey::encode(&values).ok());
    }
    let text = format!(
        "SELECT {} FROM {} WHERE {}",
        sql::list(&table.primary_key, |&p| sql::quoted(&table.columns[p].name)),
        sql::quoted(&table.name),
        sql::all(&positions, |&p| format!(
            "{} = ?",
            sql::quoted(&table.columns[p].name)
        )),
    );
    let found = work
        .conn
        .prepare_cached(&text)
        .and_then(|mut statement| {
            statement
                .query_row(params_from_iter(values.iter().map(Bind)), |row| {
                    (0..table.primary_key.len())
                        .map(|i| row.get_ref(i).map(crate::rows::Raw::new))
                        .collect::<rusqlite::Result<Vec<_>>>()
                })
                .optional()
        })
        .doing(DOING)?;
    let Some(raw) = found else { return Ok(None) };
    let values: Option<Vec<_>> = raw
        .into_iter()
        .zip(&table.primary_key)
        .map(|(raw, &p)| Some(raw.into_value().ok()?.canonical(table.columns[p].ty)))
        .collect();
    Ok(values.and_then(|values| RowKey::encode(&values).ok()))
}
