//! The one form of each value in a column of a type: what SQLite stores in a column that
//! [`crate::sql::declared_type`] declares, and beyond that one spelling of UUIDs.

use super::Value;
use crate::schema::ColumnType;

/// 2^63: an integral double below it in size is a 64-bit integer.
const INTEGER_LIMIT: f64 = 9_223_372_036_854_775_808.0;

impl Value {
    /// The canonical form of `self` in a column of type `ty` (spec CE2–CE9).
    ///
    /// Idempotent. SQLite stores a canonical value of a type as it is, so what is canonical once
    /// stays the same through any number of databases. A value that the type does not describe
    /// (a word in an integer column) stays as it is: SQLite allows it, so it must travel unharmed.
    #[must_use]
    pub fn canonical(self, ty: ColumnType) -> Self {
        let value = match self {
            Self::Real(x) if x.is_nan() => return Self::Null,
            // Adding 0.0 turns −0.0 into 0.0 and leaves everything else.
            Self::Real(x) => Self::Real(x + 0.0),
            value @ (Self::Null | Self::Integer(_) | Self::Text(_) | Self::Blob(_)) => value,
        };
        match ty {
            ColumnType::Integer | ColumnType::Boolean | ColumnType::Timestamp => numeric(value),
            ColumnType::Real => real(value),
            ColumnType::Text | ColumnType::Json => text(value),
            ColumnType::Uuid => uuid(text(value)),
            ColumnType::Blob | ColumnType::Any => value,
        }
    }
}

impl Value {
    /// Whether it is canonical in a column of type `ty`, as most values are; `false` when that takes
    /// a longer look.
    #[must_use]
    pub fn is_surely_canonical(&self, ty: ColumnType) -> bool {
        match (self, ty) {
            (Self::Null | Self::Blob(_), _)
            | (
                Self::Integer(_),
                ColumnType::Integer | ColumnType::Boolean | ColumnType::Timestamp | ColumnType::Any,
            )
            | (Self::Text(_), ColumnType::Text | ColumnType::Json | ColumnType::Any) => true,
            (Self::Text(text), ColumnType::Uuid) => is_canonical_uuid(text.as_bytes()),
            (Self::Integer(_) | Self::Real(_) | Self::Text(_), _) => false,
        }
    }
}

/// INTEGER and NUMERIC affinity: texts of numbers become numbers, 3.0 becomes 3.
fn numeric(value: Value) -> Value {
    match value {
        Value::Text(text) => number(&text).map_or(Value::Text(text), numeric),
        Value::Real(x) if x.fract() == 0.0 && x.abs() < INTEGER_LIMIT =>
        {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "checked to be integral, in range"
            )]
            Value::Integer(x as i64)
        }
        value @ (Value::Null | Value::Integer(_) | Value::Real(_) | Value::Blob(_)) => value,
    }
}

/// REAL affinity: texts of numbers and integers become doubles, rounded where they have to be.
fn real(value: Value) -> Value {
    match value {
        Value::Text(text) => number(&text).map_or(Value::Text(text), real),
        #[expect(
            clippy::cast_precision_loss,
            reason = "a REAL column rounds in the same way"
        )]
        Value::Integer(n) => Value::Real(n as f64),
        value @ (Value::Null | Value::Real(_) | Value::Blob(_)) => value,
    }
}

/// TEXT affinity: numbers become their decimal text.
fn text(value: Value) -> Value {
    match value {
        Value::Integer(n) => Value::Text(n.to_string()),
        Value::Real(x) => Value::Text(real_text(x)),
        value @ (Value::Null | Value::Text(_) | Value::Blob(_)) => value,
    }
}

/// One spelling of each UUID; other texts stay.
fn uuid(value: Value) -> Value {
    match value {
        Value::Text(text) if is_canonical_uuid(text.as_bytes()) => Value::Text(text),
        Value::Text(text) => Value::Text(uuid_text(&text).unwrap_or(text)),
        value @ (Value::Null | Value::Integer(_) | Value::Real(_) | Value::Blob(_)) => value,
    }
}

/// The number that SQLite's affinities take `text` for: spaces, sign, digits with a point, and an
/// exponent; neither hexadecimal nor names of infinity. Newer versions end the text at a NUL; as
/// they would store nothing else, so do we.
fn number(text: &str) -> Option<Value> {
    // Most texts are none: what only looks like one at its beginning, as a date, is no number.
    let may_belong = |byte: u8| {
        byte.is_ascii_digit()
            || matches!(
                byte,
                b'+' | b'-' | b'.' | b'e' | b'E' | b'\t'..=b'\r' | b' ' | 0
            )
    };
    let end = text.bytes().position(|byte| !may_belong(byte));
    if end.is_some_and(|end| !text.as_bytes()[..end].contains(&0)) {
        return None;
    }
    let (text, _) = text.split_once('\0').unwrap_or((text, ""));
    let text = text.trim_matches(['\t', '\n', '\x0B', '\x0C', '\r', ' ']);
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (significand, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((significand, exponent)) => (significand, Some(exponent)),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = significand.split_once('.').unwrap_or((significand, ""));
    if !digits(whole) || !digits(fraction) || whole.len() + fraction.len() == 0 {
        return None;
    }
    if let Some(exponent) = exponent {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if exponent.is_empty() || !digits(exponent) {
            return None;
        }
    }
    if let Ok(n) = text.parse() {
        return Some(Value::Integer(n));
    }
    text.parse::<f64>().ok().map(|x| Value::Real(x + 0.0))
}

/// The shortest text that reads as `x` again, in SQLite's layout: `1.0`, `1.5e+300`, `-Inf`.
fn real_text(x: f64) -> String {
    if x.is_infinite() {
        return if x > 0.0 { "Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{x:e}");
    let (significand, exponent) = scientific
        .split_once('e')
        .expect("`{:e}` writes an exponent");
    let exponent: i32 = exponent.parse().expect("`{:e}` writes a number");
    if (-4..17).contains(&exponent) {
        return if x.fract() == 0.0 {
            format!("{x:.1}")
        } else {
            x.to_string()
        };
    }
    let point = if significand.contains('.') { "" } else { ".0" };
    format!("{significand}{point}e{exponent:+03}")
}

/// Whether it is a UUID as [`uuid_text`] spells it, which most are.
fn is_canonical_uuid(text: &[u8]) -> bool {
    let Ok(text) = <&[u8; 36]>::try_from(text) else {
        return false;
    };
    let dashes = [8, 13, 18, 23];
    // Without a way out in the middle: so it is done for many bytes at once.
    let digits = text
        .iter()
        .map(|byte| u8::from(matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
        .sum::<u8>();
    usize::from(digits) == text.len() - dashes.len() && dashes.iter().all(|&i| text[i] == b'-')
}

/// Lower case with hyphens, if `text` is a UUID: 32 hexadecimal digits, a hyphen after any four
/// of them or not, in braces or not.
fn uuid_text(text: &str) -> Option<String> {
    let inner = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?,
        None => text,
    };
    let mut out = String::with_capacity(36);
    let mut count = 0;
    let mut after_hyphen = false;
    for byte in inner.bytes() {
        match byte {
            b'-' if count > 0 && count % 4 == 0 && count < 32 && !after_hyphen => {
                after_hyphen = true;
            }
            _ if byte.is_ascii_hexdigit() && count < 32 => {
                if [8, 12, 16, 20].contains(&count) {
                    out.push('-');
                }
                out.push(char::from(byte.to_ascii_lowercase()));
                count += 1;
                after_hyphen = false;
            }
            _ => return None,
        }
    }
    (count == 32).then_some(out)
}

#[cfg(test)]
mod tests;
