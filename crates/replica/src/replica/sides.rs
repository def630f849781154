//! Both sides of a conflict as whole rows, for who decides it by program.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use syncline_core::{ColumnNumber, Hlc, Op, Row, RowKey, Timestamp, Value};

use super::{Replica, inspect::row_key};
use crate::{
    codec,
    conflict::{self, Conflict, ConflictKind},
    error::ReplicaError,
    meta::{acknowledged, outbox},
    tables::SyncedTable,
};

/// Kept changesets that are searched for the author's edit, the newest first.
const SEARCHED: usize = 1_000;

/// Both sides of a conflict.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConflictSides {
    /// The row as the author wants it, by column.
    pub local: BTreeMap<String, Value>,
    /// The row as the server has it; empty if it is deleted.
    pub remote: BTreeMap<String, Value>,
    /// When the author wrote it, if that was on this device.
    pub local_at: Option<Timestamp>,
    /// When the server's row was last written; unknown where the author wrote it last, too, or on
    /// another device than the author's.
    pub remote_at: Option<Timestamp>,
}

impl Replica {
    /// What a conflict is about, as whole rows.
    ///
    /// # Errors
    /// [`ReplicaError::UnknownTable`], [`ReplicaError::BadKey`], or the database's.
    pub fn conflict_sides(&self, conflict: &Conflict) -> Result<ConflictSides, ReplicaError> {
        let unknown = || ReplicaError::UnknownTable {
            name: conflict.table.clone(),
        };
        let table = self.tables.named(&conflict.table).ok_or_else(unknown)?;
        let key = row_key(table, &conflict.key)?;
        let row = table.sql.read(&self.conn, &key)?;
        let named = |row: &Row| {
            let columns = table.table.columns.iter().zip(&row.0);
            columns
                .map(|(column, value)| (column.name.clone(), value.clone()))
                .collect::<BTreeMap<_, _>>()
        };
        let mut sides = ConflictSides::default();
        if let Some(row) = &row {
            sides.local = named(row);
            sides.remote = named(row);
        }
        match (conflict.kind, json(conflict.mine.as_deref())) {
            (ConflictKind::Manual, mine) => {
                for (side, value) in [
                    (&mut sides.local, mine),
                    (&mut sides.remote, json(conflict.theirs.as_deref())),
                ] {
                    let value = value.as_ref().and_then(conflict::from_json);
                    if let (Some(column), Some(value)) = (&conflict.column, value) {
                        side.insert(column.clone(), value);
                    }
                }
            }
            (ConflictKind::Deleted, Some(Json::Object(mine))) => {
                sides.remote.clear();
                for (&p, value) in table.table.primary_key.iter().zip(&conflict.key) {
                    let name = table.table.columns[p].name.clone();
                    sides.local.insert(name, value.clone());
                }
                let mine = mine.iter().filter_map(|(name, json)| {
                    let value = conflict::from_json(json)?;
                    let value = match table.table.position(name) {
                        // What cannot be read is not there.
                        Some(position) => table.opened_at(&key, position, value).ok()?,
                        None => value,
                    };
                    Some((name.clone(), value))
                });
                sides.local.extend(mine);
            }
            (ConflictKind::Deleted, _) => sides.remote.clear(),
        }
        let Some(edit) = self.last_edit(table, &key)? else {
            return Ok(sides);
        };
        sides.local_at = Some(edit.at);
        // What the author wrote besides made the row's version the author's own.
        let undecided = self.conflicts(true)?.into_iter().filter(|other| {
            other.table == conflict.table && row_key(table, &other.key).ok().as_ref() == Some(&key)
        });
        let undecided: Vec<String> = undecided.filter_map(|other| other.column).collect();
        let is_theirs = edit.columns.iter().all(|number| {
            let position = table.table.position_of(*number);
            let name = position.map(|position| &table.table.columns[position].name);
            name.is_some_and(|name| {
                conflict.column.as_ref() == Some(name) || undecided.contains(name)
            })
        });
        if is_theirs {
            let status = self.row_status(&conflict.table, &conflict.key)?;
            sides.remote_at = status.modified_at;
        }
        Ok(sides)
    }

    /// What this device last wrote of the row, if that is remembered.
    fn last_edit(
        &self,
        table: &SyncedTable,
        key: &RowKey,
    ) -> Result<Option<LastEdit>, ReplicaError> {
        let time = |hlc: Hlc| Timestamp::from_millis(hlc.millis());
        let pending = outbox::touching(&self.conn, table.number(), key)?;
        if let Some(last) = pending.last()
            && let Some(entry) = outbox::entry(&self.conn, last.seq)?
        {
            // The server has not heard of it yet.
            let (at, columns) = (time(entry.hlc), Vec::new());
            return Ok(Some(LastEdit { at, columns }));
        }
        for body in acknowledged::newest(&self.conn, SEARCHED)? {
            // One that is damaged is damage for others to report: it tells no time.
            let Ok(changeset) = codec::decode_changeset(&body) else {
                continue;
            };
            let change = changeset
                .changes
                .iter()
                .find(|change| change.table == table.number() && change.key == *key);
            if let Some(change) = change {
                let columns = match &change.op {
                    Op::Insert(edits) | Op::Update(edits) => {
                        edits.iter().map(|edit| edit.column).collect()
                    }
                    Op::Delete => Vec::new(),
                };
                let at = time(changeset.hlc);
                return Ok(Some(LastEdit { at, columns }));
            }
        }
        Ok(None)
    }
}

/// An edit of this device.
struct LastEdit {
    at: Timestamp,
    /// The columns that it wrote at the server.
    columns: Vec<ColumnNumber>,
}

fn json(text: Option<&str>) -> Option<Json> {
    serde_json::from_str(text?).ok()
}
