//! Following the schema: the app's own changes of it (spec CA8) and what the server tells.

mod away;
pub(crate) mod cascade;
mod newcomers;
mod shrunk;
mod unsealed;

use std::collections::{BTreeMap, BTreeSet};

use syncline_core::{ColumnNumber, Op, Row, RowKey, Table, TableNumber, Timestamp, merge};

use crate::{
    adopt::{cascade::Cascades, newcomers::Newcomer},
    apply::record_extra,
    capture::{self, Before, Comparison, DraftChange, Finding, KnownRows},
    entropy::Entropy,
    error::ReplicaError,
    event::Event,
    meta::{
        former, ledger, names,
        outbox::{self, StoredChange},
        shadow,
    },
    objects::Objects,
    rows::RowError,
    seal::{self, Sealed},
    tables::{SyncedTable, Tables},
    work::Work,
};

/// Changed rows that one changeset of a rescan holds.
const FOUND_TOGETHER: usize = 1_000;

/// Makes capture fit `work.tables`, seals what was captured before, and finds what went
/// uncaptured. `schema` is the file's, `old` is what synced until now.
///
/// Runs in the caller's transaction, before anything else of it.
pub(crate) fn adopt(
    work: &mut Work<'_>,
    schema: &Objects,
    old: &Tables,
    entropy: &mut dyn Entropy,
    now: Timestamp,
) -> Result<(), ReplicaError> {
    let structures = work.tables.structures();
    let findings = capture::check(work.conn, schema, &structures)?;
    let altered = structures.iter().zip(&findings);
    let altered = altered.filter(|(_, finding)| **finding != Finding::Intact);
    let mut cascades = Cascades::new(
        capture::dropped(work.conn, schema)?,
        altered
            .map(|(table, _)| table.name.to_ascii_lowercase())
            .collect(),
    );
    seal::reseal(work, old)?;
    unsealed::seal(work, schema, old, &mut cascades, entropy, now)?;
    if cascades.took_any() {
        // The rows are back before others are compared with what they should be.
        work.settle(entropy, now)?;
    }
    let anew = work.tables.anew.clone();
    away::begin_anew(work, entropy, now)?;
    let mut install = Vec::new();
    let mut look = BTreeMap::new();
    for (structure, finding) in structures.iter().zip(findings) {
        let t = structure.number;
        let before = old.local(t).filter(|_| !anew.contains(&t));
        let before = before.map(|table| travelling(&table.table));
        let now = travelling(structure);
        if finding != Finding::Intact || before.as_ref().is_some_and(|before| *before != now) {
            install.push(structure.clone());
        }
        let newcomers = match finding {
            Finding::Intact => Vec::new(),
            Finding::Altered | Finding::Changed | Finding::Gone => {
                capture::uncaptured(work.conn, structure)?
            }
        };
        let grew =
            before.as_ref().is_some_and(|before| !now.is_subset(before)) || !newcomers.is_empty();
        if let (Finding::Changed | Finding::Gone, Some(table)) = (finding, work.table(t)) {
            former::forget_missing(work, table)?;
        }
        // A table that is new here is seeded or loaded instead.
        if (finding == Finding::Changed || grew) && (before.is_some() || is_known(work, t)?) {
            look.insert(t, newcomers.clone());
        }
        shrink(work, t, finding, &newcomers)?;
        if let (Some(old), Some(new)) = (old.local(t), work.table(t))
            && new.is_filled_since(old)
        {
            work.distrusted.insert(t);
        }
    }
    let synced: BTreeSet<_> = structures.iter().map(|table| table.number).collect();
    for record in names::tables(work.conn)? {
        if !synced.contains(&record.t) && record.unfit.is_none() {
            away::forget(work, &record, old, entropy, now)?;
        }
    }
    capture::install(work.conn, &install)?;
    let is_new = |table: &Table| old.local(table.number).is_none();
    if structures.iter().any(is_new) || !anew.is_empty() {
        away::take_back(work)?;
    }
    let mut changed = 0;
    for (t, newcomers) in look {
        if let Some(table) = work.table(t) {
            let newcomers = newcomers::at(work, table, old.local(t), &newcomers)?;
            changed += find_unseen(work, table, newcomers, &mut cascades, entropy, now)?;
        }
    }
    cascades.tell(work)?;
    if changed > 0 {
        work.events.push(Event::Rescanned { rows: changed });
    }
    Ok(())
}

/// Makes what is known of a table's rows fit where columns went. What the server has in a column
/// that went here is not known any more: the table is loaded again.
fn shrink(
    work: &mut Work<'_>,
    t: TableNumber,
    finding: Finding,
    newcomers: &[usize],
) -> Result<(), ReplicaError> {
    let Some(table) = work.table(t).filter(|table| table.shrunk) else {
        return Ok(());
    };
    if !is_known(work, t)? {
        return Ok(());
    }
    if finding == Finding::Changed || names::is_unsure(work.conn, t)? {
        names::set_unsure(work.conn, t)?;
        work.distrusted.insert(t);
    } else {
        shrunk::rehash(work, table, newcomers)?;
    }
    if table.lost {
        work.distrusted.insert(t);
    }
    Ok(())
}

/// The columns that sync, by the file's numbers.
fn travelling(table: &Table) -> BTreeSet<ColumnNumber> {
    table
        .columns
        .iter()
        .filter(|c| !c.generated)
        .map(|c| c.number)
        .collect()
}

fn is_known(work: &Work<'_>, t: TableNumber) -> Result<bool, ReplicaError> {
    ledger::any_within(work.conn, t, None, None)
}

/// Compares a table with what is known of its rows; what differs is sealed. Returns how many.
/// `newcomers` are the columns that were not captured before.
fn find_unseen<'c>(
    work: &mut Work<'c>,
    table: &'c SyncedTable,
    newcomers: Vec<Newcomer>,
    cascades: &mut Cascades,
    entropy: &mut dyn Entropy,
    now: Timestamp,
) -> Result<u64, ReplicaError> {
    let conn = work.conn;
    newcomers::take_up(work, table, &newcomers)?;
    let mut known = Rescan {
        work,
        table,
        newcomers,
        cascades,
        entropy,
        now,
        found: Sealed::default(),
        cascaded: Vec::new(),
    };
    let rescanned = capture::rescan(conn, &table.sql, &mut known, now)?;
    known.seal()?;
    known.park()?;
    Ok(rescanned.changed)
}

/// What the replica knows of a table, for comparing.
struct Rescan<'w, 'c> {
    work: &'w mut Work<'c>,
    table: &'c SyncedTable,
    newcomers: Vec<Newcomer>,
    cascades: &'w mut Cascades,
    entropy: &'w mut dyn Entropy,
    now: Timestamp,
    found: Sealed,
    /// Rows that a dropped table may have taken along.
    cascaded: Vec<StoredChange>,
}

impl Rescan<'_, '_> {
    fn seal(&mut self) -> Result<(), ReplicaError> {
        let found = std::mem::take(&mut self.found);
        seal::store(self.work, found, self.entropy, self.now).map(drop)
    }

    fn park(&mut self) -> Result<(), ReplicaError> {
        let cascaded = std::mem::take(&mut self.cascaded);
        self.cascades
            .park(self.work, cascaded, self.entropy, self.now)
    }

    /// Before a column came that the server has no value for, the row was what the server has:
    /// then only that column is to be sent.
    fn before(
        &self,
        key: &RowKey,
        before: Before,
        after: Option<&Row>,
    ) -> Result<Before, ReplicaError> {
        let t = self.table.number();
        if let (Before::Unknown, Some(row), false) = (&before, after, self.newcomers.is_empty())
            && let Some(known) = ledger::get(self.work.conn, t, key)?
            && let Some(server) = newcomers::without(self.table, &self.newcomers, row, &known)?
        {
            return Ok(Before::Image(server));
        }
        Ok(before)
    }
}

impl KnownRows for Rescan<'_, '_> {
    type Error = ReplicaError;

    fn compare(&mut self, key: &RowKey, row: &Row) -> Result<Comparison, ReplicaError> {
        compare(self.work, self.table, key, row)
    }

    fn keys_after(
        &mut self,
        after: Option<&RowKey>,
        limit: usize,
    ) -> Result<Vec<RowKey>, ReplicaError> {
        let mut after = after.cloned();
        loop {
            let keys =
                shadow::keys_with_rows(self.work.conn, self.table.number(), after.as_ref(), limit)?;
            let Some(last) = keys.last().cloned() else {
                return Ok(keys);
            };
            let mut expected = Vec::new();
            for key in keys {
                if self.work.expects(self.table, &key)? {
                    expected.push(key);
                }
            }
            if !expected.is_empty() {
                return Ok(expected);
            }
            after = Some(last);
        }
    }

    fn found(&mut self, change: DraftChange) -> Result<(), ReplicaError> {
        let DraftChange {
            key,
            before,
            after,
            first_marked_at,
            ..
        } = change;
        let before = self.before(&key, before, after.as_ref())?;
        let is_unknown = before == Before::Unknown;
        let stored = seal::difference(self.work, self.table, &key, before, after.as_ref())?;
        if let Some(mut change) = stored {
            let at = first_marked_at.min(self.now);
            match &after {
                Some(after) if is_unknown => {
                    self.cascades
                        .spare(self.work, self.table, &mut change.op, after)?;
                }
                None if self.cascades.may_take(self.work, self.table)? => {
                    self.cascaded.push(StoredChange { pos: 0, change, at });
                    if self.cascaded.len() >= cascade::TOGETHER {
                        self.park()?;
                    }
                    return Ok(());
                }
                Some(_) | None => {}
            }
            self.found.changes.push(StoredChange { pos: 0, change, at });
        }
        if self.found.changes.len() >= FOUND_TOGETHER {
            self.seal()?;
        }
        Ok(())
    }

    fn unfit(&mut self, error: RowError) -> Result<(), ReplicaError> {
        if let RowError::Database { .. } = error {
            return Err(error.into());
        }
        self.work.events.push(Event::RowUnfit {
            table: self.table.name().to_owned(),
            row: String::new(),
            reason: error.to_string(),
        });
        Ok(())
    }
}

/// How a visible row compares with what it should be.
pub(crate) fn compare(
    work: &Work<'_>,
    table: &SyncedTable,
    key: &RowKey,
    row: &Row,
) -> Result<Comparison, ReplicaError> {
    if let Some(shadow) = work.shadow(table, key)? {
        let same = |same| {
            if same {
                Comparison::Same
            } else {
                Comparison::Different
            }
        };
        if shadow.hidden {
            return Ok(same(shadow.image.as_ref() == Some(row)));
        }
        return Ok(match work.replayed(table, key, shadow.image)? {
            Some(expected) => same(expected == *row),
            None => Comparison::Unknown,
        });
    }
    let Some(known) = ledger::get(work.conn, table.number(), key)? else {
        // Rows that wait to be seeded are nobody's news.
        return Ok(if table.seeding {
            Comparison::Same
        } else {
            Comparison::Unknown
        });
    };
    let hash = table.hash(row, &record_extra(&known)?);
    Ok(
        if hash == known.hash || names::is_unsure(work.conn, table.number())? {
            Comparison::Same
        } else {
            Comparison::Different
        },
    )
}

/// The operation without columns that the app dropped since.
fn without_gone(table: &Table, mut op: Op) -> Op {
    match &mut op {
        Op::Insert(edits) | Op::Update(edits) => {
            edits.retain(|edit| table.position_of(edit.column).is_some());
        }
        Op::Delete => {}
    }
    op
}

impl Work<'_> {
    /// The image with the row's pending changes on top.
    pub(crate) fn replayed(
        &self,
        table: &SyncedTable,
        key: &RowKey,
        mut image: Option<Row>,
    ) -> Result<Option<Row>, ReplicaError> {
        for change in outbox::pending(self.conn, table.number(), key)? {
            let op = without_gone(&table.table, change.op);
            // An edit that does not fit any more is hidden; the server judges it.
            if let Ok(next) = merge::apply_op(&table.table, image.as_ref(), &op) {
                image = next;
            }
        }
        Ok(image)
    }

    /// Whether the table should have a row with this key.
    pub(crate) fn expects(&self, table: &SyncedTable, key: &RowKey) -> Result<bool, ReplicaError> {
        match self.shadow(table, key)? {
            Some(shadow) if shadow.hidden => Ok(false),
            Some(shadow) => Ok(self.replayed(table, key, shadow.image)?.is_some()),
            None => Ok(ledger::version_of(self.conn, table.number(), key)?.is_some()),
        }
    }
}
