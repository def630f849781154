//! What another configuration would do to a data file, found out on a copy of its schema.
//!
//! No row is copied and nothing is locked, so a server may run meanwhile. What depends on rows
//! (NULL in a key, values that a new constraint does not allow) is found at start only.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use syncline_core::{Schema, config::Config};
use syncline_store::{SchemaError, SchemaOptions, StorageError};

use crate::{
    fault::Fault,
    format::{self, FORMAT},
    open::OpenError,
    place::Place,
    reader::SqliteReader,
    schema,
    storage::SharedCatalog,
};

/// What starting a server with a configuration would do to its tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preview {
    /// A sentence for each change, as the server prints them.
    pub notes: Vec<String>,
    /// What would lose data and is not allowed: a sentence, and the name to allow it by. With any
    /// of these the server does not start, and changes nothing.
    pub refused: Vec<(String, String)>,
}

/// Why nobody can say what would happen.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The server would not start, for a reason that no `allow` mends.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

/// Our tables whose rows say what is there.
const OURS: [&str; 3] = ["syncline_server", "syncline_tables", "syncline_columns"];

/// What starting a server with `config` on the data file at `database` would do. A file that is
/// not there is one without tables.
///
/// # Errors
/// [`PreviewError`]; the file is as it was in any case.
pub fn preview(
    database: &Path,
    config: &Config,
    options: &SchemaOptions,
) -> Result<Preview, PreviewError> {
    let mut options = options.clone();
    let mut refused = Vec::new();
    loop {
        let mut copy = copy_of(database)?;
        match schema::apply(&mut copy, config, &options) {
            Ok((_, report)) => {
                let notes = report.notes;
                return Ok(Preview { notes, refused });
            }
            // As if it were allowed, to hear of the others too.
            Err(SchemaError::Destructive { what, allow }) if !options.allow.contains(&allow) => {
                options.allow.push(allow.clone());
                refused.push((what, allow));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// A server's data, to be read whether the server runs or not.
#[derive(Debug)]
pub struct Beside {
    pub reader: SqliteReader,
    /// The declared tables, with their numbers in this data.
    pub schema: Schema,
    /// What starting a server with the configuration would change first: the reader sees tables
    /// as they are, and fails on what is not there.
    pub notes: Vec<String>,
}

/// Opens the data file at `database` for reading, as a server with `config` would see it.
///
/// # Errors
/// [`PreviewError`], also where starting with `config` would lose data; the file is as it was in
/// any case.
pub fn beside(database: &Path, config: &Config) -> Result<Beside, PreviewError> {
    if !database.exists() {
        return Err(PreviewError::Open(OpenError::Io {
            path: database.into(),
            source: std::io::ErrorKind::NotFound.into(),
        }));
    }
    let options = SchemaOptions {
        managed: config.server.managed,
        allow: Vec::new(),
    };
    let mut copy = copy_of(database)?;
    let (catalog, report) = schema::apply(&mut copy, config, &options)?;
    let place = Place::File(database.to_owned());
    let reader = SqliteReader::new(place, SharedCatalog::of(catalog));
    Ok(Beside {
        reader: reader.map_err(|fault| SchemaError::Storage(fault.into()))?,
        schema: report.schema,
        notes: report.notes,
    })
}

/// A database in memory with the schema of the file and what we know of it.
fn copy_of(database: &Path) -> Result<Connection, PreviewError> {
    let mut copy = Connection::open_in_memory().map_err(failed)?;
    if !database.exists() {
        format::create(&mut copy, &[0; 32]).map_err(failed)?;
        return Ok(copy);
    }
    let wrap = |error| format::describe(database, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut source = Connection::open_with_flags(database, flags).map_err(wrap)?;
    source
        .pragma_update(None, "query_only", true)
        .map_err(wrap)?;
    // One state of the file, whoever writes.
    let source = source.transaction().map_err(wrap)?;
    match format::found_format(&source).map_err(wrap)? {
        Some(FORMAT) => {}
        Some(found) => {
            return Err(PreviewError::Open(OpenError::Newer {
                path: database.into(),
                found,
                supported: FORMAT,
            }));
        }
        None => {
            return Err(PreviewError::Open(OpenError::Damaged {
                path: database.into(),
                what: "it holds no data of a Syncline server".into(),
            }));
        }
    }
    copy_schema(&source, &copy, &["table"]).map_err(failed)?;
    for table in OURS {
        copy_rows(&source, &copy, table).map_err(failed)?;
    }
    copy_schema(&source, &copy, &["index", "view", "trigger"]).map_err(failed)?;
    Ok(copy)
}

fn copy_schema(source: &Connection, copy: &Connection, kinds: &[&str]) -> rusqlite::Result<()> {
    for kind in kinds {
        let mut statement = source.prepare(
            "SELECT s.sql, ifnull(l.type, '') FROM sqlite_schema AS s
             LEFT JOIN pragma_table_list AS l ON l.schema = 'main' AND l.name = s.name
             WHERE s.type = ?1 AND s.sql IS NOT NULL
               AND s.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY s.rowid",
        )?;
        let mut rows = statement.query([kind])?;
        while let Some(row) = rows.next()? {
            let (sql, kind): (String, String) = (row.get(0)?, row.get(1)?);
            match kind.as_str() {
                // The virtual table makes it, if this program has its module at all.
                "shadow" => {}
                "virtual" => {
                    let _without = copy.execute_batch(&sql);
                }
                _ => copy.execute_batch(&sql)?,
            }
        }
    }
    Ok(())
}

fn copy_rows(source: &Connection, copy: &Connection, table: &str) -> rusqlite::Result<()> {
    let mut statement = source.prepare(&format!("SELECT * FROM {table}"))?;
    let places = vec!["?"; statement.column_count()].join(", ");
    let mut insert = copy.prepare(&format!("INSERT INTO {table} VALUES ({places})"))?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let values = (0..columns).map(|i| row.get::<_, rusqlite::types::Value>(i));
        let values = values.collect::<rusqlite::Result<Vec<_>>>()?;
        insert.execute(rusqlite::params_from_iter(values))?;
    }
    Ok(())
}

fn failed(error: rusqlite::Error) -> PreviewError {
    PreviewError::Schema(SchemaError::Storage(StorageError::from(Fault::from(error))))
}
