//! Auto-sync: when it begins, what it notices, how it ends.

use std::time::Duration;

use syncline::{Event, Tables};

use crate::support::{Bed, NOTES, NOTES_CONFIG, rows, sql, until, wait_for};

#[tokio::test]
async fn lb6_while_auto_sync_is_on_what_one_device_writes_appears_on_the_other() {
    let bed = Bed::dev();
    let laptop_file = bed.file("laptop.db", NOTES);
    let laptop = bed.open("laptop.db", "ana").await;
    laptop.sync(Tables::All, |_| {}).await.unwrap();
    let phone = bed.open("phone.db", "ana").await;
    let mut events = phone.events();
    phone.start_auto_sync();
    laptop.start_auto_sync();
    wait_for(&mut events, |event| (event.name() == "live").then_some(())).await;
    assert!(phone.is_connected());

    sql(
        &laptop_file,
        "INSERT INTO notes VALUES ('n1', 'Milk', NULL)",
    );
    let changed = wait_for(&mut events, |event| match event {
        Event::RowsChanged(rows) => Some(rows.clone()),
        _ => None,
    })
    .await;
    assert_eq!((changed.table.as_str(), changed.ids.len()), ("notes", 1));
    assert_eq!(changed.by.to_string(), "ana");
    assert_eq!(
        rows(&bed.path("phone.db"), "SELECT title FROM notes"),
        "Milk"
    );

    // A run that is called for in between takes its turn, and auto-sync goes on.
    phone.sync(Tables::All, |_| {}).await.unwrap();
    wait_for(&mut events, |event| (event.name() == "live").then_some(())).await;
    phone.stop_auto_sync();
    until("disconnected", || !phone.is_connected()).await;
    sql(&laptop_file, "INSERT INTO notes VALUES ('n2', 'Tea', NULL)");
    laptop.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(
        rows(&bed.path("phone.db"), "SELECT count(*) FROM notes"),
        "1"
    );
}

#[tokio::test]
async fn lb6_rounds_follow_changes_and_the_foreground() {
    let bed = Bed::dev();
    let path = bed.file("notes.db", NOTES);
    let sync = bed.open("notes.db", "ana").await;
    sync.update_config(|config| config.live(false).debounce(Duration::from_millis(50)))
        .unwrap();
    let mut events = sync.events();
    sync.start_auto_sync();
    let mut completed = async || {
        wait_for(&mut events, |event| match event {
            Event::SyncCompleted(done) => Some(done.clone()),
            _ => None,
        })
        .await
    };
    completed().await;
    sql(&path, "INSERT INTO notes VALUES ('n1', 'Milk', NULL)");
    assert_eq!(completed().await.sent.created, 1);
    sync.foreground();
    assert_eq!(completed().await.sent.created, 0);
    assert!(!sync.is_connected());
    assert_eq!(bed.at_server("SELECT title FROM notes"), "Milk");
}

#[tokio::test]
async fn lb6_when_the_server_is_back_what_waited_is_sent() {
    let mut bed = Bed::with(NOTES_CONFIG);
    let path = bed.file("notes.db", NOTES);
    let sync = bed.open("notes.db", "ana").await;
    sync.sync(Tables::All, |_| {}).await.unwrap();
    let mut events = sync.events();
    sync.start_auto_sync();
    wait_for(&mut events, |event| (event.name() == "live").then_some(())).await;
    bed.stop();
    wait_for(&mut events, |event| {
        (event.name() == "disconnected").then_some(())
    })
    .await;
    assert!(!sync.is_connected());
    sql(&path, "INSERT INTO notes VALUES ('n1', 'Milk', NULL)");
    bed.restart();
    sync.foreground();
    until("it is sent", || {
        bed.at_server("SELECT count(*) FROM notes") == "1"
    })
    .await;
}
