//! Who may see what: once as the server is told, and once as plain SQL over the server's database
//! that knows nothing of rules, buckets or grants.

use std::{collections::BTreeSet, path::Path};

use rusqlite::{Connection, OpenFlags, params};
use syncline_core::{RowKey, Value};

/// Owners, memberships with roles, chains of parents, claims of the token, assigned rows, public
/// rows.
pub(super) const CONFIG: &str = r#"
[tables.orgs]
columns = { id = "text primary key", name = "text not null" }
read  = "_owner = auth.uid() OR id IN (SELECT org_id FROM org_members WHERE user_id = auth.uid()) OR auth.claim('role') = 'auditor'"
write = "_owner = auth.uid() OR id IN (SELECT org_id FROM org_members WHERE user_id = auth.uid() AND role = 'admin')"

[tables.org_members]
columns = { id = "text primary key", org_id = "text not null references orgs on delete cascade", user_id = "text not null", role = "text not null" }
read  = "user_id = auth.uid() OR org_id IN readable(orgs)"
write = "org_id IN writable(orgs)"

[tables.projects]
columns = { id = "text primary key", org_id = "text not null references orgs on delete cascade", name = "text not null", secret = "boolean not null default 0" }
read  = "org_id IN readable(orgs) AND NOT secret OR _owner = auth.uid()"
write = "org_id IN writable(orgs)"

[tables.tasks]
columns = { id = "text primary key", project_id = "text not null references projects on delete cascade", assignee = "text", title = "text not null", points = "integer not null default 0" }
merge = { points = "counter" }
read  = "project_id IN readable(projects) OR assignee = auth.uid()"
write = "project_id IN writable(projects) OR assignee = auth.uid()"

[tables.notes]
columns = { id = "text primary key", body = "text not null", open = "boolean not null default 0" }
read  = "_owner = auth.uid() OR open"
write = "_owner = auth.uid()"

[tables.notices]
columns = { id = "text primary key", region = "text", body = "text not null" }
read  = "region = auth.claim('region') OR auth.claim('role') = 'auditor'"
write = "auth.uid() IS NOT NULL"
"#;

/// Name, columns as text, and the condition under which `:user` with `:region` and `:auditor` sees
/// a row `r`. `owner` has who inserted each row.
pub(super) const TABLES: [(&str, &str, &str); 6] = [
    ("orgs", "id, name", ORG),
    (
        "org_members",
        "id, org_id, user_id, role",
        "r.user_id = :user OR EXISTS (SELECT 1 FROM seen_orgs s WHERE s.id = r.org_id)",
    ),
    ("projects", "id, org_id, name, secret", PROJECT),
    (
        "tasks",
        "id, project_id, assignee, title, points",
        "r.assignee = :user OR EXISTS (SELECT 1 FROM seen_projects s WHERE s.id = r.project_id)",
    ),
    (
        "notes",
        "id, body, open",
        "r.open <> 0 OR EXISTS (SELECT 1 FROM owner o WHERE o.name = 'notes' AND o.id = r.id AND o.user = :user)",
    ),
    (
        "notices",
        "id, region, body",
        "r.region = :region OR :auditor",
    ),
];

const ORG: &str = ":auditor
    OR EXISTS (SELECT 1 FROM owner o WHERE o.name = 'orgs' AND o.id = r.id AND o.user = :user)
    OR EXISTS (SELECT 1 FROM org_members m WHERE m.org_id = r.id AND m.user_id = :user)";
const PROJECT: &str = "r.secret = 0 AND EXISTS (SELECT 1 FROM seen_orgs s WHERE s.id = r.org_id)
    OR EXISTS (SELECT 1 FROM owner o WHERE o.name = 'projects' AND o.id = r.id AND o.user = :user)";

/// Rows as texts that begin with their table.
pub(super) type Rows = BTreeSet<String>;

/// The server's database at one moment.
pub(super) struct Truth(Connection);

impl Truth {
    pub(super) fn read(database: &Path) -> Self {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let from = Connection::open_with_flags(database, flags).expect("the server's file opens");
        from.busy_timeout(super::IN_STEP_WITHIN).expect("a timeout");
        let conn = Connection::open_in_memory().expect("memory");
        conn.execute_batch(
            "CREATE TABLE owner(name TEXT, id TEXT, user TEXT, PRIMARY KEY(name, id))",
        )
        .expect("a table");
        // One snapshot for all of it.
        from.execute_batch("BEGIN").expect("a transaction");
        for (name, columns, _) in TABLES {
            conn.execute_batch(&format!("CREATE TABLE {name}({columns}, PRIMARY KEY(id))"))
                .expect("a table");
            let count = columns.split(',').count();
            let marks = vec!["?"; count].join(",");
            let mut insert = conn
                .prepare(&format!("INSERT INTO {name} VALUES ({marks})"))
                .expect("a statement");
            let mut select = from
                .prepare(&format!("SELECT {columns} FROM {name}"))
                .expect("a query");
            let mut rows = select.query([]).expect("rows");
            while let Some(row) = rows.next().expect("a row") {
                let values = (0..count).map(|i| row.get::<_, rusqlite::types::Value>(i));
                let values: Vec<_> = values.map(|value| value.expect("a value")).collect();
                insert
                    .execute(rusqlite::params_from_iter(values))
                    .expect("copied");
            }
        }
        let sql = "SELECT t.name, r.key, r.owner FROM syncline_rows r
                   JOIN syncline_tables t ON t.number = r.table_no WHERE r.deleted = 0 AND r.owner IS NOT NULL";
        let mut select = from.prepare(sql).expect("a query");
        let mut rows = select.query([]).expect("rows");
        while let Some(row) = rows.next().expect("a row") {
            let key: Vec<u8> = row.get(1).expect("a key");
            let key = RowKey::from_bytes(&key).and_then(|key| key.decode());
            if let [Value::Text(id)] = &key.expect("a sound key")[..] {
                let (name, user): (String, String) =
                    (row.get(0).expect("a name"), row.get(2).expect("a user"));
                conn.execute(
                    "INSERT INTO owner VALUES (?1, ?2, ?3)",
                    params![name, id, user],
                )
                .expect("copied");
            }
        }
        drop(rows);
        drop(select);
        Self(conn)
    }

    /// What one person sees.
    pub(super) fn visible(&self, user: &str, region: Option<&str>, is_auditor: bool) -> Rows {
        let mut seen = Rows::new();
        for (name, columns, condition) in TABLES {
            let sql = format!(
                "WITH who(user, region, auditor) AS (SELECT :user, :region, :auditor),
                      seen_orgs AS (SELECT r.id FROM orgs r WHERE {ORG}),
                      seen_projects AS (SELECT r.id FROM projects r WHERE {PROJECT})
                 SELECT {} FROM {name} r WHERE {condition}",
                printed(name, columns)
            );
            let mut select = self.0.prepare_cached(&sql).expect("a query");
            let values = rusqlite::named_params! {
                ":user": user, ":region": region, ":auditor": is_auditor,
            };
            let rows = select.query_map(values, |row| row.get(0)).expect("rows");
            seen.extend(rows.map(|row| row.expect("a row")));
        }
        seen
    }

    /// How many rows there are.
    pub(super) fn count(&self) -> i64 {
        let rows = TABLES.iter().map(|(name, ..)| self.rows_of(name));
        rows.sum()
    }

    pub(super) fn has(&self, table: &str) -> bool {
        self.rows_of(table) > 0
    }

    fn rows_of(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        self.0
            .query_row(&sql, [], |row| row.get(0))
            .expect("a count")
    }
}

/// A row as one text.
fn printed(name: &str, columns: &str) -> String {
    let quoted: Vec<_> = columns
        .split(", ")
        .map(|column| format!("quote(r.{column})"))
        .collect();
    format!("'{name} ' || {}", quoted.join(" || ' ' || "))
}

/// Everything that a device's file holds.
pub(super) fn held(app: &Connection) -> Rows {
    let mut rows = Rows::new();
    for (name, columns, _) in TABLES {
        let sql = format!("SELECT {} FROM {name} r", printed(name, columns));
        let mut select = app.prepare_cached(&sql).expect("a query");
        let found = select.query_map([], |row| row.get(0)).expect("rows");
        rows.extend(found.map(|row| row.expect("a row")));
    }
    rows
}
