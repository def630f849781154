//! What can be typed.

mod file;
mod keys;
mod queue;
mod rules;
mod server;
mod topic;
mod user;

use std::{ffi::OsString, path::PathBuf};

use clap::{Args as ClapArgs, Parser, Subcommand};

pub(crate) use self::file::{Attach, Doctor, FileArgs, Hydrate, Migrate, ServerArgs, Sync, Verify};
pub(crate) use self::keys::{EncryptionKey, Reseal};
pub(crate) use self::queue::{ConflictAction, Conflicts, History, Queue, QueueAction};
pub(crate) use self::rules::{Check, Explain, Test};
pub(crate) use self::server::{
    Audit, Backup, DataArgs, Generate, Generated, Init, Restore, Serve, ShowConfig, Token, Users,
    UsersAction,
};
pub(crate) use self::topic::{TopicArgs, Unsubscribe};
pub(crate) use self::user::{Devices, DevicesAction, Login, Logout};

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

fn limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=1_000_000) => Ok(n),
        Ok(_) | Err(_) => Err("a number from 1 to 1000000".to_owned()),
    }
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
