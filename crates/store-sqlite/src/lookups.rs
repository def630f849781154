//! Indexes for the columns by which rules look rows up.

use rusqlite::{Connection, TransactionBehavior};
use syncline_core::{TableNumber, rules::RuleColumn, sql::quote};

use crate::{
    catalog::{Catalog, Entry},
    fault::Result,
    introspect::{self, LOOKUP_INDEX, Term},
};

/// Makes what is missing; a sentence for each index made.
pub(crate) fn prepare(
    conn: &mut Connection,
    catalog: &Catalog,
    lookups: &[(TableNumber, RuleColumn)],
) -> Result<Vec<String>> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut notes = Vec::new();
    for (table, column) in lookups {
        let entry = catalog.entry(*table)?;
        match column {
            RuleColumn::Owner => {
                transaction.execute_batch(
                    "CREATE INDEX IF NOT EXISTS syncline_rows_owner
                     ON syncline_rows(table_no, owner, key) WHERE deleted = 0",
                )?;
            }
            RuleColumn::Column(position) => {
                notes.extend(column_index(&transaction, entry, *position)?);
            }
        }
    }
    transaction.commit()?;
    Ok(notes)
}

fn column_index(conn: &Connection, entry: &Entry, position: usize) -> Result<Option<String>> {
    let column = &entry.table.columns[position];
    if column.generated || entry.table.primary_key.first() == Some(&position) {
        return Ok(None);
    }
    let Some(found) = introspect::find(conn, &entry.table.name)? else {
        return Ok(None);
    };
    let place = found.position(&column.name);
    let serves = found.indexes.iter().any(|index| {
        let first = index.terms.first();
        let is_first =
            matches!(first, Some(Term::Column { position, .. }) if Some(*position) == place);
        is_first && index.condition.is_none()
    });
    if serves {
        return Ok(None);
    }
    let name = format!("{LOOKUP_INDEX}{}_{}", entry.table.number.0, column.number.0);
    conn.execute_batch(&format!(
        "CREATE INDEX IF NOT EXISTS {} ON {}({})",
        quote(&name),
        entry.text.name,
        quote(&column.name),
    ))?;
    Ok(Some(format!(
        "made an index on {}.{}, because rules look rows up by it",
        entry.table.name, column.name
    )))
}
