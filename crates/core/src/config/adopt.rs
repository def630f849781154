//! Tables that the file names without columns: filled in from a database.

use super::{
    Config,
    error::{ConfigError, Mistakes},
    merge,
};
use crate::schema::Table;

impl Config {
    /// The table of this name, with columns, keys, constraints and indexes of `found`, a table of
    /// a database, and with the rules and merge strategies that the file gives it.
    ///
    /// Number and name are the file's. `found` itself, where the file has no such table.
    ///
    /// # Errors
    /// Every mistake in what the file says of the table, now that its columns are known.
    pub fn adopted(&self, found: &Table) -> Result<Table, Vec<ConfigError>> {
        let mut m = Mistakes::default();
        let Some(declared) = self.schema.table(&found.name) else {
            return Ok(found.clone());
        };
        let path = format!("tables.{}", declared.name);
        let at = self.origin.source.table(&declared.name);
        let mut table = Table {
            columns: found.columns.clone(),
            primary_key: found.primary_key.clone(),
            uniques: found.uniques.clone(),
            indexes: found.indexes.clone(),
            foreign_keys: found.foreign_keys.clone(),
            further_indexes: found.further_indexes.clone(),
            checks: found.checks.clone(),
            without_rowid: found.without_rowid,
            strict: found.strict,
            autoincrement: found.autoincrement,
            ..declared.clone()
        };
        if table.primary_key.is_empty() {
            m.add(
                at,
                format!("{path} has no primary key in the database"),
                "a primary key: it is how devices know that they mean the same row",
                "give the table one, or take it out of this file",
            );
        }
        for (written, text) in std::mem::take(&mut table.force) {
            let place = format!("{path}.force.{written}");
            let source = &self.origin.source;
            let at = source.force(&declared.name, &written).unwrap_or(at);
            let column = super::check::known_column(&table, &written, &place, at, &mut m);
            table.force.insert(column.unwrap_or(written), text);
        }
        if let Some(waiting) = self.origin.waiting.get(&declared.name) {
            merge::apply(&mut table, waiting, &path, true, &mut m);
        }
        m.or(&self.origin.source, table)
    }

    /// Gives the table of this name what [`Config::adopted`] says. Does nothing where the file
    /// has no such table or gives it columns.
    ///
    /// # Errors
    /// Those of [`Config::adopted`]; then the table is as it was.
    pub fn adopt(&mut self, found: &Table) -> Result<(), Vec<ConfigError>> {
        let is_asked = |table: &&Table| table.columns.is_empty();
        if self.schema.table(&found.name).filter(is_asked).is_none() {
            return Ok(());
        }
        let filled = self.adopted(found)?;
        let named = |table: &&mut Table| table.name == filled.name;
        if let Some(table) = self.schema.tables.iter_mut().find(named) {
            self.origin.waiting.remove(&table.name);
            *table = filled;
        }
        Ok(())
    }
}
