//! Migrations of an app's own tables (docs/spec/capture.md, CA8 and CA11).

use rusqlite::Connection;
use syncline_core::{Op, Table};
use syncline_replica::{AttachOptions, Event, TableChoice};

use crate::{
    authority::Authority,
    device::{Device, schema},
};

const TREE: &str = "
    CREATE TABLE lists(id TEXT PRIMARY KEY NOT NULL, name TEXT, color TEXT);
    CREATE TABLE items(
      id TEXT PRIMARY KEY NOT NULL, list TEXT REFERENCES lists(id) ON DELETE CASCADE, title TEXT);
    CREATE TABLE steps(
      id TEXT PRIMARY KEY NOT NULL, item TEXT REFERENCES items(id) ON DELETE CASCADE, n INTEGER);
    CREATE TABLE tags(
      id TEXT PRIMARY KEY NOT NULL, list TEXT REFERENCES lists(id) ON DELETE SET NULL, tag TEXT);";
const ROWS: &str = "
    INSERT INTO lists VALUES('l1', 'one', 'red'), ('l2', 'two', 'blue');
    INSERT INTO items VALUES('i1', 'l1', 'a'), ('i2', 'l2', 'b'), ('i3', NULL, 'c');
    INSERT INTO steps VALUES('s1', 'i1', 1), ('s2', 'i2', 2), ('s3', 'i3', 3);
    INSERT INTO tags VALUES('t1', 'l1', 'x'), ('t2', NULL, 'y');";

/// A device at rest with a server that has all its rows, not connected.
fn at_rest() -> (Authority, Device) {
    let mut server = Authority::new(schema(TREE));
    let mut device = Device::new(TREE, 1);
    device.write(ROWS);
    device.sync(&mut server);
    device.collect();
    device.events.clear();
    device.disconnect();
    (server, device)
}

fn everything(conn: &Connection) -> String {
    ["lists", "items", "steps", "tags"]
        .map(|table| crate::device::rows(conn, &format!("SELECT * FROM {table} ORDER BY id")))
        .join("\n")
}

/// The ways in which tools make a table anew, on `lists`.
const REBUILDS: [(&str, &str); 3] = [
    (
        "SQLite's twelve steps, Django, Alembic",
        "CREATE TABLE new_lists(id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, color TEXT);
         INSERT INTO new_lists SELECT id, name, color FROM lists;
         DROP TABLE lists;
         ALTER TABLE new_lists RENAME TO lists;",
    ),
    (
        "renamed first",
        "ALTER TABLE lists RENAME TO old_lists;
         CREATE TABLE lists(id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, color TEXT);
         INSERT INTO lists SELECT id, name, color FROM old_lists;
         DROP TABLE old_lists;",
    ),
    (
        "over a temporary table",
        "CREATE TEMP TABLE kept AS SELECT * FROM lists;
         DROP TABLE lists;
         CREATE TABLE lists(id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, color TEXT);
         INSERT INTO lists SELECT * FROM kept;
         DROP TABLE kept;",
    ),
];

#[test]
fn ca11_rows_that_a_rebuild_took_along_come_back_and_are_not_sent() {
    for (how, rebuild) in REBUILDS {
        let (mut server, mut device) = at_rest();
        let before = everything(device.replica.connection());
        device.run(&format!(
            "PRAGMA foreign_keys = ON; BEGIN; {rebuild} COMMIT"
        ));
        assert_ne!(everything(device.replica.connection()), before, "{how}");
        device.seal();
        assert_eq!(everything(device.replica.connection()), before, "{how}");
        assert_eq!(device.parked(), ["dropped_table_cascade"], "{how}");
        device.sync(&mut server);
        assert_eq!(everything(device.replica.connection()), before, "{how}");
        assert_eq!(device.replica.status().unwrap().waiting, 0, "{how}");
        device.assert_equal(&server);
        let told = device.events.iter().any(|event| {
            matches!(event, Event::ChangeRefused { code, .. } if code == "dropped_table_cascade")
        });
        assert!(told, "{how}");
        device.run("UPDATE items SET title = 'edited' WHERE id = 'i1'");
        device.sync(&mut server);
        device.assert_equal(&server);
    }
}

#[test]
fn ca11_what_was_parked_can_be_meant_after_all() {
    let (mut server, mut device) = at_rest();
    device.run(&format!("PRAGMA foreign_keys = ON; {}", REBUILDS[0].1));
    device.seal();
    let parked = device.replica.queue(None, 10).unwrap();
    device.replica.retry(parked[0].id, device.now).unwrap();
    device.sync(&mut server);
    assert_eq!(device.query("SELECT id FROM items"), "i3");
    assert_eq!(device.query("SELECT id FROM steps"), "s3");
    assert_eq!(device.query("SELECT id, list FROM tags"), "t1|-\nt2|-");
    device.assert_equal(&server);
}

#[test]
fn ca11_what_the_app_wrote_around_a_rebuild_is_sent() {
    let (mut server, mut device) = at_rest();
    device.run("DELETE FROM items WHERE id = 'i3'; UPDATE tags SET tag = 'edited', list = 'l2'");
    device.seal();
    device.run("UPDATE tags SET tag = 'edited again' WHERE id = 't1'");
    device.run(&format!(
        "PRAGMA foreign_keys = ON; BEGIN; {} COMMIT",
        REBUILDS[0].1
    ));
    device.run(
        "INSERT INTO items VALUES('i4', 'l1', 'd'); UPDATE lists SET name = 'eins' WHERE id = 'l1'",
    );
    device.sync(&mut server);
    assert_eq!(
        device.query("SELECT id FROM items ORDER BY id"),
        "i1\ni2\ni4"
    );
    assert_eq!(
        device.query("SELECT id, list, tag FROM tags"),
        "t1|l2|edited again\nt2|l2|edited"
    );
    assert_eq!(device.query("SELECT name FROM lists"), "eins\ntwo");
    device.assert_equal(&server);
}

#[test]
fn ca11_rows_deleted_before_a_rebuild_without_foreign_keys_are_deleted() {
    for (_, rebuild) in REBUILDS {
        let (mut server, mut device) = at_rest();
        device.run(&format!(
            "PRAGMA foreign_keys = OFF; DELETE FROM items WHERE id = 'i1'; {rebuild}"
        ));
        device.sync(&mut server);
        assert_eq!(device.query("SELECT id FROM items"), "i2\ni3");
        assert!(device.parked().is_empty());
        device.assert_equal(&server);
    }
}

#[test]
fn ca11_children_of_rows_that_were_left_out_of_the_copy_are_deleted() {
    let (mut server, mut device) = at_rest();
    let rebuild = REBUILDS[0]
        .1
        .replace("FROM lists;", "FROM lists WHERE id = 'l1';");
    device.run(&format!("PRAGMA foreign_keys = ON; {rebuild}"));
    device.sync(&mut server);
    assert_eq!(device.query("SELECT id FROM lists"), "l1");
    assert_eq!(device.query("SELECT id FROM items ORDER BY id"), "i1\ni3");
    assert_eq!(device.query("SELECT id FROM steps ORDER BY id"), "s1\ns3");
    device.assert_equal(&server);
}

#[test]
fn ca11_holds_for_rows_whose_own_table_was_made_anew_before() {
    let (mut server, mut device) = at_rest();
    let before = everything(device.replica.connection());
    device.run(&format!(
        "PRAGMA foreign_keys = ON;
         CREATE TABLE n(id TEXT PRIMARY KEY NOT NULL, list TEXT REFERENCES lists(id) ON DELETE CASCADE, title TEXT);
         INSERT INTO n SELECT * FROM items; DROP TABLE items; ALTER TABLE n RENAME TO items;
         CREATE TABLE n(id TEXT PRIMARY KEY NOT NULL, list TEXT REFERENCES lists(id) ON DELETE SET NULL, tag TEXT);
         INSERT INTO n SELECT * FROM tags; DROP TABLE tags; ALTER TABLE n RENAME TO tags;
         {}",
        REBUILDS[0].1
    ));
    device.sync(&mut server);
    assert_eq!(everything(device.replica.connection()), before);
    device.assert_equal(&server);
}

/// Rows of a table on the server, in order of their keys.
pub(crate) fn there(server: &Authority, table: &str) -> String {
    let number = server.table(table).number;
    let rows = server.rows.iter().filter(|((t, _), _)| *t == number);
    let lines = rows.map(|(_, kept)| {
        let texts = kept
            .row
            .0
            .iter()
            .map(|value| value.as_text().unwrap_or("-"));
        texts.collect::<Vec<_>>().join("|")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// How many rows the device has pushed on this connection, and in which columns.
pub(crate) fn pushed(device: &Device) -> Vec<usize> {
    let changes = device.pushed().into_iter().flat_map(|c| c.changes);
    let edits = changes.map(|change| match change.op {
        Op::Insert(edits) | Op::Update(edits) => edits.len(),
        Op::Delete => 0,
    });
    edits.collect()
}

/// The tables of the server, with one changed by `change`.
pub(crate) fn changed(server: &mut Authority, table: &str, change: impl FnOnce(&mut Table)) {
    change(
        server
            .schema
            .tables
            .iter_mut()
            .find(|t| t.name == table)
            .unwrap(),
    );
}

#[test]
fn ca12_a_renamed_column_stays_the_servers() {
    let (mut server, mut device) = at_rest();
    device.run("UPDATE lists SET color = 'green' WHERE id = 'l1'");
    device.seal();
    device.run(
        "UPDATE lists SET color = 'grey' WHERE id = 'l2'; ALTER TABLE lists RENAME COLUMN color TO colour;
         UPDATE lists SET colour = 'black' WHERE id = 'l2'",
    );
    device.sync(&mut server);
    assert_eq!(there(&server, "lists"), "l1|one|green\nl2|two|black");
    assert_eq!(pushed(&device), [1, 1]);
    device.run("UPDATE lists SET colour = 'white' WHERE id = 'l2'");
    server.write(&[(
        "lists",
        vec!["l1".into(), "one".into(), "by the server".into()],
    )]);
    device.sync(&mut server);
    assert_eq!(
        there(&server, "lists"),
        "l1|one|by the server\nl2|two|white"
    );
    assert_eq!(
        device.query("SELECT colour FROM lists"),
        "by the server\nwhite"
    );
    // The server follows.
    changed(&mut server, "lists", |t| {
        t.columns[2].name = "colour".into();
    });
    device.disconnect();
    device.run("UPDATE lists SET colour = 'last' WHERE id = 'l2'");
    device.sync(&mut server);
    device.assert_equal(&server);
    let silent = !device
        .events
        .iter()
        .any(|e| matches!(e, Event::Rescanned { .. } | Event::Loading(_)));
    assert!(silent, "{:?}", device.events);
}

#[test]
fn ca12_a_renamed_table_stays_the_servers() {
    let (mut server, mut device) = at_rest();
    device.run("UPDATE lists SET color = 'green' WHERE id = 'l1'");
    device.seal();
    device.run(
        "UPDATE lists SET color = 'grey' WHERE id = 'l2'; ALTER TABLE lists RENAME TO folders;
         INSERT INTO folders VALUES('l3', 'three', 'new')",
    );
    device.sync(&mut server);
    assert_eq!(
        there(&server, "lists"),
        "l1|one|green\nl2|two|grey\nl3|three|new"
    );
    server.write(&[(
        "lists",
        vec!["l1".into(), "one".into(), "by the server".into()],
    )]);
    device.run("UPDATE folders SET color = 'white' WHERE id = 'l2'");
    device.sync(&mut server);
    assert_eq!(
        there(&server, "lists"),
        "l1|one|by the server\nl2|two|white\nl3|three|new"
    );
    assert_eq!(
        device.query("SELECT color FROM folders"),
        "by the server\nwhite\nnew"
    );
    changed(&mut server, "lists", |t| t.name = "folders".into());
    device.disconnect();
    device.run("UPDATE folders SET color = 'last' WHERE id = 'l2'");
    device.sync(&mut server);
    device.assert_equal(&server);
    assert!(device.parked().is_empty());
}

#[test]
fn ca12_what_the_server_renamed_goes_on_under_the_old_names_here() {
    let (mut server, mut device) = at_rest();
    device.run("UPDATE lists SET color = 'green' WHERE id = 'l1'");
    device.seal();
    changed(&mut server, "lists", |t| {
        t.columns[2].name = "colour".into();
        t.name = "folders".into();
    });
    for missing in [false, true] {
        device.sync(&mut server);
        assert_eq!(
            there(&server, "folders"),
            "l1|one|green\nl2|two|blue",
            "{missing}"
        );
        server.write(&[(
            "folders",
            vec!["l2".into(), "two".into(), "by the server".into()],
        )]);
        device.run("UPDATE lists SET color = 'red' WHERE id = 'l1'");
        device.sync(&mut server);
        assert_eq!(
            there(&server, "folders"),
            "l1|one|red\nl2|two|by the server"
        );
        assert_eq!(
            device.query("SELECT color FROM lists"),
            "red\nby the server"
        );
        server.write(&[("folders", vec!["l2".into(), "two".into(), "blue".into()])]);
        device.run("UPDATE lists SET color = 'green' WHERE id = 'l1'");
    }
    // Now the app follows, in its own way.
    device.disconnect();
    device.run(
        "CREATE TABLE folders(id TEXT PRIMARY KEY NOT NULL, name TEXT, colour TEXT);
         INSERT INTO folders SELECT * FROM lists; DROP TABLE lists;
         UPDATE folders SET colour = 'migrated' WHERE id = 'l2'",
    );
    device.sync(&mut server);
    assert_eq!(there(&server, "folders"), "l1|one|green\nl2|two|migrated");
    device.assert_equal(&server);
}

#[test]
fn lb7_a_table_that_the_server_renames_takes_over_none_that_was_not_chosen() {
    let mut server = Authority::new(schema(TREE));
    let here = format!(
        "{TREE} {ROWS} CREATE TABLE diary(id TEXT PRIMARY KEY NOT NULL, name TEXT, color TEXT);
         INSERT INTO diary VALUES('d1', 'private', NULL);"
    );
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch(&here).unwrap();
    let options = AttachOptions {
        tables: TableChoice::Only(vec!["lists".into(), "items".into()]),
        ..AttachOptions::default()
    };
    let mut device = Device::attach(conn, options, 1);
    device.sync(&mut server);
    changed(&mut server, "lists", |t| t.name = "diary".into());
    device.disconnect();
    device.run("DROP TABLE lists");
    device.sync(&mut server);
    assert_eq!(there(&server, "diary"), "l1|one|red\nl2|two|blue");
    assert_eq!(device.query("SELECT * FROM diary"), "d1|private|-");
}

#[test]
fn lb7_a_table_that_the_server_calls_like_the_librarys_own_stays_apart() {
    let (mut server, mut device) = at_rest();
    changed(&mut server, "lists", |t| t.name = "syncline_tables".into());
    device.sync(&mut server);
    let left_out =
        |e: &Event| matches!(e, Event::TablesLeftOut { tables } if tables[0].0 == "lists");
    assert!(device.events.iter().any(left_out), "{:?}", device.events);
    device.write("INSERT INTO items VALUES('i9', NULL, 'z')");
    device.sync(&mut server);
    assert!(there(&server, "items").contains("i9|-|z"));
}

#[test]
fn ca12_a_default_of_the_servers_is_not_run_here() {
    // The file knows no function of this name, and the second fails.
    for default in ["secret_of('file')", "abs(-9223372036854775807 - 1)"] {
        let (mut server, mut device) = at_rest();
        let lists = server.table("lists").number;
        changed(&mut server, "lists", |t| {
            let mut column = t.columns[1].clone();
            column.name = "size".into();
            column.number.0 += 100;
            column.default = Some(default.into());
            t.columns.push(column);
        });
        for ((table, _), kept) in &mut server.rows {
            if *table == lists {
                kept.row.0.push("filled".into());
            }
        }
        device.run("ALTER TABLE lists ADD COLUMN size TEXT");
        device.sync(&mut server);
        assert_eq!(
            device.query("SELECT id, size FROM lists"),
            "l1|filled\nl2|filled"
        );
        assert_eq!(pushed(&device), [] as [usize; 0], "{default}");
        device.assert_equal(&server);
    }
}

#[test]
fn ca8_a_dropped_column_is_nobody_elses_loss() {
    let drops = [
        "ALTER TABLE lists DROP COLUMN color;",
        "CREATE TABLE n(id TEXT PRIMARY KEY NOT NULL, name TEXT); INSERT INTO n SELECT id, name FROM lists;
         DROP TABLE lists; ALTER TABLE n RENAME TO lists;",
    ];
    for drop in drops {
        for is_opened_anew in [false, true] {
            let (mut server, mut device) = at_rest();
            device.run("UPDATE lists SET color = 'unsent', name = 'eins' WHERE id = 'l1'");
            device.seal();
            device.run(&format!(
                "PRAGMA foreign_keys = OFF; BEGIN; {drop} UPDATE lists SET name = 'zwei' WHERE id = 'l2';
                 INSERT INTO lists VALUES('l3', 'drei'); COMMIT"
            ));
            if is_opened_anew {
                device.seal();
            }
            // Somebody else's, which this device has not seen.
            server.write(&[("lists", vec!["l2".into(), "two".into(), "theirs".into()])]);
            server.write(&[("lists", vec!["l9".into(), "nine".into(), "nine".into()])]);
            device.sync(&mut server);
            device.sync(&mut server);
            assert_eq!(device.replica.check_local(10, device.now).unwrap(), []);
            device.run("UPDATE lists SET name = 'neun' WHERE id = 'l9'");
            device.sync(&mut server);
            let rows = there(&server, "lists");
            assert_eq!(rows.lines().next().unwrap(), "l1|eins|unsent", "{drop}");
            assert!(rows.contains("l3|drei|-\nl9|neun|nine"), "{drop}: {rows}");
            assert!(rows.contains("|theirs"), "{drop}: {rows}");
            assert_eq!(
                device.query("SELECT id, name FROM lists").lines().next(),
                Some("l1|eins")
            );
            assert!(
                device.parked().is_empty(),
                "{drop} {is_opened_anew} {:?}",
                device.replica.queue(None, 10)
            );
            // It comes again, with what it had.
            device.run("ALTER TABLE lists ADD COLUMN color TEXT DEFAULT 'none'");
            device.sync(&mut server);
            device.assert_equal(&server);
            assert!(there(&server, "lists").contains("l1|eins|unsent"));
        }
    }
}

#[test]
fn ca8_a_rebuild_without_a_column_sends_only_what_changed() {
    let (mut server, mut device) = at_rest();
    device.run(
        "PRAGMA foreign_keys = OFF; BEGIN;
         CREATE TABLE n(id TEXT PRIMARY KEY NOT NULL, name TEXT); INSERT INTO n SELECT id, name FROM lists;
         DROP TABLE lists; ALTER TABLE n RENAME TO lists;
         UPDATE lists SET name = 'zwei' WHERE id = 'l2'; COMMIT",
    );
    device.seal();
    device.run("UPDATE lists SET name = name || '!' WHERE id = 'l2'");
    device.sync(&mut server);
    assert_eq!(there(&server, "lists"), "l1|one|red\nl2|zwei!|blue");
    let edits: usize = pushed(&device).into_iter().sum();
    assert!(edits <= 2, "{:?}", device.pushed());
}
