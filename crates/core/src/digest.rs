//! The two checks: receipt digests of buckets and content hashes of rows (spec DI1–DI4).

use crate::{
    ids::{ChangesetId, TableNumber, Tag, Version},
    key::RowKey,
    row::Row,
    schema::Table,
    value::Value,
};

/// Count and sum mod 2^64 of the receipts of a (bucket, table): order does not matter, and a row
/// is added or taken out in O(1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest {
    pub count: u64,
    pub sum: u64,
}

impl Digest {
    /// Adds a row at a version.
    pub fn add(&mut self, table: TableNumber, key: &RowKey, version: Version) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(receipt(table, key, version));
    }
    /// Takes out a row that was added at this version.
    pub fn remove(&mut self, table: TableNumber, key: &RowKey, version: Version) {
        self.count = self.count.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(receipt(table, key, version));
    }
}

/// First 8 bytes (little endian) of BLAKE3 of table number (u32 LE), version (u64 LE) and key.
#[must_use]
pub fn receipt(table: TableNumber, key: &RowKey, version: Version) -> u64 {
    let mut bytes = Vec::with_capacity(12 + key.as_bytes().len());
    bytes.extend(table.0.to_le_bytes());
    bytes.extend(version.0.to_le_bytes());
    bytes.extend(key.as_bytes());
    first8(&blake3::hash(&bytes))
}

/// The hash of a row's content: every column but generated ones, in order of column number.
///
/// The row is canonical and aligned with `table`. NULLs are left out, so adding a column that is
/// NULL everywhere changes no hash.
#[must_use]
pub fn content_hash(table: &Table, row: &Row) -> u64 {
    content_hash_of(table, &row.0)
}

/// [`content_hash`] of a row whose values lie apart, in the order of `table`'s columns.
#[must_use]
pub fn content_hash_of<'a>(table: &Table, values: impl IntoIterator<Item = &'a Value>) -> u64 {
    let mut columns: Vec<_> = table
        .columns
        .iter()
        .zip(values)
        .filter(|(c, v)| !c.generated && !v.is_null())
        .collect();
    columns.sort_by_key(|(column, _)| column.number);
    // Hashed at once: for a short text, feeding it piece by piece costs as much as hashing it. Of
    // a long one nobody needs a copy.
    let size: usize = columns
        .iter()
        .map(|(_, value)| HEAD_MAX + bytes_of(value).len())
        .sum();
    let mut bytes = Vec::with_capacity(size.min(AT_ONCE));
    let mut hash = None;
    for (column, value) in columns {
        bytes.extend(column.number.0.to_le_bytes());
        push_head(&mut bytes, value);
        let long = bytes_of(value);
        if size <= AT_ONCE {
            bytes.extend(long);
        } else {
            hash.get_or_insert_with(blake3::Hasher::new)
                .update(&bytes)
                .update(long);
            bytes.clear();
        }
    }
    match hash {
        None => first8(&blake3::hash(&bytes)),
        Some(hash) => first8(&hash.finalize()),
    }
}

/// Bytes of a row that are put together before they are hashed.
const AT_ONCE: usize = 64 * 1024;

/// Column number, storage class tag, and a length or a number.
const HEAD_MAX: usize = 4 + 1 + 8;

/// Storage class tag, then the number, or the length (u64 LE) of the bytes that follow: no two values
/// share an encoding.
fn push_head(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(0x01),
        Value::Integer(n) => {
            out.push(0x02);
            out.extend(n.to_le_bytes());
        }
        Value::Real(x) => {
            out.push(0x03);
            out.extend(x.to_bits().to_le_bytes());
        }
        Value::Text(_) | Value::Blob(_) => {
            out.push(if matches!(value, Value::Text(_)) {
                0x04
            } else {
                0x05
            });
            out.extend((bytes_of(value).len() as u64).to_le_bytes());
        }
    }
}

/// What is of any length.
fn bytes_of(value: &Value) -> &[u8] {
    match value {
        Value::Null | Value::Integer(_) | Value::Real(_) => &[],
        Value::Text(text) => text.as_bytes(),
        Value::Blob(bytes) => bytes,
    }
}

/// The tag of a changeset that follows one with the tag `previous`.
#[must_use]
pub fn next_tag(previous: Tag, changeset: ChangesetId) -> Tag {
    let bytes: Vec<u8> = [&previous.0[..], &changeset.0].concat();
    Tag(first8(&blake3::hash(&bytes)).to_le_bytes())
}

fn first8(hash: &blake3::Hash) -> u64 {
    let (head, _) = hash
        .as_bytes()
        .split_first_chunk::<8>()
        .expect("a hash has 32 bytes");
    u64::from_le_bytes(*head)
}
