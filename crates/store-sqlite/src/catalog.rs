//! The tables that sync, as this storage works with them.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use syncline_core::{
    ColumnType, Schema, Table, TableNumber, Value,
    schema::OnDelete,
    sql::{Affinity, quote},
};
use syncline_store::{StorageError, WriteKind};

use crate::{
    fault::{Fault, Result},
    introspect::{Found, Term},
    rows::UUID_SPELLINGS,
};

/// All tables that sync, by number.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) entries: BTreeMap<TableNumber, Arc<Entry>>,
    /// The database's schema version that this was read at.
    pub(crate) schema_version: i64,
}

impl Catalog {
    pub(crate) fn entry(&self, table: TableNumber) -> Result<&Arc<Entry>> {
        self.entries.get(&table).ok_or_else(|| {
            Fault::Storage(StorageError::Failed(
                format!(
                    "no table has the number {}: apply the schema first",
                    table.0
                )
                .into(),
            ))
        })
    }

    pub(crate) fn schema(&self) -> Schema {
        Schema {
            tables: self
                .entries
                .values()
                .map(|entry| entry.table.clone())
                .collect(),
        }
    }
}

/// One table and the SQL that reads and writes it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) table: Table,
    /// Aligned with the columns: what the database may do to canonical values; `None`: nothing.
    conversions: Vec<Option<Affinity>>,
    /// Positions of columns that some unique constraint besides the primary key looks at.
    pub(crate) uniques: Vec<usize>,
    /// Whether a row's image is all there is of it: no column is left out, so a row that is
    /// deleted and inserted again is the same row.
    pub(crate) is_whole: bool,
    /// Positions of columns that are neither generated nor part of the key.
    pub(crate) values: Vec<usize>,
    /// Key columns of type uuid, by place in the key: their text may be stored in capitals.
    pub(crate) uuid_keys: Vec<usize>,
    /// For insert, update, delete.
    reacts: [bool; 3],
    pub(crate) text: Text,
}

/// Statements that take a key, and parts of others.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) name: String,
    /// Every column, NULL for generated ones.
    pub(crate) columns: String,
    pub(crate) read: String,
    /// Every row whose key is one of the spellings of a key with UUIDs, by its key columns.
    pub(crate) respelled: String,
    pub(crate) exists: String,
    /// With every column but generated ones.
    pub(crate) insert: String,
    pub(crate) delete: String,
    pub(crate) inbox: String,
    pub(crate) is_marked: String,
    pub(crate) unmark: String,
}

impl Entry {
    /// `children`: the foreign keys of all tables that reference this one, with their table.
    pub(crate) fn new(
        table: Table,
        found: &Found,
        triggers: &[[bool; 3]],
        children: &[Child],
    ) -> Self {
        let conversions = table
            .columns
            .iter()
            .map(|c| Some(found.affinity(&c.name)).filter(|affinity| !affinity.fits(c.ty)))
            .collect();
        let values = (0..table.columns.len())
            .filter(|&i| !table.columns[i].generated && !table.is_key(i))
            .collect();
        let uuid_keys: Vec<usize> = (0..table.primary_key.len())
            .filter(|&i| table.columns[table.primary_key[i]].ty == ColumnType::Uuid)
            .collect();
        let reacts = reacts(triggers, children);
        let text = Text::new(&table, &uuid_keys, reacts[0]);
        let uniques = uniques(&table, found);
        let is_whole = found
            .columns
            .iter()
            .all(|c| table.position(&c.name).is_some());
        Self {
            table,
            conversions,
            uniques,
            is_whole,
            values,
            uuid_keys,
            reacts,
            text,
        }
    }

    /// Whether the database stores this value of the column at `position` as it is.
    pub(crate) fn keeps(&self, position: usize, value: &Value) -> bool {
        self.conversions[position].is_none_or(|affinity| affinity.keeps(value))
    }

    pub(crate) fn reacts(&self, kind: WriteKind) -> bool {
        match kind {
            WriteKind::Insert => self.reacts[0],
            WriteKind::Update => self.reacts[1],
            WriteKind::Delete => self.reacts[2],
        }
    }

    /// The statement that sets the columns at `positions` of one row.
    pub(crate) fn update(&self, positions: &[usize]) -> String {
        let sets: Vec<_> = positions
            .iter()
            .enumerate()
            .map(|(i, &p)| format!("{} = ?{}", quote(&self.table.columns[p].name), i + 1))
            .collect();
        format!(
            "UPDATE {}{} SET {} WHERE {}",
            or_abort(self.reacts[1]),
            self.text.name,
            sets.join(", "),
            key_condition(&self.table, positions.len()),
        )
    }

    /// The statement that inserts a row, leaving the columns at `defaults` to the database.
    pub(crate) fn insert(&self, defaults: &[usize]) -> Cow<'_, str> {
        match defaults {
            [] => Cow::Borrowed(&self.text.insert),
            _ => Cow::Owned(insert(&self.table, defaults, self.reacts[0])),
        }
    }

    /// Positions that [`Entry::insert`] binds, in order.
    pub(crate) fn inserted<'a>(
        &'a self,
        defaults: &'a [usize],
    ) -> impl Iterator<Item = usize> + Clone + 'a {
        (0..self.table.columns.len())
            .filter(move |i| !self.table.columns[*i].generated && !defaults.contains(i))
    }
}

fn uniques(table: &Table, found: &Found) -> Vec<usize> {
    let indexes: Vec<_> = found
        .indexes
        .iter()
        .filter(|i| i.unique && !i.of_key)
        .collect();
    let is_in = |name: &str| {
        indexes
            .iter()
            .flat_map(|index| &index.terms)
            .any(|term| match term {
                Term::Column { position, .. } => {
                    found.columns[*position].name.eq_ignore_ascii_case(name)
                }
                Term::Expression { .. } => true,
            })
    };
    let columns = table.columns.iter().enumerate();
    columns
        .filter(|(i, column)| !column.generated && !table.is_key(*i) && is_in(&column.name))
        .map(|(i, _)| i)
        .collect()
}

/// A foreign key that references a table.
#[derive(Debug, Clone)]
pub(crate) struct Child {
    pub(crate) on_delete: OnDelete,
    /// `None` when the referenced columns never change: they are the primary key.
    pub(crate) on_update: Option<OnDelete>,
}

/// Whether inserting, updating or deleting a row may change anything else.
fn reacts(triggers: &[[bool; 3]], children: &[Child]) -> [bool; 3] {
    let fires = |event: usize| triggers.iter().any(|events| events[event]);
    let acts = |action: OnDelete| match action {
        OnDelete::Cascade | OnDelete::SetNull | OnDelete::SetDefault => true,
        OnDelete::NoAction | OnDelete::Restrict => false,
    };
    let updates = children
        .iter()
        .any(|child| child.on_update.is_some_and(acts));
    let deletes = children.iter().any(|child| acts(child.on_delete));
    [fires(0), fires(1) || updates, fires(2) || deletes]
}

impl Text {
    fn new(table: &Table, uuid_keys: &[usize], reacts_to_insert: bool) -> Self {
        let name = quote(&table.name);
        let columns: Vec<_> = table
            .columns
            .iter()
            .map(|c| {
                if c.generated {
                    "NULL".to_owned()
                } else {
                    quote(&c.name)
                }
            })
            .collect();
        let columns = columns.join(", ");
        let by_key = key_condition(table, 0);
        let inbox = quote(&inbox_name(table.number));
        let marked: Vec<_> = (1..=table.primary_key.len())
            .map(|i| format!("k{i} = ?{i}"))
            .collect();
        let marked = marked.join(" AND ");
        Self {
            read: format!("SELECT {columns} FROM {name} WHERE {by_key}"),
            respelled: respelled(table, uuid_keys),
            insert: insert(table, &[], reacts_to_insert),
            exists: format!("SELECT EXISTS (SELECT 1 FROM {name} WHERE {by_key})"),
            delete: format!("DELETE FROM {name} WHERE {by_key}"),
            is_marked: format!("SELECT EXISTS (SELECT 1 FROM {inbox} WHERE {marked})"),
            unmark: format!("DELETE FROM {inbox} WHERE {marked}"),
            name,
            columns,
            inbox,
        }
    }
}

/// OR ABORT overrules an ON CONFLICT clause of the table, under which a write would evict other
/// rows; but it would also overrule those of the statements in the app's triggers. Where there
/// are some, evictions are caught like everything else they do.
fn or_abort(reacts: bool) -> &'static str {
    if reacts { "" } else { "OR ABORT " }
}

fn insert(table: &Table, defaults: &[usize], reacts: bool) -> String {
    let names: Vec<_> = (0..table.columns.len())
        .filter(|i| !table.columns[*i].generated && !defaults.contains(i))
        .map(|i| quote(&table.columns[i].name))
        .collect();
    let places: Vec<_> = (1..=names.len()).map(|i| format!("?{i}")).collect();
    format!(
        "INSERT {}INTO {} ({}) VALUES ({})",
        or_abort(reacts),
        quote(&table.name),
        names.join(", "),
        places.join(", "),
    )
}

/// Binds the spellings of UUIDs one after the other, other values of the key as they are.
fn respelled(table: &Table, uuid_keys: &[usize]) -> String {
    let names: Vec<_> = table
        .primary_key
        .iter()
        .map(|&p| quote(&table.columns[p].name))
        .collect();
    if let [name] = &names[..] {
        // IN would make a table of them each time.
        let table = quote(&table.name);
        let each =
            (1..=UUID_SPELLINGS).map(|n| format!("SELECT {name} FROM {table} WHERE {name} = ?{n}"));
        return each.collect::<Vec<_>>().join(" UNION ALL ");
    }
    let mut bound = 0;
    let conditions: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(i, name)| {
            let spellings = match uuid_keys.contains(&i) {
                true => UUID_SPELLINGS,
                false => 1,
            };
            let places: Vec<_> = (bound + 1..=bound + spellings)
                .map(|n| format!("?{n}"))
                .collect();
            bound += spellings;
            format!("{name} IN ({})", places.join(", "))
        })
        .collect();
    format!(
        "SELECT {} FROM {} WHERE {}",
        names.join(", "),
        quote(&table.name),
        conditions.join(" AND ")
    )
}

/// `k1 = ? AND k2 = ?` with parameters numbered after `bound`.
fn key_condition(table: &Table, bound: usize) -> String {
    let parts: Vec<_> = table
        .primary_key
        .iter()
        .enumerate()
        .map(|(i, &p)| format!("{} = ?{}", quote(&table.columns[p].name), bound + i + 1))
        .collect();
    parts.join(" AND ")
}

/// The table that holds the marks of the table with this number.
pub(crate) fn inbox_name(table: TableNumber) -> String {
    format!("syncline_inbox_{}", table.0)
}
