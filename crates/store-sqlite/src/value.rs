//! Values on their way into SQLite and out of it.

use rusqlite::{
    Row, ToSql,
    types::{self, ToSqlOutput, ValueRef},
};
use syncline_core::{RowKey, UserId, Value, Version};

use crate::fault::{Fault, Result};

/// Binds a value as it is.
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

/// A stored value. Text that is not UTF-8 (another program can store it) becomes a blob of the
/// same bytes: it has no canonical text, and one bad row must not stop the log.
pub(crate) fn read(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(n) => Value::Integer(n),
        ValueRef::Real(x) => Value::Real(x),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => Value::Blob(bytes.to_vec()),
        },
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

/// Versions, counts and sums live in SQLite's signed integers, bit for bit.
pub(crate) fn signed(n: u64) -> i64 {
    n.cast_signed()
}

/// A number of rows, for LIMIT.
pub(crate) fn limit(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.cast_unsigned())
}

pub(crate) fn version(row: &Row<'_>, column: usize) -> rusqlite::Result<Version> {
    unsigned(row, column).map(Version)
}

/// A user in a column of ours; NULL is another program.
pub(crate) fn user_of(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<UserId>> {
    Ok(row.get::<_, Option<String>>(column)?.map(UserId))
}

/// The fixed number of bytes in a column of ours.
pub(crate) fn bytes<const N: usize>(row: &Row<'_>, column: usize) -> Result<[u8; N]> {
    let bytes = row
        .get_ref(column)?
        .as_blob()
        .map_err(rusqlite::Error::from)?;
    bytes
        .try_into()
        .map_err(|_| Fault::corrupt(format!("an id of {} bytes", bytes.len())))
}

/// An encoded row key in a column of ours.
pub(crate) fn key(row: &Row<'_>, column: usize) -> Result<RowKey> {
    let bytes = row
        .get_ref(column)?
        .as_blob()
        .map_err(rusqlite::Error::from)?;
    RowKey::from_bytes(bytes).map_err(|error| Fault::corrupt(error.to_string()))
}

/// Bytes as they lie.
pub(crate) fn blob(bytes: &[u8]) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(ValueRef::Blob(bytes))
}

/// Bytes made to be bound.
pub(crate) fn owned_blob<'o>(bytes: Vec<u8>) -> ToSqlOutput<'o> {
    ToSqlOutput::Owned(types::Value::Blob(bytes))
}

/// A user's name, NULL for none.
pub(crate) fn user(user: Option<&UserId>) -> ToSqlOutput<'_> {
    let name = user.map(|user| ValueRef::Text(user.0.as_bytes()));
    ToSqlOutput::Borrowed(name.unwrap_or(ValueRef::Null))
}
