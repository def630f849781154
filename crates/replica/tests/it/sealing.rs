//! From marks to changesets (docs/spec/capture.md, SL).

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use rusqlite::Connection;
use syncline_core::{Edit, MergeStrategy, Op, Timestamp, Value, Version};
use syncline_replica::{AttachOptions, Replica, ReplicaError};

use crate::{
    authority::{Authority, refusal},
    device::{Device, SCHEMA, schema},
};

/// A device and a server that hold one list, everything at rest.
fn at_rest() -> (Authority, Device) {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.write("INSERT INTO lists VALUES('l1', 'shopping')");
    device.sync(&mut server);
    (server, device)
}

#[test]
fn sl6_another_changeset_of_the_same_id_is_an_error_and_neither_is_lost() {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch(SCHEMA).unwrap();
    let dice = Arc::new(AtomicU8::new(1));
    let thrown = Arc::clone(&dice);
    let chance = move |bytes: &mut [u8]| bytes.fill(thrown.load(Ordering::Relaxed));
    let options = AttachOptions::default();
    let mut replica = Replica::attach(conn, options, Box::new(chance)).unwrap();
    let now = Timestamp(1_700_000_000_000_000);
    let write = |replica: &mut Replica, id: &str| {
        let sql = format!("INSERT INTO lists VALUES('{id}', 'a list')");
        replica.write(|conn| {
            conn.execute_batch(&sql).unwrap();
            Ok::<_, ReplicaError>(())
        })
    };
    write(&mut replica, "l1").unwrap();
    replica.seal(now).unwrap();
    write(&mut replica, "l2").unwrap();
    let error = replica.seal(now).unwrap_err();
    assert!(
        format!("{error:?}").contains("syncline_outbox.id"),
        "{error:?}"
    );
    assert_eq!(replica.queue(None, 100).unwrap().len(), 1);
    dice.store(2, Ordering::Relaxed);
    replica.seal(now).unwrap();
    let queue = replica.queue(None, 100).unwrap();
    assert_eq!(queue.len(), 2);
    assert_eq!(replica.check_local(10, now).unwrap(), []);
}

#[test]
fn sl3_differences_follow_the_strategy_of_the_column() {
    const TABLE: &str =
        "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, n INTEGER, tags TEXT, m TEXT, w TEXT);";
    let mut tables = schema(TABLE);
    let table = tables.tables.iter_mut().find(|t| t.name == "t").unwrap();
    for (position, strategy) in [
        (1, MergeStrategy::Counter),
        (2, MergeStrategy::Set),
        (3, MergeStrategy::Manual),
    ] {
        table.columns[position].merge = strategy;
    }
    table.columns[2].ty = syncline_core::ColumnType::Json;
    let mut server = Authority::new(tables);
    let mut device = Device::new(TABLE, 1);
    device.write(r#"INSERT INTO t VALUES('a', 5, '["x"]', 'old', 'old')"#);
    device.sync(&mut server);
    device.write(r#"UPDATE t SET n = n + 3, tags = '["y"]', m = 'new', w = 'new'"#);
    device.push(&mut server);
    let pushed = device.pushed();
    let Op::Update(edits) = &pushed.last().unwrap().changes[0].op else {
        panic!("not an update: {pushed:?}");
    };
    let edits: Vec<_> = edits.iter().map(|edit| edit.edit.clone()).collect();
    assert_eq!(
        edits,
        [
            Edit::Add(Value::Integer(3)),
            Edit::Items {
                add: vec!["\"y\"".into()],
                remove: vec!["\"x\"".into()]
            },
            Edit::Decide {
                base: "old".into(),
                new: "new".into()
            },
            Edit::Set("new".into()),
        ]
    );
}

#[test]
fn sl4_later_changes_of_a_row_have_the_base_of_the_first() {
    let (mut server, mut device) = at_rest();
    let first = server.end();
    device.write("UPDATE lists SET name = 'one'");
    device.seal();
    // Another device changes the row; the answer to ours is lost on the way.
    server.write(&[("lists", vec!["l1".into(), "theirs".into()])]);
    server.is_busy = true;
    device.sync(&mut server);
    assert_eq!(device.query("SELECT name FROM lists"), "one");
    device.write("UPDATE lists SET name = 'two'");
    device.seal();
    let bases: Vec<Version> = device
        .replica
        .queue(None, 10)
        .unwrap()
        .iter()
        .map(|changeset| changeset.changes[0].change.base)
        .collect();
    assert_eq!(bases, [first, first]);

    server.is_busy = false;
    device.disconnect();
    device.sync(&mut server);
    device.assert_equal(&server);
    device.write("UPDATE lists SET name = 'three'");
    device.seal();
    let queue = device.replica.queue(None, 10).unwrap();
    assert_eq!(queue.len(), 1);
    assert_eq!(queue[0].changes[0].change.base, server.end());
}

#[test]
fn sl5_the_servers_image_is_kept_under_unsent_changes() {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.write(
        "INSERT INTO lists VALUES('l1', 'shopping');
         INSERT INTO items VALUES('i1', 'l1', 'milk', 0, NULL)",
    );
    device.sync(&mut server);
    server.judge = Box::new(|_| Some(refusal("forbidden", false)));
    device.write("UPDATE items SET title = 'mine'");
    device.seal();
    device.write("UPDATE items SET done = 1");
    device.seal();
    server.write(&[(
        "items",
        vec![
            "i1".into(),
            "l1".into(),
            "theirs".into(),
            Value::Integer(0),
            Value::Integer(7),
        ],
    )]);
    device.sync(&mut server);
    // Both were refused: what is left is the server's row as it is by now.
    assert_eq!(device.outbox(), "pp");
    assert_eq!(device.query("SELECT * FROM items"), "i1|l1|theirs|0|7");
    device.assert_equal(&server);
    assert_eq!(device.query("SELECT count(*) FROM syncline_shadow"), "0");
}

#[test]
fn sl6_dependencies_are_rows_touched_and_rows_referenced() {
    let (mut server, mut device) = at_rest();
    server.is_busy = true;
    for sql in [
        "INSERT INTO lists VALUES('l2', 'work')",
        "INSERT INTO notes VALUES(1, 'alone')",
        "INSERT INTO items VALUES('i1', 'l2', 'child of the first', 0, NULL)",
        "UPDATE lists SET name = 'renamed' WHERE id = 'l2'",
        "INSERT INTO items VALUES('i2', 'l1', 'child of an old row', 0, NULL)",
        "UPDATE items SET list = 'l2' WHERE id = 'i2'",
    ] {
        device.write(sql);
        device.seal();
    }
    device.push(&mut server);
    server.is_busy = false;
    device.disconnect();
    device.connect();
    while device.pushed().len() < 6 {
        device.upload(&mut server);
        device.download();
    }
    let pushed = device.pushed();
    let first = pushed[0].number;
    let numbers: Vec<_> = pushed.iter().map(|c| c.number - first + 1).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    let depends: Vec<Vec<u64>> = pushed
        .iter()
        .map(|c| c.depends.iter().map(|n| n - first + 1).collect())
        .collect();
    assert_eq!(
        depends,
        [vec![], vec![], vec![1], vec![1], vec![], vec![1, 5]]
    );
    let ids: std::collections::BTreeSet<_> = pushed.iter().map(|c| c.id).collect();
    assert_eq!(ids.len(), 6);
    assert!(pushed.windows(2).all(|pair| pair[0].hlc < pair[1].hlc));
}

/// Marks as if the rows had been touched seconds apart.
pub(crate) fn spread_marks(device: &Device, table: &str) {
    let t = device.query(&format!(
        "SELECT t FROM syncline_tables WHERE name = '{table}'"
    ));
    device
        .replica
        .connection()
        .execute_batch(&format!(
            "UPDATE syncline_mark_{t} SET at = at - 0.01 + rowid * 3.0 / 86400"
        ))
        .unwrap();
}

#[test]
fn sl8_a_refused_changeset_that_nobody_marked_is_cut_at_pauses() {
    let (mut server, mut device) = at_rest();
    // The marks carry the machine's own time.
    device.now = Timestamp(4_000_000_000_000_000);
    let bad = |c: &syncline_core::Changeset| {
        c.changes.iter().any(|change| {
            matches!(&change.op, Op::Insert(edits)
                if edits.iter().any(|edit| edit.edit == Edit::Set("bad".into())))
        })
    };
    server.judge = Box::new(move |c| bad(c).then(|| refusal("forbidden", false)));
    device.run(
        "INSERT INTO lists VALUES('l2', 'good');
         INSERT INTO lists VALUES('l3', 'bad');
         INSERT INTO lists VALUES('l4', 'good too');",
    );
    spread_marks(&device, "lists");
    device.sync(&mut server);
    assert_eq!(device.outbox(), "p");
    let names = "SELECT name FROM lists ORDER BY id";
    assert_eq!(device.query(names), "shopping\ngood\ngood too");
    device.assert_equal(&server);

    // The same in one marked transaction stays whole.
    let marked = "INSERT INTO lists VALUES('l5', 'fine'), ('l6', 'bad'), ('l7', 'fine')";
    device.write(marked);
    spread_marks(&device, "lists");
    device.sync(&mut server);
    assert_eq!(device.outbox(), "pp");
    assert_eq!(device.query(names), "shopping\ngood\ngood too");
}

#[test]
fn sl8_a_changeset_that_nobody_marked_and_that_is_too_large_is_cut_until_it_fits() {
    let (mut server, mut device) = at_rest();
    server.judge = Box::new(|c| (c.changes.len() > 3).then(|| refusal("too_large", false)));
    let rows: Vec<String> = (2..=9).map(|i| format!("('l{i}', 'list {i}')")).collect();
    device.run(&format!("INSERT INTO lists VALUES {}", rows.join(", ")));
    device.run("INSERT INTO items VALUES('i1', 'l9', 'of the last list', 0, NULL)");
    device.sync(&mut server);
    assert_eq!(device.outbox(), "", "all of it arrived");
    assert_eq!(device.query("SELECT count(*) FROM lists"), "9");
    device.assert_equal(&server);

    // What was marked is one act: it is parked with its reason, and what does not need it goes on.
    let rows: Vec<String> = (20..=29).map(|i| format!("('l{i}', 'list {i}')")).collect();
    device.write(&format!("INSERT INTO lists VALUES {}", rows.join(", ")));
    device.write("INSERT INTO notes VALUES(1, 'apart')");
    device.sync(&mut server);
    assert_eq!(device.outbox(), "p");
    assert_eq!(device.parked(), ["too_large"]);
    assert_eq!(device.query("SELECT body FROM notes"), "apart");
    device.assert_equal(&server);
}

#[test]
fn sl8_what_depended_on_a_cut_changeset_waits_for_all_pieces() {
    let (mut server, mut device) = at_rest();
    device.now = Timestamp(4_000_000_000_000_000);
    let bad = |c: &syncline_core::Changeset| {
        c.changes.iter().any(|change| {
            matches!(&change.op, Op::Insert(edits)
                if edits.iter().any(|edit| edit.edit == Edit::Set("bad".into())))
        })
    };
    server.judge = Box::new(move |c| bad(c).then(|| refusal("forbidden", false)));
    device.run(
        "INSERT INTO lists VALUES('l2', 'good');
         INSERT INTO lists VALUES('l3', 'bad');",
    );
    spread_marks(&device, "lists");
    device.seal();
    device.write("INSERT INTO items VALUES('i1', 'l2', 'child of the good one', 0, NULL)");
    device.write("INSERT INTO notes VALUES(1, 'apart')");
    device.sync(&mut server);
    assert_eq!(
        device.query("SELECT name FROM lists ORDER BY id"),
        "shopping\ngood"
    );
    assert_eq!(device.query("SELECT body FROM notes"), "apart");
    // Its list is there; whether the person wants the child without the bad one is theirs to say.
    assert_eq!(device.outbox(), "pp");
    device.assert_equal(&server);
}

#[test]
fn sl9_a_thousand_edits_of_a_row_are_one_change() {
    let (mut server, mut device) = at_rest();
    device.disconnect();
    for i in 0..1_000 {
        device.run(&format!("UPDATE lists SET name = 'name {i}'"));
        if i % 10 == 0 {
            device.seal();
        }
    }
    device.run("INSERT INTO notes VALUES(1, 'gone again')");
    device.seal();
    device.run("DELETE FROM notes; INSERT INTO lists VALUES('l2', 'new')");
    device.seal();
    device.run("UPDATE lists SET name = 'newer' WHERE id = 'l2'");
    device.seal();
    let queue = device.replica.queue(None, 10).unwrap();
    assert_eq!(queue.len(), 1);
    assert_eq!(queue[0].changes_total, 2);
    device.sync(&mut server);
    assert_eq!(device.pushed().len(), 1);
    assert_eq!(device.query("SELECT name FROM lists"), "name 999\nnewer");
    device.assert_equal(&server);
}

/// Counted are the rows that both change once, not what each changes.
#[test]
fn sl9_many_rows_edited_again_stay_as_many_changes() {
    let (_, mut device) = at_rest();
    device.disconnect();
    device.run(
        "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000)
         INSERT INTO notes SELECT i, 'new' FROM n",
    );
    device.seal();
    device.run("UPDATE notes SET body = body || ' and newer'");
    device.seal();
    let queue = device.replica.queue(None, 10).unwrap();
    let changes: Vec<_> = queue.iter().map(|waiting| waiting.changes_total).collect();
    assert_eq!(changes, [6_000]);
}

#[test]
fn sl9_what_was_inserted_and_deleted_leaves_nothing() {
    let (mut server, mut device) = at_rest();
    device.run("INSERT INTO notes VALUES(1, 'x')");
    device.seal();
    device.run("DELETE FROM notes");
    device.seal();
    assert_eq!(device.outbox(), "");
    assert_eq!(device.query("SELECT count(*) FROM syncline_shadow"), "0");
    device.sync(&mut server);
    device.assert_equal(&server);
}

#[test]
fn sl9_what_was_sent_once_is_never_changed() {
    let (mut server, mut device) = at_rest();
    device.run("UPDATE lists SET name = 'sent'");
    device.push(&mut server);
    let sent = device.pushed().last().unwrap().clone();
    // The answer is lost, and the connection.
    device.disconnect();
    device.run("UPDATE lists SET name = 'later'");
    device.seal();
    assert_eq!(device.outbox(), "ss");
    device.sync(&mut server);
    let again = &device.pushed()[0];
    assert_eq!((again.id, &again.changes), (sent.id, &sent.changes));
    assert_eq!(device.query("SELECT name FROM lists"), "later");
    device.assert_equal(&server);
}

#[test]
fn sl9_a_marked_transaction_stays_alone() {
    let (_, mut device) = at_rest();
    device.run("UPDATE lists SET name = 'a'");
    device.seal();
    device.write("UPDATE lists SET name = 'b'");
    device.seal();
    device.run("UPDATE lists SET name = 'c'");
    device.seal();
    assert_eq!(device.outbox(), "sss");
}

/// A table, and the server's schema for it where its columns merge otherwise.
const TALLY: &str = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, n INTEGER, tags TEXT, w TEXT);";

fn merging() -> syncline_core::Schema {
    let mut tables = schema(TALLY);
    let table = tables.tables.iter_mut().find(|t| t.name == "t").unwrap();
    table.columns[1].merge = MergeStrategy::Counter;
    table.columns[2].merge = MergeStrategy::Set;
    table.columns[2].ty = syncline_core::ColumnType::Json;
    tables
}

/// What was pushed for the row, change by change.
fn edits(device: &Device) -> Vec<Vec<Edit>> {
    let of = |op: &Op| match op {
        Op::Insert(edits) | Op::Update(edits) => {
            edits.iter().map(|edit| edit.edit.clone()).collect()
        }
        Op::Delete => Vec::new(),
    };
    let pushed = device.pushed();
    let changes = pushed.iter().flat_map(|changeset| &changeset.changes);
    changes.map(|change| of(&change.op)).collect()
}

#[test]
fn sl11_edits_of_before_the_first_contact_travel_as_the_column_merges() {
    let mut server = Authority::new(merging());
    let mut device = Device::new(TALLY, 1);
    device.write(r#"INSERT INTO t VALUES('a', 5, '["x"]', 'old')"#);
    device.write(r#"UPDATE t SET n = n + 3, tags = '["x","y"]', w = 'new'"#);
    device.write("UPDATE t SET n = n - 1");
    // Sealed, but for the last one.
    device.seal();
    device.write(r#"UPDATE t SET n = n + 10, tags = '["y"]'"#);
    device.sync(&mut server);
    let items = |add: &[&str], remove: &[&str]| Edit::Items {
        add: add.iter().map(|item| format!("\"{item}\"")).collect(),
        remove: remove.iter().map(|item| format!("\"{item}\"")).collect(),
    };
    let pushed = edits(&device);
    assert_eq!(
        pushed[1..],
        [
            vec![
                Edit::Add(Value::Integer(3)),
                items(&["y"], &[]),
                Edit::Set("new".into())
            ],
            vec![Edit::Add(Value::Integer(-1))],
            vec![Edit::Add(Value::Integer(10)), items(&[], &["x"])],
        ]
    );
    assert_eq!(device.query("SELECT * FROM t"), r#"a|17|["y"]|new"#);
    device.assert_equal(&server);
}

#[test]
fn sl11_what_waits_is_computed_anew_when_the_server_merges_otherwise() {
    let mut server = Authority::new(merging());
    let mut device = Device::new(TALLY, 1);
    device.write(r#"INSERT INTO t VALUES('a', 5, '["x"]', 'old'), ('b', 1, NULL, NULL)"#);
    device.sync(&mut server);
    device.disconnect();
    device.write("UPDATE t SET n = n + 3 WHERE id = 'a'");
    device.push_lost(&mut server);
    device.write("UPDATE t SET n = n + 4 WHERE id = 'a'");
    device.write("UPDATE t SET n = 7 WHERE id = 'b'");
    device.seal();
    let number = server.table("t").number;
    let mut plain = schema(TALLY);
    plain
        .tables
        .iter_mut()
        .find(|t| t.name == "t")
        .unwrap()
        .number = number;
    server.schema = plain;
    device.sync(&mut server);
    assert_eq!(
        edits(&device),
        [
            // Was sent like this, and may be in the log.
            vec![Edit::Add(Value::Integer(3))],
            vec![Edit::Set(Value::Integer(12))],
            vec![Edit::Set(Value::Integer(7))],
        ]
    );
    device.assert_equal(&server);
}

#[test]
fn sl11_what_was_sealed_before_the_first_contact_has_the_servers_keys() {
    const TABLES: &str = "
        CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, name TEXT, flag TEXT);
        CREATE TABLE u(id TEXT PRIMARY KEY NOT NULL, t TEXT REFERENCES t(id));";
    const LOUD: &str = "3F2504E0-4F89-11D3-9A0C-0305E82C3301";
    let mut tables = schema(TABLES);
    for (name, position) in [("t", 0), ("u", 1)] {
        let mut found = tables.tables.iter_mut().filter(|t| t.name == name);
        found.next().unwrap().columns[position].ty = syncline_core::ColumnType::Uuid;
    }
    let mut server = Authority::new(tables);
    let mut device = Device::new(TABLES, 1);
    device.write(&format!("INSERT INTO t VALUES('{LOUD}', 'one', NULL)"));
    device.write(&format!("INSERT INTO u VALUES('u1', '{LOUD}')"));
    device.write("UPDATE t SET name = 'two'");
    device.seal();
    device.sync(&mut server);
    assert_eq!(device.outbox(), "");
    assert_eq!(
        device.query("SELECT id, name FROM t"),
        format!("{LOUD}|two")
    );
    assert_eq!(server.rows.len(), 2);
    let quiet = LOUD.to_lowercase();
    let row = vec![quiet.as_str().into(), "three".into(), Value::Null];
    server.write(&[("t", row)]);
    device.sync(&mut server);
    assert_eq!(device.query("SELECT name FROM t"), "three");
    assert_eq!(device.replica.check_local(9, device.now).unwrap(), []);
    assert_eq!(device.query("SELECT count(*) FROM syncline_shadow"), "0");
}

#[test]
fn sl11_columns_that_the_server_does_not_have_do_not_hide_what_was_sealed_with_them() {
    const HERE: &str = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, name TEXT, mine TEXT);";
    const THERE: &str = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, name TEXT);";
    let mut server = Authority::new(schema(THERE));
    let mut device = Device::new(HERE, 1);
    device.write("INSERT INTO t VALUES('a', 'one', 'm')");
    device.write("UPDATE t SET name = 'two', mine = 'n'");
    device.seal();
    server.is_busy = true;
    device.sync(&mut server);
    server.write(&[("t", vec!["a".into(), "theirs".into()])]);
    device.sync(&mut server);
    assert_eq!(device.query("SELECT * FROM t"), "a|two|n");
    server.is_busy = false;
    device.disconnect();
    device.sync(&mut server);
    assert_eq!(device.query("SELECT * FROM t"), "a|two|n");
    device.assert_equal(&server);
}
