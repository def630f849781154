//! Runs seeds of the simulator and says how to repeat the one that failed.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

use clap::Parser;
use syncline_sim::{Options, simulate};

/// Replicas and a server in one thread under faults, all from a seed.
#[derive(Debug, Parser)]
#[command(name = "syncline-sim")]
struct Args {
    /// One seed.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Many, as FROM..TO.
    #[arg(long, value_parser = range)]
    seeds: Option<(u64, u64)>,
    /// Edits and faults of a run.
    #[arg(long, default_value_t = 150)]
    steps: u64,
    /// Prints everything that happens.
    #[arg(long)]
    trace: bool,
    /// Goes on after a seed that failed.
    #[arg(long)]
    keep_going: bool,
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let parts = text.split_once("..").ok_or("write it as 0..100")?;
    let number = |part: &str| part.parse::<u64>().map_err(|error| error.to_string());
    Ok((number(parts.0)?, number(parts.1)?))
}

#[expect(clippy::print_stdout, reason = "a program for people")]
fn main() -> ExitCode {
    let args = Args::parse();
    let (from, to) = match (args.seed, args.seeds) {
        (Some(seed), _) => (seed, seed + 1),
        (None, range) => range.unwrap_or((0, 100)),
    };
    let mut totals: BTreeMap<String, u64> = BTreeMap::new();
    let mut failed = 0;
    for seed in from..to {
        let options = Options {
            seed,
            steps: args.steps,
            trace: args.trace,
        };
        match catch_unwind(AssertUnwindSafe(|| simulate(options))) {
            Ok(Ok(outcome)) => {
                if from + 1 == to {
                    println!("seed {seed}: trace {:016x}", outcome.hash);
                }
                for (what, count) in outcome.counts.0 {
                    *totals.entry(what).or_insert(0) += count;
                }
                continue;
            }
            Ok(Err(failure)) => {
                if !args.trace && !args.keep_going {
                    println!("{}", failure.trace.join("\n"));
                }
                println!("seed {seed} failed: {:#}", failure.error);
            }
            Err(_) => println!("seed {seed} panicked"),
        }
        println!(
            "repeat it with: cargo run -p syncline-sim -- --seed {seed} --steps {} --trace",
            args.steps
        );
        failed += 1;
        if !args.keep_going {
            return ExitCode::FAILURE;
        }
    }
    for (what, count) in totals {
        println!("{count:>9} {what}");
    }
    println!("{failed} of {} seeds failed", to - from);
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
