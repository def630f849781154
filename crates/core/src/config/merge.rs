//! `merge`: how columns, and paths inside JSON columns, come together.

use super::{
    encrypted,
    error::Mistakes,
    keys::{Keys, Node, in_order, joined, table as as_table, text as as_text},
    nearest::{nearest, one_of},
    place::Place,
};
use crate::{
    merge::path,
    schema::{Column, ColumnType, MergeStrategy, Table},
};

/// A strategy as the file gives it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chosen {
    pub(super) what: What,
    pub(super) strategy: MergeStrategy,
    pub(super) at: Place,
}

/// What a strategy is given to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum What {
    /// `"*"`: every column that is not named.
    Rest,
    /// A column, or a column and a path joined by a dot, as one key.
    Key(String),
    /// A column and members inside it, as nested tables.
    Nested(String, Vec<String>),
}

impl What {
    fn shown(&self) -> String {
        match self {
            Self::Rest => "*".to_owned(),
            Self::Key(key) => key.clone(),
            Self::Nested(column, members) => format!("{column}.{}", members.join(".")),
        }
    }
}

/// Reads the key `merge`. Whether the columns exist is seen when there are some: [`apply`].
pub(super) fn parse(keys: &mut Keys<'_, '_>, m: &mut Mistakes) -> Vec<Chosen> {
    let path = keys.path("merge");
    let example = "merge = { tags = \"set\", budget = \"manual\" }";
    let Some((_, node)) = keys.take("merge") else {
        return Vec::new();
    };
    if let Some(name) = node.get_ref().as_str() {
        let suggestion = format!("write merge = {{ \"*\" = \"{name}\" }} for the whole table");
        super::keys::wrong_type(node, &path, "a table of columns", &suggestion, m);
        return Vec::new();
    }
    let Some(entries) = as_table(node, &path, example, m) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for (key, node) in in_order(entries) {
        let name = key.get_ref().as_ref();
        let path = joined(&path, name);
        let what = if name == "*" {
            What::Rest
        } else {
            What::Key(name.to_owned())
        };
        if name != "*" && node.get_ref().is_table() {
            nested(node, &path, name, &mut Vec::new(), &mut all, m);
        } else {
            strategy(node, &path, what, key.span().start, &mut all, m);
        }
    }
    all
}

/// `settings.goals = "set"` without quotes is a table in a table.
fn nested(
    node: &Node<'_>,
    path: &str,
    column: &str,
    members: &mut Vec<String>,
    all: &mut Vec<Chosen>,
    m: &mut Mistakes,
) {
    let Some(entries) = node.get_ref().as_table() else {
        let what = What::Nested(column.to_owned(), members.clone());
        strategy(node, path, what, node.span().start, all, m);
        return;
    };
    for (key, node) in in_order(entries) {
        let name = key.get_ref().as_ref();
        members.push(name.to_owned());
        nested(node, &joined(path, name), column, members, all, m);
        members.pop();
    }
}

fn strategy(
    node: &Node<'_>,
    path: &str,
    what: What,
    at: usize,
    all: &mut Vec<Chosen>,
    m: &mut Mistakes,
) {
    let Some(name) = as_text(node, path, m) else {
        return;
    };
    let start = node.span().start;
    match MergeStrategy::parse(name) {
        Some(MergeStrategy::Collaborative) => m.add(
            start,
            format!("{path} is `collaborative`, which this version does not have yet"),
            "a strategy that it has",
            "write \"manual\", so that no text is lost, or take it out",
        ),
        Some(strategy) => all.push(Chosen {
            what,
            strategy,
            at: Place(at),
        }),
        None => {
            let synonyms = [
                ("lww", "last-write-wins"),
                ("last_write_wins", "last-write-wins"),
                ("newest", "last-write-wins"),
                ("server", "server-wins"),
                ("remote", "server-wins"),
                ("client", "client-wins"),
                ("local", "client-wins"),
                ("sum", "counter"),
                ("increment", "counter"),
                ("union", "set"),
                ("array", "set"),
                ("list", "append"),
                ("merge", "merge-fields"),
                ("fields", "merge-fields"),
                ("object", "merge-fields"),
                ("ask", "manual"),
            ];
            let synonym = synonyms
                .iter()
                .find(|(other, _)| name.eq_ignore_ascii_case(other));
            let meant = synonym
                .map(|(_, meant)| *meant)
                .or_else(|| nearest(name, usable()));
            m.add(
                start,
                format!("{path} is `{name}`"),
                format!("a strategy: {}", one_of(usable())),
                meant.map_or("take it out for last-write-wins".to_owned(), |meant| {
                    format!("write \"{meant}\"")
                }),
            );
        }
    }
}

fn usable() -> impl Iterator<Item = &'static str> {
    MergeStrategy::ALL
        .iter()
        .filter(|strategy| **strategy != MergeStrategy::Collaborative)
        .map(|strategy| strategy.as_str())
}

/// Gives the chosen strategies to the columns of `table`, `path` in the file.
///
/// A text column that was taken from a database and merges as JSON becomes a json column: SQLite
/// has no type of that name.
pub(super) fn apply(
    table: &mut Table,
    chosen: &[Chosen],
    path: &str,
    adopted: bool,
    m: &mut Mistakes,
) {
    for rest in chosen.iter().filter(|chosen| chosen.what == What::Rest) {
        whole_table(table, rest, path, m);
    }
    let mut given: Vec<(usize, Option<String>)> = Vec::new();
    for chosen in chosen {
        let place = format!("{path}.merge.{}", chosen.what.shown());
        let (column, members) = match &chosen.what {
            What::Rest => continue,
            What::Key(key) => match resolve(table, key) {
                Some((column, members)) => (column, members.map(str::to_owned)),
                None => {
                    unknown(table, key, chosen, &place, m);
                    continue;
                }
            },
            What::Nested(column, members) => match table.position(column) {
                Some(position) => {
                    let joined = members
                        .iter()
                        .fold(String::new(), |at, m| path::child(&at, m));
                    (position, Some(joined))
                }
                None => {
                    unknown(table, column, chosen, &place, m);
                    continue;
                }
            },
        };
        let what = (column, members);
        if given.contains(&what) {
            m.add(
                chosen.at.0,
                format!("{place} has a strategy already"),
                "one strategy for each column and path",
                "keep one of the two",
            );
            continue;
        }
        given.push(what.clone());
        give(table, what, chosen, &place, adopted, m);
    }
}

/// A strategy for every column: one that fits every type.
fn whole_table(table: &mut Table, chosen: &Chosen, path: &str, m: &mut Mistakes) {
    let strategy = chosen.strategy;
    if !fits(ColumnType::Any, strategy) || needs_type(strategy) {
        m.add(
            chosen.at.0,
            format!(
                "{path}.merge.* is `{}`, which fits some types only",
                strategy.as_str()
            ),
            "`last-write-wins`, `server-wins`, `client-wins` or `manual`",
            "name the columns that it is for",
        );
        return;
    }
    for position in 0..table.columns.len() {
        let column = &mut table.columns[position];
        if column.encrypted.is_some() && !encrypted::can_merge(strategy) {
            encrypted::cannot_merge(chosen, &format!("{path}.merge.*"), column, m);
        } else if !table.is_key(position) && !table.columns[position].generated {
            table.columns[position].merge = strategy;
        }
    }
}

fn give(
    table: &mut Table,
    (position, members): (usize, Option<String>),
    chosen: &Chosen,
    place: &str,
    adopted: bool,
    m: &mut Mistakes,
) {
    let at = chosen.at.0;
    if table.is_key(position) || table.columns[position].generated {
        let what = if table.is_key(position) {
            "key"
        } else {
            "generated"
        };
        m.add(
            at,
            format!("{place} is a {what} column"),
            "a column that apps change",
            "take it out: there is nothing to merge",
        );
        return;
    }
    let column = &mut table.columns[position];
    if column.encrypted.is_some() && (members.is_some() || !encrypted::can_merge(chosen.strategy)) {
        encrypted::cannot_merge(chosen, place, column, m);
        return;
    }
    let as_json = members.is_some() || is_json(chosen.strategy);
    if adopted && as_json && column.ty == ColumnType::Text {
        column.ty = ColumnType::Json;
    }
    match members {
        None if fits(column.ty, chosen.strategy) => column.merge = chosen.strategy,
        None => does_not_fit(column, chosen, place, m),
        Some(_) if !matches!(column.ty, ColumnType::Json | ColumnType::Any) => m.add(
            at,
            format!(
                "{place}: {} is {}, which has nothing inside",
                column.name,
                column.ty.as_str()
            ),
            "a path in a json column",
            format!("declare `{}` as json, or take it out", column.name),
        ),
        Some(members) if path::split(&members).is_none() => m.add(
            at,
            format!("{place}: `{members}` is no path"),
            "names of members joined by dots; `\\.` is a dot in a name",
            "write for example \"settings.goals\"",
        ),
        Some(members) => {
            column.merge_paths.insert(members, chosen.strategy);
        }
    }
}

fn does_not_fit(column: &Column, chosen: &Chosen, place: &str, m: &mut Mistakes) {
    let strategy = chosen.strategy.as_str();
    let (expected, suggestion) = if chosen.strategy == MergeStrategy::Counter {
        (
            "an integer or real column",
            "\"last-write-wins\", or \"manual\" to ask a person",
        )
    } else if column.ty == ColumnType::Text {
        (
            "a json column",
            "the column's type as json, if it holds JSON",
        )
    } else {
        (
            "a json column",
            "\"last-write-wins\", or \"manual\" to ask a person",
        )
    };
    m.add(
        chosen.at.0,
        format!(
            "{place} is `{strategy}`, and {} is {}",
            column.name,
            column.ty.as_str()
        ),
        expected,
        format!("write {suggestion}"),
    );
}

fn unknown(table: &Table, key: &str, chosen: &Chosen, place: &str, m: &mut Mistakes) {
    let names = || table.columns.iter().map(|column| column.name.as_str());
    let first = key.split('.').next().unwrap_or(key);
    let suggestion = match nearest(key, names()).or_else(|| nearest(first, names())) {
        Some(meant) => format!("write `{meant}`"),
        None => "add the column, or take it out".to_owned(),
    };
    m.add(
        chosen.at.0,
        format!("{place}: no column `{first}`"),
        one_of(names()),
        suggestion,
    );
}

/// The column that a key in quotes means, and the path after it: the longest name that is one.
fn resolve<'k>(table: &Table, key: &'k str) -> Option<(usize, Option<&'k str>)> {
    if let Some(position) = table.position(key) {
        return Some((position, None));
    }
    key.rmatch_indices('.')
        .find_map(|(dot, _)| Some((table.position(&key[..dot])?, Some(&key[dot + 1..]))))
}

fn fits(ty: ColumnType, strategy: MergeStrategy) -> bool {
    match strategy {
        MergeStrategy::LastWriteWins
        | MergeStrategy::ServerWins
        | MergeStrategy::ClientWins
        | MergeStrategy::Manual => true,
        MergeStrategy::Counter => {
            matches!(ty, ColumnType::Integer | ColumnType::Real | ColumnType::Any)
        }
        MergeStrategy::MergeFields | MergeStrategy::Set | MergeStrategy::Append => {
            matches!(ty, ColumnType::Json | ColumnType::Any)
        }
        MergeStrategy::Collaborative => ty == ColumnType::Text,
    }
}

fn is_json(strategy: MergeStrategy) -> bool {
    matches!(
        strategy,
        MergeStrategy::MergeFields | MergeStrategy::Set | MergeStrategy::Append
    )
}

fn needs_type(strategy: MergeStrategy) -> bool {
    is_json(strategy) || strategy == MergeStrategy::Counter
}
