//! Bits of a replica's file are others than they were: a row, the outbox, the engine's own tables,
//! whatever lies there.

use anyhow::{Context as _, Result, ensure};

use crate::{check, device::fleet, dice::Dice, lab::Lab, ledger::Outcome, server::Server};

/// Exit codes that say what is wrong: differs, damaged, not a database, not attached, of a newer
/// program, or refused by the server.
pub(super) const SAID: [i32; 9] = [5, 6, 10, 16, 17, 19, 20, 21, 23];
/// The rows that one file has.
const ROWS: u64 = 300;

pub(crate) fn run(lab: &mut Lab, dice: &mut Dice, outcome: &mut Outcome, times: u64) -> Result<()> {
    let folder = lab.round()?;
    let server = Server::start(lab, &folder, None)?;
    let mut devices = fleet(lab, &folder, &server, 2, "delete")?;
    devices[0].start(lab, None, &["--pace", "500"])?;
    devices[0].until("rows", |device| device.acked >= ROWS)?;
    devices[0].drain()?;
    check::at_rest(lab, &server, &mut devices)?;
    let before = check::content(&server.database())?;
    let sound = std::fs::read(&devices[0].file)?;
    let (mut harmless, mut mended, mut refused) = (0, 0, 0);
    for flip in 0..times {
        let mut bytes = sound.clone();
        let at = usize::try_from(dice.below(bytes.len() as u64))?;
        bytes[at] ^= 1 << dice.below(8);
        let file = folder.join("flipped.db");
        std::fs::write(&file, bytes)?;
        let device = devices[0].copy(&file);
        let verified = device.attempt(lab, "verify", &[]);
        let place = || format!("bit {flip}, in byte {at} of {}", sound.len());
        let code = verified.with_context(place)?;
        ensure!(
            code == 0 || SAID.contains(&code),
            "verify ended with {code}: {}",
            place()
        );
        if code == 0 {
            harmless += 1;
        } else if device
            .attempt(lab, "verify", &["--repair"])
            .with_context(place)?
            == 0
        {
            mended += 1;
        } else {
            refused += 1;
        }
        if code == 0 {
            let same = check::content(&file).with_context(place)? == before;
            ensure!(same, "verify says equal, and the rows are not: {}", place());
        }
        outcome.faults += 1;
        // Nothing of it reaches anybody else.
        ensure!(
            check::content(&server.database())? == before,
            "the server took it: {}",
            place()
        );
        std::fs::remove_file(&file)?;
    }
    check::at_rest(lab, &server, &mut devices)?;
    println!(
        "  {times} bits: {harmless} changed nothing, {mended} were named and mended, {refused} named and left to a person"
    );
    Ok(())
}
