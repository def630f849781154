//! What became of envelopes in one transaction.

use std::collections::BTreeMap;

use syncline_core::{RowKey, envelope::KeyId};

use super::Work;
use crate::{
    cipher::Unreadable,
    event::Event,
    tables::{Received, SyncedTable},
};

/// Envelopes that were opened, and that could not be.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    pub(crate) opened: u64,
    /// Column and key of one that was sealed with a key that is not here.
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
            if let Unreadable::UnknownKey(id) = reason {
                let name = format!("{}.{column}", table.name());
                self.cells.foreign.get_or_insert((name, id));
            }
            let kind = (table.name().to_owned(), column.clone(), reason);
            if let Some((_, rows)) = self.cells.unreadable.get_mut(&kind) {
                *rows += 1;
            } else if self.cells.unreadable.len() < Cells::KINDS_MAX {
                self.cells.unreadable.insert(kind, (key.clone(), 1));
            }
        }
    }
}
