//! `syncline sim`: a configuration on simulated devices, with everything going wrong.

use std::{collections::BTreeMap, fs, rc::Rc, time::Instant};

use serde_json::json;
use syncline_sim::{App, Scenario, Script, TableSeen, cut_down, shrink, simulate_app};

use super::config::read_config;
use crate::{
    args::Sim,
    exit::{Exit, Failure},
    output::{Output, counted},
};

/// Runs that are spent on making a failure shorter.
const SHRINK_RUNS: usize = 120;
/// Lines of what was said last that are shown of a failure.
const STORY_MAX: usize = 80;

pub(crate) fn run(args: &Sim, output: &Output) -> anyhow::Result<Exit> {
    // Its mistakes are told with line and column, as by `check`.
    let config = read_config(&args.config)?;
    let name = args.config.display().to_string();
    let text = fs::read_to_string(&args.config)?;
    let app = App::of_config(&name, &text, &args.users)
        .map_err(|error| Failure::new(Exit::Config, format!("{error:#}")))?;
    let tables: Vec<&str> = config
        .schema
        .tables
        .iter()
        .map(|t| t.name.as_str())
        .collect();
    let (from, to) = args.seeds;
    output.note(&format!(
        "{name}: {} ({}), people {}, scenario {}, {}",
        counted(tables.len() as u64, "table"),
        tables.join(", "),
        args.users.join(", "),
        args.scenario,
        counted(to - from, "run"),
    ));
    let began = Instant::now();
    let mut seen = Seen::default();
    for seed in from..to {
        let script = script(args, seed);
        match simulate_app(&app, &script, args.trace) {
            Ok(outcome) => {
                seen.add(&outcome);
                output.object(&json!({
                    "type": "simulated", "seed": seed, "trace": format!("{:016x}", outcome.hash),
                }));
            }
            Err(failure) => {
                tell_failure(
                    args,
                    seed,
                    &app,
                    &script,
                    &format!("{:#}", failure.error),
                    output,
                );
                return Ok(Exit::Differs);
            }
        }
    }
    seen.tell(args, &tables, began.elapsed().as_secs_f64(), output);
    Ok(Exit::Done)
}

fn script(args: &Sim, seed: u64) -> Script {
    let mut script = Script::of_seed(seed, args.steps, args.scenario);
    if let Some(only) = &args.only {
        script = script.only(|step| only.contains(step));
    }
    match args.devices {
        Some(devices) => script.with_devices(devices),
        None => script,
    }
}

/// What was broken, the shortest way there, and the command that goes it again.
fn tell_failure(
    args: &Sim,
    seed: u64,
    app: &Rc<App>,
    script: &Script,
    error: &str,
    output: &Output,
) {
    output.note(&format!("run {seed} broke a promise: {error}"));
    output.note("looking for the shortest way there …");
    let (script, error, story) = match shrink(app, script, SHRINK_RUNS) {
        Some(shrunk) => {
            let error = format!("{:#}", shrunk.failure.error);
            (shrunk.script, error, shrunk.failure.story)
        }
        None => (script.clone(), error.to_owned(), Vec::new()),
    };
    let command = repeat(args, seed, &script);
    output.object(&json!({
        "type": "promise_broken", "seed": seed, "message": error, "story": story,
        "command": command,
    }));
    output.line(&format!("Run {seed} broke a promise:"));
    let skipped = story.len().saturating_sub(STORY_MAX);
    if skipped > 0 {
        output.line(&format!("  … {skipped} lines before"));
    }
    for line in story.iter().skip(skipped) {
        output.line(&format!("  {line}"));
    }
    output.line(&format!("  → {error}"));
    output.line(&format!("Repeat it with: {command}"));
    output.line(
        "A broken promise is a fault of Syncline, whatever the rules: please report it with this.",
    );
}

fn repeat(args: &Sim, seed: u64, script: &Script) -> String {
    let command = format!(
        "syncline sim --config {} --seeds {seed}..{} --steps {} --scenario {} --users {}",
        args.config.display(),
        seed + 1,
        args.steps,
        args.scenario,
        args.users.join(",")
    );
    let whole = Script::of_seed(seed, args.steps, args.scenario);
    command + &cut_down(&whole, script) + " --trace"
}

/// What the runs did, all together.
#[derive(Debug, Default)]
struct Seen {
    runs: u64,
    counts: BTreeMap<String, u64>,
    tables: BTreeMap<String, TableSeen>,
}

impl Seen {
    fn add(&mut self, outcome: &syncline_sim::Outcome) {
        self.runs += 1;
        for (what, count) in &outcome.counts.0 {
            *self.counts.entry(what.clone()).or_insert(0) += count;
        }
        for (table, seen) in &outcome.tables {
            let sum = self.tables.entry((*table).to_owned()).or_default();
            sum.rows += seen.rows;
            sum.seen += seen.seen;
            sum.parked += seen.parked;
        }
    }

    fn count(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }

    /// Counts whose names begin so, with the rest of their names.
    fn counts_of<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, u64)> + 'a {
        self.counts
            .iter()
            .filter_map(move |(name, count)| Some((name.strip_prefix(prefix)?, *count)))
    }

    fn tell(&self, args: &Sim, tables: &[&str], seconds: f64, output: &Output) {
        let remarks = self.remarks(args, tables);
        let refused: BTreeMap<_, _> = self.counts_of("refused ").collect();
        output.object(&json!({
            "type": "simulation", "runs": self.runs, "edits": self.count("edits"),
            "accepted": self.count("accepted"), "refused": refused,
            "compared": self.count("checkpoints compared"), "remarks": remarks,
        }));
        output.line(&format!(
            "{} kept every promise ({seconds:.1} s).",
            match self.runs {
                1 => "1 run".to_owned(),
                runs => format!("{runs} runs"),
            }
        ));
        output.line(&format!(
            "  People    {} on {} connections; the server took {} changesets and refused {}{}",
            counted(self.count("edits"), "edit"),
            self.count("connections"),
            self.count("accepted"),
            refused.values().sum::<u64>(),
            listed(&refused, ": "),
        ));
        let faults: BTreeMap<&str, u64> = Scenario::fault_names()
            .into_iter()
            .map(|(name, words)| (words, self.count(&name)))
            .filter(|(_, count)| *count > 0)
            .collect();
        let faults = match faults.is_empty() {
            true => "nothing".to_owned(),
            false => listed(&faults, ""),
        };
        output.line(&format!("  Went wrong  {faults}"));
        output.line(&format!(
            "  Compared  {} with the server's rows as the read rules let the user see them, row by \
             row; then all of them at rest, with digests, grants and the log",
            counted(self.count("checkpoints compared"), "checkpoint"),
        ));
        let rests = (self.count("rounds")).max(1);
        let users = args.users.len().max(1) as u64;
        output.line("  At rest, on average:");
        for table in tables {
            let seen = self.tables.get(*table).copied().unwrap_or_default();
            output.line(&format!(
                "    {table:<20} {:>5} rows, {:>5} of them for each user; {} refused changes wait",
                seen.rows / rests,
                seen.seen / rests / users,
                seen.parked / rests,
            ));
        }
        for remark in &remarks {
            output.line(&format!("  Look at this: {remark}"));
        }
    }

    /// What is not wrong, and may not be meant either.
    fn remarks(&self, args: &Sim, tables: &[&str]) -> Vec<String> {
        let mut remarks = Vec::new();
        for table in tables {
            let seen = self.tables.get(*table).copied().unwrap_or_default();
            let users = args.users.len() as u64;
            if seen.rows == 0 {
                remarks.push(format!(
                    "no row of {table} was ever on the server: its write rule, or a constraint, \
                     refused all that people tried"
                ));
            } else if seen.seen == 0 {
                remarks.push(format!(
                    "nobody ever saw a row of {table}: what does its read rule say?"
                ));
            } else if users > 1 && seen.seen == seen.rows * users {
                remarks.push(format!("everybody saw every row of {table}"));
            }
        }
        if self.counts_of("event RowUnstorable").next().is_some() {
            remarks.push(
                "devices could not hold some rows of the server: is a UNIQUE column filled by \
                 people who do not see each other's rows?"
                    .into(),
            );
        }
        remarks
    }
}

fn listed(counts: &BTreeMap<&str, u64>, before: &str) -> String {
    let parts: Vec<_> = counts
        .iter()
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    match parts.is_empty() {
        true => String::new(),
        false => format!("{before}{}", parts.join(", ")),
    }
}
