//! Ending a transaction's work: every visible row is shadow plus pending changes, or hidden.

use std::collections::{BTreeMap, BTreeSet};

use syncline_core::{RowKey, TableNumber, Timestamp};

use super::{Place, Work, room::Hidden};
use crate::{
    entropy::Entropy,
    error::ReplicaError,
    event::Event,
    meta::{outbox, settings, shadow},
    tables::SyncedTable,
    tally::RowChange,
};

/// Hidden rows of a table that are tried again at once.
const HIDDEN_RETRIED: usize = 1_000;

impl Work<'_> {
    /// Computes stale rows, places what was in each other's way, hides what does not fit, and
    /// writes the digests. Nothing stops it but the disk (spec AP6).
    pub(crate) fn settle(
        &mut self,
        entropy: &mut dyn Entropy,
        now: Timestamp,
    ) -> Result<(), ReplicaError> {
        let computed = self.compute_stale()?;
        self.place_stuck()?;
        let hidden = if self.stuck.is_empty() {
            BTreeMap::new()
        } else {
            self.make_room(entropy, now)?
        };
        for ((t, key), is_clean) in computed {
            if !hidden.contains_key(&(t, key.clone())) {
                self.settled(t, &key, is_clean)?;
            }
        }
        for ((t, key), hidden) in hidden {
            if let Some(table) = self.table(t) {
                self.hide(table, &key, hidden)?;
            }
        }
        self.store_counts()
    }

    /// Shows every dirty row whose image or pending changes became others, and has the hidden
    /// rows of the tables that changed tried again. Says of each whether nothing is pending.
    fn compute_stale(&mut self) -> Result<BTreeMap<Place, bool>, ReplicaError> {
        let mut computed = BTreeMap::new();
        let mut tried = BTreeSet::new();
        loop {
            let tables: Vec<_> = self.changed.keys().copied().collect();
            for t in tables {
                if tried.insert(t) && self.has_shadows(t)? {
                    let hidden = self.hidden_in_turn(t)?;
                    self.stale.extend(hidden.into_iter().map(|key| (t, key)));
                }
            }
            if self.stale.is_empty() {
                return Ok(computed);
            }
            for (t, key) in std::mem::take(&mut self.stale) {
                let Some(table) = self.table(t) else { continue };
                if let Some(is_clean) = self.compute(table, &key)? {
                    computed.insert((t, key), is_clean);
                }
            }
        }
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
        let visible = self.visible(table, key)?;
        // What cannot travel is left alone (spec SL10).
        if image.is_some() && visible.is_none() && table.sql.exists(self.conn, key)? {
            return Ok(None);
        }
        if visible != image {
            let change = RowChange::of(visible.is_some(), image.is_some());
            self.show(table, key, image)?;
            self.note(table.number(), key, None, change);
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

    /// Inserts stuck rows until no more of them fits.
    fn place_stuck(&mut self) -> Result<(), ReplicaError> {
        loop {
            let waiting: Vec<_> = self.stuck.keys().cloned().collect();
            let mut placed = 0;
            for place in waiting {
                let Some(table) = self.table(place.0) else {
                    continue;
                };
                let row = self.stuck[&place].clone();
                if self.place(table, &place.1, &row)?.is_none() {
                    self.stuck.remove(&place);
                    placed += 1;
                }
            }
            if placed == 0 {
                return Ok(());
            }
        }
    }

    /// Writes down that a row is not what it should be (spec AP6).
    fn hide(
        &mut self,
        table: &SyncedTable,
        key: &RowKey,
        hidden: Hidden,
    ) -> Result<(), ReplicaError> {
        let mut shadow = match self.shadow(table, key)? {
            Some(shadow) => shadow,
            None => shadow::Shadow {
                image: hidden.server,
                hidden: false,
            },
        };
        let newly = !shadow.hidden;
        shadow.hidden = true;
        self.put_shadow(table, key, &shadow)?;
        if !newly {
            return Ok(());
        }
        self.note(table.number(), key, None, RowChange::Deleted);
        let (table, key) = (table.name().to_owned(), key.clone());
        let reason = hidden.reason;
        self.events.push(if hidden.lacks_server {
            Event::RowUnstorable { table, key, reason }
        } else {
            Event::ChangeHidden { table, key, reason }
        });
        Ok(())
    }
}
