//! Our own tables in the data file, their version, and who this server is.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, TransactionBehavior};
use syncline_core::DeviceId;

use crate::{lock::side_file, open::OpenError, place::Place};

/// The version of the tables below. A change that older programs cannot read raises it and adds
/// a step to [`MIGRATIONS`].
pub(crate) const FORMAT: i64 = 8;

/// `MIGRATIONS[n]` turns format n + 1 into n + 2.
const MIGRATIONS: &[&str] = &[
    // 2: the history of rows, which begins at the log's end.
    "CREATE TABLE syncline_history(
       version INTEGER PRIMARY KEY, table_no INTEGER NOT NULL, key BLOB NOT NULL,
       entry INTEGER NOT NULL, user TEXT, device BLOB NOT NULL, body BLOB NOT NULL);
     CREATE INDEX syncline_history_rows ON syncline_history(table_no, key);
     INSERT INTO syncline_server
       SELECT 'history_since', ifnull(max(version), 0) FROM syncline_log;",
    // 3: devices can be listed and deregistered.
    "ALTER TABLE syncline_devices ADD COLUMN checkpoint INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE syncline_devices ADD COLUMN deregistered INTEGER;
     CREATE INDEX syncline_devices_user ON syncline_devices(user);",
    // 4: accounts and the audit log.
    ACCOUNTS,
    // 5: what a deregistered device synced can be removed there.
    "ALTER TABLE syncline_devices ADD COLUMN wipe INTEGER NOT NULL DEFAULT 0;",
    // 6: what users own, where there are quotas.
    OWNED,
    // 7: rows that were inserted and not changed since have no record of history.
    "ALTER TABLE syncline_rows ADD COLUMN born INTEGER;",
    // 8: of which changesets entries of the log are pieces.
    PIECES,
];

/// Whose pieces of which changeset are in the log at which versions: the places of changes, as runs
/// from the first to the last.
const PIECES: &str = "
CREATE TABLE syncline_pieces(
  whole BLOB NOT NULL, user TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
  version INTEGER NOT NULL, PRIMARY KEY(whole, user, first)) WITHOUT ROWID;
CREATE INDEX syncline_pieces_version ON syncline_pieces(version);
";

/// Counts of live rows and of their bytes; where everything is counted, `syncline_server` has
/// `counted`.
const OWNED: &str = "
CREATE TABLE syncline_owned(
  user TEXT PRIMARY KEY, rows INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
";

/// People who sign in here, and the audit log. Times are microseconds since 1970.
const ACCOUNTS: &str = "
CREATE TABLE syncline_accounts(
  id TEXT PRIMARY KEY, email TEXT NOT NULL UNIQUE, password TEXT NOT NULL,
  created INTEGER NOT NULL, verified INTEGER, disabled INTEGER, claims TEXT NOT NULL)
  WITHOUT ROWID;
CREATE TABLE syncline_logins(
  id BLOB PRIMARY KEY, account TEXT NOT NULL, created INTEGER NOT NULL,
  renewed INTEGER NOT NULL, expires INTEGER NOT NULL, current BLOB NOT NULL, previous BLOB,
  seed BLOB NOT NULL, client TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX syncline_logins_account ON syncline_logins(account);
CREATE TABLE syncline_login_devices(
  device BLOB NOT NULL, login BLOB NOT NULL, PRIMARY KEY(device, login)) WITHOUT ROWID;
CREATE INDEX syncline_login_devices_login ON syncline_login_devices(login);
CREATE TABLE syncline_ended_logins(
  place INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL, at INTEGER NOT NULL);
CREATE TABLE syncline_tickets(
  hash BLOB PRIMARY KEY, account TEXT NOT NULL, purpose INTEGER NOT NULL,
  expires INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE syncline_signing_keys(
  id TEXT PRIMARY KEY, created INTEGER NOT NULL, secret BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE syncline_audit(
  number INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, actor TEXT NOT NULL,
  subject TEXT NOT NULL, address TEXT NOT NULL, detail TEXT NOT NULL, chain BLOB NOT NULL);
";

/// Everything besides the apps' tables, their inboxes and triggers, [`ACCOUNTS`], [`OWNED`] and
/// [`PIECES`].
///
/// Integers are bit patterns of u64. Ids and keys are blobs. `syncline_server` has format,
/// server_id, secret, horizon, rules, rules_since and history_since.
///
/// `born` of a row is the end of the log entry that inserted it, as long as nothing else happened
/// to the row and its other columns say what a record of history would (docs/decisions, 0020).
const TABLES: &str = "
CREATE TABLE syncline_server(name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE syncline_tables(
  number INTEGER PRIMARY KEY, name TEXT NOT NULL, constraints TEXT, triggers BLOB,
  dropped INTEGER NOT NULL DEFAULT 0);
CREATE TABLE syncline_columns(
  table_no INTEGER NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL, definition TEXT,
  dropped INTEGER NOT NULL DEFAULT 0, PRIMARY KEY(table_no, number)) WITHOUT ROWID;
CREATE TABLE syncline_rows(
  table_no INTEGER NOT NULL, key BLOB NOT NULL, version INTEGER NOT NULL,
  created INTEGER NOT NULL, owner TEXT, author TEXT, deleted INTEGER NOT NULL,
  hash INTEGER, state BLOB NOT NULL, buckets BLOB NOT NULL, born INTEGER,
  PRIMARY KEY(table_no, key)) WITHOUT ROWID;
CREATE INDEX syncline_rows_deleted ON syncline_rows(version) WHERE deleted = 1;
CREATE TABLE syncline_members(
  bucket BLOB NOT NULL, table_no INTEGER NOT NULL, key BLOB NOT NULL,
  PRIMARY KEY(bucket, table_no, key)) WITHOUT ROWID;
CREATE TABLE syncline_log(
  version INTEGER PRIMARY KEY, tag BLOB NOT NULL, changeset BLOB UNIQUE, user TEXT,
  device BLOB NOT NULL, number INTEGER NOT NULL, hlc INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE syncline_history(
  version INTEGER PRIMARY KEY, table_no INTEGER NOT NULL, key BLOB NOT NULL,
  entry INTEGER NOT NULL, user TEXT, device BLOB NOT NULL, body BLOB NOT NULL);
CREATE INDEX syncline_history_rows ON syncline_history(table_no, key);
CREATE TABLE syncline_digests(
  bucket BLOB NOT NULL, table_no INTEGER NOT NULL, count INTEGER NOT NULL, sum INTEGER NOT NULL,
  PRIMARY KEY(bucket, table_no)) WITHOUT ROWID;
CREATE TABLE syncline_grants(
  grantee BLOB NOT NULL, bucket BLOB NOT NULL, count INTEGER NOT NULL, since INTEGER NOT NULL,
  PRIMARY KEY(grantee, bucket)) WITHOUT ROWID;
CREATE TABLE syncline_devices(
  id BLOB PRIMARY KEY, user TEXT NOT NULL, name TEXT NOT NULL, platform TEXT NOT NULL,
  lease BLOB NOT NULL, previous_lease BLOB NOT NULL, last_number INTEGER NOT NULL,
  forked INTEGER NOT NULL, first_seen INTEGER NOT NULL, last_seen INTEGER NOT NULL,
  checkpoint INTEGER NOT NULL DEFAULT 0, deregistered INTEGER,
  wipe INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE INDEX syncline_devices_user ON syncline_devices(user);
CREATE TABLE syncline_capture(off INTEGER NOT NULL);
INSERT INTO syncline_capture VALUES (0);
CREATE TABLE syncline_pending(
  table_no INTEGER PRIMARY KEY, sweep INTEGER NOT NULL DEFAULT 0, after_key BLOB);
";

/// Who this data belongs to; made once.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) server: DeviceId,
    pub(crate) secret: [u8; 32],
}

/// Makes our tables in a new file, or brings those of an older version up to date.
pub(crate) fn prepare(
    conn: &mut Connection,
    place: &Place,
    entropy: &[u8; 32],
) -> Result<Identity, OpenError> {
    let path = place.path().unwrap_or(Path::new("memory"));
    let wrap = |error| describe(path, error);
    match found_format(conn).map_err(wrap)? {
        Some(FORMAT) => {}
        Some(found) if found > FORMAT => {
            return Err(OpenError::Newer {
                path: path.into(),
                found,
                supported: FORMAT,
            });
        }
        Some(found) => migrate(conn, path, found, MIGRATIONS)?,
        None if has_tables_of_a_replica(conn).map_err(wrap)? => {
            return Err(OpenError::Replica { path: path.into() });
        }
        None => create(conn, entropy).map_err(wrap)?,
    }
    identity(conn)
        .map_err(wrap)?
        .ok_or_else(|| OpenError::Damaged {
            path: path.into(),
            what: "the server's id or secret is missing".into(),
        })
}

/// `None` when the file has no tables of ours.
pub(crate) fn found_format(conn: &Connection) -> rusqlite::Result<Option<i64>> {
    let exists = conn.table_exists(None, "syncline_server")?;
    if !exists {
        return Ok(None);
    }
    let sql = "SELECT value FROM syncline_server WHERE name = 'format'";
    Ok(Some(
        conn.query_row(sql, [], |row| row.get(0))
            .optional()?
            .unwrap_or(0),
    ))
}

fn has_tables_of_a_replica(conn: &Connection) -> rusqlite::Result<bool> {
    let sql = r"SELECT EXISTS (SELECT 1 FROM sqlite_schema
                WHERE type = 'table' AND name LIKE 'syncline\_%' ESCAPE '\')";
    conn.query_row(sql, [], |row| row.get(0))
}

pub(crate) fn create(conn: &mut Connection, entropy: &[u8; 32]) -> rusqlite::Result<()> {
    let id = blake3::derive_key("syncline server id", entropy);
    let secret = blake3::derive_key("syncline server secret", entropy);
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(TABLES)?;
    transaction.execute_batch(ACCOUNTS)?;
    transaction.execute_batch(OWNED)?;
    transaction.execute_batch(PIECES)?;
    {
        let mut insert = transaction.prepare("INSERT INTO syncline_server VALUES (?1, ?2)")?;
        insert.execute(("format", FORMAT))?;
        insert.execute(("server_id", &id[..16]))?;
        insert.execute(("secret", &secret[..]))?;
        insert.execute(("horizon", 0))?;
        insert.execute(("rules_since", 0))?;
        insert.execute(("history_since", 0))?;
    }
    transaction.commit()
}

/// Copies the file, then takes it through `steps` in one transaction.
fn migrate(
    conn: &mut Connection,
    path: &Path,
    found: i64,
    steps: &[&str],
) -> Result<(), OpenError> {
    let wrap = |error| describe(path, error);
    let first = usize::try_from(found - 1)
        .ok()
        .filter(|first| *first < steps.len());
    let Some(first) = first else {
        return Err(OpenError::Damaged {
            path: path.into(),
            what: format!("there is no data format {found}"),
        });
    };
    let copy = side_file(path, &format!("-format-{found}"));
    if !copy.exists() {
        let name = copy.to_string_lossy().into_owned();
        conn.execute("VACUUM INTO ?1", [name]).map_err(wrap)?;
    }
    let transaction = conn
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(wrap)?;
    for step in &steps[first..] {
        transaction.execute_batch(step).map_err(wrap)?;
    }
    let format = i64::try_from(steps.len()).expect("there are few formats") + 1;
    transaction
        .execute(
            "UPDATE syncline_server SET value = ?1 WHERE name = 'format'",
            [format],
        )
        .map_err(wrap)?;
    transaction.commit().map_err(wrap)
}

/// `None` when a part is missing or has another length.
pub(crate) fn identity(conn: &Connection) -> rusqlite::Result<Option<Identity>> {
    let sql = "SELECT value FROM syncline_server WHERE name = ?1";
    let read = |name: &str| -> rusqlite::Result<Option<Vec<u8>>> {
        conn.query_row(sql, [name], |row| row.get(0)).optional()
    };
    let id = read("server_id")?.and_then(|id| DeviceId::from_slice(&id));
    let secret = read("secret")?.and_then(|secret| secret.try_into().ok());
    Ok(id
        .zip(secret)
        .map(|(server, secret)| Identity { server, secret }))
}

pub(crate) fn describe(path: &Path, error: rusqlite::Error) -> OpenError {
    let damaged = matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
    );
    if damaged {
        OpenError::NotADatabase { path: path.into() }
    } else {
        OpenError::Database {
            path: path.into(),
            source: error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables as the first version made them.
    fn create_format_1(conn: &mut Connection) {
        create(conn, &[1; 32]).unwrap();
        conn.execute_batch(
            "DROP TABLE syncline_history;
             DROP TABLE syncline_accounts;
             DROP TABLE syncline_logins;
             DROP TABLE syncline_login_devices;
             DROP TABLE syncline_ended_logins;
             DROP TABLE syncline_tickets;
             DROP TABLE syncline_signing_keys;
             DROP TABLE syncline_audit;
             DROP TABLE syncline_owned;
             DROP TABLE syncline_pieces;
             DROP TABLE syncline_devices;
             CREATE TABLE syncline_devices(
               id BLOB PRIMARY KEY, user TEXT NOT NULL, name TEXT NOT NULL,
               platform TEXT NOT NULL, lease BLOB NOT NULL, previous_lease BLOB NOT NULL,
               last_number INTEGER NOT NULL, forked INTEGER NOT NULL,
               first_seen INTEGER NOT NULL, last_seen INTEGER NOT NULL) WITHOUT ROWID;
             ALTER TABLE syncline_rows DROP COLUMN born;
             DELETE FROM syncline_server WHERE name = 'history_since';
             UPDATE syncline_server SET value = 1 WHERE name = 'format';",
        )
        .unwrap();
    }

    #[test]
    fn an_older_format_is_copied_and_then_migrated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.db");
        let mut conn = Place::File(path.clone()).writer().unwrap();
        create_format_1(&mut conn);
        let steps = [
            "CREATE TABLE syncline_two(a)",
            "ALTER TABLE syncline_two ADD COLUMN b; INSERT INTO syncline_two VALUES (1, 2)",
        ];
        migrate(&mut conn, &path, 1, &steps).unwrap();
        assert_eq!(found_format(&conn).unwrap(), Some(3));
        let b: i64 = conn
            .query_row("SELECT b FROM syncline_two", [], |r| r.get(0))
            .unwrap();
        assert_eq!(b, 2);
        let copy = Connection::open(side_file(&path, "-format-1")).unwrap();
        assert_eq!(found_format(&copy).unwrap(), Some(1));
        assert!(!copy.table_exists(None, "syncline_two").unwrap());
    }

    #[test]
    fn data_of_the_first_format_has_the_tables_of_new_data_once_it_was_opened() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::File(dir.path().join("data.db"));
        let mut old = place.writer().unwrap();
        create_format_1(&mut old);
        prepare(&mut old, &place, &[2; 32]).unwrap();
        let mut new = Connection::open_in_memory().unwrap();
        create(&mut new, &[1; 32]).unwrap();
        let columns = |conn: &Connection| -> Vec<(String, String, String, i64, Option<String>)> {
            let sql = "SELECT m.name, c.name, c.type, c.\"notnull\", c.dflt_value
                       FROM sqlite_schema m JOIN pragma_table_xinfo(m.name) c ORDER BY 1, c.cid";
            let mut statement = conn.prepare(sql).unwrap();
            let read =
                |r: &rusqlite::Row<'_>| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?));
            let rows = statement.query_map([], read).unwrap();
            rows.map(Result::unwrap).collect()
        };
        assert_eq!(columns(&old), columns(&new));
        assert_eq!(found_format(&old).unwrap(), Some(FORMAT));
    }

    #[test]
    fn a_failed_migration_leaves_the_old_format() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data.db");
        let mut conn = Place::File(path.clone()).writer().unwrap();
        create_format_1(&mut conn);
        let steps = ["CREATE TABLE syncline_two(a)", "not SQL"];
        migrate(&mut conn, &path, 1, &steps).unwrap_err();
        assert_eq!(found_format(&conn).unwrap(), Some(1));
        assert!(!conn.table_exists(None, "syncline_two").unwrap());
    }

    #[test]
    fn pl21_history_begins_with_the_upgrade() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::File(dir.path().join("data.db"));
        let mut conn = place.writer().unwrap();
        create_format_1(&mut conn);
        conn.execute_batch(
            "INSERT INTO syncline_log VALUES (77, x'00', x'01', NULL, x'02', 1, 1, x'');",
        )
        .unwrap();
        prepare(&mut conn, &place, &[2; 32]).unwrap();
        let sql = "SELECT value FROM syncline_server WHERE name = 'history_since'";
        let since: i64 = conn.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(since, 77);
        let schema = |conn: &Connection| -> Vec<String> {
            let sql = "SELECT name FROM sqlite_schema ORDER BY name";
            let mut statement = conn.prepare(sql).unwrap();
            let names = statement.query_map([], |row| row.get(0)).unwrap();
            names.collect::<rusqlite::Result<_>>().unwrap()
        };
        let mut new = Place::File(dir.path().join("new.db")).writer().unwrap();
        create(&mut new, &[1; 32]).unwrap();
        assert_eq!(schema(&conn), schema(&new));
    }
}
