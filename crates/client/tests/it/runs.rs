//! `seed`, `hydrate`, `sync`: results, progress, chosen tables, dry runs, interruption.

use syncline::{ErrorKind, Interrupt, Operation, Phase, Progress, Tables};

use crate::support::{Bed, NOTES, NOTES_CONFIG, rows, sql, wait_for};

#[tokio::test]
async fn lb4_what_one_device_seeds_another_one_hydrates_and_both_sync() {
    let bed = Bed::dev();
    let laptop_file = bed.file("laptop.db", NOTES);
    sql(
        &laptop_file,
        "INSERT INTO notes VALUES ('n1', 'Milk', 'new'), ('n2', 'Bread', 'new'), ('n3', 'Tea', 'new')",
    );
    let laptop = bed.open("laptop.db", "ana").await;
    let mut told: Vec<Progress> = Vec::new();
    let seeded = laptop.seed(Tables::All, |p| told.push(p)).await.unwrap();
    assert_eq!(
        (
            seeded.operation,
            seeded.sent.created,
            seeded.received.total()
        ),
        (Operation::Seed, 3, 0)
    );
    assert_eq!(seeded.records_processed, 3);
    assert!(seeded.bytes_sent > 0 && seeded.duration >= seeded.network_time);
    assert!(told.is_sorted_by_key(|p| p.percentage), "{told:?}");
    let last = told.last().unwrap();
    assert_eq!((last.percentage, last.phase), (100, Phase::Done));

    let phone = bed.open("phone.db", "ana").await;
    let hydrated = phone.hydrate(Tables::All, |_| {}).await.unwrap();
    assert_eq!((hydrated.received.created, hydrated.sent.total()), (3, 0));
    let phone_file = bed.path("phone.db");
    assert_eq!(rows(&phone_file, "SELECT count(*) FROM notes"), "3");

    sql(
        &phone_file,
        "UPDATE notes SET title = 'Oat milk' WHERE id = 'n1'; DELETE FROM notes WHERE id = 'n2';
         INSERT INTO notes VALUES ('n4', 'Jam', 'new')",
    );
    let sent = phone.sync(Tables::All, |_| {}).await.unwrap().sent;
    assert_eq!((sent.created, sent.updated, sent.deleted), (1, 1, 1));
    let done = laptop.sync(Tables::All, |_| {}).await.unwrap();
    let received = done.received;
    assert_eq!(
        (received.created, received.updated, received.deleted),
        (1, 1, 1),
        "{done:?}"
    );
    assert_eq!((done.created(), done.updated(), done.deleted()), (1, 1, 1));
    let all = "SELECT * FROM notes ORDER BY id";
    assert_eq!(rows(&laptop_file, all), rows(&phone_file, all));
    assert_eq!(
        laptop
            .sync(Tables::All, |_| {})
            .await
            .unwrap()
            .records_processed,
        0
    );
}

#[tokio::test]
async fn lb7_tables_that_no_call_has_named_stay_on_the_device() {
    let bed = Bed::dev();
    let path = bed.file("app.db", NOTES);
    sql(
        &path,
        "CREATE TABLE secrets (id TEXT PRIMARY KEY, word TEXT);
         INSERT INTO notes VALUES ('n1', 'Milk', NULL); INSERT INTO secrets VALUES ('s1', 'x')",
    );
    let sync = bed.open("app.db", "ana").await;
    let done = sync.sync(Tables::only(["notes"]), |_| {}).await.unwrap();
    assert_eq!(done.sent.created, 1);
    assert_eq!(
        bed.at_server("SELECT count(*) FROM sqlite_schema WHERE name = 'secrets'"),
        "0"
    );

    let error = sync
        .sync(Tables::only(["letters"]), |_| {})
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Table, "{error}");

    let done = sync.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(done.sent.created, 1);
    assert_eq!(bed.at_server("SELECT word FROM secrets"), "x");
}

#[tokio::test]
async fn lb7_the_configuration_says_which_tables_may_sync_at_all() {
    let bed = Bed::dev();
    let path = bed.file("app.db", NOTES);
    sql(
        &path,
        "CREATE TABLE secrets (id TEXT PRIMARY KEY, word TEXT)",
    );
    let sync = bed.open("app.db", "ana").await;
    sync.update_config(|config| config.tables(Tables::only(["notes"])))
        .unwrap();
    let error = sync
        .sync(Tables::only(["secrets"]), |_| {})
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Table);
    sync.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(
        bed.at_server("SELECT count(*) FROM sqlite_schema WHERE name = 'secrets'"),
        "0"
    );
}

#[tokio::test]
async fn lb8_a_dry_run_says_what_would_be_done_and_does_nothing() {
    let bed = Bed::with(NOTES_CONFIG);
    let path = bed.file("notes.db", NOTES);
    sql(
        &path,
        "INSERT INTO notes VALUES ('n1', 'Milk', NULL), ('n2', 'Tea', NULL)",
    );
    let sync = bed.open("notes.db", "ana").await;
    let mut events = sync.events();
    let would = sync.sync(Tables::All, |_| {}).dry_run().await.unwrap();
    assert!(would.dry_run);
    assert_eq!((would.sent.created, would.received.total()), (2, 0));
    assert_eq!(bed.at_server("SELECT count(*) FROM notes"), "0");
    assert_eq!(sync.status().await.unwrap(), None);
    assert_eq!(events.try_next(), None);

    sync.sync(Tables::All, |_| {}).await.unwrap();
    let other = bed.open("other.db", "ana").await;
    let would = other.hydrate(Tables::All, |_| {}).dry_run().await.unwrap();
    assert_eq!((would.received.created, would.records_processed), (2, 2));
    other.sync(Tables::All, |_| {}).await.unwrap();
    sql(
        &bed.path("other.db"),
        "UPDATE notes SET title = 'Oat milk' WHERE id = 'n1'",
    );
    other.sync(Tables::All, |_| {}).await.unwrap();
    sql(&path, "DELETE FROM notes WHERE id = 'n2'");
    let would = sync.sync(Tables::All, |_| {}).dry_run().await.unwrap();
    assert_eq!(
        (would.sent.deleted, would.sent.total()),
        (1, 1),
        "{would:?}"
    );
    assert_eq!(
        (would.received.updated, would.received.total()),
        (1, 1),
        "{would:?}"
    );
    assert_eq!(rows(&path, "SELECT title FROM notes"), "Milk");
}

#[tokio::test]
async fn lb9_a_run_that_is_dropped_or_interrupted_ends_and_the_next_goes_on() {
    let mut bed = Bed::with(NOTES_CONFIG);
    let path = bed.file("notes.db", NOTES);
    sql(&path, "INSERT INTO notes VALUES ('n1', 'Milk', NULL)");
    let sync = bed.open("notes.db", "ana").await;
    sync.sync(Tables::All, |_| {}).await.unwrap();
    bed.stop();
    sync.update_config(|config| config.max_retries(1_000))
        .unwrap();
    let mut events = sync.events();
    let run = sync.sync(Tables::All, |_| {}).into_future();
    assert!(
        tokio::time::timeout(std::time::Duration::from_millis(300), run)
            .await
            .is_err()
    );
    let error = wait_for(&mut events, |event| match event {
        syncline::Event::SyncError(error) => Some(error.clone()),
        _ => None,
    })
    .await;
    assert_eq!(error.kind(), ErrorKind::Interrupted);

    let interrupt = Interrupt::default();
    let trigger = interrupt.clone();
    let (ended, ()) = tokio::join!(
        sync.sync(Tables::All, |_| {})
            .interrupt(&interrupt)
            .into_future(),
        async move {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            trigger.trigger();
        }
    );
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Interrupted);

    sql(&path, "INSERT INTO notes VALUES ('n2', 'Tea', NULL)");
    bed.restart();
    assert_eq!(
        sync.sync(Tables::All, |_| {}).await.unwrap().sent.created,
        1
    );
}

#[tokio::test]
async fn lb10_runs_that_are_called_for_at_once_follow_each_other() {
    let bed = Bed::dev();
    let path = bed.file("notes.db", NOTES);
    sql(&path, "INSERT INTO notes VALUES ('n1', 'Milk', NULL)");
    let sync = bed.open("notes.db", "ana").await;
    let mut events = sync.events();
    let (seeded, synced, again) = tokio::join!(
        sync.seed(Tables::All, |_| {}).into_future(),
        sync.sync(Tables::All, |_| {}).into_future(),
        sync.sync(Tables::All, |_| {}).into_future(),
    );
    let total = [seeded, synced, again].map(|done| done.unwrap().sent.created);
    assert_eq!(total.iter().sum::<u64>(), 1, "{total:?}");
    let mut running = 0;
    while let Some(event) = events.try_next() {
        match event.name() {
            "sync_started" => running += 1,
            "sync_completed" => running -= 1,
            _ => {}
        }
        assert!((0..=1).contains(&running));
    }
    assert_eq!(running, 0);
}

#[tokio::test]
async fn lb8_a_dry_run_counts_the_tables_that_may_sync() {
    let bed = Bed::dev();
    let path = bed.file("app.db", NOTES);
    sql(
        &path,
        "CREATE TABLE secrets (id TEXT PRIMARY KEY, word TEXT);
         INSERT INTO notes VALUES ('n1', 'Milk', NULL); INSERT INTO secrets VALUES ('s1', 'x')",
    );
    let laptop = bed.open("app.db", "ana").await;
    laptop.sync(Tables::All, |_| {}).await.unwrap();
    let phone = bed.open("phone.db", "ana").await;
    phone
        .update_config(|config| config.tables(Tables::only(["notes"])))
        .unwrap();
    let would = phone.hydrate(Tables::All, |_| {}).dry_run().await.unwrap();
    assert_eq!(would.received.created, 1, "{would:?}");
}

#[tokio::test]
async fn lb9_beginning_again_with_other_tables_is_no_further_attempt_to_connect() {
    let bed = Bed::with(NOTES_CONFIG);
    bed.file("laptop.db", NOTES);
    let once = bed.config("ana").max_retries(0);
    let laptop = syncline::SyncManager::open(bed.path("laptop.db"), once.clone())
        .await
        .unwrap();
    // Kept in the file before it is attached.
    laptop.queue().enqueue("mail", None, &1).await.unwrap();
    sql(
        &bed.path("laptop.db"),
        "INSERT INTO notes VALUES ('n1', 'Milk', 'new')",
    );
    assert_eq!(
        laptop.sync(Tables::All, |_| {}).await.unwrap().sent.created,
        1
    );
    laptop.close().await;
}
