//! `syncline migrate`: a migration of the app's own, with everything sealed before it and everything
//! noticed after it.

use std::{
    ffi::OsString,
    io,
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use serde_json::{Value, json};
use syncline::engine::{self, ClientError, now};
use syncline_replica::{Migrated, ReplicaError, TableChange};

use crate::{
    args::Migrate,
    exit::{Exit, Failure},
    output::{Output, counted},
};

pub(crate) fn run(args: &Migrate, output: &Output) -> anyhow::Result<Exit> {
    let file = args.file.as_path();
    let failed = |source: ReplicaError| ClientError::replica(file, source);
    let mut replica = engine::open_replica(file)?;
    let before = replica.begin_migration(now()).map_err(failed)?;
    // The command has the file to itself, as far as we are concerned.
    drop(replica);
    let ended = command(&args.command, output)?;
    let mut replica = engine::open_replica(file)?;
    let migrated = replica.end_migration(&before, now()).map_err(failed)?;
    let waiting = replica.status().map_err(failed)?.waiting;
    tell(file, &migrated, waiting, ended, output);
    if ended.success() {
        return Ok(Exit::Done);
    }
    let name = args.command[0].to_string_lossy();
    let sentence = match ended.code() {
        Some(code) => format!("{name} ended with {code}; what it did to the tables is followed"),
        None => format!("{name} was ended by a signal; what it did to the tables is followed"),
    };
    Err(Failure::new(Exit::CommandFailed, sentence).into())
}

fn command(words: &[OsString], output: &Output) -> anyhow::Result<ExitStatus> {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    if output.json {
        // Standard output holds our lines only.
        command.stdout(Stdio::from(io::stderr()));
    }
    command.status().map_err(|error| {
        let name = words[0].to_string_lossy();
        Failure::new(Exit::CommandFailed, format!("cannot run {name}: {error}")).into()
    })
}

fn tell(file: &Path, migrated: &Migrated, waiting: u64, ended: ExitStatus, output: &Output) {
    output.object(&json!({
        "type": "migrated", "file": file, "command_exit": ended.code(),
        "changes": migrated.changes.iter().map(object).collect::<Vec<_>>(),
        "rows_found": migrated.rows_found, "parked": migrated.parked, "waiting": waiting,
    }));
    for change in &migrated.changes {
        output.line(&sentence(change));
    }
    if migrated.changes.is_empty() {
        output.line("no table, column or name changed");
    }
    if migrated.rows_found > 0 {
        output.line(&format!(
            "{} changed while nothing was captured: found",
            counted(migrated.rows_found, "row")
        ));
    }
    if migrated.parked > 0 {
        output.line(&format!(
            "{} not sent because of the migration: syncline queue {}",
            counted(migrated.parked, "changeset"),
            file.display()
        ));
    }
    output.line(&format!("{} to send", counted(waiting, "changeset")));
}

fn sentence(change: &TableChange) -> String {
    match change {
        TableChange::Added { table } => format!("added the table {table}"),
        TableChange::Dropped { table } => format!("dropped the table {table}"),
        TableChange::Renamed { table, from } => format!(
            "renamed the table {from} to {table}; on the server it keeps its name until its \
             syncline.toml says renamed_from = \"{from}\""
        ),
        TableChange::ColumnAdded { table, column } => format!("added the column {table}.{column}"),
        TableChange::ColumnDropped { table, column } => {
            format!("dropped the column {table}.{column}; the server keeps what it has of it")
        }
        TableChange::ColumnRenamed {
            table,
            column,
            from,
        } => format!(
            "renamed the column {table}.{from} to {column}; on the server it keeps its name until \
             its syncline.toml says renamed = {{ {column} = \"{from}\" }}"
        ),
        TableChange::LeftOut { table, reason } => format!("{table} does not sync: {reason}"),
        TableChange::Synced { table } => format!("{table} syncs now"),
    }
}

fn object(change: &TableChange) -> Value {
    let object = |change: &str, table: &str, column: Option<&str>, from: Option<&str>| json!({ "change": change, "table": table, "column": column, "from": from, "reason": null });
    match change {
        TableChange::Added { table } => object("added", table, None, None),
        TableChange::Dropped { table } => object("dropped", table, None, None),
        TableChange::Renamed { table, from } => object("renamed", table, None, Some(from)),
        TableChange::ColumnAdded { table, column } => {
            object("column_added", table, Some(column), None)
        }
        TableChange::ColumnDropped { table, column } => {
            object("column_dropped", table, Some(column), None)
        }
        TableChange::ColumnRenamed {
            table,
            column,
            from,
        } => object("column_renamed", table, Some(column), Some(from)),
        TableChange::LeftOut { table, reason } => {
            let mut object = object("left_out", table, None, None);
            object["reason"] = json!(reason);
            object
        }
        TableChange::Synced { table } => object("synced", table, None, None),
    }
}
