//! Rules: who may see and change which row (docs/spec/rules.md).
//!
//! A read rule is compiled to **bucket families**; buckets are what rows lie in and what people
//! are granted. Write rules are predicates, admitted as a least fixpoint over a changeset.

use std::collections::BTreeMap;

use crate::{
    ids::{BucketId, TableNumber, UserId, Version},
    key::RowKey,
    row::Row,
    schema::Schema,
    value::Value,
};

/// Who asks: the verified subject of a token and its claims.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Identity {
    /// `None` for somebody who has not signed in.
    pub user: Option<UserId>,
    /// Claims besides `sub`, as the token has them.
    pub claims: BTreeMap<String, serde_json::Value>,
}

/// A row as rules see it: its values and what the server knows of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    pub table: TableNumber,
    pub key: RowKey,
    pub row: Row,
    /// `_owner`; `None` for rows that another program wrote into the server's database.
    pub owner: Option<UserId>,
    /// `_created_at`.
    pub created: Version,
    /// `_version`, and as time `_last_modified_at`.
    pub version: Version,
    /// `_last_modified_by`.
    pub author: Option<UserId>,
}

/// What a column name in a rule stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleColumn {
    /// Position in [`crate::Table::columns`].
    Column(usize),
    /// `_owner`.
    Owner,
}

/// Where rules look up other rows. Implementations may not have a row at hand: their error says
/// what is missing, and the caller loads it and asks again.
pub trait Facts {
    type Missing;
    /// The live row with this key.
    ///
    /// # Errors
    /// What has to be loaded first.
    fn stored(&self, table: TableNumber, key: &RowKey) -> Result<Option<Stored>, Self::Missing>;
    /// All live rows of `table` whose `column` equals `value` (canonical equality, NULL never).
    ///
    /// # Errors
    /// What has to be loaded first.
    fn matching(
        &self,
        table: TableNumber,
        column: RuleColumn,
        value: &Value,
    ) -> Result<Vec<Stored>, Self::Missing>;
}

/// Somebody a bucket can be granted to: keyed hash of (branch, kind, value), 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GranteeId(pub [u8; 16]);

/// A bucket granted to a grantee because of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    pub grantee: GranteeId,
    pub bucket: BucketId,
}

/// What an identity is granted: its buckets are `fixed` and those granted to any of `grantees`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reader {
    pub fixed: Vec<BucketId>,
    pub grantees: Vec<GranteeId>,
}

/// A row change as write rules judge it.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposed {
    pub before: Option<Stored>,
    pub after: Option<Stored>,
}

/// A rule that cannot be used, found when compiling.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tables.{table}.{rule}: {message}: `{clause}`; {suggestion}")]
pub struct RuleError {
    pub table: String,
    /// `read`, `write`, `create`, `update`, `delete` or `force`.
    pub rule: &'static str,
    /// The part of the text that is refused.
    pub clause: String,
    pub message: String,
    /// What to write instead.
    pub suggestion: String,
    /// Byte offset of `clause` in the rule's text, where known.
    pub offset: Option<usize>,
}

/// The compiled rules of a schema.
#[derive(Debug, Clone)]
pub struct Rules {
    _private: (),
}

impl Rules {
    /// Compiles every rule of `schema`; `key` keys the bucket and grantee ids.
    ///
    /// # Errors
    /// Every rule that does not fit, not only the first.
    pub fn compile(schema: &Schema, key: &[u8; 32]) -> Result<Self, Vec<RuleError>> {
        let _ = (schema, key);
        Ok(Self { _private: () })
    }

    /// Changes exactly when a bucket or grantee could get another id or meaning.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        [0; 32]
    }

    /// The buckets `stored` lies in, sorted, without doubles.
    ///
    /// # Errors
    /// What has to be loaded first (parents, where a rule inherits).
    pub fn buckets<F: Facts>(&self, stored: &Stored, facts: &F) -> Result<Vec<BucketId>, F::Missing> {
        let _ = (stored, facts);
        Ok(Vec::new())
    }

    /// The tables (and their columns) whose rows inherit buckets from rows of `table`: when a
    /// parent's buckets change, its children's change in the same commit.
    #[must_use]
    pub fn inheriting(&self, table: TableNumber) -> Vec<(TableNumber, RuleColumn)> {
        let _ = table;
        Vec::new()
    }

    /// What `stored` grants in the state `facts`, with repetitions: one for each path through it.
    ///
    /// A change's grant difference is this before it (over the state before) against this after
    /// it (over the state after), for one row at a time.
    ///
    /// # Errors
    /// What has to be loaded first (rows of the chain).
    pub fn grants<F: Facts>(&self, stored: &Stored, facts: &F) -> Result<Vec<Grant>, F::Missing> {
        let _ = (stored, facts);
        Ok(Vec::new())
    }

    /// What `identity` is granted, now and by later grants.
    #[must_use]
    pub fn reader(&self, identity: &Identity) -> Reader {
        let _ = identity;
        Reader::default()
    }

    /// Whether `identity` may read `stored`, evaluated directly, without buckets.
    ///
    /// # Errors
    /// What has to be loaded first.
    pub fn may_read<F: Facts>(
        &self,
        identity: &Identity,
        stored: &Stored,
        facts: &F,
    ) -> Result<bool, F::Missing> {
        let _ = (identity, stored, facts);
        Ok(true)
    }

    /// Admits the changes of a changeset as a least fixpoint: each must be allowed on the state
    /// before the changeset (`facts`) plus the changes already admitted, never on itself.
    /// `Ok(Err(i))` names the first change that stays inadmissible.
    ///
    /// # Errors
    /// What has to be loaded first.
    pub fn admit<F: Facts>(
        &self,
        identity: &Identity,
        changes: &[Proposed],
        facts: &F,
    ) -> Result<Result<(), usize>, F::Missing> {
        let _ = (identity, changes, facts);
        Ok(Ok(()))
    }

    /// The values that `table`'s `force` sets on an inserted or updated row of `identity`.
    #[must_use]
    pub fn forced(&self, identity: &Identity, table: TableNumber) -> Vec<(usize, Value)> {
        let _ = (identity, table);
        Vec::new()
    }
}
