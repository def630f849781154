//! The tables of the simulated app, and its rules.

use std::sync::LazyLock;

use rusqlite::Connection;

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

/// Whether boards have the column that they did not begin with.
pub(crate) fn has_effort(conn: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM pragma_table_info('boards') WHERE name = 'effort'";
    conn.prepare_cached(sql)?.exists([])
}
