//! Rows by canonical key.

use syncline_core::{ColumnType, Row, RowKey, Value};
use syncline_replica::rows::TableSql;

use crate::fixture::{database, table};

fn key(values: &[Value]) -> RowKey {
    RowKey::encode(values).unwrap()
}

fn row(values: impl IntoIterator<Item = Value>) -> Row {
    Row(values.into_iter().collect())
}

#[test]
fn ca9_values_come_back_bit_for_bit() {
    let conn = database("CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, v)");
    let sql = TableSql::new(&table(
        16,
        "t",
        &[("id", ColumnType::Text), ("v", ColumnType::Any)],
        &[0],
    ));
    let values = [
        Value::Null,
        i64::MAX.into(),
        i64::MIN.into(),
        0.1.into(),
        5e-324.into(),
        f64::INFINITY.into(),
        1.0.into(),
        "a\0b".into(),
        "".into(),
        Value::Blob(vec![0, 255]),
        Value::Blob(vec![]),
    ];
    for value in values {
        let row = row(["k".into(), value]);
        sql.insert_or_replace(&conn, &row).unwrap();
        assert_eq!(sql.read(&conn, &key(&["k".into()])).unwrap(), Some(row));
    }
    assert!(sql.delete(&conn, &key(&["k".into()])).unwrap());
    assert!(!sql.delete(&conn, &key(&["k".into()])).unwrap());
}

#[test]
fn ap6_writing_a_row_never_evicts_another() {
    let conn = database(
        "CREATE TABLE t(id TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, u UNIQUE, v);
         INSERT INTO t VALUES ('a', 1, 'x')",
    );
    let columns = [
        ("id", ColumnType::Text),
        ("u", ColumnType::Any),
        ("v", ColumnType::Any),
    ];
    let sql = TableSql::new(&table(16, "t", &columns, &[0]));
    let same_key_to_sqlite = row(["A".into(), 2.into(), "y".into()]);
    let same_unique = row(["b".into(), 1.into(), "y".into()]);
    for other in [same_key_to_sqlite, same_unique] {
        assert!(
            sql.insert_or_replace(&conn, &other)
                .unwrap_err()
                .is_constraint()
        );
        assert!(sql.insert(&conn, &other).unwrap_err().is_constraint());
    }
    assert_eq!(sql.read(&conn, &key(&["A".into()])).unwrap(), None);
    assert!(
        !sql.update(&conn, &key(&["A".into()]), &row(vec![Value::Null; 3]), &[2])
            .unwrap()
    );
    assert!(!sql.delete(&conn, &key(&["A".into()])).unwrap());
    let kept = sql.scan(&conn, None, 10).unwrap();
    assert_eq!(kept, [row(["a".into(), 1.into(), "x".into()])]);
}

#[test]
fn ce_a_row_is_found_under_another_spelling_of_its_key() {
    let upper = "3F2504E0-4F89-11D3-9A0C-0305E82C3301";
    let lower = upper.to_ascii_lowercase();
    for stored in [
        upper.to_owned(),
        upper.replace('-', ""),
        lower.replace('-', ""),
    ] {
        let conn = database("CREATE TABLE t(id UUID PRIMARY KEY NOT NULL, v)");
        conn.execute("INSERT INTO t VALUES (?1, 1)", [&stored])
            .unwrap();
        let columns = [("id", ColumnType::Uuid), ("v", ColumnType::Any)];
        let sql = TableSql::new(&table(16, "t", &columns, &[0]));
        let key = key(&[lower.as_str().into()]);
        let changed = row([lower.as_str().into(), 2.into()]);
        assert!(sql.update(&conn, &key, &changed, &[1]).unwrap());
        assert_eq!(sql.read(&conn, &key).unwrap(), Some(changed));
        let replaced = row([lower.as_str().into(), 3.into()]);
        sql.insert_or_replace(&conn, &replaced).unwrap();
        assert_eq!(sql.scan(&conn, None, 9).unwrap(), [replaced]);
        let id: String = conn
            .query_row("SELECT id FROM t", [], |r| r.get(0))
            .unwrap();
        assert_eq!(id, stored, "a key is never rewritten");
        assert!(sql.delete(&conn, &key).unwrap());
    }
}

#[test]
fn ap6_a_key_that_the_column_would_change_is_refused() {
    let conn = database("CREATE TABLE t(id TIMESTAMP PRIMARY KEY NOT NULL)");
    let sql = TableSql::new(&table(16, "t", &[("id", ColumnType::Timestamp)], &[0]));
    let text_digits = row(["0012".into()]);
    assert!(sql.insert(&conn, &text_digits).unwrap_err().is_constraint());
    assert!(
        sql.insert_or_replace(&conn, &text_digits)
            .unwrap_err()
            .is_constraint()
    );
    assert_eq!(sql.scan(&conn, None, 9).unwrap(), []);
    sql.insert(&conn, &row(["2026-11-21".into()])).unwrap();
    assert_eq!(sql.scan(&conn, None, 9).unwrap().len(), 1);
}

#[test]
fn ce11_1_and_1_0_are_one_key() {
    let conn = database("CREATE TABLE t(id PRIMARY KEY NOT NULL, v) WITHOUT ROWID");
    let columns = [("id", ColumnType::Any), ("v", ColumnType::Any)];
    let sql = TableSql::new(&table(16, "t", &columns, &[0]));
    sql.insert(&conn, &row([1.0.into(), 1.into()])).unwrap();
    let key = key(&[1.into()]);
    assert_eq!(
        sql.read(&conn, &key).unwrap(),
        Some(row([1.0.into(), 1.into()]))
    );
    sql.insert_or_replace(&conn, &row([1.into(), 2.into()]))
        .unwrap();
    assert_eq!(
        sql.read(&conn, &key).unwrap(),
        Some(row([1.0.into(), 2.into()]))
    );
    assert!(sql.delete(&conn, &key).unwrap());
}

#[test]
fn scan_pages_through_composite_keys() {
    let conn =
        database("CREATE TABLE \"select\"(\"a\"\"b\" INT, b TEXT, PRIMARY KEY(\"a\"\"b\", b))");
    let columns = [("a\"b", ColumnType::Integer), ("b", ColumnType::Text)];
    let table = table(16, "select", &columns, &[0, 1]);
    let sql = TableSql::new(&table);
    for i in 0..100 {
        sql.insert(
            &conn,
            &row([(i / 7).into(), format!("{:02}", i % 7).into()]),
        )
        .unwrap();
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = sql.scan(&conn, after.as_ref(), 9).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.key(&table).unwrap());
        seen.extend(page.iter().map(|row| row.key(&table).unwrap()));
    }
    assert_eq!(seen.len(), 100);
    assert!(seen.is_sorted());
}

#[test]
fn sl10_text_that_is_not_utf8_is_reported_with_its_row() {
    let conn = database("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    conn.execute("INSERT INTO t VALUES (7, CAST(x'ff41' AS TEXT))", [])
        .unwrap();
    let columns = [("id", ColumnType::Integer), ("v", ColumnType::Text)];
    let sql = TableSql::new(&table(16, "t", &columns, &[0]));
    let error = sql.read(&conn, &key(&[7.into()])).unwrap_err().to_string();
    assert!(error.contains("column v of row 7 of table t"), "{error}");
}
