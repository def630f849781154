//! What became of envelopes in one transaction.

use std::collections::BTreeMap;

use syncline_core::{RowKey, envelope::KeyId};

use super::Work;
use crate::{
    cipher::Unreadable,
    error::ReplicaError,
    event::Event,
    meta::{
        ledger::Known,
        settings::{self, Key},
    },
    tables::{Received, SyncedTable},
};

/// Envelopes that were opened, and that could not be.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    pub(crate) opened: u64,
    /// Any was sealed with a key that is not here.
    pub(crate) met_unknown: bool,
    /// Column and key of one of them, in a cell that this user sealed for sure: all others say
    /// nothing about the keys that this device should have.
    pub(crate) foreign: Option<(String, KeyId)>,
    /// By table, column and reason: the first row, and how many. One event each, so that a
    /// thousand bad values are no thousand events.
    unreadable: BTreeMap<(String, String, Unreadable), (RowKey, u64)>,
}

impl Cells {
    /// Kinds that are told apart: a stranger may make up as many names of keys as they like.
    const KINDS_MAX: usize = 64;

    pub(super) fn events(self) -> impl Iterator<Item = Event> {
        let all = self.unreadable.into_iter();
        all.map(
            |((table, column, reason), (key, rows))| Event::CellsUnreadable {
                table,
                column,
                key,
                rows,
                reason: reason.to_string(),
            },
        )
    }
}

impl Work<'_> {
    /// Counts what a received row's envelopes came to.
    pub(crate) fn note_cells(&mut self, table: &SyncedTable, key: &RowKey, received: &Received) {
        for (position, outcome) in &received.cells {
            let column = &table.table.columns[*position].name;
            let reason = match outcome {
                Ok(()) => {
                    self.cells.opened += 1;
                    continue;
                }
                Err(reason) => *reason,
            };
            self.cells.met_unknown |= matches!(reason, Unreadable::UnknownKey(_));
            let kind = (table.name().to_owned(), column.clone(), reason);
            if let Some((_, rows)) = self.cells.unreadable.get_mut(&kind) {
                *rows += 1;
            } else if self.cells.unreadable.len() < Cells::KINDS_MAX {
                self.cells.unreadable.insert(kind, (key.clone(), 1));
            }
        }
    }

    /// As [`Work::note_cells`], for what was received of the row that `known` describes.
    /// `are_all_by_author`: whether its last author wrote all of these cells.
    ///
    /// Of a whole row that is known only where nobody changed it since it was inserted: an edit of
    /// another column makes its author the last one, over what somebody else sealed.
    pub(crate) fn note_cells_of(
        &mut self,
        table: &SyncedTable,
        key: &RowKey,
        received: &Received,
        known: &Known,
        are_all_by_author: bool,
    ) -> Result<(), ReplicaError> {
        self.note_cells(table, key, received);
        let unknown = received
            .cells
            .iter()
            .find_map(|(position, outcome)| match outcome {
                Err(Unreadable::UnknownKey(id)) => Some((*position, *id)),
                Ok(()) | Err(Unreadable::NotSealed | Unreadable::Forged(_)) => None,
            });
        let Some((position, id)) = unknown.filter(|_| self.cells.foreign.is_none()) else {
            return Ok(());
        };
        let me: Option<String> = settings::get(self.conn, Key::User)?;
        let me = me.map(|me| self.user(&me)).transpose()?.flatten();
        let is_mine = me.is_some() && known.owner == me && known.author == me;
        if is_mine && are_all_by_author {
            let column = &table.table.columns[position].name;
            self.cells.foreign = Some((format!("{}.{column}", table.name()), id));
        }
        Ok(())
    }
}
