//! The stream while it flows: log entries, pages and checkpoints (spec SE8–SE15).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use syncline_core::planted;
use syncline_core::{
    BucketId, RowKey, TableNumber, Tag, Timestamp, Version,
    digest::next_tag,
    wire::{LoadPosition, code},
};
use syncline_store::{LogEntry, PageWant, Reader, StorageError, sign_cursor};

use super::{Phase, Session, SessionContext};
use crate::{recent::After, sight::Sight, stream::PAGE_BYTES};

/// Entries taken from the window, or bytes read from the log, in one go.
const ENTRIES_AT_ONCE: usize = 64;
const LOG_BYTES_AT_ONCE: usize = 512 * 1024;
/// Why a session ends that is further behind than the log reaches (spec SE8).
const FORGOTTEN: &str = "what this session has to read is forgotten: connect again";

impl Session {
    pub(super) fn load(&mut self, positions: &[LoadPosition]) {
        let phase = std::mem::replace(&mut self.phase, Phase::Closed);
        let is_open = matches!(phase, Phase::Streaming(_));
        let mut stream = match phase {
            Phase::AwaitLoad(stream) | Phase::Streaming(stream) => stream,
            phase @ (Phase::AwaitHello
            | Phase::Opening(_)
            | Phase::Welcoming(..)
            | Phase::Closed) => {
                self.phase = phase;
                return self.fail(code::MALFORMED, "Load before the welcome", false);
            }
        };
        let parts = resolve(&self.context, &stream.sight, positions);
        if let Ok(parts) = &parts {
            for (part, after) in parts {
                match is_open {
                    true => stream.repair(*part, after.clone()),
                    false => stream.load(*part, after.clone()),
                }
            }
            // Also where there is nothing to load: the replica waits to hear just that.
            stream.owe_answer();
        }
        self.phase = Phase::Streaming(stream);
        if let Err(sentence) = parts {
            self.fail(code::MALFORMED, sentence, false);
        }
    }

    /// Sends what is to be sent, as far as credit and the bound on unsent bytes go. Returns
    /// whether there is more to do at once; call it again when the frames have left.
    ///
    /// # Errors
    /// [`StorageError`] of the reader: the session can be pumped again later.
    pub async fn pump<R: Reader>(
        &mut self,
        reader: &mut R,
        now: Timestamp,
    ) -> Result<bool, StorageError> {
        if let Phase::Welcoming(..) = self.phase {
            self.welcome(reader, now).await?;
        }
        let Phase::Streaming(_) = self.phase else {
            return Ok(false);
        };
        self.follow_subscriptions();
        loop {
            if !self.out.has_credit() {
                return Ok(false);
            }
            if self.out.is_full() {
                return Ok(true);
            }
            let caught_up = self.follow_log(reader, now).await?;
            if !caught_up {
                continue;
            }
            let Some(stream) = self.stream_mut() else {
                return Ok(false);
            };
            if stream.has_pages_to_read() {
                // What a page tells counts for a device once a checkpoint has passed it (spec LO6).
                let is_wanted = stream.is_checkpoint_due() || stream.is_past_checkpoint();
                if is_wanted || now >= stream.next_checkpoint() {
                    self.send_checkpoint(false, now);
                } else if !self.send_page(reader).await? {
                    return Ok(true);
                }
                continue;
            }
            if stream.is_checkpoint_wanted(now) {
                self.send_checkpoint(!planted!(CaughtUpNeverSaid), now);
            }
            return Ok(false);
        }
    }

    /// Whether the next [`Session::pump`] may read the storage rather than only memory.
    #[must_use]
    pub fn needs_storage(&self) -> bool {
        match &self.phase {
            Phase::Welcoming(..) => true,
            Phase::Streaming(stream) => {
                self.out.has_credit()
                    && !self.out.is_full()
                    && (stream.has_pages_to_read()
                        || !self.asked.is_empty()
                        || match self.context.recent.is_too_old(stream.position()) {
                            Some(is_too_old) => is_too_old,
                            None => stream.is_behind_pages(),
                        })
            }
            Phase::AwaitHello | Phase::Opening(_) | Phase::AwaitLoad(_) | Phase::Closed => false,
        }
    }

    /// Handles log entries; `true` when none is left.
    async fn follow_log<R: Reader>(
        &mut self,
        reader: &mut R,
        now: Timestamp,
    ) -> Result<bool, StorageError> {
        let Some(stream) = self.stream_mut() else {
            return Ok(true);
        };
        // Whether these are all there are: who comes later wakes the session.
        let mut is_all = false;
        let entries = if let Some(unfinished) = stream.unfinished() {
            vec![unfinished]
        } else {
            let (position, tag) = (stream.position(), stream.tag());
            let is_behind = stream.is_behind_pages();
            match self.context.recent.after(position, ENTRIES_AT_ONCE) {
                After::UpToDate if is_behind => {
                    let read = reader.log_after(position, LOG_BYTES_AT_ONCE).await?;
                    if !continues(tag, &read) || self.is_rebuilt(reader).await? {
                        self.go_away(FORGOTTEN, 1);
                        return Ok(true);
                    }
                    let device = self.device;
                    let of_others = |entry: &Arc<LogEntry>| entry.device != device;
                    read.into_iter().take_while(of_others).collect()
                }
                After::UpToDate => return Ok(true),
                After::Entries(entries) => {
                    is_all = entries.len() < ENTRIES_AT_ONCE && !is_behind;
                    entries
                }
                After::TooOld => {
                    let read = reader.log_after(position, LOG_BYTES_AT_ONCE).await?;
                    if !continues(tag, &read) || self.is_rebuilt(reader).await? {
                        self.go_away(FORGOTTEN, 1);
                        return Ok(true);
                    }
                    read
                }
            }
        };
        if entries.is_empty() {
            return Ok(true);
        }
        for entry in entries {
            let context = Arc::clone(&self.context);
            let Some(stream) = self.stream_mut() else {
                return Ok(true);
            };
            let before = stream.sight.generation();
            let mut frames = Vec::new();
            let finished = stream.entry(
                &entry,
                |bucket| context.plan.rules().tables_of(bucket),
                &mut frames,
            );
            let due = finished && stream.is_checkpoint_due();
            let sight_changed = before != stream.sight.generation();
            let position = stream.position();
            self.sent = self.sent.max(position);
            self.out.stream(frames);
            if sight_changed {
                self.actions.push_back(super::Action::Watch);
            }
            if due {
                self.send_checkpoint(false, now);
            }
            if !finished || !self.out.has_credit() || self.out.is_full() {
                return Ok(false);
            }
        }
        Ok(is_all)
    }

    /// Reads and sends a page; `false` if the log has to be handled first, because the page may
    /// show what the reader has lost meanwhile.
    async fn send_page<R: Reader>(&mut self, reader: &mut R) -> Result<bool, StorageError> {
        self.judge(reader).await?;
        // All of it may have been too much.
        let Some(stream) = self
            .stream_mut()
            .filter(|stream| stream.has_pages_to_read())
        else {
            return Ok(true);
        };
        if let Some(wants) = stream.wants_to_count() {
            let rows = reader.rows_to_come(&wants).await?;
            stream.count(rows);
        }
        let wants: Vec<PageWant> = stream.page_wants();
        let read = reader.pages(&wants, PAGE_BYTES).await?;
        let version = read.version;
        if self.may_have_lost(reader, version).await? {
            return Ok(false);
        }
        let Some(stream) = self.stream_mut() else {
            return Ok(true);
        };
        let mut frames = Vec::new();
        stream.page(read, &mut frames);
        self.sent = self.sent.max(version);
        self.out.stream(frames);
        Ok(true)
    }

    /// Looks whether the device may hold what begins to load besides what it has (spec LI7), and
    /// tells it what it may not. A row that lies in two buckets counts twice.
    async fn judge<R: Reader>(&mut self, reader: &mut R) -> Result<(), StorageError> {
        let context = Arc::clone(&self.context);
        let most = context.plan.limits().device_rows;
        let Some(stream) = self.stream_mut() else {
            return Ok(());
        };
        let wants = stream.unjudged();
        if wants.is_empty() || most == 0 {
            stream.judged();
            return Ok(());
        }
        let rows = reader.rows_to_come(&wants).await?;
        if stream.take_room(rows) {
            stream.judged();
            return Ok(());
        }
        let held = stream.held(|bucket| context.plan.rules().tables_of(bucket));
        let held = reader.rows_to_come(&held).await?;
        let mut room = most.saturating_sub(held);
        let mut buckets = Vec::new();
        for wants in wants.chunk_by(|one, next| one.bucket == next.bucket) {
            let (bucket, rows) = (wants[0].bucket, reader.rows_to_come(wants).await?);
            // Nobody can be kept from what is theirs by being let into something large.
            buckets.push((!stream.sight.has_always(&bucket), rows, bucket));
        }
        buckets.sort_unstable();
        let (mut withheld, mut left) = (BTreeSet::new(), 0);
        for (_, rows, bucket) in buckets {
            match room.checked_sub(rows) {
                Some(rest) => room = rest,
                None => {
                    withheld.insert(bucket);
                    left += rows;
                }
            }
        }
        stream.has_room(room);
        stream.withhold(&withheld);
        if !withheld.is_empty() {
            let all = held.saturating_add(rows);
            let message = format!(
                "this device would hold {all} rows, and the server sends it {most} at most: {left} \
                 that were to come now are not sent; subscribe to less, or raise `device_rows` in \
                 [limits] of the server"
            );
            self.tell(code::TOO_MANY_ROWS, message);
        }
        Ok(())
    }

    /// Whether everything was computed anew since the welcome: what became of the reader's grants is
    /// in no entry then. To be asked after what is to be sent was read.
    async fn is_rebuilt<R: Reader>(&self, reader: &mut R) -> Result<bool, StorageError> {
        Ok(reader.head().await?.rules_since > self.rules_since)
    }

    /// Whether an entry up to `version` that is not handled yet takes a bucket from the reader.
    async fn may_have_lost<R: Reader>(
        &mut self,
        reader: &mut R,
        version: Version,
    ) -> Result<bool, StorageError> {
        if self.is_rebuilt(reader).await? {
            self.go_away(FORGOTTEN, 1);
            return Ok(true);
        }
        let Some(stream) = self.stream_mut() else {
            return Ok(false);
        };
        let (mut position, mut tag) = (stream.position(), stream.tag());
        while position < version {
            let entries = reader.log_after(position, LOG_BYTES_AT_ONCE).await?;
            let (Some(last), Some(stream)) = (entries.last(), self.stream_mut()) else {
                break;
            };
            if !continues(tag, &entries) {
                // What is missing may have taken anything; the stream finds out next.
                return Ok(true);
            }
            (position, tag) = (last.version, last.tag);
            if entries.iter().any(|entry| stream.sight.may_lose_by(entry)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn send_checkpoint(&mut self, caught_up: bool, now: Timestamp) {
        let (Phase::AwaitLoad(stream) | Phase::Streaming(stream)) = &mut self.phase else {
            return;
        };
        let cursor = sign_cursor(
            &self.context.secret,
            &self.user,
            self.device,
            stream.position(),
            stream.tag(),
        );
        let mut frames = Vec::new();
        stream.checkpoint(cursor, caught_up, now, &mut frames);
        self.checkpoint_sent = Some((cursor.version, caught_up));
        self.out.stream(frames);
    }
}

/// Whether `entries` follow an entry with this tag without a gap: the horizon may have passed a
/// session that waits for its reader (spec ID3).
fn continues(tag: Tag, entries: &[Arc<LogEntry>]) -> bool {
    entries
        .first()
        .is_none_or(|first| next_tag(tag, first.changeset) == first.tag)
}

/// Load positions as parts; a position without a bucket stands for every granted one. Those that
/// the reader cannot see or that do not exist are left out: there is nothing to load.
pub(super) fn resolve(
    context: &SessionContext,
    sight: &Sight,
    positions: &[LoadPosition],
) -> Result<BTreeMap<(BucketId, TableNumber), Option<RowKey>>, String> {
    let rules = context.plan.rules();
    let mut parts = BTreeMap::new();
    let mut everywhere = BTreeSet::new();
    for position in positions {
        let after = match &position.after {
            Some(bytes) => Some(RowKey::from_bytes(bytes).map_err(|error| error.to_string())?),
            None => None,
        };
        match position.bucket {
            Some(bucket) => {
                if sight.sees(&bucket) && rules.tables_of(bucket).contains(&position.table) {
                    parts.insert((bucket, position.table), after);
                }
            }
            None => {
                everywhere.insert(position.table);
            }
        }
    }
    if everywhere.is_empty() {
        return Ok(parts);
    }
    for bucket in sight.buckets() {
        let tables = rules.tables_of(bucket).iter();
        for table in tables.filter(|table| everywhere.contains(table)) {
            parts.insert((bucket, *table), None);
        }
    }
    Ok(parts)
}
