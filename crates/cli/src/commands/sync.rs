//! `syncline sync`, `seed` and `hydrate`: running a replica.

use std::path::Path;

use serde_json::json;
use syncline::{
    Operation,
    engine::{
        self, AttachRequest, ClientError, Connection, Driver, Goal, Keyring, Notice, Summary,
    },
};
use syncline_replica::{Event, Status};

use super::{
    connection, dry_run::dry_run, interrupt_on_signals, interrupt_when_unread, keys, log, runtime,
    subscribe,
};
use crate::{
    args::{Hydrate, Sync},
    exit::Exit,
    output::{Output, counted, grouped},
    progress::{Progress, describe},
};

pub(crate) fn sync(args: Sync, verbose: u8, output: &Output) -> anyhow::Result<Exit> {
    let goal = if args.watch {
        Goal::Forever
    } else {
        Goal::InStep
    };
    attached(args, goal, verbose, output)
}

pub(crate) fn seed(args: Sync, verbose: u8, output: &Output) -> anyhow::Result<Exit> {
    let goal = if args.watch {
        Goal::Forever
    } else {
        Goal::Sent
    };
    attached(args, goal, verbose, output)
}

fn attached(args: Sync, goal: Goal, verbose: u8, output: &Output) -> anyhow::Result<Exit> {
    log(verbose);
    if args.dry_run {
        let operation = match goal {
            Goal::Sent => Operation::Seed,
            Goal::InStep | Goal::Forever => Operation::Sync,
        };
        return dry_run(&args.file, operation, &args.tables, &args.server, output);
    }
    runtime()?.block_on(async {
        let mut waits = 0;
        let (driver, connection) = loop {
            match ready(&args, output).await {
                // An app may hold its file for a while; opening waited already.
                Err(error) if is_locked(&error) => {
                    waits += 1;
                    if goal != Goal::Forever && waits >= LOCKED_WAITS_MAX {
                        return Err(error);
                    }
                    still_locked(&error, waits, output);
                }
                other => break other?,
            }
        };
        run(driver, &args.file, &connection, goal, output).await
    })
}

/// How often an errand with an end finds the file locked, waiting each time, before it gives up.
const LOCKED_WAITS_MAX: u32 = 4;

fn is_locked(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ClientError::Locked(_)))
}

fn still_locked(error: &anyhow::Error, waits: u32, output: &Output) {
    let code = error.downcast_ref().map(ClientError::code);
    output.object(&json!({
        "type": "disconnected", "code": code, "message": error.to_string(),
        "retry_after_ms": 0,
    }));
    if waits == 1 {
        output.note(&format!("{error}; waiting for it"));
    }
}

/// Opens the file, attached if it was not, with its server.
async fn ready(args: &Sync, output: &Output) -> anyhow::Result<(Driver, Connection)> {
    // The file first: what is wrong with it is wrong with any server.
    let is_attached = engine::is_attached(&args.file)?;
    let keys = keys(&args.server.encryption_key_file)?;
    let connection = connection(&args.file, &args.server, output)?;
    if !is_attached {
        attach_first(args, &connection, &keys, output).await?;
    }
    let mut replica = engine::open_replica_with(&args.file, keys.clone())?;
    let sealed = replica.seal(engine::now());
    let status = sealed.and_then(|_| replica.status());
    let status = status.map_err(|source| ClientError::replica(&args.file, source))?;
    if is_attached {
        are_attached(args, &status)?;
    }
    let (file, let_go) = (&args.file, args.no_subscribe);
    let met = engine::meet(file, &status, &connection, &keys, let_go, |table, key| {
        replica.waits_to_be_inserted(table, key)
    });
    let met = met.await?;
    let subscribed =
        replica.subscribe_all(&met.subscriptions, met.subscriptions_max, engine::now());
    subscribed.map_err(|source| ClientError::replica(file, source))?;
    output.added_there(&met.added);
    subscribe::held(&met.subscriptions, output);
    let driver = Driver::new(replica, args.file.clone(), connection.clone())?;
    Ok((driver, connection))
}

/// Which tables sync is decided when attaching: asking for another one later must not pass
/// unnoticed.
fn are_attached(args: &Sync, status: &Status) -> Result<(), ClientError> {
    let file = args.file.display();
    let is_one = |name: &&String| {
        let mut names = status.tables.iter().map(|table| &table.name);
        names.any(|known| known.eq_ignore_ascii_case(name))
    };
    match args.tables.iter().find(|name| !is_one(name)) {
        None => Ok(()),
        Some(name) => Err(ClientError::TableUnfit {
            message: format!(
                "{file} was attached without a table {name}; `syncline detach {file}`, then attach \
                 it with the tables it should have"
            ),
        }),
    }
}

/// `sync` on a file that is not attached attaches it, if there can be no doubt about any row.
async fn attach_first(
    args: &Sync,
    connection: &Connection,
    keys: &Keyring,
    output: &Output,
) -> Result<(), ClientError> {
    let request = AttachRequest {
        keys: keys.clone(),
        connection: Some(connection.clone()),
        tables: args.tables.clone(),
        let_go: args.no_subscribe,
    };
    let plan = engine::plan_attach(&args.file, &request).await?;
    engine::attach(&args.file, &request, &plan).await?;
    output.added_there(&plan.added_there());
    if !request.let_go {
        subscribe::held(&plan.held.topics, output);
    }
    output.note(&format!(
        "attached {}: {} to send",
        args.file.display(),
        counted(plan.only_here(), "row")
    ));
    Ok(())
}

pub(crate) fn hydrate(args: Hydrate, verbose: u8, output: &Output) -> anyhow::Result<Exit> {
    log(verbose);
    if args.dry_run {
        return dry_run(
            &args.file,
            Operation::Hydrate,
            &args.tables,
            &args.server,
            output,
        );
    }
    runtime()?.block_on(async {
        let resumed = args.file.exists();
        let connection = connection(&args.file, &args.server, output)?;
        let keys = keys(&args.server.encryption_key_file)?;
        let replica = if resumed && engine::is_attached(&args.file)? {
            output.note(&format!("going on with {}", args.file.display()));
            engine::open_replica_with(&args.file, keys)?
        } else {
            let made = engine::hydrate(&args.file, &connection, args.tables).await;
            let mut replica = made?;
            let used = replica.use_keys(keys);
            used.map_err(|error| ClientError::replica(&args.file, error))?;
            replica
        };
        let driver = Driver::new(replica, args.file.clone(), connection.clone())?;
        run(driver, &args.file, &connection, Goal::InStep, output).await
    })
}

async fn run(
    mut driver: Driver,
    file: &Path,
    connection: &Connection,
    goal: Goal,
    output: &Output,
) -> anyhow::Result<Exit> {
    let interrupt = interrupt_on_signals()?;
    let mut progress = Progress::new(output, engine::rows_to_seed(&driver.replica(), file)?);
    let watching = goal == Goal::Forever;
    if watching && output.json {
        interrupt_when_unread(&interrupt);
    }
    let started = std::time::Instant::now();
    let mut saved = Ok(());
    let ran = driver
        .run(goal, &interrupt, |notice, status| {
            let mut sentence = progress.update(notice, status);
            // Remembered once the server has taken it: a wrong token never replaces a good one.
            if matches!(notice, Notice::Event(Event::Connected { .. })) && saved.is_ok() {
                saved = connection.save(file);
            }
            if let Notice::Wiped(_) = notice {
                saved = Connection::forget(file);
            }
            if let Notice::Event(event) = notice
                && (watching || is_worth_a_line(event))
            {
                sentence = describe(event).1;
            }
            progress.suspend(|| {
                output.object(&progress.object(notice, status));
                if let Some(sentence) = sentence {
                    output.note(&sentence);
                }
            });
        })
        .await;
    progress.finish();
    let summary = ran?;
    saved?;
    let status = driver
        .replica()
        .status()
        .map_err(|source| ClientError::replica(file, source))?;
    report(file, goal, &summary, &status, started.elapsed(), output);
    Ok(Exit::Done)
}

fn is_worth_a_line(event: &Event) -> bool {
    !matches!(
        event,
        Event::Connected { .. } | Event::RowsChanged(_) | Event::Loading(_) | Event::Live { .. }
    )
}

fn report(
    file: &Path,
    goal: Goal,
    summary: &Summary,
    status: &Status,
    took: std::time::Duration,
    output: &Output,
) {
    let rows: u64 = status.tables.iter().map(|table| table.rows).sum();
    let (parked, conflicts) = (status.parked, status.conflicts);
    let mut sentence = format!(
        "{}, {} sent and {} received in {:.1} s",
        match goal {
            Goal::Sent => "the server has everything".to_owned(),
            Goal::InStep => format!("in step: {} here", counted(rows, "row")),
            Goal::Forever => format!("stopped: {} here", counted(rows, "row")),
        },
        size(summary.bytes_sent),
        size(summary.bytes_received),
        took.as_secs_f64()
    );
    if conflicts > 0 {
        sentence += &format!(
            "; {} to decide (syncline conflicts {})",
            counted(conflicts, "conflict"),
            file.display()
        );
    }
    if parked > 0 {
        sentence += &format!(
            "; {} refused (syncline queue {})",
            counted(parked, "changeset"),
            file.display()
        );
    }
    output.result(
        &sentence,
        &json!({
            "type": "done", "rows": rows, "rows_received": summary.rows_received,
            "edits_lost": summary.edits_lost, "refused": summary.refused, "parked": parked,
            "conflicts": conflicts, "bytes_sent": summary.bytes_sent,
            "bytes_received": summary.bytes_received, "duration_ms": took.as_millis(),
        }),
    );
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
    match bytes {
        0..10_000 => format!("{} bytes", grouped(bytes)),
        10_000..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}
