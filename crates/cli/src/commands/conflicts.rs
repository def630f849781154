//! `syncline conflicts`: the inbox.

use serde_json::json;
use syncline::engine::{self, ClientError};
use syncline_core::Value;
use syncline_replica::{Conflict, ConflictKind, Replica, Resolution};

use super::keys;
use crate::{
    args::{ConflictAction, Conflicts},
    exit::{Exit, Failure},
    output::{Output, counted},
};

pub(crate) fn run(args: Conflicts, output: &Output) -> anyhow::Result<Exit> {
    let keys = keys(&args.encryption_key_file)?;
    let mut replica = engine::open_replica_with(&args.file, keys)?;
    let failed = |source| ClientError::replica(&args.file, source);
    match args.action.unwrap_or(ConflictAction::List { all: false }) {
        ConflictAction::List { all } => {
            let conflicts = replica.conflicts(!all).map_err(failed)?;
            for conflict in &conflicts {
                output.result(&headline(conflict), &object(conflict));
            }
            output.line(&match conflicts.len() {
                0 => "nothing to decide".to_owned(),
                n => format!(
                    "{}; syncline conflicts {} show ID",
                    counted(n as u64, "conflict"),
                    args.file.display()
                ),
            });
        }
        ConflictAction::Show { id } => {
            let conflict = find(&replica, &id, failed)?;
            let side = |value: &Option<String>| value.clone().unwrap_or_else(|| "–".to_owned());
            output.result(
                &format!(
                    "{}\n  base    {}\n  mine    {}\n  theirs  {}  ({})",
                    headline(&conflict),
                    side(&conflict.base),
                    side(&conflict.mine),
                    side(&conflict.theirs),
                    conflict.other.as_deref().unwrap_or("another program"),
                ),
                &object(&conflict),
            );
        }
        ConflictAction::Resolve {
            id,
            mine,
            theirs,
            value,
        } => {
            let conflict = find(&replica, &id, failed)?;
            let resolution = match (mine, theirs, value) {
                (true, ..) => Resolution::Mine,
                (_, true, _) => Resolution::Theirs,
                (.., value) => Resolution::Value(parse(&value.unwrap_or_default())?),
            };
            replica
                .resolve(&conflict.id, &resolution, engine::now())
                .map_err(failed)?;
            output.result(
                &format!(
                    "decided; `syncline sync {}` tells the server",
                    args.file.display()
                ),
                &json!({ "type": "resolved", "id": conflict.id }),
            );
        }
    }
    Ok(Exit::Done)
}

/// The conflict whose id begins with `id`.
fn find(
    replica: &Replica,
    id: &str,
    failed: impl Fn(syncline_replica::ReplicaError) -> ClientError,
) -> anyhow::Result<Conflict> {
    let mut found: Vec<_> = replica.conflicts(false).map_err(failed)?;
    found.retain(|conflict| conflict.id.starts_with(id));
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Failure::new(Exit::NotFound, format!("there is no conflict {id}")).into()),
        n => Err(Failure::new(
            Exit::NotFound,
            format!("{n} conflicts begin with {id}: give more of it"),
        )
        .into()),
    }
}

/// JSON as a value of a column: arrays and objects as their text.
fn parse(text: &str) -> anyhow::Result<Value> {
    let json: serde_json::Value = serde_json::from_str(text).map_err(|error| {
        Failure::new(
            Exit::Usage,
            format!("--value: {error}; text needs quotes: --value '\"like this\"'"),
        )
    })?;
    Ok(match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(flag) => Value::Integer(flag.into()),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(integer) => Value::Integer(integer),
            None => Value::Real(number.as_f64().unwrap_or_default()),
        },
        serde_json::Value::String(text) => Value::Text(text),
        array_or_object @ (serde_json::Value::Array(_) | serde_json::Value::Object(_)) => {
            Value::Text(array_or_object.to_string())
        }
    })
}

fn headline(conflict: &Conflict) -> String {
    let key: Vec<String> = conflict.key.iter().map(shown).collect();
    let column = conflict
        .column
        .as_ref()
        .map(|column| format!(".{column}"))
        .unwrap_or_default();
    let kind = match conflict.kind {
        ConflictKind::Manual => "changed in two places",
        ConflictKind::Deleted => "edited here, deleted there",
    };
    let state = if conflict.open { "" } else { ", decided" };
    format!(
        "{}  {} {}{column}: {kind}{state}",
        conflict.id,
        conflict.table,
        key.join(",")
    )
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(n) => n.to_string(),
        Value::Real(x) => x.to_string(),
        Value::Text(text) => text.clone(),
        Value::Blob(bytes) => format!("{} bytes", bytes.len()),
    }
}

fn object(conflict: &Conflict) -> serde_json::Value {
    let json = |text: &Option<String>| {
        text.as_ref()
            .map(|text| serde_json::from_str(text).unwrap_or_else(|_| json!(text)))
    };
    json!({
        "type": "conflict", "id": conflict.id, "table": conflict.table,
        "key": conflict.key.iter().map(shown).collect::<Vec<_>>(), "column": conflict.column,
        "kind": match conflict.kind { ConflictKind::Manual => "manual", ConflictKind::Deleted => "deleted" },
        "base": json(&conflict.base), "mine": json(&conflict.mine), "theirs": json(&conflict.theirs),
        "other": conflict.other, "opened_at_ms": conflict.opened_at.as_millis(), "open": conflict.open,
    })
}
