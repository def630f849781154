//! Operations that an app queued with the library, seen from the command line.

use std::time::Duration;

use syncline::{Config, Event, OperationError, SyncManager};

use crate::support::{Scratch, exit};

#[tokio::test]
async fn lb15_operations_of_the_app_are_listed_retried_and_forgotten() {
    let scratch = Scratch::new();
    let file = scratch.database("app.db", "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL)");
    scratch
        .run(&["attach", "--yes", file.to_str().unwrap()])
        .expect(exit::DONE);
    let app = SyncManager::open(&file, Config::new().offline())
        .await
        .unwrap();
    let queue = app.queue();
    let mut events = app.events();
    queue
        .register("mail", async |_| {
            Err(OperationError::Fail("no such address".into()))
        })
        .await
        .unwrap();
    queue.register("upload", async |_| Ok(())).await.unwrap();
    queue.enqueue("mail", Some("ana"), &"hello").await.unwrap();
    while !matches!(events.next().await, Some(Event::OperationFailed(_))) {}
    queue.enqueue("upload", None, &1).await.unwrap();
    while queue.stats().await.unwrap().completed == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    queue.enqueue("print", None, &2).await.unwrap();
    app.close().await;

    let run = |args: &[&str]| {
        let file = file.to_str().unwrap();
        let all: Vec<_> = [&["queue", file], args].concat();
        scratch.run(&all).expect(exit::DONE)
    };
    let listed = run(&["list"]).all("operation");
    let of = |kind: &str| listed.iter().find(|one| one["kind"] == kind).unwrap();
    assert_eq!(of("mail")["state"], "failed");
    assert_eq!(of("mail")["error"], "no such address");
    assert_eq!(of("mail")["key"], "ana");
    assert_eq!(of("upload")["state"], "completed");
    assert_eq!(of("print")["state"], "pending");
    assert!(of("mail")["payload"].is_null(), "the app's own");

    assert_eq!(run(&["retry-all"]).one("retried_all")["items"], 1);
    let none = run(&["clear-completed", "--older-than", "1h"]);
    assert_eq!(none.one("cleared")["items"], 0);
    assert_eq!(run(&["clear-completed"]).one("cleared")["items"], 1);
    assert_eq!(run(&["clear-failed"]).one("cleared")["items"], 0);
    let stats = run(&["stats"]).one("queue");
    assert_eq!(
        (&stats["pending"], &stats["completed"]),
        (&2.into(), &0.into())
    );
}
