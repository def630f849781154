//! Counters: differences of numbers add up (spec ME10).

use std::borrow::Cow;

use super::json::{Json, canonical};
use crate::{schema::ColumnType, value::Value};

/// Why a sum has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SumError {
    /// One of the two is no number.
    NoNumber,
    /// The sum is past 64 bits, or past the largest real.
    Overflow,
}

/// The number that, added to `before`, gives exactly `after`; `None` if there is none.
///
/// NULL counts as zero in `before`.
pub(crate) fn difference(before: &Value, after: &Value, ty: ColumnType) -> Option<Value> {
    let gives_after = |delta: &Value| sum(before, delta, ty).as_ref() == Ok(after);
    if let (Value::Integer(_) | Value::Null, Value::Integer(after)) = (before, after) {
        let before = if let Value::Integer(n) = before {
            *n
        } else {
            0
        };
        return after
            .checked_sub(before)
            .map(Value::Integer)
            .filter(gives_after);
    }
    if !matches!(after, Value::Integer(_) | Value::Real(_)) {
        return None;
    }
    let delta = real(after)? - if before.is_null() { 0.0 } else { real(before)? };
    // Rounding can put the sum beside `after`; the next difference often hits it.
    let nearest = [delta, delta.next_up(), delta.next_down()];
    nearest
        .into_iter()
        .map(|x| Value::Real(if x == 0.0 { 0.0 } else { x }))
        .find(gives_after)
}

/// `current` with `delta` added, in the canonical form of a column of type `ty`.
pub(crate) fn sum(current: &Value, delta: &Value, ty: ColumnType) -> Result<Value, SumError> {
    let total = match (current, delta) {
        (Value::Null, Value::Integer(b)) => Value::Integer(*b),
        (Value::Integer(a), Value::Integer(b)) => {
            Value::Integer(a.checked_add(*b).ok_or(SumError::Overflow)?)
        }
        (Value::Null | Value::Integer(_) | Value::Real(_), Value::Integer(_) | Value::Real(_)) => {
            let current = if current.is_null() {
                0.0
            } else {
                real(current).ok_or(SumError::NoNumber)?
            };
            Value::Real(current + real(delta).ok_or(SumError::NoNumber)?)
        }
        (Value::Null | Value::Integer(_) | Value::Real(_) | Value::Text(_) | Value::Blob(_), _) => {
            return Err(SumError::NoNumber);
        }
    };
    if real(&total).is_some_and(f64::is_finite) {
        Ok(total.canonical(ty))
    } else {
        Err(SumError::Overflow)
    }
}

/// Two differences as one, where that is exact: integers that do not overflow.
pub(crate) fn joined(first: &Value, second: &Value) -> Option<Value> {
    let (Value::Integer(a), Value::Integer(b)) = (first, second) else {
        return None;
    };
    a.checked_add(*b).map(Value::Integer)
}

/// Whether this is a number that can be added.
pub(crate) fn is_delta(delta: &Value) -> bool {
    real(delta).is_some_and(f64::is_finite)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "mixing integers and reals rounds, as in SQL"
)]
fn real(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(n) => Some(*n as f64),
        Value::Real(x) => Some(*x),
        Value::Null | Value::Text(_) | Value::Blob(_) => None,
    }
}

/// As [`difference`], for numbers inside a JSON document; no member and null count as zero.
pub(crate) fn json_difference(before: Option<&Json<'_>>, after: &Json<'_>) -> Option<Value> {
    let delta = difference(
        &json_number(before)?,
        &json_number(Some(after))?,
        ColumnType::Any,
    )?;
    let again = json_sum(before, &delta).ok()?;
    (canonical(&again) == canonical(after)).then_some(delta)
}

/// As [`sum`], for numbers inside a JSON document.
pub(crate) fn json_sum(
    current: Option<&Json<'_>>,
    delta: &Value,
) -> Result<Json<'static>, SumError> {
    let current = json_number(current).ok_or(SumError::NoNumber)?;
    let text = match sum(&current, delta, ColumnType::Any)? {
        Value::Integer(n) => n.to_string(),
        // Debug keeps the point of a whole number and goes to exponents where they are shorter.
        Value::Real(x) => format!("{x:?}"),
        Value::Null | Value::Text(_) | Value::Blob(_) => return Err(SumError::NoNumber),
    };
    Ok(Json::Scalar(Cow::Owned(text)))
}

fn json_number(json: Option<&Json<'_>>) -> Option<Value> {
    match json {
        None => Some(Value::Null),
        Some(json) if json.is_null() => Some(Value::Null),
        Some(Json::Scalar(text)) => {
            let real = || {
                text.parse()
                    .ok()
                    .filter(|x: &f64| x.is_finite())
                    .map(Value::Real)
            };
            text.parse()
                .map(Value::Integer)
                .ok()
                .or_else(real)
                .filter(|_| !text.starts_with('"'))
        }
        Some(Json::Array(_) | Json::Object(_)) => None,
    }
}
