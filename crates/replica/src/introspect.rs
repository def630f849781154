//! Reads an app's tables from its database.

mod problem;
mod rows;
pub(crate) mod shape;
mod tools;

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, config::DbConfig};
use syncline_core::{
    Column, ColumnNumber, MergeStrategy, Table, TableNumber,
    builtin::FIRST_OWN,
    schema::{ForeignKey, OnDelete, RuleTexts, SyncMode},
    sql::{Token, column_type, default_text, tokens, unusual_type},
};

use crate::objects::Objects;
pub use problem::{AttachProblem, ProblemReason};
use shape::{Shape, ShapeIndex, TermOf};
pub(crate) use tools::is_bookkeeping;

/// The tables of a database, as far as they are the app's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Introspection {
    /// In the order they were created.
    pub tables: Vec<LocalTable>,
    /// What cannot sync, with the reason. A table is either here or in `tables`.
    pub problems: Vec<AttachProblem>,
    /// Tables left out because they belong to a tool or to a virtual table.
    pub left_out: Vec<String>,
}

/// One table that can sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalTable {
    /// Numbers are provisional: the position in the database. The server gives the real ones.
    pub table: Table,
    /// The app's own triggers on it, in no particular order.
    pub triggers: Vec<AppTrigger>,
    /// What is easily overlooked: partial indexes, indexes over expressions, CHECKs of the table
    /// as a whole. For people; capture knows them.
    pub notes: Vec<String>,
}

/// A trigger that the app made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppTrigger {
    pub name: String,
    /// The whole CREATE TRIGGER statement.
    pub sql: String,
}

/// Why the tables could not be read.
#[derive(Debug, thiserror::Error)]
#[error("read the tables of the database")]
pub struct IntrospectError(#[from] pub(crate) rusqlite::Error);

/// Reads all tables of the database `main` and looks at their keys.
///
/// Left out: tables of SQLite (`sqlite_…`), of Syncline (`syncline_…`) and of migration tools,
/// virtual tables' own storage, views.
///
/// # Errors
/// The database's.
pub fn introspect(conn: &Connection) -> Result<Introspection, IntrospectError> {
    let mut found = Introspection::default();
    let listed = listed(conn)?;
    let schema = Objects::read(conn)?;
    let storage_of = foreign_storage(conn, &listed)?;
    for (name, kind) in &listed {
        match kind.as_str() {
            "virtual" => found.problems.push(AttachProblem {
                table: name.clone(),
                reason: ProblemReason::Virtual,
            }),
            "shadow" => found.left_out.push(name.clone()),
            "table" if is_bookkeeping(name) || storage_of(name) => {
                found.left_out.push(name.clone());
            }
            "table" => {
                let Some(shape) = Shape::of(conn, &schema, name)? else {
                    continue;
                };
                let reasons = problems(conn, &shape)?;
                if reasons.is_empty() {
                    let position = found.tables.len();
                    found.tables.push(local_table(&schema, &shape, position));
                }
                let table = |reason| AttachProblem {
                    table: name.clone(),
                    reason,
                };
                found.problems.extend(reasons.into_iter().map(table));
            }
            _ => {}
        }
    }
    Ok(found)
}

/// The table called `name` without a look at its rows; `None` if there is none or it has no
/// primary key. Numbers are provisional, as [`LocalTable::table`] says.
///
/// # Errors
/// The database's.
pub fn read_table(
    conn: &Connection,
    schema: &Objects,
    name: &str,
) -> Result<Option<Table>, IntrospectError> {
    let shape = Shape::of(conn, schema, name)?.filter(|shape| !shape.primary_key.is_empty());
    Ok(shape.map(|shape| core_table(&shape, 0)))
}

/// The same for a table that syncs, or why it cannot any more: what compares or computes by
/// something that only the app's own program has may be added to it at any time.
pub(crate) fn read_synced(
    conn: &Connection,
    schema: &Objects,
    name: &str,
) -> Result<Option<Result<Table, ProblemReason>>, IntrospectError> {
    let Some(shape) = Shape::of(conn, schema, name)? else {
        return Ok(None);
    };
    if shape.primary_key.is_empty() {
        return Ok(None);
    }
    let mut foreign = shape.indexes.iter().filter_map(foreign_collation).next();
    if foreign.is_none() && shape.computes() {
        foreign = foreign_function(conn, &shape)?;
    }
    Ok(Some(match foreign {
        Some(reason) => Err(reason),
        None => Ok(core_table(&shape, 0)),
    }))
}

/// Name and type of every table, in order of creation.
fn listed(conn: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    let mut statement = conn.prepare(
        "SELECT s.name, l.type FROM sqlite_schema AS s \
         JOIN pragma_table_list AS l ON l.schema = 'main' AND l.name = s.name \
         WHERE s.type = 'table' AND s.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
         AND s.name NOT LIKE 'syncline\\_%' ESCAPE '\\' ORDER BY s.rowid",
    )?;
    statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// Something in a file that is not attached, with a name that Syncline keeps for itself, and what
/// to do about it: detaching would take what is the app's for ours.
///
/// # Errors
/// The database's.
pub fn reserved_name(conn: &Connection) -> Result<Option<(String, &'static str)>, IntrospectError> {
    // The client library keeps what is its own in a file before it is attached, too.
    let sql = "SELECT name FROM sqlite_schema WHERE name LIKE 'syncline\\_%' ESCAPE '\\' \
               AND tbl_name NOT IN ('syncline_syncs', 'syncline_operations') \
               ORDER BY rowid LIMIT 1";
    let found = conn.query_row(sql, [], |row| row.get(0)).optional()?;
    let advice = match found.is_some() && has_our_triggers(conn)? {
        true => LEFT,
        false => RESERVED,
    };
    Ok(found.map(|name| (name, advice)))
}

/// Whether triggers write the tables of captured writes: nothing of an app's does.
pub(crate) fn has_our_triggers(conn: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'trigger' \
               AND name LIKE 'syncline\\_%' ESCAPE '\\' \
               AND sql LIKE '%INSERT INTO syncline\\_mark\\_%' ESCAPE '\\'";
    conn.prepare(sql)?.exists([])
}

const RESERVED: &str =
    "its name begins with syncline_, which is reserved; rename it and attach again";
const LEFT: &str = "it is left of an attachment whose metadata is gone; take it out with \
                    `syncline detach`, which leaves the rows as they are, and attach again";

/// Says of a name whether it is storage of a virtual table whose module this library lacks:
/// SQLite knows storage tables only with the module.
fn foreign_storage(
    conn: &Connection,
    listed: &[(String, String)],
) -> rusqlite::Result<impl Fn(&str) -> bool + use<>> {
    let mut modules = conn.prepare("SELECT name FROM pragma_module_list")?;
    let modules: Vec<String> = modules
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut prefixes = Vec::new();
    for (name, _) in listed.iter().filter(|(_, kind)| kind == "virtual") {
        let sql: String = conn.query_row(
            "SELECT sql FROM sqlite_schema WHERE name = ?1",
            [name],
            |r| r.get(0),
        )?;
        let all = tokens(&sql);
        let using = all.iter().position(|t| t.is_word("USING"));
        let module = using.and_then(|i| all.get(i + 1)).map(Token::name);
        if !module.is_some_and(|m| modules.iter().any(|known| known.eq_ignore_ascii_case(&m))) {
            prefixes.push(format!("{}_", name.to_ascii_lowercase()));
        }
    }
    Ok(move |name: &str| {
        let name = name.to_ascii_lowercase();
        prefixes.iter().any(|prefix| name.starts_with(prefix))
    })
}

fn problems(conn: &Connection, shape: &Shape) -> rusqlite::Result<Vec<ProblemReason>> {
    if shape.primary_key.is_empty() {
        return Ok(vec![ProblemReason::NoPrimaryKey]);
    }
    if shape.columns.len() > problem::COLUMNS_MAX {
        return Ok(vec![ProblemReason::TooManyColumns {
            columns: shape.columns.len(),
        }]);
    }
    let columns = shape.columns.iter().map(|column| &column.name);
    if columns
        .chain([&shape.name])
        .any(|name| name.trim().is_empty())
    {
        return Ok(vec![ProblemReason::NoName]);
    }
    let foreign: Vec<_> = shape.indexes.iter().filter_map(foreign_collation).collect();
    // Without the collation the rows cannot be looked up either.
    if !foreign.is_empty() {
        return Ok(foreign);
    }
    match foreign_function(conn, shape)? {
        Some(reason) => Ok(vec![reason]),
        None => rows::key_problems(conn, shape),
    }
}

/// What is missing to write a row of the table, other than in the app's triggers: those are off
/// while the engine writes.
fn foreign_function(conn: &Connection, shape: &Shape) -> rusqlite::Result<Option<ProblemReason>> {
    let were_on = conn.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    let table = crate::sql::quoted(&shape.name);
    // Compiled, never run.
    let compiled = conn
        .prepare(&format!("INSERT INTO {table} DEFAULT VALUES"))
        .map(drop);
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, were_on)?;
    let message = match compiled {
        Err(rusqlite::Error::SqliteFailure(_, Some(message))) => message,
        Err(rusqlite::Error::SqlInputError { msg, .. }) => msg,
        Ok(()) | Err(_) => return Ok(None),
    };
    let is_missing = ["function", "collation"]
        .iter()
        .any(|what| message.contains(what));
    Ok(is_missing.then_some(ProblemReason::ForeignFunction { message }))
}

fn foreign_collation(index: &ShapeIndex) -> Option<ProblemReason> {
    let known = |c: &str| {
        ["BINARY", "NOCASE", "RTRIM"]
            .iter()
            .any(|k| k.eq_ignore_ascii_case(c))
    };
    let term = index.terms.iter().find(|term| !known(&term.collation))?;
    Some(ProblemReason::ForeignCollation {
        index: index.name.clone(),
        collation: term.collation.clone(),
    })
}

fn local_table(schema: &Objects, shape: &Shape, position: usize) -> LocalTable {
    let triggers = schema.triggers_of_app(&shape.name).into_iter();
    let trigger = |(name, sql): (&str, &str)| AppTrigger {
        name: name.to_owned(),
        sql: sql.to_owned(),
    };
    LocalTable {
        table: core_table(shape, position),
        triggers: triggers.map(trigger).collect(),
        notes: notes(shape),
    }
}

fn notes(shape: &Shape) -> Vec<String> {
    let mut notes = Vec::new();
    for index in &shape.indexes {
        let unique = if index.unique {
            "unique index"
        } else {
            "index"
        };
        if index.predicate.is_some() {
            notes.push(format!("{unique} {} covers only some rows", index.name));
        }
        if index
            .terms
            .iter()
            .any(|term| matches!(term.of, TermOf::Expression(_)))
        {
            notes.push(format!("{unique} {} is over an expression", index.name));
        }
    }
    notes.extend(
        shape
            .checks
            .iter()
            .map(|check| format!("the table as a whole has CHECK ({check})")),
    );
    notes
}

fn core_table(shape: &Shape, position: usize) -> Table {
    let number = |first: u32, i: usize| first.saturating_add(u32::try_from(i).unwrap_or(u32::MAX));
    let column = |(i, c): (usize, &shape::ShapeColumn)| Column {
        name: c.name.clone(),
        number: ColumnNumber(number(1, i)),
        ty: column_type(&c.declared),
        not_null: c.not_null,
        default: c.default.as_deref().map(default_text),
        check: c.check.clone(),
        collate: c
            .collate
            .clone()
            .filter(|c| !c.eq_ignore_ascii_case("BINARY")),
        generated: c.generated,
        computed: c.computed.clone().filter(|_| c.generated),
        declared: unusual_type(&c.declared, column_type(&c.declared), shape.strict),
        merge: MergeStrategy::default(),
        encrypted: None,
        merge_paths: BTreeMap::new(),
    };
    let plain = |unique: bool| {
        let wanted = move |index: &&ShapeIndex| {
            index.unique == unique && !index.is_primary_key && shape.further(index).is_none()
        };
        shape
            .indexes
            .iter()
            .filter(wanted)
            .filter_map(ShapeIndex::plain_columns)
            .collect()
    };
    let mut further: Vec<_> = shape
        .indexes
        .iter()
        .filter(|index| !index.is_primary_key)
        .filter_map(|index| shape.further(index))
        .collect();
    further.sort_by_key(|index| !index.unique);
    Table {
        name: shape.name.clone(),
        number: TableNumber(number(FIRST_OWN.0, position)),
        columns: shape.columns.iter().enumerate().map(column).collect(),
        primary_key: shape.primary_key.clone(),
        uniques: plain(true),
        indexes: plain(false),
        further_indexes: further,
        checks: shape.checks.clone(),
        foreign_keys: shape.foreign_keys.iter().map(foreign_key).collect(),
        without_rowid: shape.without_rowid,
        strict: shape.strict,
        autoincrement: shape.autoincrement,
        sync: SyncMode::default(),
        update_wins: false,
        rules: RuleTexts::default(),
        force: BTreeMap::new(),
    }
}

fn foreign_key(key: &shape::ShapeForeignKey) -> ForeignKey {
    ForeignKey {
        columns: key.columns.clone(),
        parent: key.parent.clone(),
        parent_columns: key.parent_columns.clone(),
        on_delete: match key.on_delete.to_ascii_uppercase().as_str() {
            "RESTRICT" => OnDelete::Restrict,
            "CASCADE" => OnDelete::Cascade,
            "SET NULL" => OnDelete::SetNull,
            "SET DEFAULT" => OnDelete::SetDefault,
            _ => OnDelete::NoAction,
        },
    }
}
