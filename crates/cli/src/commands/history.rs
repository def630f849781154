//! `syncline history`: who changed a row, and making it again what it was.

use std::path::Path;

use serde_json::{Map, Value as Json, json};
use syncline::{
    ColumnChange, RowChange, RowChangeKind, RowHistory,
    engine::{self, ClientError, Connection, HISTORY_PAGE_MAX},
};
use syncline_core::{ColumnType, DeviceId, Timestamp, Value, Version};
use syncline_replica::{Replica, RowRestored};

use super::{connection, keys, log, runtime};
use crate::{
    args::History,
    exit::{Exit, Failure},
    moment,
    output::{Output, counted},
};

/// Characters of a value that are shown; `--json` has all of it.
const VALUE_CHARS: usize = 60;

pub(crate) fn run(args: &History, verbose: u8, output: &Output) -> anyhow::Result<Exit> {
    log(verbose);
    let mut replica =
        engine::open_replica_with(&args.file, keys(&args.server.encryption_key_file)?)?;
    let key = key(&replica, &args.file, &args.table, &args.ids)?;
    let connection = connection(&args.file, &args.server, output)?;
    let runtime = runtime()?;
    match args.restore {
        None => {
            let found = runtime.block_on(list(&replica, args, &key, &connection))?;
            print(&replica, args, &found, output)
        }
        Some(version) => {
            let row = (&*args.table, &key[..]);
            let version = Version(version);
            let restored = engine::restore_row(&mut replica, &args.file, &connection, row, version);
            say_restored(args, runtime.block_on(restored)?, version, output);
            Ok(Exit::Done)
        }
    }
}

/// As many changes as were asked for, in pages.
async fn list(
    replica: &Replica,
    args: &History,
    key: &[Value],
    connection: &Connection,
) -> Result<RowHistory, ClientError> {
    let mut all = RowHistory::default();
    let mut before = args.before.map(Version);
    loop {
        let wanted = args.limit - all.changes.len();
        let page = wanted.min(HISTORY_PAGE_MAX);
        let row = (&*args.table, key);
        let found = engine::history(replica, &args.file, connection, row, before, page).await?;
        (all.more, all.known_since) = (found.more, found.known_since);
        all.changes.extend(found.changes);
        before = all.changes.last().map(|change| change.version);
        if !all.more || all.changes.len() >= args.limit {
            return Ok(all);
        }
    }
}

fn print(
    replica: &Replica,
    args: &History,
    found: &RowHistory,
    output: &Output,
) -> anyhow::Result<Exit> {
    let here = replica
        .status()
        .map_err(|source| ClientError::replica(&args.file, source))?;
    for change in &found.changes {
        output.result(&sentence(change, here.device), &object(args, change));
    }
    let since = found.known_since.map(|since| since.0);
    output.object(&json!({
        "type": "history", "table": args.table, "key": args.ids.join(","),
        "changes": found.changes.len(), "more": found.more, "since": since,
    }));
    if found.changes.is_empty() && args.before.is_none() {
        return Err(Failure::new(Exit::NotFound, nothing(args, found)).into());
    }
    let count = counted(found.changes.len() as u64, "change");
    output.line(&match found.changes.last() {
        Some(last) if found.more => {
            format!("{count}; for older ones add --before {}", last.version.0)
        }
        Some(_) | None => format!("{count}; --restore VERSION makes the row what it was then"),
    });
    Ok(Exit::Done)
}

/// Why there is nothing: the server does not say which.
fn nothing(args: &History, found: &RowHistory) -> String {
    let row = format!("{} {}", args.table, args.ids.join(","));
    match found.known_since {
        None => format!("there is no history of {row}: the server keeps none (history_days = 0)"),
        Some(Timestamp(0)) => {
            format!("there is no history of {row}: it never was, or is not yours to see")
        }
        Some(since) => format!(
            "there is no history of {row}: it never was, is not yours to see, or did not change \
             since {}",
            moment::shown(since)
        ),
    }
}

fn say_restored(args: &History, restored: RowRestored, version: Version, output: &Output) {
    let row = format!("{} {}", args.table, args.ids.join(","));
    let sync = format!("`syncline sync {}` tells the server", args.file.display());
    let (did, sentence) = match restored {
        RowRestored::Inserted => ("inserted", format!("{row} is back as it was; {sync}")),
        RowRestored::Updated => ("updated", format!("{row} is again as it was; {sync}")),
        RowRestored::Unchanged => ("unchanged", format!("{row} is as it was: nothing to do")),
    };
    output.result(
        &sentence,
        &json!({
            "type": "row_restored", "table": args.table, "key": args.ids.join(","),
            "version": version.0, "did": did,
        }),
    );
}

/// The values of the primary key, as the columns' types read them.
pub(super) fn key(
    replica: &Replica,
    file: &Path,
    table: &str,
    ids: &[String],
) -> anyhow::Result<Vec<Value>> {
    let failed = |error| ClientError::replica(file, error);
    let columns = replica.key_columns(table).map_err(failed)?;
    let usage = |message: String| Failure::new(Exit::Usage, message);
    if columns.len() != ids.len() {
        let names: Vec<_> = columns.iter().map(|(name, _)| name.as_str()).collect();
        let message = format!(
            "the key of {} is {}: give {}",
            table,
            names.join(", "),
            counted(columns.len() as u64, "value")
        );
        return Err(usage(message).into());
    }
    let values = columns.iter().zip(ids).map(|((name, ty), text)| {
        value(*ty, text)
            .ok_or_else(|| usage(format!("{name} is {}, `{text}` is none", ty.as_str())).into())
    });
    values.collect()
}

pub(super) fn value(ty: ColumnType, text: &str) -> Option<Value> {
    let value = match ty {
        ColumnType::Integer => Value::Integer(text.parse().ok()?),
        ColumnType::Real => Value::Real(text.parse().ok()?),
        ColumnType::Boolean => match text {
            "true" | "1" => Value::Integer(1),
            "false" | "0" => Value::Integer(0),
            _ => return None,
        },
        ColumnType::Blob => Value::Blob(bytes(text)?),
        ColumnType::Any => match text.parse() {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Text(text.to_owned()),
        },
        ColumnType::Text | ColumnType::Json | ColumnType::Timestamp | ColumnType::Uuid => {
            Value::Text(text.to_owned())
        }
    };
    Some(value)
}

/// Bytes written as hexadecimal digits.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    rest.is_empty()
        .then(|| pairs.iter().map(byte).collect())
        .flatten()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A change in words: when, what, by whom, where; then each column.
fn sentence(change: &RowChange, here: DeviceId) -> String {
    let what = match change.kind {
        RowChangeKind::Inserted => "inserted",
        RowChangeKind::Updated => "changed",
        RowChangeKind::Deleted => "deleted",
        RowChangeKind::Appeared => "came into your sight",
        RowChangeKind::Removed => "left your sight",
        _ => change.kind.name(),
    };
    let by = match (&change.user, change.device) {
        (Some(user), Some(device)) if device == here => format!(" by {user} on this device"),
        (Some(user), Some(device)) => {
            let id = &device.to_string()[..8];
            match &change.device_name {
                Some(name) => format!(" by {user} on {name} ({id})"),
                None => format!(" by {user} on device {id}"),
            }
        }
        (Some(user), None) => format!(" by {user}"),
        (None, _) if change.kind == RowChangeKind::Removed => String::new(),
        (None, _) => " by another program".to_owned(),
    };
    let at = moment::shown(change.at);
    let mut text = format!("{at}  version {}  {what}{by}", change.version.0);
    let is_told = |column: &&ColumnChange| {
        change.kind == RowChangeKind::Updated
            || [&column.before, &column.after]
                .into_iter()
                .flatten()
                .any(|value| *value != Value::Null)
    };
    let columns: Vec<_> = change.columns.iter().filter(is_told).collect();
    let width = columns.iter().map(|c| c.column.chars().count()).max();
    for column in columns {
        let name = format!("{:width$}", column.column, width = width.unwrap_or(0));
        let values = match (&column.before, &column.after) {
            (Some(before), Some(after)) => format!("{} → {}", shown(before), shown(after)),
            (Some(before), None) if change.kind == RowChangeKind::Deleted => shown(before),
            (Some(before), None) => format!("{} → ?", shown(before)),
            (None, Some(after)) if change.kind == RowChangeKind::Updated => {
                format!("? → {}", shown(after))
            }
            (None, Some(after)) => shown(after),
            (None, None) => "?".to_owned(),
        };
        text += &format!("\n    {name}  {values}");
    }
    text
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(n) => n.to_string(),
        Value::Real(x) => x.to_string(),
        Value::Text(text) => {
            let mut short: String = text.chars().take(VALUE_CHARS).collect();
            if short.len() < text.len() {
                short.push('…');
            }
            // A line of its own for each line of the value would not be told from columns.
            format!("\"{}\"", short.replace('\n', "\\n").replace('\t', "\\t"))
        }
        Value::Blob(bytes) => counted(bytes.len() as u64, "byte"),
    }
}

fn object(args: &History, change: &RowChange) -> Json {
    let columns = change.columns.iter().map(|column| {
        let mut object = Map::new();
        object.insert("column".to_owned(), json!(column.column));
        for (side, value) in [("before", &column.before), ("after", &column.after)] {
            if let Some(value) = value {
                object.insert(side.to_owned(), value_json(value));
            }
        }
        Json::Object(object)
    });
    json!({
        "type": "row_change", "table": args.table, "key": args.ids.join(","),
        "version": change.version.0, "at_ms": change.at.as_millis(), "op": change.kind.name(),
        "user": change.user, "device": change.device.map(|device| device.to_string()),
        "device_name": change.device_name,
        "columns": columns.collect::<Vec<_>>(),
    })
}

fn value_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Integer(n) => json!(n),
        Value::Real(x) => json!(x),
        Value::Text(text) => json!(text),
        Value::Blob(bytes) => json!({ "hex": hex(bytes) }),
    }
}
