//! Values exactly as SQLite stores them, before anything is made canonical.

use rusqlite::{
    ToSql,
    types::{ToSqlOutput, ValueRef},
};
use syncline_core::Value;

/// A stored value: text may be anything, reals keep their bits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Raw {
    Null,
    Integer(i64),
    Real(f64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

/// Text that is not UTF-8 has no canonical form (spec SL10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotUtf8;

impl Raw {
    pub(crate) fn new(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(n) => Self::Integer(n),
            ValueRef::Real(x) => Self::Real(x),
            ValueRef::Text(bytes) => Self::Text(bytes.to_vec()),
            ValueRef::Blob(bytes) => Self::Blob(bytes.to_vec()),
        }
    }

    pub(crate) fn into_value(self) -> Result<Value, NotUtf8> {
        Ok(match self {
            Self::Null => Value::Null,
            Self::Integer(n) => Value::Integer(n),
            Self::Real(x) => Value::Real(x),
            Self::Text(bytes) => Value::Text(String::from_utf8(bytes).map_err(|_| NotUtf8)?),
            Self::Blob(bytes) => Value::Blob(bytes),
        })
    }

    /// Whether SQLite's `IS` with the BINARY collation and no affinity says so.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Integer(n), Self::Real(x)) | (Self::Real(x), Self::Integer(n)) => {
                is_integer(*x, *n)
            }
            (Self::Real(a), Self::Real(b)) => a == b,
            (Self::Text(a), Self::Text(b)) | (Self::Blob(a), Self::Blob(b)) => a == b,
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Null, Self::Null) => true,
            (Self::Null | Self::Integer(_) | Self::Real(_) | Self::Text(_) | Self::Blob(_), _) => {
                false
            }
        }
    }

    /// For messages: the value as people write it, damaged text with replacement characters.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Null => "NULL".into(),
            Self::Integer(n) => n.to_string(),
            Self::Real(x) => format!("{x:?}"),
            Self::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Blob(bytes) => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("x'{hex}'")
            }
        }
    }
}

/// Whether the double `x` is exactly the integer `n`.
fn is_integer(x: f64, n: i64) -> bool {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if !(-LIMIT..LIMIT).contains(&x) || x.fract() != 0.0 {
        return false;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked to be integral and in range"
    )]
    let whole = x as i64;
    whole == n
}

impl From<Value> for Raw {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Integer(n) => Self::Integer(n),
            Value::Real(x) => Self::Real(x),
            Value::Text(text) => Self::Text(text.into_bytes()),
            Value::Blob(bytes) => Self::Blob(bytes),
        }
    }
}

impl ToSql for Raw {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(n) => ValueRef::Integer(*n),
            Self::Real(x) => ValueRef::Real(*x),
            Self::Text(bytes) => ValueRef::Text(bytes),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// Binds a canonical value as it is.
pub(crate) struct Bind<'a>(pub(crate) &'a Value);

impl ToSql for Bind<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Integer(n) => ValueRef::Integer(*n),
            Value::Real(x) => ValueRef::Real(*x),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}
