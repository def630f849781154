//! Declared tables become real ones, with numbers for ever.

use syncline_core::{
    Column, ColumnType, Row, Schema, Value,
    config::{Config, Renamed},
};

use super::{
    Bed,
    support::{key, label, marks, opened, store, stored},
};
use crate::{
    Mark, SchemaError, SchemaOptions, SchemaReport, Storage,
    testkit::{block_on, column, demo_schema},
};

fn apply<S: Storage>(
    storage: &mut S,
    schema: Schema,
    renamed: Vec<Renamed>,
    allow: &[&str],
) -> Result<SchemaReport, SchemaError> {
    let config = Config {
        schema,
        renamed,
        ..Config::default()
    };
    let allow = allow.iter().map(|&name| name.to_owned()).collect();
    block_on(storage.apply_schema(
        &config,
        &SchemaOptions {
            managed: true,
            allow,
        },
    ))
}

/// Every name with its number: `labels 20`, `labels.name 2`.
fn numbers(schema: &Schema) -> Vec<(String, u32)> {
    let tables = schema.tables.iter();
    let of = |table: &syncline_core::Table| {
        let columns = table.columns.iter();
        let mut all = vec![(table.name.clone(), table.number.0)];
        all.extend(columns.map(|c| (format!("{}.{}", table.name, c.name), c.number.0)));
        all
    };
    tables.flat_map(of).collect()
}

fn number_of(schema: &Schema, name: &str) -> u32 {
    let all = numbers(schema);
    all.iter()
        .find(|(known, _)| known == name)
        .expect("the name is declared")
        .1
}

fn labels(schema: &mut Schema) -> &mut syncline_core::Table {
    schema
        .tables
        .iter_mut()
        .find(|table| table.name == "labels")
        .expect("declared")
}

fn without(mut schema: Schema, table: &str) -> Schema {
    schema.tables.retain(|known| known.name != table);
    schema
}

pub fn id8_numbers_are_for_ever<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let first = numbers(context.schema());
    let mut own: Vec<_> = context
        .schema()
        .tables
        .iter()
        .map(|table| table.number)
        .collect();
    own.dedup();
    assert_eq!(
        own.len(),
        context.schema().tables.len(),
        "no number twice, in ascending order"
    );
    assert!(own[0] == syncline_core::builtin::CONFLICTS);
    assert!(
        own[1..]
            .iter()
            .all(|&number| number >= syncline_core::builtin::FIRST_OWN)
    );
    let mut reversed = demo_schema();
    reversed.tables.reverse();
    let again = apply(&mut storage, reversed, Vec::new(), &[]).expect("nothing changes");
    assert_eq!(
        numbers(&again.schema),
        first,
        "whatever the order of the file"
    );
    assert_eq!(again.notes, Vec::<String>::new());

    let last = first
        .iter()
        .filter(|(name, _)| !name.contains('.'))
        .map(|(_, n)| *n)
        .max();
    let dropped = number_of(&again.schema, "labels");
    apply(
        &mut storage,
        without(demo_schema(), "labels"),
        Vec::new(),
        &["drop:labels"],
    )
    .expect("allowed by name");
    drop(storage);
    let mut storage = bed.open();
    let back = apply(&mut storage, demo_schema(), Vec::new(), &[]).expect("tables may be added");
    let new = number_of(&back.schema, "labels");
    assert!(
        new != dropped && Some(new) > last,
        "{new} after {dropped}: numbers are not reused"
    );

    let mut changed = demo_schema();
    labels(&mut changed).columns.remove(1);
    labels(&mut changed).uniques.clear();
    let old = number_of(&back.schema, "labels.name");
    apply(&mut storage, changed, Vec::new(), &["drop:labels.name"]).expect("allowed by name");
    let mut again = demo_schema();
    labels(&mut again).columns[1].not_null = false;
    let again = apply(&mut storage, again, Vec::new(), &[]).expect("columns may be added");
    assert!(
        number_of(&again.schema, "labels.name") > old,
        "numbers are not reused"
    );
}

pub fn id8_additive_changes_keep_rows<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let number = super::support::number(&context, "labels");
    store(&mut storage, number, &[label("a", "red")]);
    let mut changed = demo_schema();
    labels(&mut changed)
        .columns
        .push(column("color", ColumnType::Integer));
    let shade = Column {
        default: Some("7".into()),
        not_null: true,
        ..column("shade", ColumnType::Integer)
    };
    labels(&mut changed).columns.push(shade);
    let report = apply(&mut storage, changed, Vec::new(), &[]).expect("columns may be added");
    assert_eq!(report.notes.len(), 2, "{:?}", report.notes);
    let row = Row(vec!["a".into(), "red".into(), Value::Null, 7.into()]);
    assert_eq!(stored(&mut storage, number, &key("a")), Some(row));
    assert_eq!(marks(&mut storage), [], "nobody changed a row");
}

pub fn id8_destructive_changes_need_leave<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let number = super::support::number(&context, "labels");
    store(&mut storage, number, &[label("a", "red")]);
    let refused = apply(
        &mut storage,
        without(demo_schema(), "labels"),
        Vec::new(),
        &[],
    );
    let Err(SchemaError::Destructive { allow, .. }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(allow, "drop:labels");
    let mut changed = demo_schema();
    labels(&mut changed).columns.remove(1);
    labels(&mut changed).uniques.clear();
    let refused = apply(&mut storage, changed, Vec::new(), &["drop:labels"]);
    let Err(SchemaError::Destructive { allow, .. }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(allow, "drop:labels.name");
    assert_eq!(
        stored(&mut storage, number, &key("a")),
        Some(label("a", "red"))
    );
}

pub fn id8_renames_keep_numbers_and_rows<B: Bed>(bed: &mut B) {
    let (mut storage, context) = opened(bed);
    let number = super::support::number(&context, "labels");
    store(&mut storage, number, &[label("a", "red")]);
    let mut changed = demo_schema();
    labels(&mut changed).columns[1].name = "title".into();
    labels(&mut changed).name = "badges".into();
    let renamed = vec![
        Renamed {
            table: "badges".into(),
            column: None,
            from: "labels".into(),
        },
        Renamed {
            table: "badges".into(),
            column: Some("title".into()),
            from: "name".into(),
        },
    ];
    let report = apply(&mut storage, changed.clone(), renamed.clone(), &[]).expect("declared");
    assert_eq!(number_of(&report.schema, "badges"), number.0);
    let before = number_of(context.schema(), "labels.name");
    assert_eq!(number_of(&report.schema, "badges.title"), before);
    assert_eq!(
        stored(&mut storage, number, &key("a")),
        Some(label("a", "red"))
    );
    let again = apply(&mut storage, changed, renamed, &[]).expect("the file still says so");
    assert_eq!(numbers(&again.schema), numbers(&report.schema));
    assert_eq!(marks(&mut storage), []);
}

pub fn pl13_marks_wait_over_a_restart<B: Bed>(bed: &mut B) {
    let (storage, context) = opened(bed);
    let number = super::support::number(&context, "labels");
    let values = vec![("id", "a".into()), ("name", "red".into())];
    bed.external(&[crate::testkit::External::Insert {
        table: "labels",
        values,
    }])
    .expect("the program may write");
    drop(storage);
    let mut storage = bed.open();
    apply(&mut storage, demo_schema(), Vec::new(), &[]).expect("nothing changes");
    assert!(storage.changed_elsewhere());
    let mark = Mark {
        table: number,
        key: key("a"),
        before: None,
    };
    assert_eq!(marks(&mut storage), [mark]);
}
