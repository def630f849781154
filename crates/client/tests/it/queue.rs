//! The retry queue: refused transactions, and operations of the app's own.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use syncline::{Config, ErrorKind, Event, OperationError, OperationState, SyncManager, Tables};

use crate::support::{Bed, NOTES, PATIENCE, rows, sql, until, wait_for};

const READ_ONLY: &str = r#"
[tables.notes]
columns = { id = "text primary key", title = "text not null", status = "text" }
read = "_owner = auth.uid()"
create = "_owner = auth.uid()"
update = "status <> 'locked'"
delete = "_owner = auth.uid()"
"#;

#[tokio::test]
async fn lb15_what_the_server_refused_is_counted_tried_again_and_cleared() {
    let bed = Bed::with(READ_ONLY);
    let path = bed.file("notes.db", NOTES);
    sql(
        &path,
        "INSERT INTO notes VALUES ('n1', 'Milk', 'locked'), ('n2', 'Tea', 'open')",
    );
    let sync = bed.open("notes.db", "ana").await;
    sync.sync(Tables::All, |_| {}).await.unwrap();
    sql(&path, "UPDATE notes SET title = 'Oat milk' WHERE id = 'n1'");
    let mut events = sync.events();
    let done = sync.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(done.errors.len(), 1, "{done:?}");
    let refused = wait_for(&mut events, |event| match event {
        Event::ChangeRefused(refused) => Some(refused.clone()),
        _ => None,
    })
    .await;
    assert_eq!(refused.row, "notes n1");
    assert_eq!(
        rows(&path, "SELECT title FROM notes WHERE id = 'n1'"),
        "Milk"
    );

    let queue = sync.queue();
    let stats = queue.stats().await.unwrap();
    assert_eq!(
        (stats.pending, stats.failed, stats.changesets_failed),
        (0, 1, 1)
    );
    assert_eq!(queue.changesets().await.unwrap()[0].id, refused.changeset);
    assert_eq!(queue.retry_all().await.unwrap(), 1);
    assert_eq!(queue.stats().await.unwrap().pending, 1);
    sync.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(queue.stats().await.unwrap().failed, 1);
    assert_eq!(queue.clear_failed().await.unwrap(), 1);
    assert_eq!(queue.stats().await.unwrap().failed, 0);
    let gone = queue.discard(refused.changeset).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn lb15_operations_of_the_apps_own_are_done_once_in_order_and_after_a_restart() {
    let bed = Bed::dev();
    let path = bed.file("notes.db", NOTES);
    let sync = SyncManager::open(&path, Config::new()).await.unwrap();
    let queue = sync.queue();
    let first = queue.enqueue("mail", Some("ana"), &"Hello").await.unwrap();
    let again = queue
        .enqueue("mail", Some("ana"), &"Hello again")
        .await
        .unwrap();
    assert_eq!(first, again);
    queue.enqueue("mail", Some("bob"), &"Hi").await.unwrap();
    queue.enqueue("fax", None, &1).await.unwrap();
    assert_eq!(queue.stats().await.unwrap().pending, 3);
    sync.close().await;

    let sync = SyncManager::open(&path, Config::new()).await.unwrap();
    let sent: Arc<Mutex<Vec<String>>> = Arc::default();
    let to = Arc::clone(&sent);
    let queue = sync.queue();
    queue
        .register("mail", move |operation| {
            let to = Arc::clone(&to);
            async move {
                to.lock().unwrap().push(operation.payload::<String>()?);
                Ok(())
            }
        })
        .await
        .unwrap();
    until("both were sent", || sent.lock().unwrap().len() == 2).await;
    assert_eq!(*sent.lock().unwrap(), ["Hello again", "Hi"]);
    let stats = loop {
        let stats = queue.stats().await.unwrap();
        if stats.completed == 2 {
            break stats;
        }
    };
    assert_eq!(stats.pending, 1, "nobody does a fax");
    assert_eq!(
        queue
            .clear_completed(Duration::from_secs(3_600))
            .await
            .unwrap(),
        0
    );
    assert_eq!(queue.clear_completed(Duration::ZERO).await.unwrap(), 2);
    let left = queue.operations().await.unwrap();
    assert_eq!((left.len(), left[0].kind.as_str()), (1, "fax"));
}

#[tokio::test]
async fn lb15_an_operation_that_fails_is_tried_again_later_and_then_given_up() {
    let bed = Bed::dev();
    let path = bed.file("notes.db", NOTES);
    let sync = SyncManager::open(&path, Config::new().max_retries(1))
        .await
        .unwrap();
    let (queue, mut events) = (sync.queue(), sync.events());
    let tries: Arc<Mutex<u32>> = Arc::default();
    let count = Arc::clone(&tries);
    queue
        .register("upload", move |_| {
            let count = Arc::clone(&count);
            async move {
                *count.lock().unwrap() += 1;
                Err(std::io::Error::other("no network"))?
            }
        })
        .await
        .unwrap();
    queue
        .register("print", async |_| {
            Err(OperationError::Fail("no printer".into()))
        })
        .await
        .unwrap();
    queue.enqueue("upload", None, &"a.jpg").await.unwrap();
    queue.enqueue("print", None, &"a.pdf").await.unwrap();
    let mut reasons = Vec::new();
    while reasons.len() < 2 {
        reasons.push(
            wait_for(&mut events, |event| match event {
                Event::OperationFailed(failed) => Some(failed.reason.clone()),
                _ => None,
            })
            .await,
        );
    }
    assert_eq!(reasons, ["no printer", "no network"]);
    assert_eq!(*tries.lock().unwrap(), 2);
    let failed = queue.operations().await.unwrap();
    assert!(
        failed
            .iter()
            .all(|operation| operation.state == OperationState::Failed)
    );
    assert_eq!(failed[0].error.as_deref(), Some("no network"));
    assert_eq!(queue.retry_all().await.unwrap(), 2);
    until("it is tried again", || *tries.lock().unwrap() > 2).await;
}

#[tokio::test]
async fn lb15_a_payload_that_is_too_long_is_refused() {
    let bed = Bed::dev();
    let path = bed.file("notes.db", NOTES);
    let sync = SyncManager::open(&path, Config::new()).await.unwrap();
    let long = "x".repeat(syncline::OPERATION_BYTES_MAX);
    let error = sync.queue().enqueue("mail", None, &long).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(sync.queue().stats().await.unwrap().pending, 0);
}

#[tokio::test]
async fn lb15_a_handler_that_panics_has_failed_and_the_others_go_on() {
    let bed = Bed::dev();
    let path = bed.file("notes.db", NOTES);
    let sync = SyncManager::open(&path, Config::new().max_retries(0))
        .await
        .unwrap();
    let (queue, mut events) = (sync.queue(), sync.events());
    queue
        .register("upload", async |_| panic!("a handler that cannot"))
        .await
        .unwrap();
    queue
        .register("mail", async |operation| {
            operation.payload::<String>().map(drop)
        })
        .await
        .unwrap();
    queue.enqueue("upload", None, &"a.jpg").await.unwrap();
    queue.enqueue("mail", None, &"Hello").await.unwrap();
    let failed = wait_for(&mut events, |event| match event {
        Event::OperationFailed(failed) => Some(failed.clone()),
        _ => None,
    })
    .await;
    assert_eq!(
        (failed.kind.as_str(), failed.reason.as_str()),
        ("upload", "the handler panicked")
    );
    let done = async { while queue.stats().await.unwrap().completed == 0 {} };
    tokio::time::timeout(PATIENCE, done).await.unwrap();
}
