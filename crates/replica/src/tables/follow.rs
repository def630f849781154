//! Following what the app and the server rename (spec CA12): a table or column keeps its number in
//! this file whatever its name, and stays matched with the server's of the number it had.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension};
use syncline_core::{ColumnNumber, Schema, Table, TableNumber};

use crate::{
    capture,
    db::Doing,
    error::ReplicaError,
    introspect,
    meta::names::{self, ColumnRecord, TableRecord},
};

/// Gives tables that the app renamed their new names.
pub(super) fn renamed_tables(conn: &Connection) -> Result<(), ReplicaError> {
    let records = names::tables(conn)?;
    for record in &records {
        if record.unfit.is_some() || has_table(conn, &record.name)? {
            continue;
        }
        let Some(name) = capture::captured_table(conn, record.t)? else {
            continue;
        };
        if !is_named(&records, &name) {
            names::rename_table(conn, record.t, &name)?;
        }
    }
    Ok(())
}

/// A table of the server's name that the app made in place of one with another name: it takes the
/// number over and begins anew, for nobody knows how its rows came about. Not one that was not
/// chosen or cannot sync: a server's name for a table has nobody's rows sent (spec LB7). Returns
/// the numbers.
pub(super) fn replaced_tables(
    conn: &Connection,
    schema: &Schema,
    chosen: Option<&BTreeSet<String>>,
) -> Result<Vec<TableNumber>, ReplicaError> {
    let records = names::tables(conn)?;
    let mut anew = Vec::new();
    for record in &records {
        let theirs = record.server.and_then(|number| schema.by_number(number));
        let Some(theirs) = theirs.filter(|t| !t.name.eq_ignore_ascii_case(&record.name)) else {
            continue;
        };
        let is_chosen = chosen.is_none_or(|names| names.contains(&theirs.name.to_lowercase()));
        if !is_chosen
            || is_named(&records, &theirs.name)
            || !has_table(conn, &theirs.name)?
            || !can_sync(conn, &theirs.name)?
        {
            continue;
        }
        names::rename_table(conn, record.t, &theirs.name)?;
        anew.push(record.t);
    }
    Ok(anew)
}

/// Gives columns that the app renamed their new names.
pub(super) fn renamed_columns(
    conn: &Connection,
    t: TableNumber,
    table: &Table,
) -> Result<(), ReplicaError> {
    let known = names::columns(conn, t)?;
    let is_gone = |record: &ColumnRecord| table.position(&record.name).is_none();
    if !known.iter().any(is_gone) {
        return Ok(());
    }
    for (c, name) in capture::names_in_triggers(conn, t)? {
        let was = known.iter().find(|record| record.c == c);
        let is_renamed = was.is_some_and(is_gone)
            && table.position(&name).is_some()
            && !known.iter().any(|r| r.name.eq_ignore_ascii_case(&name));
        if is_renamed {
            names::rename_column(conn, t, c, &name)?;
        }
    }
    Ok(())
}

/// The server's table that a table of the file is: the one of its name, else the one that it was
/// before the server or the app renamed it.
pub(super) fn counterpart<'s>(
    conn: &Connection,
    record: &TableRecord,
    schema: &'s Schema,
) -> Result<Option<&'s Table>, ReplicaError> {
    if let Some(same) = schema.table(&record.name) {
        return Ok(Some(same));
    }
    let theirs = record.server.and_then(|number| schema.by_number(number));
    match theirs {
        Some(theirs) if !has_table(conn, &theirs.name)? => Ok(Some(theirs)),
        Some(_) | None => Ok(None),
    }
}

/// What became of the columns since they were last matched.
#[derive(Debug, Default)]
pub(super) struct Columns {
    /// The file lost a column that the server still has.
    pub(super) lost: bool,
    /// The server lost a column that the file still has.
    pub(super) dropped_there: bool,
    /// Columns that the file does not have any more, with the server's numbers.
    pub(super) gone: Vec<(ColumnNumber, ColumnNumber)>,
}

/// Remembers how the columns of a table are matched. `server`: the server's number by ours.
pub(super) fn remember(
    conn: &Connection,
    t: TableNumber,
    local: &Table,
    theirs: &Table,
    server: impl Fn(usize) -> Option<ColumnNumber>,
) -> Result<Columns, ReplicaError> {
    let mut found = Columns::default();
    let matched: Vec<_> = (0..local.columns.len()).map(&server).collect();
    for record in names::columns(conn, t)? {
        let still_there = |number: &ColumnNumber| theirs.position_of(*number).is_some();
        let next = match local.position_of(record.c) {
            Some(position) => ColumnRecord {
                server: matched[position],
                gone: false,
                ..record.clone()
            },
            None => {
                let number = record.server.filter(still_there);
                // Another column is it now.
                let number = number.filter(|number| !matched.contains(&Some(*number)));
                ColumnRecord {
                    server: number,
                    gone: number.is_some(),
                    ..record.clone()
                }
            }
        };
        found.lost |= next.gone && !record.gone;
        let lost_there = |number: &ColumnNumber| !still_there(number);
        found.dropped_there |= record.server.as_ref().is_some_and(lost_there);
        if let (true, Some(number)) = (next.gone, next.server) {
            found.gone.push((next.c, number));
        }
        if next != record {
            names::put_column(conn, t, &next)?;
        }
    }
    Ok(found)
}

/// Whether nothing stands in the way of syncing a table of the app.
fn can_sync(conn: &Connection, name: &str) -> Result<bool, ReplicaError> {
    let found = introspect::introspect(conn)?;
    let is_it = |other: &str| other.eq_ignore_ascii_case(name);
    Ok(found.tables.iter().any(|local| is_it(&local.table.name))
        && !found.problems.iter().any(|problem| is_it(&problem.table)))
}

fn is_named(records: &[TableRecord], name: &str) -> bool {
    records.iter().any(|r| r.name.eq_ignore_ascii_case(name))
}

pub(super) fn has_table(conn: &Connection, name: &str) -> Result<bool, ReplicaError> {
    conn.prepare_cached(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1 COLLATE NOCASE",
    )
    .and_then(|mut s| s.query_row([name], |_| Ok(())).optional())
    .map(|found| found.is_some())
    .doing("looking for a table")
}
