//! What the server made of a changeset, judged by what its author wrote and by the rules' words.

mod winner;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::bail;
use rusqlite::Connection;
use syncline_core::{
    Change, ColumnEdit, ColumnNumber, Edit, Op, TableNumber, Value,
    wire::{LostEdit, PushResult, Verdict, code},
};
use syncline_server::SessionId;
use syncline_store::{LogEntry, Submission};

use self::winner::Winners;
use crate::{
    model::{Model, items},
    rows::{RowName, literal, literal_key},
    schema::Who,
    server::Committed,
    truth::Truth,
};

/// Tables whose rows everybody sees, always.
const EVERYBODYS: [&str; 5] = ["pairs", "tallies", "steps", "places", "boards"];

/// Position of a column among those that [`Truth`] has of its table.
pub(crate) type Columns = BTreeMap<(TableNumber, ColumnNumber), usize>;

#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) tables: BTreeMap<TableNumber, &'static str>,
    pub(crate) columns: Columns,
    pub(crate) winners: Winners,
    /// What was refused on each connection and not accepted since.
    refused: BTreeMap<SessionId, BTreeSet<u64>>,
}

impl Oracle {
    /// A group was committed, of which `model` knows already.
    pub(crate) fn judge(
        &mut self,
        done: &Committed,
        model: &Model,
        database: &Connection,
    ) -> anyhow::Result<()> {
        let both = done.submissions.iter().zip(&done.results);
        for (session, (submission, result)) in done.sessions.iter().zip(both) {
            // What the log had already is answered as it was then.
            let is_new = done.log.iter().any(|entry| entry.changeset == result.id);
            self.judge_causes(*session, submission, result, is_new)?;
            self.judge_gone(submission, result, model)?;
        }
        let step = model.last_step();
        let both = done.submissions.iter().zip(&done.results);
        let ours = |entry: &Arc<LogEntry>| {
            let mut both = both.clone().filter(|(_, r)| r.id == entry.changeset);
            Some((both.next()?, both.next().is_none()))
        };
        let ([entry], Some((before, after))) = (&done.log[..], step) else {
            for entry in &done.log {
                self.winners.pass_over(entry);
            }
            return Ok(());
        };
        let Some(((submission, result), true)) = ours(entry) else {
            self.winners.pass_over(entry);
            return Ok(());
        };
        self.judge_effect(submission, result, before, after)?;
        self.judge_right(submission, before, after)?;
        check_conflicts(submission, result, database)?;
        let tables = &self.tables;
        self.winners.judge(
            entry,
            submission,
            done.now,
            |change, column| is_lost(&result.lost, change, Some(column.0)),
            |change| {
                let name = name(tables, change);
                let is_in = |truth: &Truth| {
                    name.as_ref()
                        .is_some_and(|name| truth.rows.contains_key(name))
                };
                (is_in(before), is_in(after))
            },
        )
    }

    /// Nothing is accepted before what it builds on.
    fn judge_causes(
        &mut self,
        session: SessionId,
        submission: &Submission,
        result: &PushResult,
        is_new: bool,
    ) -> anyhow::Result<()> {
        let refused = self.refused.entry(session).or_default();
        let changeset = &submission.changeset;
        match &result.verdict {
            Verdict::Accepted(_) => {
                let cause = changeset.depends.iter().find(|n| refused.contains(n));
                if let Some(cause) = cause.filter(|_| is_new) {
                    bail!(
                        "{} was accepted, but it depends on number {cause}, which was refused",
                        changeset.id
                    );
                }
                refused.remove(&changeset.number);
            }
            Verdict::Refused(refusal) if refusal.retry => {}
            Verdict::Refused(_) => {
                refused.insert(changeset.number);
            }
        }
        Ok(())
    }

    fn judge_gone(
        &self,
        submission: &Submission,
        result: &PushResult,
        model: &Model,
    ) -> anyhow::Result<()> {
        let Verdict::Refused(refusal) = &result.verdict else {
            return Ok(());
        };
        let position = refusal.change.filter(|_| refusal.code == code::ROW_GONE);
        let change = position.and_then(|i| submission.changeset.changes.get(i as usize));
        match change.and_then(|change| Some((self.name(change)?, change.base))) {
            Some((name, base)) if EVERYBODYS.contains(&name.0) => model.check_gone(&name, base),
            _ => Ok(()),
        }
    }

    /// An edit that is not told to be lost has taken effect, and nothing else has.
    fn judge_effect(
        &self,
        submission: &Submission,
        result: &PushResult,
        before: &Truth,
        after: &Truth,
    ) -> anyhow::Result<()> {
        let changes = &submission.changeset.changes;
        let deletes = changes.iter().any(|change| change.op == Op::Delete);
        for change in changes {
            let Some(name) = self.name(change) else {
                continue;
            };
            let is_lost = |column| is_lost(&result.lost, change, column);
            let (was, is) = (before.rows.get(&name), after.rows.get(&name));
            let edits = match (&change.op, was, is) {
                (Op::Delete, Some(_), Some(_))
                    if before.sees(who_of(submission), &name) && !is_lost(None) =>
                {
                    bail!("{name:?} is there, but {} deletes it", result.id)
                }
                (Op::Insert(_), None, None) | (Op::Update(_), Some(_), None)
                    if !deletes && !is_lost(None) =>
                {
                    bail!("{name:?} is not there, but {} writes it", result.id)
                }
                (Op::Insert(edits), None, Some(_)) | (Op::Update(edits), Some(_), Some(_)) => edits,
                _ => continue,
            };
            for edit in edits.iter().filter(|edit| !is_lost(Some(edit.column.0))) {
                let Some(&position) = self.columns.get(&(change.table, edit.column)) else {
                    continue;
                };
                let was = was.map_or("NULL", |row| row[position].as_str());
                let is = is.map_or("NULL", |row| row[position].as_str());
                if !took_effect(edit, was, is) {
                    bail!(
                        "{} was accepted, and {edit:?} of {name:?} is not told to be lost, but it \
                         was {was} and is {is}",
                        result.id
                    );
                }
            }
        }
        Ok(())
    }

    /// Whoever wrote below a project owned it or was its member before.
    fn judge_right(
        &self,
        submission: &Submission,
        before: &Truth,
        after: &Truth,
    ) -> anyhow::Result<()> {
        let user = user_of(submission);
        for change in &submission.changeset.changes {
            let Some(name) = self.name(change) else {
                continue;
            };
            let (was, is) = (before.rows.get(&name), after.rows.get(&name));
            if change.op == Op::Delete && is.is_some() {
                continue;
            }
            let projects: Vec<&str> = match name.0 {
                "projects" => vec![&*name.1],
                "members" | "tasks" | "files" => [was, is]
                    .into_iter()
                    .flatten()
                    .map(|row| &*row[0])
                    .collect(),
                _ => Vec::new(),
            };
            for id in projects {
                if before.rows.contains_key(&("projects", id.into()))
                    && !before.sees_project(user, id)
                {
                    bail!("{user} was allowed to write {name:?} of project {id}");
                }
            }
        }
        Ok(())
    }

    fn name(&self, change: &Change) -> Option<RowName> {
        name(&self.tables, change)
    }
}

fn name(tables: &BTreeMap<TableNumber, &'static str>, change: &Change) -> Option<RowName> {
    Some((*tables.get(&change.table)?, literal_key(&change.key).into()))
}

/// What a person has to decide waits for them.
fn check_conflicts(
    submission: &Submission,
    result: &PushResult,
    database: &Connection,
) -> anyhow::Result<()> {
    if !result.lost.iter().any(|lost| lost.reason == "conflict") {
        return Ok(());
    }
    let sql = "SELECT count(*) FROM syncline_conflicts WHERE author = ?1 AND state = 'open'";
    let open: i64 = database.query_row(sql, [user_of(submission)], |row| row.get(0))?;
    if open == 0 {
        bail!(
            "an edit of {} waits for a decision that nobody can make",
            result.id
        );
    }
    Ok(())
}

fn user_of(submission: &Submission) -> &str {
    submission.identity.user.as_ref().map_or("", |user| &user.0)
}

/// Who pushed it, with the claims of the session that it came by.
fn who_of(submission: &Submission) -> Who<'_> {
    let team = submission.identity.claims.get("team");
    Who {
        user: user_of(submission),
        team: team.and_then(|team| team.as_str()).unwrap_or_default(),
    }
}

/// Whether the author was told that the edit of the column, or the whole change, came to nothing.
fn is_lost(lost: &[LostEdit], change: &Change, column: Option<u32>) -> bool {
    lost.iter().any(|lost| {
        lost.table == change.table
            && lost.key == change.key.as_bytes()
            && (lost.column.is_none() || lost.column == column)
    })
}

/// Whether a column that `was` so and `is` so, as SQL literals, shows the edit.
fn took_effect(edit: &ColumnEdit, was: &str, is: &str) -> bool {
    let number = |text: &str| match text {
        "NULL" => Some(0.0),
        text => text.parse::<f64>().ok(),
    };
    let bare = |item: &String| item.trim_matches('"').to_owned();
    let items = items(is);
    match &edit.edit {
        Edit::Set(value) | Edit::Decide { new: value, .. } => shows(value, is),
        Edit::Add(delta) => match (number(was), number(is), number(&literal_number(delta))) {
            (Some(was), Some(is), Some(delta)) => (is - was - delta).abs() < 1e-6,
            _ => true,
        },
        Edit::Items { add, remove } => {
            add.iter().all(|item| items.contains(&bare(item)))
                && !remove.iter().any(|item| items.contains(&bare(item)))
        }
        Edit::Append(added) => added.iter().all(|item| items.contains(&bare(item))),
        Edit::Members(_) => true,
    }
}

fn literal_number(value: &Value) -> String {
    match value {
        Value::Real(x) => x.to_string(),
        Value::Null | Value::Integer(_) | Value::Text(_) | Value::Blob(_) => literal(value),
    }
}

fn shows(value: &Value, is: &str) -> bool {
    match value {
        Value::Null => is == "NULL",
        // Documents are compared as texts nowhere.
        Value::Text(text) if text.starts_with(['{', '[']) => true,
        Value::Text(_) | Value::Integer(_) => is == literal(value),
        Value::Real(x) => is.parse() == Ok(*x),
        Value::Blob(_) => true,
    }
}
