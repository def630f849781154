//! What is typed of a file that syncs.

use std::{ffi::OsString, path::PathBuf};

use clap::Args as ClapArgs;

#[derive(Debug, ClapArgs)]
pub(crate) struct Doctor {
    /// The database; without one, only the server is looked at.
    #[arg(value_name = "APP.db")]
    pub file: Option<PathBuf>,
    /// Also write a report to send to somebody, with no contents of rows in it.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Which server, as whom.
#[derive(Debug, Clone, ClapArgs)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerArgs {
    /// The server, for example http://127.0.0.1:7117.
    #[arg(long, value_name = "URL", env = "SYNCLINE_URL")]
    pub server: Option<String>,
    /// A token; better in SYNCLINE_TOKEN or a file, where other programs do not see it.
    #[arg(long, env = "SYNCLINE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// A file with the token.
    #[arg(long, value_name = "FILE", env = "SYNCLINE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// A file with the key of encrypted columns; may be repeated: the further ones are older keys.
    #[arg(
        long,
        value_name = "FILE",
        env = "SYNCLINE_ENCRYPTION_KEY_FILE",
        value_delimiter = ','
    )]
    pub encryption_key_file: Vec<PathBuf>,
    /// Say nothing about http:// to another machine: the network between is trusted.
    #[arg(
        long,
        env = "SYNCLINE_ALLOW_HTTP",
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    pub allow_http: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct FileArgs {
    /// The database.
    #[arg(value_name = "APP.db")]
    pub file: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Attach {
    /// The database.
    #[arg(value_name = "APP.db")]
    pub file: PathBuf,
    /// Only these tables.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub tables: Vec<String>,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
    /// Subscribe to nothing: rows of tables on demand leave the file once the server has them.
    #[arg(long)]
    pub no_subscribe: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Hydrate {
    /// The database to make.
    #[arg(value_name = "NEW.db")]
    pub file: PathBuf,
    /// Only these tables.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub tables: Vec<String>,
    /// Say what would be received, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Sync {
    /// The database.
    #[arg(value_name = "APP.db")]
    pub file: PathBuf,
    /// Attach with only these tables, if the file is not attached yet.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub tables: Vec<String>,
    /// Stay connected: pass on every change at once, until interrupted.
    #[arg(long, short)]
    pub watch: bool,
    /// If the file is not attached yet, or meets its first server, subscribe to nothing: rows of
    /// tables on demand leave the file once the server has them.
    #[arg(long)]
    pub no_subscribe: bool,
    /// Say what would be sent and received, and change nothing, here or there.
    #[arg(long, conflicts_with = "watch")]
    pub dry_run: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Migrate {
    /// The database.
    #[arg(value_name = "APP.db")]
    pub file: PathBuf,
    /// The command that migrates it, after `--`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Verify {
    /// The database.
    #[arg(value_name = "APP.db")]
    pub file: PathBuf,
    /// Load again what differs.
    #[arg(long)]
    pub repair: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}
