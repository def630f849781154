//! The inbox of conflicts: edits that somebody has to decide.

use serde_json::Value as Json;
use syncline_core::{Row, Table, Timestamp, Value};

use crate::event::Event;

/// One conflict.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    /// The uuid of its row in `syncline_conflicts`.
    pub id: String,
    pub table: String,
    /// The key's values, in key order.
    pub key: Vec<Value>,
    /// `None` for the whole row.
    pub column: Option<String>,
    pub kind: ConflictKind,
    /// JSON.
    pub base: Option<String>,
    /// JSON: what this user wrote.
    pub mine: Option<String>,
    /// JSON: what the server has.
    pub theirs: Option<String>,
    /// User who wrote `theirs`; `None` for another program.
    pub other: Option<String>,
    pub opened_at: Timestamp,
    pub open: bool,
}

/// Why somebody has to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConflictKind {
    /// Two people changed a column that merges by hand.
    Manual,
    /// An update lost against a delete.
    Deleted,
}

/// A decision.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolution {
    /// What this user wrote; for a deleted row: bring it back with it.
    Mine,
    /// What the server has.
    Theirs,
    /// Something else.
    Value(Value),
}

/// The table of the inbox, in the app's file like any other.
pub(crate) const TABLE: &str = "syncline_conflicts";

/// What a changed row of the inbox means for the app.
pub(crate) fn event(table: &Table, before: Option<&Row>, after: Option<&Row>) -> Option<Event> {
    let text = |row: Option<&Row>, name: &str| {
        row?.0
            .get(table.position(name)?)?
            .as_text()
            .map(str::to_owned)
    };
    let is_open = |row| text(row, "state").as_deref() == Some("open");
    let id = text(after.or(before), "id")?;
    let name = text(after.or(before), "table_name")?;
    match (is_open(before), is_open(after)) {
        (false, true) => Some(Event::ConflictOpened { id, table: name }),
        (true, false) => Some(Event::ConflictResolved { id, table: name }),
        (true, true) | (false, false) => None,
    }
}

/// The value that the server wrote as JSON.
pub(crate) fn from_json(json: &Json) -> Option<Value> {
    Some(match json {
        Json::Null => Value::Null,
        Json::Bool(truth) => Value::Integer(i64::from(*truth)),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Value::Integer(integer),
            None => Value::Real(number.as_f64()?),
        },
        Json::String(text) => Value::Text(text.clone()),
        Json::Object(object) if object.len() == 1 => match object.iter().next()? {
            (name, Json::String(text)) if name == "real" => Value::Real(text.parse().ok()?),
            (name, Json::String(text)) if name == "hex" => Value::Blob(bytes(text)?),
            _ => return None,
        },
        Json::Object(_) | Json::Array(_) => return None,
    })
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pair = |i: usize| u8::from_str_radix(hex.get(i..i + 2)?, 16).ok();
    (0..hex.len()).step_by(2).map(pair).collect()
}

/// The values of the JSON array in which a conflict names its row.
pub(crate) fn key_values(text: &str) -> Option<Vec<Value>> {
    let Json::Array(values) = serde_json::from_str(text).ok()? else {
        return None;
    };
    values.iter().map(from_json).collect()
}
