//! What is broken, and how often.

mod kill;
mod power;

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
}

impl Scenario {
    /// All of them, so small that together they take about three minutes.
    pub(crate) fn slice() -> Vec<Self> {
        vec![
            Self::Kill {
                side: Side::Server,
                times: 10,
            },
            Self::Kill {
                side: Side::Device,
                times: 10,
            },
            Self::Powercut {
                side: Powered::Control,
                times: 8,
            },
            Self::Powercut {
                side: Powered::Server,
                times: 12,
            },
            Self::Powercut {
                side: Powered::Device,
                times: 12,
            },
        ]
    }

    pub(crate) fn run(&self, lab: &mut Lab, dice: &mut Dice, outcome: &mut Outcome) -> Result<()> {
        match *self {
            Self::Kill { side, times } => kill::run(lab, dice, outcome, side, times),
            Self::Powercut {
                side: Powered::Control,
                times,
            } => power::control(lab, dice, outcome, times),
            Self::Powercut {
                side: Powered::Server,
                times,
            } => power::server(lab, dice, outcome, times),
            Self::Powercut {
                side: Powered::Device,
                times,
            } => power::device(lab, dice, outcome, times),
        }
    }

    /// As it is typed, but for its numbers.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Kill { side, .. } => format!("kill {}", word(side)),
            Self::Powercut { side, .. } => format!("powercut {}", word(side)),
        }
    }

    /// The command that runs it again.
    pub(crate) fn again(&self) -> String {
        let numbers = match self {
            Self::Kill { times, .. } | Self::Powercut { times, .. } => format!("--times {times}"),
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
