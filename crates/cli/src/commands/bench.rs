//! `syncline bench`.

use std::path::PathBuf;

use anyhow::Context;
use serde_json::{Value, json};
use syncline_bench::{Better, Figure, Options};

use crate::{
    exit::{Exit, Failure},
    output::Output,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    /// Workloads: W1 to W8; all when none is named.
    #[arg(value_name = "W1…")]
    pub workloads: Vec<String>,
    /// A tenth of the work; the figures say little.
    #[arg(long)]
    pub quick: bool,
    /// Measure the server of another build.
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
    /// Be the bare server that W4 is held against.
    #[arg(long, hide = true)]
    pub bare_fan_out: bool,
}

pub(crate) fn run(args: &Bench, output: &Output) -> anyhow::Result<Exit> {
    if args.bare_fan_out {
        syncline_bench::serve_bare_fan_out()?;
        return Ok(Exit::Done);
    }
    let workloads = syncline_bench::chosen(&args.workloads)
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let own = std::env::current_exe().context("find this program")?;
    let options = Options {
        program: match &args.program {
            // The server runs in a folder of its own.
            Some(other) => std::path::absolute(other)?,
            None => own.clone(),
        },
        own,
        quick: args.quick,
    };
    if cfg!(debug_assertions) {
        output.note("this is a debug build: its figures say nothing about a release");
    }
    for workload in workloads {
        output.note(&format!("{}: {}", workload.name, workload.what));
        let figures = workload
            .run(&options)
            .with_context(|| format!("{} could not be measured", workload.name))?;
        for figure in &figures {
            output.result(&sentence(figure), &object(figure));
        }
    }
    Ok(Exit::Done)
}

fn sentence(figure: &Figure) -> String {
    let mark = if figure.is_reached() { "ok  " } else { "MISS" };
    let wanted = match figure.better {
        Better::Higher => "at least",
        Better::Lower => "at most",
    };
    let beside = match (figure.limit, figure.ratio) {
        (Some(limit), Some(ratio)) => format!(
            "{ratio:.2} times the {} beside it, wanted {wanted} {}",
            number(limit),
            figure.target
        ),
        _ => format!("wanted {wanted} {}", number(figure.target)),
    };
    format!(
        "  {mark} {:>11} {:<12} {}: {beside}",
        number(figure.figure),
        figure.unit,
        figure.case
    )
}

/// With as many digits as say something.
fn number(value: f64) -> String {
    if value.abs() >= 1_000.0 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rounded figure"
        )]
        crate::output::grouped(value.abs().round() as u64)
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

fn object(figure: &Figure) -> Value {
    json!({
        "type": "figure", "workload": figure.workload, "case": figure.case,
        "figure": figure.figure, "unit": figure.unit, "limit": figure.limit,
        "ratio": figure.ratio, "target": figure.target, "better": figure.better,
    })
}
