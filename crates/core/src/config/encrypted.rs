//! What a column that devices seal cannot be besides: everything for which the server would have to
//! read it.

use std::ops::Range;

use super::{column::ColumnText, error::Mistakes, merge::Chosen, place::Source};
use crate::{
    config::Renamed,
    schema::{Column, MergeStrategy, Table},
    sql,
};

const EXPECTED: &str = "a column that the server never has to read";

/// Says of every encrypted column what is asked of it that needs its values.
pub(super) fn check(
    table: &Table,
    texts: &[(ColumnText, Range<usize>)],
    source: &Source,
    m: &mut Mistakes,
) {
    for (position, (text, span)) in texts.iter().enumerate() {
        let Some(at) = text.encrypted else { continue };
        let name = &table.columns[position].name;
        for what in obstacles(table, position, text) {
            m.add(
                source.inside(span, at),
                format!(
                    "tables.{}.columns.{name} is encrypted and {what}",
                    table.name
                ),
                EXPECTED,
                "take out one of the two: only devices have the key",
            );
        }
    }
}

/// A rename makes what was sealed unreadable: names are part of what is sealed (spec EN2).
pub(super) fn check_rename(table: &Table, renamed: &Renamed, at: usize, m: &mut Mistakes) {
    let is_renamed = |column: &&Column| {
        let is_it = |name: &String| column.name.eq_ignore_ascii_case(name);
        column.encrypted.is_some() && renamed.column.as_ref().is_none_or(is_it)
    };
    let Some(column) = table.columns.iter().find(is_renamed) else {
        return;
    };
    let path = format!("tables.{}", table.name);
    let what = match &renamed.column {
        Some(_) => format!("{path}.renamed.{}", column.name),
        None => format!("{path}.renamed_from"),
    };
    m.add(
        at,
        format!("{what}: {} is encrypted", column.name),
        "the name that its values were sealed under, which is a part of what is sealed",
        "keep the old name; or add another column, and let the app copy the values",
    );
}

fn obstacles(table: &Table, position: usize, text: &ColumnText) -> Vec<&'static str> {
    let name = &table.columns[position].name;
    let is_named = |sql: &str| {
        let mut tokens = sql::tokens(sql).into_iter();
        tokens.any(|token| token.name().eq_ignore_ascii_case(name))
    };
    let lists = |lists: &[Vec<usize>]| lists.iter().any(|list| list.contains(&position));
    let further = table.further_indexes.iter();
    let computed = table.columns.iter().filter_map(|c| c.computed.as_ref());
    let checks = table.columns.iter().filter_map(|c| c.check.as_ref());
    let found = [
        (table.is_key(position), "part of the primary key"),
        (lists(&table.uniques), "unique"),
        (lists(&table.indexes), "in an index"),
        (
            further
                .flat_map(|index| index.condition.iter().chain([&index.terms]))
                .any(|sql| is_named(sql)),
            "in an index",
        ),
        (
            table
                .foreign_keys
                .iter()
                .any(|key| key.columns.contains(&position)),
            "a reference",
        ),
        (text.default.is_some(), "has a default"),
        (
            text.check.is_some() || checks.chain(&table.checks).any(|sql| is_named(sql)),
            "in a check",
        ),
        (text.collate.is_some(), "has a collation"),
        (text.generated, "generated"),
        (
            computed.map(|c| &c.expression).any(|sql| is_named(sql)),
            "what a generated column is computed from",
        ),
        (text.declared.is_some(), "declared as another type"),
    ];
    let mut found: Vec<_> = found
        .into_iter()
        .filter(|(is, _)| *is)
        .map(|(_, what)| what)
        .collect();
    found.dedup();
    found
}

/// Whether a strategy takes one of two values as it is, without reading either.
pub(super) fn can_merge(strategy: MergeStrategy) -> bool {
    match strategy {
        MergeStrategy::LastWriteWins | MergeStrategy::ServerWins | MergeStrategy::ClientWins => {
            true
        }
        MergeStrategy::MergeFields
        | MergeStrategy::Set
        | MergeStrategy::Append
        | MergeStrategy::Counter
        | MergeStrategy::Collaborative
        | MergeStrategy::Manual => false,
    }
}

pub(super) fn cannot_merge(chosen: &Chosen, place: &str, column: &Column, m: &mut Mistakes) {
    m.add(
        chosen.at.0,
        format!(
            "{place} is `{}`, and {} is encrypted",
            chosen.strategy.as_str(),
            column.name
        ),
        "`last-write-wins`, `server-wins` or `client-wins`: the server cannot read the values",
        "take it out for last-write-wins",
    );
}
