//! Exactly once, also where the server has forgotten ids (docs/spec/outbox.md, OB8 and OB11).

use std::path::Path;

use syncline_core::{
    BucketId, Timestamp, Value,
    wire::{ServerMessage, decode_server},
};
use syncline_replica::Event;

use crate::{
    authority::{Authority, HOME, refusal},
    device::{Device, SCHEMA, schema},
    outbox::refuse_value,
    sealing::spread_marks,
};

/// Of which of the device's pushes on this connection nothing but their ids tells this server
/// whether it has them.
fn doubts(device: &Device) -> Vec<bool> {
    let pushed = device.pushed();
    pushed.iter().map(|c| c.may_be_applied_already).collect()
}

/// A device that is up to date, as the file `app.db` of the folder.
fn to_be_copied() -> (tempfile::TempDir, Authority, Device) {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::create(&dir.path().join("app.db"), SCHEMA, 1);
    device.sync(&mut server);
    (dir, server, device)
}

fn twin(copy: &Path, device: &Device) -> Device {
    let mut twin = Device::open(rusqlite::Connection::open(copy).unwrap(), 7);
    twin.now = device.now;
    twin
}

/// The cursor is in the log of the restored server: nothing has diverged but what was accepted.
#[test]
fn ob4_what_was_accepted_after_the_checkpoint_is_sent_to_a_restored_server() {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.write("INSERT INTO lists VALUES('l1', 'shopping')");
    device.sync(&mut server);
    let backup = server.backup();
    device.write("INSERT INTO notes VALUES(1, 'accepted')");
    device.push(&mut server);
    while device.download() {}
    assert_eq!(device.outbox(), "a");
    let id = device.pushed().last().unwrap().id;
    server.restore(backup);
    server.write(&[("lists", vec!["l2".into(), "written later".into()])]);
    device.disconnect();
    device.write("INSERT INTO notes VALUES(2, 'younger')");
    device.sync(&mut server);
    assert!(server.ids.contains_key(&id));
    let diverged = |e: &&Event| matches!(e, Event::Diverged { .. });
    assert_eq!(device.events.iter().find(diverged), None);
    assert_eq!(device.query("SELECT body FROM notes"), "accepted\nyounger");
    device.assert_equal(&server);
    // Its number was counted by the server that is gone.
    assert_eq!(doubts(&device), [true, false]);
}

/// One backup after the other: what the device heard of the log in between is of neither.
#[test]
fn ob11_what_a_restored_server_heard_says_nothing_of_another_one() {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.write("INSERT INTO lists VALUES('l1', 'shopping')");
    device.sync(&mut server);
    let without = server.backup();
    device.write("INSERT INTO notes VALUES(1, 'once')");
    device.sync(&mut server);
    server.write(&[("lists", vec!["l2".into(), "later".into()])]);
    let with = server.backup();
    device.disconnect();
    server.restore(without);
    server.write(&[("lists", vec!["l3".into(), "elsewhere".into()])]);
    device.sync(&mut server);
    assert_eq!(device.query("SELECT body FROM notes"), "once");
    device.disconnect();

    server.restore(with);
    server.ids.clear();
    server.horizon = server.end();
    server.write(&[("lists", vec!["l4".into(), "after it".into()])]);
    let end = server.end();
    device.sync(&mut server);
    assert_eq!(
        device.parked(),
        ["may_be_applied_already", "may_be_applied_already"]
    );
    assert_eq!(server.end(), end);
}

/// What was away for longer than the server remembers is new all the same, and what was sent then
/// is known: only what came before may be forgotten.
#[test]
fn ob11_what_was_first_sent_after_all_that_is_forgotten_is_not_doubted() {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.sync(&mut server);
    device.disconnect();
    device.write("INSERT INTO notes VALUES(1, 'long ago')");
    device.seal();
    server.write(&[("lists", vec!["l1".into(), "meanwhile".into()])]);
    server.horizon = server.end();
    // Refused, and that answer is lost: it is asked for once more.
    server.judge = Box::new(|_| Some(refusal("forbidden", false)));
    device.connect();
    device.upload(&mut server);
    assert!(device.download(), "Welcome");
    server.page(device.link.as_mut().unwrap());
    while device.download() {}
    device.upload(&mut server);
    assert_eq!(device.pushed().len(), 1);
    device.disconnect();
    device.sync(&mut server);
    assert_eq!(device.parked(), ["forbidden"]);
}

/// What the part was a part of, the other file has sent whole: the part says what that was.
#[test]
fn ob12_a_part_of_what_a_copy_shares_is_known_by_its_whole() {
    let (dir, mut server, mut device) = to_be_copied();
    let (path, copy) = (dir.path().join("app.db"), dir.path().join("copy.db"));
    device.disconnect();
    device.run("INSERT INTO notes VALUES(1, 'shared'); INSERT INTO lists VALUES('l1', 'shared')");
    device.seal();
    std::fs::copy(&path, &copy).unwrap();
    device.sync(&mut server);
    server.write(&[("notes", vec![Value::Integer(1), "edited".into()])]);

    let mut twin = twin(&copy, &device);
    let notes = twin.query("SELECT sql FROM sqlite_master WHERE name = 'notes'");
    twin.run("DROP TABLE notes");
    twin.seal();
    assert_eq!(twin.parked(), ["table_gone"]);
    twin.sync(&mut server);
    twin.run(&notes);
    twin.sync(&mut server);
    twin.disconnect();
    twin.sync(&mut server);
    assert_eq!(twin.parked(), [""; 0]);
    assert_eq!(twin.outbox(), "");
    assert_eq!(twin.query("SELECT body FROM notes"), "edited");
    twin.assert_equal(&server);
}

#[test]
fn ob8_what_a_copy_shares_stays_in_doubt_until_it_is_answered() {
    let (dir, mut server, mut device) = to_be_copied();
    let (path, copy) = (dir.path().join("app.db"), dir.path().join("copy.db"));
    device.write("INSERT INTO notes VALUES(1, 'shared')");
    device.seal();
    std::fs::copy(&path, &copy).unwrap();
    device.sync(&mut server);
    device.disconnect();
    device.sync(&mut server);

    let mut twin = twin(&copy, &device);
    twin.connect();
    twin.upload(&mut server);
    assert!(twin.download(), "Welcome");
    twin.upload(&mut server);
    let forked = |e: &&Event| matches!(e, Event::Connected { forked: true, .. });
    assert_eq!(twin.events.iter().filter(forked).count(), 1);
    assert_eq!(doubts(&twin), [true]);
    twin.disconnect();
    twin.write("INSERT INTO notes VALUES(2, 'only here')");
    server.ids.clear();
    server.horizon = server.end();
    twin.sync(&mut server);
    assert_eq!(
        doubts(&twin),
        [true, false],
        "of its own it knows all answers"
    );
    assert_eq!(twin.parked(), ["may_be_applied_already"]);
    assert_eq!(
        twin.query("SELECT body FROM notes ORDER BY id"),
        "shared\nonly here"
    );
}

/// The server knows the changeset's id from the file that the backup was made of.
#[test]
fn sl9_what_a_backup_holds_unsent_does_not_grow() {
    let (dir, mut server, mut device) = to_be_copied();
    let (path, copy) = (dir.path().join("app.db"), dir.path().join("copy.db"));
    let backup = dir.path().join("backup.db");
    device.disconnect();
    device.run("INSERT INTO notes VALUES(1, 'unsent')");
    device.seal();
    std::fs::copy(&path, &copy).unwrap();
    std::fs::copy(&path, &backup).unwrap();
    device.run("INSERT INTO notes VALUES(2, 'joined with it')");
    device.seal();
    assert_eq!(device.outbox(), "s");
    // As it was sent before it grew: another copy of the same state.
    let mut other = twin(&copy, &device);
    other.sync(&mut server);
    drop(other);

    let mut restored = twin(&backup, &device);
    restored.run("INSERT INTO notes VALUES(3, 'after the backup')");
    restored.seal();
    assert_eq!(restored.outbox(), "ss");
    restored.sync(&mut server);
    let bodies = "SELECT body FROM notes ORDER BY id";
    assert_eq!(restored.query(bodies), "unsent\nafter the backup");
    restored.assert_equal(&server);
}

/// It is the file that was copied, and goes on while the copy sends what both have.
#[test]
fn sl9_what_a_copy_may_have_sent_does_not_grow() {
    let (dir, mut server, mut device) = to_be_copied();
    let (path, copy) = (dir.path().join("app.db"), dir.path().join("copy.db"));
    device.disconnect();
    // As many as may be on their way: what comes after them waits.
    for i in 0..16 {
        device.write(&format!("INSERT INTO lists VALUES('l{i}', 'marked')"));
    }
    device.run("INSERT INTO notes VALUES(1, 'unsent')");
    device.seal();
    std::fs::copy(&path, &copy).unwrap();
    twin(&copy, &device).sync(&mut server);

    device.connect();
    device.upload(&mut server);
    assert!(device.download(), "Welcome");
    let forked = |e: &&Event| matches!(e, Event::Connected { forked: true, .. });
    assert_eq!(device.events.iter().filter(forked).count(), 1);
    device.disconnect();
    device.run("INSERT INTO notes VALUES(2, 'after the copy')");
    device.seal();
    device.sync(&mut server);
    let bodies = "SELECT body FROM notes ORDER BY id";
    assert_eq!(device.query(bodies), "unsent\nafter the copy");
    device.assert_equal(&server);
}

/// The server refuses one of two acts that nobody marked; the file that it tells sends the other as
/// a piece, and so does a backup of it.
#[test]
fn ob11_a_backup_cuts_what_was_refused_into_the_same_pieces() {
    let (dir, mut server, mut device) = to_be_copied();
    let (path, backup) = (dir.path().join("app.db"), dir.path().join("backup.db"));
    let later = dir.path().join("later.db");
    refuse_value(&mut server, "bad");
    // The marks carry the machine's own time.
    device.now = Timestamp(4_000_000_000_000_000);
    device.run("INSERT INTO lists VALUES('l1', 'bad'); INSERT INTO lists VALUES('l2', 'good')");
    spread_marks(&device, "lists");
    device.seal();
    std::fs::copy(&path, &backup).unwrap();
    std::fs::copy(&path, &later).unwrap();
    device.sync(&mut server);
    assert_eq!(device.parked(), ["forbidden"]);
    let good = device.pushed().last().unwrap().id;
    let known = server.ids.clone();
    assert!(known.contains_key(&good));

    let mut restored = twin(&backup, &device);
    restored.sync(&mut server);
    assert_eq!(restored.parked(), ["forbidden"]);
    assert_eq!(restored.pushed().last().unwrap().id, good);
    assert_eq!(server.ids, known, "nothing is there twice");

    // Of what is forgotten nobody can say so.
    let mut other = twin(&later, &device);
    server.ids.clear();
    server.horizon = server.end();
    other.sync(&mut server);
    assert_eq!(other.parked(), ["may_be_applied_already"]);
    assert_eq!(server.ids.len(), 0);
}

/// The server has some of what a backup holds in pieces that the other file sent: the backup cuts
/// until what is there is apart from what is not, and says of which changeset each piece is.
#[test]
fn ob11_what_is_there_in_part_is_cut_until_the_rest_is_apart() {
    let (_dir, mut server, mut device) = to_be_copied();
    // The marks carry the machine's own time.
    device.now = Timestamp(4_000_000_000_000_000);
    // Two acts, the second of three rows.
    device.run("INSERT INTO lists VALUES('l1', 'alone')");
    spread_marks(&device, "lists");
    device.run(
        "INSERT INTO notes VALUES(1, 'there'); INSERT INTO notes VALUES(2, 'not there');
         INSERT INTO notes VALUES(3, 'there')",
    );
    device.seal();
    assert_eq!(device.outbox(), "s");
    let whole = device.replica.queue(None, 1).unwrap()[0].id;
    server.judge = Box::new(move |changeset| {
        let there = [1, 3];
        let places = match &changeset.piece {
            Some(piece) => piece.places.clone(),
            None if changeset.id == whole => (0..4).collect(),
            None => return None,
        };
        let found = places.iter().filter(|place| there.contains(*place)).count();
        // All of it is there: the mock knows no pieces, so it is told that nothing was wrong.
        (found > 0 && found < places.len()).then(|| refusal("partly_applied_already", false))
    });
    device.sync(&mut server);
    assert_eq!(device.outbox(), "");
    let mut pieces: Vec<_> = device
        .pushed()
        .into_iter()
        .filter_map(|changeset| changeset.piece)
        .map(|piece| {
            assert_eq!(piece.whole, whole, "also of a piece of a piece");
            piece.places
        })
        .collect();
    pieces.sort();
    pieces.dedup();
    assert_eq!(
        pieces,
        [
            vec![0],
            vec![1],
            vec![1, 2, 3],
            vec![2],
            vec![2, 3],
            vec![3]
        ]
    );
}

/// A piece that was accepted and that a restored server lost is still a piece of the same one.
#[test]
fn ob4_a_piece_that_is_sent_again_says_what_it_is_of() {
    let (_dir, mut server, mut device) = to_be_copied();
    refuse_value(&mut server, "bad");
    // The marks carry the machine's own time.
    device.now = Timestamp(4_000_000_000_000_000);
    let backup = server.backup();
    device.run(
        "INSERT INTO lists VALUES('l1', 'bad'); INSERT INTO lists VALUES('l2', 'good');
         INSERT INTO lists VALUES('l3', 'too')",
    );
    spread_marks(&device, "lists");
    device.seal();
    device.sync(&mut server);
    let of_pieces = |device: &Device| -> Vec<_> {
        let pushed = device.pushed().into_iter();
        pushed.filter_map(|changeset| changeset.piece).collect()
    };
    let sent = of_pieces(&device);
    assert_eq!(sent.len(), 3);
    server.restore(backup);
    device.disconnect();
    device.sync(&mut server);
    let mut again = of_pieces(&device);
    again.retain(|piece| piece.places != [0]);
    assert_eq!(again, sent[1..]);
}

/// A backup cuts it, too, and sends the piece as it was. Nor is the piece there already because the
/// server has forgotten what was before it.
#[test]
fn sl9_a_piece_of_what_was_refused_does_not_grow() {
    let (_dir, mut server, mut device) = to_be_copied();
    refuse_value(&mut server, "bad");
    // The marks carry the machine's own time.
    device.now = Timestamp(4_000_000_000_000_000);
    device.run("INSERT INTO lists VALUES('l1', 'bad'); INSERT INTO lists VALUES('l2', 'good')");
    spread_marks(&device, "lists");
    device.seal();
    // As many as may be on their way: the pieces wait.
    for i in 0..16 {
        device.write(&format!("INSERT INTO notes VALUES({i}, 'marked')"));
    }
    device.connect();
    while device.outbox().len() == 17 {
        let said = device.upload(&mut server);
        let heard = device.download();
        assert!(said > 0 || heard, "the refusal comes");
    }
    device.disconnect();
    assert_eq!(device.outbox().len(), 18);
    device.run("INSERT INTO notes VALUES(99, 'later, and not marked either')");
    device.seal();
    assert_eq!(device.outbox().len(), 19);

    server.ids.clear();
    server.horizon = server.end();
    device.sync(&mut server);
    assert_eq!(device.query("SELECT name FROM lists"), "good");
    let forbidden = device.parked().iter().filter(|c| *c == "forbidden").count();
    assert_eq!(forbidden, 1);
}

#[test]
fn ob8_a_copy_may_have_been_made_of_what_is_parked() {
    let (dir, mut server, mut device) = to_be_copied();
    let (path, copy) = (dir.path().join("app.db"), dir.path().join("copy.db"));
    server.judge = Box::new(|_| Some(refusal("forbidden", false)));
    device.write("INSERT INTO notes VALUES(1, 'refused at first')");
    device.sync(&mut server);
    assert_eq!(device.parked(), ["forbidden"]);
    std::fs::copy(&path, &copy).unwrap();
    server.judge = Box::new(|_| None);
    let id = device.replica.queue(None, 9).unwrap()[0].id;
    device.replica.retry(id, device.now).unwrap();
    device.sync(&mut server);
    device.disconnect();
    device.sync(&mut server);

    server.ids.clear();
    server.horizon = server.end();
    let mut twin = twin(&copy, &device);
    twin.sync(&mut server);
    twin.replica.retry(id, twin.now).unwrap();
    twin.push(&mut server);
    assert_eq!(doubts(&twin), [true]);
}

#[test]
fn ob11_what_was_parked_before_its_answer_came_may_be_there() {
    const AWAY: BucketId = BucketId([8; 16]);
    let mut server = Authority::new(schema(SCHEMA));
    server.buckets = |table, _| match table.name.as_str() {
        "lists" => [AWAY].into(),
        _ => [HOME].into(),
    };
    server.granted = [HOME, AWAY].into();
    server.write(&[("lists", vec!["x1".into(), "theirs".into()])]);
    let mut device = Device::new(SCHEMA, 1);
    device.sync(&mut server);
    device.write("UPDATE lists SET name = 'what i wrote' WHERE id = 'x1'");
    device.push(&mut server);
    assert_eq!(server.ids.len(), 1);
    // The answer is lost, then the sight of the row, and in the end the server has forgotten it.
    device.disconnect();
    server.granted.remove(&AWAY);
    let ids = std::mem::take(&mut server.ids);
    server.is_busy = true;
    device.sync(&mut server);
    assert_eq!(device.parked(), ["no_access"]);
    device.disconnect();
    server.granted.insert(AWAY);
    assert_eq!(ids.len(), 1);
    server.is_busy = false;
    server.horizon = server.end();
    device.sync(&mut server);
    let id = device.replica.queue(None, 9).unwrap()[0].id;
    // Its number tells nothing any more, whatever sessions come before it is sent.
    server.is_busy = true;
    device.replica.retry(id, device.now).unwrap();
    device.push(&mut server);
    assert_eq!(doubts(&device), [true]);
    device.disconnect();
    server.is_busy = false;
    device.sync(&mut server);
    assert_eq!(doubts(&device), [true]);
    assert_eq!(device.parked(), ["may_be_applied_already"]);
}

/// The number that it was accepted under is that of the device that this file was.
#[test]
fn ob11_what_a_copy_knows_accepted_is_not_applied_again_by_it() {
    let (dir, mut server, mut device) = to_be_copied();
    let (path, copy) = (dir.path().join("app.db"), dir.path().join("copy.db"));
    device.write("INSERT INTO notes VALUES(1, 'once')");
    device.push(&mut server);
    while device.download() {}
    assert_eq!(device.outbox(), "a", "no checkpoint has passed it");
    std::fs::copy(&path, &copy).unwrap();
    device.sync(&mut server);
    device.disconnect();
    device.sync(&mut server);

    let mut twin = twin(&copy, &device);
    server.is_busy = true;
    twin.connect();
    twin.upload(&mut server);
    assert!(twin.download(), "Welcome");
    assert_eq!(twin.outbox(), "t", "it is asked about again");
    twin.disconnect();
    server.is_busy = false;
    server.ids.clear();
    server.horizon = server.end();
    let end = server.end();
    twin.sync(&mut server);
    assert_eq!(twin.parked(), ["may_be_applied_already"]);
    assert_eq!(server.end(), end);
}

#[test]
fn ob11_what_may_be_there_is_not_sent_again_under_another_name() {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.sync(&mut server);
    device.now = Timestamp(4_000_000_000_000_000);
    server.judge = Box::new(|_| Some(refusal("may_be_applied_already", false)));
    device.run("INSERT INTO notes VALUES(1, 'one'); INSERT INTO notes VALUES(2, 'two')");
    // Two acts with a pause between them, which are cut where they are refused otherwise.
    spread_marks(&device, "notes");
    device.sync(&mut server);
    assert_eq!(device.parked(), ["may_be_applied_already"]);
    assert_eq!(device.query("SELECT count(*) FROM notes"), "0");

    server.judge = Box::new(|_| None);
    server.write(&[("lists", vec!["l2".into(), "written later".into()])]);
    server.horizon = server.end();
    let id = device.replica.queue(None, 9).unwrap()[0].id;
    device.replica.retry(id, device.now).unwrap();
    device.push(&mut server);
    assert_eq!(
        doubts(&device).last(),
        Some(&true),
        "nobody knows more than before"
    );
    assert_eq!(device.pushed().last().unwrap().id, id);
    assert_eq!(server.rows.len(), 1);
}

/// The clock that sealed it may be ahead, so that its reading does not say that it is old; and a
/// later session brought a checkpoint and no answer, so that the cursor does not say it either.
#[test]
fn ob11_what_stays_without_an_answer_is_doubted_once_it_may_be_forgotten() {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.sync(&mut server);
    device.write("INSERT INTO notes VALUES(1, 'once')");
    device.push(&mut server);
    let id = device.pushed().last().unwrap().id;
    let version = server.ids[&id];
    // The answer is lost, and in the next session, too; what it wrote this user does not see.
    device.disconnect();
    device.connect();
    let is_silent = |frame: &Vec<u8>| {
        !matches!(
            decode_server(frame),
            Ok(ServerMessage::PushResult(_) | ServerMessage::Changes(_))
        )
    };
    let mut moves = true;
    while moves {
        moves = device.upload(&mut server) > 0;
        let link = device.link.as_mut().unwrap();
        moves |= server.page(link) || server.advance(link);
        link.out.retain(is_silent);
        while device.download() {}
    }
    assert_eq!(device.outbox(), "t");
    assert_eq!(doubts(&device), [false]);
    let reached = device.query("SELECT max(version) FROM syncline_cursors");
    assert_eq!(reached, version.0.to_string(), "a checkpoint came");

    // The server forgets the id, not what the device has reached.
    server.ids.remove(&id);
    server.horizon = version;
    device.disconnect();
    device.sync(&mut server);
    assert_eq!(device.parked(), ["may_be_applied_already"]);

    // What is answered is not doubted by what was not.
    device.write("INSERT INTO notes VALUES(2, 'another')");
    device.sync(&mut server);
    device.disconnect();
    device.sync(&mut server);
    assert_eq!(device.parked(), ["may_be_applied_already"]);
}
