//! Who wrote what last, kept as small as it can be.

use syncline_core::{
    ColumnNumber, Hlc, Version,
    merge::{Clock, ColumnState},
};

use super::{context::TableContext, entry::Author};
use crate::meta::{ColumnStates, RowMeta};

impl Author {
    /// The clock of something this author writes over `before` without competition.
    pub(crate) fn clock(&self, before: &Clock, version: Version) -> Clock {
        let hlc = self.hlc.max(Hlc(before.hlc.0.saturating_add(1)));
        Clock {
            version,
            hlc,
            changeset: self.changeset,
            device: self.device,
        }
    }
}

impl RowMeta {
    /// Notes who wrote a column last; what equals the row's clock is not kept.
    pub(crate) fn set_column(&mut self, number: ColumnNumber, state: ColumnState) {
        if state.members.is_empty() && state.clock == self.clock {
            self.columns.remove(number);
        } else {
            self.columns.insert(number, state);
        }
    }

    /// Where every column was written at once, that becomes the row's clock.
    pub(crate) fn fold_columns(&mut self, table: &TableContext) {
        if self.columns.is_empty() || self.columns.len() < table.changeable {
            return;
        }
        if let Some(state) = self
            .columns
            .common()
            .filter(|state| state.members.is_empty())
        {
            self.clock = state.clock;
            self.columns = ColumnStates::default();
        }
    }
}
