//! `GET /v1/history`: who changed a row, when, and what was before and after (spec WI18).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderName, StatusCode, header},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as JsonValue};
use syncline_core::{
    BucketId, ChangesetId, ColumnNumber, Hlc, Row, RowKey, Table, TableNumber, Value, Version,
    rules::{GranteeId, Identity},
    wire::{RowBody, RowState, code},
};
use syncline_store::{
    After, EXTERNAL, HistoryChange, HistoryFrom, HistoryRead, HistoryRecord, HistoryWant, Reader,
    RowMeta, StorageError,
};

use super::{
    super::{Backend, Shared, caller::Caller, devices::DEVICES_MAX, error::ApiError},
    length::Length,
    value::{from_json, to_json},
};
use crate::{
    SessionContext,
    history::{Told, Viewer, Walk},
    sight::Sight,
};

const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 500;
/// An answer ends with the change that makes it so long: nobody may be reading it.
const ANSWER_BYTES: usize = 1024 * 1024;
/// Records and bytes read at once.
const RECORDS_AT_ONCE: usize = 512;
const BYTES_AT_ONCE: usize = 1024 * 1024;
/// How often a row is looked at again that another program has just changed, or whose reader lost
/// a grant meanwhile.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HistoryQuery {
    table: String,
    /// The values of the primary key, a JSON array.
    key: String,
    limit: Option<usize>,
    /// Changes below this version only.
    before: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RowQuery {
    table: String,
    key: String,
    version: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct HistoryResponse {
    /// Newest first.
    changes: Vec<ChangeAnswer>,
    /// There are older ones.
    more: bool,
    /// Changes up to this version are not known; `None`: the server keeps no history.
    since: Option<u64>,
}

#[derive(Debug, Serialize)]
struct ChangeAnswer {
    version: u64,
    at_ms: u64,
    op: &'static str,
    user: Option<String>,
    device: Option<String>,
    /// Of a device of the asker's own.
    device_name: Option<String>,
    columns: Map<String, JsonValue>,
}

type Answer = ([(HeaderName, &'static str); 1], Json<HistoryResponse>);
type Bytes = ([(HeaderName, &'static str); 2], Vec<u8>);

const NO_STORE: (HeaderName, &str) = (header::CACHE_CONTROL, "no-store");

pub(crate) async fn history<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    Caller(proof): Caller,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Answer, ApiError> {
    let Query(query) = query.map_err(|rejection| malformed(rejection.body_text()))?;
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(malformed(format!("`limit` is 1 to {LIMIT_MAX}")));
    }
    let from = match query.before {
        Some(version) if version >= Version::LIMIT => {
            return Err(malformed("`before` is no version".to_owned()));
        }
        Some(version) => HistoryFrom::Below(Version(version)),
        None => HistoryFrom::Newest,
    };
    let asked = Asked::new(shared.context(), proof.identity, &query.table, &query.key)?;
    let response = run(&shared, asked, async move |asked, reader| {
        asked.list(reader, from, limit).await
    });
    Ok(([NO_STORE], Json(response.await?)))
}

/// The row as it was, as an encoded [`RowBody`]: exact to the byte, for `restore`.
pub(crate) async fn row<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    Caller(proof): Caller,
    query: Result<Query<RowQuery>, QueryRejection>,
) -> Result<Bytes, ApiError> {
    let Query(query) = query.map_err(|rejection| malformed(rejection.body_text()))?;
    let asked = Asked::new(shared.context(), proof.identity, &query.table, &query.key)?;
    let version = Version(query.version);
    let found = run(&shared, asked, async move |asked, reader| {
        asked.row(reader, version).await
    });
    let Some(body) = found.await? else {
        let sentence = format!(
            "no change of this row that you may see has the version {}",
            query.version
        );
        return Err(ApiError::new(StatusCode::NOT_FOUND, NO_VERSION, sentence));
    };
    let kind = (header::CONTENT_TYPE, "application/cbor");
    Ok(([NO_STORE, kind], body))
}

/// The code of a version that is none of the row's, which the wire does not know.
const NO_VERSION: &str = "unknown_version";

fn malformed(sentence: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, code::MALFORMED, sentence)
}

/// Runs a question, again where it has to be asked once more.
async fn run<B: Backend, T: Send + 'static>(
    shared: &Arc<Shared<B>>,
    asked: Asked,
    question: impl AsyncFn(&Asked, &mut B::Reader) -> Result<Option<T>, StorageError> + Send + 'static,
) -> Result<T, ApiError> {
    let runtime = tokio::runtime::Handle::current();
    let identity = Arc::clone(&asked.identity);
    let work = move |reader: &mut B::Reader| {
        for attempt in 1.. {
            match runtime.block_on(question(&asked, reader)) {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) | Err(StorageError::Busy) if attempt < ATTEMPTS => {
                    std::thread::sleep(PAUSE);
                }
                Ok(None) => break,
                Err(error) => return Err(error),
            }
        }
        Err(StorageError::Busy)
    };
    shared.read_for(&identity, work).await
}

/// A row and who asks about it.
struct Asked {
    context: Arc<SessionContext>,
    identity: Arc<Identity>,
    table: TableNumber,
    key: RowKey,
}

/// What the reader may see, at one version of the log.
struct View {
    sight: Sight,
    grantees: BTreeSet<GranteeId>,
}

impl Asked {
    fn new(
        context: Arc<SessionContext>,
        identity: Arc<Identity>,
        table: &str,
        key: &str,
    ) -> Result<Self, ApiError> {
        let Some(table) = context.plan.schema().table(table) else {
            let sentence = format!("this server does not sync a table `{table}`");
            return Err(ApiError::new(StatusCode::NOT_FOUND, code::SCHEMA, sentence));
        };
        let key = key_of(table, key).map_err(malformed)?;
        let table = table.number;
        Ok(Self {
            context,
            identity,
            table,
            key,
        })
    }

    fn declared(&self) -> Option<&Table> {
        self.context.plan.schema().by_number(self.table)
    }

    async fn view<R: Reader>(&self, reader: &mut R) -> Result<View, StorageError> {
        let granted = self.context.plan.rules().reader(&self.identity);
        let (head, grants) = reader.grants(&granted.grantees).await?;
        Ok(View {
            grantees: granted.grantees.iter().copied().collect(),
            sight: Sight::new(granted, &grants, head.version),
        })
    }

    async fn read<R: Reader>(
        &self,
        reader: &mut R,
        from: HistoryFrom,
        max: usize,
    ) -> Result<HistoryRead, StorageError> {
        let want = HistoryWant {
            table: self.table,
            key: self.key.clone(),
            from,
            max,
            bytes_max: BYTES_AT_ONCE,
        };
        reader.history(&want).await
    }

    /// Whether the row may be seen, or could be when it was deleted.
    async fn viewer<'v, R: Reader>(
        &self,
        reader: &mut R,
        view: &'v View,
    ) -> Result<Option<Viewer<'v>>, StorageError> {
        let newest = self.read(reader, HistoryFrom::Newest, 1).await?;
        if let Some((_, meta)) = &newest.present {
            return Ok(Viewer::of_live(&view.sight, meta));
        }
        let Some(last) = newest.records.first() else {
            return Ok(None);
        };
        let lost = lost_by(reader, view, last).await?;
        Ok(Viewer::of_deleted(&view.sight, last, lost))
    }

    /// Whether the reader sees now what it saw when `view` was taken: a grant may have been lost
    /// while history was read.
    async fn still<R: Reader>(&self, reader: &mut R, view: &View) -> Result<bool, StorageError> {
        let now = self.view(reader).await?;
        Ok(view.sight.buckets().all(|bucket| now.sight.sees(&bucket)))
    }

    /// `None`: to be asked again.
    async fn list<R: Reader>(
        &self,
        reader: &mut R,
        from: HistoryFrom,
        limit: usize,
    ) -> Result<Option<HistoryResponse>, StorageError> {
        let view = self.view(reader).await?;
        let mut response = HistoryResponse {
            changes: Vec::new(),
            more: false,
            since: self.read(reader, from, 0).await?.since.map(|since| since.0),
        };
        if let Some(viewer) = self.viewer(reader, &view).await? {
            self.fill(reader, &viewer, from, limit, &mut response)
                .await?;
        }
        self.name_devices(reader, &mut response.changes).await?;
        Ok(self.still(reader, &view).await?.then_some(response))
    }

    /// What the asker calls their own devices; what others call theirs is their own business.
    async fn name_devices<R: Reader>(
        &self,
        reader: &mut R,
        changes: &mut [ChangeAnswer],
    ) -> Result<(), StorageError> {
        let Some(user) = self.identity.user.as_ref().filter(|_| !changes.is_empty()) else {
            return Ok(());
        };
        let devices = reader.devices(user, DEVICES_MAX).await?;
        let names: BTreeMap<String, String> = devices
            .into_iter()
            .filter(|device| !device.name.is_empty())
            .map(|device| (device.id.to_string(), device.name))
            .collect();
        for change in changes {
            let name = change.device.as_ref().and_then(|device| names.get(device));
            change.device_name = name.cloned();
        }
        Ok(())
    }

    async fn fill<R: Reader>(
        &self,
        reader: &mut R,
        viewer: &Viewer<'_>,
        mut from: HistoryFrom,
        limit: usize,
        response: &mut HistoryResponse,
    ) -> Result<(), StorageError> {
        let Some(table) = self.declared() else {
            return Ok(());
        };
        let mut walk = Walk::default();
        let mut length = Length::default();
        loop {
            let read = self.read(reader, from, RECORDS_AT_ONCE).await?;
            let told: Vec<_> = read
                .records
                .iter()
                .map(|record| viewer.told(record))
                .collect();
            if from == HistoryFrom::Newest {
                walk = Walk::whole(present(table, read.present));
            }
            if let Some(first) = read.records.first() {
                let records = read.records.iter().zip(told.iter().copied());
                match walk.missing(records) {
                    Some(columns) if columns.is_empty() => {}
                    missing => {
                        let whole = missing.is_none();
                        let asked = missing.map_or_else(After::whole, After::of);
                        let after = self.after(reader, table, first.version, asked).await?;
                        walk.know(after.values(), whole);
                    }
                }
            }
            for (record, told) in read.records.iter().zip(told) {
                if let Some(told) = told {
                    if response.changes.len() >= limit || length.bytes() >= ANSWER_BYTES {
                        response.more = true;
                        return Ok(());
                    }
                    let answer = answer(table, record, told, &walk);
                    length.add(&answer);
                    response.changes.push(answer);
                }
                walk.undo(record);
            }
            match read.records.last() {
                Some(last) if read.more => from = HistoryFrom::Below(last.version),
                Some(_) | None => return Ok(()),
            }
        }
    }

    /// What columns held right after the change of `version`.
    async fn after<R: Reader>(
        &self,
        reader: &mut R,
        table: &Table,
        mut version: Version,
        mut after: After,
    ) -> Result<After, StorageError> {
        while !after.is_over() {
            let from = HistoryFrom::Above(version);
            let read = self.read(reader, from, RECORDS_AT_ONCE).await?;
            for record in &read.records {
                after.younger(record);
            }
            match read.records.last() {
                Some(last) if read.more => version = last.version,
                Some(_) | None => after.present(present(table, read.present)),
            }
        }
        Ok(after)
    }

    /// The row as it was after the change of `version`, or, of a deletion, before it. The outer
    /// `None`: to be asked again; the inner one: there is no such change for this reader.
    async fn row<R: Reader>(
        &self,
        reader: &mut R,
        version: Version,
    ) -> Result<Option<Option<Vec<u8>>>, StorageError> {
        let view = self.view(reader).await?;
        let mut body = None;
        if let Some(viewer) = self.viewer(reader, &view).await?
            && version < Version(Version::LIMIT - 1)
        {
            let from = HistoryFrom::Below(Version(version.0 + 1));
            let read = self.read(reader, from, 1).await?;
            let record = read
                .records
                .first()
                .filter(|record| record.version == version);
            body = match record.map(|record| (record, viewer.told(record))) {
                Some((record, Some(told))) => self.body(reader, record, told).await?,
                Some((_, None)) | None => None,
            };
        }
        Ok(self.still(reader, &view).await?.then_some(body))
    }

    async fn body<R: Reader>(
        &self,
        reader: &mut R,
        record: &HistoryRecord,
        told: Told,
    ) -> Result<Option<Vec<u8>>, StorageError> {
        let Some(table) = self.declared() else {
            return Ok(None);
        };
        let known = |column: &ColumnNumber| table.position_of(*column).is_some();
        let columns: Vec<(ColumnNumber, Value)> = match told {
            Told::Removed => return Ok(None),
            Told::Delete => {
                let old = record.old.iter();
                let old = old.filter_map(|(column, value)| Some((*column, value.clone()?)));
                old.filter(|(column, _)| known(column)).collect()
            }
            Told::Insert | Told::Update | Told::Appeared => {
                let after = self
                    .after(reader, table, record.version, After::whole())
                    .await?;
                let values = after.values().filter(|(column, _)| known(column));
                values
                    .map(|(column, value)| (column, value.clone()))
                    .collect()
            }
        };
        let body = RowBody {
            table: self.table,
            key: self.key.clone(),
            version: record.version,
            state: RowState::Columns(columns),
            author: record
                .user
                .as_ref()
                .map_or_else(String::new, |user| user.0.clone()),
            changeset: ChangesetId::default(),
            hlc: Hlc::default(),
        };
        let mut bytes = Vec::new();
        body.encode_into(&mut bytes);
        Ok(Some(bytes))
    }
}

/// The reader's buckets that the entry with `record` took away, as long as the log has it.
async fn lost_by<R: Reader>(
    reader: &mut R,
    view: &View,
    record: &HistoryRecord,
) -> Result<BTreeSet<BucketId>, StorageError> {
    let mut lost = BTreeSet::new();
    if record.change != HistoryChange::Delete {
        return Ok(lost);
    }
    let before = Version(record.entry.0.saturating_sub(1));
    let entries = reader.log_after(before, 1).await?;
    let entry = entries
        .first()
        .filter(|entry| entry.version == record.entry);
    for grant in entry.iter().flat_map(|entry| &entry.grants) {
        if !grant.granted && view.grantees.contains(&grant.grantee) {
            lost.insert(grant.bucket);
        }
    }
    Ok(lost)
}

/// The columns of a live row; nothing of one that is not there.
fn present(table: &Table, row: Option<(Row, RowMeta)>) -> Vec<(ColumnNumber, Value)> {
    let values = row.map(|(row, _)| row.0).unwrap_or_default();
    let columns = table.columns.iter().zip(values);
    let columns = columns.filter(|(column, _)| !column.generated);
    columns
        .map(|(column, value)| (column.number, value))
        .collect()
}

/// What is told of a change.
fn answer(table: &Table, record: &HistoryRecord, told: Told, walk: &Walk) -> ChangeAnswer {
    let mut columns = Map::new();
    let mut put = |column: ColumnNumber, before: Option<&Value>, after: Option<&Value>| {
        // What was dropped from the table has no name any more.
        let Some(position) = table.position_of(column) else {
            return;
        };
        let column = &table.columns[position];
        let mut sides = Map::new();
        for (side, value) in [("before", before), ("after", after)] {
            if let Some(value) = value {
                sides.insert(side.to_owned(), to_json(column, value));
            }
        }
        columns.insert(column.name.clone(), JsonValue::Object(sides));
    };
    let op = match told {
        Told::Insert | Told::Appeared => {
            for (column, value) in walk.values() {
                put(column, None, Some(value));
            }
            if told == Told::Insert {
                "insert"
            } else {
                "appeared"
            }
        }
        Told::Update => {
            for (column, before) in &record.old {
                put(*column, before.as_ref(), walk.value(*column));
            }
            "update"
        }
        Told::Delete => {
            for (column, before) in &record.old {
                put(*column, before.as_ref(), None);
            }
            "delete"
        }
        Told::Removed => "removed",
    };
    let is_told = told != Told::Removed;
    let device = Some(record.device).filter(|device| is_told && *device != EXTERNAL);
    ChangeAnswer {
        version: record.version.0,
        at_ms: record.version.0 / 1_000,
        op,
        user: record
            .user
            .as_ref()
            .filter(|_| is_told)
            .map(|user| user.0.clone()),
        device: device.map(|device| device.to_string()),
        device_name: None,
        columns,
    }
}

/// The key whose values are written as a JSON array.
fn key_of(table: &Table, text: &str) -> Result<RowKey, String> {
    let names: Vec<_> = table
        .primary_key
        .iter()
        .map(|at| &*table.columns[*at].name)
        .collect();
    let expected = format!("`key` is a JSON array of {}", names.join(", "));
    let Ok(JsonValue::Array(values)) = serde_json::from_str(text) else {
        return Err(expected);
    };
    if values.len() != names.len() {
        return Err(expected);
    }
    let columns = table.primary_key.iter().map(|at| &table.columns[*at]);
    let values = columns
        .zip(&values)
        .map(|(column, json)| from_json(column, json));
    let values = values.collect::<Result<Vec<_>, _>>()?;
    RowKey::encode(&values).map_err(|error| error.to_string())
}
