//! Sealing anew what older keys sealed (spec EN9).

use syncline_core::{Change, ColumnEdit, Edit, Op, RowKey, TableNumber, Timestamp};

use super::Replica;
use crate::{
    apply::record_extra,
    error::ReplicaError,
    meta::{
        buckets,
        ledger::{self, Known},
        outbox::{self, StoredChange},
        settings::{self, Key},
        shadow::Shadow,
    },
    seal::{self, Sealed},
    tables::SyncedTable,
    work::Work,
};

/// Rows that are looked at in one transaction.
const ROWS: usize = 500;

/// What became of cells that older keys sealed, as far as it was looked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SealedAnew {
    /// Rows whose cells are sent, sealed with the key that seals now.
    pub rows: u64,
    /// Rows with changes that wait to be sent, or were refused: to be looked at again after that.
    pub waiting: u64,
    /// Rows of other people, who seal them anew themselves.
    pub others: u64,
}

impl std::ops::AddAssign for SealedAnew {
    fn add_assign(&mut self, more: Self) {
        self.rows += more.rows;
        self.waiting += more.waiting;
        self.others += more.others;
    }
}

/// How far [`Replica::seal_anew`] came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnewPlace {
    table: TableNumber,
    after: Vec<u8>,
}

impl Replica {
    /// Looks at the next rows and writes changes that seal anew what older keys sealed of this
    /// user's own; where to go on, or `None` at the end. Each call is a transaction: whoever stops
    /// begins again, and what is done already is not done twice.
    ///
    /// # Errors
    /// [`ReplicaError::StillLoading`]: what this device has under the keys that it has now is
    /// known only when everything was loaded with them.
    pub fn seal_anew(
        &mut self,
        from: Option<AnewPlace>,
        now: Timestamp,
    ) -> Result<(SealedAnew, Option<AnewPlace>), ReplicaError> {
        if buckets::is_loading(&self.conn)? {
            return Err(ReplicaError::StillLoading);
        }
        let done = self.transact(now, |work, entropy| {
            let me: Option<String> = settings::get(work.conn, Key::User)?;
            let me = me.map(|me| work.user(&me)).transpose()?.flatten();
            let mut told = SealedAnew::default();
            let mut changes = Vec::new();
            let mut next = None;
            let tables = work.tables.iter();
            let sealed: Vec<TableNumber> = tables
                .filter(|table| table.encrypted().next().is_some())
                .map(SyncedTable::number)
                .collect();
            let begun = from.as_ref().map_or(TableNumber(0), |from| from.table);
            for t in sealed.into_iter().filter(|t| *t >= begun) {
                let Some(table) = work.table(t) else { continue };
                let after = from.as_ref().filter(|from| from.table == t);
                let after = after.map(|from| from.after.clone()).unwrap_or_default();
                let found = ledger::with_extra(work.conn, t, &after, ROWS)?;
                let is_page = found.len() == ROWS;
                let last = found.last().map(|(key, _)| key.as_bytes().to_vec());
                for (key, known) in found {
                    let edits = old_cells(table, &key, &known)?;
                    if edits.is_empty() {
                        continue;
                    }
                    if me.is_none() || known.owner != me {
                        told.others += 1;
                        continue;
                    }
                    match change(work, table, key, &known, edits)? {
                        Some(change) => {
                            let pos = 0;
                            let at = now;
                            changes.push(StoredChange { pos, change, at });
                            told.rows += 1;
                        }
                        None => told.waiting += 1,
                    }
                }
                if let (true, Some(after)) = (is_page, last) {
                    next = Some(AnewPlace { table: t, after });
                    break;
                }
            }
            // Each on its own: what others did to a row that this device has not heard of is not
            // overwritten by what was there before, and one refusal holds nothing else up.
            for change in changes {
                let sealed = Sealed {
                    changes: vec![change],
                    require_unchanged: true,
                    ..Sealed::default()
                };
                seal::store(work, sealed, entropy, now)?;
            }
            Ok((told, next))
        })?;
        self.pump(now)?;
        Ok(done.unwrap_or_default())
    }
}

/// What writes each cell of the row anew that an older key sealed.
fn old_cells(
    table: &SyncedTable,
    key: &RowKey,
    known: &Known,
) -> Result<Vec<ColumnEdit>, ReplicaError> {
    let mut edits = Vec::new();
    for (number, kept) in record_extra(known)? {
        let local = table
            .encrypted()
            .find(|p| table.server_number(*p) == Some(number));
        let Some(local) = local else { continue };
        if let (Ok(value), true) = table.opened(key, number, &kept)
            && !value.is_null()
        {
            edits.push(ColumnEdit {
                column: table.table.columns[local].number,
                edit: Edit::Set(value),
            });
        }
    }
    Ok(edits)
}

/// The change of a row of which nothing waits.
fn change(
    work: &mut Work<'_>,
    table: &SyncedTable,
    key: RowKey,
    known: &Known,
    edits: Vec<ColumnEdit>,
) -> Result<Option<Change>, ReplicaError> {
    let t = table.number();
    let is_dirty = work.shadow(table, &key)?.is_some();
    if is_dirty
        || !outbox::pending(work.conn, t, &key)?.is_empty()
        || outbox::is_parked(work.conn, t, &key)?
    {
        return Ok(None);
    }
    let Some(row) = work.visible(table, &key)? else {
        return Ok(None);
    };
    let shadow = Shadow {
        image: Some(row),
        hidden: false,
    };
    work.put_shadow(table, &key, &shadow)?;
    Ok(Some(Change {
        table: t,
        key,
        base: known.version,
        op: Op::Update(edits),
    }))
}
