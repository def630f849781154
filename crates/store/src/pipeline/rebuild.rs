//! New rules over old rows: buckets, members, digests and grants computed anew.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use syncline_core::{
    BucketId, ChangesetId, Hlc, RowKey, TableNumber, Timestamp, Value, Version,
    digest::{Digest, next_tag},
    rules::{Facts, Grant, RuleColumn, Stored},
};

use super::attempt::{Attempt, EXTERNAL_ROOM, Transaction, external_author};
use crate::{
    EXTERNAL,
    log::LogEntry,
    plan::{Context, RefusedNumbers, State, finish},
    room::Room,
    storage::{Group, Head, Ledger, Storage, StorageError},
    want::{LoadedRow, Missing, Want, without_doubles},
};

/// Rows that are recomputed at once.
const BATCH: Room = Room {
    rows: 1_000,
    bytes: 16 * 1024 * 1024,
};

/// What [`rebuild_rules`] did.
#[derive(Debug, Clone)]
pub struct Rebuilt {
    /// Live rows that were looked at.
    pub rows: u64,
    /// The log's end; cursors below it reload everything.
    pub head: Head,
}

/// Computes buckets, members, digests and grants of all live rows anew and records the rules'
/// fingerprint. To be called at start when [`crate::SchemaReport::rules`] is not the fingerprint of
/// `context`'s rules, before anything is served.
///
/// One transaction, so a crash leaves everything as it was; memory does not grow with the number
/// of rows. Rows that wait to be adopted are adopted first.
///
/// # Errors
/// As every write; then nothing changed.
pub async fn rebuild_rules<S: Storage>(
    storage: &mut S,
    context: &Context,
    now: Timestamp,
) -> Result<Rebuilt, StorageError> {
    let server = storage.server_id();
    let mut group = storage.begin().await?;
    group.clear_rules().await?;
    let mut head = group.head();
    while let Some(adopted) = adopt(&mut group, context, head, server, now).await? {
        head = adopted;
    }
    let since = head.version.next(now);
    let mut rows = 0;
    for table in &context.schema().tables {
        let mut after = None;
        loop {
            let batch = group.scan(table.number, after.as_ref(), BATCH).await?;
            let Some((last, _)) = batch.last() else { break };
            after = Some(last.clone());
            rows += batch.len() as u64;
            let ledger = recompute(&mut group, context, head, table.number, batch, since).await?;
            group.write_ledger(&ledger).await?;
        }
    }
    let mut ledger = Ledger {
        rules: Some(context.rules().fingerprint()),
        ..Ledger::default()
    };
    if head.version > Version::ZERO {
        // The log's end moves, so that every cursor there is lies below the new rules.
        let entry = empty_entry(context, head, since, now);
        (head.version, head.tag) = (entry.version, entry.tag);
        ledger.entries.push(Arc::new(entry));
    }
    head.rules_since = head.version;
    group.write_ledger(&ledger).await?;
    group.commit().await?;
    Ok(Rebuilt { rows, head })
}

/// Takes in marked rows, without counting grants and digests: all are counted afterwards.
async fn adopt<G: Group>(
    group: &mut G,
    context: &Context,
    head: Head,
    server: syncline_core::DeviceId,
    now: Timestamp,
) -> Result<Option<Head>, StorageError> {
    let marks = group.take_marks(EXTERNAL_ROOM).await?.marks;
    if marks.is_empty() {
        return Ok(None);
    }
    let (verdicts, refused) = (BTreeMap::new(), RefusedNumbers::new());
    let attempt = Attempt {
        context,
        submissions: &[],
        range: 0..0,
        verdicts: &verdicts,
        refused: &refused,
        alone: false,
        now,
    };
    let mut transaction = Transaction::new(&attempt, group, head);
    let author = external_author(server, &transaction.state, now);
    transaction.observe(&author, marks).await?;
    let mut state = transaction.state;
    if !state.close_if_any(context, &author, now) {
        return Ok(Some(head));
    }
    for entry in &mut state.entries {
        entry.grants.clear();
        entry.digests.clear();
    }
    let (ledger, head, _) = finish(context, state)?;
    group.write_ledger(&ledger).await?;
    Ok(Some(head))
}

/// The ledger of one batch, which lies in key order after all batches before.
async fn recompute<G: Group>(
    group: &mut G,
    context: &Context,
    head: Head,
    table: TableNumber,
    batch: Vec<(RowKey, LoadedRow)>,
    since: Version,
) -> Result<Ledger, StorageError> {
    let mut state = State::new(head, RefusedNumbers::new());
    for (key, row) in &batch {
        state.loaded.put_row(table, key.clone(), Some(row.clone()));
    }
    let derived = loop {
        match derive(context, &state, table, &batch) {
            Ok(derived) => break derived,
            Err(Missing(wants)) => {
                group
                    .load(&without_doubles(wants), &mut state.loaded)
                    .await?;
            }
        }
    };
    let grants = derived.grants.keys().copied().map(Want::GrantCount);
    let digests = derived
        .digests
        .keys()
        .map(|&bucket| Want::Digest(bucket, table));
    group
        .load(
            &grants.chain(digests).collect::<Vec<_>>(),
            &mut state.loaded,
        )
        .await?;

    let mut ledger = Ledger::default();
    for (bucket, more) in derived.digests {
        let mut digest = state
            .loaded
            .digests
            .get(&(bucket, table))
            .copied()
            .unwrap_or_default();
        digest.count = digest.count.wrapping_add(more.count);
        digest.sum = digest.sum.wrapping_add(more.sum);
        ledger.digests.push((bucket, table, digest));
    }
    for (grant, more) in derived.grants {
        let before = state.loaded.grants.get(&grant).copied().unwrap_or(0);
        ledger
            .grants
            .push((grant, before + more, (before == 0).then_some(since)));
    }
    for ((key, LoadedRow { mut meta, .. }), buckets) in batch.into_iter().zip(derived.buckets) {
        if meta.buckets != buckets {
            let before = std::mem::replace(&mut meta.buckets, buckets);
            ledger.metas.push((table, key, meta, before));
        }
    }
    Ok(ledger)
}

/// What rows are worth under the rules.
#[derive(Debug, Default)]
struct Derived {
    /// One for each row.
    buckets: Vec<Vec<BucketId>>,
    grants: BTreeMap<Grant, u64>,
    digests: BTreeMap<BucketId, Digest>,
}

fn derive(
    context: &Context,
    state: &State,
    table: TableNumber,
    batch: &[(RowKey, LoadedRow)],
) -> Result<Derived, Missing> {
    let mut derived = Derived::default();
    let mut wants = Vec::new();
    for (key, row) in batch {
        let Some(stored) = state.stored(table, key)? else {
            derived.buckets.push(Vec::new());
            continue;
        };
        match context.rules().buckets(&stored, state) {
            Ok(buckets) => {
                for bucket in &buckets {
                    let digest = derived.digests.entry(*bucket).or_default();
                    digest.add(table, key, row.meta.version);
                }
                derived.buckets.push(buckets);
            }
            Err(missing) => wants.extend(missing.0),
        }
        match context.rules().grants(
            &stored,
            &Earlier {
                state,
                last: (table, key),
            },
        ) {
            Ok(grants) => {
                for grant in grants {
                    match derived.grants.entry(grant) {
                        Entry::Vacant(place) => drop(place.insert(1)),
                        Entry::Occupied(mut place) => *place.get_mut() += 1,
                    }
                }
            }
            Err(missing) => wants.extend(missing.0),
        }
    }
    if wants.is_empty() {
        Ok(derived)
    } else {
        Err(Missing(wants))
    }
}

/// The rows up to the one being looked at. A path through several rows is so counted once, at
/// its last row, as it is when rows are inserted one after the other.
struct Earlier<'a> {
    state: &'a State,
    last: (TableNumber, &'a RowKey),
}

impl Facts for Earlier<'_> {
    type Missing = Missing;

    fn stored(&self, table: TableNumber, key: &RowKey) -> Result<Option<Stored>, Missing> {
        if (table, key) > self.last {
            Ok(None)
        } else {
            self.state.stored(table, key)
        }
    }

    fn matching(
        &self,
        table: TableNumber,
        column: RuleColumn,
        value: &Value,
    ) -> Result<Vec<Stored>, Missing> {
        if table > self.last.0 {
            return Ok(Vec::new());
        }
        let mut found = Facts::matching(self.state, table, column, value)?;
        found.retain(|stored| (table, &stored.key) <= self.last);
        Ok(found)
    }

    fn matching_both(
        &self,
        table: TableNumber,
        first: (RuleColumn, &Value),
        second: (RuleColumn, &Value),
    ) -> Result<Vec<Stored>, Missing> {
        if table > self.last.0 {
            return Ok(Vec::new());
        }
        let mut found = self.state.matching_both(table, first, second)?;
        found.retain(|stored| (table, &stored.key) <= self.last);
        Ok(found)
    }
}

fn empty_entry(context: &Context, head: Head, version: Version, now: Timestamp) -> LogEntry {
    let mut hash = blake3::Hasher::new();
    hash.update(b"syncline rules")
        .update(&context.rules().fingerprint());
    hash.update(&head.version.0.to_le_bytes())
        .update(&head.tag.0)
        .update(&now.0.to_le_bytes());
    let id = ChangesetId::from_slice(&hash.finalize().as_bytes()[..16]);
    let changeset = id.expect("a changeset id has 16 bytes");
    LogEntry {
        version,
        tag: next_tag(head.tag, changeset),
        changeset,
        user: None,
        device: EXTERNAL,
        number: 0,
        hlc: Hlc::at(now),
        grants: Vec::new(),
        records: Vec::new(),
        digests: Vec::new(),
    }
}
