//! Values as SQLite stores them, and the one canonical form of each.

use crate::schema::ColumnType;

/// A value in one of SQLite's five storage classes.
///
/// Equality is canonical equality (spec CE1): `Real` compares by bits, and neither NaN nor −0.0
/// occurs in a canonical value.
#[derive(Debug, Clone, Default)]
pub enum Value {
    #[default]
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Real(a), Self::Real(b)) => a.to_bits() == b.to_bits(),
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Blob(a), Self::Blob(b)) => a == b,
            (
                Self::Null | Self::Integer(_) | Self::Real(_) | Self::Text(_) | Self::Blob(_),
                _,
            ) => false,
        }
    }
}
impl Eq for Value {}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}
impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}
impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl Value {
    /// Whether this is SQL `NULL`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
    /// The text, if this is text.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The canonical form of `self` in a column of type `ty` (spec CE2–CE9).
    ///
    /// Idempotent. A value that the type does not describe (text in an integer column) stays as
    /// it is: SQLite allows it, so it must travel unharmed.
    #[must_use]
    pub fn canonical(self, ty: ColumnType) -> Self {
        match (self, ty) {
            (Self::Real(x), _) if x.is_nan() => Self::Null,
            (Self::Real(x), ColumnType::Integer | ColumnType::Boolean) => real_to_integer(x),
            (Self::Real(x), _) => Self::Real(if x == 0.0 { 0.0 } else { x }),
            (Self::Integer(n), ColumnType::Real) => integer_to_real(n),
            (Self::Text(text), ColumnType::Uuid) => Self::Text(canonical_uuid(text)),
            (
                value @ (Self::Null | Self::Integer(_) | Self::Text(_) | Self::Blob(_)),
                _,
            ) => value,
        }
    }
}

/// 3.0 becomes 3; 3.5 and everything outside ±2^53 stays real.
fn real_to_integer(x: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if x.fract() == 0.0 && x.abs() <= EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "checked to be integral and in range")]
        return Value::Integer(x as i64);
    }
    Value::Real(x)
}

/// 3 becomes 3.0; an integer that a double cannot hold exactly stays an integer.
fn integer_to_real(n: i64) -> Value {
    if n.unsigned_abs() <= 1 << 53 {
        #[expect(clippy::cast_precision_loss, reason = "checked to be exact")]
        return Value::Real(n as f64);
    }
    Value::Integer(n)
}

/// Lower-case, hyphenated, without braces; anything that is no UUID stays as it is.
fn canonical_uuid(text: String) -> String {
    let inner = text.trim_start_matches('{').trim_end_matches('}');
    let hex: String = inner.chars().filter(|c| *c != '-').collect();
    let shape = inner.len() == 36 || inner.len() == 32;
    if !shape || hex.len() != 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return text;
    }
    let hex = hex.to_ascii_lowercase();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
