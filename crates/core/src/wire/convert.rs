//! The schema and what the server tells of it: one way and back.

use std::collections::BTreeMap;

use super::schema::{
    ColumnInfo, ComputedInfo, ForeignKeyInfo, FurtherIndexInfo, SchemaInfo, TableInfo,
};
use crate::{
    ids::{ColumnNumber, TableNumber},
    schema::{
        Column, ColumnType, Computed, ForeignKey, FurtherIndex, MergeStrategy, OnDelete, RuleTexts,
        Schema, SyncMode, Table,
    },
    sql::{is_closed_expression, unusual_type, without_comments},
};

impl SchemaInfo {
    /// What replicas are told of `schema`: everything but rules and forced values.
    #[must_use]
    pub fn from_schema(schema: &Schema) -> Self {
        Self {
            tables: schema.tables.iter().map(table_info).collect(),
        }
    }

    /// The schema again, without rules.
    ///
    /// Total: an unknown type is `any`, an unknown strategy last-write-wins; constraints with
    /// positions that are no column's are left out, and so are defaults, checks, computations and
    /// terms of indexes that are not closed expressions, declared types that are more than one,
    /// and tables without a primary key.
    #[must_use]
    pub fn to_schema(&self) -> Schema {
        Schema {
            tables: self.tables.iter().filter_map(table).collect(),
        }
    }

    /// Equal for equal schemas only: the first 8 bytes (little endian) of BLAKE3 of the CBOR.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let bytes = minicbor::to_vec(self).expect(super::IN_MEMORY);
        let hash = blake3::hash(&bytes);
        let (head, _) = hash
            .as_bytes()
            .split_first_chunk::<8>()
            .expect("a hash has 32 bytes");
        u64::from_le_bytes(*head)
    }
}

fn table_info(table: &Table) -> TableInfo {
    TableInfo {
        name: table.name.clone(),
        number: table.number.0,
        columns: table.columns.iter().map(column_info).collect(),
        primary_key: numbers(&table.primary_key),
        uniques: table.uniques.iter().map(|list| numbers(list)).collect(),
        indexes: table.indexes.iter().map(|list| numbers(list)).collect(),
        foreign_keys: table
            .foreign_keys
            .iter()
            .map(|key| ForeignKeyInfo {
                columns: numbers(&key.columns),
                parent: key.parent.clone(),
                parent_columns: key.parent_columns.clone(),
                on_delete: key.on_delete.as_sql().to_owned(),
            })
            .collect(),
        without_rowid: table.without_rowid,
        autoincrement: table.autoincrement,
        on_demand: table.sync == SyncMode::OnDemand,
        update_wins: table.update_wins,
        further_indexes: told(table.further_indexes.iter().map(|index| FurtherIndexInfo {
            unique: index.unique,
            terms: without_comments(&index.terms),
            condition: index.condition.as_deref().map(without_comments),
        })),
        checks: told(table.checks.iter().map(|check| without_comments(check))),
        strict: table.strict.then_some(true),
    }
}

/// What is empty is left out.
fn told<T>(items: impl Iterator<Item = T>) -> Option<Vec<T>> {
    let items: Vec<T> = items.collect();
    (!items.is_empty()).then_some(items)
}

fn column_info(column: &Column) -> ColumnInfo {
    ColumnInfo {
        name: column.name.clone(),
        number: column.number.0,
        ty: column.ty.as_str().to_owned(),
        not_null: column.not_null,
        default: column.default.as_deref().map(without_comments),
        check: column.check.as_deref().map(without_comments),
        collate: column.collate.clone(),
        generated: column.generated,
        merge: column.merge.as_str().to_owned(),
        merge_paths: column
            .merge_paths
            .iter()
            .map(|(path, strategy)| (path.clone(), strategy.as_str().to_owned()))
            .collect(),
        computed: column.computed.as_ref().map(|computed| ComputedInfo {
            expression: without_comments(&computed.expression),
            stored: computed.stored,
        }),
        declared: column.declared.clone(),
        encrypted: column.encrypted.map(|ty| ty.as_str().to_owned()),
    }
}

fn table(info: &TableInfo) -> Option<Table> {
    let count = info.columns.len();
    let primary_key = positions(&info.primary_key, count)?;
    if primary_key.is_empty() {
        return None;
    }
    let strict = info.strict.unwrap_or(false);
    let lists = |lists: &[Vec<u32>]| {
        lists
            .iter()
            .filter_map(|list| positions(list, count))
            .collect::<Vec<_>>()
    };
    Some(Table {
        name: info.name.clone(),
        number: TableNumber(info.number),
        columns: info
            .columns
            .iter()
            .map(|info| column(info, strict))
            .collect(),
        primary_key,
        uniques: lists(&info.uniques),
        indexes: lists(&info.indexes),
        foreign_keys: info
            .foreign_keys
            .iter()
            .filter_map(|key| {
                Some(ForeignKey {
                    columns: positions(&key.columns, count)?,
                    parent: key.parent.clone(),
                    parent_columns: key.parent_columns.clone(),
                    on_delete: OnDelete::parse(&key.on_delete).unwrap_or_default(),
                })
            })
            .collect(),
        further_indexes: info
            .further_indexes
            .iter()
            .flatten()
            .filter_map(further_index)
            .collect(),
        checks: info
            .checks
            .iter()
            .flatten()
            .filter_map(|text| expression(Some(text)))
            .collect(),
        without_rowid: info.without_rowid,
        strict,
        autoincrement: info.autoincrement,
        sync: if info.on_demand {
            SyncMode::OnDemand
        } else {
            SyncMode::Auto
        },
        update_wins: info.update_wins,
        rules: RuleTexts::default(),
        force: BTreeMap::new(),
    })
}

fn column(info: &ColumnInfo, strict: bool) -> Column {
    let ty = ColumnType::parse(&info.ty).unwrap_or(ColumnType::Any);
    let strategy = |name: &str| MergeStrategy::parse(name).unwrap_or_default();
    Column {
        name: info.name.clone(),
        number: ColumnNumber(info.number),
        ty,
        not_null: info.not_null,
        default: expression(info.default.as_ref()),
        check: expression(info.check.as_ref()),
        collate: info.collate.clone(),
        generated: info.generated,
        computed: info
            .computed
            .as_ref()
            .filter(|computed| info.generated && is_closed(&computed.expression))
            .map(|computed| Computed {
                expression: computed.expression.clone(),
                stored: computed.stored,
            }),
        declared: info
            .declared
            .as_deref()
            .and_then(|name| unusual_type(name, ty, strict)),
        encrypted: info
            .encrypted
            .as_deref()
            .map(|name| ColumnType::parse(name).unwrap_or(ColumnType::Any)),
        merge: strategy(&info.merge),
        merge_paths: info
            .merge_paths
            .iter()
            .map(|(p, s)| (p.clone(), strategy(s)))
            .collect(),
    }
}

/// `None` where a part of it could become something else in CREATE INDEX: without its condition
/// a unique index would forbid more than it should.
fn further_index(info: &FurtherIndexInfo) -> Option<FurtherIndex> {
    let is_closed = info
        .condition
        .iter()
        .chain([&info.terms])
        .all(|text| is_closed(text));
    is_closed.then(|| FurtherIndex {
        unique: info.unique,
        terms: info.terms.clone(),
        condition: info.condition.clone(),
    })
}

/// A peer's text becomes part of CREATE TABLE: it may not be more than one expression.
fn expression(text: Option<&String>) -> Option<String> {
    text.filter(|text| is_closed(text)).cloned()
}

fn is_closed(text: &str) -> bool {
    !text.trim_ascii().is_empty() && is_closed_expression(text)
}

fn numbers(positions: &[usize]) -> Vec<u32> {
    positions
        .iter()
        .map(|&i| u32::try_from(i).expect("a table has few columns"))
        .collect()
}

/// The positions, or `None` if one is not below `count`.
fn positions(numbers: &[u32], count: usize) -> Option<Vec<usize>> {
    numbers
        .iter()
        .map(|&n| usize::try_from(n).ok().filter(|&i| i < count))
        .collect()
}
