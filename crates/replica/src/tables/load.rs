//! Finding out which tables sync: the file's own, those chosen, those the server knows.

use std::collections::BTreeSet;

use rusqlite::Connection;
use syncline_core::{Table, builtin, sql, wire::SchemaInfo};

use super::{Remote, SyncedTable, Tables};
use crate::{
    conflict,
    db::Doing,
    error::ReplicaError,
    introspect,
    meta::{
        names::{self, TableRecord},
        settings::{self, Key},
    },
};

/// The server's schema as it was last told.
pub(crate) fn schema(conn: &Connection) -> Result<Option<SchemaInfo>, ReplicaError> {
    let Some(bytes) = settings::get::<Vec<u8>>(conn, Key::Schema)? else {
        return Ok(None);
    };
    minicbor::decode(&bytes)
        .map(Some)
        .map_err(|error| ReplicaError::Damaged {
            what: format!("the server's schema: {error}"),
        })
}

pub(crate) fn put_schema(conn: &Connection, schema: &SchemaInfo) -> Result<(), ReplicaError> {
    let bytes = minicbor::to_vec(schema).map_err(|error| ReplicaError::Schema {
        reason: error.to_string(),
    })?;
    settings::put(conn, Key::Schema, bytes)
}

/// Whether every table of the server is wanted, whatever is here.
pub(crate) fn takes_all(conn: &Connection) -> Result<bool, ReplicaError> {
    let chosen: Option<String> = settings::get(conn, Key::Tables)?;
    Ok(chosen.is_none() && creates_missing(conn)?)
}

fn creates_missing(conn: &Connection) -> Result<bool, ReplicaError> {
    Ok(settings::get(conn, Key::CreateMissing)?.unwrap_or(false))
}

/// The tables chosen by name; `None` for all.
pub(crate) fn chosen(conn: &Connection) -> Result<Option<BTreeSet<String>>, ReplicaError> {
    let names: Option<String> = settings::get(conn, Key::Tables)?;
    Ok(names.map(|names| names.lines().map(str::to_lowercase).collect()))
}

/// Looks at the file and at what the server told, numbers what is new, creates what is missing
/// and wanted, and writes down what does not sync. Inside the caller's transaction.
pub(crate) fn build(conn: &Connection) -> Result<Tables, ReplicaError> {
    let schema = schema(conn)?.map(|info| info.to_schema());
    let chosen = chosen(conn)?;
    if creates_missing(conn)?
        && let Some(schema) = &schema
    {
        create_missing(conn, &schema.tables, chosen.as_ref())?;
    }
    discover(conn, chosen.as_ref())?;
    let mut synced = Vec::new();
    let mut left_out = Vec::new();
    for record in names::tables(conn)? {
        let outcome = match &record.unfit {
            Some(reason) => Err(reason.clone()),
            None => match local(conn, &record)? {
                Some(table) => matched(table, schema.as_ref()),
                None => Err("the app dropped or renamed it".to_owned()),
            },
        };
        match outcome {
            Ok((table, remote)) => {
                names::set_left_out(conn, record.t, None)?;
                synced.push(SyncedTable::new(table, remote, record.seeding));
            }
            Err(reason) => {
                names::set_left_out(conn, record.t, Some(&reason))?;
                left_out.push((record.name, reason));
            }
        }
    }
    Ok(Tables::new(synced, left_out))
}

/// The file's structure with the file's numbers.
fn local(conn: &Connection, record: &TableRecord) -> Result<Option<Table>, ReplicaError> {
    let found = if record.name.eq_ignore_ascii_case(conflict::TABLE) {
        Some(builtin::conflicts_table())
    } else {
        introspect::read_table(conn, &record.name)?
    };
    let Some(mut table) = found else {
        return Ok(None);
    };
    table.number = record.t;
    for column in &mut table.columns {
        column.number = names::column(conn, record.t, &column.name)?;
    }
    Ok(Some(table))
}

fn matched(
    table: Table,
    schema: Option<&syncline_core::Schema>,
) -> Result<(Table, Option<Remote>), String> {
    let Some(schema) = schema else {
        return Ok((table, None));
    };
    let Some(theirs) = schema.table(&table.name) else {
        return Err("the server has no table of this name".to_owned());
    };
    let (table, remote) = Remote::matched(table, theirs.clone())?;
    Ok((table, Some(remote)))
}

/// Numbers the tables that are new in the file.
fn discover(conn: &Connection, chosen: Option<&BTreeSet<String>>) -> Result<(), ReplicaError> {
    let known: BTreeSet<String> = names::tables(conn)?
        .into_iter()
        .map(|record| record.name.to_lowercase())
        .collect();
    let is_new = |name: &str| {
        let name = name.to_lowercase();
        !known.contains(&name) && chosen.is_none_or(|chosen| chosen.contains(&name))
    };
    if !listed(conn)?.iter().any(|name| is_new(name)) {
        return Ok(());
    }
    let seeding = settings::get(conn, Key::Seeding)?.unwrap_or(true);
    let found = introspect::introspect(conn)?;
    for local in found
        .tables
        .iter()
        .filter(|local| is_new(&local.table.name))
    {
        names::table(conn, &local.table.name, seeding)?;
    }
    for problem in found
        .problems
        .iter()
        .filter(|problem| is_new(&problem.table))
    {
        let t = names::table(conn, &problem.table, seeding)?;
        names::set_unfit(conn, t, &problem.to_string())?;
    }
    for name in found.left_out.iter().filter(|name| is_new(name)) {
        let t = names::table(conn, name, false)?;
        names::set_unfit(conn, t, "it belongs to a tool")?;
    }
    Ok(())
}

/// Every table of the file that may be the app's.
fn listed(conn: &Connection) -> Result<Vec<String>, ReplicaError> {
    const DOING: &str = "listing the tables";
    let mut statement = conn
        .prepare_cached(
            "SELECT name FROM sqlite_master WHERE type = 'table'
             AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
             AND name NOT LIKE 'syncline\\_%' ESCAPE '\\'",
        )
        .doing(DOING)?;
    let names = statement.query_map([], |row| row.get(0));
    names.and_then(Iterator::collect).doing(DOING)
}

fn create_missing(
    conn: &Connection,
    tables: &[Table],
    chosen: Option<&BTreeSet<String>>,
) -> Result<(), ReplicaError> {
    let here: BTreeSet<String> = listed(conn)?
        .into_iter()
        .map(|name| name.to_lowercase())
        .collect();
    for table in tables {
        let name = table.name.to_lowercase();
        let is_wanted = chosen.is_none_or(|chosen| chosen.contains(&name));
        if name == conflict::TABLE || here.contains(&name) || !is_wanted {
            continue;
        }
        for text in [sql::create_table(table)]
            .into_iter()
            .chain(sql::create_indexes(table))
        {
            conn.execute_batch(&text)
                .doing("creating a table of the server")?;
        }
        names::table(conn, &table.name, false)?;
    }
    Ok(())
}

/// Creates the inbox of conflicts and numbers it.
pub(crate) fn create_inbox(conn: &Connection) -> Result<(), ReplicaError> {
    conn.execute_batch(&sql::create_table(&builtin::conflicts_table()))
        .doing("creating the inbox of conflicts")?;
    names::table(conn, conflict::TABLE, false)?;
    Ok(())
}
