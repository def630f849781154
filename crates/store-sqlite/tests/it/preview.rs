//! What another configuration would do, told without doing it.

use syncline_core::{
    ColumnType::{Integer, Text},
    config::Renamed,
};
use syncline_store::SchemaOptions;
use syncline_store_sqlite::{OpenError, Preview, PreviewError, preview};

use crate::support::{World, config, table};

fn options(allow: &[&str]) -> SchemaOptions {
    SchemaOptions {
        managed: true,
        allow: allow.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn id8_a_preview_tells_what_a_start_does_and_does_nothing() {
    let mut world = World::new(&[
        table("a", &[("id", Text), ("x", Text), ("y", Text)]),
        table("b", &[("id", Text)]),
        table("c", &[("id", Text), ("old", Text)]),
    ]);
    world.shell(
        "INSERT INTO a VALUES ('1', 'x', 'y'); CREATE VIRTUAL TABLE search USING fts5(y, content=a);
         CREATE INDEX own ON a(y); CREATE VIEW v AS SELECT y FROM a",
    );
    world.told();
    let path = world.path();
    let mut next = config(&[
        table("a", &[("id", Text), ("y", Text), ("z", Integer)]),
        table("renamed", &[("id", Text), ("new", Text)]),
        table("d", &[("id", Text)]),
    ]);
    next.renamed = vec![
        Renamed {
            table: "renamed".into(),
            column: None,
            from: "c".into(),
        },
        Renamed {
            table: "renamed".into(),
            column: Some("new".into()),
            from: "old".into(),
        },
    ];
    let schema = |world: &World| -> Vec<String> {
        let conn = world.other();
        let mut statement = conn.prepare("SELECT sql FROM sqlite_schema").unwrap();
        let texts = statement.query_map([], |row| Ok(format!("{:?}", row.get_ref(0)?)));
        texts.unwrap().map(Result::unwrap).collect()
    };
    let before = schema(&world);
    // The storage is open, as by a server that runs.
    let told = preview(&path, &next, &options(&[])).unwrap();
    let refused: Vec<_> = told.refused.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(refused, ["drop:b", "drop:a.x"]);
    assert_eq!(schema(&world), before);
    let allowed = preview(&path, &next, &options(&["drop:b", "drop:a.x"])).unwrap();
    assert_eq!(allowed.refused, []);
    assert_eq!(allowed.notes, told.notes);
    let done = world
        .apply_config(&next, true, &["drop:b", "drop:a.x"])
        .unwrap();
    assert_eq!(done.notes, told.notes);
    assert_eq!(
        preview(&path, &next, &options(&[])).unwrap(),
        Preview::default()
    );
}

#[test]
fn a_preview_says_why_it_cannot() {
    let world = World::new(&[table("a", &[("id", Text)])]);
    let other = table("a", &[("id", Integer)]);
    let error = preview(&world.path(), &config(&[other]), &options(&[])).unwrap_err();
    assert!(matches!(error, PreviewError::Schema(_)), "{error}");

    let new = world.path().with_file_name("new.db");
    let told = preview(&new, &config(&[table("a", &[("id", Text)])]), &options(&[])).unwrap();
    assert_eq!(told.notes, ["created the table a"]);
    assert!(!new.exists());

    let app = world.path().with_file_name("app.db");
    let conn = rusqlite::Connection::open(&app).unwrap();
    conn.execute_batch("CREATE TABLE a(id)").unwrap();
    let error = preview(&app, &config(&[]), &options(&[])).unwrap_err();
    assert!(
        matches!(error, PreviewError::Open(OpenError::Damaged { .. })),
        "{error}"
    );
}
