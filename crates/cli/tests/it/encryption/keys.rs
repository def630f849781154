//! Keys that are missing, wrong, or changed (docs/spec/encryption.md, EN5–EN9).

use super::{ALL, CONFIG, PEOPLE, WithKey, assert_verified, hydrated, key, seeded, sync_all};
use crate::support::{Device, Scratch, Server, exit, rows};

#[test]
fn en5_without_the_key_nothing_is_applied_or_sent() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let id = key(&scratch, "key");
    let laptop = seeded(&scratch, &server, "laptop.db", "key");

    let phone = Device::new(&scratch, &server, "phone.db", "ana");
    let refused = phone.with("hydrate", &[]).expect(exit::ENCRYPTION_KEY);
    refused.says(&["people.notes", "--encryption-key-file"]);
    assert_eq!(phone.rows("SELECT count(*) FROM people"), "0");
    phone.with("hydrate", &["key"]).expect(exit::DONE);
    assert_eq!(phone.rows(ALL), laptop.rows(ALL));

    // A device that had it and is run without: the edit waits.
    laptop.sql("UPDATE people SET notes = 'meanwhile' WHERE id = 'p1'");
    let refused = laptop.with("sync", &[]).expect(exit::ENCRYPTION_KEY);
    refused.says(&["people.notes", &id]);
    assert_eq!(laptop.status()["waiting"], 1);
    sync_all(&[&laptop, &phone], "key");
    assert_eq!(
        phone.rows("SELECT notes FROM people WHERE id = 'p1'"),
        "meanwhile"
    );
}

#[test]
fn en5_a_wrong_key_is_told_before_anything_is_applied_or_sent() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let (right, wrong) = (key(&scratch, "key"), key(&scratch, "wrong"));
    let laptop = seeded(&scratch, &server, "laptop.db", "key");

    let phone = Device::new(&scratch, &server, "phone.db", "ana");
    let refused = phone
        .with("hydrate", &["wrong"])
        .expect(exit::ENCRYPTION_KEY);
    refused.says(&["people.", &right, &wrong, "nothing was applied"]);
    assert_eq!(phone.rows("SELECT count(*) FROM people"), "0");
    // Nor does it send what is written meanwhile.
    phone.sql("INSERT INTO people(id, notes) VALUES ('p9', 'from the phone')");
    phone.with("sync", &["wrong"]).expect(exit::ENCRYPTION_KEY);
    assert_eq!(rows(&server.database(), "SELECT count(*) FROM people"), "3");

    phone.with("sync", &["key"]).expect(exit::DONE);
    laptop
        .with("sync", &["wrong"])
        .expect(exit::ENCRYPTION_KEY)
        .says(&[&right, &wrong]);
    laptop.with("sync", &["key"]).expect(exit::DONE);
    assert_eq!(phone.rows(ALL), laptop.rows(ALL));
    assert_eq!(
        laptop.rows("SELECT notes FROM people WHERE id = 'p9'"),
        "from the phone"
    );
}

/// Who may see and change rows of others, too.
const OPEN: &str = r#"
[tables.people]
columns = { id = "text primary key", notes = "text encrypted" }
read  = "true"
write = "true"
"#;

#[test]
fn en5_what_somebody_else_wrote_into_a_row_of_mine_says_nothing_of_my_key() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", OPEN);
    key(&scratch, "key");
    key(&scratch, "theirs");
    let laptop = Device::new(&scratch, &server, "laptop.db", "ana");
    laptop.with("hydrate", &["key"]).expect(exit::DONE);
    laptop.sql("INSERT INTO people VALUES ('p1', 'mine')");
    laptop.with("sync", &["key"]).expect(exit::DONE);
    let bob = Device::new(&scratch, &server, "bob.db", "bob");
    bob.with("hydrate", &["theirs"]).expect(exit::DONE);
    bob.sql("UPDATE people SET notes = 'taken' WHERE id = 'p1'");
    bob.with("sync", &["theirs"]).expect(exit::DONE);

    let phone = Device::new(&scratch, &server, "phone.db", "ana");
    phone.with("hydrate", &["key"]).expect(exit::DONE);
    phone.sql("INSERT INTO people VALUES ('p2', 'from the phone')");
    phone.with("sync", &["key"]).expect(exit::DONE);
    laptop.with("sync", &["key"]).expect(exit::DONE);
    assert_eq!(
        laptop.rows("SELECT notes FROM people WHERE id = 'p2'"),
        "from the phone"
    );
}

#[test]
fn en5_an_edit_of_mine_over_what_somebody_else_sealed_says_nothing_of_my_key() {
    let scratch = Scratch::new();
    let named = OPEN.replace("key\", notes", "key\", name = \"text\", notes");
    let server = Server::with_config(&scratch, "data", &named);
    key(&scratch, "key");
    key(&scratch, "theirs");
    let laptop = Device::new(&scratch, &server, "laptop.db", "ana");
    laptop.with("hydrate", &["key"]).expect(exit::DONE);
    laptop.sql("INSERT INTO people VALUES ('p1', 'one', 'mine')");
    laptop.with("sync", &["key"]).expect(exit::DONE);
    let bob = Device::new(&scratch, &server, "bob.db", "bob");
    bob.with("hydrate", &["theirs"]).expect(exit::DONE);
    bob.sql("UPDATE people SET notes = 'taken' WHERE id = 'p1'");
    bob.with("sync", &["theirs"]).expect(exit::DONE);
    laptop.with("sync", &["key"]).expect(exit::DONE);
    laptop.sql("UPDATE people SET name = 'two' WHERE id = 'p1'");
    laptop.with("sync", &["key"]).expect(exit::DONE);

    // She wrote to the row last, and not that cell.
    let phone = Device::new(&scratch, &server, "phone.db", "ana");
    let told = phone.with("hydrate", &["key"]).expect(exit::DONE);
    assert_eq!(told.one("cells_unreadable")["column"], "notes");
    phone.sql("INSERT INTO people VALUES ('p2', 'three', 'from the phone')");
    phone.with("sync", &["key"]).expect(exit::DONE);
    laptop.with("sync", &["key"]).expect(exit::DONE);
    assert_eq!(
        laptop.rows("SELECT notes FROM people WHERE id = 'p2'"),
        "from the phone"
    );

    // What she inserted, and nobody changed, says it: another key is a wrong one.
    key(&scratch, "wrong");
    let tablet = Device::new(&scratch, &server, "tablet.db", "ana");
    tablet
        .with("hydrate", &["wrong"])
        .expect(exit::ENCRYPTION_KEY)
        .says(&["people.notes", "nothing was applied"]);
}

#[test]
fn en5_a_key_that_opened_nothing_does_not_keep_the_right_one_out() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", OPEN);
    key(&scratch, "key");
    key(&scratch, "wrong");
    let ana = Device::new(&scratch, &server, "ana.db", "ana");
    ana.with("hydrate", &["key"]).expect(exit::DONE);
    ana.sql("INSERT INTO people VALUES ('p1', 'shared')");
    ana.with("sync", &["key"]).expect(exit::DONE);

    let bob = Device::new(&scratch, &server, "bob.db", "bob");
    for _ in 0..2 {
        let command = if bob.file.exists() { "sync" } else { "hydrate" };
        bob.with(command, &["wrong"]).expect(exit::DONE);
    }
    assert_eq!(bob.rows("SELECT notes IS NULL FROM people"), "1");
    bob.with("sync", &["key"]).expect(exit::DONE);
    assert_eq!(bob.rows("SELECT notes FROM people"), "shared");
    // From then on it is the right one.
    bob.with("sync", &["wrong"]).expect(exit::ENCRYPTION_KEY);
}

#[test]
fn en7_a_new_key_seals_and_the_old_one_opens() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    key(&scratch, "old");
    key(&scratch, "new");
    let laptop = seeded(&scratch, &server, "laptop.db", "old");
    let phone = hydrated(&scratch, &server, "phone.db", "old");

    laptop.with("sync", &["new", "old"]).expect(exit::DONE);
    laptop.sql("UPDATE people SET notes = 'under the new key' WHERE id = 'p1'");
    laptop.with("sync", &["new", "old"]).expect(exit::DONE);
    assert_verified(&laptop, &["new", "old"]);

    // The phone does not have the new key yet: that value is NULL there, and stays what it is.
    let told = phone.with("sync", &["old"]).expect(exit::DONE);
    assert_eq!(told.one("cells_unreadable")["column"], "notes");
    assert_eq!(
        phone.rows("SELECT notes, height FROM people WHERE id = 'p1'"),
        "NULL|1.5"
    );
    phone.sql("UPDATE people SET name = 'renamed' WHERE id = 'p1'");
    phone.with("sync", &["old"]).expect(exit::DONE);
    assert_verified(&phone, &["old"]);
    laptop.with("sync", &["new", "old"]).expect(exit::DONE);
    let row = laptop.rows("SELECT name, notes FROM people WHERE id = 'p1'");
    assert_eq!(row, "renamed|under the new key");

    // With it, what could not be read is there.
    phone.with("sync", &["new", "old"]).expect(exit::DONE);
    assert_eq!(phone.rows(ALL), laptop.rows(ALL));
    for device in [&laptop, &phone] {
        assert_verified(device, &["new", "old"]);
    }
}

#[test]
fn en9_what_old_keys_sealed_is_sealed_anew_and_the_old_key_is_needed_no_more() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    key(&scratch, "old");
    key(&scratch, "new");
    let laptop = seeded(&scratch, &server, "laptop.db", "old");
    let phone = hydrated(&scratch, &server, "phone.db", "old");
    let both = ["new", "old"];
    // What is here was made with the old key alone: that is asked first.
    laptop
        .with("reseal", &["new"])
        .expect(exit::USAGE)
        .says(&["--encryption-key-file NEW --encryption-key-file OLD"]);
    laptop
        .with("reseal", &both)
        .expect(exit::USAGE)
        .says(&["sync first"]);
    laptop.with("sync", &both).expect(exit::DONE);
    laptop.sql("UPDATE people SET notes = 'with the new key' WHERE id = 'p1'");
    // Accepted, and the laptop has not heard of it.
    phone.with("sync", &both).expect(exit::DONE);
    phone.sql("UPDATE people SET notes = 'from the phone' WHERE id = 'p2'");
    phone.with("sync", &both).expect(exit::DONE);

    let told = laptop.with("reseal", &both).expect(exit::DONE);
    let told = told.one("sealed_anew");
    let waiting = told["waiting"].as_u64().expect("a number");
    let rows = told["rows"].as_u64().expect("a number");
    assert_eq!((waiting, rows), (1, 2), "{told}");
    // Done twice before it is sent, it does nothing more.
    let again = laptop
        .with("reseal", &both)
        .expect(exit::DONE)
        .one("sealed_anew");
    assert_eq!((&again["waiting"], &again["rows"]), (&3.into(), &0.into()));
    let synced = laptop.with("sync", &both).expect(exit::DONE);
    let refused = synced.one("change_refused");
    assert_eq!(refused["code"], "changed");
    let notes = "SELECT notes FROM people WHERE id = 'p2'";
    assert_eq!(laptop.rows(notes), phone.rows(notes));
    // What else an old key sealed in that row is its turn once the refused changeset is away.
    let told = laptop.with("reseal", &both).expect(exit::DONE);
    assert_eq!(told.one("sealed_anew")["waiting"], 1);
    let id = refused["parked"][0].as_str().expect("an id");
    laptop.run("queue", &["discard", id]).expect(exit::DONE);
    laptop.with("reseal", &both).expect(exit::DONE);
    laptop.with("sync", &both).expect(exit::DONE);
    let nothing = laptop
        .with("reseal", &both)
        .expect(exit::DONE)
        .one("sealed_anew");
    assert_eq!(
        (&nothing["waiting"], &nothing["rows"]),
        (&0.into(), &0.into())
    );
    assert_verified(&laptop, &both);

    // Who never had the old key reads everything.
    let tablet = hydrated(&scratch, &server, "tablet.db", "new");
    assert_eq!(tablet.rows(ALL), laptop.rows(ALL));
    assert_verified(&tablet, &["new"]);
    phone.with("sync", &both).expect(exit::DONE);
    assert_eq!(phone.rows(ALL), laptop.rows(ALL));
}

#[test]
fn en7_a_file_is_attached_after_a_change_of_keys() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    key(&scratch, "old");
    key(&scratch, "new");
    let laptop = seeded(&scratch, &server, "laptop.db", "old");
    let edit = "UPDATE people SET notes = 'under the new key' WHERE id = 'p1'";
    laptop.sql(edit);
    laptop.with("sync", &["new", "old"]).expect(exit::DONE);

    let copy = Device::new(&scratch, &server, "copy.db", "ana");
    scratch.database("copy.db", PEOPLE);
    copy.sql(edit);
    copy.sql("UPDATE people SET salary = 1 WHERE id = 'p3'");
    let refused = copy.with("attach", &["new", "old"]);
    assert_eq!(refused.code, exit::DOUBT, "one is different indeed");
    copy.sql("UPDATE people SET salary = 0 WHERE id = 'p3'");
    let attached = copy.with("attach", &["new", "old"]).expect(exit::DONE);
    assert_eq!(attached.one("attached")["equal"], 3);
    copy.with("sync", &["new", "old"]).expect(exit::DONE);
    assert_eq!(copy.rows(ALL), laptop.rows(ALL));
    assert_verified(&copy, &["new", "old"]);
}

#[test]
fn en6_a_row_that_a_stranger_sealed_stops_no_new_device() {
    let scratch = Scratch::new();
    let shared = CONFIG.replace(
        "_owner = auth.uid()",
        "_owner = auth.uid() OR name = 'for all'",
    );
    let server = Server::with_config(&scratch, "data", &shared);
    key(&scratch, "stranger");
    key(&scratch, "mine");
    let stranger = Device::new(&scratch, &server, "stranger.db", "eve");
    scratch.database(
        "stranger.db",
        "CREATE TABLE people (id TEXT PRIMARY KEY, name TEXT, notes TEXT, salary INTEGER, photo BLOB,
                              height REAL, extra);
         INSERT INTO people(id, name, notes) VALUES ('e1', 'for all', 'from Eve')",
    );
    stranger.with("attach", &["stranger"]).expect(exit::DONE);
    stranger.with("sync", &["stranger"]).expect(exit::DONE);

    let phone = Device::new(&scratch, &server, "phone.db", "ana");
    let told = phone.with("hydrate", &["mine"]).expect(exit::DONE);
    assert_eq!(told.one("cells_unreadable")["column"], "notes");
    assert_eq!(phone.rows("SELECT name, notes FROM people"), "for all|NULL");
    phone.sql("INSERT INTO people(id, notes) VALUES ('a1', 'from Ana')");
    phone.with("sync", &["mine"]).expect(exit::DONE);
    assert_verified(&phone, &["mine"]);
    let other = hydrated(&scratch, &server, "other.db", "mine");
    assert_eq!(
        other.rows("SELECT notes FROM people WHERE id = 'a1'"),
        "from Ana"
    );
    // Should Eve give her the key, it is readable.
    phone.with("sync", &["mine", "stranger"]).expect(exit::DONE);
    assert_eq!(
        phone.rows("SELECT notes FROM people WHERE id = 'e1'"),
        "from Eve"
    );
    assert_verified(&phone, &["mine", "stranger"]);
}

#[test]
fn en8_a_key_file_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    key(&scratch, "key");
    let mode = |mode| {
        let path = scratch.path("key");
        let open = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, open).expect("a file of one's own");
    };
    let made = std::fs::metadata(scratch.path("key")).expect("the file");
    assert_eq!(made.permissions().mode() & 0o777, 0o600);
    let phone = Device::new(&scratch, &server, "phone.db", "ana");
    mode(0o644);
    let refused = phone.with("hydrate", &["key"]).expect(exit::USAGE);
    refused.says(&["chmod 600"]);
    mode(0o600);
    phone.with("hydrate", &["key"]).expect(exit::DONE);
    // A key is never written over.
    scratch.run(&["encryption-key", "key"]).expect(exit::USAGE);
}
