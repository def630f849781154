//! What can go wrong in a run: drawn from its seed, so that every run lacks some of it.

use std::fmt;

use arbitrary::{Result, Unstructured};

/// One run's surroundings. With all faults at once, some things would never get far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) devices: u64,
    /// How long most frames take at most.
    pub(crate) slow_ms: u64,
    /// Changesets that wait are committed together up to this many.
    pub(crate) group_max: u64,
    /// Transactions of thousands of rows.
    pub(crate) bulk: bool,
    /// Databases are real files.
    pub(crate) files: bool,
    /// Devices are left alone for long.
    pub(crate) pauses: bool,
    /// What goes wrong, in the order of [`Fault::ALL`].
    pub(crate) faults: Vec<Fault>,
    /// Devices take all frames that have arrived at once, as over a real network.
    pub(crate) together: bool,
}

/// What can go wrong, or at least differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A connection ends.
    Cut,
    /// A connection goes silent, and nobody tells either side.
    Silence,
    /// Nothing passes in one direction of a connection, or in both, for a while.
    Clog,
    /// Some of all directions stop one by one and go on in another order.
    Swizzle,
    /// A device that writes, but does not read for long.
    SlowReader,
    /// What a device sends arrives, and no answer comes back before the connection ends; then it
    /// stays away, and the server may forget more than that long.
    Deaf,
    /// A device dies between two calls of the engine, or in the middle of one.
    Kill,
    /// A commit on a device fails, and the engine goes on.
    FullDisk,
    /// A statement on a device's disk fails.
    BrokenDisk,
    /// The server dies and comes back.
    Restart,
    /// The server dies at a named point, and comes back.
    Crash,
    /// Statements or commits on the server's disk fail for a moment.
    ServerDisk,
    /// The server comes back with an old copy of its data.
    RestoreServer,
    /// A device comes back with an old copy of its file.
    RestoreDevice,
    /// A device's file is copied to another device.
    CopyDevice,
    /// Another program writes the server's database.
    Outsider,
    /// A device's clock jumps.
    Clock,
    /// A device's clock gains or loses from now on.
    Drift,
    /// The server's clock is put back by an hour.
    ServerClock,
    /// The server forgets what is old, and that is soon.
    Trim,
    /// The server restarts with other rules.
    Rules,
    /// Somebody's token says something else than before.
    Claims,
    /// A column more on the server, or an app's own migration of its tables.
    Schema,
    /// There are tables on demand, and a device subscribes to some of their rows or to some no more.
    Demand,
}

/// A kind of trouble that people ask for by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scenario {
    /// Nothing goes wrong.
    Calm,
    /// Connections end, go silent, stall.
    Network,
    /// Processes die, disks fail.
    Crashes,
    /// Clocks are wrong.
    Clocks,
    /// Who may see what changes all the time.
    Permissions,
    /// Copies and backups come back.
    Restores,
    /// A part of everything, another one in each run.
    #[default]
    Everything,
}

impl Scenario {
    pub const ALL: [Self; 7] = [
        Self::Calm,
        Self::Network,
        Self::Crashes,
        Self::Clocks,
        Self::Permissions,
        Self::Restores,
        Self::Everything,
    ];

    /// What can go wrong: the name it is counted by, and words for people.
    #[must_use]
    pub fn fault_names() -> Vec<(String, &'static str)> {
        let names = Fault::ALL.into_iter();
        names
            .map(|fault| (format!("{fault:?}"), fault.words()))
            .collect()
    }

    /// As it is written on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Network => "network",
            Self::Crashes => "crashes",
            Self::Clocks => "clocks",
            Self::Permissions => "permissions",
            Self::Restores => "restores",
            Self::Everything => "everything",
        }
    }

    /// The scenario of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|scenario| scenario.name() == name)
    }

    /// In how many of a hundred runs this fault is there.
    fn percent(self, fault: Fault) -> u8 {
        let is_here = self == fault.scenario();
        match self {
            Self::Calm => 0,
            Self::Everything => fault.percent(),
            Self::Permissions if fault == Fault::Outsider => 50,
            Self::Network | Self::Crashes | Self::Clocks | Self::Permissions | Self::Restores
                if is_here =>
            {
                80
            }
            Self::Network | Self::Crashes | Self::Clocks | Self::Permissions | Self::Restores => 0,
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Fault {
    pub(crate) const ALL: [Self; 24] = [
        Self::Cut,
        Self::Silence,
        Self::Clog,
        Self::Swizzle,
        Self::SlowReader,
        Self::Deaf,
        Self::Kill,
        Self::FullDisk,
        Self::BrokenDisk,
        Self::Restart,
        Self::Crash,
        Self::ServerDisk,
        Self::RestoreServer,
        Self::RestoreDevice,
        Self::CopyDevice,
        Self::Outsider,
        Self::Clock,
        Self::Drift,
        Self::ServerClock,
        Self::Trim,
        Self::Rules,
        Self::Claims,
        Self::Schema,
        Self::Demand,
    ];

    /// What happened so often, for reports.
    fn words(self) -> &'static str {
        match self {
            Self::Cut => "connections cut",
            Self::Silence => "connections gone silent",
            Self::Clog => "connections stalled",
            Self::Swizzle => "networks stopped part by part",
            Self::SlowReader => "slow readers",
            Self::Deaf => "answers lost",
            Self::Kill => "devices killed",
            Self::FullDisk => "full disks of devices",
            Self::BrokenDisk => "disk errors on devices",
            Self::Restart => "server restarts",
            Self::Crash => "server crashes at a chosen point",
            Self::ServerDisk => "disk errors on the server",
            Self::RestoreServer => "servers restored from a backup",
            Self::RestoreDevice => "devices restored from a backup",
            Self::CopyDevice => "files copied to another device",
            Self::Outsider => "writes by other programs",
            Self::Clock => "clocks jumped",
            Self::Drift => "clocks drifting",
            Self::ServerClock => "server clocks set back",
            Self::Trim => "times the log was trimmed",
            Self::Rules => "restarts with other rules",
            Self::Claims => "claims of users changed",
            Self::Schema => "tables changed",
            Self::Demand => "subscriptions changed",
        }
    }

    /// In how many of a hundred runs it is there, how often compared with the others then, and
    /// the scenario that is about it.
    fn traits(self) -> (u8, u16, Scenario) {
        match self {
            Self::Cut => (70, 8, Scenario::Network),
            Self::Silence => (30, 2, Scenario::Network),
            Self::Clog => (30, 4, Scenario::Network),
            Self::Swizzle => (30, 2, Scenario::Network),
            Self::SlowReader => (20, 2, Scenario::Network),
            Self::Deaf => (40, 4, Scenario::Network),
            Self::Kill => (50, 6, Scenario::Crashes),
            Self::FullDisk => (25, 3, Scenario::Crashes),
            Self::BrokenDisk => (25, 3, Scenario::Crashes),
            Self::Restart => (40, 3, Scenario::Crashes),
            Self::Crash => (40, 4, Scenario::Crashes),
            Self::ServerDisk => (20, 3, Scenario::Crashes),
            Self::RestoreServer => (25, 2, Scenario::Restores),
            Self::RestoreDevice => (25, 2, Scenario::Restores),
            Self::CopyDevice => (20, 1, Scenario::Restores),
            Self::Outsider => (40, 12, Scenario::Everything),
            Self::Clock => (40, 3, Scenario::Clocks),
            Self::Drift => (25, 2, Scenario::Clocks),
            Self::ServerClock => (15, 1, Scenario::Clocks),
            Self::Trim => (35, 5, Scenario::Restores),
            Self::Rules => (20, 2, Scenario::Permissions),
            Self::Claims => (20, 3, Scenario::Permissions),
            Self::Schema => (20, 3, Scenario::Everything),
            Self::Demand => (25, 10, Scenario::Permissions),
        }
    }

    fn percent(self) -> u8 {
        self.traits().0
    }

    fn weight(self) -> u16 {
        self.traits().1
    }

    fn scenario(self) -> Scenario {
        self.traits().2
    }
}

impl Plan {
    pub(crate) fn draw(u: &mut Unstructured<'_>, scenario: Scenario) -> Result<Self> {
        let devices = match u.int_in_range(0..=19_u8)? {
            0 => u.int_in_range(10..=20)?,
            1..=3 => u.int_in_range(6..=9)?,
            _ => u.int_in_range(2..=5)?,
        };
        let mut plan = Self {
            devices,
            slow_ms: *u.choose(&[5, 40, 300])?,
            group_max: *u.choose(&[1, 1, 4, 64])?,
            bulk: u.ratio(6_u8, 100)?,
            files: u.ratio(10_u8, 100)?,
            pauses: u.ratio(50_u8, 100)?,
            faults: Vec::new(),
            together: false,
        };
        for fault in Fault::ALL {
            let percent = scenario.percent(fault);
            // Nothing is drawn for what cannot be.
            if percent > 0 && u.ratio(percent, 100)? {
                plan.faults.push(fault);
            }
        }
        plan.together = u.ratio(50_u8, 100)?;
        Ok(plan)
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    /// The fault that `dice` of a hundred means in this run, or none.
    pub(crate) fn fault(&self, mut dice: u16) -> Option<Fault> {
        for fault in &self.faults {
            if dice < fault.weight() {
                return Some(*fault);
            }
            dice -= fault.weight();
        }
        None
    }
}
