//! Pages of loading buckets: applied as they arrive, each in a transaction of its own (spec LO2).

use std::collections::BTreeSet;

use rusqlite::Connection;
use syncline_core::{
    RowKey, Timestamp, Version,
    wire::{Page, PagePart, RowBody, RowState},
};

use super::{
    Fault,
    record::{Stream, apply_page_absence, apply_page_row, check_key, pack_extra},
};
use crate::{
    entropy::Entropy,
    error::ReplicaError,
    meta::{
        ahead::{self, Ahead},
        buckets, cursors,
        ledger::{self, Bucket, Known},
        settings::{self, Key},
    },
    rows::Inserter,
    tables::SyncedTable,
    tally::RowChange,
    work::Work,
};

/// Rows of a bucket that are compared with a page at a time.
const COMPARED: usize = 10_000;

/// Applies a page inside the caller's transaction, sealing done. Returns the number of rows it had.
pub(crate) fn apply_page(
    work: &mut Work<'_>,
    page: &Page,
    entropy: &mut dyn Entropy,
    now: Timestamp,
) -> Result<u64, Fault> {
    let checkpoint = cursors::newest(work.conn)?.unwrap_or(Version::ZERO);
    let mut rows = 0;
    for part in &page.parts {
        let Some(b) = buckets::number(work.conn, part.bucket)? else {
            continue;
        };
        let Some(table) = work.tables.remote(part.table) else {
            continue;
        };
        if !continues(work.conn, b, table, part)? {
            continue;
        }
        let mut stream = Stream {
            now,
            entropy,
            any_ahead: false,
            mismatched: Vec::new(),
        };
        let apply = PartOf {
            page: page.version,
            checkpoint,
            b,
            table,
        };
        let (count, last) = apply.part(work, &mut stream, part)?;
        rows += count;
        // The last part is complete too, but only a checkpoint makes it live: after a cut its
        // end is asked for again.
        let last = last.as_ref().map(RowKey::as_bytes);
        let after = part.to.as_deref().or(last).or(part.after.as_deref());
        let beyond = Some(page.version).filter(|version| *version > checkpoint);
        buckets::set_position(work.conn, b, table.number(), after, beyond)?;
    }
    let loaded = settings::get_count(work.conn, Key::LoadedRows)? + rows;
    settings::put(work.conn, Key::LoadedRows, loaded.cast_signed())?;
    match page.remaining {
        Some(remaining) => {
            settings::put(work.conn, Key::RemainingRows, remaining.cast_signed())?;
        }
        None => settings::remove(work.conn, Key::RemainingRows)?,
    }
    work.prove_key()?;
    work.settle(entropy, now)?;
    Ok(rows)
}

/// Whether the part begins where the last one ended. One that does not was asked for before the
/// position changed: what is needed comes. Nor does one of what is live and was not asked for
/// again: taken, it would be loading, and the server would have nothing more to say of it.
fn continues(
    conn: &Connection,
    b: Bucket,
    table: &SyncedTable,
    part: &PagePart,
) -> Result<bool, ReplicaError> {
    let known = buckets::part(conn, b, table.number())?;
    Ok(match (&part.after, known) {
        (Some(after), known) => known.and_then(|known| known.after).as_ref() == Some(after),
        (None, Some(known)) => !known.live,
        (None, None) => buckets::is_to_load(conn, b, table.number())?,
    })
}

struct PartOf<'a> {
    page: Version,
    checkpoint: Version,
    b: Bucket,
    table: &'a SyncedTable,
}

impl PartOf<'_> {
    fn part(
        &self,
        work: &mut Work<'_>,
        stream: &mut Stream<'_>,
        part: &PagePart,
    ) -> Result<(u64, Option<RowKey>), Fault> {
        let t = self.table.number();
        let (after, to) = (part.after.as_deref(), part.to.as_deref());
        let is_fresh = !self.table.seeding
            && !work.has_shadows(t)?
            && !ledger::any_within(work.conn, t, after, to)?;
        let inserter = is_fresh.then(|| self.table.sql.inserter(work.conn));
        let mut inserter = inserter.transpose().map_err(ReplicaError::from)?;
        let mut seen = BTreeSet::new();
        let mut rows = 0;
        let mut last: Option<RowKey> = None;
        for body in RowBody::decode_all(&part.rows) {
            let body = body.map_err(|error| Fault::Peer(format!("a row of a page: {error}")))?;
            let in_order = last.as_ref().is_none_or(|last| *last < body.key)
                && after.is_none_or(|after| after < body.key.as_bytes())
                && to.is_none_or(|to| body.key.as_bytes() <= to);
            if body.table != part.table || !in_order {
                return Err(Fault::Peer(
                    "rows of a page are out of order or range".into(),
                ));
            }
            check_key(self.table, &body)?;
            last = Some(body.key.clone());
            if !is_fresh {
                seen.insert(body.key.clone());
            }
            rows += 1;
            if body.version > self.checkpoint {
                let ahead = Ahead {
                    t,
                    key: body.key.clone(),
                    b: self.b,
                    version: body.version,
                    body: Some(body.encode()),
                };
                ahead::put(work.conn, &ahead)?;
            } else if let Some(inserter) = &mut inserter {
                self.insert(work, inserter, body)?;
            } else {
                apply_page_row(work, stream, self.table, self.b, self.page, body)?;
            }
        }
        if !is_fresh {
            self.absences(work, after, to, &seen)?;
        }
        Ok((rows, last))
    }

    /// A row where nothing is in the way: no questions asked.
    fn insert(
        &self,
        work: &mut Work<'_>,
        inserter: &mut Inserter<'_>,
        body: RowBody,
    ) -> Result<(), ReplicaError> {
        let RowState::Whole {
            columns,
            owner,
            created,
        } = body.state
        else {
            return Ok(());
        };
        let received = self.table.receive(&body.key, columns);
        let known = Known {
            version: body.version,
            hash: self.table.hash(&received.row, &received.extra),
            buckets: vec![self.b],
            owner: work.user(&owner)?,
            created,
            author: work.user(&body.author)?,
            extra: pack_extra(&received.extra),
        };
        work.note_cells_of(
            self.table,
            &body.key,
            &received,
            &known,
            known.is_as_inserted(),
        )?;
        work.set_known(self.table, &body.key, None, Some(&known))?;
        work.note(
            self.table.number(),
            &body.key,
            Some(&body.author),
            RowChange::Created,
        );
        match inserter.insert(&received.row) {
            Ok(true) => Ok(()),
            Err(error) if work.conn.is_autocommit() => Err(error.into()),
            // Something may be in the way, or one of the app's triggers fail.
            Ok(false) | Err(_) => work.show(self.table, &body.key, Some(received.row)),
        }
    }

    /// Rows of the range that the page does not have lose the bucket (spec LO4).
    fn absences(
        &self,
        work: &mut Work<'_>,
        after: Option<&[u8]>,
        to: Option<&[u8]>,
        seen: &BTreeSet<RowKey>,
    ) -> Result<(), ReplicaError> {
        let t = self.table.number();
        let part = buckets::part(work.conn, self.b, t)?;
        if part.is_none_or(|part| part.count == 0) {
            // Before this page the bucket had no row of the table.
            return Ok(());
        }
        let mut after = after.map(<[u8]>::to_vec);
        loop {
            let from = after.as_deref();
            let keys = work.members_within(self.b, t, (from, to), COMPARED)?;
            let Some(last) = keys.last() else {
                return Ok(());
            };
            after = Some(last.as_bytes().to_vec());
            for key in keys.iter().filter(|key| !seen.contains(key)) {
                if self.page > self.checkpoint {
                    let (b, version) = (self.b, self.page);
                    let ahead = Ahead {
                        t,
                        key: key.clone(),
                        b,
                        version,
                        body: None,
                    };
                    ahead::put(work.conn, &ahead)?;
                } else {
                    apply_page_absence(work, self.table, self.b, key, self.page)?;
                }
            }
        }
    }
}
