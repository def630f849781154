//! The rows of all workloads: an id, a list, a hundred bytes of text, a number, two times.

use std::time::{Duration, Instant};

use anyhow::Result;
use rusqlite::Connection;

/// The server's configuration: each row is its maker's, unless it is shared with everybody.
pub(crate) const CONFIG: &str = r#"
[limits] # what is measured is how fast it goes
user_connections = 10_000
user_requests_per_second = 100_000
user_reads = 1_000
messages_per_second = 1_000_000
bytes_per_second = 1_073_741_824

[tables.items]
columns = { id = "uuid primary key", list_id = "uuid not null", body = "text not null", n = "integer not null", created_at = "timestamp not null", updated_at = "timestamp not null" }
read = "_owner = auth.uid()"
write = "_owner = auth.uid()"

[tables.news]
columns = { id = "uuid primary key", body = "text not null" }
read = "auth.uid() IS NOT NULL"
write = "auth.uid() IS NOT NULL"
"#;

/// Who is a member of a project sees it and its tasks.
pub(crate) const PROJECTS: &str = r#"
[limits] # what is measured is how fast it goes
user_requests_per_second = 100_000
messages_per_second = 1_000_000
bytes_per_second = 1_073_741_824

[tables.projects]
columns = { id = "uuid primary key", name = "text not null" }
read = "EXISTS (SELECT 1 FROM members m WHERE m.project_id = projects.id AND m.user_id = auth.uid())"
write = "auth.uid() IS NOT NULL"

[tables.members]
columns = { id = "uuid primary key", project_id = "uuid not null", user_id = "text not null" }
read = "user_id = auth.uid()"
write = "auth.uid() IS NOT NULL"

[tables.tasks]
columns = { id = "uuid primary key", project_id = "uuid not null", body = "text not null" }
read = "EXISTS (SELECT 1 FROM members m WHERE m.project_id = tasks.project_id AND m.user_id = auth.uid())"
write = "auth.uid() IS NOT NULL"
"#;

/// The configuration of a server with so many tables, which everybody sees.
pub(crate) fn many_tables(size: usize) -> String {
    let table = |n| {
        format!(
            "[tables.table{n}]\ncolumns = {{ id = \"uuid primary key\", body = \"text not null\" }}\n\
             read = \"auth.uid() IS NOT NULL\"\nwrite = \"auth.uid() IS NOT NULL\"\n"
        )
    };
    (0..size).map(table).collect()
}

/// The same table as any program would make it.
pub(crate) const TABLE: &str = "CREATE TABLE items (id TEXT PRIMARY KEY NOT NULL, list_id TEXT NOT NULL,
    body TEXT NOT NULL, n INTEGER NOT NULL, created_at TIMESTAMP NOT NULL, updated_at TIMESTAMP NOT NULL)";

pub(crate) const INSERT: &str = "INSERT INTO items VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

/// One row.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub id: String,
    pub list_id: String,
    pub body: String,
    pub n: i64,
    pub created_at: String,
    pub updated_at: String,
}

impl Item {
    /// The `n`th row of the `who`th device: ids ascend with time, as UUIDv7 do.
    pub(crate) fn new(who: usize, n: usize) -> Self {
        let random =
            n.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ who.wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
        let time = format!(
            "2026-11-21T12:{:02}:{:02}.{:03}Z",
            n / 60_000 % 60,
            n / 1_000 % 60,
            n % 1_000
        );
        Self {
            id: format!(
                "{:08x}-{:04x}-7{:03x}-8{:03x}-{:012x}",
                0x0193_0000 + (n >> 16),
                n & 0xffff,
                who & 0xfff,
                n % 0xfff,
                random & 0xffff_ffff_ffff
            ),
            list_id: format!("00000000-0000-7000-8000-{:012x}", n % 100),
            body: words(random),
            n: i64::try_from(n).unwrap_or(0),
            created_at: time.clone(),
            updated_at: time,
        }
    }

    pub(crate) fn values(&self) -> [(&'static str, syncline_core::Value); 6] {
        use syncline_core::Value::{Integer, Text};
        [
            ("id", Text(self.id.clone())),
            ("list_id", Text(self.list_id.clone())),
            ("body", Text(self.body.clone())),
            ("n", Integer(self.n)),
            ("created_at", Text(self.created_at.clone())),
            ("updated_at", Text(self.updated_at.clone())),
        ]
    }

    pub(crate) fn params(&self) -> [&dyn rusqlite::ToSql; 6] {
        [
            &self.id,
            &self.list_id,
            &self.body,
            &self.n,
            &self.created_at,
            &self.updated_at,
        ]
    }

    /// The bytes of the row as a line of JSON.
    pub(crate) fn json_bytes(&self) -> usize {
        serde_json::json!({
            "id": self.id, "list_id": self.list_id, "body": self.body, "n": self.n,
            "created_at": self.created_at, "updated_at": self.updated_at,
        })
        .to_string()
        .len()
    }
}

/// A hundred bytes of words, as people write them: they compress somewhat.
fn words(mut random: usize) -> String {
    const WORDS: [&str; 32] = [
        "milk",
        "bread",
        "call",
        "the",
        "plumber",
        "about",
        "kitchen",
        "before",
        "Friday",
        "and",
        "ask",
        "Anna",
        "for",
        "keys",
        "of",
        "garden",
        "shed",
        "reply",
        "to",
        "letter",
        "from",
        "insurance",
        "book",
        "table",
        "for",
        "seven",
        "people",
        "buy",
        "stamps",
        "return",
        "library",
        "umbrella",
    ];
    let mut text = String::with_capacity(112);
    while text.len() < 100 {
        random = random
            .wrapping_mul(0x5851_F42D_4C95_7F2D)
            .wrapping_add(0x1405_7B7E_F767_814F);
        text += WORDS[random >> 40 & 31];
        text.push(' ');
    }
    text.truncate(100);
    text
}

/// How long a plain program takes to insert these rows into a new file, `together` in each
/// transaction; with a trigger that writes a log, if asked.
pub(crate) fn plain_inserts(items: &[Item], together: usize, with_log: bool) -> Result<Duration> {
    let folder = tempfile::tempdir()?;
    let mut conn = Connection::open(folder.path().join("plain.db"))?;
    conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    conn.execute_batch("PRAGMA synchronous = FULL")?;
    conn.execute_batch(TABLE)?;
    if with_log {
        conn.execute_batch(
            "CREATE TABLE log (version INTEGER PRIMARY KEY, id TEXT NOT NULL, body TEXT NOT NULL);
             CREATE TRIGGER logged AFTER INSERT ON items BEGIN
               INSERT INTO log(id, body) VALUES (NEW.id, json_array(NEW.id, NEW.list_id, NEW.body, NEW.n, NEW.created_at, NEW.updated_at));
             END",
        )?;
    }
    let started = Instant::now();
    for some in items.chunks(together) {
        let transaction = conn.transaction()?;
        {
            let mut insert = transaction.prepare_cached(INSERT)?;
            for item in some {
                insert.execute(item.params())?;
            }
        }
        transaction.commit()?;
    }
    Ok(started.elapsed())
}
