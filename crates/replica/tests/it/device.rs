//! A replica, an app that writes through the same file, and a wire to the authority.

use std::path::Path;

use rusqlite::Connection;
use syncline_core::{Changeset, Schema, TableNumber, Timestamp, wire::SchemaInfo};
use syncline_replica::{
    AttachOptions, Closing, Event, QueueState, QueuedChangeset, Replica, ReplicaError, Seeding,
    introspect::introspect,
};

use crate::authority::{Authority, Link};

/// Tables that most tests use.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE lists(id TEXT PRIMARY KEY NOT NULL, name TEXT);
    CREATE TABLE items(
      id TEXT PRIMARY KEY NOT NULL, list TEXT REFERENCES lists(id), title TEXT, done INTEGER,
      rank INTEGER UNIQUE);
    CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT);";

/// The server's schema for these tables: its own numbers, other than a file's.
pub(crate) fn schema(sql: &str) -> Schema {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch(sql).unwrap();
    let mut tables: Vec<_> = introspect(&conn)
        .unwrap()
        .tables
        .into_iter()
        .map(|local| local.table)
        .collect();
    for (i, table) in tables.iter_mut().enumerate() {
        table.number = TableNumber(20 + 3 * u32::try_from(i).unwrap());
        for column in &mut table.columns {
            column.number.0 += 40;
        }
    }
    tables.insert(0, syncline_core::builtin::conflicts_table());
    SchemaInfo::from_schema(&Schema { tables }).to_schema()
}

pub(crate) struct Device {
    pub(crate) replica: Replica,
    pub(crate) link: Option<Link>,
    pub(crate) now: Timestamp,
    pub(crate) events: Vec<Event>,
    pub(crate) closed: Option<Closing>,
    seed: u64,
}

impl Device {
    /// A file with these tables, attached before it met a server.
    pub(crate) fn new(sql: &str, seed: u64) -> Self {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(sql).unwrap();
        Self::attach(conn, AttachOptions::default(), seed)
    }

    /// An empty file that takes everything from the server.
    pub(crate) fn empty(seed: u64) -> Self {
        let options = AttachOptions {
            create_missing: true,
            seeding: Seeding::Skip,
            ..AttachOptions::default()
        };
        Self::attach(Connection::open_in_memory().unwrap(), options, seed)
    }

    pub(crate) fn attach(conn: Connection, options: AttachOptions, seed: u64) -> Self {
        let replica = Replica::attach(conn, options, entropy(seed)).unwrap();
        Self::with(replica, seed)
    }

    pub(crate) fn open(conn: Connection, seed: u64) -> Self {
        let now = Timestamp(1_700_000_000_000_000);
        Self::with(Replica::open(conn, entropy(seed), now).unwrap(), seed)
    }

    /// A new file at `path` with these tables, attached.
    pub(crate) fn create(path: &Path, sql: &str, seed: u64) -> Self {
        let conn = Connection::open(path).unwrap();
        conn.execute_batch(sql).unwrap();
        Self::attach(conn, AttachOptions::default(), seed)
    }

    /// The process dies and another one opens the same file.
    pub(crate) fn restart(self, path: &Path) -> Self {
        let (now, seed) = (self.now, self.seed + 1_000);
        drop(self);
        let mut device = Self::open(Connection::open(path).unwrap(), seed);
        device.now = now;
        device.collect();
        device
    }

    fn with(replica: Replica, seed: u64) -> Self {
        let now = Timestamp(1_700_000_000_000_000);
        Self {
            replica,
            link: None,
            now,
            events: Vec::new(),
            closed: None,
            seed,
        }
    }

    /// The app writes without saying where a transaction ends.
    pub(crate) fn run(&mut self, sql: &str) {
        self.tick();
        self.replica.connection().execute_batch(sql).unwrap();
    }

    /// The app writes one transaction.
    pub(crate) fn write(&mut self, sql: &str) {
        self.tick();
        self.replica
            .write(|conn| {
                conn.execute_batch(sql).unwrap();
                Ok::<_, ReplicaError>(())
            })
            .unwrap();
    }

    pub(crate) fn seal(&mut self) -> usize {
        self.tick();
        self.replica.seal(self.now).unwrap()
    }

    pub(crate) fn tick(&mut self) {
        self.now = self.now.plus_millis(3);
    }

    /// One text for the rows that a query gives.
    pub(crate) fn query(&self, sql: &str) -> String {
        rows(self.replica.connection(), sql)
    }

    /// Opens a session; nothing has arrived yet.
    pub(crate) fn connect(&mut self) {
        self.try_connect().unwrap();
    }

    fn try_connect(&mut self) -> Result<(), ReplicaError> {
        self.tick();
        self.replica.connect(self.now)?;
        self.link = Some(Link::default());
        self.closed = None;
        Ok(())
    }

    /// Moves everything the device has to say to the authority.
    pub(crate) fn upload(&mut self, authority: &mut Authority) -> usize {
        let Some(link) = &mut self.link else { return 0 };
        let mut moved = 0;
        while let Some(frame) = self.replica.poll_transmit() {
            authority.receive(link, &frame);
            moved += 1;
        }
        moved
    }

    /// Hands one frame of the authority to the device; whether there was one.
    pub(crate) fn download(&mut self) -> bool {
        self.try_download().unwrap()
    }

    fn try_download(&mut self) -> Result<bool, ReplicaError> {
        self.tick();
        let Some(frame) = self.link.as_mut().and_then(|link| link.out.pop_front()) else {
            return Ok(false);
        };
        self.replica.handle(&frame, self.now)?;
        self.collect();
        Ok(true)
    }

    /// Hands what has arrived to the device at once, as a driver does; whether there was anything.
    fn try_download_all(&mut self) -> Result<bool, ReplicaError> {
        self.tick();
        let frames: Vec<_> = match &mut self.link {
            Some(link) => link.out.drain(..).collect(),
            None => Vec::new(),
        };
        let together = frames.iter().map(Vec::as_slice);
        if let Err(error) = self.replica.handle_all(together, self.now) {
            self.disconnect();
            return Err(error);
        }
        self.collect();
        Ok(!frames.is_empty())
    }

    pub(crate) fn collect(&mut self) {
        while let Some(event) = self.replica.poll_event() {
            self.events.push(event);
        }
        if let Some(closing) = self.replica.closing().cloned() {
            self.closed = Some(closing);
            self.disconnect();
        }
    }

    /// Cuts the connection; what was on the way is lost.
    pub(crate) fn disconnect(&mut self) -> Option<Timestamp> {
        self.link = None;
        self.replica.disconnected(self.now)
    }

    /// Seals, pushes, receives until nothing moves any more; connects first if need be, and
    /// again where the schema asks for it.
    pub(crate) fn sync(&mut self, authority: &mut Authority) {
        self.try_sync(authority).unwrap();
    }

    /// As [`Device::sync`], up to an error of the database.
    pub(crate) fn try_sync(&mut self, authority: &mut Authority) -> Result<(), ReplicaError> {
        for _ in 0..10_000 {
            if self.link.is_none() {
                assert!(
                    self.closed.as_ref().is_none_or(|closing| closing.retry),
                    "closed for good: {:?}",
                    self.closed
                );
                self.try_connect()?;
            }
            self.tick();
            self.replica.wake(self.now)?;
            self.collect();
            let mut moved = self.upload(authority) > 0;
            let mut frames = 0;
            while self.try_download_all()? {
                moved = true;
                self.upload(authority);
                frames += 1;
                assert!(frames < 5_000, "the two talk without end");
            }
            if let Some(link) = &mut self.link {
                moved |= authority.page(link) || authority.advance(link);
            } else {
                moved = true;
            }
            if !moved {
                return Ok(());
            }
        }
        panic!("nothing comes to rest");
    }

    /// Every table equals the server's and the books agree with the tables.
    pub(crate) fn assert_equal(&mut self, authority: &Authority) {
        let differences = self.replica.check_local(10, self.now).unwrap();
        assert_eq!(differences, [], "the books disagree with the tables");
        for table in &authority.schema.tables {
            let columns: Vec<_> = table
                .columns
                .iter()
                .map(|column| format!("\"{}\"", column.name))
                .collect();
            let key: Vec<_> = table
                .primary_key
                .iter()
                .map(|&p| columns[p].clone())
                .collect();
            let mut here: Vec<String> = self
                .query(&format!(
                    "SELECT {} FROM \"{}\" ORDER BY {}",
                    columns.join(", "),
                    table.name,
                    key.join(", ")
                ))
                .lines()
                .map(str::to_owned)
                .collect();
            let mut there: Vec<String> = authority
                .rows
                .iter()
                .filter(|((t, _), kept)| {
                    *t == table.number
                        && kept
                            .buckets
                            .iter()
                            .any(|bucket| authority.granted.contains(bucket))
                })
                .map(|(_, kept)| kept.row.0.iter().map(text).collect::<Vec<_>>().join("|"))
                .collect();
            here.sort();
            there.sort();
            assert_eq!(here, there, "table {}", table.name);
        }
    }

    /// States of the outbox in order, as one letter each: s(ealed), t (sent), a(ccepted),
    /// p(arked).
    pub(crate) fn outbox(&self) -> String {
        let queue = self.replica.queue(None, 1_000).unwrap();
        queue
            .iter()
            .map(|changeset| match changeset.state {
                QueueState::Sealed => 's',
                QueueState::Sent => 't',
                QueueState::Accepted { .. } => 'a',
                QueueState::Parked { .. } => 'p',
            })
            .collect()
    }

    /// Codes of what is parked, in order.
    pub(crate) fn parked(&self) -> Vec<String> {
        let queue = self.replica.queue(None, 1_000).unwrap();
        let code = |changeset: QueuedChangeset| match changeset.state {
            QueueState::Parked { code, .. } => Some(code),
            QueueState::Sealed | QueueState::Sent | QueueState::Accepted { .. } => None,
        };
        queue.into_iter().filter_map(code).collect()
    }

    /// Every changeset pushed on this connection.
    pub(crate) fn pushed(&self) -> Vec<Changeset> {
        self.link.as_ref().unwrap().pushed()
    }

    /// Connects, sends what there is to send, and loses the connection before any answer.
    pub(crate) fn push_lost(&mut self, authority: &mut Authority) {
        self.connect();
        self.upload(authority);
        self.download();
        self.upload(authority);
        self.disconnect();
    }

    /// Seals, and sends what there is to send, without receiving anything.
    pub(crate) fn push(&mut self, authority: &mut Authority) {
        self.tick();
        self.replica.wake(self.now).unwrap();
        self.upload(authority);
    }
}

/// Reproducible bytes.
pub(crate) fn entropy(seed: u64) -> Box<dyn syncline_replica::Entropy> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    Box::new(move |bytes: &mut [u8]| {
        for byte in bytes {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state.to_le_bytes()[3];
        }
    })
}

/// Rows as lines, columns between bars.
pub(crate) fn rows(conn: &Connection, sql: &str) -> String {
    let mut statement = conn.prepare(sql).unwrap();
    let count = statement.column_count();
    let lines = statement
        .query_map([], |row| {
            let values: Vec<String> = (0..count)
                .map(|i| {
                    let value: rusqlite::types::Value = row.get(i).unwrap();
                    text(&match value {
                        rusqlite::types::Value::Null => syncline_core::Value::Null,
                        rusqlite::types::Value::Integer(n) => syncline_core::Value::Integer(n),
                        rusqlite::types::Value::Real(x) => syncline_core::Value::Real(x),
                        rusqlite::types::Value::Text(text) => syncline_core::Value::Text(text),
                        rusqlite::types::Value::Blob(bytes) => syncline_core::Value::Blob(bytes),
                    })
                })
                .collect();
            Ok(values.join("|"))
        })
        .unwrap();
    lines.map(Result::unwrap).collect::<Vec<_>>().join("\n")
}

fn text(value: &syncline_core::Value) -> String {
    match value {
        syncline_core::Value::Null => "-".into(),
        syncline_core::Value::Integer(n) => n.to_string(),
        syncline_core::Value::Real(x) => format!("{x:?}"),
        syncline_core::Value::Text(text) => text.clone(),
        syncline_core::Value::Blob(bytes) => format!("{bytes:?}"),
    }
}
