//! The objects of the file's schema, all read at once: who looks into `sqlite_schema` for each
//! table reads it as many times as there are tables.

use std::collections::BTreeMap;

use rusqlite::Connection;

/// The schema of the database `main` as it was when it was read.
#[derive(Debug, Default)]
pub struct Objects {
    /// By the table they belong to, in lower case; each table's in order of their names.
    of: BTreeMap<String, Vec<Object>>,
    /// The table, in lower case, that a trigger of ours is on, by the trigger's name.
    ours: BTreeMap<String, String>,
    /// Tables that are neither virtual nor store what is of a virtual one, in lower case, and
    /// whether they are WITHOUT ROWID.
    ordinary: BTreeMap<String, bool>,
}

#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) kind: String,
    pub(crate) name: String,
    /// The table it belongs to.
    pub(crate) table: String,
    /// None of an index that SQLite makes for a constraint.
    pub(crate) sql: Option<String>,
    pub(crate) root_page: i64,
    /// Where it stands in `sqlite_schema`.
    pub(crate) place: i64,
}

impl Objects {
    /// Reads all of them.
    ///
    /// # Errors
    /// The database's.
    pub fn read(conn: &Connection) -> rusqlite::Result<Self> {
        Self::where_it_is(conn, "TRUE", "", &[])
    }

    /// Those of one table.
    pub(crate) fn read_one(conn: &Connection, table: &str) -> rusqlite::Result<Self> {
        let of_it = "tbl_name = ?1 COLLATE NOCASE";
        Self::where_it_is(conn, of_it, "(?1)", &[&table])
    }

    fn where_it_is(
        conn: &Connection,
        condition: &str,
        listed: &str,
        parameters: &[&dyn rusqlite::ToSql],
    ) -> rusqlite::Result<Self> {
        let mut objects = Self::default();
        let mut statement = conn.prepare_cached(&format!(
            "SELECT tbl_name, type, name, sql, ifnull(rootpage, 0), rowid FROM main.sqlite_schema \
             WHERE {condition}"
        ))?;
        let mut rows = statement.query(parameters)?;
        while let Some(row) = rows.next()? {
            let object = Object {
                table: row.get(0)?,
                kind: row.get(1)?,
                name: row.get(2)?,
                sql: row.get(3)?,
                root_page: row.get(4)?,
                place: row.get(5)?,
            };
            let table = object.table.to_ascii_lowercase();
            if object.kind == "trigger" && object.is_ours() {
                objects.ours.insert(object.name.clone(), table.clone());
            }
            objects.of.entry(table).or_default().push(object);
        }
        for some in objects.of.values_mut() {
            some.sort_by(|a, b| a.name.cmp(&b.name));
        }
        let mut statement = conn.prepare_cached(&format!(
            "SELECT name, wr FROM pragma_table_list{listed} WHERE schema = 'main' AND type = 'table'"
        ))?;
        let mut rows = statement.query(parameters)?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            objects
                .ordinary
                .insert(name.to_ascii_lowercase(), row.get(1)?);
        }
        Ok(objects)
    }

    /// What belongs to a table, itself included.
    pub(crate) fn of(&self, table: &str) -> &[Object] {
        let found = self.of.get(&table.to_ascii_lowercase());
        found.map(Vec::as_slice).unwrap_or_default()
    }

    /// The table of this name, of whatever kind.
    pub(crate) fn table(&self, name: &str) -> Option<&Object> {
        self.of(name).iter().find(|object| object.kind == "table")
    }

    /// The names of the tables that may be the app's, of whatever kind.
    pub(crate) fn tables_of_app(&self) -> impl Iterator<Item = &str> {
        let is_of_app = |object: &&Object| {
            object.kind == "table" && !object.is_ours() && !begins(&object.name, "sqlite_")
        };
        let all = self.of.values().flatten();
        all.filter(is_of_app).map(|table| table.name.as_str())
    }

    /// Whether an ordinary table of this name is WITHOUT ROWID; `None` if there is none.
    pub(crate) fn is_without_rowid(&self, table: &str) -> Option<bool> {
        self.ordinary.get(&table.to_ascii_lowercase()).copied()
    }

    /// The trigger of ours with this name.
    pub(crate) fn trigger(&self, name: &str) -> Option<&Object> {
        let of = self.of(self.ours.get(name)?);
        of.iter()
            .find(|object| object.kind == "trigger" && object.name == name)
    }

    /// Our triggers whose names begin so, on any table.
    pub(crate) fn triggers<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Object> {
        let from = self.ours.range(prefix.to_owned()..);
        from.map(|(name, _)| name)
            .take_while(move |name| name.starts_with(prefix))
            .filter_map(|name| self.trigger(name))
    }

    /// Names and texts of the app's triggers of a table, in the order in which they were made.
    pub(crate) fn triggers_of_app(&self, table: &str) -> Vec<(&str, &str)> {
        let is_of_app = |object: &&Object| object.kind == "trigger" && !object.is_ours();
        let mut found: Vec<_> = self.of(table).iter().filter(is_of_app).collect();
        found.sort_by_key(|trigger| trigger.place);
        let texts = found.into_iter();
        texts
            .filter_map(|trigger| Some((trigger.name.as_str(), trigger.sql.as_deref()?)))
            .collect()
    }
}

impl Object {
    fn is_ours(&self) -> bool {
        begins(&self.name, "syncline_")
    }
}

fn begins(name: &str, with: &str) -> bool {
    let start = name.get(..with.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(with))
}
