//! Rows as the checks compare them: of the server and of devices, as SQL literals.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::DefaultHasher},
    hash::BuildHasherDefault,
    rc::Rc,
};

use rusqlite::{
    Connection,
    types::{ToSqlOutput, ValueRef},
};
use syncline_core::{RowKey, Value};

use crate::schema::{TableShape, has_effort};

/// Rows that a [`Reader`] remembers at most, for the memory's sake.
const KNOWN_MAX: usize = 200_000;

/// In place of a value whose column is not there (yet).
const ABSENT: &str = "absent";

/// Names a row: table and key, as SQL literals with commas.
pub(crate) type RowName = (&'static str, Rc<str>);

/// A row's columns after the key, as SQL literals.
pub(crate) type Values = Rc<[String]>;

/// All rows of a database.
pub(crate) type Rows = BTreeMap<RowName, Values>;

/// Without chance, as everything here.
type Hashed<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

/// Reads rows, and shares those that it has read before: nearly all of them are what they were a
/// moment ago, on the server and on each device.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// By table, and by all bytes of the row.
    rows: BTreeMap<&'static str, Hashed<Vec<u8>, (RowName, Values)>>,
    keys: Hashed<Vec<u8>, Rc<str>>,
    texts: BTreeSet<Rc<str>>,
    known: usize,
}

impl Reader {
    /// Everything in these tables of the app.
    pub(crate) fn read<'a>(
        &mut self,
        conn: &Connection,
        tables: impl IntoIterator<Item = &'a TableShape>,
    ) -> rusqlite::Result<Rows> {
        if self.known > KNOWN_MAX {
            *self = Self::default();
        }
        let mut rows = Vec::new();
        for table in tables {
            self.read_table(conn, table, &mut rows)?;
        }
        // Of what is sorted already this is one pass.
        Ok(rows.into_iter().collect())
    }

    fn read_table(
        &mut self,
        conn: &Connection,
        table: &TableShape,
        rows: &mut Vec<(RowName, Values)>,
    ) -> rusqlite::Result<()> {
        let absent = match table.columns.iter().position(|name| *name == "effort") {
            Some(at) if !has_effort(conn)? => Some(table.key.len() + at),
            Some(_) | None => None,
        };
        let columns: Vec<_> = [table.key, table.columns].concat();
        let sql = format!(
            "SELECT {} FROM \"{}\"",
            columns.join(", "),
            table.name.replace('"', "\"\"")
        );
        let sql = match absent {
            Some(_) => sql.replace(", effort", ", NULL"),
            None => sql,
        };
        let known = self.rows.entry(table.name).or_default();
        let mut statement = conn.prepare_cached(&sql)?;
        let mut found = statement.query([])?;
        let mut bytes = Vec::new();
        while let Some(row) = found.next()? {
            bytes.clear();
            for i in 0..columns.len() {
                match absent == Some(i) {
                    true => bytes.push(b'-'),
                    false => put(&mut bytes, row.get_ref(i)?),
                }
            }
            if let Some(known) = known.get(&bytes) {
                rows.push(known.clone());
                continue;
            }
            let literals = (0..columns.len())
                .map(|i| match absent == Some(i) {
                    true => Ok(ABSENT.to_owned()),
                    false => quote(conn, row.get_ref(i)?),
                })
                .collect::<rusqlite::Result<Vec<String>>>()?;
            let (key, values) = literals.split_at(table.key.len());
            let row = ((table.name, key.join(",").into()), values.into());
            known.insert(bytes.clone(), Clone::clone(&row));
            self.known += 1;
            rows.push(row);
        }
        Ok(())
    }

    /// The key of a [`RowName`].
    pub(crate) fn key(&mut self, bytes: &[u8]) -> anyhow::Result<Rc<str>> {
        if let Some(known) = self.keys.get(bytes) {
            return Ok(Rc::clone(known));
        }
        let key: Rc<str> = literal_key(&RowKey::from_bytes(bytes)?).into();
        self.keys.insert(bytes.to_vec(), Rc::clone(&key));
        self.known += 1;
        Ok(key)
    }

    /// A text of which there are few.
    pub(crate) fn text(&mut self, text: &str) -> Rc<str> {
        if let Some(known) = self.texts.get(text) {
            return Rc::clone(known);
        }
        let text: Rc<str> = text.into();
        self.texts.insert(Rc::clone(&text));
        text
    }
}

/// Appends a value so that no other value has the same bytes, nor any that follow.
fn put(bytes: &mut Vec<u8>, value: ValueRef<'_>) {
    let (kind, content): (u8, &[u8]) = match value {
        ValueRef::Null => (b'0', &[]),
        ValueRef::Integer(n) => (b'i', &n.to_le_bytes()),
        ValueRef::Real(x) => (b'r', &x.to_le_bytes()),
        ValueRef::Text(text) => (b't', text),
        ValueRef::Blob(blob) => (b'b', blob),
    };
    bytes.push(kind);
    if matches!(kind, b't' | b'b') {
        bytes.extend_from_slice(&content.len().to_le_bytes());
    }
    bytes.extend_from_slice(content);
}

/// As SQLite writes it.
fn quote(conn: &Connection, value: ValueRef<'_>) -> rusqlite::Result<String> {
    let mut statement = conn.prepare_cached("SELECT quote(?1)")?;
    statement.query_row([ToSqlOutput::Borrowed(value)], |row| row.get(0))
}

/// Leaves out the column that boards did not begin with.
pub(crate) fn without_effort(rows: &mut Rows) {
    for ((table, _), values) in rows.iter_mut() {
        if *table == "boards"
            && let Some(effort) = Rc::make_mut(values).last_mut()
        {
            ABSENT.clone_into(effort);
        }
    }
}

/// The rows of both, name by name.
pub(crate) fn side_by_side<'a>(
    one: &'a Rows,
    other: &'a Rows,
) -> impl Iterator<Item = (&'a RowName, Option<&'a Values>, Option<&'a Values>)> {
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (one.peek(), other.peek()) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            // A key that is shared is that of one table's row.
            (Some((name, _)), Some((at, _))) if Rc::ptr_eq(&name.1, &at.1) => Ordering::Equal,
            (Some((name, _)), Some((at, _))) => name.cmp(at),
        };
        let one = one.next_if(|_| order.is_le());
        let other = other.next_if(|_| order.is_ge());
        let (name, _) = one.or(other)?;
        Some((name, one.map(|row| row.1), other.map(|row| row.1)))
    })
}

/// Whether two versions of a row are equal in all columns that both sides have.
pub(crate) fn agree(one: &[String], other: &[String]) -> bool {
    let is_there = |value: &String| value != ABSENT;
    one.len() == other.len()
        && std::iter::zip(one, other)
            .all(|(one, other)| one == other || !is_there(one) || !is_there(other))
}

/// A key as [`RowName`] has it.
pub(crate) fn literal_key(key: &RowKey) -> String {
    let values = key.decode().unwrap_or_default();
    values.iter().map(literal).collect::<Vec<_>>().join(",")
}

pub(crate) fn literal(value: &Value) -> String {
    match value {
        Value::Integer(n) => n.to_string(),
        Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Value::Blob(bytes) => {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
            format!("X'{digits}'")
        }
        Value::Real(x) => format!("{x:?}"),
        Value::Null => "NULL".into(),
    }
}
