use std::path::Path;

use syncline_core::ColumnType;
use syncline_store::Storage as _;
use syncline_store_sqlite::{OpenError, SqliteStorage};

use crate::support::{ENTROPY, World, row, table};

#[test]
fn a_second_server_is_refused_while_the_first_runs() {
    let world = World::empty();
    let error = SqliteStorage::open(world.path(), &ENTROPY).unwrap_err();
    let message = error.to_string();
    let holder = std::process::id().to_string();
    assert!(matches!(&error, OpenError::InUse { holder: found, .. } if *found == holder));
    assert!(
        message.contains("in use by another Syncline server"),
        "{message}"
    );
    let path = world.path();
    drop(world);
    // The folder is gone with the world; a new one can be opened at once.
    SqliteStorage::open(path, &ENTROPY).unwrap();
}

#[test]
#[cfg(unix)]
fn files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("a/b");
    let path = folder.join("data.db");
    let storage = SqliteStorage::open(&path, &ENTROPY).unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for name in ["data.db", "data.db-wal", "data.db-shm", "data.db-lock"] {
        assert_eq!(mode(&folder.join(name)), 0o600, "{name}");
    }
    drop(storage);
}

#[test]
fn identity_is_made_once() {
    let mut world = World::empty();
    let (id, secret) = (world.storage.server_id(), *world.storage.secret());
    world.restart();
    assert_eq!(
        (id, secret),
        (world.storage.server_id(), *world.storage.secret())
    );
    let dir = tempfile::tempdir().unwrap();
    let other = SqliteStorage::open(dir.path().join("x.db"), &[8; 32]).unwrap();
    assert_ne!(id, other.server_id());
    assert_ne!(&secret, other.secret());
}

#[test]
fn what_cannot_be_opened_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let open = |path: &Path| SqliteStorage::open(path, &ENTROPY).unwrap_err();

    let text = dir.path().join("text.db");
    std::fs::write(
        &text,
        "this is a text, and a long one, but no database at all".repeat(30),
    )
    .unwrap();
    assert!(matches!(open(&text), OpenError::NotADatabase { .. }));

    let replica = dir.path().join("replica.db");
    let conn = rusqlite::Connection::open(&replica).unwrap();
    conn.execute_batch("CREATE TABLE syncline_tx(n)").unwrap();
    assert!(matches!(open(&replica), OpenError::Replica { .. }));

    let newer = dir.path().join("newer.db");
    drop(SqliteStorage::open(&newer, &ENTROPY).unwrap());
    let conn = rusqlite::Connection::open(&newer).unwrap();
    conn.execute_batch("UPDATE syncline_server SET value = 99 WHERE name = 'format'")
        .unwrap();
    let message = open(&newer).to_string();
    assert!(
        message.contains("data format 99") && message.contains("this one reads up to"),
        "{message}"
    );

    assert!(matches!(
        open(Path::new("/dev/null/x.db")),
        OpenError::Io { .. }
    ));
}

#[test]
fn memory_is_shared_by_name() {
    let tables = [table(
        "notes",
        &[("id", ColumnType::Text), ("body", ColumnType::Text)],
    )];
    let open = |name| {
        let mut storage = SqliteStorage::open_in_memory(name, &ENTROPY).unwrap();
        let config = crate::support::config(&tables);
        let options = syncline_store::SchemaOptions {
            managed: true,
            allow: Vec::new(),
        };
        let report = crate::support::now(storage.apply_schema(&config, &options)).unwrap();
        (storage, report)
    };
    let (mut storage, report) = open("shared");
    let number = report.schema.table("notes").unwrap().number;
    let mut group = crate::support::now(storage.begin()).unwrap();
    let write = crate::support::Write {
        table: number,
        key: crate::support::key("a"),
        row: Some(row(["a", "hello"])),
        exists: false,
        columns: Vec::new(),
    };
    crate::support::write(&mut group, &[write]).unwrap();
    crate::support::now(syncline_store::Group::commit(group)).unwrap();
    let reader = storage.reader().unwrap();
    drop(storage);
    // A server that starts again finds what a reader has kept alive.
    let (again, report) = open("shared");
    assert!(
        !report.notes.iter().any(|note| note.contains("created")),
        "{:?}",
        report.notes
    );
    drop((again, reader));
    let (_fresh, report) = open("shared");
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.contains("created the table notes"))
    );
}
