//! `[tables.NAME]`.

use std::{collections::BTreeMap, ops::Range};

use toml::de::DeTable;

use super::{
    Renamed, check,
    column::{self, ColumnText, Reference},
    encrypted,
    error::{Mistake, Mistakes},
    further,
    keys::{Keys, Node, in_order, joined, text as as_text, texts as as_texts, wrong_type},
    merge::{self, Chosen},
    place::Source,
};
use crate::{
    ids::{ColumnNumber, TableNumber},
    schema::{
        Column, ColumnType, ForeignKey, FurtherIndex, MergeStrategy, RuleTexts, SyncMode, Table,
    },
    sql::{is_closed_expression, without_comments},
};

/// What the file says of a table beyond the table itself.
pub(super) struct TableText {
    pub(super) name: String,
    pub(super) merge: Vec<Chosen>,
    pub(super) renamed: Vec<(Renamed, usize)>,
    /// Place of each of [`Table::foreign_keys`].
    pub(super) references: Vec<usize>,
    /// Columns that could not be read: nothing but their names is known.
    pub(super) unread: Vec<String>,
}

const SYNONYMS: &[(&str, &str)] = &[
    ("column", "columns"),
    ("fields", "columns"),
    ("select", "read"),
    ("using", "read"),
    ("insert", "create"),
    ("with_check", "write"),
    ("policy", "read"),
    ("pk", "primary_key"),
    ("key", "primary_key"),
    ("index", "indexes"),
    ("uniques", "unique"),
    ("strategy", "merge"),
    ("conflict", "merge"),
    ("rename", "renamed"),
    ("references", "foreign_keys"),
];

/// Keys that say what a table looks like: they go with `columns`.
const STRUCTURE: [&str; 7] = [
    "primary_key",
    "unique",
    "indexes",
    "foreign_keys",
    "checks",
    "without_rowid",
    "strict",
];

pub(super) fn parse(
    name: &str,
    number: TableNumber,
    at: usize,
    table: &DeTable<'_>,
    source: &mut Source,
    m: &mut Mistakes,
) -> (Table, TableText) {
    let path = joined("tables", name);
    source.add_table(name, at);
    let mut keys = Keys::new(&path, table);
    let mut out = empty(name, number);
    let mut references = Vec::new();
    let mut unread = Vec::new();
    let has_columns = table.iter().any(|(key, _)| key.get_ref() == "columns");
    if has_columns {
        unread = structure(&mut out, &mut references, &mut keys, at, source, m);
    } else {
        keys.take("columns");
        for name in STRUCTURE {
            if let Some((key, _)) = keys.take(name) {
                m.add(
                    key.span().start,
                    format!("{} is said of a table without columns", joined(&path, name)),
                    "a table with `columns`, or nothing: it is taken from the database as it is",
                    "add `columns`, or take this out",
                );
            }
        }
    }
    rules(&mut out, &mut keys, source, m);
    modes(&mut out, &mut keys, m);
    let chosen = merge::parse(&mut keys, m);
    if has_columns {
        merge::apply(&mut out, &chosen, &path, false, m);
    }
    let renamed = renames(&out, &mut keys, m);
    for (renamed, at) in &renamed {
        encrypted::check_rename(&out, renamed, *at, m);
    }
    keys.finish(SYNONYMS, m);
    let text = TableText {
        name: name.to_owned(),
        merge: chosen,
        renamed,
        references,
        unread,
    };
    (out, text)
}

fn empty(name: &str, number: TableNumber) -> Table {
    Table {
        name: name.to_owned(),
        number,
        columns: Vec::new(),
        primary_key: Vec::new(),
        uniques: Vec::new(),
        indexes: Vec::new(),
        foreign_keys: Vec::new(),
        without_rowid: false,
        autoincrement: false,
        further_indexes: Vec::new(),
        checks: Vec::new(),
        strict: false,
        sync: SyncMode::Auto,
        update_wins: false,
        rules: RuleTexts::default(),
        force: BTreeMap::new(),
    }
}

/// Columns, keys, constraints and indexes. Returns the names of columns that cannot be read.
fn structure(
    table: &mut Table,
    references: &mut Vec<usize>,
    keys: &mut Keys<'_, '_>,
    at: usize,
    source: &Source,
    m: &mut Mistakes,
) -> Vec<String> {
    let example = "columns = { id = \"uuid primary key\", title = \"text\" }";
    let columns = keys.table("columns", example, m);
    let mut texts: Vec<(ColumnText, Range<usize>)> = Vec::new();
    let mut found: Vec<(ForeignKey, usize)> = Vec::new();
    for (key, node) in columns.map(in_order).unwrap_or_default() {
        let name = key.get_ref().as_ref();
        let path = joined(&keys.path("columns"), name);
        if !check::column_name(name, key.span().start, table, m) {
            continue;
        }
        // A column with a mistake is known by name all the same, so that what mentions it is not
        // called a mistake too.
        let text = column_text(node, &path, source, m).unwrap_or_default();
        if let Some(reference) = &text.references {
            let place = source.inside(&node.span(), reference.at);
            found.push((foreign_key(vec![table.columns.len()], reference), place));
        }
        table
            .columns
            .push(column_of(name, table.columns.len(), &text));
        texts.push((text, node.span()));
    }
    check::primary_key(table, &texts, columns.is_some(), keys, at, m);
    uniques_and_indexes(table, &texts, keys, m);
    table_foreign_keys(table, &mut found, keys, source, m);
    check::columns(table, &texts, m);
    found.sort_by(|(a, _), (b, _)| {
        let name = |key: &ForeignKey| key.parent.to_ascii_lowercase();
        (&a.columns, name(a)).cmp(&(&b.columns, name(b)))
    });
    (table.foreign_keys, *references) = found.into_iter().unzip();
    checks(table, keys, m);
    encrypted::check(table, &texts, source, m);
    if let Some(without_rowid) = keys.boolean("without_rowid", m) {
        table.without_rowid = without_rowid;
        if without_rowid && table.autoincrement {
            m.add(
                at,
                format!(
                    "tables.{} has `without_rowid` and `autoincrement`",
                    table.name
                ),
                "one of the two",
                "take out `without_rowid`",
            );
        }
    }
    table.strict = keys.boolean("strict", m).unwrap_or(false);
    let unread = texts.iter().zip(&table.columns);
    unread
        .filter(|((text, _), _)| text.ty.is_none())
        .map(|(_, column)| column.name.clone())
        .collect()
}

/// `checks = ["starts < ends"]`.
fn checks(table: &mut Table, keys: &mut Keys<'_, '_>, m: &mut Mistakes) {
    let path = keys.path("checks");
    for (text, span) in keys.texts("checks", m).unwrap_or_default() {
        let text = without_comments(text);
        if text.is_empty() || !is_closed_expression(&text) {
            m.add(
                span.start,
                format!("{path} has a text that is no condition"),
                "an SQL condition on the columns of the table",
                "write for example checks = [\"starts < ends\"]",
            );
            continue;
        }
        table.checks.push(text);
    }
}

fn column_text(
    node: &Node<'_>,
    path: &str,
    source: &Source,
    m: &mut Mistakes,
) -> Option<ColumnText> {
    let Some(text) = node.get_ref().as_str() else {
        let suggestion = "write type and constraints in quotes, for example \"text not null\"";
        wrong_type(node, path, "a string", suggestion, m);
        return None;
    };
    match column::parse(text) {
        Ok(text) => Some(text),
        Err(mistake) => {
            let at = source.inside(&node.span(), mistake.at);
            m.push(Mistake {
                at,
                ..mistake.of(path)
            });
            None
        }
    }
}

fn column_of(name: &str, position: usize, text: &ColumnText) -> Column {
    let number = u32::try_from(position)
        .unwrap_or(u32::MAX)
        .saturating_add(1);
    let ty = text.ty.unwrap_or(ColumnType::Any);
    let encrypted = text.encrypted.map(|_| ty);
    Column {
        name: name.to_owned(),
        number: ColumnNumber(number),
        ty: encrypted.map_or(ty, |_| ColumnType::Blob),
        encrypted,
        not_null: text.not_null,
        default: text.default.clone(),
        check: text.check.clone(),
        collate: text.collate.clone(),
        generated: text.generated,
        computed: text.computed.clone(),
        declared: text.declared.clone(),
        merge: MergeStrategy::LastWriteWins,
        merge_paths: BTreeMap::new(),
    }
}

fn foreign_key(columns: Vec<usize>, reference: &Reference) -> ForeignKey {
    ForeignKey {
        columns,
        parent: reference.parent.clone(),
        parent_columns: reference.columns.clone(),
        on_delete: reference.on_delete,
    }
}

/// Lists of columns, sorted without doubles; indexes stay in their order.
fn uniques_and_indexes(
    table: &mut Table,
    texts: &[(ColumnText, Range<usize>)],
    keys: &mut Keys<'_, '_>,
    m: &mut Mistakes,
) {
    let alone = |(position, _): &(usize, _)| table.primary_key == [*position];
    let of_columns = texts
        .iter()
        .enumerate()
        .filter(|(_, (text, _))| text.unique);
    let mut uniques: Vec<_> = of_columns
        .filter(|column| !alone(column))
        .map(|(position, _)| vec![position])
        .collect();
    let (lists, mut further) = index_lists(table, keys, "unique", m);
    uniques.extend(lists);
    uniques.sort();
    uniques.dedup();
    table.uniques = uniques;
    let (lists, others) = index_lists(table, keys, "indexes", m);
    table.indexes = lists;
    further.extend(others);
    table.further_indexes = further;
}

/// `[["a", "b"], "(lower(c)) where d = 0"]`.
fn index_lists(
    table: &Table,
    keys: &mut Keys<'_, '_>,
    name: &'static str,
    m: &mut Mistakes,
) -> (Vec<Vec<usize>>, Vec<FurtherIndex>) {
    let (mut lists, mut further) = (Vec::new(), Vec::new());
    let Some((_, node)) = keys.take(name) else {
        return (lists, further);
    };
    let path = keys.path(name);
    let expected = "a list of lists of columns";
    let Some(items) = node.get_ref().as_array() else {
        let suggestion = format!("write {name} = [[\"a\", \"b\"]]");
        wrong_type(node, &path, expected, &suggestion, m);
        return (lists, further);
    };
    for item in items.iter() {
        if let Some(text) = item.get_ref().as_str() {
            if further::is_meant(text) {
                match further::parse(text, name == "unique") {
                    Ok(index) => further.push(index),
                    Err(mistake) => m.push(Mistake {
                        at: item.span().start,
                        ..mistake.of(&path)
                    }),
                }
                continue;
            }
            let suggestion = format!("write [[{}]]", super::keys::quoted(text));
            wrong_type(item, &path, expected, &suggestion, m);
            continue;
        }
        let Some(names) = as_texts(item, &path, m) else {
            continue;
        };
        if let Some(positions) = check::positions(table, &names, &path, item.span().start, m) {
            lists.push(positions);
        }
    }
    (lists, further)
}

fn table_foreign_keys(
    table: &Table,
    found: &mut Vec<(ForeignKey, usize)>,
    keys: &mut Keys<'_, '_>,
    source: &Source,
    m: &mut Mistakes,
) {
    let path = keys.path("foreign_keys");
    for (text, span) in keys.texts("foreign_keys", m).unwrap_or_default() {
        match column::parse_foreign_key(text) {
            Ok((names, reference)) => {
                let names: Vec<_> = names
                    .iter()
                    .map(|name| (name.as_str(), span.clone()))
                    .collect();
                if let Some(columns) = check::positions(table, &names, &path, span.start, m) {
                    let place = source.inside(&span, reference.at);
                    found.push((foreign_key(columns, &reference), place));
                }
            }
            Err(mistake) => {
                let at = source.inside(&span, mistake.at);
                m.push(Mistake {
                    at,
                    ..mistake.of(&path)
                });
            }
        }
    }
}

fn rules(table: &mut Table, keys: &mut Keys<'_, '_>, source: &mut Source, m: &mut Mistakes) {
    let mut rule = |name: &'static str, m: &mut Mistakes| {
        let (_, node) = keys.take(name)?;
        let path = keys.path(name);
        let text = match node.get_ref().as_bool() {
            Some(value) => {
                let suggestion = format!("write \"{value}\", in quotes");
                wrong_type(node, &path, "an SQL condition as a string", &suggestion, m);
                return None;
            }
            None => as_text(node, &path, m)?,
        };
        if text.trim().is_empty() {
            m.add(
                node.span().start,
                format!("{path} is empty"),
                "an SQL condition",
                "write \"true\" to allow everything, or take it out to allow nothing",
            );
            return None;
        }
        source.rule(&table.name, name, "", node.span());
        Some(text.to_owned())
    };
    table.rules = RuleTexts {
        read: rule("read", m),
        write: rule("write", m),
        create: rule("create", m),
        update: rule("update", m),
        delete: rule("delete", m),
    };
    let example = "force = { user_id = \"auth.uid()\" }";
    let Some(force) = keys.table("force", example, m) else {
        return;
    };
    for (key, node) in in_order(force) {
        let name = key.get_ref().as_ref();
        let path = joined(&keys.path("force"), name);
        let Some(text) = as_text(node, &path, m) else {
            continue;
        };
        let Some(column) = check::known_column(table, name, &path, key.span().start, m) else {
            continue;
        };
        source.rule(&table.name, "force", &column, node.span());
        table.force.insert(column, text.to_owned());
    }
}

/// `sync` and `on_delete`.
fn modes(table: &mut Table, keys: &mut Keys<'_, '_>, m: &mut Mistakes) {
    if let Some((_, node)) = keys.take("sync") {
        let path = keys.path("sync");
        if let Some(text) = as_text(node, &path, m) {
            match SyncMode::parse(text) {
                Some(mode) => table.sync = mode,
                None => m.add(
                    node.span().start,
                    format!("{path} is `{text}`"),
                    "`auto` or `on_demand`",
                    "write \"on_demand\" to send rows only when an app asks for them",
                ),
            }
        }
    }
    if let Some((_, node)) = keys.take("on_delete") {
        let path = keys.path("on_delete");
        match as_text(node, &path, m) {
            Some("update-wins") => table.update_wins = true,
            Some("delete-wins") | None => {}
            Some(text) => m.add(
                node.span().start,
                format!("{path} is `{text}`"),
                "`delete-wins` or `update-wins`: what happens to a row that one device deleted \
                 while another changed it",
                "what happens to children of a deleted row is written in their column: \
                 \"uuid references parent on delete cascade\"",
            ),
        }
    }
}

fn renames(table: &Table, keys: &mut Keys<'_, '_>, m: &mut Mistakes) -> Vec<(Renamed, usize)> {
    let mut all = Vec::new();
    let mut rename = |column: Option<String>, from: &str, at| {
        let renamed = Renamed {
            table: table.name.clone(),
            column,
            from: from.to_owned(),
        };
        all.push((renamed, at));
    };
    if let Some((_, node)) = keys.take("renamed_from")
        && let Some(from) = as_text(node, &keys.path("renamed_from"), m)
    {
        rename(None, from, node.span().start);
    }
    let example = "renamed = { new_name = \"old_name\" }";
    let columns = keys.table("renamed", example, m);
    for (key, node) in columns.map(in_order).unwrap_or_default() {
        let name = key.get_ref().as_ref();
        let path = joined(&keys.path("renamed"), name);
        let Some(from) = as_text(node, &path, m) else {
            continue;
        };
        if let Some(column) = check::known_column(table, name, &path, key.span().start, m) {
            rename(Some(column), from, node.span().start);
        }
    }
    all
}
