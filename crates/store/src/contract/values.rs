//! Every canonical value and key comes back as it was written.

use syncline_core::{ColumnType, Row, RowKey, Schema, Table, Value, schema::RuleTexts};

use super::{
    Bed,
    support::{in_group, insert, load_row, take},
};
use crate::{
    Group, RowWrite,
    testkit::{column, context_of, table},
};

const TYPES: [ColumnType; 9] = [
    ColumnType::Text,
    ColumnType::Integer,
    ColumnType::Real,
    ColumnType::Boolean,
    ColumnType::Json,
    ColumnType::Blob,
    ColumnType::Timestamp,
    ColumnType::Uuid,
    ColumnType::Any,
];

/// A table with a column of each type behind an integer key.
fn everything() -> Table {
    let mut columns = vec![column("id", ColumnType::Integer)];
    columns.extend(
        TYPES
            .iter()
            .map(|&ty| column(&format!("c_{}", ty.as_str()), ty)),
    );
    columns[0].not_null = true;
    let mut table = table("everything", columns);
    table.rules = RuleTexts {
        read: Some("_owner = auth.uid()".into()),
        ..RuleTexts::default()
    };
    table
}

fn interesting() -> Vec<Value> {
    let texts = [
        "",
        "a\0b",
        "\0",
        "ä😀\u{202e}",
        "0",
        "007",
        "1e3",
        "9223372036854775808",
        " 12 ",
        "NULL",
        "'",
        "\"",
        "{\"a\":1}",
        "2026-01-01T00:00:00Z",
        "true",
        "6BA7B810-9DAD-11D1-80B4-00C04FD430C8",
    ];
    let mut values = vec![
        Value::Null,
        Value::Integer(0),
        Value::Integer(1),
        Value::Integer(-1),
        Value::Integer((1 << 53) + 1),
        Value::Integer(i64::MAX),
        Value::Integer(i64::MIN),
        Value::Real(0.0),
        Value::Real(-0.0),
        Value::Real(0.1),
        Value::Real(1.0),
        Value::Real(1e300),
        Value::Real(5e-324),
        Value::Real(f64::INFINITY),
        Value::Real(f64::NEG_INFINITY),
        Value::Real(f64::NAN),
        Value::Blob(Vec::new()),
        Value::Blob(vec![0]),
        Value::Blob((0..=255).collect()),
    ];
    values.extend(texts.map(Value::from));
    values
}

pub fn ce2_every_value_comes_back_exactly<B: Bed>(bed: &mut B) {
    let mut storage = bed.open();
    let (context, _) = context_of(
        &mut storage,
        &Schema {
            tables: vec![everything()],
        },
    );
    let table = context
        .schema()
        .table("everything")
        .expect("declared")
        .clone();
    let rows = interesting()
        .into_iter()
        .zip(1..)
        .map(|(value, id): (Value, i64)| {
            let mut row = vec![Value::Integer(id)];
            row.extend(TYPES.iter().map(|_| value.clone()));
            Row(row).canonical(&table)
        });
    let rows: Vec<Row> = rows.collect();
    let keys: Vec<RowKey> = rows
        .iter()
        .map(|row| row.key(&table).expect("a key"))
        .collect();
    let writes: Vec<_> = keys
        .iter()
        .zip(&rows)
        .map(|(key, row)| insert(table.number, key, row))
        .collect();
    in_group(&mut storage, async |group| {
        group.write_rows(&writes).await?;
        let marks = take(group, 10).await?;
        assert_eq!(marks, [], "what is canonical is stored as it is");
        Ok(())
    })
    .expect("the rows are stored");
    in_group(&mut storage, async |group| {
        for (key, row) in keys.iter().zip(&rows) {
            let loaded = load_row(group, table.number, key)
                .await
                .expect("the row is there");
            assert_eq!(loaded.row.as_ref(), Some(row), "row {key}");
        }
        Ok(())
    })
    .expect("the rows are read");
    // The same as an update of a row that has something else.
    let all: Vec<usize> = (1..table.columns.len()).collect();
    let turned = keys.iter().zip(rows.iter().rev()).map(|(key, row)| {
        let mut row = row.clone();
        row.0[0] = key.decode().expect("a key").remove(0);
        row
    });
    let turned: Vec<Row> = turned.collect();
    let update = |(key, row)| RowWrite {
        table: table.number,
        key,
        row: Some(row),
        exists: true,
        columns: &all,
    };
    let writes: Vec<_> = keys.iter().zip(&turned).map(update).collect();
    in_group(&mut storage, async |group| {
        group.write_rows(&writes).await?;
        assert_eq!(
            take(group, 10).await?,
            [],
            "what is canonical is stored as it is"
        );
        for (key, row) in keys.iter().zip(&turned) {
            let loaded = load_row(group, table.number, key)
                .await
                .expect("the row is there");
            assert_eq!(loaded.row.as_ref(), Some(row), "row {key}");
        }
        Ok(())
    })
    .expect("the rows are stored");
}

pub fn ce10_keys_of_every_kind_are_found<B: Bed>(bed: &mut B) {
    let mut composite = table(
        "composite",
        vec![
            column("value", ColumnType::Text),
            column("b", ColumnType::Any),
            column("a", ColumnType::Text),
        ],
    );
    composite.primary_key = vec![2, 1];
    composite.without_rowid = true;
    composite.columns[1].not_null = true;
    composite.columns[2].not_null = true;
    let mut storage = bed.open();
    let (context, _) = context_of(
        &mut storage,
        &Schema {
            tables: vec![composite],
        },
    );
    let table = context
        .schema()
        .table("composite")
        .expect("declared")
        .clone();
    let parts = interesting()
        .into_iter()
        .map(|value| value.canonical(ColumnType::Any));
    let mut rows: Vec<Row> = Vec::new();
    for part in parts.filter(|part| !part.is_null()) {
        let row = Row(vec!["v".into(), part, "x\0y".into()]);
        // 1 and 1.0 are the same key to a database.
        let same = |other: &Row| match (&other.0[1], &row.0[1]) {
            (Value::Integer(n), Value::Real(x)) | (Value::Real(x), Value::Integer(n)) => {
                #[expect(clippy::cast_precision_loss, reason = "small numbers only")]
                let n = *n as f64;
                n == *x
            }
            (one, other) => one == other,
        };
        if !rows.iter().any(same) {
            rows.push(row);
        }
    }
    let keys: Vec<RowKey> = rows
        .iter()
        .map(|row| row.key(&table).expect("a key"))
        .collect();
    let writes: Vec<_> = keys
        .iter()
        .zip(&rows)
        .map(|(key, row)| insert(table.number, key, row))
        .collect();
    in_group(&mut storage, async |group| {
        group.write_rows(&writes).await?;
        assert_eq!(take(group, 10).await?, []);
        for (key, row) in keys.iter().zip(&rows) {
            let loaded = load_row(group, table.number, key).await;
            assert_eq!(
                loaded.and_then(|loaded| loaded.row).as_ref(),
                Some(row),
                "row {key:?}"
            );
        }
        let delete = |key| RowWrite {
            table: table.number,
            key,
            row: None,
            exists: true,
            columns: &[],
        };
        let deletes: Vec<_> = keys.iter().map(delete).collect();
        group.write_rows(&deletes).await?;
        for key in &keys {
            assert_eq!(
                load_row(group, table.number, key).await,
                None,
                "row {key:?}"
            );
        }
        Ok(())
    })
    .expect("the group commits");
}

pub fn ce2_a_large_blob_comes_back_exactly<B: Bed>(bed: &mut B) {
    let mut storage = bed.open();
    let (context, _) = context_of(
        &mut storage,
        &Schema {
            tables: vec![everything()],
        },
    );
    let table = context
        .schema()
        .table("everything")
        .expect("declared")
        .clone();
    let bytes: Vec<u8> = (0..10 * 1024 * 1024_u32)
        .map(|n| n.to_le_bytes()[1])
        .collect();
    let mut row = Row(vec![Value::Null; table.columns.len()]);
    row.0[0] = 1.into();
    let blob = table.position("c_blob").expect("declared");
    row.0[blob] = Value::Blob(bytes);
    let key = row.key(&table).expect("a key");
    in_group(&mut storage, async |group| {
        group.write_rows(&[insert(table.number, &key, &row)]).await
    })
    .expect("the row is stored");
    let found = super::support::stored(&mut storage, table.number, &key);
    assert!(found.as_ref() == Some(&row), "ten megabytes differ");
}
