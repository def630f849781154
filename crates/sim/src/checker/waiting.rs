//! What waits on a device: once sent it stays as it was sent, and what it adds to counters is what
//! the device shows more than the server.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use syncline_core::{
    Change, ChangesetId, Edit, Op, Value,
    envelope::Envelope,
    wire::{ClientMessage, decode_changeset, decode_client},
};
use syncline_replica::{QueueState, QueuedChangeset};

use crate::{
    app::demand::SECRET,
    model::is_listed,
    rows::{Rows, literal_key},
};

/// Columns that add up: table, column, and its place among the columns of a row.
const COUNTERS: [(&str, &str, usize); 2] = [("boards", "votes", 4), ("projects", "points", 2)];
/// Changesets in the queue that touch one row: each may be hidden, and so all subsets are tried.
const SUBSETS_MAX: usize = 8;

/// Changesets as they were sent.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Only what was sent whole: by device and id.
    content: BTreeMap<(String, ChangesetId), Vec<Content>>,
    /// How often each was sent, and whether a file that knew all it had sent began to send it.
    times: BTreeMap<ChangesetId, (u32, bool)>,
    /// What those were cut from that were cut from others.
    pieces: BTreeMap<ChangesetId, ChangesetId>,
}

impl Sent {
    /// A device sends this. `is_steady`: its file is no old copy, or has met the server since.
    pub(crate) fn note(&mut self, device: &str, frame: &[u8], is_steady: bool) {
        let Ok(ClientMessage::Push(push)) = decode_client(frame) else {
            return;
        };
        let changeset = decode_changeset(&push.body).ok();
        // As part of another it was sent before, under the id of that.
        let whole = changeset.as_ref().and_then(|changeset| {
            let piece = changeset.piece.as_ref();
            piece
                .filter(|_| changeset.may_be_applied_already)
                .map(|piece| piece.whole)
        });
        let is_part = whole.is_some_and(|whole| self.times.contains_key(&whole));
        let (times, _) = self
            .times
            .entry(push.id)
            .or_insert((0, is_steady && !is_part));
        *times += 1;
        if let Some(piece) = changeset.as_ref().and_then(|c| c.piece.as_ref()) {
            self.pieces.insert(push.id, piece.whole);
        }
        if let Some(changeset) = changeset {
            let content = content(changeset.changes.iter());
            self.content.insert((device.to_owned(), push.id), content);
        }
    }

    /// What it was cut from.
    pub(crate) fn whole(&self, id: ChangesetId) -> Option<ChangesetId> {
        self.pieces.get(&id).copied()
    }

    /// A file with this queue was given a new device id: it may be a copy, and nobody can tell it
    /// what of that another file has sent (spec OB8).
    pub(crate) fn doubt(&mut self, queue: &[QueuedChangeset]) {
        for changeset in queue {
            self.times.entry(changeset.id).or_insert((0, false)).1 = false;
        }
    }

    /// Rows of this device have other keys now, or nobody heard whether they have.
    pub(crate) fn forget(&mut self, device: &str) {
        self.content.retain(|(of, _), _| of != device);
    }

    /// What was parked may go on in other pieces.
    pub(crate) fn parked(&mut self, device: &str, parked: &[ChangesetId]) {
        for id in parked {
            self.content.remove(&(device.to_owned(), *id));
        }
    }

    /// What waits is what was sent, where it was.
    ///
    /// # Errors
    /// A changeset that grew or shrank after it had been sent.
    pub(crate) fn check(&mut self, device: &str, queue: &[QueuedChangeset]) -> anyhow::Result<()> {
        for changeset in queue {
            let place = (device.to_owned(), changeset.id);
            if matches!(changeset.state, QueueState::Parked { .. }) {
                self.parked(device, &[changeset.id]);
                continue;
            }
            let sent = self.content.get(&place);
            let Some(sent) = sent.filter(|_| is_listed(changeset)) else {
                continue;
            };
            let waits = content(changeset.changes.iter().map(|listed| &listed.change));
            if !is_as_sent(sent, &waits) {
                bail!(
                    "{device}: {} was sent as {sent:?}, and has become {waits:?}",
                    changeset.id
                );
            }
        }
        Ok(())
    }

    /// The server refuses a changeset because it may be applied already: then it was sent before,
    /// or comes from a file that cannot know.
    ///
    /// # Errors
    /// It was sent once, by a file that knew all it had sent.
    pub(crate) fn check_doubt(&self, id: ChangesetId) -> anyhow::Result<()> {
        match self.times.get(&id) {
            Some((1, true)) => {
                bail!("{id} was refused as maybe applied, and was never sent before")
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// What is done to which key, and the values, whatever numbers tables and columns have.
type Content = (String, Vec<String>);

/// Whether this was sent as that. An inserted row is sent with what the server has in columns that
/// the app's table has not.
fn is_as_sent(sent: &[Content], waits: &[Content]) -> bool {
    sent.len() == waits.len()
        && std::iter::zip(sent, waits).all(|((of, sent), (to, waits))| {
            let mut sent = sent.clone();
            let has_each = waits.iter().all(|edit| {
                let place = sent.iter().position(|other| other == edit);
                place.map(|place| sent.swap_remove(place)).is_some()
            });
            of == to && has_each && (sent.is_empty() || of.starts_with("insert"))
        })
}

fn content<'a>(changes: impl Iterator<Item = &'a Change>) -> Vec<Content> {
    let of_change = |change: &Change| {
        let (kind, edits) = match &change.op {
            Op::Insert(edits) => ("insert", &edits[..]),
            Op::Update(edits) => ("update", &edits[..]),
            Op::Delete => ("delete", &[][..]),
        };
        let mut edits: Vec<_> = edits.iter().map(|e| told(&e.edit)).collect();
        edits.sort();
        (format!("{kind} {}", literal_key(&change.key)), edits)
    };
    let mut content: Vec<_> = changes.map(of_change).collect();
    content.sort();
    content
}

/// An edit in words; of what is sealed on its way nothing but that.
fn told(edit: &Edit) -> String {
    let value = match edit {
        Edit::Set(value) => Some(value),
        Edit::Add(_)
        | Edit::Items { .. }
        | Edit::Append(_)
        | Edit::Decide { .. }
        | Edit::Members(_) => None,
    };
    let is_sealed = match value {
        Some(Value::Blob(bytes)) => Envelope::parse(bytes).is_some(),
        Some(Value::Text(text)) => text.starts_with(SECRET),
        Some(Value::Null | Value::Integer(_) | Value::Real(_)) | None => false,
    };
    match is_sealed {
        true => "sealed".to_owned(),
        false => format!("{edit:?}"),
    }
}

/// Counters show what the server has and what waits here beside it; a changeset that does not fit
/// for now is hidden whole.
///
/// # Errors
/// A counter that shows something else.
pub(crate) fn check_counters(
    here: &Rows,
    server: &Rows,
    visible: &Rows,
    queue: &[QueuedChangeset],
) -> anyhow::Result<()> {
    for (table, column, position) in COUNTERS {
        // What each changeset adds to each row; `None`: it does something else to it.
        let mut steps: BTreeMap<String, Vec<Option<i64>>> = BTreeMap::new();
        for changeset in queue {
            for listed in changeset.changes.iter().filter(|c| c.table == table) {
                let key = literal_key(&listed.change.key);
                steps.entry(key).or_default().push(step(
                    &listed.change.op,
                    column,
                    &listed.columns,
                ));
            }
        }
        for (key, steps) in steps {
            let name = (table, key.into());
            let number = |rows: &Rows| rows.get(&name)?.get(position)?.parse::<i64>().ok();
            let Some(steps) = steps.iter().copied().collect::<Option<Vec<i64>>>() else {
                continue;
            };
            let (Some(shown), Some(base)) = (number(here), number(server)) else {
                continue;
            };
            if steps.len() > SUBSETS_MAX || !visible.contains_key(&name) {
                continue;
            }
            let sums = steps.iter().fold(BTreeSet::from([base]), |sums, step| {
                sums.iter().flat_map(|sum| [*sum, sum + step]).collect()
            });
            if !sums.contains(&shown) {
                bail!("{name:?} shows {shown}; the server has {base}, and {steps:?} wait here");
            }
        }
    }
    Ok(())
}

/// By how much what waits changes the votes of a board; `None`: something else is done to them, or
/// not all is listed.
pub(crate) fn votes_that_wait(queue: &[QueuedChangeset], id: &str) -> Option<i64> {
    let mut sum = 0;
    for changeset in queue {
        if matches!(changeset.state, QueueState::Parked { .. }) {
            continue;
        }
        if !is_listed(changeset) {
            return None;
        }
        let key = format!("'{id}'");
        let of_board = |c: &&syncline_replica::QueuedChange| {
            c.table == "boards" && literal_key(&c.change.key) == key
        };
        for listed in changeset.changes.iter().filter(of_board) {
            sum += step(&listed.change.op, "votes", &listed.columns)?;
        }
    }
    Some(sum)
}

fn step(op: &Op, column: &str, columns: &[String]) -> Option<i64> {
    let Op::Update(edits) = op else {
        return None;
    };
    match columns.iter().position(|name| name == column) {
        None => Some(0),
        Some(at) => match &edits.get(at)?.edit {
            Edit::Add(Value::Integer(step)) => Some(*step),
            Edit::Add(Value::Null | Value::Real(_) | Value::Text(_) | Value::Blob(_))
            | Edit::Set(_)
            | Edit::Items { .. }
            | Edit::Append(_)
            | Edit::Decide { .. }
            | Edit::Members(_) => None,
        },
    }
}
