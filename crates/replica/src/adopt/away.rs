//! Tables that go away, for a moment or for good, while changes of theirs are unsent.

use syncline_core::{Change, ChangesetId, Op, TableNumber, Timestamp, Version};

use crate::{
    capture, clock,
    entropy::Entropy,
    error::ReplicaError,
    event::Event,
    meta::{
        given, ledger,
        names::{self, TableRecord},
        outbox::{self, Entry, Seq, State, StoredChange},
        settings::{self, Key},
    },
    tables::{Tables, load},
    work::{LostRows, Work},
};

/// Code of changesets parked because a table that they change is not in the file, or not as the
/// server has it. They are unparked when it is.
const TABLE_GONE: &str = "table_gone";
/// Code of changesets parked because the server has another table now under the name of the one
/// that they change: they may be meant for none of its rows.
const TABLE_REPLACED: &str = "table_replaced";
/// Code of the changesets that only say in which rows something was lost with its table.
pub(crate) const TABLE_DROPPED: &str = "table_dropped";
/// Changesets looked at together.
const LOOKED_AT: usize = 100;

/// A table does not sync any more: what is known of it goes, so that it begins anew should it
/// come back. Its rows stay.
///
/// A migration may take it away for a moment only, and the server may have it again some day: so
/// unsent changes of it are parked (spec OB12). Of a table that no server ever had nothing is
/// kept: should one have it, every row is sent.
pub(super) fn forget(
    work: &mut Work<'_>,
    record: &TableRecord,
    old: &Tables,
    entropy: &mut dyn Entropy,
    now: Timestamp,
) -> Result<(), ReplicaError> {
    let t = record.t;
    capture::uninstall_table(work.conn, t)?;
    let schema = load::tables_there(work.conn)?;
    let seeding = settings::get(work.conn, Key::Seeding)?.unwrap_or(true);
    let had = old.local(t).is_some_and(|table| table.remote.is_some());
    let lost = work.lost.remove(&t);
    let is_there = schema.is_some_and(|schema| {
        let by_number = record.server.and_then(|number| schema.by_number(number));
        schema.table(&record.name).or(by_number).is_some()
    });
    if had || !seeding || is_there {
        park_unsent(work, record, TABLE_GONE, &gone(record), now)?;
        if let Some(lost) = lost {
            tell_lost(work, record, lost, entropy, now)?;
        }
    } else {
        drop_unsent(work, t)?;
    }
    forget_rows(work, t, false)
}

/// Tables that took the place of others under their numbers: what was known of those goes, what
/// was not sent stays.
pub(super) fn begin_anew(
    work: &mut Work<'_>,
    entropy: &mut dyn Entropy,
    now: Timestamp,
) -> Result<(), ReplicaError> {
    let tables = work.tables;
    for record in names::tables(work.conn)? {
        let (is_anew, is_replaced) = (
            tables.anew.contains(&record.t),
            tables.replaced.contains(&record.t),
        );
        if !is_anew && !is_replaced {
            continue;
        }
        if is_replaced {
            replace(work, &record, now)?;
        }
        if is_anew {
            park_unsent(work, &record, TABLE_GONE, &gone(&record), now)?;
            forget_rows(work, record.t, is_replaced)?;
        }
        if let Some(lost) = work.lost.remove(&record.t) {
            tell_lost(work, &record, lost, entropy, now)?;
        }
    }
    Ok(())
}

/// The server has another table now than the one that this was. Its rows go as they came, when the
/// other's are loaded; what was not sent is for a person to decide.
fn replace(work: &mut Work<'_>, record: &TableRecord, now: Timestamp) -> Result<(), ReplicaError> {
    let message = format!(
        "the server has another table {} now than the one that this was written to; discard it, \
         or send it to that one with retry",
        record.name
    );
    keep_parked(work, record.t, &message)?;
    park_unsent(work, record, TABLE_REPLACED, &message, now)?;
    names::set_unsure(work.conn, record.t)?;
    work.distrusted.insert(record.t);
    Ok(())
}

/// What waits for the table to be back is not for the one that is there now.
fn keep_parked(work: &Work<'_>, t: TableNumber, message: &str) -> Result<(), ReplicaError> {
    for mut entry in outbox::in_state(work.conn, State::Parked, 0, usize::MAX)? {
        let keys = outbox::keys(work.conn, entry.seq)?;
        if entry.code.as_deref() == Some(TABLE_GONE) && keys.iter().any(|(of, _)| *of == t) {
            entry.code = Some(TABLE_REPLACED.to_owned());
            entry.message = Some(message.to_owned());
            outbox::put(work.conn, &entry)?;
        }
    }
    Ok(())
}

fn gone(record: &TableRecord) -> String {
    let reason = record
        .left_out
        .as_deref()
        .unwrap_or("it does not sync any more");
    format!(
        "the table {} cannot sync: {reason}; this is sent when it can again",
        record.name
    )
}

/// `is_replaced`: the server has another table now, of which nothing was given yet.
fn forget_rows(work: &Work<'_>, t: TableNumber, is_replaced: bool) -> Result<(), ReplicaError> {
    let seeding = settings::get(work.conn, Key::Seeding)?.unwrap_or(true);
    if seeding && !is_replaced {
        given::remember(work.conn, t)?;
    }
    ledger::forget_table(work.conn, t)?;
    names::set_seeding(work.conn, t, seeding, None)
}

/// Parks what is unsent of a table. Of a changeset that may be cut (spec SL8) only that part.
fn park_unsent(
    work: &mut Work<'_>,
    record: &TableRecord,
    code: &str,
    message: &str,
    now: Timestamp,
) -> Result<(), ReplicaError> {
    let mut roots: Vec<Seq> = Vec::new();
    let last = outbox::last(work.conn)?.map_or(0, |entry| entry.seq);
    let mut after = 0;
    loop {
        let entries = outbox::in_state(work.conn, State::Sealed, after, LOOKED_AT)?;
        let Some(seen) = entries.last() else { break };
        after = seen.seq;
        for entry in entries.into_iter().filter(|entry| entry.seq <= last) {
            let keys = outbox::keys(work.conn, entry.seq)?;
            let is_of_table = |(t, _): &(TableNumber, _)| *t == record.t;
            if !keys.iter().any(is_of_table) {
                continue;
            }
            let is_whole = entry.marked || entry.require_unchanged;
            roots.push(if is_whole || keys.iter().all(is_of_table) {
                entry.seq
            } else {
                split(work, entry, record.t)?
            });
        }
    }
    if roots.is_empty() {
        return Ok(());
    }
    let first = roots.first().copied();
    let parked = work.park(roots, code, message, now)?;
    let first = first
        .map(|first| outbox::entry(work.conn, first))
        .transpose()?;
    if let Some(first) = first.flatten() {
        work.events.push(Event::ChangeRefused {
            changeset: first.id,
            code: code.to_owned(),
            message: message.to_owned(),
            parked,
        });
    }
    Ok(())
}

/// Makes the changes of one table a changeset of their own, after the one that they were in: both are
/// pieces of that.
fn split(work: &Work<'_>, mut entry: Entry, t: TableNumber) -> Result<Seq, ReplicaError> {
    let conn = work.conn;
    outbox::doubt_if_incomplete(conn, &mut entry)?;
    let seq = outbox::next_seq(conn)?;
    entry.whole = entry.whole.or(Some(entry.id));
    // The server may have taken the whole, which its number tells of that alone.
    entry.doubt = entry.may_have_come();
    let mut part = Entry {
        seq,
        number: None,
        sent: false,
        version: None,
        first_number: None,
        ..entry.clone()
    };
    outbox::move_changes_of(conn, entry.seq, t, seq)?;
    for part in [&mut part, &mut entry] {
        (part.changes, part.bytes) = outbox::size(conn, part.seq)?;
        outbox::name_piece(conn, part)?;
        outbox::put(conn, part)?;
    }
    outbox::let_none_grow(conn)?;
    outbox::depend(conn, seq, entry.seq)?;
    for (t, key) in outbox::keys(conn, seq)? {
        for earlier in outbox::touching(conn, t, &key)? {
            if earlier.seq < seq {
                outbox::depend(conn, seq, earlier.seq)?;
            }
        }
    }
    Ok(seq)
}

/// Parks a changeset that names the rows of which nobody knows any more what was written last.
fn tell_lost(
    work: &mut Work<'_>,
    record: &TableRecord,
    lost: LostRows,
    entropy: &mut dyn Entropy,
    now: Timestamp,
) -> Result<(), ReplicaError> {
    let (Some(first_at), Some(last_at)) = (lost.keys.values().min(), lost.keys.values().max())
    else {
        return Ok(());
    };
    let message = format!(
        "the table {} was dropped before what was written last to {} of its rows could be sent: \
         that is lost; discard this when you have seen it",
        record.name, lost.count
    );
    let mut id = ChangesetId::default();
    entropy.fill(&mut id.0);
    let seq = outbox::next_seq(work.conn)?;
    let mut entry = Entry {
        seq,
        id,
        state: State::Parked,
        number: None,
        version: None,
        hlc: clock::stamp(work.conn, *last_at, now)?,
        marked: true,
        sent: false,
        require_unchanged: false,
        doubt: false,
        after: Version::ZERO,
        first_number: None,
        whole: None,
        changes: lost.keys.len() as u64,
        bytes: 0,
        first_at: *first_at,
        last_at: *last_at,
        code: Some(TABLE_DROPPED.to_owned()),
        message: Some(message.clone()),
        parked_at: Some(now),
        is_sound: true,
    };
    for (pos, (key, at)) in (0..).zip(lost.keys) {
        let change = Change {
            table: record.t,
            key,
            base: Version::ZERO,
            op: Op::Update(Vec::new()),
        };
        let stored = StoredChange { pos, change, at };
        entry.bytes += outbox::put_change(work.conn, seq, &stored)?;
    }
    outbox::put(work.conn, &entry)?;
    work.events.push(Event::ChangeRefused {
        changeset: id,
        code: TABLE_DROPPED.to_owned(),
        message,
        parked: vec![id],
    });
    Ok(())
}

fn drop_unsent(work: &Work<'_>, t: TableNumber) -> Result<(), ReplicaError> {
    let mut after = 0;
    loop {
        let entries = outbox::in_state(work.conn, State::Sealed, after, LOOKED_AT)?;
        let Some(last) = entries.last() else {
            return Ok(());
        };
        after = last.seq;
        for mut entry in entries {
            outbox::doubt_if_incomplete(work.conn, &mut entry)?;
            if outbox::delete_changes_of(work.conn, entry.seq, t)? == 0 {
                continue;
            }
            let (changes, bytes) = outbox::size(work.conn, entry.seq)?;
            if changes == 0 {
                outbox::remove(work.conn, entry.seq)?;
            } else {
                entry.changes = changes;
                entry.bytes = bytes;
                outbox::name_piece(work.conn, &mut entry)?;
                outbox::put(work.conn, &entry)?;
            }
        }
    }
}

/// Unparks what waited for tables that are all back, with what depends on it.
pub(super) fn take_back(work: &mut Work<'_>) -> Result<(), ReplicaError> {
    let parked = outbox::in_state(work.conn, State::Parked, 0, usize::MAX)?;
    let waiting = parked
        .into_iter()
        .filter(|entry| entry.code.as_deref() == Some(TABLE_GONE));
    let mut roots = Vec::new();
    for entry in waiting {
        if !work.misses_a_table(entry.seq)? {
            roots.push(entry.seq);
        }
    }
    for seq in outbox::dependants(work.conn, roots)? {
        let entry = outbox::entry(work.conn, seq)?;
        if let Some(entry) = entry.filter(|entry| entry.state == State::Parked)
            && work.can_be_sent(&entry)?
        {
            work.unpark(entry)?;
        }
    }
    Ok(())
}

impl Work<'_> {
    /// Whether a parked changeset can be sent as it is.
    pub(crate) fn can_be_sent(&self, entry: &Entry) -> Result<bool, ReplicaError> {
        if entry.code.as_deref() == Some(TABLE_DROPPED) || self.misses_a_table(entry.seq)? {
            return Ok(false);
        }
        match outbox::whole(self.conn, entry.seq) {
            Ok(found) => Ok(found.is_some_and(|(_, changes)| !changes.is_empty())),
            Err(ReplicaError::DamagedChangeset { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the changeset changes a table that does not sync: sent now, that part would be
    /// left out for ever.
    fn misses_a_table(&self, seq: Seq) -> Result<bool, ReplicaError> {
        let keys = outbox::keys(self.conn, seq)?;
        Ok(keys.iter().any(|(t, _)| self.table(*t).is_none()))
    }
}
