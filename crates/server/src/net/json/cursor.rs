//! Where a pull goes on.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use syncline_core::{Cursor, DeviceId, RowKey, TableNumber, Tag, UserId, Version};
use syncline_store::{check_cursor, sign_cursor};

/// Cursors of pulls belong to no device.
const NO_DEVICE: DeviceId = DeviceId([0; 16]);
const FIXED_BYTES: usize = 8 + 8 + 8 + 2;

/// A place in the log, the tables that are pulled, and what of it was told already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Changes from here on are still to come.
    pub(super) version: Version,
    pub(super) tag: Tag,
    /// In order of number.
    pub(super) tables: Vec<TableNumber>,
    pub(super) at: At,
}

/// What lies at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum At {
    /// The end of a changeset.
    End,
    /// Rows that are being loaded: of this table, after this key, and of the tables behind it.
    Load(TableNumber, Option<RowKey>),
    /// The next changeset, of which everything up to this row was told.
    Within(TableNumber, RowKey),
}

const LOAD: u8 = 1;
const WITHIN: u8 = 2;

impl Place {
    /// As text that only this server's pulls of this user read.
    pub(super) fn encode(&self, secret: &[u8; 32], user: &UserId) -> String {
        let signed = sign_cursor(secret, user, NO_DEVICE, self.version, self.tag);
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&signed.version.0.to_le_bytes());
        bytes.extend_from_slice(&signed.tag.0);
        bytes.extend_from_slice(&signed.mac.0);
        let count = u16::try_from(self.tables.len()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&count.to_le_bytes());
        for table in self.tables.iter().take(count.into()) {
            bytes.extend_from_slice(&table.0.to_le_bytes());
        }
        let (kind, table, key) = match &self.at {
            At::End => return BASE64_URL_SAFE_NO_PAD.encode(bytes),
            At::Load(table, after) => (LOAD, table, after.as_ref()),
            At::Within(table, key) => (WITHIN, table, Some(key)),
        };
        bytes.push(kind);
        bytes.extend_from_slice(&table.0.to_le_bytes());
        bytes.extend_from_slice(key.map_or(&[], RowKey::as_bytes));
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The place that [`Place::encode`] made the text of, for this user; `None` for any other.
    pub(super) fn decode(text: &str, secret: &[u8; 32], user: &UserId) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (fixed, rest) = bytes.split_at_checked(FIXED_BYTES)?;
        let eight = |at: usize| fixed[at..at + 8].try_into().expect("eight bytes");
        let cursor = Cursor {
            version: Version(u64::from_le_bytes(eight(0))),
            tag: Tag(eight(8)),
            mac: Tag(eight(16)),
        };
        if !check_cursor(secret, user, NO_DEVICE, &cursor) {
            return None;
        }
        let count = usize::from(u16::from_le_bytes([fixed[24], fixed[25]]));
        let (tables, at) = rest.split_at_checked(4 * count)?;
        let number = |bytes: &[u8]| bytes.try_into().map(|n| TableNumber(u32::from_le_bytes(n)));
        let tables = tables
            .chunks(4)
            .map(number)
            .collect::<Result<_, _>>()
            .ok()?;
        let at = match at.split_first() {
            None => At::End,
            Some((kind, rest)) => {
                let (table, key) = rest.split_at_checked(4)?;
                let table = number(table).ok()?;
                match (*kind, key) {
                    (LOAD, []) => At::Load(table, None),
                    (LOAD, key) => At::Load(table, Some(RowKey::from_bytes(key).ok()?)),
                    (WITHIN, key) => At::Within(table, RowKey::from_bytes(key).ok()?),
                    _ => return None,
                }
            }
        };
        Some(Self {
            version: cursor.version,
            tag: cursor.tag,
            tables,
            at,
        })
    }
}
