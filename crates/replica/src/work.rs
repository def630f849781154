//! One transaction's work on the app's rows: the server's images underneath, pending changes on
//! top, and the visible rows made of both.

mod cells;
mod own;
mod room;
mod settle;

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use syncline_core::{Row, RowKey, TableNumber, Timestamp};

use crate::{
    conflict,
    error::ReplicaError,
    event::{Event, RowsChanged},
    meta::{
        buckets,
        ledger::{self, DigestChanges, Known, User},
        members, names,
        shadow::{self, Shadow},
    },
    repeat,
    rows::{Raw, Rivals, RowError},
    tables::{SyncedTable, Tables},
    tally::{Counted, RowChange},
};

/// A row of the file.
pub(crate) type Place = (TableNumber, RowKey);

/// Gathers what one transaction changes. Triggers are off while it works, everything captured
/// before is sealed, and [`Work::settle`] ends it.
#[derive(Debug)]
pub(crate) struct Work<'c> {
    pub(crate) conn: &'c Connection,
    pub(crate) tables: &'c Tables,
    pub(crate) digests: DigestChanges,
    /// Made when the first row's metadata is written.
    ledger: Option<ledger::Writer<'c>>,
    pub(crate) events: Vec<Event>,
    /// Visible rows that did not fit yet, and what they should be.
    stuck: BTreeMap<Place, Row>,
    /// What rows that were taken out, and are to come back, had in columns of the file's own.
    own: BTreeMap<Place, Vec<Raw>>,
    /// Dirty rows whose visible image has to be computed again.
    stale: BTreeSet<Place>,
    changed: BTreeMap<TableNumber, ChangedRows>,
    /// Whether a table has any shadow, as far as it was asked.
    shadowed: BTreeMap<TableNumber, bool>,
    /// Whether a table's rows are listed by bucket, as far as it was asked.
    listed: BTreeMap<TableNumber, bool>,
    /// Rows went that may not be seen any more: old pages have to leave the write-ahead log.
    pub(crate) erases: bool,
    conflicts: Option<TableNumber>,
    /// Rows of the server that came and went, by table.
    counts: BTreeMap<TableNumber, i64>,
    /// Numbers of users, as far as they were asked.
    users: BTreeMap<String, Option<User>>,
    /// How to find what is in a row's way, as far as it was asked; `None` for a table that is gone.
    rivals: BTreeMap<TableNumber, Option<Rivals>>,
    /// Tables with rows whose server image is not known: to be loaded again.
    pub(crate) distrusted: BTreeSet<TableNumber>,
    /// What was written last of rows whose table is gone, which nobody can read any more.
    pub(crate) lost: BTreeMap<TableNumber, LostRows>,
    /// Rows that became visible, changed or went.
    pub(crate) counted: Counted,
    /// Changes of this file that the server took.
    pub(crate) accepted: Counted,
    /// Whether the row whose metadata was written last was unknown before.
    is_newcomer: bool,
    pub(crate) cells: cells::Cells,
}

/// Rows of one table whose last writes are lost.
#[derive(Debug, Default)]
pub(crate) struct LostRows {
    pub(crate) count: u64,
    /// The first ones, with the time of their last mark.
    pub(crate) keys: BTreeMap<RowKey, Timestamp>,
}

impl LostRows {
    const KEYS_KEPT: usize = 1_000;

    pub(crate) fn add(&mut self, key: RowKey, at: Timestamp) {
        self.count += 1;
        if self.keys.len() < Self::KEYS_KEPT {
            self.keys.insert(key, at);
        }
    }
}

#[derive(Debug, Default)]
struct ChangedRows {
    keys: BTreeSet<RowKey>,
    overflown: bool,
    authors: BTreeSet<Option<String>>,
}

impl<'c> Work<'c> {
    /// Most keys that one event lists.
    const KEYS_LISTED: usize = 1_000;
    /// Most users whose numbers are remembered.
    const USERS_KEPT: usize = 1_000;

    pub(crate) fn new(conn: &'c Connection, tables: &'c Tables) -> Self {
        Self {
            conn,
            tables,
            digests: DigestChanges::default(),
            ledger: None,
            events: Vec::new(),
            stuck: BTreeMap::new(),
            own: BTreeMap::new(),
            stale: BTreeSet::new(),
            changed: BTreeMap::new(),
            shadowed: BTreeMap::new(),
            listed: BTreeMap::new(),
            erases: false,
            conflicts: tables.named(conflict::TABLE).map(SyncedTable::number),
            counts: BTreeMap::new(),
            users: BTreeMap::new(),
            rivals: BTreeMap::new(),
            distrusted: BTreeSet::new(),
            lost: BTreeMap::new(),
            counted: Counted::new(),
            accepted: Counted::new(),
            is_newcomer: false,
            cells: cells::Cells::default(),
        }
    }

    /// The table with this number of the file's.
    pub(crate) fn table(&self, t: TableNumber) -> Option<&'c SyncedTable> {
        self.tables.local(t)
    }

    /// The server's image of a row: its shadow, or the visible row where it has none.
    pub(crate) fn server_image(
        &self,
        table: &SyncedTable,
        key: &RowKey,
    ) -> Result<Option<Row>, ReplicaError> {
        match self.shadow(table, key)? {
            Some(shadow) => Ok(shadow.image),
            None => self.visible(table, key),
        }
    }

    /// The row as the app sees it, or will once it fits; `None` too for one that has no canonical
    /// form.
    pub(crate) fn visible(
        &self,
        table: &SyncedTable,
        key: &RowKey,
    ) -> Result<Option<Row>, ReplicaError> {
        if let Some(row) = self.stuck.get(&(table.number(), key.clone())) {
            return Ok(Some(row.clone()));
        }
        if !table.is_here {
            return Ok(None);
        }
        match table.sql.read(self.conn, key) {
            // Nothing can be made of it, so nothing is known to be there (spec SL10, AP6).
            Err(RowError::NotUtf8 { .. }) => Ok(None),
            found => Ok(found?),
        }
    }

    pub(crate) fn shadow(
        &self,
        table: &SyncedTable,
        key: &RowKey,
    ) -> Result<Option<Shadow>, ReplicaError> {
        if self.shadowed.get(&table.number()) == Some(&false) {
            return Ok(None);
        }
        shadow::get(self.conn, table, key)
    }

    /// Whether any row of the table is dirty or hidden: asked once in a transaction.
    pub(crate) fn has_shadows(&mut self, t: TableNumber) -> Result<bool, ReplicaError> {
        if let Some(known) = self.shadowed.get(&t) {
            return Ok(*known);
        }
        let any = shadow::any(self.conn, t)?;
        self.shadowed.insert(t, any);
        Ok(any)
    }

    pub(crate) fn put_shadow(
        &mut self,
        table: &SyncedTable,
        key: &RowKey,
        shadow: &Shadow,
    ) -> Result<(), ReplicaError> {
        self.shadowed.insert(table.number(), true);
        shadow::put(self.conn, table, key, shadow)
    }

    /// Writes what the server says of a row: under the pending changes where there are any,
    /// else into the app's table (spec AP2).
    pub(crate) fn set_server_image(
        &mut self,
        table: &SyncedTable,
        key: &RowKey,
        image: Option<Row>,
        author: &str,
    ) -> Result<(), ReplicaError> {
        if let Some(mut shadow) = self.shadow(table, key)? {
            shadow.image = image;
            self.put_shadow(table, key, &shadow)?;
            self.note_author(table.number(), author);
            self.refresh(table.number(), key.clone());
            return Ok(());
        }
        let change = RowChange::of(!self.is_newcomer, image.is_some());
        self.show(table, key, image)?;
        self.note(table.number(), key, Some(author), change);
        Ok(())
    }

    /// Has the visible row computed again from shadow and pending changes when settling.
    pub(crate) fn refresh(&mut self, t: TableNumber, key: RowKey) {
        self.stale.insert((t, key));
    }

    /// Makes the visible row this one; a row that does not fit is taken out and waits.
    pub(crate) fn show(
        &mut self,
        table: &SyncedTable,
        key: &RowKey,
        row: Option<Row>,
    ) -> Result<(), ReplicaError> {
        let place = (table.number(), key.clone());
        if self.conflicts == Some(table.number()) {
            let before = self.visible(table, key)?;
            self.events
                .extend(conflict::event(&table.table, before.as_ref(), row.as_ref()));
        }
        self.stuck.remove(&place);
        let Some(row) = row else {
            self.own.remove(&place);
            return self.take_out(table, key);
        };
        if self.put_in(table, &row)?.is_ok() {
            return self.put_own(table, key);
        }
        self.keep_own(table, key, key)?;
        self.take_out(table, key)?;
        self.stuck.insert(place, row);
        Ok(())
    }

    /// Writes a row into its table; why it does not fit there, if it does not.
    fn put_in(&self, table: &SyncedTable, row: &Row) -> Result<Result<(), RowError>, ReplicaError> {
        let conn = self.conn;
        match repeat::write(conn, || table.sql.insert_or_replace(conn, row))? {
            // A transaction that was rolled back is none that could go on.
            Err(error) if !error.is_constraint() || conn.is_autocommit() => Err(error.into()),
            done => Ok(done),
        }
    }

    fn take_out(&self, table: &SyncedTable, key: &RowKey) -> Result<(), ReplicaError> {
        let deleted = repeat::write(self.conn, || table.sql.delete(self.conn, key))?;
        deleted.map(drop).map_err(ReplicaError::from)
    }

    /// Writes what is known of a row: metadata, memberships, digests.
    pub(crate) fn set_known(
        &mut self,
        table: &SyncedTable,
        key: &RowKey,
        before: Option<&Known>,
        after: Option<&Known>,
    ) -> Result<(), ReplicaError> {
        self.is_newcomer = before.is_none();
        if before == after {
            return Ok(());
        }
        let t = table.number();
        let receipt = |known: Option<&Known>| known.map(|k| table.receipt(key, k.version));
        let (was, is) = (receipt(before), receipt(after));
        let is_listed = self.is_listed(t)?;
        let none = Vec::new();
        let old = before.map_or(&none, |known| &known.buckets);
        let new = after.map_or(&none, |known| &known.buckets);
        for &b in old {
            if let Some(receipt) = was {
                self.digests.remove(b, t, receipt);
            }
            if is_listed && !new.contains(&b) {
                members::leave(self.conn, b, t, key)?;
            }
        }
        for &b in new {
            if let Some(receipt) = is {
                self.digests.add(b, t, receipt);
            }
            if is_listed && !old.contains(&b) {
                members::join(self.conn, b, t, key)?;
            }
        }
        let count = i64::from(after.is_some()) - i64::from(before.is_some());
        *self.counts.entry(t).or_default() += count;
        match after {
            Some(known) => {
                let writer = match &mut self.ledger {
                    Some(writer) => writer,
                    none => none.insert(ledger::Writer::new(self.conn)?),
                };
                writer.put(t, key, known)
            }
            None => ledger::delete(self.conn, t, key),
        }
    }

    fn is_listed(&mut self, t: TableNumber) -> Result<bool, ReplicaError> {
        if let Some(known) = self.listed.get(&t) {
            return Ok(*known);
        }
        let listed = members::are_listed(self.conn, t)?;
        self.listed.insert(t, listed);
        Ok(listed)
    }

    /// At most `limit` keys of `t` in bucket `b` within `(after, to]`, ascending.
    pub(crate) fn members_within(
        &mut self,
        b: ledger::Bucket,
        t: TableNumber,
        (after, to): (Option<&[u8]>, Option<&[u8]>),
        limit: usize,
    ) -> Result<Vec<RowKey>, ReplicaError> {
        if !self.is_listed(t)? {
            members::list(self.conn, t)?;
            self.listed.insert(t, true);
        }
        members::within(self.conn, b, t, after, to, limit)
    }

    /// Has the tables loaded again of which some row's server image is not known. The session has
    /// to begin anew for it.
    pub(crate) fn reload_distrusted(&self) -> Result<(), ReplicaError> {
        for t in &self.distrusted {
            buckets::reload_table(self.conn, *t)?;
        }
        Ok(())
    }

    /// Goes on with what `other` found out about the same transaction.
    pub(crate) fn take_over(&mut self, other: Work<'_>) {
        let is_ours = |t: &TableNumber| self.tables.local(*t).is_some();
        self.distrusted
            .extend(other.distrusted.into_iter().filter(is_ours));
        self.events.extend(other.events);
        self.stale.extend(other.stale);
        self.lost.extend(other.lost);
    }

    /// The number of a user; none for the empty name.
    pub(crate) fn user(&mut self, name: &str) -> Result<Option<User>, ReplicaError> {
        if let Some(known) = self.users.get(name) {
            return Ok(*known);
        }
        let user = names::user(self.conn, name)?;
        if self.users.len() < Self::USERS_KEPT {
            self.users.insert(name.to_owned(), user);
        }
        Ok(user)
    }

    /// Writes what was counted: receipt digests and rows.
    pub(crate) fn store_counts(&mut self) -> Result<(), ReplicaError> {
        for (t, count) in std::mem::take(&mut self.counts) {
            names::add_rows(self.conn, t, count)?;
        }
        self.digests.store(self.conn)
    }

    /// Remembers a changed row for the app.
    pub(crate) fn note(
        &mut self,
        t: TableNumber,
        key: &RowKey,
        author: Option<&str>,
        change: RowChange,
    ) {
        self.counted.entry(t).or_default().count(change);
        let rows = self.changed.entry(t).or_default();
        if rows.keys.len() < Self::KEYS_LISTED {
            rows.keys.insert(key.clone());
        } else {
            rows.overflown = true;
        }
        if let Some(author) = author {
            self.note_author(t, author);
        }
    }

    fn note_author(&mut self, t: TableNumber, author: &str) {
        let rows = self.changed.entry(t).or_default();
        // Two are enough to know that there was not one.
        if rows.authors.len() < 2 {
            rows.authors
                .insert((!author.is_empty()).then(|| author.to_owned()));
        }
    }

    /// The events of everything that was done, rows first.
    pub(crate) fn into_events(mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for (t, rows) in std::mem::take(&mut self.changed) {
            let Some(table) = self.tables.local(t) else {
                continue;
            };
            if rows.keys.is_empty() {
                continue;
            }
            let mut authors = rows.authors.into_iter();
            let author = match (authors.next(), authors.next()) {
                (Some(one), None) => one,
                _ => None,
            };
            events.push(Event::RowsChanged(RowsChanged {
                table: table.name().to_owned(),
                keys: (!rows.overflown).then(|| rows.keys.into_iter().collect()),
                author,
            }));
        }
        events.append(&mut self.events);
        events.extend(self.cells.events());
        events
    }
}
