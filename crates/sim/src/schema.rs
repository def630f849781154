//! The tables of the simulated app, and who may see which row, told without the engine's rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::{Arc, LazyLock},
};

use rusqlite::Connection;
use syncline_core::{RowKey, TableNumber, Value};
use syncline_store::Context;

use crate::{given::Live, subject::App};

/// What the claim `team` of a token can be.
pub(crate) const TEAMS: [&str; 2] = ["red", "blue"];

/// Somebody as rules see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Who<'a> {
    pub(crate) user: &'a str,
    /// The claim `team` of their token.
    pub(crate) team: &'a str,
}

impl<'a> Who<'a> {
    /// A user whose claims nobody has changed.
    pub(crate) fn first(user: &'a str) -> Self {
        let team = match user {
            "bob" => "blue",
            _ => "red",
        };
        Self { user, team }
    }

    /// The user with each team there is.
    pub(crate) fn in_any_team(self) -> [Self; 2] {
        TEAMS.map(|team| Self { team, ..self })
    }
}

/// What the server is told.
///
/// `pairs` are written two at a time with values that add up to zero. `tallies` are counted up
/// together with an inserted row of `steps`, whose ids are also members of the tally's `marks`:
/// whoever sees one of the three without the others sees half a transaction or one twice.
/// `boards` are few, and everybody writes all of them: where edits compete.
const CONFIG: &str = r#"
[tables.projects]
columns = { id = "text primary key", name = "text not null", notes = "text", points = "integer not null default 0", budget = "integer" }
merge = { points = "counter", budget = "manual" }
read = "_owner = auth.uid() OR id IN (SELECT project_id FROM members WHERE user_id = auth.uid())"
write = "_owner = auth.uid() OR id IN (SELECT project_id FROM members WHERE user_id = auth.uid())"

[tables.members]
columns = { id = "text primary key", project_id = "text not null references projects on delete cascade", user_id = "text not null" }
read = "user_id = auth.uid() OR project_id IN readable(projects)"
write = "project_id IN writable(projects)"

[tables.tasks]
columns = { id = "text primary key", project_id = "text not null references projects on delete cascade", title = "text not null default ''", done = "boolean", tags = "json", log = "json" }
merge = { tags = "set", log = "append" }
read = "project_id IN readable(projects)"
write = "project_id IN writable(projects)"

[tables.notes]
columns = { id = "integer primary key", body = "text", shared = "boolean", team = "text" }
read = "_owner = auth.uid() OR shared OR team = auth.claim('team')"
write = "_owner = auth.uid() OR shared"

[tables.note_lines]
columns = { note_id = "integer references notes on delete cascade", line = "integer", text = "text" }
primary_key = ["note_id", "line"]
without_rowid = true
read = "note_id IN readable(notes)"
write = "note_id IN writable(notes)"

[tables.docs]
columns = { id = "text primary key", title = "text collate nocase unique", body = "json", size = "real not null default 0", open = "boolean" }
merge = { body = "merge-fields", size = "counter" }
on_delete = "update-wins"
read = "DOCS_READ"
write = "auth.uid() IS NOT NULL"

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

[tables.boards]
columns = { id = "text primary key", title = "text", stage = "text", colour = "text", tags = "json", votes = "integer not null default 0"BOARDS_EFFORT }
merge = { stage = "server-wins", colour = "client-wins", tags = "set", votes = "counter" }
read = "auth.uid() IS NOT NULL"
write = "auth.uid() IS NOT NULL"
"#;

/// Tables on demand, where there are such. A row of `news` is inserted with each row of `steps`.
const CONFIG_ON_DEMAND: &str = r#"
[tables.files]
columns = { id = "text primary key", project_id = "text not null references projects on delete cascade", name = "text" }
sync = "on_demand"
read = "project_id IN readable(projects)"
write = "project_id IN writable(projects)"

[tables.letters]
columns = { id = "text primary key", receiver = "text", body = "text encrypted" }
sync = "on_demand"
read = "_owner = auth.uid() OR receiver = auth.uid()"
write = "_owner = auth.uid() OR receiver = auth.uid()"

[tables.news]
columns = { id = "text primary key", body = "text" }
sync = "on_demand"
read = "auth.uid() IS NOT NULL"
write = "auth.uid() IS NOT NULL"
"#;

/// The same tables as an app would have created them before it met a server.
pub(crate) const LOCAL: &str = "
CREATE TABLE projects(id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, notes TEXT,
  points INTEGER NOT NULL DEFAULT 0, budget INTEGER);
CREATE TABLE members(id TEXT PRIMARY KEY NOT NULL,
  project_id TEXT NOT NULL REFERENCES projects ON DELETE CASCADE, user_id TEXT NOT NULL);
CREATE TABLE tasks(id TEXT PRIMARY KEY NOT NULL,
  project_id TEXT NOT NULL REFERENCES projects ON DELETE CASCADE,
  title TEXT NOT NULL DEFAULT '', done BOOLEAN, tags TEXT, log TEXT);
CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT, shared BOOLEAN, team TEXT);
CREATE TABLE note_lines(note_id INTEGER REFERENCES notes ON DELETE CASCADE, line INTEGER, text TEXT,
  PRIMARY KEY(note_id, line)) WITHOUT ROWID;
CREATE TABLE docs(id TEXT PRIMARY KEY NOT NULL, title TEXT COLLATE NOCASE UNIQUE, body TEXT,
  size REAL NOT NULL DEFAULT 0, open BOOLEAN);
CREATE TABLE pairs(id TEXT PRIMARY KEY NOT NULL, pair TEXT NOT NULL, value INTEGER NOT NULL);
CREATE TABLE tallies(id TEXT PRIMARY KEY NOT NULL, n INTEGER NOT NULL DEFAULT 0, marks TEXT);
CREATE TABLE steps(id TEXT PRIMARY KEY NOT NULL, tally TEXT NOT NULL);
CREATE TABLE places(id TEXT PRIMARY KEY NOT NULL, place INTEGER UNIQUE);
CREATE TABLE boards(id TEXT PRIMARY KEY NOT NULL, title TEXT, stage TEXT, colour TEXT, tags TEXT,
  votes INTEGER NOT NULL DEFAULT 0);";

/// With those on demand.
pub(crate) static LOCAL_ON_DEMAND: LazyLock<String> = LazyLock::new(|| {
    let more = "
CREATE TABLE files(id TEXT PRIMARY KEY NOT NULL,
  project_id TEXT NOT NULL REFERENCES projects ON DELETE CASCADE, name TEXT);
CREATE TABLE letters(id TEXT PRIMARY KEY NOT NULL, receiver TEXT, body TEXT);
CREATE TABLE news(id TEXT PRIMARY KEY NOT NULL, body TEXT);";
    [LOCAL, more].concat()
});

/// The app's table anew, as tools for migrations make it.
pub(crate) const REBUILD_BOARDS: &str = "
CREATE TABLE boards_new(id TEXT PRIMARY KEY NOT NULL, title TEXT, stage TEXT, colour TEXT,
  tags TEXT, votes INTEGER NOT NULL DEFAULT 0, effort INTEGER);
INSERT INTO boards_new SELECT id, title, stage, colour, tags, votes, effort FROM boards;
DROP TABLE boards;
ALTER TABLE boards_new RENAME TO boards;";

/// Rows of a file that was there before it met a server.
pub(crate) const ROWS_BEFORE: &str = "
INSERT INTO projects(id, name) VALUES ('p0', 'before'), ('p9', 'mine');
INSERT INTO tasks(id, project_id, title) VALUES ('t0', 'p0', 'before'), ('t99', 'p9', 'mine');
INSERT INTO notes(id, body, shared) VALUES (1, 'before', 1), (2, 'before', 0);
INSERT INTO note_lines VALUES (1, 1, 'one'), (2, 1, 'two');
INSERT INTO docs(id, title, size) VALUES ('d0', 'One', 1.5);
INSERT INTO places VALUES ('s0', 1), ('s99', 99);";

/// One table: its key and its other columns.
#[derive(Debug)]
pub(crate) struct TableShape {
    pub(crate) name: &'static str,
    pub(crate) key: &'static [&'static str],
    pub(crate) columns: &'static [&'static str],
}

const fn shape(
    name: &'static str,
    key: &'static [&'static str],
    columns: &'static [&'static str],
) -> TableShape {
    TableShape { name, key, columns }
}

/// The tables that are always there.
pub(crate) const TABLES: &[TableShape] = TABLES_ON_DEMAND.split_at(11).0;

/// With those on demand, at the end.
pub(crate) const TABLES_ON_DEMAND: &[TableShape] = &[
    shape("projects", &["id"], &["name", "notes", "points", "budget"]),
    shape("members", &["id"], &["project_id", "user_id"]),
    shape(
        "tasks",
        &["id"],
        &["project_id", "title", "done", "tags", "log"],
    ),
    shape("notes", &["id"], &["body", "shared", "team"]),
    shape("note_lines", &["note_id", "line"], &["text"]),
    shape("docs", &["id"], &["title", "body", "size", "open"]),
    shape("pairs", &["id"], &["pair", "value"]),
    shape("tallies", &["id"], &["n", "marks"]),
    shape("steps", &["id"], &["tally"]),
    shape("places", &["id"], &["place"]),
    shape(
        "boards",
        &["id"],
        &["title", "stage", "colour", "tags", "votes", "effort"],
    ),
    shape("files", &["id"], &["project_id", "name"]),
    shape("letters", &["id"], &["receiver", "body"]),
    shape("news", &["id"], &["body"]),
];

/// Which of the two rule sets the server was started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum RuleSet {
    /// Everybody sees every document.
    #[default]
    Open,
    /// Only open documents and one's own.
    Closed,
}

impl RuleSet {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Open => Self::Closed,
            Self::Closed => Self::Open,
        }
    }
}

/// What the server was started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Setup {
    pub(crate) rules: RuleSet,
    /// Boards have a column more than they began with, `effort`.
    pub(crate) has_effort: bool,
}

impl Setup {
    /// The configuration's text.
    pub(crate) fn config(self, on_demand: bool) -> String {
        let read = match self.rules {
            RuleSet::Open => "auth.uid() IS NOT NULL",
            RuleSet::Closed => "_owner = auth.uid() OR open",
        };
        let effort = match self.has_effort {
            true => r#", effort = "integer""#,
            false => "",
        };
        let more = match on_demand {
            true => CONFIG_ON_DEMAND,
            false => "",
        };
        let config = CONFIG.replace("DOCS_READ", read);
        config.replace("BOARDS_EFFORT", effort) + more
    }
}

/// In place of a value whose column is not there (yet).
const ABSENT: &str = "absent";

/// Whether boards have the column that they did not begin with.
pub(crate) fn has_effort(conn: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM pragma_table_info('boards') WHERE name = 'effort'";
    conn.prepare_cached(sql)?.exists([])
}

/// Leaves out the column that boards did not begin with.
pub(crate) fn without_effort(rows: &mut Rows) {
    for ((table, _), values) in rows.iter_mut() {
        if *table == "boards"
            && let Some(effort) = values.last_mut()
        {
            ABSENT.clone_into(effort);
        }
    }
}

/// Whether two versions of a row are equal in all columns that both sides have.
pub(crate) fn agree(one: &[String], other: &[String]) -> bool {
    let is_there = |value: &String| value != ABSENT;
    one.len() == other.len()
        && std::iter::zip(one, other)
            .all(|(one, other)| one == other || !is_there(one) || !is_there(other))
}

/// Names a row: table and key, as SQL literals with commas.
pub(crate) type RowName = (&'static str, String);

/// All rows of a database: their columns after the key, as SQL literals.
pub(crate) type Rows = BTreeMap<RowName, Vec<String>>;

/// Everything in the app's tables.
pub(crate) fn read_rows(conn: &Connection, tables: &[TableShape]) -> rusqlite::Result<Rows> {
    let mut rows = Rows::new();
    let is_absent =
        |column: &str| Ok::<_, rusqlite::Error>(column == "effort" && !has_effort(conn)?);
    for table in tables {
        let quoted = |columns: &[&str]| -> Vec<String> {
            columns
                .iter()
                .map(|column| format!("quote({column})"))
                .collect()
        };
        let key = quoted(table.key).join(" || ',' || ");
        let mut columns = quoted(table.columns);
        for (column, name) in columns.iter_mut().zip(table.columns) {
            if is_absent(name)? {
                *column = format!("'{ABSENT}'");
            }
        }
        let sql = format!(
            "SELECT {} FROM \"{}\"",
            [vec![key], columns].concat().join(", "),
            table.name.replace('"', "\"\"")
        );
        let mut statement = conn.prepare_cached(&sql)?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let values = (1..=table.columns.len())
                .map(|i| row.get(i))
                .collect::<Result<_, _>>()?;
            rows.insert((table.name, row.get(0)?), values);
        }
    }
    Ok(rows)
}

/// The server's rows at one moment, with their owners.
#[derive(Debug, Clone, Default)]
pub(crate) struct Truth {
    pub(crate) rows: Rows,
    owners: BTreeMap<RowName, String>,
    setup: Setup,
    /// For the rules of an app of which nothing else is known.
    live: Option<Rc<(Live, Arc<Context>)>>,
    numbers: Rc<BTreeMap<TableNumber, &'static str>>,
}

impl Truth {
    pub(crate) fn read(
        conn: &Connection,
        app: &App,
        numbers: &Rc<BTreeMap<TableNumber, &'static str>>,
        setup: Setup,
        context: &Arc<Context>,
    ) -> anyhow::Result<Self> {
        let rows = read_rows(conn, app.tables())?;
        let live = match app.is_own() {
            true => None,
            false => Some(Rc::new((Live::read(conn, context)?, Arc::clone(context)))),
        };
        let mut owners = BTreeMap::new();
        let sql = "SELECT table_no, key, owner FROM syncline_rows WHERE deleted = 0";
        let mut statement = conn.prepare_cached(sql)?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let (number, key, owner): (u32, Vec<u8>, Option<String>) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            if let (Some(table), Some(owner)) = (numbers.get(&TableNumber(number)), owner) {
                owners.insert((*table, literal_key(&RowKey::from_bytes(&key)?)), owner);
            }
        }
        Ok(Self {
            rows,
            owners,
            setup,
            live,
            numbers: Rc::clone(numbers),
        })
    }

    /// Whether one row is among [`Truth::visible`].
    pub(crate) fn sees(&self, who: Who<'_>, name: &RowName) -> bool {
        self.visible(who).contains(name)
    }

    /// Whether the user owns a project or is a member of it, which is who may write below it.
    pub(crate) fn sees_project(&self, user: &str, id: &str) -> bool {
        let me = literal(&Value::Text(user.to_owned()));
        let owner = self.owners.get(&("projects", id.to_owned()));
        owner.is_some_and(|owner| owner == user)
            || self.rows.iter().any(|((table, _), values)| {
                *table == "members" && values[0] == id && values[1] == me
            })
    }

    /// Who inserted the row.
    pub(crate) fn owner(&self, name: &RowName) -> Option<&str> {
        self.owners.get(name).map(String::as_str)
    }

    pub(crate) fn live(&self) -> Option<(&Live, &Context)> {
        let (live, context) = &**self.live.as_ref()?;
        Some((live, context))
    }

    pub(crate) fn name(&self, table: TableNumber, key: &RowKey) -> Option<RowName> {
        Some((self.numbers.get(&table)?, literal_key(key)))
    }

    /// The rows that `who` may see, from the words of the configuration and the rows alone.
    pub(crate) fn visible(&self, who: Who<'_>) -> BTreeSet<RowName> {
        let user = who.user;
        let me = literal(&Value::Text(user.to_owned()));
        let team = literal(&Value::Text(who.team.to_owned()));
        let shared: BTreeSet<&String> = self
            .rows
            .iter()
            .filter(|((table, _), values)| *table == "members" && values[1] == me)
            .map(|(_, values)| &values[0])
            .collect();
        let owns = |name: &RowName| self.owners.get(name).is_some_and(|owner| owner == user);
        let sees_project = |id: &String| {
            let name = ("projects", id.clone());
            self.rows.contains_key(&name) && (owns(&name) || shared.contains(id))
        };
        let sees_note = |id: &str| {
            let name = ("notes", id.to_owned());
            let values = self.rows.get(&name);
            values.is_some_and(|values| owns(&name) || values[1] == "1" || values[2] == team)
        };
        let sees = |name: &RowName, values: &[String]| match name.0 {
            "projects" => sees_project(&name.1),
            "members" => values[1] == me || sees_project(&values[0]),
            "tasks" => sees_project(&values[0]),
            "notes" => sees_note(&name.1),
            "note_lines" => name
                .1
                .split_once(',')
                .is_some_and(|(note, _)| sees_note(note)),
            "files" => sees_project(&values[0]),
            "letters" => owns(name) || values[0] == me,
            "docs" => self.setup.rules == RuleSet::Open || owns(name) || values[3] == "1",
            _ => true,
        };
        let seen = self.rows.iter().filter(|(name, values)| sees(name, values));
        seen.map(|(name, _)| name.clone()).collect()
    }
}

/// A key as [`RowName`] has it.
pub(crate) fn literal_key(key: &RowKey) -> String {
    let values = key.decode().unwrap_or_default();
    values.iter().map(literal).collect::<Vec<_>>().join(",")
}

pub(crate) fn literal(value: &Value) -> String {
    match value {
        Value::Integer(n) => n.to_string(),
        Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Value::Blob(bytes) => {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
            format!("X'{digits}'")
        }
        Value::Real(x) => format!("{x:?}"),
        Value::Null => "NULL".into(),
    }
}
