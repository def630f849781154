//! Taking the marks that triggers left, and comparing rows where triggers were not there.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, params_from_iter, types::ValueRef};
use syncline_core::planted;
use syncline_core::{Row, RowKey, TableNumber, Value, digest::content_hash, sql::quote};
use syncline_store::{Mark, MarksTaken, Room};

use crate::{
    capture::sweep,
    catalog::{Catalog, Entry},
    fault::Result,
    value::{self, Bind},
};

/// Whether any row may differ from what the ledger says of it.
pub(crate) fn any_pending(conn: &Connection) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM syncline_pending)";
    Ok(conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

/// Takes marks as long as there is room. Rows that are what they were before are left out.
pub(crate) fn take(conn: &Connection, catalog: &Catalog, room: Room) -> Result<Taken> {
    let mut taken = Taking {
        conn,
        room,
        marks: BTreeMap::new(),
    };
    let pending = pending(conn)?;
    let tidied = !pending.is_empty();
    let mut more = false;
    for (number, sweep) in pending {
        let Some(entry) = catalog.entries.get(&number) else {
            continue;
        };
        if taken.room.is_full() {
            more = true;
            break;
        }
        let emptied = taken.drain_inbox(entry)?;
        let swept = emptied && taken.sweep(entry, sweep)?;
        more |= !swept;
        if swept {
            let sql = "DELETE FROM syncline_pending WHERE table_no = ?1";
            conn.prepare_cached(sql)?.execute([number.0])?;
        }
    }
    let marks = taken.marks.into_values().collect();
    Ok(Taken {
        taken: MarksTaken { marks, more },
        tidied,
    })
}

/// What was found.
pub(crate) struct Taken {
    pub(crate) taken: MarksTaken,
    /// Something was looked at and need not be again, whether or not it gave a mark.
    pub(crate) tidied: bool,
}

fn pending(conn: &Connection) -> Result<Vec<(TableNumber, Sweep)>> {
    let sql = "SELECT table_no, sweep, after_key FROM syncline_pending ORDER BY table_no";
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| {
        Ok((
            TableNumber(row.get(0)?),
            Sweep {
                phase: row.get(1)?,
                after: row.get(2)?,
            },
        ))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// How far a comparison of rows has come.
struct Sweep {
    phase: i64,
    /// Encoded: of rows the key as stored, of the ledger the canonical one.
    after: Option<Vec<u8>>,
}

/// Rows looked at in one step of a sweep.
const SWEEP_STEP: usize = 500;

struct Taking<'a> {
    conn: &'a Connection,
    room: Room,
    marks: BTreeMap<(TableNumber, RowKey), Mark>,
}

impl Taking<'_> {
    fn put(&mut self, entry: &Entry, key: RowKey, before: Option<Row>, now: Option<&Row>) {
        let table = entry.table.number;
        let images = before.iter().chain(now);
        self.room.take(key.as_bytes().len(), images);
        let mark = Mark {
            table,
            key: key.clone(),
            before,
        };
        // Two spellings of one key: the one that existed says what the row was.
        let old = self
            .marks
            .entry((table, key))
            .or_insert_with(|| mark.clone());
        if old.before.is_none() {
            *old = mark;
        }
    }

    /// Takes marks from the table's inbox; `true` when it is empty then.
    fn drain_inbox(&mut self, entry: &Entry) -> Result<bool> {
        while !self.room.is_full() {
            let (found, is_all) = inbox(self.conn, entry, self.room)?;
            let (count, mut looked_at) = (found.len(), 0);
            for mark in found {
                // What has no room is read again: what a row is now is known only now.
                if self.room.is_full() {
                    break;
                }
                looked_at += 1;
                let Some(key) = entry.canonical_key(mark.stored_key) else {
                    continue;
                };
                let now = entry.read(self.conn, &key)?;
                if now != mark.before {
                    self.put(entry, key, mark.before, now.as_ref());
                }
            }
            let emptied = is_all && looked_at == count;
            if looked_at > 0 && !planted!(InboxDrainedTwice) {
                clear_inbox(self.conn, entry, looked_at, emptied)?;
            }
            if emptied {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Goes on comparing rows with the ledger; `true` when that is done.
    fn sweep(&mut self, entry: &Entry, mut sweep: Sweep) -> Result<bool> {
        while sweep.phase != sweep::NONE {
            if self.room.is_full() {
                return Ok(false);
            }
            let done = if sweep.phase == sweep::RESCAN_LEDGER {
                self.sweep_ledger(entry, &mut sweep)?
            } else {
                self.sweep_rows(entry, &mut sweep)?
            };
            if done {
                sweep.after = None;
                sweep.phase = match sweep.phase {
                    sweep::RESCAN_ROWS => sweep::RESCAN_LEDGER,
                    _ => sweep::NONE,
                };
            }
            let sql = "UPDATE syncline_pending SET sweep = ?2, after_key = ?3 WHERE table_no = ?1";
            self.conn.prepare_cached(sql)?.execute((
                entry.table.number.0,
                sweep.phase,
                &sweep.after,
            ))?;
        }
        Ok(true)
    }

    /// Marks rows that the ledger does not know, or knows with another content.
    fn sweep_rows(&mut self, entry: &Entry, sweep: &mut Sweep) -> Result<bool> {
        let step = Room {
            rows: SWEEP_STEP.min(self.room.rows),
            ..self.room
        };
        let (rows, is_all) = rows_after(self.conn, entry, sweep.after.as_deref(), step)?;
        // Without a place to go on from, nothing after these rows can be reached either.
        let done = is_all || rows.iter().all(|found| found.place.is_none());
        for Found { stored, place, row } in rows {
            sweep.after = place.or(sweep.after.take());
            let Some(key) = entry.canonical_key(stored) else {
                continue;
            };
            if ledger_hash(self.conn, entry, &key)? != Some(content_hash(&entry.table, &row)) {
                self.put(entry, key, None, Some(&row));
            }
        }
        Ok(done)
    }

    /// Marks rows that only the ledger has.
    fn sweep_ledger(&mut self, entry: &Entry, sweep: &mut Sweep) -> Result<bool> {
        let step = SWEEP_STEP.min(self.room.rows);
        let sql = "SELECT key FROM syncline_rows
                   WHERE table_no = ?1 AND key > ?2 AND deleted = 0 ORDER BY key LIMIT ?3";
        let after = sweep.after.clone().unwrap_or_default();
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query((entry.table.number.0, after, value::limit(step)))?;
        let mut seen = 0;
        while let Some(row) = rows.next()? {
            let key = value::key(row, 0)?;
            sweep.after = Some(key.as_bytes().to_vec());
            seen += 1;
            if entry.read(self.conn, &key)?.is_none() {
                self.put(entry, key, None, None);
            }
        }
        Ok(seen < step)
    }
}

/// A mark as it lies in the inbox.
struct Stored {
    stored_key: Vec<Value>,
    before: Option<Row>,
}

/// The first marks of a table's inbox as far as there is room for what the rows were before, and
/// whether these are all.
fn inbox(conn: &Connection, entry: &Entry, mut room: Room) -> Result<(Vec<Stored>, bool)> {
    let keys = key_list(entry);
    let others = inbox_columns(entry);
    let sql = format!(
        "SELECT {keys}, existed{} FROM {} ORDER BY {keys} LIMIT ?1",
        others
            .iter()
            .map(|(_, name)| format!(", {name}"))
            .collect::<String>(),
        entry.text.inbox,
    );
    let mut statement = conn.prepare_cached(&sql)?;
    // One more shows whether it is the last.
    let mut rows = statement.query([value::limit(room.rows.saturating_add(1))])?;
    let width = entry.table.primary_key.len();
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        if room.is_full() {
            return Ok((out, false));
        }
        let stored_key: Vec<Value> = (0..width)
            .map(|i| Ok(value::read(row.get_ref(i)?)))
            .collect::<rusqlite::Result<_>>()?;
        let before = if row.get(width)? {
            let mut image = Row(vec![Value::Null; entry.table.columns.len()]);
            for (value, &position) in stored_key.iter().zip(&entry.table.primary_key) {
                image.0[position] = value.clone();
            }
            for (i, (position, _)) in others.iter().enumerate() {
                image.0[*position] = value::read(row.get_ref(width + 1 + i)?);
            }
            Some(image.canonical(&entry.table))
        } else {
            None
        };
        room.take(0, &before);
        out.push(Stored { stored_key, before });
    }
    Ok((out, true))
}

/// Removes the `read` first marks, or all of them. They are found again by the order they were
/// read in: a damaged text is read as a blob, and compared as one it would lie after all texts.
fn clear_inbox(conn: &Connection, entry: &Entry, read: usize, all: bool) -> Result<()> {
    let inbox = &entry.text.inbox;
    if all {
        conn.prepare_cached(&format!("DELETE FROM {inbox}"))?
            .execute([])?;
        return Ok(());
    }
    let keys = key_list(entry);
    let sql = format!(
        "DELETE FROM {inbox} WHERE ({keys}) IN
           (SELECT {keys} FROM {inbox} ORDER BY {keys} LIMIT ?1)"
    );
    conn.prepare_cached(&sql)?.execute([value::limit(read)])?;
    Ok(())
}

/// A row as a sweep finds it.
struct Found {
    stored: Vec<Value>,
    /// Encoded, to go on after it; `None` where the key is too long or not UTF-8.
    place: Option<Vec<u8>>,
    row: Row,
}

/// Rows in the order of the table's own key index as far as there is room, and whether these are
/// all.
fn rows_after(
    conn: &Connection,
    entry: &Entry,
    after: Option<&[u8]>,
    mut room: Room,
) -> Result<(Vec<Found>, bool)> {
    let names: Vec<_> = entry
        .table
        .primary_key
        .iter()
        .map(|&p| quote(&entry.table.columns[p].name))
        .collect();
    let keys = names.join(", ");
    let mut bound = match after {
        Some(bytes) => RowKey::from_bytes(bytes)
            .and_then(|key| key.decode())
            .unwrap_or_default(),
        None => Vec::new(),
    };
    let condition = if bound.is_empty() {
        let not_null: Vec<_> = names
            .iter()
            .map(|name| format!("{name} IS NOT NULL"))
            .collect();
        not_null.join(" AND ")
    } else {
        format!("({keys}) > ({})", places(entry))
    };
    let sql = format!(
        "SELECT {keys}, {} FROM {} WHERE {condition} ORDER BY {keys} LIMIT ?{}",
        entry.text.columns,
        entry.text.name,
        bound.len() + 1,
    );
    bound.push(Value::Integer(value::limit(room.rows.saturating_add(1))));
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(bound.iter().map(Bind)))?;
    let mut out = Vec::new();
    let mut has_place = false;
    while let Some(row) = rows.next()? {
        // Large rows end it only where it can go on from.
        if room.rows == 0 || (room.is_full() && has_place) {
            return Ok((out, false));
        }
        let mut stored = Vec::with_capacity(names.len());
        let mut is_exact = true;
        for i in 0..names.len() {
            let raw = row.get_ref(i)?;
            // Compared as the blob it is read as, such a text would lie after all others.
            is_exact &= !matches!(raw, ValueRef::Text(text) if std::str::from_utf8(text).is_err());
            stored.push(value::read(raw));
        }
        let key = RowKey::encode(&stored).ok().filter(|_| is_exact);
        let row = entry.image(row, names.len())?;
        room.take(0, [&row]);
        has_place |= key.is_some();
        out.push(Found {
            place: key.map(|key| key.as_bytes().to_vec()),
            stored,
            row,
        });
    }
    Ok((out, true))
}

/// The hash of the row when the ledger was written; `None` for an unknown or deleted row.
fn ledger_hash(conn: &Connection, entry: &Entry, key: &RowKey) -> Result<Option<u64>> {
    let sql = "SELECT hash FROM syncline_rows WHERE table_no = ?1 AND key = ?2 AND deleted = 0";
    let hash: Option<Option<i64>> = conn
        .prepare_cached(sql)?
        .query_row((entry.table.number.0, key.as_bytes()), |row| row.get(0))
        .optional()?;
    Ok(hash.flatten().map(i64::cast_unsigned))
}

impl Entry {
    /// Whether the row with this key, spelled as in `values`, has a mark.
    pub(crate) fn is_marked(&self, conn: &Connection, values: &[Value]) -> Result<bool> {
        let mut statement = conn.prepare_cached(&self.text.is_marked)?;
        Ok(statement.query_row(params_from_iter(values.iter().map(Bind)), |row| row.get(0))?)
    }

    pub(crate) fn unmark(&self, conn: &Connection, values: &[Value]) -> Result<()> {
        conn.prepare_cached(&self.text.unmark)?
            .execute(params_from_iter(values.iter().map(Bind)))?;
        Ok(())
    }

    /// Marks a row, or replaces its mark.
    pub(crate) fn mark(
        &self,
        conn: &Connection,
        values: &[Value],
        before: Option<&Row>,
    ) -> Result<()> {
        self.unmark(conn, values)?;
        let others = inbox_columns(self);
        let width = values.len() + 1 + others.len();
        let marks: Vec<_> = (1..=width).map(|i| format!("?{i}")).collect();
        let sql = format!(
            "INSERT INTO {}({}, existed{}) VALUES ({})",
            self.text.inbox,
            key_list(self),
            others
                .iter()
                .map(|(_, name)| format!(", {name}"))
                .collect::<String>(),
            marks.join(", "),
        );
        let existed = Value::Integer(i64::from(before.is_some()));
        let images = others
            .iter()
            .map(|(p, _)| before.map_or(&Value::Null, |row| &row.0[*p]));
        let bound = values.iter().chain(std::iter::once(&existed)).chain(images);
        conn.prepare_cached(&sql)?
            .execute(params_from_iter(bound.map(Bind)))?;
        let pending = "INSERT INTO syncline_pending(table_no) VALUES (?1) ON CONFLICT DO NOTHING";
        conn.prepare_cached(pending)?
            .execute([self.table.number.0])?;
        Ok(())
    }
}

/// `k1, k2`.
fn key_list(entry: &Entry) -> String {
    let keys: Vec<_> = (1..=entry.table.primary_key.len())
        .map(|i| format!("k{i}"))
        .collect();
    keys.join(", ")
}

/// `?1, ?2` for the key.
fn places(entry: &Entry) -> String {
    let places: Vec<_> = (1..=entry.table.primary_key.len())
        .map(|i| format!("?{i}"))
        .collect();
    places.join(", ")
}

/// Positions of the columns that the inbox has besides the key, with its names for them.
fn inbox_columns(entry: &Entry) -> Vec<(usize, String)> {
    let name = |&p: &usize| (p, format!("c{}", entry.table.columns[p].number.0));
    entry.values.iter().map(name).collect()
}
