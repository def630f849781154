//! Migrations of the app's own, beside the sync.

use syncline::{Config, SyncManager, TableChange, Tables};

use crate::support::{Bed, NOTES, rows, sql};

#[tokio::test]
async fn lb18_a_migration_through_the_manager_says_what_it_changed_and_syncs() {
    let bed = Bed::dev();
    let path = bed.file("notes.db", NOTES);
    sql(&path, "INSERT INTO notes VALUES ('n1', 'Milk', NULL)");
    let sync = bed.open("notes.db", "ana").await;
    sync.sync(Tables::All, |_| {}).await.unwrap();
    let (done, migrated) = sync
        .migrate(async |file| {
            assert_eq!(file, path);
            sql(
                &file,
                "CREATE TABLE new (id TEXT PRIMARY KEY, title TEXT NOT NULL, status TEXT, due TEXT);
                 INSERT INTO new SELECT id, title || '!', status, NULL FROM notes;
                 DROP TABLE notes; ALTER TABLE new RENAME TO notes",
            );
            7
        })
        .await
        .unwrap();
    assert_eq!(done, 7);
    assert_eq!(migrated.rows_found, 1, "{migrated:?}");
    let added = TableChange::ColumnAdded {
        table: "notes".into(),
        column: "due".into(),
    };
    assert_eq!(migrated.changes, [added]);
    sync.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(bed.at_server("SELECT title FROM notes"), "Milk!");
}

#[tokio::test]
async fn lb18_a_file_that_never_synced_is_migrated_all_the_same() {
    let bed = Bed::dev();
    let path = bed.file("notes.db", NOTES);
    let sync = SyncManager::open(&path, Config::new()).await.unwrap();
    let statement = "ALTER TABLE notes ADD COLUMN due TEXT";
    let (failed, migrated) = sync
        .migrate(async |file| {
            sql(&file, statement);
            Err::<(), _>("no")
        })
        .await
        .unwrap();
    assert_eq!(failed, Err("no"));
    assert!(migrated.changes.is_empty());
    assert_eq!(rows(&path, "SELECT count(due) FROM notes"), "0");
}
