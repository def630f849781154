//! `syncline doctor`: what is wrong, and what to do about it.

use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};
use syncline::engine::{self, Api, ClientError, Connection};
use syncline_core::builtin::FIRST_OWN;
use syncline_replica::{Replica, Status, TableState};

use super::{connection, connection_if_given, log, runtime};
use crate::{
    args::Doctor,
    exit::{self, Exit, Failure},
    output::{Output, counted},
    token,
};

/// Differences of clocks that are worth a word: last-write-wins bounds what they can do.
const CLOCK_AHEAD_MAX_S: i64 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    Worth,
    Wrong,
}

/// One thing that was looked at.
struct Finding {
    check: &'static str,
    state: State,
    sentence: String,
    exit: Exit,
}

/// What is found, told as it is found.
struct Findings<'o> {
    output: &'o Output,
    all: Vec<Finding>,
}

impl Findings<'_> {
    fn add(&mut self, check: &'static str, state: State, exit: Exit, sentence: impl Into<String>) {
        let sentence = sentence.into();
        let (mark, name) = match state {
            State::Good => ("ok   ", "ok"),
            State::Worth => ("note ", "note"),
            State::Wrong => ("WRONG", "wrong"),
        };
        self.output.result(
            &format!("{mark}  {check:<10} {sentence}"),
            &json!({ "type": "check", "check": check, "state": name, "message": sentence }),
        );
        self.all.push(Finding {
            check,
            state,
            sentence,
            exit,
        });
    }

    fn good(&mut self, check: &'static str, sentence: impl Into<String>) {
        self.add(check, State::Good, Exit::Done, sentence);
    }

    fn worth(&mut self, check: &'static str, sentence: impl Into<String>) {
        self.add(check, State::Worth, Exit::Done, sentence);
    }

    fn failed(&mut self, check: &'static str, error: ClientError) {
        let error = anyhow::Error::from(error);
        let exit = exit::code_of(&error);
        self.add(check, State::Wrong, exit, error.to_string());
    }
}

/// The four words for how a file stands with its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    NoProvider,
    Disconnected,
    Invalid,
    Healthy,
}

impl Health {
    fn word(self) -> &'static str {
        match self {
            Self::NoProvider => "no-provider",
            Self::Disconnected => "disconnected",
            Self::Invalid => "invalid",
            Self::Healthy => "healthy",
        }
    }
}

pub(crate) fn run(args: Doctor, verbose: u8, output: &Output) -> anyhow::Result<Exit> {
    log(verbose);
    let mut findings = Findings {
        output,
        all: Vec::new(),
    };
    findings.good("program", program());
    let status = match &args.file {
        Some(file) => examine(file, &mut findings)?,
        None => None,
    };
    let known = match &args.file {
        Some(file) => connection(file, &args.server, output),
        None => {
            let given = connection_if_given(&args.server, output);
            given.and_then(|given| given.ok_or(ClientError::NoServer))
        }
    };
    let health = match known {
        Ok(connection) => runtime()?.block_on(call(&connection, &mut findings)),
        Err(ClientError::NoServer) => {
            findings.worth("server", ClientError::NoServer.to_string());
            Health::NoProvider
        }
        Err(error) => {
            findings.failed("token", error);
            Health::Invalid
        }
    };
    let wrong = findings
        .all
        .iter()
        .find(|finding| finding.state == State::Wrong);
    // What is wrong with the file makes the whole invalid, however well the server does.
    let is_of_file = wrong.is_some_and(|wrong| matches!(wrong.check, "file" | "device"));
    let is_invalid = is_of_file && health == Health::Healthy;
    let health = if is_invalid { Health::Invalid } else { health };
    output.result(
        health.word(),
        &json!({ "type": "health", "health": health.word() }),
    );
    if let Some(path) = &args.report {
        write_report(path, health, &findings.all, status.as_ref())?;
        output.note(&format!(
            "wrote {}; it has no contents of rows",
            path.display()
        ));
    }
    Ok(wrong.map_or(Exit::Done, |wrong| wrong.exit))
}

fn program() -> String {
    format!(
        "syncline {} with SQLite {} on {} {}",
        env!("CARGO_PKG_VERSION"),
        rusqlite::version(),
        std::env::consts::OS,
        std::env::consts::ARCH,
    )
}

/// The file and what is kept in it of syncing.
fn examine(file: &Path, findings: &mut Findings<'_>) -> anyhow::Result<Option<Status>> {
    match engine::is_attached(file) {
        Ok(true) => {}
        Ok(false) => {
            findings.worth(
                "file",
                format!(
                    "{} is not attached: `syncline attach` does that",
                    file.display()
                ),
            );
            return Ok(None);
        }
        Err(error) => {
            findings.failed("file", error);
            return Ok(None);
        }
    }
    let replica = match engine::open_replica(file) {
        Ok(replica) => replica,
        Err(error) => {
            findings.failed("file", error);
            return Ok(None);
        }
    };
    soundness(file, &replica, findings)?;
    let status = replica
        .status()
        .map_err(|source| ClientError::replica(file, source))?;
    for table in &status.tables {
        if let TableState::LeftOut { reason } = &table.state {
            findings.worth("tables", format!("{} does not sync: {reason}", table.name));
        }
    }
    if status.deregistered {
        let sentence = format!(
            "this one was removed from its user's list and does not sync: `syncline devices {} \
             register` brings it back",
            file.display()
        );
        findings.add("device", State::Wrong, Exit::Deregistered, sentence);
    }
    let synced = status.tables.len() as u64;
    findings.good("tables", format!("{} captured", counted(synced, "table")));
    queue(file, &status, findings);
    Ok(Some(status))
}

/// SQLite's own look at every page.
fn soundness(file: &Path, replica: &Replica, findings: &mut Findings<'_>) -> anyhow::Result<()> {
    let conn = replica.connection();
    let word = |pragma: &str| -> rusqlite::Result<String> {
        conn.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0))
    };
    let said = word("quick_check(1)").context("check the file")?;
    let journal = word("journal_mode").context("read the journal mode")?;
    if said == "ok" {
        let bytes = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
        findings.good(
            "file",
            format!(
                "{} is sound: {bytes} bytes, journal mode {journal}",
                file.display()
            ),
        );
    } else {
        let path = file.to_owned();
        findings.failed(
            "file",
            ClientError::Corrupt {
                path,
                message: said,
            },
        );
    }
    Ok(())
}

fn queue(file: &Path, status: &Status, findings: &mut Findings<'_>) {
    let file = file.display();
    if status.parked > 0 {
        let refused = counted(status.parked, "changeset");
        findings.worth(
            "queue",
            format!("{refused} refused: `syncline queue {file}`"),
        );
    }
    if status.conflicts > 0 {
        let open = counted(status.conflicts, "conflict");
        findings.worth(
            "queue",
            format!("{open} to decide: `syncline conflicts {file}`"),
        );
    }
    if status.unstorable > 0 {
        let rows = counted(status.unstorable, "row");
        findings.worth(
            "queue",
            format!("{rows} of the server do not fit into this database"),
        );
    }
    let (waiting, accepted) = (counted(status.waiting, "changeset"), status.accepted);
    findings.good(
        "queue",
        format!("{waiting} to send, {accepted} on their way back"),
    );
    match (status.checkpoint, status.caught_up) {
        (None, _) => findings.worth("sync", "never synced yet"),
        (Some(at), caught_up) => {
            let seconds = engine::now().as_millis().saturating_sub(at.0 / 1_000) / 1_000;
            let newest = format!("the newest change from the server is {} old", age(seconds));
            if caught_up {
                findings.good("sync", newest);
            } else {
                findings.worth("sync", format!("{newest}, and there is more to fetch"));
            }
        }
    }
}

/// The server: there, ready, and willing.
async fn call(connection: &Connection, findings: &mut Findings<'_>) -> Health {
    let api = match Api::new(connection) {
        Ok(api) => api,
        Err(error) => {
            findings.failed("server", error);
            return Health::Invalid;
        }
    };
    let probe = match api.probe().await {
        Ok(probe) => probe,
        Err(error) => {
            findings.failed("server", error);
            return Health::Disconnected;
        }
    };
    let took = probe.took.as_millis();
    if !probe.is_ready {
        let sentence = format!(
            "{} answers, but is not ready: {}",
            connection.url, probe.says
        );
        findings.add("server", State::Wrong, Exit::Unreachable, sentence);
        return Health::Disconnected;
    }
    findings.good(
        "server",
        format!("{} is ready; it answered in {took} ms", connection.url),
    );
    match probe.clock_ahead_s {
        Some(ahead) if ahead.abs() > CLOCK_AHEAD_MAX_S => {
            let way = if ahead > 0 { "behind" } else { "ahead of" };
            findings.worth(
                "clock",
                format!(
                    "this machine's clock is {} {way} the server's: set it",
                    age(ahead.unsigned_abs())
                ),
            );
        }
        Some(_) => findings.good("clock", "this machine's and the server's agree"),
        None => {}
    }
    match api.schema().await {
        Ok(schema) => {
            // The inbox is a table of our own.
            let own = schema
                .tables
                .iter()
                .filter(|table| table.number >= FIRST_OWN.0);
            let tables = own.count() as u64;
            findings.good(
                "token",
                format!("taken; {} to sync", counted(tables, "table")),
            );
            Health::Healthy
        }
        Err(error) => {
            let is_away = matches!(error, ClientError::Unreachable { .. });
            findings.failed("token", error);
            if is_away {
                Health::Disconnected
            } else {
                Health::Invalid
            }
        }
    }
}

fn age(seconds: u64) -> String {
    match seconds {
        0..120 => counted(seconds, "second"),
        120..7_200 => counted(seconds / 60, "minute"),
        7_200..172_800 => counted(seconds / 3_600, "hour"),
        _ => counted(seconds / 86_400, "day"),
    }
}

/// Everything that was found, the state of each table, nothing of what is in them.
fn write_report(
    path: &Path,
    health: Health,
    findings: &[Finding],
    status: Option<&Status>,
) -> anyhow::Result<()> {
    let checks: Vec<Value> = findings
        .iter()
        .map(|finding| {
            json!({ "check": finding.check, "wrong": finding.state == State::Wrong, "message": finding.sentence })
        })
        .collect();
    let tables = status.map(|status| {
        let tables = status.tables.iter().map(|table| {
            json!({ "table": table.name, "state": format!("{:?}", table.state), "rows": table.rows, "seeding": table.seeding })
        });
        tables.collect::<Vec<_>>()
    });
    let report = json!({
        "written_at_ms": engine::now().as_millis(),
        "health": health.word(),
        "checks": checks,
        "device": status.map(|status| status.device.to_string()),
        "server": status.and_then(|status| status.server).map(|server| server.to_string()),
        "waiting": status.map(|status| status.waiting),
        "parked": status.map(|status| status.parked),
        "conflicts": status.map(|status| status.conflicts),
        "checkpoint": status.and_then(|status| status.checkpoint).map(|version| version.0),
        "tables": tables,
    });
    let text = format!("{report:#}\n");
    token::write_private(path, text.as_bytes()).map_err(|error| {
        let (exit, why) = if error.kind() == std::io::ErrorKind::AlreadyExists {
            let why = format!("{} is there already; name another file", path.display());
            (Exit::AlreadyThere, why)
        } else {
            let why = format!("{} cannot be written: {error}", path.display());
            (Exit::ReadOnly, why)
        };
        Failure::new(exit, why).into()
    })
}
