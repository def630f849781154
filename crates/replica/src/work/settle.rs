//! Ending a transaction's work: every visible row is shadow plus pending changes, or hidden.

use std::collections::BTreeMap;

use syncline_core::{Row, RowKey, TableNumber};

use super::{Place, Work};
use crate::{
    error::ReplicaError,
    event::Event,
    meta::{outbox, settings, shadow},
    rows::RowError,
    tables::SyncedTable,
};

/// Hidden rows of a table that are tried again at once.
const HIDDEN_RETRIED: usize = 1_000;
/// Dirty rows of a table that make room for the server's rows.
const DIRTY_MOVED: usize = 10_000;

impl Work<'_> {
    /// Computes stale rows, places what was in each other's way, hides what does not fit, and
    /// writes the digests. Nothing stops it but the disk (spec AP6).
    pub(crate) fn settle(&mut self) -> Result<(), ReplicaError> {
        let tables: Vec<_> = self.changed.keys().copied().collect();
        for t in tables {
            if self.has_shadows(t)? {
                let hidden = self.hidden_in_turn(t)?;
                self.stale.extend(hidden.into_iter().map(|key| (t, key)));
            }
        }
        let mut computed = BTreeMap::new();
        for (t, key) in std::mem::take(&mut self.stale) {
            let Some(table) = self.table(t) else { continue };
            if let Some(is_clean) = self.compute(table, &key)? {
                computed.insert((t, key), is_clean);
            }
        }
        self.place_stuck(|_| true)?;
        if !self.stuck.is_empty() {
            self.make_room()?;
        }
        let unplaced = std::mem::take(&mut self.stuck);
        for ((t, key), is_clean) in computed {
            if !unplaced.contains_key(&(t, key.clone())) {
                self.settled(t, &key, is_clean)?;
            }
        }
        for ((t, key), row) in unplaced {
            if let Some(table) = self.table(t) {
                self.hide(table, &key, row)?;
            }
        }
        self.store_counts()
    }

    /// Hidden rows to be tried now: the next ones each time, so that each gets its turn however
    /// many there are.
    fn hidden_in_turn(&self, t: TableNumber) -> Result<Vec<RowKey>, ReplicaError> {
        let after = settings::hidden_after(self.conn, t)?;
        let mut keys = shadow::hidden(self.conn, t, after.as_ref(), HIDDEN_RETRIED)?;
        if after.is_some() && keys.len() < HIDDEN_RETRIED {
            let room = HIDDEN_RETRIED - keys.len();
            keys.extend(shadow::hidden(self.conn, t, None, room)?);
        }
        let next = keys.last().filter(|_| keys.len() == HIDDEN_RETRIED);
        if next != after.as_ref() {
            settings::set_hidden_after(self.conn, t, next)?;
        }
        Ok(keys)
    }

    /// Shows shadow plus pending changes; whether nothing is pending. `None`: not a dirty row.
    fn compute(&mut self, table: &SyncedTable, key: &RowKey) -> Result<Option<bool>, ReplicaError> {
        let Some(shadow) = self.shadow(table, key)? else {
            return Ok(None);
        };
        let is_clean = outbox::pending(self.conn, table.number(), key)?.is_empty();
        let image = self.replayed(table, key, shadow.image)?;
        if self.visible(table, key)? != image {
            self.show(table, key, image)?;
            self.note(table.number(), key, None);
        }
        Ok(Some(is_clean))
    }

    /// The visible row is what it should be.
    fn settled(
        &mut self,
        t: TableNumber,
        key: &RowKey,
        is_clean: bool,
    ) -> Result<(), ReplicaError> {
        let Some(table) = self.table(t) else {
            return Ok(());
        };
        if is_clean {
            return shadow::delete(self.conn, t, key);
        }
        if let Some(mut shadow) = self.shadow(table, key)?
            && shadow.hidden
        {
            shadow.hidden = false;
            self.put_shadow(table, key, &shadow)?;
        }
        Ok(())
    }

    /// Inserts stuck rows that `wanted` names until no more of them fits.
    fn place_stuck(&mut self, wanted: impl Fn(&Place) -> bool) -> Result<(), ReplicaError> {
        loop {
            let waiting: Vec<_> = self.stuck.keys().filter(|p| wanted(p)).cloned().collect();
            let mut placed = 0;
            for place in waiting {
                let Some(table) = self.table(place.0) else {
                    continue;
                };
                match table.sql.insert_or_replace(self.conn, &self.stuck[&place]) {
                    Ok(()) => {
                        self.stuck.remove(&place);
                        placed += 1;
                    }
                    Err(error) if error.is_constraint() => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if placed == 0 {
                return Ok(());
            }
        }
    }

    /// Takes the dirty rows out of the tables where something is stuck: the server's rows come
    /// first, then those with pending changes on top.
    fn make_room(&mut self) -> Result<(), ReplicaError> {
        let mut tables: Vec<_> = self.stuck.keys().map(|(t, _)| *t).collect();
        tables.dedup();
        let mut dirty = std::collections::BTreeSet::new();
        for t in tables {
            let Some(table) = self.table(t) else { continue };
            let keys = shadow::keys(self.conn, t, DIRTY_MOVED)?;
            for key in keys {
                let place = (t, key);
                if !self.stuck.contains_key(&place)
                    && let Some(row) = self.visible(table, &place.1)?
                {
                    table.sql.delete(self.conn, &place.1)?;
                    self.stuck.insert(place.clone(), row);
                }
                dirty.insert(place);
            }
        }
        self.place_stuck(|place| !dirty.contains(place))?;
        self.place_stuck(|_| true)
    }

    /// Keeps aside a row that this database cannot hold (spec AP6).
    fn hide(&mut self, table: &SyncedTable, key: &RowKey, row: Row) -> Result<(), ReplicaError> {
        let mut shadow = match self.shadow(table, key)? {
            Some(shadow) => shadow,
            None => shadow::Shadow {
                image: Some(row.clone()),
                hidden: false,
            },
        };
        let reason = match table.sql.insert_or_replace(self.conn, &row) {
            Ok(()) => None,
            Err(error) if error.is_constraint() => Some(error),
            Err(error) => return Err(error.into()),
        };
        if let Some(server) = shadow
            .image
            .as_ref()
            .filter(|server| reason.is_some() && **server != row)
        {
            // The pending change does not fit, but the server's row may.
            match table.sql.insert_or_replace(self.conn, server) {
                Ok(()) => {}
                Err(error) if error.is_constraint() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let newly = !shadow.hidden;
        shadow.hidden = reason.is_some();
        self.put_shadow(table, key, &shadow)?;
        if let (true, Some(error)) = (newly, reason) {
            self.events.push(Event::RowUnstorable {
                table: table.name().to_owned(),
                key: key.clone(),
                reason: chain(&error),
            });
        }
        Ok(())
    }
}

/// The error with its causes.
fn chain(error: &RowError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
