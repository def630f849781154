//! What other sync engines got wrong, shown on real replicas, the real session and SQLite.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test names the kinds it is about"
)]

use rusqlite::Connection;
use syncline_core::{
    Timestamp,
    wire::{RowBody, ServerMessage, decode_server},
};
use syncline_replica::{Event, Replica};
use syncline_server::SessionId;

use crate::{
    device::{Birth, Device},
    rng::Rng,
    server::Server,
};

/// A server and devices that are connected or not; nothing is lost unless a test says so.
struct Bench {
    server: Server,
    devices: Vec<Device>,
    sessions: Vec<Option<SessionId>>,
    /// Every frame that was sent to each device.
    frames: Vec<Vec<Vec<u8>>>,
    events: Vec<Vec<Event>>,
    now: Timestamp,
}

/// Longer than a replica waits before it sends what was written.
const ROUND_MILLIS: u64 = 20;
const QUIET_ROUNDS: u32 = 30;

impl Bench {
    /// Connected devices of these users.
    fn new(users: &[&'static str]) -> Self {
        let clocks: Vec<_> = users.iter().map(|user| (*user, 0)).collect();
        Self::with_clocks(&clocks)
    }

    /// Connected devices of these users, whose clocks are so many milliseconds ahead.
    fn with_clocks(users: &[(&'static str, i64)]) -> Self {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let mut rng = Rng::new(7);
        let server = Server::start(rng.fork(), now).expect("the server starts");
        let mut bench = Self {
            server,
            devices: Vec::new(),
            sessions: Vec::new(),
            frames: Vec::new(),
            events: Vec::new(),
            now,
        };
        for (i, (user, ahead)) in users.iter().enumerate() {
            let name = format!("{user}-{i}");
            let device = Device::new(name, user, Birth::Filled(""), *ahead, rng.fork(), now);
            bench.devices.push(device.expect("a device starts"));
            bench.sessions.push(None);
            bench.frames.push(Vec::new());
            bench.events.push(Vec::new());
            bench.connect(i);
        }
        bench.settle();
        bench
    }

    fn connect(&mut self, i: usize) {
        self.sessions[i] = self.server.connect(self.devices[i].user, self.now);
        self.call(i, Replica::connect);
    }

    fn disconnect(&mut self, i: usize) {
        if let Some(session) = self.sessions[i].take() {
            self.server.disconnect(session);
            let disconnected = self.devices[i].disconnected(self.now);
            disconnected.expect("it tries again");
        }
    }

    /// The device's process dies, and starts again on its file.
    fn kill(&mut self, i: usize) {
        if let Some(session) = self.sessions[i].take() {
            self.server.disconnect(session);
        }
        let _link = self.devices[i].kill(self.now);
        self.devices[i]
            .open(self.now)
            .expect("the file opens again");
    }

    fn call<T>(
        &mut self,
        i: usize,
        call: impl FnOnce(&mut Replica, Timestamp) -> Result<T, syncline_replica::ReplicaError>,
    ) {
        self.devices[i]
            .call(self.now, call)
            .expect("the replica works");
        while let Some(event) = self.devices[i].poll_event() {
            self.events[i].push(event);
        }
    }

    /// Connects again where the replica asks for it.
    fn tend(&mut self, i: usize) {
        let replica = self.devices[i].replica.as_ref();
        if self.sessions[i].is_some() && replica.is_some_and(|r| r.closing().is_some()) {
            self.disconnect(i);
            self.connect(i);
        }
    }

    /// One transaction of the app, seen by the engine.
    fn write(&mut self, i: usize, sql: &str) {
        self.advance();
        self.devices[i].local(self.now);
        self.devices[i]
            .app
            .execute_batch(sql)
            .expect("the app writes");
        self.call(i, Replica::wake);
    }

    fn advance(&mut self) {
        self.now = self.now.plus_millis(ROUND_MILLIS);
    }

    /// What the device says reaches the server, and is committed.
    fn send(&mut self, i: usize) -> bool {
        let Some(session) = self.sessions[i] else {
            return false;
        };
        let mut moved = false;
        while let Some(frame) = self.devices[i]
            .replica
            .as_mut()
            .and_then(Replica::poll_transmit)
        {
            moved = true;
            let received = self.server.receive(session, &frame, self.now);
            received.expect("the server works");
        }
        while self
            .server
            .commit(100, self.now)
            .expect("it commits")
            .is_some()
        {
            moved = true;
        }
        moved
    }

    /// What the server says reaches the device.
    fn receive(&mut self, i: usize) -> bool {
        let Some(session) = self.sessions[i] else {
            return false;
        };
        let mut moved = false;
        loop {
            self.server.pump(session, self.now).expect("it goes on");
            let Some(frame) = self.server.poll_frame(session) else {
                return moved;
            };
            moved = true;
            self.call(i, |replica, now| replica.handle(&frame, now));
            self.frames[i].push(frame);
        }
    }

    /// Until nobody has anything to say.
    fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < QUIET_ROUNDS {
            self.advance();
            let mut moved = false;
            for i in 0..self.devices.len() {
                if self.sessions[i].is_some() {
                    self.call(i, Replica::wake);
                    self.call(i, Replica::handle_timeout);
                }
                moved |= self.send(i);
                moved |= self.receive(i);
                self.tend(i);
            }
            quiet = if moved { 0 } else { quiet + 1 };
        }
    }

    fn query(&self, i: usize, sql: &str) -> String {
        query(&self.devices[i].app, sql)
    }

    fn on_server(&self, sql: &str) -> String {
        query(&self.server.database, sql)
    }

    /// The same on the server and on every device.
    #[track_caller]
    fn everywhere(&self, sql: &str, expected: &str) {
        assert_eq!(self.on_server(sql), expected, "on the server: {sql}");
        for (i, device) in self.devices.iter().enumerate() {
            assert_eq!(self.query(i, sql), expected, "on {}: {sql}", device.name);
        }
    }
}

/// The first column of all rows, with commas.
fn query(conn: &Connection, sql: &str) -> String {
    let mut statement = conn.prepare(sql).expect("a query");
    let rows = statement.query_map([], |row| row.get::<_, rusqlite::types::Value>(0));
    let text = |value| match value {
        rusqlite::types::Value::Text(text) => text,
        rusqlite::types::Value::Integer(n) => n.to_string(),
        other => format!("{other:?}"),
    };
    let rows = rows.expect("rows").map(|row| text(row.expect("a row")));
    rows.collect::<Vec<_>>().join(",")
}

const TITLES: &str = "SELECT title FROM docs ORDER BY id";

#[test]
fn seed_trap_a_late_commit_of_an_early_change_is_pulled() {
    // The cursor goes by the order of commits: neither a row's own count of changes nor the
    // time at which somebody wrote has to be higher.
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
}

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
}

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
