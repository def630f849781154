//! What the database or another program did by itself becomes part of the log (spec PL12, PL13).

use syncline_core::{RowKey, TableNumber, Timestamp, Version, rules::Proposed};

use super::{
    conflict::write_columns,
    context::{Context, TableContext},
    draft::Draft,
    effect::{Effect, Effects, born, buried, stored},
    entry::Author,
    settle::settle,
    state::State,
};
use crate::{
    meta::RowMeta,
    want::{LoadedRow, Missing},
};

/// A marked row as it is now.
pub(crate) type Observed = (TableNumber, RowKey, Option<LoadedRow>);

/// Plans the differences between `state`, which has been told the rows as they were, and
/// `observed`. Nothing can be refused: it has happened.
pub(crate) fn observe(
    context: &Context,
    state: &State,
    observed: &[Observed],
    author: &Author,
    now: Timestamp,
) -> Result<Draft, Missing> {
    let mut effects = Effects::new(state.last, now);
    for (table, key, present) in observed {
        if let Some(table) = context.table(*table) {
            difference(state, table, key, present.as_ref(), author, &mut effects)?;
        }
    }
    settle(context, state, effects)
}

fn difference(
    state: &State,
    table: &TableContext,
    key: &RowKey,
    present: Option<&LoadedRow>,
    author: &Author,
    effects: &mut Effects,
) -> Result<(), Missing> {
    let number = table.table.number;
    let before = state.row(number, key)?;
    let meta = before.map(|before| before.meta);
    // Also a row that existed before the log knew of it begins its life in the log now.
    let live = before.filter(|b| b.meta.version > Version::ZERO && !b.meta.deleted);
    let after = present.and_then(|present| present.row.as_ref());
    let version = effects.upcoming();
    let image =
        |row: &syncline_core::Row, meta: &RowMeta| Some(stored(number, key, row.clone(), meta));
    match (live, after) {
        (None, None) => {}
        (None, Some(after)) => {
            let tombstone = meta.filter(|meta| meta.deleted);
            let meta = born(author, author.user.as_ref(), tombstone, version);
            let proposed = Proposed {
                before: None,
                after: image(after, &meta),
            };
            effects.push(proposed, Effect::inserted(None, meta, Vec::new()));
        }
        (Some(live), None) => {
            let row = live.row.cloned().unwrap_or_default();
            let meta = buried(author, table, &row, live.meta, version);
            let before = live.row.and_then(|row| image(row, live.meta));
            let effect = Effect::changed(None, live.meta, meta, Vec::new());
            effects.push(
                Proposed {
                    before,
                    after: None,
                },
                effect,
            );
        }
        (Some(live), Some(after)) => {
            let mut meta = RowMeta {
                version,
                author: author.user.clone(),
                ..live.meta.clone()
            };
            let unknown = syncline_core::Row::default();
            let row = live.row.unwrap_or(&unknown);
            let columns = write_columns(table, author, row, after, &mut meta);
            if columns.is_empty() {
                return Ok(());
            }
            let before = live.row.and_then(|row| image(row, live.meta));
            let proposed = Proposed {
                before,
                after: image(after, &meta),
            };
            effects.push(proposed, Effect::changed(None, live.meta, meta, columns));
        }
    }
    Ok(())
}
