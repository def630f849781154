//! The database as a group sees it: what was loaded, under what the group has changed so far.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
};

use syncline_core::{
    BucketId, ChangesetId, DeviceId, Piece, Row, RowKey, TableNumber, Timestamp, UserId, Value,
    Version,
    rules::{Grant, RuleColumn},
};

use super::{
    context::Context,
    draft::{Draft, RowDraft},
    entry::{Author, ClosedEntry, OpenEntry},
    owned::Differences,
    submission::Submission,
};
use crate::{
    meta::{DeviceState, Owned, RowMeta},
    storage::{Head, RowWrite},
    want::{KnownChangeset, KnownRun, Loaded, LoadedRow, Missing, Want, matching_key},
};

/// Everything a group knows. Only whole changesets are applied to it.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) loaded: Loaded,
    pub(crate) head: Head,
    /// The last version given out.
    pub(crate) last: Version,
    pub(crate) rows: BTreeMap<TableNumber, Rows>,
    matching: RefCell<OverlayIndex>,
    changesets: BTreeMap<ChangesetId, KnownChangeset>,
    pieces: BTreeMap<ChangesetId, BTreeMap<UserId, Vec<KnownRun>>>,
    pub(crate) devices: BTreeMap<DeviceId, DeviceState>,
    /// What the users own whose rows the group changed.
    pub(crate) owned: BTreeMap<UserId, Owned>,
    /// Whether a row was changed that nobody knows the size of, as it was.
    pub(crate) owned_doubtful: bool,
    /// What this group answered to numbers; dependants of refused ones are refused too.
    pub(crate) refused: Refused,
    open: Option<OpenEntry>,
    pub(crate) entries: Vec<ClosedEntry>,
    /// Rows that the database does not have as they are here, in the order they were touched.
    pending: Vec<(TableNumber, RowKey)>,
    pending_tables: BTreeSet<TableNumber>,
}

/// Numbers of devices that were answered, and whether the last answer was a refusal.
pub(crate) type Refused = BTreeMap<DeviceId, BTreeMap<u64, bool>>;

/// Rows that the group touched: (table, column) → value → keys. Built when first asked for.
type OverlayIndex = BTreeMap<(TableNumber, RuleColumn), BTreeMap<Vec<u8>, BTreeSet<RowKey>>>;

/// A row that the group has changed or been told of.
#[derive(Debug)]
pub(crate) struct Touched {
    pub(crate) row: Option<Row>,
    pub(crate) meta: RowMeta,
    /// The buckets that the ledger has.
    pub(crate) ledger_buckets: Vec<BucketId>,
    /// Metadata that the ledger does not have yet.
    pub(crate) changed: bool,
    /// Whether the database has a live row now.
    stored: bool,
    /// The columns in which the database differs, sorted; of an insert, those that its defaults
    /// fill. `None`: nothing to write.
    pending: Option<Vec<usize>>,
}

/// A row as it is at this point of the group, or its tombstone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowRef<'s> {
    pub(crate) row: Option<&'s Row>,
    pub(crate) meta: &'s RowMeta,
}

impl State {
    pub(crate) fn new(head: Head, refused: Refused) -> Self {
        Self {
            loaded: Loaded::default(),
            head,
            last: head.version,
            rows: BTreeMap::new(),
            matching: RefCell::default(),
            changesets: BTreeMap::new(),
            pieces: BTreeMap::new(),
            devices: BTreeMap::new(),
            owned: BTreeMap::new(),
            owned_doubtful: false,
            refused,
            open: None,
            entries: Vec::new(),
            pending: Vec::new(),
            pending_tables: BTreeSet::new(),
        }
    }

    /// The row or its tombstone; `None` if the log knows neither.
    pub(crate) fn row(
        &self,
        table: TableNumber,
        key: &RowKey,
    ) -> Result<Option<RowRef<'_>>, Missing> {
        if let Some(touched) = self.rows.get(&table).and_then(|rows| rows.get(key)) {
            return Ok(touched.as_ref().filter_known());
        }
        match self.loaded.row(table, key) {
            Some(found) => Ok(found
                .map(|l| RowRef {
                    row: l.row.as_ref(),
                    meta: &l.meta,
                })
                .and_then(RowRef::filter_known)),
            None => Err(Missing(vec![Want::Row(table, key.clone())])),
        }
    }

    /// Whether the row needs no load.
    pub(crate) fn knows(&self, table: TableNumber, key: &RowKey) -> bool {
        self.row(table, key).is_ok()
    }

    /// Keys of the live rows whose `column` equals `value`, in key order.
    pub(crate) fn matching(
        &self,
        table: TableNumber,
        column: RuleColumn,
        value: &Value,
    ) -> Result<Vec<RowKey>, Missing> {
        if value.is_null() {
            return Ok(Vec::new());
        }
        let Some(loaded) = self.loaded.matching(table, column, value) else {
            return Err(Missing(vec![Want::Matching(table, column, value.clone())]));
        };
        let Some(overlay) = self.rows.get(&table) else {
            return Ok(loaded.to_vec());
        };
        let mut keys: Vec<RowKey> = loaded
            .iter()
            .filter(|key| !overlay.contains_key(key))
            .cloned()
            .collect();
        let mut index = self.matching.borrow_mut();
        let index = index.entry((table, column)).or_insert_with(|| {
            let mut index = BTreeMap::<_, BTreeSet<_>>::new();
            #[expect(clippy::iter_over_hash_type, reason = "what it fills is ordered")]
            for (key, touched) in overlay {
                if let Some(value) = index_value(column, touched) {
                    index.entry(value).or_default().insert(key.clone());
                }
            }
            index
        });
        if let Some(touched) = index.get(&matching_key(value)) {
            keys.extend(touched.iter().cloned());
            keys.sort_unstable();
        }
        Ok(keys)
    }

    /// Whether the log or this group has the changeset.
    pub(crate) fn changeset(&self, id: ChangesetId) -> Result<Option<&KnownChangeset>, Missing> {
        if let Some(known) = self.changesets.get(&id) {
            return Ok(Some(known));
        }
        match self.loaded.changesets.get(&id) {
            Some(known) => Ok(known.as_ref()),
            None => Err(Missing(vec![Want::Changeset(id)])),
        }
    }

    /// Whether the log or this group has pieces of a changeset that was asked for, the user's.
    pub(crate) fn is_cut(&self, id: ChangesetId, user: &UserId) -> bool {
        let in_log = self.loaded.cut.get(&id) == Some(user);
        let here = self.pieces.get(&id);
        in_log || here.is_some_and(|here| here.contains_key(user))
    }

    /// What the log and this group have of the same changeset in other pieces, the user's.
    pub(crate) fn pieces(&self, user: &UserId, piece: &Piece) -> Result<Vec<KnownRun>, Missing> {
        let asked = (user.clone(), piece.clone());
        let Some(in_log) = self.loaded.pieces.get(&asked) else {
            return Err(Missing(vec![Want::Pieces(asked.0, asked.1)]));
        };
        let here = self.pieces.get(&piece.whole);
        let here = here.and_then(|here| here.get(user));
        let here = here.into_iter().flatten().filter(|run| run.overlaps(piece));
        Ok(in_log.iter().chain(here).copied().collect())
    }

    pub(crate) fn device(&self, id: DeviceId) -> Result<Option<&DeviceState>, Missing> {
        if let Some(known) = self.devices.get(&id) {
            return Ok(Some(known));
        }
        match self.loaded.devices.get(&id) {
            Some(known) => Ok(known.as_ref()),
            None => Err(Missing(vec![Want::Device(id)])),
        }
    }

    /// Whether the bucket was the grantee's just before the change of version `at`, and has been
    /// since, or was taken away by the changeset with that change. The same in whatever group
    /// what happened was committed.
    pub(crate) fn was_granted(&self, grant: Grant, at: Version) -> Result<bool, Missing> {
        let Some(&loaded) = self.loaded.grants.get(&grant) else {
            return Err(Missing(vec![Want::GrantCount(grant)]));
        };
        let mut count = i64::try_from(loaded).unwrap_or(i64::MAX);
        let mut since = self.loaded.granted_since.get(&grant).copied();
        let mut from = self.head.version;
        for entry in &self.entries {
            let holds = from < at && at <= entry.version;
            from = entry.version;
            let before = count;
            count += entry.grants.get(&grant).copied().unwrap_or(0);
            if before > 0 && count == 0 && holds {
                return Ok(true);
            }
            if before == 0 && count > 0 {
                since = Some(entry.version);
            }
        }
        if count > 0 && since.is_some_and(|since| since < at) {
            return Ok(true);
        }
        if at > self.head.version || at <= self.head.horizon {
            return Ok(false);
        }
        match self.loaded.lost_by.get(&at) {
            Some(lost) => Ok(lost.contains(&grant)),
            None => Err(Missing(vec![Want::LostBy(at)])),
        }
    }

    /// What the user owns at this point of the group.
    pub(crate) fn owned(&self, user: &UserId) -> Result<Owned, Missing> {
        let known = self.owned.get(user).or_else(|| self.loaded.owned.get(user));
        known
            .copied()
            .ok_or_else(|| Missing(vec![Want::Owned(user.clone())]))
    }

    fn count(&mut self, differences: &Differences) {
        self.owned_doubtful |= differences.doubtful;
        for (user, difference) in &differences.users {
            let before = self.owned(user).unwrap_or_default();
            self.owned.insert(user.clone(), difference.added_to(before));
        }
    }

    /// Counts an answered number of a device (spec PL20), if it is the number's turn: what is
    /// answered by its id or size alone may have any. What depends on it is judged by this answer.
    /// A session whose lease is spent numbers what it sends as nobody does any more.
    pub(crate) fn answered(&mut self, submission: &Submission, refused: bool) {
        let (device, number) = (submission.device, submission.changeset.number);
        if let Ok(Some(state)) = self.device(device)
            && submission.is_spent(state)
        {
            return;
        }
        let numbers = self.refused.entry(device).or_default();
        numbers.insert(number, refused);
        let is_next = matches!(
            self.device(device),
            Ok(Some(state)) if state.last_number.checked_add(1) == Some(number)
        );
        if !is_next {
            return;
        }
        if let Some(state) = self.devices.get_mut(&device) {
            state.last_number = number;
        } else if let Some(Some(state)) = self.loaded.devices.get(&device) {
            let state = DeviceState {
                last_number: number,
                ..state.clone()
            };
            self.devices.insert(device, state);
        }
    }

    /// Tells the state of a row as it was before something else changed it.
    pub(crate) fn tell(&mut self, table: TableNumber, key: RowKey, before: LoadedRow) {
        let touched = Touched {
            stored: before.row.is_some(),
            row: before.row,
            ledger_buckets: before.meta.buckets.clone(),
            meta: before.meta,
            changed: false,
            pending: None,
        };
        let rows = self.rows.entry(table).or_default();
        if let Some(known) = rows.get(&key) {
            unindex(&mut self.matching, table, &key, known);
        }
        index(&mut self.matching, table, &key, &touched);
        rows.insert(key, touched);
    }

    /// Takes in what a changeset or an observation did, as part of the open entry of `author`.
    ///
    /// `written`: the database has these rows already.
    pub(crate) fn apply(&mut self, author: &Author, mut draft: Draft, written: bool) {
        self.last = draft.last;
        let open = self
            .open
            .get_or_insert_with(|| OpenEntry::new(author.clone()));
        open.take(&mut draft);
        self.count(&draft.owned);
        for draft in draft.rows {
            let is_insert = draft.is_insert();
            let RowDraft {
                table,
                key,
                row,
                meta,
                image,
                columns,
                ..
            } = draft;
            // Most of what was asked for is changed.
            let expected = || Rows::with_capacity(self.loaded.rows_of(table));
            let rows = self.rows.entry(table).or_insert_with(expected);
            let touched = match rows.entry(key.clone()) {
                Entry::Occupied(known) => {
                    let touched = known.into_mut();
                    unindex(&mut self.matching, table, &key, touched);
                    touched
                }
                Entry::Vacant(place) => {
                    let loaded = self.loaded.row(table, &key).flatten();
                    place.insert(Touched::from_ledger(loaded))
                }
            };
            touched.row = row;
            touched.meta = meta;
            touched.changed = true;
            if written {
                touched.stored = touched.row.is_some();
            } else if image && touched.wait(columns, is_insert) {
                self.pending.push((table, key.clone()));
                self.pending_tables.insert(table);
            }
            index(&mut self.matching, table, &key, touched);
        }
    }

    /// Ends the open entry: nothing more belongs to it.
    ///
    /// An entry without rows takes a version of its own (spec PL9).
    pub(crate) fn close(&mut self, context: &Context, author: &Author, now: Timestamp) -> Version {
        let open = self
            .open
            .take()
            .unwrap_or_else(|| OpenEntry::new(author.clone()));
        if open.is_empty() {
            self.last = self.last.next(now);
        }
        let entry = open.close(context, &self.rows, self.last);
        let known = KnownChangeset {
            version: entry.version,
            user: entry.author.user.clone(),
            device: entry.author.device,
        };
        if let (Some(user), Some(piece)) = (&entry.author.user, &entry.author.piece) {
            let here = self.pieces.entry(piece.whole).or_default();
            let known = here.entry(user.clone()).or_default();
            known.extend(KnownRun::of(piece, entry.version));
        }
        self.changesets.insert(entry.author.changeset, known);
        let version = entry.version;
        self.entries.push(entry);
        version
    }

    /// Ends the open entry if there is one with rows; else takes no version.
    pub(crate) fn close_if_any(
        &mut self,
        context: &Context,
        author: &Author,
        now: Timestamp,
    ) -> bool {
        let any = self.open.as_ref().is_some_and(|open| !open.is_empty());
        if any {
            self.close(context, author, now);
        }
        self.open = None;
        any
    }

    /// The rows to write, in the order they were first touched.
    pub(crate) fn pending(&self) -> Vec<RowWrite<'_>> {
        let rows = self.pending.iter().filter_map(|(table, key)| {
            let touched = self.rows.get(table)?.get(key)?;
            let columns = touched.pending.as_deref()?;
            let row = touched.row.as_ref();
            let nothing = row.is_none() && !touched.stored;
            let exists = touched.stored;
            (!nothing).then_some(RowWrite {
                table: *table,
                key,
                row,
                exists,
                columns,
            })
        });
        rows.collect()
    }

    /// Whether the database has the row, which is to be deleted there.
    pub(crate) fn is_to_be_deleted(&self, table: TableNumber, key: &RowKey) -> bool {
        let touched = self.rows.get(&table).and_then(|rows| rows.get(key));
        touched.is_some_and(|touched| touched.stored && touched.row.is_none())
    }

    /// Whether rows of the table are to be written.
    pub(crate) fn has_pending(&self, table: TableNumber) -> bool {
        self.pending_tables.contains(&table)
    }

    /// Notes that all pending rows are in the database.
    pub(crate) fn wrote(&mut self) {
        self.pending_tables.clear();
        for (table, key) in std::mem::take(&mut self.pending) {
            if let Some(touched) = self
                .rows
                .get_mut(&table)
                .and_then(|rows| rows.get_mut(&key))
            {
                touched.pending = None;
                touched.stored = touched.row.is_some();
            }
        }
    }
}

impl RowRef<'_> {
    /// `self` if the log has it. A row that it does not have yet is not there for anybody: its
    /// mark was not taken yet.
    fn filter_known(self) -> Option<Self> {
        (self.meta.version > Version::ZERO).then_some(self)
    }
}

impl Touched {
    fn from_ledger(loaded: Option<&LoadedRow>) -> Self {
        Self {
            row: None,
            meta: RowMeta::default(),
            ledger_buckets: loaded.map_or_else(Vec::new, |l| l.meta.buckets.clone()),
            changed: true,
            stored: loaded.is_some_and(|l| l.row.is_some()),
            pending: None,
        }
    }

    /// Adds `columns` to what has to be written; whether nothing had to be so far.
    fn wait(&mut self, columns: Vec<usize>, is_insert: bool) -> bool {
        match &mut self.pending {
            None => {
                self.pending = Some(columns);
                true
            }
            Some(pending) if is_insert => {
                *pending = columns;
                false
            }
            Some(pending) if self.stored => {
                pending.extend(columns);
                pending.sort_unstable();
                pending.dedup();
                false
            }
            // The row is still to be inserted, as it is then.
            Some(_) => false,
        }
    }

    pub(crate) fn as_ref(&self) -> RowRef<'_> {
        RowRef {
            row: self.row.as_ref(),
            meta: &self.meta,
        }
    }
}

/// In no order: who goes through them sorts what comes of it.
pub(crate) type Rows = HashMap<RowKey, Touched>;

/// Takes a row out of the indexes that exist on its table.
fn unindex(
    matching: &mut RefCell<OverlayIndex>,
    table: TableNumber,
    key: &RowKey,
    touched: &Touched,
) {
    for (column, index) in indexes(matching.get_mut(), table) {
        if let Some(value) = index_value(column, touched)
            && let Some(keys) = index.get_mut(&value)
        {
            keys.remove(key);
        }
    }
}

/// Adds a row to the indexes that exist on its table.
fn index(
    matching: &mut RefCell<OverlayIndex>,
    table: TableNumber,
    key: &RowKey,
    touched: &Touched,
) {
    for (column, index) in indexes(matching.get_mut(), table) {
        if let Some(value) = index_value(column, touched) {
            index.entry(value).or_default().insert(key.clone());
        }
    }
}

fn indexes(
    matching: &mut OverlayIndex,
    table: TableNumber,
) -> impl Iterator<Item = (RuleColumn, &mut BTreeMap<Vec<u8>, BTreeSet<RowKey>>)> {
    let all = (table, RuleColumn::Column(0))..=(table, RuleColumn::Owner);
    matching
        .range_mut(all)
        .map(|((_, column), index)| (*column, index))
}

/// Under what a live row stands in an index; `None` for NULL and for tombstones.
fn index_value(column: RuleColumn, touched: &Touched) -> Option<Vec<u8>> {
    let RowRef { row, .. } = touched.as_ref().filter_known()?;
    let row = row?;
    match column {
        RuleColumn::Column(position) => row
            .0
            .get(position)
            .filter(|value| !value.is_null())
            .map(matching_key),
        RuleColumn::Owner => touched
            .meta
            .owner
            .as_ref()
            .map(|owner| matching_key(&Value::Text(owner.0.clone()))),
    }
}
