//! What dropping a table did to rows that refer to it (spec CA11).
//!
//! Who makes a table anew drops the old one, and SQLite deletes its rows first: with foreign keys
//! on, the rows that refer to them are deleted too, or lose the reference. Our triggers mark that
//! like any other change. Nobody meant it for everyone: it is sealed apart, and parked.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::params_from_iter;
use syncline_core::{
    ColumnEdit, Op, Row, RowKey, TableNumber, Timestamp, Value,
    schema::{ForeignKey, OnDelete},
};

use crate::{
    capture::{Before, DraftChange},
    db::Doing,
    entropy::Entropy,
    error::ReplicaError,
    event::Event,
    meta::{
        ledger,
        outbox::{self, Seq, StoredChange},
    },
    rows::{Bind, Raw},
    seal::{self, Sealed},
    sql,
    tables::SyncedTable,
    work::{Place, Work},
};

/// Code of changesets parked because only a dropped table made them.
pub(crate) const CASCADE: &str = "dropped_table_cascade";
/// Changes that are one parked changeset.
pub(crate) const TOGETHER: usize = 50_000;
/// Rows that still refer to others that are looked at.
const LOOKED_AT: usize = 1_000;

/// The tables that were dropped since the schema was last looked at, and which rows went along.
#[derive(Debug, Default)]
pub(crate) struct Cascades {
    /// In lower case; another table of the same name may be there now.
    dropped: BTreeSet<String>,
    /// Tables whose text changed: a reference of theirs may name what is dropped by now.
    altered: BTreeSet<String>,
    /// Rows found to have gone along, of the marks that are being sealed.
    victims: BTreeSet<Place>,
    /// Changes that were parked.
    rows: u64,
    parked: Vec<Seq>,
    /// Rows that were put back, and nothing of them is parked.
    back: BTreeSet<Place>,
    /// By table and columns of the reference.
    fired: BTreeMap<(TableNumber, Vec<usize>), bool>,
}

/// A change of which a part may be a cascade's.
#[derive(Debug)]
pub(crate) struct Split {
    pub(crate) meant: Option<DraftChange>,
    pub(crate) cascaded: Option<DraftChange>,
}

impl Cascades {
    pub(super) fn new(dropped: BTreeSet<String>, altered: BTreeSet<String>) -> Self {
        Self {
            dropped,
            altered,
            ..Self::default()
        }
    }

    /// Takes apart what the app changed and what a dropped table did.
    pub(crate) fn split(
        &mut self,
        work: &Work<'_>,
        table: &SyncedTable,
        change: DraftChange,
    ) -> Result<Split, ReplicaError> {
        let whole = |change| Split {
            meant: Some(change),
            cascaded: None,
        };
        if self.dropped.is_empty() || !table.is_here {
            return Ok(whole(change));
        }
        let Before::Image(before) = &change.before else {
            return Ok(whole(change));
        };
        let Some(after) = &change.after else {
            if table.sql.exists(work.conn, &change.key)? || !self.took(work, table, before)? {
                return Ok(whole(change));
            }
            self.victims.insert((table.number(), change.key.clone()));
            return Ok(Split {
                meant: None,
                cascaded: Some(change),
            });
        };
        let mut kept = after.clone();
        for key in references(table) {
            if is_emptied(key, before, after) && self.is_alive(work, table, key, before)? {
                for &position in &key.columns {
                    kept.0[position].clone_from(&before.0[position]);
                }
            }
        }
        if kept == *after {
            return Ok(whole(change));
        }
        let meant = (kept != *before).then(|| DraftChange {
            after: Some(kept.clone()),
            ..change.clone()
        });
        let cascaded = Some(DraftChange {
            before: Before::Image(kept),
            ..change
        });
        Ok(Split { meant, cascaded })
    }

    /// Whether a row that is missing, and whose content nobody knows, may have gone along.
    pub(crate) fn may_take(
        &mut self,
        work: &Work<'_>,
        table: &SyncedTable,
    ) -> Result<bool, ReplicaError> {
        for key in references(table).filter(|key| key.on_delete == OnDelete::Cascade) {
            if self.fired(work, table, key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes references that may have been emptied out of a whole row, whose content before
    /// nobody knows.
    pub(crate) fn spare(
        &mut self,
        work: &Work<'_>,
        table: &SyncedTable,
        op: &mut Op,
        after: &Row,
    ) -> Result<(), ReplicaError> {
        let Op::Update(edits) = op else { return Ok(()) };
        for key in references(table).filter(|key| key.on_delete != OnDelete::Cascade) {
            let is_empty = key.columns.iter().all(|&p| after.0[p].is_null());
            if is_empty && self.fired(work, table, key)? {
                let is_of = |edit: &ColumnEdit| {
                    let mut columns = key.columns.iter().map(|&p| &table.table.columns[p]);
                    columns.any(|column| column.number == edit.column)
                };
                edits.retain(|edit| !is_of(edit));
            }
        }
        Ok(())
    }

    /// Seals changes apart and parks them, so that the rows come back here and nothing is sent.
    pub(crate) fn park(
        &mut self,
        work: &mut Work<'_>,
        changes: Vec<StoredChange>,
        entropy: &mut dyn Entropy,
        now: Timestamp,
    ) -> Result<(), ReplicaError> {
        let rows = changes.len() as u64;
        let sealed = Sealed {
            changes,
            // As if it were marked: it is never joined with what was meant.
            marked: true,
            ..Sealed::default()
        };
        if let Some(seq) = seal::store(work, sealed, entropy, now)? {
            work.park([seq], CASCADE, &self.message(), now)?;
            self.rows += rows;
            self.parked.push(seq);
            self.victims.clear();
        }
        Ok(())
    }

    /// Puts back what a row was of which nothing can be sealed yet: nobody knows whether the
    /// server has it.
    pub(crate) fn put_back(
        &mut self,
        work: &mut Work<'_>,
        table: &SyncedTable,
        change: DraftChange,
    ) -> Result<(), ReplicaError> {
        if let Before::Image(row) = change.before {
            self.back.insert((table.number(), change.key.clone()));
            work.show(table, &change.key, Some(row))?;
        }
        Ok(())
    }

    pub(super) fn took_any(&self) -> bool {
        !self.back.is_empty() || !self.parked.is_empty()
    }

    /// Tells the app, once.
    pub(super) fn tell(&self, work: &mut Work<'_>) -> Result<(), ReplicaError> {
        let mut ids = Vec::new();
        for seq in &self.parked {
            ids.extend(outbox::entry(work.conn, *seq)?.map(|entry| entry.id));
        }
        if let Some(&changeset) = ids.first() {
            work.events.push(Event::ChangeRefused {
                changeset,
                code: CASCADE.to_owned(),
                message: format!("{} (rows: {})", self.message(), self.rows),
                parked: ids,
            });
        }
        Ok(())
    }

    fn message(&self) -> String {
        let names: Vec<&str> = self.dropped.iter().map(String::as_str).collect();
        format!(
            "dropping the table {} deleted rows that refer to it, or emptied their references, \
             because foreign keys were on; they are back here and nothing was sent: discard this, \
             or retry it to have the same happen everywhere",
            names.join(", ")
        )
    }

    fn took(
        &mut self,
        work: &Work<'_>,
        table: &SyncedTable,
        image: &Row,
    ) -> Result<bool, ReplicaError> {
        for key in references(table).filter(|key| key.on_delete == OnDelete::Cascade) {
            if self.is_alive(work, table, key, image)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the row that `image` refers to is still there although its table was dropped, or
    /// went along itself.
    fn is_alive(
        &mut self,
        work: &Work<'_>,
        table: &SyncedTable,
        key: &ForeignKey,
        image: &Row,
    ) -> Result<bool, ReplicaError> {
        let values: Vec<Value> = key.columns.iter().map(|&p| image.0[p].clone()).collect();
        if values.iter().any(Value::is_null) {
            return Ok(false);
        }
        let fired = self.fired(work, table, key)?;
        let parent = work.tables.named(&key.parent);
        if let Some(parent) = parent.filter(|parent| parent.is_here) {
            let Some(found) = seal::parent_key(work, parent, key, values)? else {
                return Ok(false);
            };
            if self.went_along(work, parent, &found)? {
                return Ok(true);
            }
            // A parent that is missing unmarked may itself have gone along: that is found later.
            return Ok(fired
                && (parent.sql.exists(work.conn, &found)?
                    || (ledger::version_of(work.conn, parent.number(), &found)?.is_some()
                        && self.may_take(work, parent)?)));
        }
        if !fired {
            return Ok(false);
        }
        match columns_of(work, &key.parent, &key.parent_columns)? {
            None => Ok(true),
            Some(columns) => exists(work, &key.parent, &columns, &values),
        }
    }

    /// Whether this reference did what it says when its table was dropped: then no row is left
    /// that has one to a row that is there, but those that came later. Asked once.
    fn fired(
        &mut self,
        work: &Work<'_>,
        table: &SyncedTable,
        key: &ForeignKey,
    ) -> Result<bool, ReplicaError> {
        let place = (table.number(), key.columns.clone());
        if let Some(known) = self.fired.get(&place) {
            return Ok(*known);
        }
        let fired = match columns_of(work, &key.parent, &key.parent_columns)? {
            Some(columns) => {
                self.dropped.contains(&key.parent.to_ascii_lowercase())
                    && !has_survivors(work, table, key, &key.parent, &columns)?
            }
            // `ALTER TABLE … RENAME` takes references along: once the renamed table is dropped,
            // they name one that is not there, instead of the one that has the name now.
            None if self.altered.contains(&table.name().to_ascii_lowercase()) => {
                let mut survive = false;
                for parent in &self.dropped {
                    if let Some(columns) = columns_of(work, parent, &[])? {
                        survive |= has_survivors(work, table, key, parent, &columns)?;
                    }
                }
                !survive
            }
            None => self.dropped.contains(&key.parent.to_ascii_lowercase()),
        };
        self.fired.insert(place, fired);
        Ok(fired)
    }

    fn went_along(
        &self,
        work: &Work<'_>,
        parent: &SyncedTable,
        key: &RowKey,
    ) -> Result<bool, ReplicaError> {
        for touching in outbox::touching(work.conn, parent.number(), key)? {
            if self.parked.contains(&touching.seq) {
                return Ok(true);
            }
        }
        let place = (parent.number(), key.clone());
        Ok(self.victims.contains(&place) || self.back.contains(&place))
    }
}

/// The references of a table by which a dropped one changes its rows.
fn references(table: &SyncedTable) -> impl Iterator<Item = &ForeignKey> {
    let acts = |key: &&ForeignKey| match key.on_delete {
        OnDelete::Cascade | OnDelete::SetNull | OnDelete::SetDefault => true,
        OnDelete::NoAction | OnDelete::Restrict => false,
    };
    let captured = |key: &&ForeignKey| {
        let mut columns = key.columns.iter();
        columns.all(|&p| !table.table.columns[p].generated)
    };
    table
        .table
        .foreign_keys
        .iter()
        .filter(acts)
        .filter(captured)
}

/// Whether some row that the server gave refers to a row that is there.
fn has_survivors(
    work: &Work<'_>,
    table: &SyncedTable,
    key: &ForeignKey,
    parent: &str,
    columns: &[String],
) -> Result<bool, ReplicaError> {
    const DOING: &str = "looking for rows that still refer to others";
    if columns.len() != key.columns.len() {
        return Ok(false);
    }
    let own = |&p: &usize| format!("r.{}", sql::quoted(&table.table.columns[p].name));
    let text = format!(
        "SELECT {} FROM {} AS r WHERE EXISTS (SELECT 1 FROM {} AS p WHERE {}) LIMIT {LOOKED_AT}",
        sql::list(&table.table.primary_key, own),
        sql::quoted(table.name()),
        sql::quoted(parent),
        sql::all(columns.iter().zip(&key.columns), |(name, p)| format!(
            "p.{} = {}",
            sql::quoted(name),
            own(p)
        )),
    );
    let mut statement = work.conn.prepare(&text).doing(DOING)?;
    let mut rows = statement.query([]).doing(DOING)?;
    while let Some(row) = rows.next().doing(DOING)? {
        let stored: Vec<Raw> = (0..table.table.primary_key.len())
            .map(|i| row.get_ref(i).map(Raw::new))
            .collect::<Result<_, _>>()
            .doing(DOING)?;
        if let Some(found) = table.sql.canonical_key(stored)
            && ledger::version_of(work.conn, table.number(), &found)?.is_some()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the reference is what ON DELETE SET NULL or SET DEFAULT leaves of it.
fn is_emptied(key: &ForeignKey, before: &Row, after: &Row) -> bool {
    let mut columns = key.columns.iter();
    match key.on_delete {
        OnDelete::SetNull => columns.all(|&p| after.0[p].is_null()),
        OnDelete::SetDefault => columns.any(|&p| after.0[p] != before.0[p]),
        OnDelete::Cascade | OnDelete::NoAction | OnDelete::Restrict => false,
    }
}

/// The columns of a table that a foreign key refers to: those it names, else the primary key;
/// `None` if there is no such table, or not with these columns.
fn columns_of(
    work: &Work<'_>,
    table: &str,
    named: &[String],
) -> Result<Option<Vec<String>>, ReplicaError> {
    const DOING: &str = "reading what a foreign key refers to";
    let mut statement = work
        .conn
        .prepare_cached("SELECT pk, name FROM pragma_table_info(?1, 'main')")
        .doing(DOING)?;
    let rows = statement.query_map([table], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
    });
    let mut columns: Vec<(i64, String)> = rows.and_then(Iterator::collect).doing(DOING)?;
    if columns.is_empty() {
        return Ok(None);
    }
    if !named.is_empty() {
        let has = |name: &String| columns.iter().any(|(_, c)| c.eq_ignore_ascii_case(name));
        return Ok(named.iter().all(has).then(|| named.to_vec()));
    }
    columns.retain(|(place, _)| *place > 0);
    columns.sort_unstable();
    Ok(Some(columns.into_iter().map(|(_, name)| name).collect()))
}

fn exists(
    work: &Work<'_>,
    table: &str,
    columns: &[String],
    values: &[Value],
) -> Result<bool, ReplicaError> {
    let text = format!(
        "SELECT EXISTS(SELECT 1 FROM {} WHERE {})",
        sql::quoted(table),
        sql::all(columns, |name| format!("{} = ?", sql::quoted(name))),
    );
    work.conn
        .prepare_cached(&text)
        .and_then(|mut statement| {
            statement.query_row(params_from_iter(values.iter().map(Bind)), |row| row.get(0))
        })
        .doing("looking for a referenced row")
}
