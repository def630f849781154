//! One row as the server sends it, in a log record or a page.

use std::borrow::Cow;

use syncline_core::planted;
use syncline_core::{
    ChangesetId, ColumnNumber, RowKey, TableNumber, Value, Version,
    wire::{RowBody, RowState},
};

use super::{
    Fault,
    unsent::{keep_unmarked, keep_unsent},
};
use crate::{
    codec,
    error::ReplicaError,
    meta::{
        ahead::{self, Ahead},
        ledger::{self, Bucket, Known},
        names,
        shadow::Shadow,
    },
    tables::{Received, SyncedTable},
    tally::RowChange,
    work::Work,
};

/// What the stream is applied with.
pub(crate) struct Stream<'a> {
    pub(crate) now: syncline_core::Timestamp,
    pub(crate) entropy: &'a mut dyn crate::entropy::Entropy,
    /// Whether anything waits from pages.
    pub(crate) any_ahead: bool,
    /// (bucket, table)s found to differ from the server's.
    pub(crate) mismatched: Vec<(Bucket, TableNumber)>,
}

/// That a whole row has the key it is sent under: written under another one it would take that
/// row's place, and never be found again under its own.
pub(crate) fn check_key(table: &SyncedTable, body: &RowBody) -> Result<(), Fault> {
    let RowState::Whole { columns, .. } = &body.state else {
        return Ok(());
    };
    let value = |&position: &usize| {
        let number = table.server_number(position);
        let ty = table.table.columns[position].ty;
        match columns.iter().find(|(known, _)| Some(*known) == number) {
            None => Cow::Owned(Value::Null),
            Some((_, value)) if value.is_surely_canonical(ty) => Cow::Borrowed(value),
            Some((_, value)) => Cow::Owned(value.clone().canonical(ty)),
        }
    };
    let values: Vec<Cow<'_, Value>> = table.table.primary_key.iter().map(value).collect();
    if RowKey::encode(values.iter().map(Cow::as_ref)).as_ref() == Ok(&body.key) {
        return Ok(());
    }
    Err(Fault::Peer(format!(
        "a row of {} has another key than {}, under which it was sent",
        table.name(),
        body.key
    )))
}

/// Applies a log record; `buckets` are those of the row afterwards that this replica holds.
pub(crate) fn apply_record(
    work: &mut Work<'_>,
    stream: &mut Stream<'_>,
    body: RowBody,
    mut buckets: Vec<Bucket>,
) -> Result<(), ReplicaError> {
    let Some(table) = work.tables.remote(body.table) else {
        return Ok(());
    };
    buckets.sort_unstable();
    buckets.dedup();
    // Buckets that pages told of for this very version: the record is silent about those that
    // were granted after it, so even one that takes the row away leaves it in them. But it knows
    // all others, also those that the row left.
    let mut told = None;
    if stream.any_ahead {
        for ahead in ahead::take(work.conn, table.number(), &body.key, body.version)? {
            if ahead.version == body.version && ahead.body.is_some() {
                told.get_or_insert_with(Vec::new).push(ahead.b);
            }
            apply_ahead(work, stream, table, ahead)?;
        }
    }
    let known = ledger::get(work.conn, table.number(), &body.key)?;
    if let (Some(told), Some(known)) = (told, &known)
        && known.version == body.version
        && !matches!(body.state, RowState::Deleted)
    {
        let only = Known {
            buckets: told,
            ..known.clone()
        };
        let next = joined(&only, &buckets);
        return work.set_known(table, &body.key, Some(known), Some(&next));
    }
    match (body.state, known) {
        (RowState::Deleted | RowState::Removed | RowState::Released, None) => Ok(()),
        (_, Some(known)) if known.version > body.version => Ok(()),
        (RowState::Whole { .. } | RowState::Columns(_), Some(known))
            if known.version == body.version =>
        {
            join(work, table, &body.key, &known, &buckets)
        }
        (RowState::Deleted, Some(known)) => delete(work, table, &body.key, &known, &body.author),
        (RowState::Removed, Some(known)) => unsee(work, stream, table, &body.key, &known),
        (RowState::Released, Some(known)) => release(work, table, &body.key, &known),
        (RowState::Whole { .. } | RowState::Columns(_), Some(known)) if buckets.is_empty() => {
            unsee(work, stream, table, &body.key, &known)
        }
        (
            RowState::Whole {
                columns,
                owner,
                created,
            },
            known,
        ) => {
            if buckets.is_empty() {
                return Ok(());
            }
            let next = Known {
                version: body.version,
                buckets,
                owner: work.user(&owner)?,
                created,
                author: work.user(&body.author)?,
                ..Known::default()
            };
            let received = table.receive(&body.key, columns);
            work.note_cells_of(table, &body.key, &received, &next, next.is_as_inserted())?;
            write(
                work,
                stream,
                table,
                &body.key,
                known.as_ref(),
                next,
                received,
                &body.author,
            )
        }
        (RowState::Columns(_), None) => {
            // A live bucket should have had the row (spec AP9); a loading one will.
            for b in buckets {
                stream.mismatched.push((b, table.number()));
            }
            Ok(())
        }
        (RowState::Columns(columns), Some(known)) => {
            let Some(row) = work.server_image(table, &body.key)? else {
                stream
                    .mismatched
                    .extend(buckets.into_iter().map(|b| (b, table.number())));
                return Ok(());
            };
            let mut received = Received {
                row,
                extra: extra(&known)?,
                cells: Vec::new(),
            };
            table.receive_onto(&mut received, &body.key, columns);
            let next = Known {
                version: body.version,
                buckets,
                owner: known.owner,
                created: known.created,
                author: work.user(&body.author)?,
                ..Known::default()
            };
            work.note_cells_of(table, &body.key, &received, &next, true)?;
            write(
                work,
                stream,
                table,
                &body.key,
                Some(&known),
                next,
                received,
                &body.author,
            )
        }
    }
}

/// Applies a row of a page of bucket `b` that was read at version `page` (spec LO3).
pub(crate) fn apply_page_row(
    work: &mut Work<'_>,
    stream: &mut Stream<'_>,
    table: &SyncedTable,
    b: Bucket,
    page: Version,
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
    let known = ledger::get(work.conn, table.number(), &body.key)?;
    let mut buckets = known
        .as_ref()
        .map_or(Vec::new(), |known| known.buckets.clone());
    if let Err(place) = buckets.binary_search(&b) {
        buckets.insert(place, b);
    }
    // A higher version that the page should have known is of a past that the server lost.
    let is_newer = |known: &Known| known.version > page && !planted!(OlderPageWins);
    if known.as_ref().is_some_and(is_newer) {
        return Ok(());
    }
    let received = table.receive(&body.key, columns);
    let mut next = Known {
        version: body.version,
        buckets,
        owner: work.user(&owner)?,
        created,
        author: work.user(&body.author)?,
        ..Known::default()
    };
    work.note_cells_of(table, &body.key, &received, &next, next.is_as_inserted())?;
    match known {
        Some(known) if known.version == body.version => {
            next.hash = table.hash(&received.row, &received.extra);
            next.extra = pack_extra(&received.extra);
            work.set_known(table, &body.key, Some(&known), Some(&next))?;
            mend(work, stream, table, &body.key, &received, &body.author)
        }
        known => write(
            work,
            stream,
            table,
            &body.key,
            known.as_ref(),
            next,
            received,
            &body.author,
        ),
    }
}

/// A page's version of a row of bucket `b` does not have it any more (spec LO4).
pub(crate) fn apply_page_absence(
    work: &mut Work<'_>,
    table: &SyncedTable,
    b: Bucket,
    key: &RowKey,
    version: Version,
) -> Result<(), ReplicaError> {
    let Some(known) = ledger::get(work.conn, table.number(), key)? else {
        return Ok(());
    };
    if known.version > version || !known.buckets.contains(&b) || planted!(AbsenceIgnored) {
        return Ok(());
    }
    let mut next = known.clone();
    next.buckets.retain(|other| *other != b);
    if next.buckets.is_empty() {
        // Deleted, or out of sight: pages do not tell.
        work.erases = true;
        return delete(work, table, key, &known, "");
    }
    work.set_known(table, key, Some(&known), Some(&next))
}

/// What a page told earlier and the checkpoint has reached now.
pub(crate) fn apply_ahead(
    work: &mut Work<'_>,
    stream: &mut Stream<'_>,
    table: &SyncedTable,
    ahead: Ahead,
) -> Result<(), ReplicaError> {
    match ahead.body {
        None => apply_page_absence(work, table, ahead.b, &ahead.key, ahead.version),
        Some(bytes) => {
            let Ok((body, _)) = RowBody::decode(&bytes) else {
                // It was sound when it was kept: the server has it still.
                work.distrusted.insert(table.number());
                return Ok(());
            };
            // The checkpoint has passed the body, and records told of what came since.
            let version = body.version;
            apply_page_row(work, stream, table, ahead.b, version, body)
        }
    }
}

/// The row goes because no granted bucket holds it (spec AP8).
pub(crate) fn unsee(
    work: &mut Work<'_>,
    stream: &Stream<'_>,
    table: &SyncedTable,
    key: &RowKey,
    known: &Known,
) -> Result<(), ReplicaError> {
    work.erases = true;
    work.set_known(table, key, Some(known), None)?;
    if work.shadow(table, key)?.is_some() {
        work.park_unseen(table.number(), key, stream.now)?;
        crate::meta::shadow::delete(work.conn, table.number(), key)?;
    }
    work.show(table, key, None)?;
    work.note(table.number(), key, None, RowChange::Deleted);
    Ok(())
}

/// The row goes because nobody subscribes to it any more. What waits to be sent still is, and takes
/// its own effect along once the server has it.
pub(crate) fn release(
    work: &mut Work<'_>,
    table: &SyncedTable,
    key: &RowKey,
    known: &Known,
) -> Result<(), ReplicaError> {
    work.erases = true;
    work.set_known(table, key, Some(known), None)?;
    work.set_server_image(table, key, None, "")
}

/// The row was deleted; pending changes stay, the server's verdict on them decides (spec AP8).
fn delete(
    work: &mut Work<'_>,
    table: &SyncedTable,
    key: &RowKey,
    known: &Known,
    author: &str,
) -> Result<(), ReplicaError> {
    work.set_known(table, key, Some(known), None)?;
    work.set_server_image(table, key, None, author)
}

/// The row is there in this version already: only its buckets may be more.
fn join(
    work: &mut Work<'_>,
    table: &SyncedTable,
    key: &RowKey,
    known: &Known,
    buckets: &[Bucket],
) -> Result<(), ReplicaError> {
    let next = joined(known, buckets);
    work.set_known(table, key, Some(known), Some(&next))
}

fn joined(known: &Known, buckets: &[Bucket]) -> Known {
    let mut next = known.clone();
    next.buckets.extend(buckets);
    next.buckets.sort_unstable();
    next.buckets.dedup();
    next
}

/// Writes a row's new version.
#[expect(
    clippy::too_many_arguments,
    reason = "one row's before and after, spelled out"
)]
fn write(
    work: &mut Work<'_>,
    stream: &mut Stream<'_>,
    table: &SyncedTable,
    key: &RowKey,
    known: Option<&Known>,
    mut next: Known,
    received: Received,
    author: &str,
) -> Result<(), ReplicaError> {
    if known.is_none() && table.seeding {
        keep_unsent(work, stream, table, key, &received, next.version)?;
    }
    next.hash = table.hash(&received.row, &received.extra);
    next.extra = pack_extra(&received.extra);
    work.set_known(table, key, known, Some(&next))?;
    work.set_server_image(table, key, Some(received.row), author)
}

/// Brings a row of this version back to what the server sent if it differs without a pending
/// change: a flipped bit, a write that nothing caught, columns that came over an old row.
fn mend(
    work: &mut Work<'_>,
    stream: &mut Stream<'_>,
    table: &SyncedTable,
    key: &RowKey,
    received: &Received,
    author: &str,
) -> Result<(), ReplicaError> {
    match work.shadow(table, key)? {
        Some(Shadow { image, .. }) if image.as_ref() == Some(&received.row) => Ok(()),
        None if work.visible(table, key)?.as_ref() == Some(&received.row) => Ok(()),
        // What cannot travel is left alone until the server has something newer (spec SL10).
        None if work.visible(table, key)?.is_none() && table.sql.exists(work.conn, key)? => Ok(()),
        Some(_) | None if names::is_unsure(work.conn, table.number())? => {
            keep_unmarked(work, stream, table, key, &received.row)
        }
        Some(_) | None => work.set_server_image(table, key, Some(received.row.clone()), author),
    }
}

/// The columns that this file does not have.
pub(crate) fn extra(known: &Known) -> Result<Vec<(ColumnNumber, Value)>, ReplicaError> {
    match &known.extra {
        Some(bytes) => codec::decode_values(bytes),
        None => Ok(Vec::new()),
    }
}

pub(crate) fn pack_extra(extra: &[(ColumnNumber, Value)]) -> Option<Vec<u8>> {
    (!extra.is_empty()).then(|| codec::encode_values(extra.iter().cloned()))
}

/// The changeset that a record names, if it names one.
pub(crate) fn changeset_of(body: &RowBody) -> Option<ChangesetId> {
    (body.changeset != ChangesetId::default()).then_some(body.changeset)
}
