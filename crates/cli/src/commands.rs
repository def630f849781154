//! One module for each group of commands.

pub(crate) mod attach;
pub(crate) mod backup;
pub(crate) mod bench;
pub(crate) mod config;
pub(crate) mod conflicts;
pub(crate) mod devices;
pub(crate) mod doctor;
mod dry_run;
pub(crate) mod explain;
pub(crate) mod generate;
pub(crate) mod history;
pub(crate) mod login;
pub(crate) mod migrate;
pub(crate) mod queue;
pub(crate) mod reseal;
pub(crate) mod rule_test;
pub(crate) mod serve;
pub(crate) mod sim;
pub(crate) mod status;
pub(crate) mod subscribe;
pub(crate) mod sync;
pub(crate) mod users;
pub(crate) mod verify;

use std::{
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use clap::CommandFactory as _;
use syncline::{
    EncryptionKey, SyncManager,
    engine::{self, ClientError, Connection, Interrupt, Keyring, Token},
};

use crate::{
    args::{Args, ServerArgs},
    exit::Exit,
    output::Output,
};

/// What a shell needs to complete our commands, on standard output.
pub(crate) fn completions(shell: clap_complete::Shell) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "syncline", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(Exit::Done)
}

/// A runtime for one file: everything happens on this thread.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// One errand of the library on a file, with a server or without.
fn managed<T>(
    file: &Path,
    connection: Option<&Connection>,
    errand: impl AsyncFnOnce(&SyncManager) -> Result<T, syncline::Error>,
) -> anyhow::Result<T> {
    managed_as(file, engine::connected(connection), errand)
}

fn managed_as<T>(
    file: &Path,
    config: syncline::Config,
    errand: impl AsyncFnOnce(&SyncManager) -> Result<T, syncline::Error>,
) -> anyhow::Result<T> {
    runtime()?.block_on(async {
        let manager = SyncManager::open(file, config).await?;
        let done = errand(&manager).await;
        manager.close().await;
        Ok(done?)
    })
}

/// Logs of the engine to standard error: silent unless asked.
fn log(verbose: u8) {
    let level = match verbose {
        0 => return,
        1 => "syncline=info",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::new(level);
    let logger = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // A second call in one process (tests) changes nothing.
    let _already = logger.try_init();
}

/// The connection that was given, or the one remembered for the file, or a login. A remembered
/// token that has ended gives way to a login at its server.
fn connection(path: &Path, args: &ServerArgs, output: &Output) -> Result<Connection, ClientError> {
    let known = || Connection::load(path);
    let login_at = |url: &str| -> Result<Option<Connection>, ClientError> {
        Ok(engine::login_at(url)?.as_ref().map(Connection::of_login))
    };
    let or_login = |known: Connection| match known.has_expired() {
        true => Ok(login_at(&known.url)?.unwrap_or(known)),
        false => Ok(known),
    };
    let connection = match given(args)? {
        Given::Both(connection) => connection,
        Given::Neither => match known()? {
            Some(known) => or_login(known)?,
            None => last_login()?.ok_or(ClientError::NoServer)?,
        },
        Given::Token(token) => match Connection::known_url(path)? {
            Some(url) => Connection::new(&url, token)?,
            None => return Err(ClientError::NoServer),
        },
        Given::Server(url) => {
            let is_known =
                Connection::known_url(path)?.as_deref() == Some(url.trim_end_matches('/'));
            let known = if is_known { known()? } else { None };
            match known {
                Some(known) => or_login(known)?,
                None => login_at(&url)?.ok_or(ClientError::NoToken)?,
            }
        }
    };
    warn_in_clear(&connection, args.allow_http, output);
    Ok(connection)
}

/// As who signed in last, whatever the server.
fn last_login() -> Result<Option<Connection>, ClientError> {
    Ok(engine::last_login()?.as_ref().map(Connection::of_login))
}

/// Private networks exist, so it is no error. Said once, however often a command tries again.
fn warn_in_clear(connection: &Connection, allow_http: bool, output: &Output) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if connection.is_in_clear() && !allow_http && !SAID.swap(true, Ordering::Relaxed) {
        let sentence = format!(
            "{} is not encrypted: whoever is on the way reads the token and the rows; use \
             https://, or --allow-http (SYNCLINE_ALLOW_HTTP=1) where the network is trusted",
            connection.url
        );
        output.warning("in_clear", &sentence);
    }
}

/// The connection that was given, or a login; `None` when there is neither.
fn connection_if_given(
    args: &ServerArgs,
    output: &Output,
) -> Result<Option<Connection>, ClientError> {
    let connection = match given(args)? {
        Given::Both(connection) => Some(connection),
        Given::Server(url) => {
            let login = engine::login_at(&url)?.ok_or(ClientError::NoToken)?;
            Some(Connection::of_login(&login))
        }
        Given::Token(_) => None,
        Given::Neither => last_login()?,
    };
    if let Some(connection) = &connection {
        warn_in_clear(connection, args.allow_http, output);
    }
    Ok(connection)
}

enum Given {
    Both(Connection),
    Server(String),
    Token(Token),
    Neither,
}

/// The keys of encrypted columns.
fn keys(files: &[PathBuf]) -> Result<Keyring, syncline::Error> {
    let keys = read_keys(files)?;
    Ok(match keys.split_first() {
        Some((current, older)) => Keyring::new(current, older),
        None => Keyring::default(),
    })
}

/// The one that seals comes first.
fn read_keys(files: &[PathBuf]) -> Result<Vec<EncryptionKey>, syncline::Error> {
    let read = files.iter().map(|path| engine::read_key_file(path));
    read.collect()
}

/// `syncline encryption-key`.
pub(crate) fn encryption_key(to: &Path, output: &Output) -> anyhow::Result<Exit> {
    let id = engine::make_key_file(to)?.id().to_string();
    output.result(
        &format!(
            "made key {id} in {}; keep a copy where no server is",
            to.display()
        ),
        &serde_json::json!({ "type": "encryption_key", "id": id, "file": to }),
    );
    Ok(Exit::Done)
}

fn given(args: &ServerArgs) -> Result<Given, ClientError> {
    let token = match (&args.token, &args.token_file) {
        (Some(token), _) => Some(Token::new(token)),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path).map_err(|error| ClientError::Credentials {
                path: path.clone(),
                reason: error.to_string(),
            })?;
            Some(Token::new(&text))
        }
        (None, None) => None,
    };
    Ok(match (&args.server, token) {
        (Some(url), Some(token)) => Given::Both(Connection::new(url, token)?),
        (Some(url), None) => Given::Server(url.clone()),
        (None, Some(token)) => Given::Token(token),
        (None, None) => Given::Neither,
    })
}

/// Ctrl-C and a polite kill end a run; a second Ctrl-C ends the process as always.
fn interrupt_on_signals() -> anyhow::Result<Interrupt> {
    let interrupt = Interrupt::default();
    let trigger = interrupt.clone();
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated.recv() => {}
        }
        trigger.trigger();
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130);
        }
    });
    Ok(interrupt)
}

/// Ends a run when nobody reads what it prints any more: a program that was killed cannot stop
/// its sidecar. Only for pipes and sockets; a file or a terminal is always read.
fn interrupt_when_unread(interrupt: &Interrupt) {
    let interrupt = interrupt.clone();
    // The thread ends with the process.
    std::thread::spawn(move || {
        use rustix::event::{PollFd, PollFlags, poll};
        let stdout = rustix::stdio::stdout();
        loop {
            let mut waited = [PollFd::new(&stdout, PollFlags::empty())];
            match poll(&mut waited, None) {
                Ok(_)
                    if waited[0]
                        .revents()
                        .intersects(PollFlags::ERR | PollFlags::HUP) =>
                {
                    break;
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
        interrupt.trigger();
    });
}
