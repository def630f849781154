//! `syncline generate`: what other tools want to know of the tables.

use std::fmt::Write as _;

use anyhow::Context;
use serde_json::json;
use syncline_core::{
    schema::{Column, ColumnType, Schema, Table},
    sql,
};
use syncline_replica::introspect::introspect;

use super::config::{open_to_read, read_config};
use crate::{
    args::{Generate, Generated},
    exit::{Exit, Failure},
    output::Output,
    settings,
};

pub(crate) fn run(args: &Generate, output: &Output) -> anyhow::Result<Exit> {
    let schema = schema(args, output)?;
    let (kind, text) = match args.what {
        Generated::Schema => ("schema", statements(&schema)),
        Generated::Types => ("types", types(&schema)),
    };
    output.result(
        text.trim_end(),
        &json!({ "type": "generated", "what": kind, "text": text }),
    );
    Ok(Exit::Done)
}

fn schema(args: &Generate, output: &Output) -> anyhow::Result<Schema> {
    if let Some(path) = &args.from {
        let conn = open_to_read(path)?;
        let found = introspect(&conn).with_context(|| format!("read {}", path.display()))?;
        for problem in &found.problems {
            output.note(&format!("left out: {problem}"));
        }
        let tables = found.tables.into_iter().map(|local| local.table).collect();
        return Ok(Schema { tables });
    }
    let default = settings::FILE.into();
    let path = args.config.as_ref().unwrap_or(&default);
    let schema = read_config(path)?.schema;
    let is_adopted = |table: &&Table| table.columns.is_empty();
    if let Some(table) = schema.tables.iter().find(is_adopted) {
        let sentence = format!(
            "{}: tables.{} takes its columns from the server's database; --from names that one",
            path.display(),
            table.name
        );
        return Err(Failure::new(Exit::Config, sentence).into());
    }
    // What it prints is for apps.
    let tables = schema.tables.into_iter().map(Table::opened).collect();
    Ok(Schema { tables })
}

fn statements(schema: &Schema) -> String {
    let mut out = String::new();
    for table in &schema.tables {
        out += &sql::create_table(table);
        out += ";\n";
        for index in sql::create_indexes(table) {
            out += &index;
            out += ";\n";
        }
        out += "\n";
    }
    out
}

/// An interface for each table, with the values as SQLite's drivers give them.
fn types(schema: &Schema) -> String {
    let mut out = String::from(
        "// Rows as SQLite's drivers give them. Made by `syncline generate types`.\n\n\
         export type SqlValue = string | number | bigint | Uint8Array | null;\n\n",
    );
    let names = interfaces(schema);
    for (table, name) in schema.tables.iter().zip(&names) {
        let columns: String = table.columns.iter().enumerate().fold(
            String::new(),
            |mut columns, (position, column)| {
                let is_null = !column.not_null && !table.is_key(position);
                let _infallible = writeln!(
                    columns,
                    "  {}: {}{};",
                    property(&column.name),
                    value_type(column),
                    if is_null && column.ty != ColumnType::Any {
                        " | null"
                    } else {
                        ""
                    },
                );
                columns
            },
        );
        let _infallible = write!(out, "export interface {name} {{\n{columns}}}\n\n");
    }
    out += "export interface Tables {\n";
    for (table, name) in schema.tables.iter().zip(&names) {
        let _infallible = writeln!(out, "  {}: {name};", property(&table.name));
    }
    out += "}\n";
    out
}

fn value_type(column: &Column) -> &'static str {
    match column.ty {
        ColumnType::Text | ColumnType::Uuid => "string",
        // JSON arrives as its text.
        ColumnType::Json => "string",
        ColumnType::Integer | ColumnType::Real => "number",
        ColumnType::Boolean => "0 | 1",
        ColumnType::Blob => "Uint8Array",
        ColumnType::Timestamp => "string | number",
        ColumnType::Any => "SqlValue",
    }
}

/// A name for each table's interface, none of them twice.
fn interfaces(schema: &Schema) -> Vec<String> {
    let mut names = vec!["SqlValue".to_owned(), "Tables".to_owned()];
    for table in &schema.tables {
        let mut name = interface(&table.name);
        while names.contains(&name) {
            name.push_str("Row");
        }
        names.push(name);
    }
    names.split_off(2)
}

/// `my table` as `MyTable`; a name of no letters at all as `Table`.
fn interface(table: &str) -> String {
    let words = table.split(|c: char| !c.is_alphanumeric());
    let mut name: String = words
        .map(|word| {
            let mut chars = word.chars();
            let first = chars.next().into_iter().flat_map(char::to_uppercase);
            first.chain(chars).collect::<String>()
        })
        .collect();
    if !name.starts_with(char::is_alphabetic) {
        name.insert_str(0, "Table");
    }
    name
}

/// A name as a property: quoted where it is no identifier.
fn property(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if is_plain {
        name.to_owned()
    } else {
        json!(name).to_string()
    }
}

#[cfg(test)]
mod tests {
    use syncline_core::config::Config;

    #[test]
    fn types_are_as_drivers_give_the_values() {
        let config = r#"
            [tables.tables]
            columns = { id = "uuid primary key", n = "integer not null", ok = "boolean", at = "timestamp", j = "json", b = "blob" }
            [tables.Tables_Row]
            columns = { "a b" = "text primary key", x = "any" }
        "#;
        let config = Config::parse("test", config).expect("a configuration");
        let types = super::types(&config.schema);
        for line in [
            "export interface TablesRow {\n  id: string;\n  n: number;\n  ok: 0 | 1 | null;\n  \
             at: string | number | null;\n  j: string | null;\n  b: Uint8Array | null;\n}",
            "export interface TablesRowRow {\n  \"a b\": string;\n  x: SqlValue;\n}",
            "export interface Tables {\n  tables: TablesRow;\n  Tables_Row: TablesRowRow;\n}",
        ] {
            assert!(types.contains(line), "{line}\n--- is not in\n{types}");
        }
    }
}
