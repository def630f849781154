//! From one file to the server to another file.

use syncline_replica::{Event, TableState};

use crate::{
    authority::Authority,
    device::{Device, SCHEMA, schema},
};

#[test]
fn se1_what_one_device_writes_another_shows() {
    let mut server = Authority::new(schema(SCHEMA));
    let mut laptop = Device::new(SCHEMA, 1);
    let mut phone = Device::empty(2);
    laptop.write("INSERT INTO lists VALUES('l1', 'shopping')");
    laptop.sync(&mut server);
    phone.sync(&mut server);
    assert_eq!(phone.query("SELECT * FROM lists"), "l1|shopping");

    phone.write("UPDATE lists SET name = 'food'");
    phone.sync(&mut server);
    laptop.sync(&mut server);
    assert_eq!(laptop.query("SELECT * FROM lists"), "l1|food");
    laptop.assert_equal(&server);
    phone.assert_equal(&server);
    let status = laptop.replica.status().unwrap();
    assert_eq!((status.waiting, status.accepted, status.parked), (0, 0, 0));
    assert!(
        status
            .tables
            .iter()
            .all(|table| table.state == TableState::Live)
    );
    assert!(
        laptop
            .events
            .iter()
            .any(|event| matches!(event, Event::Live { .. }))
    );
}

#[test]
fn se1_rows_from_before_attaching_are_sent_and_equal_ones_are_not() {
    let mut server = Authority::new(schema(SCHEMA));
    server.write(&[("lists", vec!["l1".into(), "same".into()])]);
    let rows = "INSERT INTO lists VALUES('l1', 'same'), ('l2', 'only here')";
    let mut device = Device::new(&format!("{SCHEMA} {rows};"), 1);
    device.sync(&mut server);
    device.assert_equal(&server);
    assert_eq!(server.rows.len(), 2);
    let pushed = device.link.as_ref().unwrap().pushed();
    assert_eq!(
        pushed
            .iter()
            .map(|changeset| changeset.changes.len())
            .sum::<usize>(),
        1
    );
    assert!(
        !device
            .replica
            .status()
            .unwrap()
            .tables
            .iter()
            .any(|table| table.seeding)
    );
}

#[test]
fn cf7_a_generated_column_never_travels() {
    const COMPUTED: &str = "
        CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT, b TEXT AS (upper(a)), c TEXT);
        CREATE INDEX t_b ON t(b);
        CREATE INDEX t_c ON t(c);";
    let mut server = Authority::new(schema(COMPUTED));
    let mut laptop = Device::new(COMPUTED, 1);
    let mut phone = Device::empty(2);
    laptop.write("INSERT INTO t(id, a, c) VALUES('1', 'milk', 'x')");
    for _ in 0..2 {
        laptop.sync(&mut server);
        phone.sync(&mut server);
    }
    assert_eq!(laptop.query("SELECT * FROM t"), "1|milk|MILK|x");
    assert_eq!(phone.query("SELECT * FROM t"), "1|milk|MILK|x");
    phone.write("UPDATE t SET a = 'eggs'");
    phone.sync(&mut server);
    laptop.sync(&mut server);
    assert_eq!(laptop.query("SELECT * FROM t"), "1|eggs|EGGS|x");
    let indexes =
        "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND tbl_name = 't' AND sql > ''";
    assert_eq!(phone.query(indexes), "2");
}

#[test]
fn ca15_what_this_sqlite_cannot_compute_is_left_out_of_the_table() {
    let mut there = schema(
        "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT CHECK (a > ''), b TEXT AS (upper(a)) STORED, CHECK (a <> id));
         CREATE INDEX t_a ON t(lower(a));
         CREATE INDEX t_b ON t(b);
         CREATE INDEX t_ab ON t(a) WHERE a <> 'x';
         CREATE INDEX t_bd ON t(b DESC);",
    );
    let table = there.tables.iter_mut().find(|table| table.name == "t");
    let table = table.unwrap();
    table.columns[2].computed.as_mut().unwrap().expression = "no_such(a)".into();
    table.columns[1].check = Some("no_such(a)".into());
    table.checks = vec!["no_such(a, id)".into()];
    table.further_indexes[0].terms = "no_such(a)".into();
    let mut server = Authority::new(there);
    let mut phone = Device::empty(2);
    for _ in 0..2 {
        phone.sync(&mut server);
        phone.write("INSERT OR IGNORE INTO t(id, a) VALUES('1', 'milk')");
    }
    assert_eq!(phone.query("SELECT * FROM t"), "1|milk");
    let indexes =
        "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND tbl_name = 't' AND sql > ''";
    assert_eq!(phone.query(indexes), "1");
}

#[test]
fn ca15_a_table_that_cannot_be_made_as_it_is_stops_no_other() {
    let mut there = schema(
        "CREATE TABLE a(id TEXT PRIMARY KEY NOT NULL, n TEXT);
         CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, n TEXT);
         CREATE INDEX t_n ON t(n DESC);
         CREATE TABLE seen(id TEXT PRIMARY KEY NOT NULL, n TEXT);",
    );
    let table = there.tables.iter_mut().find(|table| table.name == "t");
    table.unwrap().columns[1].collate = Some("of_the_server".into());
    let mut server = Authority::new(there);
    let row = |table| (table, vec!["1".into(), "milk".into()]);
    server.write(&[row("a"), row("t"), row("seen")]);
    let mut phone = Device::empty(2);
    phone.run("CREATE VIEW seen AS SELECT 1 AS one");
    phone.sync(&mut server);
    server.write(&[
        ("seen", vec!["2".into(), "eggs".into()]),
        ("t", vec!["2".into(), "eggs".into()]),
    ]);
    phone.sync(&mut server);
    assert_eq!(phone.query("SELECT * FROM t ORDER BY id"), "1|milk\n2|eggs");
    assert_eq!(phone.query("SELECT * FROM a"), "1|milk");
    assert_eq!(phone.query("SELECT * FROM seen"), "1");
    let left_out = |e: &Event| {
        matches!(e, Event::TablesLeftOut { tables }
        if tables.iter().any(|(name, reason)| name == "seen" && reason.contains("view")))
    };
    assert!(phone.events.iter().any(left_out), "{:?}", phone.events);
    // Once the name is free, it comes.
    phone.disconnect();
    phone.run("DROP VIEW seen");
    phone.sync(&mut server);
    assert_eq!(
        phone.query("SELECT * FROM seen ORDER BY id"),
        "1|milk\n2|eggs"
    );
}
