//! The metadata's format: its tables, its number and how it comes and goes.

use rusqlite::{Connection, OptionalExtension};

use super::settings::{self, Key};
use crate::{
    db::{self, Doing},
    error::ReplicaError,
};

/// The format this program writes.
pub(crate) const FORMAT: u32 = 8;

/// `MIGRATIONS[n]` turns format n + 1 into n + 2.
const MIGRATIONS: &[&str] = &[
    "
  ALTER TABLE syncline_tables ADD COLUMN unsure INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE syncline_tables ADD COLUMN server INTEGER;
  ALTER TABLE syncline_columns ADD COLUMN server INTEGER;
  ALTER TABLE syncline_columns ADD COLUMN gone INTEGER NOT NULL DEFAULT 0;
",
    "
  ALTER TABLE syncline_tables ADD COLUMN members INTEGER NOT NULL DEFAULT 0;
  UPDATE syncline_tables SET members = 1;
",
    "
  ALTER TABLE syncline_outbox ADD COLUMN sum INTEGER;
  ALTER TABLE syncline_changes ADD COLUMN sum INTEGER;
  ALTER TABLE syncline_acknowledged ADD COLUMN sum INTEGER;
",
    "
CREATE TABLE syncline_subscriptions(
  tbl TEXT NOT NULL COLLATE NOCASE, col TEXT NOT NULL COLLATE NOCASE, key BLOB NOT NULL,
  number INTEGER NOT NULL, live INTEGER NOT NULL DEFAULT 0, ends INTEGER,
  PRIMARY KEY(tbl, col, key)) WITHOUT ROWID;
",
    "
  ALTER TABLE syncline_outbox RENAME COLUMN may_be_applied TO doubt;
  ALTER TABLE syncline_outbox ADD COLUMN after INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE syncline_outbox ADD COLUMN first_number INTEGER;
  UPDATE syncline_outbox SET first_number = number;
  UPDATE syncline_outbox SET after = version - 1 WHERE version IS NOT NULL;
  DELETE FROM syncline_meta WHERE key IN ('horizon', 'unanswered_since', 'copied_since');
",
    "
  ALTER TABLE syncline_outbox ADD COLUMN whole BLOB;
  UPDATE syncline_outbox SET after = 0 WHERE doubt IN (1, 3);
  UPDATE syncline_outbox SET doubt = doubt IN (1, 2);
  CREATE INDEX syncline_outbox_whole ON syncline_outbox(whole) WHERE whole IS NOT NULL;
  ALTER TABLE syncline_parts ADD COLUMN sure BLOB;
  ALTER TABLE syncline_parts ADD COLUMN next BLOB;
  ALTER TABLE syncline_parts ADD COLUMN told INTEGER;
  ALTER TABLE syncline_parts ADD COLUMN newest INTEGER;
  UPDATE syncline_parts SET told = 9223372036854775807, newest = 9223372036854775807
    WHERE state = 0;
  CREATE INDEX syncline_parts_told ON syncline_parts(told) WHERE told IS NOT NULL;
",
    "
CREATE TABLE syncline_former(
  t INTEGER NOT NULL, key BLOB NOT NULL, image BLOB, PRIMARY KEY(t, key)) WITHOUT ROWID;
CREATE TABLE syncline_given(
  t INTEGER NOT NULL, key BLOB NOT NULL, version INTEGER NOT NULL, hash INTEGER NOT NULL,
  server INTEGER NOT NULL, PRIMARY KEY(t, key)) WITHOUT ROWID;
",
];

/// Nothing here is newer than SQLite 3.8.3: other programs open the same file (spec CA2).
const TABLES: &str = "
CREATE TABLE syncline_meta(key TEXT PRIMARY KEY NOT NULL, value) WITHOUT ROWID;

-- t, c: numbers this file gives to tables and columns by name; never reused.
-- loaded: every granted bucket of it was live at some checkpoint.
-- seeding: rows that were there before are still to be sent, those after seed_after.
-- rows: how many of its rows the server gave.
-- unfit: why it can never sync as it is. left_out: why it does not at the moment.
-- unsure: its rows cannot be compared with what is known of them until it is loaded again.
-- members: syncline_members lists its rows.
-- server: the server's number of it. gone: the file has the column no longer.
CREATE TABLE syncline_tables(
  t INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE,
  loaded INTEGER NOT NULL DEFAULT 0, seeding INTEGER NOT NULL DEFAULT 0, seed_after BLOB,
  rows INTEGER NOT NULL DEFAULT 0, unfit TEXT, left_out TEXT,
  unsure INTEGER NOT NULL DEFAULT 0, server INTEGER, members INTEGER NOT NULL DEFAULT 0);
CREATE TABLE syncline_columns(
  t INTEGER NOT NULL, c INTEGER NOT NULL, name TEXT NOT NULL COLLATE NOCASE,
  server INTEGER, gone INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY(t, c), UNIQUE(t, name)) WITHOUT ROWID;
CREATE TABLE syncline_users(u INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);

-- state: 0 loading, 1 live, 2 stale (renamed by new rules), 3 gone (to be erased), 4 released (the
-- same, and the user may see it all the same).
CREATE TABLE syncline_buckets(
  b INTEGER PRIMARY KEY, bucket BLOB UNIQUE, state INTEGER NOT NULL);
CREATE INDEX syncline_buckets_state ON syncline_buckets(state);
-- state: 0 loading (after the key `after`), 1 live. sure: the last key that pages told of that
-- a checkpoint has passed; next: that of those up to the page of version `told`, the oldest that none
-- has passed; newest: the version of the newest page. count and sum: the receipt digest.
CREATE TABLE syncline_parts(
  b INTEGER NOT NULL, t INTEGER NOT NULL, state INTEGER NOT NULL DEFAULT 0, after BLOB,
  count INTEGER NOT NULL DEFAULT 0, sum INTEGER NOT NULL DEFAULT 0, sure BLOB, next BLOB,
  told INTEGER, newest INTEGER,
  PRIMARY KEY(b, t)) WITHOUT ROWID;
CREATE INDEX syncline_parts_told ON syncline_parts(told) WHERE told IS NOT NULL;
CREATE INDEX syncline_parts_table ON syncline_parts(t, b);
CREATE INDEX syncline_parts_loading ON syncline_parts(t, b) WHERE state = 0;

-- The rows the server gave. buckets: one number, or a blob of several.
CREATE TABLE syncline_rows(
  t INTEGER NOT NULL, key BLOB NOT NULL, version INTEGER NOT NULL, hash INTEGER NOT NULL,
  buckets NOT NULL, owner INTEGER, created INTEGER NOT NULL, author INTEGER, extra BLOB,
  PRIMARY KEY(t, key)) WITHOUT ROWID;
-- Its rows by bucket, for tables in which that was asked for once.
CREATE TABLE syncline_members(
  b INTEGER NOT NULL, t INTEGER NOT NULL, key BLOB NOT NULL,
  PRIMARY KEY(b, t, key)) WITHOUT ROWID;
-- The server's image of rows whose visible one may differ; NULL: the server has none.
CREATE TABLE syncline_shadow(
  t INTEGER NOT NULL, key BLOB NOT NULL, image BLOB, hidden INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY(t, key)) WITHOUT ROWID;
CREATE INDEX syncline_shadow_hidden ON syncline_shadow(t, key) WHERE hidden = 1;
-- What rows from before attaching were before they were changed here, until all is loaded; NULL:
-- the server has the row, and the change is sealed.
CREATE TABLE syncline_former(
  t INTEGER NOT NULL, key BLOB NOT NULL, image BLOB, PRIMARY KEY(t, key)) WITHOUT ROWID;
-- Rows that the server had given when their table went away, until all of it is sent and loaded.
-- server: its number of the table.
CREATE TABLE syncline_given(
  t INTEGER NOT NULL, key BLOB NOT NULL, version INTEGER NOT NULL, hash INTEGER NOT NULL,
  server INTEGER NOT NULL, PRIMARY KEY(t, key)) WITHOUT ROWID;
-- What a page told that is later than the last checkpoint; NULL body: not in the bucket.
CREATE TABLE syncline_ahead(
  t INTEGER NOT NULL, key BLOB NOT NULL, b INTEGER NOT NULL, version INTEGER NOT NULL, body BLOB,
  PRIMARY KEY(t, key, b)) WITHOUT ROWID;

-- state: 0 sealed, 1 accepted, 2 parked. number: given when it is sent. sent: it was once, so
-- its content is settled. first_number: the first one that no answer settled. after: where the log
-- was when no server could have it yet. doubt: it may have come there from another file, or before
-- it was cut.
-- whole: what it was cut from, where its changes had the same positions.
-- sum, here and below: tells damage; NULL: written by an older format.
CREATE TABLE syncline_outbox(
  seq INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, state INTEGER NOT NULL, number INTEGER,
  version INTEGER, hlc INTEGER NOT NULL, marked INTEGER NOT NULL,
  sent INTEGER NOT NULL DEFAULT 0, require_unchanged INTEGER NOT NULL DEFAULT 0,
  doubt INTEGER NOT NULL DEFAULT 0, after INTEGER NOT NULL DEFAULT 0, first_number INTEGER,
  changes INTEGER NOT NULL, bytes INTEGER NOT NULL, first_at INTEGER NOT NULL,
  last_at INTEGER NOT NULL, code TEXT, message TEXT, parked_at INTEGER, sum INTEGER,
  whole BLOB);
CREATE INDEX syncline_outbox_state ON syncline_outbox(state);
CREATE INDEX syncline_outbox_whole ON syncline_outbox(whole) WHERE whole IS NOT NULL;
CREATE TABLE syncline_changes(
  seq INTEGER NOT NULL, pos INTEGER NOT NULL, t INTEGER NOT NULL, key BLOB NOT NULL,
  base INTEGER NOT NULL, op BLOB NOT NULL, at INTEGER NOT NULL, sum INTEGER,
  PRIMARY KEY(seq, pos)) WITHOUT ROWID;
CREATE INDEX syncline_changes_row ON syncline_changes(t, key);
CREATE TABLE syncline_depends(
  seq INTEGER NOT NULL, on_seq INTEGER NOT NULL, PRIMARY KEY(seq, on_seq)) WITHOUT ROWID;
CREATE INDEX syncline_depends_on ON syncline_depends(on_seq);
-- Changesets that are in the server's log, for a server that lost its tail.
CREATE TABLE syncline_acknowledged(
  seq INTEGER PRIMARY KEY, version INTEGER NOT NULL, at INTEGER NOT NULL, marked INTEGER NOT NULL,
  bytes INTEGER NOT NULL, body BLOB NOT NULL, sum INTEGER);
CREATE TABLE syncline_cursors(version INTEGER PRIMARY KEY, tag BLOB NOT NULL, mac BLOB NOT NULL);

-- What is asked for of tables that sync on demand. col, key: empty where there is none.
-- number: the change that made it. live: it is here. ends: nobody wants it any more.
CREATE TABLE syncline_subscriptions(
  tbl TEXT NOT NULL COLLATE NOCASE, col TEXT NOT NULL COLLATE NOCASE, key BLOB NOT NULL,
  number INTEGER NOT NULL, live INTEGER NOT NULL DEFAULT 0, ends INTEGER,
  PRIMARY KEY(tbl, col, key)) WITHOUT ROWID;
";

/// Whether the file has metadata of any format.
pub(crate) fn exists(conn: &Connection) -> Result<bool, ReplicaError> {
    conn.query_row(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'syncline_meta'",
        [],
        |_| Ok(()),
    )
    .optional()
    .map(|found| found.is_some())
    .doing("looking for sync metadata")
}

/// Creates the metadata, empty, inside the caller's transaction.
pub(crate) fn create(conn: &Connection) -> Result<(), ReplicaError> {
    conn.execute_batch(TABLES)
        .doing("creating the sync metadata")?;
    settings::put(conn, Key::Format, FORMAT)
}

/// Checks that this program can use the metadata, and brings that of an older one up to date
/// after a copy of the file was made (spec CA10).
pub(crate) fn verify(conn: &Connection) -> Result<(), ReplicaError> {
    if !exists(conn)? {
        return Err(ReplicaError::NotAttached);
    }
    match settings::get(conn, Key::Format)? {
        Some(FORMAT) => verify_numbers(conn),
        Some(found) if found > FORMAT => Err(ReplicaError::NewerFormat {
            found,
            known: FORMAT,
        }),
        Some(found) if found > 0 => {
            verify_numbers(conn)?;
            migrate(conn, found)
        }
        Some(_) | None => Err(ReplicaError::Damaged {
            what: "the metadata has no valid format number".into(),
        }),
    }
}

/// Numbers of tables and buckets are never reused: one that is used and not given was lost, and
/// would be given again to another (spec OB13).
fn verify_numbers(conn: &Connection) -> Result<(), ReplicaError> {
    for (what, sql) in [
        (
            "a table's number",
            // One step for each number: there may be a part for each of many thousand buckets.
            "WITH RECURSIVE used(t) AS (SELECT min(t) FROM syncline_parts UNION ALL
               SELECT (SELECT min(p.t) FROM syncline_parts p WHERE p.t > used.t) FROM used
               WHERE used.t IS NOT NULL)
             SELECT t FROM syncline_columns UNION SELECT t FROM used WHERE t IS NOT NULL
             EXCEPT SELECT t FROM syncline_tables",
        ),
        (
            "a bucket's number",
            "SELECT 1 FROM syncline_parts p WHERE NOT EXISTS
               (SELECT 1 FROM syncline_buckets g WHERE g.b = p.b)",
        ),
    ] {
        let lost = conn.query_row(&format!("SELECT EXISTS({sql})"), [], |row| row.get(0));
        if lost.doing("checking the sync metadata")? {
            return Err(ReplicaError::Damaged {
                what: format!("{what} is used, and what it is of was lost"),
            });
        }
    }
    Ok(())
}

fn migrate(conn: &Connection, found: u32) -> Result<(), ReplicaError> {
    const DOING: &str = "bringing the sync metadata up to date";
    copy(conn, found)?;
    db::immediate(conn, || {
        // Another process may have been faster.
        let found: u32 = settings::get(conn, Key::Format)?.unwrap_or(FORMAT);
        let done = usize::try_from(found.saturating_sub(1)).unwrap_or(usize::MAX);
        for step in MIGRATIONS.iter().skip(done) {
            conn.execute_batch(step).doing(DOING)?;
        }
        settings::put(conn, Key::Format, found.max(FORMAT))
    })
}

/// Copies the whole file beside itself, once; a database in memory has nobody to go back to it.
fn copy(conn: &Connection, found: u32) -> Result<(), ReplicaError> {
    let Some(path) = conn.path().filter(|path| !path.is_empty()) else {
        return Ok(());
    };
    match conn.execute(
        "VACUUM INTO ?1",
        [format!("{path}-syncline-format-{found}")],
    ) {
        Ok(_) => Ok(()),
        // It was made before, and what came after it failed.
        Err(error) if error.to_string().contains("already exists") => Ok(()),
        Err(error) => Err(error).doing("copying the file before its sync metadata is changed"),
    }
}
