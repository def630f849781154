//! `/v1/schema`: what syncs, for `attach` and `hydrate`; with `--dev` a device may add tables.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use syncline_core::{
    config::Config,
    schema::RuleTexts,
    wire::{SchemaInfo, code},
};
use tokio::sync::oneshot;

use super::{
    Backend, Shared, caller::Caller, committer::Request, error::ApiError, shared::stopping,
};

const CBOR: &str = "application/cbor";
/// The rule of a table that a device added: every row private to its owner.
const OWN_ROWS: &str = "_owner = auth.uid()";

/// The schema as CBOR, as Welcome carries it.
pub(crate) async fn get<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    _caller: Caller,
) -> Result<Response, ApiError> {
    Ok(answer(&shared.context().info))
}

#[derive(Deserialize)]
pub(crate) struct OfferQuery {
    /// Nothing is added: the answer is what the schema would be.
    #[serde(default)]
    dry_run: bool,
}

/// Adds the tables the server does not have yet (`--dev` only) and answers the whole schema.
pub(crate) async fn offer<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    _caller: Caller,
    query: Result<Query<OfferQuery>, QueryRejection>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let malformed = |why: String| ApiError::new(StatusCode::BAD_REQUEST, code::MALFORMED, why);
    let Query(query) = query.map_err(|rejection| malformed(rejection.body_text()))?;
    let offered: SchemaInfo =
        minicbor::decode(&body).map_err(|error| malformed(error.to_string()))?;
    let _alone = shared.adding_tables.lock().await;
    let context = shared.context();
    let unknown: Vec<_> = offered
        .to_schema()
        .tables
        .into_iter()
        .filter(|table| context.plan.schema().table(&table.name).is_none())
        .collect();
    if unknown.is_empty() {
        return Ok(answer(&context.info));
    }
    if !shared.dev {
        let names: Vec<_> = unknown.iter().map(|table| table.name.as_str()).collect();
        let sentence = format!(
            "this server does not sync {}: add it to syncline.toml (`syncline init --from` \
             writes one) and restart the server",
            names.join(", ")
        );
        return Err(ApiError::new(StatusCode::FORBIDDEN, code::SCHEMA, sentence));
    }
    let mut config = shared.config.read().clone();
    let mut all = context.plan.schema().clone();
    all.tables.extend(unknown.iter().cloned());
    for mut table in unknown {
        let lower = table.name.to_ascii_lowercase();
        if lower.starts_with("syncline_") || lower.starts_with("sqlite_") {
            let sentence = format!("`{}` is a reserved name", table.name);
            return Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                code::SCHEMA,
                sentence,
            ));
        }
        // An app that leaves foreign keys off may declare some that lead nowhere.
        table.foreign_keys.retain(|key| all.can_refer(key));
        table.rules = RuleTexts {
            read: Some(OWN_ROWS.into()),
            write: Some(OWN_ROWS.into()),
            ..RuleTexts::default()
        };
        config.schema.tables.push(table);
    }
    // What cannot be read again would keep the server from starting.
    if let Err(mistakes) = Config::parse("the table", &config.to_toml()) {
        let lines: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
        let status = StatusCode::BAD_REQUEST;
        return Err(ApiError::new(status, code::SCHEMA, lines.join("; ")));
    }
    if query.dry_run {
        return Ok(answer(&SchemaInfo::from_schema(&all)));
    }
    // Kept before they are made: after a crash the next start makes them, and never finds tables
    // that nobody declares.
    shared.remember(&config).map_err(unkept)?;
    let (answered, applied) = oneshot::channel();
    shared
        .request(Request::Schema(Box::new(config.clone()), answered))
        .await?;
    let context = match applied.await.map_err(|_| stopping())? {
        Ok(context) => context,
        Err(sentence) => {
            let before = shared.config.read().clone();
            shared.remember(&before).map_err(unkept)?;
            let status = StatusCode::BAD_REQUEST;
            return Err(ApiError::new(status, code::SCHEMA, sentence));
        }
    };
    *shared.config.write() = config;
    Ok(answer(&context.info))
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
fn unkept(error: std::io::Error) -> ApiError {
    tracing::error!(%error, "the added tables cannot be kept in the data folder");
    let sentence = "the server cannot write into its data folder; its log says why";
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, code::STORAGE, sentence)
}

fn answer(info: &SchemaInfo) -> Response {
    match minicbor::to_vec(info) {
        Ok(bytes) => ([(header::CONTENT_TYPE, CBOR)], bytes).into_response(),
        Err(error) => ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            code::SCHEMA,
            error.to_string(),
        )
        .into_response(),
    }
}
