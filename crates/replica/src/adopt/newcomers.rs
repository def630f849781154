//! Columns that the server had before this file did: their values come from what was kept aside,
//! not from the default that the app's migration gave them.

use syncline_core::{Column, ColumnNumber, Row, RowKey, Value, sql};

use crate::{
    apply::{pack_extra, record_extra},
    error::ReplicaError,
    meta::{
        ledger::{self, Known},
        settings::{self, Key},
    },
    rows::Raw,
    tables::SyncedTable,
    tally::RowChange,
    work::Work,
};

/// Known rows that are looked at together.
const TAKEN: usize = 1_000;

/// A column that nobody captured until now.
#[derive(Debug, Clone)]
pub(super) struct Newcomer {
    pub(super) position: usize,
    /// What the server gave rows in it when it came there, if it came since it was last matched.
    filled: Value,
}

/// The columns at `positions`; `old` is the table as it was matched before.
pub(super) fn at(
    work: &Work<'_>,
    table: &SyncedTable,
    old: Option<&SyncedTable>,
    positions: &[usize],
) -> Result<Vec<Newcomer>, ReplicaError> {
    let mut newcomers = Vec::with_capacity(positions.len());
    for &position in positions {
        let column = old.and_then(|old| table.filled_since(old, position));
        // The server's text is not run here. What an expression filled in comes with the reload
        // that such a column leads to.
        let column = column.filter(|column| column.default.as_deref().is_some_and(sql::is_literal));
        newcomers.push(Newcomer {
            position,
            filled: column.map_or(Value::Null, |column| default(work, column)),
        });
    }
    Ok(newcomers)
}

/// Gives columns that nobody captured until now the server's values, in every known row and its
/// shadow. A value other than the column's default was written by somebody here: it stays, and the
/// rescan finds it.
pub(super) fn take_up(
    work: &mut Work<'_>,
    table: &SyncedTable,
    newcomers: &[Newcomer],
) -> Result<(), ReplicaError> {
    if newcomers.is_empty() {
        return Ok(());
    }
    let mut defaults = Vec::with_capacity(newcomers.len());
    for newcomer in newcomers {
        defaults.push(default(work, &table.table.columns[newcomer.position]));
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
                let values = Values::new(work, table, &key, newcomers, &known)?;
                values.take_up(work, table, &key, &known, newcomers, &defaults)?;
            }
        }
    }
}

/// The server's values of one row.
struct Values {
    /// By position.
    here: Vec<(usize, Value)>,
    /// What this file still has no columns for.
    aside: Vec<(ColumnNumber, Value)>,
}

impl Values {
    fn new(
        work: &mut Work<'_>,
        table: &SyncedTable,
        key: &RowKey,
        newcomers: &[Newcomer],
        known: &Known,
    ) -> Result<Self, ReplicaError> {
        let mut aside = record_extra(known)?;
        let mut unread = false;
        let here = newcomers.iter().map(|newcomer| {
            let position = newcomer.position;
            let number = table.server_number(position);
            let place = aside.iter().position(|(known, _)| Some(*known) == number);
            let value = match place {
                Some(place) if table.is_encrypted(position) => {
                    let (number, envelope) = aside[place].clone();
                    let received = table.receive(key, vec![(number, envelope)]);
                    work.note_cells(table, key, &received);
                    if received.extra.is_empty() {
                        aside.remove(place);
                    } else if table.keys.is_empty() {
                        unread = true;
                    }
                    received.row.0[position].clone()
                }
                Some(place) => aside.remove(place).1,
                None => newcomer.filled.clone(),
            };
            (position, value.canonical(table.table.columns[position].ty))
        });
        let here = here.collect();
        if unread {
            // Whoever opens the file with keys next has it loaded again.
            settings::put(work.conn, Key::KeysHeld, "")?;
        }
        Ok(Self { here, aside })
    }

    fn take_up(
        &self,
        work: &mut Work<'_>,
        table: &SyncedTable,
        key: &RowKey,
        known: &Known,
        newcomers: &[Newcomer],
        defaults: &[Value],
    ) -> Result<(), ReplicaError> {
        let image = work.server_image(table, key)?;
        let image = image.map(|image| without(table, newcomers, &image, known));
        let hash = match image.transpose()?.flatten() {
            Some(server) => table.hash(&server, &self.aside),
            None => known.hash,
        };
        let next = Known {
            extra: pack_extra(&self.aside),
            hash,
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

/// The value that `ALTER TABLE … ADD COLUMN` gave the rows that were there; NULL too where it
/// cannot be computed.
fn default(work: &Work<'_>, column: &Column) -> Value {
    let Some(text) = &column.default else {
        return Value::Null;
    };
    let found = work.conn.query_row(&format!("SELECT {text}"), [], |row| {
        row.get_ref(0).map(Raw::new)
    });
    let value = found.ok().and_then(|raw| raw.into_value().ok());
    value.map_or(Value::Null, |value| value.canonical(column.ty))
}

/// The server's value of the column at `position`, which was kept aside until now.
pub(super) fn aside(
    table: &SyncedTable,
    key: &RowKey,
    position: usize,
    extra: &[(ColumnNumber, Value)],
) -> Value {
    let number = table.server_number(position);
    let found = extra.iter().find(|(known, _)| Some(*known) == number);
    let value = found.map_or(Value::Null, |(number, value)| {
        table.opened(key, *number, value).0.unwrap_or(Value::Null)
    });
    value.canonical(table.table.columns[position].ty)
}

/// The row as the server has it, if all that differs is what it has in `newcomers`: nothing, or
/// what it filled them with.
pub(super) fn without(
    table: &SyncedTable,
    newcomers: &[Newcomer],
    row: &Row,
    known: &Known,
) -> Result<Option<Row>, ReplicaError> {
    let extra = record_extra(known)?;
    let (mut empty, mut server) = (row.clone(), row.clone());
    for Newcomer { position, filled } in newcomers {
        empty.0[*position] = Value::Null;
        server.0[*position] = filled.clone().canonical(table.table.columns[*position].ty);
    }
    let is_known = |row: &Row| table.hash(row, &extra) == known.hash;
    Ok((is_known(&empty) || is_known(&server)).then_some(server))
}
