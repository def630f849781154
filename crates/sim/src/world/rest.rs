//! Faults end, everything comes to rest, and then it all has to fit.

use anyhow::bail;
use rusqlite::Connection;
use syncline_core::Timestamp;

use super::{Sizes, World};
use crate::{checker::liveness::REST_WITHIN_MS, device::Device, truth::Truth};

const LOOK_EVERY_MS: u64 = 250;
/// A server that was away for long is back this soon after faults have ended.
const BACK_WITHIN_MS: u64 = 3_000;

/// Who has something left to do.
enum Unrest {
    Server(&'static str),
    /// By position.
    Device(usize),
}

impl Unrest {
    fn told(&self, devices: &[Device]) -> anyhow::Result<String> {
        match self {
            Self::Server(why) => Ok((*why).to_owned()),
            Self::Device(i) => devices[*i].unrest(),
        }
    }
}

impl World {
    pub(super) fn come_to_rest(&mut self) -> anyhow::Result<()> {
        self.say("faults end");
        self.model.counts.add("rounds");
        self.server.mend_disk();
        self.server.forget_crash();
        self.disk_at = None;
        let soon = self.now.plus_millis(BACK_WITHIN_MS);
        self.server_at = self.server_at.map(|at| at.min(soon));
        for i in 0..self.devices.len() {
            self.devices[i].put_out_fuse();
            self.devices[i].dies_before_transmit = false;
            self.devices[i].cut_at = None;
            if let Some(link) = &mut self.devices[i].link {
                link.heal(self.now);
            }
            let is_dark = self.devices[i]
                .link
                .as_ref()
                .is_some_and(|link| link.is_dark);
            if is_dark {
                self.cut(i)?;
            }
        }
        self.is_resting = true;
        let until = self.now.plus_millis(REST_WITHIN_MS);
        loop {
            self.advance(self.now.plus_millis(LOOK_EVERY_MS))?;
            let Some(unrest) = self.unrest()? else {
                break;
            };
            if self.now > until {
                bail!("{}", unrest.told(&self.devices)?);
            }
        }
        self.is_resting = false;
        for link in self.devices.iter_mut().filter_map(|d| d.link.as_mut()) {
            link.falls_ill();
        }
        Ok(())
    }

    fn unrest(&mut self) -> anyhow::Result<Option<Unrest>> {
        if !self.server.is_up() || self.commit_at.is_some() || self.server.has_waiting() {
            return Ok(Some(Unrest::Server("the server has something to do")));
        }
        // A server looks for what others wrote again and again, also after its disk failed.
        let sql = "SELECT EXISTS (SELECT 1 FROM syncline_pending)";
        if self.server.database.query_row(sql, [], |row| row.get(0))? {
            self.commit_at = Some(self.now);
            return Ok(Some(Unrest::Server("what others wrote is not in the log")));
        }
        for (i, device) in self.devices.iter().enumerate() {
            if !device.is_at_rest()? {
                return Ok(Some(Unrest::Device(i)));
            }
        }
        Ok(None)
    }

    /// Notes how large files are.
    pub(super) fn weigh(&mut self) -> anyhow::Result<()> {
        let bytes = |conn: &Connection| {
            let sql = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
            conn.query_row(sql, [], |row| row.get::<_, i64>(0))
        };
        let devices = self.devices.iter().map(|device| bytes(&device.app));
        let largest = devices.collect::<Result<Vec<_>, _>>()?.into_iter().max();
        self.sizes.push(Sizes {
            seconds: self.seconds(),
            server_bytes: bytes(&self.server.database)?.cast_unsigned(),
            device_bytes: largest.unwrap_or_default().cast_unsigned(),
        });
        Ok(())
    }

    pub(super) fn check_rest(&mut self) -> anyhow::Result<()> {
        let head = self.server_head()?;
        let truth = Truth::read(
            &mut self.model.reader,
            &self.server.database,
            &self.model.app,
            &self.model.numbers,
            self.server.setup,
            &self.server.plan,
        )?;
        self.model.moment(head, truth.clone(), 1);
        for i in 0..self.devices.len() {
            let device = &mut self.devices[i];
            let name = device.name.clone();
            let differences = device.call(self.now, |replica, now| replica.check_local(10, now))?;
            if differences.as_ref().is_none_or(|found| !found.is_empty()) {
                bail!("the books of {name} disagree with its tables: {differences:?}");
            }
            if !self.model.check_device(&self.devices[i], head)? {
                bail!("{name} cannot be compared");
            }
        }
        self.model.check_rest(&truth, &self.devices)?;
        self.model.check_log(&self.server.database)?;
        let app = std::rc::Rc::clone(&self.model.app);
        self.server.audit(app.users())?;
        let at = Timestamp(self.now.0 - super::START.0);
        self.trace.line(at, "everything is at rest");
        Ok(())
    }
}
