//! A disk that is full, or fails, at any call.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Side;
use crate::{
    check,
    device::{Device, fleet},
    dice::Dice,
    disk::{Call, Disk, Errno},
    lab::Lab,
    ledger::Outcome,
    server::Server,
};

/// Transactions of the script whose calls are counted.
const OPERATIONS: u64 = 200;
/// Failed calls before the power goes, too, and everything is checked.
const FAULTS_PER_ROUND: u64 = 40;

/// What fails, how, and for how long (`None`: until somebody makes room).
const KINDS: &[(&[Call], Errno, Option<u64>)] = &[
    (&[Call::Write, Call::Name, Call::Open], Errno::NoSpace, None),
    (&[Call::Write], Errno::Io, Some(1)),
    (&[Call::Sync], Errno::Io, Some(1)),
    (&[Call::Read], Errno::Io, Some(1)),
    (&[Call::Open, Call::Name], Errno::Io, Some(1)),
];

pub(crate) fn run(
    lab: &mut Lab,
    dice: &mut Dice,
    outcome: &mut Outcome,
    side: Side,
    every: u64,
) -> Result<()> {
    for (number, &(calls, errno, times)) in KINDS.iter().enumerate() {
        let mut next = None;
        let (mut failed, mut told) = (0, 0);
        loop {
            let mut round = Round::begin(lab, dice, side)?;
            // The script without a fault says how many calls there are to fail.
            let before = round.disk.calls(calls)?;
            round.edit(OPERATIONS)?;
            let all = round.disk.calls(calls)? - before;
            let mut at = next.unwrap_or_else(|| dice.below(every.min(all)));
            let until = at + every * FAULTS_PER_ROUND;
            while at < all && at < until {
                failed += u64::from(
                    round
                        .fail(calls, errno, at, times)
                        .with_context(|| format!("{errno:?} at call {at} of {all} ({calls:?})"))?,
                );
                at += every;
            }
            told += round
                .end(lab, dice)
                .with_context(|| format!("{errno:?} ({calls:?})"))?;
            next = Some(at);
            if at >= all {
                break;
            }
        }
        outcome.faults += failed;
        println!(
            "  {}/{}: {errno:?} at {failed} calls ({calls:?}), {told} errors told",
            number + 1,
            KINDS.len()
        );
    }
    Ok(())
}

/// A server and an app, one of them on the disk that fails.
struct Round {
    server: Server,
    devices: Vec<Device>,
    disk: Disk,
    side: Side,
}

impl Round {
    fn begin(lab: &mut Lab, dice: &mut Dice, side: Side) -> Result<Self> {
        let folder = lab.round()?;
        let mut server = Server::start(lab, &folder, None)?;
        let journal = if dice.toss() { "wal" } else { "delete" };
        let mut devices = fleet(lab, &folder, &server, 1, journal)?;
        let quiet = ["--quiet", "--pace", "1000"];
        let disk = match side {
            Side::Server => {
                server.process.kill();
                let disk = Disk::new(lab, &folder.join("data"), "server")?;
                server.restart(lab, Some(&disk))?;
                devices[0].start(lab, None, &quiet)?;
                disk
            }
            Side::Device => {
                let disk = Disk::new(lab, &devices[0].folder.clone(), "device")?;
                devices[0].start(lab, Some(&disk), &quiet)?;
                disk
            }
        };
        Ok(Self {
            server,
            devices,
            disk,
            side,
        })
    }

    /// The app makes so many edits, and the server gets them.
    fn edit(&mut self, operations: u64) -> Result<()> {
        let device = &mut self.devices[0];
        let until = device.made + operations;
        device.tell("go");
        device.until("edits", |device| device.made >= until)?;
        device.drain()
    }

    /// Edits go on until a call has failed, and a little longer; whether one did. Afterwards the
    /// disk is well, and without a restart everything arrives.
    fn fail(&mut self, calls: &[Call], errno: Errno, at: u64, times: Option<u64>) -> Result<bool> {
        let before = self.disk.failed()?;
        self.disk.fail(calls, errno, at, times)?;
        let device = &mut self.devices[0];
        device.tell("go");
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while self.disk.failed()? == before && std::time::Instant::now() < deadline {
            device.hear();
            device.alive()?;
            ensure!(
                self.server.process.ended()?.is_none(),
                "the server ended: {}",
                self.server.process.errors()
            );
            std::thread::sleep(Duration::from_micros(500));
        }
        if times.is_none() {
            std::thread::sleep(Duration::from_millis(30));
        }
        let hit = self.disk.failed()? > before;
        self.disk.heal()?;
        device.tell("hurry");
        device.drain().context("after the disk was well again")?;
        check::acknowledged(&self.server, &self.devices)?;
        Ok(hit)
    }

    /// At last the power goes: what was acknowledged after a failed call must be on the disk.
    /// How many errors were told.
    fn end(mut self, lab: &Lab, dice: &mut Dice) -> Result<u64> {
        let mut told = u64::try_from(self.devices[0].notes.len())?;
        self.disk
            .cut_after(u64::from(u32::MAX), dice.below(u64::MAX))?;
        self.disk.cut()?;
        match self.side {
            Side::Server => {
                let _code = self.server.process.wait(crate::process::PATIENCE)?;
                let said = self.server.process.errors();
                ensure!(!said.contains("panicked"), "the server panicked: {said}");
                told += u64::try_from(said.lines().count())?;
                check::integrity(&self.server.database())?;
                self.server.restart(lab, None)?;
            }
            Side::Device => {
                self.devices[0].ended();
                self.devices[0].start(lab, None, &["--quiet"])?;
            }
        }
        check::acknowledged(&self.server, &self.devices)?;
        check::at_rest(lab, &self.server, &mut self.devices)?;
        Ok(told)
    }
}
