//! Names that go from one table or column to another (docs/spec/capture.md, CA12).

use syncline_core::{Table, TableNumber, Value};
use syncline_replica::Event;

use crate::{
    authority::Authority,
    device::{Device, schema},
    migrations::{changed, pushed, there},
};

/// Two tables of one shape, as a staging table and the one in use.
const TWINS: &str = "
    CREATE TABLE drafts(id TEXT PRIMARY KEY NOT NULL, body TEXT, note TEXT);
    CREATE TABLE posts(id TEXT PRIMARY KEY NOT NULL, body TEXT, note TEXT);";
const TWIN_ROWS: &str = "
    INSERT INTO drafts VALUES('d1', 'one', 'x'), ('d2', 'two', 'y');
    INSERT INTO posts VALUES('p1', 'three', 'z');";

fn twins_at_rest() -> (Authority, Device) {
    let mut server = Authority::new(schema(TWINS));
    let mut device = Device::new(TWINS, 1);
    device.write(TWIN_ROWS);
    device.sync(&mut server);
    device.collect();
    device.events.clear();
    device.disconnect();
    (server, device)
}

#[test]
fn ca12_tables_that_swap_their_names_stay_what_they_were() {
    for server_first in [false, true] {
        let (mut server, mut device) = twins_at_rest();
        let swap = |server: &mut Authority| {
            changed(server, "drafts", |t| t.name = "between".into());
            changed(server, "posts", |t| t.name = "drafts".into());
            changed(server, "between", |t| t.name = "posts".into());
        };
        if server_first {
            swap(&mut server);
            device.sync(&mut server);
            assert_eq!(device.query("SELECT id FROM drafts"), "d1\nd2");
            device.disconnect();
        }
        device.run(
            "ALTER TABLE drafts RENAME TO swapped; ALTER TABLE posts RENAME TO drafts;
             ALTER TABLE swapped RENAME TO posts; UPDATE posts SET note = 'edited' WHERE id = 'd1'",
        );
        device.sync(&mut server);
        assert_eq!(pushed(&device), [1], "server first: {server_first}");
        if !server_first {
            assert_eq!(there(&server, "drafts"), "d1|one|edited\nd2|two|y");
            assert_eq!(there(&server, "posts"), "p1|three|z");
            swap(&mut server);
            device.disconnect();
            device.sync(&mut server);
        }
        device.assert_equal(&server);
        assert_eq!(device.query("SELECT id FROM posts"), "d1\nd2");
        let silent = !device
            .events
            .iter()
            .any(|e| matches!(e, Event::Rescanned { .. } | Event::Loading(_)));
        assert!(silent, "{:?}", device.events);
    }
}

#[test]
fn ca12_a_table_renamed_to_a_dropped_ones_name_stays_what_it_was() {
    let (mut server, mut device) = twins_at_rest();
    device.run("DROP TABLE posts; ALTER TABLE drafts RENAME TO posts");
    device.run("UPDATE posts SET note = 'edited' WHERE id = 'd1'");
    device.sync(&mut server);
    assert_eq!(there(&server, "drafts"), "d1|one|edited\nd2|two|y");
    assert_eq!(there(&server, "posts"), "p1|three|z");
    let posts = server.table("posts").number;
    server.schema.tables.retain(|t| t.number != posts);
    server.rows.retain(|(t, _), _| *t != posts);
    changed(&mut server, "drafts", |t| t.name = "posts".into());
    device.disconnect();
    device.run("INSERT INTO posts VALUES('d3', 'four', 'w')");
    device.sync(&mut server);
    device.assert_equal(&server);
    assert_eq!(device.query("SELECT id FROM posts"), "d1\nd2\nd3");
}

#[test]
fn ca12_a_table_made_empty_under_the_old_name_deletes_nothing() {
    let (mut server, mut device) = twins_at_rest();
    device.run(
        "ALTER TABLE posts RENAME TO old_posts;
         CREATE TABLE posts(id TEXT PRIMARY KEY NOT NULL, body TEXT, note TEXT)",
    );
    device.sync(&mut server);
    assert_eq!(there(&server, "posts"), "p1|three|z");
    device.assert_equal(&server);
    assert_eq!(device.query("SELECT id FROM old_posts"), "p1");
}

#[test]
fn ca12_columns_that_swap_their_names_stay_what_they_were() {
    for server_first in [false, true] {
        let (mut server, mut device) = twins_at_rest();
        let swap = |server: &mut Authority| {
            changed(server, "posts", |t| {
                t.columns[1].name = "note".into();
                t.columns[2].name = "body".into();
            });
        };
        if server_first {
            swap(&mut server);
            device.sync(&mut server);
            device.disconnect();
        }
        device.run(
            "ALTER TABLE posts RENAME COLUMN body TO swapped;
             ALTER TABLE posts RENAME COLUMN note TO body;
             ALTER TABLE posts RENAME COLUMN swapped TO note;
             UPDATE posts SET body = 'edited'",
        );
        device.sync(&mut server);
        assert_eq!(pushed(&device), [1], "server first: {server_first}");
        assert_eq!(there(&server, "posts"), "p1|three|edited");
        if !server_first {
            swap(&mut server);
            device.disconnect();
            device.sync(&mut server);
        }
        device.assert_equal(&server);
        assert_eq!(device.query("SELECT note, body FROM posts"), "three|edited");
    }
}

#[test]
fn ca12_a_column_renamed_to_a_dropped_ones_name_stays_what_it_was() {
    let (mut server, mut device) = twins_at_rest();
    device.run(
        "ALTER TABLE posts DROP COLUMN note; ALTER TABLE posts RENAME COLUMN body TO note;
         UPDATE posts SET note = 'edited'",
    );
    device.sync(&mut server);
    assert_eq!(there(&server, "posts"), "p1|edited|z");
    changed(&mut server, "posts", |t| {
        t.columns[2].name = "old".into();
        t.columns[1].name = "note".into();
    });
    device.disconnect();
    device.sync(&mut server);
    assert_eq!(device.query("SELECT * FROM posts"), "p1|edited");
    assert_eq!(there(&server, "posts"), "p1|edited|z");
}

/// Two tables of one shape whose keys are numbers: a row of one could be taken for one of the
/// other.
const NUMBERED: &str = "
    CREATE TABLE drafts(id INTEGER PRIMARY KEY NOT NULL, body TEXT, note TEXT);
    CREATE TABLE posts(id INTEGER PRIMARY KEY NOT NULL, body TEXT, note TEXT);";

fn numbered_at_rest() -> (Authority, Device) {
    let mut server = Authority::new(schema(NUMBERED));
    let mut device = Device::new(NUMBERED, 1);
    device.write(
        "INSERT INTO drafts VALUES(1, 'one', 'x'), (2, 'two', 'y');
         INSERT INTO posts VALUES(1, 'three', 'z'), (2, 'four', 'w');",
    );
    device.sync(&mut server);
    device.collect();
    device.events.clear();
    device.disconnect();
    (server, device)
}

#[test]
fn ca12_what_was_written_before_a_rename_is_not_looked_up_in_the_next_table_of_the_name() {
    for is_sealed in [true, false] {
        let (mut server, mut device) = numbered_at_rest();
        device.run("UPDATE drafts SET note = 'edited'");
        if is_sealed {
            device.seal();
        }
        device.run(
            "ALTER TABLE drafts RENAME TO old_drafts;
             UPDATE old_drafts SET note = 'edited again' WHERE id = 1;
             CREATE TABLE drafts(id INTEGER PRIMARY KEY NOT NULL, body TEXT, note TEXT);
             INSERT INTO drafts VALUES(7, 'mine', 'n')",
        );
        device.sync(&mut server);
        device.disconnect();
        device.sync(&mut server);
        let expected = "-|one|edited again\n-|two|edited\n-|mine|n";
        assert_eq!(there(&server, "drafts"), expected, "sealed: {is_sealed}");
        assert_eq!(there(&server, "posts"), "-|three|z\n-|four|w");
        device.assert_equal(&server);
    }
}

/// The server's table goes, and there is another one under its name with rows of others.
fn replace_posts(server: &mut Authority, device: &mut Device, in_between: bool) {
    let old = server.table("posts").clone();
    server.schema.tables.retain(|t| t.number != old.number);
    server.rows.retain(|(t, _), _| *t != old.number);
    if in_between {
        device.sync(server);
        device.disconnect();
    }
    let number = TableNumber(old.number.0 + 50);
    server.schema.tables.push(Table { number, ..old });
    let row = |id: i64, body: &str| vec![Value::Integer(id), Value::Text(body.into()), Value::Null];
    server.write(&[("posts", row(1, "theirs")), ("posts", row(2, "theirs"))]);
}

#[test]
fn ca12_what_is_unsent_of_a_table_is_not_for_the_servers_next_one_of_that_name() {
    for (is_sealed, in_between) in [(true, false), (false, false), (true, true), (false, true)] {
        let (mut server, mut device) = numbered_at_rest();
        device.run("UPDATE posts SET note = 'edited' WHERE id = 1; DELETE FROM posts WHERE id = 2");
        if is_sealed {
            device.seal();
        }
        replace_posts(&mut server, &mut device, in_between);
        for _ in 0..2 {
            device.sync(&mut server);
            device.disconnect();
        }
        let theirs = "-|theirs|-\n-|theirs|-";
        let at = format!("sealed: {is_sealed}, in between: {in_between}");
        let is_theirs = |server: &Authority| match in_between {
            // Rows of a table that was away are sent when it is back.
            true => there(server, "posts").starts_with(theirs),
            false => there(server, "posts") == theirs,
        };
        assert!(is_theirs(&server), "{at}");
        assert_eq!(device.parked(), ["table_replaced"], "{at}");
        let parked = device.replica.queue(None, 10).unwrap();
        device.replica.discard(parked[0].id).unwrap();
        device.sync(&mut server);
        assert!(is_theirs(&server), "{at}");
        device.assert_equal(&server);
    }
}

#[test]
fn ca12_what_is_unsent_of_a_dropped_table_is_not_for_the_one_that_took_its_name() {
    let (mut server, mut device) = numbered_at_rest();
    device.run("UPDATE drafts SET note = 'edited' WHERE id = 1; DELETE FROM drafts WHERE id = 2");
    let drafts = server.table("drafts").number;
    server.schema.tables.retain(|t| t.number != drafts);
    server.rows.retain(|(t, _), _| *t != drafts);
    changed(&mut server, "posts", |t| t.name = "drafts".into());
    device.sync(&mut server);
    device.disconnect();
    device.sync(&mut server);
    assert_eq!(there(&server, "drafts"), "-|three|z\n-|four|w");
    assert_eq!(
        device.query("SELECT body FROM drafts ORDER BY id"),
        "three\nfour"
    );
    assert_eq!(device.parked(), ["table_replaced"]);
}

#[test]
fn ca12_a_column_made_under_a_renamed_ones_name_empties_nothing() {
    for in_between in [false, true] {
        let (mut server, mut device) = twins_at_rest();
        device.run("ALTER TABLE posts RENAME COLUMN body TO old_body");
        if in_between {
            device.sync(&mut server);
            device.disconnect();
        }
        device.run("ALTER TABLE posts ADD COLUMN body TEXT");
        device.sync(&mut server);
        assert_eq!(there(&server, "posts"), "p1|three|z");
        device.run("UPDATE posts SET old_body = 'edited', note = 'edited'");
        device.sync(&mut server);
        assert_eq!(there(&server, "posts"), "p1|edited|edited");
        device.disconnect();
        // As migrations give a column another type: then it is the server's.
        device.run("UPDATE posts SET body = 'typed'; ALTER TABLE posts DROP COLUMN old_body");
        device.sync(&mut server);
        device.run("UPDATE posts SET note = 'at last'");
        device.sync(&mut server);
        assert_eq!(there(&server, "posts"), "p1|typed|at last");
        device.assert_equal(&server);
    }
}

#[test]
fn ca12_columns_that_move_up_by_one_stay_what_they_were() {
    for server_first in [false, true] {
        let (mut server, mut device) = twins_at_rest();
        let moved = |server: &mut Authority| {
            changed(server, "posts", |t| {
                t.columns[1].name = "note".into();
                t.columns[2].name = "body".into();
                t.columns[2].number.0 += 50;
            });
            for kept in server.rows.values_mut() {
                kept.row.0[2] = Value::Null;
            }
        };
        if server_first {
            moved(&mut server);
            device.sync(&mut server);
            device.disconnect();
        }
        device.run(
            "ALTER TABLE posts DROP COLUMN note; ALTER TABLE posts RENAME COLUMN body TO note;
             ALTER TABLE posts ADD COLUMN body TEXT",
        );
        device.sync(&mut server);
        if !server_first {
            assert_eq!(there(&server, "posts"), "p1|three|z");
            moved(&mut server);
            device.disconnect();
            device.sync(&mut server);
        }
        device.run("UPDATE posts SET body = 'edited'");
        device.sync(&mut server);
        assert_eq!(
            there(&server, "posts"),
            "p1|three|edited",
            "server first: {server_first}"
        );
        assert_eq!(device.query("SELECT note, body FROM posts"), "three|edited");
    }
}

#[test]
fn ca12_a_table_that_cannot_sync_in_anothers_place_waits_once() {
    let (mut server, mut device) = numbered_at_rest();
    device.run("UPDATE posts SET note = 'edited' WHERE id = 1");
    replace_posts(&mut server, &mut device, false);
    changed(&mut server, "posts", |t| t.primary_key = vec![1]);
    server.rows.clear();
    device.sync(&mut server);
    assert_eq!(device.parked(), ["table_gone"]);
    device.events.clear();
    device.run("CREATE TABLE other(id INTEGER PRIMARY KEY NOT NULL)");
    device.sync(&mut server);
    let again = device
        .events
        .iter()
        .any(|e| matches!(e, Event::Connected { .. }));
    assert!(!again, "{:?}", device.events);
    changed(&mut server, "posts", |t| t.primary_key = vec![0]);
    device.disconnect();
    device.sync(&mut server);
    assert_eq!(device.parked(), ["table_replaced"]);
}

#[test]
fn ca12_a_name_that_two_columns_had_one_after_the_other_stops_nothing() {
    let (mut server, mut device) = twins_at_rest();
    device.run(
        "ALTER TABLE posts RENAME COLUMN body TO text; ALTER TABLE posts DROP COLUMN text;
         ALTER TABLE posts RENAME COLUMN note TO text;
         INSERT INTO posts VALUES('p2', 'mine')",
    );
    device.sync(&mut server);
    assert!(there(&server, "posts").starts_with("p1|three|z\np2|"));
    assert_eq!(device.query("SELECT * FROM posts"), "p1|z\np2|mine");
    device.run("UPDATE posts SET text = 'edited'; DELETE FROM posts WHERE id = 'p2'");
    device.sync(&mut server);
    assert_eq!(there(&server, "posts"), "p1|three|z");
}
