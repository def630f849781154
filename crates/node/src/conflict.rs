//! Conflicts and decisions.

use serde_json::{Value as Json, json};
use syncline::{
    BoxFuture, Conflict, ConflictCase, ConflictKind, Resolution, Resolver, Timestamp, resolvers,
};

use crate::{
    cell,
    failure::Failure,
    js::{self, Decide},
};

/// A conflict of the inbox.
pub(crate) fn to_json(conflict: &Conflict) -> Json {
    // They are JSON already; null stands for a row or value that is not there.
    let value = |text: &Option<String>| -> Json {
        let text = text.as_deref().unwrap_or("null");
        serde_json::from_str(text).unwrap_or_else(|_| json!(text))
    };
    json!({
        "id": conflict.id,
        "entityType": conflict.table,
        "key": cell::list(&conflict.key),
        "column": conflict.column,
        "kind": match conflict.kind {
            ConflictKind::Manual => "manual",
            ConflictKind::Deleted => "deleted",
        },
        "base": value(&conflict.base),
        "mine": value(&conflict.mine),
        "theirs": value(&conflict.theirs),
        "other": conflict.other,
        "openedAt": conflict.opened_at.as_millis(),
        "open": conflict.open,
    })
}

/// A conflict as a resolver sees it.
fn case_to_json(case: &ConflictCase) -> Json {
    let at = |at: Option<Timestamp>| at.map(Timestamp::as_millis);
    let mut json = to_json(&case.conflict);
    json["localData"] = cell::record(&case.local_data);
    json["remoteData"] = cell::record(&case.remote_data);
    json["localTimestamp"] = json!(at(case.local_timestamp));
    json["remoteTimestamp"] = json!(at(case.remote_timestamp));
    json
}

/// What a ready-made resolver goes by; the rest of a conflict may be missing.
fn case_from_json(json: &Json) -> Result<ConflictCase, Failure> {
    let text = |name: &str| json[name].as_str().map(str::to_owned);
    let at = |name: &str| {
        json[name]
            .as_u64()
            .map(|ms| Timestamp(ms.saturating_mul(1_000)))
    };
    Ok(ConflictCase {
        conflict: Conflict {
            id: text("id").unwrap_or_default(),
            table: text("entityType").unwrap_or_default(),
            key: Vec::new(),
            column: text("column"),
            kind: ConflictKind::Manual,
            base: None,
            mine: None,
            theirs: None,
            other: text("other"),
            opened_at: at("openedAt").unwrap_or_default(),
            open: true,
        },
        local_data: cell::record_from(&json["localData"])?,
        remote_data: cell::record_from(&json["remoteData"])?,
        local_timestamp: at("localTimestamp"),
        remote_timestamp: at("remoteTimestamp"),
    })
}

/// `"local"`, `"remote"`, `{ value }`, or null to leave it open.
pub(crate) fn resolution(json: &Json) -> Result<Option<Resolution>, Failure> {
    match json {
        Json::Null => return Ok(None),
        Json::String(side) if side == "local" => return Ok(Some(Resolution::Mine)),
        Json::String(side) if side == "remote" => return Ok(Some(Resolution::Theirs)),
        Json::Object(answer) => {
            if let Some(value) = answer.get("value") {
                return Ok(Some(Resolution::Value(cell::from_json(value)?)));
            }
        }
        Json::String(_) | Json::Bool(_) | Json::Number(_) | Json::Array(_) => {}
    }
    Err(Failure::call(&format!(
        "{json} decides nothing: it is 'local', 'remote', {{ value }} or null"
    )))
}

fn resolution_to_json(resolution: Option<&Resolution>) -> Json {
    match resolution {
        None => Json::Null,
        Some(Resolution::Mine) => json!("local"),
        Some(Resolution::Theirs) => json!("remote"),
        Some(Resolution::Value(value)) => json!({ "value": cell::to_json(value) }),
    }
}

/// A resolver of the app's, in JavaScript.
pub(crate) struct Scripted(pub(crate) Decide);

impl Resolver for Scripted {
    fn resolve(&self, case: ConflictCase) -> BoxFuture<'static, Option<Resolution>> {
        let decide = self.0.clone();
        Box::pin(async move {
            let answer = js::ask(&decide, case_to_json(&case).to_string()).await?;
            let answer = serde_json::from_str(&answer).ok()?;
            resolution(&answer).ok()?
        })
    }
}

/// What the ready-made resolver `name` says to a conflict.
pub(crate) async fn decide(name: &str, case: &Json) -> Result<Json, Failure> {
    let case = case_from_json(case)?;
    let answer = match name {
        "newest" => resolvers::newest().resolve(case).await,
        "local" => resolvers::local().resolve(case).await,
        "remote" => resolvers::remote().resolve(case).await,
        "notification" => resolvers::notification().resolve(case).await,
        "project" => resolvers::project().resolve(case).await,
        "settings" => resolvers::settings().resolve(case).await,
        _ => return Err(Failure::call(&format!("there is no resolver {name}"))),
    };
    Ok(resolution_to_json(answer.as_ref()))
}
