//! A table exactly as this database has it: more than a [`syncline_core::Table`] says, because
//! capture must know every way in which a row can be found or evicted.

use rusqlite::{Connection, params};

use syncline_core::{
    schema::{Computed, FurtherIndex},
    sql::{self, IndexText, Kind, Token, index_text, table_text, tokens},
};

use crate::{
    objects::{Object, Objects},
    sql::{literal, quoted},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) name: String,
    pub(crate) columns: Vec<ShapeColumn>,
    /// Positions in `columns`, in key order; empty without a primary key.
    pub(crate) primary_key: Vec<usize>,
    pub(crate) without_rowid: bool,
    pub(crate) strict: bool,
    pub(crate) autoincrement: bool,
    /// The key column is the rowid itself.
    pub(crate) rowid_key: bool,
    /// A name by which statements can reach the rowid, if no column hides it.
    pub(crate) rowid_name: Option<&'static str>,
    pub(crate) indexes: Vec<ShapeIndex>,
    pub(crate) foreign_keys: Vec<ShapeForeignKey>,
    /// CHECKs of the table as a whole.
    pub(crate) checks: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShapeColumn {
    pub(crate) name: String,
    pub(crate) declared: String,
    pub(crate) not_null: bool,
    pub(crate) default: Option<String>,
    pub(crate) generated: bool,
    pub(crate) computed: Option<Computed>,
    pub(crate) check: Option<String>,
    pub(crate) collate: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShapeIndex {
    pub(crate) name: String,
    pub(crate) unique: bool,
    pub(crate) is_primary_key: bool,
    pub(crate) terms: Vec<Term>,
    /// The condition of a partial index.
    pub(crate) predicate: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Term {
    pub(crate) of: TermOf,
    pub(crate) collation: String,
    pub(crate) descending: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TermOf {
    /// A position in [`Shape::columns`].
    Column(usize),
    /// SQL text over the table's columns.
    Expression(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShapeForeignKey {
    pub(crate) parent: String,
    /// Positions in [`Shape::columns`].
    pub(crate) columns: Vec<usize>,
    /// Empty for the parent's primary key.
    pub(crate) parent_columns: Vec<String>,
    pub(crate) on_delete: String,
}

impl ShapeIndex {
    /// Positions of its columns, if it covers every row and nothing but columns.
    pub(crate) fn plain_columns(&self) -> Option<Vec<usize>> {
        if self.predicate.is_some() {
            return None;
        }
        self.terms
            .iter()
            .map(|term| match term.of {
                TermOf::Column(position) => Some(position),
                TermOf::Expression(_) => None,
            })
            .collect()
    }
}

impl Shape {
    /// The index as a [`FurtherIndex`], if it is more than a list of columns.
    pub(crate) fn further(&self, index: &ShapeIndex) -> Option<FurtherIndex> {
        let is_plain = |term: &Term| match &term.of {
            // In which order values are kept matters to no UNIQUE.
            TermOf::Column(position) => {
                self.has_collation(*position, &term.collation) && (index.unique || !term.descending)
            }
            TermOf::Expression(_) => false,
        };
        if index.predicate.is_none() && index.terms.iter().all(is_plain) {
            return None;
        }
        let text = |term: &Term| match &term.of {
            TermOf::Column(position) => {
                let other = !self.has_collation(*position, &term.collation);
                let collation = other.then_some(term.collation.as_str());
                let name = quoted(&self.columns[*position].name);
                sql::index_term(&name, collation, term.descending)
            }
            TermOf::Expression(text) => sql::index_term(text, None, term.descending),
        };
        let terms: Vec<_> = index.terms.iter().map(text).collect();
        Some(FurtherIndex {
            unique: index.unique,
            terms: terms.join(", "),
            condition: index.predicate.clone(),
        })
    }

    /// Whether an expression has to be computed to write a row.
    pub(crate) fn computes(&self) -> bool {
        let of_column = |column: &ShapeColumn| {
            let default = column.default.as_deref();
            column.computed.is_some()
                || column.check.is_some()
                || default.is_some_and(|text| text.contains('('))
        };
        let is_expression = |term: &Term| matches!(term.of, TermOf::Expression(_));
        let of_index =
            |index: &ShapeIndex| index.predicate.is_some() || index.terms.iter().any(is_expression);
        !self.checks.is_empty()
            || self.columns.iter().any(of_column)
            || self.indexes.iter().any(of_index)
    }

    fn has_collation(&self, position: usize, collation: &str) -> bool {
        let own = self.columns[position].collate.as_deref();
        own.unwrap_or("BINARY").eq_ignore_ascii_case(collation)
    }

    /// The ordinary table called `name`; `None` if there is none.
    pub(crate) fn read(conn: &Connection, name: &str) -> rusqlite::Result<Option<Self>> {
        Self::of(conn, &Objects::read_one(conn, name)?, name)
    }

    /// The same, among the objects of the schema.
    pub(crate) fn of(
        conn: &Connection,
        schema: &Objects,
        name: &str,
    ) -> rusqlite::Result<Option<Self>> {
        let ordinary = schema.table(name).zip(schema.is_without_rowid(name));
        let Some((table, without_rowid)) = ordinary else {
            return Ok(None);
        };
        let name = table.name.clone();
        let sql = table.sql.as_deref().unwrap_or_default();
        let text = table_text(sql);
        let (mut columns, primary_key) = columns(conn, &name)?;
        for column in &mut columns {
            let named = text
                .columns
                .iter()
                .find(|c| c.name.eq_ignore_ascii_case(&column.name));
            if let Some(named) = named {
                column.check.clone_from(&named.check);
                column.collate.clone_from(&named.collate);
                column.computed.clone_from(&named.computed);
            }
        }
        // What is not there need not be asked for: each question has SQLite prepare a statement.
        let own = schema.of(&name);
        let has_indexes = without_rowid || own.iter().any(|object| object.kind == "index");
        let indexes = match has_indexes {
            true => indexes(conn, own, &name)?,
            false => Vec::new(),
        };
        let foreign_keys = match refers(sql) {
            true => foreign_keys(conn, &name, &columns)?,
            false => Vec::new(),
        };
        let rowid_key = match primary_key[..] {
            // `INTEGER PRIMARY KEY DESC` is no rowid; SQLite then makes an index for it.
            [only] => {
                !without_rowid
                    && columns[only].declared.eq_ignore_ascii_case("INTEGER")
                    && !indexes.iter().any(|index| index.is_primary_key)
            }
            _ => false,
        };
        let hides = |name: &&str| !columns.iter().any(|c| c.name.eq_ignore_ascii_case(name));
        Ok(Some(Self {
            foreign_keys,
            rowid_name: ["rowid", "_rowid_", "oid"]
                .into_iter()
                .find(hides)
                .filter(|_| !without_rowid),
            name,
            columns,
            primary_key,
            without_rowid,
            strict: text.strict,
            autoincrement: text.autoincrement,
            rowid_key,
            indexes,
            checks: text.checks,
        }))
    }

    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.columns
            .iter()
            .position(|c| c.name.eq_ignore_ascii_case(name))
    }

    /// Whether NULL can stand in the key column at this position: SQLite allows it in every
    /// primary key that is neither the rowid, nor NOT NULL, nor of a WITHOUT ROWID table.
    pub(crate) fn key_takes_null(&self, position: usize) -> bool {
        !self.rowid_key && !self.without_rowid && !self.columns[position].not_null
    }
}

/// The default as an expression, if it is a literal in any of the ways that SQLite takes for one.
pub(crate) fn literal_default(text: &str) -> Option<String> {
    let all = tokens(text);
    let is_number = |token: &Token<'_>| {
        let starts = token.text.starts_with(|c: char| c.is_ascii_digit());
        token.kind == Kind::Word && starts || token.is_symbol(".")
    };
    let [only] = all[..] else {
        let signed = all
            .first()
            .is_some_and(|t| t.is_symbol("-") || t.is_symbol("+"));
        let rest = if signed { &all[1..] } else { &all[..] };
        let number = !rest.is_empty() && rest.iter().all(is_number);
        return number.then(|| text.to_owned());
    };
    let is = |words: &[&str]| words.iter().any(|word| only.is_word(word));
    Some(match only.kind {
        Kind::Text => only.text.to_owned(),
        Kind::Symbol => return None,
        Kind::Word if is_number(&only) => only.text.to_owned(),
        Kind::Word if is(&["NULL", "CURRENT_TIME", "CURRENT_DATE", "CURRENT_TIMESTAMP"]) => {
            only.text.to_owned()
        }
        // Old SQLites take these two for strings, but then nobody writes them.
        Kind::Word if is(&["TRUE"]) => "1".into(),
        Kind::Word if is(&["FALSE"]) => "0".into(),
        // A bare or quoted name as a default is a string.
        Kind::Word | Kind::Quoted => literal(&only.name()),
    })
}

fn columns(conn: &Connection, table: &str) -> rusqlite::Result<(Vec<ShapeColumn>, Vec<usize>)> {
    let mut keys: Vec<(i64, usize)> = Vec::new();
    let mut columns = Vec::new();
    let mut statement = conn.prepare_cached(
        "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1, 'main')",
    )?;
    let mut rows = statement.query([table])?;
    while let Some(row) = rows.next()? {
        let pk: i64 = row.get(4)?;
        if pk > 0 {
            keys.push((pk, columns.len()));
        }
        columns.push(ShapeColumn {
            name: row.get(0)?,
            declared: row.get(1)?,
            not_null: row.get(2)?,
            default: row.get(3)?,
            generated: row.get::<_, i64>(5)? > 1,
            computed: None,
            check: None,
            collate: None,
        });
    }
    keys.sort_unstable();
    Ok((
        columns,
        keys.into_iter().map(|(_, position)| position).collect(),
    ))
}

/// Whether a table of this text may have a foreign key.
fn refers(sql: &str) -> bool {
    let word = "REFERENCES";
    let mut places = sql.as_bytes().windows(word.len());
    places.any(|place| place.eq_ignore_ascii_case(word.as_bytes()))
}

/// `own` is what belongs to the table.
fn indexes(conn: &Connection, own: &[Object], table: &str) -> rusqlite::Result<Vec<ShapeIndex>> {
    let mut list = conn.prepare_cached(
        "SELECT name, \"unique\", origin FROM pragma_index_list(?1, 'main') ORDER BY name",
    )?;
    let mut terms = conn.prepare_cached(
        "SELECT cid, coll, \"desc\" FROM pragma_index_xinfo(?1, 'main') WHERE key ORDER BY seqno",
    )?;
    let mut out = Vec::new();
    let mut rows = list.query(params![table])?;
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let object = own.iter().find(|o| o.kind == "index" && o.name == name);
        let sql = object.and_then(|index| index.sql.as_deref());
        let text: IndexText = sql.map(index_text).unwrap_or_default();
        let found = terms.query_map([&name], |row| {
            let collation: Option<String> = row.get(1)?;
            Ok((row.get::<_, i64>(0)?, collation, row.get(2)?))
        })?;
        let mut parts = Vec::new();
        for (i, term) in found.enumerate() {
            let (cid, collation, descending) = term?;
            let of = match usize::try_from(cid) {
                Ok(position) => TermOf::Column(position),
                Err(_) => TermOf::Expression(text.terms.get(i).cloned().unwrap_or_default()),
            };
            parts.push(Term {
                of,
                collation: collation.unwrap_or_else(|| "BINARY".into()),
                descending,
            });
        }
        out.push(ShapeIndex {
            name,
            unique: row.get(1)?,
            is_primary_key: row.get::<_, String>(2)? == "pk",
            terms: parts,
            predicate: text.predicate,
        });
    }
    Ok(out)
}

fn foreign_keys(
    conn: &Connection,
    table: &str,
    columns: &[ShapeColumn],
) -> rusqlite::Result<Vec<ShapeForeignKey>> {
    let mut statement = conn.prepare_cached(
        "SELECT id, \"table\", \"from\", \"to\", on_delete \
         FROM pragma_foreign_key_list(?1, 'main') ORDER BY id DESC, seq",
    )?;
    let mut rows = statement.query([table])?;
    let mut out: Vec<ShapeForeignKey> = Vec::new();
    let mut last = None;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        if last != Some(id) {
            out.push(ShapeForeignKey {
                parent: row.get(1)?,
                columns: Vec::new(),
                parent_columns: Vec::new(),
                on_delete: row.get(4)?,
            });
            last = Some(id);
        }
        let from: String = row.get(2)?;
        let key = out.last_mut().expect("pushed for the first row of each id");
        key.columns.extend(
            columns
                .iter()
                .position(|c| c.name.eq_ignore_ascii_case(&from)),
        );
        key.parent_columns.extend(row.get::<_, Option<String>>(3)?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_told_from_expressions() {
        let cases = [
            ("5", Some("5")),
            ("-1.5e3", Some("-1.5e3")),
            ("+.5", Some("+.5")),
            ("'it''s'", Some("'it''s'")),
            ("\"it's\"", Some("'it''s'")),
            ("abc", Some("'abc'")),
            ("true", Some("1")),
            ("NULL", Some("NULL")),
            ("CURRENT_TIMESTAMP", Some("CURRENT_TIMESTAMP")),
            ("hex(randomblob(8))", None),
            ("1 + a", None),
            ("x'61'", None),
        ];
        for (text, expected) in cases {
            assert_eq!(literal_default(text).as_deref(), expected, "{text}");
        }
    }
}
