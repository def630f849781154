//! Rules: who may see and change which row (docs/spec/rules.md).
//!
//! A read rule is compiled to **bucket families**; buckets are what rows lie in and what people
//! are granted. Write rules are predicates, admitted as a least fixpoint over a changeset.

mod admit;
mod advice;
mod branch;
mod bucket;
mod call;
mod compare;
mod compile;
mod cond;
mod definition;
mod demand;
mod describe;
mod explain;
mod given;
mod hash;
mod hint;
mod index;
mod inherit;
mod judge;
mod lower;
mod membership;
mod normal;
mod parse;
mod parts;
mod predicate;
mod refusal;
mod rights;
mod scope;
mod subquery;
mod term;
#[cfg(test)]
mod tests;
mod texts;

use std::collections::BTreeMap;

pub use admit::ADMISSION_ROUNDS_MAX;
pub use branch::HOPS_MAX;
pub use demand::{Wanted, Way};
pub use explain::{Action, PEOPLE_MAX, Permitted, Reason, Through, Verdict};
pub use given::Given;
pub use inherit::INHERITANCE_MAX;
pub use normal::BRANCHES_MAX;
pub use parse::RULE_BYTES_MAX;
pub use rights::{Allowed, Right};

use compile::Compiled;
use cond::Env;
use judge::{Judge, Plain};
use term::{Field, Seen, Term};

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
/// what is missing, and the caller loads it and asks again. After an error other rows are still
/// looked up, so an implementation that notes what it was asked for finds most of it in one go;
/// the first error is returned.
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
    /// The rows that [`Facts::matching`] finds for both of two columns.
    ///
    /// `first` is the column next to the user, which usually has fewer rows. Worth implementing
    /// where an index on both columns answers at once.
    ///
    /// # Errors
    /// What has to be loaded first.
    fn matching_both(
        &self,
        table: TableNumber,
        first: (RuleColumn, &Value),
        second: (RuleColumn, &Value),
    ) -> Result<Vec<Stored>, Self::Missing> {
        let mut rows = self.matching(table, first.0, first.1)?;
        rows.retain(|row| Field::from(second.0).of(row).equals(&Seen::from(second.1)));
        Ok(rows)
    }
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

/// Who a grant is for, as far as it can be said in words: for the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantedTo {
    User(UserId),
    /// Whoever has a claim, or everybody.
    Others,
    /// Another grant says it: rows that sync on demand are granted with those that sync always.
    Twin,
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
///
/// A row of a table that `schema` does not have lies in no bucket, grants nothing and may be
/// neither read nor written.
#[derive(Debug, Clone)]
pub struct Rules {
    compiled: Compiled,
}

impl Rules {
    /// Compiles every rule of `schema`; `key` keys the bucket and grantee ids.
    ///
    /// # Errors
    /// Every rule that does not fit, not only the first.
    pub fn compile(schema: &Schema, key: &[u8; 32]) -> Result<Self, Vec<RuleError>> {
        Ok(Self {
            compiled: Compiled::new(schema, key)?,
        })
    }

    /// Changes exactly when a bucket or grantee could get another id or meaning.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        self.compiled.fingerprint
    }

    /// The buckets `stored` lies in, sorted, without doubles.
    ///
    /// # Errors
    /// What has to be loaded first (parents, where a rule inherits).
    pub fn buckets<F: Facts>(
        &self,
        stored: &Stored,
        facts: &F,
    ) -> Result<Vec<BucketId>, F::Missing> {
        match self.table(stored.table) {
            Some(table) => self.compiled.buckets(table, stored, facts),
            None => Ok(Vec::new()),
        }
    }

    /// Whether two images of one row lie in the same buckets for sure, as long as their parents
    /// do not change: then [`Rules::buckets`] need not be asked.
    #[must_use]
    pub fn same_buckets(&self, before: &Stored, after: &Stored) -> bool {
        let table = self
            .table(before.table)
            .map(|table| &self.compiled.tables[table]);
        table.is_none_or(|table| same(&table.bucket_fields, before, after))
    }

    /// The tables whose rows can lie in `bucket`, in order of number; none for a bucket that these
    /// rules do not know.
    #[must_use]
    pub fn tables_of(&self, bucket: BucketId) -> &[TableNumber] {
        self.compiled
            .bucket_tables
            .get(&demand::head(bucket))
            .map_or(&[], Vec::as_slice)
    }

    /// The tables (and their columns) whose rows inherit buckets from rows of `table`: when a
    /// parent's buckets change, its children's change in the same commit.
    #[must_use]
    pub fn inheriting(&self, table: TableNumber) -> Vec<(TableNumber, RuleColumn)> {
        let table = self.table(table);
        table.map_or_else(Vec::new, |table| {
            self.compiled.tables[table].children.clone()
        })
    }

    /// Every (table, column) by which rules look rows up through [`Facts::matching`]: what a
    /// database needs an index for. Sorted, without doubles.
    #[must_use]
    pub fn lookups(&self) -> Vec<(TableNumber, RuleColumn)> {
        let mut out = Vec::new();
        for table in &self.compiled.tables {
            out.extend(table.lookups.iter().map(|&column| (table.number, column)));
            out.extend(&table.children);
        }
        out.sort_unstable();
        out.dedup();
        out
    }

    /// What to ask [`Facts::matching`] for to find all rows that inherit buckets from the row of
    /// `table` with this key: [`Rules::inheriting`] with every canonical form of the key's value
    /// in the children's columns.
    #[must_use]
    pub fn child_lookups(
        &self,
        table: TableNumber,
        key: &RowKey,
    ) -> Vec<(TableNumber, RuleColumn, Value)> {
        let children = self
            .table(table)
            .map(|table| &self.compiled.tables[table].children);
        let (Some(children), Ok(values)) = (children, key.decode()) else {
            return Vec::new();
        };
        let [value] = &values[..] else {
            return Vec::new();
        };
        let forms = |&(child, column): &(TableNumber, RuleColumn)| {
            let ty = self
                .table(child)
                .map(|child| self.compiled.tables[child].type_of(column));
            let forms = ty.map_or_else(Vec::new, |ty| Seen::from(value).forms(ty));
            forms.into_iter().map(move |form| (child, column, form))
        };
        children.iter().flat_map(forms).collect()
    }

    /// What `stored` grants in the state `facts`, sorted, with repetitions: one for each path
    /// through it.
    ///
    /// A change's grant difference is this before it (over the state before) against this after
    /// it (over the state after), for one row at a time. `facts` holds `stored`.
    ///
    /// # Errors
    /// What has to be loaded first (rows of the chain).
    pub fn grants<F: Facts>(&self, stored: &Stored, facts: &F) -> Result<Vec<Grant>, F::Missing> {
        let named = self.named_grants(stored, facts)?;
        Ok(named.into_iter().map(|(grant, _)| grant).collect())
    }

    /// As [`Rules::grants`], with who each is for.
    ///
    /// # Errors
    /// What has to be loaded first (rows of the chain).
    pub fn named_grants<F: Facts>(
        &self,
        stored: &Stored,
        facts: &F,
    ) -> Result<Vec<(Grant, GrantedTo)>, F::Missing> {
        match self.table(stored.table) {
            Some(table) => self.compiled.grants(table, stored, facts),
            None => Ok(Vec::new()),
        }
    }

    /// The buckets that are a row's own: there for nothing else than it and what inherits from it.
    #[must_use]
    pub fn own_buckets(&self, table: TableNumber, key: &RowKey) -> Vec<BucketId> {
        let table = self.table(table);
        table.map_or_else(Vec::new, |table| self.compiled.own_buckets(table, key))
    }

    /// Whether two images of one row grant the same for sure: then [`Rules::grants`] need not be
    /// asked for either.
    #[must_use]
    pub fn same_grants(&self, before: &Stored, after: &Stored) -> bool {
        let table = self
            .table(before.table)
            .map(|table| &self.compiled.tables[table]);
        table.is_none_or(|table| same(&table.grant_fields, before, after))
    }

    /// What `identity` is granted, now and by later grants. Both lists are sorted, without
    /// doubles.
    #[must_use]
    pub fn reader(&self, identity: &Identity) -> Reader {
        self.compiled.reader(identity)
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
        let judge = Judge {
            rules: &self.compiled,
            lookup: &Plain(facts),
            identity,
        };
        match self.table(stored.table) {
            Some(table) => judge.may_read(table, stored),
            None => Ok(false),
        }
    }

    /// Admits the changes of a changeset as a least fixpoint: each must be allowed on the state
    /// before the changeset (`facts`) plus the changes already admitted, never on itself.
    /// `Ok(Err(i))` names the first change that stays inadmissible.
    ///
    /// `changes` has at most one for each row, and their order says nothing about what is
    /// admitted. Changes may wait for one another through [`ADMISSION_ROUNDS_MAX`] rows.
    ///
    /// # Errors
    /// What has to be loaded first.
    pub fn admit<F: Facts>(
        &self,
        identity: &Identity,
        changes: &[Proposed],
        facts: &F,
    ) -> Result<Result<(), usize>, F::Missing> {
        self.compiled.admit(identity, changes, facts)
    }

    /// The values that `table`'s `force` sets on an inserted or updated row of `identity`, by
    /// position in [`crate::Table::columns`], canonical. A claim that is not there is NULL.
    #[must_use]
    pub fn forced(&self, identity: &Identity, table: TableNumber) -> Vec<(usize, Value)> {
        let Some(table) = self.table(table).map(|table| &self.compiled.tables[table]) else {
            return Vec::new();
        };
        let value = |(position, term): &(usize, Term)| {
            let value = Env::user(identity).term(term).into_value();
            (*position, value.canonical(table.types[*position]))
        };
        table.forced.iter().map(value).collect()
    }

    /// What each rule of `table` says, in words: a line for each.
    #[must_use]
    pub fn describe(&self, table: &str) -> String {
        let mut tables = self.compiled.tables.iter();
        let table = tables.find(|rules| rules.name.eq_ignore_ascii_case(table));
        table.map_or_else(String::new, |table| table.words.clone())
    }

    /// Rules that work but cost more than they need to, with what to write instead, columns that
    /// rules cannot name, and what this version does not do: a sentence for each, for whoever
    /// checks a configuration.
    #[must_use]
    pub fn advice(&self) -> &[String] {
        &self.compiled.advice
    }

    fn table(&self, number: TableNumber) -> Option<usize> {
        self.compiled.by_number.get(&number).copied()
    }
}

/// Whether all of `fields` have equal values.
fn same(fields: &[Field], before: &Stored, after: &Stored) -> bool {
    fields
        .iter()
        .all(|field| field.of(before) == field.of(after))
}
