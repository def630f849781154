//! Row bodies straight from rows and their metadata.

use syncline_core::{
    ChangesetId, ColumnNumber, Hlc, Row, RowKey, Table, Value,
    wire::{LentBody, LentState},
};

use crate::meta::RowMeta;

/// A live row that is to be encoded as a [`syncline_core::wire::RowBody`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Body<'a> {
    pub(crate) table: &'a Table,
    pub(crate) key: &'a RowKey,
    pub(crate) row: &'a Row,
    pub(crate) meta: &'a RowMeta,
    pub(crate) state: BodyState<'a>,
}

/// What of the row is told.
#[derive(Debug, Clone, Copy)]
pub(crate) enum BodyState<'a> {
    Whole,
    /// To readers who have the row, every column.
    AllColumns,
    /// The columns at these positions.
    Columns(&'a [usize]),
}

/// Appends the body of a live row to `out`, as pages have it: whole, without changeset and clock.
pub fn encode_page_row(table: &Table, key: &RowKey, row: &Row, meta: &RowMeta, out: &mut Vec<u8>) {
    let body = Body {
        table,
        key,
        row,
        meta,
        state: BodyState::Whole,
    };
    body.encode_into(ChangesetId::default(), Hlc::default(), &body.columns(), out);
}

impl<'a> Body<'a> {
    /// The body as log records have it.
    pub(crate) fn encode(&self, changeset: ChangesetId) -> Vec<u8> {
        let columns = self.columns();
        let bytes = columns
            .iter()
            .map(|(_, value)| 12 + size(value))
            .sum::<usize>();
        let mut out = Vec::with_capacity(96 + self.key.as_bytes().len() + bytes);
        self.encode_into(changeset, self.latest_clock(&columns), &columns, &mut out);
        out
    }

    fn columns(&self) -> Vec<(ColumnNumber, &'a Value)> {
        let column = |position: usize| (self.table.columns[position].number, &self.row.0[position]);
        match self.state {
            BodyState::Whole | BodyState::AllColumns => {
                let all = self.table.columns.iter().zip(&self.row.0);
                let told = all.filter(|(column, _)| !column.generated);
                let mut columns = Vec::with_capacity(self.row.0.len());
                columns.extend(told.map(|(column, value)| (column.number, value)));
                columns
            }
            BodyState::Columns(positions) => positions.iter().map(|&p| column(p)).collect(),
        }
    }

    /// The latest clock among the told columns.
    fn latest_clock(&self, columns: &[(ColumnNumber, &Value)]) -> Hlc {
        let states = &self.meta.columns;
        let clocks = columns.iter().map(|(number, _)| {
            states
                .get(*number)
                .map_or(self.meta.clock.hlc, |state| state.clock.hlc)
        });
        clocks.max().unwrap_or_default()
    }

    fn encode_into(
        &self,
        changeset: ChangesetId,
        hlc: Hlc,
        columns: &[(ColumnNumber, &Value)],
        out: &mut Vec<u8>,
    ) {
        let owner = self.meta.owner.as_ref().map_or("", |owner| &owner.0);
        let state = match self.state {
            BodyState::Whole => LentState::Whole {
                columns,
                owner,
                created: self.meta.created,
            },
            BodyState::AllColumns | BodyState::Columns(_) => LentState::Columns(columns),
        };
        let body = LentBody {
            table: self.table.number,
            key: self.key,
            version: self.meta.version,
            state,
            author: self.meta.author.as_ref().map_or("", |author| &author.0),
            changeset,
            hlc,
        };
        body.encode_into(out);
    }
}

/// About how many bytes a value takes besides its head.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Integer(_) | Value::Real(_) => 0,
        Value::Text(text) => text.len(),
        Value::Blob(bytes) => bytes.len(),
    }
}
