//! Apps that are used before any server was met.

use syncline::{ErrorKind, Tables};

use crate::support::{Bed, rows, sql};

const BOOKS: &str = "
    CREATE TABLE books(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL);
    CREATE TABLE pages(
      id INTEGER PRIMARY KEY AUTOINCREMENT, book INTEGER NOT NULL REFERENCES books(id), body TEXT);
    CREATE TABLE settings(name TEXT PRIMARY KEY NOT NULL, value TEXT);";

#[tokio::test]
async fn lb25_rows_made_offline_under_the_same_integer_keys_are_all_kept() {
    let bed = Bed::dev();
    let mut devices = Vec::new();
    for name in ["laptop", "phone"] {
        let file = bed.file(&format!("{name}.db"), BOOKS);
        let sync = bed.open(&format!("{name}.db"), "ana").await;
        assert!(sync.attach().await.unwrap());
        assert!(!sync.attach().await.unwrap());
        sql(
            &file,
            &format!(
                "INSERT INTO books(name) VALUES ('of the {name}'); INSERT INTO pages(book, body) VALUES (1, '{name}');
                 INSERT INTO settings VALUES ('theme', '{name}')"
            ),
        );
        devices.push((file, sync));
    }
    for _ in 0..2 {
        for (_, sync) in &devices {
            sync.sync(Tables::All, |_| {}).await.unwrap();
        }
    }
    let together = "SELECT name, body FROM pages JOIN books ON books.id = book ORDER BY name";
    for (file, sync) in &devices {
        assert_eq!(
            rows(file, together),
            "of the laptop|laptop\nof the phone|phone"
        );
        assert_eq!(rows(file, "SELECT * FROM settings"), "theme|phone");
        assert_eq!(sync.queue().stats().await.unwrap().failed, 0);
    }
    let all = "SELECT * FROM books ORDER BY id";
    assert_eq!(rows(&devices[0].0, all), rows(&devices[1].0, all));
}

#[tokio::test]
async fn lb25_rows_from_before_are_in_doubt_as_ever() {
    let bed = Bed::dev();
    let insert = |name: &str| format!("INSERT INTO books(name) VALUES ('of the {name}')");
    let laptop_file = bed.file("laptop.db", BOOKS);
    sql(&laptop_file, &insert("laptop"));
    let laptop = bed.open("laptop.db", "ana").await;
    laptop.sync(Tables::All, |_| {}).await.unwrap();

    let phone_file = bed.file("phone.db", BOOKS);
    sql(&phone_file, &insert("phone"));
    let phone = bed.open("phone.db", "ana").await;
    phone.attach().await.unwrap();
    sql(&phone_file, "INSERT INTO books(name) VALUES ('later')");
    let error = phone.sync(Tables::All, |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Doubt);
    assert!(error.to_string().contains("1 row"), "{error}");
    assert_eq!(
        rows(&phone_file, "SELECT name FROM books ORDER BY id"),
        "of the phone\nlater"
    );
    assert_eq!(
        rows(&laptop_file, "SELECT name FROM books"),
        "of the laptop"
    );
}

#[tokio::test]
async fn lb25_a_row_from_before_is_in_doubt_also_once_it_was_edited() {
    let bed = Bed::dev();
    let insert = |name: &str| format!("INSERT INTO settings VALUES ('theme', '{name}')");
    let laptop_file = bed.file("laptop.db", BOOKS);
    sql(&laptop_file, &insert("laptop"));
    let laptop = bed.open("laptop.db", "ana").await;
    laptop.sync(Tables::All, |_| {}).await.unwrap();

    let phone_file = bed.file("phone.db", BOOKS);
    sql(&phone_file, &insert("phone"));
    let phone = bed.open("phone.db", "ana").await;
    phone.attach().await.unwrap();
    sql(&phone_file, "UPDATE settings SET value = 'edited'");
    let error = phone.sync(Tables::All, |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Doubt);
    laptop.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(rows(&laptop_file, "SELECT * FROM settings"), "theme|laptop");
}
