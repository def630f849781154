//! One transaction of a group: load, plan, write, see what the database did, ledger, commit.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use syncline_core::planted;
use syncline_core::{
    ChangesetId, DeviceId, Hlc, Timestamp,
    wire::{CHANGESET_BYTES_MAX, LostEdit, PushResult, Refusal, Verdict, code},
};

use crate::{
    EXTERNAL,
    log::LogEntry,
    marks::{Mark, MarksTaken},
    plan::{
        Access, Author, Context, Draft, Observed, Planned, Refused, RefusedNumbers, RowDraft,
        State, Submission, finish, finish_wants, observe, plan_changeset, prefetch,
    },
    room::Room,
    storage::{Group, Head, Ledger, Storage, StorageError, WriteKind},
    want::{Loaded, LoadedRow, Missing, Want, without_doubles},
};

/// What one transaction takes of other programs' writes. They become one log entry, which is read
/// and sent as a device's largest changeset is.
pub(crate) const EXTERNAL_ROOM: Room = Room {
    rows: 50_000,
    bytes: CHANGESET_BYTES_MAX,
};
/// What the database may change by itself because of one changeset. An entry can have each value
/// twice, and no database keeps more than a billion bytes in one place.
const REACTIONS_ROOM: Room = Room {
    rows: 1_000_000,
    bytes: 400 * 1024 * 1024,
};

/// Everything one transaction depends on.
pub(super) struct Attempt<'a> {
    pub(super) context: &'a Context,
    pub(super) submissions: &'a [Submission],
    pub(super) range: Range<usize>,
    pub(super) verdicts: &'a BTreeMap<usize, Refusal>,
    pub(super) refused: &'a RefusedNumbers,
    pub(super) alone: bool,
    pub(super) now: Timestamp,
}

/// What is durable now.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) results: Vec<(usize, PushResult)>,
    pub(super) entries: Vec<Arc<LogEntry>>,
    pub(super) access: Access,
    pub(super) head: Head,
    pub(super) refused: RefusedNumbers,
    /// Only other programs' writes were committed; there are more.
    pub(super) more: bool,
}

/// Why nothing was committed.
#[derive(Debug)]
pub(super) enum Abort {
    /// The submission at this position is to be refused; the others may go on.
    Refuse(usize, Refusal),
    /// A constraint refused something.
    Constraint(String),
    /// The database did something besides what was written, and it is not known for whom.
    Unattributed,
    /// Other programs changed so many rows that what rules make of them is only exact when
    /// everything is computed anew.
    Rebuild,
    Storage(StorageError),
}

impl From<StorageError> for Abort {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Constraint { message, .. } => Self::Constraint(message),
            StorageError::Busy
            | StorageError::Full
            | StorageError::Failed(_)
            | StorageError::Corrupt(_) => Self::Storage(error),
        }
    }
}

impl Attempt<'_> {
    pub(super) async fn run<S: Storage>(&self, storage: &mut S) -> Result<Done, Abort> {
        let server = storage.server_id();
        let mut group = storage.begin().await?;
        let head = group.head();
        let mut transaction = Transaction::new(self, &mut group, head);
        let outcome = transaction.all(server).await;
        let Transaction {
            state,
            results,
            marked,
            ..
        } = transaction;
        let refused = state.refused.clone();
        let finished = match outcome {
            Ok(more) => finish(self.context, state)
                .map(|ledger| (ledger, more))
                .map_err(Abort::Storage),
            Err(abort) => Err(abort),
        };
        let ((ledger, head, access), more) = match finished {
            Ok(finished) => finished,
            Err(abort) => {
                group.rollback().await;
                return Err(abort);
            }
        };
        let entries = ledger.entries.clone();
        if entries.is_empty() && ledger.devices.is_empty() && !marked {
            group.rollback().await;
        } else {
            let committed = self.commit(group, &ledger, &access).await;
            if !planted!(AckBeforeCommit) {
                committed?;
            }
        }
        Ok(Done {
            results,
            entries,
            access,
            head,
            refused,
            more,
        })
    }

    /// Writes what the group leaves behind, and commits.
    async fn commit<G: Group>(
        &self,
        mut group: G,
        ledger: &Ledger,
        access: &Access,
    ) -> Result<(), StorageError> {
        group.write_ledger(ledger).await?;
        let auditor = self.context.auditor().filter(|_| !access.is_empty());
        let noted = match (auditor, group.records()) {
            (Some(auditor), Some(mut records)) => {
                let schema = self.context.schema();
                match auditor.note(&mut *records, schema, access, self.now) {
                    Ok(()) => Some(auditor),
                    // Whatever is in the way there, it is no fault of a changeset.
                    Err(StorageError::Constraint { message, .. }) => {
                        return Err(StorageError::Failed(message.into()));
                    }
                    Err(error) => return Err(error),
                }
            }
            (_, None) | (None, Some(_)) => None,
        };
        group.commit().await?;
        if let Some(auditor) = noted {
            auditor.committed();
        }
        Ok(())
    }
}

/// An open transaction and what is planned in it.
pub(super) struct Transaction<'a, G> {
    attempt: &'a Attempt<'a>,
    group: &'a mut G,
    pub(super) state: State,
    results: Vec<(usize, PushResult)>,
    /// Whether submissions that are not their turn yet were asked what they need.
    speculated: bool,
    /// Whether other programs' marks were taken.
    marked: bool,
}

impl<'a, G: Group> Transaction<'a, G> {
    pub(super) fn new(attempt: &'a Attempt<'a>, group: &'a mut G, head: Head) -> Self {
        Self {
            attempt,
            group,
            state: State::new(head, attempt.refused.clone()),
            results: Vec::with_capacity(attempt.range.len()),
            speculated: false,
            marked: false,
        }
    }

    /// Plans and writes everything but the ledger; whether more of other programs' writes wait.
    async fn all(&mut self, server: DeviceId) -> Result<bool, Abort> {
        let more = self.external(server).await?;
        if !more {
            let range = self.attempt.range.clone();
            let wants = prefetch(
                self.attempt.context,
                &self.attempt.submissions[range.clone()],
            );
            self.load(&wants).await?;
            for position in range {
                self.submission(position).await?;
            }
            self.flush(None).await?;
        }
        let wants = finish_wants(&self.state);
        self.load(&wants).await?;
        Ok(more)
    }

    /// Other programs' writes become a changeset of their own (spec PL13).
    async fn external(&mut self, server: DeviceId) -> Result<bool, Abort> {
        let MarksTaken { marks, more } = self.group.take_marks(EXTERNAL_ROOM).await?;
        if marks.is_empty() {
            return Ok(false);
        }
        self.marked = true;
        if more && marks.iter().any(|mark| mark.before.is_some()) {
            // Rows whose marks are not taken yet are seen as they are now: the grants of chains
            // of rows would be counted wrong.
            return Err(Abort::Rebuild);
        }
        let author = external_author(server, &self.state, self.attempt.now);
        self.observe(&author, marks).await?;
        self.state
            .close_if_any(self.attempt.context, &author, self.attempt.now);
        Ok(more)
    }

    async fn submission(&mut self, position: usize) -> Result<(), Abort> {
        let submission = &self.attempt.submissions[position];
        let (verdict, lost) = match self.plan(position).await? {
            Planned::Known(version) => {
                self.state.answered(submission, false);
                (Verdict::Accepted(version), Vec::new())
            }
            Planned::Refused(Refused { refusal, counts }) => {
                if counts {
                    self.state.answered(submission, true);
                }
                (Verdict::Refused(*refusal), Vec::new())
            }
            Planned::Accepted(author, mut draft) => {
                let lost: Vec<LostEdit> = std::mem::take(&mut draft.lost);
                let reacts = self.attempt.alone || self.reacts(&draft);
                if reacts || self.frees(&draft) || self.replaces(&draft) {
                    self.flush(None).await?;
                }
                self.state.apply(&author, *draft, false);
                if reacts {
                    self.flush(Some((position, &author))).await?;
                }
                let version = self
                    .state
                    .close(self.attempt.context, &author, self.attempt.now);
                self.state.answered(submission, false);
                (Verdict::Accepted(version), lost)
            }
        };
        self.results.push((
            position,
            PushResult {
                id: submission.changeset.id,
                verdict,
                lost,
            },
        ));
        Ok(())
    }

    /// Plans in rounds until nothing is missing (spec PL2).
    async fn plan(&mut self, position: usize) -> Result<Planned, Abort> {
        let Attempt {
            context,
            submissions,
            verdicts,
            now,
            ..
        } = *self.attempt;
        let plan = |state: &State, position: usize| {
            let verdict = verdicts.get(&position);
            plan_changeset(context, state, &submissions[position], verdict, now)
        };
        loop {
            let mut wants = match plan(&self.state, position) {
                Ok(planned) => return Ok(planned),
                Err(Missing(wants)) => wants,
            };
            if !std::mem::replace(&mut self.speculated, true) {
                let later = position + 1..self.attempt.range.end;
                let missing = later.filter_map(|position| plan(&self.state, position).err());
                wants.extend(missing.flat_map(|Missing(wants)| wants));
            }
            self.load_missing(wants).await?;
        }
    }

    fn reacts(&self, draft: &Draft) -> bool {
        draft.rows.iter().filter(|row| row.image).any(|row| {
            let kind = match (&row.row, row.is_insert()) {
                (None, _) => WriteKind::Delete,
                (Some(_), true) => WriteKind::Insert,
                (Some(_), false) => WriteKind::Update,
            };
            (kind == WriteKind::Insert && !row.columns.is_empty())
                || self.group.reacts(row.table, kind)
        })
    }

    /// Whether the draft gives up unique values in a table that has rows to be written: one of
    /// those may want such a value, and must not find it free because it is written later.
    fn frees(&self, draft: &Draft) -> bool {
        let gives_up = |row: &&RowDraft| {
            let table = self.attempt.context.table(row.table);
            let mut uniques = table.into_iter().flat_map(|table| &table.table.uniques);
            // What is in these is for the database to say.
            let mut further = table
                .into_iter()
                .flat_map(|table| &table.table.further_indexes);
            let changes = |unique: &Vec<usize>| unique.iter().any(|p| row.columns.contains(p));
            row.image
                && !row.is_insert()
                && (uniques.any(|u| row.row.is_none() || changes(u))
                    || further.any(|index| index.unique))
        };
        let mut rows = draft.rows.iter().filter(gives_up);
        rows.any(|row| self.state.has_pending(row.table))
    }

    /// Whether the draft inserts a row whose deletion is not written yet: the two are not one
    /// update.
    fn replaces(&self, draft: &Draft) -> bool {
        let mut inserted = draft.rows.iter().filter(|row| row.is_insert());
        inserted.any(|row| self.state.is_to_be_deleted(row.table, &row.key))
    }

    /// Writes what is pending. `alone`: all of it is one submission's, and so is everything that
    /// the database does because of it (spec PL12).
    async fn flush(&mut self, alone: Option<(usize, &Author)>) -> Result<(), Abort> {
        let writes = self.state.pending();
        if !writes.is_empty() {
            match (self.group.write_rows(&writes).await, alone) {
                (Ok(()), _) => {}
                (Err(StorageError::Constraint { message, .. }), Some((position, _))) => {
                    return Err(Abort::Refuse(position, Refused::constraint(&message)));
                }
                (Err(error), _) => return Err(error.into()),
            }
        }
        let wrote = !writes.is_empty();
        drop(writes);
        self.state.wrote();
        let Some((position, author)) = alone else {
            let any = wrote && !self.group.take_marks(Room::ONE).await?.marks.is_empty();
            return if any {
                Err(Abort::Unattributed)
            } else {
                Ok(())
            };
        };
        let MarksTaken { marks, more } = self.group.take_marks(REACTIONS_ROOM).await?;
        if more {
            let Room { rows, bytes } = REACTIONS_ROOM;
            let message = format!(
                "it changes more than {rows} rows, or {bytes} bytes, by cascades or triggers"
            );
            let refusal = *Refused::whole(code::TOO_LARGE, message).refusal;
            return Err(Abort::Refuse(position, refusal));
        }
        if marks.is_empty() || planted!(CascadeUnseen) {
            Ok(())
        } else {
            self.observe(author, marks).await.map_err(Abort::from)
        }
    }

    /// Makes what has happened to the marked rows part of `author`'s open entry.
    pub(super) async fn observe(
        &mut self,
        author: &Author,
        marks: Vec<Mark>,
    ) -> Result<(), StorageError> {
        let rows = marks
            .iter()
            .map(|mark| Want::Row(mark.table, mark.key.clone()));
        let mut present = Loaded::default();
        self.group
            .load(&rows.collect::<Vec<_>>(), &mut present)
            .await?;
        let mut observed: Vec<Observed> = Vec::with_capacity(marks.len());
        for Mark { table, key, before } in marks {
            let now = present.row(table, &key).flatten().cloned();
            if !self.state.knows(table, &key) {
                let meta = now.as_ref().map(|now| now.meta.clone()).unwrap_or_default();
                self.state
                    .tell(table, key.clone(), LoadedRow { row: before, meta });
            }
            observed.push((table, key, now));
        }
        loop {
            let Attempt { context, now, .. } = *self.attempt;
            match observe(context, &self.state, &observed, author, now) {
                Ok(draft) => {
                    self.state.apply(author, draft, true);
                    return Ok(());
                }
                Err(Missing(wants)) => self.load_missing(wants).await?,
            }
        }
    }

    async fn load(&mut self, wants: &[Want]) -> Result<(), StorageError> {
        if !wants.is_empty() {
            self.group.load(wants, &mut self.state.loaded).await?;
        }
        Ok(())
    }

    async fn load_missing(&mut self, wants: Vec<Want>) -> Result<(), StorageError> {
        let wants = without_doubles(wants);
        if wants.iter().all(|want| self.state.loaded.answers(want)) {
            let what = format!("the answer to {:?} is not usable", wants.first());
            return Err(StorageError::Corrupt(what));
        }
        self.load(&wants).await
    }
}

/// Another program's changeset: an id that no other place of any log has.
pub(super) fn external_author(server: DeviceId, state: &State, now: Timestamp) -> Author {
    let mut hash = blake3::Hasher::new();
    hash.update(b"syncline external changeset")
        .update(&server.0);
    hash.update(&state.head.version.0.to_le_bytes())
        .update(&state.head.tag.0);
    hash.update(&now.0.to_le_bytes());
    let id = ChangesetId::from_slice(&hash.finalize().as_bytes()[..16]);
    Author {
        changeset: id.expect("a changeset id has 16 bytes"),
        user: None,
        device: EXTERNAL,
        number: 0,
        hlc: Hlc::at(now),
        piece: None,
    }
}
