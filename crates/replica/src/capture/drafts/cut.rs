//! How many marks are taken at once.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::marks::MarkedTable;
use crate::capture::install::{CaptureError, database};

/// The last mark that is taken: every mark of a smaller number, and those of `n` up to `seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::capture) struct Cut {
    pub(in crate::capture) n: i64,
    pub(in crate::capture) seq: i64,
}

/// Where to cut so that at most `marks_max` marks are taken; `None`: take all.
///
/// The first number is taken whole however large it is if `is_marked` says so.
pub(super) fn find(
    conn: &Connection,
    tables: &[MarkedTable<'_>],
    marks_max: usize,
    is_marked: impl Fn(i64) -> bool,
) -> Result<Option<Cut>, CaptureError> {
    let doing = "count the marks";
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    for table in tables {
        let mut statement = conn
            .prepare_cached(&table.count_sql())
            .map_err(database(doing))?;
        let mut rows = statement.query([]).map_err(database(doing))?;
        while let Some(row) = rows.next().map_err(database(doing))? {
            let count: i64 = row.get(1).map_err(database(doing))?;
            *counts
                .entry(row.get(0).map_err(database(doing))?)
                .or_default() += usize::try_from(count).unwrap_or(usize::MAX);
        }
    }
    let mut left = marks_max;
    let mut whole = None;
    for (&n, &count) in &counts {
        if count > left && whole.is_none() && !is_marked(n) {
            return Ok(Some(Cut {
                n,
                seq: nth_seq(conn, tables, n, marks_max)?,
            }));
        }
        if count > left && whole.is_some() {
            break;
        }
        left = left.saturating_sub(count);
        whole = Some(n);
    }
    let is_last = whole == counts.keys().next_back().copied();
    Ok(whole.filter(|_| !is_last).map(|n| Cut { n, seq: i64::MAX }))
}

/// The place in the order of marks that the `nth` mark of number `n` has.
fn nth_seq(
    conn: &Connection,
    tables: &[MarkedTable<'_>],
    n: i64,
    nth: usize,
) -> Result<i64, CaptureError> {
    let doing = "order the marks";
    let mut all: Vec<i64> = Vec::new();
    for table in tables {
        let mut statement = conn
            .prepare_cached(&table.seq_sql())
            .map_err(database(doing))?;
        let found = statement
            .query_map([n], |row| row.get(0))
            .map_err(database(doing))?;
        for seq in found {
            all.push(seq.map_err(database(doing))?);
        }
    }
    let place = nth.clamp(1, all.len()) - 1;
    let (_, &mut seq, _) = all.select_nth_unstable(place);
    Ok(seq)
}
