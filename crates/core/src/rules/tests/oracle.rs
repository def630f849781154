//! The same rules as SQL, on the same rows, in SQLite.

use rusqlite::{Connection, ToSql, params_from_iter, types::ToSqlOutput};

use crate::{
    rules::{
        Identity, Stored,
        term::{Shape, UserSource, UserTerm},
    },
    schema::{Schema, Table},
    value::Value,
};

/// Columns that every row has without being columns of its table.
const META: [&str; 5] = [
    "_owner",
    "_created_at",
    "_version",
    "_last_modified_at",
    "_last_modified_by",
];

/// Which rule stands for a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Read,
    Write,
}

/// Rows as facts, and rules translated only by text.
#[derive(Debug)]
pub(super) struct Oracle<'a> {
    schema: &'a Schema,
    sql: Connection,
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Null => rusqlite::types::Null.into(),
            Self::Integer(n) => (*n).into(),
            Self::Real(x) => (*x).into(),
            Self::Text(text) => text.as_str().into(),
            Self::Blob(bytes) => bytes.as_slice().into(),
        })
    }
}

impl<'a> Oracle<'a> {
    pub(super) fn new<'r>(schema: &'a Schema, rows: impl IntoIterator<Item = &'r Stored>) -> Self {
        let sql = Connection::open_in_memory().unwrap();
        for table in &schema.tables {
            // Without types there is no affinity; without a key a row may have several images.
            let columns = columns(table).join(", ");
            for name in [
                table.name.clone(),
                format!("image_{}", table.name),
                format!("old_{}", table.name),
                format!("new_{}", table.name),
            ] {
                sql.execute_batch(&format!("CREATE TABLE {name} ({columns})"))
                    .unwrap();
            }
        }
        let mut oracle = Self { schema, sql };
        for row in rows {
            oracle.add(row);
        }
        oracle
    }

    /// Adds a fact.
    pub(super) fn add(&mut self, row: &Stored) {
        let table = self.schema.by_number(row.table).unwrap();
        self.insert(&table.name, row);
    }

    fn insert(&self, into: &str, row: &Stored) {
        let user = |user: &Option<crate::ids::UserId>| {
            user.as_ref()
                .map_or(Value::Null, |user| Value::from(user.0.as_str()))
        };
        let number = |version: crate::ids::Version| Value::Integer(version.0.cast_signed());
        let mut values = row.row.0.clone();
        values.push(user(&row.owner));
        values.extend([row.created, row.version, row.version].map(number));
        values.push(user(&row.author));
        let marks = vec!["?"; values.len()].join(", ");
        let mut insert = self
            .sql
            .prepare_cached(&format!("INSERT INTO {into} VALUES ({marks})"))
            .unwrap();
        insert.execute(params_from_iter(values)).unwrap();
    }

    /// The keys of `table` that its read rule shows to `identity`, as they are first columns.
    pub(super) fn readable(&self, table: &Table, identity: &Identity) -> Vec<Value> {
        let Some(rule) = &table.rules.read else {
            return Vec::new();
        };
        let rule = self.translated(rule);
        let query = format!(
            "{ME} SELECT {} FROM {} WHERE {rule}",
            columns(table)[0],
            table.name
        );
        let mut query = self
            .sql
            .prepare(&query)
            .unwrap_or_else(|error| panic!("{error}: {query}"));
        let rows = query.query_map(user(identity), |row| {
            row.get::<_, rusqlite::types::Value>(0)
        });
        let value = |value| match value {
            rusqlite::types::Value::Null => Value::Null,
            rusqlite::types::Value::Integer(n) => Value::Integer(n),
            rusqlite::types::Value::Real(x) => Value::Real(x),
            rusqlite::types::Value::Text(text) => Value::Text(text),
            rusqlite::types::Value::Blob(bytes) => Value::Blob(bytes),
        };
        rows.unwrap().map(|row| value(row.unwrap())).collect()
    }

    /// Whether a write rule holds for `image`, beside the old and the new row.
    pub(super) fn writable(
        &self,
        rule: &str,
        image: &Stored,
        old: Option<&Stored>,
        new: Option<&Stored>,
        identity: &Identity,
    ) -> bool {
        let table = self.schema.by_number(image.table).unwrap();
        let images = [("image", Some(image)), ("old", old), ("new", new)];
        for (place, row) in images {
            let name = format!("{place}_{}", table.name);
            self.sql
                .execute_batch(&format!("DELETE FROM {name}"))
                .unwrap();
            match row {
                Some(row) => self.insert(&name, row),
                None => self
                    .sql
                    .execute_batch(&format!("INSERT INTO {name} DEFAULT VALUES"))
                    .unwrap(),
            }
        }
        // In FROM the table's own name stays the table of facts; outside it means the image.
        let (name, rule) = (&table.name, self.translated(rule));
        let query = format!(
            "{ME} SELECT 1 FROM image_{name} AS {name}, old_{name} AS old, new_{name} AS new WHERE {rule}"
        );
        let mut query = self
            .sql
            .prepare(&query)
            .unwrap_or_else(|error| panic!("{error}: {query}"));
        query.exists(user(identity)).unwrap()
    }

    fn translated(&self, rule: &str) -> String {
        let mut rule = rule.to_owned();
        for table in &self.schema.tables {
            for (function, which) in [("readable", Rule::Read), ("writable", Rule::Write)] {
                let call = format!("IN {function}({})", table.name);
                if rule.contains(&call) {
                    let inner = match which {
                        Rule::Read => table.rules.read.clone(),
                        // The row unchanged is its own old and new image.
                        Rule::Write => table.rules.write.as_ref().map(|rule| {
                            let name = format!("{}.", table.name);
                            rule.replace("old.", &name).replace("new.", &name)
                        }),
                    };
                    let inner = self.translated(&inner.unwrap_or_else(|| "FALSE".into()));
                    let key = &table.columns[table.primary_key[0]].name;
                    let name = &table.name;
                    let select = format!("IN (SELECT {name}.{key} FROM {name} WHERE {inner})");
                    rule = rule.replace(&call, &select);
                }
            }
        }
        let names = [
            ("auth.uid()", "uid"),
            ("auth.claim('t')", "t"),
            ("auth.claim('n')", "n"),
        ];
        names.iter().fold(rule, |rule, (call, name)| {
            rule.replace(call, &format!("(SELECT {name} FROM me)"))
        })
    }
}

fn columns(table: &Table) -> Vec<String> {
    table
        .columns
        .iter()
        .map(|c| c.name.clone())
        .chain(META.map(str::to_owned))
        .collect()
}

/// What is known of the user, for all of a query.
const ME: &str = "WITH me (uid, t, n) AS (SELECT ?1, ?2, ?3)";

/// The parameters of [`ME`]: the user's id, a claim that is text, one that is a number.
fn user(identity: &Identity) -> impl rusqlite::Params {
    let claim = |name: &str, shape| {
        let source = UserSource::Claim(vec![name.into()]);
        UserTerm { source, shape }.of(identity).into_value()
    };
    let uid = identity
        .user
        .as_ref()
        .map_or(Value::Null, |user| Value::from(user.0.as_str()));
    params_from_iter([uid, claim("t", Shape::Text), claim("n", Shape::Number)])
}
