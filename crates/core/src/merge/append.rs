//! Lists that only grow: items of both sides are kept, in the server's order (spec ME9).

use super::json::{Array, Json, canonical};

/// The items (JSON texts) that `after` has behind all of `before`; `None` if `after` does not
/// begin with `before`.
pub(crate) fn difference(before: Option<&Array<'_>>, after: &Array<'_>) -> Option<Vec<String>> {
    let mut rest = after.items();
    for item in before.into_iter().flat_map(Array::items) {
        if canonical(rest.next()?) != canonical(item) {
            return None;
        }
    }
    Some(rest.map(Json::to_string).collect())
}
