//! Admission of a changeset's changes as a least fixpoint (spec RU20–RU23).

use std::{cell::RefCell, collections::BTreeMap};

use super::{
    Facts, Identity, Proposed, RuleColumn, Stored,
    compile::Compiled,
    cond::Env,
    judge::{Judge, Lookup, Question, each},
    term::{Field, Seen},
};
use crate::planted;
use crate::{ids::TableNumber, key::RowKey, value::Value};

/// How often the changes of a changeset may allow further ones.
pub const ADMISSION_ROUNDS_MAX: usize = 16;

impl Compiled {
    /// `Ok(Err(i))` names the first change that stays inadmissible.
    pub(super) fn admit<F: Facts>(
        &self,
        identity: &Identity,
        changes: &[Proposed],
        facts: &F,
    ) -> Result<Result<(), usize>, F::Missing> {
        let mut overlay = Overlay::new(self, facts);
        let mut pending: Vec<usize> = (0..changes.len()).collect();
        if planted!(SelfGrantedMembership) {
            changes
                .iter()
                .for_each(|change| overlay.add(change.after.as_ref()));
        }
        for _ in 0..ADMISSION_ROUNDS_MAX {
            // All of a round are judged by the rounds before it: so their order says nothing.
            let judge = Judge {
                rules: self,
                lookup: &overlay,
                identity,
            };
            let (mut admitted, mut refused) = (Vec::new(), Vec::new());
            each(pending, |i| {
                let allowed = self.allows(&judge, &changes[i])?;
                if allowed { &mut admitted } else { &mut refused }.push(i);
                Ok(())
            })?;
            pending = refused;
            let Some(&first) = pending.first() else {
                return Ok(Ok(()));
            };
            if admitted.is_empty() {
                return Ok(Err(first));
            }
            for i in admitted {
                overlay.add(changes[i].after.as_ref());
            }
            overlay.forget_refusals();
        }
        Ok(pending.first().map_or(Ok(()), |&first| Err(first)))
    }

    pub(super) fn allows<L: Lookup>(
        &self,
        judge: &Judge<'_, L>,
        change: &Proposed,
    ) -> Result<bool, L::Missing> {
        let (old, new) = (change.before.as_ref(), change.after.as_ref());
        let Some(image) = new.or(old) else {
            return Ok(true);
        };
        let Some(&table) = self.by_number.get(&image.table) else {
            return Ok(false);
        };
        let rules = &self.tables[table];
        let env = |row| Env {
            row,
            old,
            new,
            identity: Some(judge.identity),
        };
        match (old, new) {
            (None, Some(_)) => judge.may_write(&rules.create, env(new)),
            (Some(_), None) => judge.may_write(&rules.delete, env(old)),
            (Some(_), Some(_)) => Ok(judge.may_write(&rules.update, env(old))?
                && judge.may_write(&rules.update, env(new))?),
            (None, None) => Ok(true),
        }
    }
}

/// The state before the changeset and the rows that admitted changes left.
struct Overlay<'a, F> {
    rules: &'a Compiled,
    facts: &'a F,
    by_key: BTreeMap<(TableNumber, RowKey), Vec<&'a Stored>>,
    /// Only columns that rules look rows up by.
    by_value: BTreeMap<(TableNumber, RuleColumn, Vec<u8>), Vec<&'a Stored>>,
    answers: RefCell<BTreeMap<Question, bool>>,
}

impl<'a, F: Facts> Overlay<'a, F> {
    fn new(rules: &'a Compiled, facts: &'a F) -> Self {
        Self {
            rules,
            facts,
            by_key: BTreeMap::new(),
            by_value: BTreeMap::new(),
            answers: RefCell::default(),
        }
    }

    fn add(&mut self, after: Option<&'a Stored>) {
        let Some(row) = after else { return };
        let Some(&table) = self.rules.by_number.get(&row.table) else {
            return;
        };
        for &column in &self.rules.tables[table].lookups {
            let mut bytes = Vec::new();
            if Field::from(column).of(row).encode(&mut bytes) {
                self.by_value
                    .entry((row.table, column, bytes))
                    .or_default()
                    .push(row);
            }
        }
        self.by_key
            .entry((row.table, row.key.clone()))
            .or_default()
            .push(row);
    }

    /// What was refused may be allowed by the rows just added; what was allowed stays so.
    fn forget_refusals(&mut self) {
        self.answers.get_mut().retain(|_, answer| *answer);
    }

    fn added(&self, table: TableNumber, column: RuleColumn, value: &Value) -> &[&'a Stored] {
        let mut bytes = Vec::new();
        Seen::from(value).encode(&mut bytes);
        self.by_value
            .get(&(table, column, bytes))
            .map_or(&[], Vec::as_slice)
    }
}

impl<F: Facts> Lookup for Overlay<'_, F> {
    type Missing = F::Missing;

    fn images(&self, table: TableNumber, key: &RowKey) -> Result<Vec<Stored>, F::Missing> {
        let mut images: Vec<Stored> = self.facts.stored(table, key)?.into_iter().collect();
        let added = self
            .by_key
            .get(&(table, key.clone()))
            .map_or(&[][..], Vec::as_slice);
        images.extend(added.iter().copied().cloned());
        Ok(images)
    }

    fn matching(
        &self,
        table: TableNumber,
        column: RuleColumn,
        value: &Value,
    ) -> Result<Vec<Stored>, F::Missing> {
        let mut rows = self.facts.matching(table, column, value)?;
        rows.extend(self.added(table, column, value).iter().copied().cloned());
        Ok(rows)
    }

    fn matching_both(
        &self,
        table: TableNumber,
        first: (RuleColumn, &Value),
        second: (RuleColumn, &Value),
    ) -> Result<Vec<Stored>, F::Missing> {
        let mut rows = self.facts.matching_both(table, first, second)?;
        let (column, value) = (Field::from(second.0), Seen::from(second.1));
        let added = self.added(table, first.0, first.1).iter().copied();
        rows.extend(added.filter(|row| column.of(row).equals(&value)).cloned());
        Ok(rows)
    }

    fn recall(&self, question: &Question) -> Option<bool> {
        self.answers.borrow().get(question).copied()
    }

    fn remember(&self, question: Question, answer: bool) {
        self.answers.borrow_mut().insert(question, answer);
    }
}
