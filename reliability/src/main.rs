//! Breaks real processes of Syncline on purpose, and checks what is left: `make reliability`.
//!
//! The `syncline` program serves and syncs, apps are this program with the client library
//! ([`app`]). Processes are killed, the power is cut ([`disk`]), disks fill and fail, sockets stall
//! and lie. Afterwards nothing acknowledged may be missing, nothing may be there twice, and all
//! copies are equal ([`check`]).

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool prints its progress and results"
)]
mod app;
mod check;
mod control;
mod device;
mod dice;
mod disk;
mod lab;
mod ledger;
mod process;
mod proxy;
mod samples;
mod scenario;
mod server;
mod usage;

use std::{process::ExitCode, time::Instant};

use anyhow::Result;
use clap::Parser;

use crate::{dice::Dice, lab::Lab, ledger::Outcome, scenario::Scenario};

/// Breaks real processes of Syncline on purpose, and checks what is left.
#[derive(Debug, Parser)]
#[command(name = "syncline-reliability", version)]
struct Args {
    /// Where the dice begin; printed by each run. Files, edits and faults are the same again, the
    /// operating system's timing is not.
    #[arg(long, global = true)]
    seed: Option<u64>,
    /// Write what was done into reliability/ledger.csv.
    #[arg(long, global = true)]
    ledger: bool,
    /// Keep the files of a run that failed, and say where they are.
    #[arg(long, global = true)]
    keep: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    #[command(flatten)]
    Scenario(Scenario),
    /// A slice of every scenario, small enough for each change.
    Slice,
    /// An app with a replica in it: what the scenarios start and kill.
    #[command(hide = true)]
    App(app::Args),
    /// A program with plain SQLite: the negative control of power cuts.
    #[command(hide = true)]
    Plain(control::Args),
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let scenarios = match args.command {
        Command::App(app) => return app::run(&app).map(|()| ExitCode::SUCCESS),
        Command::Plain(plain) => return control::run(&plain).map(|()| ExitCode::SUCCESS),
        Command::Scenario(scenario) => vec![scenario],
        Command::Slice => Scenario::slice(),
    };
    let seed = args.seed.unwrap_or_else(dice::fresh);
    let mut failed = 0;
    for scenario in scenarios {
        let name = scenario.name();
        println!("{name}: seed {seed}");
        let mut lab = Lab::new(args.keep)?;
        let mut outcome = Outcome::new(&name, seed);
        let started = Instant::now();
        let done = scenario.run(&mut lab, &mut Dice::new(seed), &mut outcome);
        outcome.seconds = started.elapsed().as_secs();
        if let Err(error) = done {
            failed += 1;
            outcome.failures += 1;
            lab.keep_if_wanted();
            eprintln!("{name}: FAILED: {error:#}");
            eprintln!("{name}: again with: {} --seed {seed}", scenario.again());
        }
        println!("{outcome}");
        if args.ledger {
            ledger::append(&outcome)?;
        }
    }
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
