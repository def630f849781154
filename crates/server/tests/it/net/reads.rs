//! Reading the database in turns.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use parking_lot::{Condvar, Mutex};
use syncline_core::{
    BucketId, Cursor, DeviceId, RowKey, TableNumber, Tag, UserId, Version,
    config::LimitsConfig,
    rules::{Grant, GranteeId},
    wire::{ClientMessage, Ping, ServerMessage},
};
use syncline_server::net::Backend;
use syncline_store::{
    DeviceState, HashesRead, Head, HistoryRead, HistoryWant, Loaded, LogEntry, PageRead, PageWant,
    Reader, RowsRead, StorageError, Want,
};
use syncline_store_sqlite::{SqliteReader, SqliteStorage};

use super::{Net, SOON, Socket, SqliteBackend, Wish, hello, now};

/// Of the one test that reads through it.
static GATE: LazyLock<Gate> = LazyLock::new(Gate::default);

/// Keeps pages from being read.
#[derive(Default)]
struct Gate {
    inside: Mutex<Inside>,
    changed: Condvar,
}

#[derive(Default)]
struct Inside {
    /// Pages of anything else are not let through; `None`: all are.
    let_through: Option<BTreeSet<BucketId>>,
    /// Buckets of which pages were read.
    seen: BTreeSet<BucketId>,
    /// How many read pages of what is not let through, at the moment and at most.
    reading: usize,
    most: usize,
}

impl Gate {
    /// From now on only those get pages who have nothing but what was read until now.
    fn close(&self) {
        let mut inside = self.inside.lock();
        inside.let_through = Some(inside.seen.clone());
    }

    fn open(&self) {
        self.inside.lock().let_through = None;
        self.changed.notify_all();
    }

    /// Waits until pages of these may be read; whether they are counted.
    fn pass(&self, wants: &[PageWant]) -> bool {
        let buckets: BTreeSet<BucketId> = wants.iter().map(|want| want.bucket).collect();
        let mut inside = self.inside.lock();
        let is_gated = match &inside.let_through {
            Some(let_through) => !buckets.is_subset(let_through),
            None => inside.most > 0,
        };
        inside.seen.extend(buckets);
        if is_gated {
            inside.reading += 1;
            inside.most = inside.most.max(inside.reading);
            self.changed.notify_all();
            while inside.let_through.is_some() {
                self.changed.wait(&mut inside);
            }
        }
        is_gated
    }
}

struct GatedBackend(SqliteBackend);

impl Backend for GatedBackend {
    type Storage = SqliteStorage;
    type Reader = Gated;

    fn open(&self) -> Result<SqliteStorage, StorageError> {
        self.0.open()
    }

    fn reader(storage: &SqliteStorage) -> Result<Gated, StorageError> {
        storage.reader().map(Gated)
    }
}

struct Gated(SqliteReader);

impl Reader for Gated {
    async fn pages(
        &mut self,
        wants: &[PageWant],
        bytes_max: usize,
    ) -> Result<PageRead, StorageError> {
        let is_gated = GATE.pass(wants);
        let pages = self.0.pages(wants, bytes_max).await;
        if is_gated {
            GATE.inside.lock().reading -= 1;
        }
        pages
    }

    async fn head(&mut self) -> Result<Head, StorageError> {
        self.0.head().await
    }

    async fn log_after(
        &mut self,
        after: Version,
        bytes_max: usize,
    ) -> Result<Vec<Arc<LogEntry>>, StorageError> {
        self.0.log_after(after, bytes_max).await
    }

    async fn tag_at(&mut self, version: Version) -> Result<Option<Tag>, StorageError> {
        self.0.tag_at(version).await
    }

    async fn rows_to_come(&mut self, wants: &[PageWant]) -> Result<u64, StorageError> {
        self.0.rows_to_come(wants).await
    }

    async fn grants(
        &mut self,
        grantees: &[GranteeId],
    ) -> Result<(Head, Vec<(Grant, Version)>), StorageError> {
        self.0.grants(grantees).await
    }

    async fn hashes(
        &mut self,
        table: TableNumber,
        buckets: &[BucketId],
        after: Option<&RowKey>,
        max: usize,
    ) -> Result<HashesRead, StorageError> {
        self.0.hashes(table, buckets, after, max).await
    }

    async fn device(&mut self, id: DeviceId) -> Result<Option<DeviceState>, StorageError> {
        self.0.device(id).await
    }

    async fn devices(
        &mut self,
        user: &UserId,
        max: usize,
    ) -> Result<Vec<DeviceState>, StorageError> {
        self.0.devices(user, max).await
    }

    async fn rows(
        &mut self,
        table: TableNumber,
        keys: &[RowKey],
        bytes_max: usize,
    ) -> Result<RowsRead, StorageError> {
        self.0.rows(table, keys, bytes_max).await
    }

    async fn history(&mut self, want: &HistoryWant) -> Result<HistoryRead, StorageError> {
        self.0.history(want).await
    }

    async fn look(&mut self, wants: &[Want], loaded: &mut Loaded) -> Result<(), StorageError> {
        self.0.look(wants, loaded).await
    }

    async fn keys(
        &mut self,
        table: TableNumber,
        after: Option<&RowKey>,
        max: usize,
    ) -> Result<Vec<RowKey>, StorageError> {
        self.0.keys(table, after, max).await
    }
}

fn is_all_there(message: &ServerMessage) -> Option<()> {
    match message {
        ServerMessage::Checkpoint(c) if c.loading == 0 && c.caught_up => Some(()),
        _ => None,
    }
}

#[tokio::test]
async fn li10_lost_places_in_the_log_take_one_reader_and_all_come_to_their_end() {
    const SESSIONS: u8 = 8;
    let wish = Wish {
        config_limits: LimitsConfig {
            user_reads: 1,
            ..LimitsConfig::default()
        },
        ..Wish::default()
    };
    let backend = |path: PathBuf| GatedBackend(SqliteBackend { path });
    let started = Net::try_start_on(wish, backend).await;
    let net = started.expect("the server starts");
    net.elsewhere("INSERT INTO labels (id, name) VALUES ('l1', 'one'), ('l2', 'two')");
    net.socket("ada").await.sync(1).await;
    GATE.close();

    // Whoever does this has everything read each time, and has as many connections as are allowed.
    let mut eves = Vec::new();
    for device in 10..10 + SESSIONS {
        let mut socket = net.socket("eve").await;
        let mut lost = hello(device);
        lost.cursors.push(Cursor {
            version: Version(u64::from(device)),
            ..Cursor::default()
        });
        socket.say(&ClientMessage::Hello(lost)).await;
        eves.push(socket);
    }
    let is_reading = || {
        let mut inside = GATE.inside.lock();
        while inside.reading == 0 {
            GATE.changed.wait(&mut inside);
        }
    };
    tokio::task::spawn_blocking(is_reading)
        .await
        .expect("no panic");
    // Whoever else could would be reading by now.
    tokio::time::sleep(Duration::from_millis(300)).await;

    // Others are served, while hers are stuck.
    net.socket("ada").await.sync(2).await;
    assert_eq!(GATE.inside.lock().most, 1, "of hers only one reads");

    // Those in line hear and answer meanwhile; the one that reads does not.
    let mut answers: FuturesUnordered<_> = eves
        .into_iter()
        .zip(10..)
        .map(async |(mut socket, device)| {
            let (sent, now) = (now(), now());
            socket.say(&ClientMessage::Ping(Ping { sent, now })).await;
            let mut is_done = false;
            let pong = |message: &ServerMessage| {
                is_done |= is_all_there(message).is_some();
                matches!(message, ServerMessage::Pong(_)).then_some(())
            };
            socket.hear_until(pong).await;
            (socket, device, is_done)
        })
        .collect();
    let mut eves = Vec::new();
    while eves.len() + 1 < usize::from(SESSIONS) {
        eves.extend(answers.next().await);
    }

    // One of them ends as soon as its device is deregistered.
    let (mut socket, device, _): (Socket, u8, bool) = eves.pop().expect("seven answered");
    let url = net.url(&format!("/v1/devices/{}", DeviceId([device; 16])));
    let removed = net.http.delete(url).bearer_auth(net.token("eve"));
    let removed = removed.send().await.expect("an answer");
    assert!(removed.status().is_success(), "{removed:?}");
    assert_eq!(socket.refused().await.0, "deregistered");

    // And requests find that the line has an end.
    let ask = |_| net.get("/v1/pull").bearer_auth(net.token("eve")).send();
    let mut asked: FuturesUnordered<_> = (0..250).map(ask).collect();
    for _ in 0..50 {
        let answer = asked.next().await.expect("an answer").expect("an answer");
        assert_eq!(answer.status(), 429);
        assert!(answer.headers().contains_key("retry-after"));
        let refusal: serde_json::Value = answer.json().await.expect("JSON");
        assert_eq!(refusal["code"], "too_fast");
        let sentence = refusal["message"].as_str().expect("a sentence");
        assert!(sentence.contains("are reading or wait"), "{sentence}");
    }

    // Each of hers comes to its end.
    GATE.open();
    eves.extend(answers.next().await);
    for (socket, _, is_done) in &mut eves {
        if *is_done {
            continue;
        }
        let all_is_there = socket.hear_until(is_all_there);
        tokio::time::timeout(SOON, all_is_there)
            .await
            .expect("nobody waits for ever");
    }
    let mut served = 0;
    while let Some(answer) = asked.next().await {
        served += usize::from(answer.expect("an answer").status() == 200);
    }
    assert!(served > 100, "{served} were in the line");
    assert_eq!(GATE.inside.lock().most, 1, "never more than one");
}
