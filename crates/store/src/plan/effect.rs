//! What the changes of a changeset do to rows, before rules and buckets are asked.

use std::collections::BTreeSet;

use syncline_core::{
    BucketId, RowKey, TableNumber, Timestamp, UserId, Value, Version,
    rules::{Proposed, Stored},
    wire::{LostEdit, code},
};

use super::{conflict::Conflict, context::TableContext, submission::Refused};
use crate::meta::RowMeta;

/// The effects of one changeset so far, at most one for each row.
#[derive(Debug)]
pub(crate) struct Effects {
    /// Images as rules judge them, in the order of `effects`.
    pub(crate) proposed: Vec<Proposed>,
    pub(crate) effects: Vec<Effect>,
    /// With the change that each was part of.
    pub(crate) lost: Vec<(usize, LostEdit)>,
    pub(crate) conflicts: Vec<Conflict>,
    /// Why what the rules admit is refused all the same: said to nobody who may not write here.
    refused: Option<Refused>,
    last: Version,
    now: Timestamp,
}

/// What is known of a changed row besides its images.
#[derive(Debug)]
pub(crate) struct Effect {
    /// The change it came from; `None` for what the server adds by itself.
    pub(crate) change: Option<usize>,
    /// Afterwards; buckets are still those from before.
    pub(crate) meta: RowMeta,
    pub(crate) before: Vec<BucketId>,
    /// Zero: no live row.
    pub(crate) before_version: Version,
    /// As [`super::draft::RowDraft::columns`].
    pub(crate) columns: Vec<usize>,
    /// Admitted only if the author may see what was there before.
    pub(crate) must_see: bool,
    /// Nothing comes of the change, but that may be told only to somebody whom the rules allow
    /// it: gone once it is admitted.
    pub(crate) idle: bool,
}

impl Effects {
    pub(crate) fn new(last: Version, now: Timestamp) -> Self {
        Self {
            proposed: Vec::new(),
            effects: Vec::new(),
            lost: Vec::new(),
            conflicts: Vec::new(),
            refused: None,
            last,
            now,
        }
    }

    /// The version that the next effect will have.
    pub(crate) fn upcoming(&self) -> Version {
        self.last.next(self.now)
    }

    /// The last version given out.
    pub(crate) fn last(&self) -> Version {
        self.last
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    /// Gives a version to something that is no effect of its own.
    pub(crate) fn take_version(&mut self) -> Version {
        self.last = self.upcoming();
        self.last
    }

    /// Adds an effect, whose version is [`Effects::upcoming`].
    pub(crate) fn push(&mut self, proposed: Proposed, effect: Effect) {
        self.last = effect.meta.version;
        self.proposed.push(proposed);
        self.effects.push(effect);
    }

    /// Adds what is only to be admitted, for the change at `position`.
    pub(crate) fn ask(
        &mut self,
        position: usize,
        proposed: Proposed,
        before: &RowMeta,
        must_see: bool,
    ) {
        let effect = Effect {
            idle: true,
            must_see,
            ..Effect::changed(Some(position), before, before.clone(), Vec::new())
        };
        self.proposed.push(proposed);
        self.effects.push(effect);
    }

    /// Refuses the changeset if the rules do not; the first reason counts.
    pub(crate) fn refuse(&mut self, refused: Refused) {
        self.refused.get_or_insert(refused);
    }

    /// What [`Effects::refuse`] was told.
    pub(crate) fn take_refused(&mut self) -> Option<Refused> {
        self.refused.take()
    }

    /// The same, if it was a taken key of a change before the one of the effect at `i`.
    pub(crate) fn take_taken_before(&mut self, i: usize) -> Option<Refused> {
        let later = self.effects[i].change?;
        let is_before = |refused: &mut Refused| {
            let change = refused.refusal.change;
            refused.refusal.code == code::ID_TAKEN
                && change.is_some_and(|change| (change as usize) < later)
        };
        self.refused.take_if(is_before)
    }

    /// Takes out everything that is idle.
    pub(crate) fn settle_idle(&mut self) {
        let mut idle = self.effects.iter().map(|effect| effect.idle);
        self.proposed.retain(|_| !idle.next().unwrap_or(false));
        self.effects.retain(|effect| !effect.idle);
    }

    /// Takes out the effects at these positions, and what was told of their changes.
    pub(crate) fn remove(&mut self, positions: &BTreeSet<usize>) {
        if positions.is_empty() {
            return;
        }
        let mut at = 0..;
        self.proposed
            .retain(|_| at.next().is_some_and(|i| !positions.contains(&i)));
        let changes = positions
            .iter()
            .filter_map(|i| self.effects.get(*i)?.change);
        let changes: BTreeSet<usize> = changes.collect();
        let mut at = 0..;
        self.effects
            .retain(|_| at.next().is_some_and(|i| !positions.contains(&i)));
        self.lost.retain(|(change, _)| !changes.contains(change));
    }

    /// Tells the author of the change at `change` what of it had no effect.
    pub(crate) fn lose(
        &mut self,
        change: usize,
        table: &TableContext,
        key: &RowKey,
        position: Option<usize>,
        reason: &str,
    ) {
        let edit = LostEdit {
            table: table.table.number,
            key: key.as_bytes().to_vec(),
            column: position.map(|position| table.table.columns[position].number.0),
            reason: reason.to_owned(),
        };
        self.lost.push((change, edit));
    }
}

impl Effect {
    /// The metadata of a row that begins a life.
    pub(crate) fn inserted(change: Option<usize>, meta: RowMeta, columns: Vec<usize>) -> Self {
        let before_version = Version::ZERO;
        Self {
            change,
            meta,
            before: Vec::new(),
            before_version,
            columns,
            must_see: false,
            idle: false,
        }
    }

    /// A change of a row that `before` describes.
    pub(crate) fn changed(
        change: Option<usize>,
        before: &RowMeta,
        meta: RowMeta,
        columns: Vec<usize>,
    ) -> Self {
        let (version, before) = (before.version, before.buckets.clone());
        Self {
            change,
            meta,
            before,
            before_version: version,
            columns,
            must_see: false,
            idle: false,
        }
    }
}

/// A row image with the metadata that rules see.
pub(crate) fn stored(
    table: TableNumber,
    key: &RowKey,
    row: syncline_core::Row,
    meta: &RowMeta,
) -> Stored {
    Stored {
        table,
        key: key.clone(),
        row,
        owner: meta.owner.clone(),
        created: meta.created,
        version: meta.version,
        author: meta.author.clone(),
    }
}

/// The metadata of a row whose life begins now.
pub(crate) fn born(
    author: &super::entry::Author,
    user: Option<&UserId>,
    tombstone: Option<&RowMeta>,
    version: Version,
) -> RowMeta {
    let before = tombstone.map(|meta| meta.clock).unwrap_or_default();
    RowMeta {
        version,
        created: version,
        owner: user.cloned(),
        author: user.cloned(),
        clock: author.clock(&before, version),
        ..RowMeta::default()
    }
}

/// The metadata of a row that is deleted now.
pub(crate) fn buried(
    author: &super::entry::Author,
    table: &TableContext,
    row: &syncline_core::Row,
    before: &RowMeta,
    version: Version,
) -> RowMeta {
    let clocks = before.columns.iter().map(|(_, state)| state.clock);
    let latest = clocks.fold(before.clock, |a, b| if b.hlc > a.hlc { b } else { a });
    let keeps = table.table.update_wins;
    let values = table
        .table
        .columns
        .iter()
        .zip(&row.0)
        .filter(|(column, value)| keeps && !column.generated && **value != Value::Null);
    RowMeta {
        version,
        created: before.created,
        owner: before.owner.clone(),
        author: author.user.clone(),
        clock: author.clock(&latest, version),
        deleted: true,
        remains: values
            .map(|(column, value)| (column.number, value.clone()))
            .collect(),
        grave: before.buckets.clone(),
        ..RowMeta::default()
    }
}
