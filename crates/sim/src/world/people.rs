//! What people do at their devices: they use the app, and look at what was refused.

use std::rc::Rc;

use syncline_core::Version;
use syncline_replica::Replica;

use super::{BULK_PERCENT, World};
use crate::{
    app::{Author, BOARDS, run},
    checker::waiting,
};

/// Edits that several devices make at once, or somebody one after the other.
const DUEL_PERCENT: u64 = 6;
const TAPS_PERCENT: u64 = 30;

impl World {
    /// Somebody uses the app of one of the devices.
    pub(super) fn edit(&mut self) -> anyhow::Result<()> {
        if self.model.app.is_own() && self.dice.percent(DUEL_PERCENT) {
            return match self.dice.percent(TAPS_PERCENT) {
                true => self.taps(),
                false => self.duel(),
            };
        }
        let i = self.any_device();
        let now = self.now;
        let device = &mut self.devices[i];
        device.local(now);
        let app = Rc::clone(&self.model.app);
        let last = app.tables().last().map_or("", |table| table.name);
        let has_tables = "SELECT 1 FROM sqlite_schema WHERE name = ?1";
        if !device.app.prepare_cached(has_tables)?.exists([last])? {
            return Ok(());
        }
        self.model.check_shown(&self.devices[i])?;
        let device = &mut self.devices[i];
        let mut author = Author {
            conn: &device.app,
            rng: &mut self.dice,
            name: &device.name,
            next_id: &mut device.next_id,
        };
        let mut script = match app.is_own() && self.plan.bulk && author.rng.percent(BULK_PERCENT) {
            true => author.bulk()?,
            false => app.script(&mut author)?,
        };
        // Before a device has met its server, the strategies of its columns are not known.
        let has_met = device.checkpoint > Version::ZERO;
        if script.step.is_some() && !has_met {
            script = Default::default();
        }
        let done = run(&device.app, &script, &mut self.dice)?;
        let wait = match self.dice.below(10) {
            0 => self.dice.below(20_000),
            1..=3 => self.dice.below(500),
            _ => self.dice.below(20),
        };
        let at = now.plus_millis(wait);
        device.wake_at = Some(device.wake_at.map_or(at, |earlier| earlier.min(at)));
        let name = device.name.clone();
        self.say(format!(
            "{name} {}{}: {}",
            if done { "writes" } else { "fails to write" },
            if script.is_marked { " (marked)" } else { "" },
            script.statements.join("; ")
        ));
        self.model
            .counts
            .add(if done { "edits" } else { "edits that failed" });
        if let Some(step) = script.step.filter(|_| done) {
            self.model.stepped(step, &name, now);
        }
        Ok(())
    }

    /// People on several devices write the same row in the same moment.
    fn duel(&mut self) -> anyhow::Result<()> {
        let board = self.dice.below(BOARDS);
        let first = self.any_device();
        for i in (first..self.devices.len()).take(3) {
            let device = &mut self.devices[i];
            device.local(self.now);
            if device.checkpoint == Version::ZERO {
                continue;
            }
            let mut author = Author {
                conn: &device.app,
                rng: &mut self.dice,
                name: &device.name,
                next_id: &mut device.next_id,
            };
            let script = author.duel(board)?;
            let done = run(&device.app, &script, &mut self.dice)?;
            let name = device.name.clone();
            let statements = script.statements.join("; ");
            self.say(format!("{name} writes at once, {done}: {statements}"));
            self.model.counts.add("edits at once");
            self.seal(i)?;
        }
        Ok(())
    }

    /// Somebody counts up, again and again, and the engine looks each time: on a device that is
    /// not connected, if there is one, it joins what was never sent. All steps wait then.
    fn taps(&mut self) -> anyhow::Result<()> {
        let any = self.any_device();
        let is_away = |i: &usize| self.devices[*i].link.is_none();
        let i = (0..self.devices.len()).find(is_away).unwrap_or(any);
        let id = format!("b{}", self.dice.below(BOARDS));
        self.devices[i].local(self.now);
        if self.devices[i].checkpoint == Version::ZERO || !self.seal(i)? {
            return Ok(());
        }
        let waits = |device: &crate::device::Device| {
            let queue = device.replica.as_ref().map(|r| r.queue(None, usize::MAX));
            let queue = queue.transpose()?.unwrap_or_default();
            anyhow::Ok(waiting::votes_that_wait(&queue, &id))
        };
        let before = waits(&self.devices[i])?;
        let mut sum = 0;
        for _ in 0..2 + self.dice.below(2) {
            let step = 1 + self.dice.below(9).cast_signed();
            let app = &self.devices[i].app;
            let sql = "UPDATE boards SET votes = votes + ?2 WHERE id = ?1 AND votes IS NOT NULL";
            match app.execute(sql, (&id, step)) {
                Ok(0) | Err(_) => return Ok(()),
                Ok(_) => sum += step,
            }
            if !self.seal(i)? {
                return Ok(());
            }
        }
        let name = self.devices[i].name.clone();
        self.say(format!("{name} counts {sum} more votes of {id}"));
        self.model.counts.add("taps");
        let after = waits(&self.devices[i])?;
        if let (Some(before), Some(after)) = (before, after)
            && after != before + sum
        {
            anyhow::bail!(
                "{name} counted {sum} more votes of {id}, of which {after} wait, and {before} before"
            );
        }
        Ok(())
    }

    /// Has the engine look at the file. What is not sealed when a file is copied is sealed by each
    /// copy for itself, and so counts as the edit of two people. Whether the engine did it.
    pub(super) fn seal(&mut self, i: usize) -> anyhow::Result<bool> {
        let is_done = self.devices[i].call(self.now, Replica::wake)?.is_some();
        self.after_call(i)?;
        Ok(is_done && self.devices[i].replica.is_some())
    }

    /// As [`World::seal`], and whether rows from before attaching are sealed, too: those that are not
    /// each copy of the file brings along as its own, and counters and lists add up (spec ME19).
    pub(super) fn seal_whole(&mut self, i: usize) -> anyhow::Result<bool> {
        let is_sealed = self.seal(i)?;
        let Some(replica) = self.devices[i].replica.as_ref().filter(|_| is_sealed) else {
            return Ok(false);
        };
        Ok(replica.status()?.tables.iter().all(|table| !table.seeding))
    }

    /// Somebody looks at what was refused, and at conflicts.
    pub(super) fn tend_queue(&mut self) -> anyhow::Result<()> {
        use syncline_replica::{QueueState, Resolution};
        let i = self.any_device();
        let Some(replica) = &self.devices[i].replica else {
            return Ok(());
        };
        let parked: Vec<_> = replica
            .queue(None, usize::MAX)?
            .into_iter()
            .filter(|changeset| matches!(changeset.state, QueueState::Parked { .. }))
            .collect();
        let conflicts = replica.status()?.conflicts;
        if !parked.is_empty() {
            let changeset = self.dice.pick(&parked).clone();
            let retry = self.dice.percent(60);
            if !retry {
                let steps = self.model.steps_of(replica, &changeset)?;
                self.model.discarded(&steps);
            }
            let what = if retry { "retries" } else { "discards" };
            self.say(format!("{} {what} {}", self.devices[i].name, changeset.id));
            self.model.counts.add(what);
            let id = changeset.id;
            self.call(i, |replica, now| match retry {
                true => replica.retry(id, now).map(drop),
                false => replica.discard(id),
            })?;
        } else if conflicts > 0 {
            let conflict = replica.conflicts(true)?.swap_remove(0);
            let resolution = match self.dice.percent(50) {
                true => Resolution::Mine,
                false => Resolution::Theirs,
            };
            self.say(format!("{} resolves {}", self.devices[i].name, conflict.id));
            self.model.counts.add("resolves");
            let now = self.devices[i].local(self.now);
            let device = &mut self.devices[i];
            if let Some(replica) = &mut device.replica {
                // It may be refused: the row may be gone meanwhile.
                let resolved = replica.resolve(&conflict.id, &resolution, now);
                let told = format!("{} resolved: {resolved:?}", device.name);
                self.say(told);
                self.after_call(i)?;
            }
        }
        Ok(())
    }
}
