//! Which rows of a table a statement reaches: the old one, and those that the new values may evict.

use syncline_core::planted;

use super::Plan;
use crate::{
    introspect::shape::{ShapeIndex, TermOf, literal_default},
    sql::{all, list, quoted},
};

/// Rows of the table.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// The table, or a join with it, as `r`.
    pub(super) source: String,
    pub(super) condition: String,
    /// Their rowid, where it is known.
    pub(super) rowid: Option<String>,
}

impl Found {
    fn by(table: &str, condition: String) -> Self {
        Self {
            source: format!("{table} AS r"),
            condition,
            rowid: None,
        }
    }
}

impl Plan<'_> {
    /// The rows that the new values may evict: by the key, by a rowid that is no key and given in a
    /// statement, by further unique indexes.
    pub(super) fn rivals(&self) -> Vec<Found> {
        let key = Found::by(&self.table, self.same_key());
        let rowid = self.hidden_rowid().map(|rowid| Found {
            rowid: Some(format!("NEW.{rowid}")),
            ..Found::by(&self.table, format!("r.{rowid} = NEW.{rowid}"))
        });
        let indexes = self.further_unique_indexes().map(|index| Found {
            source: match index.plain_columns() {
                Some(_) => format!("{} AS r", self.table),
                None => self.image_source(),
            },
            condition: self.same_terms(index),
            rowid: None,
        });
        let indexes = indexes.filter(|_| !planted!(ReplaceEvictionUnseen));
        [key].into_iter().chain(rowid).chain(indexes).collect()
    }

    /// The row OLD, which is still in the table as it was.
    pub(super) fn old(&self) -> Found {
        match self.shape.rowid_name {
            Some(name) => Found {
                rowid: Some(format!("OLD.{name}")),
                ..Found::by(&self.table, format!("r.{name} = OLD.{name}"))
            },
            None => {
                let old =
                    |position: usize| format!("OLD.{}", quoted(&self.shape.columns[position].name));
                Found::by(&self.table, self.has_key(old))
            }
        }
    }

    /// The row `r` has the new key as the key's index compares it.
    pub(super) fn same_key(&self) -> String {
        self.has_key(|position| self.new_value(position))
    }

    /// The row `r` has the key of these values as the key's index compares it.
    fn has_key(&self, value: impl Fn(usize) -> String) -> String {
        all(&self.shape.primary_key, |&position| {
            let name = quoted(&self.shape.columns[position].name);
            let collate = match self.key_collation(position) {
                Some(collation) => format!(" COLLATE {}", quoted(collation)),
                None => String::new(),
            };
            format!("r.{name} = +{}{collate}", value(position))
        })
    }

    fn key_collation(&self, position: usize) -> Option<&str> {
        let mut indexes = self.shape.indexes.iter();
        let index = indexes.find(|index| index.is_primary_key)?;
        let mut terms = index.terms.iter();
        let term = terms.find(|term| term.of == TermOf::Column(position))?;
        Some(&term.collation)
    }

    /// A row has the key NEW to the byte, as marks are compared.
    pub(super) fn is_there(&self) -> String {
        let new = |position: usize| format!("NEW.{}", quoted(&self.shape.columns[position].name));
        let is_folded = |position: &&usize| {
            let collation = self.key_collation(**position);
            collation.is_some_and(|collation| !collation.eq_ignore_ascii_case("BINARY"))
        };
        let folded = self.shape.primary_key.iter().filter(is_folded);
        let to_the_byte = folded.map(|&position| {
            let name = quoted(&self.shape.columns[position].name);
            format!("+r.{name} = +{} COLLATE BINARY", new(position))
        });
        let same = [self.has_key(new)].into_iter().chain(to_the_byte);
        let same = same.collect::<Vec<_>>().join(" AND ");
        format!("EXISTS (SELECT 1 FROM {} AS r WHERE {same})", self.table)
    }

    /// The row `r` has what the new one would have in a unique index.
    pub(super) fn same_terms(&self, index: &ShapeIndex) -> String {
        let mut conditions: Vec<String> = index
            .predicate
            .iter()
            .map(|predicate| format!("({predicate})"))
            .collect();
        conditions.extend(index.terms.iter().map(|term| {
            let collate = quoted(&term.collation);
            match &term.of {
                TermOf::Column(position) => {
                    let name = quoted(&self.shape.columns[*position].name);
                    format!(
                        "r.{name} = +{} COLLATE {collate}",
                        self.new_value(*position)
                    )
                }
                TermOf::Expression(text) => {
                    format!("({text}) = ({}) COLLATE {collate}", self.of_new(text))
                }
            }
        }));
        conditions.join(" AND ")
    }

    /// The expression `text` over the columns of the new row.
    fn of_new(&self, text: &str) -> String {
        let columns = list(
            self.shape.columns.iter().enumerate(),
            |(position, column)| {
                format!("{} AS {}", self.new_value(position), quoted(&column.name))
            },
        );
        format!("SELECT {text} FROM (SELECT {columns})")
    }

    /// What the column at `position` will be: NEW, or the default that REPLACE puts where a NOT
    /// NULL column would become NULL. A default that is no literal is left out: it may call a
    /// function that only the app's own program has.
    fn new_value(&self, position: usize) -> String {
        if self.is_bound {
            return format!("?{}", position + 1);
        }
        let column = &self.shape.columns[position];
        let name = quoted(&column.name);
        match column
            .default
            .as_deref()
            .filter(|_| column.not_null)
            .and_then(literal_default)
        {
            Some(default) => format!("coalesce(NEW.{name}, {default})"),
            None => format!("NEW.{name}"),
        }
    }
}
