//! Cursors that miss what they should find.

use std::collections::BTreeSet;

use rusqlite::Connection;

use super::{Bench, TITLES};

/// A cursor over each row's own count of changes (`_version > highest seen`): a new row begins at 1,
/// so it is never pulled once any row was changed more often.
#[test]
fn seed_trap_a_new_row_is_pulled_after_another_one_was_changed_often() {
    let mut bench = Bench::new(&["ada", "ben"]);
    let naive = Connection::open_in_memory().expect("memory");
    let counted = "CREATE TABLE docs(id TEXT PRIMARY KEY, changes INTEGER NOT NULL)";
    naive.execute_batch(counted).expect("a table");
    let (mut highest, mut pulled) = (0_i64, BTreeSet::new());
    for i in 0..10 {
        let insert = format!("INSERT INTO docs(id, title) VALUES ('d{i}', 't{i}')");
        bench.write(0, &insert);
        bench.settle();
        for size in 0..3 {
            bench.write(
                0,
                &format!("UPDATE docs SET size = {size} WHERE id = 'd{i}'"),
            );
            bench.settle();
        }
        // The same in the wrong way, pulled as often.
        naive
            .execute("INSERT INTO docs VALUES (?1, 1)", [i])
            .expect("inserted");
        for _ in 0..3 {
            naive_pull(&naive, &mut highest, &mut pulled);
            let update = "UPDATE docs SET changes = changes + 1 WHERE id = ?1";
            naive.execute(update, [i]).expect("updated");
        }
        naive_pull(&naive, &mut highest, &mut pulled);
    }
    bench.everywhere("SELECT count(*) FROM docs", "10");
    bench.everywhere("SELECT DISTINCT size FROM docs", "Real(2.0)");
    assert_eq!(pulled.len(), 1, "the wrong way finds the first row only");
}

/// What a cursor over counts of changes finds.
fn naive_pull(naive: &Connection, highest: &mut i64, pulled: &mut BTreeSet<String>) {
    let mut pull = naive
        .prepare_cached("SELECT id, changes FROM docs WHERE changes > ?1")
        .expect("a query");
    let mut rows = pull.query([*highest]).expect("rows");
    while let Some(row) = rows.next().expect("a row") {
        pulled.insert(row.get(0).expect("an id"));
        *highest = row.get::<_, i64>(1).expect("a count").max(*highest);
    }
}

/// A cursor over the time of writing (`updated_at > lastPulledAt`): what was written early and
/// committed late lies behind it for ever.
#[test]
fn seed_trap_a_late_commit_of_an_early_change_is_pulled() {
    let mut bench = Bench::with_clocks(&[("ada", 0), ("ben", -86_400_000)]);
    bench.disconnect(1);
    bench.write(
        1,
        "INSERT INTO docs(id, title) VALUES ('early', 'written first')",
    );
    for i in 0..20 {
        bench.write(
            0,
            &format!("INSERT INTO docs(id, title) VALUES ('d{i}', 't{i}')"),
        );
        bench.write(0, &format!("UPDATE docs SET size = {i} WHERE id = 'd{i}'"));
        bench.settle();
    }
    bench.connect(1);
    bench.settle();
    bench.everywhere("SELECT title FROM docs WHERE id = 'early'", "written first");
    bench.everywhere("SELECT count(*) FROM docs", "21");
}

/// A cursor over a sequence (`bigserial > cursor`): numbers are given before the commit, so a
/// transaction that lasts lies behind those that overtook it. Here a version is given in the commit,
/// under the lock of the one writer; many connections of other programs write at once, a pull follows
/// each commit, and each finds all there is. (With several writers of PostgreSQL: open, there is no
/// such storage yet.)
#[test]
fn seed_trap_what_overtakes_a_transaction_does_not_hide_it() {
    let mut bench = Bench::new(&["ada", "ben"]);
    // The wrong way: a number is drawn when a transaction begins and is seen when it commits.
    let (mut drawn, mut cursor, mut open) = (0_u64, 0_u64, Vec::new());
    let mut naive = BTreeSet::new();
    for i in 0..40_u64 {
        let id = format!("w{i}");
        bench.write(
            0,
            &format!("INSERT INTO docs(id, title) VALUES ('{id}', 'device {i}')"),
        );
        drawn += 1;
        open.push(drawn);
        // Every third transaction stays open while the next ones commit.
        let commits = if i % 3 == 0 {
            Vec::new()
        } else {
            open.drain(..).rev().collect()
        };
        bench.server_writes(&format!(
            "INSERT INTO docs(id, title) VALUES ('s{i}', 'program {i}')"
        ));
        bench.settle();
        for number in commits {
            // A pull after each commit.
            if number > cursor {
                naive.insert(number);
                cursor = number;
            }
        }
        let count = (2 * (i + 1)).to_string();
        assert_eq!(bench.query(1, "SELECT count(*) FROM docs"), count);
    }
    bench.everywhere("SELECT count(*) FROM docs", "80");
    assert!(
        (naive.len() as u64) < drawn - 5,
        "the wrong way loses {}",
        drawn - naive.len() as u64
    );
}

/// Changes are told to who listens and to nobody later: what happens during a disconnect is gone.
#[test]
fn seed_trap_what_happened_while_away_is_replayed() {
    let mut bench = Bench::new(&["ada", "ben"]);
    bench.write(
        0,
        "INSERT INTO docs(id, title) VALUES ('a', 'a'), ('b', 'b')",
    );
    bench.settle();
    bench.disconnect(1);
    bench.write(0, "UPDATE docs SET title = 'a2' WHERE id = 'a'");
    bench.settle();
    bench.write(0, "DELETE FROM docs WHERE id = 'b'");
    bench.settle();
    bench.write(0, "INSERT INTO docs(id, title) VALUES ('c', 'c')");
    bench.settle();
    bench.connect(1);
    bench.settle();
    bench.everywhere(TITLES, "a2,c");
}

/// A server that is restored while a device has begun to load anew has lost what the device wrote
/// since the backup, and finds that out by its cursors alone.
#[test]
fn se6_ob4_a_server_restored_before_a_reload_began_to_arrive_is_noticed() {
    let mut bench = Bench::new(&["ada", "ben"]);
    bench.write(0, "INSERT INTO docs(id, title) VALUES ('a', 'before')");
    bench.settle();
    let backup = bench.server.backup().expect("a backup");
    bench.write(0, "INSERT INTO docs(id, title) VALUES ('b', 'after')");
    bench.settle();
    bench.everywhere(TITLES, "before,after");

    // Other rules: everything is loaded again, but nothing of it arrives after the Welcome.
    bench.disconnect(0);
    bench.disconnect(1);
    bench.server.stop();
    bench.server.setup.rules = bench.server.setup.rules.other();
    bench.advance();
    bench.server.resume(bench.now).expect("it starts");
    bench.connect(0);
    bench.send(0);
    let session = bench.sessions[0].expect("a session");
    bench.server.pump(session, bench.now).expect("it goes on");
    let welcome = bench.server.poll_frame(session).expect("a Welcome");
    bench.call(0, |replica, now| replica.handle(&welcome, now));
    bench.disconnect(0);

    bench.server.stop();
    bench.server.restore(&backup).expect("it is restored");
    bench.advance();
    bench.server.resume(bench.now).expect("it starts");
    assert_eq!(bench.on_server(TITLES), "before");
    bench.connect(0);
    bench.settle();
    assert_eq!(bench.on_server(TITLES), "before,after");
}
