//! `GET /v1/audit`: the audit log, for administrators (spec AC10).

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use syncline_core::wire::code;
use syncline_store::accounts::{AuditRecord, AuditWant};

use super::{Backend, Shared, accounts::http::accounts, error::ApiError};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditQuery {
    /// Only records before the one with this number.
    before: Option<u64>,
    kind: Option<String>,
    user: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct AuditResponse {
    records: Vec<RecordResponse>,
}

#[derive(Serialize)]
struct RecordResponse {
    number: u64,
    at_ms: u64,
    kind: String,
    actor: String,
    subject: String,
    address: String,
    detail: String,
}

impl From<AuditRecord> for RecordResponse {
    fn from(record: AuditRecord) -> Self {
        let event = record.event;
        Self {
            number: record.number,
            at_ms: event.at.as_millis(),
            kind: event.kind,
            actor: event.actor,
            subject: event.subject,
            address: event.address,
            detail: event.detail,
        }
    }
}

pub(crate) async fn list<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    headers: HeaderMap,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    shared.check_admin(&headers).await?;
    let malformed =
        |sentence: String| ApiError::new(StatusCode::BAD_REQUEST, code::MALFORMED, sentence);
    let Query(query) = query.map_err(|rejection| malformed(rejection.body_text()))?;
    let max = query.limit.unwrap_or(LIMIT_DEFAULT);
    if max == 0 || max > LIMIT_MAX {
        let sentence = format!("limit is {max}: write a number from 1 to {LIMIT_MAX}");
        return Err(malformed(sentence));
    }
    let want = AuditWant {
        before: query.before,
        kind: query.kind,
        user: query.user,
        max,
    };
    let records = accounts(&shared)?.audit(want).await?;
    let records = records.into_iter().map(RecordResponse::from).collect();
    let header = [(header::CACHE_CONTROL, "no-store")];
    Ok((header, Json(AuditResponse { records })).into_response())
}
