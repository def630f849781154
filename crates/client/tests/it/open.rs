//! Opening, closing, and being without a server.

use syncline::{Config, ErrorKind, SyncManager, Tables, blocking};

use crate::support::{Bed, NOTES, PATIENCE, rows, sql};

#[tokio::test]
async fn lb2_without_a_server_the_file_stays_as_it_is_and_says_why_it_does_not_sync() {
    let bed = Bed::dev();
    let path = bed.file("notes.db", NOTES);
    let schema = "SELECT sql FROM sqlite_schema ORDER BY name";
    let before = rows(&path, schema);
    let sync = SyncManager::open(&path, Config::new()).await.unwrap();
    sql(&path, "INSERT INTO notes VALUES ('n1', 'Milk', NULL)");

    assert!(!sync.is_sync_available() && !sync.is_connected());
    assert_eq!(sync.status().await.unwrap(), None);
    assert!(sync.conflicts(true).await.unwrap().is_empty());
    let done = sync.sync(Tables::All, |_| {}).await.unwrap();
    assert!(done.is_offline && done.records_processed == 0);
    let error = sync.seed(Tables::All, |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConfigured);
    assert_eq!(rows(&path, schema), before);
    assert_eq!(rows(&path, "SELECT title FROM notes"), "Milk");
}

#[tokio::test]
async fn lb2_a_server_that_is_away_and_a_bad_token_are_told_apart() {
    let mut bed = Bed::dev();
    let path = bed.file("notes.db", NOTES);
    let nobody = bed
        .config("ana")
        .server(bed.config("ana").url().unwrap(), "no token");
    let sync = SyncManager::open(&path, nobody.unwrap().max_retries(0))
        .await
        .unwrap();
    let error = sync.sync(Tables::All, |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");

    let ana = bed.config("ana").max_retries(0);
    bed.stop();
    sync.update_config(|_| ana).unwrap();
    let error = sync.sync(Tables::All, |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected, "{error}");
    assert!(error.is_retryable());
    assert_eq!(sync.status().await.unwrap(), None);
}

#[tokio::test]
async fn lb3_closing_ends_the_streams_and_frees_the_file_for_the_next() {
    let bed = Bed::dev();
    let path = bed.file("notes.db", NOTES);
    let sync = bed.open("notes.db", "ana").await;
    let (other, mut events) = (sync.clone(), sync.events());
    sync.start_auto_sync();
    crate::support::wait_for(&mut events, |event| (event.name() == "live").then_some(())).await;
    sync.close().await;
    while let Some(event) = events.next().await {
        assert_ne!(event.name(), "sync_error", "{event:?}");
    }
    assert_eq!(other.status().await.unwrap_err().kind(), ErrorKind::Closed);
    let error = other.sync(Tables::All, |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    other.close().await;
    let late = tokio::time::timeout(PATIENCE, async { other.events().next().await });
    assert_eq!(late.await.unwrap(), None);

    sql(&path, "INSERT INTO notes VALUES ('n1', 'Milk', NULL)");
    let again = bed.open("notes.db", "ana").await;
    let done = again.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(done.sent.created, 1);
}

#[tokio::test]
async fn lb3_the_engine_ends_when_the_last_handle_is_dropped() {
    let bed = Bed::dev();
    bed.file("notes.db", NOTES);
    let sync = bed.open("notes.db", "ana").await;
    let mut events = sync.events();
    sync.start_auto_sync();
    crate::support::wait_for(&mut events, |event| (event.name() == "live").then_some(())).await;
    drop(sync.clone());
    assert!(sync.status().await.unwrap().is_some());
    drop(sync);
    let ended = async { while events.next().await.is_some() {} };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
}

#[tokio::test]
async fn lb2_a_file_that_is_no_database_is_refused_at_once() {
    let bed = Bed::dev();
    let path = bed.path("letter.txt");
    std::fs::write(
        &path,
        "Dear Sir or Madam, this is not a database at all.\n".repeat(40),
    )
    .unwrap();
    let error = SyncManager::open(&path, Config::new()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::File, "not_a_database")
    );
}

#[test]
fn ob14_what_the_engine_commits_is_synced_in_every_journal_mode() {
    let bed = Bed::dev();
    for journal in ["delete", "wal"] {
        let path = bed.file(&format!("{journal}.db"), NOTES);
        let app = crate::support::open(&path);
        app.pragma_update_and_check(None, "journal_mode", journal, |_| Ok(()))
            .unwrap();
        let sync = blocking::SyncManager::open(&path, Config::new()).unwrap();
        assert!(sync.wait(sync.handle().attach()).unwrap());
        sync.close();
        let replica = syncline::engine::open_replica(&path).unwrap();
        let synchronous: i64 = replica
            .connection()
            .query_row("PRAGMA synchronous", [], |row| row.get(0))
            .unwrap();
        assert_eq!(synchronous, 3, "EXTRA, in {journal} mode");
    }
}

/// Something of the app's that fails on the engine's own thread.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the app's own mistake");
    }
}

#[tokio::test]
async fn lb3_streams_end_also_when_the_engine_breaks_off() {
    let bed = Bed::dev();
    let path = bed.file("notes.db", NOTES);
    let sync = SyncManager::open(&path, Config::new()).await.unwrap();
    let mut events = sync.events();
    let mut query = sync.watch("SELECT title FROM notes", []).await.unwrap();
    query.next().await.unwrap().unwrap();
    let bomb = Bomb;
    let handler = move |_| {
        let _held = &bomb;
        std::future::ready(Ok(()))
    };
    sync.queue().register("mail", handler).await.unwrap();
    // The first handler is dropped for the second one.
    let other = |_| std::future::ready(Ok(()));
    let error = sync.queue().register("mail", other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    let ended = async { (events.next().await, query.next().await) };
    let (event, rows) = tokio::time::timeout(PATIENCE, ended).await.unwrap();
    assert!(event.is_none() && rows.is_none(), "{event:?} {rows:?}");
    assert_eq!(sync.status().await.unwrap_err().kind(), ErrorKind::Closed);
}
