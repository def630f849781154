//! From marks to what each transaction changed (spec SL1, SL2, SL7, SL10).

mod cut;
mod fault;
mod marks;

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use syncline_core::{Row, RowKey, TableNumber, Timestamp};

use super::{
    chain::{self, Last, Mark, Step},
    install::{CaptureError, database, make_tables},
};
use crate::rows::{RowError, TableSql};

pub(super) use cut::Cut;
pub use fault::{DraftFault, DraftProblem};

/// What [`take_drafts`] took.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Drafts {
    /// In order of their numbers.
    pub drafts: Vec<Draft>,
    /// Rows whose change cannot be expressed. Their marks are gone; the next change of such a
    /// row that can be expressed brings it whole.
    pub problems: Vec<DraftProblem>,
    /// Rows of tables that are gone, where nobody knows what was written last.
    pub lost: Vec<LostRow>,
    /// Marks are left: call again.
    pub more: bool,
}

/// A row that was written before its table went, and not taken in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRow {
    pub table: TableNumber,
    pub key: RowKey,
    /// By the clock of the machine that wrote, to the millisecond.
    pub last_marked_at: Timestamp,
}

/// What the transactions of one number changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    pub n: i64,
    /// One transaction that was closed by an UPDATE of `syncline_tx`: to stay whole.
    pub marked: bool,
    /// At most one for each row, in the order in which the rows were first touched. Not empty.
    pub changes: Vec<DraftChange>,
}

/// What became of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct DraftChange {
    pub table: TableNumber,
    pub key: RowKey,
    pub before: Before,
    /// `None`: there is no row any more. Never equal to `before`.
    pub after: Option<Row>,
    /// By the clock of the machine that wrote, to the millisecond.
    pub first_marked_at: Timestamp,
}

/// The row before a change.
#[derive(Debug, Clone, PartialEq)]
pub enum Before {
    Absent,
    Image(Row),
    /// There was a row, and nobody knows its content: it was changed while triggers were gone,
    /// or it could not be expressed.
    Unknown,
}

/// Takes marks of these tables and empties them; runs in the caller's transaction.
///
/// At most about `marks_max` marks are taken, whole numbers at a time; only a single unmarked
/// number that is larger is cut, in the order of the marks. Nothing is lost either way: call
/// again while [`Drafts::more`] says so.
///
/// Columns that a mark does not have (added after it was made) count as unchanged; generated
/// columns are NULL. Tables that are not given keep their marks.
///
/// # Errors
/// The database's; the caller rolls back, and the marks are all still there.
pub fn take_drafts<'a>(
    conn: &Connection,
    tables: impl IntoIterator<Item = &'a TableSql>,
    marks_max: usize,
) -> Result<Drafts, CaptureError> {
    let (open, touched) = counter(conn)?;
    if touched == 0 {
        return Ok(Drafts::default());
    }
    let unmarked = unmarked(conn, open)?;
    let marked_tables = marks::tables_with_marks(conn, tables)?;
    let bound = usize::try_from(touched).unwrap_or(usize::MAX);
    let cut = if bound.saturating_mul(marks::MARKS_PER_TOUCH_MAX) <= marks_max {
        None
    } else {
        cut::find(conn, &marked_tables, marks_max, |n| !unmarked.contains(&n))?
    };
    let mut out = Drafts {
        more: cut.is_some(),
        ..Drafts::default()
    };
    let mut by_number: BTreeMap<i64, Vec<(i64, DraftChange)>> = BTreeMap::new();
    for marked in &marked_tables {
        let mut steps = Vec::new();
        marked.each_row(conn, cut, |marks, last| {
            if let Last::Gone = last {
                out.lost.extend(lost(marked.sql(), &marks, cut));
            }
            chain::steps(
                marked.sql(),
                marks,
                last,
                cut,
                &mut steps,
                &mut out.problems,
            );
        })?;
        marked.null_keys(conn, &mut out.problems)?;
        let steps = one_for_each_row(steps, marked.sql(), &mut out.problems);
        for step in steps {
            if marked.is_ambiguous(conn, &step)? {
                out.problems
                    .push(DraftProblem::same_key(marked.sql(), &step));
            } else if let Some(change) = change(marked.sql(), &step) {
                by_number
                    .entry(step.n)
                    .or_default()
                    .push((step.seq, change));
            }
        }
        marked.empty(conn, cut)?;
    }
    for (n, mut changes) in by_number {
        // Of what one statement did to one row: the old key goes before the new one comes.
        changes.sort_by_key(|(seq, change)| (*seq, change.after.is_some()));
        let changes = changes.into_iter().map(|(_, change)| change).collect();
        out.drafts.push(Draft {
            n,
            marked: !unmarked.contains(&n),
            changes,
        });
    }
    if cut.is_none() {
        for sql in [
            "UPDATE syncline_tx SET touched = 0",
            "DELETE FROM syncline_unmarked WHERE n < (SELECT n FROM syncline_tx)",
        ] {
            conn.prepare_cached(sql)
                .and_then(|mut statement| statement.execute([]))
                .map_err(database("empty the marks"))?;
        }
    }
    Ok(out)
}

/// The open transaction number, and how many times triggers fired since the last sealing. Where
/// some program removed the row or its table, both are made anew, and nothing is known.
fn counter(conn: &Connection) -> Result<(i64, i64), CaptureError> {
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let sql = "SELECT CAST(n AS INTEGER), CAST(touched AS INTEGER) FROM syncline_tx";
    let doing = "read the transaction number";
    if let Ok(found) = conn
        .prepare_cached(sql)
        .and_then(|mut s| s.query_row([], read))
    {
        return Ok(found);
    }
    make_tables(conn)?;
    let (open, _) = conn.query_row(sql, [], read).map_err(database(doing))?;
    Ok((open, i64::MAX))
}

/// The numbers that nobody closed: the open one, and those that our library closed for others.
fn unmarked(conn: &Connection, open: i64) -> Result<BTreeSet<i64>, CaptureError> {
    let doing = "read which transactions nobody closed";
    let mut statement = conn
        .prepare_cached("SELECT n FROM syncline_unmarked")
        .map_err(database(doing))?;
    let closed = statement
        .query_map([], |row| row.get(0))
        .map_err(database(doing))?;
    let mut all = closed
        .collect::<Result<BTreeSet<i64>, _>>()
        .map_err(database(doing))?;
    all.insert(open);
    Ok(all)
}

/// Joins steps of one number and one canonical key: a key may be spelled anew, which for SQLite
/// is a row that goes and another that comes.
fn one_for_each_row(
    mut steps: Vec<Step>,
    sql: &TableSql,
    problems: &mut Vec<DraftProblem>,
) -> Vec<Step> {
    steps.sort_by(|a, b| (a.n, &a.key, a.seq).cmp(&(b.n, &b.key, b.seq)));
    let mut out: Vec<Step> = Vec::with_capacity(steps.len());
    for step in steps {
        let Some(last) = out
            .last_mut()
            .filter(|last| (last.n, &last.key) == (step.n, &step.key))
        else {
            out.push(step);
            continue;
        };
        if last.after.is_some() && step.after.is_some() {
            problems.push(DraftProblem::same_key(sql, &step));
            continue;
        }
        if last.before == Before::Absent {
            last.before = step.before;
        }
        last.after = last.after.take().or(step.after);
    }
    out
}

/// The last write of a row whose table is gone, if its mark is taken now.
fn lost(sql: &TableSql, marks: &[Mark], cut: Option<Cut>) -> Option<LostRow> {
    let last = marks.last()?;
    if cut.is_some_and(|cut| (last.n, last.seq) > (cut.n, cut.seq)) {
        return None;
    }
    Some(LostRow {
        table: sql.table().number,
        key: sql.canonical_key(sql.stored_key(&last.image))?,
        last_marked_at: timestamp(last.at),
    })
}

fn change(sql: &TableSql, step: &Step) -> Option<DraftChange> {
    let same = match (&step.before, &step.after) {
        (Before::Absent, None) => true,
        // A key that is spelled anew, as 1.0 for 1, is the same key (spec CE11).
        (Before::Image(before), Some(after)) => {
            (0..after.0.len()).all(|p| sql.table().is_key(p) || before.0[p] == after.0[p])
        }
        (Before::Absent | Before::Unknown, _) | (Before::Image(_), None) => false,
    };
    (!same).then(|| DraftChange {
        table: sql.table().number,
        key: step.key.clone(),
        before: step.before.clone(),
        after: step.after.clone(),
        first_marked_at: timestamp(step.at),
    })
}

/// The time of a Julian day, which SQLite gives to the millisecond.
fn timestamp(julian_day: f64) -> Timestamp {
    const UNIX_EPOCH: f64 = 2_440_587.5;
    let millis = ((julian_day - UNIX_EPOCH) * 86_400_000.0).round();
    if !(0.0..9e15).contains(&millis) {
        return Timestamp(0);
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be in range, and rounded"
    )]
    Timestamp::from_millis(millis as u64)
}

/// An error of reading rows, as an error of capture.
fn rows(doing: &'static str, error: RowError) -> CaptureError {
    CaptureError::Rows {
        doing,
        source: Box::new(error),
    }
}
