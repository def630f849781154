//! What is typed where a server runs.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::limit;
use crate::settings::Settings;

#[derive(Debug, ClapArgs)]
pub(crate) struct Serve {
    /// For trying things: this machine only, tables of devices are added, prints a token.
    #[arg(long)]
    pub dev: bool,
    /// Destructive changes of the tables that are allowed, for example drop:tasks.note.
    #[arg(
        long,
        value_name = "WHAT",
        env = "SYNCLINE_ALLOW",
        value_delimiter = ','
    )]
    pub allow: Vec<String>,
    /// Log as JSON lines.
    #[arg(long)]
    pub log_json: bool,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Init {
    /// Read the tables of this database.
    #[arg(long, value_name = "APP.db")]
    pub from: Option<PathBuf>,
    /// Where to write.
    #[arg(long, short, default_value = "syncline.toml")]
    pub output: PathBuf,
    /// Replace the file if it is there.
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Token {
    /// Who the token stands for.
    #[arg(long, short)]
    pub user: String,
    /// Further claims that rules can look at; may be repeated. JSON values are taken as such.
    #[arg(long = "claim", value_name = "K=V")]
    pub claims: Vec<String>,
    /// How long it is good: 90s, 30m, 12h, 30d.
    #[arg(long, default_value = "30d", value_parser = crate::token::parse_ttl)]
    pub ttl: u64,
    #[command(flatten)]
    pub data: DataArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Users {
    #[command(subcommand)]
    pub action: UsersAction,
    #[command(flatten)]
    pub data: DataArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UsersAction {
    /// List them, by address.
    List,
    /// Add one, whose address counts as confirmed.
    Add {
        email: String,
        /// A file with the password, - for standard input; without it one is made and shown once.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// Claims that rules can look at; may be repeated. JSON values are taken as such.
        #[arg(long = "claim", value_name = "K=V")]
        claims: Vec<String>,
    },
    /// Remove one for good; its rows stay.
    Remove {
        /// Address or id.
        who: String,
    },
    /// Keep one from signing in; ends what is open within a second.
    Disable {
        /// Address or id.
        who: String,
    },
    /// Let one sign in again.
    Enable {
        /// Address or id.
        who: String,
    },
    /// Give one another password, and end its logins.
    ResetPassword {
        /// Address or id.
        who: String,
        /// A file with the password, - for standard input; without it one is made and shown once.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Give one these claims in place of those it has; in its tokens from the next one on.
    Claims {
        /// Address or id.
        who: String,
        /// JSON values are taken as such; none takes all away.
        #[arg(value_name = "K=V")]
        claims: Vec<String>,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Audit {
    /// Only of this user, by address or id: what they did, and what was done to them.
    #[arg(long)]
    pub user: Option<String>,
    /// Only of this kind, for example sign_in_failed.
    #[arg(long)]
    pub kind: Option<String>,
    /// At most so many records.
    #[arg(long, value_name = "N", default_value = "50", value_parser = limit)]
    pub limit: usize,
    /// Only records before the one with this number.
    #[arg(long, value_name = "NUMBER")]
    pub before: Option<u64>,
    /// Check that no record was changed or lost.
    #[arg(long, conflicts_with_all = ["user", "kind", "before"])]
    pub verify: bool,
    #[command(flatten)]
    pub data: DataArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Backup {
    /// The file to make: an SQLite database with everything, the token secret too.
    #[arg(value_name = "FILE")]
    pub to: PathBuf,
    #[command(flatten)]
    pub data: DataArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Restore {
    /// A file that `backup` made.
    #[arg(value_name = "FILE")]
    pub from: PathBuf,
    #[command(flatten)]
    pub data: DataArgs,
    /// Replace the data that is there; it is kept beside it.
    #[arg(long)]
    pub force: bool,
}

/// Where a server's data is, for commands that work beside it.
#[derive(Debug, ClapArgs)]
pub(crate) struct DataArgs {
    /// Folder of the server's data.
    #[arg(long, global = true, value_name = "DIR", env = "SYNCLINE_DATA")]
    pub data: Option<String>,
    /// The server's configuration, if that says where the data is.
    #[arg(
        long,
        short,
        global = true,
        value_name = "FILE",
        env = "SYNCLINE_CONFIG"
    )]
    pub config: Option<PathBuf>,
    /// The database, if it is not in the data folder.
    #[arg(long, global = true, value_name = "FILE", env = "SYNCLINE_DATABASE")]
    pub database: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ShowConfig {
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Generate {
    /// What to write.
    #[arg(value_enum)]
    pub what: Generated,
    /// From this configuration; `syncline.toml` unless --from says otherwise.
    #[arg(long, short, value_name = "FILE", env = "SYNCLINE_CONFIG")]
    pub config: Option<PathBuf>,
    /// From the tables of this database.
    #[arg(long, value_name = "APP.db", conflicts_with = "config")]
    pub from: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Generated {
    /// SQL that makes the tables in an SQLite database.
    Schema,
    /// TypeScript types of the rows.
    Types,
}
