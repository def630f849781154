//! What rows went through: a record for each change of each row, kept apart from the log for a
//! time of its own (spec PL21).
//!
//! Records say what was *before*. What was after a change is what the next younger change of the
//! same column found, or what the row has now: [`After`] puts that together.

use std::collections::BTreeMap;

use syncline_core::{
    BucketId, ColumnNumber, DeviceId, Row, RowKey, TableNumber, UserId, Value, Version,
};

use crate::meta::RowMeta;

/// One change of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryRecord {
    pub table: TableNumber,
    pub key: RowKey,
    /// The row's version from this change on.
    pub version: Version,
    /// The version at which the log entry ends that the change was part of: grants change there.
    pub entry: Version,
    /// `None`: another program wrote into the server's database.
    pub user: Option<UserId>,
    pub device: DeviceId,
    pub change: HistoryChange,
    /// Where the row lay before and after; both sorted.
    pub before: Vec<BucketId>,
    pub after: Vec<BucketId>,
    /// What was there before: the changed columns of an update, all columns of a deletion, in
    /// order of number. `None` where nobody saw the value before it was changed.
    pub old: Vec<(ColumnNumber, Option<Value>)>,
}

/// What was done to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryChange {
    Insert,
    Update,
    Delete,
}

/// Which part of a row's history is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryWant {
    pub table: TableNumber,
    pub key: RowKey,
    pub from: HistoryFrom,
    /// Most records.
    pub max: usize,
    /// Records are added until they hold about so many bytes; one at least.
    pub bytes_max: usize,
}

/// Where reading begins, and in which direction it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryFrom {
    /// Newest first.
    Newest,
    /// Newest first, below this version.
    Below(Version),
    /// Oldest first, above this version.
    Above(Version),
}

/// A part of a row's history and the row itself, read in one snapshot.
#[derive(Debug, Clone, Default)]
pub struct HistoryRead {
    /// The live row as it is now; not read with [`HistoryFrom::Below`], which needs none.
    pub present: Option<(Row, RowMeta)>,
    pub records: Vec<HistoryRecord>,
    /// There are more records in this direction.
    pub more: bool,
    /// Changes up to here are not known (any more); `None`: no history is kept.
    pub since: Option<Version>,
}

/// What columns held right after some change of a row.
///
/// Give it the younger records, oldest first, then the row as it is now.
#[derive(Debug, Clone)]
pub struct After {
    values: BTreeMap<ColumnNumber, Option<Value>>,
    /// Columns without an answer yet; `None`: all that the table may have.
    wanted: Option<Vec<ColumnNumber>>,
    is_over: bool,
}

impl After {
    /// Asks for these columns.
    #[must_use]
    pub fn of(mut columns: Vec<ColumnNumber>) -> Self {
        columns.sort_unstable();
        columns.dedup();
        Self {
            is_over: columns.is_empty(),
            values: BTreeMap::new(),
            wanted: Some(columns),
        }
    }

    /// Asks for the whole row.
    #[must_use]
    pub fn whole() -> Self {
        Self {
            values: BTreeMap::new(),
            wanted: None,
            is_over: false,
        }
    }

    /// Whether everything is answered, or nothing more can be.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Takes in the next younger record of the same row.
    pub fn younger(&mut self, record: &HistoryRecord) {
        if self.is_over {
            return;
        }
        match record.change {
            // Another life: what came of this one is not to be found there.
            HistoryChange::Insert => self.is_over = true,
            HistoryChange::Update | HistoryChange::Delete => {
                for (column, value) in &record.old {
                    self.put(*column, value.as_ref());
                }
                self.is_over |= record.change == HistoryChange::Delete;
            }
        }
    }

    /// Takes in the row as it is now, after all records; `columns` are those of its values.
    pub fn present(&mut self, columns: impl IntoIterator<Item = (ColumnNumber, Value)>) {
        if !self.is_over {
            for (column, value) in columns {
                self.put(column, Some(&value));
            }
            self.is_over = true;
        }
    }

    /// What the column held; the outer `None`: that is not known.
    #[must_use]
    pub fn value(&self, column: ColumnNumber) -> Option<&Value> {
        self.values.get(&column)?.as_ref()
    }

    /// Every column whose value is known, in order of number.
    pub fn values(&self) -> impl Iterator<Item = (ColumnNumber, &Value)> {
        let known = self.values.iter();
        known.filter_map(|(column, value)| Some((*column, value.as_ref()?)))
    }

    /// The oldest younger record decides.
    fn put(&mut self, column: ColumnNumber, value: Option<&Value>) {
        if let Some(wanted) = &mut self.wanted {
            let Ok(at) = wanted.binary_search(&column) else {
                return;
            };
            wanted.remove(at);
            self.is_over = wanted.is_empty();
        }
        self.values.entry(column).or_insert_with(|| value.cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(change: HistoryChange, old: &[(u32, Option<i64>)]) -> HistoryRecord {
        let old = old.iter();
        HistoryRecord {
            table: TableNumber(16),
            key: RowKey::encode([&Value::Integer(1)]).unwrap(),
            version: Version(1),
            entry: Version(1),
            user: None,
            device: DeviceId::default(),
            change,
            before: Vec::new(),
            after: Vec::new(),
            old: old
                .map(|(c, v)| (ColumnNumber(*c), v.map(Value::Integer)))
                .collect(),
        }
    }

    fn integer(value: &Value) -> i64 {
        let Value::Integer(n) = value else {
            panic!("{value:?}")
        };
        *n
    }

    fn numbers(after: &After) -> Vec<(u32, i64)> {
        let values = after.values();
        values
            .map(|(column, value)| (column.0, integer(value)))
            .collect()
    }

    #[test]
    fn pl21_what_was_after_is_what_the_next_change_found() {
        let younger = [
            record(HistoryChange::Update, &[(2, Some(20))]),
            record(HistoryChange::Update, &[(2, Some(21)), (3, None)]),
        ];
        let now =
            [(1, 1), (2, 22), (3, 33), (4, 44)].map(|(c, n)| (ColumnNumber(c), Value::Integer(n)));
        let mut whole = After::whole();
        younger.iter().for_each(|record| whole.younger(record));
        whole.present(now.clone());
        assert_eq!(
            numbers(&whole),
            [(1, 1), (2, 20), (4, 44)],
            "3 was not seen"
        );

        let mut one = After::of(vec![ColumnNumber(2)]);
        one.younger(&younger[0]);
        assert!(one.is_over(), "nothing more has to be read");
        let mut other = After::of(vec![ColumnNumber(4)]);
        younger.iter().for_each(|record| other.younger(record));
        assert!(!other.is_over());
        other.present(now);
        assert_eq!(numbers(&other), [(4, 44)]);
    }

    #[test]
    fn pl21_a_life_ends_with_its_deletion() {
        let mut after = After::whole();
        after.younger(&record(HistoryChange::Update, &[(2, Some(20))]));
        after.younger(&record(
            HistoryChange::Delete,
            &[(1, Some(1)), (2, Some(21))],
        ));
        after.younger(&record(HistoryChange::Insert, &[]));
        after.present([(ColumnNumber(2), Value::Integer(99))]);
        assert_eq!(numbers(&after), [(1, 1), (2, 20)]);
    }
}
