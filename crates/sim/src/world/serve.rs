//! What the server does when it is due.

use syncline_core::{Timestamp, Version, wire::Verdict};

use super::{START, World};
use crate::{trace::Way, truth::Truth};

/// Commits of which those whom they concern are told a moment later.
const LATE_PERCENT: u64 = 25;

impl World {
    /// What is due at the server.
    pub(super) fn serve(&mut self) -> anyhow::Result<()> {
        let now = self.now;
        if self.server_at.is_some_and(|at| at <= now) {
            self.server_at = None;
            for entry in self.server.resume(now)? {
                self.oracle.winners.pass_over(&entry);
            }
            self.oracle.columns = self.server.columns();
            self.oracle.winners.strategies = self.server.strategies();
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
                let at = Timestamp(now.0 - START.0);
                self.trace
                    .frame(at, &format!("late on {session:?}"), Way::ToServer, &frame);
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
        for (submission, result) in done.submissions.iter().zip(&done.results) {
            self.say(format!("committed {result:?}"));
            self.model.answered(result, has_disk)?;
            if matches!(result.verdict, Verdict::Refused(_)) {
                self.model.refused(submission);
            }
        }
        if !done.log.is_empty() {
            self.say(format!("the log ends at {:?}", done.head));
            self.remember(done.head, done.log.len())?;
        }
        if self.model.app.is_own() {
            self.oracle
                .judge(&done, &self.model, &self.server.database)?;
        }
        // Else sessions go on for a while without knowing of it.
        if !self.rng.percent(LATE_PERCENT) {
            self.server.hand_over(self.now)?;
        }
        Ok(())
    }

    pub(super) fn remember(&mut self, version: Version, entries: usize) -> anyhow::Result<()> {
        let truth = Truth::read(
            &mut self.model.reader,
            &self.server.database,
            &self.model.app,
            &self.model.numbers,
            self.server.setup,
            &self.server.plan,
        )?;
        self.model.moment(version, truth, entries);
        Ok(())
    }
}
