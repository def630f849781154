use syncline_core::{
    ColumnType::{Any, Blob, Integer, Json, Real, Text, Timestamp, Uuid},
    config::{Config, Renamed},
    schema::OnDelete,
};
use syncline_store::SchemaError;

use crate::support::{World, as_is, config, key, reference, table};

fn notes(world: &mut World, tables: &[syncline_core::Table]) -> Vec<String> {
    world.apply(tables).expect("the schema is applied").notes
}

#[test]
fn a_new_table_is_created_with_everything_declared() {
    let mut projects = table("projects", &[("id", Uuid), ("name", Text)]);
    projects.columns[1].not_null = true;
    projects.uniques = vec![vec![1]];
    let mut tasks = table(
        "tasks",
        &[
            ("id", Uuid),
            ("project_id", Uuid),
            ("n", Integer),
            ("x", Real),
            ("at", Timestamp),
        ],
    );
    tasks.columns[2].default = Some("7".into());
    tasks.columns[2].check = Some("n < 100".into());
    tasks.indexes = vec![vec![2, 3]];
    tasks.foreign_keys = vec![reference(1, "projects", OnDelete::Cascade)];
    let mut world = World::empty();
    let said = notes(&mut world, &[projects, tasks]);
    let created = |name: &str| format!("created the table {name}");
    assert_eq!(said, ["projects", "tasks"].map(created));

    world.shell(
        "PRAGMA foreign_keys = ON;
         INSERT INTO projects VALUES ('p', 'one');
         INSERT INTO tasks(id, project_id) VALUES ('t', 'p');",
    );
    let conn = world.other();
    let n: i64 = conn
        .query_row("SELECT n FROM tasks", [], |row| row.get(0))
        .unwrap();
    assert_eq!(n, 7);
    for wrong in [
        "INSERT INTO projects VALUES ('q', 'one')",
        "INSERT INTO projects VALUES ('q', NULL)",
        "INSERT INTO tasks(id, n) VALUES ('u', 100)",
        "INSERT INTO tasks(id, project_id) VALUES ('u', 'none')",
    ] {
        conn.execute_batch(wrong).unwrap_err();
    }
    // Applied again, nothing changes.
    let again = world.schema.tables.clone();
    assert_eq!(notes(&mut world, &again[1..]), Vec::<String>::new());
}

#[test]
fn cf7_a_generated_column_is_made_by_the_database_alone() {
    let columns = [("id", Uuid), ("title", Text), ("upper", Text)];
    let mut tasks = table("tasks", &columns);
    tasks.columns[2].generated = true;
    tasks.uniques = vec![vec![1, 2]];
    tasks.indexes = vec![vec![2]];
    let mut world = World::empty();
    let tables = [tasks];
    notes(&mut world, &tables);
    let columns = |world: &World| -> String {
        let sql = "SELECT group_concat(name) FROM pragma_table_xinfo('tasks')";
        world.other().query_row(sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(columns(&world), "id,title");
    // Started again, with rows, it is the same.
    world.shell("INSERT INTO tasks VALUES ('t', 'milk')");
    for _ in 0..2 {
        world.restart();
        assert_eq!(notes(&mut world, &tables), Vec::<String>::new());
        assert_eq!(columns(&world), "id,title");
        let known = world.schema.table("tasks").unwrap();
        assert!(known.columns[2].generated);
    }
    // While it runs: the schema changes, and what is written then is still seen.
    assert_eq!(world.marks().len(), 1, "the milk");
    world.shell("CREATE INDEX by_title ON tasks(title); INSERT INTO tasks VALUES ('u', 'eggs')");
    assert_eq!(world.marks().len(), 1);
    // Somebody says how it is computed: then its index can be made too.
    world.shell("ALTER TABLE tasks ADD COLUMN upper TEXT AS (upper(title))");
    let said = notes(&mut world, &tables);
    assert_eq!(
        said,
        [
            "made the unique index tasks(title, upper)",
            "made the index tasks(upper)"
        ]
    );
    assert!(world.schema.table("tasks").unwrap().columns[2].generated);
    assert_eq!(notes(&mut world, &tables), Vec::<String>::new());
}

#[test]
fn id8_numbers_are_given_once() {
    let mut world = World::new(&[
        table("a", &[("id", Text), ("x", Text)]),
        table("b", &[("id", Text)]),
    ]);
    let first = world.schema.clone();
    assert_eq!(first.table("syncline_conflicts").unwrap().number.0, 1);
    assert_eq!(
        [
            first.table("a").unwrap().number.0,
            first.table("b").unwrap().number.0
        ],
        [16, 17]
    );
    // Another order, a column more, a table more: nobody's number changes.
    let tables = [
        table("c", &[("id", Text)]),
        table("b", &[("id", Text)]),
        table("a", &[("y", Text), ("id", Text), ("x", Text)]),
    ];
    let mut tables = tables.to_vec();
    tables[2].primary_key = vec![1];
    world.apply(&tables).unwrap();
    let a = world.schema.table("a").unwrap();
    assert_eq!(a.number.0, 16);
    let numbers: Vec<_> = a
        .columns
        .iter()
        .map(|c| (c.name.as_str(), c.number.0))
        .collect();
    assert_eq!(numbers, [("y", 3), ("id", 1), ("x", 2)]);
    assert_eq!(world.number("c").0, 18);
    // A number that was dropped is not given again.
    tables.remove(0);
    world
        .apply_config(&config(&tables), true, &["drop:c"])
        .unwrap();
    tables.push(table("d", &[("id", Text)]));
    world.apply(&tables).unwrap();
    assert_eq!(world.number("d").0, 19);
    world.restart();
    world.apply(&tables).unwrap();
    assert_eq!(world.number("d").0, 19);
}

#[test]
fn columns_and_indexes_are_added() {
    let mut world = World::new(&[
        table("p", &[("id", Text)]),
        table("t", &[("id", Text), ("a", Text)]),
    ]);
    world.shell("INSERT INTO t VALUES ('1', 'x')");
    world.marks();
    let mut more = table(
        "t",
        &[("id", Text), ("a", Text), ("b", Integer), ("p", Text)],
    );
    more.columns[2].not_null = true;
    more.columns[2].default = Some("5".into());
    more.uniques = vec![vec![1]];
    more.indexes = vec![vec![2]];
    more.foreign_keys = vec![reference(3, "p", OnDelete::Cascade)];
    let said = notes(&mut world, &[table("p", &[("id", Text)]), more]);
    assert_eq!(
        said,
        [
            "added the column t.b",
            "added the column t.p",
            "made the unique index t(a)",
            "made the index t(b)"
        ]
    );
    // Adding a column with a default is no change of rows; later writes to it are caught.
    assert_eq!(world.told(), Vec::<String>::new());
    world
        .shell("PRAGMA foreign_keys = ON; INSERT INTO p VALUES ('p'); UPDATE t SET b = 6, p = 'p'");
    world.shell("PRAGMA foreign_keys = ON; DELETE FROM p");
    assert_eq!(
        world.told(),
        [r#"t 1: Text("1") Text("x") Integer(5) Null → nothing"#]
    );
}

#[test]
fn what_loses_data_is_refused_until_it_is_allowed_by_name() {
    let mut world = World::new(&[
        table("a", &[("id", Text), ("x", Text), ("y", Text)]),
        table("b", &[("id", Text)]),
    ]);
    let narrow = [
        table("a", &[("id", Text), ("y", Text)]),
        table("b", &[("id", Text)]),
    ];
    let error = world.apply(&narrow).unwrap_err();
    assert_eq!(
        error.to_string(),
        "dropping a.x would lose data; allow it with --allow drop:a.x"
    );
    let error = world.apply(&narrow[..1]).unwrap_err();
    assert!(
        matches!(&error, SchemaError::Destructive { allow, .. } if allow == "drop:b"),
        "{error}"
    );
    let exists = "SELECT count(x) FROM a";
    world
        .other()
        .query_row(exists, [], |row| row.get::<_, i64>(0))
        .unwrap();

    let allowed = world
        .apply_config(&config(&narrow[..1]), true, &["drop:a.x", "drop:b"])
        .unwrap();
    assert_eq!(
        allowed.notes,
        ["dropped the table b", "dropped the column a.x"]
    );
    world
        .other()
        .query_row(exists, [], |row| row.get::<_, i64>(0))
        .unwrap_err();
    world.shell("INSERT INTO a VALUES ('1', 'still caught')");
    assert_eq!(world.told().len(), 1);
}

#[test]
fn a_dropped_column_takes_its_constraints_and_indexes_along() {
    let mut wide = table(
        "t",
        &[
            ("id", Text),
            ("a", Text),
            ("b", Text),
            ("p", Text),
            ("c", Text),
        ],
    );
    wide.uniques = vec![vec![1]];
    wide.indexes = vec![vec![2, 4], vec![4]];
    wide.foreign_keys = vec![reference(3, "p", OnDelete::Cascade)];
    let parent = table("p", &[("id", Text)]);
    let mut world = World::new(&[parent.clone(), wide]);
    world.shell("INSERT INTO p VALUES ('p'); INSERT INTO t VALUES ('1', 'a', 'b', 'p', 'c')");
    world.marks();
    let mut narrow = table("t", &[("id", Text), ("c", Text)]);
    narrow.indexes = vec![vec![1]];
    let report = world
        .apply_config(
            &config(&[parent, narrow]),
            true,
            &["drop:t.a", "drop:t.b", "drop:t.p"],
        )
        .unwrap();
    assert_eq!(
        report.notes,
        [
            "dropped the column t.a",
            "dropped the column t.b",
            "dropped the column t.p",
            "made the table t anew: constraints held a"
        ]
    );
    assert_eq!(world.told(), Vec::<String>::new());
    world.shell("UPDATE t SET c = 'still caught'; DELETE FROM p WHERE id = 'p'");
    assert_eq!(world.told().len(), 2);
    let indexes = "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND tbl_name = 't'
                   AND sql IS NOT NULL";
    let left: i64 = world
        .other()
        .query_row(indexes, [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 1, "the one over what is still there");
}

#[test]
fn dropping_a_parent_table_leaves_the_rows_that_refer_to_it() {
    let mut child = table("c", &[("id", Text), ("p", Text)]);
    child.foreign_keys = vec![reference(1, "p", OnDelete::Cascade)];
    let mut world = World::new(&[table("p", &[("id", Text)]), child]);
    world.shell("INSERT INTO p VALUES ('p'); INSERT INTO c VALUES ('c', 'p')");
    let alone = table("c", &[("id", Text), ("p", Text)]);
    world
        .apply_config(&config(&[alone]), true, &["drop:p"])
        .unwrap();
    let left: i64 = world
        .other()
        .query_row("SELECT count(*) FROM c", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 1);
}

#[test]
fn renames_keep_numbers_and_rows() {
    let mut world = World::new(&[table("old", &[("id", Text), ("a", Text)])]);
    world.shell("INSERT INTO old VALUES ('1', 'x')");
    world.marks();
    let renamed = Config {
        renamed: vec![
            Renamed {
                table: "new".into(),
                column: None,
                from: "old".into(),
            },
            Renamed {
                table: "new".into(),
                column: Some("b".into()),
                from: "a".into(),
            },
        ],
        ..config(&[table("new", &[("id", Text), ("b", Text)])])
    };
    let report = world.apply_config(&renamed, true, &[]).unwrap();
    assert_eq!(
        report.notes,
        [
            "renamed the table old to new",
            "renamed the column new.a to b"
        ]
    );
    let new = world.schema.table("new").unwrap();
    assert_eq!((new.number.0, new.columns[1].number.0), (16, 2));
    assert_eq!(world.told(), Vec::<String>::new());
    world.shell("UPDATE new SET b = 'y'");
    assert_eq!(
        world.told(),
        [r#"new 1: Text("1") Text("x") → Text("1") Text("y")"#]
    );
    // At the next start there is nothing left to rename.
    assert_eq!(
        world.apply_config(&renamed, true, &[]).unwrap().notes,
        Vec::<String>::new()
    );
}

#[test]
fn a_changed_constraint_makes_the_table_anew() {
    let mut child = table("c", &[("id", Text), ("t", Text)]);
    child.foreign_keys = vec![reference(1, "t", OnDelete::Cascade)];
    let plain = table("t", &[("id", Text), ("a", Text)]);
    let mut world = World::new(&[plain.clone(), child.clone()]);
    world.shell(
        "CREATE INDEX own ON t(a);
         CREATE TABLE audit(id);
         CREATE TRIGGER own_trigger AFTER INSERT ON t BEGIN INSERT INTO audit VALUES (new.id); END;
         CREATE VIEW own_view AS SELECT a FROM t;
         INSERT INTO t VALUES ('1', 'x'), ('2', NULL);
         INSERT INTO c VALUES ('c', '1');",
    );
    world.restart();
    world.apply(&[plain.clone(), child.clone()]).unwrap();
    world.marks();

    let mut strict = plain;
    strict.columns[1].not_null = true;
    strict.columns[1].default = Some("'?'".into());
    let error = world.apply(&[strict.clone(), child.clone()]).unwrap_err();
    assert!(matches!(error, SchemaError::Unsupported(_)), "{error}");
    world.shell("UPDATE t SET a = 'y' WHERE id = '2'");
    world.marks();
    let said = notes(&mut world, &[strict, child]);
    assert_eq!(
        said,
        [r#"made the table t anew: `"a" TEXT` is `"a" TEXT NOT NULL DEFAULT '?'` now"#]
    );
    // No row changed, and everything that hung on the table still does.
    assert_eq!(world.told(), Vec::<String>::new());
    world.shell(
        "PRAGMA foreign_keys = ON; DELETE FROM t WHERE id = '1'; INSERT INTO t(id) VALUES ('3')",
    );
    assert_eq!(world.told().len(), 3, "row, cascade, new row");
    let conn = world.other();
    let count = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM audit WHERE id = '3'"), 1);
    assert_eq!(count("SELECT count(*) FROM own_view"), 2);
    assert_eq!(
        count("SELECT count(*) FROM sqlite_schema WHERE name = 'own'"),
        1
    );
}

#[test]
fn a_table_without_columns_is_taken_as_it_is() {
    let mut world = World::empty();
    world.shell(
        "CREATE TABLE movies(
           title VARCHAR(80) COLLATE NOCASE, year INT, plot TEXT CHECK (length(plot) < 9),
           raw, up GENERATED ALWAYS AS (upper(title)), PRIMARY KEY(title, year));
         INSERT INTO movies VALUES ('Alien', 1979, 'space', 1.5), ('Brazil', 1985, NULL, x'00');",
    );
    let report = world
        .apply_config(&config(&[as_is("movies")]), false, &[])
        .unwrap();
    assert_eq!(report.notes, ["the rows that movies has already sync now"]);
    let movies = world.schema.table("movies").unwrap();
    let types: Vec<_> = movies.columns.iter().map(|column| column.ty).collect();
    assert_eq!(types, [Text, Integer, Text, Any, Any]);
    assert_eq!(movies.primary_key, [0, 1]);
    assert_eq!(movies.columns[0].collate.as_deref(), Some("NOCASE"));
    assert_eq!(movies.columns[2].check.as_deref(), Some("length(plot) < 9"));
    assert!(movies.columns[4].generated);
    assert_eq!(
        world.told(),
        [
            "movies Alien,1979: nothing → Text(\"Alien\") Integer(1979) Text(\"space\") Real(1.5) Null",
            "movies Brazil,1985: nothing → Text(\"Brazil\") Integer(1985) Null Blob([0]) Null",
        ]
    );
    assert_eq!(world.told(), Vec::<String>::new());
    world.shell("ALTER TABLE movies ADD COLUMN rating REAL");
    world.restart();
    let report = world
        .apply_config(&config(&[as_is("movies")]), false, &[])
        .unwrap();
    assert_eq!(report.notes, ["the column movies.rating syncs now"]);
}

/// On a device `"score"` would be the text 'score', the same for every row.
#[test]
fn indexes_and_checks_over_columns_that_do_not_sync_stay_behind() {
    let mut world = World::empty();
    world.shell(
        r#"CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT CHECK (a <> SCORE),
             b TEXT CHECK (b <> 'score'), score TEXT, CHECK ("score" <> b), CHECK (a <> b));
           CREATE UNIQUE INDEX t1 ON t(lower("score"));
           CREATE UNIQUE INDEX t2 ON t(lower(a)) WHERE [score] IS NOT NULL;
           CREATE UNIQUE INDEX t3 ON t(a, score DESC, lower(b));
           CREATE UNIQUE INDEX t4 ON t(lower(a)) WHERE b <> 'score';"#,
    );
    let declared = table("t", &[("id", Text), ("a", Text), ("b", Text)]);
    world
        .apply_config(&config(&[declared]), false, &[])
        .unwrap();
    let t = world.schema.table("t").unwrap();
    let indexes: Vec<_> = t.further_indexes.iter().map(|i| i.terms.as_str()).collect();
    assert_eq!(indexes, ["lower(a)"]);
    assert_eq!(
        t.further_indexes[0].condition.as_deref(),
        Some("b <> 'score'")
    );
    assert_eq!(t.checks, ["a <> b"]);
    let checks: Vec<_> = t.columns.iter().map(|c| c.check.as_deref()).collect();
    assert_eq!(checks, [None, None, Some("b <> 'score'")]);
}

#[test]
fn cf13_a_table_without_columns_merges_as_the_file_says() {
    let mut world = World::empty();
    world.shell("CREATE TABLE notes(id TEXT PRIMARY KEY NOT NULL, tags TEXT, n INTEGER)");
    let file = |merge: &str| {
        let text = format!("[tables.notes]\nread = \"true\"\nmerge = {{ {merge} }}");
        Config::parse("syncline.toml", &text).unwrap()
    };
    world
        .apply_config(&file("tags = \"set\", n = \"counter\""), false, &[])
        .unwrap();
    let notes = world.schema.table("notes").unwrap();
    let merge: Vec<_> = notes.columns.iter().map(|c| c.merge.as_str()).collect();
    assert_eq!(merge, ["last-write-wins", "set", "counter"]);
    world.restart();
    let error = world
        .apply_config(&file("tag = \"set\""), false, &[])
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("syncline.toml:3:11: tables.notes.merge.tag: no column"),
        "{error}"
    );
}

#[test]
fn an_external_schema_is_never_changed() {
    let mut world = World::empty();
    world.shell("CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a, b)");
    let before = world
        .other()
        .query_row(
            "SELECT sql FROM sqlite_schema WHERE name = 't'",
            [],
            |row| row.get::<_, String>(0),
        )
        .unwrap();
    let declared = table("t", &[("id", Uuid), ("a", Json)]);
    world
        .apply_config(&config(&[declared]), false, &[])
        .unwrap();
    assert_eq!(world.schema.table("t").unwrap().columns.len(), 2);
    let missing = table("t", &[("id", Uuid), ("c", Text)]);
    let error = world
        .apply_config(&config(&[missing]), false, &[])
        .unwrap_err();
    assert!(
        error.to_string().starts_with("t.c is not in the database"),
        "{error}"
    );
    // Taken out of the file, it only stops syncing.
    let report = world.apply_config(&config(&[]), false, &[]).unwrap();
    assert_eq!(report.notes, ["the table t does not sync any more"]);
    let after = world
        .other()
        .query_row(
            "SELECT group_concat(sql) FROM sqlite_schema WHERE tbl_name = 't' AND sql IS NOT NULL",
            [],
            |row| row.get::<_, String>(0),
        )
        .unwrap();
    assert_eq!(before, after);
}

#[test]
fn what_cannot_sync_says_what_to_do() {
    let mut world = World::empty();
    world.shell(
        "CREATE TABLE no_key(a); CREATE VIEW v AS SELECT 1 AS id;
         CREATE TABLE nulls(id TEXT PRIMARY KEY); INSERT INTO nulls VALUES (NULL);
         CREATE TABLE typed(id TEXT PRIMARY KEY, n TEXT);",
    );
    let refused = |world: &mut World, table: syncline_core::Table| {
        world.apply(&[table]).unwrap_err().to_string()
    };
    let cases = [
        (as_is("no_key"), "has no primary key"),
        (as_is("v"), "v is a view"),
        (as_is("nulls"), "NULL in the primary key"),
        (as_is("none"), "is not in the database"),
        (
            table("typed", &[("id", Text), ("n", Integer)]),
            "typed.n is TEXT in the database and integer",
        ),
        (
            table("typed", &[("n", Text), ("id", Text)]),
            "the primary key of typed",
        ),
    ];
    for (table, expected) in cases {
        let message = refused(&mut world, table);
        assert!(message.contains(expected), "{message}");
    }
    // Nothing was changed by any of them.
    let ours = "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'syncline_inbox%'";
    let left: i64 = world.other().query_row(ours, [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}

#[test]
fn blobs_and_untyped_values_are_kept_bit_for_bit() {
    let mut world = World::new(&[table("t", &[("id", Text), ("b", Blob), ("a", Any)])]);
    world.shell("INSERT INTO t VALUES ('1', x'00ff', 1), ('2', '', 1.0), ('3', NULL, '1')");
    assert_eq!(
        world.told(),
        [
            r#"t 1: nothing → Text("1") Blob([0, 255]) Integer(1)"#,
            r#"t 2: nothing → Text("2") Text("") Real(1.0)"#,
            r#"t 3: nothing → Text("3") Null Text("1")"#,
        ]
    );
}

#[test]
fn pl13_a_row_whose_key_cannot_travel_does_not_hide_those_after_it() {
    // One comparison of rows looks at 500: the last of them cannot be named, or only otherwise.
    for key_of_last in ["'b' || hex(zeroblob(5000))", "CAST(x'62ff' AS TEXT)"] {
        let mut world = World::empty();
        world.shell(&format!(
            "CREATE TABLE notes(id TEXT PRIMARY KEY NOT NULL, body TEXT);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 499)
             INSERT INTO notes SELECT printf('a%04d', i), '' FROM n;
             INSERT INTO notes VALUES({key_of_last}, ''), ('c', '');",
        ));
        world
            .apply_config(&config(&[as_is("notes")]), false, &[])
            .unwrap();
        let marks = world.marks();
        assert!(marks.len() >= 500);
        assert!(marks.iter().any(|mark| mark.key == key("c")));
    }
}

#[test]
fn cf15_indexes_checks_and_computed_columns_are_made_kept_and_changed() {
    let declared = |text: &str| {
        let text = format!("[tables.people]\nread = \"true\"\nwrite = \"true\"\n{text}");
        Config::parse("t.toml", &text).unwrap()
    };
    let columns = |more: &str| {
        format!(
            "columns = {{ id = \"text primary key\", email = \"text not null\", born = \"integer\", deleted = \"boolean not null default 0\"{more} }}"
        )
    };
    let first = format!(
        "unique = [\"(lower(email)) where deleted = 0\"]\nindexes = [\"(born  DESC, Email collate nocase asc)\"]\nchecks = [\"born > 1800\"]\nstrict = true\n{}",
        columns("")
    );
    let mut world = World::empty();
    let made = world.apply_config(&declared(&first), true, &[]).unwrap();
    assert_eq!(made.notes, ["created the table people"]);
    for wrong in [
        "INSERT INTO people VALUES ('b', 'ANA', 1900, 0)",
        "INSERT INTO people VALUES ('b', 'b', 1700, 0)",
        "INSERT INTO people VALUES ('b', 'b', 'x', 0)",
    ] {
        let sql = format!("INSERT OR IGNORE INTO people VALUES ('a', 'ana', 1900, 0); {wrong}");
        world.other().execute_batch(&sql).expect_err(wrong);
    }
    world.shell("INSERT INTO people VALUES ('c', 'Ana', 1901, 1)");
    for _ in 0..2 {
        world.restart();
        let again = world.apply_config(&declared(&first), true, &[]).unwrap();
        assert_eq!(again.notes, Vec::<String>::new());
    }
    // Another CHECK, another index, columns that are computed.
    let second = first
        .replace("born > 1800", "born > 1850")
        .replace("[\"(born", "[\"(abs(born))\", \"(born")
        .replace(
            " }",
            ", shout = \"text generated always as (upper(email)) stored\", age = \"integer generated always as (2000 - born)\" }",
        );
    let changed = world.apply_config(&declared(&second), true, &[]).unwrap();
    assert_eq!(
        changed.notes,
        [
            "added the column people.shout",
            "added the column people.age",
            "made the table people anew: its constraints changed",
            "made the index people(abs(born))",
        ]
    );
    world.restart();
    let again = world.apply_config(&declared(&second), true, &[]).unwrap();
    assert_eq!(again.notes, Vec::<String>::new());
    let conn = world.other();
    let text = |sql: &str| -> String { conn.query_row(sql, [], |row| row.get(0)).unwrap() };
    assert_eq!(
        text("SELECT shout || age || id FROM people WHERE id = 'c'"),
        "ANA99c"
    );
    assert_eq!(
        text("SELECT group_concat(hidden, '') FROM pragma_table_xinfo('people')"),
        "000032"
    );
    assert_eq!(
        text(
            "SELECT strict || (SELECT count(*) FROM pragma_index_list('people') WHERE origin = 'c') FROM pragma_table_list WHERE name = 'people'"
        ),
        "13"
    );
    conn.execute_batch("UPDATE people SET born = 1840")
        .unwrap_err();
}
