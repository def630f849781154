//! Encrypted columns: plain in the app's table and in all that this device keeps of it, sealed in
//! all that the server has (docs/spec/encryption.md).

use syncline_core::{Column, ColumnNumber, Edit, MergeStrategy, Row, RowKey, Value, digest};

use super::{Received, SyncedTable};
use crate::cipher::{Cell, Unreadable};

/// Why an edit of an encrypted column cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unsealable {
    pub(crate) table: String,
    pub(crate) column: String,
}

/// What must be so for a column that the server calls encrypted. Where the two sides have different
/// names for it, a server could tell one encrypted column for another and have values shown in the
/// wrong place: the names are part of what is sealed.
pub(super) fn check(
    table: &str,
    table_there: &str,
    column: &Column,
    there: &Column,
) -> Result<(), String> {
    let named = [(table, table_there), (&column.name, &there.name)];
    if named
        .iter()
        .any(|(here, there)| !here.eq_ignore_ascii_case(there))
    {
        return Err(format!(
            "{table_there}.{} is encrypted on the server and called {table}.{} here: names are \
             part of what is sealed; give it the same name on both sides",
            there.name, column.name
        ));
    }
    let takes_one = matches!(
        there.merge,
        MergeStrategy::LastWriteWins | MergeStrategy::ServerWins | MergeStrategy::ClientWins
    );
    if there.generated || !takes_one || !there.merge_paths.is_empty() {
        return Err(format!(
            "{table}.{} is encrypted and merges as `{}`, for which a server must read it; correct \
             syncline.toml",
            there.name,
            there.merge.as_str()
        ));
    }
    Ok(())
}

impl SyncedTable {
    /// Whether the server has envelopes in the column at this position.
    pub(crate) fn is_encrypted(&self, position: usize) -> bool {
        let number = self.server_number(position);
        number.is_some_and(|number| self.encrypted_there(number).is_some())
    }

    /// Positions of the encrypted columns.
    pub(crate) fn encrypted(&self) -> impl Iterator<Item = usize> {
        (0..self.table.columns.len()).filter(|position| self.is_encrypted(*position))
    }

    /// The server's column of this number, if it is encrypted.
    fn encrypted_there(&self, number: ColumnNumber) -> Option<&Column> {
        let remote = &self.remote.as_ref()?.table;
        let column = &remote.columns[remote.position_of(number)?];
        column.encrypted.is_some().then_some(column)
    }

    fn local_of(&self, number: ColumnNumber) -> Option<usize> {
        let remote = self.remote.as_ref()?;
        remote.local_position(remote.table.position_of(number)?)
    }

    fn cell<'a>(&'a self, key: &'a RowKey, column: &'a Column) -> Cell<'a> {
        let table = self.remote.as_ref().map_or("", |remote| &remote.table.name);
        let column = &column.name;
        Cell { table, column, key }
    }

    /// The value of an encrypted column as the app has it, with what has to be kept of the envelope
    /// because this device would make another one.
    pub(crate) fn opened(
        &self,
        key: &RowKey,
        number: ColumnNumber,
        value: &Value,
    ) -> (Result<Value, Unreadable>, bool) {
        let Some(column) = self.encrypted_there(number) else {
            return (Ok(value.clone()), false);
        };
        let opened = match value {
            Value::Null => return (Ok(Value::Null), false),
            Value::Blob(bytes) => self.keys.open(&self.cell(key, column), bytes),
            Value::Integer(_) | Value::Real(_) | Value::Text(_) => Err(Unreadable::NotSealed),
        };
        match opened {
            Ok((opened, is_current)) => {
                let ty = column.encrypted.unwrap_or(column.ty);
                let canonical = opened.clone().canonical(ty);
                let is_ours = is_current && canonical == opened;
                (Ok(canonical), !is_ours)
            }
            Err(reason) => (Err(reason), true),
        }
    }

    /// A value that the server has, or had, in the column at this position, as the app has it.
    pub(crate) fn opened_at(
        &self,
        key: &RowKey,
        position: usize,
        value: Value,
    ) -> Result<Value, Unreadable> {
        match self.server_number(position) {
            Some(number) => self.opened(key, number, &value).0,
            None => Ok(value),
        }
    }

    pub(super) fn receive_sealed(
        &self,
        received: &mut Received,
        key: &RowKey,
        local: usize,
        number: ColumnNumber,
        value: Value,
    ) {
        received.extra.retain(|(known, _)| *known != number);
        let (opened, is_kept) = self.opened(key, number, &value);
        if is_kept {
            received.extra.push((number, value.clone()));
        }
        if !value.is_null() {
            let outcome = opened.as_ref().map(drop).map_err(|reason| *reason);
            received.cells.push((local, outcome));
        }
        received.row.0[local] = opened.unwrap_or(Value::Null);
    }

    /// What the server has in an encrypted column where this file has `value`.
    fn sealed(
        &self,
        key: &RowKey,
        column: &Column,
        value: &Value,
        extra: &[(ColumnNumber, Value)],
    ) -> Option<Value> {
        let kept = extra.iter().find(|(number, _)| *number == column.number);
        if let Some((number, kept)) = kept
            && self.opened(key, *number, kept).0.unwrap_or(Value::Null) == *value
        {
            return Some(kept.clone());
        }
        if value.is_null() {
            return Some(Value::Null);
        }
        self.keys
            .seal(&self.cell(key, column), value)
            .map(Value::Blob)
    }

    /// The edit as it is sent.
    pub(super) fn seal_edit(
        &self,
        key: &RowKey,
        number: ColumnNumber,
        edit: &Edit,
        extra: &[(ColumnNumber, Value)],
    ) -> Result<Edit, Unsealable> {
        let Some(column) = self.encrypted_there(number) else {
            return Ok(edit.clone());
        };
        let sealed = match edit {
            Edit::Set(value) => {
                // What is written is sealed with the key that seals now, also where an older one
                // sealed the same; what could not be read stays as it is.
                let mut unreadable = extra.to_vec();
                unreadable.retain(|(known, kept)| {
                    *known == column.number && self.opened(key, *known, kept).0.is_err()
                });
                self.sealed(key, column, value, &unreadable)
            }
            Edit::Add(_)
            | Edit::Items { .. }
            | Edit::Append(_)
            | Edit::Decide { .. }
            | Edit::Members(_) => None,
        };
        sealed.map(Edit::Set).ok_or_else(|| Unsealable {
            table: self.name().to_owned(),
            column: column.name.clone(),
        })
    }

    /// Whether of our `column` only what cannot be read is `kept`.
    pub(crate) fn is_kept_unread(
        &self,
        key: &RowKey,
        column: ColumnNumber,
        kept: &[(ColumnNumber, Value)],
    ) -> bool {
        let position = self.table.position_of(column);
        let number = position.and_then(|position| self.server_number(position));
        let kept = kept.iter().find(|(kept, _)| Some(*kept) == number);
        kept.is_some_and(|(number, value)| self.opened(key, *number, value).0.is_err())
    }

    /// Whether what is kept of a column is sent along with a row that is inserted again: what the
    /// file has no column for, and what it could not read.
    pub(super) fn stays_aside(&self, key: &RowKey, number: ColumnNumber, kept: &Value) -> bool {
        self.local_of(number).is_none() || self.opened(key, number, kept).0.is_err()
    }

    /// The content hash that the server computes of its image; `None` without the key.
    pub(crate) fn hash_there(
        &self,
        key: &RowKey,
        row: &Row,
        extra: &[(ColumnNumber, Value)],
    ) -> Option<u64> {
        let Some(remote) = &self.remote else {
            return Some(self.hash(row, extra));
        };
        let mut there = remote.row(row, extra);
        for (column, value) in remote.table.columns.iter().zip(&mut there.0) {
            if column.encrypted.is_some() && self.local_of(column.number).is_some() {
                *value = self.sealed(key, column, value, extra)?;
            }
        }
        Some(digest::content_hash(&remote.table, &there))
    }
}
