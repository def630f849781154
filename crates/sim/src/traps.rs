//! What other sync engines got wrong, shown on real replicas, the real session and SQLite. Where
//! it is cheap, the same test shows that the wrong way would have gone wrong.
//!
//! Two engines on one file and runs that overlap are in the client's tests, as `seed_trap_*` too.

mod cursors;
mod deletions;
mod outbox;
mod sharing;

use rusqlite::{Connection, types::Value};
use syncline_core::Timestamp;
use syncline_replica::{Event, Replica};
use syncline_server::SessionId;

use crate::{
    database::Disk,
    device::{Birth, Device},
    rng::Rng,
    schema::{LOCAL, Who},
    server::Server,
    subject::App,
};

const BLANK: Birth = Birth::Filled {
    tables: LOCAL,
    rows: "",
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
        let server =
            Server::start(App::own(), rng.fork(), &Disk::Memory, now).expect("the server starts");
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
            let device = Device::new(
                name,
                Who::first(user),
                BLANK,
                *ahead,
                rng.fork(),
                Disk::Memory,
                now,
            );
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
        self.sessions[i] = self.server.connect(self.devices[i].who, self.now);
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

    /// One transaction of another program in the server's database.
    fn server_writes(&mut self, sql: &str) {
        self.advance();
        let written = self.server.database.execute_batch(sql);
        written.expect("the program writes");
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
    let rows = statement.query_map([], |row| row.get::<_, Value>(0));
    let text = |value| match value {
        Value::Text(text) => text,
        Value::Integer(n) => n.to_string(),
        other @ (Value::Null | Value::Real(_) | Value::Blob(_)) => format!("{other:?}"),
    };
    let rows = rows.expect("rows").map(|row| text(row.expect("a row")));
    rows.collect::<Vec<_>>().join(",")
}

const TITLES: &str = "SELECT title FROM docs ORDER BY id";
