//! `syncline status`.

use std::path::Path;

use serde_json::{Value, json};
use syncline::engine::{self, ClientError};
use syncline_core::wire::Share;
use syncline_replica::TableState;

use crate::{
    exit::Exit,
    output::{Output, counted, grouped},
};

pub(crate) fn status(file: &Path, output: &Output) -> anyhow::Result<Exit> {
    let replica = engine::open_replica(file)?;
    let status = replica
        .status()
        .map_err(|source| ClientError::replica(file, source))?;
    let state = |state: &TableState| match state {
        TableState::Unmatched => ("waiting for first contact".to_owned(), "unmatched"),
        TableState::Loading => ("loading".to_owned(), "loading"),
        TableState::Live => ("live".to_owned(), "live"),
        TableState::LeftOut { reason } => (format!("does not sync: {reason}"), "left_out"),
    };
    let tables: Vec<_> = status
        .tables
        .iter()
        .map(|t| json!({ "table": t.name, "state": state(&t.state).1, "rows": t.rows, "seeding": t.seeding }))
        .collect();
    output.object(&json!({
        "type": "status", "file": file, "device": status.device.to_string(),
        "server": status.server.map(|id| id.to_string()), "url": status.url, "user": status.user,
        "deregistered": status.deregistered,
        "waiting": status.waiting, "accepted": status.accepted, "parked": status.parked,
        "conflicts": status.conflicts, "unstorable": status.unstorable,
        "checkpoint": status.checkpoint.map(|version| version.0), "caught_up": status.caught_up,
        "tables": tables, "quota": status.quota.map(|quota| json!({
            "rows": quota.rows.map(share), "bytes": quota.bytes.map(share),
        })),
    }));
    let contact = match (&status.url, &status.user) {
        (Some(url), Some(user)) => format!("{url} as {user}"),
        (Some(url), None) => format!("{url}, not contacted yet"),
        (None, _) => "no server yet".to_owned(),
    };
    output.line(&format!("{}: {contact}", file.display()));
    if status.deregistered {
        output.line(&format!(
            "removed from the user's devices: it does not sync until `syncline devices {} register`",
            file.display()
        ));
    }
    let width = status
        .tables
        .iter()
        .map(|table| table.name.len())
        .max()
        .unwrap_or(0);
    for table in &status.tables {
        // What the server gave is counted, so before first contact there is nothing to tell.
        let rows = match table.state {
            TableState::Unmatched | TableState::LeftOut { .. } => "–".to_owned(),
            TableState::Loading | TableState::Live => grouped(table.rows),
        };
        let sending = if table.seeding {
            ", its rows are still to be sent"
        } else {
            ""
        };
        output.line(&format!(
            "  {:width$}  {rows:>10}  {}{sending}",
            table.name,
            state(&table.state).0
        ));
    }
    output.line(&format!(
        "{} to send, {} accepted and on their way back, {} refused, {} to decide",
        counted(status.waiting, "changeset"),
        grouped(status.accepted),
        grouped(status.parked),
        counted(status.conflicts, "conflict"),
    ));
    let owned = status.quota.into_iter().flat_map(|quota| {
        let rows = quota.rows.map(|share| (share, "rows"));
        [rows, quota.bytes.map(|share| (share, "bytes"))]
    });
    for (Share { owned, max }, what) in owned.flatten() {
        let (owned, max) = (grouped(owned), grouped(max));
        output.line(&format!(
            "{owned} of {max} {what} owned, when the server was met last"
        ));
    }
    if status.unstorable > 0 {
        output.line(&format!(
            "{} of the server do not fit into this database",
            counted(status.unstorable, "row")
        ));
    }
    Ok(Exit::Done)
}

fn share(Share { owned, max }: Share) -> Value {
    json!({ "owned": owned, "max": max })
}
