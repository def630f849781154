//! `GET /v1/pull`: rows as JSON, then what changed since (spec WI16).

mod since;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderName, StatusCode, header},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as JsonValue};
use syncline_core::{
    BucketId, RowKey, TableNumber, UserId,
    rules::{GranteeId, Identity},
    wire::code,
};
use syncline_store::{HashesRead, Head, Reader, StorageError};

use since::Since;

use super::{
    super::{Backend, Shared, caller::Caller, error::ApiError},
    cursor::{At, Place},
    length::Length,
    value::{key_to_json, row_to_json},
};
use crate::{SessionContext, sight::Sight};

const LIMIT_DEFAULT: usize = 500;
const LIMIT_MAX: usize = 5_000;
/// An answer ends with the row that makes it so long: nobody may be reading it.
const ANSWER_BYTES: usize = 1024 * 1024;
/// Rows read at once.
const ROWS_AT_ONCE: usize = 64;
/// Tables below are the engine's own: pulled only by name.
const FIRST_TABLE: TableNumber = TableNumber(16);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PullQuery {
    cursor: Option<String>,
    /// Names, separated by commas; all without it.
    tables: Option<String>,
    limit: Option<usize>,
}

#[derive(Debug, Serialize)]
pub(crate) struct PullResponse {
    /// Everything pulled before is to be forgotten: this starts over.
    reset: bool,
    rows: Vec<PulledRow>,
    removed: Vec<RemovedRow>,
    /// Where the next pull goes on.
    cursor: String,
    /// More is there already.
    more: bool,
}

#[derive(Debug, Serialize)]
struct PulledRow {
    table: String,
    version: u64,
    owner: Option<String>,
    row: Map<String, JsonValue>,
}

#[derive(Debug, Serialize)]
struct RemovedRow {
    table: String,
    key: Map<String, JsonValue>,
}

type Answer = ([(HeaderName, &'static str); 1], Json<PullResponse>);

pub(crate) async fn pull<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    Caller(proof): Caller,
    query: Result<Query<PullQuery>, QueryRejection>,
) -> Result<Answer, ApiError> {
    let identity = proof.identity;
    let malformed =
        |sentence: String| ApiError::new(StatusCode::BAD_REQUEST, code::MALFORMED, sentence);
    let Query(query) = query.map_err(|rejection| malformed(rejection.body_text()))?;
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(malformed(format!("`limit` is 1 to {LIMIT_MAX}")));
    }
    let context = shared.context();
    let tables = tables(&context, query.tables.as_deref())?;
    let pull = Pull {
        context,
        identity: Arc::clone(&identity),
        tables,
        limit,
        bytes: Length::default(),
        rows: Vec::new(),
        removed: Vec::new(),
    };
    let runtime = tokio::runtime::Handle::current();
    let read =
        move |reader: &mut B::Reader| runtime.block_on(pull.run(reader, query.cursor.as_deref()));
    let response = shared.read_for(&identity, read).await?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(response)))
}

fn tables(context: &SessionContext, names: Option<&str>) -> Result<Vec<TableNumber>, ApiError> {
    let schema = context.plan.schema();
    let mut tables = BTreeSet::new();
    match names {
        None => {
            let all = schema.tables.iter().map(|table| table.number);
            tables.extend(all.filter(|number| *number >= FIRST_TABLE));
        }
        Some(names) => {
            for name in names
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
            {
                let Some(table) = schema.table(name) else {
                    let sentence = format!("this server does not sync a table `{name}`");
                    return Err(ApiError::new(StatusCode::NOT_FOUND, code::SCHEMA, sentence));
                };
                tables.insert(table.number);
            }
        }
    }
    Ok(tables.into_iter().collect())
}

/// One pull: its answer as it grows.
struct Pull {
    context: Arc<SessionContext>,
    identity: Arc<Identity>,
    tables: Vec<TableNumber>,
    limit: usize,
    /// Of rows and keys as they are sent.
    bytes: Length,
    rows: Vec<PulledRow>,
    removed: Vec<RemovedRow>,
}

/// What the reader may see, at one version of the log.
struct View {
    sight: Sight,
    head: Head,
    grantees: BTreeSet<GranteeId>,
    /// By how many grantees (or for ever) each bucket is granted.
    counts: BTreeMap<BucketId, i64>,
}

/// The pull cannot go on where it stopped.
struct StartOver;

impl Pull {
    async fn run<R: Reader>(
        mut self,
        reader: &mut R,
        cursor: Option<&str>,
    ) -> Result<PullResponse, StorageError> {
        let view = self.view(reader).await?;
        if let Some(place) = self.place(reader, &view, cursor).await? {
            let end = if matches!(place.at, At::Load(..)) {
                Ok(self.load(reader, &view, place).await?)
            } else {
                self.follow(reader, &view, place).await?
            };
            match end {
                Ok(place) => return Ok(self.answer(false, place, &view)),
                Err(StartOver) => {
                    (self.rows, self.removed, self.bytes) =
                        (Vec::new(), Vec::new(), Length::default());
                }
            }
        }
        let start = Place {
            version: view.head.version,
            tag: view.head.tag,
            tables: self.tables.clone(),
            at: self.beginning_of(0),
        };
        let place = self.load(reader, &view, start).await?;
        Ok(self.answer(true, place, &view))
    }

    fn answer(self, reset: bool, place: Place, view: &View) -> PullResponse {
        let cursor = place.encode(&self.context.secret, &self.user());
        PullResponse {
            reset,
            rows: self.rows,
            removed: self.removed,
            cursor,
            more: place.at != At::End || place.version < view.head.version,
        }
    }

    fn user(&self) -> UserId {
        let user = self.identity.user.clone();
        user.unwrap_or_else(|| UserId(String::new()))
    }

    async fn view<R: Reader>(&self, reader: &mut R) -> Result<View, StorageError> {
        let granted = self.context.plan.rules().reader(&self.identity);
        let (head, grants) = reader.grants(&granted.grantees).await?;
        let mut counts = BTreeMap::new();
        let fixed = granted.fixed.iter().copied();
        for bucket in fixed.chain(grants.iter().map(|(grant, _)| grant.bucket)) {
            *counts.entry(bucket).or_insert(0) += 1;
        }
        Ok(View {
            grantees: granted.grantees.iter().copied().collect(),
            sight: Sight::new(granted, &grants, head.version),
            head,
            counts,
        })
    }

    /// The cursor's place, if it is one of this log, these tables and these rules.
    async fn place<R: Reader>(
        &self,
        reader: &mut R,
        view: &View,
        cursor: Option<&str>,
    ) -> Result<Option<Place>, StorageError> {
        let read = |text| Place::decode(text, &self.context.secret, &self.user());
        let Some(place) = cursor.and_then(read) else {
            return Ok(None);
        };
        let is_known = place.tables == self.tables
            && place.version >= view.head.horizon
            && place.version >= view.head.rules_since
            && reader.tag_at(place.version).await? == Some(place.tag);
        Ok(is_known.then_some(place))
    }

    /// Where loading goes on with the table at this index.
    fn beginning_of(&self, index: usize) -> At {
        let table = self.tables.get(index);
        table.map_or(At::End, |table| At::Load(*table, None))
    }

    fn is_full(&self) -> bool {
        self.rows.len() + self.removed.len() >= self.limit || self.is_long()
    }

    fn is_long(&self) -> bool {
        self.bytes.bytes() >= ANSWER_BYTES
    }

    /// Reads on where loading stopped.
    async fn load<R: Reader>(
        &mut self,
        reader: &mut R,
        view: &View,
        mut place: Place,
    ) -> Result<Place, StorageError> {
        while let At::Load(table, after) = &place.at {
            if self.is_full() {
                break;
            }
            let (table, after) = (*table, after.clone());
            let buckets = self.buckets_of(view, table);
            let want = (self.limit - self.rows.len()).min(ROWS_AT_ONCE);
            let found = match buckets.is_empty() {
                true => HashesRead::default(),
                false => reader.hashes(table, &buckets, after.as_ref(), want).await?,
            };
            let keys: Vec<RowKey> = found.rows.into_iter().map(|row| row.key).collect();
            let read = self.read(reader, view, table, &keys, false).await?;
            let next = match read < keys.len() {
                true => read
                    .checked_sub(1)
                    .map_or(after, |last| keys.get(last).cloned()),
                false => found.next,
            };
            place.at = match next {
                None if read == keys.len() => {
                    self.beginning_of(self.tables.partition_point(|t| *t <= table))
                }
                next => At::Load(table, next),
            };
        }
        Ok(place)
    }

    fn buckets_of(&self, view: &View, table: TableNumber) -> Vec<BucketId> {
        let rules = self.context.plan.rules();
        let buckets = view.sight.buckets();
        buckets
            .filter(|bucket| rules.tables_of(*bucket).contains(&table))
            .collect()
    }

    /// Takes the rows with these keys as they are now: those that may be seen, and where
    /// `removing`, the names of those that may not. A row that changed after `view` is left to
    /// the next pull, so that nothing is shown under grants it did not have. How many keys were
    /// looked at: fewer than all once the answer is long enough.
    async fn read<R: Reader>(
        &mut self,
        reader: &mut R,
        view: &View,
        table: TableNumber,
        keys: &[RowKey],
        removing: bool,
    ) -> Result<usize, StorageError> {
        let context = Arc::clone(&self.context);
        let Some(declared) = context.plan.schema().by_number(table) else {
            return Ok(keys.len());
        };
        let mut done = 0;
        while done < keys.len() && !self.is_long() {
            let next = &keys[done..keys.len().min(done + ROWS_AT_ONCE)];
            let room = ANSWER_BYTES - self.bytes.bytes();
            let read = reader.rows(table, next, room).await?;
            let mut found = BTreeMap::new();
            for (key, row, meta) in read.rows {
                found.insert(key, (row, meta));
            }
            for key in next.iter().take(read.looked_at) {
                if self.is_long() {
                    break;
                }
                done += 1;
                let row = found.remove(key);
                if row
                    .as_ref()
                    .is_some_and(|(_, meta)| meta.version > view.head.version)
                {
                    continue;
                }
                let visible = row
                    .filter(|(_, meta)| meta.buckets.iter().any(|bucket| view.sight.sees(bucket)));
                if let Some((row, meta)) = visible {
                    let row = PulledRow {
                        table: declared.name.clone(),
                        version: meta.version.0,
                        owner: meta.owner.map(|owner| owner.0),
                        row: row_to_json(declared, &row),
                    };
                    self.bytes.add(&row);
                    self.rows.push(row);
                } else if removing {
                    let row = RemovedRow {
                        table: declared.name.clone(),
                        key: key_to_json(declared, key),
                    };
                    self.bytes.add(&row);
                    self.removed.push(row);
                }
            }
        }
        Ok(done)
    }

    /// Follows the log from `place`, whole changesets until the answer is full; one that makes it
    /// too long goes on with the next pull.
    async fn follow<R: Reader>(
        &mut self,
        reader: &mut R,
        view: &View,
        mut place: Place,
    ) -> Result<Result<Place, StartOver>, StorageError> {
        let since = Since::read(reader, view, &self.tables, place.version).await?;
        let Some(since) = since else {
            return Ok(Err(StartOver));
        };
        let Ok(gained) = since.gained(view) else {
            return Ok(Err(StartOver));
        };
        let mut told = BTreeSet::new();
        for entry in since.entries {
            if self.is_full() {
                return Ok(Ok(place));
            }
            let mut rows = BTreeSet::new();
            // What became visible here is all new to the reader.
            for bucket in gained.iter().filter(|(_, at)| **at == entry.version) {
                let tables = self.context.plan.rules().tables_of(*bucket.0).to_vec();
                for table in tables.into_iter().filter(|t| self.tables.contains(t)) {
                    let most = self.limit + 1;
                    let found = reader.hashes(table, &[*bucket.0], None, most).await?;
                    if found.rows.len() == most {
                        return Ok(Err(StartOver));
                    }
                    // Another program's write is not settled yet.
                    if found.next.is_some() {
                        return Err(StorageError::Busy);
                    }
                    let found = found.rows.into_iter();
                    rows.extend(found.map(|row| (table, row.key)));
                }
            }
            for (table, key, buckets) in entry.keys {
                // Before it was gained, a bucket's rows were not the reader's business.
                let known =
                    |bucket: &BucketId| gained.get(bucket).is_none_or(|at| *at < entry.version);
                if buckets.iter().any(known) {
                    rows.insert((table, key));
                }
            }
            if let At::Within(table, key) = std::mem::replace(&mut place.at, At::End) {
                rows = rows.split_off(&(table, key.clone()));
                rows.remove(&(table, key));
            }
            let mut by_table: BTreeMap<TableNumber, Vec<RowKey>> = BTreeMap::new();
            for (table, key) in rows {
                if told.insert((table, key.clone())) {
                    by_table.entry(table).or_default().push(key);
                }
            }
            let mut last = None;
            for (table, keys) in by_table {
                let read = self.read(reader, view, table, &keys, true).await?;
                let next = read.checked_sub(1).and_then(|at| keys.get(at));
                last = next.map(|key| (table, key.clone())).or(last);
                if read < keys.len()
                    && let Some((table, key)) = last
                {
                    place.at = At::Within(table, key);
                    return Ok(Ok(place));
                }
            }
            (place.version, place.tag) = (entry.version, entry.tag);
        }
        Ok(Ok(place))
    }
}
