//! One edit of a document against what other devices did to it meanwhile (spec ME6–ME15).

use std::collections::BTreeSet;

use super::{
    ColumnState, Incoming, Lost, Merged,
    json::{Json, canonical},
    path::strategy,
    set,
    tree::{Misfit, NO_JSON, Tree, members},
};
use crate::planted;
use crate::{
    change::PathEdit,
    schema::{Column, MergeStrategy},
    value::Value,
};

/// A document while the steps of one edit compete with what it holds.
pub(crate) struct Contest<'a> {
    column: &'a Column,
    tree: Tree<'a>,
    state: ColumnState,
    incoming: &'a Incoming,
    /// Whether `state` says anything new.
    recorded: bool,
    lost: Option<Lost>,
    /// Steps that a person has to decide.
    open: Vec<(&'a str, &'a PathEdit)>,
}

impl<'a> Contest<'a> {
    pub(crate) fn new(
        column: &'a Column,
        tree: Tree<'a>,
        state: ColumnState,
        incoming: &'a Incoming,
    ) -> Self {
        Self {
            column,
            tree,
            state,
            incoming,
            recorded: false,
            lost: None,
            open: Vec::new(),
        }
    }

    /// Lets `edit` of `path` take effect as far as the strategy there says.
    pub(crate) fn step(&mut self, path: &'a str, edit: &'a PathEdit) -> Result<(), Misfit> {
        use MergeStrategy as S;
        let strategy = strategy(self.column, path);
        if let (S::Set, PathEdit::Items { add, remove }) = (strategy, edit) {
            return self.change_set(path, add, remove);
        }
        let outermost = self.tree.told_from(path);
        let Some(rival) = self.state.rival(path, outermost, self.incoming) else {
            return self.perform(path, edit);
        };
        match (strategy, edit) {
            (S::ServerWins, _) => self.lose(Lost::ServerWins),
            (S::Manual, _) => return self.decide(path, edit),
            (S::ClientWins, _)
            | (S::Append, PathEdit::Append(_))
            | (S::Counter, PathEdit::Add(_)) => return self.perform(path, edit),
            _ if self.incoming.stamp() > rival => return self.perform(path, edit),
            _ => self.lose(Lost::Older),
        }
        Ok(())
    }

    fn perform(&mut self, path: &'a str, edit: &'a PathEdit) -> Result<(), Misfit> {
        let outermost = self.tree.told_from(path);
        match self.tree.perform(path, edit) {
            Ok(()) => {
                self.state.record(path, outermost, self.incoming);
                self.recorded = true;
            }
            Err(Misfit::Shape) => self.lose(Lost::Older),
            Err(misfit) => return Err(misfit),
        }
        Ok(())
    }

    /// Everything is added; removed is what the author can have seen: not an item that another
    /// device added meanwhile.
    fn change_set(
        &mut self,
        path: &str,
        add: &'a [String],
        remove: &[String],
    ) -> Result<(), Misfit> {
        let mut remove = set::keys(remove).ok_or(NO_JSON)?;
        let present: BTreeSet<String> = match self.tree.get(path) {
            Some(Json::Array(array)) => array.items().map(canonical).collect(),
            _ => BTreeSet::new(),
        };
        remove.retain(|item| present.contains(item) && !planted!(SetRemovalIgnored));
        let stays = |item: &String| self.state.item_competes(path, item, self.incoming);
        let gone = remove.iter().filter(|item| !stays(item)).cloned().collect();
        match self.tree.change_set(&members(path)?, add, &gone) {
            Ok(()) => {}
            Err(Misfit::Shape) => {
                self.lose(Lost::Older);
                return Ok(());
            }
            Err(misfit) => return Err(misfit),
        }
        for item in &remove {
            self.state.record_removed(path, item, self.incoming);
        }
        let add = set::keys(add).ok_or(NO_JSON)?;
        for item in &add {
            self.state
                .record_added(path, item, present.contains(item), self.incoming);
        }
        self.recorded |= !(add.is_empty() && remove.is_empty());
        if gone.len() < remove.len() {
            self.lose(Lost::Older);
        }
        Ok(())
    }

    /// Manual: applies if the author saw what is there now; is done if they wrote it; else waits.
    fn decide(&mut self, path: &'a str, edit: &'a PathEdit) -> Result<(), Misfit> {
        let now = self.tree.get(path).map(canonical);
        let text =
            |text: &Option<String>| text.as_deref().and_then(Json::parse).map(|j| canonical(&j));
        if let PathEdit::Decide { base, new } = edit {
            if text(base) == now {
                return self.perform(path, edit);
            }
            if text(new) == now {
                return Ok(());
            }
        }
        self.open.push((path, edit));
        Ok(())
    }

    fn lose(&mut self, lost: Lost) {
        self.lost.get_or_insert(lost);
    }

    pub(crate) fn finish(mut self, current: &Value) -> Merged {
        let value = self.tree.value();
        if !self.recorded && value != *current {
            self.state.touch(self.incoming);
            self.recorded = true;
        }
        let lost = self.conflict(&value).or(self.lost);
        Merged {
            value,
            state: self.recorded.then_some(self.state),
            lost,
        }
    }

    /// One conflict of the whole document for all steps left open: `base` and `mine` are the
    /// document as it is now with the author's view of those paths put in.
    fn conflict(&self, theirs: &Value) -> Option<Lost> {
        if self.open.is_empty() {
            return None;
        }
        let bases: Vec<_> = self
            .open
            .iter()
            .map(|(path, edit)| (*path, seen(edit)))
            .collect();
        let with = |edits: &[(&str, PathEdit)]| {
            let mut tree = self.tree.clone();
            for (path, edit) in edits {
                // What does not fit any more is left out of the picture.
                let _shown = tree.perform(path, edit).is_ok();
            }
            tree.value()
        };
        let mine: Vec<_> = self
            .open
            .iter()
            .map(|&(path, edit)| (path, edit.clone()))
            .collect();
        Some(Lost::Conflict {
            base: with(&bases),
            mine: with(&mine),
            theirs: theirs.clone(),
        })
    }
}

/// The edit that puts back what the author of `edit` had seen.
fn seen(edit: &PathEdit) -> PathEdit {
    if let PathEdit::Decide {
        base: Some(base), ..
    } = edit
    {
        return PathEdit::Set(base.clone());
    }
    PathEdit::Remove
}
