//! What becomes of a changeset on its device (docs/spec/outbox.md).

use std::collections::BTreeSet;

use syncline_core::{BucketId, Changeset, Edit, Op, Value};
use syncline_replica::{Event, QueueState};

use crate::{
    authority::{Authority, HOME, refusal},
    device::{Device, SCHEMA, schema},
};

fn at_rest() -> (Authority, Device) {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.write("INSERT INTO lists VALUES('l1', 'shopping')");
    device.sync(&mut server);
    (server, device)
}

/// Refuses every changeset that sets some column to `value`.
pub(crate) fn refuse_value(server: &mut Authority, value: &'static str) {
    server.judge = Box::new(move |changeset| {
        let sets = |op: &Op| match op {
            Op::Insert(edits) | Op::Update(edits) => edits
                .iter()
                .any(|edit| edit.edit == Edit::Set(value.into())),
            Op::Delete => false,
        };
        let is_bad = changeset.changes.iter().any(|change| sets(&change.op));
        is_bad.then(|| refusal("forbidden", false))
    });
}

#[test]
fn ob1_what_was_sent_is_sealed_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::create(&path, SCHEMA, 1);
    device.sync(&mut server);
    device.write("INSERT INTO notes VALUES(1, 'a')");
    device.seal();
    assert_eq!(device.outbox(), "s");
    device.push(&mut server);
    assert_eq!(device.outbox(), "t");
    let mut device = device.restart(&path);
    assert_eq!(device.outbox(), "s");
    device.push(&mut server);
    device.sync(&mut server);
    assert_eq!(device.outbox(), "");
    device.assert_equal(&server);
}

#[test]
fn ob2_nothing_flickers_between_answer_and_echo() {
    let (mut server, mut device) = at_rest();
    let name = "SELECT name FROM lists";
    device.write("UPDATE lists SET name = 'mine'");
    device.push(&mut server);
    // The answer, then a checkpoint before ours, then the echo: each alone.
    assert_eq!(device.outbox(), "t");
    let before = server.end();
    assert!(device.download());
    assert_eq!(device.outbox(), "a");
    assert_eq!(device.query(name), "mine");
    device.seal();
    assert_eq!(device.query(name), "mine");
    server.write(&[("notes", vec![Value::Integer(1), "theirs".into()])]);
    let link = device.link.as_mut().unwrap();
    server.checkpoint(link);
    assert!(device.download());
    assert!(device.replica.checkpoint().unwrap().unwrap() < before);
    assert_eq!(
        (device.query(name).as_str(), device.outbox().as_str()),
        ("mine", "a")
    );
    device.sync(&mut server);
    assert_eq!(
        (device.query(name).as_str(), device.outbox().as_str()),
        ("mine", "")
    );
    device.assert_equal(&server);
}

#[test]
fn ob2_unsent_changes_lie_on_top_of_the_servers_in_order() {
    const TABLE: &str = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT, n INTEGER);";
    let mut tables = schema(TABLE);
    let table = tables.tables.iter_mut().find(|t| t.name == "t").unwrap();
    table.columns[2].merge = syncline_core::MergeStrategy::Counter;
    let mut server = Authority::new(tables);
    let mut device = Device::new(TABLE, 1);
    device.write("INSERT INTO t VALUES('x', 'old', 10)");
    device.sync(&mut server);
    server.is_busy = true;
    device.write("UPDATE t SET n = n + 1");
    device.write("UPDATE t SET n = n + 2");
    device.write("UPDATE t SET a = 'mine'");
    server.write(&[("t", vec!["x".into(), "theirs".into(), Value::Integer(100)])]);
    device.sync(&mut server);
    assert_eq!(device.query("SELECT * FROM t"), "x|mine|103");
    server.is_busy = false;
    device.disconnect();
    device.sync(&mut server);
    assert_eq!(device.query("SELECT * FROM t"), "x|mine|103");
    device.assert_equal(&server);
}

#[test]
fn ob3_an_accepted_changeset_is_replayed_until_its_checkpoint() {
    let (mut server, mut device) = at_rest();
    device.write("UPDATE lists SET name = 'mine'");
    device.push(&mut server);
    assert!(device.download());
    let link = device.link.as_mut().unwrap();
    link.out.clear();
    // What comes before our change in the log is applied under it.
    let accepted = device.replica.queue(None, 1).unwrap()[0].state.clone();
    assert_eq!(
        accepted,
        QueueState::Accepted {
            version: server.end()
        }
    );
    device.disconnect();
    assert_eq!(device.query("SELECT name FROM lists"), "mine");
    device.write("UPDATE lists SET name = name || '!'");
    device.sync(&mut server);
    assert_eq!(device.query("SELECT name FROM lists"), "mine!");
    device.assert_equal(&server);
}

#[test]
fn ob4_a_server_that_lost_its_tail_gets_it_again() {
    let (mut server, mut device) = at_rest();
    let mut other = Device::empty(2);
    other.sync(&mut server);
    let backup = server.backup();
    device.write("INSERT INTO notes VALUES(1, 'acknowledged')");
    device.sync(&mut server);
    device.write("UPDATE lists SET name = 'renamed'");
    device.sync(&mut server);
    device.write("INSERT INTO notes VALUES(2, 'only accepted')");
    device.push(&mut server);
    assert!(device.download());
    assert_eq!(device.outbox(), "a");
    other.sync(&mut server);
    other.write("INSERT INTO notes VALUES(3, 'of the other')");
    other.sync(&mut server);
    let ids: BTreeSet<_> = server.ids.keys().copied().collect();
    device.disconnect();
    other.disconnect();
    device.write("INSERT INTO notes VALUES(4, 'younger')");
    device.seal();

    server.restore(backup);
    device.sync(&mut server);
    assert!(
        device
            .events
            .iter()
            .any(|e| matches!(e, Event::Diverged { resent: 3 }))
    );
    let bodies: Vec<_> = device
        .pushed()
        .iter()
        .map(|c| c.changes[0].key.clone())
        .collect();
    assert_eq!(bodies.len(), 4);
    device.assert_equal(&server);
    // The other author has not come back yet; its row is gone until it does.
    assert_eq!(
        device.query("SELECT body FROM notes ORDER BY id"),
        "acknowledged\nonly accepted\nyounger"
    );
    other.sync(&mut server);
    device.sync(&mut server);
    assert_eq!(
        device.query("SELECT id FROM notes ORDER BY id"),
        "1\n2\n3\n4"
    );
    assert_eq!(device.query("SELECT name FROM lists"), "renamed");
    device.assert_equal(&server);
    other.assert_equal(&server);
    assert!(
        ids.is_subset(&server.ids.keys().copied().collect()),
        "the ids are the same"
    );
}

#[test]
fn ob4_a_counter_is_not_counted_twice_by_a_restored_server() {
    const TABLE: &str = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, n INTEGER);";
    let mut tables = schema(TABLE);
    let table = tables.tables.iter_mut().find(|t| t.name == "t").unwrap();
    table.columns[1].merge = syncline_core::MergeStrategy::Counter;
    let mut server = Authority::new(tables);
    let mut device = Device::new(TABLE, 1);
    device.write("INSERT INTO t VALUES('x', 10)");
    device.sync(&mut server);
    let backup = server.backup();
    device.write("UPDATE t SET n = n + 1");
    device.sync(&mut server);
    device.disconnect();
    server.restore(backup);
    device.connect();
    device.upload(&mut server);
    while device.download() {
        device.upload(&mut server);
        assert_eq!(
            device.query("SELECT n FROM t"),
            "11",
            "visible all the time"
        );
    }
    device.sync(&mut server);
    assert_eq!(device.query("SELECT n FROM t"), "11");
    device.assert_equal(&server);
}

#[test]
fn ob5_a_refused_changeset_is_rolled_back_with_what_depends_on_it() {
    let (mut server, mut device) = at_rest();
    refuse_value(&mut server, "bad");
    device.write(
        "INSERT INTO lists VALUES('l2', 'bad');
         UPDATE lists SET name = 'also changed' WHERE id = 'l1'",
    );
    device.write("INSERT INTO items VALUES('i1', 'l2', 'child', 0, NULL)");
    device.write("UPDATE items SET title = 'grandchild' WHERE id = 'i1'");
    device.write("INSERT INTO notes VALUES(1, 'independent')");
    device.sync(&mut server);
    assert_eq!(device.query("SELECT * FROM lists"), "l1|shopping");
    assert_eq!(device.query("SELECT count(*) FROM items"), "0");
    assert_eq!(device.query("SELECT body FROM notes"), "independent");
    assert_eq!(device.parked(), ["forbidden", "depends_on", "depends_on"]);
    device.assert_equal(&server);
    let refused: Vec<_> = device
        .events
        .iter()
        .filter_map(|event| match event {
            Event::ChangeRefused { code, parked, .. } => Some((code.as_str(), parked.len())),
            _ => None,
        })
        .collect();
    assert_eq!(refused, [("forbidden", 3)]);
    // The next edit is not held up by what is parked.
    device.write("UPDATE lists SET name = 'next'");
    device.sync(&mut server);
    assert_eq!(device.outbox(), "ppp");
    device.assert_equal(&server);
}

#[test]
fn ob5_a_refused_delete_brings_the_row_back() {
    let (mut server, mut device) = at_rest();
    server.judge = Box::new(|_| Some(refusal("forbidden", false)));
    device.write("DELETE FROM lists");
    device.sync(&mut server);
    assert_eq!(device.query("SELECT * FROM lists"), "l1|shopping");
    device.assert_equal(&server);
}

#[test]
fn ob6_parked_changes_are_listed_retried_and_discarded() {
    let (mut server, mut device) = at_rest();
    refuse_value(&mut server, "bad");
    device.write("INSERT INTO lists VALUES('l2', 'bad')");
    device.write("INSERT INTO items VALUES('i1', 'l2', 'child', 0, NULL)");
    device.write("UPDATE lists SET name = 'bad' WHERE id = 'l1'");
    device.sync(&mut server);
    let queue = device.replica.queue(None, 10).unwrap();
    assert_eq!(queue.len(), 3);
    assert_eq!(
        (
            queue[2].changes[0].table.as_str(),
            &queue[2].changes[0].columns
        ),
        ("lists", &vec!["name".to_owned()])
    );
    let QueueState::Parked { code, message, at } = &queue[2].state else {
        panic!("not parked");
    };
    assert_eq!(
        (code.as_str(), message.as_str()),
        ("forbidden", "refused: forbidden")
    );
    assert!(at.0 > 0);

    device.replica.discard(queue[2].id).unwrap();
    assert!(
        device.replica.discard(queue[2].id).is_err(),
        "it is forgotten"
    );
    server.judge = Box::new(|_| None);
    assert_eq!(device.replica.retry(queue[0].id, device.now).unwrap(), 2);
    assert_eq!(
        device.query("SELECT title FROM items"),
        "child",
        "shown again at once"
    );
    device.sync(&mut server);
    assert_eq!(device.outbox(), "");
    assert!(server.ids.contains_key(&queue[0].id), "under its own id");
    assert_eq!(
        device.query("SELECT name FROM lists ORDER BY id"),
        "shopping\nbad"
    );
    device.assert_equal(&server);
}

#[test]
fn ob7_refused_numbers_are_counted_and_retried_ones_new() {
    let (mut server, mut device) = at_rest();
    refuse_value(&mut server, "bad");
    device.write("INSERT INTO notes VALUES(1, 'bad')");
    device.write("INSERT INTO notes VALUES(2, 'good')");
    device.sync(&mut server);
    let parked = device.replica.queue(None, 1).unwrap()[0].id;
    server.judge = Box::new(|_| None);
    device.replica.retry(parked, device.now).unwrap();
    device.write("INSERT INTO notes VALUES(3, 'last')");
    device.sync(&mut server);
    let numbers: Vec<_> = device
        .pushed()
        .iter()
        .map(|c| (c.number, c.id == parked))
        .collect();
    let first = numbers[0].0;
    let tail: Vec<_> = numbers.iter().map(|(n, p)| (n - first, *p)).collect();
    let expected = [(0, false), (1, true), (2, false), (3, true), (4, false)];
    assert_eq!(tail, expected);
    device.assert_equal(&server);
}

#[test]
fn ob8_a_copy_renumbers_and_keeps_its_ids() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("app.db"), dir.path().join("copy.db"));
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::create(&path, SCHEMA, 1);
    device.write("INSERT INTO lists VALUES('l1', 'shopping')");
    device.sync(&mut server);
    device.write("INSERT INTO notes VALUES(1, 'sent and answered to one')");
    device.push(&mut server);
    device.disconnect();
    device.write("INSERT INTO notes VALUES(2, 'only here')");
    device.write("UPDATE lists SET name = 'edited before the copy'");
    device.seal();
    std::fs::copy(&path, &copy).unwrap();
    device.sync(&mut server);

    let conn = rusqlite::Connection::open(&copy).unwrap();
    let mut twin = Device::open(conn, 7);
    twin.now = device.now;
    let ids: Vec<_> = twin
        .replica
        .queue(None, 9)
        .unwrap()
        .iter()
        .map(|c| c.id)
        .collect();
    server.horizon = server.end();
    twin.sync(&mut server);
    assert!(
        twin.events
            .iter()
            .any(|e| matches!(e, Event::Connected { forked: true, .. }))
    );
    let pushed = twin.pushed();
    assert_eq!(pushed.iter().map(|c| c.id).collect::<Vec<_>>(), ids);
    assert_eq!(
        pushed.iter().map(|c| c.number).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    let horizon = server.horizon;
    let is_doubted = |c: &Changeset| c.may_be_applied_already && c.after < Some(horizon);
    assert!(
        pushed.iter().all(is_doubted),
        "made when the log was below the horizon"
    );
    twin.assert_equal(&server);
    assert_eq!(twin.query("SELECT count(*) FROM notes"), "2");

    // Both live on as two devices.
    twin.write("INSERT INTO notes VALUES(10, 'twin')");
    device.write("INSERT INTO notes VALUES(11, 'device')");
    twin.sync(&mut server);
    device.sync(&mut server);
    twin.sync(&mut server);
    assert_ne!(
        device.replica.status().unwrap().device,
        twin.replica.status().unwrap().device
    );
    twin.assert_equal(&server);
    device.assert_equal(&server);
}

const AWAY: BucketId = BucketId([8; 16]);

#[test]
fn ob9_edits_of_rows_that_are_taken_away_are_parked() {
    let mut server = Authority::new(schema(SCHEMA));
    server.buckets = |table, row| match &row.0[0] {
        Value::Text(id) if id.starts_with('x') && table.name == "lists" => [AWAY].into(),
        _ => [HOME].into(),
    };
    server.granted = [HOME, AWAY].into();
    server.write(&[
        ("lists", vec!["l1".into(), "stays".into()]),
        ("lists", vec!["x1".into(), "a secret of the server".into()]),
    ]);
    let mut device = Device::new(SCHEMA, 1);
    device.sync(&mut server);
    server.is_busy = true;
    device.write("UPDATE lists SET name = 'what i wrote' WHERE id = 'x1'");
    device.write("UPDATE lists SET name = 'unaffected' WHERE id = 'l1'");
    device.seal();
    server.grant(device.link.as_mut().unwrap(), AWAY, false);
    device.sync(&mut server);
    assert_eq!(device.parked(), ["no_access"]);
    assert_eq!(device.query("SELECT * FROM lists"), "l1|unaffected");
    let queue = device.replica.queue(None, 9).unwrap();
    assert_eq!(queue[0].changes[0].columns, ["name"]);
    let file = device
        .query("SELECT count(*) FROM syncline_changes WHERE instr(op, CAST('a secret' AS BLOB))");
    assert_eq!(file, "0");
    server.is_busy = false;
    device.disconnect();
    device.sync(&mut server);
    device.assert_equal(&server);
}

/// Its answer was lost with the connection, and the rows of what it depends on with a grant.
#[test]
fn ob2_what_is_accepted_after_it_was_parked_is_shown_before_its_checkpoint() {
    let mut server = Authority::new(schema(SCHEMA));
    server.buckets = |table, row| match &row.0[0] {
        Value::Text(id) if id.starts_with('x') && table.name == "lists" => [AWAY].into(),
        _ => [HOME].into(),
    };
    server.granted = [HOME, AWAY].into();
    server.write(&[("lists", vec!["x1".into(), "of others".into()])]);
    let mut device = Device::new(SCHEMA, 1);
    device.sync(&mut server);
    device.disconnect();
    device.write("UPDATE lists SET name = 'mine' WHERE id = 'x1'");
    device.write(
        "UPDATE lists SET name = 'mine, too' WHERE id = 'x1';
         INSERT INTO lists VALUES('l1', 'here')",
    );
    device.seal();
    device.push_lost(&mut server);
    server.granted.remove(&AWAY);
    device.connect();
    device.upload(&mut server);
    while device.outbox() != "pp" {
        assert!(device.download(), "the rows go: {}", device.outbox());
        device.upload(&mut server);
    }
    assert_eq!(device.query("SELECT id FROM lists"), "");
    while device.outbox() != "aa" {
        assert!(
            device.download(),
            "both are in the log: {}",
            device.outbox()
        );
    }
    assert_eq!(device.query("SELECT id FROM lists"), "l1");
    device.sync(&mut server);
    assert_eq!(device.outbox(), "");
    device.assert_equal(&server);
}

/// An order, parts and bills of it.
const ORDERS: &str = "
    CREATE TABLE orders(id INTEGER PRIMARY KEY, what TEXT);
    CREATE TABLE parts(
      order_id INTEGER REFERENCES orders(id), n INTEGER, what TEXT, PRIMARY KEY(order_id, n));
    CREATE TABLE bills(id TEXT PRIMARY KEY NOT NULL, order_id INTEGER REFERENCES orders);";

#[test]
fn ob10_a_taken_integer_key_is_changed_with_its_references() {
    let mut server = Authority::new(schema(ORDERS));
    let mut here = Device::new(ORDERS, 1);
    let mut there = Device::new(ORDERS, 2);
    here.sync(&mut server);
    there.sync(&mut server);
    here.disconnect();
    there.disconnect();
    there.write("INSERT INTO orders VALUES(1, 'theirs')");
    there.sync(&mut server);
    here.write("INSERT INTO orders(what) VALUES('mine')");
    here.write(
        "INSERT INTO parts VALUES(1, 1, 'first'), (1, 2, 'second');
         INSERT INTO bills VALUES('b', 1)",
    );
    here.write("UPDATE orders SET what = 'mine, edited'");
    here.sync(&mut server);
    assert_eq!(here.outbox(), "");
    assert_eq!(
        here.query("SELECT * FROM orders"),
        "1|theirs\n2|mine, edited"
    );
    assert_eq!(here.query("SELECT * FROM parts"), "2|1|first\n2|2|second");
    assert_eq!(here.query("SELECT * FROM bills"), "b|2");
    here.assert_equal(&server);
    let rekeyed = |e: &&Event| matches!(e, Event::Rekeyed { table, .. } if table == "orders");
    assert_eq!(here.events.iter().filter(rekeyed).count(), 1);
    there.sync(&mut server);
    there.assert_equal(&server);
}

/// A bill was written before its order, and waits while the order turns out to have a taken key:
/// it goes to the end of the outbox with the order, and what was written on top of it goes along.
#[test]
fn ob10_what_was_written_on_top_of_a_reference_stays_behind_it() {
    let mut server = Authority::new(schema(ORDERS));
    let mut device = Device::new(ORDERS, 1);
    device.sync(&mut server);
    server.write(&[("orders", vec![Value::Integer(1), "theirs".into()])]);
    device.disconnect();
    device.run("PRAGMA foreign_keys = OFF");
    device.write(
        "INSERT INTO bills VALUES('b', 1);
         INSERT INTO parts VALUES(0, 1, 'written')",
    );
    device.write("UPDATE parts SET what = 'edited'");
    device.write("INSERT INTO orders VALUES(1, 'mine')");
    let bills = server.table("bills").number;
    server.judge = Box::new(move |changeset| {
        let is_bill = changeset.changes[0].table == bills;
        is_bill.then(|| refusal("busy", true))
    });
    device.sync(&mut server);
    server.judge = Box::new(|_| None);
    let rekeyed = |e: &Event| matches!(e, Event::Rekeyed { table, .. } if table == "orders");
    assert!(device.events.iter().any(rekeyed), "{:?}", device.events);
    device.disconnect();
    device.sync(&mut server);
    assert_eq!(device.parked(), [""; 0]);
    assert_eq!(device.outbox(), "");
    assert_eq!(device.query("SELECT * FROM orders"), "1|theirs\n2|mine");
    assert_eq!(device.query("SELECT * FROM bills"), "b|2");
    assert_eq!(device.query("SELECT * FROM parts"), "0|1|edited");
    device.assert_equal(&server);
}

/// The order was there before attaching, so that it is sealed after the bill that was written
/// since, and goes before it. Both are under way when its key turns out to be taken, by an order
/// that nobody may see here.
fn overtaken(mut between: impl FnMut(&mut Device, &mut Authority)) {
    let mut server = Authority::new(schema(ORDERS));
    server.buckets = |_, row| match row.0.get(1) == Some(&"theirs".into()) {
        true => [AWAY].into(),
        false => [HOME].into(),
    };
    server.write(&[("orders", vec![Value::Integer(1), "theirs".into()])]);
    let rows = "INSERT INTO orders VALUES(1, 'mine');";
    let mut device = Device::new(&format!("{ORDERS} {rows}"), 1);
    device.write("INSERT INTO bills VALUES('b', 1)");
    device.write("UPDATE bills SET order_id = NULL");
    device.write("UPDATE bills SET order_id = 1");
    between(&mut device, &mut server);
    device.sync(&mut server);
    assert_eq!(device.outbox(), "");
    assert_eq!(device.query("SELECT * FROM orders"), "2|mine");
    assert_eq!(device.query("SELECT * FROM bills"), "b|2");
    device.assert_equal(&server);
}

#[test]
fn ob10_a_reference_to_a_row_from_before_attaching_waits_for_its_verdict() {
    overtaken(|_, _| {});
}

#[test]
fn se16_what_goes_before_goes_before_again() {
    overtaken(|device, server| {
        server.is_busy = true;
        device.sync(server);
        let tables = |device: &Device| -> Vec<_> {
            let pushed = device.pushed();
            pushed.iter().map(|c| c.changes[0].table).collect()
        };
        let before = tables(device);
        device.disconnect();
        device.sync(server);
        assert_eq!(tables(device), before);
        device.disconnect();
        server.is_busy = false;
    });
}

#[test]
fn ob10_a_row_that_is_deleted_again_gets_another_key_too() {
    let (mut server, mut device) = at_rest();
    device.disconnect();
    server.write(&[("notes", vec![Value::Integer(1), "theirs".into()])]);
    device.write("INSERT INTO notes VALUES(1, 'mine')");
    device.write("DELETE FROM notes");
    device.sync(&mut server);
    assert_eq!(device.outbox(), "");
    assert_eq!(device.query("SELECT * FROM notes"), "1|theirs");
    device.assert_equal(&server);
}

#[test]
fn ob11_lost_answers_never_make_an_effect_twice() {
    const TABLE: &str = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, n INTEGER);";
    let mut tables = schema(TABLE);
    let table = tables.tables.iter_mut().find(|t| t.name == "t").unwrap();
    table.columns[1].merge = syncline_core::MergeStrategy::Counter;
    let mut server = Authority::new(tables);
    let mut device = Device::new(TABLE, 1);
    device.write("INSERT INTO t VALUES('x', 0)");
    device.sync(&mut server);
    for lost in 0..6 {
        device.write("UPDATE t SET n = n + 1");
        device.push(&mut server);
        // Some of what comes back arrives before the connection breaks.
        for _ in 0..lost {
            device.download();
        }
        device.disconnect();
        device.connect();
        device.upload(&mut server);
        for _ in 0..lost {
            device.download();
            device.upload(&mut server);
        }
        device.disconnect();
        assert_eq!(device.query("SELECT n FROM t"), (lost + 1).to_string());
    }
    device.sync(&mut server);
    assert_eq!(device.query("SELECT n FROM t"), "6");
    device.assert_equal(&server);
    assert_eq!(server.ids.len(), 7);
}
