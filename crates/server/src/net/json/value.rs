//! Values of columns as JSON and back (spec WI15).

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value as Json, json};
use syncline_core::{Column, ColumnType, Row, RowKey, Table, Value};

/// Integers beyond this are written as text: a JSON number may lose their last digits.
const SAFE_INTEGER: u64 = (1 << 53) - 1;
/// The only member of an object that stands for bytes.
const BASE64: &str = "base64";

/// A value of `column` as JSON.
pub(super) fn to_json(column: &Column, value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Integer(0 | 1) if column.ty == ColumnType::Boolean => {
            Json::Bool(*value == Value::Integer(1))
        }
        Value::Integer(n) if n.unsigned_abs() <= SAFE_INTEGER => json!(n),
        Value::Integer(n) => Json::String(n.to_string()),
        Value::Real(x) if x.is_finite() => json!(x),
        Value::Real(x) => Json::String(if *x > 0.0 { "Inf" } else { "-Inf" }.to_owned()),
        Value::Text(text) if column.ty == ColumnType::Json => {
            serde_json::from_str(text).unwrap_or_else(|_| Json::String(text.clone()))
        }
        Value::Text(text) => Json::String(text.clone()),
        Value::Blob(bytes) => json!({ BASE64: BASE64_STANDARD.encode(bytes) }),
    }
}

/// The canonical value that `json` is in `column`.
///
/// # Errors
/// A sentence for the author.
pub(super) fn from_json(column: &Column, json: &Json) -> Result<Value, String> {
    let value = match json {
        Json::Null => Value::Null,
        json if column.ty == ColumnType::Json => Value::Text(json.to_string()),
        Json::Bool(is_true) => Value::Integer(i64::from(*is_true)),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(n), _) => Value::Integer(n),
            (None, Some(x)) => Value::Real(x),
            (None, None) => return Err(format!("column {}: a number too large", column.name)),
        },
        Json::String(text) => match (column.ty, text.as_str()) {
            (ColumnType::Real, "Inf") => Value::Real(f64::INFINITY),
            (ColumnType::Real, "-Inf") => Value::Real(f64::NEG_INFINITY),
            _ => Value::Text(text.clone()),
        },
        Json::Object(object) => bytes(object).ok_or_else(|| {
            format!(
                "column {}: bytes are written {{\"{BASE64}\": \"…\"}}",
                column.name
            )
        })?,
        Json::Array(_) => {
            return Err(format!(
                "column {} holds no JSON: write a text, a number, true, false or null",
                column.name
            ));
        }
    };
    Ok(value.canonical(column.ty))
}

fn bytes(object: &Map<String, Json>) -> Option<Value> {
    let text = object.get(BASE64).filter(|_| object.len() == 1)?.as_str()?;
    BASE64_STANDARD.decode(text).ok().map(Value::Blob)
}

/// A row by its columns' names, without those that the database computes.
pub(super) fn row_to_json(table: &Table, row: &Row) -> Map<String, Json> {
    let columns = table.columns.iter().zip(&row.0);
    columns
        .filter(|(column, _)| !column.generated)
        .map(|(column, value)| (column.name.clone(), to_json(column, value)))
        .collect()
}

/// A key by its columns' names.
pub(crate) fn key_to_json(table: &Table, key: &RowKey) -> Map<String, Json> {
    let values = key.decode().unwrap_or_default();
    let columns = table.primary_key.iter().map(|at| &table.columns[*at]);
    columns
        .zip(values)
        .map(|(column, value)| {
            let value = value.canonical(column.ty);
            (column.name.clone(), to_json(column, &value))
        })
        .collect()
}

/// Named values, by position of their columns.
///
/// # Errors
/// A sentence for the author.
pub(crate) fn columns_from_json(
    table: &Table,
    named: &Map<String, Json>,
) -> Result<Vec<(usize, Value)>, String> {
    let one = |(name, json): (&String, &Json)| {
        let Some(position) = table.position(name) else {
            return Err(format!("table {} has no column {name}", table.name));
        };
        Ok((position, from_json(&table.columns[position], json)?))
    };
    let values = named.iter().map(one).collect::<Result<Vec<_>, _>>()?;
    let mut positions = std::collections::BTreeSet::new();
    match values
        .iter()
        .find(|(position, _)| !positions.insert(*position))
    {
        Some((position, _)) => {
            let name = &table.columns[*position].name;
            Err(format!("column {name} of {} is named twice", table.name))
        }
        None => Ok(values),
    }
}

/// The key that is named by its columns, no more and no fewer.
///
/// # Errors
/// A sentence for the author.
pub(super) fn key_from_json(table: &Table, named: &Map<String, Json>) -> Result<RowKey, String> {
    let values = columns_from_json(table, named)?;
    if let Some((position, _)) = values.iter().find(|(position, _)| !table.is_key(*position)) {
        let name = &table.columns[*position].name;
        return Err(format!(
            "column {name} is no part of the key of {}",
            table.name
        ));
    }
    key_of(table, &values)
}

/// The key in the values of a row.
///
/// # Errors
/// A sentence for the author.
pub(super) fn key_of(table: &Table, values: &[(usize, Value)]) -> Result<RowKey, String> {
    let mut key = Vec::new();
    for position in &table.primary_key {
        let found = values.iter().find(|(at, _)| at == position);
        let name = &table.columns[*position].name;
        let Some((_, value)) = found else {
            return Err(format!(
                "column {name} is part of the key of {}",
                table.name
            ));
        };
        key.push(value);
    }
    RowKey::encode(key).map_err(|error| error.to_string())
}
