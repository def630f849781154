//! What was done, as a line of `reliability/ledger.csv`.

use std::{fmt, io::Write as _, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

/// Counts of one run of a scenario.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    scenario: String,
    seed: u64,
    /// What the source was when the run began: others may change it meanwhile.
    commit: String,
    /// Processes killed.
    pub kills: u64,
    /// Power cuts, and connections that were cut.
    pub cuts: u64,
    /// Other things that were broken: calls that failed, bytes changed, sockets stalled.
    pub faults: u64,
    pub failures: u64,
    pub seconds: u64,
}

impl Outcome {
    pub(crate) fn new(scenario: &str, seed: u64) -> Self {
        Self {
            scenario: scenario.to_owned(),
            seed,
            commit: commit(),
            ..Self::default()
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} kills, {} cuts, {} faults, {} failures in {} s",
            self.scenario, self.kills, self.cuts, self.faults, self.failures, self.seconds
        )
    }
}

/// Adds a line: date, commit, scenario, seeds, simulated hours, kills, cuts, faults, failures,
/// seconds. Real processes run in real time, so their simulated hours are zero.
pub(crate) fn append(outcome: &Outcome) -> Result<()> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/ledger.csv"));
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    writeln!(
        file,
        "{},{},{},{},0,{},{},{},{},{}",
        said("date", &["-u", "+%F"])?,
        outcome.commit,
        outcome.scenario,
        outcome.seed,
        outcome.kills,
        outcome.cuts,
        outcome.faults,
        outcome.failures,
        outcome.seconds
    )?;
    Ok(())
}

/// The commit, with `-dirty` if files differ from it; `SYNCLINE_COMMIT` for a program that was built
/// earlier and put aside.
fn commit() -> String {
    let named = std::env::var("SYNCLINE_COMMIT").ok();
    let args = ["describe", "--always", "--dirty", "--exclude=*"];
    named
        .or_else(|| said("git", &args).ok())
        .unwrap_or_else(|| "unknown".to_owned())
}

fn said(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .with_context(|| format!("run {program}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
