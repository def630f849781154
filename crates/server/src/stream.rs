//! The ordered stream of one session: grants, changes, pages and checkpoints (spec SE8–SE15).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use syncline_core::planted;
use syncline_core::{
    BucketId, ChangesetId, Cursor, Hlc, RowKey, TableNumber, Tag, Timestamp, Version,
    digest::Digest,
    wire::{
        BucketDigest, Checkpoint, Grants, LiveBucket, Page, PagePart, RowBody, RowState,
        ServerMessage, Subscribe, encode_server,
    },
};
use syncline_store::{LogEntry, LogRecord, PageRead, PageWant};

mod room;

use crate::{
    changes::ChangesBuilder,
    recent::Recent,
    sight::{Sight, SightChange},
};

/// A (bucket, table): the unit of loading.
type Part = (BucketId, TableNumber);

/// A checkpoint is due after this many records …
pub(crate) const CHECKPOINT_RECORDS: usize = 2_000;
/// … or this many encoded bytes …
pub(crate) const CHECKPOINT_BYTES: usize = 1024 * 1024;
/// … or, with nothing to say, this long after the last one.
pub(crate) const CHECKPOINT_EVERY_MILLIS: u64 = 25_000;
/// A Changes frame is closed when it has grown to this.
const FRAME_BYTES: usize = 128 * 1024;
/// Most (bucket, table)s that are asked for in one page.
pub(crate) const PAGE_WANTS_MAX: usize = 512;
/// Bytes of rows asked for in one page.
pub(crate) const PAGE_BYTES: usize = 256 * 1024;

/// Turns log entries and pages into one reader's frames.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Where frames are that other sessions send as well.
    recent: Arc<Recent>,
    pub(crate) sight: Sight,
    /// `None`: every table.
    tables: Option<BTreeSet<TableNumber>>,
    /// P: every entry up to here has been handled.
    position: Version,
    tag: Tag,
    /// What is still to be read, in the order it is read, and after which key.
    queue: VecDeque<Part>,
    /// Rows to come of what is loading; `None` before they were counted.
    remaining: Option<u64>,
    loading: BTreeMap<Part, Option<RowKey>>,
    /// Begins to load, and it was not looked at yet whether the device may hold so much.
    unjudged: BTreeSet<Part>,
    /// What is not loaded although it is granted: the device would hold too many rows.
    withheld: BTreeSet<Part>,
    /// What the device holds loads anew: until all of it is there, nothing is withheld.
    loads_again: bool,
    /// How many rows the device may load until all that it holds is counted again; `None` before
    /// it was counted.
    room: Option<u64>,
    /// Read to the end at this version, live at the next checkpoint from there.
    ended: BTreeMap<Part, (Version, Digest)>,
    /// Digests of live parts that changed since the last checkpoint.
    digests: BTreeMap<Part, Digest>,
    /// An entry too large for one go: the next record to handle.
    unfinished: Option<(Arc<LogEntry>, usize)>,
    changes: ChangesBuilder,
    /// Since the last checkpoint.
    records_sent: usize,
    bytes_sent: usize,
    /// Something was sent since the last checkpoint, or there was none yet.
    anything_sent: bool,
    /// The last checkpoint said that there was more; the replica waits to hear that it was all.
    said_more: bool,
    /// A checkpoint of at least this version is owed to this device's own changesets.
    owed: Version,
    last_checkpoint: Timestamp,
    /// Where it was: at first the cursor that the reader has.
    checkpoint_at: Version,
    /// The last change of subscriptions that was heard.
    subscribed: u64,
}

impl Stream {
    /// A stream that goes on after `cursor`.
    pub(crate) fn new(
        recent: Arc<Recent>,
        sight: Sight,
        tables: Option<BTreeSet<TableNumber>>,
        (position, tag): (Version, Tag),
        subscribed: u64,
        now: Timestamp,
    ) -> Self {
        Self {
            recent,
            subscribed,
            sight,
            tables,
            position,
            tag,
            queue: VecDeque::new(),
            remaining: None,
            loading: BTreeMap::new(),
            unjudged: BTreeSet::new(),
            withheld: BTreeSet::new(),
            loads_again: false,
            room: None,
            ended: BTreeMap::new(),
            digests: BTreeMap::new(),
            unfinished: None,
            changes: ChangesBuilder::default(),
            records_sent: 0,
            bytes_sent: 0,
            // Every stream says once where it is: only then does the replica know that it is in step.
            anything_sent: true,
            said_more: false,
            owed: Version::ZERO,
            last_checkpoint: now,
            checkpoint_at: position,
        }
    }

    pub(crate) fn position(&self) -> Version {
        self.position
    }

    pub(crate) fn tag(&self) -> Tag {
        self.tag
    }

    /// From here on loads what the device holds already; its rows are replaced only when all of
    /// them are there, so that none may be missing.
    pub(crate) fn load_again(&mut self) {
        self.loads_again = true;
    }

    /// Starts, or starts again, to load a part after `after`.
    pub(crate) fn load(&mut self, part: Part, after: Option<RowKey>) {
        // Where the device is in the middle it may go on: that was looked at when it began.
        if after.is_none() && !self.loads_again && !self.loading.contains_key(&part) {
            self.unjudged.insert(part);
        }
        self.load_judged(part, after);
    }

    /// Starts again to load a part that the device was sent whole.
    pub(crate) fn repair(&mut self, part: Part, after: Option<RowKey>) {
        match self.is_loaded(&part) {
            true => self.load_judged(part, after),
            false => self.load(part, after),
        }
    }

    fn load_judged(&mut self, part: Part, after: Option<RowKey>) {
        if !self.wants(part.1) || !self.sight.sees(&part.0) {
            self.unjudged.remove(&part);
            return;
        }
        self.withheld.remove(&part);
        self.ended.remove(&part);
        self.digests.remove(&part);
        self.remaining = None;
        if self.loading.insert(part, after).is_none() {
            self.queue.push_back(part);
        }
    }

    /// Remembers that the device waits for a checkpoint, whatever is in it.
    pub(crate) fn owe_answer(&mut self) {
        self.anything_sent = true;
    }

    /// Remembers that the device has to be sent a checkpoint of at least `version`.
    pub(crate) fn owe(&mut self, version: Version) {
        self.owed = self.owed.max(version);
    }

    fn wants(&self, table: TableNumber) -> bool {
        self.tables
            .as_ref()
            .is_none_or(|tables| tables.contains(&table))
    }

    /// Whether nothing but a checkpoint can be due without new log entries.
    pub(crate) fn has_pages_to_read(&self) -> bool {
        !self.loading.is_empty()
    }

    /// The next page to read, in loading order.
    pub(crate) fn page_wants(&self) -> Vec<PageWant> {
        self.wants_in_order().take(PAGE_WANTS_MAX).collect()
    }

    /// What is to be counted with [`Stream::count`], if it was not yet.
    pub(crate) fn wants_to_count(&self) -> Option<Vec<PageWant>> {
        self.remaining
            .is_none()
            .then(|| self.wants_in_order().collect())
    }

    /// Remembers how many rows are to come.
    pub(crate) fn count(&mut self, rows: u64) {
        self.remaining = Some(rows);
    }

    fn wants_in_order(&self) -> impl Iterator<Item = PageWant> {
        let parts = self
            .queue
            .iter()
            .filter(|part| self.loading.contains_key(part));
        parts.map(|part| PageWant {
            bucket: part.0,
            table: part.1,
            after: self.loading.get(part).cloned().flatten(),
        })
    }

    /// Handles `entry` as far as one frame's size allows; `true` when it is finished.
    ///
    /// `tables_of` names the tables whose rows can lie in a bucket.
    pub(crate) fn entry<'r>(
        &mut self,
        entry: &Arc<LogEntry>,
        tables_of: impl Fn(BucketId) -> &'r [TableNumber],
        out: &mut Vec<Bytes>,
    ) -> bool {
        let start = match self.unfinished.take() {
            Some((unfinished, next)) => {
                debug_assert_eq!(unfinished.version, entry.version, "entries come in order");
                next
            }
            None => {
                self.follow_grants(entry, tables_of, out);
                0
            }
        };
        for (i, record) in entry.records.iter().enumerate().skip(start) {
            if self.changes.bytes() >= FRAME_BYTES {
                self.flush_changes(out);
                self.unfinished = Some((Arc::clone(entry), i));
                return false;
            }
            if self.wants(record.table) {
                self.record(entry, record);
            }
        }
        for (bucket, table, digest) in &entry.digests {
            self.note_digest(entry.version, (*bucket, *table), *digest);
        }
        self.position = entry.version;
        self.tag = entry.tag;
        true
    }

    /// The entry that [`Stream::entry`] has not finished.
    pub(crate) fn unfinished(&self) -> Option<Arc<LogEntry>> {
        self.unfinished.as_ref().map(|(entry, _)| Arc::clone(entry))
    }

    fn follow_grants<'r>(
        &mut self,
        entry: &LogEntry,
        tables_of: impl Fn(BucketId) -> &'r [TableNumber],
        out: &mut Vec<Bytes>,
    ) {
        let change = self.sight.follow(entry);
        self.sight_changed(change, tables_of, out);
    }

    /// Follows a change of what is asked for; the next checkpoint says that it was heard.
    pub(crate) fn subscribe<'r>(
        &mut self,
        subscribe: Subscribe,
        subscriptions_max: usize,
        tables_of: impl Fn(BucketId) -> &'r [TableNumber],
        out: &mut Vec<Bytes>,
    ) -> bool {
        self.subscribed = subscribe.number;
        self.anything_sent = true;
        let (change, all) = self.sight.subscribe(subscribe, subscriptions_max);
        self.sight_changed(change, tables_of, out);
        all
    }

    fn sight_changed<'r>(
        &mut self,
        change: SightChange,
        tables_of: impl Fn(BucketId) -> &'r [TableNumber],
        out: &mut Vec<Bytes>,
    ) {
        if change.gained.is_empty() && change.lost.is_empty() {
            return;
        }
        self.flush_changes(out);
        let lost: BTreeSet<BucketId> = change.lost.iter().copied().collect();
        self.loading.retain(|part, _| !lost.contains(&part.0));
        self.ended.retain(|part, _| !lost.contains(&part.0));
        self.digests.retain(|part, _| !lost.contains(&part.0));
        self.unjudged.retain(|part| !lost.contains(&part.0));
        self.withheld.retain(|part| !lost.contains(&part.0));
        if !lost.is_empty() {
            // There may be room now.
            for part in std::mem::take(&mut self.withheld) {
                self.load(part, None);
            }
        }
        self.queue.retain(|part| self.loading.contains_key(part));
        for bucket in &change.gained {
            for table in tables_of(*bucket) {
                self.load((*bucket, *table), None);
            }
        }
        let grants = Grants {
            full: false,
            add: change.gained,
            drop: change.lost,
            reload: Vec::new(),
            released: change.released,
            released_tables: Vec::new(),
        };
        self.emit(&ServerMessage::Grants(grants), out);
    }

    /// Spec SE9, by the grants of that place of the log: what a row went through before its bucket
    /// was granted is not told; a page brings what came of it. A bucket that is still loading
    /// proves nothing about what the reader has: there the whole row is sent if it is at hand.
    fn record(&mut self, entry: &LogEntry, record: &LogRecord) {
        let at = entry.version;
        let is_live = |bucket: &BucketId| self.is_loaded(&(*bucket, record.table));
        let mut before = record
            .before
            .iter()
            .filter(|b| self.sight.saw_before(b, at));
        let saw_before = before.clone().next().is_some();
        let has_before = before.any(is_live);
        let sees = |b: &&BucketId| self.sight.saw(b, at) || planted!(FilterAfterSend);
        let after: Vec<BucketId> = record.after.iter().filter(sees).copied().collect();
        let body: Arc<[u8]> = match (after.is_empty(), &record.whole, &record.columns) {
            (true, ..) if !saw_before => return,
            (true, ..) => {
                let is_theirs = record.after.iter().any(|b| self.sight.may_see(b, at));
                gone(entry, record, is_theirs).into()
            }
            (false, whole, Some(columns))
                if has_before || whole.is_none() || planted!(NewcomerSentColumns) =>
            {
                Arc::clone(columns)
            }
            (false, Some(whole), _) => Arc::clone(whole),
            (false, None, _) => return,
        };
        self.changes.push(body, &after);
        self.records_sent += 1;
    }

    /// Whether the whole part was sent.
    fn is_loaded(&self, part: &Part) -> bool {
        !self.loading.contains_key(part) && !self.withheld.contains(part)
    }

    fn note_digest(&mut self, version: Version, part: Part, digest: Digest) {
        let is_seen = self.sight.saw(&part.0, version);
        if !is_seen || !self.wants(part.1) || !self.is_loaded(&part) {
            return;
        }
        match self.ended.get_mut(&part) {
            // What was read is newer than this entry.
            Some((read_at, _)) if *read_at >= version => {}
            Some((_, known)) => *known = digest,
            None => {
                self.digests.insert(part, digest);
            }
        }
    }

    /// Sends a page that was read after everything up to the position was handled (SE11).
    pub(crate) fn page(&mut self, read: PageRead, out: &mut Vec<Bytes>) {
        debug_assert!(
            read.version >= self.position,
            "a page is never older than the stream"
        );
        self.flush_changes(out);
        let mut parts = Vec::new();
        for part in read.parts {
            let id = (part.bucket, part.table);
            let count = u64::from(part.count);
            self.remaining = self.remaining.map(|rows| rows.saturating_sub(count));
            match (&part.to, part.digest) {
                (Some(to), _) => {
                    self.loading.insert(id, Some(to.clone()));
                }
                (None, digest) => {
                    self.loading.remove(&id);
                    self.ended
                        .insert(id, (read.version, digest.unwrap_or_default()));
                }
            }
            parts.push(PagePart {
                bucket: part.bucket,
                table: part.table,
                after: part.after.map(|key| key.as_bytes().to_vec()),
                to: part.to.map(|key| key.as_bytes().to_vec()),
                rows: part.rows,
                count: part.count,
            });
        }
        self.queue.retain(|part| self.loading.contains_key(part));
        let page = Page {
            version: read.version,
            parts,
            remaining: self.remaining,
        };
        self.emit(&ServerMessage::Page(page), out);
    }

    /// Whether enough was sent since the last checkpoint for the next one.
    pub(crate) fn is_checkpoint_due(&self) -> bool {
        self.records_sent >= CHECKPOINT_RECORDS || self.bytes_sent >= CHECKPOINT_BYTES
    }

    /// Whether the log went on since the last checkpoint, or since the reader's cursor.
    pub(crate) fn is_past_checkpoint(&self) -> bool {
        self.position > self.checkpoint_at
    }

    /// Whether a checkpoint is worth sending when the log has nothing more.
    pub(crate) fn is_checkpoint_wanted(&self, now: Timestamp) -> bool {
        let turned_live = self
            .ended
            .values()
            .any(|(read_at, _)| *read_at <= self.position);
        self.anything_sent
            || self.said_more
            || self.records_sent > 0
            || !self.digests.is_empty()
            || turned_live
            || self.owed > Version::ZERO && self.owed <= self.position
            || now >= self.next_checkpoint()
    }

    /// When the next checkpoint is due without anything happening.
    pub(crate) fn next_checkpoint(&self) -> Timestamp {
        self.last_checkpoint.plus_millis(CHECKPOINT_EVERY_MILLIS)
    }

    /// Whether pages were read at a version that the stream has not come to: rows that were read
    /// before anybody was told of the commit. Of an entry that has nothing for this reader the
    /// stream would hear only with its next checkpoint.
    pub(crate) fn is_behind_pages(&self) -> bool {
        self.ended
            .values()
            .any(|(read_at, _)| *read_at > self.position)
    }

    /// Ends what was sent so far with a checkpoint at the position.
    pub(crate) fn checkpoint(
        &mut self,
        cursor: Cursor,
        caught_up: bool,
        now: Timestamp,
        out: &mut Vec<Bytes>,
    ) {
        debug_assert!(
            self.unfinished.is_none(),
            "checkpoints fall on entries' ends"
        );
        self.flush_changes(out);
        let position = self.position;
        self.checkpoint_at = position;
        let ended = std::mem::take(&mut self.ended);
        let (ready, waiting): (BTreeMap<_, _>, _) = ended
            .into_iter()
            .partition(|(_, (at, _))| *at <= position || planted!(DigestOfLaterVersion));
        self.ended = waiting;
        let live = ready
            .keys()
            .map(|part| LiveBucket {
                bucket: part.0,
                table: part.1,
            })
            .collect();
        let mut digests = std::mem::take(&mut self.digests);
        digests.extend(ready.into_iter().map(|(part, (_, digest))| (part, digest)));
        let digests = digests
            .into_iter()
            .map(|(part, digest)| BucketDigest {
                bucket: part.0,
                table: part.1,
                count: digest.count,
                sum: digest.sum,
            })
            .collect();
        if self.owed <= position {
            self.owed = Version::ZERO;
        }
        let loading = (self.loading.len() + self.ended.len() + self.withheld.len()) as u64;
        self.loads_again &= loading > 0;
        let checkpoint = Checkpoint {
            cursor,
            digests,
            live,
            caught_up,
            now,
            loading,
            subscribed: self.subscribed,
        };
        self.emit(&ServerMessage::Checkpoint(checkpoint), out);
        self.records_sent = 0;
        self.bytes_sent = 0;
        self.anything_sent = false;
        self.said_more = !caught_up;
        self.last_checkpoint = now;
    }

    fn flush_changes(&mut self, out: &mut Vec<Bytes>) {
        if let Some(said) = self.changes.take() {
            let frame = self.recent.encoded().frame(said);
            self.emit_frame(frame, out);
        }
    }

    fn emit(&mut self, message: &ServerMessage, out: &mut Vec<Bytes>) {
        self.emit_frame(encode_server(message).into(), out);
    }

    fn emit_frame(&mut self, frame: Bytes, out: &mut Vec<Bytes>) {
        self.bytes_sent += frame.len();
        self.anything_sent = true;
        out.push(frame);
    }
}

/// The body for a reader who loses sight of a row: nothing but that, and whether it is theirs to
/// see all the same (spec SU4).
fn gone(entry: &LogEntry, record: &LogRecord, is_theirs: bool) -> Vec<u8> {
    let deleted = record.deleted;
    let author = entry.user.as_ref().filter(|_| deleted);
    RowBody {
        table: record.table,
        key: record.key.clone(),
        version: record.version,
        state: match (deleted, is_theirs) {
            (true, _) => RowState::Deleted,
            (false, true) => RowState::Released,
            (false, false) => RowState::Removed,
        },
        author: author.map(ToString::to_string).unwrap_or_default(),
        changeset: if deleted {
            entry.changeset
        } else {
            ChangesetId::default()
        },
        hlc: if deleted { entry.hlc } else { Hlc::default() },
    }
    .encode()
}
