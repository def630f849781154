//! What can go wrong in a run: drawn from its seed, so that every run lacks some of it.

use crate::rng::Rng;

/// The faults of one run. With all at once, some would never get far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) devices: u64,
    /// How long most frames take at most.
    pub(crate) slow_ms: u64,
    /// Changesets that wait are committed together up to this many.
    pub(crate) group_max: u64,
    /// Connections end.
    pub(crate) cuts: bool,
    /// Connections go silent, and nobody tells either side.
    pub(crate) silence: bool,
    /// Devices die between two calls of the engine, or in the middle of one.
    pub(crate) kills: bool,
    /// A commit on a device fails, and the engine goes on.
    pub(crate) full_disks: bool,
    /// The server dies and comes back.
    pub(crate) restarts: bool,
    /// The server comes back with an old copy of its data.
    pub(crate) restored_server: bool,
    /// A device comes back with an old copy of its file.
    pub(crate) restored_devices: bool,
    /// A device's file is copied to another device.
    pub(crate) copies: bool,
    /// Another program writes the server's database.
    pub(crate) outsiders: bool,
    /// Clocks of devices jump.
    pub(crate) clocks: bool,
    /// The server forgets what is old, and that is soon.
    pub(crate) trims: bool,
    /// The server restarts with other rules.
    pub(crate) rules: bool,
    /// Devices are left alone for long.
    pub(crate) pauses: bool,
}

impl Plan {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        Self {
            devices: 2 + rng.below(4),
            slow_ms: *rng.pick(&[5, 40, 300]),
            group_max: *rng.pick(&[1, 1, 4, 64]),
            cuts: rng.percent(70),
            silence: rng.percent(30),
            kills: rng.percent(50),
            full_disks: rng.percent(25),
            restarts: rng.percent(40),
            restored_server: rng.percent(25),
            restored_devices: rng.percent(25),
            copies: rng.percent(20),
            outsiders: rng.percent(40),
            clocks: rng.percent(40),
            trims: rng.percent(25),
            rules: rng.percent(20),
            pauses: rng.percent(50),
        }
    }

    /// One fault of this run, or none.
    pub(crate) fn fault(&self, rng: &mut Rng) -> Option<Fault> {
        let weighted = [
            (self.cuts, 6, Fault::Cut),
            (self.silence, 2, Fault::Silence),
            (self.kills, 4, Fault::Kill),
            (self.full_disks, 3, Fault::FullDisk),
            (self.restarts, 2, Fault::Restart),
            (self.restored_server, 1, Fault::RestoreServer),
            (self.restored_devices, 1, Fault::RestoreDevice),
            (self.copies, 1, Fault::CopyDevice),
            (self.outsiders, 8, Fault::Outsider),
            (self.clocks, 2, Fault::Clock),
            (self.trims, 3, Fault::Trim),
            (self.rules, 1, Fault::Rules),
        ];
        let mut dice = rng.below(100);
        for (_, weight, fault) in weighted.into_iter().filter(|(on, ..)| *on) {
            if dice < weight {
                return Some(fault);
            }
            dice -= weight;
        }
        None
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Cut,
    Silence,
    Kill,
    FullDisk,
    Restart,
    RestoreServer,
    RestoreDevice,
    CopyDevice,
    Outsider,
    Clock,
    Trim,
    Rules,
}
