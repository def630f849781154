//! What a server's limits do to a device: it slows down, and loses nothing (docs/limits.md).

use std::{
    io::{Read, Write},
    net::TcpListener,
    time::Duration,
};

use syncline::{Config, Event, QueueState, SyncManager, Tables};

use crate::support::{Bed, NOTES, NOTES_CONFIG, open, rows, wait_for};

/// With 60 messages a second 640 may come at once, and the server says something from 320 on.
const SLOW: &str = "messages_per_second = 60\nuser_requests_per_second = 1";

const SMALL: &str = "changeset_rows = 3";

/// A server of notes with these limits.
fn bed_with(limits: &str) -> Bed {
    Bed::with(&format!("[limits]\n{limits}\n{NOTES_CONFIG}"))
}

/// Commits each of these as a transaction of its own.
fn transactions(path: &std::path::Path, all: impl IntoIterator<Item = String>) {
    let conn = open(path);
    conn.execute_batch("PRAGMA synchronous = OFF").unwrap();
    for statements in all {
        let marked = format!("BEGIN; {statements}; UPDATE syncline_tx SET n = n + 1; COMMIT");
        conn.execute_batch(&marked).unwrap();
    }
}

#[tokio::test]
async fn li4_a_device_that_sends_more_than_it_may_slows_down_and_everything_arrives_once() {
    let bed = bed_with(SLOW);
    let path = bed.file("notes.db", NOTES);
    let sync = bed.open("notes.db", "ana").await;
    sync.sync(Tables::All, |_| {}).await.unwrap();
    let row = |n| format!("INSERT INTO notes VALUES ('n{n}', 'note {n}', NULL)");
    transactions(&path, (0..700).map(row));
    let mut events = sync.events();
    let done = sync.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!((done.sent.created, done.errors.len()), (700, 0));
    let all = "SELECT count(*), count(DISTINCT id) FROM notes";
    assert_eq!(bed.at_server(all), "700|700");
    let pushed = "SELECT count(*), count(DISTINCT changeset) FROM syncline_log";
    assert_eq!(bed.at_server(pushed), "700|700", "each of them once");
    // It was told and kept to it: nobody had to cut the connection.
    sync.sync(Tables::All, |_| {}).await.unwrap();
    let mut completed = 0;
    wait_for(&mut events, |event| {
        assert_ne!(event.name(), "disconnected", "{event:?}");
        completed += u32::from(event.name() == "sync_completed");
        (completed == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn li3_requests_of_the_library_wait_as_the_server_says() {
    let bed = bed_with(SLOW);
    bed.file("notes.db", NOTES);
    let sync = bed.open("notes.db", "ana").await;
    sync.sync(Tables::All, |_| {}).await.unwrap();
    // Ten may be made at once.
    for _ in 0..13 {
        assert_eq!(sync.devices().await.unwrap().len(), 1);
    }
}

/// Answers every request with this, as a proxy does whose server is away.
fn answering(head: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let _read = socket.read(&mut [0; 4_096]);
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            let _written = socket.write_all(answer.as_bytes());
        }
    });
    url
}

#[tokio::test]
async fn se22_no_connection_is_made_before_who_answers_allows_it() {
    let json = r#"{"code":"too_fast","message":"slow","retry":true,"retry_after_ms":8500}"#;
    let late = "Fri, 31 Dec 9999 23:59:59 GMT";
    let dated = Box::leak(format!("503 Busy\r\nretry-after: {late}").into_boxed_str());
    for (head, body, least, most) in [
        ("503 Busy\r\nretry-after: 7", "away", 7_000, 7_250),
        ("429 Slow\r\nretry-after: 9", json, 8_500, 8_750),
        // Nobody is kept away for longer than an hour.
        (&*dated, "away", 3_600_000, 3_600_250),
    ] {
        let bed = bed_with(SLOW);
        let path = bed.file("notes.db", NOTES);
        let first = bed.open("notes.db", "ana").await;
        first.sync(Tables::All, |_| {}).await.unwrap();
        first.close().await;
        let url = answering(head, body);
        let config = Config::new().server(&url, &bed.token("ana")).unwrap();
        let sync = SyncManager::open(&path, config).await.unwrap();
        let mut events = sync.events();
        sync.start_auto_sync();
        let pause = wait_for(&mut events, |event| match event {
            Event::Disconnected { retry_after, .. } => Some(*retry_after),
            _ => None,
        })
        .await;
        // Some of it has passed when it is told; without being told it were a quarter of a second.
        let least = Duration::from_millis(least / 2);
        assert!(pause >= least, "{head}: {pause:?}");
        assert!(pause <= Duration::from_millis(most), "{head}: {pause:?}");
    }
}

#[tokio::test]
async fn li5_what_is_too_large_is_parked_with_a_sentence_and_the_rest_goes_on() {
    let bed = bed_with(SMALL);
    let path = bed.file("notes.db", NOTES);
    let sync = bed.open("notes.db", "ana").await;
    sync.sync(Tables::All, |_| {}).await.unwrap();
    let many = (1..=5).map(|n| format!("('many{n}', 'x', NULL)"));
    let many = many.collect::<Vec<_>>().join(", ");
    transactions(
        &path,
        [
            format!("INSERT INTO notes VALUES {many}"),
            "UPDATE notes SET title = 'on top' WHERE id = 'many1'".to_owned(),
            "INSERT INTO notes VALUES ('n1', 'apart', NULL)".to_owned(),
        ],
    );
    let done = sync.sync(Tables::All, |_| {}).await.unwrap();
    let said = done.errors.first().expect("it is told").to_string();
    assert!(
        said.contains("it changes 5 rows in one transaction; this server takes 3"),
        "{said}"
    );
    let parked = sync.queue().changesets().await.unwrap();
    assert_eq!(
        parked.len(),
        2,
        "and what was written on top of it: {parked:?}"
    );
    assert_eq!(bed.at_server("SELECT title FROM notes"), "apart");
    assert_eq!(
        rows(&path, "SELECT title FROM notes"),
        "apart",
        "as at the server"
    );
}

const FULL: &str = "user_rows = 2";

#[tokio::test]
async fn li6_what_is_over_the_quota_waits_parked_and_goes_when_there_is_room() {
    let mut bed = bed_with(FULL);
    let path = bed.file("notes.db", NOTES);
    let sync = bed.open("notes.db", "ana").await;
    sync.sync(Tables::All, |_| {}).await.unwrap();
    let row = |n| format!("INSERT INTO notes VALUES ('n{n}', 'note {n}', NULL)");
    transactions(&path, (1..=3).map(row));
    let done = sync.sync(Tables::All, |_| {}).await.unwrap();
    let said = done.errors.first().expect("it is told").to_string();
    assert!(
        said.contains("you would own 3 rows; this server keeps 2 for a person"),
        "{said}"
    );
    let parked = sync.queue().changesets().await.unwrap();
    assert_eq!(parked.len(), 1, "{parked:?}");
    assert!(
        matches!(&parked[0].state, QueueState::Parked { code, .. } if code == "over_quota"),
        "{parked:?}"
    );
    let at_server = "SELECT group_concat(id, ' ') FROM (SELECT id FROM notes ORDER BY id)";
    assert_eq!(bed.at_server(at_server), "n1 n2");

    // Still full after a restart, whoever asks.
    bed.stop();
    bed.restart();
    assert_eq!(sync.queue().retry_all().await.unwrap(), 1);
    sync.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(bed.at_server(at_server), "n1 n2");

    transactions(&path, ["DELETE FROM notes WHERE id = 'n1'".to_owned()]);
    sync.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(sync.queue().retry_all().await.unwrap(), 1);
    let done = sync.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(done.errors.len(), 0, "{:?}", done.errors);
    assert_eq!(bed.at_server(at_server), "n2 n3");
    assert_eq!(rows(&path, at_server), "n2 n3");
    assert_eq!(sync.queue().changesets().await.unwrap().len(), 0);
}

#[tokio::test]
async fn li7_a_device_is_told_when_there_is_more_than_it_may_load_and_sends_all_the_same() {
    let bed = bed_with("device_rows = 3");
    let path = bed.file("notes.db", NOTES);
    let sync = bed.open("notes.db", "ana").await;
    sync.sync(Tables::All, |_| {}).await.unwrap();
    let row = |n| format!("INSERT INTO notes VALUES ('n{n}', 'note {n}', NULL)");
    transactions(&path, (1..=4).map(row));
    sync.sync(Tables::All, |_| {}).await.unwrap();

    let phone = bed.file("phone.db", NOTES);
    let other = bed.open("phone.db", "ana").await;
    let mut events = other.events();
    other.sync(Tables::All, |_| {}).await.unwrap_err();
    transactions(&phone, [row(5)]);
    let refused = other.sync(Tables::All, |_| {}).await.unwrap_err();
    assert_eq!(refused.code(), "too_many_rows");
    assert!(refused.to_string().contains("`device_rows`"), "{refused}");
    let told = wait_for(&mut events, |event| match event {
        Event::LoadingRefused { code, .. } => Some(code.clone()),
        _ => None,
    })
    .await;
    assert_eq!(told, "too_many_rows");
    assert_eq!(
        bed.at_server("SELECT count(*) FROM notes"),
        "5",
        "it was sent"
    );
    assert_eq!(
        rows(&phone, "SELECT count(*) FROM notes WHERE id < 'n5'"),
        "0"
    );

    transactions(
        &path,
        ["DELETE FROM notes WHERE id IN ('n1', 'n2')".to_owned()],
    );
    sync.sync(Tables::All, |_| {}).await.unwrap();
    other.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(rows(&phone, "SELECT count(*) FROM notes"), "3");
}
