//! The numbers this file gives to tables, columns and users.

use std::collections::{BTreeMap, btree_map};

use rusqlite::{Connection, OptionalExtension};
use syncline_core::{ColumnNumber, RowKey, TableNumber};

use super::ledger::{User, row_key};
use crate::{db::Doing, error::ReplicaError};

/// First number given to a table of this file: none of a server's own tables is mistaken for it.
const FIRST_TABLE: i64 = 1_000;

/// What is kept of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableRecord {
    pub(crate) t: TableNumber,
    pub(crate) name: String,
    /// Every granted bucket of it was live at some checkpoint.
    pub(crate) loaded: bool,
    /// How many of its rows the server gave.
    pub(crate) rows: u64,
    /// Rows that were there before are still to be sent.
    pub(crate) seeding: bool,
    pub(crate) seed_after: Option<RowKey>,
    /// Why it can never sync as it is.
    pub(crate) unfit: Option<String>,
    /// Why it does not sync at the moment.
    pub(crate) left_out: Option<String>,
    /// The server's number of it, while the server has it.
    pub(crate) server: Option<TableNumber>,
}

/// What is kept of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ColumnRecord {
    pub(crate) c: ColumnNumber,
    pub(crate) name: String,
    /// The server's number of it, while the server has it.
    pub(crate) server: Option<ColumnNumber>,
    /// The file does not have it any more, and what the server has of it is kept aside.
    pub(crate) gone: bool,
}

impl ColumnRecord {
    /// Another column has its name now ([`rename_columns`]).
    pub(crate) fn is_displaced(&self) -> bool {
        self.name.ends_with(&format!(" (gone, {})", self.c.0))
    }
}

const READING: &str = "reading the synced tables";
const WRITING: &str = "writing the synced tables";

/// All tables that ever got a number, in its order.
pub(crate) fn tables(conn: &Connection) -> Result<Vec<TableRecord>, ReplicaError> {
    let mut statement = conn
        .prepare_cached(
            "SELECT t, name, loaded, seeding, seed_after, left_out, unfit, rows, server
             FROM syncline_tables ORDER BY t",
        )
        .doing(READING)?;
    let mut rows = statement.query([]).doing(READING)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().doing(READING)? {
        let stored = row.get_ref(4).doing(READING)?;
        let seed_after = match stored.data_type() {
            rusqlite::types::Type::Null => None,
            rusqlite::types::Type::Blob
            | rusqlite::types::Type::Integer
            | rusqlite::types::Type::Real
            | rusqlite::types::Type::Text => Some(row_key(stored)?),
        };
        found.push(TableRecord {
            t: TableNumber(row.get(0).doing(READING)?),
            name: row.get(1).doing(READING)?,
            loaded: row.get(2).doing(READING)?,
            seeding: row.get(3).doing(READING)?,
            seed_after,
            left_out: row.get(5).doing(READING)?,
            unfit: row.get(6).doing(READING)?,
            rows: row.get::<_, i64>(7).doing(READING)?.max(0).cast_unsigned(),
            server: row
                .get::<_, Option<u32>>(8)
                .doing(READING)?
                .map(TableNumber),
        });
    }
    Ok(found)
}

/// The table's number, given now if it has none; a new one is seeded if `seeding`.
pub(crate) fn table(
    conn: &Connection,
    name: &str,
    seeding: bool,
) -> Result<TableNumber, ReplicaError> {
    let found: Option<u32> = conn
        .prepare_cached("SELECT t FROM syncline_tables WHERE name = ?1")
        .and_then(|mut s| s.query_row([name], |row| row.get(0)).optional())
        .doing(READING)?;
    if let Some(t) = found {
        return Ok(TableNumber(t));
    }
    let t = conn
        .prepare_cached(
            "INSERT INTO syncline_tables(t, name, seeding)
             VALUES((SELECT ifnull(max(t), ?2 - 1) + 1 FROM syncline_tables), ?1, ?3) ",
        )
        .and_then(|mut s| s.insert((name, FIRST_TABLE, seeding)))
        .doing(WRITING)?;
    u32::try_from(t)
        .map(TableNumber)
        .map_err(|_| ReplicaError::Damaged {
            what: format!("table number {t}"),
        })
}

/// The column's number, given now if it has none.
pub(crate) fn column(
    conn: &Connection,
    t: TableNumber,
    name: &str,
) -> Result<ColumnNumber, ReplicaError> {
    let found: Option<u32> = conn
        .prepare_cached("SELECT c FROM syncline_columns WHERE t = ?1 AND name = ?2")
        .and_then(|mut s| s.query_row((t.0, name), |row| row.get(0)).optional())
        .doing(READING)?;
    if let Some(c) = found {
        return Ok(ColumnNumber(c));
    }
    conn.prepare_cached(
        "INSERT INTO syncline_columns(t, c, name)
         VALUES(?1, (SELECT ifnull(max(c), 0) + 1 FROM syncline_columns WHERE t = ?1), ?2)",
    )
    .and_then(|mut s| s.execute((t.0, name)))
    .doing(WRITING)?;
    column(conn, t, name)
}

/// The table's name, also of one that does not sync any more.
pub(crate) fn table_name(
    conn: &Connection,
    t: TableNumber,
) -> Result<Option<String>, ReplicaError> {
    conn.prepare_cached("SELECT name FROM syncline_tables WHERE t = ?1")
        .and_then(|mut s| s.query_row([t.0], |row| row.get(0)).optional())
        .doing(READING)
}

/// Names for a list, in which the same ones come again and again: those of a table are read once.
#[derive(Debug)]
pub(crate) struct Names<'a> {
    conn: &'a Connection,
    tables: BTreeMap<TableNumber, Known>,
}

/// The names of one table, also of what is not there any more.
#[derive(Debug)]
struct Known {
    name: Option<String>,
    columns: BTreeMap<ColumnNumber, String>,
}

impl<'a> Names<'a> {
    pub(crate) fn new(conn: &'a Connection) -> Self {
        Self {
            conn,
            tables: BTreeMap::new(),
        }
    }

    pub(crate) fn table(&mut self, t: TableNumber) -> Result<Option<&str>, ReplicaError> {
        Ok(self.known(t)?.name.as_deref())
    }

    pub(crate) fn column(
        &mut self,
        t: TableNumber,
        c: ColumnNumber,
    ) -> Result<Option<&str>, ReplicaError> {
        Ok(self.known(t)?.columns.get(&c).map(String::as_str))
    }

    fn known(&mut self, t: TableNumber) -> Result<&Known, ReplicaError> {
        let place = match self.tables.entry(t) {
            btree_map::Entry::Occupied(known) => return Ok(known.into_mut()),
            btree_map::Entry::Vacant(place) => place,
        };
        let columns = columns(self.conn, t)?.into_iter();
        Ok(place.insert(Known {
            name: table_name(self.conn, t)?,
            columns: columns.map(|column| (column.c, column.name)).collect(),
        }))
    }
}

/// All columns of a table that ever got a number, in its order.
pub(crate) fn columns(
    conn: &Connection,
    t: TableNumber,
) -> Result<Vec<ColumnRecord>, ReplicaError> {
    let mut statement = conn
        .prepare_cached(
            "SELECT c, name, server, gone FROM syncline_columns WHERE t = ?1 ORDER BY c",
        )
        .doing(READING)?;
    let rows = statement.query_map([t.0], |row| {
        Ok(ColumnRecord {
            c: ColumnNumber(row.get(0)?),
            name: row.get(1)?,
            server: row.get::<_, Option<u32>>(2)?.map(ColumnNumber),
            gone: row.get(3)?,
        })
    });
    rows.and_then(Iterator::collect).doing(READING)
}

/// These tables have other names now. One that had such a name, and is not among them, is gone.
pub(crate) fn rename_tables(
    conn: &Connection,
    renamed: &[(TableNumber, &str)],
) -> Result<(), ReplicaError> {
    for (t, name) in renamed {
        conn.prepare_cached(
            "UPDATE syncline_tables SET name = name || ' (gone, ' || t || ')'
             WHERE t = ?1 OR name = ?2",
        )
        .and_then(|mut s| s.execute((t.0, name)))
        .doing(WRITING)?;
    }
    for (t, name) in renamed {
        conn.prepare_cached("UPDATE syncline_tables SET name = ?2 WHERE t = ?1")
            .and_then(|mut s| s.execute((t.0, name)))
            .doing(WRITING)?;
    }
    Ok(())
}

/// These columns of a table have other names now. One that had such a name, and is not among
/// them, is gone.
pub(crate) fn rename_columns(
    conn: &Connection,
    t: TableNumber,
    renamed: &[(ColumnNumber, &str)],
) -> Result<(), ReplicaError> {
    for (c, name) in renamed {
        conn.prepare_cached(
            "UPDATE syncline_columns SET name = name || ' (gone, ' || c || ')'
             WHERE t = ?1 AND (c = ?2 OR name = ?3)",
        )
        .and_then(|mut s| s.execute((t.0, c.0, name)))
        .doing(WRITING)?;
    }
    for (c, name) in renamed {
        conn.prepare_cached("UPDATE syncline_columns SET name = ?3 WHERE t = ?1 AND c = ?2")
            .and_then(|mut s| s.execute((t.0, c.0, name)))
            .doing(WRITING)?;
    }
    Ok(())
}

/// Remembers which of the server's tables this one is.
pub(crate) fn set_table_server(
    conn: &Connection,
    t: TableNumber,
    server: Option<TableNumber>,
) -> Result<(), ReplicaError> {
    conn.prepare_cached("UPDATE syncline_tables SET server = ?2 WHERE t = ?1")
        .and_then(|mut s| s.execute((t.0, server.map(|server| server.0))))
        .map(drop)
        .doing(WRITING)
}

/// Writes everything of a column but its name.
pub(crate) fn put_column(
    conn: &Connection,
    t: TableNumber,
    column: &ColumnRecord,
) -> Result<(), ReplicaError> {
    let server = column.server.map(|server| server.0);
    conn.prepare_cached(
        "UPDATE syncline_columns SET server = ?3, gone = ?4 WHERE t = ?1 AND c = ?2",
    )
    .and_then(|mut s| s.execute((t.0, column.c.0, server, column.gone)))
    .map(drop)
    .doing(WRITING)
}

/// Whether what is known of the table's rows cannot be compared with them: a column went while
/// nobody captured. Until the table is loaded again, which tells.
pub(crate) fn is_unsure(conn: &Connection, t: TableNumber) -> Result<bool, ReplicaError> {
    conn.prepare_cached("SELECT unsure FROM syncline_tables WHERE t = ?1")
        .and_then(|mut s| s.query_row([t.0], |row| row.get(0)).optional())
        .map(Option::unwrap_or_default)
        .doing(READING)
}

pub(crate) fn set_unsure(conn: &Connection, t: TableNumber) -> Result<(), ReplicaError> {
    conn.prepare_cached("UPDATE syncline_tables SET unsure = 1 WHERE t = ?1")
        .and_then(|mut s| s.execute([t.0]))
        .map(drop)
        .doing(WRITING)
}

/// Writes that a table can never sync as it is, and why.
pub(crate) fn set_unfit(
    conn: &Connection,
    t: TableNumber,
    reason: &str,
) -> Result<(), ReplicaError> {
    conn.prepare_cached("UPDATE syncline_tables SET unfit = ?2, left_out = ?2 WHERE t = ?1")
        .and_then(|mut s| s.execute((t.0, reason)))
        .map(drop)
        .doing(WRITING)
}

/// Writes why a table does not sync, or that it does.
pub(crate) fn set_left_out(
    conn: &Connection,
    t: TableNumber,
    reason: Option<&str>,
) -> Result<(), ReplicaError> {
    conn.prepare_cached("UPDATE syncline_tables SET left_out = ?2 WHERE t = ?1")
        .and_then(|mut s| s.execute((t.0, reason)))
        .map(drop)
        .doing(WRITING)
}

/// How far seeding has come; `None` ends it.
pub(crate) fn set_seeding(
    conn: &Connection,
    t: TableNumber,
    seeding: bool,
    after: Option<&RowKey>,
) -> Result<(), ReplicaError> {
    conn.prepare_cached("UPDATE syncline_tables SET seeding = ?2, seed_after = ?3 WHERE t = ?1")
        .and_then(|mut s| s.execute((t.0, seeding, after.map(RowKey::as_bytes))))
        .map(drop)
        .doing(WRITING)
}

/// Every table is loaded now.
pub(crate) fn set_all_loaded(conn: &Connection) -> Result<(), ReplicaError> {
    conn.prepare_cached(
        "UPDATE syncline_tables SET loaded = 1, unsure = 0 WHERE left_out IS NULL
         AND (loaded <> 1 OR unsure <> 0)",
    )
    .and_then(|mut s| s.execute([]))
    .map(drop)
    .doing(WRITING)
}

/// Adds to the number of a table's rows that the server gave.
pub(crate) fn add_rows(conn: &Connection, t: TableNumber, count: i64) -> Result<(), ReplicaError> {
    conn.prepare_cached("UPDATE syncline_tables SET rows = rows + ?2 WHERE t = ?1")
        .and_then(|mut s| s.execute((t.0, count)))
        .map(drop)
        .doing(WRITING)
}

/// The user's number; none for the empty name, which stands for another program.
pub(crate) fn user(conn: &Connection, name: &str) -> Result<Option<User>, ReplicaError> {
    const DOING: &str = "writing a user's name";
    if name.is_empty() {
        return Ok(None);
    }
    let found: Option<User> = conn
        .prepare_cached("SELECT u FROM syncline_users WHERE name = ?1")
        .and_then(|mut s| s.query_row([name], |row| row.get(0)).optional())
        .doing(DOING)?;
    if found.is_some() {
        return Ok(found);
    }
    conn.prepare_cached("INSERT INTO syncline_users(name) VALUES(?1)")
        .and_then(|mut s| s.insert([name]))
        .map(Some)
        .doing(DOING)
}

/// The name of a user's number.
pub(crate) fn user_name(
    conn: &Connection,
    user: Option<User>,
) -> Result<Option<String>, ReplicaError> {
    let Some(user) = user else { return Ok(None) };
    conn.prepare_cached("SELECT name FROM syncline_users WHERE u = ?1")
        .and_then(|mut s| s.query_row([user], |row| row.get(0)).optional())
        .doing("reading a user's name")
}
