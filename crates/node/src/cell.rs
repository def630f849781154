//! Values of columns as JSON that JavaScript can take apart again.
//!
//! Numbers, text and null stand for themselves. What JSON has no number for is an object: integers
//! that a double does not hold, infinities, and blobs.

use serde_json::{Value as Json, json};
use syncline::{Record, Row, Value};

use crate::failure::Failure;

/// Largest integer that a double holds with all below it.
const SAFE: u64 = (1 << 53) - 1;

pub(crate) fn to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Integer(number) if number.unsigned_abs() <= SAFE => json!(number),
        Value::Integer(number) => json!({ "integer": number.to_string() }),
        Value::Real(number) if number.is_finite() => json!(number),
        Value::Real(number) => json!({ "real": number.to_string() }),
        Value::Text(text) => json!(text),
        Value::Blob(bytes) => json!({ "blob": hex(bytes) }),
    }
}

pub(crate) fn from_json(json: &Json) -> Result<Value, Failure> {
    let unreadable = || Failure::call(&format!("{json} is no value of a column"));
    Ok(match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Integer(i64::from(*flag)),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Value::Integer(number),
            (None, Some(number)) => Value::Real(number),
            (None, None) => return Err(unreadable()),
        },
        Json::String(text) => Value::Text(text.clone()),
        Json::Object(tagged) => {
            let (tag, text) = tagged.iter().next().ok_or_else(unreadable)?;
            let text = text.as_str().ok_or_else(unreadable)?;
            match tag.as_str() {
                "integer" => Value::Integer(text.parse().map_err(|_| unreadable())?),
                "real" => Value::Real(text.parse().map_err(|_| unreadable())?),
                "blob" => Value::Blob(bytes(text).ok_or_else(unreadable)?),
                _ => return Err(unreadable()),
            }
        }
        Json::Array(_) => return Err(unreadable()),
    })
}

pub(crate) fn list(values: &[Value]) -> Json {
    values.iter().map(to_json).collect()
}

pub(crate) fn record(record: &Record) -> Json {
    let columns = record.iter();
    Json::Object(
        columns
            .map(|(name, value)| (name.clone(), to_json(value)))
            .collect(),
    )
}

pub(crate) fn record_from(json: &Json) -> Result<Record, Failure> {
    let columns = json.as_object().into_iter().flatten();
    columns
        .map(|(name, value)| Ok((name.clone(), from_json(value)?)))
        .collect()
}

/// A row of a query; of two columns with one name the first counts.
pub(crate) fn row(row: &Row) -> Json {
    let mut object = serde_json::Map::new();
    for (name, value) in row.columns().iter().zip(row.values()) {
        object.entry(name.clone()).or_insert_with(|| to_json(value));
    }
    Json::Object(object)
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| u8::try_from(char::from(byte).to_digit(16)?).ok();
    let pairs = hex.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}
