//! Transactions, rows, marks and constraints.

use std::collections::BTreeSet;

use syncline_core::{Row, Value, rules::RuleColumn};

use super::{
    Bed,
    support::{
        in_group, insert, key, label, load_row, marks, meta, number, opened, project, store,
        stored, take, task,
    },
};
use crate::{
    Group, Ledger, Loaded, Mark, Room, RowWrite, Storage, StorageError, Want, WriteKind,
    testkit::{External, block_on},
};

pub fn pl1_a_commit_is_seen_afterwards_and_a_rollback_is_not<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let projects = number(&context, "projects");
    let (k, row) = (key("p"), project("p", "Garden"));
    block_on(async {
        let mut group = storage.begin().await.expect("a group begins");
        group
            .write_rows(&[insert(projects, &k, &row)])
            .await
            .expect("the row fits");
        group.rollback().await;
    });
    assert_eq!(stored(&mut storage, projects, &k), None);
    block_on(async {
        let mut group = storage.begin().await.expect("a group begins");
        group
            .write_rows(&[insert(projects, &k, &row)])
            .await
            .expect("the row fits");
        drop(group);
    });
    assert_eq!(
        stored(&mut storage, projects, &k),
        None,
        "dropping a group rolls back"
    );
    in_group(&mut storage, async |group| {
        group.write_rows(&[insert(projects, &k, &row)]).await
    })
    .expect("the row is committed");
    assert_eq!(stored(&mut storage, projects, &k), Some(row));
}

pub fn pl1_a_group_sees_its_own_writes<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let projects = number(&context, "projects");
    let (k, row, changed) = (key("p"), project("p", "Garden"), project("p", "Yard"));
    in_group(&mut storage, async |group| {
        group.write_rows(&[insert(projects, &k, &row)]).await?;
        let metas = vec![(projects, k.clone(), meta(5, &[1]), Vec::new())];
        group
            .write_ledger(&Ledger {
                metas,
                ..Ledger::default()
            })
            .await?;
        let loaded = load_row(group, projects, &k)
            .await
            .expect("the row is there");
        assert_eq!((loaded.row, loaded.meta), (Some(row), meta(5, &[1])));
        let update = RowWrite {
            table: projects,
            key: &k,
            row: Some(&changed),
            exists: true,
            columns: &[1],
        };
        assert_eq!(update.kind(), WriteKind::Update);
        group.write_rows(&[update]).await?;
        let loaded = load_row(group, projects, &k)
            .await
            .expect("the row is there");
        assert_eq!(loaded.row.as_ref(), Some(&changed));
        let delete = RowWrite {
            row: None,
            columns: &[],
            ..update
        };
        group.write_rows(&[delete]).await?;
        let loaded = load_row(group, projects, &k)
            .await
            .expect("the metadata is there");
        assert_eq!(loaded.row, None);
        Ok(())
    })
    .expect("the group commits");
}

pub fn pl2_every_want_is_answered<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let projects = number(&context, "projects");
    let wants = [
        Want::Row(projects, key("nothing")),
        Want::Matching(projects, RuleColumn::Column(1), "nothing".into()),
        Want::Matching(projects, RuleColumn::Owner, "nobody".into()),
        Want::Changeset(syncline_core::ChangesetId([1; 16])),
        Want::Device(syncline_core::DeviceId([1; 16])),
        Want::GrantCount(super::support::grant(1, 1)),
        Want::Digest(super::support::bucket(1), projects),
    ];
    let loaded = in_group(&mut storage, async |group| {
        let mut loaded = Loaded::default();
        group.load(&wants, &mut loaded).await?;
        Ok(loaded)
    })
    .expect("the wants are loaded");
    for want in &wants {
        assert!(loaded.answers(want), "{want:?} has no answer");
    }
    assert_eq!(loaded.row(projects, &key("nothing")), Some(None));
    assert_eq!(loaded.grants.get(&super::support::grant(1, 1)), Some(&0));
}

pub fn pl2_matching_finds_exactly_equal_values<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let tasks = number(&context, "tasks");
    let with_effort = |id: &str, effort: Value| {
        let mut row = task(id, "", "t");
        row.0[1] = Value::Null;
        row.0[4] = effort;
        row
    };
    let mut upper = with_effort("c", Value::Null);
    upper.0[2] = "T".into();
    let rows = [
        with_effort("b", 7.into()),
        with_effort("a", 7.into()),
        upper,
        with_effort("d", 8.into()),
    ];
    store(&mut storage, tasks, &rows);
    let found = in_group(&mut storage, async |group| {
        let mut loaded = Loaded::default();
        let wants = [
            Want::Matching(tasks, RuleColumn::Column(4), 7.into()),
            Want::Matching(tasks, RuleColumn::Column(2), "t".into()),
            Want::Matching(tasks, RuleColumn::Owner, "ada".into()),
        ];
        group.load(&wants, &mut loaded).await?;
        Ok(loaded)
    })
    .expect("the wants are loaded");
    let keys = |column, value: Value| found.matching(tasks, column, &value).map(<[_]>::to_vec);
    assert_eq!(
        keys(RuleColumn::Column(4), 7.into()),
        Some(vec![key("a"), key("b")])
    );
    let lower = Some(vec![key("a"), key("b"), key("d")]);
    assert_eq!(
        keys(RuleColumn::Column(2), "t".into()),
        lower,
        "T is another text"
    );
    let all = Some(vec![key("a"), key("b"), key("c"), key("d")]);
    assert_eq!(keys(RuleColumn::Owner, "ada".into()), all);
    let loaded = found
        .row(tasks, &key("a"))
        .flatten()
        .expect("the rows come too");
    assert_eq!(
        (loaded.row.as_ref(), &loaded.meta),
        (Some(&rows[1]), &meta(1, &[]))
    );
}

pub fn pl12_own_writes_leave_no_marks<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let labels = number(&context, "labels");
    let (k, row, changed) = (key("l"), label("l", "red"), label("l", "blue"));
    let insert = insert(labels, &k, &row);
    let update = RowWrite {
        row: Some(&changed),
        exists: true,
        columns: &[1],
        ..insert
    };
    let delete = RowWrite {
        row: None,
        exists: true,
        columns: &[],
        ..insert
    };
    for write in [insert, update, delete] {
        let marks = in_group(&mut storage, async |group| {
            assert!(
                !group.reacts(labels, write.kind()),
                "nothing hangs on labels"
            );
            group.write_rows(&[write]).await?;
            take(group, 10).await
        });
        assert_eq!(marks.expect("the group commits"), [], "{:?}", write.kind());
    }
    assert_eq!(marks(&mut storage), []);
}

pub fn pl12_a_cascade_is_marked_with_the_image_before<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let (projects, tasks) = (number(&context, "projects"), number(&context, "tasks"));
    store(
        &mut storage,
        projects,
        &[project("p", "Garden"), project("q", "Roof")],
    );
    let rows = [
        task("t1", "p", "dig"),
        task("t2", "p", "sow"),
        task("t3", "q", "tile"),
    ];
    store(&mut storage, tasks, &rows);
    let k = key("p");
    let delete = RowWrite {
        table: projects,
        key: &k,
        row: None,
        exists: true,
        columns: &[],
    };
    let mut found = in_group(&mut storage, async |group| {
        assert!(
            group.reacts(projects, WriteKind::Delete),
            "tasks go with their project"
        );
        assert!(!group.reacts(tasks, WriteKind::Delete));
        group.write_rows(&[delete]).await?;
        take(group, 10).await
    })
    .expect("the group commits");
    found.sort_by(|a, b| a.key.cmp(&b.key));
    let mark = |row: &Row| Mark {
        table: tasks,
        key: key(row.0[0].clone()),
        before: Some(row.clone()),
    };
    assert_eq!(found, [mark(&rows[0]), mark(&rows[1])]);
    assert_eq!(stored(&mut storage, tasks, &key("t1")), None);
    assert_eq!(
        stored(&mut storage, tasks, &key("t3")),
        Some(rows[2].clone())
    );
}

pub fn pl12_defaults_fill_omitted_columns_and_are_marked<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let tasks = number(&context, "tasks");
    let k = key("t");
    let mut row = task("t", "", "");
    row.0[1] = Value::Null;
    row.0[2] = Value::Null;
    let write = RowWrite {
        table: tasks,
        key: &k,
        row: Some(&row),
        exists: false,
        columns: &[2],
    };
    let marks = in_group(&mut storage, async |group| {
        group.write_rows(&[write]).await?;
        take(group, 10).await
    });
    let marks = marks.expect("the group commits");
    assert_eq!(
        marks,
        [Mark {
            table: tasks,
            key: k.clone(),
            before: None
        }]
    );
    row.0[2] = "untitled".into();
    assert_eq!(stored(&mut storage, tasks, &k), Some(row));
}

pub fn pl13_another_program_is_marked_with_the_first_image_before<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let labels = number(&context, "labels");
    store(
        &mut storage,
        labels,
        &[label("a", "red"), label("b", "green"), label("c", "blue")],
    );
    let update = |id: &str, name: &str| External::Update {
        table: "labels",
        key: vec![("id", id.into())],
        set: vec![("name", name.into())],
    };
    bed.external(&[
        update("a", "pink"),
        update("a", "rose"),
        External::Delete {
            table: "labels",
            key: vec![("id", "b".into())],
        },
        External::Insert {
            table: "labels",
            values: vec![("id", "d".into()), ("name", "grey".into())],
        },
        update("d", "black"),
        External::Update {
            table: "labels",
            key: vec![("id", "c".into())],
            set: vec![("id", "e".into())],
        },
    ])
    .expect("the program may write");
    assert!(storage.changed_elsewhere());
    let mark = |id: &str, before: Option<Row>| Mark {
        table: labels,
        key: key(id),
        before,
    };
    let expected = [
        mark("a", Some(label("a", "red"))),
        mark("b", Some(label("b", "green"))),
        mark("c", Some(label("c", "blue"))),
        mark("d", None),
        mark("e", None),
    ];
    assert_eq!(marks(&mut storage), expected);
    assert_eq!(marks(&mut storage), [], "a mark is taken once");
    assert_eq!(
        stored(&mut storage, labels, &key("a")),
        Some(label("a", "rose"))
    );
    assert_eq!(
        stored(&mut storage, labels, &key("e")),
        Some(label("e", "blue"))
    );
    let unknown = in_group(&mut storage, async |group| {
        Ok(load_row(group, labels, &key("d")).await)
    });
    let unknown = unknown.expect("the row is read").expect("the row is there");
    assert_eq!(unknown.row, Some(label("d", "black")));
    assert_eq!(
        unknown.meta,
        crate::RowMeta::default(),
        "the ledger does not know it yet"
    );
}

pub fn pl13_marks_are_taken_in_portions_and_once<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let labels = number(&context, "labels");
    let names: Vec<String> = (0..25).map(|n| format!("label {n:02}")).collect();
    let insert = |name: &String| External::Insert {
        table: "labels",
        values: vec![("id", name.as_str().into()), ("name", name.as_str().into())],
    };
    let statements: Vec<_> = names.iter().map(insert).collect();
    bed.external(&statements).expect("the program may write");
    block_on(async {
        let mut group = storage.begin().await.expect("a group begins");
        assert_eq!(
            take(&mut group, 10).await.expect("marks are taken").len(),
            10
        );
        group.rollback().await;
    });
    let mut seen = BTreeSet::new();
    for expected in [10, 10, 5, 0] {
        let marks = in_group(&mut storage, async |group| take(group, 10).await);
        let marks = marks.expect("marks are taken");
        assert_eq!(marks.len(), expected);
        assert!(
            marks
                .iter()
                .all(|mark| mark.table == labels && mark.before.is_none())
        );
        seen.extend(marks.into_iter().map(|mark| mark.key));
    }
    assert_eq!(seen.len(), 25, "what a rollback gave back was taken again");
}

pub fn pl13_a_portion_of_marks_is_bounded_in_bytes<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let labels = number(&context, "labels");
    let long = |id: &str| id.repeat(1_000);
    let rows = ["a", "b", "c", "d"].map(|id| label(id, &long(id)));
    store(&mut storage, labels, &rows);
    // Two of which only the image before is large, two of which both are, and two that are new.
    let delete = |id: &'static str| External::Delete {
        table: "labels",
        key: vec![("id", id.into())],
    };
    let update = |id: &'static str| External::Update {
        table: "labels",
        key: vec![("id", id.into())],
        set: vec![("name", long(&id.to_uppercase()).into())],
    };
    let insert = |id: &'static str| External::Insert {
        table: "labels",
        values: vec![("id", id.into()), ("name", long(id).into())],
    };
    let [c, d] = ["c", "d"].map(update);
    let [e, f] = ["e", "f"].map(insert);
    let statements = [delete("a"), delete("b"), c, d, e, f];
    bed.external(&statements).expect("the program may write");
    let mut take = |bytes| {
        let room = Room { rows: 10, bytes };
        let taken = in_group(&mut storage, async |group| group.take_marks(room).await);
        let taken = taken.expect("marks are taken");
        let keys = taken.marks.into_iter().map(|mark| mark.key.to_string());
        (keys.collect::<String>(), taken.more)
    };
    assert_eq!(take(1), ("a".into(), true), "larger than there is room");
    assert_eq!(take(2_500), ("bc".into(), true), "the rows as they were");
    assert_eq!(take(2_900), ("de".into(), true), "and as they are");
    assert_eq!(take(1), ("f".into(), false), "the last");
    assert_eq!(take(2_500), (String::new(), false));
}

pub fn pl14_a_constraint_refuses_the_write<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let (labels, tasks) = (number(&context, "labels"), number(&context, "tasks"));
    store(&mut storage, labels, &[label("a", "red")]);
    let cases = [
        ("UNIQUE", labels, label("b", "red")),
        ("NOT NULL", labels, Row(vec!["c".into(), Value::Null])),
        ("FOREIGN KEY", tasks, task("t", "no such project", "dig")),
    ];
    for (what, table, row) in cases {
        let k = key(row.0[0].clone());
        let fine = label("fine", "fine");
        let fine_key = key("fine");
        let writes = [insert(labels, &fine_key, &fine), insert(table, &k, &row)];
        let outcome = in_group(&mut storage, async |group| group.write_rows(&writes).await);
        let refused = matches!(outcome, Err(StorageError::Constraint { .. }));
        assert!(refused, "{what}: {outcome:?}");
        assert_eq!(stored(&mut storage, table, &k), None, "{what}");
        assert_eq!(stored(&mut storage, labels, &fine_key), None, "{what}");
    }
}

pub fn pl14_unique_values_can_be_swapped<B: Bed>(bed: &mut B) {
    rotate(bed, &["a", "b"]);
}

pub fn pl14_rows_can_take_each_others_unique_values_in_a_ring<B: Bed>(bed: &mut B) {
    rotate(bed, &["a", "b", "c", "d"]);
}

/// Each of the labels gets the name of the next one, in one write.
fn rotate<B: Bed>(bed: &mut B, ids: &[&str]) {
    let (mut storage, context) = opened(bed);
    let labels = number(&context, "labels");
    let rows: Vec<_> = ids
        .iter()
        .map(|id| label(id, &format!("name of {id}")))
        .collect();
    store(&mut storage, labels, &rows);
    let next = |i: usize| ids[(i + 1) % ids.len()];
    let rotated: Vec<_> = ids
        .iter()
        .enumerate()
        .map(|(i, id)| label(id, &format!("name of {}", next(i))))
        .collect();
    let keys: Vec<_> = ids.iter().map(|id| key(*id)).collect();
    let write = |(key, row)| RowWrite {
        table: labels,
        key,
        row: Some(row),
        exists: true,
        columns: &[1],
    };
    let writes: Vec<_> = keys.iter().zip(&rotated).map(write).collect();
    let marks = in_group(&mut storage, async |group| {
        group.write_rows(&writes).await?;
        take(group, 10).await
    });
    assert_eq!(marks.expect("the rows get past each other"), []);
    for (key, row) in keys.iter().zip(rotated) {
        assert_eq!(stored(&mut storage, labels, key), Some(row));
    }
}
