//! Rows and operations as the metadata stores them: with column numbers, so that a column added
//! or dropped by the app harms nothing.

use syncline_core::{Changeset, ColumnEdit, ColumnNumber, Edit, Op, Row, Table, Value, wire};

use crate::{error::ReplicaError, meta::outbox::Entry};

pub(crate) fn encode_op(op: &Op) -> Vec<u8> {
    wire::encode_op(op)
}

/// `seq`: the changeset it is of.
pub(crate) fn decode_op(seq: i64, bytes: &[u8]) -> Result<Op, ReplicaError> {
    wire::decode_op(bytes).map_err(|error| ReplicaError::DamagedChangeset {
        seq,
        what: error.to_string(),
    })
}

/// Every column that is not NULL.
pub(crate) fn encode_row(table: &Table, row: &Row) -> Vec<u8> {
    let columns = table.columns.iter().zip(&row.0);
    encode_values(
        columns
            .filter(|(column, value)| !column.generated && !value.is_null())
            .map(|(column, value)| (column.number, value.clone())),
    )
}

/// Columns that the table does not have any more are left out.
pub(crate) fn decode_row(table: &Table, bytes: &[u8]) -> Result<Row, ReplicaError> {
    let mut row = Row(vec![Value::Null; table.columns.len()]);
    for (number, value) in decode_values(bytes)? {
        if let Some(position) = table.position_of(number) {
            row.0[position] = value;
        }
    }
    Ok(row)
}

/// Values with the numbers of their columns, as an insert that sets them.
pub(crate) fn encode_values(values: impl Iterator<Item = (ColumnNumber, Value)>) -> Vec<u8> {
    let edits = values.map(|(column, value)| ColumnEdit {
        column,
        edit: Edit::Set(value),
    });
    wire::encode_op(&Op::Insert(edits.collect()))
}

pub(crate) fn decode_values(bytes: &[u8]) -> Result<Vec<(ColumnNumber, Value)>, ReplicaError> {
    let damaged = || ReplicaError::Damaged {
        what: "a stored row image".into(),
    };
    let Ok(Op::Insert(edits)) = wire::decode_op(bytes) else {
        return Err(damaged());
    };
    edits
        .into_iter()
        .map(|edit| match edit.edit {
            Edit::Set(value) => Ok((edit.column, value)),
            Edit::Add(_)
            | Edit::Items { .. }
            | Edit::Append(_)
            | Edit::Decide { .. }
            | Edit::Members(_) => Err(damaged()),
        })
        .collect()
}

/// For a changeset that is read change by change.
pub(crate) fn encoder(entry: &Entry) -> wire::ChangesetEncoder {
    // Numbers, lengths and names of what is in a change, beside its operation and key.
    let bytes = entry.bytes.saturating_add(entry.changes.saturating_mul(24));
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    wire::ChangesetEncoder::with_capacity(bytes.min(wire::CHANGESET_BYTES_MAX))
}

pub(crate) fn decode_changeset(bytes: &[u8]) -> Result<Changeset, wire::ChangesetError> {
    wire::decode_changeset(bytes)
}
