//! One run over the declared tables, in one transaction.

use std::collections::BTreeSet;

use rusqlite::{Connection, TransactionBehavior};
use syncline_core::{
    Table, TableNumber,
    builtin::{self, FIRST_OWN},
    config::Config,
    sql::quote,
};
use syncline_store::{SchemaError, SchemaOptions, SchemaReport, StorageError};

use super::numbers::Numbers;
use crate::{
    capture::{self, sweep},
    catalog::{Catalog, inbox_name},
    fault::{Fault, Result},
    introspect::{self, Found},
    ledger,
};

/// With what the operator has to decide, besides the database's errors.
pub(super) type Applied<T> = std::result::Result<T, SchemaError>;

impl From<Fault> for SchemaError {
    fn from(fault: Fault) -> Self {
        Self::Storage(fault.into())
    }
}

/// Brings the tables to what `config` declares; on an error nothing is changed.
pub(crate) fn apply(
    conn: &mut Connection,
    config: &Config,
    options: &SchemaOptions,
) -> Applied<(Catalog, SchemaReport)> {
    // Dropping or rebuilding a table must not delete the rows that refer to it.
    conn.pragma_update(None, "foreign_keys", false)
        .map_err(Fault::from)?;
    let result = in_transaction(conn, config, options);
    conn.pragma_update(None, "foreign_keys", true)
        .map_err(Fault::from)?;
    result
}

fn in_transaction(
    conn: &mut Connection,
    config: &Config,
    options: &SchemaOptions,
) -> Applied<(Catalog, SchemaReport)> {
    let transaction = conn
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(Fault::from)?;
    let numbers = Numbers::load(&transaction)?;
    let mut run = Applier {
        conn: &transaction,
        config,
        options,
        numbers,
        notes: Vec::new(),
    };
    let catalog = run.run()?;
    let report = SchemaReport {
        schema: catalog.schema(),
        notes: run.notes,
        rules: ledger::rules(&transaction)?,
    };
    transaction.commit().map_err(Fault::from)?;
    Ok((catalog, report))
}

pub(super) struct Applier<'a> {
    pub(super) conn: &'a Connection,
    config: &'a Config,
    pub(super) options: &'a SchemaOptions,
    pub(super) numbers: Numbers,
    pub(super) notes: Vec<String>,
}

impl Applier<'_> {
    fn run(&mut self) -> Applied<Catalog> {
        let lost = self.lost_triggers()?;
        self.rename()?;
        self.leave_out_what_is_gone()?;
        let mut tables = Vec::new();
        let builtin = builtin::conflicts_table();
        for declared in std::iter::once(&builtin).chain(&self.config.schema.tables) {
            let table = self.table(declared)?;
            self.install_capture(&table, lost.contains(&table.number))?;
            tables.push(table);
        }
        if !lost.is_empty() {
            // What the rows were before is unknown, so which grants they gave is too.
            ledger::clear_rules(self.conn)?;
        }
        Ok(super::catalog(self.conn, tables)?)
    }

    /// Tables whose triggers are not the ones that were installed: somebody rebuilt the table.
    fn lost_triggers(&self) -> Result<BTreeSet<TableNumber>> {
        let mut lost = BTreeSet::new();
        for known in self.numbers.tables() {
            let Some(expected) = known.triggers else {
                continue;
            };
            let installed = capture::installed(self.conn, &known.name)?;
            if capture::fingerprint(&installed) != expected {
                lost.insert(known.number);
            }
        }
        Ok(lost)
    }

    fn rename(&mut self) -> Applied<()> {
        for renamed in &self.config.renamed {
            match &renamed.column {
                None => self.rename_table(&renamed.from, &renamed.table)?,
                Some(column) => self.rename_column(&renamed.table, &renamed.from, column)?,
            }
        }
        Ok(())
    }

    fn rename_table(&mut self, from: &str, to: &str) -> Applied<()> {
        let known = self.numbers.by_name(from).map(|known| known.number);
        let known = known.filter(|_| self.numbers.by_name(to).is_none());
        if let Some(number) = known {
            self.numbers.rename_table(self.conn, number, to)?;
        }
        let moves = self.options.managed
            && introspect::find(self.conn, from)?.is_some()
            && introspect::find(self.conn, to)?.is_none();
        if moves {
            self.execute(&format!(
                "ALTER TABLE {} RENAME TO {}",
                quote(from),
                quote(to)
            ))?;
        }
        if moves || known.is_some() {
            self.notes.push(format!("renamed the table {from} to {to}"));
        }
        Ok(())
    }

    fn rename_column(&mut self, table: &str, from: &str, to: &str) -> Applied<()> {
        let known = self.numbers.by_name(table);
        let known = known.filter(|k| k.column(from).is_some() && k.column(to).is_none());
        let number = known.map(|known| known.number);
        if let Some(number) = number {
            self.numbers.rename_column(self.conn, number, from, to)?;
        }
        let found = introspect::find(self.conn, table)?;
        let moves = self.options.managed
            && found.is_some_and(|f| f.position(from).is_some() && f.position(to).is_none());
        if moves {
            self.execute(&format!(
                "ALTER TABLE {} RENAME COLUMN {} TO {}",
                quote(table),
                quote(from),
                quote(to)
            ))?;
        }
        if moves || number.is_some() {
            self.notes
                .push(format!("renamed the column {table}.{from} to {to}"));
        }
        Ok(())
    }

    /// Tables that are not declared any more.
    fn leave_out_what_is_gone(&mut self) -> Applied<()> {
        let gone: Vec<_> = self
            .numbers
            .tables()
            .filter(|known| known.number >= FIRST_OWN)
            .filter(|known| self.config.schema.table(&known.name).is_none())
            .cloned()
            .collect();
        for known in gone {
            let name = &known.name;
            let exists = introspect::find(self.conn, name)?.is_some();
            let drops = self.options.managed && exists && known.constraints.is_some();
            if drops {
                self.allow(
                    &format!("dropping the table {name}"),
                    &format!("drop:{name}"),
                )?;
            }
            capture::drop_triggers(self.conn, name)?;
            if drops {
                self.execute(&format!("DROP TABLE {}", quote(name)))?;
                self.notes.push(format!("dropped the table {name}"));
            } else {
                self.notes
                    .push(format!("the table {name} does not sync any more"));
            }
            self.forget(known.number)?;
        }
        Ok(())
    }

    /// Takes out everything that the ledger has of a table.
    fn forget(&mut self, table: TableNumber) -> Result<()> {
        for ledger in ["rows", "members", "digests", "pending"] {
            let sql = format!("DELETE FROM syncline_{ledger} WHERE table_no = ?1");
            self.conn.execute(&sql, [table.0])?;
        }
        let inbox = quote(&inbox_name(table));
        self.conn
            .execute_batch(&format!("DROP TABLE IF EXISTS {inbox}"))?;
        self.numbers.drop_table(self.conn, table)
    }

    /// Brings one table to its declaration.
    fn table(&mut self, declared: &Table) -> Applied<Table> {
        let is_builtin = declared.number < FIRST_OWN && declared.name.starts_with("syncline_");
        let managed = self.options.managed || is_builtin;
        let found = introspect::find(self.conn, &declared.name)?;
        let mut table = match found {
            None if managed && !declared.columns.is_empty() => self.create(declared)?,
            None => {
                return Err(SchemaError::Unsupported(format!(
                    "the table {} is not in the database: declare its columns, or create it",
                    declared.name
                )));
            }
            Some(found) if found.kind != "table" => {
                return Err(SchemaError::Unsupported(format!(
                    "{} is a {}: only ordinary tables sync",
                    declared.name,
                    if found.kind == "view" {
                        "view"
                    } else {
                        "virtual table"
                    }
                )));
            }
            Some(found) if declared.columns.is_empty() => self.adopted(&found)?,
            Some(found) => self.alter(declared, &found, managed)?,
        };
        self.check_key(&table)?;
        self.number(&mut table, is_builtin.then_some(declared))?;
        if managed && !declared.columns.is_empty() {
            self.remember_definitions(&table)?;
        }
        Ok(table)
    }

    /// The table as the database has it, with the rules and strategies of the declaration.
    fn adopted(&self, found: &Found) -> Applied<Table> {
        let mut table = self.config.adopted(&found.table()).map_err(|mistakes| {
            let lines: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
            SchemaError::Unsupported(lines.join("\n"))
        })?;
        table.name.clone_from(&found.name);
        Ok(table)
    }

    fn check_key(&self, table: &Table) -> Applied<()> {
        let name = &table.name;
        if table.primary_key.is_empty() {
            return Err(SchemaError::Unsupported(format!(
                "the table {name} has no primary key: give it one, such as \
                 `id TEXT PRIMARY KEY NOT NULL`"
            )));
        }
        let nulls: Vec<_> = table
            .primary_key
            .iter()
            .map(|&p| format!("{} IS NULL", quote(&table.columns[p].name)))
            .collect();
        let sql = format!(
            "SELECT EXISTS (SELECT 1 FROM {} WHERE {})",
            quote(name),
            nulls.join(" OR ")
        );
        let has_null: bool = self
            .conn
            .query_row(&sql, [], |row| row.get(0))
            .map_err(Fault::from)?;
        if has_null {
            return Err(SchemaError::Unsupported(format!(
                "rows of {name} have NULL in the primary key: give them a value"
            )));
        }
        Ok(())
    }

    /// Gives numbers to table and columns, and notes columns that are gone.
    fn number(&mut self, table: &mut Table, fixed: Option<&Table>) -> Result<()> {
        let is_new = self.numbers.by_name(&table.name).is_none();
        table.number = self
            .numbers
            .table(self.conn, &table.name, fixed.map(|t| t.number))?;
        for (i, column) in table.columns.iter_mut().enumerate() {
            let known = self.numbers.by_number(table.number);
            let is_added = known.is_some_and(|known| known.column(&column.name).is_none());
            if is_added && !is_new && !self.options.managed {
                self.notes.push(format!(
                    "the column {}.{} syncs now",
                    table.name, column.name
                ));
            }
            let fixed = fixed.map(|table| table.columns[i].number);
            column.number = self
                .numbers
                .column(self.conn, table.number, &column.name, fixed)?;
        }
        let known = self
            .numbers
            .by_number(table.number)
            .into_iter()
            .flat_map(|k| k.columns());
        let gone: Vec<_> = known
            .filter(|c| table.position(&c.name).is_none())
            .cloned()
            .collect();
        for column in gone {
            self.numbers
                .drop_column(self.conn, table.number, column.number)?;
            let name = format!("{}.{}", table.name, column.name);
            self.notes
                .push(format!("the column {name} does not sync any more"));
        }
        Ok(())
    }

    fn install_capture(&mut self, table: &Table, was_lost: bool) -> Result<()> {
        let Some(found) = introspect::find(self.conn, &table.name)? else {
            return Err(Fault::corrupt(format!(
                "the table {} is missing",
                table.name
            )));
        };
        capture::prepare_inbox(self.conn, table)?;
        let wanted = capture::triggers(table, &found);
        let installed = capture::installed(self.conn, &table.name)?;
        if capture::fingerprint(&installed) != capture::fingerprint(&wanted) {
            capture::drop_triggers(self.conn, &table.name)?;
            for trigger in &wanted {
                self.conn.execute_batch(&trigger.sql)?;
            }
        }
        let is_new = self
            .numbers
            .by_number(table.number)
            .is_none_or(|k| k.triggers.is_none());
        let installed = capture::installed(self.conn, &table.name)?;
        self.numbers
            .capture(self.conn, table.number, capture::fingerprint(&installed))?;
        if was_lost {
            let note = format!(
                "the table {} had lost its triggers: its rows are compared",
                table.name
            );
            self.notes.push(note);
            self.sweep(table, sweep::RESCAN_ROWS)?;
        } else if is_new && has_rows(self.conn, &found)? {
            self.notes
                .push(format!("the rows that {} has already sync now", table.name));
            self.sweep(table, sweep::ROWS)?;
        }
        Ok(())
    }

    fn sweep(&self, table: &Table, phase: i64) -> Result<()> {
        let sql = "INSERT INTO syncline_pending(table_no, sweep) VALUES (?1, ?2)
                   ON CONFLICT (table_no) DO UPDATE SET sweep = excluded.sweep, after_key = NULL";
        self.conn.execute(sql, (table.number.0, phase))?;
        Ok(())
    }

    /// Refuses what loses data unless it is allowed by name.
    pub(super) fn allow(&self, what: &str, name: &str) -> Applied<()> {
        if self
            .options
            .allow
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(name))
        {
            return Ok(());
        }
        Err(SchemaError::Destructive {
            what: what.to_owned(),
            allow: name.to_owned(),
        })
    }

    /// Runs a statement that the database may refuse because of what is in it.
    pub(super) fn execute(&self, sql: &str) -> Applied<()> {
        let Err(error) = self.conn.execute_batch(sql) else {
            return Ok(());
        };
        Err(match StorageError::from(Fault::from(error)) {
            StorageError::Failed(error) => {
                SchemaError::Unsupported(format!("the database refuses `{sql}`: {error}"))
            }
            StorageError::Constraint { .. } => SchemaError::Unsupported(format!(
                "rows that are there already do not allow `{sql}`"
            )),
            error @ (StorageError::Busy | StorageError::Full | StorageError::Corrupt(_)) => {
                SchemaError::Storage(error)
            }
        })
    }
}

/// The table of the database with the rules of the declaration.
fn has_rows(conn: &Connection, found: &Found) -> Result<bool> {
    let sql = format!("SELECT EXISTS (SELECT 1 FROM {})", quote(&found.name));
    Ok(conn.query_row(&sql, [], |row| row.get(0))?)
}
