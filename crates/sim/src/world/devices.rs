//! What is due at a device, and what came of it.

use anyhow::{Context as _, bail};
use syncline_core::{Timestamp, wire::code};
use syncline_replica::{Event, Replica, ReplicaError};

use super::World;
use crate::{link::Link, model::sealed::tells_secret, plan::Fault, schema::Who, trace::Way};

/// Code of what is parked because its rows may not be seen any more.
const NO_ACCESS: &str = "no_access";

impl World {
    /// What is due at one device.
    pub(super) fn device_turn(&mut self, i: usize) -> anyhow::Result<()> {
        let now = self.now;
        let device = &mut self.devices[i];
        if device.replica.is_none() {
            if device.next_try > now {
                return Ok(());
            }
            device.open(now)?;
            self.forget_parked(i)?;
            self.say(format!("{} opens its file", self.devices[i].name));
            if self.devices[i].has_new_id()? {
                self.forked(i)?;
            }
            self.after_call(i)?;
            // Whenever it ended, what the file shows is a checkpoint; of what a restored server
            // lost another one may have the version, where its clock is behind.
            if self.seal(i)?
                && let Some(version) = self.devices[i].shown()?
                && self.devices[i]
                    .lost_after
                    .is_none_or(|lost| version <= lost)
            {
                let whos = self.whose_file(i);
                let device = &self.devices[i];
                self.model.check_file(device, version, &whos, true)?;
            }
        }
        if self.devices[i].cut_at.is_some_and(|at| at <= now) {
            self.go_deaf(i)?;
        }
        let device = &mut self.devices[i];
        if device.replica.is_some() && device.link.is_none() && device.next_try <= now {
            self.connect(i)?;
        }
        while let Some(link) = &mut self.devices[i].link
            && self.server.listens(link.session)
            && let Some(frame) = link.up.receive(now)
        {
            let session = link.session;
            self.say_frame(i, Way::ToServer, &frame);
            if self.model.app.has_on_demand() && tells_secret(&frame) {
                bail!("{} tells the server a secret", self.devices[i].name);
            }
            self.server.receive(session, &frame, now)?;
            self.bury_server()?;
            if self.server.has_waiting() && self.commit_at.is_none() {
                self.commit_soon();
            }
        }
        loop {
            let frames = self.arrived(i);
            if frames.is_empty() {
                break;
            }
            let frames = frames.iter().map(Vec::as_slice);
            self.call(i, |replica, now| replica.handle_all(frames, now))?;
        }
        let local = self.devices[i].local(now);
        let due = self.devices[i]
            .replica
            .as_ref()
            .and_then(Replica::poll_timeout);
        if due.is_some_and(|at| at <= local) {
            self.call(i, Replica::handle_timeout)?;
        }
        if self.devices[i].wake_at.is_some_and(|at| at <= now) {
            self.devices[i].wake_at = None;
            self.call(i, Replica::wake)?;
        }
        Ok(())
    }

    /// The frames that a device takes next.
    fn arrived(&mut self, i: usize) -> Vec<Vec<u8>> {
        let max = if self.plan.together { usize::MAX } else { 1 };
        let mut frames = Vec::new();
        while frames.len() < max
            && let Some(link) = &mut self.devices[i].link
            && let Some(frame) = link.down.receive(self.now)
        {
            self.say_frame(i, Way::ToDevice, &frame);
            frames.push(frame);
        }
        frames
    }

    /// An old copy may take for acknowledged what a restored server lost and then refused: that
    /// it was parked was known to the file that is gone, and nobody can know it who comes back
    /// below the horizon.
    fn forget_parked(&mut self, i: usize) -> anyhow::Result<()> {
        let before = std::mem::take(&mut self.devices[i].parked_before);
        let replica = self.devices[i].replica.as_ref();
        let queue = replica.map_or(Ok(Vec::new()), |r| r.queue(None, usize::MAX))?;
        for (id, steps) in before {
            if queue.iter().all(|other| other.id != id) {
                self.model.discarded(&steps);
            }
        }
        Ok(())
    }

    fn connect(&mut self, i: usize) -> anyhow::Result<()> {
        let now = self.now;
        self.model.counts.add("connections");
        let name = self.devices[i].name.clone();
        self.devices[i].patience.connects(now).context(name)?;
        let Some(session) = self.server.connect(self.devices[i].who, now) else {
            return self.devices[i].disconnected(now);
        };
        let name = self.devices[i].name.clone();
        self.say(format!("{name} connects as {session:?}"));
        let mut link = Link::new(session, self.plan.slow_ms);
        if self.is_resting {
            link.heal(now);
        }
        self.devices[i].link = Some(link);
        self.devices[i].greets = true;
        self.call(i, Replica::connect)
    }

    /// Calls a device's engine, if it runs, and looks at what came of it.
    pub(super) fn call(
        &mut self,
        i: usize,
        call: impl FnOnce(&mut Replica, Timestamp) -> Result<(), ReplicaError>,
    ) -> anyhow::Result<()> {
        self.devices[i].call(self.now, call)?;
        self.after_call(i)
    }

    pub(super) fn after_call(&mut self, i: usize) -> anyhow::Result<()> {
        if self.devices[i].is_stuck() {
            return self.burn_out(i);
        }
        if self.devices[i].dies_before_transmit {
            self.say(format!("{} dies before it sends", self.devices[i].name));
            self.kill(i);
            return Ok(());
        }
        self.devices[i].transmit(self.now, &mut self.model.sent);
        while let Some(event) = self.devices[i].poll_event() {
            self.judge(i, &event)?;
        }
        self.look_at_checkpoint(i)?;
        self.model.check_own_steps(&self.devices[i])?;
        let device = &self.devices[i];
        let closing = device
            .replica
            .as_ref()
            .and_then(|replica| replica.closing())
            .cloned();
        if let Some(closing) = closing {
            self.say(format!("{} closes: {closing:?}", self.devices[i].name));
            if closing.code == code::MALFORMED {
                bail!(
                    "{} does not understand the server: {closing:?}",
                    self.devices[i].name
                );
            }
            self.hang_up(i)?;
        }
        Ok(())
    }

    fn judge(&mut self, i: usize, event: &Event) -> anyhow::Result<()> {
        let device = &self.devices[i];
        match event {
            Event::DigestMismatch { table } => {
                bail!(
                    "{}: the rows of {table} differ from the server's digest",
                    device.name
                )
            }
            Event::RowUnfit { table, row, reason } => {
                bail!("{}: {table} {row} cannot sync: {reason}", device.name)
            }
            Event::ChangeRefused {
                changeset,
                code,
                parked,
                ..
            } => {
                self.model.sent.parked(&device.name, parked);
                // Rows that went out of sight may be in what was accepted, too.
                if code != NO_ACCESS {
                    self.model.check_dependants(device, *changeset)?;
                }
            }
            Event::Rekeyed { .. } => self.model.sent.forget(&device.name),
            Event::Loading(_) | Event::RowsChanged(_) => return Ok(()),
            Event::Connected { forked: true, .. } => {
                self.devices[i].has_new_id()?;
                self.forked(i)?;
            }
            // Of a cursor that the horizon has passed no server can say that it never gave it:
            // what it lost before is lost (spec OB4).
            Event::Resynced => {
                if device.lost_after.is_some() && device.checkpoint < self.model.horizon {
                    self.model.forgive_missing(&device.name);
                }
            }
            Event::Connected { forked: false, .. } => self.devices[i].welcomed(false),
            Event::EditLost { .. }
            | Event::ConflictOpened { .. }
            | Event::ConflictResolved { .. }
            | Event::Live { .. }
            | Event::Diverged { .. }
            | Event::AccessLost { .. }
            | Event::CellsUnreadable { .. }
            | Event::Released { .. }
            | Event::Subscribed(_)
            | Event::SubscriptionsRefused { .. }
            | Event::LoadingRefused { .. }
            | Event::RowUnstorable { .. }
            | Event::ChangeHidden { .. }
            | Event::TablesLeftOut { .. }
            | Event::Rescanned { .. } => {}
        }
        let text = format!("{event:?}");
        let kind = text.split([' ', '(']).next().unwrap_or_default();
        self.model.counts.add(format!("event {kind}"));
        self.say(format!("{}: {text}", self.devices[i].name));
        Ok(())
    }

    /// The server took a device's file for another device.
    fn forked(&mut self, i: usize) -> anyhow::Result<()> {
        self.devices[i].welcomed(true);
        let replica = self.devices[i].replica.as_ref();
        let queue = replica.map_or(Ok(Vec::new()), |r| r.queue(None, usize::MAX))?;
        self.model.sent.doubt(&queue);
        Ok(())
    }

    pub(super) fn look_at_checkpoint(&mut self, i: usize) -> anyhow::Result<()> {
        let device = &mut self.devices[i];
        let Some(replica) = &device.replica else {
            return Ok(());
        };
        let Some(version) = replica.checkpoint()?.filter(|v| *v != device.checkpoint) else {
            return Ok(());
        };
        if version < device.checkpoint && !device.may_go_back {
            bail!(
                "{} went back from {:?} to {version:?}",
                device.name,
                device.checkpoint
            );
        }
        // What a file says before it has met the server, or a silent link brings late, is of before.
        let is_of_now =
            replica.activity()?.connected && device.link.as_ref().is_some_and(|link| !link.is_dark);
        device.may_go_back &= !is_of_now;
        device.lost_after = device.lost_after.filter(|_| !is_of_now);
        device.checkpoint = version;
        // Of what a restored server lost another checkpoint may have the version.
        let is_lost = device.lost_after.is_some_and(|lost| version > lost);
        self.say(format!("{} is at {version:?}", self.devices[i].name));
        if is_lost {
            return Ok(());
        }
        let whos = match is_of_now {
            true => vec![self.devices[i].who],
            false => self.whose_file(i),
        };
        let device = &self.devices[i];
        self.model.check_file(device, version, &whos, !is_of_now)?;
        Ok(())
    }

    /// Whose rows a file may hold that was not heard of since: of which claims they are, no file
    /// says.
    fn whose_file(&self, i: usize) -> Vec<Who<'static>> {
        let who = self.devices[i].who;
        match self.plan.has(Fault::Claims) {
            true => who.in_any_team().to_vec(),
            false => vec![who],
        }
    }

    /// Ends the connection from the device's side.
    pub(super) fn hang_up(&mut self, i: usize) -> anyhow::Result<()> {
        if let Some(link) = &self.devices[i].link {
            let session = link.session;
            self.server.disconnect(session);
        }
        self.devices[i].disconnected(self.now)
    }
}
