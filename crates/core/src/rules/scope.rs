//! Names: which column of which row image a name in a rule means.

use sqlparser::ast::Ident;

use super::{
    refusal::{Clause, Refusal},
    term::{Field, Place},
};
use crate::schema::{ColumnType, Schema, Table};

/// Most tables that the subqueries of one rule may name.
const JOINED_MAX: usize = 32;

/// The tables that names may refer to, the innermost subquery last.
#[derive(Debug)]
pub(super) struct Scopes<'a> {
    pub(super) schema: &'a Schema,
    levels: Vec<Vec<Named>>,
    /// Index into [`Schema::tables`] of each place.
    tables: Vec<usize>,
}

#[derive(Debug)]
struct Named {
    name: String,
    table: usize,
    place: Place,
    /// `old` and `new` are meant only where they are written.
    only_qualified: bool,
}

/// A column that a name was found to mean.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) place: Place,
    pub(super) field: Field,
    /// Whether the name was written without its table although an outer table has it too.
    pub(super) also_outer: bool,
}

impl<'a> Scopes<'a> {
    /// Names of a rule on the table at `table`; with `images`, `old.` and `new.` too.
    pub(super) fn new(schema: &'a Schema, table: usize, images: &[(&str, Place)]) -> Self {
        let row = Named {
            name: schema.tables[table].name.clone(),
            table,
            place: Place::ROW,
            only_qualified: false,
        };
        let images = images.iter().map(|&(name, place)| Named {
            name: name.to_owned(),
            table,
            place,
            only_qualified: true,
        });
        Self {
            schema,
            levels: vec![std::iter::once(row).chain(images).collect()],
            tables: vec![table; 3],
        }
    }

    /// The table whose rows `place` stands for.
    pub(super) fn table_at(&self, place: Place) -> usize {
        self.tables[usize::from(place.0)]
    }

    /// The tables of all places, by place.
    pub(super) fn into_tables(self) -> Vec<usize> {
        self.tables
    }

    pub(super) fn enter(&mut self) {
        self.levels.push(Vec::new());
    }

    pub(super) fn leave(&mut self) {
        self.levels.pop();
    }

    /// Adds a table of the subquery that was entered last.
    pub(super) fn join(
        &mut self,
        name: &Ident,
        alias: Option<&Ident>,
        clause: &Clause,
    ) -> Result<Place, Refusal> {
        let schema = self.schema;
        let found = schema
            .tables
            .iter()
            .position(|t| t.name.eq_ignore_ascii_case(&name.value));
        let Some(table) = found else {
            let tables = listed(schema.tables.iter().map(|t| t.name.as_str()));
            return Err(Refusal::new(
                clause.clone(),
                format!("there is no table `{}`", name.value),
                format!(
                    "add [tables.{}] to the file, or name one that is there: {tables}",
                    name.value
                ),
            ));
        };
        let name = alias.unwrap_or(name).value.clone();
        let level = self
            .levels
            .last_mut()
            .expect("the rule's own scope is never left");
        if level
            .iter()
            .any(|named| named.name.eq_ignore_ascii_case(&name))
        {
            return Err(Refusal::new(
                clause.clone(),
                format!("two tables are called `{name}` here"),
                "give one of them an alias",
            ));
        }
        let joined = self.tables.len() - usize::from(Place::FIRST_JOINED);
        let place = u8::try_from(self.tables.len())
            .ok()
            .filter(|_| joined < JOINED_MAX);
        let Some(place) = place.map(Place) else {
            return Err(Refusal::new(
                clause.clone(),
                format!("the rule names more than {JOINED_MAX} tables"),
                "give parent tables rules of their own and write `column IN readable(parent)`",
            ));
        };
        self.tables.push(table);
        level.push(Named {
            name,
            table,
            place,
            only_qualified: false,
        });
        Ok(place)
    }

    /// What `parts` (`column`, `table.column` or `public.table.column`) means: the innermost
    /// table that has it, as in SQL.
    pub(super) fn find(&self, parts: &[Ident], clause: &Clause) -> Result<Found, Refusal> {
        let parts = match parts {
            [schema, rest @ ..] if rest.len() == 2 && is_default_schema(schema) => rest,
            parts => parts,
        };
        match parts {
            [column] => self.unqualified(column, clause),
            [table, column] => self.qualified(table, column, clause),
            _ => Err(Refusal::new(
                clause.clone(),
                "not a column",
                "write `column` or `table.column`",
            )),
        }
    }

    fn unqualified(&self, column: &Ident, clause: &Clause) -> Result<Found, Refusal> {
        let mut found: Option<Found> = None;
        for level in self.levels.iter().rev() {
            let mut here = level
                .iter()
                .filter(|named| !named.only_qualified)
                .filter_map(|named| {
                    Some((
                        named,
                        field(self.schema.tables.get(named.table)?, &column.value)?,
                    ))
                });
            let Some((named, field)) = here.next() else {
                continue;
            };
            if let Some(inner) = &mut found {
                inner.also_outer = true;
                break;
            }
            if let Some((other, _)) = here.next() {
                return Err(Refusal::new(
                    clause.clone(),
                    format!(
                        "`{}` is a column of `{}` and `{}`",
                        column.value, named.name, other.name
                    ),
                    format!("write `{}.{}`", named.name, column.value),
                ));
            }
            found = Some(self.usable(named, field, clause)?);
        }
        found.ok_or_else(|| self.unknown(column, &self.levels[0][0], clause))
    }

    fn qualified(&self, table: &Ident, column: &Ident, clause: &Clause) -> Result<Found, Refusal> {
        let mut named = self.levels.iter().rev().flatten();
        let Some(named) = named.find(|named| named.name.eq_ignore_ascii_case(&table.value)) else {
            let image = ["old", "new"]
                .iter()
                .any(|n| table.value.eq_ignore_ascii_case(n));
            let suggestion = if image {
                "`old.` is there in update, delete and write rules, `new.` in create, update and \
                 write rules"
                    .to_owned()
            } else {
                let names = self.levels.iter().rev().flatten();
                format!(
                    "name one of {}",
                    listed(names.map(|named| named.name.as_str()))
                )
            };
            let message = format!("there is no `{}` here", table.value);
            return Err(Refusal::new(clause.clone(), message, suggestion));
        };
        let field = field(&self.schema.tables[named.table], &column.value);
        let field = field.ok_or_else(|| self.unknown(column, named, clause))?;
        self.usable(named, field, clause)
    }

    fn usable(&self, named: &Named, field: Field, clause: &Clause) -> Result<Found, Refusal> {
        if let Field::Column(position) = field
            && self.schema.tables[named.table].columns[position].generated
        {
            return Err(Refusal::new(
                clause.clone(),
                "the column is computed by the database, where rules cannot see it",
                "write the condition on the columns that it is computed from",
            ));
        }
        if let Field::Column(position) = field
            && self.schema.tables[named.table].columns[position]
                .encrypted
                .is_some()
        {
            return Err(Refusal::new(
                clause.clone(),
                "the column is encrypted: the server, which judges rules, cannot read it",
                "write the condition on a column that is not encrypted",
            ));
        }
        Ok(Found {
            place: named.place,
            field,
            also_outer: false,
        })
    }

    fn unknown(&self, column: &Ident, named: &Named, clause: &Clause) -> Refusal {
        let table = &self.schema.tables[named.table];
        Refusal::new(
            clause.clone(),
            format!("`{}` has no column `{}`", table.name, column.value),
            format!(
                "columns are {}",
                listed(table.columns.iter().map(|c| c.name.as_str()))
            ),
        )
    }
}

/// `public.` of PostgreSQL and `main.` of SQLite say nothing.
pub(super) fn is_default_schema(name: &Ident) -> bool {
    name.value.eq_ignore_ascii_case("public") || name.value.eq_ignore_ascii_case("main")
}

/// What every row has comes before the table's columns: a column that apps write must never be
/// taken for what the server knows.
fn field(table: &Table, name: &str) -> Option<Field> {
    let meta = Field::META
        .iter()
        .find(|(meta, _)| meta.eq_ignore_ascii_case(name));
    meta.map(|(_, field)| *field)
        .or_else(|| table.position(name).map(Field::Column))
}

/// The type that values of a field have.
pub(super) fn field_type(table: &Table, field: Field) -> ColumnType {
    match field {
        Field::Column(position) => table.columns[position].ty,
        Field::Owner | Field::ModifiedBy => ColumnType::Text,
        Field::CreatedAt | Field::Version | Field::ModifiedAt => ColumnType::Integer,
    }
}

/// The name of a field.
pub(super) fn field_name(table: &Table, field: Field) -> &str {
    match field {
        Field::Column(position) => &table.columns[position].name,
        Field::Owner => "_owner",
        Field::CreatedAt => "_created_at",
        Field::Version => "_version",
        Field::ModifiedAt => "_last_modified_at",
        Field::ModifiedBy => "_last_modified_by",
    }
}

/// At most ten names, so that a message stays readable.
fn listed<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let mut names: Vec<_> = names.collect();
    let left_out = names.len().saturating_sub(10);
    names.truncate(10);
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    let more = if left_out > 0 {
        format!(" and {left_out} more")
    } else {
        String::new()
    };
    format!("{}{more}", names.join(", "))
}
