//! Columns that are one value: last-write-wins, server-wins, client-wins, manual, and the
//! operations that simply add up (spec ME6, ME7).

use super::{
    ColumnState, EditError, Incoming, Lost, Merged, effect,
    json::{Json, canonical},
    path::ROOT,
    tree::Misfit,
};
use crate::planted;
use crate::{
    change::Edit,
    schema::{Column, ColumnType, MergeStrategy},
    value::Value,
};

pub(crate) fn merge(
    column: &Column,
    current: &Value,
    state: &ColumnState,
    edit: &Edit,
    incoming: &Incoming,
) -> Result<Merged, EditError> {
    use MergeStrategy as S;
    let applied = || applied(column, current, state, edit, incoming);
    let Some(rival) = state.rival(ROOT, ROOT, incoming) else {
        return applied();
    };
    match (column.merge, edit) {
        (S::ServerWins, _) => Ok(Merged::lost(current, Lost::ServerWins)),
        (S::Manual, _) => decided(column, current, edit).map_or_else(applied, Ok),
        (S::ClientWins, _) | (S::Counter, Edit::Add(_)) | (S::Append, Edit::Append(_)) => applied(),
        (
            S::LastWriteWins | S::MergeFields | S::Set | S::Append | S::Counter | S::Collaborative,
            _,
        ) if incoming.stamp() > rival || planted!(MergeByArrival) => applied(),
        _ => Ok(Merged::lost(current, Lost::Older)),
    }
}

fn applied(
    column: &Column,
    current: &Value,
    state: &ColumnState,
    edit: &Edit,
    incoming: &Incoming,
) -> Result<Merged, EditError> {
    match effect(column, current, edit) {
        Ok(value) => {
            let mut state = state.clone();
            state.record_whole(incoming);
            Ok(Merged {
                value,
                state: Some(state),
                lost: None,
            })
        }
        Err(Misfit::Shape) => Ok(Merged::lost(current, Lost::Older)),
        Err(misfit) => Err(EditError::new(column, misfit)),
    }
}

/// What a contested decision comes to; `None` if it applies after all, because the author saw
/// just what is there now.
fn decided(column: &Column, current: &Value, edit: &Edit) -> Option<Merged> {
    let (base, new) = match edit {
        Edit::Decide { base, new } => (base.clone(), new.clone()),
        // An author whose schema does not say `manual` yet did not tell what they saw.
        Edit::Set(_) | Edit::Add(_) | Edit::Items { .. } | Edit::Append(_) | Edit::Members(_) => (
            Value::Null,
            effect(column, current, edit).unwrap_or_default(),
        ),
    };
    if matches!(edit, Edit::Decide { .. }) && is_same(column, current, &base) {
        return None;
    }
    if is_same(column, current, &new) {
        return Some(Merged {
            value: current.clone(),
            state: None,
            lost: None,
        });
    }
    let theirs = current.clone();
    Some(Merged::lost(
        current,
        Lost::Conflict {
            base,
            mine: new,
            theirs,
        },
    ))
}

/// Equal values, or texts of the same JSON in a JSON column.
fn is_same(column: &Column, a: &Value, b: &Value) -> bool {
    let json = |value: &Value| Json::parse(value.as_text()?).map(|json| canonical(&json));
    a == b || (column.ty == ColumnType::Json && json(a).is_some_and(|a| Some(a) == json(b)))
}
