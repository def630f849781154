//! A server in a few lines: one log, rows in buckets, everything that arrives takes effect in
//! order of arrival. Frames in, frames out; tests look inside and make it misbehave.

mod stream;

use std::collections::{BTreeMap, BTreeSet};

use syncline_core::{
    BucketId, Change, Changeset, ChangesetId, Cursor, DeviceId, Edit, Hlc, Lease, Op, Row, RowKey,
    Schema, Table, TableNumber, Tag, Timestamp, Value, Version,
    digest::next_tag,
    merge,
    wire::{Quota, Refusal, ReloadReason, Verdict},
};

pub(crate) use stream::Link;

/// The bucket that everything lies in unless a test says otherwise.
pub(crate) const HOME: BucketId = BucketId([7; 16]);
pub(crate) const USER: &str = "ada";

/// A row as the authority keeps it.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) row: Row,
    pub(crate) version: Version,
    pub(crate) created: Version,
    pub(crate) buckets: BTreeSet<BucketId>,
}

/// One row change of the log.
#[derive(Debug, Clone)]
struct Logged {
    table: TableNumber,
    key: RowKey,
    version: Version,
    before: BTreeSet<BucketId>,
    after: BTreeSet<BucketId>,
    /// The row afterwards; `None`: deleted.
    row: Option<Kept>,
    changed: Vec<usize>,
    changeset: ChangesetId,
    hlc: Hlc,
}

#[derive(Debug, Clone)]
struct Entry {
    version: Version,
    tag: Tag,
    records: Vec<Logged>,
}

#[derive(Debug, Clone, Default)]
struct Device {
    previous: Lease,
    current: Lease,
    last_number: u64,
    refused: BTreeSet<u64>,
}

type Judge = Box<dyn FnMut(&Changeset) -> Option<Refusal>>;
type Buckets = fn(&Table, &Row) -> BTreeSet<BucketId>;

pub(crate) struct Authority {
    pub(crate) id: DeviceId,
    pub(crate) schema: Schema,
    pub(crate) rows: BTreeMap<(TableNumber, RowKey), Kept>,
    log: Vec<Entry>,
    pub(crate) ids: BTreeMap<ChangesetId, Version>,
    devices: BTreeMap<DeviceId, Device>,
    /// What is refused.
    pub(crate) judge: Judge,
    pub(crate) buckets: Buckets,
    pub(crate) granted: BTreeSet<BucketId>,
    pub(crate) subscriptions_max: u32,
    /// What it says that the user owns.
    pub(crate) quota: Option<Quota>,
    pub(crate) now: Timestamp,
    pub(crate) horizon: Version,
    forked: u8,
    /// Every row that ever was.
    born: BTreeSet<(TableNumber, RowKey)>,
    /// What the next Welcome says instead of Continue.
    pub(crate) reload: Option<ReloadReason>,
    /// Refused with `retry` from now on.
    pub(crate) is_busy: bool,
}

/// What a restored server has of its past.
pub(crate) struct Backup {
    rows: BTreeMap<(TableNumber, RowKey), Kept>,
    log: Vec<Entry>,
    ids: BTreeMap<ChangesetId, Version>,
    devices: BTreeMap<DeviceId, Device>,
    horizon: Version,
}

impl Authority {
    pub(crate) fn new(schema: Schema) -> Self {
        Self {
            id: DeviceId([1; 16]),
            schema,
            rows: BTreeMap::new(),
            log: Vec::new(),
            ids: BTreeMap::new(),
            devices: BTreeMap::new(),
            judge: Box::new(|_| None),
            buckets: |_, _| [HOME].into(),
            granted: [HOME].into(),
            subscriptions_max: 1_000,
            quota: None,
            now: Timestamp(1_700_000_000_000_000),
            horizon: Version::ZERO,
            forked: 0,
            born: BTreeSet::new(),
            reload: None,
            is_busy: false,
        }
    }

    pub(crate) fn table(&self, name: &str) -> &Table {
        self.schema.table(name).unwrap()
    }

    pub(crate) fn end(&self) -> Version {
        self.log.last().map_or(Version::ZERO, |entry| entry.version)
    }

    fn cursor(&self, version: Version) -> Cursor {
        let tag = self
            .log
            .iter()
            .rev()
            .find(|e| e.version == version)
            .map(|e| e.tag);
        Cursor {
            version,
            tag: tag.unwrap_or_default(),
            mac: Tag::default(),
        }
    }

    /// What somebody else writes: rows by table name, all in one changeset.
    pub(crate) fn write(&mut self, rows: &[(&str, Vec<Value>)]) -> Version {
        let mut records = Vec::new();
        for (name, values) in rows {
            let table = self.table(name).clone();
            let row = Row(values.clone()).canonical(&table);
            let key = row.key(&table).unwrap();
            records.extend(self.set(
                &table,
                key,
                Some(row),
                ChangesetId::default(),
                Hlc::default(),
            ));
        }
        self.append(ChangesetId([9; 16]), records)
    }

    /// What somebody else deletes.
    pub(crate) fn delete(&mut self, name: &str, key: &[Value]) -> Version {
        let table = self.table(name).clone();
        let key = RowKey::encode(key).unwrap();
        let record = self.set(&table, key, None, ChangesetId::default(), Hlc::default());
        self.append(ChangesetId([9; 16]), record.into_iter().collect())
    }

    /// Other rules, under which a bucket has another name.
    pub(crate) fn rename(&mut self, from: BucketId, to: BucketId) {
        for kept in self.rows.values_mut() {
            if kept.buckets.remove(&from) {
                kept.buckets.insert(to);
            }
        }
        self.granted.remove(&from);
        self.granted.insert(to);
        self.buckets = |_, _| [BucketId([8; 16])].into();
    }

    /// Everything as it is now, for [`Authority::restore`].
    pub(crate) fn backup(&self) -> Backup {
        Backup {
            rows: self.rows.clone(),
            log: self.log.clone(),
            ids: self.ids.clone(),
            devices: self.devices.clone(),
            horizon: self.horizon,
        }
    }

    /// Everything as it was: a restored backup.
    pub(crate) fn restore(&mut self, backup: Backup) {
        self.rows = backup.rows;
        self.log = backup.log;
        self.ids = backup.ids;
        self.devices = backup.devices;
        self.horizon = backup.horizon;
    }

    fn set(
        &mut self,
        table: &Table,
        key: RowKey,
        row: Option<Row>,
        changeset: ChangesetId,
        hlc: Hlc,
    ) -> Option<Logged> {
        let place = (table.number, key.clone());
        self.born.insert(place.clone());
        let old = self.rows.get(&place).cloned();
        if old.as_ref().map(|kept| &kept.row) == row.as_ref() {
            return None;
        }
        self.now = self.now.plus_millis(1);
        let version = self.end().next(self.now);
        let version = Version(version.0 + self.rows.len() as u64 % 7);
        let changed = match (&old, &row) {
            (Some(old), Some(row)) => (0..row.0.len())
                .filter(|&i| old.row.0[i] != row.0[i])
                .collect(),
            _ => Vec::new(),
        };
        let buckets = row
            .as_ref()
            .map(|row| (self.buckets)(table, row))
            .unwrap_or_default();
        let kept = row.map(|row| Kept {
            row,
            version,
            created: old.as_ref().map_or(version, |old| old.created),
            buckets: buckets.clone(),
        });
        match &kept {
            Some(kept) => drop(self.rows.insert(place, kept.clone())),
            None => drop(self.rows.remove(&place)),
        }
        Some(Logged {
            table: table.number,
            key,
            version,
            before: old.map(|old| old.buckets).unwrap_or_default(),
            after: buckets,
            row: kept,
            changed,
            changeset,
            hlc,
        })
    }

    fn append(&mut self, id: ChangesetId, mut records: Vec<Logged>) -> Version {
        // Versions of one changeset grow.
        let mut version = self.end();
        for record in &mut records {
            version = version.next(self.now);
            record.version = version;
            if let Some(kept) = &mut record.row {
                kept.version = version;
                let stored = self
                    .rows
                    .get_mut(&(record.table, record.key.clone()))
                    .unwrap();
                stored.version = version;
                if stored.created > version || record.before.is_empty() {
                    stored.created = version;
                    kept.created = version;
                }
            }
        }
        if records.is_empty() {
            version = version.next(self.now);
        }
        let previous = self.log.last().map(|entry| entry.tag).unwrap_or_default();
        self.log.push(Entry {
            version,
            tag: next_tag(previous, id),
            records,
        });
        version
    }

    /// The answer to a pushed changeset.
    fn judge(&mut self, author: DeviceId, changeset: &Changeset) -> Verdict {
        if let Some(version) = self.ids.get(&changeset.id) {
            let device = self.devices.get_mut(&author).unwrap();
            if changeset.number == device.last_number + 1 {
                device.last_number = changeset.number;
            }
            return Verdict::Accepted(*version);
        }
        // What was cut: this server keeps no pieces, only wholes.
        let whole = changeset.piece.as_ref().map(|piece| piece.whole);
        if let Some(version) = whole.and_then(|whole| self.ids.get(&whole)) {
            return Verdict::Accepted(*version);
        }
        let last = self.devices[&author].last_number;
        let may_have_come = changeset.may_be_applied_already || changeset.number <= last;
        let is_forgotten = changeset.after.map_or(
            changeset.may_be_applied_already || self.horizon > Version::ZERO,
            |after| after < self.horizon,
        );
        if may_have_come && is_forgotten {
            return Verdict::Refused(refusal("may_be_applied_already", false));
        }
        if self.is_busy {
            return Verdict::Refused(refusal("busy", true));
        }
        let device = self.devices.get_mut(&author).unwrap();
        if changeset.number > device.last_number + 1 {
            return Verdict::Refused(refusal("gap", true));
        }
        device.last_number = device.last_number.max(changeset.number);
        device.refused.remove(&changeset.number);
        let needs_refused = changeset.depends.iter().any(|n| device.refused.contains(n));
        let fault = if needs_refused {
            Some(refusal("depends_on", false))
        } else {
            (self.judge)(changeset).or_else(|| self.fault(changeset))
        };
        if let Some(refusal) = fault {
            let device = self.devices.get_mut(&author).unwrap();
            device.refused.insert(changeset.number);
            return Verdict::Refused(refusal);
        }
        let version = self.commit(changeset);
        Verdict::Accepted(version)
    }

    /// What any server finds wrong with a changeset.
    fn fault(&self, changeset: &Changeset) -> Option<Refusal> {
        for (i, change) in changeset.changes.iter().enumerate() {
            let table = self.schema.by_number(change.table)?;
            let place = (change.table, change.key.clone());
            let live = self.rows.get(&place);
            let mut refused = None;
            if changeset.require_unchanged
                && live.map_or(Version::ZERO, |kept| kept.version) != change.base
            {
                refused = Some(refusal("changed", false));
            } else if change.base > self.end() {
                refused = Some(refusal("base_in_future", false));
            } else if live.is_some() && matches!(change.op, Op::Insert(_)) && is_integer(table) {
                refused = Some(refusal("id_taken", false));
            } else if !self.born.contains(&place) && matches!(change.op, Op::Update(_)) {
                refused = Some(refusal("row_gone", false));
            }
            if let Some(mut refusal) = refused {
                refusal.change = Some(u32::try_from(i).unwrap());
                return Some(refusal);
            }
        }
        self.twin(changeset).then(|| refusal("constraint", false))
    }

    /// Whether two rows would have the same values in a unique index.
    fn twin(&self, changeset: &Changeset) -> bool {
        let touches_unique = |change: &Change| {
            let table = self.schema.by_number(change.table);
            table.is_some_and(|table| !table.uniques.is_empty())
        };
        if !changeset.changes.iter().any(touches_unique) {
            return false;
        }
        let mut after: BTreeMap<_, _> = self
            .rows
            .iter()
            .map(|(place, kept)| (place.clone(), kept.row.clone()))
            .collect();
        for Change { table, key, op, .. } in &changeset.changes {
            let place = (*table, key.clone());
            let structure = self.schema.by_number(*table).unwrap();
            match next(structure, after.get(&place), op) {
                Some(row) => drop(after.insert(place, row)),
                None => drop(after.remove(&place)),
            }
        }
        let mut seen = BTreeSet::new();
        after.iter().any(|((t, _), row)| {
            let uniques = &self.schema.by_number(*t).unwrap().uniques;
            uniques.iter().enumerate().any(|(i, positions)| {
                let values: Vec<_> = positions.iter().map(|&p| row.0[p].clone()).collect();
                !values.iter().any(Value::is_null)
                    && !seen.insert((*t, i, RowKey::encode(&values).unwrap()))
            })
        })
    }

    fn commit(&mut self, changeset: &Changeset) -> Version {
        let mut records = Vec::new();
        for Change { table, key, op, .. } in &changeset.changes {
            let table = self.schema.by_number(*table).unwrap().clone();
            let place = (table.number, key.clone());
            let current = self.rows.get(&place).map(|kept| kept.row.clone());
            let next = next(&table, current.as_ref(), op);
            let (id, hlc) = (changeset.id, changeset.hlc);
            records.extend(self.set(&table, key.clone(), next, id, hlc));
        }
        let version = self.append(changeset.id, records);
        self.ids.insert(changeset.id, version);
        version
    }
}

/// The row after `op`; columns that an insert leaves NULL stay as they are.
fn next(table: &Table, current: Option<&Row>, op: &Op) -> Option<Row> {
    let (Some(row), Op::Insert(edits)) = (current, op) else {
        return merge::apply_op(table, current, op).unwrap();
    };
    let mut row = row.clone();
    for edit in edits {
        if let Edit::Set(value) = &edit.edit
            && !value.is_null()
        {
            row.0[table.position_of(edit.column).unwrap()] = value.clone();
        }
    }
    Some(row)
}

fn is_integer(table: &Table) -> bool {
    matches!(table.primary_key.as_slice(),
        [one] if table.columns[*one].ty == syncline_core::ColumnType::Integer)
}

pub(crate) fn refusal(code: &str, retry: bool) -> Refusal {
    Refusal {
        code: code.into(),
        message: format!("refused: {code}"),
        retry,
        retry_after_ms: None,
        change: None,
        fatal: false,
    }
}
