//! Columns that the server had before this file did: their values come from what was kept aside,
//! not from the default that the app's migration gave them.

use syncline_core::{Column, ColumnNumber, Row, RowKey, Value};

use crate::{
    apply::{pack_extra, record_extra},
    db::Doing,
    error::ReplicaError,
    meta::ledger::{self, Known},
    rows::Raw,
    tables::SyncedTable,
    tally::RowChange,
    work::Work,
};

/// Known rows that are looked at together.
const TAKEN: usize = 1_000;

/// Gives the columns at `positions`, which nobody captured until now, the server's values, in
/// every known row and its shadow. A value other than the column's default was written by
/// somebody here: it stays, and the rescan finds it.
pub(super) fn take_up(
    work: &mut Work<'_>,
    table: &SyncedTable,
    positions: &[usize],
) -> Result<(), ReplicaError> {
    if positions.is_empty() {
        return Ok(());
    }
    let mut defaults = Vec::with_capacity(positions.len());
    for &position in positions {
        defaults.push(default(work, &table.table.columns[position])?);
    }
    let mut after: Option<RowKey> = None;
    loop {
        let keys = ledger::keys_after(work.conn, table.number(), after.as_ref(), TAKEN)?;
        let Some(last) = keys.last() else {
            return Ok(());
        };
        after = Some(last.clone());
        for key in keys {
            if let Some(known) = ledger::get(work.conn, table.number(), &key)? {
                let newcomers = Newcomers::new(table, positions, &known)?;
                newcomers.take_up(work, table, &key, &known, &defaults)?;
            }
        }
    }
}

/// The server's values of one row.
struct Newcomers {
    /// By position.
    here: Vec<(usize, Value)>,
    /// What this file still has no columns for.
    aside: Vec<(ColumnNumber, Value)>,
}

impl Newcomers {
    fn new(table: &SyncedTable, positions: &[usize], known: &Known) -> Result<Self, ReplicaError> {
        let mut aside = record_extra(known)?;
        let here = positions.iter().map(|&position| {
            let number = table.server_number(position);
            let place = aside.iter().position(|(known, _)| Some(*known) == number);
            let value = place.map_or(Value::Null, |place| aside.remove(place).1);
            (position, value.canonical(table.table.columns[position].ty))
        });
        let here = here.collect();
        Ok(Self { here, aside })
    }

    fn take_up(
        &self,
        work: &mut Work<'_>,
        table: &SyncedTable,
        key: &RowKey,
        known: &Known,
        defaults: &[Value],
    ) -> Result<(), ReplicaError> {
        let next = Known {
            extra: pack_extra(&self.aside),
            ..known.clone()
        };
        work.set_known(table, key, Some(known), Some(&next))?;
        if let Some(mut shadow) = work.shadow(table, key)?
            && let Some(image) = &mut shadow.image
        {
            for (position, value) in &self.here {
                image.0[*position] = value.clone();
            }
            work.put_shadow(table, key, &shadow)?;
        }
        let Some(mut row) = work.visible(table, key)? else {
            return Ok(());
        };
        let before = row.clone();
        for ((position, value), default) in self.here.iter().zip(defaults) {
            let here = &mut row.0[*position];
            if !value.is_null() && (here.is_null() || here == default) {
                here.clone_from(value);
            }
        }
        if row != before {
            work.show(table, key, Some(row))?;
            work.note(table.number(), key, None, RowChange::Updated);
        }
        Ok(())
    }
}

/// The value that `ALTER TABLE … ADD COLUMN` gave the rows that were there.
fn default(work: &Work<'_>, column: &Column) -> Result<Value, ReplicaError> {
    let Some(text) = &column.default else {
        return Ok(Value::Null);
    };
    let found = work
        .conn
        .query_row(&format!("SELECT {text}"), [], |row| {
            row.get_ref(0).map(Raw::new)
        })
        .doing("reading a column's default")?;
    Ok(found
        .into_value()
        .map_or(Value::Null, |value| value.canonical(column.ty)))
}

/// The server's value of the column at `position`, which was kept aside until now.
pub(super) fn aside(
    table: &SyncedTable,
    position: usize,
    extra: &[(ColumnNumber, Value)],
) -> Value {
    let number = table.server_number(position);
    let found = extra.iter().find(|(known, _)| Some(*known) == number);
    let value = found.map_or(Value::Null, |(_, value)| value.clone());
    value.canonical(table.table.columns[position].ty)
}

/// The row as the server has it, if all that differs is that `positions` are NULL there.
pub(super) fn without(
    table: &SyncedTable,
    positions: &[usize],
    row: &Row,
    known: &Known,
) -> Result<Option<Row>, ReplicaError> {
    let mut server = row.clone();
    for &position in positions {
        server.0[position] = Value::Null;
    }
    let hash = table.hash(&server, &record_extra(known)?);
    Ok((hash == known.hash).then_some(server))
}
