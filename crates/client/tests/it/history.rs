//! The history of a row, and making it again what it was.

use syncline::{ErrorKind, RowChangeKind, RowRestored, SyncManager, Tables, Value, Version};

use crate::support::{Bed, NOTES, NOTES_CONFIG, rows, sql, until};

const ALL: &str = "SELECT id, title, status FROM notes ORDER BY id";

fn n1() -> Vec<Value> {
    vec!["n1".into()]
}

async fn sync(manager: &SyncManager) {
    manager.sync(Tables::All, |_| {}).await.unwrap();
}

/// A laptop whose note was edited on a phone.
async fn edited(bed: &Bed) -> (SyncManager, SyncManager) {
    bed.file("laptop.db", NOTES);
    let insert = "INSERT INTO notes VALUES ('n1', 'Milk', 'new'), ('n2', 'Bread', NULL)";
    sql(&bed.path("laptop.db"), insert);
    let laptop = bed.open("laptop.db", "ana").await;
    sync(&laptop).await;
    let phone = bed.open("phone.db", "ana").await;
    phone.hydrate(Tables::All, |_| {}).await.unwrap();
    let update = "UPDATE notes SET title = 'Oat milk', status = NULL WHERE id = 'n1'";
    sql(&bed.path("phone.db"), update);
    sync(&phone).await;
    sync(&laptop).await;
    (laptop, phone)
}

#[tokio::test]
async fn lb19_history_says_what_another_device_did_and_undoes_it() {
    let bed = Bed::with(NOTES_CONFIG);
    let (laptop, phone) = edited(&bed).await;
    let history = laptop.history("notes", n1()).await.unwrap();
    assert!(!history.more && history.known_since.is_some());
    let kinds: Vec<_> = history.changes.iter().map(|change| change.kind).collect();
    assert_eq!(kinds, [RowChangeKind::Updated, RowChangeKind::Inserted]);
    let [edited, made] = &history.changes[..] else {
        unreachable!()
    };
    assert_eq!(edited.user.as_deref(), Some("ana"));
    let device = async |manager: &SyncManager| manager.status().await.unwrap().unwrap().device;
    assert_eq!(edited.device, Some(device(&phone).await));
    assert_eq!(made.device, Some(device(&laptop).await));
    assert_eq!(edited.at.0 / 1_000, edited.version.0 / 1_000);
    let told = edited.columns.iter();
    let told = told.map(|c| (&*c.column, c.before.clone(), c.after.clone()));
    let expected = [
        ("title", Some("Milk".into()), Some("Oat milk".into())),
        ("status", Some("new".into()), Some(Value::Null)),
    ];
    assert_eq!(told.collect::<Vec<_>>(), expected);
    assert_eq!(made.columns.len(), 3);

    let first = laptop.history("notes", n1()).limit(1).await.unwrap();
    assert!(first.more);
    let page = laptop.history("notes", n1()).before(edited.version);
    assert_eq!(page.await.unwrap().changes, std::slice::from_ref(made));

    let done = laptop.restore_row("notes", n1(), made.version).await;
    assert_eq!(done.unwrap(), RowRestored::Updated);
    assert_eq!(
        rows(&bed.path("laptop.db"), ALL),
        "n1|Milk|new\nn2|Bread|NULL"
    );
    let again = laptop.restore_row("notes", n1(), made.version).await;
    assert_eq!(again.unwrap(), RowRestored::Unchanged);
    sync(&laptop).await;
    sync(&phone).await;
    assert_eq!(
        rows(&bed.path("phone.db"), ALL),
        "n1|Milk|new\nn2|Bread|NULL"
    );
    let history = phone.history("notes", n1()).await.unwrap();
    assert_eq!(
        history.changes.len(),
        3,
        "restoring is a change like any other"
    );
}

#[tokio::test]
async fn lb19_a_deleted_row_comes_back_also_while_the_server_is_away() {
    let mut bed = Bed::with(NOTES_CONFIG);
    let (laptop, phone) = edited(&bed).await;
    sql(&bed.path("phone.db"), "DELETE FROM notes WHERE id = 'n1'");
    sync(&phone).await;
    sync(&laptop).await;
    let history = laptop.history("notes", n1()).await.unwrap();
    let deleted = &history.changes[0];
    assert_eq!(deleted.kind, RowChangeKind::Deleted);
    let done = laptop.restore_row("notes", n1(), deleted.version).await;
    assert_eq!(done.unwrap(), RowRestored::Inserted);
    bed.stop();
    let offline = laptop.history("notes", n1()).await.unwrap_err();
    assert_eq!(offline.kind(), ErrorKind::NotConnected);
    let status = laptop.status().await.unwrap().unwrap();
    assert_eq!((status.waiting, status.parked), (1, 0));
    bed.restart();
    sync(&laptop).await;
    sync(&phone).await;
    let expected = "n1|Oat milk|NULL\nn2|Bread|NULL";
    assert_eq!(rows(&bed.path("phone.db"), ALL), expected);
}

#[tokio::test]
async fn lb19_what_cannot_be_restored_is_refused_and_changes_nothing() {
    let bed = Bed::with(NOTES_CONFIG);
    let (laptop, phone) = edited(&bed).await;
    let made = laptop.history("notes", n1()).await.unwrap().changes[1].version;
    let before = rows(&bed.path("laptop.db"), ALL);
    for (table, key, version, kind) in [
        ("notes", n1(), Version(made.0 + 1), ErrorKind::NotFound),
        ("notes", vec!["n9".into()], made, ErrorKind::NotFound),
        (
            "notes",
            vec!["n1".into(), "n2".into()],
            made,
            ErrorKind::Invalid,
        ),
        ("nothing", n1(), made, ErrorKind::Table),
    ] {
        let error = laptop
            .restore_row(table, key.clone(), version)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{table} {key:?} {version:?}: {error}");
    }
    assert_eq!(rows(&bed.path("laptop.db"), ALL), before);
    let error = laptop.history("notes", n1()).limit(0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);

    // The app of this device dropped the column.
    sql(
        &bed.path("phone.db"),
        "ALTER TABLE notes DROP COLUMN status",
    );
    sync(&phone).await;
    let error = phone.restore_row("notes", n1(), made).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Invalid, "bad_restore")
    );
    assert!(error.to_string().contains("column status"), "{error}");
    let title = rows(
        &bed.path("phone.db"),
        "SELECT title FROM notes WHERE id = 'n1'",
    );
    assert_eq!(title, "Oat milk");

    // A stranger is told nothing.
    bed.file("eve.db", NOTES);
    let eve = bed.open("eve.db", "eve").await;
    sync(&eve).await;
    assert!(eve.history("notes", n1()).await.unwrap().changes.is_empty());
    let error = eve.restore_row("notes", n1(), made).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn lb19_history_needs_no_async() {
    let bed = Bed::with(NOTES_CONFIG);
    bed.file("laptop.db", NOTES);
    sql(
        &bed.path("laptop.db"),
        "INSERT INTO notes VALUES ('n1', 'Milk', 'new')",
    );
    let path = bed.path("laptop.db");
    let sync = syncline::blocking::SyncManager::open(path, bed.config("ana")).unwrap();
    sync.sync(Tables::All, |_| {}).unwrap();
    let history = sync.history("notes", n1()).unwrap();
    let version = history.changes[0].version;
    let done = sync.restore_row("notes", n1(), version).unwrap();
    assert_eq!(done, RowRestored::Unchanged);
}

#[tokio::test]
async fn lb19_what_is_restored_is_sent_by_auto_sync() {
    let bed = Bed::with(NOTES_CONFIG);
    let (laptop, _) = edited(&bed).await;
    let made = laptop.history("notes", n1()).await.unwrap().changes[1].version;
    laptop.start_auto_sync();
    until("it connects", || laptop.is_connected()).await;
    let began = std::time::Instant::now();
    laptop.restore_row("notes", n1(), made).await.unwrap();
    let title = "SELECT title FROM notes WHERE id = 'n1'";
    until("the server has it", || bed.at_server(title) == "Milk").await;
    assert!(
        began.elapsed() < std::time::Duration::from_secs(20),
        "at once, not with the next round"
    );
}

#[tokio::test]
async fn lb19_a_deleted_row_comes_back_under_its_own_key() {
    let bed = Bed::dev();
    let file = bed.file(
        "laptop.db",
        "CREATE TABLE books(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL)",
    );
    sql(&file, "INSERT INTO books(name) VALUES ('one'), ('two')");
    let laptop = bed.open("laptop.db", "ana").await;
    sync(&laptop).await;
    let phone = bed.open("phone.db", "ana").await;
    phone.hydrate(Tables::All, |_| {}).await.unwrap();
    sql(&bed.path("phone.db"), "DELETE FROM books WHERE id = 1");
    sync(&phone).await;
    sync(&laptop).await;
    let key = || vec![Value::Integer(1)];
    let history = laptop.history("books", key()).await.unwrap();
    let deleted = history.changes[0].version;
    let done = laptop.restore_row("books", key(), deleted).await;
    assert_eq!(done.unwrap(), RowRestored::Inserted);
    sync(&laptop).await;
    sync(&phone).await;
    let all = "SELECT id, name FROM books ORDER BY id";
    assert_eq!(rows(&bed.path("phone.db"), all), "1|one\n2|two");
    assert_eq!(rows(&file, all), "1|one\n2|two");
}
