//! Row keys: the canonical, order-preserving encoding of a primary-key tuple (spec CE10–CE13).

use std::fmt;

use crate::value::Value;

/// The canonical encoding of a row's primary-key values, in the order the key declares them.
///
/// Keys compare bytewise; within one storage class that is the order of the values, so reading
/// in key order reads a B-tree in order. Never empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey(Box<[u8]>);

/// Longest key in bytes.
pub const KEY_BYTES_MAX: usize = 8 * 1024;

const INTEGER: u8 = 0x02;
const REAL: u8 = 0x03;
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
    /// [`KeyError::Null`] if a value is NULL, [`KeyError::TooLong`] past [`KEY_BYTES_MAX`].
    pub fn encode<'a>(values: impl IntoIterator<Item = &'a Value>) -> Result<Self, KeyError> {
        let mut out = Vec::with_capacity(40);
        for value in values {
            match value {
                Value::Null => return Err(KeyError::Null),
                Value::Integer(n) => {
                    out.push(INTEGER);
                    out.extend((n.cast_unsigned() ^ (1 << 63)).to_be_bytes());
                }
                Value::Real(x) => {
                    out.push(REAL);
                    let bits = x.to_bits();
                    let ordered = if bits >> 63 == 1 { !bits } else { bits | (1 << 63) };
                    out.extend(ordered.to_be_bytes());
                }
                Value::Text(text) => escaped(&mut out, TEXT, text.as_bytes()),
                Value::Blob(bytes) => escaped(&mut out, BLOB, bytes),
            }
        }
        if out.is_empty() {
            return Err(KeyError::Malformed);
        }
        if out.len() > KEY_BYTES_MAX {
            return Err(KeyError::TooLong);
        }
        Ok(Self(out.into_boxed_slice()))
    }

    /// Takes over bytes that [`RowKey::as_bytes`] gave, checking that they are an encoding.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] or [`KeyError::TooLong`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.len() > KEY_BYTES_MAX {
            return Err(KeyError::TooLong);
        }
        let key = Self(bytes.into());
        let again = Self::encode(&key.decode()?)?;
        if again == key { Ok(key) } else { Err(KeyError::Malformed) }
    }

    /// The encoded bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key's values again.
    ///
    /// # Errors
    /// [`KeyError::Malformed`]; never for a key made by [`RowKey::encode`].
    pub fn decode(&self) -> Result<Vec<Value>, KeyError> {
        let mut values = Vec::new();
        let mut rest = &self.0[..];
        while let Some((&tag, after)) = rest.split_first() {
            rest = after;
            values.push(match tag {
                INTEGER => Value::Integer((take8(&mut rest)? ^ (1 << 63)).cast_signed()),
                REAL => {
                    let ordered = take8(&mut rest)?;
                    let bits = if ordered >> 63 == 1 { ordered & !(1 << 63) } else { !ordered };
                    Value::Real(f64::from_bits(bits))
                }
                TEXT => Value::Text(
                    String::from_utf8(unescaped(&mut rest)?).map_err(|_| KeyError::Malformed)?,
                ),
                BLOB => Value::Blob(unescaped(&mut rest)?),
                _ => return Err(KeyError::Malformed),
            });
        }
        if values.is_empty() { Err(KeyError::Malformed) } else { Ok(values) }
    }
}

/// 0x00 becomes 0x00 0xFF, and 0x00 0x00 ends the bytes: shorter sorts first.
fn escaped(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    for &byte in bytes {
        out.push(byte);
        if byte == 0 {
            out.push(0xFF);
        }
    }
    out.extend([0, 0]);
}

fn unescaped(rest: &mut &[u8]) -> Result<Vec<u8>, KeyError> {
    let mut out = Vec::new();
    let mut i = 0;
    loop {
        match (rest.get(i), rest.get(i + 1)) {
            (Some(0), Some(0)) => {
                *rest = &rest[i + 2..];
                return Ok(out);
            }
            (Some(0), Some(0xFF)) => {
                out.push(0);
                i += 2;
            }
            (Some(0), _) | (None, _) => return Err(KeyError::Malformed),
            (Some(&byte), _) => {
                out.push(byte);
                i += 1;
            }
        }
    }
}

fn take8(rest: &mut &[u8]) -> Result<u64, KeyError> {
    let (head, tail) = rest.split_first_chunk::<8>().ok_or(KeyError::Malformed)?;
    *rest = tail;
    Ok(u64::from_be_bytes(*head))
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
