//! From changed rows to a log entry: records with their bodies, and what they do to digests.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use syncline_core::planted;
use syncline_core::{
    BucketId, ChangesetId, ColumnNumber, DeviceId, Hlc, Piece, Row, RowKey, Table, TableNumber,
    UserId, Value, Version, digest::Digest, rules::Grant,
};

use super::{
    context::Context,
    draft::{Draft, Named, WriteRight},
    state::{Rows, Touched},
};
use crate::{
    body::{Body, BodyState},
    history::{HistoryChange, HistoryRecord},
    log::LogRecord,
};

/// Whose changes an entry holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Author {
    pub(crate) changeset: ChangesetId,
    /// `None`: another program.
    pub(crate) user: Option<UserId>,
    pub(crate) device: DeviceId,
    pub(crate) number: u64,
    /// Clamped already.
    pub(crate) hlc: Hlc,
    /// What its changeset is a piece of.
    pub(crate) piece: Option<Piece>,
}

/// An entry that may still get rows: those that the database changes by itself.
#[derive(Debug)]
pub(crate) struct OpenEntry {
    author: Author,
    rows: Vec<EntryRow>,
    grants: BTreeMap<Grant, i64>,
    named: BTreeMap<Grant, Named>,
    rights: BTreeMap<WriteRight, u64>,
}

/// A row of an open entry; what it is now is in the state.
#[derive(Debug)]
struct EntryRow {
    table: TableNumber,
    key: RowKey,
    before: Vec<BucketId>,
    before_version: Version,
    changed: Changed,
    /// Whether more than the buckets changed.
    image: bool,
    /// The image before, if it is known.
    old: Option<Row>,
}

#[derive(Debug)]
enum Changed {
    All,
    /// Positions, sorted.
    Columns(Vec<usize>),
}

/// An entry with everything but its place in the chain of tags and the absolute values of
/// grants and digests.
#[derive(Debug)]
pub(crate) struct ClosedEntry {
    pub(crate) author: Author,
    pub(crate) version: Version,
    pub(crate) records: Vec<LogRecord>,
    pub(crate) history: Vec<HistoryRecord>,
    pub(crate) grants: BTreeMap<Grant, i64>,
    /// What the audit log says of `grants`.
    pub(crate) named: BTreeMap<Grant, Named>,
    pub(crate) rights: BTreeMap<WriteRight, u64>,
    /// Own buckets of rows that begin or end with it, where it changes grants.
    pub(crate) begun: BTreeSet<BucketId>,
    pub(crate) ended: BTreeSet<BucketId>,
    /// Differences, mod 2^64.
    pub(crate) digests: BTreeMap<(BucketId, TableNumber), Digest>,
}

impl OpenEntry {
    pub(crate) fn new(author: Author) -> Self {
        Self {
            author,
            rows: Vec::new(),
            grants: BTreeMap::new(),
            named: BTreeMap::new(),
            rights: BTreeMap::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Takes in what a draft does; a row that is here already keeps what it was before.
    pub(crate) fn take(&mut self, draft: &mut Draft) {
        let mut places = HashMap::new();
        if !self.rows.is_empty() {
            let rows = self.rows.iter().enumerate();
            places = rows
                .map(|(i, row)| ((row.table, row.key.clone()), i))
                .collect();
        }
        for row in &mut draft.rows {
            let old = row.old.take();
            let changed = if row.is_insert() || row.row.is_none() {
                Changed::All
            } else {
                Changed::Columns(row.columns.clone())
            };
            let known = (!places.is_empty()).then(|| places.get(&(row.table, row.key.clone())));
            match known.flatten() {
                Some(&place) => {
                    let known = &mut self.rows[place];
                    known.changed.extend(changed);
                    if row.image && !std::mem::replace(&mut known.image, row.image) {
                        known.old = old;
                    }
                }
                None => self.rows.push(EntryRow {
                    table: row.table,
                    key: row.key.clone(),
                    before: row.before.clone(),
                    before_version: row.before_version,
                    changed,
                    image: row.image,
                    old,
                }),
            }
        }
        for (grant, difference) in &draft.grants {
            *self.grants.entry(*grant).or_insert(0) += difference;
        }
        self.named.append(&mut draft.named);
        for (right, times) in std::mem::take(&mut draft.rights) {
            *self.rights.entry(right).or_insert(0) += times;
        }
    }

    /// Makes the records from the rows as they are now.
    pub(crate) fn close(
        self,
        context: &Context,
        rows: &BTreeMap<TableNumber, Rows>,
        version: Version,
    ) -> ClosedEntry {
        let mut rights = self.rights;
        if !rights.is_empty() {
            leave_out_own(&mut rights, &self.rows, rows, self.author.user.as_ref());
        }
        let mut records = Vec::with_capacity(self.rows.len());
        let mut history = Vec::with_capacity(self.rows.len());
        let mut digests = BTreeMap::new();
        let (mut begun, mut ended) = (BTreeSet::new(), BTreeSet::new());
        for mut entry_row in self.rows {
            let now = rows
                .get(&entry_row.table)
                .and_then(|rows| rows.get(&entry_row.key));
            let (Some(now), Some(table)) = (now, context.table(entry_row.table)) else {
                continue;
            };
            if now.row.is_none() && entry_row.before_version == Version::ZERO {
                continue;
            }
            if !self.grants.is_empty() {
                let own = || context.rules().own_buckets(entry_row.table, &entry_row.key);
                match (&now.row, entry_row.before_version) {
                    (None, _) => ended.extend(own()),
                    (Some(_), Version::ZERO) => begun.extend(own()),
                    (Some(_), _) => {}
                }
            }
            if now.row.is_some() || !planted!(DigestNotUpdated) {
                entry_row.count(now, &mut digests);
            }
            history.extend(entry_row.history(&self.author, &table.table, now, version));
            records.push(entry_row.record(&self.author, &table.table, now));
        }
        records.sort_unstable_by_key(|record| record.version);
        history.sort_unstable_by_key(|record| record.version);
        ClosedEntry {
            author: self.author,
            version,
            records,
            history,
            grants: self.grants,
            named: self.named,
            rights,
            begun,
            ended,
            digests,
        }
    }
}

/// Takes out what goes with the row that it leads to: what its author may do by making both in one
/// changeset, and what ends because it is deleted.
fn leave_out_own(
    rights: &mut BTreeMap<WriteRight, u64>,
    changed: &[EntryRow],
    rows: &BTreeMap<TableNumber, Rows>,
    author: Option<&UserId>,
) {
    let (mut begun, mut ended) = (BTreeSet::new(), BTreeSet::new());
    for row in changed {
        let now = rows.get(&row.table).and_then(|rows| rows.get(&row.key));
        match (now.and_then(|now| now.row.as_ref()), row.before_version) {
            (None, _) => drop(ended.insert((row.table, &row.key))),
            (Some(_), Version::ZERO) => drop(begun.insert((row.table, &row.key))),
            (Some(_), _) => {}
        }
    }
    rights.retain(|right, _| {
        let Some((table, key)) = &right.link else {
            return true;
        };
        let link = (*table, key);
        match right.given {
            true => author.is_none() || author != right.user.as_ref() || !begun.contains(&link),
            false => !ended.contains(&link),
        }
    });
}

impl Changed {
    fn extend(&mut self, more: Self) {
        match (self, more) {
            (Self::All, _) => {}
            (all, Self::All) => *all = Self::All,
            (Self::Columns(columns), Self::Columns(more)) => {
                columns.extend(more);
                columns.sort_unstable();
                columns.dedup();
            }
        }
    }
}

impl EntryRow {
    fn count(&self, now: &Touched, digests: &mut BTreeMap<(BucketId, TableNumber), Digest>) {
        for bucket in &self.before {
            let digest: &mut Digest = digests.entry((*bucket, self.table)).or_default();
            digest.remove(self.table, &self.key, self.before_version);
        }
        for bucket in &now.meta.buckets {
            let digest: &mut Digest = digests.entry((*bucket, self.table)).or_default();
            digest.add(self.table, &self.key, now.meta.version);
        }
    }

    /// What the row's history says of the change (spec PL21); nothing if its values are the same.
    fn history(
        &mut self,
        author: &Author,
        table: &Table,
        now: &Touched,
        entry: Version,
    ) -> Option<HistoryRecord> {
        if !self.image {
            return None;
        }
        let change = match (&now.row, self.before_version) {
            (None, _) => HistoryChange::Delete,
            (Some(_), Version::ZERO) => HistoryChange::Insert,
            (Some(_), _) => HistoryChange::Update,
        };
        let mut before = self.old.take();
        let mut value =
            |position: usize| Some(std::mem::take(before.as_mut()?.0.get_mut(position)?));
        let mut old: Vec<(ColumnNumber, Option<Value>)> = Vec::new();
        let all = (0..table.columns.len()).filter(|&p| !table.columns[p].generated);
        let positions = match (change, &self.changed) {
            (HistoryChange::Insert, _) => Vec::new(),
            (HistoryChange::Update, Changed::Columns(columns)) => columns.clone(),
            (HistoryChange::Update | HistoryChange::Delete, _) => all.collect(),
        };
        for position in positions {
            let value = value(position);
            let is_same = |now: &Row| value.is_some() && now.0.get(position) == value.as_ref();
            if !now.row.as_ref().is_some_and(is_same) {
                old.push((table.columns[position].number, value));
            }
        }
        if change == HistoryChange::Update && old.is_empty() {
            return None;
        }
        old.sort_unstable_by_key(|(column, _)| *column);
        Some(HistoryRecord {
            table: self.table,
            key: self.key.clone(),
            version: now.meta.version,
            entry,
            user: author.user.clone(),
            device: author.device,
            change,
            before: self.before.clone(),
            after: now.meta.buckets.clone(),
            old,
        })
    }

    fn record(self, author: &Author, table: &Table, now: &Touched) -> LogRecord {
        let after = &now.meta.buckets;
        let is_new = |bucket| self.before.binary_search(bucket).is_err();
        let (newcomers, shared) = (after.iter().any(is_new), !after.iter().all(is_new));
        let row = now.row.as_ref();
        let body = |row, state| {
            let body = Body {
                table,
                key: &self.key,
                row,
                meta: &now.meta,
                state,
            };
            Arc::<[u8]>::from(body.encode(author.changeset))
        };
        let whole = row
            .filter(|_| newcomers)
            .map(|row| body(row, BodyState::Whole));
        let columns = row.filter(|_| shared).map(|row| {
            body(
                row,
                match &self.changed {
                    Changed::All => BodyState::AllColumns,
                    Changed::Columns(columns) => BodyState::Columns(columns),
                },
            )
        });
        LogRecord {
            table: self.table,
            version: now.meta.version,
            before: self.before,
            after: after.clone(),
            whole,
            columns,
            deleted: now.row.is_none(),
            key: self.key,
        }
    }
}
