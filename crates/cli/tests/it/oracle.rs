//! Many people with different rights against one real server: after each batch of changes every
//! device holds exactly the rows that plain SQL, written by hand, gives its person on the server's
//! database. Servers stop, die and are replaced in between.
//!
//! `make oracle` runs the full size (200 devices, 5,000 changes); a slice of it runs with all tests.

#![expect(
    clippy::print_stdout,
    reason = "the numbers of a run, and how to repeat it"
)]

mod edits;
mod rights;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use syncline::{Config, SyncManager, Tables, Timestamp};
use syncline_server::net::Auth;

use self::{
    edits::{Dice, edit, edit_on_server},
    rights::{CONFIG, Rows, TABLES, Truth, held},
};
use crate::support::{Scratch, Server, exit, open};

/// Longer than anything takes, on a busy machine too.
const IN_STEP_WITHIN: Duration = Duration::from_secs(240);
/// Changes between two comparisons.
const BATCH: usize = 100;
/// Server processes end in every so many batches.
const RESTART_EVERY: usize = 3;

/// How server processes end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restarts {
    /// Asked to, between two batches; devices write while it is away.
    Graceful,
    /// `kill -9` in the middle of a batch.
    Brutal,
    /// Asked to in the middle of a batch, and the next process is started at once: it takes over as
    /// soon as the data is free.
    Rolling,
}

/// One person's device.
struct Device {
    user: String,
    region: Option<String>,
    is_auditor: bool,
    file: PathBuf,
    manager: SyncManager,
    /// The app's own connection.
    app: Connection,
}

fn setting(name: &str, otherwise: usize) -> usize {
    let given = std::env::var(name).ok();
    given.map_or(otherwise, |text| text.parse().expect("a number"))
}

fn user(n: usize) -> String {
    format!("u{n:03}")
}

/// A quarter have a region in their token, a few are auditors.
fn claims(n: usize) -> BTreeMap<String, serde_json::Value> {
    let mut claims = BTreeMap::new();
    if n % 4 == 1 {
        claims.insert("region".to_owned(), ["north", "south"][n / 4 % 2].into());
    }
    if n % 25 == 7 {
        claims.insert("role".to_owned(), "auditor".into());
    }
    claims
}

async fn device(scratch: &Scratch, server: &Server<'_>, auth: &Auth, n: usize) -> Device {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let micros = now.expect("after 1970").as_micros();
    let now = Timestamp(u64::try_from(micros).expect("before 586,000"));
    let claims = claims(n);
    let (region, is_auditor) = (claims.get("region").cloned(), claims.contains_key("role"));
    let token = auth
        .issue(&user(n), claims, now, now.plus_millis(86_400_000))
        .expect("a token");
    // A folder each: devices are told of every file that changes in theirs.
    let folder = scratch.path(&format!("d{n:03}"));
    std::fs::create_dir(&folder).expect("a folder");
    let file = folder.join("app.db");
    let app = open(&file);
    app.pragma_update(None, "journal_mode", "wal")
        .expect("a setting");
    let config = Config::new()
        .server(&server.url, &token)
        .expect("an address");
    let manager = SyncManager::open(&file, config)
        .await
        .expect("the file opens");
    manager
        .hydrate(Tables::All, |_| {})
        .await
        .expect("the device is filled");
    manager.start_auto_sync();
    Device {
        user: user(n),
        region: region.and_then(|region| region.as_str().map(str::to_owned)),
        is_auditor,
        file,
        manager,
        app,
    }
}

/// Waits until nothing waits on any device, then until each holds what the server's SQL says.
async fn compare(devices: &[Device], server: &Server<'_>, batch: usize) {
    let deadline = Instant::now() + IN_STEP_WITHIN;
    let mut nothing_waits = BTreeSet::new();
    while nothing_waits.len() < devices.len() {
        for (n, device) in devices.iter().enumerate() {
            if !nothing_waits.contains(&n) {
                let status = device.manager.status().await.expect("a status");
                let status = status.expect("the file is attached");
                if status.waiting == 0 {
                    nothing_waits.insert(n);
                } else {
                    assert!(
                        Instant::now() < deadline,
                        "{} does not send: {status:#?}",
                        device.user
                    );
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let truth = Truth::read(&server.database());
    let expected: Vec<Rows> = devices
        .iter()
        .map(|device| truth.visible(&device.user, device.region.as_deref(), device.is_auditor))
        .collect();
    let mut different: BTreeSet<usize> = (0..devices.len()).collect();
    while !different.is_empty() {
        different.retain(|n| held(&devices[*n].app) != expected[*n]);
        if let Some(n) = different.first()
            && Instant::now() >= deadline
        {
            let device = &devices[*n];
            let status = device.manager.status().await;
            let here = held(&device.app);
            panic!(
                "batch {batch}: {} ({}) differs, and {} others\nonly there: {:#?}\nonly here: {:#?}\n{status:#?}",
                device.user,
                device.file.display(),
                different.len() - 1,
                expected[*n].difference(&here).collect::<Vec<_>>(),
                here.difference(&expected[*n]).collect::<Vec<_>>(),
            );
        }
        if !different.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn hurry(devices: &[Device]) {
    for device in devices {
        device.manager.foreground();
    }
}

/// `subscriptions` devices, `changes` in batches, compared after each.
fn run(restarts: Restarts) {
    let subscriptions = setting("SYNCLINE_ORACLE_SUBSCRIPTIONS", 16);
    let changes = setting("SYNCLINE_ORACLE_CHANGES", 300);
    // So few changes can leave a table without rows: this seed's do not.
    let is_slice = changes <= 300;
    let chance = usize::try_from(std::process::id()).expect("small");
    let seed = setting("SYNCLINE_ORACLE_SEED", if is_slice { 2 } else { chance });
    println!(
        "SYNCLINE_ORACLE_SEED={seed} {restarts:?} {subscriptions} subscriptions, {changes} changes"
    );
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let begun = Instant::now();
    runtime.block_on(go(restarts, subscriptions, changes, seed));
    println!("{restarts:?}: {:.1} s", begun.elapsed().as_secs_f64());
}

async fn go(restarts: Restarts, subscriptions: usize, changes: usize, seed: usize) {
    let scratch = Scratch::in_memory();
    let mut server = Server::with_config(&scratch, "data", CONFIG);
    // The first token makes the secret.
    let _first = server.token("nobody");
    let secret = std::fs::read(scratch.path("data").join("token-secret")).expect("the secret");
    let auth = Auth::new(&secret).expect("it is long enough");
    let mut devices = Vec::new();
    for n in 0..subscriptions {
        devices.push(device(&scratch, &server, &auth, n).await);
    }
    let mut dice = Dice::new(seed as u64);
    let batch = BATCH.min(changes / 6).max(1);
    let (mut made, mut number, mut total, mut ends) = (0, 0, 0, 0);
    while made < changes {
        number += 1;
        let ends_here = number % RESTART_EVERY == 0;
        if ends_here && restarts == Restarts::Graceful {
            assert_eq!(server.terminate(), exit::DONE);
        }
        for i in 0..batch {
            if ends_here && i == batch / 2 {
                match restarts {
                    Restarts::Graceful => {}
                    Restarts::Brutal => {
                        server.kill();
                        ends += 1;
                    }
                    Restarts::Rolling => {
                        server.replace();
                        ends += 1;
                        hurry(&devices);
                    }
                }
            }
            made += 1;
            if dice.below(10) == 0 {
                edit_on_server(&open(&server.database()), &mut dice, subscriptions, made);
            } else {
                let at = usize::try_from(dice.below(subscriptions as u64)).expect("small");
                edit(
                    &devices[at].app,
                    &devices[at].user,
                    &mut dice,
                    subscriptions,
                    made,
                );
            }
        }
        if ends_here && restarts != Restarts::Rolling {
            if restarts == Restarts::Graceful {
                ends += 1;
            }
            server.restart();
            hurry(&devices);
        }
        compare(&devices, &server, number).await;
        total += devices.len();
    }
    // What is compared is something: most see some rows, and not all see the same.
    let truth = Truth::read(&server.database());
    let seen: Vec<usize> = devices
        .iter()
        .map(|d| {
            truth
                .visible(&d.user, d.region.as_deref(), d.is_auditor)
                .len()
        })
        .collect();
    println!(
        "{made} changes, {total} comparisons, {ends} ends of the server, {} rows there, {} to {} seen",
        truth.count(),
        seen.iter().min().expect("devices"),
        seen.iter().max().expect("devices")
    );
    assert!(ends > 0 && seen.iter().collect::<BTreeSet<_>>().len() > devices.len() / 8);
    for table in TABLES {
        assert!(truth.has(table.0), "{} has rows", table.0);
    }
    for device in devices {
        device.manager.close().await;
    }
}

#[test]
fn oracle_each_device_holds_what_sql_says_over_graceful_restarts() {
    run(Restarts::Graceful);
}

#[test]
fn oracle_each_device_holds_what_sql_says_while_the_server_is_killed() {
    run(Restarts::Brutal);
}

#[test]
fn oracle_each_device_holds_what_sql_says_while_servers_are_replaced() {
    run(Restarts::Rolling);
}
