//! Saying what a migration of the app's own changed.
//!
//! A replica notices migrations by itself, whoever runs them and whenever. Who runs one through
//! it ([`Replica::begin_migration`], then the migration, then [`Replica::end_migration`]) has
//! everything sealed before, so that what the migration does is told from what was written
//! earlier, and hears what changed.

use std::collections::BTreeMap;

use syncline_core::{ColumnNumber, TableNumber, Timestamp};

use crate::{
    conflict,
    error::ReplicaError,
    event::Event,
    introspect::{self, is_bookkeeping},
    meta::names,
    replica::Replica,
    tables::load,
};

/// The app's tables and columns at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TablesSeen(BTreeMap<TableNumber, Seen>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    name: String,
    columns: BTreeMap<ColumnNumber, String>,
    left_out: Option<String>,
}

/// What a migration did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Migrated {
    /// Table by table.
    pub changes: Vec<TableChange>,
    /// Rows found changed that no trigger had marked.
    pub rows_found: u64,
    /// Changesets that were parked, such as what dropping a table did to rows that refer to it.
    pub parked: u64,
}

/// One change of the app's tables. A rebuilt table is none: it is what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableChange {
    Added {
        table: String,
    },
    Dropped {
        table: String,
    },
    /// By `ALTER TABLE … RENAME`: it stays the same table to the server.
    Renamed {
        table: String,
        from: String,
    },
    ColumnAdded {
        table: String,
        column: String,
    },
    ColumnDropped {
        table: String,
        column: String,
    },
    /// By `ALTER TABLE … RENAME COLUMN`: it stays the same column to the server.
    ColumnRenamed {
        table: String,
        column: String,
        from: String,
    },
    /// It does not sync, or not any more.
    LeftOut {
        table: String,
        reason: String,
    },
    /// It did not sync before and does now.
    Synced {
        table: String,
    },
}

impl Replica {
    /// Seals everything that was written until now, and looks at the tables. To be called before
    /// a migration; other connections may do what they like meanwhile.
    ///
    /// # Errors
    /// The database's.
    pub fn begin_migration(&mut self, now: Timestamp) -> Result<TablesSeen, ReplicaError> {
        self.seal(now)?;
        self.tables_seen()
    }

    /// Follows what a migration did, and says what that was: capture is installed again, rows that
    /// were changed unmarked are found. The replica may be another one than before, of the same
    /// file. Of rows and changesets those count whose events nobody took yet.
    ///
    /// # Errors
    /// The database's.
    pub fn end_migration(
        &mut self,
        before: &TablesSeen,
        now: Timestamp,
    ) -> Result<Migrated, ReplicaError> {
        self.seal(now)?;
        let mut migrated = Migrated {
            changes: before.changes_to(&self.tables_seen()?),
            ..Migrated::default()
        };
        for event in self.events.iter() {
            if let Event::Rescanned { rows } = event {
                migrated.rows_found += rows;
            } else if let Event::ChangeRefused { parked, .. } = event {
                migrated.parked += parked.len() as u64;
            }
        }
        Ok(migrated)
    }

    fn tables_seen(&self) -> Result<TablesSeen, ReplicaError> {
        let mut seen = BTreeMap::new();
        let objects = load::read_objects(&self.conn)?;
        for record in names::tables(&self.conn)? {
            let is_ours = record.name.eq_ignore_ascii_case(conflict::TABLE);
            if is_ours || is_bookkeeping(&record.name) {
                continue;
            }
            let Some(table) = introspect::read_table(&self.conn, &objects, &record.name)? else {
                continue;
            };
            let columns = names::columns(&self.conn, record.t)?.into_iter();
            let columns = columns.filter(|column| table.position(&column.name).is_some());
            let table = Seen {
                name: table.name.clone(),
                columns: columns.map(|column| (column.c, column.name)).collect(),
                left_out: record.left_out,
            };
            seen.insert(record.t, table);
        }
        Ok(TablesSeen(seen))
    }
}

impl TablesSeen {
    fn changes_to(&self, after: &Self) -> Vec<TableChange> {
        let mut changes = Vec::new();
        for (t, table) in &after.0 {
            match self.0.get(t) {
                None => {
                    let table = table.name.clone();
                    changes.push(TableChange::Added { table });
                }
                Some(before) => before.changes_to(table, &mut changes),
            }
            let was_left_out = self
                .0
                .get(t)
                .is_some_and(|before| before.left_out.is_some());
            match &table.left_out {
                Some(reason) if !was_left_out => changes.push(TableChange::LeftOut {
                    table: table.name.clone(),
                    reason: reason.clone(),
                }),
                None if was_left_out => changes.push(TableChange::Synced {
                    table: table.name.clone(),
                }),
                Some(_) | None => {}
            }
        }
        let gone = self.0.iter().filter(|(t, _)| !after.0.contains_key(t));
        changes.extend(gone.map(|(_, table)| TableChange::Dropped {
            table: table.name.clone(),
        }));
        changes
    }
}

impl Seen {
    fn changes_to(&self, after: &Self, changes: &mut Vec<TableChange>) {
        let table = after.name.clone();
        if !self.name.eq_ignore_ascii_case(&table) {
            changes.push(TableChange::Renamed {
                table: table.clone(),
                from: self.name.clone(),
            });
        }
        for (c, column) in &after.columns {
            let (table, column) = (table.clone(), column.clone());
            match self.columns.get(c) {
                None => changes.push(TableChange::ColumnAdded { table, column }),
                Some(from) if !from.eq_ignore_ascii_case(&column) => {
                    let from = from.clone();
                    changes.push(TableChange::ColumnRenamed {
                        table,
                        column,
                        from,
                    });
                }
                Some(_) => {}
            }
        }
        for (c, column) in &self.columns {
            if !after.columns.contains_key(c) {
                let (table, column) = (table.clone(), column.clone());
                changes.push(TableChange::ColumnDropped { table, column });
            }
        }
    }
}
