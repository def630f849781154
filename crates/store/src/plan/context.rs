//! What planning needs besides rows.

use std::{collections::BTreeMap, sync::Arc};

use syncline_core::{
    ColumnNumber, ColumnType, Schema, Table, TableNumber,
    config::LimitsConfig,
    rules::{RuleColumn, Rules},
};

use crate::audit::Auditor;

/// The schema and its compiled rules, indexed; the same for every group until the configuration
/// changes.
#[derive(Debug, Clone)]
pub struct Context {
    schema: Schema,
    rules: Rules,
    tables: BTreeMap<TableNumber, TableContext>,
    limits: LimitsConfig,
    auditor: Option<Arc<dyn Auditor>>,
}

/// One table as planning sees it.
#[derive(Debug, Clone)]
pub(crate) struct TableContext {
    pub(crate) table: Table,
    /// Sorted.
    positions: Vec<(ColumnNumber, usize)>,
    /// The key is a single integer: the same number means the same row everywhere.
    pub(crate) integer_key: bool,
    /// Tables (and their columns) whose rows inherit the buckets of this one's.
    pub(crate) inheriting: Vec<(TableNumber, RuleColumn)>,
    /// Columns that an update can change: neither of the key nor generated.
    pub(crate) changeable: usize,
}

impl Context {
    /// `rules` are compiled from `schema`, keyed with the storage's secret.
    #[must_use]
    pub fn new(schema: Schema, rules: Rules) -> Self {
        let tables = schema
            .tables
            .iter()
            .map(|table| {
                (
                    table.number,
                    TableContext::new(table, rules.inheriting(table.number)),
                )
            })
            .collect();
        Self {
            schema,
            rules,
            tables,
            limits: LimitsConfig::default(),
            auditor: None,
        }
    }

    /// The same with these limits.
    #[must_use]
    pub fn limited(mut self, limits: LimitsConfig) -> Self {
        self.limits = limits;
        self
    }

    /// The same, with somebody who writes down who gives and takes access.
    #[must_use]
    pub fn audited(mut self, auditor: Arc<dyn Auditor>) -> Self {
        self.auditor = Some(auditor);
        self
    }

    pub(crate) fn auditor(&self) -> Option<&dyn Auditor> {
        self.auditor.as_deref()
    }

    /// What a changeset, a user and a device may take.
    #[must_use]
    pub fn limits(&self) -> &LimitsConfig {
        &self.limits
    }

    /// The tables, with their numbers.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The compiled rules.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(crate) fn table(&self, number: TableNumber) -> Option<&TableContext> {
        self.tables.get(&number)
    }
}

impl TableContext {
    fn new(table: &Table, inheriting: Vec<(TableNumber, RuleColumn)>) -> Self {
        let mut positions: Vec<_> = table
            .columns
            .iter()
            .enumerate()
            .map(|(i, column)| (column.number, i))
            .collect();
        positions.sort_unstable();
        let changeable =
            (0..table.columns.len()).filter(|&i| !table.is_key(i) && !table.columns[i].generated);
        Self {
            positions,
            integer_key: matches!(
                table.primary_key[..],
                [only] if table.columns[only].ty == ColumnType::Integer
            ),
            inheriting,
            changeable: changeable.count(),
            table: table.clone(),
        }
    }

    /// The position of the column with this number.
    pub(crate) fn position(&self, number: ColumnNumber) -> Option<usize> {
        let found = self
            .positions
            .binary_search_by_key(&number, |&(number, _)| number)
            .ok()?;
        Some(self.positions[found].1)
    }
}
