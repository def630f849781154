//! Many rows with one statement.

use rusqlite::{Connection, types::ToSqlOutput};

use crate::fault::Result;

/// Rows that one statement writes. Beginning and ending a statement takes as long as writing a row.
const TOGETHER: usize = 16;

/// An INSERT of rows with `WIDTH` values each.
pub(crate) struct Insert<const WIDTH: usize> {
    /// Up to VALUES. OR FAIL leaves what came before an error, so SQLite keeps no journal to take
    /// it back: whoever sees an error here rolls the transaction back.
    pub(crate) head: &'static str,
    /// An ON CONFLICT clause, or nothing.
    pub(crate) tail: &'static str,
}

impl<const WIDTH: usize> Insert<WIDTH> {
    /// Inserts `rows` in their order; `values` says what of each.
    pub(crate) fn run<'r, T>(
        &self,
        conn: &Connection,
        rows: &'r [T],
        values: impl Fn(&'r T) -> [ToSqlOutput<'r>; WIDTH],
    ) -> Result<()> {
        let (many, rest) = rows.split_at(rows.len() - rows.len() % TOGETHER);
        for (rows, together) in [(many, TOGETHER), (rest, 1)] {
            if rows.is_empty() {
                continue;
            }
            let mut statement = conn.prepare_cached(&self.sql(together))?;
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

    fn sql(&self, together: usize) -> String {
        let places = vec!["?"; WIDTH].join(", ");
        let rows = vec![format!("({places})"); together].join(", ");
        format!("{} VALUES {rows} {}", self.head, self.tail)
    }
}
