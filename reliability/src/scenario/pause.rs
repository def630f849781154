//! A process that stands still for a while, as a laptop with a closed lid does.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Side;
use crate::{check, device::fleet, dice::Dice, lab::Lab, ledger::Outcome, server::Server};

pub(crate) fn run(
    lab: &mut Lab,
    dice: &mut Dice,
    outcome: &mut Outcome,
    side: Side,
    times: u64,
    seconds: u64,
) -> Result<()> {
    for _ in 0..times {
        let folder = lab.round()?;
        let server = Server::start(lab, &folder, None)?;
        let mut devices = fleet(lab, &folder, &server, 2, "wal")?;
        for device in &mut devices {
            device.start(lab, None, &["--pace", "20000"])?;
            device.until_acked()?;
        }
        std::thread::sleep(dice.millis(200));
        signal(&server, &devices, side, "STOP")?;
        std::thread::sleep(Duration::from_secs(seconds));
        signal(&server, &devices, side, "CONT")?;
        outcome.faults += 1;
        for device in &mut devices {
            device.drain().context("after the pause")?;
        }
        check::acknowledged(&server, &devices)?;
        check::at_rest(lab, &server, &mut devices)?;
    }
    Ok(())
}

fn signal(
    server: &Server,
    devices: &[crate::device::Device],
    side: Side,
    name: &str,
) -> Result<()> {
    let process = match side {
        Side::Server => Some(&server.process),
        Side::Device => devices[0].process.as_ref(),
    };
    process.context("it runs")?.signal(name)
}
