//! What goes wrong.

use anyhow::Context as _;
use syncline_core::Version;

use super::{World, skew};
use crate::{
    app::{Author, run},
    link::Link,
    plan::Fault,
    schema::{REBUILD_BOARDS, TEAMS, Who, has_effort},
    server::CRASH_POINTS,
};

/// Most devices of a run, copies included.
const DEVICES_MAX: usize = 24;
/// How long a connection that brings no answers lasts at most, and the absence after it.
const DEAF_MS: u64 = 20_000;
const AWAY_MS: u64 = 30_000;
/// Ends of the server that it takes minutes to come back from, and how long they last.
const OUTAGE_PERCENT: u64 = 12;
const OUTAGE_MS: u64 = 45_000;

impl World {
    pub(super) fn inflict(&mut self, fault: Fault) -> anyhow::Result<()> {
        let i = self.any_device();
        match fault {
            Fault::Cut => self.cut(i),
            Fault::Silence => {
                if let Some(link) = &mut self.devices[i].link {
                    link.is_dark = true;
                }
                Ok(())
            }
            Fault::Kill => {
                match self.dice.below(4) {
                    0 => self.kill(i),
                    1 => self.devices[i].dies_before_transmit = self.devices[i].replica.is_some(),
                    // It dies in the middle of what it does next.
                    _ => {
                        let commits = self.dice.below(4);
                        self.devices[i].light_fuse(commits);
                    }
                }
                Ok(())
            }
            Fault::Clog | Fault::SlowReader => {
                let both = fault == Fault::Clog;
                let until = self.now.plus_millis(self.dice.below(20_000));
                let way = if both { self.dice.below(3) } else { 1 };
                if let Some(link) = &mut self.devices[i].link {
                    if way != 1 {
                        link.up.stall(self.now, until);
                    }
                    if way != 0 {
                        link.down.stall(self.now, until);
                    }
                }
                Ok(())
            }
            Fault::Deaf => self.deafen(i),
            Fault::Swizzle => {
                self.swizzle();
                Ok(())
            }
            Fault::BrokenDisk => {
                let after = self.dice.below(200);
                self.devices[i].break_disk(after);
                Ok(())
            }
            Fault::Crash => {
                let point = *self.dice.pick(&CRASH_POINTS);
                self.say(format!("the server is to die at {point:?}"));
                self.server.crash_at(point);
                Ok(())
            }
            Fault::ServerDisk => {
                if self.server.is_up() {
                    match self.dice.percent(50) {
                        true => self.server.break_disk(Some(self.dice.below(3)), None),
                        false => self.server.break_disk(None, Some(self.dice.below(400))),
                    }
                    let pause = self.dice.below(2_000);
                    self.disk_at = Some(self.now.plus_millis(1 + pause));
                }
                Ok(())
            }
            Fault::Drift => {
                let millionths = *self.dice.pick(&[-10_000, -500, 500, 10_000, 0]);
                let now = self.now;
                self.devices[i].drifts(millionths, now);
                Ok(())
            }
            Fault::ServerClock => {
                let hours = *self.dice.pick(&[0, -1, -1]);
                self.server.skew = hours * 3_600_000_000;
                Ok(())
            }
            Fault::FullDisk => {
                let commits = self.dice.below(3);
                self.devices[i].light_fuse(commits);
                Ok(())
            }
            Fault::Restart => self.stop_server(),
            Fault::RestoreServer => self.restore_server(),
            Fault::RestoreDevice => self.restore_device(),
            Fault::CopyDevice => self.copy_device(i),
            Fault::Outsider => self.write_outside(),
            Fault::Clock => {
                self.devices[i].skew = skew(&mut self.dice) * 1_000;
                Ok(())
            }
            Fault::Trim => {
                let age = self.dice.below(20_000) * 1_000;
                self.trim(age)
            }
            Fault::Rules => {
                self.server.setup.rules = self.server.setup.rules.other();
                self.stop_server()
            }
            Fault::Claims => self.change_claims(i),
            Fault::Schema => self.change_tables(i),
            Fault::Demand => self.change_demand(i),
        }
    }

    /// The server gets a column, or the app of device `i` an update that changes its tables.
    fn change_tables(&mut self, i: usize) -> anyhow::Result<()> {
        if !self.model.app.is_own() {
            return Ok(());
        }
        if !self.server.setup.has_effort && self.dice.percent(30) {
            self.say("boards have efforts on the server from now on");
            self.server.setup.has_effort = true;
            return self.stop_server();
        }
        if self.devices[i].checkpoint == Version::ZERO || !self.seal(i)? {
            return Ok(());
        }
        let app = &self.devices[i].app;
        let migration = match has_effort(app)? {
            false => "ALTER TABLE boards ADD COLUMN effort INTEGER",
            true if self.dice.percent(30) => "ALTER TABLE boards DROP COLUMN effort",
            true => REBUILD_BOARDS,
        };
        let done = app.execute_batch(&format!("BEGIN IMMEDIATE; {migration}; COMMIT"));
        self.say(format!(
            "{} migrates: {migration}: {done:?}",
            self.devices[i].name
        ));
        done?;
        self.model.counts.add("migrations");
        // The engine looks at once: a column that was dropped and added again between two looks is
        // the same to it, and what was in it would be missed.
        self.seal(i).map(drop)
    }

    /// The user of device `i` is moved to the other team: tokens of before are good no more, and
    /// sessions end with them.
    fn change_claims(&mut self, i: usize) -> anyhow::Result<()> {
        if !self.model.app.is_own() {
            return Ok(());
        }
        let was = self.devices[i].who;
        let team = TEAMS.into_iter().find(|team| *team != was.team);
        let who = Who {
            team: team.unwrap_or(was.team),
            ..was
        };
        self.say(format!("{} is in team {} now", who.user, who.team));
        for i in 0..self.devices.len() {
            if self.devices[i].who.user == who.user {
                self.devices[i].who = who;
                self.cut(i)?;
            }
        }
        Ok(())
    }

    /// The connection ends; the server may not hear of it.
    pub(super) fn cut(&mut self, i: usize) -> anyhow::Result<()> {
        let Some(link) = self.devices[i].link.take() else {
            return Ok(());
        };
        self.leave(link);
        self.devices[i].patience.disturbed();
        self.devices[i].disconnected(self.now)
    }

    /// Whatever it sends now, it hears of nothing that comes of it.
    fn deafen(&mut self, i: usize) -> anyhow::Result<()> {
        if !self.seal(i)? {
            return Ok(());
        }
        let until = self.now.plus_millis(DEAF_MS);
        let pause = self.dice.below(DEAF_MS);
        let device = &mut self.devices[i];
        if let Some(link) = &mut device.link {
            link.down.stall(self.now, until);
            device.cut_at = Some(self.now.plus_millis(pause));
        }
        Ok(())
    }

    /// A device that heard of nothing leaves, for long.
    pub(super) fn go_deaf(&mut self, i: usize) -> anyhow::Result<()> {
        self.devices[i].cut_at = None;
        if self.devices[i].link.is_none() {
            return Ok(());
        }
        self.say(format!("{} has heard nothing", self.devices[i].name));
        self.cut(i)?;
        let away = self.rng.below(AWAY_MS);
        let device = &mut self.devices[i];
        device.next_try = device.next_try.max(self.now.plus_millis(away));
        if self.plan.has(Fault::Trim) && self.rng.percent(50) {
            let age = self.rng.below(2_000) * 1_000;
            self.trim(age)?;
        }
        Ok(())
    }

    /// The server may not hear of the end, and go on with what is under way.
    fn leave(&mut self, link: Link) {
        if self.rng.percent(30) {
            self.ghosts.push((link.session, link.up));
        } else {
            self.server.disconnect(link.session);
        }
    }

    /// Directions stop one by one, and go on in an order of their own.
    fn swizzle(&mut self) {
        let mut from = self.now;
        let end = 5_000;
        for device in &mut self.devices {
            let Some(link) = &mut device.link else {
                continue;
            };
            for lane in [&mut link.up, &mut link.down] {
                if self.dice.percent(40) {
                    from = from.plus_millis(self.dice.below(300));
                    lane.stall(from, from.plus_millis(self.dice.below(end)));
                }
            }
        }
    }

    pub(super) fn kill(&mut self, i: usize) {
        let pause = self.rng.below(5_000);
        self.devices[i].patience.disturbed();
        self.model.sent.forget(&self.devices[i].name);
        let link = self.devices[i].kill(self.now.plus_millis(pause));
        if let Some(link) = link {
            self.leave(link);
        }
    }

    /// The engine could not commit: its process dies, or it goes on without a connection.
    pub(super) fn burn_out(&mut self, i: usize) -> anyhow::Result<()> {
        let survives = self.plan.has(Fault::FullDisk) || self.plan.has(Fault::BrokenDisk);
        let goes_on = survives && (!self.plan.has(Fault::Kill) || self.rng.percent(50));
        self.say(format!(
            "{} could not commit, goes on: {goes_on}",
            self.devices[i].name
        ));
        self.model.counts.add("commits failed");
        self.devices[i].put_out_fuse();
        if goes_on {
            // What was committed before is not told yet: rows may have other keys.
            self.model.sent.forget(&self.devices[i].name);
            // Nor is a checkpoint before the one that failed: the app has written nothing since.
            self.look_at_checkpoint(i)?;
            match &self.devices[i].link {
                Some(_) => self.cut(i),
                None => Ok(()),
            }
        } else {
            self.kill(i);
            Ok(())
        }
    }

    pub(super) fn stop_server(&mut self) -> anyhow::Result<()> {
        self.server.stop();
        self.server.mend_disk();
        self.disk_at = None;
        self.ghosts.clear();
        self.commit_at = None;
        let longest = match self.rng.percent(OUTAGE_PERCENT) {
            true => OUTAGE_MS,
            false => 3_000,
        };
        let pause = self.rng.below(longest);
        self.server_at = Some(self.now.plus_millis(pause));
        for i in 0..self.devices.len() {
            self.devices[i].patience.disturbed();
            let hears_of_it = self.devices[i]
                .link
                .as_ref()
                .is_some_and(|link| !link.is_dark);
            if hears_of_it {
                self.devices[i].disconnected(self.now)?;
            }
        }
        Ok(())
    }

    fn restore_server(&mut self) -> anyhow::Result<()> {
        let Some((copy, at)) = self.server_copy.take() else {
            return Ok(());
        };
        self.stop_server()?;
        self.server.restore(&copy)?;
        let sql = "SELECT max(version) FROM syncline_log";
        let version: Option<i64> = self.server.database.query_row(sql, [], |row| row.get(0))?;
        let version = Version(version.unwrap_or_default().cast_unsigned());
        self.model.server_restored(version, at);
        self.oracle.winners.forget_all();
        self.say(format!("the server went back to {version:?}"));
        for device in &mut self.devices {
            device.server_lost(version);
        }
        self.server_losses.push((self.now, version));
        Ok(())
    }

    fn restore_device(&mut self) -> anyhow::Result<()> {
        if self.device_copies.is_empty() {
            return Ok(());
        }
        let which = usize::try_from(self.dice.below(self.device_copies.len() as u64))?;
        let (i, copy) = self.device_copies.swap_remove(which);
        let at = copy.at;
        let mut parked = Vec::new();
        if let Some(replica) = &self.devices[i].replica {
            for changeset in self.devices[i].parked()? {
                parked.push((changeset.id, self.model.steps_of(replica, &changeset)?));
            }
        }
        self.kill(i);
        let device = &mut self.devices[i];
        device.parked_before.extend(parked);
        device.restore(&copy)?;
        for (_, version) in self.server_losses.iter().filter(|(when, _)| *when >= at) {
            device.server_lost(*version);
        }
        let name = device.name.clone();
        self.model.forgive(&name, at);
        self.model.forget_reads(&name);
        self.say(format!("{name} went back to {at:?}"));
        Ok(())
    }

    fn copy_device(&mut self, i: usize) -> anyhow::Result<()> {
        if self.devices.len() >= DEVICES_MAX || !self.seal_whole(i)? {
            return Ok(());
        }
        let name = format!("d{}", self.devices.len());
        self.say(format!("{name} is a copy of {}", self.devices[i].name));
        if self.devices[i].greets {
            self.devices[i].twin_for = 2;
        }
        let copy = self.devices[i].copied(name, self.now)?;
        self.devices.push(copy);
        Ok(())
    }

    /// Another program writes the server's database.
    fn write_outside(&mut self) -> anyhow::Result<()> {
        let app = std::rc::Rc::clone(&self.model.app);
        let with_keys = self.dice.percent(50);
        let database = &self.server.database;
        database.pragma_update(None, "foreign_keys", with_keys)?;
        let mut author = Author {
            conn: database,
            rng: &mut self.dice,
            name: "server",
            next_id: &mut self.next_id,
        };
        let script = app.script(&mut author)?;
        let done = run(database, &script, &mut self.dice).context("write outside")?;
        self.say(format!("outside, {done}: {}", script.statements.join("; ")));
        if let Some(step) = script.step.filter(|_| done) {
            self.model.stepped(step, "server", self.now);
        }
        if self.server.is_up() {
            self.commit_soon();
        }
        Ok(())
    }

    /// The server keeps of its log, and of the history of rows, only so much.
    pub(super) fn keep(&mut self, retention_ms: u64) -> anyhow::Result<()> {
        let age = retention_ms * 1_000;
        let horizon = self.server.local(self.now).0.saturating_sub(age);
        self.server.trim_history(Version(horizon))?;
        self.trim(age)
    }

    /// The server forgets what is older than so many microseconds.
    fn trim(&mut self, age: u64) -> anyhow::Result<()> {
        let horizon = Version(self.server.local(self.now).0.saturating_sub(age));
        self.server.trim(horizon)?;
        if self.server.is_up() {
            self.model.horizon = self.model.horizon.max(horizon);
        }
        Ok(())
    }
}
