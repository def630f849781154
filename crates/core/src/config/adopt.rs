//! Tables that the file names without columns: filled in from a database.

use super::{
    Config,
    error::{ConfigError, Mistakes},
    merge,
};
use crate::schema::Table;

impl Config {
    /// Gives the table of this name the columns, keys, constraints and indexes of `found`, a
    /// table of a database, and the merge strategies the file chose. The number stays.
    ///
    /// Does nothing where the file has no such table or gives it columns.
    ///
    /// # Errors
    /// Every mistake in what the file says of the table, now that its columns are known. The
    /// table is filled in all the same.
    pub fn adopt(&mut self, found: &Table) -> Result<(), Vec<ConfigError>> {
        let mut m = Mistakes::default();
        let tables = &mut self.schema.tables;
        let Some(table) = tables
            .iter_mut()
            .find(|t| t.name.eq_ignore_ascii_case(&found.name))
        else {
            return Ok(());
        };
        if !table.columns.is_empty() {
            return Ok(());
        }
        let waiting = self.origin.waiting.remove(&table.name).unwrap_or_default();
        table.columns.clone_from(&found.columns);
        table.primary_key.clone_from(&found.primary_key);
        table.uniques.clone_from(&found.uniques);
        table.indexes.clone_from(&found.indexes);
        table.foreign_keys.clone_from(&found.foreign_keys);
        table.without_rowid = found.without_rowid;
        table.autoincrement = found.autoincrement;
        let path = format!("tables.{}", table.name);
        let at = self.origin.source.table(&table.name);
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
            let at = self
                .origin
                .source
                .force(&table.name, &written)
                .unwrap_or(at);
            let column = super::check::known_column(table, &written, &place, at, &mut m);
            table.force.insert(column.unwrap_or(written), text);
        }
        merge::apply(table, &waiting, &path, true, &mut m);
        m.or(&self.origin.source, ())
    }
}
