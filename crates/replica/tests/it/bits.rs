//! What waits has no second copy: a bit of it that a disk changes is not sent as if somebody had
//! written it (docs/spec/outbox.md, OB15).

use rusqlite::types::Value as Sql;
use syncline_core::{ChangesetId, Op};

use crate::{
    authority::Authority,
    device::{Device, SCHEMA, schema},
};

/// A device with three changesets that wait, and the server it is to send them to.
fn waiting() -> (Authority, Device) {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.write("INSERT INTO lists VALUES('l1', 'one'), ('l2', 'two'), ('l3', 'three')");
    device.sync(&mut server);
    device.disconnect();
    device.write("UPDATE lists SET name = 'uno' WHERE id = 'l1'");
    device.seal();
    device.write(
        "INSERT INTO lists VALUES('l4', 'four'); DELETE FROM lists WHERE id = 'l3';
         UPDATE syncline_tx SET n = n + 1",
    );
    device.seal();
    device.write("UPDATE lists SET name = 'dos' WHERE id = 'l2'");
    device.seal();
    (server, device)
}

/// What of a changeset people would see the effect of.
type Sent = (ChangesetId, Vec<(String, Op)>);

/// Everything that is pushed until there is nothing left to do.
fn sent(device: &mut Device, server: &mut Authority) -> Vec<Sent> {
    device.sync(server);
    let pushed = device.pushed().into_iter().map(|changeset| {
        let changes = changeset.changes.into_iter();
        let changes = changes.map(|change| (format!("{:?}", change.key), change.op));
        (changeset.id, changes.collect())
    });
    pushed.collect()
}

fn flipped(value: &Sql, bit: usize) -> Option<Sql> {
    match value {
        Sql::Integer(n) => (bit < 63).then(|| Sql::Integer(n ^ (1 << bit))),
        Sql::Blob(bytes) => {
            let mut bytes = bytes.clone();
            *bytes.get_mut(bit / 8)? ^= 1 << (bit % 8);
            Some(Sql::Blob(bytes))
        }
        Sql::Null | Sql::Real(_) | Sql::Text(_) => None,
    }
}

/// Changes one bit of one value of what waits; `None` past its last bit.
fn flip(device: &Device, table: &str, column: &str, row: usize, bit: usize) -> Option<()> {
    let conn = device.replica.connection();
    let key = if table == "syncline_changes" {
        "seq, pos"
    } else {
        "seq, 0"
    };
    let found = format!("SELECT {column}, {key} FROM {table} ORDER BY 2, 3 LIMIT 1 OFFSET {row}");
    let (value, seq, pos): (Sql, i64, i64) = conn
        .query_row(&found, [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .ok()?;
    let value = flipped(&value, bit)?;
    let place = if table == "syncline_changes" {
        "pos = ?3"
    } else {
        "?3 = 0"
    };
    let update = format!("UPDATE {table} SET {column} = ?1 WHERE seq = ?2 AND {place}");
    conn.execute(&update, (value, seq, pos)).unwrap();
    Some(())
}

fn every_bit(table: &str, columns: &[&str], step: usize) {
    let (mut server, mut device) = waiting();
    let expected = sent(&mut device, &mut server);
    assert_eq!(expected.len(), 3);
    let (mut arrived, mut parked) = (0, 0);
    for column in columns {
        for row in 0.. {
            let mut bit = row % step;
            loop {
                let (mut server, mut device) = waiting();
                if flip(&device, table, column, row, bit).is_none() {
                    break;
                }
                let place = format!("bit {bit} of {column} of row {row}");
                let pushed = sent(&mut device, &mut server);
                for changeset in &pushed {
                    assert!(expected.contains(changeset), "{place}: {changeset:?}");
                }
                let codes = device.parked();
                match pushed.len() {
                    3 => arrived += 1,
                    _ => parked += 1,
                }
                assert_eq!(pushed.len() + codes.len(), 3, "{place}: {codes:?}");
                assert!(codes.iter().all(|code| code == "damaged"), "{codes:?}");
                device.assert_equal(&server);
                bit += step;
            }
            if bit == row % step {
                break;
            }
        }
    }
    assert!(arrived > 0 || parked > 0);
}

#[test]
fn ob15_no_bit_of_a_change_makes_it_another() {
    every_bit("syncline_changes", &["t", "key", "base", "op", "sum"], 7);
}

#[test]
fn ob15_no_bit_of_a_changeset_makes_it_another() {
    every_bit("syncline_outbox", &["id", "hlc", "changes", "sum"], 5);
}

#[test]
fn ob15_a_change_that_is_gone_or_in_another_changeset_is_told() {
    for hurt in [
        "DELETE FROM syncline_changes WHERE pos = 1",
        "DELETE FROM syncline_changes WHERE seq = (SELECT min(seq) FROM syncline_changes)",
        "UPDATE syncline_changes SET seq = (SELECT max(seq) FROM syncline_outbox), pos = 7
         WHERE pos = 1",
        "UPDATE syncline_changes SET seq = 9999 WHERE pos = 1",
    ] {
        let (mut server, mut device) = waiting();
        let expected = sent(&mut device, &mut server);
        let (mut server, mut device) = waiting();
        device.replica.connection().execute(hurt, []).unwrap();
        let pushed = sent(&mut device, &mut server);
        assert!(
            pushed.iter().all(|pushed| expected.contains(pushed)),
            "{hurt}"
        );
        assert_eq!(pushed.len() + device.parked().len(), 3, "{hurt}");
        assert!(pushed.len() < 3, "{hurt}");
        device.assert_equal(&server);
    }
}

#[test]
fn ob15_what_is_damaged_does_not_become_sound_by_what_happens_to_it() {
    for (hurt, then) in [
        ("UPDATE syncline_outbox SET hlc = hlc + 1", "retry"),
        ("UPDATE syncline_outbox SET id = randomblob(16)", "retry"),
        ("DELETE FROM syncline_changes WHERE pos = 0", "retry"),
        ("UPDATE syncline_outbox SET hlc = hlc + 1", "write"),
        ("DELETE FROM syncline_changes WHERE pos = 0", "write"),
    ] {
        let mut server = Authority::new(schema(SCHEMA));
        let mut device = Device::new(SCHEMA, 1);
        device.run("INSERT INTO lists VALUES('l1', 'one'), ('l2', 'two')");
        device.seal();
        device.replica.connection().execute(hurt, []).unwrap();
        if then == "write" {
            device.run("INSERT INTO lists VALUES('l3', 'three')");
            device.seal();
        }
        device.sync(&mut server);
        assert!(device.parked().contains(&"damaged".to_owned()), "{hurt}");
        for queued in device.replica.queue(None, 9).unwrap() {
            let _refused = device.replica.retry(queued.id, device.now);
        }
        device.sync(&mut server);
        assert!(device.parked().contains(&"damaged".to_owned()), "{hurt}");
        assert!(server.rows.len() <= 1, "{hurt}, {then}");
    }
}

#[test]
fn ob15_what_another_program_joined_meanwhile_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::create(&path, SCHEMA, 1);
    device.sync(&mut server);
    device.run("INSERT INTO lists VALUES('l1', 'one')");
    device.seal();
    // Listed before, read after.
    let conn = rusqlite::Connection::open(&path).unwrap();
    let mut other = Device::open(conn, 2);
    other.run("INSERT INTO lists VALUES('l2', 'two')");
    other.seal();
    other.run("INSERT INTO lists VALUES('l3', 'three')");
    other.seal();
    drop(other);
    device.sync(&mut server);
    assert_eq!(device.outbox(), "");
    assert_eq!(server.rows.len(), 3);
    device.assert_equal(&server);
}

#[test]
fn ob15_what_seems_answered_without_an_answer_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    for state in [1, 2, 3, 256, -1] {
        let path = dir.path().join(format!("{state}.db"));
        let mut server = Authority::new(schema(SCHEMA));
        let mut device = Device::create(&path, SCHEMA, 1);
        device.write("INSERT INTO lists VALUES('l1', 'one')");
        device.seal();
        device.run(&format!("UPDATE syncline_outbox SET state = {state}"));
        let mut device = device.restart(&path);
        device.sync(&mut server);
        assert_eq!(server.rows.len(), 1, "{state}");
        assert_eq!(device.outbox(), "");
        device.assert_equal(&server);
    }
}

#[test]
fn ob15_what_a_server_lost_is_not_sent_again_as_another() {
    let (mut server, mut device) = waiting();
    let backup = server.backup();
    device.sync(&mut server);
    device.disconnect();
    let hurt = "UPDATE syncline_acknowledged SET body = CASE seq % 2
                  WHEN 0 THEN 7 ELSE CAST(replace(CAST(body AS TEXT), 'uno', 'unp') AS BLOB) END";
    let conn = device.replica.connection();
    assert!(conn.execute(hurt, []).unwrap() > 0);
    server.restore(backup);
    device.sync(&mut server);
    assert_eq!(device.parked(), ["damaged", "damaged"]);
    device.assert_equal(&server);
}
