//! The SQL text of a table's statements.

use syncline_core::{ColumnType, Table, Value};

use super::raw::Raw;
use crate::sql::{all, list, quoted};

/// How many spellings of a UUID are looked for: with and without hyphens, small and capital.
const SPELLINGS: usize = 4;

#[derive(Debug, Clone)]
pub(super) struct Statements {
    /// Parameters: the key. Gives whole rows.
    pub(super) read: String,
    /// Parameters: for each key column its spellings ([`spellings`]). May give a row more than once.
    pub(super) read_spellings: String,
    /// Parameter: limit. Gives whole rows.
    pub(super) read_null_keys: String,
    pub(super) read_all: String,
    /// Parameter: limit.
    pub(super) scan: String,
    /// Parameters: the key, limit.
    pub(super) scan_after: String,
    /// Parameters: the written columns.
    pub(super) insert: String,
    pub(super) insert_returning: String,
    pub(super) upsert: String,
    /// Parameters: the canonical key, compared bytewise.
    pub(super) delete: String,
    /// Parameters: the key as it is stored.
    pub(super) delete_stored: String,
    /// Positions of all but generated columns.
    pub(super) written_positions: Vec<usize>,
    /// Positions of all but key and generated columns.
    pub(super) value_positions: Vec<usize>,
    pub(super) has_uuid_key: bool,
    or: &'static str,
}

impl Statements {
    /// `overrules`: the app's table says what to do ON CONFLICT. Under IGNORE a row would not be
    /// written, under REPLACE another one would go, without a word. OR ABORT would overrule the
    /// clauses in the app's triggers, too: only where it has to.
    pub(super) fn new(table: &Table, overrules: bool) -> Self {
        let or = if overrules { "OR ABORT " } else { "" };
        let name = quoted(&table.name);
        let written_positions: Vec<usize> = (0..table.columns.len())
            .filter(|&p| !table.columns[p].generated)
            .collect();
        let value_positions: Vec<usize> = written_positions
            .iter()
            .copied()
            .filter(|&p| !table.is_key(p))
            .collect();
        let column = |&p: &usize| quoted(&table.columns[p].name);
        let keys = list(&table.primary_key, column);
        // Qualified: SQLite takes an unknown name in double quotes for a string.
        let images = list(&table.columns, |c| {
            if c.generated {
                "NULL".into()
            } else {
                format!("r.{}", quoted(&c.name))
            }
        });
        let count = table.primary_key.len();
        let marks = |from: usize, n: usize| list(from..from + n, |i| format!("?{i}"));
        let read_all = format!("SELECT {images} FROM {name} AS r");
        let read_where = |condition: String| format!("{read_all} WHERE {condition}");
        let insert = format!(
            "INSERT {or}INTO {name}({}) VALUES ({})",
            list(&written_positions, column),
            marks(1, written_positions.len())
        );
        let sets = if value_positions.is_empty() {
            list(&table.primary_key[..1], |p| {
                format!("{0} = {name}.{0}", column(p))
            })
        } else {
            list(&value_positions, |p| {
                format!("{0} = excluded.{0}", column(p))
            })
        };
        // SQLite lets keys be NULL; such rows cannot sync.
        let has_key = all(&table.primary_key, |p| {
            format!("r.{} IS NOT NULL", column(p))
        });
        let same_spelling = all(&table.primary_key, |p| {
            let k = column(p);
            format!(
                "typeof({name}.{k}) = typeof(excluded.{k}) \
                 AND +{name}.{k} = excluded.{k} COLLATE BINARY"
            )
        });
        Self {
            read: read_where(equal(table, 1, "r.")),
            read_spellings: read_spellings(table, &read_all),
            read_null_keys: {
                let null = |p| format!("r.{} IS NULL", column(p));
                let any: Vec<_> = table.primary_key.iter().map(null).collect();
                format!("{} LIMIT ?1", read_where(format!("({})", any.join(" OR "))))
            },
            scan: format!("{} ORDER BY {keys} LIMIT ?1", read_where(has_key.clone())),
            scan_after: format!(
                "{} ORDER BY {keys} LIMIT ?{}",
                read_where(format!("({keys}) > ({}) AND {has_key}", marks(1, count))),
                count + 1
            ),
            read_all,
            insert_returning: format!("{insert} RETURNING {keys}"),
            upsert: format!(
                "{insert} ON CONFLICT({keys}) DO UPDATE SET {sets} WHERE {same_spelling}"
            ),
            insert,
            delete: format!("DELETE FROM {name} WHERE {}", identical(table, 1)),
            delete_stored: format!("DELETE FROM {name} WHERE {}", equal(table, 1, "")),
            has_uuid_key: table
                .primary_key
                .iter()
                .any(|&p| table.columns[p].ty == ColumnType::Uuid),
            written_positions,
            value_positions,
            or,
        }
    }

    /// Parameters: the values of `changed`, then the canonical key, compared bytewise.
    pub(super) fn update(&self, table: &Table, changed: &[usize]) -> String {
        self.update_where(table, changed, &identical(table, changed.len() + 1))
    }

    /// Parameters: the values of `changed`, then the key as it is stored.
    pub(super) fn update_stored(&self, table: &Table, changed: &[usize]) -> String {
        self.update_where(table, changed, &equal(table, changed.len() + 1, ""))
    }

    /// Parameters from `first` on: the key as it is stored.
    pub(super) fn by_key(&self, table: &Table, first: usize) -> String {
        equal(table, first, "")
    }

    fn update_where(&self, table: &Table, changed: &[usize], condition: &str) -> String {
        let sets = list(changed.iter().enumerate(), |(i, &p)| {
            format!("{} = ?{}", quoted(&table.columns[p].name), i + 1)
        });
        format!(
            "UPDATE {}{} SET {sets} WHERE {condition}",
            self.or,
            quoted(&table.name)
        )
    }
}

/// For `IN` SQLite makes a table of what is looked for, each time, at the price of four look-ups
/// beside which it is little. So there is one for each spelling, as long as one column has any.
fn read_spellings(table: &Table, read_all: &str) -> String {
    let column = |p: usize| quoted(&table.columns[p].name);
    let keys = || table.primary_key.iter().enumerate();
    let is_uuid = |&&p: &&usize| table.columns[p].ty == ColumnType::Uuid;
    if table.primary_key.iter().filter(is_uuid).count() == 1 {
        let spelled = |s: usize| {
            let place = |i: usize| 1 + i * SPELLINGS + s;
            let same = all(keys(), |(i, &p)| format!("r.{} = ?{}", column(p), place(i)));
            format!("{read_all} WHERE {same}")
        };
        let each: Vec<_> = (0..SPELLINGS).map(spelled).collect();
        return each.join(" UNION ALL ");
    }
    let any = |i: usize| {
        list(1 + i * SPELLINGS..1 + (i + 1) * SPELLINGS, |i| {
            format!("?{i}")
        })
    };
    let same = all(keys(), |(i, &p)| format!("r.{} IN ({})", column(p), any(i)));
    format!("{read_all} WHERE {same}")
}

/// The ways of writing the canonical UUID `text` in which it is looked for.
pub(crate) fn uuid_spellings(text: &str) -> [String; SPELLINGS] {
    let plain = text.replace('-', "");
    [
        text.to_ascii_uppercase(),
        plain.to_ascii_uppercase(),
        plain,
        text.to_owned(),
    ]
}

/// The parameters of [`Statements::read_spellings`]: four for each key column.
pub(super) fn spellings(table: &Table, key: &[Value]) -> Vec<Raw> {
    let spelled = |(value, &p): (&Value, &usize)| -> [Raw; SPELLINGS] {
        let raw = Raw::from(value.clone());
        match (value, table.columns[p].ty) {
            (Value::Text(text), ColumnType::Uuid) => {
                uuid_spellings(text).map(|text| Raw::Text(text.into_bytes()))
            }
            _ => [raw.clone(), raw.clone(), raw.clone(), raw],
        }
    };
    key.iter()
        .zip(&table.primary_key)
        .flat_map(spelled)
        .collect()
}

/// The key columns equal the parameters as the key's index sees it.
fn equal(table: &Table, first: usize, alias: &str) -> String {
    all(table.primary_key.iter().enumerate(), |(i, &p)| {
        format!("{alias}{} = ?{}", quoted(&table.columns[p].name), first + i)
    })
}

/// The key columns equal the parameters, and in storage class and bytes too.
fn identical(table: &Table, first: usize) -> String {
    all(table.primary_key.iter().enumerate(), |(i, &p)| {
        let (k, i) = (quoted(&table.columns[p].name), first + i);
        format!("{k} = ?{i} AND typeof({k}) = typeof(?{i}) AND +{k} = ?{i} COLLATE BINARY")
    })
}
