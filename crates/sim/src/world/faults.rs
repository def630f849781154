//! What goes wrong.

use anyhow::Context as _;
use syncline_core::Version;

use super::World;
use crate::{
    app::{Author, run},
    plan::Fault,
};

/// Most devices of a run, copies included.
const DEVICES_MAX: usize = 8;

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
                if self.rng.percent(50) {
                    self.kill(i);
                } else {
                    // It dies in the middle of what it does next.
                    let commits = self.rng.below(4);
                    self.devices[i].light_fuse(commits);
                }
                Ok(())
            }
            Fault::FullDisk => {
                let commits = self.rng.below(3);
                self.devices[i].light_fuse(commits);
                Ok(())
            }
            Fault::Restart => self.stop_server(),
            Fault::RestoreServer => self.restore_server(),
            Fault::RestoreDevice => self.restore_device(),
            Fault::CopyDevice => self.copy_device(i),
            Fault::Outsider => self.write_outside(),
            Fault::Clock => {
                self.devices[i].skew = self.skew() * 1_000;
                Ok(())
            }
            Fault::Trim => self.trim(),
            Fault::Rules => {
                self.server.rules = self.server.rules.other();
                self.stop_server()
            }
        }
    }

    /// The connection ends; the server may not hear of it.
    pub(super) fn cut(&mut self, i: usize) -> anyhow::Result<()> {
        let Some(link) = &self.devices[i].link else {
            return Ok(());
        };
        let session = link.session;
        self.leave(session);
        self.devices[i].disconnected(self.now)
    }

    fn leave(&mut self, session: syncline_server::SessionId) {
        if self.rng.percent(30) {
            self.ghosts.push(session);
        } else {
            self.server.disconnect(session);
        }
    }

    pub(super) fn kill(&mut self, i: usize) {
        let pause = self.rng.below(5_000);
        let link = self.devices[i].kill(self.now.plus_millis(pause));
        if let Some(link) = link {
            self.leave(link.session);
        }
    }

    /// The engine could not commit: its process dies, or it goes on without a connection.
    pub(super) fn burn_out(&mut self, i: usize) -> anyhow::Result<()> {
        let goes_on = self.plan.full_disks && (!self.plan.kills || self.rng.percent(50));
        self.say(format!(
            "{} could not commit, goes on: {goes_on}",
            self.devices[i].name
        ));
        self.model.counts.add("commits failed");
        self.devices[i].put_out_fuse();
        if goes_on {
            match &self.devices[i].link {
                Some(_) => self.cut(i),
                None => Ok(()),
            }
        } else {
            self.kill(i);
            Ok(())
        }
    }

    fn stop_server(&mut self) -> anyhow::Result<()> {
        self.server.stop();
        self.ghosts.clear();
        self.commit_at = None;
        let pause = self.rng.below(3_000);
        self.server_at = Some(self.now.plus_millis(pause));
        for i in 0..self.devices.len() {
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
        self.say(format!("the server went back to {version:?}"));
        for device in &mut self.devices {
            device.may_go_back = true;
        }
        Ok(())
    }

    fn restore_device(&mut self) -> anyhow::Result<()> {
        if self.device_copies.is_empty() {
            return Ok(());
        }
        let which = usize::try_from(self.rng.below(self.device_copies.len() as u64))?;
        let (i, copy, at) = self.device_copies.swap_remove(which);
        let parked = self.devices[i].parked()?;
        self.kill(i);
        let device = &mut self.devices[i];
        device.parked_before.extend(parked);
        device.restore(&copy)?;
        let name = device.name.clone();
        self.model.forgive(&name, at);
        self.say(format!("{name} went back to {at:?}"));
        Ok(())
    }

    fn copy_device(&mut self, i: usize) -> anyhow::Result<()> {
        if self.devices.len() >= DEVICES_MAX || !self.seal(i)? {
            return Ok(());
        }
        let name = format!("d{}", self.devices.len());
        self.say(format!("{name} is a copy of {}", self.devices[i].name));
        let copy = self.devices[i].copied(name, self.now)?;
        self.devices.push(copy);
        Ok(())
    }

    /// Another program writes the server's database.
    fn write_outside(&mut self) -> anyhow::Result<()> {
        let with_keys = self.rng.percent(50);
        let database = &self.server.database;
        database.pragma_update(None, "foreign_keys", with_keys)?;
        let mut author = Author {
            conn: database,
            rng: &mut self.rng,
            name: "server",
            next_id: &mut self.next_id,
        };
        let script = author.script()?;
        let done = run(database, &script, &mut self.rng).context("write outside")?;
        self.say(format!("outside, {done}: {}", script.statements.join("; ")));
        if let Some(step) = script.step.filter(|_| done) {
            self.model.stepped(step, "server", self.now);
        }
        if self.server.is_up() {
            self.commit_soon();
        }
        Ok(())
    }

    /// The server forgets all but the last moments.
    fn trim(&mut self) -> anyhow::Result<()> {
        let age = self.rng.below(20_000) * 1_000;
        let horizon = Version(self.now.0.saturating_sub(age));
        self.server.trim(horizon)?;
        if self.server.is_up() {
            self.model.horizon = self.model.horizon.max(horizon);
        }
        Ok(())
    }
}
