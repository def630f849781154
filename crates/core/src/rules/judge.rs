//! Direct evaluation: whether a branch holds for an identity and a row, by looking rows up.

use super::{
    Facts, Identity, RuleColumn, Stored,
    branch::{Chain, Hop, Link, ReadBranch, WriteBranch},
    compile::{Compiled, TableRules},
    cond::{Env, all_hold},
    normal::Mode,
    term::{Field, Seen},
};
use crate::{ids::TableNumber, key::RowKey, schema::ColumnType, value::Value};

/// Rows to judge by. Unlike in [`Facts`], a row may have several images at once: before a
/// changeset and after its changes.
pub(super) trait Lookup {
    type Missing;

    fn images(&self, table: TableNumber, key: &RowKey) -> Result<Vec<Stored>, Self::Missing>;

    fn matching(
        &self,
        table: TableNumber,
        column: RuleColumn,
        value: &Value,
    ) -> Result<Vec<Stored>, Self::Missing>;

    fn matching_both(
        &self,
        table: TableNumber,
        first: (RuleColumn, &Value),
        second: (RuleColumn, &Value),
    ) -> Result<Vec<Stored>, Self::Missing>;

    /// The answer to a question that was asked before.
    fn recall(&self, question: &Question) -> Option<bool>;
    fn remember(&self, question: Question, answer: bool);
}

/// A question whose answer depends on nothing but rows and the identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Question {
    /// Whether the rule of (table, mode) holds for the row with this key.
    Row(usize, Mode, RowKey),
    /// Whether the chain at this address leads from this value to the identity.
    Chain(usize, Vec<u8>),
}

/// Facts as they are.
#[derive(Debug)]
pub(super) struct Plain<'a, F>(pub(super) &'a F);

impl<F: Facts> Lookup for Plain<'_, F> {
    type Missing = F::Missing;

    fn images(&self, table: TableNumber, key: &RowKey) -> Result<Vec<Stored>, F::Missing> {
        Ok(self.0.stored(table, key)?.into_iter().collect())
    }

    fn matching(
        &self,
        table: TableNumber,
        column: RuleColumn,
        value: &Value,
    ) -> Result<Vec<Stored>, F::Missing> {
        self.0.matching(table, column, value)
    }

    fn matching_both(
        &self,
        table: TableNumber,
        first: (RuleColumn, &Value),
        second: (RuleColumn, &Value),
    ) -> Result<Vec<Stored>, F::Missing> {
        self.0.matching_both(table, first, second)
    }

    fn recall(&self, _: &Question) -> Option<bool> {
        None
    }

    fn remember(&self, _: Question, _: bool) {}
}

/// Judges for one identity.
#[derive(Debug)]
pub(super) struct Judge<'a, L> {
    pub(super) rules: &'a Compiled,
    pub(super) lookup: &'a L,
    pub(super) identity: &'a Identity,
}

impl<L: Lookup> Judge<'_, L> {
    /// Whether the read rule holds for `row`.
    pub(super) fn may_read(&self, table: usize, row: &Stored) -> Result<bool, L::Missing> {
        any(&self.rules.tables[table].read, |branch| {
            self.read_branch(branch, row)
        })
    }

    pub(super) fn read_branch(
        &self,
        branch: &ReadBranch,
        row: &Stored,
    ) -> Result<bool, L::Missing> {
        let env = Env::row(row);
        if !all_hold(&branch.row, env) || !all_hold(&branch.user, Env::user(self.identity)) {
            return Ok(false);
        }
        match &branch.link {
            Link::Everybody => Ok(true),
            Link::User(field, term) => Ok(field.of(row).equals(&term.of(self.identity))),
            Link::Chain(chain) => self.chain(chain, env),
            Link::Parent(column, parent) => {
                self.parent(Field::from(*column).of(row), *parent, Mode::Read)
            }
        }
    }

    /// Whether one of a write rule's branches holds.
    pub(super) fn may_write(
        &self,
        branches: &[WriteBranch],
        env: Env<'_>,
    ) -> Result<bool, L::Missing> {
        any(branches, |branch| self.write_branch(branch, env))
    }

    pub(super) fn write_branch(
        &self,
        branch: &WriteBranch,
        env: Env<'_>,
    ) -> Result<bool, L::Missing> {
        if !all_hold(&branch.conds, env) {
            return Ok(false);
        }
        for parent in &branch.parents {
            let value = env.field(parent.place, parent.field);
            if !self.parent(value, parent.parent, parent.mode)? {
                return Ok(false);
            }
        }
        for chain in &branch.chains {
            if !self.chain(chain, env)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the rule of the parent with the key `value` holds.
    fn parent(&self, value: Seen<'_>, parent: usize, mode: Mode) -> Result<bool, L::Missing> {
        let rules = &self.rules.tables[parent];
        let Some(key) = rules.key_of(value) else {
            return Ok(false);
        };
        self.answered(Question::Row(parent, mode, key.clone()), || {
            let images = self.lookup.images(rules.number, &key)?;
            any(&images, |row| match mode {
                Mode::Read => self.may_read(parent, row),
                Mode::Write => self.may_update_as_it_is(parent, row),
            })
        })
    }

    /// What `writable(parent)` asks: the update rule, with the row unchanged.
    fn may_update_as_it_is(&self, table: usize, row: &Stored) -> Result<bool, L::Missing> {
        let image = Some(row);
        let env = Env {
            row: image,
            old: image,
            new: image,
            identity: Some(self.identity),
        };
        self.may_write(&self.rules.tables[table].update, env)
    }

    pub(super) fn chain(&self, chain: &Chain, env: Env<'_>) -> Result<bool, L::Missing> {
        let end = chain.end.as_ref().map(|term| term.of(self.identity));
        if end.as_ref().is_some_and(Seen::is_null) {
            return Ok(false);
        }
        let mut bytes = Vec::new();
        let start = chain
            .start
            .map(|(place, column)| env.field(place, Field::from(column)));
        if let Some(start) = &start
            && !start.encode(&mut bytes)
        {
            return Ok(false);
        }
        let question = Question::Chain(std::ptr::from_ref(chain).addr(), bytes);
        self.answered(question, || match (&start, &end) {
            (Some(start), _) => self.reaches(&chain.hops, start, end.as_ref()),
            (None, Some(end)) => self.reached_from(&chain.hops, end),
            (None, None) => Ok(false),
        })
    }

    fn answered(
        &self,
        question: Question,
        answer: impl FnOnce() -> Result<bool, L::Missing>,
    ) -> Result<bool, L::Missing> {
        if let Some(known) = self.lookup.recall(&question) {
            return Ok(known);
        }
        let answer = answer()?;
        self.lookup.remember(question, answer);
        Ok(answer)
    }

    /// Whether rows of `hops` lead from the value `from` to `end`.
    fn reaches(
        &self,
        hops: &[Hop],
        from: &Seen<'_>,
        end: Option<&Seen<'_>>,
    ) -> Result<bool, L::Missing> {
        let [hop, rest @ ..] = hops else {
            return Ok(true);
        };
        let Some(left) = hop.left else {
            return Ok(false);
        };
        let right = hop.right.and_then(Field::lookup);
        if let (Some(right), Some(end), []) = (right, end, rest) {
            let rows = self
                .rules
                .both(self.lookup, hop.table, (right, end), (left, from))?;
            return Ok(rows.iter().any(|row| all_hold(&hop.conds, Env::row(row))));
        }
        let rows = self.rules.matching(self.lookup, hop.table, left, from)?;
        any(&rows, |row| {
            if !all_hold(&hop.conds, Env::row(row)) {
                return Ok(false);
            }
            match hop.right {
                Some(right) => self.reaches(rest, &right.of(row), end),
                None => Ok(true),
            }
        })
    }

    /// Whether rows of `hops` lead from anywhere to `end`, walked from there.
    fn reached_from(&self, hops: &[Hop], end: &Seen<'_>) -> Result<bool, L::Missing> {
        let [rest @ .., hop] = hops else {
            return Ok(true);
        };
        let Some(right) = hop.right.and_then(Field::lookup) else {
            return Ok(false);
        };
        let rows = self.rules.matching(self.lookup, hop.table, right, end)?;
        any(&rows, |row| {
            if !all_hold(&hop.conds, Env::row(row)) {
                return Ok(false);
            }
            match hop.left {
                Some(left) => self.reached_from(rest, &Field::from(left).of(row)),
                None => Ok(true),
            }
        })
    }
}

impl TableRules {
    /// The key of this table that equals `value`: keys do not tell 1 from 1.0 (spec CE11).
    pub(super) fn key_of(&self, value: Seen<'_>) -> Option<RowKey> {
        // Neither NULL nor a value too long for a key is a row's key.
        self.key
            .and_then(|_| RowKey::encode([&value.into_value()]).ok())
    }

    /// The type of a column.
    pub(super) fn type_of(&self, column: RuleColumn) -> ColumnType {
        match column {
            RuleColumn::Column(position) => self.types[position],
            RuleColumn::Owner => ColumnType::Text,
        }
    }
}

impl Compiled {
    /// All rows of a table whose column equals `value`.
    pub(super) fn matching<L: Lookup>(
        &self,
        lookup: &L,
        table: usize,
        column: RuleColumn,
        value: &Seen<'_>,
    ) -> Result<Vec<Stored>, L::Missing> {
        let rules = &self.tables[table];
        let mut rows = Vec::new();
        if rules.key.map(RuleColumn::Column) == Some(column) {
            return rules
                .key_of(value.clone())
                .map_or(Ok(rows), |key| lookup.images(rules.number, &key));
        }
        for form in value.forms(rules.type_of(column)) {
            rows.extend(lookup.matching(rules.number, column, &form)?);
        }
        Ok(rows)
    }

    /// All rows of a table whose two columns equal two values.
    fn both<L: Lookup>(
        &self,
        lookup: &L,
        table: usize,
        first: (RuleColumn, &Seen<'_>),
        second: (RuleColumn, &Seen<'_>),
    ) -> Result<Vec<Stored>, L::Missing> {
        let rules = &self.tables[table];
        for (one, other) in [(first, second), (second, first)] {
            if rules.key.map(RuleColumn::Column) == Some(one.0) {
                let mut rows = self.matching(lookup, table, one.0, one.1)?;
                rows.retain(|row| Field::from(other.0).of(row).equals(other.1));
                return Ok(rows);
            }
        }
        let mut rows = Vec::new();
        for first_form in first.1.forms(rules.type_of(first.0)) {
            for second_form in second.1.forms(rules.type_of(second.0)) {
                let (first, second) = ((first.0, &first_form), (second.0, &second_form));
                rows.extend(lookup.matching_both(rules.number, first, second)?);
            }
        }
        Ok(rows)
    }
}

/// Whether one of `items` is true, looking no further than the first that is.
///
/// What is missing stops nothing: another item may be true without it, and if none is, the
/// caller has been asked for all of it.
fn any<T, E>(items: &[T], mut holds: impl FnMut(&T) -> Result<bool, E>) -> Result<bool, E> {
    let mut missing = None;
    for item in items {
        match holds(item) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error) => missing = missing.or(Some(error)),
        }
    }
    missing.map_or(Ok(false), Err)
}

/// Does all of `items` even where something is missing, so that the caller is asked for all of
/// it at once.
pub(super) fn each<T, E>(
    items: impl IntoIterator<Item = T>,
    mut work: impl FnMut(T) -> Result<(), E>,
) -> Result<(), E> {
    let mut missing = None;
    for item in items {
        if let Err(error) = work(item) {
            missing = missing.or(Some(error));
        }
    }
    missing.map_or(Ok(()), Err)
}
