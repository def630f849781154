//! The replica's session: a hostile server at the other end, and an app that goes on writing.

mod messages;

use arbitrary::{Arbitrary as _, Unstructured};
use rusqlite::Connection;
use syncline_core::{
    ChangesetId, DeviceId, Lease, Schema, TableNumber, Timestamp, builtin,
    wire::{ClientMessage, SchemaInfo, decode_client, encode_server},
};
use syncline_replica::{AttachOptions, Replica, ReplicaError, introspect::introspect};

use self::messages::{message, sound_welcome};

const SQL: &str = "
    CREATE TABLE lists(id TEXT PRIMARY KEY NOT NULL, name TEXT);
    CREATE TABLE items(
      id TEXT PRIMARY KEY NOT NULL, list TEXT REFERENCES lists(id) ON DELETE CASCADE, title TEXT,
      done INTEGER, rank INTEGER UNIQUE);
    CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT NOT NULL CHECK (length(body) < 100));";
const STEPS_MAX: usize = 96;
/// Frames that a replica may want to send without hearing anything.
const FRAMES_MAX: usize = 2_000;

/// What the app writes, by a byte.
const WRITES: [&str; 12] = [
    "INSERT OR REPLACE INTO lists VALUES ('a', 'first')",
    "INSERT OR REPLACE INTO items VALUES ('i', 'a', 'an item', 0, 1)",
    "INSERT OR REPLACE INTO items VALUES ('j', 'a', 'another', 0, 1)",
    "UPDATE items SET title = title || '!', done = NOT done",
    "UPDATE items SET rank = rank + 1 WHERE id = 'i'",
    "DELETE FROM items WHERE id = 'j'",
    "DELETE FROM lists",
    "INSERT OR IGNORE INTO notes(body) VALUES ('note')",
    "UPDATE notes SET id = id + 100 WHERE id = 1",
    "DELETE FROM notes",
    "ALTER TABLE notes ADD COLUMN extra TEXT",
    "BEGIN; UPDATE lists SET name = 'x'; ROLLBACK",
];

struct Bench {
    replica: Replica,
    now: Timestamp,
    schema: Schema,
    /// Changesets that were pushed.
    pushed: Vec<ChangesetId>,
    device: DeviceId,
    next_lease: Lease,
    is_connected: bool,
    version: u64,
    /// How often the file was opened: no process has the random numbers of another one.
    opened: u64,
}

impl Bench {
    fn new() -> Self {
        let conn = Connection::open_in_memory().expect("memory");
        conn.execute_batch(SQL).expect("the tables are made");
        let schema = schema(&conn);
        let replica = Replica::attach(conn, AttachOptions::default(), entropy(0));
        Self {
            replica: replica.expect("the file is attached"),
            now: Timestamp::from_millis(1_800_000_000_000),
            schema,
            pushed: Vec::new(),
            device: DeviceId::default(),
            next_lease: Lease::default(),
            is_connected: false,
            version: 1_799_999_000_000_000,
            opened: 0,
        }
    }

    /// A call of the engine: whatever the server said, the file works.
    fn call(&mut self, call: impl FnOnce(&mut Replica, Timestamp) -> Result<(), ReplicaError>) {
        self.now = self.now.plus_millis(1);
        if let Err(error) = call(&mut self.replica, self.now) {
            panic!("a server is no reason to fail: {error}: {error:?}");
        }
        while self.replica.poll_event().is_some() {}
        for sent in 0.. {
            let Some(frame) = self.replica.poll_transmit() else {
                break;
            };
            assert!(sent < FRAMES_MAX, "the replica talks without end");
            match decode_client(&frame).expect("the replica speaks the protocol") {
                ClientMessage::Hello(hello) => {
                    self.device = hello.device;
                    self.next_lease = hello.next_lease;
                }
                ClientMessage::Push(push) => {
                    self.pushed.insert(0, push.id);
                    self.pushed.truncate(16);
                }
                ClientMessage::PushPart(_)
                | ClientMessage::Credit(_)
                | ClientMessage::Token(_)
                | ClientMessage::Ping(_)
                | ClientMessage::Load(_)
                | ClientMessage::Subscribe(_)
                | ClientMessage::Unknown(_) => {}
            }
        }
        if self.replica.closing().is_some() {
            self.disconnect();
        }
    }

    fn connect(&mut self) {
        if !self.is_connected {
            self.is_connected = true;
            self.call(Replica::connect);
        }
    }

    fn disconnect(&mut self) {
        if self.is_connected {
            self.is_connected = false;
            let _again = self.replica.disconnected(self.now);
        }
    }

    fn hear(&mut self, frame: &[u8]) {
        self.connect();
        self.call(|replica, now| replica.handle(frame, now));
    }
}

/// Connections, frames, time and the app's own writes, in any order.
pub(crate) fn replica_session(bytes: &[u8]) {
    let mut bench = Bench::new();
    let _ended = converse(&mut bench, &mut Unstructured::new(bytes));
    at_the_end(bench);
}

/// The engine's books agree with the app's tables, the file is whole, and gives itself back.
fn at_the_end(mut bench: Bench) {
    bench.disconnect();
    let now = bench.now.plus_millis(1);
    let differences = bench
        .replica
        .check_local(10, now)
        .expect("the file is read");
    assert_eq!(differences, [], "the books disagree with the tables");
    drop(bench.replica.status().expect("a status"));
    drop(bench.replica.queue(None, 100).expect("a queue"));
    let conn = bench.replica.detach().expect("the file is given back");
    let whole: String = conn
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("the file is checked");
    assert_eq!(whole, "ok");
    let ours = "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'syncline%'";
    let left: i64 = conn.query_row(ours, [], |row| row.get(0)).expect("a count");
    assert_eq!(left, 0, "detached is detached");
}

fn converse(bench: &mut Bench, u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    // Most conversations begin well: else nothing but the beginning is ever seen.
    if bool::arbitrary(u)? {
        bench.connect();
        let welcome = sound_welcome(bench, u8::arbitrary(u)?);
        bench.hear(&encode_server(&welcome));
    }
    for _ in 0..STEPS_MAX {
        if u.is_empty() {
            break;
        }
        match u8::arbitrary(u)? % 16 {
            // A frame as it is.
            0 => {
                let length = usize::from(u16::arbitrary(u)?);
                let frame = u.bytes(length.min(u.len()))?.to_vec();
                bench.hear(&frame);
            }
            1 => bench.disconnect(),
            2 | 3 => {
                let sql = *u.choose(&WRITES)?;
                // What its constraints forbid did not happen.
                drop(bench.replica.connection().execute_batch(sql));
                bench.call(Replica::wake);
            }
            4 => {
                let millis = u64::from(u16::arbitrary(u)?) * 4;
                bench.now = bench.now.plus_millis(millis);
                bench.call(Replica::handle_timeout);
            }
            // The process dies; another one opens the file.
            5 => reopen(bench),
            // A message with some bytes changed.
            6 => {
                let mut frame = encode_server(&message(bench, u)?);
                let at = usize::from(u16::arbitrary(u)?) % frame.len();
                frame[at] ^= u8::arbitrary(u)?;
                bench.hear(&frame);
            }
            7 => {
                let welcome = sound_welcome(bench, u8::arbitrary(u)?);
                bench.hear(&encode_server(&welcome));
            }
            _ => {
                let message = message(bench, u)?;
                bench.hear(&encode_server(&message));
            }
        }
    }
    Ok(())
}

fn reopen(bench: &mut Bench) {
    bench.is_connected = false;
    // The file is in memory: it lives on in a copy.
    let mut copy = Connection::open_in_memory().expect("memory");
    {
        let from = bench.replica.connection();
        let backup = rusqlite::backup::Backup::new(from, &mut copy).expect("a backup");
        backup
            .run_to_completion(1_000, std::time::Duration::ZERO, None)
            .expect("memory is copied");
    }
    bench.opened += 1;
    let opened = Replica::open(copy, entropy(bench.opened), bench.now);
    bench.replica = opened.expect("the file opens again");
}

fn entropy(opened: u64) -> Box<dyn syncline_replica::Entropy> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(2 * opened + 1);
    Box::new(move |bytes: &mut [u8]| {
        for byte in bytes {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state.to_le_bytes()[3];
        }
    })
}

/// The server's schema for the app's tables: its own numbers.
pub(crate) fn schema(conn: &Connection) -> Schema {
    let found = introspect(conn).expect("the tables are read").tables;
    let mut tables: Vec<_> = found.into_iter().map(|local| local.table).collect();
    for (number, table) in (20..).zip(&mut tables) {
        table.number = TableNumber(number);
        for column in &mut table.columns {
            column.number.0 += 40;
        }
    }
    tables.insert(0, builtin::conflicts_table());
    SchemaInfo::from_schema(&Schema { tables }).to_schema()
}
