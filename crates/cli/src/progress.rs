//! Progress of long work: a bar for a terminal, JSON lines for programs, else nothing.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use syncline_replica::{Event, Status};

use crate::output::{Output, grouped};

/// Shows how far a run has come.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    /// Most changesets that waited at once: what is left is counted down from there.
    waiting_max: u64,
}

impl Progress {
    pub(crate) fn new(output: &Output) -> Self {
        let bar = output.is_interactive().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_style(ProgressStyle::with_template("{spinner} {msg}").expect("a constant"));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar.set_message("connecting");
            bar
        });
        Self {
            bar,
            waiting_max: 0,
        }
    }

    pub(crate) fn update(&mut self, event: &Event, status: &Status) {
        self.waiting_max = self.waiting_max.max(status.waiting);
        let Some(bar) = &self.bar else { return };
        if let Event::Loading(progress) = event {
            let total = progress
                .remaining
                .map(|remaining| progress.done + remaining);
            bar.set_message(match total {
                Some(total) => format!(
                    "loading {} of {} rows",
                    grouped(progress.done),
                    grouped(total)
                ),
                None => format!("loading, {} rows so far", grouped(progress.done)),
            });
        } else if status.waiting > 0 {
            bar.set_message(format!(
                "sending, {} changesets to go",
                grouped(status.waiting)
            ));
        } else if status.caught_up {
            bar.set_message("in step");
        }
    }

    pub(crate) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// An event as a JSON line (docs/events.md), or as a sentence.
pub(crate) fn describe(event: &Event) -> (serde_json::Value, Option<String>) {
    match event {
        Event::Connected { user, forked } => (
            json!({ "type": "connected", "user": user, "forked": forked }),
            Some(if *forked {
                format!("connected as {user}; this file is a copy, so it is a new device now")
            } else {
                format!("connected as {user}")
            }),
        ),
        Event::RowsChanged(rows) => {
            let keys = rows.keys.as_ref();
            let listed: Option<Vec<String>> =
                keys.map(|k| k.iter().map(ToString::to_string).collect());
            let who = rows.author.as_deref().unwrap_or("several people");
            let many = keys.map_or_else(|| "many".to_owned(), |keys| grouped(keys.len() as u64));
            (
                json!({ "type": "rows_changed", "table": rows.table, "keys": listed, "author": rows.author }),
                Some(format!("{}: {many} rows changed by {who}", rows.table)),
            )
        }
        Event::ChangeRefused {
            changeset,
            code,
            message,
            parked,
        } => (
            json!({
                "type": "change_refused", "changeset": changeset.to_string(), "code": code,
                "message": message,
                "parked": parked.iter().map(ToString::to_string).collect::<Vec<_>>(),
            }),
            Some(format!(
                "a change was refused and undone here: {message} ({code}); see `syncline queue`"
            )),
        ),
        Event::EditLost {
            table,
            key,
            column,
            reason,
        } => (
            json!({ "type": "edit_lost", "table": table, "key": key.to_string(), "column": column, "reason": reason }),
            Some(format!(
                "{table} {key}{}: somebody else's edit won ({reason})",
                column.as_ref().map(|c| format!(".{c}")).unwrap_or_default()
            )),
        ),
        Event::ConflictOpened { id, table } => (
            json!({ "type": "conflict_opened", "id": id, "table": table }),
            Some(format!(
                "{table}: an edit needs your decision; see `syncline conflicts`"
            )),
        ),
        Event::ConflictResolved { id, table } => (
            json!({ "type": "conflict_resolved", "id": id, "table": table }),
            Some(format!("{table}: a conflict was decided")),
        ),
        Event::Loading(progress) => (
            json!({ "type": "loading", "done": progress.done, "remaining": progress.remaining }),
            None,
        ),
        Event::Live { version } => (
            json!({ "type": "live", "version": version.0 }),
            Some("in step".to_owned()),
        ),
        Event::Diverged { resent } => (
            json!({ "type": "diverged", "resent": resent }),
            Some(format!(
                "the server was restored from a backup: {resent} changesets are sent again"
            )),
        ),
        Event::Resynced => (
            json!({ "type": "resynced" }),
            Some("away for too long: all rows are loaded again".to_owned()),
        ),
        Event::AccessLost { buckets, rows } => (
            json!({ "type": "access_lost", "buckets": buckets, "rows": rows }),
            Some(format!("access ended: {rows} rows were removed here")),
        ),
        Event::RowUnstorable { table, key, reason } => (
            json!({ "type": "row_unstorable", "table": table, "key": key.to_string(), "reason": reason }),
            Some(format!(
                "{table} {key} does not fit into this database yet: {reason}"
            )),
        ),
        Event::RowUnfit { table, row, reason } => (
            json!({ "type": "row_unfit", "table": table, "row": row, "reason": reason }),
            Some(format!("{table} {row} cannot be sent as it is: {reason}")),
        ),
        Event::DigestMismatch { table } => (
            json!({ "type": "digest_mismatch", "table": table }),
            Some(format!(
                "{table}: not the same as on the server; loading it again"
            )),
        ),
        Event::Rekeyed { table, from, to } => (
            json!({ "type": "rekeyed", "table": table, "from": from.to_string(), "to": to.to_string() }),
            Some(format!(
                "{table}: id {from} was taken; the row made here is {to} now"
            )),
        ),
        Event::TablesLeftOut { tables } => (
            json!({ "type": "tables_left_out", "tables": tables }),
            Some(
                tables
                    .iter()
                    .map(|(name, why)| format!("{name} does not sync: {why}"))
                    .collect::<Vec<_>>()
                    .join("\n"),
            ),
        ),
        Event::Rescanned { rows } => (
            json!({ "type": "rescanned", "rows": rows }),
            Some(format!(
                "the tables had been changed: capture is back, {rows} rows changed meanwhile"
            )),
        ),
    }
}
