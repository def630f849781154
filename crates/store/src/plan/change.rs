//! One change of a changeset against the row as it is: insert, update or delete, merged column by
//! column (spec PL18, PL19).

use std::collections::BTreeMap;

use syncline_core::{
    Change, ColumnEdit, Edit, Op, Row, Value, Version,
    merge::{self, ColumnState, Incoming, Lost},
    planted,
    rules::Proposed,
    wire::code,
};

use super::{
    conflict::{Conflict, ConflictKind},
    context::{Context, TableContext},
    effect::{Effect, Effects, born, buried, stored},
    entry::Author,
    state::RowRef,
    submission::{Refused, Submission},
};
use crate::meta::RowMeta;

/// A change on its way to an effect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Incident<'a> {
    pub(crate) context: &'a Context,
    pub(crate) submission: &'a Submission,
    pub(crate) author: &'a Author,
    pub(crate) table: &'a TableContext,
    /// Position in the changeset.
    pub(crate) position: usize,
    pub(crate) change: &'a Change,
    /// Whether the author could see the row, which is deleted, when it was.
    pub(crate) saw_it_die: bool,
}

/// A row that lives, with what the ledger knows of it.
#[derive(Debug, Clone, Copy)]
struct Live<'a> {
    row: &'a Row,
    meta: &'a RowMeta,
}

impl<'a> Incident<'a> {
    /// Adds what the change does to `effects`.
    pub(crate) fn plan(
        self,
        present: Option<RowRef<'_>>,
        effects: &mut Effects,
    ) -> Result<(), Refused> {
        let live = present.and_then(|p| p.row.map(|row| Live { row, meta: p.meta }));
        let tombstone = present
            .filter(|present| present.row.is_none())
            .map(|p| p.meta);
        match (&self.change.op, live, tombstone) {
            (Op::Insert(edits), None, Some(tombstone)) if self.reuses(tombstone) => {
                self.taken(edits, tombstone, effects)
            }
            (Op::Insert(edits), None, tombstone) => self.insert(edits, tombstone, effects),
            (Op::Insert(edits), Some(live), _) if self.table.integer_key => {
                self.taken(edits, live.meta, effects)
            }
            (Op::Insert(edits), Some(live), _) => {
                self.image(edits)?;
                self.update(live, Version::ZERO, effects)
            }
            (Op::Update(_), Some(live), _) => self.update(live, self.change.base, effects),
            (Op::Update(edits), None, Some(tombstone)) if self.knew(tombstone) => {
                self.update_deleted(tombstone, edits, effects)
            }
            (Op::Update(_), None, _) => Err(self.row_gone()),
            (Op::Delete, Some(live), _) => {
                self.delete(live, effects);
                Ok(())
            }
            (Op::Delete, None, _) => Ok(()),
        }
    }

    /// The key is taken, which only somebody hears whom the rules allow such a row.
    fn taken(
        self,
        edits: &[ColumnEdit],
        present: &RowMeta,
        effects: &mut Effects,
    ) -> Result<(), Refused> {
        let (mut row, _) = self.image(edits)?;
        for (position, value) in self.forced() {
            row.0[position] = value;
        }
        let user = self.submission.identity.user.as_ref();
        let meta = born(self.author, user, None, effects.upcoming());
        let proposed = Proposed {
            before: None,
            after: Some(stored(self.change.table, &self.change.key, row, &meta)),
        };
        effects.ask(self.position, proposed, present, false);
        let has = if present.deleted {
            "existed"
        } else {
            "exists already"
        };
        effects.refuse(self.refused(
            code::ID_TAKEN,
            format!("row {} of {} {has}", self.change.key, self.name()),
        ));
        Ok(())
    }

    fn insert(
        self,
        edits: &[ColumnEdit],
        tombstone: Option<&RowMeta>,
        effects: &mut Effects,
    ) -> Result<(), Refused> {
        let (mut row, mut defaults) = self.image(edits)?;
        for (position, value) in self.forced() {
            row.0[position] = value;
            defaults.retain(|&default| default != position);
        }
        for (position, value) in row.0.iter().enumerate() {
            if !defaults.contains(&position) {
                self.check_null(position, value, effects);
            }
        }
        let user = self.submission.identity.user.as_ref();
        let meta = born(self.author, user, tombstone, effects.upcoming());
        let after = Some(stored(self.change.table, &self.change.key, row, &meta));
        let effect = Effect::inserted(Some(self.position), meta, defaults);
        effects.push(
            Proposed {
                before: None,
                after,
            },
            effect,
        );
        Ok(())
    }

    /// The row that an insert describes, and the columns that the database's defaults fill.
    fn image(self, edits: &[ColumnEdit]) -> Result<(Row, Vec<usize>), Refused> {
        let columns = &self.table.table.columns;
        let mut row = Row(vec![Value::Null; columns.len()]);
        let mut given = vec![false; columns.len()];
        for edit in edits {
            let Some(position) = self.table.position(edit.column) else {
                continue;
            };
            let column = &columns[position];
            let value = if let Edit::Set(value) = &edit.edit {
                value.clone()
            } else {
                let value = merge::apply(column, &Value::Null, &edit.edit);
                value.map_err(|e| self.schema(e.to_string()))?
            };
            row.0[position] = value.canonical(column.ty);
            given[position] = true;
        }
        let primary_key = &self.table.table.primary_key;
        if !primary_key.iter().all(|&position| given[position]) {
            let key = self.change.key.decode().unwrap_or_default();
            for (&position, value) in primary_key.iter().zip(key) {
                if !given[position] {
                    row.0[position] = value;
                    given[position] = true;
                }
            }
        }
        if row.key(&self.table.table).ok().as_ref() != Some(&self.change.key) {
            let key = &self.change.key;
            return Err(self.schema(format!("key {key} is not that of the inserted values")));
        }
        let is_default =
            |&i: &usize| !given[i] && !columns[i].generated && columns[i].default.is_some();
        let defaults = (0..columns.len()).filter(is_default).collect();
        Ok((row, defaults))
    }

    fn update(self, live: Live<'_>, base: Version, effects: &mut Effects) -> Result<(), Refused> {
        let Author {
            changeset,
            device,
            hlc,
            ..
        } = *self.author;
        let incoming = Incoming {
            hlc,
            changeset,
            device,
            base,
            is_insert: false,
        };
        let state = |number| live.meta.column(number);
        let merged = merge::merge_row(
            &self.table.table,
            live.row,
            state,
            &self.change.op,
            &incoming,
        );
        let merged = match merged {
            Ok(merged) => merged,
            Err(error) => {
                self.ask(live, Some(live.row), false, effects);
                effects.refuse(self.schema(error.to_string()));
                return Ok(());
            }
        };
        let is_contested = self.note_lost(live, merged.lost, effects);
        let mut row = merged.row;
        let mut meta = RowMeta {
            version: effects.upcoming(),
            ..live.meta.clone()
        };
        let mut columns = Vec::with_capacity(merged.changed.len());
        let is_insert = matches!(self.change.op, Op::Insert(_));
        let mut is_written = false;
        for (position, state) in merged.changed {
            let differs = row.0[position] != live.row.0[position];
            // An equal value is a write, too: an older one that arrives later has to find its
            // clock. What an insert finds there already is no news (spec ME19).
            let is_news = !is_insert && !planted!(EqualWriteForgotten);
            if !differs && !is_news && state.members.is_empty() {
                continue;
            }
            is_written = true;
            let number = self.table.table.columns[position].number;
            meta.set_column(number, state.at(meta.version));
            if differs {
                columns.push(position);
            }
        }
        // A conflict shows the author the server's value, a merged insert that there is a row.
        let must_see = is_contested || is_insert;
        if !is_written {
            self.ask(live, Some(live.row), must_see, effects);
            return Ok(());
        }
        self.force(&mut row, &mut meta, &mut columns);
        for &position in &columns {
            self.check_null(position, &row.0[position], effects);
        }
        meta.author = self.author.user.clone();
        meta.fold_columns(self.table);
        let (table, key) = (self.change.table, &self.change.key);
        let proposed = Proposed {
            before: Some(stored(table, key, live.row.clone(), live.meta)),
            after: Some(stored(table, key, row, &meta)),
        };
        let mut effect = Effect::changed(Some(self.position), live.meta, meta, columns);
        effect.must_see = must_see;
        effects.push(proposed, effect);
        Ok(())
    }

    /// Asks whether the change, of which nothing comes, would be allowed.
    fn ask(self, live: Live<'_>, after: Option<&Row>, must_see: bool, effects: &mut Effects) {
        let image = |row: &Row| stored(self.change.table, &self.change.key, row.clone(), live.meta);
        let proposed = Proposed {
            before: Some(image(live.row)),
            after: after.map(image),
        };
        effects.ask(self.position, proposed, live.meta, must_see);
    }

    /// Tells the author what had no effect, and opens conflicts where a person has to decide;
    /// whether there are any.
    fn note_lost(self, live: Live<'_>, lost: BTreeMap<usize, Lost>, effects: &mut Effects) -> bool {
        let conflicts = effects.conflicts.len();
        for (position, lost) in lost {
            let reason = match lost {
                Lost::Older => "older",
                Lost::ServerWins => "server_wins",
                Lost::Conflict { base, mine, theirs } => {
                    let number = self.table.table.columns[position].number;
                    let wrote = live.meta.column(number).clock.device;
                    let kind = ConflictKind::Manual {
                        position,
                        base,
                        mine,
                        theirs,
                        wrote,
                    };
                    effects.conflicts.push(Conflict::new(self.change, kind));
                    "conflict"
                }
            };
            effects.lose(
                self.position,
                self.table,
                &self.change.key,
                Some(position),
                reason,
            );
        }
        effects.conflicts.len() > conflicts
    }

    /// Sets the columns that the server decides.
    fn force(self, row: &mut Row, meta: &mut RowMeta, columns: &mut Vec<usize>) {
        for (position, value) in self.forced() {
            if row.0[position] == value {
                continue;
            }
            let number = self.table.table.columns[position].number;
            let clock = self.author.clock(&meta.column(number).clock, meta.version);
            meta.set_column(
                number,
                ColumnState {
                    clock,
                    ..ColumnState::default()
                },
            );
            row.0[position] = value;
            if let Err(place) = columns.binary_search(&position) {
                columns.insert(place, position);
            }
        }
    }

    fn delete(self, live: Live<'_>, effects: &mut Effects) {
        let key = &self.change.key;
        if self.table.table.update_wins && self.is_rivalled(live.meta) {
            effects.lose(self.position, self.table, key, None, "older");
            self.ask(live, None, false, effects);
            return;
        }
        let meta = buried(
            self.author,
            self.table,
            live.row,
            live.meta,
            effects.upcoming(),
        );
        let before = Some(stored(self.change.table, key, live.row.clone(), live.meta));
        let effect = Effect::changed(Some(self.position), live.meta, meta, Vec::new());
        effects.push(
            Proposed {
                before,
                after: None,
            },
            effect,
        );
    }

    /// An update that arrives after a deletion its author could not know.
    fn update_deleted(
        self,
        tombstone: &RowMeta,
        edits: &[ColumnEdit],
        effects: &mut Effects,
    ) -> Result<(), Refused> {
        if self.table.table.update_wins && !tombstone.remains.is_empty() {
            return self.revive(tombstone, edits, effects);
        }
        let key = &self.change.key;
        effects.lose(self.position, self.table, key, None, "deleted");
        let kind = ConflictKind::Deleted {
            edits: edits.to_vec(),
            by: tombstone.author.clone(),
        };
        effects.conflicts.push(Conflict::new(self.change, kind));
        Ok(())
    }

    /// Where updates win, one brings the deleted row back whole.
    fn revive(
        self,
        tombstone: &RowMeta,
        edits: &[ColumnEdit],
        effects: &mut Effects,
    ) -> Result<(), Refused> {
        let mut row = Row(vec![Value::Null; self.table.table.columns.len()]);
        for (number, value) in &tombstone.remains {
            if let Some(position) = self.table.position(*number) {
                row.0[position] = value.clone();
            }
        }
        let last_image = row.clone();
        for edit in edits {
            let Some(position) = self.table.position(edit.column) else {
                continue;
            };
            let column = &self.table.table.columns[position];
            let value = merge::apply(column, &row.0[position], &edit.edit);
            row.0[position] = value
                .map_err(|e| self.schema(e.to_string()))?
                .canonical(column.ty);
        }
        for (position, value) in self.forced() {
            row.0[position] = value;
        }
        for (position, value) in row.0.iter().enumerate() {
            self.check_null(position, value, effects);
        }
        let user = self.submission.identity.user.as_ref();
        let mut meta = born(self.author, user, Some(tombstone), effects.upcoming());
        meta.created = tombstone.created;
        meta.owner = tombstone.owner.clone();
        let (table, key) = (self.change.table, &self.change.key);
        let proposed = Proposed {
            before: Some(stored(table, key, last_image, tombstone)),
            after: Some(stored(table, key, row, &meta)),
        };
        let mut effect = Effect::inserted(Some(self.position), meta, Vec::new());
        effect.must_see = true;
        effects.push(proposed, effect);
        Ok(())
    }

    /// Whether an AUTOINCREMENT key is given a second time, by somebody who never had the row that
    /// was deleted: SQLite promises that no key is.
    fn reuses(self, tombstone: &RowMeta) -> bool {
        let deleted_it = tombstone.clock.device == self.author.device;
        self.table.table.autoincrement && !deleted_it && self.change.base < tombstone.created
    }

    /// Whether the author can have had the row that the tombstone is of.
    fn knew(self, tombstone: &RowMeta) -> bool {
        let base = self.change.base;
        if !self.saw_it_die {
            return false;
        }
        let inserted_it = tombstone.owner.is_some()
            && tombstone.owner.as_ref() == self.submission.identity.user.as_ref();
        base < tombstone.version && (base >= tombstone.created || inserted_it)
    }

    /// Whether somebody else changed the row after the author last saw it.
    fn is_rivalled(self, meta: &RowMeta) -> bool {
        let clocks = meta
            .columns
            .iter()
            .map(|(_, state)| &state.clock)
            .chain([&meta.clock]);
        let mut clocks = clocks.filter(|clock| clock.device != self.author.device);
        clocks.any(|clock| clock.version > self.change.base)
    }

    fn forced(self) -> Vec<(usize, Value)> {
        self.context
            .rules()
            .forced(&self.submission.identity, self.change.table)
    }

    fn check_null(self, position: usize, value: &Value, effects: &mut Effects) {
        let column = &self.table.table.columns[position];
        if column.not_null && !column.generated && value.is_null() {
            let message = format!("column {} of {} may not be NULL", column.name, self.name());
            effects.refuse(self.refused(code::CONSTRAINT, message));
        }
    }

    /// The row is not there, or not for this user: one answer for both.
    pub(crate) fn row_gone(self) -> Refused {
        let message = format!(
            "row {} of {} is not on the server",
            self.change.key,
            self.name()
        );
        self.refused(code::ROW_GONE, message)
    }

    /// No rule allows it.
    pub(crate) fn forbidden(self) -> Refused {
        let what = match self.change.op {
            Op::Insert(_) => "insert this row into",
            Op::Update(_) => "change this row of",
            Op::Delete => "delete this row of",
        };
        self.refused(
            code::FORBIDDEN,
            format!("no rule lets this user {what} {}", self.name()),
        )
    }

    fn schema(self, message: String) -> Refused {
        self.refused(code::SCHEMA, message)
    }

    fn refused(self, code: &str, message: String) -> Refused {
        Refused::change(code, self.position, message)
    }

    fn name(self) -> &'a str {
        &self.table.table.name
    }
}
