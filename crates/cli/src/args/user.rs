//! Who somebody is on this machine, and with which devices.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::ServerArgs;

#[derive(Debug, ClapArgs)]
pub(crate) struct Login {
    /// The account's e-mail address; asked for, or that of the login before.
    pub email: Option<String>,
    /// The server; that of the last login unless given.
    #[arg(long, value_name = "URL", env = "SYNCLINE_URL")]
    pub server: Option<String>,
    /// Take the password from standard input, its first line, instead of asking.
    #[arg(long)]
    pub password_stdin: bool,
    /// Make the account, where the server lets people do so.
    #[arg(long)]
    pub sign_up: bool,
    /// Say nothing about http:// to another machine: the network between is trusted.
    #[arg(
        long,
        env = "SYNCLINE_ALLOW_HTTP",
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    pub allow_http: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Logout {
    /// The server; that of the last login unless given.
    #[arg(long, value_name = "URL", env = "SYNCLINE_URL")]
    pub server: Option<String>,
    /// End every login of the account, on all devices.
    #[arg(long)]
    pub everywhere: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Devices {
    /// The database of one of them.
    #[arg(value_name = "APP.db")]
    pub file: PathBuf,
    #[command(subcommand)]
    pub action: Option<DevicesAction>,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DevicesAction {
    /// List them, those that were connected last first.
    List,
    /// Give one another name.
    Rename {
        /// From the list; its beginning is enough.
        id: String,
        /// 1 to 200 characters.
        name: String,
    },
    /// Take one off the list: its session ends, and it does not sync any more until it is registered
    /// anew. It keeps what it has, but with --wipe.
    Remove {
        /// From the list; its beginning is enough. With --wipe also one that was removed before,
        /// by its whole id.
        id: String,
        /// Have what it synced removed there, with its next contact; also what it has not sent.
        #[arg(long)]
        wipe: bool,
    },
    /// Register this database as a new device with the next sync, if it was removed; with a name,
    /// that is what it is called. What was not sent is sent then.
    Register {
        /// 1 to 200 characters; the one it had, if none is given.
        name: Option<String>,
    },
}
