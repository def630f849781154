//! Checks and chores of the repository, run as `cargo run -p xtask -- COMMAND`.

#![expect(
    clippy::print_stdout,
    reason = "a command line tool prints its results"
)]

mod movies;
mod repo;
mod tidy;
mod wasm;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "xtask", about = "Checks and chores of the repository")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check what the compiler cannot: dependency arrows, spec rules without a test, stray files,
    /// documents that name things which do not exist
    Tidy,
    /// Write the 3,201 movies of vega-datasets into a new SQLite file (scripts/fetch-testdata
    /// gets the data)
    Movies {
        /// The file to write; it must not exist yet
        out: PathBuf,
        /// Where movies.json is, if not in .tools/testdata
        #[arg(long)]
        from: Option<PathBuf>,
    },
    /// Fail if a WebAssembly module imports anything from its host
    WasmImports {
        /// The .wasm file
        module: PathBuf,
    },
}

fn main() -> Result<ExitCode> {
    match Args::parse().command {
        Command::Tidy => {
            let report = tidy::run(&repo::root())?;
            print!("{report}");
            Ok(if report.is_tidy() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Command::Movies { out, from } => {
            let from = from.unwrap_or_else(|| repo::tools().join("testdata/movies.json"));
            let count = movies::convert(&from, &out)?;
            println!("{}: {count} movies", out.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::WasmImports { module } => {
            let imports = wasm::imports(&std::fs::read(&module)?)?;
            for import in &imports {
                println!("{}: imports {import}", module.display());
            }
            Ok(if imports.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
    }
}
