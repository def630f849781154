//! Rules that work but cost more than they need to, or do not mean what they seem to.

use super::{
    branch::Hop,
    compile::{Compiled, Granted},
    scope::field_name,
    term::Field,
};
use crate::schema::{Schema, Table};

impl Compiled {
    /// What to write instead, a sentence for each rule.
    pub(super) fn advise(&mut self, schema: &Schema) {
        let mut advice = Vec::new();
        for source in &self.sources {
            let (Granted::Row(own), [row, list, ..]) = (source.bucket, &source.hops[..]) else {
                continue;
            };
            if self.on_demand.contains(&self.key.head(own)) {
                // Of rows that are read through a parent: no rule says anything else.
                continue;
            }
            if let Some(sentence) = self.many_to_many(schema, row, list)
                && !advice.contains(&sentence)
            {
                advice.push(sentence);
            }
        }
        advice.extend(schema.tables.iter().flat_map(hidden_columns));
        self.advice = advice;
    }

    /// A table with a bucket for each row that is not linked by its key: each row that lists a
    /// person is a grant for each row with the same value.
    fn many_to_many(&self, schema: &Schema, row: &Hop, list: &Hop) -> Option<String> {
        let linked = row.right?;
        if self.tables[row.table].key.map(Field::Column) == Some(linked) {
            return None;
        }
        let (table, list) = (&schema.tables[row.table], &schema.tables[list.table]);
        let (name, column) = (&table.name, field_name(table, linked));
        Some(format!(
            "tables.{name}.read: every row of {list} is one grant for each row of {name} with the \
             same {column}; if those are many, make {column} lead to a table whose read rule looks \
             {list} up, and write `{column} IN readable(that_table)`",
            list = list.name,
        ))
    }
}

/// Columns of an app that rules cannot name, because every row has something of that name.
fn hidden_columns(table: &Table) -> impl Iterator<Item = String> {
    let is_hidden = |name: &str| {
        let mut names = Field::META.iter();
        names.any(|(meta, _)| meta.eq_ignore_ascii_case(name))
    };
    let columns = table.columns.iter().filter(move |c| is_hidden(&c.name));
    columns.map(|column| {
        format!(
            "tables.{}.columns.{}: the column syncs like any other, but in rules `{}` is what the \
             server knows of the row and never this column",
            table.name,
            column.name,
            column.name.to_lowercase()
        )
    })
}
