//! A device: a real replica on a database in memory, an app that writes through a connection of
//! its own, a clock that is wrong, and a connection that may be cut.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, bail};
use rusqlite::{Connection, functions::FunctionFlags};
use syncline_core::{Timestamp, Version};
use syncline_replica::{AttachOptions, Event, Replica, Seeding};
use syncline_server::SessionId;

use crate::{link::Link, rng::Rng, schema::LOCAL, server::{Server, open_memory}};

pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) user: String,
    /// Another program on the same file. It also keeps the database alive over a kill.
    pub(crate) app: Connection,
    database: String,
    pub(crate) replica: Option<Replica>,
    pub(crate) link: Option<Link>,
    pub(crate) session: Option<SessionId>,
    pub(crate) rng: Rng,
    /// How far this clock is ahead of true time, in microseconds.
    skew: i64,
    /// What this clock shows, for SQLite's own functions.
    clock: Arc<AtomicU64>,
    /// When to connect, or to start again after a kill.
    pub(crate) next_try: Timestamp,
    pub(crate) checkpoint: Version,
    pub(crate) events: u64,
}

impl Device {
    /// A device whose app created its tables already, or an empty file that takes them from the
    /// server.
    pub(crate) fn new(
        database: &str,
        (name, user): (String, String),
        has_tables: bool,
        skew_ms: i64,
        mut rng: Rng,
    ) -> anyhow::Result<Self> {
        let clock = Arc::new(AtomicU64::new(0));
        let app = open_with_clock(database, &clock)?;
        let options = AttachOptions {
            create_missing: !has_tables,
            seeding: if has_tables { Seeding::Send } else { Seeding::Skip },
            device_name: name.clone(),
            ..AttachOptions::default()
        };
        if has_tables {
            app.execute_batch(LOCAL)?;
        }
        let conn = open_with_clock(database, &clock)?;
        let replica = Replica::attach(conn, options, entropy(&mut rng))?;
        Ok(Self {
            name,
            user,
            app,
            database: database.to_owned(),
            replica: Some(replica),
            link: None,
            session: None,
            rng,
            skew: skew_ms * 1_000,
            clock,
            next_try: Timestamp(0),
            checkpoint: Version::ZERO,
            events: 0,
        })
    }

    /// What this device's clock shows.
    pub(crate) fn local(&self, now: Timestamp) -> Timestamp {
        let local = Timestamp(now.0.saturating_add_signed(self.skew));
        self.clock.store(local.0, Ordering::Relaxed);
        local
    }

    /// The app or the phone dies: what is on disk stays.
    pub(crate) fn kill(&mut self, restart_at: Timestamp) {
        self.replica = None;
        self.link = None;
        self.next_try = restart_at;
    }

    /// The connection ends, whoever ended it; everything under way is lost.
    pub(crate) fn disconnect(&mut self, now: Timestamp) -> anyhow::Result<()> {
        self.link = None;
        self.session = None;
        let local = self.local(now);
        let Some(replica) = &mut self.replica else { return Ok(()) };
        let closing = replica.closing().cloned();
        let Some(at) = replica.disconnected(local) else {
            bail!("{} gave up: {closing:?}", self.name);
        };
        self.next_try = now.plus_millis(at.0.saturating_sub(local.0) / 1_000);
        Ok(())
    }

    /// Does what is due now, up to sending what there is to send.
    pub(crate) fn turn(&mut self, server: &mut Server, now: Timestamp) -> anyhow::Result<()> {
        let local = self.local(now);
        if now < self.next_try && self.link.is_none() {
            return Ok(());
        }
        if self.replica.is_none() {
            let conn = open_with_clock(&self.database, &self.clock)?;
            let opened = Replica::open(conn, entropy(&mut self.rng), local);
            self.replica = Some(opened.context("open after a kill")?);
        }
        let replica = self.replica.as_mut().context("opened above")?;
        if self.link.is_none() {
            replica.connect(local).context("connect")?;
            self.link = Some(Link::default());
            self.session = Some(server.connect(&self.user, now));
        }
        if replica.poll_timeout().is_some_and(|at| at <= local) {
            replica.handle_timeout(local).context("time passes")?;
        }
        self.transmit(now);
        self.settle(now)
    }

    /// Takes a frame of the server.
    pub(crate) fn receive(&mut self, frame: &[u8], now: Timestamp) -> anyhow::Result<()> {
        let local = self.local(now);
        if let Some(replica) = &mut self.replica {
            replica.handle(frame, local).context("take a frame")?;
        }
        self.transmit(now);
        self.settle(now)
    }

    /// Looks at what the app wrote.
    pub(crate) fn wake(&mut self, now: Timestamp) -> anyhow::Result<()> {
        let local = self.local(now);
        if let Some(replica) = &mut self.replica {
            replica.wake(local).context("seal")?;
        }
        self.transmit(now);
        Ok(())
    }

    fn transmit(&mut self, now: Timestamp) {
        if let (Some(replica), Some(link)) = (&mut self.replica, &mut self.link) {
            while let Some(frame) = replica.poll_transmit() {
                link.up.send(frame, now, &mut self.rng);
            }
        }
    }

    /// Judges events, and closes where the replica asks for it.
    fn settle(&mut self, now: Timestamp) -> anyhow::Result<()> {
        let Some(replica) = &mut self.replica else { return Ok(()) };
        while let Some(event) = replica.poll_event() {
            self.events += 1;
            match event {
                Event::DigestMismatch { table } => {
                    bail!("{}: the rows of {table} differ from the server's digest", self.name)
                }
                Event::RowUnstorable { table, key, reason } => {
                    bail!("{}: cannot hold {table} {key:?}: {reason}", self.name)
                }
                _ => {}
            }
        }
        let version = replica.checkpoint()?.unwrap_or(Version::ZERO);
        if version < self.checkpoint {
            bail!("{}: went back from {:?} to {version:?}", self.name, self.checkpoint);
        }
        self.checkpoint = version;
        if replica.closing().is_some() {
            self.disconnect(now)?;
        }
        Ok(())
    }

    /// Whether the promises hold: something arrived, and nothing is loading.
    pub(crate) fn is_live(&self) -> anyhow::Result<bool> {
        let Some(replica) = &self.replica else { return Ok(false) };
        Ok(replica.checkpoint()?.is_some() && replica.status()?.loading.is_none())
    }

    /// Why this device is not at rest; `None` when it is.
    pub(crate) fn unrest(&self) -> anyhow::Result<Option<String>> {
        let (Some(replica), Some(link)) = (&self.replica, &self.link) else {
            return Ok(Some(format!("{} is offline", self.name)));
        };
        let status = replica.status()?;
        let quiet = status.connected
            && link.is_empty()
            && status.waiting == 0
            && status.accepted == 0
            && status.loading.is_none()
            && status.caught_up;
        Ok((!quiet).then(|| format!("{} does not come to rest: {status:?}", self.name)))
    }
}

/// A connection on which SQLite's clock is the device's.
fn open_with_clock(database: &str, clock: &Arc<AtomicU64>) -> anyhow::Result<Connection> {
    let conn = open_memory(database)?;
    let clock = Arc::clone(clock);
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
    conn.create_scalar_function("julianday", 1, flags, move |_| {
        #[expect(clippy::cast_precision_loss, reason = "a day count has room for milliseconds")]
        let days = clock.load(Ordering::Relaxed) as f64 / 86_400_000_000.0;
        Ok(2_440_587.5 + days)
    })?;
    Ok(conn)
}

fn entropy(rng: &mut Rng) -> Box<dyn syncline_replica::Entropy> {
    let mut rng = rng.fork();
    Box::new(move |bytes: &mut [u8]| rng.fill(bytes))
}
