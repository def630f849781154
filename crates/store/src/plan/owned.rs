//! What users own, counted for the quotas of `[limits]` (spec LI6).
//!
//! A row is its owner's, who inserted it, whoever changes it later. What another program inserted
//! is nobody's, and rows of built-in tables are not counted: no conflict is kept from anybody.

use std::collections::BTreeMap;

use syncline_core::{
    Row, RowKey, Schema, TableNumber, UserId, Value, Version, builtin::FIRST_OWN,
    config::LimitsConfig, wire::code,
};

use super::{context::Context, draft::RowDraft, entry::Author, state::State, submission::Refused};
use crate::{
    meta::{Owned, RowMeta},
    want::Missing,
};

/// What some changes add to what users own.
#[derive(Debug, Default)]
pub(crate) struct Differences {
    pub(crate) users: BTreeMap<UserId, Difference>,
    /// A row was changed that nobody knows the size of, as it was.
    pub(crate) doubtful: bool,
}

/// What is added to (or, below zero, taken from) what one user owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Difference {
    rows: i64,
    bytes: i64,
}

impl Difference {
    pub(crate) fn added_to(self, owned: Owned) -> Owned {
        Owned {
            rows: owned.rows.saturating_add_signed(self.rows),
            bytes: owned.bytes.saturating_add_signed(self.bytes),
        }
    }
}

impl Differences {
    /// What `rows` change on top of `state`; nothing where it is not counted. Asks for what their
    /// owners own so far.
    pub(crate) fn of(context: &Context, state: &State, rows: &[RowDraft]) -> Result<Self, Missing> {
        let mut differences = Self::default();
        if !context.limits().has_quota() {
            return Ok(differences);
        }
        let counted = |row: &&RowDraft| row.image && row.table >= FIRST_OWN;
        for draft in rows.iter().filter(counted) {
            if let Some(before) = state.row(draft.table, &draft.key)? {
                differences.add(&draft.key, before.row, before.meta, -1);
            }
            differences.add(&draft.key, draft.row.as_ref(), &draft.meta, 1);
        }
        differences
            .users
            .retain(|_, more| *more != Difference::default());
        let asked = differences.users.keys().map(|user| state.owned(user));
        let wants: Vec<_> = asked
            .filter_map(Result::err)
            .flat_map(|Missing(wants)| wants)
            .collect();
        match wants.is_empty() {
            true => Ok(differences),
            false => Err(Missing(wants)),
        }
    }

    fn add(&mut self, key: &RowKey, row: Option<&Row>, meta: &RowMeta, sign: i64) {
        let Some(owner) = meta.owner.as_ref().filter(|_| is_live(meta)) else {
            return;
        };
        let bytes = match row {
            Some(row) => row_bytes(key, row),
            None => {
                self.doubtful = true;
                0
            }
        };
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let difference = self.users.entry(owner.clone()).or_default();
        difference.rows += sign;
        difference.bytes = difference.bytes.saturating_add(sign.saturating_mul(bytes));
    }
}

fn is_live(meta: &RowMeta) -> bool {
    !meta.deleted && meta.version > Version::ZERO
}

/// Bytes of a row's key and values. Numbers count as eight, whatever a database makes of them.
pub(crate) fn row_bytes(key: &RowKey, row: &Row) -> u64 {
    (key.as_bytes().len() + values_bytes(row)) as u64
}

/// Bytes of the values alone.
pub(crate) fn values_bytes(row: &Row) -> usize {
    let values = row.0.iter().map(|value| match value {
        Value::Null => 0,
        Value::Integer(_) | Value::Real(_) => 8,
        Value::Text(text) => text.len(),
        Value::Blob(bytes) => bytes.len(),
    });
    values.sum()
}

/// Refuses what lets somebody own more than is kept for one. Whoever owns too much already, since
/// less is kept or by what the database does by itself, may change and delete, and not add.
pub(crate) fn quota(
    limits: &LimitsConfig,
    state: &State,
    author: &Author,
    differences: &Differences,
) -> Result<Option<Refused>, Missing> {
    for (user, &difference) in &differences.users {
        let owned = difference.added_to(state.owned(user)?);
        let quotas = [
            ("rows", difference.rows, owned.rows, limits.user_rows),
            ("bytes", difference.bytes, owned.bytes, limits.user_bytes),
        ];
        for (what, more, owned, most) in quotas {
            if most == 0 || more <= 0 || owned <= most {
                continue;
            }
            let message = if author.user.as_ref() == Some(user) {
                format!(
                    "you would own {owned} {what}; this server keeps {most} for a person: delete \
                     some of yours, then retry"
                )
            } else {
                // How much somebody else owns is not told.
                format!(
                    "it adds {what} to what somebody else owns, and this server keeps no more than \
                     {most} for a person: make it smaller, or ask them to delete some, then retry"
                )
            };
            return Ok(Some(Refused::whole(code::OVER_QUOTA, message)));
        }
    }
    Ok(None)
}

/// Of everything that decides which rows are counted, and how large they are.
pub(crate) fn fingerprint(schema: &Schema) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    hash.update(b"syncline owned 1");
    let own = |number: TableNumber| number >= FIRST_OWN;
    for table in schema.tables.iter().filter(|table| own(table.number)) {
        hash.update(&table.number.0.to_le_bytes());
        hash.update(&(table.columns.len() as u64).to_le_bytes());
        for column in &table.columns {
            hash.update(&column.number.0.to_le_bytes());
            hash.update(&[u8::from(column.generated)]);
            hash.update(format!("{:?}", column.ty).as_bytes())
                .update(&[0]);
        }
    }
    *hash.finalize().as_bytes()
}
