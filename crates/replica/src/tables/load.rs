//! Finding out which tables sync: the file's own, those chosen, those the server knows.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, ErrorCode};
use syncline_core::{Schema, Table, builtin, sql, wire::SchemaInfo};

use super::{Remote, SyncedTable, Tables, follow};
use crate::{
    conflict,
    db::Doing,
    error::ReplicaError,
    introspect,
    meta::{
        names::{self, ColumnRecord, TableRecord},
        settings::{self, Key},
    },
    objects::Objects,
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

/// The server's tables, but those with names that are SQLite's or this library's own: what a
/// server says is not to reach what is kept under them.
pub(crate) fn tables_there(conn: &Connection) -> Result<Option<Schema>, ReplicaError> {
    let mut found = schema(conn)?.map(|info| info.to_schema());
    if let Some(schema) = &mut found {
        schema.tables.retain(|table| {
            let name = table.name.to_ascii_lowercase();
            name == conflict::TABLE
                || !(name.starts_with("syncline_") || name.starts_with("sqlite_"))
        });
    }
    Ok(found)
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
    build_from(conn, &mut read_objects(conn)?)
}

pub(crate) fn read_objects(conn: &Connection) -> Result<Objects, ReplicaError> {
    Objects::read(conn).doing("reading the schema")
}

/// The same from `objects`, which are the file's, and become what they are after it.
pub(crate) fn build_from(conn: &Connection, objects: &mut Objects) -> Result<Tables, ReplicaError> {
    let schema = tables_there(conn)?;
    let chosen = chosen(conn)?;
    follow::renamed_tables(conn, objects)?;
    let anew = match &schema {
        Some(schema) => follow::replaced_tables(conn, objects, schema, chosen.as_ref())?,
        None => Vec::new(),
    };
    let mut failed = match &schema {
        Some(schema) if creates_missing(conn)? => {
            let (failed, any) = create_missing(conn, objects, &schema.tables, chosen.as_ref())?;
            if any {
                *objects = read_objects(conn)?;
            }
            failed
        }
        Some(_) | None => Failed::new(),
    };
    let objects = &*objects;
    discover(conn, objects, chosen.as_ref())?;
    let mut synced = Vec::new();
    let mut left_out = Vec::new();
    let records = names::tables(conn)?;
    let counterparts = |schema| follow::counterparts(objects, &records, schema);
    let mut theirs = schema.as_ref().map(counterparts);
    let mut replaced = Vec::new();
    for mut record in records {
        let is_replaced = |table: &Table| record.server.is_some_and(|was| was != table.number);
        let there = theirs.as_ref().and_then(|theirs| theirs.get(&record.t));
        let is_replaced = there.is_some_and(is_replaced);
        if anew.contains(&record.t) {
            record.seeding = settings::get(conn, Key::Seeding)?.unwrap_or(true);
        }
        let outcome = match &record.unfit {
            Some(reason) => Err(reason.clone()),
            None => match local(conn, objects, &record)? {
                Some(Err(reason)) => Err(reason),
                Some(Ok((table, columns))) => match &mut theirs {
                    Some(theirs) => {
                        matched(conn, &record, table, &columns, theirs.remove(&record.t))?
                    }
                    None => Ok(SyncedTable::new(table, None, record.seeding)),
                },
                None => Err(match failed.remove(&record.name.to_lowercase()) {
                    Some((_, reason)) => reason,
                    None => "the app dropped or renamed it".to_owned(),
                }),
            },
        };
        match outcome {
            Ok(table) => {
                if is_replaced {
                    replaced.push(record.t);
                }
                leave_out(conn, &record, None)?;
                let text = objects.table(&record.name).and_then(|t| t.sql.as_deref());
                synced.push(table.with_text(text.unwrap_or_default()));
            }
            Err(reason) => {
                leave_out(conn, &record, Some(&reason))?;
                left_out.push((record.name, reason));
            }
        }
    }
    left_out.extend(failed.into_values());
    Ok(Tables::new(synced, left_out, anew, replaced))
}

/// Writes why a table does not sync, or that it does, where that is new.
fn leave_out(
    conn: &Connection,
    record: &TableRecord,
    reason: Option<&str>,
) -> Result<(), ReplicaError> {
    match record.left_out.as_deref() == reason {
        true => Ok(()),
        false => names::set_left_out(conn, record.t, reason),
    }
}

/// A table of the file with the file's numbers, and what is known of its columns; or why it
/// cannot sync.
type Local = Result<(Table, Vec<ColumnRecord>), String>;

fn local(
    conn: &Connection,
    objects: &Objects,
    record: &TableRecord,
) -> Result<Option<Local>, ReplicaError> {
    let found = if record.name.eq_ignore_ascii_case(conflict::TABLE) {
        Some(Ok(builtin::conflicts_table()))
    } else {
        introspect::read_synced(conn, objects, &record.name)?
    };
    let mut table = match found {
        Some(Ok(table)) => table,
        Some(Err(reason)) => return Ok(Some(Err(reason.to_string()))),
        None => return Ok(None),
    };
    table.number = record.t;
    let mut known = names::columns(conn, record.t)?;
    if follow::renamed_columns(conn, objects, record.t, &table, &known)? {
        known = names::columns(conn, record.t)?;
    }
    let mut any_is_new = false;
    for column in &mut table.columns {
        let is_it = |known: &&ColumnRecord| known.name.eq_ignore_ascii_case(&column.name);
        let found = known.iter().find(is_it).map(|known| known.c);
        any_is_new |= found.is_none();
        column.number = match found {
            Some(c) => c,
            None => names::column(conn, record.t, &column.name)?,
        };
    }
    if any_is_new {
        known = names::columns(conn, record.t)?;
    }
    Ok(Some(Ok((table, known))))
}

/// The table with what the server has of it, or why it does not sync.
fn matched(
    conn: &Connection,
    record: &TableRecord,
    table: Table,
    columns: &[ColumnRecord],
    theirs: Option<Table>,
) -> Result<Result<SyncedTable, String>, ReplicaError> {
    let Some(theirs) = theirs else {
        return Ok(Err("the server has no table of this name".to_owned()));
    };
    let remembered: Vec<_> = table
        .columns
        .iter()
        .map(|column| columns.iter().find(|r| r.c == column.number)?.server)
        .collect();
    let (table, remote) = match Remote::matched(table, theirs, &remembered) {
        Ok(matched) => matched,
        Err(reason) => return Ok(Err(reason)),
    };
    if record.server != Some(remote.table.number) {
        names::set_table_server(conn, record.t, Some(remote.table.number))?;
    }
    let number = |position| remote.number_of(position);
    let became = follow::remember(conn, record.t, columns, &table, &remote.table, number)?;
    Ok(Ok(SyncedTable {
        lost: became.lost,
        shrunk: became.lost || became.dropped_there,
        gone: became.gone,
        ..SyncedTable::new(table, Some(remote), record.seeding)
    }))
}

/// Numbers the tables that are new in the file.
fn discover(
    conn: &Connection,
    objects: &Objects,
    chosen: Option<&BTreeSet<String>>,
) -> Result<(), ReplicaError> {
    let known: BTreeSet<String> = names::tables(conn)?
        .into_iter()
        .map(|record| record.name.to_lowercase())
        .collect();
    let is_new = |name: &str| {
        let name = name.to_lowercase();
        !known.contains(&name) && chosen.is_none_or(|chosen| chosen.contains(&name))
    };
    if !objects.tables_of_app().any(is_new) {
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

/// By their names in lower case: tables that could not be created, and why.
type Failed = BTreeMap<String, (String, String)>;

/// Creates what the server has and the file has not; what could not be created, and whether
/// anything was.
fn create_missing(
    conn: &Connection,
    objects: &Objects,
    tables: &[Table],
    chosen: Option<&BTreeSet<String>>,
) -> Result<(Failed, bool), ReplicaError> {
    let (mut failed, mut any) = (Failed::new(), false);
    let here: BTreeSet<String> = objects.tables_of_app().map(str::to_lowercase).collect();
    let known = names::tables(conn)?;
    for table in tables {
        let name = table.name.to_lowercase();
        let is_wanted = chosen.is_none_or(|chosen| chosen.contains(&name));
        let is_renamed = |record: &TableRecord| {
            record.server == Some(table.number) && here.contains(&record.name.to_lowercase())
        };
        if name == conflict::TABLE
            || here.contains(&name)
            || !is_wanted
            || known.iter().any(is_renamed)
        {
            continue;
        }
        match create(conn, table)? {
            None => {
                names::table(conn, &table.name, false)?;
                any = true;
            }
            Some(reason) => drop(failed.insert(name, (table.name.clone(), reason))),
        }
    }
    Ok((failed, any))
}

/// Creates the table; where something of it is not known to this SQLite, without what is computed
/// or checked here, and if need be as plain as it can be: the rows are the same, and the server has
/// judged them. Why it cannot be made, if it cannot.
fn create(conn: &Connection, table: &Table) -> Result<Option<String>, ReplicaError> {
    const DOING: &str = "creating a table of the server";
    let mut table = table.clone().opened();
    let mut made = conn.execute_batch(&sql::create_table(&table));
    for simplify in [without_expressions, plain] {
        if made.as_ref().is_err_and(is_refused) {
            simplify(&mut table);
            made = conn.execute_batch(&sql::create_table(&table));
        }
    }
    match made {
        Ok(()) => {}
        Err(error) if is_refused(&error) => {
            return Ok(Some(format!("this file cannot have it: {error}")));
        }
        Err(error) => return Err(error).doing(DOING),
    }
    let missing = |name: &str| {
        let position = table.position(name);
        position.is_some_and(|position| !sql::is_made(&table, &[position]))
    };
    // SQLite takes the quoted name of a column that is not there for a text.
    let mut further = table.further_indexes.clone();
    further.retain(|index| {
        let texts = index.condition.iter().chain([&index.terms]);
        let mut tokens = texts.flat_map(|text| sql::tokens(text));
        !tokens.any(|token| missing(&token.name()))
    });
    table.further_indexes = further;
    for text in sql::create_indexes(&table) {
        match conn.execute_batch(&text) {
            Ok(()) => {}
            // An expression or a collation that this SQLite does not know.
            Err(error) if is_refused(&error) => {}
            Err(error) => return Err(error).doing(DOING),
        }
    }
    Ok(None)
}

/// Whether SQLite does not take the statement, as opposed to a failing disk or a locked file.
fn is_refused(error: &rusqlite::Error) -> bool {
    // Where SQLite says at what place of the text it is, there is no code beside it.
    matches!(error, rusqlite::Error::SqlInputError { .. })
        || error.sqlite_error_code() == Some(ErrorCode::Unknown)
}

fn without_expressions(table: &mut Table) {
    table.checks.clear();
    for column in &mut table.columns {
        column.computed = None;
        column.check = None;
    }
}

fn plain(table: &mut Table) {
    table.foreign_keys.clear();
    for column in &mut table.columns {
        column.collate = None;
        column.default = None;
        column.declared = None;
    }
}

/// Creates the inbox of conflicts and numbers it.
pub(crate) fn create_inbox(conn: &Connection) -> Result<(), ReplicaError> {
    conn.execute_batch(&sql::create_table(&builtin::conflicts_table()))
        .doing("creating the inbox of conflicts")?;
    names::table(conn, conflict::TABLE, false)?;
    Ok(())
}
