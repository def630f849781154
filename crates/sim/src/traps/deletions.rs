//! Rows that come back, or do not go.

use syncline_replica::Event;

use super::{Bench, TITLES};

/// Tombstones are purged after 30 days, and a device that was away for 31 keeps its deleted rows
/// and sends them again. Here a device from before the horizon loads again, and rows that are not
/// there any more go; what it changed meanwhile is judged by the rules as any other change.
#[test]
fn seed_trap_a_deletion_reaches_who_was_away_and_nobody_brings_the_row_back() {
    let mut bench = Bench::new(&["ada", "ben"]);
    bench.write(
        0,
        "INSERT INTO docs(id, title) VALUES ('d', 'gone soon'), ('k', 'kept')",
    );
    bench.settle();
    bench.disconnect(1);
    bench.write(0, "DELETE FROM docs WHERE id = 'd'");
    bench.settle();
    bench.connect(1);
    bench.settle();
    bench.everywhere("SELECT id FROM docs", "k");
    // And after the tombstone was forgotten.
    bench.disconnect(1);
    bench.write(0, "DELETE FROM docs WHERE id = 'k'");
    bench.settle();
    let head = bench.server.head().expect("a head");
    bench.server.trim(head).expect("the log is trimmed");
    bench.connect(1);
    bench.settle();
    bench.everywhere("SELECT id FROM docs", "");
    // The same with an edit of the deleted row that was never sent.
    let setup = "INSERT INTO projects(id, name) VALUES ('p', 'p');
        INSERT INTO tasks(id, project_id, title) VALUES ('t', 'p', 'gone soon')";
    let mut bench = Bench::new(&["ada", "ada"]);
    bench.write(0, setup);
    bench.settle();
    bench.disconnect(1);
    bench.write(
        1,
        "UPDATE tasks SET title = 'edited meanwhile' WHERE id = 't'",
    );
    bench.write(0, "DELETE FROM tasks WHERE id = 't'");
    bench.settle();
    let head = bench.server.head().expect("a head");
    bench.server.trim(head).expect("the log is trimmed");
    bench.connect(1);
    bench.settle();
    bench.everywhere("SELECT title FROM tasks", "");
}

/// One tombstone for each row for ever: a row that is inserted again is deleted by the next pull.
#[test]
fn seed_trap_a_row_inserted_again_stays() {
    let mut bench = Bench::new(&["ada", "ben"]);
    bench.write(0, "INSERT INTO docs(id, title) VALUES ('d', 'first')");
    bench.settle();
    bench.disconnect(1);
    bench.write(0, "DELETE FROM docs WHERE id = 'd'");
    bench.settle();
    bench.write(0, "INSERT INTO docs(id, title) VALUES ('d', 'second')");
    bench.settle();
    bench.connect(1);
    bench.settle();
    bench.everywhere(TITLES, "second");
    bench.settle();
    bench.everywhere(TITLES, "second");
}

/// A tombstone that carries only the owner: those a row is shared with never hear that it is gone.
#[test]
fn seed_trap_members_hear_of_a_deletion() {
    let mut bench = Bench::new(&["ada", "ben", "ben"]);
    let setup = "INSERT INTO projects(id, name) VALUES ('p', 'shared');
        INSERT INTO members VALUES ('m', 'p', 'ben');
        INSERT INTO tasks(id, project_id, title) VALUES ('t', 'p', 'one'), ('u', 'p', 'two')";
    bench.write(0, setup);
    bench.settle();
    bench.everywhere("SELECT title FROM tasks ORDER BY id", "one,two");
    // One of Ben's devices is away.
    bench.disconnect(2);
    bench.write(0, "DELETE FROM tasks WHERE id = 't'");
    bench.settle();
    bench.connect(2);
    bench.settle();
    bench.everywhere("SELECT title FROM tasks ORDER BY id", "two");
    // And of a row that took others with it.
    bench.write(0, "PRAGMA foreign_keys = ON");
    bench.write(0, "DELETE FROM projects WHERE id = 'p'");
    bench.settle();
    for rows in ["tasks", "members", "projects"] {
        bench.everywhere(&format!("SELECT id FROM {rows}"), "");
    }
}

/// No tracking of deletions: they never arrive. Here they do, also of rows whose table has nothing
/// to mark them with, and also where the row was deleted by another program.
#[test]
fn seed_trap_deletions_arrive() {
    let mut bench = Bench::new(&["ada", "ben"]);
    let setup = "INSERT INTO docs(id, title) VALUES ('a', 'a'), ('b', 'b'), ('c', 'c')";
    bench.write(0, setup);
    bench.settle();
    bench.write(1, "DELETE FROM docs WHERE id = 'a'");
    bench.settle();
    bench.everywhere(TITLES, "b,c");
    bench.server_writes("DELETE FROM docs WHERE id = 'b'");
    bench.settle();
    bench.everywhere(TITLES, "c");
    bench.disconnect(1);
    bench.write(1, "DELETE FROM docs");
    bench.connect(1);
    bench.settle();
    bench.everywhere(TITLES, "");
}

/// Auto-increment ids made offline: two devices give the same number to two rows, and one of them
/// overwrites the other.
#[test]
fn seed_trap_integer_ids_made_offline_do_not_meet() {
    let mut bench = Bench::new(&["ada", "ben"]);
    bench.disconnect(0);
    bench.disconnect(1);
    let note = |of: &str| {
        format!(
            "INSERT INTO notes(id, body) VALUES (1, 'of {of}');
             INSERT INTO note_lines VALUES (1, 1, 'line of {of}')"
        )
    };
    bench.write(0, &note("ada"));
    bench.write(1, &note("ben"));
    for i in [0, 1] {
        bench.connect(i);
        bench.settle();
    }
    let bodies = "SELECT body FROM notes ORDER BY body";
    assert_eq!(bench.on_server(bodies), "of ada,of ben");
    assert_eq!(bench.query(0, bodies), "of ada");
    assert_eq!(bench.query(1, bodies), "of ben");
    let lines = "SELECT notes.body || ': ' || text FROM notes JOIN note_lines ON note_id = notes.id ORDER BY 1";
    let expected = "of ada: line of ada,of ben: line of ben";
    assert_eq!(
        bench.on_server(lines),
        expected,
        "references follow the new key"
    );
    let is_rekeyed = |event: &Event| matches!(event, Event::Rekeyed { .. });
    assert!(bench.events[1].iter().any(is_rekeyed), "the app is told");
}
