//! Creating a declared table, and changing one that is there.

use syncline_core::{
    Column, ColumnNumber, Table,
    builtin::FIRST_OWN,
    schema::{Computed, ForeignKey, FurtherIndex},
    sql::{self, Affinity, Kind, Token, quote},
};
use syncline_store::SchemaError;

use super::{
    apply::{Applied, Applier},
    numbers::KnownTable,
};
use crate::{
    capture,
    fault::{Fault, Result},
    introspect::{self, Found, FoundIndex, FoundKey},
};

impl Applier<'_> {
    pub(super) fn create(&mut self, declared: &Table) -> Applied<Table> {
        self.execute(&sql::create_table(declared))?;
        for index in sql::create_indexes(declared) {
            self.execute(&index)?;
        }
        // Our own tables are nobody's news.
        if declared.number >= FIRST_OWN || !declared.name.starts_with("syncline_") {
            self.notes
                .push(format!("created the table {}", declared.name));
        }
        Ok(declared.clone())
    }

    /// Brings the table that is there to the declaration, as far as that loses nothing.
    pub(super) fn alter(
        &mut self,
        declared: &Table,
        found: &Found,
        managed: bool,
    ) -> Applied<Table> {
        check_types(declared, found)?;
        check_key(declared, found)?;
        if !managed {
            return as_declared(declared, found);
        }
        let known = self.numbers.by_name(&declared.name).cloned();
        let held = self.drop_columns(declared, found, known.as_ref())?;
        self.add_columns(declared, found)?;
        if let Some(known) = known.filter(|known| !held.is_empty() || has_changed(known, declared))
        {
            let found = self.find(&declared.name)?;
            self.rebuild(declared, &found, &known, &held)?;
        }
        let found = self.find(&declared.name)?;
        self.add_indexes(declared, &found)?;
        let mut table = declared.clone();
        for column in &mut table.columns {
            if let Some(position) = found.position(&column.name) {
                column.generated = found.columns[position].generated;
            }
        }
        Ok(table)
    }

    fn find(&self, table: &str) -> Result<Found> {
        introspect::find(self.conn, table)?
            .ok_or_else(|| Fault::corrupt(format!("the table {table} is missing")))
    }

    /// Drops columns that are not declared any more; returns those that constraints of the table
    /// hold, for which it has to be made anew.
    fn drop_columns(
        &mut self,
        declared: &Table,
        found: &Found,
        known: Option<&KnownTable>,
    ) -> Applied<Vec<String>> {
        let table = &declared.name;
        let mut held = Vec::new();
        let Some(known) = known else { return Ok(held) };
        let gone: Vec<_> = known
            .columns()
            .filter(|column| declared.position(&column.name).is_none())
            .filter(|column| column.definition.is_some())
            .filter_map(|column| Some((column, found.position(&column.name)?)))
            .collect();
        for (column, position) in gone {
            let name = &column.name;
            self.allow(
                &format!("dropping {table}.{name}"),
                &format!("drop:{table}.{name}"),
            )?;
            // Our triggers name the column; they are installed anew afterwards.
            capture::drop_triggers(self.conn, table)?;
            let over = found.indexes.iter().filter(|index| index.is_over(position));
            for index in over.clone().filter_map(|index| index.made_as.as_deref()) {
                self.execute(&format!("DROP INDEX IF EXISTS {}", quote(index)))?;
            }
            let refers = |key: &FoundKey| key.columns.iter().any(|c| c.eq_ignore_ascii_case(name));
            if over.clone().any(|index| index.made_as.is_none())
                || found.foreign_keys.iter().any(refers)
            {
                held.push(name.clone());
            } else {
                let (table, name) = (quote(table), quote(name));
                self.execute(&format!("ALTER TABLE {table} DROP COLUMN {name}"))?;
            }
            self.numbers
                .drop_column(self.conn, known.number, column.number)?;
            self.notes
                .push(format!("dropped the column {table}.{name}"));
        }
        Ok(held)
    }

    fn add_columns(&mut self, declared: &Table, found: &Found) -> Applied<()> {
        for (position, column) in declared.columns.iter().enumerate() {
            // Where only the database knows how a generated column is computed, it adds it.
            let can_be_made = sql::is_made(declared, &[position]);
            if !can_be_made || found.position(&column.name).is_some() {
                continue;
            }
            let mut definition = sql::column_definition(declared, position);
            if column
                .computed
                .as_ref()
                .is_some_and(|computed| computed.stored)
            {
                // A column that is stored cannot be added; its values are the same.
                let table = Table {
                    columns: vec![Column {
                        computed: column.computed.clone().map(|computed| Computed {
                            stored: false,
                            ..computed
                        }),
                        ..column.clone()
                    }],
                    primary_key: Vec::new(),
                    ..declared.clone()
                };
                definition = sql::column_definition(&table, 0);
            }
            if let Some(key) = declared
                .foreign_keys
                .iter()
                .find(|key| key.columns == [position])
            {
                let constraint = sql::foreign_key(declared, key);
                let references = constraint.find(" REFERENCES").map(|at| &constraint[at..]);
                definition.push_str(references.unwrap_or_default());
            }
            let table = quote(&declared.name);
            self.execute(&format!("ALTER TABLE {table} ADD COLUMN {definition}"))?;
            self.notes.push(format!(
                "added the column {}.{}",
                declared.name, column.name
            ));
        }
        Ok(())
    }

    fn add_indexes(&mut self, declared: &Table, found: &Found) -> Applied<()> {
        let names = |columns: &[usize]| -> Vec<String> {
            columns
                .iter()
                .map(|&i| declared.columns[i].name.to_ascii_lowercase())
                .collect()
        };
        let has = |columns: &[usize], unique: bool| {
            let wanted = names(columns);
            found.indexes.iter().any(|index| {
                let columns = index.plain_columns().unwrap_or_default();
                let found = columns
                    .iter()
                    .map(|&i| found.columns[i].name.to_ascii_lowercase());
                (index.unique || !unique) && found.eq(wanted.iter().cloned())
            })
        };
        let uniques = declared.uniques.iter().map(|columns| (columns, true));
        for (columns, unique) in uniques.chain(declared.indexes.iter().map(|i| (i, false))) {
            // A generated column that only the declaration has cannot be made.
            let is_there = |&i: &usize| {
                let name = &declared.columns[i].name;
                !declared.columns[i].generated || found.position(name).is_some()
            };
            if has(columns, unique) || !columns.iter().all(is_there) {
                continue;
            }
            self.execute(&sql::create_index(declared, columns, unique))?;
            let kind = if unique { "unique index" } else { "index" };
            let columns = names(columns).join(", ");
            self.notes
                .push(format!("made the {kind} {}({columns})", declared.name));
        }
        self.add_further_indexes(declared, found)
    }

    fn add_further_indexes(&mut self, declared: &Table, found: &Found) -> Applied<()> {
        let there = found.further_indexes();
        for index in &declared.further_indexes {
            let sql = sql::create_further_index(declared, index);
            let name = sql::index_name_of(declared, index);
            let is_named = |other: &FoundIndex| {
                let other = other.made_as.as_deref().unwrap_or_default();
                other.eq_ignore_ascii_case(&name)
            };
            if found.indexes.iter().any(is_named) || there.iter().any(|other| same(other, index)) {
                continue;
            }
            self.execute(&sql)?;
            let kind = if index.unique {
                "unique index"
            } else {
                "index"
            };
            self.notes.push(format!(
                "made the {kind} {}({})",
                declared.name, index.terms
            ));
        }
        Ok(())
    }

    pub(super) fn remember_definitions(&mut self, table: &Table) -> Result<()> {
        let definitions: Vec<(ColumnNumber, String)> = (0..table.columns.len())
            .filter(|&i| sql::is_made(table, &[i]))
            .map(|i| (table.columns[i].number, sql::column_definition(table, i)))
            .collect();
        self.numbers
            .define(self.conn, table.number, &constraints(table), &definitions)
    }
}

/// The constraints of the table as a whole, but for unique ones, which can be added as indexes.
fn constraints(table: &Table) -> String {
    let key: Vec<_> = table
        .primary_key
        .iter()
        .map(|&i| table.columns[i].name.as_str())
        .collect();
    let mut parts = vec![format!("PRIMARY KEY ({})", key.join(", "))];
    parts.extend(
        table
            .foreign_keys
            .iter()
            .map(|key| sql::foreign_key(table, key)),
    );
    parts.extend(table.checks.iter().map(|check| format!("CHECK ({check})")));
    if table.without_rowid {
        parts.push("WITHOUT ROWID".into());
    }
    if table.strict {
        parts.push("STRICT".into());
    }
    parts.join(", ")
}

/// Whether two indexes are the same, however their texts are laid out.
fn same(a: &FurtherIndex, b: &FurtherIndex) -> bool {
    let words = |index: &FurtherIndex| -> Vec<String> {
        let condition = index.condition.as_deref().unwrap_or_default();
        let texts = [index.terms.as_str(), condition];
        let tokens = texts.iter().flat_map(|text| {
            let end = std::iter::once(String::new());
            let tokens = sql::tokens(text);
            let words = tokens.into_iter().filter(|token| !token.is_word("ASC"));
            words.map(spelled).chain(end).collect::<Vec<_>>()
        });
        tokens.collect()
    };
    a.unique == b.unique && words(a) == words(b)
}

fn spelled(token: Token<'_>) -> String {
    match token.kind {
        Kind::Word | Kind::Quoted => token.name().to_ascii_lowercase(),
        Kind::Text | Kind::Symbol => token.text.to_owned(),
    }
}

/// Whether what was made once is declared otherwise now; columns that are new do not count.
fn has_changed(known: &KnownTable, declared: &Table) -> bool {
    let column_changed = declared.columns.iter().enumerate().any(|(i, column)| {
        let before = known
            .column(&column.name)
            .and_then(|known| known.definition.as_deref());
        before.is_some_and(|before| before != sql::column_definition(declared, i))
    });
    let is_old = |key: &&ForeignKey| {
        key.columns
            .iter()
            .all(|&i| known.column(&declared.columns[i].name).is_some())
    };
    let foreign_keys = declared
        .foreign_keys
        .iter()
        .filter(is_old)
        .cloned()
        .collect();
    let old = Table {
        foreign_keys,
        ..declared.clone()
    };
    column_changed
        || known
            .constraints
            .as_deref()
            .is_some_and(|c| c != constraints(&old))
}

/// Refuses columns whose stored values are of another type than declared.
fn check_types(declared: &Table, found: &Found) -> Applied<()> {
    for column in &declared.columns {
        let Some(position) = found.position(&column.name) else {
            continue;
        };
        let stored = &found.columns[position].declared;
        let fits = Affinity::of(stored).fits(column.ty) || sql::column_type(stored) == column.ty;
        if !fits {
            return Err(SchemaError::Unsupported(format!(
                "{}.{} is {stored} in the database and {} in the declaration: declare it as it \
                 is, or add a column of the new type",
                declared.name,
                column.name,
                column.ty.as_str(),
            )));
        }
    }
    Ok(())
}

fn check_key(declared: &Table, found: &Found) -> Applied<()> {
    let declared_key = declared
        .primary_key
        .iter()
        .map(|&p| declared.columns[p].name.to_ascii_lowercase());
    let found_key = found
        .key
        .iter()
        .map(|&p| found.columns[p].name.to_ascii_lowercase());
    if declared_key.eq(found_key) {
        return Ok(());
    }
    Err(SchemaError::Unsupported(format!(
        "the primary key of {} is another one in the database than declared: the key of a table \
         cannot be changed, make a new table",
        declared.name
    )))
}

/// Columns of the database that do not sync. Where one is missing, its name in quotes would be a
/// text, and an index or check over it something else.
fn undeclared(declared: &Table, found: &Found) -> Vec<String> {
    let names = found.columns.iter().map(|column| &column.name);
    names
        .filter(|name| declared.position(name).is_none())
        .cloned()
        .collect()
}

/// Whether SQL names one of these columns, or might.
fn names_any(sql: &str, columns: &[String]) -> bool {
    let tokens = sql::tokens(sql).into_iter();
    let mut names = tokens.filter(|token| matches!(token.kind, Kind::Word | Kind::Quoted));
    names.any(|token| {
        let name = token.name();
        columns
            .iter()
            .any(|column| column.eq_ignore_ascii_case(&name))
    })
}

/// A table that only its owner changes: types and strategies as declared, constraints as they
/// are. Columns that are not declared do not sync.
fn as_declared(declared: &Table, found: &Found) -> Applied<Table> {
    let actual = found.table();
    let undeclared = undeclared(declared, found);
    let is_known = |text: &str| !names_any(text, &undeclared);
    let mut table = declared.clone();
    for column in &mut table.columns {
        let Some(position) = found.position(&column.name) else {
            return Err(SchemaError::Unsupported(format!(
                "{}.{} is not in the database: add it there, or let Syncline manage the schema",
                declared.name, column.name
            )));
        };
        let actual = &actual.columns[position];
        column.not_null = actual.not_null;
        column.default.clone_from(&actual.default);
        column.check = actual.check.clone().filter(|check| is_known(check));
        column.collate.clone_from(&actual.collate);
        column.generated = actual.generated;
        column.computed.clone_from(&actual.computed);
        column.declared.clone_from(&actual.declared);
    }
    let moved = |columns: &Vec<usize>| -> Option<Vec<usize>> {
        columns
            .iter()
            .map(|&p| declared.position(&found.columns[p].name))
            .collect()
    };
    table.uniques = actual.uniques.iter().filter_map(moved).collect();
    table.indexes = actual.indexes.iter().filter_map(moved).collect();
    let keys = actual.foreign_keys.iter();
    table.foreign_keys = keys
        .filter_map(|key| {
            Some(ForeignKey {
                columns: moved(&key.columns)?,
                ..key.clone()
            })
        })
        .collect();
    let indexes = actual.further_indexes.into_iter();
    table.further_indexes = indexes
        .filter(|index| is_known(&index.terms) && index.condition.as_deref().is_none_or(is_known))
        .collect();
    let checks = actual.checks.into_iter();
    table.checks = checks.filter(|check| is_known(check)).collect();
    table.without_rowid = actual.without_rowid;
    table.strict = actual.strict;
    table.autoincrement = actual.autoincrement;
    Ok(table)
}
