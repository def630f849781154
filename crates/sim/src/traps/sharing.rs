//! Who sees what, and whose edit counts.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test names the kinds it is about"
)]

use syncline_core::wire::{RowBody, ServerMessage, decode_server};

use super::{Bench, TITLES};

/// Arrays are merged by union: what was removed on one device comes back from the other.
#[test]
fn seed_trap_items_that_were_removed_stay_removed() {
    let mut bench = Bench::new(&["ada", "ada"]);
    let setup = "INSERT INTO projects(id, name) VALUES ('p', 'p');
        INSERT INTO tasks(id, project_id, tags) VALUES ('t', 'p', '[\"a\",\"b\"]')";
    bench.write(0, setup);
    bench.settle();
    bench.disconnect(1);
    bench.write(0, "UPDATE tasks SET tags = '[\"b\"]' WHERE id = 't'");
    bench.write(
        1,
        "UPDATE tasks SET tags = '[\"a\",\"b\",\"c\"]' WHERE id = 't'",
    );
    bench.settle();
    bench.connect(1);
    bench.settle();
    let items =
        "SELECT group_concat(value) FROM (SELECT value FROM tasks, json_each(tags) ORDER BY value)";
    bench.everywhere(items, "b,c");
    let union: std::collections::BTreeSet<_> = ["b"].into_iter().chain(["a", "b", "c"]).collect();
    assert!(union.contains("a"), "the wrong way brings it back");
}

/// Clients subscribe to all rows and filter for themselves; channels have constant names: everybody
/// is sent everybody's data. Here every byte on the wire is looked at. (Channels of an app's own: open,
/// there are none yet.)
#[test]
fn seed_trap_rules_are_kept_by_the_server() {
    let mut bench = Bench::new(&["ada", "eve"]);
    bench.write(0, "INSERT INTO notes(id, body) VALUES (1, 'secret')");
    bench.write(0, "INSERT INTO projects(id, name) VALUES ('p', 'secret')");
    bench.write(0, "INSERT INTO docs(id, title) VALUES ('d', 'for all')");
    bench.settle();
    assert_eq!(bench.query(1, TITLES), "for all");
    let mut bodies = Vec::new();
    for frame in &bench.frames[1] {
        match decode_server(frame).expect("a message") {
            ServerMessage::Page(page) => {
                bodies.extend(page.parts.iter().flat_map(|part| part.rows.clone()));
            }
            ServerMessage::Changes(changes) => {
                for record in changes.records {
                    RowBody::decode(&record.body).expect("a body");
                    bodies.extend(record.body);
                }
            }
            _ => {}
        }
    }
    let holds = |text: &str| {
        bodies
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    assert!(holds("for all"), "what is looked for would be found");
    assert!(!holds("secret"));
}

/// The newest wall clock wins: a device that is a year ahead wins for a year.
#[test]
fn seed_trap_a_clock_a_year_ahead_wins_for_a_minute_at_most() {
    const YEAR: i64 = 365 * 86_400_000;
    let mut bench = Bench::with_clocks(&[("ada", YEAR), ("ben", 0)]);
    bench.write(1, "INSERT INTO docs(id, title) VALUES ('d', 'start')");
    bench.settle();
    bench.write(
        0,
        "UPDATE docs SET title = 'from the future' WHERE id = 'd'",
    );
    bench.settle();
    // Both have not seen the other's: only the clock decides, and it is clamped.
    bench.disconnect(1);
    bench.write(
        0,
        "UPDATE docs SET title = 'from the future again' WHERE id = 'd'",
    );
    bench.settle();
    bench.now = bench.now.plus_millis(61_000);
    bench.write(1, "UPDATE docs SET title = 'a minute later' WHERE id = 'd'");
    bench.connect(1);
    bench.settle();
    bench.everywhere(TITLES, "a minute later");
}
