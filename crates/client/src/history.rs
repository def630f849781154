//! The history of a row, which the server keeps, and making a row again what it was.

use std::{
    future::{Future, IntoFuture},
    path::Path,
    pin::Pin,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::{Map, Value as Json};
use syncline_core::{ColumnType, DeviceId, Timestamp, Value, Version, wire::RowState};
use syncline_replica::{Replica, RowRestored, RowThere, SealedAnew};

use crate::{
    api::Api, credentials::Connection, error::ClientError, manager::SyncManager, sync_error::Error,
    system,
};

/// Changes of one page, unless more or fewer are asked for.
pub(crate) const PAGE: usize = 50;
/// Most changes of one page.
pub const PAGE_MAX: usize = 500;

/// What happened to a row, as far as this user may know it: the server tells what it would have
/// told a device of theirs at the time, and nothing of a row that they may not see now.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RowHistory {
    /// Newest first. Empty too for a row that never was, or is not this user's to see.
    pub changes: Vec<RowChange>,
    /// There are older ones: ask for those before the last one's version.
    pub more: bool,
    /// What happened before is forgotten; `None` if the server keeps no history at all.
    pub known_since: Option<Timestamp>,
}

/// One change of a row.
#[derive(Debug, Clone, PartialEq)]
pub struct RowChange {
    /// What the row's version was from then on: for [`SyncManager::restore_row`].
    pub version: Version,
    /// When the server took it.
    pub at: Timestamp,
    /// What was done.
    pub kind: RowChangeKind,
    /// Who did it; `None` for another program at the server.
    pub user: Option<String>,
    /// With which device; `None` for another program at the server.
    pub device: Option<DeviceId>,
    /// What this user calls the device; `None` for devices of others and such without a name.
    pub device_name: Option<String>,
    /// The columns that changed, in the server's order.
    pub columns: Vec<ColumnChange>,
}

/// What a change did to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowChangeKind {
    /// The row was made.
    Inserted,
    /// Columns were changed.
    Updated,
    /// The row was deleted.
    Deleted,
    /// The row came into this user's sight: it had been there, for others.
    Appeared,
    /// The row left this user's sight, to come back later. Nothing else is told of it.
    Removed,
}

impl RowChangeKind {
    /// A stable name: `insert`, `update`, `delete`, `appeared`, `removed`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Inserted => "insert",
            Self::Updated => "update",
            Self::Deleted => "delete",
            Self::Appeared => "appeared",
            Self::Removed => "removed",
        }
    }

    fn named(name: &str) -> Option<Self> {
        let all = [
            Self::Inserted,
            Self::Updated,
            Self::Deleted,
            Self::Appeared,
            Self::Removed,
        ];
        all.into_iter().find(|kind| kind.name() == name)
    }
}

/// One column of a change.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnChange {
    /// This file's name for it, or the server's where the file has no such column.
    pub column: String,
    /// `None` where there was no row, or nobody knows the value.
    pub before: Option<Value>,
    /// `None` where there is no row any more, or nobody knows the value.
    pub after: Option<Value>,
}

#[derive(Deserialize)]
struct Answer {
    changes: Vec<ChangeAnswer>,
    more: bool,
    since: Option<u64>,
}

#[derive(Deserialize)]
struct ChangeAnswer {
    version: u64,
    at_ms: u64,
    op: String,
    user: Option<String>,
    device: Option<String>,
    #[serde(default)]
    device_name: Option<String>,
    columns: Map<String, Json>,
}

/// Asking for the history of a row; await it.
#[derive(Debug, Clone)]
#[must_use = "nothing is asked before it is awaited"]
pub struct History {
    manager: SyncManager,
    table: String,
    key: Vec<Value>,
    before: Option<Version>,
    limit: usize,
}

impl History {
    /// At most so many changes (1 to 500); 50 by default.
    pub fn limit(mut self, changes: usize) -> Self {
        self.limit = changes;
        self
    }

    /// Only what happened before the change with this version: the next page, with the last
    /// version of the one before.
    pub fn before(mut self, version: Version) -> Self {
        self.before = Some(version);
        self
    }
}

impl IntoFuture for History {
    type Output = Result<RowHistory, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self {
                manager,
                table,
                key,
                before,
                limit,
            } = self;
            if !(1..=PAGE_MAX).contains(&limit) {
                let message = format!("{limit} changes: a page has 1 to {PAGE_MAX}");
                return Err(Error::invalid(message));
            }
            let answered = manager.ask_async(async move |core| {
                let found = core.with(|replica| replica.row_there(&table, &key))?;
                let row = found.ok_or_else(not_attached)?;
                let connection = core.connection()?;
                let api = Api::new(&connection)?;
                Ok(page(&api, &row, before, limit).await?)
            });
            answered.await
        })
    }
}

/// The history of rows.
impl SyncManager {
    /// Who changed a row, when, on which device, and what was before and after: asked of the
    /// server, newest first, 50 changes unless [`History::limit`] says otherwise. `key`: the values
    /// of its primary key.
    ///
    /// ```no_run
    /// # async fn example(sync: syncline::SyncManager) -> Result<(), syncline::Error> {
    /// let history = sync.history("notes", vec!["n1".into()]).limit(20).await?;
    /// if let Some(change) = history.changes.get(1) {
    ///     sync.restore_row("notes", vec!["n1".into()], change.version).await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotConfigured`], [`crate::ErrorKind::NotConnected`],
    /// [`crate::ErrorKind::Table`], [`crate::ErrorKind::Invalid`] for values that are no key or a
    /// limit that is none.
    pub fn history(&self, table: &str, key: Vec<Value>) -> History {
        History {
            manager: self.clone(),
            table: table.to_owned(),
            key,
            before: None,
            limit: PAGE,
        }
    }

    /// Makes a row what it was right after the change of `version`; of a deletion: what it
    /// deleted. That is asked of the server and written into the file as an ordinary change of
    /// this device: it is merged and judged like any other, and waits in the file while the
    /// server is away. A row that is not there any more is inserted again.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] if no change that this user may know has the version,
    /// [`crate::ErrorKind::Invalid`] if the file has no place for what the row was;
    /// as [`SyncManager::history`].
    pub async fn restore_row(
        &self,
        table: &str,
        key: Vec<Value>,
        version: Version,
    ) -> Result<RowRestored, Error> {
        let table = table.to_owned();
        self.ask_async(async move |core| {
            let found = core.with(|replica| replica.row_there(&table, &key))?;
            let row = found.ok_or_else(not_attached)?;
            let connection = core.connection()?;
            let was = row_at(&Api::new(&connection)?, &row, version).await?;
            let restored =
                core.with(|replica| replica.restore_row(&table, &key, &was, system::now()))?;
            restored.ok_or_else(not_attached)
        })
        .await
    }
}

impl SyncManager {
    /// Has what older keys sealed of this user's own rows sealed anew with the key that seals now
    /// (the first one that the configuration names), so that an older key is needed no more once
    /// everybody has done so and it was sent. They are ordinary changes, which wait in the file
    /// until they are sent, and win over what another device wrote earlier and has not sent: let
    /// the others sync first. `progress` hears after each transaction; whoever stops calls again.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] while not everything was loaded with these keys: sync first.
    pub async fn seal_anew(
        &self,
        progress: impl Fn(&SealedAnew) + Send + 'static,
    ) -> Result<SealedAnew, Error> {
        self.ask_async(async move |core| {
            let (mut all, mut place) = (SealedAnew::default(), None);
            loop {
                let found = core.with(|replica| replica.seal_anew(place.take(), system::now()))?;
                let (more, next) = found.ok_or_else(not_attached)?;
                all += more;
                progress(&all);
                if next.is_none() {
                    return Ok(all);
                }
                place = next;
            }
        })
        .await
    }
}

fn not_attached() -> Error {
    Error::invalid("the file is not attached yet: it has no history; sync it first")
}

/// One page of a row's history.
///
/// # Errors
/// The server cannot be reached or refuses; the table does not sync.
pub async fn history(
    replica: &Replica,
    path: &Path,
    connection: &Connection,
    (table, key): (&str, &[Value]),
    before: Option<Version>,
    limit: usize,
) -> Result<RowHistory, ClientError> {
    let row = replica.row_there(table, key);
    let row = row.map_err(|error| ClientError::replica(path, error))?;
    page(&Api::new(connection)?, &row, before, limit).await
}

/// Makes a row what it was at a version.
///
/// # Errors
/// As [`history`]; there is no such version; the file has no place for the row.
pub async fn restore_row(
    replica: &mut Replica,
    path: &Path,
    connection: &Connection,
    (table, key): (&str, &[Value]),
    version: Version,
) -> Result<RowRestored, ClientError> {
    let failed = |error| ClientError::replica(path, error);
    let row = replica.row_there(table, key).map_err(failed)?;
    let was = row_at(&Api::new(connection)?, &row, version).await?;
    let restored = replica.restore_row(table, key, &was, system::now());
    restored.map_err(failed)
}

async fn page(
    api: &Api,
    row: &RowThere,
    before: Option<Version>,
    limit: usize,
) -> Result<RowHistory, ClientError> {
    let before = before.map(|version| version.0.to_string());
    let (key, limit) = (key(row), limit.to_string());
    let mut query = vec![("table", &*row.table), ("key", &key), ("limit", &limit)];
    if let Some(before) = &before {
        query.push(("before", before));
    }
    let answer: Answer = api.get("/v1/history", &query).await?;
    let changes = answer.changes.into_iter().map(|change| {
        let kind = RowChangeKind::named(&change.op);
        let device = change
            .device
            .map(|text| DeviceId::from_hex(&text).ok_or_else(|| api.strange("a malformed device")));
        Ok(RowChange {
            version: Version(change.version),
            at: Timestamp::from_millis(change.at_ms),
            kind: kind.ok_or_else(|| api.strange("an unknown kind of change"))?,
            user: change.user,
            device: device.transpose()?,
            device_name: change.device_name,
            columns: columns(row, &change.columns),
        })
    });
    Ok(RowHistory {
        changes: changes.collect::<Result<_, ClientError>>()?,
        more: answer.more,
        known_since: answer.since.map(Timestamp),
    })
}

/// What the row was, with the server's column numbers.
async fn row_at(
    api: &Api,
    row: &RowThere,
    version: Version,
) -> Result<Vec<(syncline_core::ColumnNumber, Value)>, ClientError> {
    let (key, version) = (key(row), version.0.to_string());
    let query = [("table", &*row.table), ("key", &key), ("version", &version)];
    let body = api.get_row("/v1/history/row", &query).await?;
    match body.state {
        RowState::Columns(columns) | RowState::Whole { columns, .. } => Ok(columns),
        RowState::Deleted | RowState::Removed | RowState::Released => {
            Err(api.strange("a row without columns"))
        }
    }
}

/// The key as the server reads it.
fn key(row: &RowThere) -> String {
    Json::Array(row.key.iter().map(to_json).collect()).to_string()
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Integer(n) => (*n).into(),
        Value::Real(x) if x.is_finite() => (*x).into(),
        Value::Real(x) => if *x > 0.0 { "Inf" } else { "-Inf" }.into(),
        Value::Text(text) => text.as_str().into(),
        Value::Blob(bytes) => serde_json::json!({ "base64": BASE64_STANDARD.encode(bytes) }),
    }
}

fn columns(row: &RowThere, told: &Map<String, Json>) -> Vec<ColumnChange> {
    let known = row.columns.iter().filter_map(|column| {
        let sides = told.get(&column.name)?;
        let side = |name| {
            let value = from_json(column.ty, sides.get(name)?);
            Some(row.opened(column, value))
        };
        Some(ColumnChange {
            column: column.here.clone().unwrap_or_else(|| column.name.clone()),
            before: side("before"),
            after: side("after"),
        })
    });
    let mut columns: Vec<_> = known.collect();
    // What the server has had since this file last heard of its columns.
    for (name, sides) in told {
        if row.columns.iter().all(|column| column.name != *name) {
            let side = |name| sides.get(name).map(|json| from_json(ColumnType::Any, json));
            columns.push(ColumnChange {
                column: name.clone(),
                before: side("before"),
                after: side("after"),
            });
        }
    }
    columns
}

/// The value that a column of the type holds, as the server tells it (spec WI15).
fn from_json(ty: ColumnType, json: &Json) -> Value {
    let value = match json {
        Json::Null => Value::Null,
        json if ty == ColumnType::Json => Value::Text(json.to_string()),
        Json::Bool(is_true) => Value::Integer(i64::from(*is_true)),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(n), _) => Value::Integer(n),
            (None, x) => Value::Real(x.unwrap_or_default()),
        },
        Json::String(text) => match (ty, text.as_str()) {
            (ColumnType::Real, "Inf") => Value::Real(f64::INFINITY),
            (ColumnType::Real, "-Inf") => Value::Real(f64::NEG_INFINITY),
            _ => Value::Text(text.clone()),
        },
        Json::Object(object) => object
            .get("base64")
            .and_then(|text| BASE64_STANDARD.decode(text.as_str()?).ok())
            .map_or_else(|| Value::Text(json.to_string()), Value::Blob),
        Json::Array(_) => Value::Text(json.to_string()),
    };
    value.canonical(ty)
}
