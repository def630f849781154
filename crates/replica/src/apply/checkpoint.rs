//! Checkpoints: everything received since the last one, in one transaction (spec AP1).

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use syncline_core::planted;
use syncline_core::{
    BucketId, ChangesetId, Hlc, TableNumber, Timestamp, Version,
    wire::{Changes, Checkpoint, LoadPosition, RowBody},
};

use super::{
    Fault,
    grants::{erase_gone, erase_stale},
    record::{Stream, apply_ahead, apply_record, changeset_of, check_key},
};
use crate::{
    clock,
    db::Doing as _,
    entropy::Entropy,
    error::ReplicaError,
    event::Event,
    meta::{
        ahead,
        buckets::{self, BucketState},
        cursors,
        ledger::{self, Bucket},
        names,
        outbox::{self, State},
        settings::{self, Key},
    },
    work::Work,
};

/// Rows that waited for the checkpoint are taken this many at a time.
const AHEAD_TAKEN: usize = 1_000;
/// Accepted changesets finished at a time.
const FINISHED: usize = 100;
/// How often one (bucket, table) is loaded again in one session.
const RELOADS: u32 = 3;

/// What is kept until nothing is loading any more.
const ENDED: [Key; 5] = [
    Key::Renamed,
    Key::RenamedReleased,
    Key::LoadsAgain,
    Key::LoadedRows,
    Key::RemainingRows,
];

/// Log records that wait for their checkpoint.
#[derive(Debug)]
pub(crate) struct Kept {
    changes: Changes,
    /// What its buckets were called when it arrived: a grant that is lost before the checkpoint
    /// takes the name away, but the records before it still count on the bucket.
    buckets: Vec<Option<Bucket>>,
}

impl Kept {
    pub(crate) fn new(conn: &Connection, changes: Changes) -> Result<Self, ReplicaError> {
        let number = |bucket: &BucketId| buckets::number(conn, *bucket);
        let buckets = changes
            .buckets
            .iter()
            .map(number)
            .collect::<Result<_, _>>()?;
        Ok(Self { changes, buckets })
    }
}

/// A checkpoint and what was received before it.
pub(crate) struct CheckpointInput<'a> {
    pub(crate) changes: &'a [Kept],
    pub(crate) checkpoint: &'a Checkpoint,
    /// It is the first one after a Reload: everything begins to load at its version.
    pub(crate) begins_reload: bool,
    /// What differed already in this session, and how often.
    pub(crate) reloaded: &'a BTreeMap<(BucketId, TableNumber), u32>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// To be asked for again: their digests differ from the server's (spec AP7).
    pub(crate) reload: Vec<LoadPosition>,
    /// Everything granted is live and nothing more is in the log.
    pub(crate) is_live: bool,
}

/// Applies a checkpoint inside the caller's transaction, sealing done.
pub(crate) fn apply_checkpoint(
    work: &mut Work<'_>,
    input: &CheckpointInput<'_>,
    entropy: &mut dyn Entropy,
    now: Timestamp,
) -> Result<Applied, Fault> {
    let mut applied = Applied::default();
    let cursor = &input.checkpoint.cursor;
    if let Some(newest) = cursors::newest(work.conn)?
        && newest > cursor.version
    {
        let (from, to) = (newest.0, cursor.version.0);
        return Err(Fault::Peer(format!(
            "the server went back from version {from} to {to}"
        )));
    }
    let any_ahead = ahead::any(work.conn)?;
    let mut stream = Stream {
        now,
        entropy,
        any_ahead,
        mismatched: Vec::new(),
    };
    apply_changes(work, &mut stream, input)?;
    if planted!(HalfCheckpointShown) {
        let halves = work.conn.execute_batch("COMMIT; BEGIN IMMEDIATE");
        halves.doing("writing half a checkpoint")?;
    }
    take_ahead(work, &mut stream, cursor.version)?;
    buckets::passed(work.conn, cursor.version)?;
    work.prove_key()?;
    let missing = live_ones(work, &stream.mismatched)?;
    erase_gone(work, &stream)?;
    if input.begins_reload {
        settings::put(work.conn, Key::ReloadedAt, cursor.version.0.cast_signed())?;
    }
    if input.checkpoint.loading == 0 {
        settings::remove(work.conn, Key::ReloadedAt)?;
    }
    finish_accepted(work, cursor.version, now)?;
    if input.checkpoint.loading == 0 && has_to_end(work.conn)? {
        end_loading(work, &stream, input)?;
    }
    work.settle(stream.entropy, now)?;

    for live in &input.checkpoint.live {
        let table = work.tables.remote(live.table);
        if let (Some(b), Some(table)) = (buckets::number(work.conn, live.bucket)?, table) {
            buckets::set_live(work.conn, b, table.number(), true)?;
        }
    }
    applied.reload = compare_digests(work, missing, input)?;
    cursors::add(work.conn, cursor)?;
    settings::put(work.conn, Key::CaughtUp, input.checkpoint.caught_up)?;
    applied.is_live = input.checkpoint.caught_up && !buckets::is_loading(work.conn)?;
    Ok(applied)
}

/// The log records, in order.
fn apply_changes(
    work: &mut Work<'_>,
    stream: &mut Stream<'_>,
    input: &CheckpointInput<'_>,
) -> Result<(), Fault> {
    let mut authors: BTreeMap<ChangesetId, Version> = BTreeMap::new();
    let has_sealed = outbox::count(work.conn, State::Sealed)? > 0;
    let mut latest = Hlc::default();
    for kept in input.changes {
        for record in &kept.changes.records {
            let (body, _) = RowBody::decode(&record.body)
                .map_err(|error| Fault::Peer(format!("a record cannot be read: {error}")))?;
            if body.version > input.checkpoint.cursor.version {
                return Err(Fault::Peer("a record is later than its checkpoint".into()));
            }
            if let Some(table) = work.tables.remote(body.table) {
                check_key(table, &body)?;
            }
            let mut held = Vec::new();
            for &position in &record.buckets {
                let Some(known) = kept.buckets.get(position as usize) else {
                    return Err(Fault::Peer(
                        "a record names no bucket of its message".into(),
                    ));
                };
                held.extend(known);
            }
            latest = latest.max(body.hlc);
            if let Some(id) = changeset_of(&body).filter(|_| has_sealed) {
                let version = authors.entry(id).or_default();
                *version = body.version.max(*version);
            }
            apply_record(work, stream, body, held)?;
        }
    }
    clock::observe(work.conn, latest, stream.now)?;
    note_own(work, &authors)?;
    Ok(())
}

/// A record of a changeset of ours says that it is in the log, before its answer does (after a
/// lost connection): it must not be replayed over its own effect (spec OB2).
///
/// The record's version stands for the changeset's: cursors and horizons fall on ends of
/// changesets, so they are past both or neither.
fn note_own(
    work: &mut Work<'_>,
    authors: &BTreeMap<ChangesetId, Version>,
) -> Result<(), ReplicaError> {
    for (id, version) in authors {
        let mut entries = outbox::by_whole(work.conn, *id)?;
        entries.extend(outbox::by_id(work.conn, *id)?);
        entries.retain(|entry| entry.state == State::Sealed);
        for mut entry in entries {
            entry.state = State::Accepted;
            let was_taken = entry.version.replace(*version).is_some();
            outbox::put(work.conn, &entry)?;
            if !was_taken {
                work.count_accepted(&entry)?;
            }
        }
    }
    Ok(())
}

fn take_ahead(
    work: &mut Work<'_>,
    stream: &mut Stream<'_>,
    version: Version,
) -> Result<(), ReplicaError> {
    if !stream.any_ahead {
        return Ok(());
    }
    loop {
        let due = ahead::due(work.conn, version, AHEAD_TAKEN)?;
        if due.is_empty() {
            return Ok(());
        }
        for (t, key) in due {
            for ahead in ahead::take(work.conn, t, &key, version)? {
                if let Some(table) = work.table(t) {
                    apply_ahead(work, stream, table, ahead)?;
                }
            }
        }
    }
}

/// Accepted changesets that the checkpoint has passed are no longer replayed (spec OB3).
fn finish_accepted(
    work: &mut Work<'_>,
    version: Version,
    now: Timestamp,
) -> Result<(), ReplicaError> {
    let mut after = 0;
    loop {
        let accepted = outbox::in_state(work.conn, State::Accepted, after, FINISHED)?;
        let Some(last) = accepted.last() else {
            return Ok(());
        };
        after = last.seq;
        for entry in accepted {
            if let Some(accepted) = entry.version.filter(|accepted| *accepted <= version)
                && work.has_arrived(accepted)?
            {
                work.finish(&entry, now)?;
            }
        }
    }
}

/// Whether [`end_loading`] has anything to do: one question for its twenty statements, as nothing
/// was loading before most checkpoints.
fn has_to_end(conn: &Connection) -> Result<bool, ReplicaError> {
    let kept = ENDED.map(|key| {
        let name = key.name();
        format!("EXISTS(SELECT 1 FROM syncline_meta WHERE key = '{name}')")
    });
    conn.prepare_cached(&format!(
        "SELECT EXISTS(SELECT 1 FROM syncline_buckets WHERE state = 0)
             OR EXISTS(SELECT 1 FROM syncline_buckets WHERE state > 1)
             OR EXISTS(SELECT 1 FROM syncline_tables
                       WHERE left_out IS NULL AND (loaded <> 1 OR unsure <> 0))
             OR {}",
        kept.join(" OR ")
    ))
    .and_then(|mut s| s.query_row([], |row| row.get(0)))
    .doing("looking whether anything was loading")
}

/// Nothing is loading for the server any more (spec SE12).
fn end_loading(
    work: &mut Work<'_>,
    stream: &Stream<'_>,
    input: &CheckpointInput<'_>,
) -> Result<(), ReplicaError> {
    let unloaded = match settings::get(work.conn, Key::LoadsAgain)?.unwrap_or(false) {
        true => unloaded(work, input)?,
        false => Vec::new(),
    };
    buckets::move_state(work.conn, BucketState::Loading, BucketState::Live)?;
    erase_stale(work, stream, &unloaded)?;
    names::set_all_loaded(work.conn)?;
    for key in ENDED {
        settings::remove(work.conn, key)?;
    }
    erase_gone(work, stream)
}

/// After everything was loaded again, the (bucket, table)s that it was loaded without: by rules that
/// are new to this device, rows of the table lie in the bucket no more. Not those that this device itself asked for again meanwhile.
fn unloaded(
    work: &Work<'_>,
    input: &CheckpointInput<'_>,
) -> Result<Vec<(Bucket, TableNumber)>, ReplicaError> {
    let live = input.checkpoint.live.iter();
    let live = live.map(|live| (live.bucket, live.table));
    let known: BTreeSet<_> = live.chain(input.reloaded.keys().copied()).collect();
    let mut found = Vec::new();
    for (b, bucket, t) in buckets::unloaded(work.conn)? {
        let remote = work.table(t).and_then(|table| table.remote.as_ref());
        if remote.is_some_and(|remote| !known.contains(&(bucket, remote.table.number))) {
            found.push((b, t));
        }
    }
    Ok(found)
}

/// Those of the (bucket, table)s that were live already when a row turned out to be missing: in
/// those that become live with this checkpoint its page has brought it since (spec AP9).
fn live_ones(
    work: &Work<'_>,
    found: &[(Bucket, TableNumber)],
) -> Result<BTreeSet<(Bucket, TableNumber)>, ReplicaError> {
    let mut live = BTreeSet::new();
    for &(b, t) in found {
        if buckets::part(work.conn, b, t)?.is_some_and(|part| part.live) {
            live.insert((b, t));
        }
    }
    Ok(live)
}

/// Compares the receipt digests at exactly this version; what differs is loaded again, and
/// nothing is dropped meanwhile (spec AP7).
fn compare_digests(
    work: &mut Work<'_>,
    missing: BTreeSet<(Bucket, TableNumber)>,
    input: &CheckpointInput<'_>,
) -> Result<Vec<LoadPosition>, ReplicaError> {
    let mut differing: BTreeMap<TableNumber, BTreeSet<Bucket>> = BTreeMap::new();
    for (b, t) in missing {
        differing.entry(t).or_default().insert(b);
    }
    for digest in &input.checkpoint.digests {
        let table = work.tables.remote(digest.table);
        let (Some(b), Some(table)) = (buckets::number(work.conn, digest.bucket)?, table) else {
            continue;
        };
        let part = buckets::part(work.conn, b, table.number())?;
        let is_live = part.as_ref().is_none_or(|part| part.live);
        let (count, sum) = part.map_or((0, 0), |part| (part.count, part.sum));
        if is_live && (count, sum) != (digest.count, digest.sum) {
            differing.entry(table.number()).or_default().insert(b);
        }
    }
    let mut reload = Vec::new();
    for (t, of_table) in differing {
        let Some(table) = work.table(t) else { continue };
        let Some(remote) = &table.remote else {
            continue;
        };
        let number = remote.table.number;
        // What goes wrong may be the sums and not the rows: both are made sound.
        ledger::recount(work.conn, table, &of_table)?;
        for b in of_table {
            let Some(bucket) = buckets::name(work.conn, b)? else {
                continue;
            };
            let times = input.reloaded.get(&(bucket, number)).copied();
            if times.unwrap_or(0) < RELOADS {
                buckets::set_live(work.conn, b, t, false)?;
                reload.push(LoadPosition {
                    bucket: Some(bucket),
                    table: number,
                    after: None,
                });
            }
        }
        work.events.push(Event::DigestMismatch {
            table: table.name().to_owned(),
        });
    }
    Ok(reload)
}
