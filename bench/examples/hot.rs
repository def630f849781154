//! The hot paths without sockets, threads and other processes: for counting instructions.
//!
//! `cargo run --release -p syncline-bench --example hot -- CASE [ROWS]` prints processor time a
//! row; under `valgrind --tool=callgrind --toggle-collect='*counted_CASE*'` instructions are counted
//! exactly, however busy the machine is (docs/performance.md).

#[path = "../src/rows.rs"]
#[expect(dead_code, reason = "the workloads use the rest")]
mod rows;

#[path = "hot/connect.rs"]
mod connect;
#[path = "hot/live.rs"]
mod live;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use anyhow::{Context as _, Result, bail};
use futures_util::FutureExt as _;
use rusqlite::Connection;
use syncline_core::{
    Change, Changeset, ChangesetId, ColumnEdit, DeviceId, Edit, Hlc, Lease, Op, RowKey, Timestamp,
    UserId, Value,
    config::Config,
    rules::{Identity, Rules},
    wire::SchemaInfo,
};
use syncline_replica::{AttachOptions, Replica};
use syncline_server::{Action, Recent, Session, SessionContext, session::Opened};
use syncline_store::{
    Context, DeviceHello, SchemaOptions, Storage as _, Submission, commit_group, open_device,
    rebuild_rules,
};
use syncline_store_sqlite::{SqliteReader, SqliteStorage};

use rows::Item;

const NOW: Timestamp = Timestamp(1_795_000_000_000_000);
const GROUP: usize = 100;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let case = args.next().unwrap_or_default();
    let rows: usize = args.next().map_or(Ok(10_000), |rows| rows.parse())?;
    let folder = tempfile::tempdir()?;
    if case == "connect-tables" || case == "connect-buckets" {
        let spent = connect::run(folder.path(), case == "connect-tables", rows)?;
        tell("open", spent.open, connect::TIMES);
        tell("connect", spent.connect, connect::TIMES);
        tell("serve", spent.serve, connect::TIMES);
        return Ok(());
    }
    let mut house = House::new(folder.path(), rows::CONFIG)?;
    let took = match case.as_str() {
        "commit-one" => house.fill(rows, 1, 1)?,
        "commit-single" => house.fill(rows, 1, GROUP)?,
        "commit-hundreds" => house.fill(rows, 100, GROUP)?,
        "page" => {
            house.fill(rows, 1_000, GROUP)?;
            house.load(None)?.0
        }
        "apply" => {
            house.fill(rows, 1_000, GROUP)?;
            house.load(Some(&folder.path().join("device.db")))?.1
        }
        "plain" => plain(rows)?,
        "live-one" | "live-hundreds" => {
            let together = if case == "live-one" { 1 } else { GROUP };
            let spent = live::run(&mut house, folder.path(), rows / together, together)?;
            tell("seal", spent.seal, rows);
            tell("answer", spent.answer, rows);
            spent.apply
        }
        _ => bail!(
            "usage: hot commit-one|commit-single|commit-hundreds|\
             page|apply|plain|live-one|live-hundreds [ROWS]|\
             connect-tables [TABLES]|connect-buckets [BUCKETS]"
        ),
    };
    tell(&case, took, rows);
    Ok(())
}

#[expect(
    clippy::cast_precision_loss,
    clippy::print_stdout,
    reason = "a program for people"
)]
fn tell(what: &str, spent: u64, rows: usize) {
    println!("{what}: {:.2} us a row", spent as f64 / 1e3 / rows as f64);
}

/// Processor time that `work` takes of this thread, in nanoseconds.
fn measured<T>(spent: &mut u64, work: impl FnOnce() -> T) -> T {
    let before = on_cpu();
    let done = work();
    *spent += on_cpu() - before;
    done
}

#[inline(never)]
fn counted_commit<T>(spent: &mut u64, work: impl FnOnce() -> T) -> T {
    measured(spent, work)
}

#[inline(never)]
fn counted_page<T>(spent: &mut u64, work: impl FnOnce() -> T) -> T {
    measured(spent, work)
}

#[inline(never)]
fn counted_apply<T>(spent: &mut u64, work: impl FnOnce() -> T) -> T {
    measured(spent, work)
}

#[inline(never)]
fn counted_plain<T>(spent: &mut u64, work: impl FnOnce() -> T) -> T {
    measured(spent, work)
}

fn on_cpu() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = stat.split(' ').next().unwrap_or_default();
    first.parse().unwrap_or(0)
}

fn ready<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("SQLite never waits")
}

/// What a single program needs for the same rows, in one transaction.
fn plain(rows: usize) -> Result<u64> {
    let items: Vec<Item> = (0..rows).map(|n| Item::new(0, n)).collect();
    let mut spent = 0;
    counted_plain(&mut spent, || rows::plain_inserts(&items, rows, false))?;
    Ok(spent)
}

/// A server without a network.
struct House {
    storage: SqliteStorage,
    reader: SqliteReader,
    context: Arc<SessionContext>,
    identity: Arc<Identity>,
}

impl House {
    fn new(folder: &Path, config: &str) -> Result<Self> {
        let config = Config::parse("syncline.toml", config);
        let config = config.map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
        let mut storage = SqliteStorage::open(folder.join("server.db"), &[7; 32])?;
        let options = SchemaOptions {
            managed: true,
            allow: Vec::new(),
        };
        let report = ready(storage.apply_schema(&config, &options))?;
        let rules = Rules::compile(&report.schema, storage.secret());
        let rules = rules.map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
        let info = SchemaInfo::from_schema(&report.schema);
        let plan = Arc::new(Context::new(report.schema, rules));
        ready(rebuild_rules(&mut storage, &plan, NOW))?;
        ready(storage.keep_history(true))?;
        let head = ready(commit_group(&mut storage, &plan, &[], NOW)).head;
        let head = head.context("the log's end")?;
        let context = Arc::new(SessionContext {
            server: storage.server_id(),
            secret: *storage.secret(),
            info_hash: info.hash(),
            info,
            plan,
            recent: Arc::new(Recent::new(head.version, head.tag)),
            subscriptions_max: 1_000,
        });
        let identity = Arc::new(Identity {
            user: Some(UserId("ana".into())),
            claims: BTreeMap::new(),
        });
        Ok(Self {
            reader: storage.reader()?,
            storage,
            context,
            identity,
        })
    }

    fn open(&mut self, hello: &DeviceHello) -> Result<Opened> {
        let opened = ready(open_device(&mut self.storage, hello, hello.device, NOW));
        let opened = opened.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        Ok(opened.into())
    }

    /// A device that only writes.
    fn writer(&mut self) -> Result<(DeviceId, Lease)> {
        let (device, lease) = (DeviceId([1; 16]), Lease([2; 16]));
        self.open(&DeviceHello {
            device,
            lease: Lease::default(),
            next_lease: lease,
            user: UserId("ana".into()),
            name: "hot".into(),
            renamed: false,
            platform: "hot".into(),
            register_anew: false,
        })?;
        Ok((device, lease))
    }

    /// Commits rows in changesets of `together`, `at_once` changesets in each group at most.
    fn fill(&mut self, rows: usize, together: usize, at_once: usize) -> Result<u64> {
        let (device, lease) = self.writer()?;
        let items: Vec<Item> = (0..rows).map(|n| Item::new(0, n)).collect();
        let mut spent = 0;
        let mut number = 0;
        for group in items.chunks(together * at_once) {
            let mut submissions = Vec::new();
            for some in group.chunks(together) {
                number += 1;
                submissions.push(self.submission(device, lease, number, some)?);
            }
            let (storage, context) = (&mut self.storage, &self.context);
            let outcome = counted_commit(&mut spent, || {
                ready(commit_group(storage, &context.plan, &submissions, NOW))
            });
            if let Some(error) = outcome.failure {
                bail!("{error}");
            }
            self.context.recent.push(&outcome.entries);
        }
        Ok(spent)
    }

    fn submission(
        &self,
        device: DeviceId,
        lease: Lease,
        number: u64,
        items: &[Item],
    ) -> Result<Submission> {
        let rows = items.iter().map(|item| ("items", item.values().to_vec()));
        self.insertion(device, lease, number, rows)
    }

    /// A changeset of new rows, each of a table, with its values by column.
    fn insertion(
        &self,
        device: DeviceId,
        lease: Lease,
        number: u64,
        rows: impl IntoIterator<Item = (&'static str, Vec<(&'static str, Value)>)>,
    ) -> Result<Submission> {
        let schema = self.context.plan.schema();
        let mut changes = Vec::new();
        for (table, values) in rows {
            let found = schema.tables.iter().find(|known| known.name == table);
            let table = found.context(table)?;
            let key = RowKey::encode([&values[0].1])?;
            let edits = values.into_iter().map(|(name, value)| {
                let position = table.position(name).context("a column")?;
                Ok(ColumnEdit {
                    column: table.columns[position].number,
                    edit: Edit::Set(value),
                })
            });
            changes.push(Change {
                table: table.number,
                key,
                base: syncline_core::Version(0),
                op: Op::Insert(edits.collect::<Result<_>>()?),
            });
        }
        let mut id = [1; 16];
        id[8..].copy_from_slice(&number.to_be_bytes());
        let changeset = Changeset {
            id: ChangesetId(id),
            number,
            depends: Vec::new(),
            hlc: Hlc::at(NOW),
            changes,
            require_unchanged: false,
            may_be_applied_already: false,
            after: None,
            piece: None,
        };
        Ok(Submission {
            identity: Arc::clone(&self.identity),
            device,
            lease: Some(lease),
            changeset,
            sent: syncline_core::Version(0),
            refused: Arc::default(),
        })
    }

    /// A new device takes everything: what the server and what the device spent.
    fn load(&mut self, path: Option<&Path>) -> Result<(u64, u64)> {
        let conn = match path {
            Some(path) => Connection::open(path)?,
            None => Connection::open_in_memory()?,
        };
        let mut state = 7_u8;
        let entropy = move |bytes: &mut [u8]| {
            for byte in bytes {
                state = state.wrapping_mul(5).wrapping_add(3);
                *byte = state;
            }
        };
        let options = AttachOptions {
            create_missing: true,
            ..AttachOptions::default()
        };
        let mut replica = Replica::attach(conn, options, Box::new(entropy))?;
        let begin = |house: &Self, now| {
            Session::new(Arc::clone(&house.context), Arc::clone(&house.identity), now)
        };
        let mut session = begin(self, NOW);
        let (mut serving, mut applying, mut rounds) = (0, 0, 0);
        let mut now = NOW;
        replica.connect(now)?;
        loop {
            now = now.plus_millis(20);
            replica.wake(now)?;
            replica.handle_timeout(now)?;
            session.timeout(now);
            while let Some(frame) = replica.poll_transmit() {
                session.receive(&frame, now);
            }
            while let Some(action) = session.poll_action() {
                if let Action::Open(hello) = action {
                    let opened = self.open(&DeviceHello::new(&hello, session.user().clone()))?;
                    session.opened(Ok(opened));
                }
            }
            let reader = &mut self.reader;
            while counted_page(&mut serving, || ready(session.pump(reader, now)))?
                && !session.has_frames()
            {}
            let mut is_idle = true;
            while let Some(frame) = session.poll_frame() {
                is_idle = false;
                counted_apply(&mut applying, || replica.handle(&frame, now))?;
            }
            while replica.poll_event().is_some() {}
            if replica.closing().is_some() {
                // With tables that it did not have before, a session begins anew.
                let _again = replica.disconnected(now);
                session = begin(self, now);
                replica.connect(now)?;
            }
            rounds += usize::from(is_idle);
            let status = replica.status()?;
            if is_idle && status.caught_up {
                return Ok((serving, applying));
            }
            if rounds > 10 {
                bail!("the device does not get further: {status:?}");
            }
        }
    }
}
