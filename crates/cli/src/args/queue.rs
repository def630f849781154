//! What is typed of a file's changes: conflicts, history, what waits.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::{ServerArgs, limit};

#[derive(Debug, ClapArgs)]
pub(crate) struct Conflicts {
    /// The database.
    #[arg(value_name = "APP.db")]
    pub file: PathBuf,
    /// A file with the key of encrypted columns, for bringing a row back; may be repeated.
    #[arg(
        long,
        value_name = "FILE",
        env = "SYNCLINE_ENCRYPTION_KEY_FILE",
        value_delimiter = ',',
        global = true
    )]
    pub encryption_key_file: Vec<PathBuf>,
    #[command(subcommand)]
    pub action: Option<ConflictAction>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConflictAction {
    /// List the open ones (with --all, also those that were decided).
    List {
        #[arg(long)]
        all: bool,
    },
    /// Show one, with base, mine and theirs.
    Show {
        /// From the list; its beginning is enough.
        id: String,
    },
    /// Decide one.
    #[command(group = clap::ArgGroup::new("decision").required(true))]
    Resolve {
        /// From the list; its beginning is enough.
        id: String,
        /// Keep what you wrote.
        #[arg(long, group = "decision")]
        mine: bool,
        /// Keep what the server has.
        #[arg(long, group = "decision")]
        theirs: bool,
        /// Something else, as JSON.
        #[arg(long, value_name = "JSON", group = "decision")]
        value: Option<String>,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct History {
    /// The database.
    #[arg(value_name = "APP.db")]
    pub file: PathBuf,
    /// The row's table.
    pub table: String,
    /// The row's primary key, one value for each of its columns.
    #[arg(value_name = "ID", required = true, allow_negative_numbers = true)]
    pub ids: Vec<String>,
    /// Make the row what it was right after the change with this version; of a deletion: what it
    /// deleted. A change like any other: the next sync tells the server.
    #[arg(long, value_name = "VERSION", conflicts_with_all = ["limit", "before"])]
    pub restore: Option<u64>,
    /// At most so many changes, the newest first.
    #[arg(long, value_name = "N", default_value = "20", value_parser = limit)]
    pub limit: usize,
    /// Only changes before the one with this version.
    #[arg(long, value_name = "VERSION")]
    pub before: Option<u64>,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Queue {
    /// The database.
    #[arg(value_name = "APP.db")]
    pub file: PathBuf,
    #[command(subcommand)]
    pub action: Option<QueueAction>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QueueAction {
    /// List what waits and what was refused, with the reason.
    List,
    /// Send a refused change again, with what depends on it.
    Retry {
        /// From the list; its beginning is enough.
        id: String,
    },
    /// Send everything that was refused again, and try operations of the app that failed.
    RetryAll,
    /// Forget a refused change for good.
    Discard {
        /// From the list; its beginning is enough.
        id: String,
    },
    /// Forget everything that was refused or failed for good.
    ClearFailed,
    /// Forget operations of the app that were done.
    ClearCompleted {
        /// Only those done longer ago than this: 90s, 30m, 12h, 30d.
        #[arg(long, value_name = "AGE", value_parser = crate::token::parse_ttl)]
        older_than: Option<u64>,
    },
    /// Count what waits, failed and was done.
    Stats,
}
