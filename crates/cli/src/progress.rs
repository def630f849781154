//! What long work tells: a bar for a terminal, lines and JSON for everybody else.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use syncline::engine::Notice;
use syncline_replica::{Event, Status, Wiped};

use crate::{
    commands::subscribe,
    output::{Output, counted, grouped},
};

const SPINNER: &str = "{spinner} {msg}";
const BAR: &str = "{spinner} {msg} {bar:30} {percent:>3} % {eta}";

/// Unsent rows named in one sentence.
const ROWS_NAMED: usize = 10;

/// Shows how far a run has come.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    /// Rows of tables that are still to be sent as a whole; 0 when there are none.
    to_seed: u64,
    /// An outage is told once, not with every attempt.
    is_cut: bool,
}

impl Progress {
    /// `to_seed`: how many rows tables have that are to be sent as a whole.
    pub(crate) fn new(output: &Output, to_seed: u64) -> Self {
        let bar = output.is_interactive().then(|| {
            let bar = ProgressBar::no_length().with_style(style(SPINNER));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar.set_message("connecting");
            bar
        });
        let is_cut = false;
        Self {
            bar,
            to_seed,
            is_cut,
        }
    }

    /// Draws the notice; returns the sentence for people, if it is worth one.
    pub(crate) fn update(&mut self, notice: &Notice<'_>, status: &Status) -> Option<String> {
        match notice {
            Notice::Event(Event::Loading(progress)) => {
                let total = progress.remaining.map(|left| progress.done + left);
                self.draw("loading", progress.done, total);
                None
            }
            Notice::Event(Event::Connected { .. }) => {
                self.is_cut = false;
                self.say("in step");
                None
            }
            Notice::Event(_) => None,
            Notice::Sending => {
                let done = rows_sent(status);
                match self.to_seed {
                    0 => self.say(&format!("sending {}", counted(status.waiting, "changeset"))),
                    total => self.draw("sending", done, Some(total)),
                }
                None
            }
            Notice::Wiped(wiped) => Some(wiped_sentence(wiped)),
            Notice::Disconnected { error, .. } => {
                self.say("not connected, trying again");
                let first = !std::mem::replace(&mut self.is_cut, true);
                first.then(|| format!("not connected, trying again: {error}"))
            }
        }
    }

    /// The notice as a JSON line (docs/events.md).
    pub(crate) fn object(&self, notice: &Notice<'_>, status: &Status) -> serde_json::Value {
        match notice {
            Notice::Event(event) => describe(event).0,
            Notice::Sending => json!({
                "type": "sending", "waiting": status.waiting, "accepted": status.accepted,
                "rows": rows_sent(status), "rows_total": (self.to_seed > 0).then_some(self.to_seed),
            }),
            Notice::Wiped(wiped) => json!({
                "type": "wiped", "rows": wiped.rows, "unsent": wiped.unsent,
                "unsent_rows": wiped.unsent_rows.iter()
                    .map(|(table, key)| json!({ "table": table, "key": key.to_string() }))
                    .collect::<Vec<_>>(),
            }),
            Notice::Disconnected { error, pause } => json!({
                "type": "disconnected", "code": error.code(), "message": error.to_string(),
                "retry_after_ms": u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }

    fn say(&self, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_style(style(SPINNER));
            bar.set_message(message.to_owned());
        }
    }

    fn draw(&self, verb: &str, done: u64, total: Option<u64>) {
        let (Some(bar), Some(total)) = (&self.bar, total) else {
            return self.say(&format!("{verb}, {} so far", counted(done, "row")));
        };
        bar.set_style(style(BAR));
        bar.set_length(total.max(done));
        bar.set_position(done);
        bar.set_message(format!(
            "{verb} {} of {} rows",
            grouped(done),
            grouped(total)
        ));
    }

    /// Prints above the bar, so that neither disturbs the other.
    pub(crate) fn suspend(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    pub(crate) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

fn wiped_sentence(wiped: &Wiped) -> String {
    let mut sentence = format!(
        "wiped, as this device's user asked: {} removed from this file",
        counted(wiped.rows, "row")
    );
    if wiped.unsent > 0 {
        let rows = wiped.unsent_rows.iter().take(ROWS_NAMED);
        let rows: Vec<String> = rows.map(|(table, key)| format!("{table} {key}")).collect();
        let more = match wiped.unsent_rows.len().saturating_sub(rows.len()) {
            0 => String::new(),
            more => format!(" and {} more", grouped(more as u64)),
        };
        sentence += &format!(
            ", and {} that was not sent: {}{more}",
            counted(wiped.unsent, "changeset"),
            rows.join(", ")
        );
    }
    sentence
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are constants")
}

/// Rows that the server has of this file's tables that are being sent as a whole, or were.
fn rows_sent(status: &Status) -> u64 {
    status.tables.iter().map(|table| table.rows).sum()
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
            let many = keys.map_or_else(
                || "many rows".to_owned(),
                |keys| counted(keys.len() as u64, "row"),
            );
            (
                json!({ "type": "rows_changed", "table": rows.table, "keys": listed, "author": rows.author }),
                Some(format!("{}: {many} changed by {who}", rows.table)),
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
                "{table} {key}{}: another edit won ({reason})",
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
        Event::Released { buckets, rows } => (
            json!({ "type": "released", "buckets": buckets, "rows": rows }),
            Some(format!(
                "not subscribed to any more: {rows} rows were removed here"
            )),
        ),
        Event::Subscribed(topic) => {
            let line = subscribe::with_topic(json!({ "type": "subscribed" }), topic);
            let what = subscribe::topic_text(topic);
            (line, Some(format!("{what}: everything is here")))
        }
        Event::SubscriptionsRefused { code, message } => (
            json!({ "type": "subscriptions_refused", "code": code, "message": message }),
            Some(message.clone()),
        ),
        Event::LoadingRefused { code, message } => (
            json!({ "type": "loading_refused", "code": code, "message": message }),
            Some(message.clone()),
        ),
        Event::RowUnstorable { table, key, reason } => (
            json!({ "type": "row_unstorable", "table": table, "key": key.to_string(), "reason": reason }),
            Some(format!(
                "{table} {key} does not fit into this database yet: {reason}"
            )),
        ),
        Event::ChangeHidden { table, key, reason } => (
            json!({ "type": "change_hidden", "table": table, "key": key.to_string(), "reason": reason }),
            Some(format!(
                "{table} {key}: what was written here does not fit beside what the server has, and \
                 is hidden until the server has judged it: {reason}"
            )),
        ),
        Event::RowUnfit { table, row, reason } => (
            json!({ "type": "row_unfit", "table": table, "row": row, "reason": reason }),
            Some(format!("{table} {row} cannot be sent as it is: {reason}")),
        ),
        Event::CellsUnreadable {
            table,
            column,
            key,
            rows,
            reason,
        } => (
            json!({
                "type": "cells_unreadable", "table": table, "column": column,
                "key": key.to_string(), "rows": rows, "reason": reason,
            }),
            Some(format!(
                "{table}.{column} cannot be read in {rows} rows, {key} among them, and is NULL \
                 here: {reason}"
            )),
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
