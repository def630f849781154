//! Rules that work but cost more than they need to.

use super::{
    branch::Hop,
    compile::{Compiled, Granted},
    scope::field_name,
    term::Field,
};
use crate::schema::Schema;

impl Compiled {
    /// What to write instead, a sentence for each rule.
    pub(super) fn advise(&mut self, schema: &Schema) {
        let mut advice = Vec::new();
        for source in &self.sources {
            let (Granted::Row(_), [row, list, ..]) = (source.bucket, &source.hops[..]) else {
                continue;
            };
            if let Some(sentence) = self.many_to_many(schema, row, list)
                && !advice.contains(&sentence)
            {
                advice.push(sentence);
            }
        }
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
