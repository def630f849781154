//! The tables of the simulated app, and who may see which row, told without the engine's rules.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, types::ValueRef};
use syncline_core::{RowKey, TableNumber, Value};

/// What the server is told. Projects with members and tasks have owners; the rest is everybody's.
///
/// `pairs` are written two at a time with values that add up to zero. `tallies` are counted up
/// together with an inserted row of `steps`, whose ids are also members of the tally's `marks`:
/// whoever sees one of the three without the others sees half a transaction or one twice.
pub(crate) const CONFIG: &str = r#"
[tables.projects]
columns = { id = "text primary key", name = "text not null", notes = "text", points = "integer not null default 0" }
merge = { points = "counter" }
read = "_owner = auth.uid() OR id IN (SELECT project_id FROM members WHERE user_id = auth.uid())"
write = "_owner = auth.uid() OR id IN (SELECT project_id FROM members WHERE user_id = auth.uid())"

[tables.members]
columns = { id = "text primary key", project_id = "text not null references projects on delete cascade", user_id = "text not null" }
read = "user_id = auth.uid() OR project_id IN readable(projects)"
write = "project_id IN writable(projects)"

[tables.tasks]
columns = { id = "text primary key", project_id = "text not null references projects on delete cascade", title = "text not null default ''", done = "boolean", tags = "json" }
merge = { tags = "set" }
read = "project_id IN readable(projects)"
write = "project_id IN writable(projects)"

[tables.pairs]
columns = { id = "text primary key", pair = "text not null", value = "integer not null" }
read = "auth.uid() IS NOT NULL"
write = "auth.uid() IS NOT NULL"

[tables.tallies]
columns = { id = "text primary key", n = "integer not null default 0", marks = "json" }
merge = { n = "counter", marks = "set" }
read = "auth.uid() IS NOT NULL"
write = "auth.uid() IS NOT NULL"

[tables.steps]
columns = { id = "text primary key", tally = "text not null" }
read = "auth.uid() IS NOT NULL"
write = "auth.uid() IS NOT NULL"

[tables.places]
columns = { id = "text primary key", place = "integer unique" }
read = "auth.uid() IS NOT NULL"
write = "auth.uid() IS NOT NULL"
"#;

/// The same tables as an app would have created them before it met a server.
pub(crate) const LOCAL: &str = "
CREATE TABLE projects(id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, notes TEXT,
  points INTEGER NOT NULL DEFAULT 0);
CREATE TABLE members(id TEXT PRIMARY KEY NOT NULL,
  project_id TEXT NOT NULL REFERENCES projects ON DELETE CASCADE, user_id TEXT NOT NULL);
CREATE TABLE tasks(id TEXT PRIMARY KEY NOT NULL,
  project_id TEXT NOT NULL REFERENCES projects ON DELETE CASCADE,
  title TEXT NOT NULL DEFAULT '', done BOOLEAN, tags JSON);
CREATE TABLE pairs(id TEXT PRIMARY KEY NOT NULL, pair TEXT NOT NULL, value INTEGER NOT NULL);
CREATE TABLE tallies(id TEXT PRIMARY KEY NOT NULL, n INTEGER NOT NULL DEFAULT 0, marks JSON);
CREATE TABLE steps(id TEXT PRIMARY KEY NOT NULL, tally TEXT NOT NULL);
CREATE TABLE places(id TEXT PRIMARY KEY NOT NULL, place INTEGER UNIQUE);";

/// Names and columns, the key first.
pub(crate) const TABLES: &[(&str, &[&str])] = &[
    ("projects", &["id", "name", "notes", "points"]),
    ("members", &["id", "project_id", "user_id"]),
    ("tasks", &["id", "project_id", "title", "done", "tags"]),
    ("pairs", &["id", "pair", "value"]),
    ("tallies", &["id", "n", "marks"]),
    ("steps", &["id", "tally"]),
    ("places", &["id", "place"]),
];

/// Names a row: table and id.
pub(crate) type RowName = (&'static str, String);

/// All rows of a database: their columns after the key, as SQL literals.
pub(crate) type Rows = BTreeMap<RowName, Vec<String>>;

/// Everything in the app's tables.
pub(crate) fn read_rows(conn: &Connection) -> rusqlite::Result<Rows> {
    let mut rows = Rows::new();
    for (table, columns) in TABLES {
        let quoted: Vec<_> = columns[1..].iter().map(|column| format!("quote({column})")).collect();
        let sql = format!("SELECT id, {} FROM {table}", quoted.join(", "));
        let mut statement = conn.prepare_cached(&sql)?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let id = match row.get_ref(0)? {
                ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                other => format!("{other:?}"),
            };
            let values = (1..columns.len()).map(|i| row.get(i)).collect::<Result<_, _>>()?;
            rows.insert((table, id), values);
        }
    }
    Ok(rows)
}

/// The server's rows at one moment, with their owners.
#[derive(Debug, Clone, Default)]
pub(crate) struct Truth {
    pub(crate) rows: Rows,
    owners: BTreeMap<RowName, String>,
}

impl Truth {
    pub(crate) fn read(
        conn: &Connection,
        numbers: &BTreeMap<TableNumber, &'static str>,
    ) -> anyhow::Result<Self> {
        let rows = read_rows(conn)?;
        let mut owners = BTreeMap::new();
        let sql = "SELECT table_no, key, owner FROM syncline_rows WHERE deleted = 0";
        let mut statement = conn.prepare_cached(sql)?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let (number, key, owner): (u32, Vec<u8>, Option<String>) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            if let Some(table) = numbers.get(&TableNumber(number)) {
                owners.insert((*table, id_of(&RowKey::from_bytes(&key)?)), owner.unwrap_or_default());
            }
        }
        Ok(Self { rows, owners })
    }

    /// The rows `user` may see, from the words of [`CONFIG`] and the rows alone.
    pub(crate) fn visible(&self, user: &str) -> BTreeSet<RowName> {
        let literal = |text: &str| format!("'{text}'");
        let shared: BTreeSet<&String> = self
            .rows
            .iter()
            .filter(|((table, _), values)| *table == "members" && values[1] == literal(user))
            .map(|(_, values)| &values[0])
            .collect();
        let sees_project = |id: &str| {
            let name = ("projects", id.to_owned());
            let owned = self.owners.get(&name).is_some_and(|owner| owner == user);
            self.rows.contains_key(&name) && (owned || shared.contains(&literal(id)))
        };
        let sees = |(table, id): &RowName, values: &[String]| match *table {
            "projects" => sees_project(id),
            "members" => values[1] == literal(user) || sees_project(values[0].trim_matches('\'')),
            "tasks" => sees_project(values[0].trim_matches('\'')),
            _ => true,
        };
        let seen = self.rows.iter().filter(|(name, values)| sees(name, values));
        seen.map(|(name, _)| name.clone()).collect()
    }
}

/// The id in a key of one text.
pub(crate) fn id_of(key: &RowKey) -> String {
    match key.decode().ok().and_then(|mut values| values.pop()) {
        Some(Value::Text(id)) => id,
        other => format!("{other:?}"),
    }
}
