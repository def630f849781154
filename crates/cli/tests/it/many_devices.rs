//! Ten devices of one person, plain SQLite writers on each, the network there and gone.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::support::{Device, Scratch, Server, exit, open};

const DEVICES: usize = 10;

/// Seconds of edits: `SYNCLINE_TEST_SECONDS`, 8 unless set.
fn seconds() -> Duration {
    let given = std::env::var("SYNCLINE_TEST_SECONDS").ok();
    Duration::from_secs(given.and_then(|text| text.parse().ok()).unwrap_or(8))
}

/// A small generator, so that a failure can be repeated with the seed it prints.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % n
    }
}

const CONFIG: &str = r#"
[tables.lists]
columns = { id = "text primary key", name = "text not null" }
read  = "_owner = auth.uid()"
write = "_owner = auth.uid()"
[tables.items]
columns = { id = "text primary key", list_id = "text references lists on delete cascade", title = "text not null", votes = "integer not null default 0", tags = "json", code = "text unique" }
indexes = [["list_id"]]
read  = "_owner = auth.uid()"
write = "_owner = auth.uid()"
merge = { votes = "counter", tags = "set" }
"#;

/// One edit of a random kind; a program that meets a constraint goes on, as programs do.
fn edit(conn: &rusqlite::Connection, dice: &mut Dice, me: usize) {
    let row = dice.below(40);
    let n = dice.below(1_000_000);
    let statement = match dice.below(12) {
        0 | 1 => format!(
            "INSERT OR IGNORE INTO items (id, list_id, title, tags) VALUES ('new-{me}-{n}', 'l{}', 'by {me}', '[]')",
            n % 4
        ),
        2 => format!("DELETE FROM items WHERE id = 'i{row}'"),
        3 => format!(
            "INSERT OR REPLACE INTO items (id, list_id, title, tags, code) VALUES ('i{row}', 'l{}', 'again by {me}', '[]', NULL)",
            n % 4
        ),
        4 | 5 => format!("UPDATE items SET votes = votes + 1 WHERE id = 'i{row}'"),
        6 => format!(
            "UPDATE items SET tags = json_array('t{}', 't{me}') WHERE id = 'i{row}'",
            n % 5
        ),
        7 => format!(
            "UPDATE OR IGNORE items SET code = 'c{}' WHERE id = 'i{row}'",
            n % 30
        ),
        8 => format!(
            "UPDATE lists SET name = 'named {n}' WHERE id = 'l{}'",
            n % 4
        ),
        9 => format!(
            "BEGIN IMMEDIATE; UPDATE items SET title = 'both {n}' WHERE id IN ('i{row}', 'i{}'); COMMIT",
            (row + 1) % 40
        ),
        _ => format!("UPDATE items SET title = 'title {n}' WHERE id = 'i{row}'"),
    };
    conn.execute_batch(&statement)
        .unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// Edits and goes on- and offline until told to stop.
fn live(device: &Device<'_>, me: usize, seed: u64, stop: &AtomicBool) -> u64 {
    let mut dice = Dice(seed.wrapping_add(me as u64 * 7_919));
    let conn = open(&device.file);
    conn.pragma_update(None, "foreign_keys", true)
        .expect("a setting of this connection");
    let mut edits = 0;
    while !stop.load(Ordering::Relaxed) {
        // Half a second or so online, killed without a word; then some time offline.
        let mut online = (dice.below(3) > 0).then(|| device.start("sync", &["--watch"]));
        let until = Instant::now() + Duration::from_millis(400 + dice.below(1_200));
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            edit(&conn, &mut dice, me);
            edits += 1;
            std::thread::sleep(Duration::from_millis(5 + dice.below(40)));
        }
        if let Some(process) = &mut online {
            if dice.below(2) == 0 {
                process.kill();
            } else {
                // Unless it was asked before it could listen.
                let code = process.terminate();
                assert!(
                    [exit::DONE, -1].contains(&code),
                    "{code}: {}",
                    process.stderr()
                );
            }
        }
    }
    edits
}

#[test]
fn ten_devices_converge_after_random_edits_on_and_offline() {
    let seed: u64 = std::env::var("SYNCLINE_TEST_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()));
    println!("SYNCLINE_TEST_SEED={seed}");
    let scratch = Scratch::new();
    let server = Server::with_config(&scratch, "data", CONFIG);
    let mut setup = String::from(
        "CREATE TABLE lists (id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL);
         CREATE TABLE items (id TEXT PRIMARY KEY NOT NULL, list_id TEXT REFERENCES lists ON DELETE CASCADE,
                             title TEXT NOT NULL, votes INTEGER NOT NULL DEFAULT 0, tags TEXT, code TEXT UNIQUE);",
    );
    for list in 0..4 {
        setup += &format!("INSERT INTO lists VALUES ('l{list}', 'list {list}');");
    }
    for item in 0..40 {
        setup += &format!(
            "INSERT INTO items (id, list_id, title, tags) VALUES ('i{item}', 'l{}', 'item', '[]');",
            item % 4
        );
    }
    let first = Device::seeded(&scratch, &server, "d0.db", "ana", &setup);
    let mut devices = vec![first];
    for n in 1..DEVICES {
        devices.push(Device::hydrated(
            &scratch,
            &server,
            &format!("d{n}.db"),
            "ana",
        ));
    }

    let stop = AtomicBool::new(false);
    let edits: u64 = std::thread::scope(|scope| {
        let stop = &stop;
        let threads: Vec<_> = devices
            .iter()
            .enumerate()
            .map(|(n, device)| scope.spawn(move || live(device, n, seed, stop)))
            .collect();
        std::thread::sleep(seconds());
        stop.store(true, Ordering::Relaxed);
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a device's thread"))
            .sum()
    });
    println!("{edits} edits");
    assert!(edits > 100, "hardly anything happened: {edits} edits");

    // Everybody sends; then everybody has everything.
    for device in &devices {
        device.sync();
    }
    for device in &devices {
        device.sync();
    }
    let content = |device: &Device<'_>| {
        device.rows("SELECT * FROM lists ORDER BY id")
            + "\n"
            + &device.rows("SELECT * FROM items ORDER BY id")
    };
    let expected = content(&devices[0]);
    for device in &devices {
        assert_eq!(content(device), expected, "{}", device.file.display());
        let status = device.status();
        assert_eq!(
            (&status["waiting"], &status["accepted"]),
            (&0.into(), &0.into()),
            "{status}"
        );
        device.verify();
    }
}
