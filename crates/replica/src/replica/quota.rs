//! What the user owns of what the server keeps for one, and what waits for room (spec LI8, LI9).

use syncline_core::{
    Timestamp,
    wire::{Quota, Share, code},
};

use super::Replica;
use crate::{
    error::ReplicaError,
    meta::{
        outbox,
        settings::{self, Key},
    },
};

/// Refused changesets that are read at once, and how often: what one Welcome costs has a bound.
const PAGE: usize = 100;
const PAGES_MAX: usize = 100;
/// Once so many are sent again, the others wait for the next session.
const SENT_MAX: usize = 100;
/// What the server counts a number as.
const NUMBER_BYTES: u64 = 8;
/// What an envelope is longer than its value, besides an eighth of that: head, storage class and end,
/// and what a short value is padded to.
const ENVELOPE_BYTES: u64 = 64;

impl Replica {
    /// Remembers what the server says, and has what was refused over the quota sent again as far
    /// as it surely fits: the oldest first, and once in a session, so that what is refused again
    /// costs little.
    pub(crate) fn take_quota(
        &mut self,
        quota: Option<Quota>,
        now: Timestamp,
    ) -> Result<(), ReplicaError> {
        let Some(quota) = quota else {
            return settings::remove(&self.conn, Key::Quota);
        };
        let text = to_text(quota);
        if settings::get(&self.conn, Key::Quota)?.as_ref() != Some(&text) {
            settings::put(&self.conn, Key::Quota, text)?;
        }
        let Quota {
            mut rows,
            mut bytes,
        } = quota;
        let (mut after, mut sent) = (0, 0);
        for _ in 0..PAGES_MAX {
            let parked = outbox::parked_with(
                &self.conn,
                after,
                code::OVER_QUOTA,
                room(rows),
                room(bytes),
                PAGE,
            )?;
            for entry in &parked {
                // One that waited for an earlier one was taken along by it.
                let still = outbox::by_id(&self.conn, entry.id)?;
                if still.is_none_or(|still| still.seq != entry.seq)
                    || entry.changes > room(rows)
                    || self.most_bytes(entry.seq)? > room(bytes)
                {
                    continue;
                }
                for id in self.unpark(entry.id, now)? {
                    if let Some(entry) = outbox::by_id(&self.conn, id)? {
                        // Every change may be a new row.
                        rows = with(rows, entry.changes);
                        bytes = with(bytes, self.most_bytes(entry.seq)?);
                    }
                    sent += 1;
                }
                if sent >= SENT_MAX {
                    return Ok(());
                }
            }
            match parked.last() {
                Some(last) if parked.len() == PAGE => after = last.seq,
                Some(_) | None => break,
            }
        }
        Ok(())
    }

    /// How many bytes a changeset adds at most to what the server counts: of each row the key, its
    /// columns too, and each value, of which numbers count as eight and encrypted ones as the
    /// envelopes that they travel in.
    fn most_bytes(&self, seq: outbox::Seq) -> Result<u64, ReplicaError> {
        let mut most: u64 = 0;
        for (t, changes, ops, keys) in outbox::sizes(&self.conn, seq)? {
            let table = self.tables.local(t);
            let columns = table
                .and_then(|table| table.remote.as_ref())
                .map_or(0, |remote| remote.table.columns.len());
            let encrypted = table.map_or(0, |table| table.encrypted().count());
            let row = NUMBER_BYTES * columns as u64 + ENVELOPE_BYTES * encrypted as u64;
            let padding = if encrypted > 0 { ops / 8 } else { 0 };
            let rows = changes.saturating_mul(row);
            most = [ops, 2 * keys, padding, rows]
                .into_iter()
                .fold(most, u64::saturating_add);
        }
        Ok(most)
    }

    /// What the server said last of what the user owns.
    pub(super) fn quota(&self) -> Result<Option<Quota>, ReplicaError> {
        let text: Option<String> = settings::get(&self.conn, Key::Quota)?;
        Ok(text.map(|text| from_text(&text)))
    }
}

/// How much more fits.
fn room(share: Option<Share>) -> u64 {
    share.map_or(u64::MAX, |share| share.max.saturating_sub(share.owned))
}

/// The share once `more` is in it.
fn with(share: Option<Share>, more: u64) -> Option<Share> {
    share.map(|Share { owned, max }| Share {
        owned: owned.saturating_add(more),
        max,
    })
}

fn to_text(Quota { rows, bytes }: Quota) -> String {
    let words = [rows, bytes].map(|share| match share {
        Some(Share { owned, max }) => format!("{owned} {max}"),
        None => "- -".to_owned(),
    });
    words.join(" ")
}

fn from_text(text: &str) -> Quota {
    let mut words = text.split(' ').map(|word| word.parse().ok());
    let mut share = || {
        let (owned, max) = (words.next().flatten(), words.next().flatten());
        Some(Share {
            owned: owned?,
            max: max?,
        })
    };
    let rows = share();
    Quota {
        rows,
        bytes: share(),
    }
}
