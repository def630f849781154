//! `kill -9`, at random instants, while apps write.

use anyhow::{Context as _, Result};

use super::Side;
use crate::{
    check,
    device::{Device, fleet},
    dice::Dice,
    lab::Lab,
    ledger::Outcome,
    server::Server,
};

/// Kills before everything is brought to rest, checked, and begun anew.
const KILLS_PER_ROUND: u64 = 25;

pub(crate) fn run(
    lab: &mut Lab,
    dice: &mut Dice,
    outcome: &mut Outcome,
    side: Side,
    times: u64,
) -> Result<()> {
    while outcome.kills < times {
        let folder = lab.round()?;
        let mut server = Server::start(lab, &folder, None)?;
        let journal = if dice.toss() { "wal" } else { "delete" };
        let mut devices = fleet(lab, &folder, &server, 2, journal)?;
        for device in &mut devices {
            device.start(lab, None, &[])?;
        }
        let until = times.min(outcome.kills + KILLS_PER_ROUND);
        while outcome.kills < until {
            let hit = usize::try_from(dice.below(2))?;
            if dice.toss() {
                devices[hit].until_acked()?;
            }
            std::thread::sleep(dice.millis(150));
            match side {
                Side::Server => kill_server(lab, &mut server, &mut devices)?,
                Side::Device => kill_device(lab, &server, &mut devices, hit)?,
            }
            outcome.kills += 1;
        }
        check::at_rest(lab, &server, &mut devices)
            .with_context(|| format!("at rest after {} kills, journal {journal}", outcome.kills))?;
        let edits: u64 = devices.iter().map(|device| device.made).sum();
        println!(
            "  {} kills; {edits} edits in this round, journal {journal}",
            outcome.kills
        );
    }
    Ok(())
}

fn kill_server(lab: &Lab, server: &mut Server, devices: &mut [Device]) -> Result<()> {
    server.process.kill();
    for device in devices.iter_mut() {
        device.hear();
    }
    server.restart(lab, None).context("after kill -9")?;
    for device in devices.iter_mut() {
        device.tell("hurry");
    }
    check::acknowledged(server, devices)
}

fn kill_device(lab: &Lab, server: &Server, devices: &mut [Device], hit: usize) -> Result<()> {
    devices[hit].kill();
    check::acknowledged(server, devices)?;
    devices[hit].start(lab, None, &[]).context("after kill -9")
}
