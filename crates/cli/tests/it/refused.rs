//! A change that the server refuses: rolled back exactly, told, parked, and in nobody's way.

use crate::support::{Device, Scratch, Server, exit, rows, wait_until};

const CONFIG: &str = r#"
[tables.tasks]
columns = { id = "text primary key", title = "text not null", code = "text unique", locked = "integer not null default 0" }
read  = "_owner = auth.uid()"
create = "_owner = auth.uid()"
update = "_owner = auth.uid() AND old.locked = 0"
delete = "_owner = auth.uid()"
"#;

const TASKS: &str = "
    CREATE TABLE tasks (id TEXT PRIMARY KEY NOT NULL, title TEXT NOT NULL, code TEXT, locked INTEGER NOT NULL DEFAULT 0);
    INSERT INTO tasks VALUES ('t1', 'one', 'A', 1), ('t2', 'two', 'B', 0), ('t3', 'three', 'C', 0);";

fn setup<'a>(scratch: &'a Scratch, server: &Server<'_>) -> Device<'a> {
    Device::seeded(scratch, server, "laptop.db", "ana", TASKS)
}

#[test]
fn ob5_an_edit_against_the_rules_is_undone_and_parked_with_its_reason() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let laptop = setup(&scratch, &server);

    laptop.sql("UPDATE tasks SET title = 'not allowed' WHERE id = 't1'");
    assert_eq!(laptop.status()["waiting"], 1);
    let first = laptop.sync();
    let refused = first.one("change_refused");
    assert_eq!(refused["code"], "forbidden");
    assert_eq!(
        laptop.rows("SELECT title FROM tasks WHERE id = 't1'"),
        "one",
        "rolled back"
    );
    let done = first.one("done");
    assert_eq!((&done["refused"], &done["parked"]), (&1.into(), &1.into()));

    // What comes after flows on.
    laptop.sql("UPDATE tasks SET title = 'zwei' WHERE id = 't2'");
    laptop.sync();
    assert_eq!(
        rows(
            &server.database(),
            "SELECT title FROM tasks WHERE id IN ('t1', 't2') ORDER BY id"
        ),
        "one\nzwei"
    );

    let parked = laptop
        .run("queue", &["list"])
        .expect(exit::DONE)
        .one("changeset");
    assert_eq!(parked["state"], "parked");
    assert_eq!(parked["code"], "forbidden");
    assert_eq!(parked["changes"][0]["table"], "tasks");
    assert_eq!(parked["changes"][0]["op"], "update");
    assert_eq!(parked["changes"][0]["columns"][0], "title");
    let said = laptop.say("queue", &[]).expect(exit::DONE).stdout;
    assert!(
        said.contains("refused") && said.contains("update title"),
        "{said}"
    );
    laptop.verify();
}

#[test]
fn ob6_a_refused_change_is_retried_or_discarded() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let laptop = setup(&scratch, &server);
    laptop.sql("UPDATE tasks SET title = 'again' WHERE id = 't1'");
    laptop.sync();
    let id = |device: &Device<'_>| {
        let listed = device
            .run("queue", &["list"])
            .expect(exit::DONE)
            .one("changeset");
        listed["id"].as_str().expect("an id").to_owned()
    };

    // Nothing changed: refused again, by any unambiguous beginning of the id.
    laptop
        .run("queue", &["retry", &id(&laptop)[..8]])
        .expect(exit::DONE)
        .one("retried");
    assert_eq!(
        laptop.rows("SELECT title FROM tasks WHERE id = 't1'"),
        "again",
        "shown again while it waits"
    );
    laptop.sync().one("change_refused");
    assert_eq!(
        laptop.rows("SELECT title FROM tasks WHERE id = 't1'"),
        "one"
    );

    // Somebody unlocks the row: now it goes through.
    crate::support::sql(
        &server.database(),
        "UPDATE tasks SET locked = 0 WHERE id = 't1'",
    );
    laptop.sync();
    laptop
        .run("queue", &["retry", &id(&laptop)])
        .expect(exit::DONE);
    laptop.sync();
    assert_eq!(
        rows(
            &server.database(),
            "SELECT title FROM tasks WHERE id = 't1'"
        ),
        "again"
    );
    assert_eq!(laptop.status()["parked"], 0);

    // Discarded: forgotten for good.
    crate::support::sql(
        &server.database(),
        "UPDATE tasks SET locked = 1 WHERE id = 't2'",
    );
    laptop.sync();
    laptop.sql("UPDATE tasks SET title = 'never mind' WHERE id = 't2'");
    laptop.sync();
    laptop
        .run("queue", &["discard", &id(&laptop)])
        .expect(exit::DONE)
        .one("discarded");
    assert_eq!(
        laptop
            .run("queue", &["list"])
            .expect(exit::DONE)
            .all("changeset")
            .len(),
        0
    );
    laptop
        .run("queue", &["retry", "abcdef"])
        .expect(exit::NOT_FOUND)
        .says(&["no changeset abcdef"]);
    laptop
        .run("queue", &["discard", "abcdef"])
        .expect(exit::NOT_FOUND);
    assert_eq!(laptop.verify(), 3);
}

#[test]
fn ob5_everything_that_was_refused_is_retried_or_forgotten_at_once() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let laptop = setup(&scratch, &server);
    let everything = "UPDATE tasks SET locked = 1";
    crate::support::sql(&server.database(), everything);
    laptop.sync();
    for id in ["t1", "t2"] {
        laptop.sql(&format!("UPDATE tasks SET title = 'no' WHERE id = '{id}'"));
        laptop.sync();
    }
    let stats = |laptop: &Device<'_>| {
        let told = laptop.run("queue", &["stats"]).expect(exit::DONE);
        let told = told.one("queue");
        let number = |name: &str| told[name].as_u64().unwrap();
        (number("pending"), number("failed"), number("completed"))
    };
    assert_eq!(stats(&laptop), (0, 2, 0));

    crate::support::sql(
        &server.database(),
        "UPDATE tasks SET locked = 0 WHERE id = 't1'",
    );
    laptop.sync();
    let retried = laptop.run("queue", &["retry-all"]).expect(exit::DONE);
    assert_eq!(retried.one("retried_all")["items"], 2);
    assert_eq!(stats(&laptop), (2, 0, 0));
    laptop.sync();
    assert_eq!(stats(&laptop), (0, 1, 0), "t2 is still locked");
    assert_eq!(
        rows(&server.database(), "SELECT title FROM tasks ORDER BY id"),
        "no\ntwo\nthree"
    );

    let cleared = laptop.run("queue", &["clear-failed"]).expect(exit::DONE);
    assert_eq!(cleared.one("cleared")["items"], 1);
    assert_eq!(stats(&laptop), (0, 0, 0));
    let cleared = laptop
        .run("queue", &["clear-completed", "--older-than", "24h"])
        .expect(exit::DONE);
    assert_eq!(cleared.one("cleared")["items"], 0);
    laptop
        .run("queue", &["clear-completed", "--older-than", "soon"])
        .expect(exit::USAGE)
        .says(&["90s, 30m, 12h"]);
    assert_eq!(laptop.verify(), 3);
}

#[test]
fn a_constraint_of_the_servers_table_refuses_whole_transactions_and_their_dependants_only() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let laptop = setup(&scratch, &server);
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");

    // The laptop's own table has no unique index: only the server can know. Transactions that say
    // where they end stay changesets of their own.
    let end = "UPDATE syncline_tx SET n = n + 1; COMMIT";
    laptop.sql(&format!(
        "BEGIN; INSERT INTO tasks VALUES ('t4', 'four', 'A', 0);
         UPDATE tasks SET title = 'with it' WHERE id = 't3'; {end};
         BEGIN; UPDATE tasks SET title = 'builds on it' WHERE id = 't4'; {end};
         BEGIN; UPDATE tasks SET title = 'free of it' WHERE id = 't2'; {end}"
    ));
    assert_eq!(laptop.status()["waiting"], 3);
    let synced = laptop.sync();

    let refused = synced.all("change_refused");
    assert_eq!(refused[0]["code"], "constraint", "{refused:?}");
    let there = rows(
        &server.database(),
        "SELECT id, title FROM tasks ORDER BY id",
    );
    assert_eq!(there, "t1|one\nt2|free of it\nt3|three");
    assert_eq!(
        laptop.rows("SELECT id, title FROM tasks ORDER BY id"),
        there,
        "exactly rolled back"
    );
    let codes: Vec<_> = laptop
        .run("queue", &["list"])
        .expect(exit::DONE)
        .all("changeset")
        .iter()
        .map(|queued| queued["code"].clone())
        .collect();
    assert_eq!(codes, ["constraint", "depends_on"]);
    laptop.verify();
    phone.sync();
    assert_eq!(phone.rows("SELECT id, title FROM tasks ORDER BY id"), there);
}

#[test]
fn others_are_not_delayed_by_a_device_whose_changes_are_refused() {
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let laptop = setup(&scratch, &server);
    let phone = Device::hydrated(&scratch, &server, "phone.db", "ana");
    let _at_laptop = laptop.watch();
    let mut at_phone = phone.watch();

    // A transaction that says where it ends is a changeset of its own, however late it is sealed.
    laptop.sql(
        "BEGIN; UPDATE tasks SET title = 'against the rules' WHERE id = 't1';
         UPDATE syncline_tx SET n = n + 1; COMMIT",
    );
    phone.sql("UPDATE tasks SET title = 'fine' WHERE id = 't2'");
    laptop.sql("UPDATE tasks SET title = 'fine too' WHERE id = 't3'");
    at_phone.wait_for("the laptop's second edit", |line| {
        line["type"] == "rows_changed"
    });
    wait_until("all good edits everywhere, the bad one nowhere", || {
        [&laptop, &phone].iter().all(|device| {
            device.rows("SELECT title FROM tasks ORDER BY id") == "one\nfine\nfine too"
        })
    });
}
