//! One module for each group of commands.

pub(crate) mod attach;
pub(crate) mod backup;
pub(crate) mod bench;
pub(crate) mod config;
pub(crate) mod conflicts;
pub(crate) mod devices;
pub(crate) mod doctor;
mod dry_run;
pub(crate) mod generate;
pub(crate) mod history;
pub(crate) mod migrate;
pub(crate) mod queue;
pub(crate) mod serve;
pub(crate) mod sim;
pub(crate) mod status;
pub(crate) mod sync;
pub(crate) mod users;
pub(crate) mod verify;

use std::{
    io::{IsTerminal as _, Write as _},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use clap::CommandFactory as _;
use syncline::{
    SyncManager,
    engine::{self, ClientError, Connection, Interrupt, Token},
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
    runtime()?.block_on(async {
        let manager = SyncManager::open(file, engine::connected(connection)).await?;
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

/// The connection that was given, or the one remembered for the file.
fn connection(path: &Path, args: &ServerArgs, output: &Output) -> Result<Connection, ClientError> {
    let known = || Connection::load(path);
    let connection = match given(args)? {
        Given::Both(connection) => connection,
        Given::Neither => known()?.ok_or(ClientError::NoServer)?,
        Given::Token(token) => match known()? {
            Some(known) => Connection::new(&known.url, token)?,
            None => return Err(ClientError::NoServer),
        },
        Given::Server(url) => match known()? {
            Some(known) if known.url == url.trim_end_matches('/') => known,
            Some(_) | None => return Err(ClientError::NoToken),
        },
    };
    warn_in_clear(&connection, args, output);
    Ok(connection)
}

/// Private networks exist, so it is no error. Said once, however often a command tries again.
fn warn_in_clear(connection: &Connection, args: &ServerArgs, output: &Output) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if connection.is_in_clear() && !args.allow_http && !SAID.swap(true, Ordering::Relaxed) {
        let sentence = format!(
            "{} is not encrypted: whoever is on the way reads the token and the rows; use \
             https://, or --allow-http (SYNCLINE_ALLOW_HTTP=1) where the network is trusted",
            connection.url
        );
        output.warning("in_clear", &sentence);
    }
}

/// The connection that was given; `None` when nothing was.
fn connection_if_given(
    args: &ServerArgs,
    output: &Output,
) -> Result<Option<Connection>, ClientError> {
    match given(args)? {
        Given::Both(connection) => {
            warn_in_clear(&connection, args, output);
            Ok(Some(connection))
        }
        Given::Server(_) => Err(ClientError::NoToken),
        Given::Neither | Given::Token(_) => Ok(None),
    }
}

enum Given {
    Both(Connection),
    Server(String),
    Token(Token),
    Neither,
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
