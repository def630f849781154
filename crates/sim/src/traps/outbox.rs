//! Changes that never leave the device, or leave it twice.

use syncline_replica::Replica;

use super::{Bench, TITLES};

/// "Duplicates" (same operation and payload, still pending) are dropped: of A, B, A the last real
/// action is lost.
#[test]
fn seed_trap_a_b_a_ends_with_a() {
    let mut bench = Bench::new(&["ada", "ben"]);
    bench.write(0, "INSERT INTO docs(id, title) VALUES ('d', 'A')");
    bench.settle();
    bench.disconnect(0);
    for title in ["B", "A", "B", "A"] {
        bench.write(
            0,
            &format!("UPDATE docs SET title = '{title}' WHERE id = 'd'"),
        );
    }
    bench.write(1, "UPDATE docs SET size = 1 WHERE id = 'd'");
    bench.settle();
    bench.connect(0);
    bench.settle();
    bench.everywhere(TITLES, "A");
    // What dropping doubles among the pending makes of the same.
    let mut pending = Vec::new();
    for title in ["B", "A", "B", "A", "B"] {
        if !pending.contains(&title) {
            pending.push(title);
        }
    }
    assert_ne!(
        pending.last(),
        Some(&"B"),
        "the wrong way loses the last action"
    );
    // One after the other over the wire.
    for title in ["B", "A"] {
        bench.write(
            0,
            &format!("UPDATE docs SET title = '{title}' WHERE id = 'd'"),
        );
        bench.settle();
        bench.everywhere(TITLES, title);
    }
}

/// A debounce that acts on the first trigger and returns early on the rest: the last write of a
/// burst is never sent.
#[test]
fn seed_trap_the_last_write_of_a_burst_arrives() {
    let mut bench = Bench::new(&["ada", "ben"]);
    bench.write(0, "INSERT INTO docs(id, title) VALUES ('d', 't')");
    bench.settle();
    for i in 0..100 {
        let sql = format!("UPDATE docs SET title = 't{i}' WHERE id = 'd'");
        bench.devices[0]
            .app
            .execute_batch(&sql)
            .expect("the app writes");
        // Some are looked at as they come, and the last is followed by nothing.
        if i % 7 == 0 {
            bench.call(0, Replica::wake);
            bench.send(0);
        }
    }
    bench.settle();
    bench.everywhere(TITLES, "t99");
}

/// A queue in memory that is shifted before the change is applied: a crash loses it, and a retry
/// after a lost answer applies it twice.
#[test]
fn seed_trap_a_crash_before_the_answer_or_the_apply_loses_and_doubles_nothing() {
    let mut bench = Bench::new(&["ada", "ben"]);
    bench.write(0, "INSERT INTO tallies(id, n) VALUES ('t', 0)");
    bench.settle();
    // Committed there; the answer never arrives.
    bench.write(0, "UPDATE tallies SET n = n + 1 WHERE id = 't'");
    bench.call(0, Replica::handle_timeout);
    assert!(bench.send(0), "it was sent");
    bench.kill(0);
    bench.connect(0);
    bench.settle();
    bench.everywhere("SELECT n FROM tallies", "1");
    // What arrives dies with the process before it is on disk, again and again.
    for commits in 0..3 {
        bench.write(0, "UPDATE tallies SET n = n + 1 WHERE id = 't'");
        bench.call(0, Replica::handle_timeout);
        bench.send(0);
        bench.devices[1].light_fuse(commits);
        bench.receive(1);
        bench.kill(1);
        bench.connect(1);
        bench.settle();
        let expected = (commits + 2).to_string();
        bench.everywhere("SELECT n FROM tallies", &expected);
    }
}

/// A failed head of the queue is put back and the loop ends: one poisoned change blocks everything
/// behind it for ever.
#[test]
fn seed_trap_a_poisoned_change_blocks_nobody() {
    let mut bench = Bench::new(&["ada", "ben"]);
    bench.write(0, "INSERT INTO projects(id, name) VALUES ('p', 'of ada')");
    bench.settle();
    let count = "SELECT count(*) FROM docs";
    // Ben may not make himself a member; the server says so for ever.
    bench.write(1, "PRAGMA foreign_keys = OFF");
    bench.write(1, "INSERT INTO members VALUES ('m', 'p', 'ben')");
    bench.write(1, "INSERT INTO docs(id, title) VALUES ('d1', 'after it')");
    bench.settle();
    bench.write(1, "INSERT INTO docs(id, title) VALUES ('d2', 'later')");
    bench.settle();
    bench.everywhere(count, "2");
    bench.everywhere("SELECT count(*) FROM members", "0");
    let status = bench.devices[1].replica.as_ref().expect("it runs").status();
    let status = status.expect("a status");
    assert_eq!((status.waiting, status.parked), (0, 1));
    assert!(bench.query(1, "SELECT id FROM projects").is_empty());
}
