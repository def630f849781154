//! What other sync engines got wrong, where it takes real threads, files and sockets to show it.
//! The rest is in the simulator, as `seed_trap_*` too.

use std::time::Duration;

use syncline::{SyncManager, Tables};

use crate::support::{Bed, NOTES, NOTES_CONFIG, open, rows, sql, until};

const ALL: &str = "SELECT id || ' ' || title FROM notes ORDER BY id";

/// `setInterval(sync)` with no guard: runs overlap, each sends what the others are sending, and
/// after an outage all that were missed come at once. Here runs that are called for take turns and
/// have nothing left to do, and of many calls made while the server was away each row comes of one.
#[tokio::test]
async fn seed_trap_syncs_called_faster_than_they_end_do_not_overlap() {
    let mut bed = Bed::with(NOTES_CONFIG);
    let path = bed.file("notes.db", NOTES);
    let sync = bed.open("notes.db", "ana").await;
    sync.sync(Tables::All, |_| {}).await.unwrap();
    let mut events = sync.events();
    let mut calls = Vec::new();
    for i in 0..40 {
        if i == 10 {
            bed.stop();
        }
        if i == 30 {
            bed.restart();
        }
        let insert = format!("INSERT INTO notes VALUES ('n{i:02}', 'note {i}', NULL)");
        sql(&path, &insert);
        calls.push(tokio::spawn(sync.sync(Tables::All, |_| {}).into_future()));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for call in calls {
        // Those of the outage failed, and say so.
        drop(call.await.unwrap());
    }
    sync.sync(Tables::All, |_| {}).await.unwrap();
    let (mut running, mut most, mut sent) = (0_i32, 0, 0);
    while let Some(event) = events.try_next() {
        match event {
            syncline::Event::SyncStarted(_) => running += 1,
            syncline::Event::SyncCompleted(done) => {
                running -= 1;
                sent += done.sent.created;
            }
            syncline::Event::SyncError(_) => running -= 1,
            _ => {}
        }
        most = most.max(running);
    }
    assert_eq!(most, 1, "one run at a time");
    assert_eq!(bed.at_server("SELECT count(*) FROM notes"), "40");
    assert!(sent <= 40, "each row is sent by one run: {sent}");
    let twice = "SELECT count(*) FROM syncline_rows WHERE version <> created";
    assert_eq!(bed.at_server(twice), "0", "no row was written twice");
}

/// Two runs over one queue (a timer's and a button's, two tabs, two processes) interleave: both take
/// the same head, or one removes what the other is sending. Here two engines have one file, and both
/// send as the app writes.
#[tokio::test]
async fn seed_trap_two_engines_on_one_file_send_each_change_once() {
    let bed = Bed::with(
        r#"
[tables.notes]
columns = { id = "text primary key", title = "text not null", n = "integer not null default 0" }
merge = { n = "counter" }
read = "_owner = auth.uid()"
write = "_owner = auth.uid()"
"#,
    );
    let path = bed.file(
        "notes.db",
        "CREATE TABLE notes (id TEXT PRIMARY KEY, title TEXT NOT NULL, n INTEGER NOT NULL DEFAULT 0);
         INSERT INTO notes VALUES ('n', 'counted', 0);",
    );
    let one = bed.open("notes.db", "ana").await;
    one.sync(Tables::All, |_| {}).await.unwrap();
    let two = bed.open("notes.db", "ana").await;
    one.start_auto_sync();
    two.start_auto_sync();
    let app = open(&path);
    for _ in 0..60 {
        app.execute_batch("UPDATE notes SET n = n + 1").unwrap();
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    until("all of it is there", || {
        bed.at_server("SELECT n FROM notes") == "60"
    })
    .await;
    one.stop_auto_sync();
    two.stop_auto_sync();
    one.close().await;
    two.close().await;
    let again = SyncManager::open(&path, bed.config("ana")).await.unwrap();
    again.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(
        bed.at_server("SELECT n FROM notes"),
        "60",
        "once, not twice"
    );
    assert_eq!(rows(&path, "SELECT n FROM notes"), "60");
    assert_eq!(again.status().await.unwrap().unwrap().waiting, 0);
}

/// A queue in `localStorage`: five megabytes, and what is above them is lost. Here what waits lies
/// in the app's own file.
#[tokio::test]
async fn seed_trap_eight_megabytes_wait_offline_and_arrive() {
    let mut bed = Bed::with(NOTES_CONFIG);
    let path = bed.file("notes.db", NOTES);
    let sync = bed.open("notes.db", "ana").await;
    sync.sync(Tables::All, |_| {}).await.unwrap();
    sync.close().await;
    bed.stop();
    let app = open(&path);
    for i in 0..64 {
        let insert =
            format!("INSERT INTO notes VALUES ('n{i:02}', '{i} ' || hex(randomblob(65536)), NULL)");
        app.execute_batch(&insert).unwrap();
        if i % 16 == 7 {
            // The process that seals them dies with them.
            let sync = bed.open("notes.db", "ana").await;
            sync.sync(Tables::All, |_| {}).await.unwrap_err();
            sync.close().await;
        }
    }
    bed.restart();
    let sync = bed.open("notes.db", "ana").await;
    sync.sync(Tables::All, |_| {}).await.unwrap();
    assert!(rows(&path, ALL).len() > 8_000_000);
    assert_eq!(rows(&path, ALL), bed.at_server(ALL));
}
