//! Checkpoints (docs/spec/apply.md, AP).

use rusqlite::Connection;
use syncline_core::{
    Value,
    wire::{ClientMessage, ServerMessage, decode_server, encode_server},
};
use syncline_replica::{AttachOptions, Event, ReplicaError, RowState, TableState};

use crate::{
    authority::{Authority, USER, refusal},
    device::{Device, SCHEMA, rows, schema},
};

/// A server and a device in step, with one list.
pub(crate) fn at_rest() -> (Authority, Device) {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.write("INSERT INTO lists VALUES('l1', 'shopping')");
    device.sync(&mut server);
    (server, device)
}

pub(crate) fn item(
    id: &str,
    list: &str,
    title: &str,
    rank: Option<i64>,
) -> (&'static str, Vec<Value>) {
    let rank = rank.map_or(Value::Null, Value::Integer);
    let values = vec![
        id.into(),
        list.into(),
        title.into(),
        Value::Integer(0),
        rank,
    ];
    ("items", values)
}

/// Everything in the file but what changes with every session.
fn dump(conn: &Connection) -> String {
    let names = rows(
        conn,
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'syncline_meta'",
    );
    let table = |name: &str| {
        format!(
            "{name}\n{}\n",
            rows(conn, &format!("SELECT * FROM \"{name}\""))
        )
    };
    names.lines().map(table).collect()
}

#[test]
fn ap1_nothing_shows_before_its_checkpoint() {
    let (mut server, mut device) = at_rest();
    server.write(&[
        ("lists", vec!["l2".into(), "two".into()]),
        item("i1", "l2", "x", None),
    ]);
    let link = device.link.as_mut().unwrap();
    server.send_changes(link);
    assert!(device.download());
    assert_eq!(device.query("SELECT id FROM lists"), "l1");
    server.checkpoint(device.link.as_mut().unwrap());
    assert!(device.download());
    assert_eq!(device.query("SELECT id FROM lists"), "l1\nl2");
    assert_eq!(device.query("SELECT id FROM items"), "i1");
}

#[test]
fn ap1_what_the_app_wrote_meanwhile_is_sealed_before() {
    let (mut server, mut device) = at_rest();
    server.write(&[("lists", vec!["l1".into(), "theirs".into()])]);
    let link = device.link.as_mut().unwrap();
    server.advance(link);
    device.run("UPDATE lists SET name = 'mine'");
    while device.download() {}
    assert_eq!(device.query("SELECT name FROM lists"), "mine");
    device.sync(&mut server);
    assert_eq!(device.query("SELECT name FROM lists"), "mine");
    device.assert_equal(&server);
}

#[test]
fn ap2_the_server_writes_clean_rows_and_shadows_of_dirty_ones() {
    let (mut server, mut device) = at_rest();
    device.write(
        "INSERT INTO items VALUES('i1', 'l1', 'clean', 0, NULL), ('i2', 'l1', 'dirty', 0, NULL)",
    );
    device.sync(&mut server);
    server.is_busy = true;
    device.write("UPDATE items SET done = 1 WHERE id = 'i2'");
    server.write(&[
        item("i1", "l1", "theirs", None),
        item("i2", "l1", "theirs", Some(5)),
    ]);
    device.sync(&mut server);
    let items = "SELECT id, title, done, rank FROM items ORDER BY id";
    assert_eq!(device.query(items), "i1|theirs|0|-\ni2|theirs|1|5");
    assert_eq!(device.query("SELECT count(*) FROM syncline_shadow"), "1");
}

#[test]
fn ap3_version_owner_and_author_are_known_for_each_row() {
    let (mut server, mut device) = at_rest();
    let key = [Value::Text("l1".into())];
    let created = server.end();
    let status = device.replica.row_status("lists", &key).unwrap();
    assert_eq!(
        (status.state, status.version),
        (RowState::Synced, Some(created))
    );
    assert_eq!(status.owner.as_deref(), Some(USER));
    let changed = server.write(&[("lists", vec!["l1".into(), "theirs".into()])]);
    device.sync(&mut server);
    let status = device.replica.row_status("lists", &key).unwrap();
    assert_eq!(status.version, Some(changed));
    assert_eq!(status.created_at.map(|at| at.0), Some(created.0));
    assert_eq!(status.modified_at.map(|at| at.0), Some(changed.0));
    assert_eq!(status.modified_by.as_deref(), Some(USER));
    device.write("UPDATE lists SET name = 'mine'");
    device.seal();
    let status = device.replica.row_status("lists", &key).unwrap();
    assert_eq!((status.state, status.pending.len()), (RowState::Pending, 1));
}

#[test]
fn ap4_a_checkpoint_applied_twice_changes_nothing() {
    let (mut server, mut device) = at_rest();
    device.write("UPDATE lists SET name = 'pending'");
    device.seal();
    server.write(&[
        item("i1", "l1", "new", Some(1)),
        item("i2", "l1", "new", Some(2)),
    ]);
    server.delete("items", &["i2".into()]);
    server.advance(device.link.as_mut().unwrap());
    let frames: Vec<_> = device.link.as_ref().unwrap().out.iter().cloned().collect();
    while device.download() {}
    let once = dump(device.replica.connection());
    device.link.as_mut().unwrap().out.extend(frames);
    while device.download() {}
    assert_eq!(dump(device.replica.connection()), once);
    device.sync(&mut server);
    device.assert_equal(&server);
}

#[test]
fn ap5_triggers_that_maintain_an_index_go_on_and_others_stay_quiet() {
    const TABLES: &str = "
        CREATE TABLE docs(id INTEGER PRIMARY KEY, body TEXT);
        CREATE TABLE audit(doc INTEGER PRIMARY KEY, n INTEGER);
        CREATE VIRTUAL TABLE docs_fts USING fts5(body, content='docs', content_rowid='id');
        CREATE TRIGGER docs_ai AFTER INSERT ON docs BEGIN
          INSERT INTO docs_fts(rowid, body) VALUES (new.id, new.body);
        END;
        CREATE TRIGGER docs_ad AFTER DELETE ON docs BEGIN
          INSERT INTO docs_fts(docs_fts, rowid, body) VALUES('delete', old.id, old.body);
        END;
        CREATE TRIGGER docs_au AFTER UPDATE OF body ON docs WHEN old.body IS NOT new.body BEGIN
          INSERT INTO docs_fts(docs_fts, rowid, body) VALUES('delete', old.id, old.body);
          INSERT INTO docs_fts(rowid, body) VALUES (new.id, new.body);
        END;
        CREATE TRIGGER docs_audit AFTER INSERT ON docs BEGIN
          INSERT INTO audit VALUES(new.id, 1);
        END;";
    let found = |device: &Device, word: &str| {
        device.query(&format!(
            "SELECT group_concat(rowid) FROM docs_fts WHERE docs_fts MATCH '{word}'"
        ))
    };
    let mut server = Authority::new(schema(TABLES));
    let mut device = Device::new(TABLES, 1);
    server.write(&[("docs", vec![Value::Integer(1), "from the page".into()])]);
    device.sync(&mut server);
    assert_eq!(found(&device, "page"), "1");
    server.write(&[
        ("docs", vec![Value::Integer(1), "changed".into()]),
        ("docs", vec![Value::Integer(2), "another".into()]),
    ]);
    device.sync(&mut server);
    assert_eq!(
        (found(&device, "page"), found(&device, "changed")),
        ("-".into(), "1".into())
    );
    // The row of a synced table that a trigger makes comes from the server, which made it.
    assert_eq!(device.query("SELECT count(*) FROM audit"), "0");
    device.assert_equal(&server);

    // What the app itself writes fires its own triggers, once.
    device.write("INSERT INTO docs VALUES(3, 'own words')");
    assert_eq!(found(&device, "own"), "3");
    assert_eq!(device.query("SELECT n FROM audit"), "1");
    device.write("DELETE FROM docs WHERE id = 2");
    device.sync(&mut server);
    assert_eq!(found(&device, "another"), "-");
    device.assert_equal(&server);
    device.query("INSERT INTO docs_fts(docs_fts) VALUES('integrity-check')");

    // A refused edit is undone in the index too.
    server.judge = Box::new(|_| Some(refusal("forbidden", false)));
    device.write("UPDATE docs SET body = 'refused' WHERE id = 1");
    assert_eq!(found(&device, "refused"), "1");
    device.sync(&mut server);
    assert_eq!(
        (found(&device, "refused"), found(&device, "changed")),
        ("-".into(), "1".into())
    );
    device.query("INSERT INTO docs_fts(docs_fts) VALUES('integrity-check')");
}

#[test]
fn ap5_relations_are_not_enforced_while_applying() {
    let (mut server, mut device) = at_rest();
    device
        .replica
        .connection()
        .execute_batch("PRAGMA foreign_keys = ON")
        .unwrap();
    // A child whose parent this user may not see.
    server.write(&[item("i1", "invisible", "child", None)]);
    server.delete("lists", &["l1".into()]);
    device.sync(&mut server);
    assert_eq!(device.query("SELECT list FROM items"), "invisible");
    device.assert_equal(&server);
    assert_eq!(
        device.query("PRAGMA foreign_keys"),
        "1",
        "the app's setting is as it was"
    );
}

#[test]
fn ap7_a_digest_that_differs_has_that_table_loaded_again() {
    let (mut server, mut device) = at_rest();
    server.write(&[item("i1", "l1", "a", None), item("i2", "l1", "b", None)]);
    device.sync(&mut server);
    server.is_busy = true;
    device.write("UPDATE items SET title = 'unsent' WHERE id = 'i2'");
    device.seal();
    // A row and what is known of it got lost: a bug, or a bad disk.
    device
        .replica
        .connection()
        .execute_batch(
            "DELETE FROM syncline_members WHERE t = (SELECT t FROM syncline_tables WHERE name = 'items');
             DELETE FROM syncline_rows WHERE t = (SELECT t FROM syncline_tables WHERE name = 'items')
               AND key = (SELECT min(key) FROM syncline_rows
                          WHERE t = (SELECT t FROM syncline_tables WHERE name = 'items'));
             UPDATE syncline_parts SET count = 1
               WHERE t = (SELECT t FROM syncline_tables WHERE name = 'items');",
        )
        .unwrap();
    server.write(&[item("i3", "l1", "c", None)]);
    server.advance(device.link.as_mut().unwrap());
    while device.download() {}
    let told = |e: &&Event| matches!(e, Event::DigestMismatch { table } if table == "items");
    assert_eq!(device.events.iter().filter(told).count(), 1);
    assert_eq!(
        device.query("SELECT count(*) FROM items"),
        "3",
        "nothing is dropped meanwhile"
    );
    device.upload(&mut server);
    let loads = |device: &Device| {
        let sent = &device.link.as_ref().unwrap().received;
        let loads = sent.iter().filter_map(|message| match message {
            ClientMessage::Load(load) => Some(load.positions.clone()),
            _ => None,
        });
        loads.collect::<Vec<_>>()
    };
    let asked = loads(&device);
    let asked = asked.last().unwrap();
    assert_eq!(
        (asked.len(), asked[0].table),
        (1, server.table("items").number)
    );
    device.sync(&mut server);
    assert_eq!(
        device.query("SELECT title FROM items ORDER BY id"),
        "a\nunsent\nc"
    );
    server.is_busy = false;
    device.disconnect();
    device.sync(&mut server);
    device.assert_equal(&server);
    assert_eq!(device.events.iter().filter(told).count(), 1);
    let status = device.replica.status().unwrap();
    assert!(
        status
            .tables
            .iter()
            .all(|table| table.state == TableState::Live)
    );
}

#[test]
fn ap9_columns_of_a_row_that_is_not_here_are_a_mismatch() {
    let (mut server, mut device) = at_rest();
    let lists = "(SELECT t FROM syncline_tables WHERE name = 'lists')";
    device
        .replica
        .connection()
        .execute_batch(&format!(
            "DELETE FROM syncline_members WHERE t = {lists};
             DELETE FROM syncline_rows WHERE t = {lists};
             UPDATE syncline_parts SET count = 0, sum = 0 WHERE t = {lists};"
        ))
        .unwrap();
    server.write(&[("lists", vec!["l1".into(), "changed".into()])]);
    device.sync(&mut server);
    let told = |e: &&Event| matches!(e, Event::DigestMismatch { table } if table == "lists");
    assert_eq!(device.events.iter().filter(told).count(), 1);
    assert_eq!(device.query("SELECT name FROM lists"), "changed");
    device.assert_equal(&server);
}

#[test]
fn ap10_a_checkpoint_from_the_past_ends_the_session() {
    let (mut server, mut device) = at_rest();
    device.write("INSERT INTO notes VALUES(1, 'a')");
    let old = server.end();
    device.sync(&mut server);
    let newest = device.replica.checkpoint().unwrap().unwrap();
    server.checkpoint(device.link.as_mut().unwrap());
    let frame = device.link.as_mut().unwrap().out.pop_front().unwrap();
    let Ok(ServerMessage::Checkpoint(mut checkpoint)) = decode_server(&frame) else {
        panic!("not a checkpoint");
    };
    checkpoint.cursor.version = old;
    let frame = encode_server(&ServerMessage::Checkpoint(checkpoint));
    device.replica.handle(&frame, device.now).unwrap();
    assert_eq!(device.replica.closing().unwrap().code, "malformed");
    assert_eq!(device.replica.checkpoint().unwrap(), Some(newest));
    device.collect();
    device.sync(&mut server);
    device.assert_equal(&server);
}

/// What happens on the device in [`ap1_killed_at_any_commit_it_goes_on`].
fn busy_day(
    device: &mut Device,
    server: &mut Authority,
    app: &Connection,
) -> Result<(), ReplicaError> {
    let write = |sql: &str| app.execute_batch(sql).unwrap();
    device.try_sync(server)?;
    write(
        "BEGIN; INSERT OR IGNORE INTO lists VALUES('l5', 'mine'); UPDATE notes SET body = body || '!';
         UPDATE syncline_tx SET n = n + 1; COMMIT",
    );
    device.try_sync(server)?;
    server.write(&[
        item("i9", "l5", "theirs", None),
        ("lists", vec!["l5".into(), "theirs".into()]),
    ]);
    write("INSERT OR REPLACE INTO items VALUES('i1', 'l5', 'mine', 1, 9)");
    device.try_sync(server)?;
    device.disconnect();
    write("DELETE FROM lists WHERE id = 'l2'; UPDATE items SET done = 1");
    server.delete("notes", &[Value::Integer(2)]);
    device.try_sync(server)?;
    server.reload = Some(syncline_core::wire::ReloadReason::Horizon);
    device.disconnect();
    write("UPDATE lists SET name = 'last word' WHERE id = 'l5'");
    device.try_sync(server)
}

#[test]
fn ap1_killed_at_any_commit_it_goes_on() {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };
    let before = "INSERT INTO lists VALUES('l1', 'one'), ('l2', 'two');
        INSERT INTO notes VALUES(1, 'x'), (2, 'y');";
    let mut kills = 0;
    for kill_at in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.db");
        let mut server = Authority::new(schema(SCHEMA));
        server.write(&[("notes", vec![Value::Integer(1), "theirs".into()])]);
        let mut conn = Connection::open(&path).unwrap();
        conn.execute_batch(&format!("PRAGMA synchronous = OFF; {SCHEMA} {before}"))
            .unwrap();
        let alive = Arc::new(AtomicU32::new(u32::MAX));
        let left = alive.clone();
        conn.commit_hook(Some(move || {
            let alive = |left: u32| left.checked_sub(1);
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, alive)
                .is_err()
        }))
        .unwrap();
        let mut device = Device::attach(conn, AttachOptions::default(), 1);
        alive.store(kill_at, Ordering::Relaxed);
        let app = Connection::open(&path).unwrap();
        app.execute_batch("PRAGMA synchronous = OFF").unwrap();
        let outcome = busy_day(&mut device, &mut server, &app);
        let is_killed = outcome.is_err();
        kills += u32::from(is_killed);
        let mut device = device.restart(&path);
        let conn = device.replica.connection();
        conn.execute_batch("PRAGMA synchronous = OFF").unwrap();
        busy_day(&mut device, &mut server, &app).unwrap();
        device.assert_equal(&server);
        assert_eq!(device.outbox(), "", "killed at {kill_at}");
        let forked = |e: &&Event| matches!(e, Event::Connected { forked: true, .. });
        assert_eq!(
            device.events.iter().find(forked),
            None,
            "killed at {kill_at}"
        );
        if !is_killed {
            break;
        }
    }
    assert!(kills > 20, "only {kills} commits");
}

/// Two rows swap what is unique, and a row gets another key: what the file alone has of them stays.
#[test]
fn ap6_columns_of_the_files_own_stay_where_a_row_is_taken_out_and_comes_back() {
    let mut server = Authority::new(schema(SCHEMA));
    let item = |id: &str, rank: i64| {
        let texts = [id.into(), Value::Null, Value::Null, Value::Null];
        let row: Vec<Value> = texts.into_iter().chain([Value::Integer(rank)]).collect();
        ("items", row)
    };
    server.write(&[item("a", 1), item("b", 2), item("c", 3)]);
    let own = "ALTER TABLE items ADD COLUMN opened; ALTER TABLE notes ADD COLUMN pinned DEFAULT 0;";
    let mut device = Device::new(&format!("{SCHEMA} {own}"), 1);
    device.sync(&mut server);
    device.run("UPDATE items SET opened = 'at ' || id");
    device.disconnect();
    device.write("INSERT INTO notes VALUES(1, 'mine', 'pinned')");
    server.write(&[("notes", vec![Value::Integer(1), "theirs".into()])]);
    server.write(&[item("a", 2), item("b", 3), item("c", 1)]);
    device.sync(&mut server);
    assert_eq!(
        device.query("SELECT id, rank, opened FROM items ORDER BY id"),
        "a|2|at a\nb|3|at b\nc|1|at c"
    );
    assert_eq!(
        device.query("SELECT body, pinned FROM notes ORDER BY body"),
        "mine|pinned\ntheirs|0"
    );
    assert_eq!(device.outbox(), "");
    device.assert_equal(&server);
}
