//! Looks for rows that would have no key of their own.

use rusqlite::{Connection, OptionalExtension as _};
use syncline_core::{ColumnType, Value, sql::column_type};

use super::{problem::ProblemReason, shape::Shape};
use crate::{
    rows::uuid_spellings,
    sql::{list, quoted},
};

/// What is wrong with the keys of the rows. Reads the table at most twice.
pub(super) fn key_problems(
    conn: &Connection,
    shape: &Shape,
) -> rusqlite::Result<Vec<ProblemReason>> {
    let mut problems = null_keys(conn, shape)?;
    let uuids: Vec<usize> = shape
        .primary_key
        .iter()
        .copied()
        .filter(|&p| column_type(&shape.columns[p].declared) == ColumnType::Uuid)
        .collect();
    for &position in &uuids {
        problems.extend(odd_uuid(conn, shape, position)?);
    }
    if problems.is_empty() && !uuids.is_empty() {
        problems.extend(same_uuid(conn, shape, &uuids)?);
    }
    Ok(problems)
}

fn null_keys(conn: &Connection, shape: &Shape) -> rusqlite::Result<Vec<ProblemReason>> {
    let mut problems = Vec::new();
    for &position in shape
        .primary_key
        .iter()
        .filter(|&&p| shape.key_takes_null(p))
    {
        let column = &shape.columns[position].name;
        let sql = format!(
            "SELECT count(*) FROM {} AS r WHERE r.{} IS NULL",
            quoted(&shape.name),
            quoted(column)
        );
        let rows: i64 = conn.query_row(&sql, [], |row| row.get(0))?;
        if rows > 0 {
            problems.push(ProblemReason::NullKeys {
                column: column.clone(),
                rows: rows.unsigned_abs(),
            });
        }
    }
    Ok(problems)
}

/// The first UUID that is spelled in none of the ways in which [`crate::rows`] looks for it.
fn odd_uuid(
    conn: &Connection,
    shape: &Shape,
    position: usize,
) -> rusqlite::Result<Option<ProblemReason>> {
    let column = &shape.columns[position].name;
    let k = format!("r.{} COLLATE BINARY", quoted(column));
    let mut statement = conn.prepare(&format!(
        "SELECT r.{} FROM {} AS r WHERE typeof({k}) = 'text' AND length({k}) BETWEEN 32 AND 41 \
         AND NOT (length({k}) = 36 AND {k} = lower({k}))",
        quoted(column),
        quoted(&shape.name)
    ))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let Ok(key) = row.get::<_, String>(0) else {
            continue;
        };
        let canonical = Value::Text(key.clone()).canonical(ColumnType::Uuid);
        let is_found = canonical
            .as_text()
            .is_some_and(|text| text == key || uuid_spellings(text).contains(&key));
        if !is_found {
            let column = column.clone();
            return Ok(Some(ProblemReason::OddUuid { column, key }));
        }
    }
    Ok(None)
}

/// Two rows whose keys differ only in how their UUIDs are spelled.
fn same_uuid(
    conn: &Connection,
    shape: &Shape,
    uuids: &[usize],
) -> rusqlite::Result<Option<ProblemReason>> {
    let name = |&p: &usize| format!("r.{}", quoted(&shape.columns[p].name));
    let plain = |p: &usize| format!("lower(replace({}, '-', ''))", name(p));
    let odd = list(uuids, |p| {
        format!("({0} <> lower({0}) OR {0} NOT LIKE '%-%')", name(p))
    })
    .replace(", ", " OR ");
    let table = quoted(&shape.name);
    let any: bool = conn.query_row(
        &format!("SELECT EXISTS(SELECT 1 FROM {table} AS r WHERE {odd})"),
        [],
        |row| row.get(0),
    )?;
    if !any {
        return Ok(None);
    }
    let terms = list(&shape.primary_key, |p| {
        if uuids.contains(p) { plain(p) } else { name(p) }
    });
    let first = uuids[0];
    let found: Option<String> = conn
        .query_row(
            &format!(
                "SELECT CAST({} AS TEXT) FROM {table} AS r GROUP BY {terms} HAVING count(*) > 1 LIMIT 1",
                name(&first)
            ),
            [],
            |row| row.get(0),
        )
        .optional()?;
    let column = shape.columns[first].name.clone();
    Ok(found.map(|key| ProblemReason::SameUuid { column, key }))
}
