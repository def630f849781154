//! `--dry-run` of `sync`, `seed` and `hydrate`.

use std::{fs, path::Path};

use serde_json::json;
use syncline::{Operation, Tables, engine};
use syncline_replica::RowCounts;

use super::{connection, managed_as, read_keys};
use crate::{
    args::ServerArgs,
    exit::Exit,
    output::{Output, counted, grouped},
};

/// Says what a run would do.
pub(crate) fn dry_run(
    file: &Path,
    operation: Operation,
    tables: &[String],
    server: &ServerArgs,
    output: &Output,
) -> anyhow::Result<Exit> {
    if operation != Operation::Hydrate {
        engine::is_attached(file)?;
    }
    let connection = connection(file, server, output)?;
    let tables = match tables {
        [] => Tables::All,
        names => Tables::only(names.iter().cloned()),
    };
    let is_new = !file.exists();
    let config = read_keys(&server.encryption_key_file)?.into_iter().fold(
        engine::connected(Some(&connection)),
        syncline::Config::older_encryption_key,
    );
    let report = managed_as(file, config, async |manager| {
        let run = match operation {
            Operation::Seed => manager.seed(tables, |_| {}),
            Operation::Hydrate => manager.hydrate(tables, |_| {}),
            Operation::Sync | Operation::Auto => manager.sync(tables, |_| {}),
        };
        run.dry_run().await
    });
    // A manager makes a file that is not there, with nothing in it.
    if is_new && file.metadata().is_ok_and(|found| found.len() == 0) {
        fs::remove_file(file)?;
    }
    let report = report?;
    for error in &report.errors {
        output.note(&error.to_string());
    }
    let rows = |counts: &RowCounts| json!({ "created": counts.created, "updated": counts.updated, "deleted": counts.deleted });
    output.result(
        &format!(
            "would send {} and receive {}; nothing was changed",
            in_words(&report.sent),
            in_words(&report.received)
        ),
        &json!({
            "type": "dry_run", "operation": operation.name(), "sent": rows(&report.sent),
            "received": rows(&report.received),
        }),
    );
    Ok(Exit::Done)
}

fn in_words(counts: &RowCounts) -> String {
    let parts = [
        (counts.created, "new"),
        (counts.updated, "changed"),
        (counts.deleted, "deleted"),
    ];
    let parts: Vec<_> = parts
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!("{} {what}", grouped(*number)))
        .collect();
    match parts[..] {
        [] => "nothing".to_owned(),
        _ => format!("{} ({})", counted(counts.total(), "row"), parts.join(", ")),
    }
}
