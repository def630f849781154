//! What the library itself keeps in the file: the history of syncs and the operations of the app's
//! own. Tables named `syncline_*`, so that `detach` removes them too.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OptionalExtension, Row};
use syncline_core::Timestamp;

use crate::{
    database,
    queue::{OperationState, QueuedOperation},
    run::SyncReport,
    stats::SyncRecord,
    sync_error::Error,
};

/// Syncs that are remembered.
pub(crate) const HISTORY_MAX: u32 = 100;

/// Nothing here is newer than SQLite 3.8.3: other programs open the same file.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS syncline_syncs(
  id INTEGER PRIMARY KEY, at INTEGER NOT NULL, operation TEXT NOT NULL, records INTEGER NOT NULL,
  sent INTEGER NOT NULL, received INTEGER NOT NULL, conflicts INTEGER NOT NULL,
  bytes_sent INTEGER NOT NULL, bytes_received INTEGER NOT NULL, duration_ms INTEGER NOT NULL,
  error TEXT);
-- state: 0 pending, 1 completed, 2 failed. revision: grows with each new payload.
CREATE TABLE IF NOT EXISTS syncline_operations(
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, key TEXT,
  payload TEXT NOT NULL, state INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0,
  revision INTEGER NOT NULL DEFAULT 0, due_at INTEGER NOT NULL, created_at INTEGER NOT NULL,
  ended_at INTEGER, error TEXT);
CREATE UNIQUE INDEX IF NOT EXISTS syncline_operations_key
  ON syncline_operations(kind, key) WHERE state = 0 AND key IS NOT NULL;
CREATE INDEX IF NOT EXISTS syncline_operations_due
  ON syncline_operations(due_at) WHERE state = 0;
";

const OPERATION: &str = "SELECT id, kind, key, payload, state, attempts, revision, due_at,
    created_at, error FROM syncline_operations ";

/// The library's tables in one file.
#[derive(Debug)]
pub(crate) struct Store {
    conn: Connection,
    path: std::path::PathBuf,
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Store {
    /// Opens the file; `None` if it has none of these tables and `create` does not ask for them.
    pub(crate) fn open(path: &Path, create: bool) -> Result<Option<Self>, Error> {
        let conn = database::open(path)?;
        let store = Self {
            conn,
            path: path.to_owned(),
        };
        let exists = store.sql(|conn| {
            conn.query_row(
                "SELECT 1 FROM sqlite_schema WHERE name = 'syncline_operations'",
                [],
                |_| Ok(()),
            )
            .optional()
        })?;
        if exists.is_none() {
            if !create {
                return Ok(None);
            }
            store.sql(|conn| conn.execute_batch(TABLES))?;
        }
        Ok(Some(store))
    }

    fn sql<T>(&self, run: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        run(&self.conn).map_err(|error| database::database_error(&self.path, error).into())
    }

    /// Removes the tables.
    pub(crate) fn remove(self) -> Result<(), Error> {
        self.sql(|conn| {
            conn.execute_batch("DROP TABLE syncline_syncs; DROP TABLE syncline_operations;")
        })
    }
}

/// The history.
impl Store {
    pub(crate) fn record(&self, report: &SyncReport, error: Option<&str>) -> Result<(), Error> {
        self.sql(|conn| {
            conn.execute(
                "INSERT INTO syncline_syncs(at, operation, records, sent, received, conflicts,
                   bytes_sent, bytes_received, duration_ms, error)
                 VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                rusqlite::params![
                    count(report.started_at.0),
                    report.operation.name(),
                    count(report.records_processed),
                    count(report.sent.total()),
                    count(report.received.total()),
                    count(report.conflicts.len() as u64),
                    count(report.bytes_sent),
                    count(report.bytes_received),
                    i64::try_from(report.duration.as_millis()).unwrap_or(i64::MAX),
                    error,
                ],
            )?;
            conn.execute(
                "DELETE FROM syncline_syncs
                 WHERE id <= (SELECT max(id) FROM syncline_syncs) - ?1",
                [HISTORY_MAX],
            )
        })
        .map(drop)
    }

    /// The last syncs, newest first.
    pub(crate) fn history(&self) -> Result<Vec<SyncRecord>, Error> {
        self.sql(|conn| {
            let mut statement = conn.prepare(
                "SELECT at, operation, records, sent, received, conflicts, bytes_sent,
                   bytes_received, duration_ms, error FROM syncline_syncs ORDER BY id DESC",
            )?;
            let found = statement.query_map([], |row| {
                let number = |i| row.get::<_, i64>(i).map(i64::cast_unsigned);
                Ok(SyncRecord {
                    timestamp: Timestamp(number(0)?),
                    operation: row.get(1)?,
                    records_processed: number(2)?,
                    sent: number(3)?,
                    received: number(4)?,
                    conflicts: number(5)?,
                    bytes_sent: number(6)?,
                    bytes_received: number(7)?,
                    duration: Duration::from_millis(number(8)?),
                    error: row.get(9)?,
                })
            })?;
            found.collect()
        })
    }
}

/// The app's own operations.
impl Store {
    /// Adds an operation; one of the same kind and key that still waits gets the new payload
    /// instead. Returns its id.
    pub(crate) fn enqueue(
        &self,
        id: &str,
        kind: &str,
        key: Option<&str>,
        payload: &str,
        now: Timestamp,
    ) -> Result<String, Error> {
        self.sql(|conn| {
            let transaction = conn.unchecked_transaction()?;
            let waiting: Option<String> = transaction
                .query_row(
                    "UPDATE syncline_operations
                     SET payload = ?3, revision = revision + 1, due_at = min(due_at, ?4)
                     WHERE kind = ?1 AND key = ?2 AND state = 0 RETURNING id",
                    (kind, key, payload, count(now.0)),
                    |row| row.get(0),
                )
                .optional()?;
            let id = match waiting {
                Some(id) => id,
                None => {
                    transaction.execute(
                        "INSERT INTO syncline_operations(id, kind, key, payload, due_at, created_at)
                         VALUES(?1, ?2, ?3, ?4, ?5, ?5)",
                        (id, kind, key, payload, count(now.0)),
                    )?;
                    id.to_owned()
                }
            };
            transaction.commit()?;
            Ok(id)
        })
    }

    /// Waiting operations that are due, the oldest first.
    pub(crate) fn due(
        &self,
        now: Timestamp,
        kinds: &[String],
        max: usize,
    ) -> Result<Vec<QueuedOperation>, Error> {
        let marks = vec!["?"; kinds.len()].join(", ");
        let text = format!(
            "{OPERATION} WHERE state = 0 AND due_at <= {} AND kind IN ({marks})
             ORDER BY seq LIMIT {max}",
            count(now.0)
        );
        self.sql(|conn| {
            let mut statement = conn.prepare(&text)?;
            let found = statement.query_map(rusqlite::params_from_iter(kinds), read)?;
            found.collect()
        })
    }

    /// When the next waiting operation of these kinds is due.
    pub(crate) fn next_due(&self, kinds: &[String]) -> Result<Option<Timestamp>, Error> {
        let marks = vec!["?"; kinds.len()].join(", ");
        let text = format!(
            "SELECT min(due_at) FROM syncline_operations WHERE state = 0 AND kind IN ({marks})"
        );
        let next: Option<i64> = self.sql(|conn| {
            let kinds = rusqlite::params_from_iter(kinds);
            conn.query_row(&text, kinds, |row| row.get(0))
        })?;
        Ok(next.map(|at| Timestamp(at.cast_unsigned())))
    }

    /// The operation was done; it waits on if it got another payload meanwhile.
    pub(crate) fn complete(&self, done: &QueuedOperation, now: Timestamp) -> Result<(), Error> {
        self.end(done, OperationState::Completed, None, now)
    }

    /// The operation failed for good.
    pub(crate) fn fail(
        &self,
        failed: &QueuedOperation,
        error: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.end(failed, OperationState::Failed, Some(error), now)
    }

    fn end(
        &self,
        operation: &QueuedOperation,
        state: OperationState,
        error: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.sql(|conn| {
            conn.execute(
                "UPDATE syncline_operations
                 SET state = ?3, error = ?4, ended_at = ?5, attempts = attempts + 1
                 WHERE id = ?1 AND state = 0 AND revision = ?2",
                (
                    &operation.id,
                    count(operation.revision),
                    state.number(),
                    error,
                    count(now.0),
                ),
            )
        })
        .map(drop)
    }

    /// The operation is tried again at `at`.
    pub(crate) fn postpone(
        &self,
        operation: &QueuedOperation,
        error: &str,
        at: Timestamp,
    ) -> Result<(), Error> {
        self.sql(|conn| {
            conn.execute(
                "UPDATE syncline_operations
                 SET attempts = attempts + 1, due_at = ?3, error = ?2
                 WHERE id = ?1 AND state = 0",
                (&operation.id, error, count(at.0)),
            )
        })
        .map(drop)
    }

    pub(crate) fn count_in(&self, state: OperationState) -> Result<u64, Error> {
        let found: i64 = self.sql(|conn| {
            conn.query_row(
                "SELECT count(*) FROM syncline_operations WHERE state = ?1",
                [state.number()],
                |row| row.get(0),
            )
        })?;
        Ok(found.cast_unsigned())
    }

    /// Operations in the order they came, at most `max` after the one with the id `after`.
    pub(crate) fn operations(
        &self,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<QueuedOperation>, Error> {
        let text = format!(
            "{OPERATION} WHERE seq > ifnull(
               (SELECT seq FROM syncline_operations WHERE id = ?1), 0)
             ORDER BY seq LIMIT {max}"
        );
        self.sql(|conn| {
            let mut statement = conn.prepare(&text)?;
            let found = statement.query_map([after], read)?;
            found.collect()
        })
    }

    /// Has failed operations tried again, as if for the first time; one whose kind and key wait
    /// already is forgotten. How many.
    pub(crate) fn retry_failed(&self, now: Timestamp) -> Result<u64, Error> {
        let retried = self.sql(|conn| {
            let transaction = conn.unchecked_transaction()?;
            let retried = transaction.execute(
                "UPDATE OR IGNORE syncline_operations
                 SET state = 0, attempts = 0, due_at = ?1, ended_at = NULL WHERE state = 2",
                [count(now.0)],
            )?;
            transaction.execute("DELETE FROM syncline_operations WHERE state = 2", [])?;
            transaction.commit()?;
            Ok(retried)
        })?;
        Ok(retried as u64)
    }

    /// Forgets operations in `state` that ended before `before`. How many.
    pub(crate) fn clear(&self, state: OperationState, before: Timestamp) -> Result<u64, Error> {
        let cleared = self.sql(|conn| {
            conn.execute(
                "DELETE FROM syncline_operations WHERE state = ?1 AND ended_at <= ?2",
                (state.number(), count(before.0)),
            )
        })?;
        Ok(cleared as u64)
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<QueuedOperation> {
    let number = |i| row.get::<_, i64>(i).map(i64::cast_unsigned);
    Ok(QueuedOperation {
        id: row.get(0)?,
        kind: row.get(1)?,
        key: row.get(2)?,
        payload: row.get(3)?,
        state: OperationState::from_number(row.get(4)?),
        attempts: row.get(5)?,
        revision: number(6)?,
        due_at: Timestamp(number(7)?),
        created_at: Timestamp(number(8)?),
        error: row.get(9)?,
    })
}
