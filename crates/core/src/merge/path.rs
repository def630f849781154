//! Paths inside a JSON column: members joined by dots (spec ME12).

use crate::{
    merge::json::DEPTH_MAX,
    schema::{Column, MergeStrategy},
};

/// The whole document; no member has this path.
pub(crate) const ROOT: &str = "";

/// The path of `member` inside the object at `path`.
pub(crate) fn child(path: &str, member: &str) -> String {
    let mut out = String::with_capacity(path.len() + member.len() + 1);
    out.push_str(path);
    if !path.is_empty() {
        out.push('.');
    }
    if member.is_empty() {
        out.push_str("\\e");
    }
    for c in member.chars() {
        if matches!(c, '.' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The members that `path` names from the outside in, or `None` if it is no path of a member.
pub(crate) fn split(path: &str) -> Option<Vec<String>> {
    let mut members = Vec::new();
    let mut rest = path;
    loop {
        let (member, after) = take(rest)?;
        members.push(member);
        match after {
            None => break,
            Some(_) if members.len() == DEPTH_MAX => return None,
            Some(after) => rest = after,
        }
    }
    Some(members)
}

/// The first member of `path`, and what follows its dot.
fn take(path: &str) -> Option<(String, Option<&str>)> {
    let mut member = String::new();
    let mut empty = false;
    let mut chars = path.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '.' if member.is_empty() && !empty => return None,
            '.' => return Some((member, Some(&path[at + 1..]))),
            _ if empty => return None,
            '\\' => match chars.next()?.1 {
                c @ ('.' | '\\') => member.push(c),
                'e' if member.is_empty() => empty = true,
                _ => return None,
            },
            c => member.push(c),
        }
    }
    (empty || !member.is_empty()).then_some((member, None))
}

/// The path of the object that holds the member at `path`; `None` for the root.
pub(crate) fn parent(path: &str) -> Option<&str> {
    if path.is_empty() {
        return None;
    }
    let escapes = |at: usize| path[..at].len() - path[..at].trim_end_matches('\\').len();
    let mut dots = path.rmatch_indices('.').map(|(at, _)| at);
    Some(
        dots.find(|&at| escapes(at) % 2 == 0)
            .map_or(ROOT, |at| &path[..at]),
    )
}

/// The innermost member that `path` names.
pub(crate) fn last(path: &str) -> Option<String> {
    let around = parent(path)?;
    let dot = usize::from(!around.is_empty());
    take(&path[around.len() + dot..]).map(|(member, _)| member)
}

/// How the value at `path` merges: by the longest configured path that holds it, else as the
/// column says.
pub(crate) fn strategy(column: &Column, path: &str) -> MergeStrategy {
    let mut holders = std::iter::successors(Some(path), |path| parent(path));
    holders
        .find_map(|path| column.merge_paths.get(path).copied())
        .unwrap_or(column.merge)
}

/// Whether an object at `path` is merged member by member rather than as one value.
pub(crate) fn is_divided(column: &Column, path: &str) -> bool {
    strategy(column, path) == MergeStrategy::MergeFields
        || if path.is_empty() {
            !column.merge_paths.is_empty()
        } else {
            let inside = format!("{path}.");
            let mut after = column.merge_paths.range(inside.clone()..);
            after
                .next()
                .is_some_and(|(path, _)| path.starts_with(&inside))
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn me12_paths_escape_dots_backslashes_and_emptiness() {
        for members in [
            &["a"][..],
            &["a", "b"],
            &["a.b", "c\\"],
            &["", "", "x"],
            &["\\e", ".", "é"],
        ] {
            let path = members
                .iter()
                .fold(String::new(), |path, member| child(&path, member));
            assert_eq!(split(&path).unwrap(), members, "{path}");
            let outer = members[..members.len() - 1]
                .iter()
                .fold(String::new(), |p, m| child(&p, m));
            assert_eq!(parent(&path), Some(outer.as_str()), "{path}");
        }
        for bad in [
            "", ".", "a.", ".a", "a..b", "a\\", "\\x", "a\\e", "\\ea", "\\=x",
        ] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }
}
