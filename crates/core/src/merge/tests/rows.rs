//! Changes of whole rows.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::support::{by, column, json_text, text};
use crate::{
    change::{ColumnEdit, Edit, Op},
    hlc::Hlc,
    ids::{ColumnNumber, TableNumber, Version},
    merge::{Clock, ColumnState, Joined, Lost, apply_op, coalesce_ops, diff_row, merge_row},
    row::Row,
    schema::{Column, MergeStrategy as S, RuleTexts, SyncMode, Table},
    value::Value,
};

/// Key `id`; then a title, a counter, a set, a document; then a generated column.
fn table() -> Table {
    let strategies = [
        S::LastWriteWins,
        S::LastWriteWins,
        S::Counter,
        S::Set,
        S::MergeFields,
    ];
    let named = |(i, merge): (u32, S)| Column {
        name: format!("c{i}"),
        number: ColumnNumber(10 + i),
        ..column(merge)
    };
    let mut columns: Vec<Column> = (0..).zip(strategies).map(named).collect();
    let computed = Column {
        generated: true,
        computed: None,
        declared: None,
        ..named((5, S::LastWriteWins))
    };
    columns.push(computed);
    Table {
        name: "t".into(),
        number: TableNumber(1),
        columns,
        primary_key: vec![0],
        uniques: Vec::new(),
        indexes: Vec::new(),
        foreign_keys: Vec::new(),
        without_rowid: false,
        autoincrement: false,
        further_indexes: Vec::new(),
        checks: Vec::new(),
        strict: false,
        sync: SyncMode::Auto,
        update_wins: false,
        rules: RuleTexts::default(),
        force: BTreeMap::new(),
    }
}

fn row(title: &str, count: i64, set: &str, document: &str) -> Row {
    let stored = [
        text("k"),
        text(title),
        count.into(),
        text(set),
        text(document),
    ];
    Row(stored.into_iter().chain([Value::Null]).collect())
}

fn rows() -> impl Strategy<Value = Option<Row>> {
    let set = prop::collection::btree_set(0..4_u8, 0..4);
    let set = set.prop_map(|set| serde_json::to_string(&set).unwrap());
    let fields = ("[ab]", -3..3_i64, set, json_text());
    prop::option::weighted(0.8, fields.prop_map(|(t, n, s, d)| row(&t, n, &s, &d)))
}

fn meaning(row: Option<&Row>) -> Option<Vec<String>> {
    let table = table();
    let values = |row: &Row| {
        let columns = table.columns.iter().zip(&row.0);
        columns
            .map(|(column, value)| super::support::meaning(column, value))
            .collect()
    };
    row.map(values)
}

proptest! {
    #[test]
    fn me17_replaying_the_difference_gives_the_row((before, after) in (rows(), rows())) {
        let table = table();
        match diff_row(&table, before.as_ref(), after.as_ref()) {
            None => prop_assert_eq!(before, after),
            Some(op) => {
                let replayed = apply_op(&table, before.as_ref(), &op).unwrap();
                prop_assert_eq!(meaning(replayed.as_ref()), meaning(after.as_ref()));
            }
        }
    }

    #[test]
    fn me20_joined_changes_have_the_effect_of_both((one, two, three) in (rows(), rows(), rows())) {
        let table = table();
        let first = diff_row(&table, one.as_ref(), two.as_ref());
        let second = diff_row(&table, two.as_ref(), three.as_ref());
        if let (Some(first), Some(second)) = (first, second) {
            let result = match coalesce_ops(&table, &first, &second) {
                Joined::One(op) => apply_op(&table, one.as_ref(), &op).unwrap(),
                Joined::Nothing => one.clone(),
                Joined::Apart => three.clone(),
            };
            prop_assert_eq!(meaning(result.as_ref()), meaning(three.as_ref()));
        }
    }
}

#[test]
fn me17_a_change_names_what_changed_and_nothing_else() {
    let table = table();
    let before = row("a", 1, "[1]", "{}");
    assert_eq!(diff_row(&table, Some(&before), Some(&before)), None);
    assert_eq!(diff_row(&table, None, None), None);
    assert_eq!(diff_row(&table, Some(&before), None), Some(Op::Delete));

    let mut after = row("a", 3, "[1]", "{}");
    after.0[5] = text("computed anew");
    let edit = ColumnEdit {
        column: ColumnNumber(12),
        edit: Edit::Add(2.into()),
    };
    assert_eq!(
        diff_row(&table, Some(&before), Some(&after)),
        Some(Op::Update(vec![edit]))
    );

    let Some(Op::Insert(edits)) = diff_row(&table, None, Some(&after)) else {
        panic!()
    };
    let numbers: Vec<u32> = edits.iter().map(|edit| edit.column.0).collect();
    assert_eq!(
        numbers,
        [10, 11, 12, 13, 14],
        "key columns too, no generated ones"
    );
    assert!(edits.iter().all(|edit| matches!(edit.edit, Edit::Set(_))));
}

#[test]
fn me18_edits_of_no_writable_column_are_refused() {
    let table = table();
    let present = row("a", 1, "[]", "{}");
    let edit = |number| ColumnEdit {
        column: ColumnNumber(number),
        edit: Edit::Set(Value::Null),
    };
    let refused = |edits: Vec<ColumnEdit>, reason: &str| {
        let error = apply_op(&table, Some(&present), &Op::Update(edits)).unwrap_err();
        assert_eq!(error.to_string(), reason);
    };
    refused(
        vec![edit(99)],
        "column number 99: table t has no such column",
    );
    refused(
        vec![edit(15)],
        "column c5: a generated column cannot be written",
    );
    refused(
        vec![edit(10)],
        "column c0: an update cannot write a key column",
    );
    refused(
        vec![edit(11), edit(11)],
        "column c1: the change names the column twice",
    );
}

#[test]
fn me18_a_row_that_is_gone_stays_gone() {
    let table = table();
    let update = Op::Update(Vec::new());
    assert_eq!(apply_op(&table, None, &update), Ok(None));
    assert_eq!(apply_op(&table, None, &Op::Delete), Ok(None));
}

#[test]
fn me19_an_insert_meets_a_living_row_column_by_column() {
    let table = table();
    let there = row("theirs", 2, "[1]", r#"{"a":1}"#);
    let mut mine = row("mine", 3, "[2]", r#"{"b":2}"#);
    let state = |_| ColumnState {
        clock: Clock {
            version: Version(5),
            hlc: Hlc(50),
            ..Clock::default()
        },
        members: BTreeMap::new(),
    };
    let insert = |mine: &Row| diff_row(&table, None, Some(mine)).unwrap();
    let merged = merge_row(&table, &there, state, &insert(&mine), &by(1, 1, 40, 4)).unwrap();
    assert_eq!(merged.row, row("theirs", 5, "[1,2]", r#"{"a":1,"b":2}"#));
    assert_eq!(merged.lost, BTreeMap::from([(1, Lost::Older)]));
    assert_eq!(merged.changed.keys().collect::<Vec<_>>(), [&2, &3, &4]);

    // NULL says nothing, however late it is said.
    mine.0[1] = Value::Null;
    let merged = merge_row(&table, &there, state, &insert(&mine), &by(1, 1, 90, 4)).unwrap();
    assert_eq!(merged.row.0[1], text("theirs"));
}

/// A changeset that was refused and is retried comes after younger ones of its own device.
#[test]
fn me19_an_insert_knows_nothing_of_its_own_devices_row_either() {
    let table = table();
    let there = row("younger", 2, "[1]", r#"{"a":1}"#);
    let old = diff_row(&table, None, Some(&row("older", 3, "[2]", r#"{"b":2}"#))).unwrap();
    let own = by(1, 1, 40, 0);
    let state = |_| ColumnState {
        clock: Clock {
            version: Version(5),
            hlc: Hlc(50),
            device: own.device,
            ..Clock::default()
        },
        members: BTreeMap::new(),
    };
    let merged = merge_row(&table, &there, state, &old, &own).unwrap();
    assert_eq!(merged.row, row("younger", 5, "[1,2]", r#"{"a":1,"b":2}"#));
    let later = merge_row(&table, &there, state, &old, &by(1, 2, 60, 0)).unwrap();
    assert_eq!(later.row.0[1], text("older"));
}

#[test]
fn me20_a_row_deleted_and_inserted_again_stays_two_changes() {
    let table = table();
    let insert = diff_row(&table, None, Some(&row("a", 1, "[]", "{}"))).unwrap();
    assert_eq!(coalesce_ops(&table, &Op::Delete, &insert), Joined::Apart);
    assert_eq!(coalesce_ops(&table, &insert, &Op::Delete), Joined::Nothing);
}
