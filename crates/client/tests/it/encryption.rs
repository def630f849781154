//! Keys of encrypted columns, from an app's configuration.

use syncline::{EncryptionKey, SyncManager, Tables, Value};

use crate::support::{Bed, rows, sql};

const CONFIG: &str = r#"
[tables.notes]
columns = { id = "text primary key", title = "text encrypted" }
read = "_owner = auth.uid()"
write = "_owner = auth.uid()"
"#;

async fn open(bed: &Bed, file: &str, keys: &[u8]) -> SyncManager {
    let mut config = bed.config("ana");
    if let Some((current, older)) = keys.split_first() {
        config = config.encryption_key(EncryptionKey::new([*current; 32]));
        for key in older {
            config = config.older_encryption_key(EncryptionKey::new([*key; 32]));
        }
    }
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
