//! Changing constraints that SQLite cannot change in place: the table is made anew, its rows are
//! copied, and everything that hung on it is put back.

use syncline_core::{
    Table,
    sql::{self, quote},
};
use syncline_store::SchemaError;

use super::{
    apply::{Applied, Applier},
    numbers::KnownTable,
};
use crate::{
    capture,
    fault::{Fault, Result},
    introspect::Found,
};

impl Applier<'_> {
    /// Foreign keys are off: the rows of other tables that refer to this one stay. `dropped`:
    /// columns that are left behind.
    pub(super) fn rebuild(
        &mut self,
        declared: &Table,
        found: &Found,
        known: &KnownTable,
        dropped: &[String],
    ) -> Applied<()> {
        let name = &declared.name;
        if let Some(other) = found
            .columns
            .iter()
            .filter(|c| !dropped.iter().any(|d| d.eq_ignore_ascii_case(&c.name)))
            .find(|c| declared.position(&c.name).is_none())
        {
            return Err(SchemaError::Unsupported(format!(
                "the definition of {name} changed, for which the table is made anew, but \
                 {name}.{} is not declared and would be lost: declare it",
                other.name
            )));
        }
        capture::drop_triggers(self.conn, name)?;
        let attached = self.attached(name)?;
        let new = Table {
            name: format!("syncline_new_{name}"),
            ..declared.clone()
        };
        self.execute(&sql::create_table(&new))?;
        let columns = declared.columns.iter().filter(|c| !c.generated);
        let columns: Vec<_> = columns.map(|c| quote(&c.name)).collect();
        let columns = columns.join(", ");
        let (old_name, new_name) = (quote(name), quote(&new.name));
        self.execute(&format!(
            "INSERT INTO {new_name}({columns}) SELECT {columns} FROM {old_name}"
        ))?;
        self.execute(&format!("DROP TABLE {old_name}"))?;
        // Views and triggers of other tables name this one: they must stay as they are.
        self.legacy_rename(true)?;
        let renamed = self.execute(&format!("ALTER TABLE {new_name} RENAME TO {old_name}"));
        self.legacy_rename(false)?;
        renamed?;
        for sql in attached {
            self.execute(&sql)?;
        }
        self.check_references(name)?;
        self.notes.push(format!(
            "made the table {name} anew: {}",
            changes(known, declared, dropped)
        ));
        Ok(())
    }

    /// The statements that make the table's indexes and triggers.
    fn attached(&self, table: &str) -> Result<Vec<String>> {
        let sql = "SELECT sql FROM sqlite_schema WHERE tbl_name = ?1 COLLATE NOCASE
                   AND type IN ('index', 'trigger') AND sql IS NOT NULL ORDER BY rowid";
        let mut statement = self.conn.prepare(sql)?;
        let rows = statement.query_map([table], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn legacy_rename(&self, on: bool) -> Result<()> {
        Ok(self.conn.pragma_update(None, "legacy_alter_table", on)?)
    }

    fn check_references(&self, table: &str) -> Applied<()> {
        let sql = "SELECT EXISTS (SELECT 1 FROM pragma_foreign_key_check(?1))";
        let broken: bool = self
            .conn
            .query_row(sql, [table], |row| row.get(0))
            .map_err(Fault::from)?;
        if broken {
            return Err(SchemaError::Unsupported(format!(
                "rows of {table} refer to rows that do not exist: mend them before the reference \
                 is declared"
            )));
        }
        Ok(())
    }
}

fn changes(known: &KnownTable, declared: &Table, dropped: &[String]) -> String {
    if let Some(first) = dropped.first() {
        return format!("constraints held {first}");
    }
    let changed = declared.columns.iter().enumerate().find_map(|(i, column)| {
        let before = known.column(&column.name)?.definition.clone()?;
        let now = sql::column_definition(declared, i);
        (before != now).then(|| format!("`{before}` is `{now}` now"))
    });
    changed.unwrap_or_else(|| "its constraints changed".into())
}
