//! A database small enough to read: tables from a line of text, rows in a map.

use std::{collections::BTreeMap, convert::Infallible};

use crate::{
    ids::{ColumnNumber, TableNumber, UserId, Version},
    key::RowKey,
    row::Row,
    rules::{
        Facts, Grant, Identity, Proposed, RuleColumn, RuleError, Rules, Stored,
        term::{Field, Seen},
    },
    schema::{Column, ColumnType, MergeStrategy, RuleTexts, Schema, SyncMode, Table},
    value::Value,
};

pub(in crate::rules) const KEY: [u8; 32] = [7; 32];

/// A table from `"id uuid, name text"`; the first column is the key.
pub(in crate::rules) fn table(name: &str, columns: &str) -> Table {
    let columns = columns.split(", ").enumerate().map(|(i, column)| {
        let (name, ty) = column.split_once(' ').unwrap();
        Column {
            name: name.into(),
            number: ColumnNumber(u32::try_from(i).unwrap() + 1),
            ty: match ty {
                "text" => ColumnType::Text,
                "integer" => ColumnType::Integer,
                "real" => ColumnType::Real,
                "boolean" => ColumnType::Boolean,
                "blob" => ColumnType::Blob,
                "timestamp" => ColumnType::Timestamp,
                "uuid" => ColumnType::Uuid,
                "json" => ColumnType::Json,
                "any" => ColumnType::Any,
                _ => panic!("no type {ty}"),
            },
            not_null: false,
            default: None,
            check: None,
            collate: None,
            generated: false,
            computed: None,
            declared: None,
            merge: MergeStrategy::LastWriteWins,
            encrypted: None,
            merge_paths: BTreeMap::new(),
        }
    });
    Table {
        name: name.into(),
        number: TableNumber(0),
        columns: columns.collect(),
        primary_key: vec![0],
        uniques: Vec::new(),
        indexes: Vec::new(),
        foreign_keys: Vec::new(),
        without_rowid: false,
        autoincrement: false,
        further_indexes: Vec::new(),
        checks: Vec::new(),
        strict: false,
        sync: SyncMode::Auto,
        update_wins: false,
        rules: RuleTexts::default(),
        force: BTreeMap::new(),
    }
}

impl Table {
    pub(in crate::rules) fn read(mut self, rule: &str) -> Self {
        self.rules.read = Some(rule.into());
        self
    }
    pub(in crate::rules) fn write(mut self, rule: &str) -> Self {
        self.rules.write = Some(rule.into());
        self
    }
    pub(in crate::rules) fn create(mut self, rule: &str) -> Self {
        self.rules.create = Some(rule.into());
        self
    }
    pub(in crate::rules) fn update(mut self, rule: &str) -> Self {
        self.rules.update = Some(rule.into());
        self
    }
    pub(in crate::rules) fn delete(mut self, rule: &str) -> Self {
        self.rules.delete = Some(rule.into());
        self
    }
    pub(in crate::rules) fn force(mut self, column: &str, value: &str) -> Self {
        self.force.insert(column.into(), value.into());
        self
    }
}

/// Numbered from 100 in the order given.
pub(in crate::rules) fn schema(tables: impl IntoIterator<Item = Table>) -> Schema {
    let mut tables: Vec<Table> = tables.into_iter().collect();
    for (number, table) in (100..).zip(&mut tables) {
        table.number = TableNumber(number);
    }
    Schema { tables }
}

/// Tables of the project tracker in the docs, with the usual membership table.
pub(in crate::rules) fn tracker() -> Vec<Table> {
    vec![
        table(
            "projects",
            "id uuid, name text, owner_id text, archived boolean, budget integer",
        ),
        table(
            "project_members",
            "id uuid, project_id uuid, user_id text, role text",
        ),
        table(
            "tasks",
            "id uuid, project_id uuid, title text, done boolean, points real",
        ),
    ]
}

/// The first error that compiling gives.
pub(in crate::rules) fn refusal(schema: &Schema) -> RuleError {
    Rules::compile(schema, &KEY).unwrap_err().swap_remove(0)
}

pub(in crate::rules) fn user(name: &str) -> Identity {
    Identity {
        user: Some(UserId(name.into())),
        claims: BTreeMap::new(),
    }
}

impl Identity {
    pub(in crate::rules) fn claim(mut self, name: &str, value: serde_json::Value) -> Self {
        self.claims.insert(name.into(), value);
        self
    }
}

/// A schema, its rules and rows.
#[derive(Debug, Clone)]
pub(in crate::rules) struct Db {
    pub(in crate::rules) schema: Schema,
    pub(in crate::rules) rules: Rules,
    pub(in crate::rules) rows: BTreeMap<(TableNumber, RowKey), Stored>,
}

impl Db {
    pub(in crate::rules) fn new(schema: Schema) -> Self {
        let rules = Rules::compile(&schema, &KEY).unwrap_or_else(|errors| {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            panic!("{}", errors.join("\n"))
        });
        Self {
            schema,
            rules,
            rows: BTreeMap::new(),
        }
    }

    /// A row that is not in the database; `owner` inserted it.
    pub(in crate::rules) fn row<const N: usize>(
        &self,
        table: &str,
        owner: &str,
        values: [Value; N],
    ) -> Stored {
        self.row_of(table, owner, values.to_vec())
    }

    pub(in crate::rules) fn row_of(&self, table: &str, owner: &str, values: Vec<Value>) -> Stored {
        let table = self.schema.table(table).unwrap();
        let row = Row(values).canonical(table);
        let owner = (!owner.is_empty()).then(|| UserId(owner.into()));
        Stored {
            table: table.number,
            key: row.key(table).unwrap(),
            row,
            author: owner.clone(),
            owner,
            created: Version(1_000),
            version: Version(2_000),
        }
    }

    pub(in crate::rules) fn insert<const N: usize>(
        &mut self,
        table: &str,
        owner: &str,
        values: [Value; N],
    ) -> Stored {
        let row = self.row(table, owner, values);
        self.rows.insert((row.table, row.key.clone()), row.clone());
        row
    }

    /// Whether `identity` may read the row, once by looking and once by buckets.
    pub(in crate::rules) fn sees(&self, identity: &Identity, row: &Stored) -> bool {
        let Ok(looked) = self.rules.may_read(identity, row, self);
        let Ok(buckets) = self.rules.buckets(row, self);
        let granted = self.granted(identity, &self.all_grants());
        let by_buckets = buckets.iter().any(|bucket| granted.contains(bucket));
        assert_eq!(looked, by_buckets, "{identity:?} and {row:?}");
        looked
    }

    /// The buckets that `identity` has when `grants` are all there are.
    pub(in crate::rules) fn granted(
        &self,
        identity: &Identity,
        grants: &BTreeMap<Grant, u64>,
    ) -> Vec<crate::ids::BucketId> {
        let reader = self.rules.reader(identity);
        let by_rows = grants
            .keys()
            .filter(|grant| reader.grantees.contains(&grant.grantee));
        reader
            .fixed
            .iter()
            .copied()
            .chain(by_rows.map(|grant| grant.bucket))
            .collect()
    }

    /// Every grant, counted, built up row by row from nothing.
    pub(in crate::rules) fn all_grants(&self) -> BTreeMap<Grant, u64> {
        let mut so_far = Self {
            rows: BTreeMap::new(),
            ..self.clone()
        };
        let mut counted = BTreeMap::new();
        for (id, row) in &self.rows {
            so_far.rows.insert(id.clone(), row.clone());
            let Ok(grants) = self.rules.grants(row, &so_far);
            for grant in grants {
                *counted.entry(grant).or_insert(0) += 1;
            }
        }
        counted
    }

    pub(in crate::rules) fn admit(
        &self,
        identity: &Identity,
        changes: &[Proposed],
    ) -> Result<(), usize> {
        let Ok(admitted) = self.rules.admit(identity, changes, self);
        admitted
    }

    /// The change that makes the row what it is here: an insert, or an update of its old state.
    pub(in crate::rules) fn put(&self, after: Stored) -> Proposed {
        let before = self.rows.get(&(after.table, after.key.clone())).cloned();
        Proposed {
            before,
            after: Some(after),
        }
    }

    pub(in crate::rules) fn delete(&self, row: &Stored) -> Proposed {
        Proposed {
            before: Some(row.clone()),
            after: None,
        }
    }
}

impl Facts for Db {
    type Missing = Infallible;

    fn stored(&self, table: TableNumber, key: &RowKey) -> Result<Option<Stored>, Infallible> {
        Ok(self.rows.get(&(table, key.clone())).cloned())
    }

    fn matching(
        &self,
        table: TableNumber,
        column: RuleColumn,
        value: &Value,
    ) -> Result<Vec<Stored>, Infallible> {
        let rows = self.rows.values().filter(|row| row.table == table);
        let equal = |row: &&Stored| {
            let field: Field = column.into();
            !value.is_null() && field.of(row).into_value() == Seen::from(value).into_value()
        };
        Ok(rows.filter(equal).cloned().collect())
    }
}
