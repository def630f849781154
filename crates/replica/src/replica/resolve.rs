//! Deciding conflicts.

use rusqlite::{OptionalExtension, params_from_iter};
use serde_json::Value as Json;
use syncline_core::{Timestamp, Value};

use super::{Replica, inspect::row_key};
use crate::{
    capture,
    conflict::{self, Conflict, ConflictKind, Resolution},
    db::{self, Doing},
    error::ReplicaError,
    event::Event,
    meta::outbox,
    rows::{Bind, RowError},
    seal, sql,
    tables::SyncedTable,
    work::Work,
};

const READING: &str = "reading the conflicts";
/// Attempts to find a moment in which nobody else has unsealed changes.
const ATTEMPTS: usize = 5;

impl Replica {
    /// Conflicts of this user, newest first; `open_only` leaves out those that are resolved.
    ///
    /// # Errors
    /// The database's.
    pub fn conflicts(&self, open_only: bool) -> Result<Vec<Conflict>, ReplicaError> {
        let text = format!(
            "SELECT id, table_name, row_key, column_name, kind, base, mine, theirs, other,
               opened_at, state FROM {} WHERE ?1 = 0 OR state = 'open'
             ORDER BY opened_at DESC, id",
            conflict::TABLE
        );
        let mut statement = self.conn.prepare_cached(&text).doing(READING)?;
        let found = statement.query_map([open_only], read);
        found.and_then(Iterator::collect).doing(READING)
    }

    /// The conflict with this id, open or not.
    ///
    /// # Errors
    /// [`ReplicaError::UnknownConflict`], or the database's.
    pub fn conflict(&self, id: &str) -> Result<Conflict, ReplicaError> {
        let text = format!(
            "SELECT id, table_name, row_key, column_name, kind, base, mine, theirs, other,
               opened_at, state FROM {} WHERE id = ?1",
            conflict::TABLE
        );
        let found = self
            .conn
            .prepare_cached(&text)
            .and_then(|mut statement| statement.query_row([id], read).optional())
            .doing(READING)?;
        found.ok_or_else(|| ReplicaError::UnknownConflict { id: id.to_owned() })
    }

    /// Decides a conflict: writes the row and the conflict's row in one changeset that the
    /// server takes only if nobody decided meanwhile.
    ///
    /// # Errors
    /// [`ReplicaError::UnknownConflict`], [`ReplicaError::BadResolution`], or the database's.
    pub fn resolve(
        &mut self,
        id: &str,
        resolution: &Resolution,
        now: Timestamp,
    ) -> Result<(), ReplicaError> {
        for attempt in 1.. {
            self.seal(now)?;
            if self.try_resolve(id, resolution, now)? {
                break;
            }
            if attempt == ATTEMPTS {
                return Err(ReplicaError::BadResolution {
                    reason: "another program keeps writing; try again".into(),
                });
            }
        }
        self.pump(now)
    }

    /// `false` if another program wrote meanwhile, which must not get into the same changeset.
    fn try_resolve(
        &mut self,
        id: &str,
        resolution: &Resolution,
        now: Timestamp,
    ) -> Result<bool, ReplicaError> {
        let conflict = self.conflict(id)?;
        if !conflict.open {
            return Err(ReplicaError::UnknownConflict { id: id.to_owned() });
        }
        let Self {
            conn,
            tables,
            entropy,
            ..
        } = self;
        let conn = conn.app()?;
        let mut work = Work::new(conn, tables);
        let table = tables
            .named(&conflict.table)
            .ok_or_else(|| ReplicaError::UnknownTable {
                name: conflict.table.clone(),
            })?;
        let done = db::immediate(conn, || {
            if capture::has_marks(conn)? {
                return Ok(false);
            }
            capture::begin_marked(conn)?;
            write(&work, table, &conflict, resolution)?;
            close(&work, id, resolution, now)?;
            capture::end_marked(conn)?;
            for seq in seal::seal(&mut work, &mut **entropy, now)? {
                if let Some(mut entry) = outbox::entry(conn, seq)? {
                    entry.require_unchanged = true;
                    outbox::put(conn, &entry)?;
                }
            }
            Ok::<_, ReplicaError>(true)
        })?;
        if done {
            let (id, table) = (conflict.id, conflict.table);
            self.events.extend([Event::ConflictResolved { id, table }]);
        }
        Ok(done)
    }
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Conflict> {
    let key: String = row.get(2)?;
    let kind: String = row.get(4)?;
    let opened: i64 = row.get(9)?;
    Ok(Conflict {
        id: row.get(0)?,
        table: row.get(1)?,
        key: conflict::key_values(&key).unwrap_or_default(),
        column: row.get(3)?,
        kind: if kind == "deleted" {
            ConflictKind::Deleted
        } else {
            ConflictKind::Manual
        },
        base: row.get(5)?,
        mine: row.get(6)?,
        theirs: row.get(7)?,
        other: row.get(8)?,
        opened_at: Timestamp::from_millis(opened.max(0).cast_unsigned()),
        open: row.get::<_, String>(10)? == "open",
    })
}

fn bad(reason: impl Into<String>) -> ReplicaError {
    ReplicaError::BadResolution {
        reason: reason.into(),
    }
}

/// Writes what was decided into the app's row.
fn write(
    work: &Work<'_>,
    table: &SyncedTable,
    conflict: &Conflict,
    resolution: &Resolution,
) -> Result<(), ReplicaError> {
    let key = row_key(table, &conflict.key)?;
    let json =
        |text: &Option<String>| -> Option<Json> { serde_json::from_str(text.as_deref()?).ok() };
    match (conflict.kind, resolution) {
        (_, Resolution::Theirs) => Ok(()),
        (ConflictKind::Manual, Resolution::Mine | Resolution::Value(_)) => {
            let value = match resolution {
                Resolution::Value(value) => Some(value.clone()),
                Resolution::Mine | Resolution::Theirs => {
                    json(&conflict.mine).as_ref().and_then(conflict::from_json)
                }
            };
            let value = value.ok_or_else(|| bad("what you wrote cannot be read back"))?;
            let position = conflict
                .column
                .as_deref()
                .and_then(|name| table.table.position(name))
                .filter(|&p| !table.table.is_key(p) && !table.table.columns[p].generated)
                .ok_or_else(|| bad("its column is not in this file"))?;
            let mut row = table
                .sql
                .read(work.conn, &key)?
                .ok_or_else(|| bad("the row is not there any more; resolve with theirs"))?;
            row.0[position] = value.canonical(table.table.columns[position].ty);
            table
                .sql
                .update(work.conn, &key, &row, &[position])
                .map(drop)
                .map_err(unfit)
        }
        (ConflictKind::Deleted, Resolution::Mine) => {
            let Some(Json::Object(mine)) = json(&conflict.mine) else {
                return Err(bad("what you wrote cannot be read back"));
            };
            bring_back(work, table, &conflict.key, &mine)
        }
        (ConflictKind::Deleted, Resolution::Value(_)) => Err(bad(
            "the whole row was deleted: resolve with mine or theirs",
        )),
    }
}

/// Inserts the row with what the author wrote; other columns get their defaults.
fn bring_back(
    work: &Work<'_>,
    table: &SyncedTable,
    key: &[Value],
    mine: &serde_json::Map<String, Json>,
) -> Result<(), ReplicaError> {
    let structure = &table.table;
    let place = row_key(table, key)?;
    let mut row: Vec<(usize, Value)> = structure
        .primary_key
        .iter()
        .copied()
        .zip(key.iter().cloned())
        .collect();
    for (name, json) in mine {
        let position = structure.position(name).filter(|p| !structure.is_key(*p));
        if let (Some(position), Some(value)) = (position, conflict::from_json(json)) {
            let opened = table.opened_at(&place, position, value);
            let unreadable = |why| bad(format!("its {name} cannot be read here: {why}"));
            row.push((position, opened.map_err(unreadable)?));
        }
    }
    let text = sql::insert_some(structure, row.iter().map(|(position, _)| *position));
    let values = row.iter().map(|(_, value)| Bind(value));
    match work.conn.execute(&text, params_from_iter(values)) {
        Ok(_) => Ok(()),
        Err(error)
            if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) =>
        {
            Err(bad(format!(
                "the row cannot be brought back as it was: {error}"
            )))
        }
        Err(error) => Err(error).doing("bringing a row back"),
    }
}

/// A value that the column does not take is the caller's mistake.
fn unfit(error: RowError) -> ReplicaError {
    if error.is_constraint() {
        bad(error.to_string())
    } else {
        error.into()
    }
}

/// Marks the conflict's row as decided.
fn close(
    work: &Work<'_>,
    id: &str,
    resolution: &Resolution,
    now: Timestamp,
) -> Result<(), ReplicaError> {
    let name = match resolution {
        Resolution::Mine => "mine",
        Resolution::Theirs => "theirs",
        Resolution::Value(_) => "value",
    };
    let text = format!(
        "UPDATE {} SET state = 'resolved', resolution = ?2, resolved_at = ?3 WHERE id = ?1",
        conflict::TABLE
    );
    work.conn
        .execute(&text, (id, name, now.as_millis().cast_signed()))
        .map(drop)
        .doing("closing a conflict")
}
