//! Auto-sync: when it begins, what it notices, how it ends.

use std::time::Duration;

use syncline::{ErrorKind, Event, SyncManager, Tables};

use crate::support::{Bed, NOTES, NOTES_CONFIG, PATIENCE, rows, sql, until, wait_for};

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

#[tokio::test]
async fn lb6_auto_sync_that_was_not_taken_goes_on_with_another_token() {
    const COUNT: &str = "SELECT count(*) FROM notes";
    for live in [true, false] {
        let bed = Bed::with(NOTES_CONFIG);
        let path = bed.file("notes.db", NOTES);
        sql(&path, "INSERT INTO notes VALUES ('n1', 'Milk', NULL)");
        let ana = bed.config("ana").live(live).auto_sync(true);
        let url = ana.url().unwrap().to_owned();
        let nobody = ana.clone().server(&url, "no token").unwrap();
        let sync = SyncManager::open(&path, nobody.auto_sync(false))
            .await
            .unwrap();
        let mut events = sync.events();
        sync.start_auto_sync();
        let refused = wait_for(&mut events, |event| match event {
            Event::SyncError(error) => Some(error.kind()),
            _ => None,
        })
        .await;
        assert_eq!(refused, ErrorKind::Authentication);
        sync.update_config(|_| ana).unwrap();
        until("it is sent", || bed.at_server(COUNT) == "1").await;
    }
}

#[tokio::test]
async fn lb6_rounds_are_made_while_somebody_writes_without_a_pause_or_asks_without_one() {
    let bed = Bed::with(NOTES_CONFIG);
    let path = bed.file("notes.db", NOTES);
    let sync = bed.open("notes.db", "ana").await;
    // Longer than the pauses of the writer and of who asks, also on a busy machine.
    let debounce = Duration::from_millis(700);
    sync.update_config(|config| config.live(false).debounce(debounce))
        .unwrap();
    let mut events = sync.events();
    sync.start_auto_sync();
    wait_for(&mut events, |event| {
        (event.name() == "sync_completed").then_some(())
    })
    .await;
    let app = crate::support::open(&path);
    let mut sent = 0;
    let end = std::time::Instant::now() + PATIENCE;
    for note in 0.. {
        assert!(std::time::Instant::now() < end, "no round was made");
        app.execute("INSERT INTO notes VALUES (?1, 'Milk', NULL)", [note])
            .unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        sync.queue().operations().await.unwrap();
        while let Some(event) = events.try_next() {
            if let Event::SyncCompleted(done) = event {
                sent += done.sent.created;
            }
        }
        if sent > 0 {
            break;
        }
    }
}
