//! The rows of a server of which only the configuration is known, and who may read them by its
//! rules, judged row by row.

use std::collections::BTreeMap;

use rusqlite::Connection;
use syncline_core::{
    Row, RowKey, TableNumber, UserId, Value, Version,
    rules::{Facts, Identity, RuleColumn, Stored},
};
use syncline_store::Context;

use super::quoted;
use crate::rows::RowName;

/// All live rows of a server, for its rules.
#[derive(Debug, Default)]
pub(crate) struct Live(BTreeMap<(TableNumber, RowKey), Stored>);

impl Live {
    pub(crate) fn read(conn: &Connection, context: &Context) -> anyhow::Result<Self> {
        let mut rows = BTreeMap::new();
        for table in &context.schema().tables {
            let columns: Vec<_> = table.columns.iter().map(|c| quoted(&c.name)).collect();
            let exists = "SELECT count(*) FROM sqlite_schema WHERE name = ?1";
            if conn.query_row(exists, [&table.name], |row| row.get::<_, i64>(0))? == 0 {
                continue;
            }
            let sql = format!("SELECT {} FROM {}", columns.join(", "), quoted(&table.name));
            let mut statement = conn.prepare_cached(&sql)?;
            let mut found = statement.query([])?;
            while let Some(row) = found.next()? {
                let values = (0..columns.len()).map(|i| Ok(value(row.get_ref(i)?)));
                let row = Row(values.collect::<rusqlite::Result<_>>()?);
                let Ok(key) = row.key(table) else {
                    continue;
                };
                let stored = Stored {
                    table: table.number,
                    key: key.clone(),
                    row,
                    owner: None,
                    created: Version::ZERO,
                    version: Version::ZERO,
                    author: None,
                };
                rows.insert((table.number, key), stored);
            }
        }
        let sql = "SELECT table_no, key, owner, author, created, version FROM syncline_rows \
                   WHERE deleted = 0";
        let mut statement = conn.prepare_cached(sql)?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let place = (
                TableNumber(row.get(0)?),
                RowKey::from_bytes(&row.get::<_, Vec<u8>>(1)?)?,
            );
            if let Some(stored) = rows.get_mut(&place) {
                stored.owner = row.get::<_, Option<String>>(2)?.map(UserId);
                stored.author = row.get::<_, Option<String>>(3)?.map(UserId);
                stored.created = Version(row.get::<_, i64>(4)?.cast_unsigned());
                stored.version = Version(row.get::<_, i64>(5)?.cast_unsigned());
            }
        }
        Ok(Self(rows))
    }

    /// What rules let this user read, each row judged directly, without buckets.
    pub(crate) fn readable<'a>(
        &'a self,
        context: &'a Context,
        user: &str,
        name: impl Fn(&Stored) -> Option<RowName> + 'a,
    ) -> impl Iterator<Item = RowName> + 'a {
        let identity = Identity {
            user: Some(UserId(user.to_owned())),
            claims: BTreeMap::new(),
        };
        self.0.values().filter_map(move |stored| {
            let Ok(may) = context.rules().may_read(&identity, stored, self);
            may.then(|| name(stored)).flatten()
        })
    }
}

fn value(value: rusqlite::types::ValueRef<'_>) -> Value {
    use rusqlite::types::ValueRef;
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(n) => Value::Integer(n),
        ValueRef::Real(x) => Value::Real(x),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

impl Facts for Live {
    type Missing = std::convert::Infallible;

    fn stored(&self, table: TableNumber, key: &RowKey) -> Result<Option<Stored>, Self::Missing> {
        Ok(self.0.get(&(table, key.clone())).cloned())
    }

    fn matching(
        &self,
        table: TableNumber,
        column: RuleColumn,
        value: &Value,
    ) -> Result<Vec<Stored>, Self::Missing> {
        let is_it = |stored: &&Stored| match column {
            RuleColumn::Column(at) => !value.is_null() && stored.row.0[at] == *value,
            RuleColumn::Owner => stored.owner.as_ref().map(|o| o.0.as_str()) == value.as_text(),
        };
        let of_table = self.0.values().filter(|stored| stored.table == table);
        Ok(of_table.filter(is_it).cloned().collect())
    }
}
