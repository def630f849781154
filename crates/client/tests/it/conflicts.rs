//! Conflicts: the inbox, resolvers of the app and ready-made ones.

use std::time::Duration;

use syncline::{
    ConflictCase, ErrorKind, Event, Interrupt, Resolution, Resolver, SyncManager, Tables, Value,
    decide, resolvers,
};

use crate::support::{Bed, PATIENCE, rows, sql, until, wait_for};

const TABLE: &str =
    "CREATE TABLE notes (id TEXT PRIMARY KEY, title TEXT, status TEXT, settings TEXT);";
const CONFIG: &str = r#"
[tables.notes]
columns = { id = "text primary key", title = "text", status = "text", settings = "text" }
read = "_owner = auth.uid()"
write = "_owner = auth.uid()"
merge = { status = "manual", settings = "manual" }
"#;

/// A laptop and a phone that changed the same column; the laptop comes second.
async fn disagreeing(
    bed: &Bed,
    column: &str,
    laptop: &str,
    phone: &str,
) -> (SyncManager, SyncManager) {
    bed.file("laptop.db", TABLE);
    sql(
        &bed.path("laptop.db"),
        "INSERT INTO notes VALUES ('n1', 'Milk', 'new', '{}')",
    );
    let first = bed.open("laptop.db", "ana").await;
    first.sync(Tables::All, |_| {}).await.unwrap();
    let second = bed.open("phone.db", "ana").await;
    second.hydrate(Tables::All, |_| {}).await.unwrap();
    sql(
        &bed.path("phone.db"),
        &format!("UPDATE notes SET {column} = '{phone}'"),
    );
    second.sync(Tables::All, |_| {}).await.unwrap();
    sql(
        &bed.path("laptop.db"),
        &format!("UPDATE notes SET {column} = '{laptop}'"),
    );
    (first, second)
}

#[tokio::test]
async fn lb16_a_conflict_waits_in_the_inbox_until_somebody_decides() {
    let bed = Bed::with(CONFIG);
    let (laptop, phone) = disagreeing(&bed, "status", "read", "archived").await;
    let mut events = laptop.events();
    let done = laptop.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(done.conflicts.len(), 1, "{done:?}");
    let notice = wait_for(&mut events, |event| match event {
        Event::ConflictDetected(conflict) => Some(conflict.clone()),
        _ => None,
    })
    .await;
    let conflict = laptop.conflict(&notice.id).await.unwrap();
    assert_eq!(conflict.table, "notes");
    assert_eq!(
        (conflict.mine.as_deref(), conflict.theirs.as_deref()),
        (Some("\"read\""), Some("\"archived\""))
    );
    assert_eq!(laptop.conflicts(true).await.unwrap().len(), 1);
    laptop.resolve(&notice.id, Resolution::Mine).await.unwrap();
    assert!(laptop.conflicts(true).await.unwrap().is_empty());
    laptop.sync(Tables::All, |_| {}).await.unwrap();
    phone.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(
        rows(&bed.path("phone.db"), "SELECT status FROM notes"),
        "read"
    );
    assert_eq!(laptop.stats().await.unwrap().conflicts_resolved, 1);
}

#[tokio::test]
async fn lb16_a_resolver_of_one_run_decides_before_the_run_ends() {
    let bed = Bed::with(CONFIG);
    let (laptop, phone) = disagreeing(&bed, "status", "read", "archived").await;
    let custom = async |case: ConflictCase| {
        assert_eq!(
            (case.table(), case.mine()),
            ("notes", Some(&Value::from("read")))
        );
        assert_eq!(case.remote_data["status"], Value::from("archived"));
        assert_eq!(case.local_data["title"], Value::from("Milk"));
        Some(Resolution::Mine)
    };
    laptop
        .sync(Tables::All, |_| {})
        .resolver(custom)
        .await
        .unwrap();
    assert_eq!(bed.at_server("SELECT status FROM notes"), "read");
    phone.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(
        rows(&bed.path("phone.db"), "SELECT status FROM notes"),
        "read"
    );
}

#[tokio::test]
async fn lb16_a_resolver_of_a_table_answers_what_is_open_and_what_comes() {
    let bed = Bed::with(CONFIG);
    let (laptop, phone) = disagreeing(
        &bed,
        "settings",
        r#"{"font":12,"dark":true}"#,
        r#"{"font":14,"wide":true}"#,
    )
    .await;
    laptop.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(laptop.conflicts(true).await.unwrap().len(), 1);
    // The laptop wrote later: its font, and what only one of them said.
    laptop
        .set_resolver("notes", resolvers::settings())
        .await
        .unwrap();
    let path = bed.path("laptop.db");
    let wanted = r#"{"dark":true,"font":12,"wide":true}"#;
    until("it is decided", || {
        rows(&path, "SELECT settings FROM notes") == wanted
    })
    .await;
    laptop.sync(Tables::All, |_| {}).await.unwrap();
    phone.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(
        rows(&bed.path("phone.db"), "SELECT settings FROM notes"),
        wanted
    );
}

/// What a resolver makes of two values of which the local one is older.
async fn decided(
    resolver: impl Resolver,
    local: Value,
    remote: Value,
    local_is_newer: bool,
) -> String {
    let time = |micros| Some(syncline::Timestamp(micros));
    let conflict = syncline::Conflict {
        id: "c".into(),
        table: "notes".into(),
        key: vec!["n1".into()],
        column: Some("x".into()),
        kind: syncline::ConflictKind::Manual,
        base: None,
        mine: None,
        theirs: None,
        other: None,
        opened_at: syncline::Timestamp(9),
        open: true,
    };
    let case = ConflictCase {
        conflict,
        local_data: [("x".to_owned(), local)].into(),
        remote_data: [("x".to_owned(), remote)].into(),
        local_timestamp: time(if local_is_newer { 3 } else { 1 }),
        remote_timestamp: time(2),
    };
    match resolver.resolve(case).await {
        Some(Resolution::Mine) => "mine".into(),
        Some(Resolution::Theirs) => "theirs".into(),
        Some(Resolution::Value(value)) => value.as_text().unwrap_or_default().to_owned(),
        None => "open".into(),
    }
}

#[tokio::test]
async fn lb16_the_ready_made_resolvers_decide_as_they_say() {
    let text = |text: &str| Value::from(text);
    assert_eq!(
        decided(resolvers::newest(), text("a"), text("b"), true).await,
        "mine"
    );
    assert_eq!(
        decided(resolvers::newest(), text("a"), text("b"), false).await,
        "theirs"
    );
    assert_eq!(
        decided(resolvers::local(), text("a"), text("b"), false).await,
        "mine"
    );
    assert_eq!(
        decided(resolvers::remote(), text("a"), text("b"), true).await,
        "theirs"
    );
    let notification = resolvers::notification;
    assert_eq!(
        decided(notification(), text("read"), text("unread"), false).await,
        "mine"
    );
    assert_eq!(
        decided(notification(), text("read"), text("archived"), true).await,
        "theirs"
    );
    assert_eq!(
        decided(notification(), Value::from(0), Value::from(1), true).await,
        "theirs"
    );
    assert_eq!(
        decided(notification(), text("read"), text("seen"), true).await,
        "mine"
    );
    let project = resolvers::project;
    assert_eq!(
        decided(project(), text("plan"), text(""), false).await,
        "mine"
    );
    assert_eq!(
        decided(project(), Value::Null, text("plan"), true).await,
        "theirs"
    );
    assert_eq!(
        decided(project(), text("a"), text("b"), false).await,
        "theirs"
    );
    let settings = resolvers::settings;
    let (a, b) = (text(r#"{"a":1,"x":1}"#), text(r#"{"b":2,"x":2}"#));
    assert_eq!(
        decided(settings(), a.clone(), b.clone(), true).await,
        r#"{"a":1,"b":2,"x":1}"#
    );
    assert_eq!(
        decided(settings(), a, b, false).await,
        r#"{"a":1,"b":2,"x":2}"#
    );
    assert_eq!(
        decided(settings(), text("a"), text("b"), true).await,
        "mine"
    );
    let none = decide(|_| None);
    assert_eq!(decided(none, text("a"), text("b"), true).await, "open");
}

#[tokio::test]
async fn lb16_a_resolver_that_panics_leaves_the_conflict_open_and_the_run_ends() {
    let bed = Bed::with(CONFIG);
    let (laptop, _phone) = disagreeing(&bed, "status", "read", "archived").await;
    laptop
        .set_resolver("notes", decide(|_| panic!("a resolver that cannot")))
        .await
        .unwrap();
    for _ in 0..2 {
        let run = laptop.sync(Tables::All, |_| {}).into_future();
        tokio::time::timeout(PATIENCE, run).await.unwrap().unwrap();
        assert_eq!(laptop.conflicts(true).await.unwrap().len(), 1);
    }
    laptop
        .set_resolver("notes", resolvers::local())
        .await
        .unwrap();
    laptop.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(bed.at_server("SELECT status FROM notes"), "read");
}

#[tokio::test]
async fn lb16_a_run_that_waits_for_a_resolver_can_be_interrupted() {
    let bed = Bed::with(CONFIG);
    let (laptop, _phone) = disagreeing(&bed, "status", "read", "archived").await;
    laptop
        .set_resolver("notes", async |_| std::future::pending().await)
        .await
        .unwrap();
    // The first one meets the conflict, the second one finds it being decided.
    for _ in 0..2 {
        let interrupt = Interrupt::default();
        let run = laptop.sync(Tables::All, |_| {}).interrupt(&interrupt);
        let ended = async {
            tokio::join!(run.into_future(), async {
                tokio::time::sleep(Duration::from_millis(500)).await;
                interrupt.trigger();
            })
        };
        let (ended, ()) = tokio::time::timeout(PATIENCE, ended).await.unwrap();
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Interrupted);
    }
    laptop.close().await;
}
