//! A server that went back to an earlier state (docs/spec/outbox.md, OB4).

use syncline_core::{Change, Op, wire::code};

use crate::{
    authority::{Authority, refusal},
    device::{Device, SCHEMA, schema},
};

/// Pushes what waits and receives until it is accepted, but not its checkpoint.
fn push_until_accepted(device: &mut Device, server: &mut Authority) {
    device.tick();
    device.replica.wake(device.now).unwrap();
    for _ in 0..100 {
        if device.outbox().ends_with('a') {
            return;
        }
        device.upload(server);
        if !device.download() {
            let link = device.link.as_mut().unwrap();
            let _moved = server.page(link) || server.advance(link);
        }
    }
    panic!("never accepted: {}", device.outbox());
}

#[test]
fn ob4_what_was_accepted_after_the_last_checkpoint_is_sent_again_although_the_cursor_is_known() {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.write("INSERT INTO lists VALUES('l1', 'one')");
    device.sync(&mut server);
    let backup = server.backup();
    device.write("UPDATE lists SET name = 'uno'");
    push_until_accepted(&mut device, &mut server);
    device.disconnect();
    server.restore(backup);
    // Somebody else goes on, so that later checkpoints pass the lost version.
    server.now = server.now.plus_millis(60_000);
    server.write(&[("lists", vec!["l2".into(), "two".into()])]);
    device.sync(&mut server);
    assert_eq!(device.outbox(), "");
    assert_eq!(device.query("SELECT name FROM lists"), "uno\ntwo");
    device.assert_equal(&server);
}

#[test]
fn ob4_ob11_what_was_accepted_is_asked_for_again_and_applied_once() {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.write("INSERT INTO lists VALUES('l1', 'one')");
    device.sync(&mut server);
    device.write("UPDATE lists SET name = 'uno'");
    push_until_accepted(&mut device, &mut server);
    let end = server.end();
    device.disconnect();
    device.sync(&mut server);
    assert_eq!(device.pushed().len(), 1);
    assert_eq!(device.outbox(), "");
    assert_eq!(server.end(), end, "nothing was applied again");
    device.assert_equal(&server);
}

#[test]
fn ob4_what_is_below_the_horizon_is_not_asked_for_again() {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.write("INSERT INTO lists VALUES('l1', 'one')");
    device.sync(&mut server);
    device.write("UPDATE lists SET name = 'uno'");
    push_until_accepted(&mut device, &mut server);
    device.disconnect();
    server.horizon = server.end();
    device.sync(&mut server);
    assert_eq!(device.pushed().len(), 0);
    assert_eq!(device.outbox(), "");
    device.assert_equal(&server);
}

/// What counted as accepted may be refused by a restored server, and what was written on top of it
/// since goes with it.
#[test]
fn ob5_what_was_written_on_what_is_asked_about_again_is_held_back_with_it() {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.write("INSERT INTO lists VALUES('l1', 'one')");
    device.sync(&mut server);
    let backup = server.backup();
    device.write("INSERT INTO lists VALUES('l2', 'two')");
    push_until_accepted(&mut device, &mut server);
    device.disconnect();
    device.write("UPDATE lists SET name = 'due' WHERE id = 'l2'");
    device.write("UPDATE lists SET name = 'uno' WHERE id = 'l1'");
    device.seal();
    server.restore(backup);
    server.judge = Box::new(|changeset| {
        let is_insert = |change: &Change| matches!(change.op, Op::Insert(_));
        let found = changeset.changes.iter().any(is_insert);
        found.then(|| refusal(code::FORBIDDEN, false))
    });
    device.sync(&mut server);
    assert_eq!(device.parked(), ["forbidden", "depends_on"]);
    assert_eq!(device.query("SELECT * FROM lists"), "l1|uno");
    device.assert_equal(&server);
}
