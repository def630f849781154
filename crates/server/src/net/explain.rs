//! Who can see and write a row, and what somebody can see and write, with the reasons in words
//! (spec RU27): for `syncline explain`, and for administrators over HTTP.

mod answer;

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Map, Value as JsonValue, json};
use syncline_core::{
    BucketId, ColumnType, RowKey, Schema, Table, UserId, Value,
    builtin::FIRST_OWN,
    rules::{Action, Facts as _, Identity, Permitted, Proposed, Rules, Stored, Verdict},
    wire::code,
};
use syncline_store::{DeviceState, Missing, Reader, Snapshot, StorageError, inspect};

use super::{
    Backend, Shared,
    devices::DEVICES_MAX,
    error::ApiError,
    json::{columns_from_json, device_of, key_to_json},
};

pub use answer::{named, verdict_json};

/// Rows that are looked at in one snapshot.
const PORTION: usize = 200;
/// Most rows of a table that are looked at for one answer over HTTP.
const ROWS_MAX: usize = 10_000;
/// What is explained of a row that is there.
const OF_A_ROW: [Action; 3] = [Action::Read, Action::Update, Action::Delete];

/// The tables and rules that are asked.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub schema: &'a Schema,
    pub rules: &'a Rules,
}

/// Who may do what with a row.
#[derive(Debug, Clone, PartialEq)]
pub struct RowPeople {
    pub table: String,
    pub key: RowKey,
    pub people: Vec<(Action, Vec<Permitted>)>,
}

/// What somebody may do with a row, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct RowAccess {
    pub table: String,
    pub key: RowKey,
    pub verdicts: Vec<(Action, Verdict)>,
    /// `None` where it may not be read, or comes unasked.
    pub on_demand: Option<OnDemand>,
}

/// How a row of which nothing comes unasked reaches the devices of somebody who may read it.
#[derive(Debug, Clone, PartialEq)]
pub struct OnDemand {
    /// What to subscribe to for it, in words.
    pub ask: Vec<String>,
    /// Which of their devices do; `None` where no running server was asked.
    pub devices: Option<Vec<Asking>>,
    buckets: Vec<BucketId>,
}

/// Whether one device is sent a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asking {
    pub device: String,
    /// `None` while it is not connected: it tells when it connects.
    pub asks: Option<bool>,
}

/// What somebody may see of a table.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TableAccess {
    pub table: String,
    /// The rules of the table in words, a line each.
    pub rules: String,
    /// Rows that were looked at; `more`: there are others.
    pub rows: usize,
    pub more: bool,
    pub readable: usize,
    pub updatable: usize,
    /// How many rows each alternative of the read rule lets through.
    pub by: BTreeMap<String, usize>,
}

impl Asked<'_> {
    /// Who may do what with a row; `None`: there is no such row.
    ///
    /// # Errors
    /// As every read.
    pub async fn people<R: Reader>(
        &self,
        reader: &mut R,
        table: &Table,
        key: &RowKey,
    ) -> Result<Option<RowPeople>, StorageError> {
        let people = inspect(reader, |facts| {
            let Some(row) = facts.stored(table.number, key)? else {
                return Ok(None);
            };
            let of = |action| {
                let people = self.rules.permitted(self.schema, action, &row, facts)?;
                Ok((action, people))
            };
            all(OF_A_ROW.map(of)).map(Some)
        });
        Ok(people.await?.map(|people| RowPeople {
            table: table.name.clone(),
            key: key.clone(),
            people,
        }))
    }

    /// What `identity` may do with a row; `None`: there is no such row.
    ///
    /// # Errors
    /// As every read.
    pub async fn access<R: Reader>(
        &self,
        reader: &mut R,
        identity: &Identity,
        table: &Table,
        key: &RowKey,
    ) -> Result<Option<RowAccess>, StorageError> {
        let verdicts = inspect(reader, |facts| {
            let Some(row) = facts.stored(table.number, key)? else {
                return Ok(None);
            };
            let of = |action| Ok((action, self.verdict(identity, action, &row, facts)?));
            let verdicts = all(OF_A_ROW.map(of))?;
            let is_read =
                |(action, verdict): &(Action, Verdict)| *action == Action::Read && verdict.allowed;
            let on_demand = match verdicts.iter().any(is_read) {
                true => self.on_demand(identity, table, &row, facts)?,
                false => None,
            };
            Ok(Some((verdicts, on_demand)))
        });
        Ok(verdicts.await?.map(|(verdicts, on_demand)| RowAccess {
            table: table.name.clone(),
            key: key.clone(),
            verdicts,
            on_demand,
        }))
    }

    fn on_demand(
        &self,
        identity: &Identity,
        table: &Table,
        row: &Stored,
        facts: &Snapshot,
    ) -> Result<Option<OnDemand>, Missing> {
        if !self.rules.comes_only_asked(table.number) {
            return Ok(None);
        }
        let wanted = self.rules.wanted_for(row, identity);
        Ok(Some(OnDemand {
            ask: wanted
                .iter()
                .map(|one| answer::wanted(table, one))
                .collect(),
            devices: None,
            buckets: self.rules.buckets(row, facts)?,
        }))
    }

    /// What `identity` may see of a table's first `rows_max` rows; `seen` is told each row that
    /// may be read, with the first reason that holds.
    ///
    /// # Errors
    /// As every read.
    pub async fn table<R: Reader>(
        &self,
        reader: &mut R,
        identity: &Identity,
        table: &Table,
        rows_max: usize,
        mut seen: impl FnMut(&RowKey, &Verdict),
    ) -> Result<TableAccess, StorageError> {
        let mut access = TableAccess {
            table: table.name.clone(),
            rules: self.rules.describe(&table.name),
            ..TableAccess::default()
        };
        let mut after: Option<RowKey> = None;
        loop {
            let left = rows_max - access.rows;
            let wanted = PORTION.min(left) + 1;
            let mut keys = reader.keys(table.number, after.as_ref(), wanted).await?;
            let has_more = keys.len() == wanted;
            keys.truncate(PORTION.min(left));
            for (key, read, may_update) in self.portion(reader, identity, table, &keys).await? {
                access.rows += 1;
                access.updatable += usize::from(may_update);
                if !read.allowed {
                    continue;
                }
                access.readable += 1;
                for reason in read.reasons.iter().filter(|reason| reason.holds) {
                    *access.by.entry(reason.rule.clone()).or_default() += 1;
                }
                seen(&key, &read);
            }
            after = keys.pop();
            access.more = has_more;
            if !has_more || access.rows >= rows_max || after.is_none() {
                return Ok(access);
            }
        }
    }

    async fn portion<R: Reader>(
        &self,
        reader: &mut R,
        identity: &Identity,
        table: &Table,
        keys: &[RowKey],
    ) -> Result<Vec<(RowKey, Verdict, bool)>, StorageError> {
        inspect(reader, |facts| {
            let of = |key: &RowKey| {
                let Some(row) = facts.stored(table.number, key)? else {
                    return Ok(None);
                };
                let read = self.verdict(identity, Action::Read, &row, facts)?;
                let update = self.verdict(identity, Action::Update, &row, facts)?;
                Ok(Some((key.clone(), read, update.allowed)))
            };
            let found = all(keys.iter().map(of))?;
            Ok(found.into_iter().flatten().collect())
        })
        .await
    }

    fn verdict(
        &self,
        identity: &Identity,
        action: Action,
        row: &Stored,
        facts: &Snapshot,
    ) -> Result<Verdict, Missing> {
        let after = (action == Action::Update).then(|| row.clone());
        let change = Proposed {
            before: Some(row.clone()),
            after,
        };
        self.rules
            .explain(self.schema, identity, action, &change, facts)
    }
}

/// All of it, or everything that is missing for that.
fn all<T>(items: impl IntoIterator<Item = Result<T, Missing>>) -> Result<Vec<T>, Missing> {
    let (mut found, mut wants) = (Vec::new(), Vec::new());
    for item in items {
        match item {
            Ok(item) => found.push(item),
            Err(missing) => wants.extend(missing.0),
        }
    }
    if wants.is_empty() {
        Ok(found)
    } else {
        Err(Missing(wants))
    }
}

/// The key that somebody wrote as texts, one for each of its columns.
///
/// # Errors
/// A sentence for whoever wrote it.
pub fn key_of_texts(table: &Table, texts: &[String]) -> Result<RowKey, String> {
    let columns: Vec<_> = table
        .primary_key
        .iter()
        .map(|&at| &table.columns[at])
        .collect();
    if columns.len() != texts.len() {
        let names: Vec<&str> = columns.iter().map(|column| &*column.name).collect();
        return Err(format!(
            "the key of {} is {}: give {} of them",
            table.name,
            names.join(", "),
            columns.len()
        ));
    }
    let values = columns.iter().zip(texts).map(|(column, text)| {
        let value = match column.ty {
            ColumnType::Integer | ColumnType::Real | ColumnType::Any => {
                match (text.parse::<i64>(), text.parse::<f64>()) {
                    (Ok(n), _) => Value::Integer(n),
                    (_, Ok(x)) if column.ty != ColumnType::Any => Value::Real(x),
                    _ => Value::Text(text.clone()),
                }
            }
            ColumnType::Boolean => match text.as_str() {
                "true" | "1" => Value::Integer(1),
                "false" | "0" => Value::Integer(0),
                _ => Value::Text(text.clone()),
            },
            ColumnType::Text
            | ColumnType::Json
            | ColumnType::Blob
            | ColumnType::Timestamp
            | ColumnType::Uuid => Value::Text(text.clone()),
        };
        value.canonical(column.ty)
    });
    let values: Vec<Value> = values.collect();
    RowKey::encode(&values).map_err(|error| error.to_string())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExplainQuery {
    table: Option<String>,
    /// The key as JSON: a value, or a list of them.
    id: Option<String>,
    user: Option<String>,
    /// A JSON object.
    claims: Option<String>,
}

/// `GET /v1/admin/explain`.
pub(crate) async fn explain<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    headers: HeaderMap,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    shared.check_admin(&headers).await?;
    let Query(query) = query.map_err(|rejection| malformed(rejection.body_text()))?;
    let identity = identity_of(&query)?;
    let context = Arc::clone(&shared.context().plan);
    let find = |name: &String| {
        let found = context.schema().table(name).cloned();
        found.ok_or_else(|| not_found(format!("there is no table {name}")))
    };
    let table = query.table.as_ref().map(find).transpose()?;
    let key = match (&table, &query.id) {
        (Some(table), Some(id)) => Some(key_of_json(table, id)?),
        (None, Some(_)) => return Err(malformed("`id` needs a `table`".to_owned())),
        (_, None) => None,
    };
    if identity.is_none() && key.is_none() {
        let sentence = "give `table` and `id` of a row, or a `user`, or both";
        return Err(malformed(sentence.to_owned()));
    }
    let runtime = tokio::runtime::Handle::current();
    let readers = Arc::clone(&shared);
    let answer = readers.readers.run(move |reader| {
        let asked = Asked {
            schema: context.schema(),
            rules: context.rules(),
        };
        runtime.block_on(async {
            Ok(match (&table, &key, &identity) {
                (Some(table), Some(key), None) => {
                    let people = asked.people(reader, table, key).await?;
                    people.map(|people| people.to_json(table))
                }
                (Some(table), Some(key), Some(identity)) => {
                    let mut access = asked.access(reader, identity, table, key).await?;
                    let on_demand = access.as_mut().and_then(|access| access.on_demand.as_mut());
                    if let (Some(on_demand), Some(user)) = (on_demand, &identity.user) {
                        let devices = reader.devices(user, DEVICES_MAX).await?;
                        on_demand.devices = Some(asking(&shared, user, &devices, on_demand));
                    }
                    access.map(|access| access.to_json(table))
                }
                (table, _, identity) => {
                    let nobody = Identity::default();
                    let identity = identity.as_ref().unwrap_or(&nobody);
                    let all = table
                        .as_ref()
                        .map_or(&context.schema().tables[..], std::slice::from_ref);
                    let own = all
                        .iter()
                        .filter(|own| table.is_some() || own.number >= FIRST_OWN);
                    let mut told = Vec::new();
                    for table in own {
                        let access = asked.table(reader, identity, table, ROWS_MAX, |_, _| {});
                        told.push(access.await?.to_json());
                    }
                    Some(json!({ "tables": told }))
                }
            })
        })
    });
    match answer.await? {
        Some(answer) => {
            let header = [(header::CACHE_CONTROL, "no-store")];
            Ok((header, Json(answer)).into_response())
        }
        None => Err(not_found("there is no such row".to_owned())),
    }
}

/// Which of a user's devices are sent the row, as far as sessions are open.
fn asking<B: Backend>(
    shared: &Shared<B>,
    user: &UserId,
    devices: &[DeviceState],
    on_demand: &OnDemand,
) -> Vec<Asking> {
    let hidden = device_of(&shared.context(), user);
    let sent = shared.hub.lock().devices_with(&on_demand.buckets);
    let devices = devices.iter().filter(|device| device.id != hidden);
    let asking = devices.map(|device| Asking {
        device: device.name.clone(),
        asks: shared
            .presences
            .connected(device.id)
            .map(|_| sent.contains(&device.id)),
    });
    asking.collect()
}

fn identity_of(query: &ExplainQuery) -> Result<Option<Identity>, ApiError> {
    let claims = match &query.claims {
        None => BTreeMap::new(),
        Some(text) => serde_json::from_str(text)
            .map_err(|error| malformed(format!("`claims` is a JSON object: {error}")))?,
    };
    Ok(match (&query.user, claims.is_empty()) {
        (None, true) => None,
        (user, _) => Some(Identity {
            user: user.clone().filter(|user| !user.is_empty()).map(UserId),
            claims,
        }),
    })
}

fn key_of_json(table: &Table, text: &str) -> Result<RowKey, ApiError> {
    // A key that is no JSON is a text as it stands.
    let json = serde_json::from_str(text).unwrap_or_else(|_| JsonValue::String(text.to_owned()));
    let list = json
        .as_array()
        .map_or(std::slice::from_ref(&json), Vec::as_slice);
    let text = |value: &JsonValue| match value.as_str() {
        Some(text) => text.to_owned(),
        None => value.to_string(),
    };
    let texts: Vec<String> = list.iter().map(text).collect();
    key_of_texts(table, &texts).map_err(malformed)
}

fn malformed(sentence: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, code::MALFORMED, sentence)
}

fn not_found(sentence: String) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, super::http::NOT_FOUND, sentence)
}

/// Named values as JSON has them, by position of their columns.
///
/// # Errors
/// A sentence for whoever wrote them.
pub fn values_of_json(
    table: &Table,
    named: &Map<String, JsonValue>,
) -> Result<Vec<(usize, Value)>, String> {
    columns_from_json(table, named)
}
