//! What follows from changed rows: grants, buckets, and the buckets of everything below
//! (spec PL10, PL11).

use std::collections::{BTreeMap, VecDeque};

use syncline_core::planted;
use syncline_core::{
    BucketId, RowKey, TableNumber, Version,
    rules::{Facts, Grant, GrantedTo, Proposed, Stored},
};

use super::{
    context::Context,
    draft::{Draft, Named, RowDraft, WriteRight},
    effect::{Effect, Effects},
    facts::Layered,
    owned::Differences,
    state::State,
};
use crate::{meta::RowMeta, want::Missing};

/// Turns effects into a draft: nothing of it can be refused any more.
pub(crate) fn settle(
    context: &Context,
    state: &State,
    mut effects: Effects,
) -> Result<Draft, Missing> {
    let mut proposed = std::mem::take(&mut effects.proposed);
    for (change, effect) in proposed.iter_mut().zip(&effects.effects) {
        if effect.before_version == Version::ZERO {
            // What was judged as its past (a revived row) is not there.
            change.before = None;
        }
    }
    let mut wants = Vec::new();
    let layered = Layered::new(state, &proposed);
    let (mut grants, mut named) = (BTreeMap::new(), BTreeMap::new());
    for (i, change) in proposed.iter().enumerate() {
        match grant_differences(
            context,
            &layered,
            i,
            change.before.as_ref(),
            change.after.as_ref(),
        ) {
            Ok(differences) => {
                for (grant, difference, to) in differences {
                    *grants.entry(grant).or_insert(0) += difference;
                    named.extend(to.map(|to| (grant, to)));
                }
            }
            Err(missing) => wants.extend(missing.0),
        }
    }
    layered.apply(proposed.len());
    for (effect, change) in effects.effects.iter_mut().zip(&proposed) {
        match buckets(
            context,
            &layered,
            effect,
            change.before.as_ref(),
            change.after.as_ref(),
        ) {
            Ok(buckets) => effect.meta.buckets = buckets,
            Err(missing) => wants.extend(missing.0),
        }
    }
    let below = if wants.is_empty() {
        rebucket(context, state, &layered, &mut effects)?
    } else {
        return Err(Missing(wants));
    };
    drop(layered);
    let rights = rights(context, &proposed);
    let images = proposed
        .into_iter()
        .map(|change| (change.before, change.after));
    let mut rows: Vec<RowDraft> = Vec::with_capacity(effects.effects.len() + below.len());
    let last = effects.last();
    let lost = std::mem::take(&mut effects.lost).into_iter();
    let lost = lost.map(|(_, edit)| edit).collect();
    rows.extend(
        images
            .zip(effects.effects)
            .filter_map(|((before, after), effect)| {
                let table = after.as_ref().or(before.as_ref())?.table;
                let (key, row, old) = match (after, before) {
                    (Some(after), old) => (after.key, Some(after.row), old.map(|old| old.row)),
                    (None, Some(before)) => (before.key, None, Some(before.row)),
                    (None, None) => return None,
                };
                let Effect {
                    meta,
                    before,
                    before_version,
                    columns,
                    ..
                } = effect;
                Some(RowDraft {
                    table,
                    key,
                    row,
                    meta,
                    before,
                    before_version,
                    image: true,
                    old,
                    columns,
                })
            }),
    );
    rows.extend(below);
    let owned = Differences::of(context, state, &rows)?;
    Ok(Draft {
        rows,
        grants,
        named,
        rights,
        owned,
        lost,
        last,
    })
}

/// What change `i` adds to the paths of each grant, with the changes before it applied, and what
/// the audit log is to say of it.
fn grant_differences(
    context: &Context,
    layered: &Layered<'_>,
    i: usize,
    before: Option<&Stored>,
    after: Option<&Stored>,
) -> Result<Vec<(Grant, i64, Option<Named>)>, Missing> {
    let rules = context.rules();
    if let (Some(before), Some(after)) = (before, after)
        && rules.same_grants(before, after)
    {
        return Ok(Vec::new());
    }
    let mut differences = Vec::new();
    let mut wants = Vec::new();
    for (stored, applied, sign) in [(before, i, -1), (after, i + 1, 1)] {
        let Some(stored) = stored else { continue };
        layered.apply(applied);
        match rules.named_grants(stored, layered) {
            Ok(grants) => differences.extend(grants.into_iter().map(|(grant, to)| {
                let user = match to {
                    GrantedTo::User(user) => Some(Some(user)),
                    GrantedTo::Others => Some(None),
                    GrantedTo::Twin => None,
                };
                let via = stored.table;
                (grant, sign, user.map(|user| Named { user, via }))
            })),
            Err(missing) => wants.extend(missing.0),
        }
    }
    if wants.is_empty() {
        Ok(differences)
    } else {
        Err(Missing(wants))
    }
}

/// Rights to write that the changed rows give and take.
fn rights(context: &Context, proposed: &[Proposed]) -> BTreeMap<WriteRight, u64> {
    let mut all = BTreeMap::new();
    for change in proposed {
        let (before, after) = (change.before.as_ref(), change.after.as_ref());
        let Some(via) = before.or(after).map(|stored| stored.table) else {
            continue;
        };
        for right in context.rules().rights(before, after) {
            let right = WriteRight {
                user: right.user,
                via,
                allowed: right.allowed,
                given: right.given,
                link: right.link,
            };
            *all.entry(right).or_insert(0) += 1;
        }
    }
    all
}

fn buckets(
    context: &Context,
    layered: &Layered<'_>,
    effect: &Effect,
    before: Option<&Stored>,
    after: Option<&Stored>,
) -> Result<Vec<BucketId>, Missing> {
    match (before, after) {
        (_, None) => Ok(Vec::new()),
        (Some(before), Some(after))
            if !effect.before.is_empty() && context.rules().same_buckets(before, after) =>
        {
            Ok(effect.before.clone())
        }
        (_, Some(after)) => context.rules().buckets(after, layered),
    }
}

/// The descent from rows whose buckets changed to everything that inherits from them.
struct Descent<'a, 'l> {
    context: &'a Context,
    state: &'a State,
    layered: &'a Layered<'l>,
    /// Parents whose buckets changed.
    queue: VecDeque<(TableNumber, RowKey)>,
    /// Rows that change nothing but their buckets.
    below: Vec<RowDraft>,
    places: BTreeMap<(TableNumber, RowKey), usize>,
}

/// Gives new buckets to all rows that inherit from one whose buckets changed.
fn rebucket(
    context: &Context,
    state: &State,
    layered: &Layered<'_>,
    effects: &mut Effects,
) -> Result<Vec<RowDraft>, Missing> {
    let (queue, below, places) = (VecDeque::new(), Vec::new(), BTreeMap::new());
    let mut descent = Descent {
        context,
        state,
        layered,
        queue,
        below,
        places,
    };
    for (i, effect) in effects.effects.iter().enumerate() {
        if effect.before != effect.meta.buckets
            && let Some((table, key)) = layered.row(i)
        {
            descent.enqueue(table, key);
        }
    }
    if planted!(BucketMoveForgotten) {
        return Ok(Vec::new());
    }
    // Level by level: what one level misses is loaded in one round.
    while !descent.queue.is_empty() {
        let mut wants = Vec::new();
        for (table, key) in std::mem::take(&mut descent.queue) {
            if let Err(missing) = descent.children(table, &key, effects) {
                wants.extend(missing.0);
            }
        }
        if !wants.is_empty() {
            return Err(Missing(wants));
        }
    }
    Ok(descent.below)
}

impl Descent<'_, '_> {
    fn enqueue(&mut self, table: TableNumber, key: &RowKey) {
        let parent = self.context.table(table);
        if parent.is_some_and(|table| !table.inheriting.is_empty()) {
            self.queue.push_back((table, key.clone()));
        }
    }

    fn children(
        &mut self,
        table: TableNumber,
        key: &RowKey,
        effects: &mut Effects,
    ) -> Result<(), Missing> {
        let mut wants = Vec::new();
        for (child_table, column, value) in self.context.rules().child_lookups(table, key) {
            match self.layered.matching(child_table, column, &value) {
                Err(missing) => wants.extend(missing.0),
                Ok(children) => {
                    for child in children {
                        if let Err(missing) = self.child(child, effects) {
                            wants.extend(missing.0);
                        }
                    }
                }
            }
        }
        if wants.is_empty() {
            Ok(())
        } else {
            Err(Missing(wants))
        }
    }

    fn child(&mut self, child: Stored, effects: &mut Effects) -> Result<(), Missing> {
        let buckets = self.context.rules().buckets(&child, self.layered)?;
        let (table, key) = (child.table, child.key.clone());
        let known = match self.layered.position(table, &key) {
            Some(i) => Some(&mut effects.effects[i].meta.buckets),
            None => self
                .places
                .get(&(table, key.clone()))
                .map(|&i| &mut self.below[i].meta.buckets),
        };
        if let Some(known) = known {
            if *known == buckets {
                return Ok(());
            }
            *known = buckets;
        } else {
            let Some(present) = self.state.row(table, &key)? else {
                return Ok(());
            };
            if present.meta.buckets == buckets {
                return Ok(());
            }
            self.places.insert((table, key.clone()), self.below.len());
            let version = effects.take_version();
            self.below
                .push(moved(child, present.meta, buckets, version));
        }
        self.enqueue(table, &key);
        Ok(())
    }
}

/// A row that changes nothing but its buckets.
fn moved(stored: Stored, before: &RowMeta, buckets: Vec<BucketId>, version: Version) -> RowDraft {
    RowDraft {
        table: stored.table,
        key: stored.key,
        row: Some(stored.row),
        meta: RowMeta {
            version,
            buckets,
            ..before.clone()
        },
        before: before.buckets.clone(),
        before_version: before.version,
        image: false,
        old: None,
        columns: Vec::new(),
    }
}
