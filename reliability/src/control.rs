//! The negative control: a plain SQLite writer. A disk that cannot make it lose anything would
//! prove nothing about anybody else.

use std::{io::Write as _, path::PathBuf};

use anyhow::Result;
use rusqlite::Connection;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    file: PathBuf,
    #[arg(long, default_value = "wal")]
    journal: String,
    #[arg(long, default_value = "FULL")]
    synchronous: String,
}

/// Inserts rows for ever, and says the number of each after its COMMIT.
pub(crate) fn run(args: &Args) -> Result<()> {
    let conn = Connection::open(&args.file)?;
    conn.pragma_update_and_check(None, "journal_mode", &args.journal, |_| Ok(()))?;
    conn.pragma_update(None, "synchronous", &args.synchronous)?;
    let mut out = std::io::stdout().lock();
    for n in 1_i64.. {
        conn.execute("INSERT INTO log VALUES (?1, ?2)", (n, "x".repeat(200)))?;
        writeln!(out, "{n}")?;
        out.flush()?;
    }
    Ok(())
}
