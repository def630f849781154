//! The configuration and its rules: checking, explaining, testing.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::{DataArgs, limit};

#[derive(Debug, ClapArgs)]
pub(crate) struct Check {
    /// The configuration.
    #[arg(
        long,
        short,
        value_name = "FILE",
        env = "SYNCLINE_CONFIG",
        default_value = "syncline.toml"
    )]
    pub config: PathBuf,
    /// Folder of a server's data: say what starting it with this configuration would change there.
    /// The server may run meanwhile.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Destructive changes to be allowed, as for `serve`.
    #[arg(long, value_name = "WHAT", requires = "data", value_delimiter = ',')]
    pub allow: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Explain {
    /// The table; without one (and with a user), all of them.
    pub table: Option<String>,
    /// The row's key; several for a key of several columns.
    pub id: Vec<String>,
    /// What this user may do: as rules name them, or the e-mail address of an account.
    #[arg(long, short, conflicts_with = "anonymous")]
    pub user: Option<String>,
    /// What somebody may do who has not signed in.
    #[arg(long)]
    pub anonymous: bool,
    /// Claims of the user's token; may be repeated. JSON values are taken as such.
    #[arg(long = "claim", value_name = "K=V")]
    pub claims: Vec<String>,
    /// Look at no more than so many rows of a table.
    #[arg(long, value_name = "N", default_value = "10000", value_parser = limit)]
    pub limit: usize,
    #[command(flatten)]
    pub data: DataArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Test {
    /// The lines, and rows for them, unless they are about those of the server's data.
    #[arg(value_name = "FILE.toml")]
    pub file: PathBuf,
    #[command(flatten)]
    pub data: DataArgs,
}
