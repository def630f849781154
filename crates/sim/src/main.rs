//! Runs seeds of the simulator and says how to repeat the one that failed, in its shortest form.

use std::{collections::BTreeMap, process::ExitCode, time::Instant};

use clap::Parser;
use syncline_sim::{
    App, Failure, Outcome, Scenario, Script, Sizes, Steps, cut_down, parse_range, parse_scenario,
    parse_steps, shrink, simulate_script,
};

/// Half as dear as the system's. No trace depends on where something lies.
#[cfg(all(feature = "mimalloc", target_os = "linux"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Replicas and a server in one thread under faults, all from a seed.
#[derive(Debug, Parser)]
#[command(name = "syncline-sim")]
struct Args {
    /// One seed.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Many, as FROM..TO.
    #[arg(long, value_parser = parse_range)]
    seeds: Option<(u64, u64)>,
    /// Edits and faults of a run.
    #[arg(long, default_value_t = 200)]
    steps: usize,
    /// What goes wrong.
    #[arg(long, value_parser = parse_scenario, default_value = "everything")]
    scenario: Scenario,
    /// Of the steps only these, as 3,17,80-82.
    #[arg(long, value_parser = parse_steps)]
    only: Option<Steps>,
    /// So many devices at the beginning, whatever the seed says.
    #[arg(long)]
    devices: Option<u64>,
    /// Spreads the steps over so many virtual hours, and says how large files were.
    #[arg(long)]
    hours: Option<u64>,
    /// Prints everything that happens.
    #[arg(long)]
    trace: bool,
    /// Runs each seed twice: the traces have to be equal.
    #[arg(long)]
    twice: bool,
    /// Goes on after a seed that failed.
    #[arg(long)]
    keep_going: bool,
    /// Begins no more seeds after this many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Runs that may be spent on making a failure shorter; 0 leaves it as it is.
    #[arg(long, default_value_t = 150)]
    shrink: usize,
}

impl Args {
    fn script(&self, seed: u64) -> Script {
        let mut script = Script::of_seed(seed, self.steps, self.scenario);
        if let Some(hours) = self.hours {
            script = script.over_hours(hours);
        }
        if let Some(only) = &self.only {
            script = script.only(|number| only.contains(number));
        }
        if let Some(devices) = self.devices {
            script = script.with_devices(devices);
        }
        script
    }

    /// The command that runs `script` again.
    fn command(&self, seed: u64, script: &Script) -> String {
        let mut whole = Script::of_seed(seed, self.steps, self.scenario);
        if let Some(hours) = self.hours {
            whole = whole.over_hours(hours);
        }
        let mut command = format!(
            "cargo run --profile sim -p syncline-sim -- --seed {seed} --steps {}",
            self.steps
        );
        if self.scenario != Scenario::default() {
            command += &format!(" --scenario {}", self.scenario);
        }
        if let Some(hours) = self.hours {
            command += &format!(" --hours {hours}");
        }
        command + &cut_down(&whole, script) + " --trace"
    }

    /// One seed, or the same twice.
    fn run(&self, script: &Script) -> Result<Outcome, Box<Failure>> {
        let outcome = simulate_script(script, self.trace)?;
        if self.twice {
            let again = simulate_script(script, false)?;
            if again.hash != outcome.hash {
                return Err(Box::new(Failure {
                    error: anyhow::anyhow!("the same script ran in two ways: not deterministic"),
                    trace: Vec::new(),
                    story: Vec::new(),
                }));
            }
        }
        if self.hours.is_some() {
            tell_sizes(&outcome.sizes);
        }
        Ok(outcome)
    }
}

#[expect(clippy::print_stdout, reason = "a program for people")]
fn main() -> ExitCode {
    let args = Args::parse();
    let (from, to) = match (args.seed, args.seeds) {
        (Some(seed), _) => (seed, seed + 1),
        (None, range) => range.unwrap_or((0, 100)),
    };
    let began = Instant::now();
    let mut totals: BTreeMap<String, u64> = BTreeMap::new();
    let (mut done, mut failed, mut virtual_seconds) = (0, 0, 0);
    for seed in from..to {
        if args
            .seconds
            .is_some_and(|max| began.elapsed().as_secs() >= max)
        {
            break;
        }
        done += 1;
        let script = args.script(seed);
        match args.run(&script) {
            Ok(outcome) => {
                virtual_seconds += outcome.seconds;
                for (what, count) in outcome.counts.0 {
                    *totals.entry(what).or_insert(0) += count;
                }
                continue;
            }
            Err(failure) => {
                failed += 1;
                report(&args, seed, &script, &failure);
            }
        }
        if !args.keep_going {
            return ExitCode::FAILURE;
        }
    }
    for (what, count) in totals {
        println!("{count:>9} {what}");
    }
    println!(
        "seeds {from}..{}: {} passed, {failed} failed, {} virtual hours, in {} s",
        from + done,
        done - failed,
        virtual_seconds / 3_600,
        began.elapsed().as_secs()
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A line an hour.
#[expect(clippy::print_stdout, reason = "a program for people")]
fn tell_sizes(sizes: &[Sizes]) {
    println!("   hour  server KiB  largest device KiB");
    let mut told = None;
    for size in sizes {
        let hour = size.seconds / 3_600;
        if told != Some(hour) {
            told = Some(hour);
            let (server, device) = (size.server_bytes / 1_024, size.device_bytes / 1_024);
            println!("{hour:>7} {server:>11} {device:>19}");
        }
    }
}

#[expect(clippy::print_stdout, reason = "a program for people")]
fn report(args: &Args, seed: u64, script: &Script, failure: &Failure) {
    println!("seed {seed} failed: {:#}", failure.error);
    if args.trace || args.shrink == 0 {
        println!("repeat it with: {}", args.command(seed, script));
        return;
    }
    let Some(shrunk) = shrink(&App::own(), script, args.shrink) else {
        println!("it does not fail when it is run again: not deterministic");
        println!("repeat it with: {}", args.command(seed, script));
        return;
    };
    println!(
        "shortened to {} of {} steps in {} runs:",
        shrunk.script.numbers().len(),
        script.numbers().len(),
        shrunk.runs
    );
    for line in &shrunk.failure.story {
        println!("  {line}");
    }
    println!("it fails with: {:#}", shrunk.failure.error);
    println!("repeat it with: {}", args.command(seed, &shrunk.script));
}
