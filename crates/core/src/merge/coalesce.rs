//! Two edits of one author as one (spec ME16).

use std::collections::BTreeMap;

use super::{apply, counter, path, set, tree::Tree};
use crate::planted;
use crate::{
    change::{Edit, MemberEdit, PathEdit},
    schema::Column,
    value::Value,
};

/// One edit with the effect of `first` and then `second`, or `None` if no single edit has it.
///
/// For sets, the same items; their order may differ.
#[must_use]
pub fn coalesce(column: &Column, first: &Edit, second: &Edit) -> Option<Edit> {
    Some(match (first, second) {
        (Edit::Decide { base, .. }, Edit::Set(new) | Edit::Decide { new, .. }) => Edit::Decide {
            base: base.clone(),
            new: new.clone(),
        },
        (_, Edit::Set(new)) => Edit::Set(new.clone()),
        (Edit::Set(_), Edit::Decide { new, .. }) => Edit::Set(new.clone()),
        (Edit::Set(value), second) => Edit::Set(apply(column, value, second).ok()?),
        (Edit::Decide { base, new }, second) => Edit::Decide {
            base: base.clone(),
            new: apply(column, new, second).ok()?,
        },
        (Edit::Add(_), Edit::Add(second)) if planted!(JoinedStepForgotten) => {
            Edit::Add(second.clone())
        }
        (Edit::Add(first), Edit::Add(second)) => Edit::Add(counter::joined(first, second)?),
        (Edit::Append(first), Edit::Append(second)) => Edit::Append([&first[..], second].concat()),
        (
            Edit::Items { add, remove },
            Edit::Items {
                add: then_add,
                remove: then_remove,
            },
        ) => {
            let (add, remove) = set::joined((add, remove), (then_add, then_remove))?;
            Edit::Items { add, remove }
        }
        (Edit::Members(first), Edit::Members(second)) => {
            let mut joint = JointMembers::default();
            first
                .iter()
                .chain(second)
                .try_for_each(|next| joint.add(next))?;
            Edit::Members(joint.edits.into_iter().flatten().collect())
        }
        _ => return None,
    })
}

/// Edits of members with the effect of all that were added, in order; no two of them overlap.
#[derive(Default)]
struct JointMembers {
    edits: Vec<Option<MemberEdit>>,
    /// Path → position in `edits`.
    places: BTreeMap<String, usize>,
}

impl JointMembers {
    /// Adds an edit that follows; `None` if it cannot be told in one with those before.
    fn add(&mut self, next: &MemberEdit) -> Option<()> {
        let mut around = std::iter::successors(Some(next.path.as_str()), |path| path::parent(path));
        let place = around.find_map(|path| self.places.get(path).copied());
        if let Some(edit) = place.and_then(|place| self.edits[place].as_mut()) {
            let inside = &next.path[edit.path.len()..];
            edit.edit = followed(&edit.edit, inside, &next.edit)?;
            return Some(());
        }
        let inside = format!("{}.", next.path);
        let replaced: Vec<String> = self
            .places
            .range(inside.clone()..)
            .map(|(path, _)| path.clone())
            .take_while(|path| path.starts_with(&inside))
            .collect();
        if !replaced.is_empty() && !matches!(next.edit, PathEdit::Set(_) | PathEdit::Remove) {
            return None;
        }
        for path in replaced {
            let place = self.places.remove(&path)?;
            self.edits[place] = None;
        }
        self.places.insert(next.path.clone(), self.edits.len());
        self.edits.push(Some(next.clone()));
        Some(())
    }
}

/// `first` at some path, then `next` at that path or `inside` it (`""`, `".b.c"`).
fn followed(first: &PathEdit, inside: &str, next: &PathEdit) -> Option<PathEdit> {
    use PathEdit as E;
    let decided = |base: &Option<String>, new| E::Decide {
        base: base.clone(),
        new,
    };
    Some(match (first, next) {
        (E::Decide { base, new }, _) => decided(base, rewritten(new.as_deref(), inside, next)?),
        (_, E::Set(_) | E::Remove) if inside.is_empty() => next.clone(),
        (E::Set(text), _) => present(rewritten(Some(text), inside, next)?),
        (E::Remove, _) => present(rewritten(None, inside, next)?),
        _ if !inside.is_empty() => return None,
        (E::Add(first), E::Add(next)) => E::Add(counter::joined(first, next)?),
        (E::Append(first), E::Append(next)) => E::Append([&first[..], next].concat()),
        (
            E::Items { add, remove },
            E::Items {
                add: then_add,
                remove: then_remove,
            },
        ) => {
            let (add, remove) = set::joined((add, remove), (then_add, then_remove))?;
            E::Items { add, remove }
        }
        _ => return None,
    })
}

fn present(text: Option<String>) -> PathEdit {
    text.map_or(PathEdit::Remove, PathEdit::Set)
}

/// The JSON at a place that held `text` after `edit` of what is `inside`; `None` within for no
/// member, `None` around it if the edit does not fit.
fn rewritten(text: Option<&str>, inside: &str, edit: &PathEdit) -> Option<Option<String>> {
    const PLACE: &str = "m";
    let before = text.map(|text| PathEdit::Set(text.to_owned()));
    let path = format!("{PLACE}{inside}");
    let mut tree = Tree::parse(&Value::Null)?;
    if let Some(before) = &before {
        tree.perform(PLACE, before).ok()?;
    }
    tree.perform(&path, edit).ok()?;
    Some(tree.get(PLACE).map(ToString::to_string))
}
