//! The page on columns that only some may see, with its configuration and its SQL.

use crate::support::{Device, Scratch, Server, exit};

const PAGE: &str = include_str!("../../../../docs/hidden-columns.md");
/// The couple's budget, as no byte of a supplier's files may have it.
const SECRET: &str = "123456";

fn block(of: &str) -> &'static str {
    let (_, block) = PAGE.split_once(&format!("```{of}\n")).expect("a block");
    block.split_once("```").expect("its end").0
}

/// Whether the number is anywhere in the file, as text or as SQLite stores it.
fn holds_secret(device: &Device<'_>) -> bool {
    let number = SECRET.parse::<u32>().expect("a number").to_be_bytes();
    ["", "-wal"].iter().any(|suffix| {
        let path = format!("{}{suffix}", device.file.display());
        let bytes = std::fs::read(path).unwrap_or_default();
        let text = SECRET.as_bytes();
        bytes.windows(6).any(|part| part == text)
            || bytes.windows(3).any(|part| part == &number[1..])
    })
}

#[test]
fn ru28_columns_arrive_and_leave_with_the_right_to_see_them() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", block("toml"));
    let tables = "
        CREATE TABLE weddings (id TEXT PRIMARY KEY NOT NULL, couple TEXT NOT NULL, venue TEXT);
        CREATE TABLE connections (id TEXT PRIMARY KEY NOT NULL, wedding_id TEXT NOT NULL REFERENCES weddings ON DELETE CASCADE, supplier TEXT NOT NULL, sees_budget BOOLEAN NOT NULL DEFAULT 0);
        CREATE TABLE budgets (id TEXT PRIMARY KEY NOT NULL REFERENCES weddings ON DELETE CASCADE, total INTEGER, spent INTEGER);
        INSERT INTO weddings VALUES ('w', 'jo', 'mill');
        INSERT INTO connections VALUES ('c', 'w', 'flora', 0);";
    let jo = Device::seeded(&scratch, &server, "jo.db", "jo", tables);
    jo.sql(block("sql"));
    let flora = Device::hydrated(&scratch, &server, "flora.db", "flora");
    flora.sql(block("sql"));
    let whole = "SELECT venue, coalesce(total, '-') FROM weddings_whole";

    // An edit of both parts: she gets hers of it, and not a byte of the other.
    jo.sql(&format!(
        "UPDATE weddings_whole SET venue = 'barn', total = {SECRET} WHERE id = 'w'"
    ));
    jo.sync();
    flora.sync();
    assert_eq!(jo.rows(whole), format!("barn|{SECRET}"));
    assert_eq!(flora.rows(whole), "barn|-");
    assert!(holds_secret(&jo), "what is looked for can be found");
    assert!(!holds_secret(&flora));

    // What she writes there without the right is refused, and says nothing of what is there.
    flora.sql("UPDATE weddings_whole SET total = 7 WHERE id = 'w'");
    flora.sync();
    let refused = flora
        .run("queue", &["list"])
        .expect(exit::DONE)
        .one("changeset");
    assert_eq!(refused["code"], "forbidden", "{refused}");
    assert!(!refused.to_string().contains(SECRET), "{refused}");
    jo.sync();
    assert_eq!(jo.rows(whole), format!("barn|{SECRET}"));

    // Shown to her, and then no more: also her disk has forgotten it.
    jo.sql("UPDATE connections SET sees_budget = 1");
    jo.sync();
    flora.sync();
    assert_eq!(flora.rows(whole), format!("barn|{SECRET}"));
    jo.sql("UPDATE connections SET sees_budget = 0");
    jo.sync();
    flora.sync();
    assert_eq!(flora.rows(whole), "barn|-");
    assert!(!holds_secret(&flora));
    flora.verify();
    jo.verify();
}
