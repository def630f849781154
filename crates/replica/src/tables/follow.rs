//! Following what the app and the server rename (spec CA12): a table or column keeps its number in
//! this file whatever its name, and stays matched with the server's of the number it had.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use syncline_core::{Column, ColumnNumber, Schema, Table, TableNumber};

use crate::{
    capture, conflict,
    error::ReplicaError,
    introspect,
    meta::names::{self, ColumnRecord, TableRecord},
    objects::Objects,
};

/// Gives tables that the app renamed their new names, which others may have had until now.
pub(super) fn renamed_tables(conn: &Connection, objects: &Objects) -> Result<(), ReplicaError> {
    let records = names::tables(conn)?;
    let fit = records.iter().filter(|record| record.unfit.is_none());
    let captured: BTreeMap<_, _> = fit
        .filter_map(|record| Some((record.t, capture::captured_table(objects, record.t)?)))
        .collect();
    let named = |name: &str| records.iter().find(|r| r.name.eq_ignore_ascii_case(name));
    // A synced table that took the place of one that was dropped is still the one it was. One that
    // never synced is the other made anew.
    let is_over = |holder: &TableRecord, mover: &TableRecord| {
        holder.unfit.is_none() && !captured.contains_key(&holder.t) && mover.server.is_some()
    };
    let mut moves = BTreeMap::new();
    for record in &records {
        let Some(name) = captured.get(&record.t) else {
            continue;
        };
        if !name.eq_ignore_ascii_case(&record.name) {
            let holder = named(name).filter(|holder| !is_over(holder, record));
            moves.insert(record.t, (name, holder.map(|holder| holder.t)));
        }
    }
    let free = free_to_go(moves.iter().map(|(t, (_, holder))| (*t, *holder)));
    let moves: Vec<_> = free.iter().map(|t| (*t, moves[t].0.as_str())).collect();
    names::rename_tables(conn, &moves)
}

/// Of those that want the place of another, or a free one, those that get it: the other goes too.
fn free_to_go<T: Ord + Copy>(wishes: impl Iterator<Item = (T, Option<T>)>) -> BTreeSet<T> {
    let mut wishes: BTreeMap<T, Option<T>> = wishes.collect();
    loop {
        let stays = |holder: &Option<T>| holder.is_some_and(|holder| !wishes.contains_key(&holder));
        let barred = wishes.iter().find(|(_, holder)| stays(holder));
        let Some(barred) = barred.map(|(mover, _)| *mover) else {
            return wishes.into_keys().collect();
        };
        wishes.remove(&barred);
    }
}

/// A table of the server's name that the app made in place of one with another name: it takes the
/// number over and begins anew, for nobody knows how its rows came about. Not one that was not
/// chosen or cannot sync: a server's name for a table has nobody's rows sent (spec LB7). Returns
/// the numbers.
pub(super) fn replaced_tables(
    conn: &Connection,
    objects: &Objects,
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
            || objects.table(&theirs.name).is_none()
            || !can_sync(conn, &theirs.name)?
        {
            continue;
        }
        names::rename_tables(conn, &[(record.t, &theirs.name)])?;
        anew.push(record.t);
    }
    Ok(anew)
}

/// Gives columns that the app renamed their new names, which others may have had until now.
///
/// `known` are its columns; whether any was renamed.
pub(super) fn renamed_columns(
    conn: &Connection,
    objects: &Objects,
    t: TableNumber,
    table: &Table,
    known: &[ColumnRecord],
) -> Result<bool, ReplicaError> {
    // Who was renamed has the name now, so who had it is gone or has another.
    let renamed: Vec<_> = capture::names_in_triggers(objects, t)
        .into_iter()
        .filter(|(c, name)| {
            let was = known.iter().find(|record| record.c == *c);
            was.is_some_and(|was| !was.name.eq_ignore_ascii_case(name) && !was.is_displaced())
                && table.position(name).is_some()
        })
        .collect();
    // Of two that had it one after the other, nobody knows which was dropped: it is neither then.
    let is_one = |name: &str| {
        let same = renamed.iter().filter(|(_, n)| n.eq_ignore_ascii_case(name));
        same.count() == 1
    };
    let renamed: Vec<_> = renamed
        .iter()
        .filter(|(_, name)| is_one(name))
        .map(|(c, name)| (*c, name.as_str()))
        .collect();
    names::rename_columns(conn, t, &renamed)?;
    Ok(!renamed.is_empty())
}

/// The server's tables that those of the file are: each the one that it was when they were last
/// matched, whatever their names, else the one of its name. A table that has the name of another's
/// and was none of the server's yet takes its place.
pub(super) fn counterparts(
    objects: &Objects,
    records: &[TableRecord],
    schema: &Schema,
) -> BTreeMap<TableNumber, Table> {
    let is_here = |record: &&TableRecord| {
        let is_inbox = record.name.eq_ignore_ascii_case(conflict::TABLE);
        record.unfit.is_none() && (is_inbox || objects.table(&record.name).is_some())
    };
    let here: Vec<_> = records.iter().filter(is_here).collect();
    let was = |record: &TableRecord| schema.by_number(record.server?);
    let strays = here.iter().filter_map(|record| {
        let theirs =
            was(record).filter(|theirs| !theirs.name.eq_ignore_ascii_case(&record.name))?;
        let holder = here
            .iter()
            .find(|other| other.name.eq_ignore_ascii_case(&theirs.name));
        Some((record.t, holder.map(|holder| holder.t)))
    });
    let by_number = free_to_go(strays);
    let counterpart = |record: &TableRecord| {
        let theirs = match by_number.contains(&record.t) {
            true => was(record),
            false => schema.table(&record.name),
        };
        Some((record.t, theirs?.clone()))
    };
    here.iter().copied().filter_map(counterpart).collect()
}

/// The server's columns that those of a table are, by position: each the one that it was when they
/// were last matched, whatever their names, else the one of its name, if that is nobody else's.
/// `remembered`: the server's numbers when they were last matched.
///
/// Unlike a table, a column never takes another's place while that is there: its rows cannot begin
/// anew, so what the server has in the column would be overwritten everywhere.
pub(super) fn columns_there(
    local: &Table,
    server: &Table,
    remembered: &[Option<ColumnNumber>],
) -> Vec<Option<usize>> {
    let was = |position: usize| server.position_of(remembered[position]?);
    let strays = (0..local.columns.len()).filter_map(|position| {
        let theirs = &server.columns[was(position)?].name;
        let is_named_so = local.columns[position].name.eq_ignore_ascii_case(theirs);
        let holder = local
            .position(theirs)
            .filter(|holder| was(*holder).is_some());
        (!is_named_so).then_some((position, holder))
    });
    let by_number = free_to_go(strays);
    let taken: BTreeSet<_> = by_number
        .iter()
        .filter_map(|position| was(*position))
        .collect();
    let there = |(position, column): (usize, &Column)| match by_number.contains(&position) {
        true => was(position),
        false => server
            .position(&column.name)
            .filter(|theirs| !taken.contains(theirs)),
    };
    local.columns.iter().enumerate().map(there).collect()
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

/// Remembers how the columns of a table, `records`, are matched. `server`: the server's number by
/// ours.
pub(super) fn remember(
    conn: &Connection,
    t: TableNumber,
    records: &[ColumnRecord],
    local: &Table,
    theirs: &Table,
    server: impl Fn(usize) -> Option<ColumnNumber>,
) -> Result<Columns, ReplicaError> {
    let mut found = Columns::default();
    let matched: Vec<_> = (0..local.columns.len()).map(&server).collect();
    for record in records {
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
        if next != *record {
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
