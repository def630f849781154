//! Migrations in any order, on a device and on the server (docs/spec/capture.md, CA12).

use std::collections::BTreeMap;

use syncline_core::{Row, RowKey, Table, TableNumber, Value};

use crate::{
    authority::Authority,
    device::{Device, schema},
};

const TABLES: &str = "
    CREATE TABLE a(id INTEGER PRIMARY KEY NOT NULL, x TEXT, y TEXT);
    CREATE TABLE b(id INTEGER PRIMARY KEY NOT NULL, x TEXT, y TEXT);";
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const COLUMNS: [&str; 4] = ["x", "y", "z", "w"];

/// Runs of the test; more of them when something of this changes.
const SEEDS: u64 = 200;

struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }

    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.below(of.len())]
    }
}

/// A statement of a migration, or an edit that tells which value it changed; where it does not fit
/// nothing happens.
fn here(chance: &mut Chance, device: &Device) -> String {
    let list =
        |sql: &str| -> Vec<String> { device.query(sql).lines().map(str::to_owned).collect() };
    let tables = list("SELECT name FROM sqlite_schema WHERE type = 'table' AND length(name) = 1");
    let table = &tables[chance.below(tables.len())];
    let columns = list(&format!(
        "SELECT name FROM pragma_table_info('{table}') WHERE name <> 'id'"
    ));
    let column = match columns.len() {
        0 => "x",
        n => columns[chance.below(n)].as_str(),
    };
    let (other, next) = (chance.one(&NAMES), chance.one(&COLUMNS));
    match chance.below(12) {
        0..3 => format!("ALTER TABLE {table} RENAME TO {other}"),
        3 | 4 => format!("CREATE TABLE {other}(id INTEGER PRIMARY KEY NOT NULL, x TEXT, y TEXT)"),
        5 | 6 => format!("ALTER TABLE {table} RENAME COLUMN {column} TO {next}"),
        7 => format!("ALTER TABLE {table} ADD COLUMN {next} TEXT"),
        8 => format!("ALTER TABLE {table} DROP COLUMN {column}"),
        _ => format!(
            "UPDATE {table} SET {column} = 'edt' || substr({column}, 4) WHERE id = {} AND {column} <> ''",
            1 + chance.below(3)
        ),
    }
}

/// The same for the server; what it did.
fn there(chance: &mut Chance, server: &mut Authority, made: &mut u32) -> String {
    let (table, other) = (chance.one(&NAMES), chance.one(&NAMES));
    let (column, next) = (chance.one(&COLUMNS), chance.one(&COLUMNS));
    let has = |server: &Authority, name: &str| server.schema.table(name).is_some();
    match chance.below(6) {
        0 | 1 if has(server, table) && !has(server, other) => {
            let found = server.schema.tables.iter_mut().find(|t| t.name == table);
            found.unwrap().name = other.into();
            format!("server: {table} to {other}")
        }
        2 if has(server, table) => {
            let number = server.table(table).number;
            server.schema.tables.retain(|t| t.number != number);
            server.rows.retain(|(t, _), _| *t != number);
            format!("server: drop {table}")
        }
        3 if !has(server, table) => {
            *made += 1;
            let number = TableNumber(100 + *made);
            let new = schema(TABLES).table("a").unwrap().clone();
            let name = table.to_owned();
            server.schema.tables.push(Table {
                number,
                name,
                ..new
            });
            fill(server, table, "new");
            format!("server: create {table}")
        }
        4 | 5 if has(server, table) => {
            let found = server.schema.tables.iter_mut().find(|t| t.name == table);
            let columns = &mut found.unwrap().columns;
            let place = columns.iter().position(|c| c.name == column);
            if let Some(place) = place.filter(|_| columns.iter().all(|c| c.name != next)) {
                columns[place].name = next.into();
            }
            format!("server: {table}.{column} to {next}")
        }
        _ => String::new(),
    }
}

fn fill(server: &mut Authority, table: &str, text: &str) {
    let row = |id| {
        let value = |column: &str| Value::Text(format!("{text} {table}{id}{column}"));
        (table, vec![Value::Integer(id), value("x"), value("y")])
    };
    server.write(&[row(1), row(2), row(3)]);
}

type Rows = BTreeMap<(TableNumber, RowKey), Row>;

fn rows(server: &Authority) -> Rows {
    let rows = server.rows.iter();
    rows.map(|(place, kept)| {
        // What an edit leaves.
        let values = kept.row.0.iter().map(|value| match value {
            Value::Text(text) => Value::Text(text[3..].to_owned()),
            other => other.clone(),
        });
        (place.clone(), Row(values.collect()))
    })
    .collect()
}

#[test]
fn ca12_no_migration_loses_or_changes_a_row_of_the_server() {
    for seed in 1..=SEEDS {
        let mut chance = Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut server = Authority::new(schema(TABLES));
        for table in ["a", "b"] {
            fill(&mut server, table, "old");
        }
        let mut device = Device::new(TABLES, seed);
        device.sync(&mut server);
        device.disconnect();
        let (mut trace, mut made) = (Vec::new(), 0);
        for _ in 0..12 {
            match chance.below(4) {
                0 | 1 => {
                    let sql = here(&mut chance, &device);
                    if device.replica.connection().execute_batch(&sql).is_ok() {
                        trace.push(sql);
                    }
                }
                2 => {
                    let did = there(&mut chance, &mut server, &mut made);
                    trace.extend(Some(did).filter(|did| !did.is_empty()));
                }
                _ => {
                    let before = rows(&server);
                    trace.push("sync".into());
                    device.sync(&mut server);
                    device.disconnect();
                    let after = rows(&server);
                    for (place, row) in &before {
                        assert_eq!(
                            after.get(place),
                            Some(row),
                            "seed {seed}, {place:?}: {trace:#?}"
                        );
                    }
                }
            }
        }
    }
}
