//! Reads and empties the marks of one table.

use rusqlite::Connection;

use super::{Before, DraftProblem, Step, cut::Cut, rows};
use crate::{
    capture::{
        chain::{Last, Mark},
        install::{CaptureError, database, exists, is_installed},
        triggers::{mark_column, mark_table},
    },
    rows::{Raw, TableSql},
    sql::{all, list},
};

/// How many marks one firing of a trigger can make, at most: the key, a guessed rowid, an evicted
/// row by key and rowid, and one for each further unique index, of which few tables have more.
pub(super) const MARKS_PER_TOUCH_MAX: usize = 8;

/// How many tables one statement asks whether they have marks: SQLite joins at most 500 SELECTs.
const TABLES_PER_STATEMENT: usize = 200;

/// At most this many rows with a NULL key are reported at once.
const NULL_KEYS_MAX: usize = 100;

/// Some other program wrote a mark's head, or the row of `syncline_tx` was gone.
const NUMBER: &str = "CAST(ifnull(n, 0) AS INTEGER)";
const SEQ: &str = "CAST(ifnull(seq, 0) AS INTEGER)";
/// Whether a mark is up to the cut (?1, ?2). In a subquery names mean its own table.
const TAKEN: &str = "CAST(ifnull(n, 0) AS INTEGER) < ?1 OR \
     (CAST(ifnull(n, 0) AS INTEGER) = ?1 AND CAST(ifnull(seq, 0) AS INTEGER) <= ?2)";

/// A table that has marks.
#[derive(Debug)]
pub(super) struct MarkedTable<'a> {
    sql: &'a TableSql,
    mark: String,
    /// For each column of the table: whether marks hold it.
    captured: Vec<bool>,
    /// The app's table is not there any more.
    is_gone: bool,
}

/// Those of `tables` that have marks.
pub(super) fn tables_with_marks<'a>(
    conn: &Connection,
    tables: impl IntoIterator<Item = &'a TableSql>,
) -> Result<Vec<MarkedTable<'a>>, CaptureError> {
    let doing = "look which tables have marks";
    let mut installed: Vec<&TableSql> = Vec::new();
    for sql in tables {
        if is_installed(conn, sql.table()).map_err(database(doing))? {
            installed.push(sql);
        }
    }
    let mut out = Vec::new();
    for some in installed.chunks(TABLES_PER_STATEMENT) {
        let parts: Vec<String> = some
            .iter()
            .enumerate()
            .map(|(i, sql)| {
                format!(
                    "SELECT {i} WHERE EXISTS (SELECT 1 FROM {})",
                    mark_table(sql.table())
                )
            })
            .collect();
        let mut statement = conn
            .prepare_cached(&parts.join(" UNION ALL "))
            .map_err(database(doing))?;
        let found = statement
            .query_map([], |row| row.get(0))
            .map_err(database(doing))?;
        for i in found {
            let i: u16 = i.map_err(database(doing))?;
            out.push(MarkedTable::new(conn, some[usize::from(i)])?);
        }
    }
    Ok(out)
}

impl<'a> MarkedTable<'a> {
    fn new(conn: &Connection, sql: &'a TableSql) -> Result<Self, CaptureError> {
        let doing = "read the columns of the marks";
        let mark = mark_table(sql.table());
        let table = sql.table();
        let is_captured = |p: usize| {
            let column = mark_column(table, p);
            Ok(!table.columns[p].generated
                && conn.column_exists(Some("main"), mark.as_str(), column.as_str())?)
        };
        let captured = (0..table.columns.len()).map(is_captured);
        let captured = captured.collect::<rusqlite::Result<_>>();
        Ok(Self {
            sql,
            captured: captured.map_err(database(doing))?,
            is_gone: !exists(conn, &table.name).map_err(database(doing))?,
            mark,
        })
    }

    pub(super) fn sql(&self) -> &'a TableSql {
        self.sql
    }

    /// Calls `each` with the marks of one row in order of their numbers, first ones first, and
    /// the row as it is. With a `cut` only for rows that have a mark up to it, so that sealing a
    /// million marks in portions does not look at all of them each time.
    pub(super) fn each_row(
        &self,
        conn: &Connection,
        cut: Option<Cut>,
        mut each: impl FnMut(Vec<Mark>, Last),
    ) -> Result<(), CaptureError> {
        let doing = "read the marks";
        let table = self.sql.table();
        let columns = list(0..table.columns.len(), |p| {
            if self.captured[p] {
                mark_column(table, p)
            } else {
                "NULL".into()
            }
        });
        let keys = list(&table.primary_key, |&p| mark_column(table, p));
        let read = format!(
            "SELECT {NUMBER}, {SEQ}, ifnull(at, 0.0), present <> 0, {columns} FROM {mark}",
            mark = self.mark
        );
        let order = format!("ORDER BY {keys}, n, rowid");
        let (text, binds) = match cut {
            None => (format!("{read} {order}"), Vec::new()),
            Some(Cut { n, seq }) => {
                let same = all(&table.primary_key, |&p| {
                    let key = mark_column(table, p);
                    format!("e.{key} IS m.{key}")
                });
                let text = format!(
                    "{read} AS m NOT INDEXED WHERE ({TAKEN}) OR ({NUMBER} > ?1 AND EXISTS \
                     (SELECT 1 FROM {mark} AS e WHERE {same} AND ({TAKEN}))) {order}",
                    mark = self.mark
                );
                (text, vec![n, seq])
            }
        };
        let mut statement = conn.prepare_cached(&text).map_err(database(doing))?;
        let mut found = statement
            .query(rusqlite::params_from_iter(binds))
            .map_err(database(doing))?;
        let mut group: Vec<Mark> = Vec::new();
        while let Some(row) = found.next().map_err(database(doing))? {
            let mark = self.mark(row).map_err(database(doing))?;
            let is_next = group
                .first()
                .is_some_and(|first| !self.is_same_place(first, &mark));
            if is_next {
                self.finish(conn, std::mem::take(&mut group), &mut each)?;
            }
            group.push(mark);
        }
        if group.is_empty() {
            Ok(())
        } else {
            self.finish(conn, group, &mut each)
        }
    }

    fn finish(
        &self,
        conn: &Connection,
        mut group: Vec<Mark>,
        each: &mut impl FnMut(Vec<Mark>, Last),
    ) -> Result<(), CaptureError> {
        let key = self.sql.stored_key(&group[0].image);
        if key.contains(&Raw::Null) {
            return Ok(()); // See `null_keys`.
        }
        group.sort_by_key(|mark| mark.n);
        group.dedup_by_key(|mark| mark.n);
        if self.is_gone {
            each(group, Last::Gone);
            return Ok(());
        }
        let last = self
            .sql
            .read_stored(conn, &key)
            .map_err(|e| rows("read a marked row", e))?
            // A collation may find a row with another key, which has marks of its own.
            .filter(|image| same(&key, &self.sql.stored_key(image)));
        self.fill_uncaptured(&mut group, last.as_deref());
        each(group, Last::Row(last));
        Ok(())
    }

    /// What marks do not hold counts as unchanged.
    fn fill_uncaptured(&self, group: &mut [Mark], last: Option<&[Raw]>) {
        let Some(last) = last else { return };
        let columns = self.sql.table().columns.iter();
        for (p, column) in columns.enumerate() {
            if !self.captured[p] && !column.generated {
                group
                    .iter_mut()
                    .for_each(|mark| mark.image[p].clone_from(&last[p]));
            }
        }
    }

    fn mark(&self, row: &rusqlite::Row<'_>) -> rusqlite::Result<Mark> {
        Ok(Mark {
            n: row.get(0)?,
            seq: row.get(1)?,
            at: row.get(2)?,
            present: row.get(3)?,
            image: self.sql.image(row, 4)?,
        })
    }

    /// Whether two marks are of one place in the table: keys that SQLite finds equal bytewise.
    fn is_same_place(&self, a: &Mark, b: &Mark) -> bool {
        same(
            &self.sql.stored_key(&a.image),
            &self.sql.stored_key(&b.image),
        )
    }

    /// Reports rows with a NULL key, if such a row was touched.
    pub(super) fn null_keys(
        &self,
        conn: &Connection,
        problems: &mut Vec<DraftProblem>,
    ) -> Result<(), CaptureError> {
        if self.is_gone {
            return Ok(());
        }
        let doing = "look for rows without a key";
        let table = self.sql.table();
        let touched = table
            .primary_key
            .iter()
            .map(|&p| format!("{} IS NULL", mark_column(table, p)));
        let touched = touched.collect::<Vec<_>>().join(" OR ");
        let found: bool = conn
            .prepare_cached(&format!(
                "SELECT EXISTS(SELECT 1 FROM {} WHERE {touched})",
                self.mark
            ))
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(database(doing))?;
        if found {
            let images = self
                .sql
                .read_null_keys(conn, NULL_KEYS_MAX)
                .map_err(|e| rows(doing, e))?;
            problems.extend(
                images
                    .iter()
                    .filter_map(|image| DraftProblem::null_key(self.sql, image)),
            );
        }
        Ok(())
    }

    /// Whether an insert has the key of another row that spells it differently.
    pub(super) fn is_ambiguous(
        &self,
        conn: &Connection,
        step: &Step,
    ) -> Result<bool, CaptureError> {
        if self.is_gone || step.before != Before::Absent || step.after.is_none() {
            return Ok(false);
        }
        self.sql
            .is_spelled_twice(conn, &step.key)
            .map_err(|e| rows("look for other spellings of a key", e))
    }

    /// Removes the marks that were taken.
    pub(super) fn empty(&self, conn: &Connection, cut: Option<Cut>) -> Result<(), CaptureError> {
        let doing = "empty the marks";
        let mark = &self.mark;
        let result = match cut {
            None => conn
                .prepare_cached(&format!("DELETE FROM {mark}"))
                .and_then(|mut statement| statement.execute([])),
            Some(Cut { n, seq }) => conn
                .prepare_cached(&format!("DELETE FROM {mark} WHERE {TAKEN}"))
                .and_then(|mut statement| statement.execute([n, seq])),
        };
        result.map(drop).map_err(database(doing))
    }

    /// Gives number and count of marks for each number.
    pub(super) fn count_sql(&self) -> String {
        format!("SELECT {NUMBER}, count(*) FROM {} GROUP BY 1", self.mark)
    }

    /// Gives the order of each mark of one number.
    pub(super) fn seq_sql(&self) -> String {
        format!("SELECT {SEQ} FROM {} WHERE {NUMBER} = ?1", self.mark)
    }
}

fn same(a: &[Raw], b: &[Raw]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.is(b))
}
