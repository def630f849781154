//! Changes: what one transaction did to rows, column by column.

use crate::{
    hlc::Hlc,
    ids::{ChangesetId, ColumnNumber, TableNumber, Version},
    key::RowKey,
    value::Value,
};

/// What one transaction changed: committed whole or refused whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Changeset {
    pub id: ChangesetId,
    /// The device's contiguous count; it only orders (spec ID5).
    pub number: u64,
    /// Earlier numbers of the same device, unacknowledged when this was sent, that this needs.
    pub depends: Vec<u64>,
    /// Stamped at sealing, with the device's clock corrected towards the server's.
    pub hlc: Hlc,
    /// At most one change for each row. In the order the rows were first touched.
    pub changes: Vec<Change>,
    /// Refuse the changeset unless every row it names still has the base version.
    pub require_unchanged: bool,
    /// Its number does not tell whether the server has it: it may have come from a copy of the file,
    /// or under another number, or as part of another changeset.
    pub may_be_applied_already: bool,
    /// If the log has it, then after this version: whoever has forgotten no more than that knows its
    /// id. `None` where an older program wrote it.
    pub after: Option<Version>,
    /// It was part of this one once: whoever has applied that one, or other pieces of it, knows
    /// what of this is applied.
    pub piece: Option<Piece>,
}

/// What a changeset was cut from: the server refused that, or a table of its went away.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Piece {
    /// The changeset that was never a piece of another.
    pub whole: ChangesetId,
    /// Which of its changes these are: ascending, each once.
    pub places: Vec<u32>,
}

impl Piece {
    /// First and last place of each run without a gap, in order.
    #[must_use]
    pub fn runs(&self) -> Vec<(u32, u32)> {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for &place in &self.places {
            match runs.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(place) => *last = place,
                _ => runs.push((place, place)),
            }
        }
        runs
    }
}

/// One row of a changeset.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub table: TableNumber,
    pub key: RowKey,
    /// The version the replica had of the row when it became dirty; zero for an unknown row.
    pub base: Version,
    pub op: Op,
}

/// What happened to the row.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// A new row: every column but generated ones, key columns included.
    Insert(Vec<ColumnEdit>),
    /// An existing row: only what changed, never key columns.
    Update(Vec<ColumnEdit>),
    Delete,
}

/// What happened to one column.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnEdit {
    pub column: ColumnNumber,
    pub edit: Edit,
}

/// An operation on a column's value, computed at sealing (spec ME1).
#[derive(Debug, Clone, PartialEq)]
pub enum Edit {
    /// The new value.
    Set(Value),
    /// A counter's difference (an integer or a real).
    Add(Value),
    /// A set's difference: JSON texts of the items, without doubles, in the author's order.
    Items {
        add: Vec<String>,
        remove: Vec<String>,
    },
    /// Items (JSON texts) put at the end of a list, in order.
    Append(Vec<String>),
    /// A person's decision: what they saw and what they wrote.
    Decide { base: Value, new: Value },
    /// Members of a JSON object: path (`a.b`, members escaped as spec ME12 says) → what happened.
    Members(Vec<MemberEdit>),
}

/// What happened at one path of a JSON column.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberEdit {
    pub path: String,
    pub edit: PathEdit,
}

/// An operation at a path: JSON texts instead of SQL values.
#[derive(Debug, Clone, PartialEq)]
pub enum PathEdit {
    /// The new JSON.
    Set(String),
    /// The member is gone.
    Remove,
    Add(Value),
    Items {
        add: Vec<String>,
        remove: Vec<String>,
    },
    Append(Vec<String>),
    /// A person's decision: the JSON they saw and the JSON they wrote, `None` for no member.
    Decide {
        base: Option<String>,
        new: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_what_lies_side_by_side() {
        let runs = |places: &[u32]| {
            let piece = Piece {
                whole: ChangesetId([1; 16]),
                places: places.to_vec(),
            };
            piece.runs()
        };
        assert_eq!(runs(&[]), []);
        assert_eq!(runs(&[4]), [(4, 4)]);
        assert_eq!(runs(&[0, 1, 2]), [(0, 2)]);
        assert_eq!(runs(&[0, 2, 3, 7]), [(0, 0), (2, 3), (7, 7)]);
        // Nothing comes after the last place that there can be.
        assert_eq!(
            runs(&[0, u32::MAX - 1, u32::MAX]),
            [(0, 0), (u32::MAX - 1, u32::MAX)]
        );
    }
}
