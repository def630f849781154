//! Two live devices: what one change costs on the device that it is made on, and on another one.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, Result, bail};
use rusqlite::Connection;
use syncline_core::Timestamp;
use syncline_replica::{AttachOptions, Replica};
use syncline_server::{Action, Session};
use syncline_store::{DeviceHello, commit_group};

use super::{House, NOW, measured, ready, rows};

/// Rounds that are not counted: statements are prepared in them.
const WARMING: usize = 20;

/// What was spent on the devices, in nanoseconds.
#[derive(Default)]
pub(super) struct Spent {
    pub(super) seal: u64,
    pub(super) answer: u64,
    pub(super) apply: u64,
}

#[inline(never)]
fn counted_seal<T>(spent: &mut u64, work: impl FnOnce() -> T) -> T {
    measured(spent, work)
}

#[inline(never)]
fn counted_answer<T>(spent: &mut u64, work: impl FnOnce() -> T) -> T {
    measured(spent, work)
}

#[inline(never)]
fn counted_receive<T>(spent: &mut u64, work: impl FnOnce() -> T) -> T {
    measured(spent, work)
}

/// One device of Ana's and the server's session with it.
pub(super) struct Live {
    pub(super) replica: Replica,
    pub(super) session: Session,
}

impl Live {
    pub(super) fn new(house: &House, path: &Path, id: u8, now: Timestamp) -> Result<Self> {
        let conn = Connection::open(path)?;
        conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        let mut state = u64::from(id);
        // Ids of changesets come of it: none may come again.
        let entropy = move |bytes: &mut [u8]| {
            for byte in bytes {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                *byte = state.to_be_bytes()[0];
            }
        };
        let options = AttachOptions {
            create_missing: true,
            ..AttachOptions::default()
        };
        let mut replica = Replica::attach(conn, options, Box::new(entropy))?;
        replica.connect(now)?;
        Ok(Self {
            replica,
            session: session(house, now),
        })
    }

    /// What the device has to say; whether there was anything.
    pub(super) fn say(&mut self) -> bool {
        let mut any = false;
        while let Some(frame) = self.replica.poll_transmit() {
            self.session.receive(&frame, NOW);
            any = true;
        }
        any
    }

    /// What the server has to say by now.
    pub(super) fn hear(&mut self, house: &mut House, now: Timestamp) -> Result<Vec<Vec<u8>>> {
        self.session.timeout(now);
        while ready(self.session.pump(&mut house.reader, now))? && !self.session.has_frames() {}
        let frames = std::iter::from_fn(|| self.session.poll_frame());
        Ok(frames.map(|frame| frame.to_vec()).collect())
    }

    /// As the driver does after each step.
    pub(super) fn told(&mut self) -> Result<()> {
        let mut status = None;
        while self.replica.poll_event().is_some() {
            if status.is_none() {
                status = Some(self.replica.status()?);
            }
        }
        Ok(())
    }

    pub(super) fn handle(&mut self, frames: &[Vec<u8>], now: Timestamp) -> Result<()> {
        self.replica
            .handle_all(frames.iter().map(Vec::as_slice), now)?;
        self.replica.data_version()?;
        self.told()
    }

    /// Until it has everything.
    pub(super) fn catch_up(&mut self, house: &mut House, now: &mut Timestamp) -> Result<()> {
        for _ in 0..1_000 {
            *now = now.plus_millis(20);
            self.replica.handle_timeout(*now)?;
            let mut is_idle = !self.say();
            house.act(self, *now)?;
            let frames = self.hear(house, *now)?;
            is_idle &= frames.is_empty();
            self.handle(&frames, *now)?;
            if self.replica.closing().is_some() {
                // With tables that it did not have before, a session begins anew.
                let _again = self.replica.disconnected(*now);
                self.session = session(house, *now);
                self.replica.connect(*now)?;
            } else if is_idle && self.replica.status()?.caught_up {
                return Ok(());
            }
        }
        bail!("a device does not get further: {:?}", self.replica.status())
    }
}

pub(super) fn session(house: &House, now: Timestamp) -> Session {
    Session::new(Arc::clone(&house.context), Arc::clone(&house.identity), now)
}

impl House {
    /// Does what a session asks for.
    pub(super) fn act(&mut self, live: &mut Live, now: Timestamp) -> Result<()> {
        while let Some(action) = live.session.poll_action() {
            match action {
                Action::Open(hello) => {
                    let hello = DeviceHello::new(&hello, live.session.user().clone());
                    let opened = self.open(&hello)?;
                    live.session.opened(Ok(opened));
                }
                Action::Commit(request) => {
                    let submission = live.session.submission(*request);
                    let plan = Arc::clone(&self.context.plan);
                    let outcome = ready(commit_group(&mut self.storage, &plan, &[submission], now));
                    if let Some(error) = outcome.failure {
                        bail!("{error}");
                    }
                    self.context.recent.push(&outcome.entries);
                    live.session
                        .committed(outcome.results.first().context("an answer")?);
                }
                Action::Renew(_) | Action::Watch | Action::Close => {}
            }
        }
        Ok(())
    }
}

/// One device's app writes `writes` times `together` rows; the other device gets them.
pub(super) fn run(
    house: &mut House,
    folder: &Path,
    writes: usize,
    together: usize,
) -> Result<Spent> {
    let mut now = NOW;
    let paths = ["one.db", "two.db"].map(|name| folder.join(name));
    let mut one = Live::new(house, &paths[0], 8, now)?;
    one.catch_up(house, &mut now)?;
    let mut two = Live::new(house, &paths[1], 9, now)?;
    two.catch_up(house, &mut now)?;
    let app = Connection::open(&paths[0])?;
    let mut insert = app.prepare(rows::INSERT)?;
    let (mut spent, mut warming) = (Spent::default(), Spent::default());
    for n in 0..writes + WARMING {
        now = now.plus_millis(20);
        app.execute_batch("BEGIN IMMEDIATE")?;
        for i in 0..together {
            insert.execute(rows::Item::new(0, n * together + i).params())?;
        }
        app.execute_batch("COMMIT")?;
        // The toggles of what counts instructions know the functions, not who calls them.
        let is_counted = n >= WARMING;
        let seal = |live: &mut Live| -> Result<bool> {
            live.replica.data_version()?;
            live.replica.wake(now)?;
            let any = live.say();
            live.told()?;
            Ok(any)
        };
        let sent = match is_counted {
            true => counted_seal(&mut spent.seal, || seal(&mut one))?,
            false => measured(&mut warming.seal, || seal(&mut one))?,
        };
        if !sent {
            bail!("nothing was sealed: {:?}", one.replica.status()?);
        }
        house.act(&mut one, now)?;
        let answers = one.hear(house, now)?;
        match is_counted {
            true => counted_answer(&mut spent.answer, || one.handle(&answers, now))?,
            false => one.handle(&answers, now)?,
        }
        let changes = two.hear(house, now)?;
        match is_counted {
            true => counted_receive(&mut spent.apply, || two.handle(&changes, now))?,
            false => two.handle(&changes, now)?,
        }
    }
    let there = two.replica.connection();
    let found: i64 = there.query_row("SELECT count(*) FROM items", [], |row| row.get(0))?;
    if usize::try_from(found)? != (writes + WARMING) * together {
        bail!("{found} rows arrived");
    }
    Ok(spent)
}
