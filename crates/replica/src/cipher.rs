//! Sealing and opening values of encrypted columns (docs/spec/encryption.md).
//!
//! Deterministic on purpose: the same value in the same cell gives the same envelope on every
//! device, so that digests and `verify` need no key, and a retry is the same bytes. AES-SIV
//! (RFC 5297) is made for that: it tells equal from unequal and nothing else.

use std::{fmt, str::FromStr, sync::Arc};

use aes_siv::{KeyInit as _, siv::Aes256Siv};
use syncline_core::{
    ColumnType, Row, RowKey, Table, Value,
    envelope::{Envelope, KeyId},
};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// What goes before every associated data, so that the key is of no use elsewhere.
const DOMAIN: &[u8] = b"syncline cell 1";
const SIV_CONTEXT: &str = "syncline 2026 encrypted columns, AES-256-SIV key";
const ID_CONTEXT: &str = "syncline 2026 encrypted columns, key id";
/// Before the digits of a key as text: programs that look for secrets find it.
const TEXT_PREFIX: &str = "syncline-key-";
/// Shorter values cannot be told apart by their length.
const PADDED_MIN: usize = 32;

/// A key for encrypted columns. Never shown, and wiped from memory when it is dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct EncryptionKey([u8; 32]);

/// Why a text is no key. Says nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an encryption key: expected `{TEXT_PREFIX}` and 64 hexadecimal digits")]
pub struct NotAKey;

impl EncryptionKey {
    /// A key of 32 random bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The name of the key in envelopes.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let mut id = [0; KeyId::BYTES];
        let mut hash = blake3::Hasher::new_derive_key(ID_CONTEXT);
        hash.update(&self.0).finalize_xof().fill(&mut id);
        KeyId(id)
    }

    /// The key as a text, which [`str::parse`] reads again.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = String::with_capacity(TEXT_PREFIX.len() + 64);
        text.push_str(TEXT_PREFIX);
        for byte in self.0 {
            for digit in [byte >> 4, byte & 0xF] {
                text.push(char::from_digit(digit.into(), 16).expect("four bits are a digit"));
            }
        }
        Zeroizing::new(text)
    }

    fn siv(&self) -> Zeroizing<[u8; 64]> {
        let mut key = Zeroizing::new([0; 64]);
        let mut hash = blake3::Hasher::new_derive_key(SIV_CONTEXT);
        hash.update(&self.0).finalize_xof().fill(&mut key[..]);
        key
    }
}

impl FromStr for EncryptionKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let digits = text.trim().strip_prefix(TEXT_PREFIX).ok_or(NotAKey)?;
        let mut key = Self([0; 32]);
        if digits.len() != 64 {
            return Err(NotAKey);
        }
        for (byte, pair) in key.0.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            for digit in pair {
                let digit = char::from(*digit).to_digit(16).ok_or(NotAKey)?;
                *byte = (*byte << 4) | u8::try_from(digit).map_err(|_| NotAKey)?;
            }
        }
        Ok(key)
    }
}

impl PartialEq for EncryptionKey {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for EncryptionKey {}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptionKey({})", self.id())
    }
}

/// Ways to seal a row that are tried, to find out whether the server has it so: seven values with
/// each of three keys, and then some.
const SEALINGS_MAX: usize = 4_096;

/// The keys of a device: one that seals, and older ones that open what was sealed before.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    /// The one that seals comes first.
    keys: Arc<[Derived]>,
}

struct Derived {
    id: KeyId,
    siv: Zeroizing<[u8; 64]>,
}

impl fmt::Debug for Derived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.id)
    }
}

/// A cell: what an envelope belongs to, and cannot be moved away from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell<'a> {
    /// Names as the server has them.
    pub(crate) table: &'a str,
    pub(crate) column: &'a str,
    pub(crate) key: &'a RowKey,
}

/// Why a value of an encrypted column cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Unreadable {
    /// Somebody wrote it without sealing it.
    NotSealed,
    /// This device does not have the key.
    UnknownKey(KeyId),
    /// The key is here, and did not seal this for this cell.
    Forged(KeyId),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSealed => f.write_str("somebody wrote a value that is not encrypted"),
            Self::UnknownKey(id) => write!(f, "sealed with key {id}, which this device lacks"),
            Self::Forged(id) => write!(
                f,
                "key {id} did not seal this value for this row and column: it was changed, or \
                 moved here"
            ),
        }
    }
}

impl PartialEq for Keyring {
    fn eq(&self, other: &Self) -> bool {
        self.ids().eq(other.ids())
    }
}

impl Eq for Keyring {}

impl Keyring {
    /// `current` seals; `older` open too.
    #[must_use]
    pub fn new(current: &EncryptionKey, older: &[EncryptionKey]) -> Self {
        let mut keys: Vec<Derived> = Vec::with_capacity(1 + older.len());
        for key in std::iter::once(current).chain(older) {
            let id = key.id();
            if keys.iter().all(|known| known.id != id) {
                let siv = key.siv();
                keys.push(Derived { id, siv });
            }
        }
        Self { keys: keys.into() }
    }

    /// Whether there is no key: nothing can be sealed or opened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The names of the keys, the one that seals first.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.keys.iter().map(|key| key.id)
    }

    /// A row of the app's with the values that the server of `table` has: those of encrypted columns
    /// sealed. `None` without a key.
    #[must_use]
    pub fn seal_row(&self, table: &Table, key: &RowKey, mut row: Row) -> Option<Row> {
        for (column, value) in table.columns.iter().zip(&mut row.0) {
            if column.encrypted.is_some() && !value.is_null() {
                let (table, column) = (&table.name, &column.name);
                *value = Value::Blob(self.seal(&Cell { table, column, key }, value)?);
            }
        }
        Some(row)
    }

    /// Whether `is` holds for the row with each encrypted value sealed with one of the keys: after
    /// a change of keys the server has values of all of them. At most 4,096 are tried.
    pub fn is_any_sealed(
        &self,
        table: &Table,
        key: &RowKey,
        mut row: Row,
        is: impl Fn(&Row) -> bool,
    ) -> bool {
        let mut sealings: Vec<(usize, Vec<Value>)> = Vec::new();
        for (position, column) in table.columns.iter().enumerate() {
            let value = &row.0[position];
            if column.encrypted.is_some() && !value.is_null() {
                let (table, column) = (&table.name, &column.name);
                let cell = Cell { table, column, key };
                let sealed = self.keys.iter().filter_map(|key| key.seal(&cell, value));
                sealings.push((position, sealed.map(Value::Blob).collect()));
            }
        }
        if sealings.iter().any(|(_, values)| values.is_empty()) {
            return false;
        }
        // Counts through all of them as a number with a digit for each value.
        for mut number in 0..SEALINGS_MAX {
            for (position, values) in &sealings {
                row.0[*position] = values[number % values.len()].clone();
                number /= values.len();
            }
            if number > 0 {
                return false;
            }
            if is(&row) {
                return true;
            }
        }
        false
    }

    /// A value that a server has in an encrypted column of this type, as the app has it. What cannot
    /// be opened stays as it is.
    #[must_use]
    pub fn opened(
        &self,
        (table, column): (&str, &str),
        ty: ColumnType,
        key: &RowKey,
        value: Value,
    ) -> Value {
        let Value::Blob(bytes) = &value else {
            return value;
        };
        match self.open(&Cell { table, column, key }, bytes) {
            Ok((opened, _)) => opened.canonical(ty),
            Err(_) => value,
        }
    }

    /// The envelope of a value; `None` without a key, or for NULL, which is not hidden.
    pub(crate) fn seal(&self, cell: &Cell<'_>, value: &Value) -> Option<Vec<u8>> {
        self.keys.first()?.seal(cell, value)
    }

    /// The value in an envelope, and whether the key that seals now sealed it.
    pub(crate) fn open(&self, cell: &Cell<'_>, bytes: &[u8]) -> Result<(Value, bool), Unreadable> {
        let envelope = Envelope::parse(bytes).ok_or(Unreadable::NotSealed)?;
        let place = self.keys.iter().position(|key| key.id == envelope.key);
        let place = place.ok_or(Unreadable::UnknownKey(envelope.key))?;
        let mut cipher = self.keys[place].cipher();
        let opened = cipher.decrypt(cell.associated(), envelope.sealed);
        let value = opened
            .ok()
            .map(Zeroizing::new)
            .and_then(|plain| unpadded(&plain));
        Ok((value.ok_or(Unreadable::Forged(envelope.key))?, place == 0))
    }
}

impl Derived {
    /// `None` for NULL.
    fn seal(&self, cell: &Cell<'_>, value: &Value) -> Option<Vec<u8>> {
        let plain = Zeroizing::new(padded(value)?);
        let sealed = self.cipher().encrypt(cell.associated(), &plain);
        let sealed = &sealed.expect("four associated data are fewer than 127");
        let key = self.id;
        Some(Envelope { key, sealed }.to_bytes())
    }

    fn cipher(&self) -> Aes256Siv {
        Aes256Siv::new_from_slice(&self.siv[..]).expect("the key has 64 bytes")
    }
}

impl Cell<'_> {
    fn associated(&self) -> [Vec<u8>; 4] {
        [
            DOMAIN.to_vec(),
            self.table.to_ascii_lowercase().into_bytes(),
            self.column.to_ascii_lowercase().into_bytes(),
            self.key.as_bytes().to_vec(),
        ]
    }
}

/// Storage class, bytes, 0x80, zeros up to [`padded_length`]. `None` for NULL.
fn padded(value: &Value) -> Option<Vec<u8>> {
    let (class, bytes): (u8, &[u8]) = match value {
        Value::Null => return None,
        Value::Integer(n) => (2, &n.to_be_bytes()),
        Value::Real(x) => (3, &x.to_bits().to_be_bytes()),
        Value::Text(text) => (4, text.as_bytes()),
        Value::Blob(bytes) => (5, bytes),
    };
    let length = padded_length(bytes.len() + 2);
    let mut plain = Vec::with_capacity(length);
    plain.push(class);
    plain.extend(bytes);
    plain.push(0x80);
    plain.resize(length, 0);
    Some(plain)
}

/// What [`padded`] made; `None` for anything else, so that no value has two envelopes.
fn unpadded(plain: &[u8]) -> Option<Value> {
    let end = plain.iter().rposition(|byte| *byte != 0)?;
    let (class, bytes) = plain[..end].split_first()?;
    if plain[end] != 0x80 || plain.len() != padded_length(end + 1) {
        return None;
    }
    match class {
        2 => Some(Value::Integer(i64::from_be_bytes(bytes.try_into().ok()?))),
        3 => Some(Value::Real(f64::from_bits(u64::from_be_bytes(
            bytes.try_into().ok()?,
        )))),
        4 => Some(Value::Text(std::str::from_utf8(bytes).ok()?.into())),
        5 => Some(Value::Blob(bytes.into())),
        _ => None,
    }
}

/// Padmé (Nikitin and others, 2019): at most 12 % longer, and of a length of n bits only its
/// highest log n are seen.
fn padded_length(length: usize) -> usize {
    let length = length.max(PADDED_MIN);
    let exponent = length.ilog2();
    let low_bits = exponent - (exponent.ilog2() + 1);
    let mask = (1 << low_bits) - 1;
    (length + mask) & !mask
}

#[cfg(test)]
mod tests;
