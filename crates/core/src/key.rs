//! Row keys: the canonical, order-preserving encoding of a primary-key tuple (spec CE10–CE13).

use std::{fmt, sync::Arc};

mod number;

use number::Number;

use crate::value::Value;

/// The canonical encoding of a row's primary-key values, in the order the key declares them.
///
/// Keys compare bytewise, and that is the order in which SQLite sorts the values (BINARY
/// collation): numbers, integers and reals together, then texts, then blobs. Values that a unique
/// index takes for equal, such as 1 and 1.0, have one key. Never empty. A clone shares the bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey(Arc<[u8]>);

/// Longest key in bytes.
pub const KEY_BYTES_MAX: usize = 8 * 1024;

const NUMBER: u8 = 0x02;
const TEXT: u8 = 0x04;
const BLOB: u8 = 0x05;

/// Why a tuple of values is no key, or bytes are no encoded key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a primary-key column is NULL")]
    Null,
    #[error("the primary key is longer than {KEY_BYTES_MAX} bytes")]
    TooLong,
    #[error("the bytes are no encoded primary key")]
    Malformed,
}

impl RowKey {
    /// Encodes `values`, which must be canonical.
    ///
    /// # Errors
    /// [`KeyError::Null`] if a value is NULL (or NaN, which is NULL), [`KeyError::TooLong`] past
    /// [`KEY_BYTES_MAX`], [`KeyError::Malformed`] if there is no value.
    pub fn encode<'a>(values: impl IntoIterator<Item = &'a Value>) -> Result<Self, KeyError> {
        let mut out = Vec::with_capacity(40);
        for value in values {
            match value {
                Value::Null => return Err(KeyError::Null),
                Value::Real(x) if x.is_nan() => return Err(KeyError::Null),
                Value::Integer(n) => push_number(&mut out, Number::from_integer(*n)),
                Value::Real(x) => push_number(&mut out, Number::from_real(*x)),
                Value::Text(text) => push_escaped(&mut out, TEXT, text.as_bytes()),
                Value::Blob(bytes) => push_escaped(&mut out, BLOB, bytes),
            }
            if out.len() > KEY_BYTES_MAX {
                return Err(KeyError::TooLong);
            }
        }
        if out.is_empty() {
            return Err(KeyError::Malformed);
        }
        Ok(Self(out.into()))
    }

    /// Takes over bytes that [`RowKey::as_bytes`] gave, checking that they are an encoding.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] or [`KeyError::TooLong`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.len() > KEY_BYTES_MAX {
            return Err(KeyError::TooLong);
        }
        if bytes.is_empty() {
            return Err(KeyError::Malformed);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            match take_part(&mut rest)? {
                Part::Number(number) if !number.is_canonical() => return Err(KeyError::Malformed),
                Part::Number(_) | Part::Blob(_) => {}
                Part::Text(escaped) => check_text(escaped)?,
            }
        }
        Ok(Self(bytes.into()))
    }

    /// The encoded bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key's values again; a number that is a 64-bit integer as an integer, in a REAL column
    /// too: `canonical` makes it the column's value.
    ///
    /// # Errors
    /// [`KeyError::Malformed`]; never for a key made by [`RowKey::encode`].
    pub fn decode(&self) -> Result<Vec<Value>, KeyError> {
        let mut values = Vec::new();
        let mut rest = &self.0[..];
        while !rest.is_empty() {
            values.push(match take_part(&mut rest)? {
                Part::Number(number) => number.value(),
                Part::Text(escaped) => Value::Text(
                    String::from_utf8(unescaped(escaped)).map_err(|_| KeyError::Malformed)?,
                ),
                Part::Blob(escaped) => Value::Blob(unescaped(escaped)),
            });
        }
        Ok(values)
    }
}

/// One encoded value; the bytes of texts and blobs still escaped, without their end.
enum Part<'a> {
    Number(Number),
    Text(&'a [u8]),
    Blob(&'a [u8]),
}

fn take_part<'a>(rest: &mut &'a [u8]) -> Result<Part<'a>, KeyError> {
    let (&tag, after) = rest.split_first().ok_or(KeyError::Malformed)?;
    *rest = after;
    Ok(match tag {
        NUMBER => {
            let (bytes, after) = rest.split_first_chunk().ok_or(KeyError::Malformed)?;
            *rest = after;
            Part::Number(Number::from_bytes(*bytes))
        }
        TEXT => Part::Text(take_escaped(rest)?),
        BLOB => Part::Blob(take_escaped(rest)?),
        _ => return Err(KeyError::Malformed),
    })
}

fn push_number(out: &mut Vec<u8>, number: Number) {
    out.push(NUMBER);
    out.extend(number.to_bytes());
}

/// 0x00 becomes 0x00 0xFF, and 0x00 0x00 ends the bytes: shorter sorts first.
fn push_escaped(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    let mut rest = bytes;
    while let Some(zero) = rest.iter().position(|&byte| byte == 0) {
        out.extend(&rest[..=zero]);
        out.push(0xFF);
        rest = &rest[zero + 1..];
    }
    out.extend(rest);
    out.extend([0, 0]);
}

fn take_escaped<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], KeyError> {
    let all = *rest;
    let mut from = 0;
    while let Some(found) = all[from..].iter().position(|&byte| byte == 0) {
        let zero = from + found;
        match all.get(zero + 1) {
            Some(0) => {
                *rest = &all[zero + 2..];
                return Ok(&all[..zero]);
            }
            Some(0xFF) => from = zero + 2,
            _ => return Err(KeyError::Malformed),
        }
    }
    Err(KeyError::Malformed)
}

fn unescaped(escaped: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(zero) = rest.iter().position(|&byte| byte == 0) {
        out.extend(&rest[..=zero]);
        rest = &rest[zero + 2..];
    }
    out.extend(rest);
    out
}

/// Checks UTF-8 without unescaping: a NUL is a character of its own, so the parts between NULs
/// are texts.
fn check_text(escaped: &[u8]) -> Result<(), KeyError> {
    let mut rest = escaped;
    while let Some(zero) = rest.iter().position(|&byte| byte == 0) {
        std::str::from_utf8(&rest[..zero]).map_err(|_| KeyError::Malformed)?;
        rest = &rest[zero + 2..];
    }
    std::str::from_utf8(rest)
        .map(drop)
        .map_err(|_| KeyError::Malformed)
}

impl fmt::Display for RowKey {
    /// The values as people write them, separated by commas; blobs in hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, value) in self.decode().unwrap_or_default().iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match value {
                Value::Null => f.write_str("NULL")?,
                Value::Integer(n) => write!(f, "{n}")?,
                Value::Real(x) => write!(f, "{x:?}")?,
                Value::Text(text) => f.write_str(text)?,
                Value::Blob(bytes) => {
                    f.write_str("x'")?;
                    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))?;
                    f.write_str("'")?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowKey({self})")
    }
}

#[cfg(test)]
mod tests;
