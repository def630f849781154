//! What a file has to subscribe to so that the rows that it holds of tables on demand stay in it
//! (spec SU9).

use std::{collections::BTreeMap, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use rusqlite::{Connection as Sqlite, types::ValueRef};
use serde::Deserialize;
use syncline_core::{RowKey, Table, Value, sql::quote};
use syncline_replica::{Topic, Wanted};

use crate::{api::Api, database::database_error, error::ClientError};

/// How rows of each table on demand are asked for, as the server tells it.
#[derive(Debug, Deserialize)]
pub(crate) struct TopicsAnswer {
    subscriptions_max: u64,
    tables: BTreeMap<String, Vec<Way>>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
enum Way {
    Table,
    Row,
    Own {
        column: String,
        value: String,
    },
    Value {
        column: String,
        parent: Option<String>,
    },
    /// One that a later server has.
    #[serde(other)]
    Unknown,
}

/// What the rows of a file are asked for by.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Held {
    /// None where they are more than the server allows.
    pub topics: Vec<Topic>,
    /// How many it takes for each table that has rows.
    pub by_table: Vec<(String, u64)>,
    /// How many the server allows a device.
    pub max: u64,
}

impl Held {
    /// How many subscriptions it takes.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.by_table.iter().map(|(_, count)| count).sum()
    }

    /// Whether the server allows as many.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.count() <= self.max
    }

    /// Finds out what the rows of `tables` are asked for by. Nothing where the server does not say.
    pub(crate) async fn find(
        conn: &Sqlite,
        path: &Path,
        tables: &[&Table],
        api: &Api,
    ) -> Result<Self, ClientError> {
        let Some(there) = api.topics().await? else {
            return Ok(Self::default());
        };
        let failed = |error| database_error(path, error);
        let file = File {
            conn,
            tables,
            there: &there,
        };
        let mut held = Self {
            max: there.subscriptions_max,
            ..Self::default()
        };
        let mut asked = Vec::new();
        for table in tables {
            let Some(ways) = there.ways(&table.name) else {
                continue;
            };
            let questions = file.questions(table, ways);
            let mut count = 0;
            for question in &questions {
                count += file.count(question).map_err(failed)?;
            }
            if count > 0 {
                held.by_table.push((table.name.clone(), count));
                asked.extend(
                    questions
                        .into_iter()
                        .map(|question| (table.name.clone(), question)),
                );
            }
        }
        if !held.fits() {
            return Ok(held);
        }
        for (table, question) in asked {
            for what in file.answer(&question).map_err(failed)? {
                let table = table.clone();
                held.topics.push(Topic { table, what });
            }
        }
        Ok(held)
    }
}

impl TopicsAnswer {
    fn ways(&self, table: &str) -> Option<&[Way]> {
        let mut tables = self.tables.iter();
        let found = tables.find(|(name, _)| name.eq_ignore_ascii_case(table));
        found.map(|(_, ways)| ways.as_slice())
    }
}

/// The tables of a file that are to sync, and what the server says of them.
struct File<'a> {
    conn: &'a Sqlite,
    tables: &'a [&'a Table],
    there: &'a TopicsAnswer,
}

/// A query for what to ask for, and what to make of its rows.
struct Question {
    sql: String,
    asks: Asks,
}

enum Asks {
    /// A key a row.
    Rows,
    /// A value of the column a row.
    Values(String),
    /// This, if there is any row.
    One(Wanted),
}

impl File<'_> {
    fn questions(&self, table: &Table, ways: &[Way]) -> Vec<Question> {
        let name = quote(&table.name);
        let any = || format!("SELECT 1 FROM {name} LIMIT 1");
        let mut questions = Vec::new();
        for way in ways {
            let question = match way {
                Way::Table => Some((any(), Asks::One(Wanted::Table))),
                Way::Own { column, value } => value_of(value).map(|value| {
                    let column = column.clone();
                    (any(), Asks::One(Wanted::Value { column, value }))
                }),
                Way::Row => {
                    let key = table.primary_key.iter();
                    let key: Vec<String> = key.map(|&at| quote(&table.columns[at].name)).collect();
                    let sql = format!("SELECT {} FROM {name}", key.join(", "));
                    Some((sql, Asks::Rows))
                }
                Way::Value { column, parent } => table.position(column).map(|at| {
                    let column = table.columns[at].name.clone();
                    let quoted = quote(&column);
                    // Values that differ are different to the server, whatever the column's
                    // collation takes for equal.
                    let mut sql = format!(
                        "SELECT DISTINCT {quoted} COLLATE BINARY FROM {name}
                         WHERE {quoted} IS NOT NULL"
                    );
                    // A parent that is asked for by its key brings what is below it. One that is
                    // asked for in another way may not: that way may have conditions.
                    let parent = parent.as_deref();
                    let ways = parent.and_then(|parent| self.there.ways(parent));
                    if ways.is_some_and(|ways| ways.iter().any(|way| matches!(way, Way::Row)))
                        && let Some(has_parent) = self.has_parent(table, &column, parent)
                    {
                        sql.push_str(&format!(" AND NOT {has_parent}"));
                    }
                    (sql, Asks::Values(column))
                }),
                Way::Unknown => None,
            };
            questions.extend(question.map(|(sql, asks)| Question { sql, asks }));
        }
        questions
    }

    /// The condition that the parent that `column` names is in the file, if it can be.
    fn has_parent(&self, table: &Table, column: &str, parent: Option<&str>) -> Option<String> {
        let column = &table.columns[table.position(column)?].name;
        let (mut tables, parent) = (self.tables.iter(), parent?);
        let parent = tables.find(|known| known.name.eq_ignore_ascii_case(parent))?;
        let [key] = parent.primary_key[..] else {
            return None;
        };
        Some(format!(
            "EXISTS(SELECT 1 FROM {parent} AS {alias} WHERE {alias}.{key} = {table}.{column} COLLATE BINARY)",
            parent = quote(&parent.name),
            alias = "syncline_parent",
            key = quote(&parent.columns[key].name),
            table = quote(&table.name),
            column = quote(column),
        ))
    }

    fn count(&self, question: &Question) -> rusqlite::Result<u64> {
        let sql = format!("SELECT count(*) FROM ({})", question.sql);
        let count: i64 = self.conn.query_row(&sql, [], |row| row.get(0))?;
        Ok(count.cast_unsigned())
    }

    fn answer(&self, question: &Question) -> rusqlite::Result<Vec<Wanted>> {
        let mut statement = self.conn.prepare(&question.sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let mut values = Vec::with_capacity(columns);
            for at in 0..columns {
                values.extend(plain(row.get_ref(at)?));
            }
            if values.len() < columns {
                continue;
            }
            found.push(match &question.asks {
                Asks::Rows => Wanted::Row(values),
                Asks::Values(column) => Wanted::Value {
                    column: column.clone(),
                    value: values.swap_remove(0),
                },
                Asks::One(what) => what.clone(),
            });
        }
        Ok(found)
    }
}

/// `None` for a text that is none: such a row cannot travel.
fn plain(value: ValueRef<'_>) -> Option<Value> {
    Some(match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(n) => Value::Integer(n),
        ValueRef::Real(x) => Value::Real(x),
        ValueRef::Text(text) => Value::Text(String::from_utf8(text.to_vec()).ok()?),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    })
}

/// A value that is encoded as a key, in base64.
fn value_of(text: &str) -> Option<Value> {
    let bytes = BASE64_STANDARD.decode(text).ok()?;
    let values = RowKey::from_bytes(&bytes).ok()?.decode().ok()?;
    <[Value; 1]>::try_from(values).ok().map(|[value]| value)
}

#[cfg(test)]
mod tests {
    use syncline_replica::introspect::introspect;

    use super::*;

    /// What a file with `rows` is asked for by where the server says `ways`: table and what, sorted.
    fn asked(rows: &str, ways: serde_json::Value) -> Vec<String> {
        let conn = Sqlite::open_in_memory().unwrap();
        conn.execute_batch(rows).unwrap();
        let found = introspect(&conn).unwrap();
        assert!(found.problems.is_empty(), "{:?}", found.problems);
        let tables: Vec<&Table> = found.tables.iter().map(|local| &local.table).collect();
        let answer = serde_json::json!({ "subscriptions_max": 100, "tables": ways });
        let there: TopicsAnswer = serde_json::from_value(answer).unwrap();
        let file = File {
            conn: &conn,
            tables: &tables,
            there: &there,
        };
        let mut asked = Vec::new();
        for table in &tables {
            let Some(ways) = there.ways(&table.name) else {
                continue;
            };
            for question in file.questions(table, ways) {
                let answers = file.answer(&question).unwrap();
                assert_eq!(file.count(&question).unwrap(), answers.len() as u64);
                let named = answers.iter().map(|what| match what {
                    Wanted::Table => table.name.clone(),
                    Wanted::Row(key) => format!("{} {}", table.name, key[0].as_text().unwrap()),
                    Wanted::Value { column, value } => {
                        format!("{}.{column} {}", table.name, value.as_text().unwrap())
                    }
                });
                asked.extend(named);
            }
        }
        asked.sort();
        asked
    }

    #[test]
    fn su9_a_row_is_asked_for_although_its_parent_is_here() {
        // The way by the parent may have conditions, which the private project does not meet.
        let rows = "
            CREATE TABLE teams (id TEXT PRIMARY KEY NOT NULL);
            CREATE TABLE projects (id TEXT PRIMARY KEY NOT NULL, team_id TEXT, shared INTEGER);
            CREATE TABLE tasks (id TEXT PRIMARY KEY NOT NULL, project_id TEXT);
            INSERT INTO teams VALUES ('t1');
            INSERT INTO projects VALUES ('mine', 't1', 0);
            INSERT INTO tasks VALUES ('k1', 'mine'), ('k2', 'elsewhere');";
        let ways = serde_json::json!({
            "projects": [{ "by": "value", "column": "team_id", "parent": "teams" }, { "by": "row" }],
            "tasks": [{ "by": "value", "column": "project_id", "parent": "projects" }],
        });
        assert_eq!(
            asked(rows, ways),
            [
                "projects mine",
                "projects.team_id t1",
                "tasks.project_id elsewhere"
            ]
        );
    }

    #[test]
    fn su9_a_value_is_asked_for_unless_its_parent_is_asked_for_by_key() {
        let rows = "
            CREATE TABLE projects (id TEXT PRIMARY KEY NOT NULL, team_id TEXT);
            CREATE TABLE tasks (id TEXT PRIMARY KEY NOT NULL, project_id TEXT);
            INSERT INTO projects VALUES ('p1', 't1');
            INSERT INTO tasks VALUES ('k1', 'p1');";
        let ways = serde_json::json!({
            "projects": [{ "by": "value", "column": "team_id", "parent": "teams" }],
            "tasks": [{ "by": "value", "column": "project_id", "parent": "projects" }],
        });
        assert_eq!(
            asked(rows, ways),
            ["projects.team_id t1", "tasks.project_id p1"]
        );
    }

    #[test]
    fn su9_values_are_told_apart_as_the_server_does() {
        let rows = "
            CREATE TABLE projects (id TEXT PRIMARY KEY NOT NULL);
            CREATE TABLE tasks (id TEXT PRIMARY KEY NOT NULL, project_id TEXT COLLATE NOCASE);
            INSERT INTO projects VALUES ('p1');
            INSERT INTO tasks VALUES ('k1', 'p1'), ('k2', 'P1'), ('k3', 'P2'), ('k4', 'p2');";
        let ways = serde_json::json!({
            "projects": [{ "by": "row" }],
            "tasks": [{ "by": "value", "column": "project_id", "parent": "projects" }],
        });
        assert_eq!(
            asked(rows, ways),
            [
                "projects p1",
                "tasks.project_id P1",
                "tasks.project_id P2",
                "tasks.project_id p2",
            ]
        );
    }
}
