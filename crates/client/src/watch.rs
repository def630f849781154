//! Live queries: rows of a query, again whenever they change.
//!
//! They run on a thread of their own, so that a slow query holds up neither the app nor the sync.
//! SQLite says that the file was committed to, by whatever program, and not which tables; so each
//! query runs again, and rows that are as they were are not told.

use std::{
    collections::{BTreeSet, VecDeque},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use futures_util::{Stream, StreamExt};
use rusqlite::{
    Connection,
    hooks::{AuthAction, AuthContext, Authorization},
    types,
};
use syncline_core::Value;
use tokio::sync::oneshot;

use crate::{
    database,
    error::ClientError,
    manager::SyncManager,
    sync_error::{Error, ErrorKind},
};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long closing waits for a query that runs.
const GOODBYE_MAX: Duration = Duration::from_secs(3);
/// Rows that a live query holds.
const ROWS_MAX: usize = 100_000;
/// Pragmas that only tell something, whatever follows them.
const PRAGMAS: &[&str] = &[
    "collation_list",
    "compile_options",
    "data_version",
    "database_list",
    "foreign_key_check",
    "foreign_key_list",
    "function_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "module_list",
    "page_count",
    "pragma_list",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
];
/// Pragmas that only tell something as long as no value follows them.
const PRAGMAS_UNSET: &[&str] = &[
    "application_id",
    "encoding",
    "foreign_keys",
    "freelist_count",
    "page_size",
    "schema_version",
    "user_version",
];
/// Live queries of one manager.
const QUERIES_MAX: usize = 256;

/// One row of a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    columns: Arc<[String]>,
    values: Vec<Value>,
}

impl Row {
    /// The value of a column, by name; the first one of that name.
    #[must_use]
    pub fn get(&self, column: &str) -> Option<&Value> {
        let position = self.columns.iter().position(|name| name == column)?;
        self.values.get(position)
    }

    /// The columns' names, in order.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The values, in the order of the columns.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        &self.values
    }
}

/// The rows of a query, now and after each change. A stream for any executor.
///
/// Only the newest rows wait: a slow reader skips states in between, never the last one. Ends
/// when the manager is closed, or after an error, such as a table that was dropped.
#[derive(Debug)]
pub struct LiveQuery {
    slot: Arc<Mutex<Slot>>,
    tables: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Slot {
    rows: Option<Result<Vec<Row>, Error>>,
    ended: bool,
    waker: Option<Waker>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LiveQuery {
    /// The tables and views that the query reads.
    #[must_use]
    pub fn tables(&self) -> &BTreeSet<String> {
        &self.tables
    }

    /// The rows when they have changed; at once for the first time. `None` when it has ended.
    pub async fn next(&mut self) -> Option<Result<Vec<Row>, Error>> {
        StreamExt::next(self).await
    }
}

impl Stream for LiveQuery {
    type Item = Result<Vec<Row>, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut slot = locked(&self.slot);
        if let Some(rows) = slot.rows.take() {
            return Poll::Ready(Some(rows));
        }
        if slot.ended {
            return Poll::Ready(None);
        }
        slot.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl SyncManager {
    /// Watches a query over the file: its rows now, and again after each commit, of this app or
    /// of any other program, that changed them.
    ///
    /// # Errors
    /// [`ErrorKind::Query`] for SQL that cannot be run or that writes; [`ErrorKind::File`],
    /// [`ErrorKind::Busy`] for more than 256 live queries, [`ErrorKind::Closed`].
    pub async fn watch(
        &self,
        sql: impl Into<String>,
        params: impl IntoIterator<Item = Value>,
    ) -> Result<LiveQuery, Error> {
        let (answer_to, answer) = oneshot::channel();
        self.shared().watcher.add(
            self.shared().path.clone(),
            New {
                sql: sql.into(),
                params: params.into_iter().map(to_sql).collect(),
                answer: answer_to,
            },
        )?;
        answer.await.unwrap_or_else(|_| Err(Error::closed()))
    }
}

/// The thread that runs live queries; there while there are any.
#[derive(Debug, Default)]
pub(crate) struct Watcher(Arc<Mutex<Todo>>);

#[derive(Debug, Default)]
struct Todo {
    new: VecDeque<New>,
    is_running: bool,
    is_closed: bool,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct New {
    sql: String,
    params: Vec<types::Value>,
    answer: oneshot::Sender<Result<LiveQuery, Error>>,
}

impl Watcher {
    fn add(&self, path: PathBuf, new: New) -> Result<(), Error> {
        let mut todo = locked(&self.0);
        if todo.is_closed {
            return Err(Error::closed());
        }
        if todo.new.len() >= QUERIES_MAX {
            return Err(too_many());
        }
        todo.new.push_back(new);
        if !todo.is_running {
            let of_thread = Arc::clone(&self.0);
            let thread = std::thread::Builder::new()
                .name("syncline-watch".into())
                .spawn(move || Watching::run(&path, &of_thread))
                .map_err(|error| {
                    todo.new.clear();
                    let message = format!("no thread can be started: {error}");
                    Error::new(ErrorKind::Busy, "thread", message)
                })?;
            todo.thread = Some(thread);
            todo.is_running = true;
        }
        Ok(())
    }

    /// Ends every live query, and waits until the thread has let go of the file; not for a query
    /// that takes longer than [`GOODBYE_MAX`].
    pub(crate) fn close(&self) {
        let thread = {
            let mut todo = locked(&self.0);
            todo.is_closed = true;
            todo.thread.take()
        };
        let end = Instant::now() + GOODBYE_MAX;
        while thread.as_ref().is_some_and(|thread| !thread.is_finished()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn too_many() -> Error {
    let message = format!("there are {QUERIES_MAX} live queries already");
    Error::new(ErrorKind::Busy, "busy", message)
}

/// What the thread works with.
struct Watching {
    conn: Connection,
    /// What statements read, as they are prepared.
    read: Arc<Mutex<BTreeSet<String>>>,
    queries: Vec<Query>,
    seen: i64,
}

struct Query {
    sql: String,
    params: Vec<types::Value>,
    last: Vec<Row>,
    slot: Weak<Mutex<Slot>>,
}

impl Watching {
    fn run(path: &Path, todo: &Mutex<Todo>) {
        let mut watching = match Self::open(path) {
            Ok(watching) => watching,
            Err(error) => {
                let mut todo = locked(todo);
                todo.is_running = false;
                for new in todo.new.drain(..) {
                    drop(new.answer.send(Err(error.clone())));
                }
                return;
            }
        };
        loop {
            let new = {
                let mut todo = locked(todo);
                let new: Vec<New> = todo.new.drain(..).collect();
                watching
                    .queries
                    .retain(|query| query.slot.strong_count() > 0);
                if todo.is_closed || (new.is_empty() && watching.queries.is_empty()) {
                    todo.is_running = false;
                    drop(todo);
                    return watching.end();
                }
                new
            };
            for new in new {
                watching.take(new);
            }
            std::thread::sleep(LOOK_EVERY);
            watching.look();
        }
    }

    fn open(path: &Path) -> Result<Self, Error> {
        let mut conn = database::open(path)?;
        let read: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let sqlite = |error| Error::from(database::database_error(path, error));
        note_reads(&mut conn, Arc::clone(&read)).map_err(sqlite)?;
        let seen = data_version(&conn).map_err(sqlite)?;
        Ok(Self {
            conn,
            read,
            queries: Vec::new(),
            seen,
        })
    }

    fn take(&mut self, new: New) {
        if self.queries.len() >= QUERIES_MAX {
            return drop(new.answer.send(Err(too_many())));
        }
        // Only what this statement reads is of interest now, and only preparing it tells.
        self.conn.flush_prepared_statement_cache();
        locked(&self.read).clear();
        let rows = match rows(&self.conn, &new.sql, &new.params) {
            Ok(rows) => rows,
            Err(error) => return drop(new.answer.send(Err(error))),
        };
        let slot = Arc::new(Mutex::new(Slot {
            rows: Some(Ok(rows.clone())),
            ..Slot::default()
        }));
        self.queries.push(Query {
            sql: new.sql,
            params: new.params,
            last: rows,
            slot: Arc::downgrade(&slot),
        });
        let tables = std::mem::take(&mut *locked(&self.read));
        // Nobody may be waiting any more: then the slot is gone at once.
        let _gone = new.answer.send(Ok(LiveQuery { slot, tables }));
    }

    /// Runs every query again if somebody has committed.
    fn look(&mut self) {
        // A file that is locked at the moment is looked at the next time.
        let Ok(version) = data_version(&self.conn) else {
            return;
        };
        if self.seen == version {
            return;
        }
        self.seen = version;
        let conn = &self.conn;
        let mut is_behind = false;
        self.queries.retain_mut(|query| {
            let Some(slot) = query.slot.upgrade() else {
                return false;
            };
            match rows(conn, &query.sql, &query.params) {
                Ok(rows) if rows == query.last => true,
                Ok(rows) => {
                    query.last.clone_from(&rows);
                    tell(&slot, |slot| slot.rows = Some(Ok(rows)));
                    true
                }
                Err(error) if error.is_retryable() => {
                    is_behind = true;
                    true
                }
                Err(error) => {
                    tell(&slot, |slot| {
                        slot.rows = Some(Err(error));
                        slot.ended = true;
                    });
                    false
                }
            }
        });
        if is_behind {
            // Any other number has everything run again.
            self.seen = -1;
        }
    }

    fn end(self) {
        for slot in self.queries.iter().filter_map(|query| query.slot.upgrade()) {
            tell(&slot, |slot| slot.ended = true);
        }
    }
}

/// Has the tables that statements read put into `reads` as they are prepared.
fn note_reads(conn: &mut Connection, reads: Arc<Mutex<BTreeSet<String>>>) -> rusqlite::Result<()> {
    conn.authorizer(Some(move |context: AuthContext<'_>| {
        if let AuthAction::Read { table_name, .. } = context.action {
            locked(&reads).insert(table_name.to_owned());
        }
        if is_read(&context.action) {
            Authorization::Allow
        } else {
            Authorization::Deny
        }
    }))
}

/// Whether a statement that SQLite takes for one that only reads is one: those that begin and end
/// transactions, attach files or set something are not. What writes rows is found otherwise.
fn is_read(action: &AuthAction<'_>) -> bool {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "whatever else there is, SQLite knows whether it writes"
    )]
    match action {
        AuthAction::Transaction { .. }
        | AuthAction::Savepoint { .. }
        | AuthAction::Attach { .. }
        | AuthAction::Detach { .. } => false,
        AuthAction::Pragma {
            pragma_name,
            pragma_value,
        } => {
            let is_in = |names: &[&str]| {
                names
                    .iter()
                    .any(|name| name.eq_ignore_ascii_case(pragma_name))
            };
            is_in(PRAGMAS) || (pragma_value.is_none() && is_in(PRAGMAS_UNSET))
        }
        _ => true,
    }
}

/// Changes whenever somebody else has committed to the file.
fn data_version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row("PRAGMA data_version", [], |row| row.get(0))
}

fn tell(slot: &Mutex<Slot>, change: impl FnOnce(&mut Slot)) {
    let waker = {
        let mut slot = locked(slot);
        change(&mut slot);
        slot.waker.take()
    };
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn rows(conn: &Connection, sql: &str, params: &[types::Value]) -> Result<Vec<Row>, Error> {
    let failed = |error: rusqlite::Error| {
        let path = Path::new(conn.path().unwrap_or_default());
        match ClientError::sqlite(path, &error) {
            Some(of_file) => of_file.into(),
            None => Error::new(ErrorKind::Query, "query", error.to_string()),
        }
    };
    let mut statement = conn.prepare_cached(sql).map_err(failed)?;
    if !statement.readonly() {
        let message = "a live query only reads; this statement writes";
        return Err(Error::new(ErrorKind::Query, "query", message));
    }
    if statement.column_count() == 0 {
        let message = "a live query tells rows; this statement has none";
        return Err(Error::new(ErrorKind::Query, "query", message));
    }
    let name = |i| statement.column_name(i).map(str::to_owned);
    let columns = (0..statement.column_count()).map(name);
    let columns: Arc<[String]> = columns.collect::<Result<_, _>>().map_err(failed)?;
    let mut found = statement
        .query(rusqlite::params_from_iter(params))
        .map_err(failed)?;
    let mut rows = Vec::new();
    while let Some(row) = found.next().map_err(failed)? {
        if rows.len() == ROWS_MAX {
            let message = format!("a live query holds {ROWS_MAX} rows at most; add a LIMIT");
            return Err(Error::new(ErrorKind::Query, "too_many_rows", message));
        }
        let value = |i| row.get::<_, types::Value>(i).map(from_sql);
        let values = (0..columns.len()).map(value).collect::<Result<_, _>>();
        rows.push(Row {
            columns: Arc::clone(&columns),
            values: values.map_err(failed)?,
        });
    }
    Ok(rows)
}

fn to_sql(value: Value) -> types::Value {
    match value {
        Value::Null => types::Value::Null,
        Value::Integer(number) => types::Value::Integer(number),
        Value::Real(number) => types::Value::Real(number),
        Value::Text(text) => types::Value::Text(text),
        Value::Blob(bytes) => types::Value::Blob(bytes),
    }
}

fn from_sql(value: types::Value) -> Value {
    match value {
        types::Value::Null => Value::Null,
        types::Value::Integer(number) => Value::Integer(number),
        types::Value::Real(number) => Value::Real(number),
        types::Value::Text(text) => Value::Text(text),
        types::Value::Blob(bytes) => Value::Blob(bytes),
    }
}
