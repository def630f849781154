//! What is broken, and how often.

mod bits;
mod errors;
mod kill;
mod long;
mod network;
mod offline;
mod pause;
mod power;
mod reconnects;
mod selfheal;
mod stalled;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};

use crate::{dice::Dice, lab::Lab, ledger::Outcome};

/// Which side a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    Server,
    Device,
}

/// Which process loses its power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Powered {
    Server,
    Device,
    /// A plain SQLite writer that does not sync, and a server on a disk that lies: both must lose.
    Control,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Scenario {
    /// Kill -9 at random instants under load.
    Kill {
        side: Side,
        #[arg(long, default_value_t = 500)]
        times: u64,
    },
    /// The power goes: what was not synced is lost, reordered or torn.
    Powercut {
        side: Powered,
        #[arg(long, default_value_t = 1_000)]
        times: u64,
    },
    /// The disk is full, or a call of it fails: each call of a script of 200 transactions.
    IoErrors {
        side: Side,
        /// Only every so many-th call.
        #[arg(long, default_value_t = 1)]
        every: u64,
    },
    /// A process is stopped and goes on later.
    Pause {
        side: Side,
        #[arg(long, default_value_t = 1)]
        times: u64,
        #[arg(long, default_value_t = 35)]
        seconds: u64,
    },
    /// A network that cuts at every frame, repeats frames, or changes bits.
    Network {
        harm: network::Harm,
        /// Only every so many-th place.
        #[arg(long, default_value_t = 1)]
        every: u64,
        /// This conversation alone.
        #[arg(long)]
        only: Option<network::Talk>,
        /// Conversations before everything is compared: with 1, what fails is the last fault's.
        #[arg(long, default_value_t = 40)]
        check_every: u64,
    },
    /// Sockets that connect and then stall, while ordinary devices go on.
    Stalled {
        #[arg(long, default_value_t = 1_000)]
        sockets: u64,
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// All of them stall in this way; otherwise as many in each.
        #[arg(long)]
        only: Option<stalled::Stall>,
    },
    /// A device connects and disconnects again and again: nothing of it may stay behind.
    Reconnects {
        #[arg(long, default_value_t = 1_000)]
        times: u64,
        /// None falls silent: the server ends what is silent after a minute, and that is waited for.
        #[arg(long)]
        loud: bool,
    },
    /// A steady load: memory, files and latency stay flat.
    Long {
        #[arg(long, default_value_t = 1_800)]
        seconds: u64,
        /// Microseconds between two edits of each of two devices.
        #[arg(long, default_value_t = 100_000)]
        pace: u64,
    },
    /// Edits without a server: they stay bounded in the file, which opens fast, and arrive.
    Offline {
        #[arg(long, default_value_t = 1_000_000)]
        edits: u64,
        #[arg(long, default_value_t = 1_000)]
        rows: u64,
    },
    /// Rows, outbox or metadata of a replica are not what the engine left there, or it is handed to
    /// somebody else.
    Selfheal {
        /// So many damaged rows, damaged values of the outbox, and partial losses of metadata.
        #[arg(long, default_value_t = 200)]
        times: u64,
    },
    /// Single bits of a replica's file change.
    Bitflips {
        #[arg(long, default_value_t = 500)]
        times: u64,
    },
}

impl Scenario {
    /// Most of them, so small that together they take about two minutes, and judged by nothing that
    /// a busy machine makes late.
    pub(crate) fn slice() -> Vec<Self> {
        let mut all = Vec::new();
        for side in [Side::Server, Side::Device] {
            all.push(Self::Kill { side, times: 10 });
            all.push(Self::IoErrors { side, every: 997 });
            all.push(Self::Pause {
                side,
                times: 1,
                seconds: 2,
            });
        }
        for side in [Powered::Control, Powered::Server, Powered::Device] {
            all.push(Self::Powercut { side, times: 10 });
        }
        all.push(Self::Network {
            harm: network::Harm::Cut,
            every: 41,
            only: None,
            check_every: 40,
        });
        all.push(Self::Stalled {
            sockets: 42,
            seconds: 3,
            only: None,
        });
        all.push(Self::Reconnects {
            times: 15,
            loud: true,
        });
        all.push(Self::Offline {
            edits: 20_000,
            rows: 100,
        });
        all.push(Self::Selfheal { times: 10 });
        all
    }

    pub(crate) fn run(&self, lab: &mut Lab, dice: &mut Dice, outcome: &mut Outcome) -> Result<()> {
        match *self {
            Self::Kill { side, times } => kill::run(lab, dice, outcome, side, times),
            Self::Powercut { side, times } => match side {
                Powered::Control => power::control(lab, dice, outcome, times),
                Powered::Server => power::server(lab, dice, outcome, times),
                Powered::Device => power::device(lab, dice, outcome, times),
            },
            Self::IoErrors { side, every } => errors::run(lab, dice, outcome, side, every),
            Self::Bitflips { times } => bits::run(lab, dice, outcome, times),
            Self::Selfheal { times } => selfheal::run(lab, dice, outcome, times),
            Self::Stalled {
                sockets,
                seconds,
                only,
            } => stalled::run(lab, dice, outcome, sockets, seconds, only),
            Self::Reconnects { times, loud } => reconnects::run(lab, dice, outcome, times, loud),
            Self::Long { seconds, pace } => long::run(lab, dice, outcome, seconds, pace),
            Self::Offline { edits, rows } => offline::run(lab, dice, outcome, edits, rows),
            Self::Network {
                harm,
                every,
                only,
                check_every,
            } => network::run(lab, dice, outcome, harm, every, only, check_every),
            Self::Pause {
                side,
                times,
                seconds,
            } => pause::run(lab, dice, outcome, side, times, seconds),
        }
    }

    /// As it is typed, but for its numbers.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Kill { side, .. } => format!("kill {}", word(side)),
            Self::Powercut { side, .. } => format!("powercut {}", word(side)),
            Self::IoErrors { side, .. } => format!("io-errors {}", word(side)),
            Self::Bitflips { .. } => "bitflips".to_owned(),
            Self::Stalled { .. } => "stalled".to_owned(),
            Self::Selfheal { .. } => "selfheal".to_owned(),
            Self::Reconnects { .. } => "reconnects".to_owned(),
            Self::Long { .. } => "long".to_owned(),
            Self::Offline { .. } => "offline".to_owned(),
            Self::Network { harm, .. } => format!("network {}", word(harm)),
            Self::Pause { side, .. } => format!("pause {}", word(side)),
        }
    }

    /// The command that runs it again.
    pub(crate) fn again(&self) -> String {
        let numbers = match self {
            Self::Kill { times, .. }
            | Self::Powercut { times, .. }
            | Self::Bitflips { times }
            | Self::Selfheal { times } => format!("--times {times}"),
            Self::Stalled {
                sockets,
                seconds,
                only,
            } => {
                let only = only.map(|only| format!(" --only {}", word(&only)));
                let only = only.unwrap_or_default();
                format!("--sockets {sockets} --seconds {seconds}{only}")
            }
            Self::Reconnects { times, loud } => {
                format!("--times {times}{}", if *loud { " --loud" } else { "" })
            }
            Self::Long { seconds, pace } => format!("--seconds {seconds} --pace {pace}"),
            Self::Offline { edits, rows } => format!("--edits {edits} --rows {rows}"),
            Self::IoErrors { every, .. } => format!("--every {every}"),
            Self::Network {
                every,
                only,
                check_every,
                ..
            } => {
                let only = only.map(|only| format!(" --only {}", word(&only)));
                let only = only.unwrap_or_default();
                format!("--every {every} --check-every {check_every}{only}")
            }
            Self::Pause { times, seconds, .. } => format!("--times {times} --seconds {seconds}"),
        };
        format!("syncline-reliability {} {numbers}", self.name())
    }
}

fn word(value: &impl ValueEnum) -> String {
    value
        .to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}
