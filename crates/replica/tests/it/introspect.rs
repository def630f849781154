//! What is read from an app's tables.

use syncline_core::{ColumnType, schema::OnDelete};
use syncline_replica::{
    capture::Objects,
    introspect::{ProblemReason, introspect, read_table},
};

use crate::fixture::database;

#[test]
fn tables_are_read_as_the_app_made_them() {
    let conn = database(
        "CREATE TABLE projects(id UUID PRIMARY KEY NOT NULL, name VARCHAR(40) COLLATE NOCASE
             CHECK (length(name) > 0), tags JSON DEFAULT '[]', done BOOLEAN, made TIMESTAMP, n DECIMAL,
             price DOUBLE, data BLOB, anything, up TEXT GENERATED ALWAYS AS (upper(name)) STORED);
         CREATE UNIQUE INDEX by_name ON projects(name, made);
         CREATE INDEX by_done ON projects(done DESC);
         CREATE UNIQUE INDEX part ON projects(n) WHERE done = 0;
         CREATE INDEX expr ON projects(lower(name));
         CREATE TABLE \"order\"(\"a b\" INTEGER, c TEXT, p REFERENCES projects ON DELETE CASCADE,
             PRIMARY KEY(c, \"a b\"), FOREIGN KEY(p, c) REFERENCES \"order\"(c, \"a b\") ON DELETE SET NULL)
             WITHOUT ROWID;
         CREATE TABLE log(id INTEGER PRIMARY KEY AUTOINCREMENT, t);
         CREATE TRIGGER app AFTER INSERT ON log BEGIN SELECT 1; END;
         CREATE VIEW v AS SELECT 1;",
    );
    let found = introspect(&conn).unwrap();
    assert_eq!(found.problems, []);
    let [projects, order, log] = &found.tables[..] else {
        panic!("{:?}", found.tables)
    };
    let types: Vec<_> = projects.table.columns.iter().map(|c| c.ty).collect();
    use ColumnType::{Any, Blob, Boolean, Json, Real, Text, Timestamp, Uuid};
    assert_eq!(
        types,
        [
            Uuid, Text, Json, Boolean, Timestamp, Any, Real, Blob, Any, Text
        ]
    );
    let name = &projects.table.columns[1];
    assert_eq!(name.check.as_deref(), Some("length(name) > 0"));
    assert_eq!(name.collate.as_deref(), Some("NOCASE"));
    assert_eq!(projects.table.columns[2].default.as_deref(), Some("'[]'"));
    assert!(projects.table.columns[9].generated);
    assert_eq!(projects.table.uniques, [vec![1, 4]]);
    assert_eq!(projects.table.indexes, Vec::<Vec<usize>>::new());
    let further = projects.table.further_indexes.iter();
    let further: Vec<_> = further
        .map(|i| (i.unique, i.terms.as_str(), i.condition.as_deref()))
        .collect();
    assert_eq!(
        further,
        [
            (true, "\"n\"", Some("done = 0")),
            (false, "\"done\" DESC", None),
            (false, "lower(name)", None),
        ]
    );
    let computed = projects.table.columns[9].computed.as_ref();
    let computed = computed.map(|c| (c.expression.as_str(), c.stored));
    assert_eq!(computed, Some(("upper(name)", true)));
    let declared = projects.table.columns.iter().map(|c| c.declared.as_deref());
    let declared: Vec<_> = declared.flatten().collect();
    assert_eq!(declared, ["VARCHAR(40)", "DECIMAL", "DOUBLE"]);
    assert_eq!(
        projects.notes,
        [
            "index expr is over an expression",
            "unique index part covers only some rows"
        ]
    );
    assert_eq!(order.table.primary_key, [1, 0]);
    assert!(order.table.without_rowid);
    let keys: Vec<_> = order
        .table
        .foreign_keys
        .iter()
        .map(|k| {
            (
                k.parent.as_str(),
                &k.columns[..],
                k.parent_columns.len(),
                k.on_delete,
            )
        })
        .collect();
    assert_eq!(
        keys,
        [
            ("projects", &[2][..], 0, OnDelete::Cascade),
            ("order", &[2, 1][..], 2, OnDelete::SetNull),
        ]
    );
    assert!(log.table.autoincrement);
    assert_eq!(log.triggers[0].name, "app");
    let schema = Objects::read(&conn).unwrap();
    let named = |name| read_table(&conn, &schema, name).unwrap();
    assert_eq!(named("LOG").unwrap().name, "log");
    assert_eq!(named("v"), None);
}

#[test]
fn what_cannot_sync_is_named_with_reason_and_fix() {
    let conn = database(
        "CREATE TABLE nokey(a);
         CREATE TABLE nulls(id TEXT PRIMARY KEY); INSERT INTO nulls VALUES (NULL), ('a'), (NULL);
         CREATE TABLE fine(id TEXT PRIMARY KEY);
         CREATE TABLE odd(id UUID PRIMARY KEY);
         INSERT INTO odd VALUES ('3F2504E0-4f89-11D3-9A0C-0305E82C3301'), ('No UUID at all, of this length!');
         CREATE TABLE same(id UUID PRIMARY KEY);
         INSERT INTO same VALUES ('3F2504E0-4F89-11D3-9A0C-0305E82C3301'),
             ('3f2504e0-4f89-11d3-9a0c-0305e82c3301');
         CREATE TABLE spelled(id UUID PRIMARY KEY);
         INSERT INTO spelled VALUES ('3F2504E0-4F89-11D3-9A0C-0305E82C3301'), ('plain Text');
         CREATE VIRTUAL TABLE search USING fts5(body);
         CREATE TABLE _sqlx_migrations(version PRIMARY KEY);
         CREATE TABLE syncline_something(id PRIMARY KEY);
         CREATE TABLE foreign_vtab_data(id PRIMARY KEY);",
    );
    conn.execute_batch(
        "PRAGMA writable_schema = ON;
         INSERT INTO sqlite_schema VALUES ('table', 'foreign_vtab', 'foreign_vtab', 0,
             'CREATE VIRTUAL TABLE foreign_vtab USING unheard_of(x)');
         PRAGMA writable_schema = RESET;",
    )
    .unwrap();
    let found = introspect(&conn).unwrap();
    let names: Vec<_> = found.tables.iter().map(|t| t.table.name.as_str()).collect();
    assert_eq!(names, ["fine", "spelled"]);
    let reasons: Vec<_> = found
        .problems
        .iter()
        .map(|p| (p.table.as_str(), &p.reason))
        .collect();
    assert!(
        matches!(
            &reasons[..],
            [
                ("nokey", ProblemReason::NoPrimaryKey),
                ("nulls", ProblemReason::NullKeys { rows: 2, .. }),
                ("odd", ProblemReason::OddUuid { .. }),
                ("same", ProblemReason::SameUuid { .. }),
                ("search", ProblemReason::Virtual),
                ("foreign_vtab", ProblemReason::Virtual),
            ]
        ),
        "{reasons:#?}"
    );
    assert!(found.left_out.contains(&"_sqlx_migrations".to_owned()));
    assert!(found.left_out.contains(&"search_data".to_owned()));
    assert!(found.left_out.contains(&"foreign_vtab_data".to_owned()));
    assert!(
        found.problems[1]
            .to_string()
            .contains("give those rows a value in id")
    );
}

#[test]
fn a_collation_of_the_apps_own_in_a_key_cannot_sync() {
    let conn = database(
        "CREATE TABLE t(id TEXT COLLATE NOCASE PRIMARY KEY);
         PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, 'NOCASE', 'turkish') WHERE name = 't';
         PRAGMA writable_schema = RESET;",
    );
    let found = introspect(&conn).unwrap();
    assert!(matches!(
        found.problems[0].reason,
        ProblemReason::ForeignCollation { .. }
    ));
}
