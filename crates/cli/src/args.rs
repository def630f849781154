//! What can be typed.

mod keys;
mod rules;
mod topic;
mod user;

use std::{ffi::OsString, path::PathBuf};

use clap::{Args as ClapArgs, Parser, Subcommand};

pub(crate) use self::keys::{EncryptionKey, Reseal};
pub(crate) use self::rules::{Check, Explain, Test};
pub(crate) use self::topic::{TopicArgs, Unsubscribe};
pub(crate) use self::user::{Devices, DevicesAction, Login, Logout};
use crate::settings::Settings;

const AFTER: &str = "\
Examples:
  syncline init --from notes.db          write syncline.toml from a database
  syncline serve --dev                   a server on this machine, http://127.0.0.1:7117
  export SYNCLINE_URL=http://127.0.0.1:7117 SYNCLINE_TOKEN=$(syncline token --user ana)
  syncline login --server https://sync.example.com ana@example.com    or with an account
  syncline attach notes.db               add capture to a file; shows what would be sent
  syncline sync notes.db --watch         keep it in step
  syncline hydrate phone.db              a second device

Exit codes (docs/cli.md says what to do):
   0 done                      9 disk full                  18 other protocol version
   1 unexpected               10 not attached               19 file of a newer program
   2 wrong arguments          11 is there or attached       20 rows in doubt, or not confirmed
   3 mistake in syncline.toml 12 no server given, or bad    21 verify or sim: differences
   4 no such file or id       13 server unreachable         22 table cannot sync
   5 no SQLite database       14 no Syncline server         23 refused by the server
   6 damaged database         15 no token, or a wrong one   24 cannot listen
   7 read-only                16 file of another server     25 server's data in use or damaged
   8 locked                   17 file of another user       26 migrate's command failed
                                                           27 removed from the user's devices
                                                           28 encryption key missing or wrong
                                                           130 interrupted";

/// Keeps any SQLite database in step with a server, offline included.
#[derive(Debug, Parser)]
#[command(name = "syncline", version, after_help = AFTER)]
pub(crate) struct Args {
    /// Print JSON, one object a line, on standard output.
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
    /// Print results only, no progress.
    #[arg(long, short, global = true, help_heading = "Output")]
    pub quiet: bool,
    /// Say more (twice: everything) on standard error.
    #[arg(long, short, global = true, action = clap::ArgAction::Count, help_heading = "Output")]
    pub verbose: u8,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server.
    Serve(Serve),
    /// Write a syncline.toml.
    Init(Init),
    /// Read syncline.toml and say each rule in words.
    Check(Check),
    /// Who can see and write a row, or what somebody can see and write, and why.
    Explain(Explain),
    /// Check lines of who may do what with which row.
    Test(Test),
    /// Print each setting of the server and where it came from.
    Config(ShowConfig),
    /// Print tables as SQL, or the types of their rows.
    Generate(Generate),
    /// Print a token for a user.
    Token(Token),
    /// The people who sign in to a server: list, add, change, remove.
    Users(Users),
    /// Who signed in, was refused, or changed an account; newest first.
    Audit(Audit),
    /// Sign in to a server with an account, and stay so on this machine.
    Login(Login),
    /// End the login on this machine.
    Logout(Logout),
    /// Say who is signed in, and where.
    Whoami(ServerArgs),
    /// Copy a server's data into one file, while it runs.
    Backup(Backup),
    /// Put a copy back as a server's data.
    Restore(Restore),
    /// Make a database sync: compare it with the server, then add capture.
    Attach(Attach),
    /// Take everything of Syncline out of a database again.
    Detach(FileArgs),
    /// Make a new database with everything the server has for this user.
    Hydrate(Hydrate),
    /// Bring a database and the server in step; with --watch, keep them so.
    Sync(Sync),
    /// Send what is here to the server, and stop when it has everything.
    Seed(Sync),
    /// Run a command that changes the tables of a database, and say what it changed.
    Migrate(Migrate),
    /// Have rows sent that come only when they are asked for; with the next sync.
    Subscribe(TopicArgs),
    /// Stop that; the rows are removed here after five minutes.
    Unsubscribe(Unsubscribe),
    /// What is subscribed to.
    Subscriptions(FileArgs),
    /// What waits, what is loading, what is parked.
    Status(FileArgs),
    /// Edits that somebody has to decide.
    Conflicts(Conflicts),
    /// Who changed a row, when, and what was before; makes it what it was.
    History(History),
    /// Changes that wait, and those the server refused.
    Queue(Queue),
    /// The devices of this user: how far behind each is, their names, which may sync.
    Devices(Devices),
    /// Make a key for encrypted columns, which no server ever gets.
    EncryptionKey(EncryptionKey),
    /// After a change of keys, have what the older ones sealed sealed anew; send it with `sync`.
    Reseal(Reseal),
    /// Prove that a database equals the server: digests, then row by row.
    Verify(Verify),
    /// Find out what is wrong: the file, the queue, the server, the token.
    Doctor(Doctor),
    /// Measure this program on this machine, beside what the machine itself can do.
    Bench(crate::commands::bench::Bench),
    /// Try your tables, rules and merging on simulated devices, with everything going wrong.
    Sim(Sim),
    /// Print completions for a shell.
    Completions(Completions),
}

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

#[derive(Debug, ClapArgs)]
pub(crate) struct Sim {
    /// The configuration: its tables, rules and merging are simulated.
    #[arg(
        long,
        short,
        value_name = "FILE",
        env = "SYNCLINE_CONFIG",
        default_value = "syncline.toml"
    )]
    pub config: PathBuf,
    /// Which runs: each number is one, and always the same.
    #[arg(long, value_name = "A..B", default_value = "0..20", value_parser = syncline_sim::parse_range)]
    pub seeds: (u64, u64),
    /// What people and faults do in a run, all together.
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub steps: usize,
    /// What goes wrong: calm, network, crashes, clocks, permissions, restores or everything.
    #[arg(long, value_name = "NAME", default_value = "everything", value_parser = syncline_sim::parse_scenario)]
    pub scenario: syncline_sim::Scenario,
    /// Who writes: names as rules compare them with auth.uid().
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "ann,bob,cyd"
    )]
    pub users: Vec<String>,
    /// So many devices at the beginning of each run, whatever its number says.
    #[arg(long, value_name = "N")]
    pub devices: Option<u64>,
    /// Of each run only these steps, as 3,17,80-82: how a failure is repeated.
    #[arg(long, value_name = "STEPS", value_parser = syncline_sim::parse_steps)]
    pub only: Option<syncline_sim::Steps>,
    /// Print everything that happens.
    #[arg(long, conflicts_with = "json")]
    pub trace: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Completions {
    /// Which shell.
    pub shell: clap_complete::Shell,
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

fn limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=1_000_000) => Ok(n),
        Ok(_) | Err(_) => Err("a number from 1 to 1000000".to_owned()),
    }
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

/// `conflicts list APP.db` for `conflicts APP.db list`: both orders come naturally, so both work.
/// With an id there too, the file is the one of the two that exists, else the first.
pub(crate) fn file_first(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let positional: Vec<usize> = (1..args.len())
        .filter(|&i| !args[i].as_encoded_bytes().starts_with(b"-"))
        .filter(|&i| args[i - 1] != "--value")
        .collect();
    let [command, action, _, ..] = positional[..] else {
        return args;
    };
    let actions: &[&str] = match args[command].to_str() {
        Some("conflicts") => &["list", "show", "resolve"],
        Some("queue") => &[
            "list",
            "retry",
            "discard",
            "retry-all",
            "clear-failed",
            "clear-completed",
            "stats",
        ],
        Some("devices") => &["list", "rename", "remove", "register"],
        _ => return args,
    };
    if actions.iter().any(|name| args[action] == *name) {
        let rest = &positional[2..];
        let exists = |i: &&usize| std::path::Path::new(&args[**i]).exists();
        let file = *rest.iter().find(exists).unwrap_or(&rest[0]);
        let file = args.remove(file);
        args.insert(action, file);
    }
    args
}

#[cfg(test)]
mod tests {
    use super::file_first;

    #[test]
    fn the_file_may_follow_the_action() {
        let order = |line: &str| {
            let words = file_first(line.split(' ').map(Into::into));
            let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
            words.join(" ")
        };
        for (typed, wanted) in [
            ("s conflicts list a.db", "s conflicts a.db list"),
            ("s conflicts a.db list", "s conflicts a.db list"),
            ("s --json queue list a.db", "s --json queue a.db list"),
            ("s queue retry a.db 17", "s queue a.db retry 17"),
            ("s queue stats a.db", "s queue a.db stats"),
            (
                "s devices rename a.db 17 Phone",
                "s devices a.db rename 17 Phone",
            ),
            // This crate's own manifest stands for a file that exists.
            (
                "s queue discard 17 Cargo.toml",
                "s queue Cargo.toml discard 17",
            ),
            (
                "s conflicts resolve a.db 17 --value list",
                "s conflicts a.db resolve 17 --value list",
            ),
            ("s conflicts a.db", "s conflicts a.db"),
            ("s sync list a.db", "s sync list a.db"),
        ] {
            assert_eq!(order(typed), wanted);
        }
    }
}
