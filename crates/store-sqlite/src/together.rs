//! Many rows with one statement.

use rusqlite::{Connection, types::ToSqlOutput};

use crate::fault::Result;

/// Rows that one statement writes. Beginning and ending a statement takes as long as writing a row.
const TOGETHER: usize = 16;

/// An INSERT of rows with `WIDTH` values each.
#[derive(Debug)]
pub(crate) struct Insert<const WIDTH: usize> {
    one: String,
    many: String,
}

impl<const WIDTH: usize> Insert<WIDTH> {
    /// `head` goes up to VALUES. OR FAIL leaves what came before an error, so SQLite keeps no
    /// journal to take it back: whoever sees an error of [`Insert::run`] rolls the transaction
    /// back. `tail` is an ON CONFLICT clause, or nothing.
    pub(crate) fn new(head: &str, tail: &str) -> Self {
        let sql = |together: usize| {
            let places = vec!["?"; WIDTH].join(", ");
            let rows = vec![format!("({places})"); together].join(", ");
            format!("{head} VALUES {rows} {tail}")
        };
        Self {
            one: sql(1),
            many: sql(TOGETHER),
        }
    }

    /// Inserts `rows` in their order; `values` says what of each.
    pub(crate) fn run<'r, T>(
        &self,
        conn: &Connection,
        rows: &'r [T],
        values: impl Fn(&'r T) -> [ToSqlOutput<'r>; WIDTH],
    ) -> Result<()> {
        let (many, rest) = rows.split_at(rows.len() - rows.len() % TOGETHER);
        for (rows, together, sql) in [(many, TOGETHER, &self.many), (rest, 1, &self.one)] {
            if rows.is_empty() {
                continue;
            }
            let mut statement = conn.prepare_cached(sql)?;
            for rows in rows.chunks(together) {
                let mut place = 0;
                for row in rows {
                    for value in values(row) {
                        place += 1;
                        statement.raw_bind_parameter(place, value)?;
                    }
                }
                statement.raw_execute()?;
            }
        }
        Ok(())
    }
}
