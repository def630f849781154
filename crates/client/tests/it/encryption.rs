//! Keys of encrypted columns, from an app's configuration.

use std::sync::{Arc, Mutex};

use syncline::{Config, EncryptionKey, ErrorKind, SyncManager, Tables, Value, blocking};

use crate::support::{Bed, rows, sql};

const CONFIG: &str = r#"
[tables.notes]
columns = { id = "text primary key", title = "text encrypted" }
read = "_owner = auth.uid()"
write = "_owner = auth.uid()"
"#;

/// The first of the keys seals.
fn config(bed: &Bed, keys: &[u8]) -> Config {
    let mut config = bed.config("ana");
    if let Some((current, older)) = keys.split_first() {
        config = config.encryption_key(EncryptionKey::new([*current; 32]));
        for key in older {
            config = config.older_encryption_key(EncryptionKey::new([*key; 32]));
        }
    }
    config
}

async fn open(bed: &Bed, file: &str, keys: &[u8]) -> SyncManager {
    let config = config(bed, keys);
    SyncManager::open(bed.path(file), config).await.unwrap()
}

#[tokio::test]
async fn lb26_keys_of_a_configuration_seal_and_open() {
    let bed = Bed::with(CONFIG);
    let notes = "CREATE TABLE notes (id TEXT PRIMARY KEY, title TEXT);
        INSERT INTO notes VALUES ('n1', 'Milk')";
    bed.file("laptop.db", notes);
    let laptop = open(&bed, "laptop.db", &[1]).await;
    // Kept before any server was met, when nobody knew that the column is encrypted.
    laptop.attach().await.unwrap();
    sql(
        &bed.path("laptop.db"),
        "INSERT INTO notes VALUES ('n2', 'Oat milk')",
    );
    laptop.sync(Tables::All, |_| {}).await.unwrap();
    let kinds = bed.at_server("SELECT group_concat(DISTINCT typeof(title)) FROM notes");
    assert_eq!(kinds, "blob");

    for (file, keys, code) in [
        ("none.db", &[][..], "encryption_key_missing"),
        ("other.db", &[2], "encryption_key_wrong"),
    ] {
        let manager = open(&bed, file, keys).await;
        let refused = manager.hydrate(Tables::All, |_| {}).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.to_string().contains("notes.title"), "{refused}");
        assert!(!refused.is_retryable());
    }

    let phone = open(&bed, "phone.db", &[2, 1]).await;
    phone.hydrate(Tables::All, |_| {}).await.unwrap();
    let all = "SELECT title FROM notes ORDER BY id";
    assert_eq!(rows(&bed.path("phone.db"), all), "Milk\nOat milk");
    let history = phone.history("notes", vec!["n1".into()]).await.unwrap();
    let title = history.changes[0]
        .columns
        .iter()
        .find(|c| c.column == "title");
    assert_eq!(title.unwrap().after, Some(Value::from("Milk")));
}

#[test]
fn en9_an_app_has_what_an_older_key_sealed_sealed_anew() {
    let bed = Bed::with(CONFIG);
    let path = bed.file(
        "laptop.db",
        "CREATE TABLE notes (id TEXT PRIMARY KEY, title TEXT);
         INSERT INTO notes VALUES ('n1', 'Milk'), ('n2', 'Oat milk'), ('n3', NULL)",
    );
    let before = blocking::SyncManager::open(&path, config(&bed, &[1])).unwrap();
    before.sync(Tables::All, |_| {}).unwrap();
    before.close();

    let sync = blocking::SyncManager::open(&path, config(&bed, &[2, 1])).unwrap();
    let too_early = sync.seal_anew(|_| {}).unwrap_err();
    assert!(too_early.to_string().contains("sync first"), "{too_early}");
    assert_eq!(too_early.kind(), ErrorKind::Invalid, "{too_early}");
    sync.sync(Tables::All, |_| {}).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    let done = sync.seal_anew(move |so_far| heard.lock().unwrap().push(so_far.rows));
    let done = done.unwrap();
    assert_eq!((done.rows, done.waiting, done.others), (2, 0, 0));
    assert_eq!(told.lock().unwrap().last(), Some(&2), "of its progress");
    sync.sync(Tables::All, |_| {}).unwrap();
    assert_eq!(sync.seal_anew(|_| {}).unwrap().rows, 0, "all is done");
    sync.close();

    // Whoever has the new key alone reads all of it.
    let phone = blocking::SyncManager::open(bed.path("phone.db"), config(&bed, &[2])).unwrap();
    phone.hydrate(Tables::All, |_| {}).unwrap();
    let titles = "SELECT title FROM notes WHERE title IS NOT NULL ORDER BY id";
    assert_eq!(rows(&bed.path("phone.db"), titles), "Milk\nOat milk");
}
