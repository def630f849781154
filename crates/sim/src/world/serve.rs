//! What the server does when it is due.

use syncline_core::{Timestamp, Version};

use super::{START, World};
use crate::{describe::client_frame, schema::Truth};

impl World {
    /// What is due at the server.
    pub(super) fn serve(&mut self) -> anyhow::Result<()> {
        let now = self.now;
        if self.server_at.is_some_and(|at| at <= now) {
            self.server_at = None;
            self.server.resume(now)?;
            self.say("the server is up");
            let head = self.server_head()?;
            self.remember(head, 2)?;
            self.commit_at = Some(now);
        }
        if self.disk_at.is_some_and(|at| at <= now) {
            self.disk_at = None;
            self.server.mend_disk();
        }
        self.hear_ghosts()?;
        if self.commit_at.is_some_and(|at| at <= now) {
            self.commit_at = None;
            self.commit()?;
            if self.server.has_waiting() {
                self.commit_soon();
            }
        }
        self.server.tick(now)?;
        self.bury_server()
    }

    /// What a connection sent before its other end was gone.
    pub(super) fn hear_ghosts(&mut self) -> anyhow::Result<()> {
        let now = self.now;
        for i in 0..self.ghosts.len() {
            while self.server.listens(self.ghosts[i].0)
                && let Some(frame) = self.ghosts[i].1.receive(now)
            {
                let session = self.ghosts[i].0;
                let text = client_frame(&frame, &self.model.numbers);
                self.trace.line(
                    Timestamp(now.0 - START.0),
                    format!("late on {session:?}: {text}"),
                );
                self.server.receive(session, &frame, now)?;
                if self.server.has_waiting() && self.commit_at.is_none() {
                    self.commit_soon();
                }
            }
        }
        Ok(())
    }

    /// A server that has died at a named point starts again after a while.
    pub(super) fn bury_server(&mut self) -> anyhow::Result<()> {
        if !self.server.is_dead() {
            return Ok(());
        }
        self.say("the server dies");
        self.stop_server()
    }

    pub(super) fn commit_soon(&mut self) {
        let pause = match self.rng.below(30) {
            0 => self.rng.below(3_000),
            _ => self.rng.below(6),
        };
        let at = self.now.plus_millis(pause);
        self.commit_at = Some(self.commit_at.map_or(at, |earlier| earlier.min(at)));
    }

    pub(super) fn commit(&mut self) -> anyhow::Result<()> {
        let max = usize::try_from(1 + self.rng.below(self.plan.group_max))?;
        let Some(done) = self.server.commit(max, self.now)? else {
            return Ok(());
        };
        let has_disk = self.disk_at.is_none();
        for result in &done.results {
            self.say(format!("committed {result:?}"));
            self.model.answered(result, has_disk)?;
        }
        if done.entries > 0 {
            self.say(format!("the log ends at {:?}", done.head));
            self.remember(done.head, done.entries)?;
        }
        if !self.model.app.is_own() {
            return Ok(());
        }
        self.oracle.judge(&done, &self.model, &self.server.database)
    }

    pub(super) fn remember(&mut self, version: Version, entries: usize) -> anyhow::Result<()> {
        let truth = Truth::read(
            &self.server.database,
            &self.model.app,
            &self.model.numbers,
            self.server.rules,
            &self.server.plan,
        )?;
        self.model.moment(version, truth, entries);
        Ok(())
    }
}
