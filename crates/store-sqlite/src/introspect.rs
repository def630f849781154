//! A table as the database has it.

use rusqlite::{Connection, OptionalExtension as _};
use syncline_core::{
    Column, ColumnNumber, MergeStrategy, Table, TableNumber,
    schema::{ForeignKey, FurtherIndex, OnDelete, RuleTexts, SyncMode},
    sql::{self, Affinity, IndexText, TableText, index_text, table_text},
};

use crate::fault::Result;

/// How the names of indexes begin that are made for lookups of rules.
pub(crate) const LOOKUP_INDEX: &str = "syncline_ix_";

/// A table as found, with what a [`Table`] does not hold.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// As the database spells it.
    pub(crate) name: String,
    /// `table`, `view`, `virtual` or `shadow`.
    pub(crate) kind: String,
    /// What no PRAGMA tells.
    pub(crate) text: TableText,
    pub(crate) columns: Vec<FoundColumn>,
    /// Positions, in key order; empty without a primary key.
    pub(crate) key: Vec<usize>,
    pub(crate) without_rowid: bool,
    pub(crate) indexes: Vec<FoundIndex>,
    pub(crate) foreign_keys: Vec<FoundKey>,
}

#[derive(Debug, Clone)]
pub(crate) struct FoundColumn {
    pub(crate) name: String,
    pub(crate) declared: String,
    pub(crate) not_null: bool,
    pub(crate) default: Option<String>,
    pub(crate) generated: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct FoundIndex {
    /// Of an index that a statement of its own made; `None`: it belongs to the table's text.
    pub(crate) made_as: Option<String>,
    pub(crate) unique: bool,
    /// It enforces the primary key.
    pub(crate) of_key: bool,
    pub(crate) terms: Vec<Term>,
    /// Only rows for which this holds are in it.
    pub(crate) condition: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Term {
    Column {
        position: usize,
        collation: String,
        descending: bool,
    },
    Expression {
        /// Its SQL text.
        text: String,
        descending: bool,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct FoundKey {
    pub(crate) columns: Vec<String>,
    pub(crate) parent: String,
    /// Empty for the parent's primary key.
    pub(crate) parent_columns: Vec<String>,
    pub(crate) on_delete: OnDelete,
    pub(crate) on_update: OnDelete,
}

impl FoundIndex {
    /// Whether one of its terms is the column at this position.
    pub(crate) fn is_over(&self, column: usize) -> bool {
        let is_it =
            |term: &Term| matches!(term, Term::Column { position, .. } if *position == column);
        self.terms.iter().any(is_it)
    }

    /// Whether it was made for lookups of rules: nothing that devices should have too.
    fn is_ours(&self) -> bool {
        self.made_as
            .as_deref()
            .is_some_and(|name| name.starts_with(LOOKUP_INDEX))
    }

    /// Positions when it is over nothing but columns and holds every row.
    pub(crate) fn plain_columns(&self) -> Option<Vec<usize>> {
        if self.condition.is_some() {
            return None;
        }
        self.terms
            .iter()
            .map(|term| match term {
                Term::Column { position, .. } => Some(*position),
                Term::Expression { .. } => None,
            })
            .collect()
    }
}

/// The table, view or virtual table called `name` (ASCII case ignored).
pub(crate) fn find(conn: &Connection, name: &str) -> Result<Option<Found>> {
    let sql = "SELECT name, type, wr FROM pragma_table_list(?1) WHERE schema = 'main'";
    let head = conn
        .prepare_cached(sql)?
        .query_row([name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((name, kind, without_rowid)) = head else {
        return Ok(None);
    };
    let name: String = name;
    let (columns, key) = columns(conn, &name)?;
    let indexes = indexes(conn, &name)?;
    let text = "SELECT sql FROM sqlite_schema WHERE name = ?1 AND type IN ('table', 'view')";
    let sql: Option<Option<String>> = conn
        .prepare_cached(text)?
        .query_row([&name], |row| row.get(0))
        .optional()?;
    let foreign_keys = foreign_keys(conn, &name)?;
    Ok(Some(Found {
        name,
        kind,
        text: sql
            .flatten()
            .map(|sql| table_text(&sql))
            .unwrap_or_default(),
        columns,
        key,
        without_rowid,
        indexes,
        foreign_keys,
    }))
}

fn columns(conn: &Connection, table: &str) -> Result<(Vec<FoundColumn>, Vec<usize>)> {
    let sql = "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1)
               ORDER BY cid";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([table])?;
    let mut columns = Vec::new();
    let mut key: Vec<(i64, usize)> = Vec::new();
    while let Some(row) = rows.next()? {
        let place: i64 = row.get(4)?;
        if place > 0 {
            key.push((place, columns.len()));
        }
        let hidden: i64 = row.get(5)?;
        columns.push(FoundColumn {
            name: row.get(0)?,
            declared: row.get(1)?,
            not_null: row.get(2)?,
            default: row.get(3)?,
            generated: hidden > 1,
        });
    }
    key.sort_unstable();
    Ok((
        columns,
        key.into_iter().map(|(_, position)| position).collect(),
    ))
}

fn indexes(conn: &Connection, table: &str) -> Result<Vec<FoundIndex>> {
    let list = "SELECT l.name, l.\"unique\", l.origin, s.sql
                FROM pragma_index_list(?1) l
                LEFT JOIN sqlite_schema s ON s.type = 'index' AND s.name = l.name ORDER BY l.seq";
    let mut statement = conn.prepare_cached(list)?;
    let mut rows = statement.query([table])?;
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let origin: String = row.get(2)?;
        let sql: Option<String> = row.get(3)?;
        let text = sql.as_deref().map(index_text).unwrap_or_default();
        out.push(FoundIndex {
            made_as: sql.is_some().then(|| name.clone()),
            unique: row.get(1)?,
            of_key: origin == "pk",
            terms: terms(conn, &name, &text)?,
            condition: text.predicate,
        });
    }
    Ok(out)
}

fn terms(conn: &Connection, index: &str, text: &IndexText) -> Result<Vec<Term>> {
    let sql = "SELECT cid, coll, \"desc\" FROM pragma_index_xinfo(?1) WHERE key = 1 ORDER BY seqno";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([index])?;
    let mut terms = Vec::new();
    while let Some(row) = rows.next()? {
        let cid: i64 = row.get(0)?;
        let term = match usize::try_from(cid) {
            Ok(position) => Term::Column {
                position,
                collation: row.get(1)?,
                descending: row.get(2)?,
            },
            Err(_) => Term::Expression {
                text: text.terms.get(terms.len()).cloned().unwrap_or_default(),
                descending: row.get(2)?,
            },
        };
        terms.push(term);
    }
    Ok(terms)
}

pub(crate) fn foreign_keys(conn: &Connection, table: &str) -> Result<Vec<FoundKey>> {
    let sql = "SELECT id, \"table\", \"from\", \"to\", on_delete, on_update
               FROM pragma_foreign_key_list(?1) ORDER BY id, seq";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([table])?;
    let mut out: Vec<FoundKey> = Vec::new();
    let mut last = None;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let action = |column| -> rusqlite::Result<OnDelete> {
            Ok(OnDelete::parse(&row.get::<_, String>(column)?).unwrap_or_default())
        };
        if last != Some(id) {
            last = Some(id);
            out.push(FoundKey {
                columns: Vec::new(),
                parent: row.get(1)?,
                parent_columns: Vec::new(),
                on_delete: action(4)?,
                on_update: action(5)?,
            });
        }
        let key = out.last_mut().expect("pushed with its first column");
        key.columns.push(row.get(2)?);
        key.parent_columns.extend(row.get::<_, Option<String>>(3)?);
    }
    Ok(out)
}

impl Found {
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.columns
            .iter()
            .position(|column| column.name.eq_ignore_ascii_case(name))
    }

    pub(crate) fn affinity(&self, name: &str) -> Affinity {
        let declared = self
            .position(name)
            .map(|i| self.columns[i].declared.as_str());
        Affinity::of(declared.unwrap_or_default())
    }

    /// The table in portable words; numbers, rules and strategies are the caller's to fill in.
    pub(crate) fn table(&self) -> Table {
        let text = |name: &str| {
            self.text
                .columns
                .iter()
                .find(|text| text.name.eq_ignore_ascii_case(name))
        };
        let columns = self.columns.iter().map(|column| Column {
            name: column.name.clone(),
            number: ColumnNumber(0),
            ty: sql::column_type(&column.declared),
            not_null: column.not_null,
            default: column.default.as_deref().map(sql::default_text),
            check: text(&column.name).and_then(|text| text.check.clone()),
            collate: text(&column.name)
                .and_then(|text| text.collate.clone())
                .filter(|collation| !collation.eq_ignore_ascii_case("BINARY")),
            generated: column.generated,
            computed: text(&column.name)
                .and_then(|text| text.computed.clone())
                .filter(|_| column.generated),
            declared: sql::unusual_type(
                &column.declared,
                sql::column_type(&column.declared),
                self.text.strict,
            ),
            merge: MergeStrategy::default(),
            encrypted: None,
            merge_paths: std::collections::BTreeMap::new(),
        });
        Table {
            name: self.name.clone(),
            number: TableNumber(0),
            columns: columns.collect(),
            primary_key: self.key.clone(),
            uniques: self.plain_indexes(true),
            indexes: self.plain_indexes(false),
            further_indexes: self.further_indexes(),
            checks: self.text.checks.clone(),
            foreign_keys: self
                .foreign_keys
                .iter()
                .filter_map(|key| self.foreign_key(key))
                .collect(),
            without_rowid: self.without_rowid,
            strict: self.text.strict,
            autoincrement: self.text.autoincrement,
            sync: SyncMode::default(),
            update_wins: false,
            rules: RuleTexts::default(),
            force: std::collections::BTreeMap::new(),
        }
    }

    fn plain_indexes(&self, unique: bool) -> Vec<Vec<usize>> {
        let wanted = self
            .indexes
            .iter()
            .filter(|index| index.unique == unique && !index.of_key && !index.is_ours());
        wanted
            .filter(|index| self.further(index).is_none())
            .filter_map(FoundIndex::plain_columns)
            .collect()
    }

    pub(crate) fn further_indexes(&self) -> Vec<FurtherIndex> {
        let wanted = self
            .indexes
            .iter()
            .filter(|index| !index.of_key && !index.is_ours());
        let mut found: Vec<_> = wanted.filter_map(|index| self.further(index)).collect();
        found.sort_by_key(|index| !index.unique);
        found
    }

    /// The index, if it is more than a list of columns.
    fn further(&self, index: &FoundIndex) -> Option<FurtherIndex> {
        let other = |position: usize, collation: &str| {
            let name = &self.columns[position].name;
            let text = self.text.columns.iter();
            let own = text
                .filter(|text| text.name.eq_ignore_ascii_case(name))
                .find_map(|text| text.collate.as_deref());
            !own.unwrap_or("BINARY").eq_ignore_ascii_case(collation)
        };
        let is_plain = |term: &Term| match term {
            // In which order values are kept matters to no UNIQUE.
            Term::Column {
                position,
                collation,
                descending,
            } => !other(*position, collation) && (index.unique || !descending),
            Term::Expression { .. } => false,
        };
        if index.condition.is_none() && index.terms.iter().all(is_plain) {
            return None;
        }
        let text = |term: &Term| match term {
            Term::Column {
                position,
                collation,
                descending,
            } => {
                let name = sql::quote(&self.columns[*position].name);
                let collation = other(*position, collation).then_some(collation.as_str());
                sql::index_term(&name, collation, *descending)
            }
            Term::Expression { text, descending } => sql::index_term(text, None, *descending),
        };
        let terms: Vec<_> = index.terms.iter().map(text).collect();
        Some(FurtherIndex {
            unique: index.unique,
            terms: terms.join(", "),
            condition: index.condition.clone(),
        })
    }

    fn foreign_key(&self, key: &FoundKey) -> Option<ForeignKey> {
        Some(ForeignKey {
            columns: key
                .columns
                .iter()
                .map(|name| self.position(name))
                .collect::<Option<_>>()?,
            parent: key.parent.clone(),
            parent_columns: key.parent_columns.clone(),
            on_delete: key.on_delete,
        })
    }
}
