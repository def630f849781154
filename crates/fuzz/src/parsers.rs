//! What people write: configurations and rules.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary as _, Unstructured};
use syncline_core::{
    ColumnType, Row, RowKey, Schema, Table, TableNumber, UserId, Value, Version,
    config::Config,
    rules::{Facts, Identity, Proposed, RuleColumn, Rules, Stored},
    sql,
};
use syncline_store::testkit;

/// Longer files say nothing new, and take long.
const CONFIG_BYTES_MAX: usize = 16 * 1024;

/// A configuration: mistakes are told, what can be read is written and read again as the same.
pub(crate) fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if text.len() > CONFIG_BYTES_MAX {
        return;
    }
    let _type = sql::column_type(text);
    let _literal = sql::is_literal(text);
    match Config::parse("syncline.toml", text) {
        Ok(config) => {
            let mistakes = config.rule_mistakes();
            for mistake in &mistakes {
                assert!(!mistake.to_string().is_empty());
            }
            let written = config.to_toml();
            let again = Config::parse("written.toml", &written)
                .unwrap_or_else(|errors| panic!("{errors:?} in what was written:\n{written}"));
            assert_eq!(written, again.to_toml(), "of:\n{text}");
            assert_eq!(config.schema, again.schema, "of:\n{text}");
        }
        Err(errors) => {
            assert!(!errors.is_empty(), "a refusal says why");
            for error in errors {
                assert!(!error.to_string().is_empty());
            }
        }
    }
}

/// Rows in memory.
struct Rows(Vec<Stored>);

impl Facts for Rows {
    type Missing = std::convert::Infallible;

    fn stored(&self, table: TableNumber, key: &RowKey) -> Result<Option<Stored>, Self::Missing> {
        let mut rows = self.0.iter();
        Ok(rows
            .find(|row| row.table == table && row.key == *key)
            .cloned())
    }

    fn matching(
        &self,
        table: TableNumber,
        column: RuleColumn,
        value: &Value,
    ) -> Result<Vec<Stored>, Self::Missing> {
        let seen = |row: &&Stored| {
            let found = match column {
                RuleColumn::Column(position) => row.row.0[position].clone(),
                RuleColumn::Owner => match &row.owner {
                    Some(owner) => Value::Text(owner.0.clone()),
                    None => Value::Null,
                },
            };
            row.table == table && !found.is_null() && equal(&found, value)
        };
        Ok(self.0.iter().filter(seen).cloned().collect())
    }
}

/// 1 and 1.0 are one value, as SQLite compares them; keys are encoded so.
fn equal(a: &Value, b: &Value) -> bool {
    match (RowKey::encode([a]), RowKey::encode([b])) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

/// Rules as somebody wrote them, judged twice for each row and person: directly, and by the buckets
/// that the row lies in and the person is granted. The two have to agree.
///
/// Input: a read rule, a zero byte, a write rule, a zero byte, and what rows hold.
pub(crate) fn rule(bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    let mut text = || std::str::from_utf8(parts.next().unwrap_or_default()).ok();
    let (Some(read), Some(write)) = (text(), text()) else {
        return;
    };
    if read.len() + write.len() > 4096 {
        return;
    }
    let data = parts.next().unwrap_or_default();
    let schema = tracker(read, write);
    let rules = match Rules::compile(&schema, &[7; 32]) {
        Ok(rules) => rules,
        Err(errors) => {
            for error in errors {
                assert!(!error.to_string().is_empty());
                let offset = error.offset.unwrap_or(0);
                assert!(offset <= read.len().max(write.len()), "{error:?}");
            }
            return;
        }
    };
    for table in &schema.tables {
        assert!(!rules.describe(&table.name).is_empty());
    }
    let _ended = judged(&schema, &rules, &mut Unstructured::new(data));
}

fn judged(schema: &Schema, rules: &Rules, u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let mut rows = Vec::new();
    for table in &schema.tables {
        for id in 0..3 {
            rows.push(row(table, id, u)?);
        }
    }
    let facts = Rows(rows);
    let people = [
        identity(Some("ada"), &[]),
        identity(Some("ben"), &[("role", "admin".into()), ("team", 1.into())]),
        identity(None, &[]),
    ];
    let all = |stored: &Stored| match (rules.buckets(stored, &facts), rules.grants(stored, &facts))
    {
        (Ok(buckets), Ok(grants)) => (buckets, grants),
    };
    let grants: Vec<_> = facts.0.iter().flat_map(|stored| all(stored).1).collect();
    for person in &people {
        let reader = rules.reader(person);
        for stored in &facts.0 {
            let (buckets, _) = all(stored);
            let by_bucket = buckets.iter().any(|bucket| {
                let is_granted = |grant: &syncline_core::rules::Grant| {
                    grant.bucket == *bucket && reader.grantees.contains(&grant.grantee)
                };
                reader.fixed.contains(bucket)
                    || reader.grantees.iter().any(|grantee| grantee.0 == bucket.0)
                    || grants.iter().any(is_granted)
            });
            let Ok(directly) = rules.may_read(person, stored, &facts);
            assert_eq!(directly, by_bucket, "{person:?} {stored:?} {:?}", facts.0);
            let deletion = Proposed {
                before: Some(stored.clone()),
                after: None,
            };
            let Ok(_admitted) = rules.admit(person, &[deletion], &facts);
        }
    }
    Ok(())
}

fn identity(user: Option<&str>, claims: &[(&str, serde_json::Value)]) -> Identity {
    let claims = claims
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()));
    Identity {
        user: user.map(|user| UserId(user.to_owned())),
        claims: claims.collect(),
    }
}

/// Values of few, so that rows refer to each other and to people.
fn row(table: &Table, id: u8, u: &mut Unstructured<'_>) -> arbitrary::Result<Stored> {
    const WORDS: [&str; 8] = ["0", "1", "2", "ada", "ben", "editor", "admin", ""];
    let mut values = vec![Value::Text(id.to_string())];
    for column in &table.columns[1..] {
        let byte = u8::arbitrary(u)?;
        let value = match byte % 11 {
            index @ 0..8 => Value::Text(WORDS[usize::from(index)].to_owned()),
            8 => Value::Null,
            9 => Value::Real(f64::from(byte) / 4.0),
            _ => Value::Integer(i64::from(byte) - 128),
        };
        values.push(value.canonical(column.ty));
    }
    let owner = match u8::arbitrary(u)? % 3 {
        0 => None,
        1 => Some(UserId("ada".into())),
        _ => Some(UserId("ben".into())),
    };
    let row = Row(values);
    Ok(Stored {
        table: table.number,
        key: row
            .key(table)
            .map_err(|_| arbitrary::Error::IncorrectFormat)?,
        row,
        author: owner.clone(),
        owner,
        created: Version(u64::from(id) + 1),
        version: Version(u64::from(id) + 5),
    })
}

/// Projects with members, and tasks under the rules in question.
fn tracker(read: &str, write: &str) -> Schema {
    use ColumnType::{Boolean, Integer, Json, Text};
    let columns = |list: &[(&str, ColumnType)]| {
        list.iter()
            .map(|(name, ty)| testkit::column(name, *ty))
            .collect()
    };
    let mut projects = testkit::table(
        "projects",
        columns(&[("id", Text), ("owner_id", Text), ("archived", Boolean)]),
    );
    let members = "id IN (SELECT project_id FROM members WHERE user_id = auth.uid())";
    projects.rules.read = Some(format!("_owner = auth.uid() OR {members}"));
    projects.rules.write = Some("_owner = auth.uid()".into());
    let members = testkit::table(
        "members",
        columns(&[
            ("id", Text),
            ("project_id", Text),
            ("user_id", Text),
            ("role", Text),
        ]),
    );
    let mut tasks = testkit::table(
        "tasks",
        columns(&[
            ("id", Text),
            ("project_id", Text),
            ("title", Text),
            ("done", Boolean),
            ("points", Integer),
            ("tags", Json),
        ]),
    );
    tasks.rules.read = Some(read.to_owned());
    tasks.rules.write = Some(write.to_owned());
    tasks.force = BTreeMap::new();
    let mut tables = vec![projects, members, tasks];
    for (number, table) in (100..).zip(&mut tables) {
        table.number = TableNumber(number);
        for (number, column) in (1..).zip(&mut table.columns) {
            column.number.0 = number;
        }
    }
    Schema { tables }
}
