use std::collections::BTreeMap;

use rusqlite::Connection;

use super::*;
use crate::{
    ids::{ColumnNumber, TableNumber},
    schema::{MergeStrategy, RuleTexts, SyncMode},
};

#[test]
fn declared_types_map_to_portable_ones() {
    let cases = [
        ("", ColumnType::Any),
        ("varchar(40)", ColumnType::Text),
        ("BIGINT", ColumnType::Integer),
        ("double precision", ColumnType::Real),
        ("BLOB", ColumnType::Blob),
        ("JSONB", ColumnType::Json),
        ("boolean", ColumnType::Boolean),
        ("DATETIME", ColumnType::Timestamp),
        ("uniqueidentifier", ColumnType::Uuid),
        ("DECIMAL(10,2)", ColumnType::Any),
    ];
    for (declared, expected) in cases {
        assert_eq!(column_type(declared), expected, "{declared}");
    }
}

#[test]
fn ce2_affinity_knows_what_sqlite_keeps() {
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch("CREATE TABLE t(a TEXT, b NUMERIC, c INTEGER, d REAL, e BLOB)")
        .unwrap();
    let texts = [
        "", "abc", "5", " 5", "-1", "+.5", ".5e3", "1e5", "0x10", "inf", "5a", "\t7 ",
    ];
    let mut values: Vec<Value> = texts.iter().map(|t| Value::from(*t)).collect();
    values.extend([
        Value::Null,
        Value::Integer(3),
        Value::Real(3.0),
        Value::Real(3.5),
    ]);
    values.extend([
        Value::Real(1e300),
        Value::Integer(i64::MAX),
        Value::Blob(b"5".to_vec()),
    ]);
    for (column, declared) in [
        ("a", "TEXT"),
        ("b", "NUMERIC"),
        ("c", "INTEGER"),
        ("d", "REAL"),
        ("e", "BLOB"),
    ] {
        let affinity = Affinity::of(declared);
        for value in &values {
            let stored = round_trip(&db, column, value);
            assert_eq!(
                affinity.keeps(value),
                &stored == value,
                "{value:?} in {declared}"
            );
            for ty in ColumnType::ALL {
                let canonical = value.clone().canonical(*ty);
                if affinity.fits(*ty) {
                    assert!(
                        affinity.keeps(&canonical),
                        "{canonical:?} of {ty:?} in {declared}"
                    );
                }
            }
        }
    }
}

fn round_trip(db: &Connection, column: &str, value: &Value) -> Value {
    use rusqlite::types::{Value as Sql, ValueRef};
    let sql = match value.clone() {
        Value::Null => Sql::Null,
        Value::Integer(n) => Sql::Integer(n),
        Value::Real(x) => Sql::Real(x),
        Value::Text(text) => Sql::Text(text),
        Value::Blob(bytes) => Sql::Blob(bytes),
    };
    db.execute("DELETE FROM t", []).unwrap();
    db.execute(&format!("INSERT INTO t({column}) VALUES (?)"), [sql])
        .unwrap();
    db.query_row(&format!("SELECT {column} FROM t"), [], |row| {
        Ok(match row.get_ref(0)? {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(n) => Value::Integer(n),
            ValueRef::Real(x) => Value::Real(x),
            ValueRef::Text(text) => Value::Text(String::from_utf8(text.to_vec()).unwrap()),
            ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
        })
    })
    .unwrap()
}

#[test]
fn cf_create_table_says_every_constraint() {
    let table = sample();
    let sql = create_table(&table);
    insta::assert_snapshot!(sql, @r#"
    CREATE TABLE "ta""sks" (
      "id" TEXT PRIMARY KEY NOT NULL,
      "project" TEXT NOT NULL,
      "title" TEXT NOT NULL DEFAULT '' CHECK (length(title) < 9) COLLATE "NOCASE",
      "made" TIMESTAMP DEFAULT (unixepoch() * 1000),
      UNIQUE ("project", "title"),
      FOREIGN KEY ("project") REFERENCES "projects" ("id") ON DELETE CASCADE
    )
    "#);
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch(&sql).unwrap();
    for index in create_indexes(&table) {
        db.execute_batch(&index).unwrap();
        db.execute_batch(&index).unwrap();
    }
}

/// A device that takes a table from the server does not know how its columns are computed.
#[test]
fn cf7_nothing_is_made_of_generated_columns() {
    let mut table = sample();
    let title = table.position("title").unwrap();
    table.columns[title].generated = true;
    table.uniques = vec![vec![1, title], vec![1, 3]];
    table.indexes = vec![vec![title], vec![3], vec![1, title]];
    let mut computed = table.foreign_keys[0].clone();
    computed.columns = vec![title];
    table.foreign_keys.push(computed);
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch(&create_table(&table)).unwrap();
    for index in create_indexes(&table) {
        db.execute_batch(&index).unwrap();
    }
    let count = |of: &str| -> i64 {
        let sql = format!("SELECT count(*) FROM {of}");
        db.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(count("pragma_table_info('ta\"sks')"), 3);
    assert_eq!(count("pragma_index_list('ta\"sks') WHERE origin = 'u'"), 1);
    assert_eq!(count("pragma_index_list('ta\"sks') WHERE origin = 'c'"), 1);
    assert_eq!(count("pragma_foreign_key_list('ta\"sks')"), 1);
}

/// Whatever SQLite takes for a default gives the same value in a table made from what it keeps.
#[test]
fn defaults_of_every_spelling_give_the_same_value() {
    let defaults = [
        "'it''s'",
        "\"in double quotes\"",
        "\"a \"\" b\"",
        "pending",
        "[in brackets]",
        "`ticks`",
        "NULL",
        "true",
        "FALSE",
        "12",
        "-5",
        "+1.50",
        "1e3",
        ".5",
        "0x10",
        "x'00ff'",
        "(1 /* one */ + 1)",
        "(upper('a') -- shout\n)",
        "('(')",
        "current_date",
        "'--'",
        "''",
    ];
    let db = Connection::open_in_memory().unwrap();
    for (i, written) in defaults.into_iter().enumerate() {
        let first = format!("CREATE TABLE a{i}(id INTEGER PRIMARY KEY, d DEFAULT {written})");
        db.execute_batch(&first).unwrap();
        let kept: String = db
            .query_row(
                &format!("SELECT dflt_value FROM pragma_table_info('a{i}') WHERE name = 'd'"),
                [],
                |row| row.get(0),
            )
            .unwrap();
        let mut table = sample();
        table.name = format!("b{i}");
        table.columns.truncate(2);
        (table.uniques, table.indexes, table.foreign_keys) = (Vec::new(), Vec::new(), Vec::new());
        table.columns[0].ty = ColumnType::Integer;
        table.columns[1].name = "d".into();
        table.columns[1].ty = ColumnType::Any;
        table.columns[1].not_null = false;
        table.columns[1].default = Some(default_text(&kept));
        db.execute_batch(&create_table(&table))
            .unwrap_or_else(|e| panic!("{written}: {e}"));
        db.execute_batch(&format!(
            "INSERT INTO a{i} DEFAULT VALUES; INSERT INTO b{i} DEFAULT VALUES"
        ))
        .unwrap();
        let same =
            format!("SELECT a{i}.d IS b{i}.d AND typeof(a{i}.d) = typeof(b{i}.d) FROM a{i}, b{i}");
        let same: bool = db.query_row(&same, [], |row| row.get(0)).unwrap();
        assert!(
            same,
            "{written} is kept as {kept} and read as {}",
            default_text(&kept)
        );
        assert!(is_closed_expression(&default_text(&kept)), "{written}");
    }
}

#[test]
fn no_two_indexes_have_one_name() {
    let names = [
        ("user", &["role_name"][..]),
        ("user_role", &["name"]),
        ("user", &["role", "name"]),
        ("user", &["role.name"]),
        ("user.role", &["name"]),
        ("user", &["role\\", "name"]),
    ];
    let db = Connection::open_in_memory().unwrap();
    for (name, columns) in names {
        let mut table = sample();
        table.name = name.to_owned();
        table.foreign_keys.clear();
        table.uniques.clear();
        table.columns.truncate(1 + columns.len());
        for (column, name) in table.columns[1..].iter_mut().zip(columns) {
            column.name = (*name).to_owned();
            column.check = None;
        }
        let create = create_table(&table).replacen("TABLE", "TABLE IF NOT EXISTS", 1);
        db.execute_batch(&create).unwrap();
        for column in &table.columns[1..] {
            let add = format!(
                "ALTER TABLE {} ADD COLUMN {}",
                quote(name),
                quote(&column.name)
            );
            // Another of the same table has it already.
            let _added = db.execute_batch(&add).is_ok();
        }
        let all: Vec<usize> = (1..=columns.len()).collect();
        db.execute_batch(&create_index(&table, &all, false))
            .unwrap();
        db.execute_batch(&create_index(&table, &all, true)).unwrap();
    }
    let count = "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL";
    let count: i64 = db.query_row(count, [], |row| row.get(0)).unwrap();
    assert_eq!(count, 2 * i64::try_from(names.len()).unwrap());
}

#[test]
fn an_integer_key_is_the_rowid() {
    let mut table = sample();
    table.columns[0].ty = ColumnType::Integer;
    table.autoincrement = true;
    table.foreign_keys.clear();
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch(&create_table(&table)).unwrap();
    db.execute("INSERT INTO \"ta\"\"sks\"(project) VALUES ('p')", [])
        .unwrap();
    let id: i64 = db
        .query_row("SELECT id FROM \"ta\"\"sks\"", [], |row| row.get(0))
        .unwrap();
    assert_eq!(id, 1);
}

fn sample() -> Table {
    let column = |number, name: &str, ty| Column {
        name: name.into(),
        number: ColumnNumber(number),
        ty,
        not_null: false,
        default: None,
        check: None,
        collate: None,
        generated: false,
        computed: None,
        declared: None,
        merge: MergeStrategy::LastWriteWins,
        encrypted: None,
        merge_paths: BTreeMap::new(),
    };
    let mut columns = vec![
        column(1, "id", ColumnType::Uuid),
        column(2, "project", ColumnType::Uuid),
        column(3, "title", ColumnType::Text),
        column(4, "made", ColumnType::Timestamp),
    ];
    columns[1].not_null = true;
    columns[2].not_null = true;
    columns[2].default = Some("''".into());
    columns[2].check = Some("length(title) < 9".into());
    columns[2].collate = Some("NOCASE".into());
    columns[3].default = Some("unixepoch() * 1000".into());
    Table {
        name: "ta\"sks".into(),
        number: TableNumber(16),
        columns,
        primary_key: vec![0],
        uniques: vec![vec![1, 2]],
        indexes: vec![vec![3]],
        foreign_keys: vec![ForeignKey {
            columns: vec![1],
            parent: "projects".into(),
            parent_columns: vec!["id".into()],
            on_delete: OnDelete::Cascade,
        }],
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
