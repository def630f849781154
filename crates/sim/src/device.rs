//! A device: a real replica on a database in memory, an app that writes through a connection of
//! its own, and a clock that is wrong.

use anyhow::{Context as _, bail};
use rusqlite::Connection;
use syncline_core::{ChangesetId, DeviceId, Timestamp, Version};
use syncline_replica::{
    AttachOptions, Event, Keyring, QueueState, QueuedChangeset, Replica, ReplicaError, Seeding,
    SubscriptionState,
};

use crate::{
    checker::{liveness::Patience, waiting::Sent},
    database::{Clock, Disk, Fuse, Place, copy, open, transfer},
    link::Link,
    model::sealed::keyring,
    rng::Rng,
    schema::Who,
};

pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) who: Who<'static>,
    /// Another program on the same file. It also keeps the database alive over a kill.
    pub(crate) app: Connection,
    database: Place,
    disk: Disk,
    pub(crate) replica: Option<Replica>,
    pub(crate) link: Option<Link>,
    pub(crate) rng: Rng,
    /// How far this clock is ahead of true time, in microseconds.
    pub(crate) skew: i64,
    /// How much it gains, in millionths, and since when.
    drift: (i64, Timestamp),
    clock: Clock,
    fuse: Fuse,
    /// For encrypted columns.
    pub(crate) keys: Keyring,
    /// When to connect, or to start again after a kill.
    pub(crate) next_try: Timestamp,
    /// When the engine looks at what the app wrote.
    pub(crate) wake_at: Option<Timestamp>,
    pub(crate) checkpoint: Version,
    /// Whether the checkpoint may go back: the server lost its end, or this file is an old copy.
    pub(crate) may_go_back: bool,
    /// Up to where the server still is what this device last heard: it was restored since.
    pub(crate) lost_after: Option<Version>,
    /// Its device id when somebody last looked: a new one may have come with a call that failed.
    id: Option<DeviceId>,
    /// It has said Hello, and not heard what became of it.
    pub(crate) greets: bool,
    /// Its file was copied then: nobody can tell the two apart until one of them connects again.
    /// For so many answers to its Hello.
    pub(crate) twin_for: u8,
    pub(crate) patience: Patience,
    /// It dies between what it does next and what it sends of it.
    pub(crate) dies_before_transmit: bool,
    /// When its connection, which brings nothing, ends.
    pub(crate) cut_at: Option<Timestamp>,
    /// What was parked in the file that an old copy replaced, with its steps, until the engine runs
    /// on the copy.
    pub(crate) parked_before: Vec<(ChangesetId, Vec<String>)>,
    /// How often an old copy took the place of the file.
    restored: u64,
    /// A codeless number that makes ids of this device's edits its own.
    pub(crate) next_id: u64,
}

/// Equal only while the rows of a file are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileVersion {
    /// Of other connections than the app's.
    by_others: i64,
    by_app: u64,
    restored: u64,
}

/// How a device comes to life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Birth {
    /// An empty file that takes its tables from the server.
    Empty,
    /// A file whose app created its tables, with these statements on top.
    Filled {
        tables: &'static str,
        rows: &'static str,
    },
}

impl Birth {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Filled { .. } => "with rows of its own",
        }
    }
}

/// An old copy of a device's file, and what was true of the device then.
#[derive(Debug)]
pub(crate) struct OldFile {
    file: Connection,
    pub(crate) at: Timestamp,
    lost_after: Option<Version>,
    id: Option<DeviceId>,
    greets: bool,
    twin_for: u8,
}

impl Device {
    pub(crate) fn new(
        name: String,
        who: Who<'static>,
        birth: Birth,
        skew_ms: i64,
        mut rng: Rng,
        disk: Disk,
        now: Timestamp,
    ) -> anyhow::Result<Self> {
        let database = disk.place(&name);
        let clock = Clock::default();
        let skew = skew_ms * 1_000;
        clock.set(now.0.saturating_add_signed(skew));
        let app = open(&database)?;
        clock.install(&app)?;
        if let Birth::Filled { tables, rows } = birth {
            app.execute_batch(tables)?;
            app.execute_batch(rows)?;
        }
        let options = AttachOptions {
            create_missing: birth == Birth::Empty,
            seeding: Seeding::Send,
            device_name: name.clone(),
            ..AttachOptions::default()
        };
        let (conn, fuse) = connection(&database, &clock)?;
        let mut replica = Replica::attach(conn, options, entropy(&mut rng))?;
        // Not all have the same key first.
        let keys = keyring(name.ends_with(['1', '3']));
        replica.use_keys(keys.clone())?;
        if rng.percent(30) {
            app.pragma_update(None, "foreign_keys", true)?;
        }
        if rng.percent(30) {
            app.pragma_update(None, "recursive_triggers", true)?;
        }
        Ok(Self {
            name,
            who,
            app,
            database,
            disk,
            replica: Some(replica),
            link: None,
            rng,
            skew,
            drift: (0, now),
            clock,
            fuse,
            keys,
            next_try: now,
            wake_at: None,
            checkpoint: Version::ZERO,
            may_go_back: false,
            lost_after: None,
            id: None,
            greets: false,
            twin_for: 0,
            patience: Patience::default(),
            dies_before_transmit: false,
            cut_at: None,
            parked_before: Vec::new(),
            restored: 0,
            next_id: 0,
        })
    }

    /// Another device with this one's file, as a backup restored beside it makes it.
    pub(crate) fn copied(&mut self, name: String, now: Timestamp) -> anyhow::Result<Self> {
        let disk = self.disk.clone();
        let database = disk.place(&name);
        let mut app = open(&database)?;
        self.clock.install(&app)?;
        transfer(&self.app, &mut app)?;
        let (_, fuse) = connection(&database, &self.clock)?;
        Ok(Self {
            name,
            who: self.who,
            app,
            database,
            disk,
            replica: None,
            link: None,
            rng: self.rng.fork(),
            skew: self.skew,
            drift: self.drift,
            clock: self.clock.clone(),
            fuse,
            keys: self.keys.clone(),
            next_try: now,
            wake_at: None,
            checkpoint: Version::ZERO,
            may_go_back: true,
            lost_after: self.lost_after,
            id: self.id,
            greets: self.greets,
            twin_for: self.twin_for,
            patience: Patience::default(),
            dies_before_transmit: false,
            cut_at: None,
            parked_before: Vec::new(),
            restored: 0,
            next_id: self.next_id,
        })
    }

    /// What changes with every change of the file.
    pub(crate) fn file_version(&self) -> rusqlite::Result<FileVersion> {
        let sql = "PRAGMA data_version";
        let mut statement = self.app.prepare_cached(sql)?;
        Ok(FileVersion {
            by_others: statement.query_row([], |row| row.get(0))?,
            by_app: self.app.total_changes(),
            restored: self.restored,
        })
    }

    /// Puts an old copy in place of the file. The engine has to be stopped.
    pub(crate) fn restore(&mut self, copy: &OldFile) -> anyhow::Result<()> {
        if self.replica.is_some() {
            bail!("a file in use cannot be restored");
        }
        self.restored += 1;
        self.may_go_back = true;
        self.lost_after = copy.lost_after;
        self.id = copy.id;
        self.greets = copy.greets;
        self.twin_for = copy.twin_for;
        transfer(&copy.file, &mut self.app)
    }

    /// A copy of the file, to come back later.
    pub(crate) fn old_file(&self, now: Timestamp) -> anyhow::Result<OldFile> {
        Ok(OldFile {
            file: copy(&self.app)?,
            at: now,
            lost_after: self.lost_after,
            id: self.id,
            greets: self.greets,
            twin_for: self.twin_for,
        })
    }

    /// Whether its device id is another one than when this was last asked.
    pub(crate) fn has_new_id(&mut self) -> anyhow::Result<bool> {
        let Some(replica) = &self.replica else {
            return Ok(false);
        };
        let id = replica.status()?.device;
        Ok(self.id.replace(id).is_some_and(|known| known != id))
    }

    /// The server has answered its Hello.
    pub(crate) fn welcomed(&mut self, forked: bool) {
        self.greets = false;
        self.twin_for = if forked {
            0
        } else {
            self.twin_for.saturating_sub(1)
        };
    }

    /// The server was restored, and has of what this file knows only what is up to `version`.
    pub(crate) fn server_lost(&mut self, version: Version) {
        self.may_go_back = true;
        self.lost_after = Some(self.lost_after.map_or(version, |lost| lost.min(version)));
    }

    /// What this device's clock shows.
    pub(crate) fn local(&self, now: Timestamp) -> Timestamp {
        let local = Timestamp(now.0.saturating_add_signed(self.skew + self.gained(now)));
        self.clock.set(local.0);
        local
    }

    /// From now on its clock gains so many millionths (or loses them).
    pub(crate) fn drifts(&mut self, millionths: i64, now: Timestamp) {
        self.skew += self.gained(now);
        self.drift = (millionths, now);
    }

    fn gained(&self, now: Timestamp) -> i64 {
        let (millionths, since) = self.drift;
        let gained = i128::from(now.0.saturating_sub(since.0)) * i128::from(millionths) / 1_000_000;
        i64::try_from(gained).unwrap_or_default()
    }

    /// When the true time is `local` on this device's clock.
    fn truly(&self, local: Timestamp) -> Timestamp {
        let steady = local.0.saturating_add_signed(-self.skew);
        let (millionths, since) = self.drift;
        if millionths == 0 {
            return Timestamp(steady);
        }
        let passed = i128::from(steady) - i128::from(since.0);
        let passed = passed * 1_000_000 / i128::from(1_000_000 + millionths);
        let passed = i64::try_from(passed).unwrap_or_default();
        // Rather a moment late than too early: nothing would be due then.
        Timestamp(since.0.saturating_add_signed(passed + 2))
    }

    /// The app or the phone dies: what is on disk stays. Gives the connection that was cut.
    pub(crate) fn kill(&mut self, restart_at: Timestamp) -> Option<Link> {
        self.replica = None;
        self.dies_before_transmit = false;
        self.next_try = restart_at;
        self.link.take()
    }

    /// Starts the engine on the file.
    pub(crate) fn open(&mut self, now: Timestamp) -> anyhow::Result<()> {
        let local = self.local(now);
        let (conn, fuse) = connection(&self.database, &self.clock)?;
        self.fuse = fuse;
        let entropy = entropy(&mut self.rng);
        let opened = Replica::open_with_keys(conn, entropy, local, self.keys.clone());
        self.replica = Some(opened.with_context(|| format!("{} opens its file", self.name))?);
        Ok(())
    }

    /// The next commits succeed, and after them none.
    pub(crate) fn light_fuse(&mut self, commits: u64) {
        self.fuse.light(commits);
    }

    /// A statement fails somewhere in what the engine does next.
    pub(crate) fn break_disk(&mut self, after: u64) {
        self.fuse.break_soon(after);
    }

    /// Calls the engine. `None`: it is not running, or died in the middle of the call, because
    /// the fuse burnt down.
    pub(crate) fn call<T>(
        &mut self,
        now: Timestamp,
        call: impl FnOnce(&mut Replica, Timestamp) -> Result<T, ReplicaError>,
    ) -> anyhow::Result<Option<T>> {
        let local = self.local(now);
        let Some(replica) = &mut self.replica else {
            return Ok(None);
        };
        self.fuse.arm(true);
        let called = call(replica, local);
        self.fuse.arm(false);
        if self.fuse.is_burnt() {
            return Ok(None);
        }
        Ok(Some(called.with_context(|| self.name.clone())?))
    }

    /// The checkpoint that the file is at.
    pub(crate) fn shown(&self) -> anyhow::Result<Option<Version>> {
        let checkpoint = self.replica.as_ref().map(Replica::checkpoint);
        Ok(checkpoint.transpose()?.flatten())
    }

    /// Whether the engine can commit no more, and has to be killed or disconnected.
    pub(crate) fn is_stuck(&self) -> bool {
        self.fuse.is_burnt()
    }

    pub(crate) fn put_out_fuse(&mut self) {
        self.fuse.put_out();
    }

    /// Puts what the engine wants to send on its way.
    pub(crate) fn transmit(&mut self, now: Timestamp, sent: &mut Sent) {
        let (Some(replica), Some(link)) = (&mut self.replica, &mut self.link) else {
            return;
        };
        while let Some(frame) = replica.poll_transmit() {
            sent.note(&self.name, &frame, !self.may_go_back && self.twin_for == 0);
            if !link.is_dark {
                link.up.send(frame, now, &mut self.rng);
            }
        }
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.replica.as_mut()?.poll_event()
    }

    /// The connection ended, whoever ended it. An error if the engine gives up for good.
    pub(crate) fn disconnected(&mut self, now: Timestamp) -> anyhow::Result<()> {
        self.link = None;
        let local = self.local(now);
        let Some(replica) = &mut self.replica else {
            return Ok(());
        };
        let closing = replica.closing().cloned();
        let Some(at) = replica.disconnected(local) else {
            bail!("{} gave up: {closing:?}", self.name);
        };
        self.next_try = self.truly(at).max(now);
        Ok(())
    }

    /// What waits for a person in the engine's queue.
    pub(crate) fn parked(&self) -> anyhow::Result<Vec<QueuedChangeset>> {
        let Some(replica) = &self.replica else {
            return Ok(Vec::new());
        };
        let queue = replica.queue(None, usize::MAX)?.into_iter();
        let is_parked = |c: &QueuedChangeset| matches!(c.state, QueueState::Parked { .. });
        Ok(queue.filter(is_parked).collect())
    }

    /// When something is due here that no frame brings.
    ///
    /// `is_heard`: whether the server takes frames of this device at the moment.
    pub(crate) fn due(&self, is_heard: bool) -> Option<Timestamp> {
        if self.replica.is_none() {
            return Some(self.next_try);
        }
        let mut due = self.wake_at;
        let mut sooner = |at: Timestamp| due = Some(due.map_or(at, |due| due.min(at)));
        if self.link.is_none() {
            sooner(self.next_try);
        }
        self.cut_at.into_iter().for_each(&mut sooner);
        if let Some(link) = &self.link {
            let up = link.up.due().filter(|_| is_heard);
            up.into_iter().chain(link.down.due()).for_each(&mut sooner);
        }
        if let Some(at) = self.replica.as_ref().and_then(Replica::poll_timeout) {
            sooner(self.truly(at));
        }
        due
    }

    /// Whether nothing is under way to or from it, and nothing waits for its app.
    pub(crate) fn is_quiet(&self) -> bool {
        let is_sound = |link: &Link| !link.is_dark && link.is_empty();
        self.replica.is_some() && self.link.as_ref().is_some_and(is_sound) && self.wake_at.is_none()
    }

    /// What the server has not told a device that has a sound connection; `None`: it told all.
    pub(crate) fn is_not_told(&self) -> anyhow::Result<Option<String>> {
        let Some(replica) = &self.replica else {
            return Ok(None);
        };
        let activity = replica.activity()?;
        let is_told = activity.caught_up && activity.accepted == 0 && activity.loading.is_none();
        Ok((!is_told).then(|| format!("{activity:?}")))
    }

    /// Whether nothing is left to do here.
    pub(crate) fn is_at_rest(&self) -> anyhow::Result<bool> {
        let (Some(replica), Some(link)) = (&self.replica, &self.link) else {
            return Ok(false);
        };
        if !link.is_empty() || self.wake_at.is_some() {
            return Ok(false);
        }
        let status = replica.status()?;
        let is_quiet = status.connected
            && status.waiting == 0
            && status.accepted == 0
            && status.loading.is_none()
            && status.checkpoint.is_some()
            && status.tables.iter().all(|table| !table.seeding)
            && status.caught_up;
        if !is_quiet {
            return Ok(false);
        }
        let mut subscriptions = replica.subscriptions()?.into_iter();
        Ok(!subscriptions.any(|known| known.state == SubscriptionState::Waiting))
    }

    /// Why this device is not at rest.
    pub(crate) fn unrest(&self) -> anyhow::Result<String> {
        let (Some(replica), Some(_)) = (&self.replica, &self.link) else {
            return Ok(format!("{} is offline", self.name));
        };
        let (status, queue) = (replica.status()?, replica.queue(None, 5));
        Ok(format!(
            "{} does not come to rest: {status:#?}, {queue:#?}",
            self.name
        ))
    }
}

/// A connection for the engine, on which SQLite's clock is the device's.
fn connection(database: &Place, clock: &Clock) -> anyhow::Result<(Connection, Fuse)> {
    let mut conn = open(database)?;
    clock.install(&conn)?;
    let fuse = Fuse::new();
    fuse.add(&mut conn)?;
    Ok((conn, fuse))
}

fn entropy(rng: &mut Rng) -> Box<dyn syncline_replica::Entropy> {
    let mut rng = rng.fork();
    Box::new(move |bytes: &mut [u8]| rng.fill(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::LOCAL;

    #[test]
    fn whoever_writes_a_file_changes_its_version() {
        for has_files in [false, true] {
            let birth = Birth::Filled {
                tables: LOCAL,
                rows: "",
            };
            let disk = Disk::new(has_files).expect("a disk");
            let (who, now) = (Who::first("ann"), Timestamp(1));
            let device = Device::new("d".into(), who, birth, 0, Rng::new(1), disk, now);
            let mut device = device.expect("a device");
            let mut last = None;
            let mut changed = |device: &Device| {
                let version = Some(device.file_version().expect("a version"));
                std::mem::replace(&mut last, version) != version
            };
            assert!(changed(&device));
            assert!(!changed(&device), "nobody wrote");
            let step = |conn: &Connection, id: &str| {
                let sql = "INSERT INTO steps VALUES (?1, 'tally')";
                conn.execute(sql, [id]).expect("it writes");
            };
            step(&device.app, "one");
            assert!(changed(&device), "the app wrote");
            let other = open(&device.database).expect("another program");
            step(&other, "two");
            assert!(changed(&device), "another program wrote");
            let copied = device.old_file(now).expect("a copy");
            let _link = device.kill(now);
            assert!(!changed(&device), "a copy and a kill write nothing");
            device.restore(&copied).expect("the copy is put back");
            assert!(changed(&device), "an old copy took its place");
            let call = |replica: &mut Replica, now| replica.wake(now);
            device.open(now).expect("the engine starts");
            assert!(changed(&device), "the engine opened it");
            step(&device.app, "three");
            assert!(changed(&device), "the app wrote");
            device.call(now, call).expect("it seals");
            assert!(changed(&device), "the engine wrote");
        }
    }
}
