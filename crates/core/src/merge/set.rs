//! Sets: JSON arrays of distinct items whose adds and removes are both kept (spec ME8).

use std::collections::BTreeSet;

use super::json::{Array, Json, canonical};

/// Items of `after` that are not in `before`, and the reverse; JSON texts in the order of the text.
pub(crate) fn difference(before: &Array<'_>, after: &Array<'_>) -> (Vec<String>, Vec<String>) {
    (missing(after, before), missing(before, after))
}

/// Items of `from` that `other` lacks, each once.
fn missing(from: &Array<'_>, other: &Array<'_>) -> Vec<String> {
    let mut seen: BTreeSet<String> = other.items().map(canonical).collect();
    from.items()
        .filter(|item| seen.insert(canonical(item)))
        .map(Json::to_string)
        .collect()
}

/// Takes out the items of `remove` and puts those of `add` that are not there at the end.
pub(crate) fn change<'a>(
    array: &mut Array<'a>,
    add: impl IntoIterator<Item = Json<'a>>,
    remove: &BTreeSet<String>,
) {
    let mut present = BTreeSet::new();
    array.retain(|item| {
        let text = canonical(item);
        let stays = !remove.contains(&text);
        present.insert(text);
        stays
    });
    present.retain(|item| !remove.contains(item));
    for item in add {
        if present.insert(canonical(&item)) {
            array.push(item);
        }
    }
}

/// One difference with the effect of two: an item's last mention counts.
pub(crate) fn joined(
    (add, remove): (&[String], &[String]),
    (then_add, then_remove): (&[String], &[String]),
) -> Option<(Vec<String>, Vec<String>)> {
    let added = keys(then_add)?;
    let removed = keys(then_remove)?;
    let survives = |other: &BTreeSet<String>, item: &String| Some(!other.contains(&key(item)?));
    let mut adds = Vec::new();
    for item in add {
        if survives(&removed, item)? && survives(&added, item)? {
            adds.push(item.clone());
        }
    }
    adds.extend_from_slice(then_add);
    let mut removes = Vec::new();
    for item in remove {
        if survives(&added, item)? && survives(&removed, item)? {
            removes.push(item.clone());
        }
    }
    removes.extend_from_slice(then_remove);
    Some((adds, removes))
}

/// The canonical texts of `items`, or `None` if one is no JSON.
pub(crate) fn keys(items: &[String]) -> Option<BTreeSet<String>> {
    items.iter().map(|item| key(item)).collect()
}

fn key(item: &str) -> Option<String> {
    Json::parse(item).map(|item| canonical(&item))
}
