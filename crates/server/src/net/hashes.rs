//! `/v1/hashes`: keys, versions and content hashes of the rows a user may see, for `verify` and
//! for comparing before `attach`.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use syncline_core::{
    BucketId, ColumnNumber, RowKey, TableNumber,
    rules::Identity,
    wire::{Subscription, code},
};
use syncline_store::{Reader, StorageError};

use super::{Backend, Shared, body::Body, caller::Caller, error::ApiError};
use crate::demand::Demand;

/// Most rows of one answer.
const ROWS_MAX: usize = 10_000;

/// What is asked: rows of `table` after the key `after` (base64 of its encoding).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HashesRequest {
    table: String,
    #[serde(default)]
    after: Option<String>,
    /// What the asker's file subscribes to: of tables that sync on demand no other rows are told.
    /// Without it, all that may be seen.
    #[serde(default)]
    subscriptions: Option<Vec<Asked>>,
}

/// As [`Subscription`], the key in base64.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    table: u32,
    column: Option<u32>,
    key: Option<String>,
}

/// In key order: key (base64), version, content hash (16 hexadecimal digits).
#[derive(Debug, Serialize)]
pub(crate) struct HashesResponse {
    rows: Vec<(String, u64, String)>,
    /// Ask on with this as `after`; `None` at the end.
    next: Option<String>,
}

pub(crate) async fn hashes<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    Caller(proof): Caller,
    Body(request): Body<HashesRequest>,
) -> Result<Json<HashesResponse>, ApiError> {
    let identity = proof.identity;
    let context = shared.context();
    let Some(table) = context
        .plan
        .schema()
        .table(&request.table)
        .map(|table| table.number)
    else {
        let sentence = format!("this server does not sync a table `{}`", request.table);
        return Err(ApiError::new(StatusCode::NOT_FOUND, code::SCHEMA, sentence));
    };
    let after = match request.after {
        Some(text) => Some(key(&text)?),
        None => None,
    };
    let demand = match request.subscriptions {
        Some(asked) => demand(&context, asked)?,
        None => Demand::all(),
    };
    let runtime = tokio::runtime::Handle::current();
    let reading = Arc::clone(&identity);
    let found = shared
        .read_for(&reading, move |reader| {
            runtime.block_on(async {
                loop {
                    let mut buckets = visible(&context, &identity, table, reader).await?;
                    buckets.retain(|bucket| demand.includes(bucket));
                    let found = reader
                        .hashes(table, &buckets, after.as_ref(), ROWS_MAX)
                        .await?;
                    // A grant may have been lost between the two reads.
                    let still = visible(&context, &identity, table, reader).await?;
                    if buckets.iter().all(|b| still.binary_search(b).is_ok()) {
                        return Ok(found);
                    }
                }
            })
        })
        .await?;
    let next = found.next;
    let next = next.map(|key| BASE64_STANDARD.encode(key.as_bytes()));
    let rows = found
        .rows
        .iter()
        .map(|row| {
            let key = BASE64_STANDARD.encode(row.key.as_bytes());
            (key, row.version.0, format!("{:016x}", row.hash))
        })
        .collect();
    Ok(Json(HashesResponse { rows, next }))
}

/// The buckets of `table` that `identity` is granted now.
pub(crate) async fn visible<R: Reader>(
    context: &crate::SessionContext,
    identity: &Identity,
    table: TableNumber,
    reader: &mut R,
) -> Result<Vec<BucketId>, StorageError> {
    let granted = context.plan.rules().reader(identity);
    let (_, grants) = reader.grants(&granted.grantees).await?;
    let mut buckets = granted.fixed;
    buckets.extend(grants.iter().map(|(grant, _)| grant.bucket));
    buckets.retain(|bucket| context.plan.rules().tables_of(*bucket).contains(&table));
    buckets.sort_unstable();
    buckets.dedup();
    Ok(buckets)
}

fn demand(context: &crate::SessionContext, asked: Vec<Asked>) -> Result<Demand, ApiError> {
    let mut wanted = Vec::with_capacity(asked.len());
    for one in asked {
        let key = match one.key {
            Some(text) => Some(key(&text)?.as_bytes().to_vec()),
            None => None,
        };
        wanted.push(Subscription {
            table: TableNumber(one.table),
            column: one.column.map(ColumnNumber),
            key,
        });
    }
    Ok(context.demand_of(&wanted).0)
}

fn key(text: &str) -> Result<RowKey, ApiError> {
    let bytes = BASE64_STANDARD.decode(text).ok();
    bytes
        .and_then(|bytes| RowKey::from_bytes(&bytes).ok())
        .ok_or_else(|| {
            let sentence = "`after` is no encoded key: pass back `next` as it came";
            ApiError::new(StatusCode::BAD_REQUEST, code::MALFORMED, sentence)
        })
}
