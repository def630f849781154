//! What a reader is told of a row's history: what a session would have told at that place of the
//! log, and nothing of a row that is not the reader's now (spec RU26).

use std::collections::{BTreeMap, BTreeSet};

use syncline_core::{BucketId, ColumnNumber, Value, Version};
use syncline_store::{HistoryChange, HistoryRecord, RowMeta};

use crate::sight::Sight;

/// What a change was for the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Insert,
    Update,
    Delete,
    /// The row was there, for others: it came into sight.
    Appeared,
    /// The row went out of sight.
    Removed,
}

/// A reader before a row that may be seen.
#[derive(Debug)]
pub(crate) struct Viewer<'s> {
    sight: &'s Sight,
    /// Buckets that the deletion of the row took from the reader, and the entry that did.
    lost: Option<(Version, BTreeSet<BucketId>)>,
}

impl<'s> Viewer<'s> {
    /// The viewer of a live row; `None` if the row is not to be seen.
    pub(crate) fn of_live(sight: &'s Sight, row: &RowMeta) -> Option<Self> {
        let sees = row.buckets.iter().any(|bucket| sight.sees(bucket));
        sees.then_some(Self { sight, lost: None })
    }

    /// The viewer of a row that is gone, of which `last` is the newest record; `lost`: the
    /// buckets that the entry with this record took from the reader. `None` if the reader could
    /// not see the row when it was deleted.
    pub(crate) fn of_deleted(
        sight: &'s Sight,
        last: &HistoryRecord,
        lost: BTreeSet<BucketId>,
    ) -> Option<Self> {
        let viewer = Self {
            sight,
            lost: Some((last.entry, lost)),
        };
        let could = last.change == HistoryChange::Delete && viewer.saw_before(last);
        could.then_some(viewer)
    }

    /// What is told of a change; `None`: nothing.
    pub(crate) fn told(&self, record: &HistoryRecord) -> Option<Told> {
        let mut after = record.after.iter();
        let saw_after = after.any(|bucket| self.sight.saw(bucket, record.entry));
        match (record.change, self.saw_before(record), saw_after) {
            (HistoryChange::Insert, _, true) => Some(Told::Insert),
            (HistoryChange::Update, true, true) => Some(Told::Update),
            (HistoryChange::Update, false, true) => Some(Told::Appeared),
            (HistoryChange::Update, true, false) => Some(Told::Removed),
            (HistoryChange::Delete, true, _) => Some(Told::Delete),
            (HistoryChange::Insert | HistoryChange::Update | HistoryChange::Delete, ..) => None,
        }
    }

    fn saw_before(&self, record: &HistoryRecord) -> bool {
        let lost = self.lost.as_ref().filter(|(at, _)| *at == record.entry);
        record.before.iter().any(|bucket| {
            self.sight.saw_before(bucket, record.entry)
                || lost.is_some_and(|(_, lost)| lost.contains(bucket))
        })
    }
}

/// The row on the way from younger changes to older ones.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// `None`: nobody knows.
    values: BTreeMap<ColumnNumber, Option<Value>>,
    /// Columns that are not in `values` have no known value.
    is_whole: bool,
}

impl Walk {
    /// Begins with everything that is known of the row.
    pub(crate) fn whole(values: impl IntoIterator<Item = (ColumnNumber, Value)>) -> Self {
        let values = values
            .into_iter()
            .map(|(column, value)| (column, Some(value)));
        Self {
            values: values.collect(),
            is_whole: true,
        }
    }

    /// What has to be looked up among younger records before `records`, newest first, are
    /// undone: nothing, some columns, or (`None`) the whole row.
    pub(crate) fn missing<'r>(
        &self,
        records: impl IntoIterator<Item = (&'r HistoryRecord, Option<Told>)>,
    ) -> Option<Vec<ColumnNumber>> {
        let mut columns = BTreeSet::new();
        if self.is_whole {
            return Some(Vec::new());
        }
        for (record, told) in records {
            match (record.change, told) {
                (_, Some(Told::Insert | Told::Appeared)) => return None,
                (HistoryChange::Update, Some(Told::Update)) => {
                    let unknown = record.old.iter().map(|(column, _)| *column);
                    columns.extend(unknown.filter(|column| !self.values.contains_key(column)));
                }
                // Behind these, what is younger says nothing.
                (HistoryChange::Delete | HistoryChange::Insert, _) => break,
                (HistoryChange::Update, _) => {}
            }
        }
        Some(columns.into_iter().collect())
    }

    /// Takes in what was looked up; what is known already stays.
    pub(crate) fn know<'v>(
        &mut self,
        values: impl IntoIterator<Item = (ColumnNumber, &'v Value)>,
        is_whole: bool,
    ) {
        for (column, value) in values {
            let known = self.values.entry(column);
            known.or_insert_with(|| Some(value.clone()));
        }
        self.is_whole |= is_whole;
    }

    /// What a column held here.
    pub(crate) fn value(&self, column: ColumnNumber) -> Option<&Value> {
        self.values.get(&column)?.as_ref()
    }

    /// Every column whose value is known, in order of number.
    pub(crate) fn values(&self) -> impl Iterator<Item = (ColumnNumber, &Value)> {
        let known = self.values.iter();
        known.filter_map(|(column, value)| Some((*column, value.as_ref()?)))
    }

    /// Goes back before `record`.
    pub(crate) fn undo(&mut self, record: &HistoryRecord) {
        match record.change {
            HistoryChange::Update => {}
            HistoryChange::Insert | HistoryChange::Delete => {
                self.values.clear();
                self.is_whole = true;
            }
        }
        self.values.extend(record.old.iter().cloned());
    }
}

#[cfg(test)]
mod tests {
    use syncline_core::{
        DeviceId, RowKey, TableNumber,
        rules::{Grant, GranteeId, Reader},
    };

    use super::*;

    const ALWAYS: BucketId = BucketId([1; 16]);
    const SINCE_50: BucketId = BucketId([2; 16]);
    const FOREIGN: BucketId = BucketId([3; 16]);

    fn sight() -> Sight {
        let grantee = GranteeId([9; 16]);
        let reader = Reader {
            fixed: vec![ALWAYS],
            grantees: vec![grantee],
        };
        let grant = Grant {
            grantee,
            bucket: SINCE_50,
        };
        Sight::new(reader, &[(grant, Version(50))], Version(100))
    }

    fn record(
        change: HistoryChange,
        at: u64,
        before: &[BucketId],
        after: &[BucketId],
    ) -> HistoryRecord {
        HistoryRecord {
            table: TableNumber(16),
            key: RowKey::encode([&Value::Integer(1)]).unwrap(),
            version: Version(at),
            entry: Version(at),
            user: None,
            device: DeviceId::default(),
            change,
            before: before.to_vec(),
            after: after.to_vec(),
            old: vec![(ColumnNumber(2), Some(Value::Integer(at.cast_signed())))],
        }
    }

    fn lies_in(buckets: &[BucketId]) -> RowMeta {
        RowMeta {
            buckets: buckets.to_vec(),
            ..RowMeta::default()
        }
    }

    #[test]
    fn ru26_a_change_is_told_as_a_session_would_have_told_it() {
        use HistoryChange::{Delete, Insert, Update};
        let sight = sight();
        let viewer = Viewer::of_live(&sight, &lies_in(&[SINCE_50])).expect("it may be seen");
        let (mine, later, none) = (&[ALWAYS][..], &[SINCE_50][..], &[FOREIGN][..]);
        for (change, at, before, after, told) in [
            (Insert, 10, &[][..], mine, Some(Told::Insert)),
            (Insert, 10, &[][..], none, None),
            (Insert, 49, &[][..], later, None),
            (Insert, 50, &[][..], later, Some(Told::Insert)),
            (Update, 10, mine, mine, Some(Told::Update)),
            (Update, 10, mine, none, Some(Told::Removed)),
            (Update, 10, none, mine, Some(Told::Appeared)),
            (Update, 10, none, none, None),
            (Update, 10, later, later, None),
            (Update, 50, later, later, Some(Told::Appeared)),
            (Update, 51, later, later, Some(Told::Update)),
            (Delete, 50, later, &[][..], None),
            (Delete, 51, later, &[][..], Some(Told::Delete)),
            (Delete, 10, none, &[][..], None),
        ] {
            let found = viewer.told(&record(change, at, before, after));
            assert_eq!(found, told, "{change:?} at {at}");
        }
    }

    #[test]
    fn ru26_a_row_that_is_not_ones_own_now_has_no_history() {
        let sight = sight();
        assert!(Viewer::of_live(&sight, &lies_in(&[FOREIGN])).is_none());
        let deleted = |at, bucket| record(HistoryChange::Delete, at, &[bucket], &[]);
        let of = |last: &HistoryRecord, lost: &[BucketId]| {
            Viewer::of_deleted(&sight, last, lost.iter().copied().collect())
                .and_then(|viewer| viewer.told(last))
        };
        assert_eq!(of(&deleted(70, ALWAYS), &[]), Some(Told::Delete));
        assert_eq!(of(&deleted(70, SINCE_50), &[]), Some(Told::Delete));
        assert_eq!(of(&deleted(40, SINCE_50), &[]), None);
        assert_eq!(of(&deleted(70, FOREIGN), &[]), None);
        // The deletion itself took the grant.
        assert_eq!(of(&deleted(70, FOREIGN), &[FOREIGN]), Some(Told::Delete));
        // The newest record of a row that is not there has to be its deletion.
        let update = record(HistoryChange::Update, 70, &[ALWAYS], &[ALWAYS]);
        assert_eq!(of(&update, &[]), None);
    }

    #[test]
    fn ru26_what_a_deletion_took_shows_nothing_that_was_before_it() {
        let sight = sight();
        let last = record(HistoryChange::Delete, 70, &[FOREIGN], &[]);
        let viewer = Viewer::of_deleted(&sight, &last, [FOREIGN].into()).expect("it was seen");
        let before = record(HistoryChange::Update, 60, &[FOREIGN], &[FOREIGN]);
        assert_eq!(viewer.told(&before), None);
    }

    #[test]
    fn ru26_going_back_gives_what_was_there() {
        let (name, other) = (ColumnNumber(2), ColumnNumber(3));
        let updated = |at| record(HistoryChange::Update, at, &[ALWAYS], &[ALWAYS]);
        let mut walk = Walk::default();
        let update = updated(5);
        let told = [(&update, Some(Told::Update))];
        assert_eq!(walk.missing(told), Some(vec![name]));
        walk.know([(name, &Value::Integer(6))], false);
        assert_eq!(walk.missing(told), Some(Vec::new()));
        let inserted = record(HistoryChange::Insert, 4, &[], &[ALWAYS]);
        assert_eq!(walk.missing([(&inserted, Some(Told::Insert))]), None);
        assert_eq!(walk.missing([(&inserted, None)]), Some(Vec::new()));
        walk.know(
            [(name, &Value::Integer(7)), (other, &Value::Integer(8))],
            true,
        );
        assert_eq!(walk.value(name), Some(&Value::Integer(6)), "it was known");
        walk.undo(&update);
        let values: Vec<_> = walk.values().collect();
        let expected = [(name, &Value::Integer(5)), (other, &Value::Integer(8))];
        assert_eq!(values, expected);
        let mut born = inserted;
        born.old.clear();
        walk.undo(&born);
        assert_eq!(walk.values().count(), 0);
    }
}
