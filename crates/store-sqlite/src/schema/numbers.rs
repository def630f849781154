//! The numbers of tables and columns: given once, never reused.

use rusqlite::{Connection, types::ValueRef};
use syncline_core::{ColumnNumber, TableNumber, builtin::FIRST_OWN};

use crate::{
    fault::{Fault, Result},
    value::bytes,
};

/// All tables that ever synced, in order of number.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    tables: Vec<KnownTable>,
}

#[derive(Debug, Clone)]
pub(super) struct KnownTable {
    pub(super) number: TableNumber,
    pub(super) name: String,
    /// The constraints of the table as a whole that it was made with; `None` when it was not
    /// made or changed by us.
    pub(super) constraints: Option<String>,
    /// Fingerprint of the triggers that capture installed.
    pub(super) triggers: Option<[u8; 32]>,
    dropped: bool,
    columns: Vec<KnownColumn>,
}

#[derive(Debug, Clone)]
pub(super) struct KnownColumn {
    pub(super) number: ColumnNumber,
    pub(super) name: String,
    /// The definition that it was made with, where that was ours to do.
    pub(super) definition: Option<String>,
    dropped: bool,
}

impl KnownTable {
    /// Columns that are not dropped.
    pub(super) fn columns(&self) -> impl Iterator<Item = &KnownColumn> {
        self.columns.iter().filter(|column| !column.dropped)
    }

    pub(super) fn column(&self, name: &str) -> Option<&KnownColumn> {
        self.columns()
            .find(|column| column.name.eq_ignore_ascii_case(name))
    }
}

impl Numbers {
    pub(super) fn load(conn: &Connection) -> Result<Self> {
        let sql = "SELECT number, name, constraints, triggers, dropped FROM syncline_tables
                   ORDER BY number";
        let mut statement = conn.prepare(sql)?;
        let mut rows = statement.query([])?;
        let mut tables = Vec::new();
        while let Some(row) = rows.next()? {
            let number = TableNumber(row.get(0)?);
            let has_triggers = row.get_ref(3)? != ValueRef::Null;
            tables.push(KnownTable {
                number,
                name: row.get(1)?,
                constraints: row.get(2)?,
                triggers: has_triggers.then(|| bytes(row, 3)).transpose()?,
                dropped: row.get(4)?,
                columns: load_columns(conn, number)?,
            });
        }
        Ok(Self { tables })
    }

    /// Tables that are not dropped.
    pub(super) fn tables(&self) -> impl Iterator<Item = &KnownTable> {
        self.tables.iter().filter(|table| !table.dropped)
    }

    pub(super) fn by_name(&self, name: &str) -> Option<&KnownTable> {
        self.tables()
            .find(|table| table.name.eq_ignore_ascii_case(name))
    }

    pub(super) fn by_number(&self, number: TableNumber) -> Option<&KnownTable> {
        self.tables().find(|table| table.number == number)
    }

    /// The table's number, given now if it has none.
    pub(super) fn table(
        &mut self,
        conn: &Connection,
        name: &str,
        fixed: Option<TableNumber>,
    ) -> Result<TableNumber> {
        if let Some(known) = self.by_name(name) {
            return Ok(known.number);
        }
        let next = self
            .tables
            .iter()
            .map(|table| table.number.0 + 1)
            .max()
            .unwrap_or(0);
        let number = fixed.unwrap_or(TableNumber(next.max(FIRST_OWN.0)));
        let sql = "INSERT INTO syncline_tables(number, name) VALUES (?1, ?2)";
        conn.execute(sql, (number.0, name))?;
        self.tables.push(KnownTable {
            number,
            name: name.to_owned(),
            constraints: None,
            triggers: None,
            dropped: false,
            columns: Vec::new(),
        });
        Ok(number)
    }

    /// The column's number, given now if it has none.
    pub(super) fn column(
        &mut self,
        conn: &Connection,
        table: TableNumber,
        name: &str,
        fixed: Option<ColumnNumber>,
    ) -> Result<ColumnNumber> {
        let known = self.known(table)?;
        if let Some(column) = known.column(name) {
            return Ok(column.number);
        }
        let next = known
            .columns
            .iter()
            .map(|column| column.number.0 + 1)
            .max()
            .unwrap_or(1);
        let number = fixed.unwrap_or(ColumnNumber(next));
        let sql = "INSERT INTO syncline_columns(table_no, number, name) VALUES (?1, ?2, ?3)";
        conn.execute(sql, (table.0, number.0, name))?;
        known.columns.push(KnownColumn {
            number,
            name: name.to_owned(),
            definition: None,
            dropped: false,
        });
        Ok(number)
    }

    pub(super) fn rename_table(
        &mut self,
        conn: &Connection,
        table: TableNumber,
        name: &str,
    ) -> Result<()> {
        let sql = "UPDATE syncline_tables SET name = ?2 WHERE number = ?1";
        conn.execute(sql, (table.0, name))?;
        name.clone_into(&mut self.known(table)?.name);
        Ok(())
    }

    pub(super) fn rename_column(
        &mut self,
        conn: &Connection,
        table: TableNumber,
        from: &str,
        to: &str,
    ) -> Result<()> {
        let columns = &mut self.known(table)?.columns;
        let column = columns
            .iter_mut()
            .find(|c| !c.dropped && c.name.eq_ignore_ascii_case(from));
        let Some(column) = column else { return Ok(()) };
        // The definition begins with the old name: it is taken as it will be declared.
        let sql = "UPDATE syncline_columns SET name = ?3, definition = NULL
                   WHERE table_no = ?1 AND number = ?2";
        conn.execute(sql, (table.0, column.number.0, to))?;
        to.clone_into(&mut column.name);
        column.definition = None;
        Ok(())
    }

    pub(super) fn drop_table(&mut self, conn: &Connection, table: TableNumber) -> Result<()> {
        conn.execute(
            "UPDATE syncline_tables SET dropped = 1 WHERE number = ?1",
            [table.0],
        )?;
        self.known(table)?.dropped = true;
        Ok(())
    }

    pub(super) fn drop_column(
        &mut self,
        conn: &Connection,
        table: TableNumber,
        number: ColumnNumber,
    ) -> Result<()> {
        let sql = "UPDATE syncline_columns SET dropped = 1 WHERE table_no = ?1 AND number = ?2";
        conn.execute(sql, (table.0, number.0))?;
        for column in self
            .known(table)?
            .columns
            .iter_mut()
            .filter(|c| c.number == number)
        {
            column.dropped = true;
        }
        Ok(())
    }

    /// Remembers what the table's columns and constraints are defined as.
    pub(super) fn define(
        &mut self,
        conn: &Connection,
        table: TableNumber,
        constraints: &str,
        definitions: &[(ColumnNumber, String)],
    ) -> Result<()> {
        let sql = "UPDATE syncline_tables SET constraints = ?2 WHERE number = ?1";
        conn.execute(sql, (table.0, constraints))?;
        let known = self.known(table)?;
        known.constraints = Some(constraints.to_owned());
        for (number, definition) in definitions {
            let sql = "UPDATE syncline_columns SET definition = ?3
                       WHERE table_no = ?1 AND number = ?2";
            conn.execute(sql, (table.0, number.0, definition))?;
            for column in known.columns.iter_mut().filter(|c| c.number == *number) {
                column.definition = Some(definition.clone());
            }
        }
        Ok(())
    }

    /// Remembers the triggers that are installed now.
    pub(super) fn capture(
        &mut self,
        conn: &Connection,
        table: TableNumber,
        triggers: [u8; 32],
    ) -> Result<()> {
        let sql = "UPDATE syncline_tables SET triggers = ?2 WHERE number = ?1";
        conn.execute(sql, (table.0, &triggers[..]))?;
        self.known(table)?.triggers = Some(triggers);
        Ok(())
    }

    fn known(&mut self, table: TableNumber) -> Result<&mut KnownTable> {
        self.tables
            .iter_mut()
            .find(|known| known.number == table && !known.dropped)
            .ok_or_else(|| Fault::corrupt(format!("no table has the number {}", table.0)))
    }
}

fn load_columns(conn: &Connection, table: TableNumber) -> Result<Vec<KnownColumn>> {
    let sql = "SELECT number, name, definition, dropped FROM syncline_columns
               WHERE table_no = ?1 ORDER BY number";
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_map([table.0], |row| {
        Ok(KnownColumn {
            number: ColumnNumber(row.get(0)?),
            name: row.get(1)?,
            definition: row.get(2)?,
            dropped: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
