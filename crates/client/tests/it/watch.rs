//! Live queries.

use syncline::{Config, ErrorKind, LiveQuery, SyncManager, Tables, Value};

use crate::support::{Bed, NOTES, PATIENCE, sql};

async fn titles(query: &mut LiveQuery) -> Vec<String> {
    let rows = tokio::time::timeout(PATIENCE, query.next()).await.unwrap();
    let text = |row: &syncline::Row| row.get("title").unwrap().as_text().unwrap().to_owned();
    rows.unwrap().unwrap().iter().map(text).collect()
}

#[tokio::test]
async fn lb12_a_live_query_tells_rows_again_when_anybody_has_changed_them() {
    let bed = Bed::dev();
    let path = bed.file("notes.db", NOTES);
    sql(
        &path,
        "CREATE TABLE other (id TEXT PRIMARY KEY); INSERT INTO notes VALUES ('n1', 'Milk', 'open')",
    );
    let sync = bed.open("notes.db", "ana").await;
    let text = "SELECT title FROM notes WHERE status = ?1 ORDER BY title";
    let mut open = sync.watch(text, [Value::from("open")]).await.unwrap();
    assert_eq!(open.tables().iter().collect::<Vec<_>>(), ["notes"]);
    assert_eq!(titles(&mut open).await, ["Milk"]);

    // Another program, a table that it does not read, rows that it does not want, and rows.
    sql(&path, "INSERT INTO other VALUES ('x')");
    sql(&path, "INSERT INTO notes VALUES ('n2', 'Tea', 'done')");
    sql(&path, "INSERT INTO notes VALUES ('n3', 'Jam', 'open')");
    assert_eq!(titles(&mut open).await, ["Jam", "Milk"]);

    // Another device.
    sync.sync(Tables::All, |_| {}).await.unwrap();
    let phone = bed.open("phone.db", "ana").await;
    phone.hydrate(Tables::All, |_| {}).await.unwrap();
    sql(
        &bed.path("phone.db"),
        "UPDATE notes SET status = 'open' WHERE id = 'n2'",
    );
    phone.sync(Tables::All, |_| {}).await.unwrap();
    sync.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(titles(&mut open).await, ["Jam", "Milk", "Tea"]);

    sync.close().await;
    let ended = tokio::time::timeout(PATIENCE, open.next()).await.unwrap();
    assert!(ended.is_none(), "{ended:?}");
    assert_eq!(
        sync.watch(text, []).await.unwrap_err().kind(),
        ErrorKind::Closed
    );
}

#[tokio::test]
async fn lb12_a_query_that_cannot_run_or_writes_is_refused_and_one_whose_table_goes_ends() {
    let bed = Bed::dev();
    let path = bed.file("notes.db", NOTES);
    let sync = SyncManager::open(&path, Config::new()).await.unwrap();
    for text in [
        "SELECT nothing FROM nowhere",
        "DELETE FROM notes",
        "INSERT INTO notes VALUES ('n9', 'x', NULL) RETURNING id",
        "SELECT title FROM notes WHERE id = ?1 AND title = ?2",
        "PRAGMA journal_mode = DELETE",
        "VACUUM",
    ] {
        let error = sync.watch(text, [Value::Null]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Query, "{text}: {error}");
    }
    let elsewhere = format!("ATTACH '{}' AS other", bed.path("other.db").display());
    for text in [
        elsewhere.as_str(),
        "DETACH other",
        "BEGIN",
        "COMMIT",
        "SAVEPOINT here",
        "PRAGMA user_version = 7",
        "PRAGMA query_only = 0",
        "PRAGMA wal_checkpoint",
    ] {
        let error = sync.watch(text, []).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Query, "{text}: {error}");
    }
    assert!(!bed.path("other.db").exists());
    let columns = "SELECT name FROM pragma_table_info('notes')";
    drop(sync.watch(columns, []).await.unwrap());
    let mut all = sync.watch("SELECT title FROM notes", []).await.unwrap();
    assert!(titles(&mut all).await.is_empty());
    sql(&path, "DROP TABLE notes");
    let error = tokio::time::timeout(PATIENCE, all.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Query);
    assert!(all.next().await.is_none());
}

#[tokio::test]
async fn lb3_closing_lets_go_of_the_file_that_live_queries_read() {
    let bed = Bed::dev();
    let path = bed.file("notes.db", NOTES);
    sql(&path, "PRAGMA journal_mode = WAL");
    let sync = SyncManager::open(&path, Config::new()).await.unwrap();
    let mut all = sync.watch("SELECT title FROM notes", []).await.unwrap();
    sql(&path, "INSERT INTO notes VALUES ('n1', 'Milk', NULL)");
    while titles(&mut all).await.is_empty() {}
    assert!(bed.path("notes.db-wal").exists());
    sync.close().await;
    // Who closes the file last removes its journal.
    assert!(!bed.path("notes.db-wal").exists());
}
