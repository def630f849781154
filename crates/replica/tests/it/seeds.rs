//! Rows that were in the file before it was attached, and of which the server refuses some
//! (docs/spec/capture.md, SL12).

use syncline_core::{Value, wire::code};

use crate::{
    authority::{Authority, refusal},
    device::{Device, SCHEMA, schema},
};

const ROWS: &str = "
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
    INSERT INTO lists SELECT 'l' || i, CASE i WHEN 7 THEN 'bad' WHEN 23 THEN 'bad' ELSE 'good' END FROM n;
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
    INSERT INTO items(id, list, title) SELECT 'i' || i, 'l' || i, 'x' FROM n;";

/// Refuses inserts of bad lists, saying which change it was or not.
fn judge(server: &mut Authority, names_it: bool) {
    let lists = server.table("lists").number;
    server.judge = Box::new(move |changeset| {
        let is_bad = |change: &syncline_core::Change| {
            change.table == lists
                && matches!(&change.op, syncline_core::Op::Insert(edits) if edits
                    .iter()
                    .any(|edit| edit.edit == syncline_core::Edit::Set(Value::from("bad"))))
        };
        let place = changeset.changes.iter().position(is_bad)?;
        let mut refusal = refusal(code::FORBIDDEN, false);
        refusal.change = names_it.then(|| u32::try_from(place).unwrap());
        Some(refusal)
    });
}

fn check(names_it: bool) {
    let mut server = Authority::new(schema(SCHEMA));
    judge(&mut server, names_it);
    let mut device = Device::new(&format!("{SCHEMA} {ROWS}"), 1);
    device.sync(&mut server);
    let mut parked = device.parked();
    parked.sort();
    assert_eq!(
        parked,
        ["depends_on", "depends_on", "forbidden", "forbidden"]
    );
    let queue = device.replica.queue(None, 9).unwrap();
    assert!(
        queue.iter().all(|queued| queued.changes_total == 1),
        "{queue:?}"
    );
    assert_eq!(server.rows.len(), 2 * 38);
    device.assert_equal(&server);
    // What was refused can be sent again, with what needs it.
    server.judge = Box::new(|_| None);
    for queued in queue {
        let _retried = device.replica.retry(queued.id, device.now);
    }
    device.sync(&mut server);
    assert_eq!(device.outbox(), "");
    assert_eq!(server.rows.len(), 80);
    device.assert_equal(&server);
}

#[test]
fn sl12_a_refused_row_from_before_attaching_holds_only_what_needs_it() {
    check(true);
}

#[test]
fn sl12_a_refused_row_is_found_where_nobody_names_it() {
    check(false);
}

/// Edited before the first contact, rows from before attaching go with their edits: one references
/// what the next inserts, and the last builds on the first.
#[test]
fn se16_what_waits_for_one_another_in_a_circle_is_sent_all_the_same() {
    let rows = "INSERT INTO lists VALUES('l1', 'a'), ('l2', 'b'), ('l3', 'c');";
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(&format!("{SCHEMA} {rows}"), 1);
    device.write(
        "UPDATE lists SET name = 'd' WHERE id = 'l1';
         INSERT INTO items(id, list) VALUES('i1', 'l2');",
    );
    device.write(
        "UPDATE lists SET name = 'e' WHERE id = 'l2';
         INSERT INTO items(id, list) VALUES('i2', 'l3');",
    );
    device.write(
        "UPDATE lists SET name = 'f' WHERE id = 'l1';
         UPDATE lists SET name = 'g' WHERE id = 'l3';",
    );
    device.sync(&mut server);
    assert_eq!(device.outbox(), "");
    assert_eq!(server.rows.len(), 5);
    device.assert_equal(&server);
}
