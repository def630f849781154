//! What rules see: a group's state, or that state with part of a changeset on top.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::{BTreeMap, HashMap},
};

use syncline_core::{
    Row, RowKey, TableNumber, UserId, Value,
    rules::{Facts, Proposed, RuleColumn, Stored},
};

use super::state::{RowRef, State};
use crate::want::{Missing, matching_key};

impl Facts for State {
    type Missing = Missing;

    fn stored(&self, table: TableNumber, key: &RowKey) -> Result<Option<Stored>, Missing> {
        Ok(self.row(table, key)?.and_then(|row| row.stored(table, key)))
    }

    fn matching(
        &self,
        table: TableNumber,
        column: RuleColumn,
        value: &Value,
    ) -> Result<Vec<Stored>, Missing> {
        let keys = State::matching(self, table, column, value)?;
        collect(keys.iter().map(|key| self.stored(table, key)))
    }

    fn matching_both(
        &self,
        table: TableNumber,
        first: (RuleColumn, &Value),
        second: (RuleColumn, &Value),
    ) -> Result<Vec<Stored>, Missing> {
        let keys = State::matching(self, table, first.0, first.1)?;
        collect(keys.iter().map(|key| {
            let row = self
                .row(table, key)?
                .filter(|row| row.is(second.0, second.1));
            Ok(row.and_then(|row| row.stored(table, key)))
        }))
    }
}

impl RowRef<'_> {
    /// The live row as rules see it.
    pub(crate) fn stored(self, table: TableNumber, key: &RowKey) -> Option<Stored> {
        Some(Stored {
            table,
            key: key.clone(),
            row: self.row?.clone(),
            owner: self.meta.owner.clone(),
            created: self.meta.created,
            version: self.meta.version,
            author: self.meta.author.clone(),
        })
    }

    fn is(self, column: RuleColumn, value: &Value) -> bool {
        self.row
            .is_some_and(|row| column_is(column, row, self.meta.owner.as_ref(), value))
    }
}

/// A state with the first so many changes of a changeset on top.
#[derive(Debug)]
pub(crate) struct Layered<'a> {
    state: &'a State,
    proposed: &'a [Proposed],
    /// Made when a row is first asked for: few rules ask for any.
    by_row: OnceCell<HashMap<(TableNumber, &'a RowKey), usize>>,
    applied: Cell<usize>,
    index: RefCell<BTreeMap<(TableNumber, RuleColumn), ByValue>>,
}

/// Value → positions of the changes whose new image has it.
type ByValue = BTreeMap<Vec<u8>, Vec<usize>>;

impl<'a> Layered<'a> {
    /// At first with none of `proposed` applied; at most one for each row.
    pub(crate) fn new(state: &'a State, proposed: &'a [Proposed]) -> Self {
        Self {
            state,
            proposed,
            by_row: OnceCell::new(),
            applied: Cell::new(0),
            index: RefCell::default(),
        }
    }

    /// Applies the first `count` changes.
    pub(crate) fn apply(&self, count: usize) {
        self.applied.set(count);
    }

    /// Which change is about this row.
    pub(crate) fn position(&self, table: TableNumber, key: &RowKey) -> Option<usize> {
        let by_row = self.by_row.get_or_init(|| {
            let proposed = self.proposed.iter().enumerate();
            let rows = proposed.filter_map(|(i, p)| Some((row_of(p)?, i)));
            rows.collect()
        });
        by_row.get(&(table, key)).copied()
    }

    /// Which row the change at this position is about.
    pub(crate) fn row(&self, position: usize) -> Option<(TableNumber, &'a RowKey)> {
        row_of(&self.proposed[position])
    }

    fn change(&self, table: TableNumber, key: &RowKey) -> Option<&'a Proposed> {
        let position = self
            .position(table, key)
            .filter(|&i| i < self.applied.get())?;
        Some(&self.proposed[position])
    }

    /// Positions of the applied changes whose new image has `value`.
    fn changed_to(&self, table: TableNumber, column: RuleColumn, value: &Value) -> Vec<usize> {
        let mut index = self.index.borrow_mut();
        let index = index.entry((table, column)).or_insert_with(|| {
            let mut index = ByValue::new();
            for (i, proposed) in self.proposed.iter().enumerate() {
                let after = proposed.after.as_ref().filter(|after| after.table == table);
                if let Some(key) = after.and_then(|after| value_of(column, after)) {
                    index.entry(key).or_default().push(i);
                }
            }
            index
        });
        let found = index
            .get(&matching_key(value))
            .map_or(&[][..], Vec::as_slice);
        found
            .iter()
            .copied()
            .filter(|&i| i < self.applied.get())
            .collect()
    }
}

impl Facts for Layered<'_> {
    type Missing = Missing;

    fn stored(&self, table: TableNumber, key: &RowKey) -> Result<Option<Stored>, Missing> {
        match self.change(table, key) {
            Some(proposed) => Ok(proposed.after.clone()),
            None => self.state.stored(table, key),
        }
    }

    fn matching(
        &self,
        table: TableNumber,
        column: RuleColumn,
        value: &Value,
    ) -> Result<Vec<Stored>, Missing> {
        if value.is_null() {
            return Ok(Vec::new());
        }
        let keys = self.state.matching(table, column, value)?;
        let unchanged = keys.iter().filter(|key| self.change(table, key).is_none());
        let mut found = collect(unchanged.map(|key| self.state.stored(table, key)))?;
        let changed = self.changed_to(table, column, value);
        found.extend(
            changed
                .into_iter()
                .filter_map(|i| self.proposed[i].after.clone()),
        );
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    fn matching_both(
        &self,
        table: TableNumber,
        first: (RuleColumn, &Value),
        second: (RuleColumn, &Value),
    ) -> Result<Vec<Stored>, Missing> {
        let mut found = self.state.matching_both(table, first, second)?;
        found.retain(|stored| self.change(table, &stored.key).is_none());
        if first.1.is_null() {
            return Ok(found);
        }
        let changed = self.changed_to(table, first.0, first.1);
        let changed = changed
            .into_iter()
            .filter_map(|i| self.proposed[i].after.as_ref());
        let both = changed.filter(|s| column_is(second.0, &s.row, s.owner.as_ref(), second.1));
        found.extend(both.cloned());
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }
}

fn row_of(proposed: &Proposed) -> Option<(TableNumber, &RowKey)> {
    let stored = proposed.after.as_ref().or(proposed.before.as_ref())?;
    Some((stored.table, &stored.key))
}

fn value_of(column: RuleColumn, stored: &Stored) -> Option<Vec<u8>> {
    match column {
        RuleColumn::Column(position) => stored
            .row
            .0
            .get(position)
            .filter(|value| !value.is_null())
            .map(matching_key),
        RuleColumn::Owner => stored
            .owner
            .as_ref()
            .map(|owner| matching_key(&Value::Text(owner.0.clone()))),
    }
}

/// Whether a live row's column has this value; NULL equals nothing.
fn column_is(column: RuleColumn, row: &Row, owner: Option<&UserId>, value: &Value) -> bool {
    match column {
        RuleColumn::Column(position) => {
            !value.is_null() && row.0.get(position).is_some_and(|v| v == value)
        }
        RuleColumn::Owner => owner.is_some_and(|owner| value.as_text() == Some(owner.0.as_str())),
    }
}

/// All live rows found, or everything that is missing for that.
fn collect(
    rows: impl Iterator<Item = Result<Option<Stored>, Missing>>,
) -> Result<Vec<Stored>, Missing> {
    let mut found = Vec::new();
    let mut wants = Vec::new();
    for row in rows {
        match row {
            Ok(stored) => found.extend(stored),
            Err(missing) => wants.extend(missing.0),
        }
    }
    if wants.is_empty() {
        Ok(found)
    } else {
        Err(Missing(wants))
    }
}
