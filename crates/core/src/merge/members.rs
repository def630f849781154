//! JSON documents merged place by place: each path by its own strategy (spec ME8, ME11–ME15).

use super::{
    ColumnState, EditError, Incoming, Lost, Merged, append,
    contest::Contest,
    counter,
    json::{Json, Object, canonical},
    path::{ROOT, child, is_divided, strategy},
    set,
    tree::Tree,
    whole,
};
use crate::{
    change::{Edit, MemberEdit, PathEdit},
    schema::{Column, MergeStrategy},
    value::Value,
};

/// The edits that turn `before` into `after`, member by member where the column says so.
pub(crate) fn difference(
    column: &Column,
    before: &Object<'_>,
    after: &Object<'_>,
) -> Vec<MemberEdit> {
    let mut edits = Vec::new();
    collect(column, ROOT, before, after, &mut edits);
    edits
}

fn collect(
    column: &Column,
    around: &str,
    before: &Object<'_>,
    after: &Object<'_>,
    edits: &mut Vec<MemberEdit>,
) {
    for (member, new) in after.members() {
        let path = child(around, &member);
        let old = before.get(&member);
        if let (Some(Json::Object(old)), Json::Object(new)) = (old, new)
            && is_divided(column, &path)
        {
            collect(column, &path, old, new, edits);
        } else if old.is_none_or(|old| canonical(old) != canonical(new)) {
            let edit = rewritten(strategy(column, &path), old, new);
            edits.push(MemberEdit { path, edit });
        }
    }
    for (member, old) in before
        .members()
        .filter(|(member, _)| after.get(member).is_none())
    {
        let path = child(around, &member);
        let edit = if strategy(column, &path) == MergeStrategy::Manual {
            PathEdit::Decide {
                base: Some(old.to_string()),
                new: None,
            }
        } else {
            PathEdit::Remove
        };
        edits.push(MemberEdit { path, edit });
    }
}

fn rewritten(strategy: MergeStrategy, old: Option<&Json<'_>>, new: &Json<'_>) -> PathEdit {
    let some = old.filter(|old| !old.is_null());
    let operation = match (strategy, some, new) {
        (MergeStrategy::Manual, _, _) => {
            let base = old.map(Json::to_string);
            Some(PathEdit::Decide {
                base,
                new: Some(new.to_string()),
            })
        }
        (MergeStrategy::Set, Some(Json::Array(old)), Json::Array(new)) => {
            let (add, remove) = set::difference(old, new);
            Some(PathEdit::Items { add, remove })
        }
        (MergeStrategy::Append, None | Some(Json::Array(_)), Json::Array(new)) => {
            append::difference(some.and_then(Json::as_array), new).map(PathEdit::Append)
        }
        (MergeStrategy::Counter, _, _) => counter::json_difference(old, new).map(PathEdit::Add),
        _ => None,
    };
    operation.unwrap_or_else(|| PathEdit::Set(new.to_string()))
}

/// Merges an edit of a structured column: members, items of a set, or the whole document.
pub(crate) fn merge(
    column: &Column,
    current: &Value,
    state: &ColumnState,
    edit: &Edit,
    incoming: &Incoming,
) -> Result<Merged, EditError> {
    let whole = || whole::merge(column, current, state, edit, incoming);
    let Some(tree) = Tree::parse(current) else {
        let by_parts = matches!(edit, Edit::Members(_) | Edit::Items { .. });
        return if by_parts {
            Ok(Merged::lost(current, Lost::Older))
        } else {
            whole()
        };
    };
    let steps = Steps {
        column,
        tree: &tree,
        state,
        incoming,
    };
    let steps = match edit {
        Edit::Members(edits) => edits
            .iter()
            .flat_map(|e| steps.of(&e.path, &e.edit))
            .collect(),
        Edit::Items { add, remove } => {
            let (add, remove) = (add.clone(), remove.clone());
            vec![MemberEdit {
                path: ROOT.into(),
                edit: PathEdit::Items { add, remove },
            }]
        }
        Edit::Set(Value::Text(text)) => steps.of(ROOT, &PathEdit::Set(text.clone())),
        Edit::Set(_) | Edit::Add(_) | Edit::Append(_) | Edit::Decide { .. } => return whole(),
    };
    let stays_whole =
        |step: &MemberEdit| step.path == ROOT && matches!(step.edit, PathEdit::Set(_));
    if steps.iter().any(stays_whole) {
        return whole();
    }
    let mut contest = Contest::new(column, tree, state.clone(), incoming);
    for MemberEdit { path, edit } in &steps {
        contest
            .step(path, edit)
            .map_err(|misfit| EditError::new(column, misfit))?;
    }
    Ok(contest.finish(current))
}

/// Spells out what a contested edit means.
struct Steps<'a> {
    column: &'a Column,
    tree: &'a Tree<'a>,
    state: &'a ColumnState,
    incoming: &'a Incoming,
}

impl Steps<'_> {
    fn of(&self, path: &str, edit: &PathEdit) -> Vec<MemberEdit> {
        let mut steps = Vec::new();
        let whole = if let PathEdit::Set(text) = edit {
            Json::parse(text)
        } else {
            None
        };
        match whole {
            Some(new) => self.spread(path, &new, &mut steps),
            None => steps.push(MemberEdit {
                path: path.to_owned(),
                edit: edit.clone(),
            }),
        }
        steps
    }

    /// Sets `new` at `path`, by parts where merging by parts is possible and somebody else was at
    /// work: the author saw nothing there to merge with, so what they wrote is an addition to
    /// what is there now (spec ME14).
    fn spread(&self, path: &str, new: &Json<'_>, steps: &mut Vec<MemberEdit>) {
        let is_rivalled = || {
            self.state
                .rival(path, self.tree.told_from(path), self.incoming)
                .is_some()
        };
        let edit = match (self.tree.get(path), new) {
            (Some(Json::Object(_)), Json::Object(new))
                if is_divided(self.column, path) && is_rivalled() =>
            {
                for (member, value) in new.members() {
                    self.spread(&child(path, &member), value, steps);
                }
                return;
            }
            (Some(Json::Array(_)), Json::Array(new))
                if strategy(self.column, path) == MergeStrategy::Set && is_rivalled() =>
            {
                let add = new.items().map(Json::to_string).collect();
                PathEdit::Items {
                    add,
                    remove: Vec::new(),
                }
            }
            _ => PathEdit::Set(new.to_string()),
        };
        steps.push(MemberEdit {
            path: path.to_owned(),
            edit,
        });
    }
}
