//! The app's triggers that maintain something of its own, a full-text index say, repeated while
//! the engine applies rows (spec AP5).
//!
//! Triggers are off on the applying connection, but those of the TEMP schema still fire. So each
//! trigger of a synced table that writes nothing but tables that do not sync has a twin there,
//! which is asleep unless [`awake`] is around the work.

use std::collections::BTreeSet;

use rusqlite::Connection;
use syncline_core::sql::{Token, tokens};

use crate::{
    db::Doing,
    error::ReplicaError,
    objects::Objects,
    rows::RowError,
    sql::{list, quoted},
    tables::{SyncedTable, Tables},
};

const DOING: &str = "repeating the app's triggers";
/// One row: whether the twins fire.
const SWITCH: &str = "syncline_applying";

/// Makes the twins fit the app's triggers as they are in `schema`. Triggers must be off (the twins are
/// compiled to see whether this program has what they need).
///
/// A trigger that cannot be repeated, because this program lacks a function or module of the
/// app's, is left out.
pub(crate) fn install(
    conn: &Connection,
    schema: &Objects,
    tables: &Tables,
) -> Result<(), ReplicaError> {
    remove(conn)?;
    let synced: BTreeSet<String> = tables.iter().map(|t| t.name().to_lowercase()).collect();
    let mut twins = 0;
    for table in tables.iter() {
        for (_, text) in schema.triggers_of_app(table.name()) {
            let Some(trigger) = Trigger::parse(text) else {
                continue;
            };
            let writes = trigger.writes();
            if writes.is_empty() || !writes.is_disjoint(&synced) {
                continue;
            }
            if twins == 0 {
                conn.execute_batch(&format!(
                    "CREATE TEMP TABLE {SWITCH}(is_on); INSERT INTO {SWITCH} VALUES(0)"
                ))
                .doing(DOING)?;
            }
            let name = format!("syncline_repeat_{twins}");
            twins += 1;
            // SQLite took the app's text; should it not take ours, there is no twin.
            let made = conn.execute_batch(&trigger.twin(&name, table.name()));
            if made.is_ok() && conn.prepare(&trigger.probe(table)).is_err() {
                conn.execute_batch(&format!("DROP TRIGGER temp.{name}"))
                    .doing(DOING)?;
            }
        }
    }
    Ok(())
}

/// Removes all twins.
pub(crate) fn remove(conn: &Connection) -> Result<(), ReplicaError> {
    let mut statement = conn
        .prepare("SELECT type, name FROM temp.sqlite_schema WHERE name LIKE 'syncline\\_%' ESCAPE '\\' ORDER BY type DESC")
        .doing(DOING)?;
    let found = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .and_then(Iterator::collect::<rusqlite::Result<Vec<(String, String)>>>)
        .doing(DOING)?;
    drop(statement);
    for (kind, name) in found {
        conn.execute_batch(&format!("DROP {kind} temp.{}", quoted(&name)))
            .doing(DOING)?;
    }
    Ok(())
}

/// Runs `work` with the twins firing.
pub(crate) fn awake<T, E: From<ReplicaError>>(
    conn: &Connection,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    switch(conn, true)?;
    let done = work();
    switch(conn, false)?;
    done
}

/// Writes a row with the twins firing, and, where that fails, without: nothing of the app's may stop
/// what the engine has to write (spec AP6, CA14). What fails for another reason fails again.
pub(crate) fn write<T>(
    conn: &Connection,
    write: impl Fn() -> Result<T, RowError>,
) -> Result<Result<T, RowError>, ReplicaError> {
    let done = write();
    // After RAISE(IGNORE) nothing was written, and nothing says so.
    let is_written = done.is_ok() && conn.changes() > 0;
    // RAISE(ROLLBACK) leaves no transaction to go on in.
    if is_written || conn.is_autocommit() || !has_twins(conn)? {
        return Ok(done);
    }
    switch(conn, false)?;
    let done = write();
    switch(conn, true)?;
    Ok(done)
}

/// This schema is nobody else's, so SQLite knows it without a look.
fn has_twins(conn: &Connection) -> Result<bool, ReplicaError> {
    conn.table_exists(Some("temp"), SWITCH).doing(DOING)
}

fn switch(conn: &Connection, on: bool) -> Result<(), ReplicaError> {
    if has_twins(conn)? {
        conn.prepare_cached(&format!("UPDATE temp.{SWITCH} SET is_on = ?1"))
            .and_then(|mut s| s.execute([on]))
            .doing(DOING)?;
    }
    Ok(())
}

/// The parts of a trigger's text.
struct Trigger<'a> {
    /// `AFTER INSERT`, `BEFORE UPDATE OF a, b`, …
    event: &'a str,
    when: Option<&'a str>,
    /// From BEGIN to END.
    body: &'a str,
}

impl<'a> Trigger<'a> {
    /// `None` for what is no trigger on rows of a table.
    fn parse(sql: &'a str) -> Option<Self> {
        let all = tokens(sql);
        let find = |from: usize, word: &str| {
            all.iter()
                .skip(from)
                .position(|token| token.is_word(word))
                .map(|place| place + from)
        };
        let begin = find(0, "BEGIN")?;
        let event = all.iter().take(begin).position(|token| {
            ["BEFORE", "AFTER", "INSTEAD", "INSERT", "UPDATE", "DELETE"]
                .iter()
                .any(|word| token.is_word(word))
        })?;
        let on = find(event, "ON").filter(|on| *on < begin)?;
        if all[event].is_word("INSTEAD") {
            return None;
        }
        let when = find(on, "WHEN").filter(|when| *when < begin);
        Some(Self {
            event: &sql[all[event].start..all[on].start],
            when: when.map(|when| &sql[all[when].end()..all[begin].start]),
            body: &sql[all[begin].start..],
        })
    }

    /// The tables that the body writes, in lower case.
    fn writes(&self) -> BTreeSet<String> {
        let all = tokens(self.body);
        let mut found = BTreeSet::new();
        for (place, token) in all.iter().enumerate() {
            let next = |by: usize| all.get(place + by);
            let is = |by: usize, word: &str| next(by).is_some_and(|token| token.is_word(word));
            let target = if token.is_word("INTO") {
                next(1)
            } else if token.is_word("DELETE") && is(1, "FROM") {
                next(2)
            } else if token.is_word("UPDATE") && is(1, "OR") {
                next(3)
            } else if token.is_word("UPDATE") && !is(1, "SET") {
                next(1)
            } else {
                None
            };
            found.extend(target.map(|token| Token::name(token).to_lowercase()));
        }
        found
    }

    fn twin(&self, name: &str, table: &str) -> String {
        let when = self
            .when
            .map(|when| format!(" AND ({when})"))
            .unwrap_or_default();
        format!(
            "CREATE TEMP TRIGGER {name} {} ON main.{} FOR EACH ROW \
             WHEN (SELECT is_on FROM temp.{SWITCH}){when} {}",
            self.event,
            quoted(table),
            self.body
        )
    }

    /// A statement that makes the trigger fire.
    fn probe(&self, table: &SyncedTable) -> String {
        let name = quoted(table.name());
        let is = |word: &str| tokens(self.event).iter().any(|token| token.is_word(word));
        if is("INSERT") {
            format!("INSERT INTO main.{name} DEFAULT VALUES")
        } else if is("DELETE") {
            format!("DELETE FROM main.{name}")
        } else {
            let columns = table.table.columns.iter().filter(|c| !c.generated);
            let sets = list(columns, |column| format!("{0} = {0}", quoted(&column.name)));
            format!("UPDATE main.{name} SET {sets}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ap5_a_triggers_parts_are_told_apart() {
        let sql = "CREATE TRIGGER IF NOT EXISTS \"on\" AFTER UPDATE OF a, b ON \"t\" FOR EACH ROW
            WHEN CASE old.a WHEN 'BEGIN' THEN 1 END
            BEGIN
              INSERT OR REPLACE INTO x(a) VALUES(replace(new.a, 'a', 'b')) ON CONFLICT DO UPDATE SET a = 1;
              UPDATE OR IGNORE [y] SET a = 1; DELETE FROM Z; SELECT 'INTO v';
            END";
        let trigger = Trigger::parse(sql).unwrap();
        assert_eq!(trigger.event.trim(), "AFTER UPDATE OF a, b");
        assert_eq!(
            trigger.when.unwrap().trim(),
            "CASE old.a WHEN 'BEGIN' THEN 1 END"
        );
        let written: Vec<_> = trigger.writes().into_iter().collect();
        assert_eq!(written, ["x", "y", "z"]);
        let raises = "CREATE TRIGGER n BEFORE INSERT ON t BEGIN SELECT RAISE(ABORT, 'no'); END";
        assert!(Trigger::parse(raises).unwrap().writes().is_empty());
        assert!(
            Trigger::parse("CREATE TRIGGER v INSTEAD OF INSERT ON w BEGIN DELETE FROM x; END")
                .is_none()
        );
    }
}
