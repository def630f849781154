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
    let mut hash = blake3::Hasher::new();
    hash.update(&table.0.to_le_bytes());
    hash.update(&version.0.to_le_bytes());
    hash.update(key.as_bytes());
    first8(&hash)
}

/// The hash of a row's content: every column but generated ones, in order of column number.
///
/// The row is canonical and aligned with `table`. NULLs are left out, so adding a column that is
/// NULL everywhere changes no hash.
#[must_use]
pub fn content_hash(table: &Table, row: &Row) -> u64 {
    let mut columns: Vec<_> = table
        .columns
        .iter()
        .zip(&row.0)
        .filter(|(c, v)| !c.generated && !v.is_null())
        .collect();
    columns.sort_by_key(|(column, _)| column.number);
    let mut hash = blake3::Hasher::new();
    for (column, value) in columns {
        hash.update(&column.number.0.to_le_bytes());
        hash_value(&mut hash, value);
    }
    first8(&hash)
}

/// Storage class tag, length (u64 LE) of what has one, bytes: no two values share an encoding.
fn hash_value(hash: &mut blake3::Hasher, value: &Value) {
    match value {
        Value::Null => {
            hash.update(&[0x01]);
        }
        Value::Integer(n) => {
            hash.update(&[0x02]).update(&n.to_le_bytes());
        }
        Value::Real(x) => {
            hash.update(&[0x03]).update(&x.to_bits().to_le_bytes());
        }
        Value::Text(text) => {
            hash.update(&[0x04])
                .update(&(text.len() as u64).to_le_bytes())
                .update(text.as_bytes());
        }
        Value::Blob(bytes) => {
            hash.update(&[0x05])
                .update(&(bytes.len() as u64).to_le_bytes())
                .update(bytes);
        }
    }
}

/// The tag of a changeset that follows one with the tag `previous`.
#[must_use]
pub fn next_tag(previous: Tag, changeset: ChangesetId) -> Tag {
    let mut hash = blake3::Hasher::new();
    hash.update(&previous.0).update(&changeset.0);
    Tag(first8(&hash).to_le_bytes())
}

fn first8(hash: &blake3::Hasher) -> u64 {
    let bytes = hash.finalize();
    let (head, _) = bytes
        .as_bytes()
        .split_first_chunk::<8>()
        .expect("a hash has 32 bytes");
    u64::from_le_bytes(*head)
}
