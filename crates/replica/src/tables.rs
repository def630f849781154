//! The tables of this file that sync, and what the server calls them.
//!
//! Inside the replica tables and columns have the file's own numbers, which exist before any
//! server was met; the server's are used on the wire and in digests only.

mod follow;
pub(crate) mod load;
mod sealed;

use std::collections::BTreeSet;

use syncline_core::{
    Change, Column, ColumnEdit, ColumnNumber, Op, Row, RowKey, Table, TableNumber, Value, Version,
    digest, sql::tokens,
};

pub(crate) use self::sealed::Unsealable;
use crate::{
    cipher::{Keyring, Unreadable},
    rows::TableSql,
};

/// One table of the file that syncs.
#[derive(Debug, Clone)]
pub(crate) struct SyncedTable {
    /// The file's structure and numbers, with the server's types and merge strategies once they
    /// are known. Columns that the server does not have count as generated: they are the file's
    /// own and never travel.
    pub(crate) table: Table,
    pub(crate) sql: TableSql,
    /// `None` before the server told its schema.
    pub(crate) remote: Option<Remote>,
    /// Rows that were there before attaching are still to be sent.
    pub(crate) seeding: bool,
    /// Whether the file has the table. One that it has not is only looked at for what was
    /// captured of it.
    pub(crate) is_here: bool,
    /// The app dropped a column that the server has, since this was last looked at.
    pub(crate) lost: bool,
    /// The file or the server dropped a column of the other's since.
    pub(crate) shrunk: bool,
    /// Columns of the server's that the file dropped: the file's numbers, and the server's.
    gone: Vec<(ColumnNumber, ColumnNumber)>,
    pub(crate) keys: Keyring,
}

/// The server's view of a table.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    pub(crate) table: Table,
    /// Server's position → ours.
    to_local: Vec<Option<usize>>,
    /// Our position → the server's.
    to_server: Vec<Option<usize>>,
}

/// A row of the server as this file can hold it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Received {
    pub(crate) row: Row,
    /// What the file has no columns for, with the server's numbers; NULLs left out. And of
    /// encrypted columns the envelopes that this device would not make: unreadable ones, and those
    /// of older keys.
    pub(crate) extra: Vec<(ColumnNumber, Value)>,
    /// What became of envelopes.
    pub(crate) cells: Vec<(usize, Result<(), Unreadable>)>,
}

impl SyncedTable {
    pub(crate) fn new(table: Table, remote: Option<Remote>, seeding: bool) -> Self {
        let sql = TableSql::new(&table);
        Self {
            table,
            sql,
            remote,
            seeding,
            is_here: true,
            lost: false,
            shrunk: false,
            gone: Vec::new(),
            keys: Keyring::default(),
        }
    }

    /// With the statements for a table whose text is this one.
    pub(crate) fn with_text(self, text: &str) -> Self {
        const CLAUSE: &str = "CONFLICT";
        let mut places = text.as_bytes().windows(CLAUSE.len());
        let may_have = places.any(|place| place.eq_ignore_ascii_case(CLAUSE.as_bytes()));
        match may_have && tokens(text).iter().any(|token| token.is_word(CLAUSE)) {
            true => Self {
                sql: TableSql::overruling(&self.table),
                ..self
            },
            false => self,
        }
    }

    pub(crate) fn number(&self) -> TableNumber {
        self.table.number
    }

    pub(crate) fn name(&self) -> &str {
        &self.table.name
    }

    /// The receipt of a row as the server sums it.
    pub(crate) fn receipt(&self, key: &RowKey, version: Version) -> u64 {
        let number = self
            .remote
            .as_ref()
            .map_or(TableNumber(0), |remote| remote.table.number);
        digest::receipt(number, key, version)
    }

    /// The content hash of the server's image. Values of encrypted columns count as they are here,
    /// so it needs no key; [`SyncedTable::hash_there`] is what the server computes.
    pub(crate) fn hash(&self, row: &Row, extra: &[(ColumnNumber, Value)]) -> u64 {
        match &self.remote {
            Some(remote) => digest::content_hash_of(&remote.table, remote.values(row, extra)),
            None => digest::content_hash(&self.table, row),
        }
    }

    /// Whether the server has columns that it did not have in `old` and gave rows a value in: that
    /// is in no log.
    pub(crate) fn is_filled_since(&self, old: &Self) -> bool {
        let columns = self.remote.iter().flat_map(|remote| &remote.table.columns);
        let mut columns = columns.filter(|column| column.default.is_some());
        columns.any(|column| old.lacks_there(column))
    }

    /// The server's column at a position of ours, if it gave rows a value in it since `old`.
    pub(crate) fn filled_since(&self, old: &Self, position: usize) -> Option<&Column> {
        let number = self.server_number(position)?;
        let remote = self.remote.as_ref()?;
        let column = &remote.table.columns[remote.table.position_of(number)?];
        (column.default.is_some() && old.lacks_there(column)).then_some(column)
    }

    /// Whether the server did not have the column.
    fn lacks_there(&self, column: &Column) -> bool {
        let has = |remote: &Remote| remote.table.position_of(column.number).is_some();
        !column.generated && self.remote.as_ref().is_some_and(|remote| !has(remote))
    }

    /// The received columns of a whole row.
    pub(crate) fn receive(&self, key: &RowKey, columns: Vec<(ColumnNumber, Value)>) -> Received {
        let mut received = Received {
            row: Row(vec![Value::Null; self.table.columns.len()]),
            extra: Vec::new(),
            cells: Vec::new(),
        };
        self.receive_onto(&mut received, key, columns);
        received
    }

    /// The received columns of a changed row over what was there.
    pub(crate) fn receive_onto(
        &self,
        received: &mut Received,
        key: &RowKey,
        columns: Vec<(ColumnNumber, Value)>,
    ) {
        let Some(remote) = &self.remote else { return };
        for (number, value) in columns {
            let position = remote.table.position_of(number);
            match position.and_then(|position| remote.to_local[position]) {
                Some(local) if self.table.columns[local].generated => {}
                Some(local) if self.is_encrypted(local) => {
                    self.receive_sealed(received, key, local, number, value);
                }
                Some(local) => {
                    received.row.0[local] = value.canonical(self.table.columns[local].ty);
                }
                None => {
                    received.extra.retain(|(known, _)| *known != number);
                    if !value.is_null() {
                        received.extra.push((number, value));
                    }
                }
            }
        }
        received.extra.sort_by_key(|(number, _)| *number);
    }

    /// The server's number of the column at this position, if the server has it.
    pub(crate) fn server_number(&self, position: usize) -> Option<ColumnNumber> {
        self.remote.as_ref()?.number_of(position)
    }

    /// The change with the server's numbers, encrypted columns sealed; `None` when nothing of it
    /// travels. Every edit leaves the device through here.
    pub(crate) fn translate(
        &self,
        change: &Change,
        extra: &[(ColumnNumber, Value)],
    ) -> Result<Option<Change>, Unsealable> {
        let Some(remote) = self.remote.as_ref() else {
            return Ok(None);
        };
        let translated = |edits: &[ColumnEdit]| -> Result<Vec<ColumnEdit>, Unsealable> {
            let mut translated = Vec::with_capacity(edits.len());
            for edit in edits {
                let column = match self.table.position_of(edit.column) {
                    Some(local) => remote.number_of(local),
                    // Written before the app dropped the column.
                    None => {
                        let gone = self.gone.iter().find(|(c, _)| *c == edit.column);
                        gone.map(|(_, number)| *number)
                    }
                };
                let Some(column) = column else { continue };
                let edit = self.seal_edit(&change.key, column, &edit.edit, extra)?;
                translated.push(ColumnEdit { column, edit });
            }
            Ok(translated)
        };
        let op = match &change.op {
            Op::Insert(edits) => {
                let mut edits = translated(edits)?;
                for (column, value) in extra {
                    if edits.iter().any(|edit| edit.column == *column)
                        || !self.stays_aside(&change.key, *column, value)
                    {
                        continue;
                    }
                    let edit = syncline_core::Edit::Set(value.clone());
                    edits.push(ColumnEdit {
                        column: *column,
                        edit,
                    });
                }
                Op::Insert(edits)
            }
            Op::Update(edits) => {
                let edits = translated(edits)?;
                if edits.is_empty() {
                    return Ok(None);
                }
                Op::Update(edits)
            }
            Op::Delete => Op::Delete,
        };
        let Change { key, base, .. } = change;
        Ok(Some(Change {
            table: remote.table.number,
            key: key.clone(),
            base: *base,
            op,
        }))
    }
}

impl Remote {
    /// Matches the columns of the file's table with the server's; `remembered`: the server's
    /// numbers of ours when they were last matched.
    ///
    /// Returns the table with the server's types and strategies, or why the two cannot sync.
    pub(crate) fn matched(
        local: Table,
        server: Table,
        remembered: &[Option<ColumnNumber>],
    ) -> Result<(Table, Self), String> {
        let to_server = follow::columns_there(&local, &server, remembered);
        let to_local: Vec<_> = (0..server.columns.len())
            .map(|position| to_server.iter().position(|to| *to == Some(position)))
            .collect();
        let server_key: Vec<_> = server.primary_key.iter().map(|&p| to_local[p]).collect();
        let local_key: Vec<_> = local.primary_key.iter().map(|&p| Some(p)).collect();
        if server_key != local_key {
            let names = |table: &Table| {
                let names: Vec<_> = table
                    .primary_key
                    .iter()
                    .map(|&p| table.columns[p].name.as_str())
                    .collect();
                names.join(", ")
            };
            return Err(format!(
                "its primary key is ({}) here and ({}) on the server; rebuild it with the server's",
                names(&local),
                names(&server)
            ));
        }
        let mut table = local;
        let local_name = table.name.clone();
        for (position, (column, theirs)) in table.columns.iter_mut().zip(&to_server).enumerate() {
            let Some(theirs) = theirs.map(|position| &server.columns[position]) else {
                // Never read, written or sent: as if the database computed it.
                column.generated = true;
                continue;
            };
            if theirs.encrypted.is_some() {
                sealed::check(&local_name, &server.name, column, theirs)?;
                if local_key.contains(&Some(position)) {
                    return Err(format!("its key {} cannot be encrypted", column.name));
                }
            }
            column.ty = theirs.encrypted.unwrap_or(theirs.ty);
            column.merge = theirs.merge;
            column.merge_paths.clone_from(&theirs.merge_paths);
        }
        table.update_wins = server.update_wins;
        Ok((
            table,
            Self {
                table: server,
                to_local,
                to_server,
            },
        ))
    }

    /// Our position of the server's column at this position.
    pub(crate) fn local_position(&self, position: usize) -> Option<usize> {
        self.to_local.get(position).copied().flatten()
    }

    /// The server's number of the column at this position of ours.
    fn number_of(&self, position: usize) -> Option<ColumnNumber> {
        Some(self.table.columns[self.to_server[position]?].number)
    }

    /// The row in the server's order of columns.
    fn row(&self, row: &Row, extra: &[(ColumnNumber, Value)]) -> Row {
        Row(self.values(row, extra).cloned().collect())
    }

    /// The values of that row.
    fn values<'a>(
        &'a self,
        row: &'a Row,
        extra: &'a [(ColumnNumber, Value)],
    ) -> impl Iterator<Item = &'a Value> {
        let value = move |(position, local): (usize, &Option<usize>)| match local {
            Some(local) => &row.0[*local],
            None => {
                let number = self.table.columns[position].number;
                let found = extra.iter().find(|(known, _)| *known == number);
                found.map_or(&Value::Null, |(_, value)| value)
            }
        };
        self.to_local.iter().enumerate().map(value)
    }
}

/// All tables of the file that sync, and why others do not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tables {
    list: Vec<SyncedTable>,
    /// Name and reason.
    pub(crate) left_out: Vec<(String, String)>,
    /// Tables that took the place of others and begin anew.
    pub(crate) anew: Vec<TableNumber>,
    /// Tables for which the server has another one now: what was not sent is not for it.
    pub(crate) replaced: Vec<TableNumber>,
}

impl Tables {
    pub(crate) fn new(
        mut list: Vec<SyncedTable>,
        left_out: Vec<(String, String)>,
        anew: Vec<TableNumber>,
        replaced: Vec<TableNumber>,
    ) -> Self {
        list.sort_by_key(SyncedTable::number);
        Self {
            list,
            left_out,
            anew,
            replaced,
        }
    }

    /// These, with the keys of their encrypted columns.
    pub(crate) fn with_keys(mut self, keys: &Keyring) -> Self {
        self.set_keys(keys);
        self
    }

    pub(crate) fn set_keys(&mut self, keys: &Keyring) {
        for table in &mut self.list {
            table.keys.clone_from(keys);
        }
    }

    /// These without those in `but`, and `more`.
    pub(crate) fn but(&self, but: &[TableNumber], more: Vec<SyncedTable>) -> Self {
        let stay = self.list.iter().filter(|t| !but.contains(&t.number()));
        let mut list: Vec<_> = stay.cloned().chain(more).collect();
        list.sort_by_key(SyncedTable::number);
        Self {
            list,
            ..self.clone()
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &SyncedTable> {
        self.list.iter()
    }

    /// The file's numbers of all tables that sync.
    pub(crate) fn numbers(&self) -> BTreeSet<TableNumber> {
        self.list.iter().map(SyncedTable::number).collect()
    }

    /// The table with this number of the file's.
    pub(crate) fn local(&self, t: TableNumber) -> Option<&SyncedTable> {
        let place = self
            .list
            .binary_search_by_key(&t, SyncedTable::number)
            .ok()?;
        self.list.get(place)
    }

    /// The table with this number of the server's.
    pub(crate) fn remote(&self, number: TableNumber) -> Option<&SyncedTable> {
        self.list.iter().find(|table| {
            table
                .remote
                .as_ref()
                .is_some_and(|r| r.table.number == number)
        })
    }

    pub(crate) fn named(&self, name: &str) -> Option<&SyncedTable> {
        self.list
            .iter()
            .find(|table| table.name().eq_ignore_ascii_case(name))
    }

    /// The rows that were there before are all sent.
    pub(crate) fn set_seeded(&mut self, t: TableNumber) {
        for table in self.list.iter_mut().filter(|table| table.number() == t) {
            table.seeding = false;
        }
    }

    /// The structures alone, for capture.
    pub(crate) fn structures(&self) -> Vec<Table> {
        self.list.iter().map(|table| table.table.clone()).collect()
    }
}
