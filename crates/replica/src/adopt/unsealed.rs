//! What was captured of tables that do not sync any more, before anybody noticed that.

use rusqlite::Connection;
use syncline_core::{Table, TableNumber, Timestamp};

use crate::{
    adopt::cascade::Cascades,
    capture,
    db::Doing,
    entropy::Entropy,
    error::ReplicaError,
    introspect::shape::Shape,
    meta::names::{self, TableRecord},
    objects::Objects,
    seal,
    tables::{SyncedTable, Tables, load},
    work::Work,
};

/// Seals everything that was captured, also of tables that are not among `work.tables` any more:
/// renamed, dropped, or not the server's. `schema` is the file's, `old` is what synced until now.
///
/// Marks of a table that begins anew are of the one whose place was taken: where that is still
/// there, they say nothing of the rows under its old name. Those of one that the server replaced
/// are of the columns that it had.
pub(super) fn seal(
    work: &mut Work<'_>,
    schema: &Objects,
    old: &Tables,
    cascades: &mut Cascades,
    entropy: &mut dyn Entropy,
    now: Timestamp,
) -> Result<(), ReplicaError> {
    let mut away = Vec::new();
    let mut moved = Vec::new();
    for t in work.tables.anew.iter().chain(&work.tables.replaced) {
        if capture::captured_table(schema, *t).is_some() {
            moved.push(*t);
        }
    }
    for record in names::tables(work.conn)? {
        if work.table(record.t).is_none() || moved.contains(&record.t) {
            away.extend(captured(work.conn, schema, &record, old)?);
        }
    }
    if away.is_empty() && moved.is_empty() {
        seal::seal_but(work, cascades, entropy, now)?;
        return Ok(());
    }
    let all = work.tables.but(&moved, away);
    let mut wider = Work::new(work.conn, &all);
    seal::seal_but(&mut wider, cascades, entropy, now)?;
    work.take_over(wider);
    Ok(())
}

/// The table as its marks have it, under the name that it has now.
fn captured(
    conn: &Connection,
    schema: &Objects,
    record: &TableRecord,
    old: &Tables,
) -> Result<Option<SyncedTable>, ReplicaError> {
    let Some(columns) = capture::captured_columns(conn, record.t)? else {
        return Ok(None);
    };
    let (mut table, remote) = match old.local(record.t) {
        Some(old) => (old.table.clone(), old.remote.clone()),
        None => match of_the_server(conn, record)? {
            Some(table) => (table, None),
            None => return Ok(None),
        },
    };
    if let Some(name) = capture::captured_table(schema, record.t) {
        table.name = name;
    }
    let shape = Shape::of(conn, schema, &table.name).doing("reading the table's shape")?;
    for column in &mut table.columns {
        let is_away = |shape: &Shape| shape.position(&column.name).is_none();
        column.generated |=
            !columns.contains(&column.number) || shape.as_ref().is_some_and(is_away);
    }
    if table
        .primary_key
        .iter()
        .any(|&p| table.columns[p].generated)
    {
        return Ok(None);
    }
    let mut synced = SyncedTable::new(table, remote, record.seeding);
    synced.is_here = shape.is_some();
    Ok(Some(synced))
}

/// The table of this name as the server told it, with the file's numbers.
fn of_the_server(conn: &Connection, record: &TableRecord) -> Result<Option<Table>, ReplicaError> {
    let schema = load::tables_there(conn)?;
    let Some(mut table) = schema.and_then(|schema| schema.table(&record.name).cloned()) else {
        return Ok(None);
    };
    table.number = TableNumber(record.t.0);
    for column in &mut table.columns {
        column.number = names::column(conn, record.t, &column.name)?;
    }
    Ok(Some(table))
}
