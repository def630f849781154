//! The marks of one row in order of transaction numbers, and the changes between them.

use syncline_core::{Row, RowKey, key::KeyError};

use super::drafts::{Before, Cut, DraftFault, DraftProblem};
use crate::rows::{Raw, RowError, TableSql};

/// One mark of one row.
#[derive(Debug)]
pub(super) struct Mark {
    pub(super) n: i64,
    pub(super) seq: i64,
    /// Julian day.
    pub(super) at: f64,
    pub(super) present: bool,
    /// Aligned with the table; the key alone where no row was present.
    pub(super) image: Vec<Raw>,
}

/// What one transaction number did to one row.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) n: i64,
    pub(super) seq: i64,
    pub(super) at: f64,
    pub(super) key: RowKey,
    pub(super) before: Before,
    pub(super) after: Option<Row>,
}

/// An image in canonical form.
enum Image {
    Absent,
    Row(RowKey, Row),
    /// With its key, if that much can be expressed.
    Inexpressible(Option<RowKey>, DraftProblem),
}

/// The row as it is now.
#[derive(Debug)]
pub(super) enum Last {
    Row(Option<Vec<Raw>>),
    /// Its table is gone: nobody knows what the last step led to.
    Gone,
}

/// Adds the steps of one row's `marks` up to the `last` image. Marks behind the `cut` only say
/// what was before them.
///
/// An image that cannot be expressed is skipped: the step that leads to it becomes a problem, and
/// the next step begins where that one did.
pub(super) fn steps(
    sql: &TableSql,
    marks: Vec<Mark>,
    last: Last,
    cut: Option<Cut>,
    out: &mut Vec<Step>,
    problems: &mut Vec<DraftProblem>,
) {
    let mut heads = Vec::with_capacity(marks.len());
    let mut images = Vec::with_capacity(marks.len() + 1);
    for mark in marks {
        heads.push((mark.n, mark.seq, mark.at));
        images.push(canonical(sql, mark.present.then_some(mark.image)));
    }
    if let Last::Row(last) = last {
        images.push(canonical(sql, last));
    }
    let mut images = images.into_iter();
    let Some(first) = images.next() else { return };
    let mut before = known(first);
    for ((n, seq, at), after) in heads.into_iter().zip(images) {
        if cut.is_some_and(|cut| (n, seq) > (cut.n, cut.seq)) {
            return;
        }
        let add = |key, before, after| {
            out.push(Step {
                n,
                seq,
                at,
                key,
                before,
                after,
            });
        };
        match after {
            Image::Inexpressible(_, problem) => problems.push(problem),
            Image::Absent => {
                between(before, None, add);
                before = (None, Before::Absent);
            }
            Image::Row(key, row) => {
                between(before, Some((key.clone(), row.clone())), add);
                before = (Some(key), Before::Image(row));
            }
        }
    }
}

/// The row at the start of a step, with its key where that is known.
fn known(image: Image) -> (Option<RowKey>, Before) {
    match image {
        Image::Absent => (None, Before::Absent),
        Image::Row(key, row) => (Some(key), Before::Image(row)),
        Image::Inexpressible(key, _) => (key, Before::Unknown),
    }
}

/// One step, or two where the key is another one to us and the same to SQLite (1 and 1.0).
fn between(
    before: (Option<RowKey>, Before),
    after: Option<(RowKey, Row)>,
    mut add: impl FnMut(RowKey, Before, Option<Row>),
) {
    match (before, after) {
        ((Some(old), before), Some((new, row))) if old != new => {
            add(old, before, None);
            add(new, Before::Absent, Some(row));
        }
        ((_, before), Some((key, row))) => add(key, before, Some(row)),
        ((Some(key), before), None) => add(key, before, None),
        // Nothing before and after, or a row whose key never could be in a changeset.
        ((None, _), None) => {}
    }
}

fn canonical(sql: &TableSql, image: Option<Vec<Raw>>) -> Image {
    let Some(image) = image else {
        return Image::Absent;
    };
    let key = sql.canonical_key(sql.stored_key(&image));
    let row = match sql.canonical_row(image) {
        Ok(row) => row,
        Err(RowError::NotUtf8 { row, column, .. }) => {
            let problem = DraftProblem::new(sql, row, DraftFault::NotUtf8 { column });
            return Image::Inexpressible(key, problem);
        }
        Err(error) => unreachable!("only text can be damaged: {error}"),
    };
    match row.key(sql.table()) {
        Ok(key) => Image::Row(key, row),
        Err(KeyError::TooLong) => {
            let start: String = format!("{:?}", row.0).chars().take(80).collect();
            Image::Inexpressible(None, DraftProblem::new(sql, start, DraftFault::KeyTooLong))
        }
        Err(error @ (KeyError::Null | KeyError::Malformed)) => {
            unreachable!("rows with a NULL key are apart: {error}")
        }
    }
}
