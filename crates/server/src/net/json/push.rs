//! `POST /v1/push`: changes as JSON, committed whole or refused whole (spec WI17).

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as JsonValue};
use syncline_core::{
    Change, Changeset, ChangesetId, ColumnEdit, DeviceId, Edit, Hlc, Lease, Op, Row, RowKey, Table,
    UserId, Value, Version,
    merge::diff_row,
    rules::Identity,
    wire::{CHANGES_MAX, Hello, PROTOCOL, PushResult, Verdict, code},
};
use syncline_store::{HTTP_PLATFORM, Reader, RowMeta, StorageError, Submission};
use tokio::sync::oneshot;

use super::{
    super::{
        Backend, Shared,
        body::Body,
        caller::Caller,
        clock,
        committer::{Request, Waiting},
        error::ApiError,
        held::Held,
        shared::{stopping, too_much},
    },
    value::{columns_from_json, key_from_json, key_of, key_to_json},
};
use crate::{SessionContext, session::weight, sight::Sight};

const KEY_HEADER: &str = "idempotency-key";
/// The lease of every HTTP device: there is no file that could be copied.
const LEASE: Lease = Lease([0x48; 16]);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PushRequest {
    changes: Vec<ChangeRequest>,
    #[serde(default)]
    require_unchanged: bool,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
enum ChangeRequest {
    Insert {
        table: String,
        row: Map<String, JsonValue>,
    },
    Update {
        table: String,
        key: Map<String, JsonValue>,
        #[serde(default)]
        row: Map<String, JsonValue>,
        /// Numbers to be added to counters.
        #[serde(default)]
        add: Map<String, JsonValue>,
        /// The version that was seen; the row as it is now without it.
        base: Option<u64>,
    },
    Delete {
        table: String,
        key: Map<String, JsonValue>,
        base: Option<u64>,
    },
}

#[derive(Debug, Serialize)]
pub(crate) struct PushResponse {
    id: String,
    version: u64,
    /// Edits that lost against somebody else's.
    lost: Vec<Lost>,
}

#[derive(Debug, Serialize)]
struct Lost {
    table: String,
    key: Map<String, JsonValue>,
    /// The whole row without it.
    column: Option<String>,
    reason: String,
}

pub(crate) async fn push<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    Caller(proof): Caller,
    headers: HeaderMap,
    Body(request): Body<PushRequest>,
) -> Result<Json<PushResponse>, ApiError> {
    let identity = proof.identity;
    let id = changeset_id(&headers)?;
    let context = shared.context();
    let user = identity
        .user
        .clone()
        .unwrap_or_else(|| UserId(String::new()));
    let device = device_of(&context, &user);
    let by_version = request.require_unchanged;
    let drafts = drafts(&context, &request)?;
    drop(request);
    // Counted for as long as it waits: for its turn, the database and the commit.
    let mut held = Held::new(&shared.held);
    let drafted = drafts.iter().map(Draft::bytes).sum::<usize>();
    if held.is_too_much(drafted, 0) {
        return Err(too_much());
    }
    // Numbers are given one after the other.
    let _turn = shared.push_turn(&user).await;
    let number = open(&shared, device, user).await?;
    let runtime = tokio::runtime::Handle::current();
    let reading = Arc::clone(&context);
    let reader = Arc::clone(&identity);
    let Sealed {
        changes,
        positions,
        sent,
    } = shared
        .readers
        .run(move |storage| runtime.block_on(seal(storage, &reading, &reader, drafts, by_version)))
        .await?;
    let changeset = Changeset {
        id,
        number,
        depends: Vec::new(),
        hlc: Hlc::at(clock::now()),
        changes,
        require_unchanged: by_version,
        may_be_applied_already: false,
        after: None,
        piece: None,
    };
    let submission = Submission {
        identity,
        device,
        lease: None,
        changeset,
        sent,
        refused: Arc::default(),
    };
    let (answer, answered) = oneshot::channel();
    if held.is_too_much(weight(&submission.changeset), 0) {
        return Err(too_much());
    }
    let commit = Request::Commit(Box::new(submission), Waiting::new(answer, held));
    shared.request(commit).await?;
    let result = answered.await.map_err(|_| stopping())?;
    respond(&context, result, &positions)
}

/// The changeset's id: whatever is sent again with it happens once.
fn changeset_id(headers: &HeaderMap) -> Result<ChangesetId, ApiError> {
    let text = headers
        .get(KEY_HEADER)
        .and_then(|value| value.to_str().ok());
    let id = text.and_then(|text| {
        let hex: String = text.chars().filter(|c| *c != '-').collect();
        let number = u128::from_str_radix(&hex, 16)
            .ok()
            .filter(|_| hex.len() == 32);
        number.filter(|number| *number != 0)
    });
    id.map(|id| ChangesetId(id.to_be_bytes())).ok_or_else(|| {
        let sentence = "an `Idempotency-Key` header is needed: a random uuid, and the same one when \
                        the same changes are sent again";
        ApiError::new(StatusCode::BAD_REQUEST, code::MALFORMED, sentence)
    })
}

/// All of a user's pushes over HTTP are one device's.
pub(crate) fn device_of(context: &SessionContext, user: &UserId) -> DeviceId {
    let mut hash = blake3::Hasher::new_keyed(&context.secret);
    hash.update(b"syncline http device")
        .update(user.0.as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    DeviceId(id)
}

/// The next number of the user's HTTP device, which is registered if it is new.
async fn open<B: Backend>(
    shared: &Shared<B>,
    device: DeviceId,
    user: UserId,
) -> Result<u64, ApiError> {
    let hello = Hello {
        protocol: PROTOCOL,
        device,
        // As if the answer that gave the lease had been lost each time.
        lease: Lease::default(),
        next_lease: LEASE,
        device_name: "HTTP".into(),
        platform: HTTP_PLATFORM.into(),
        server: DeviceId::default(),
        schema_hash: 0,
        cursors: Vec::new(),
        tables: None,
        buckets_count: 0,
        buckets_sum: 0,
        loading: Vec::new(),
        credit: 0,
        now: clock::now(),
        renamed: false,
        register_anew: false,
        subscriptions: None,
        subscribed: 0,
        loads_again: false,
    };
    let (answer, answered) = oneshot::channel();
    shared
        .request(Request::Open(Box::new(hello), user, None, answer))
        .await?;
    let opened = answered.await.map_err(|_| stopping())??;
    Ok(opened.next_number)
}

/// A change as it was asked for: names are numbers, values canonical.
struct Draft {
    table: Arc<Table>,
    key: RowKey,
    base: Option<Version>,
    what: What,
}

enum What {
    Insert(Vec<(usize, Value)>),
    Update {
        set: Vec<(usize, Value)>,
        add: Vec<(usize, Value)>,
    },
    Delete,
}

fn drafts(context: &SessionContext, request: &PushRequest) -> Result<Vec<Draft>, ApiError> {
    if request.changes.len() > CHANGES_MAX {
        let sentence = format!("one push has at most {CHANGES_MAX} changes: send it in parts");
        return Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            code::TOO_LARGE,
            sentence,
        ));
    }
    // Of each table one, however many changes name it.
    let mut tables = BTreeMap::new();
    let mut named = |name: &str| match tables.get(name) {
        Some(table) => Ok(Arc::clone(table)),
        None => {
            let table = context.plan.schema().table(name);
            let table =
                table.ok_or_else(|| format!("this server does not sync a table `{name}`"))?;
            let table = Arc::new(table.clone());
            tables.insert(name.to_owned(), Arc::clone(&table));
            Ok(table)
        }
    };
    let draft = |(position, change): (usize, &ChangeRequest)| {
        draft(&mut named, change).map_err(|sentence| {
            let mut error = ApiError::new(StatusCode::BAD_REQUEST, code::SCHEMA, sentence);
            error.refusal.change = u32::try_from(position).ok();
            error
        })
    };
    request.changes.iter().enumerate().map(draft).collect()
}

fn draft(
    named: &mut impl FnMut(&str) -> Result<Arc<Table>, String>,
    change: &ChangeRequest,
) -> Result<Draft, String> {
    match change {
        ChangeRequest::Insert { table, row } => {
            let table = named(table)?;
            let values = columns_from_json(&table, row)?;
            Ok(Draft {
                key: key_of(&table, &values)?,
                table,
                base: Some(Version::ZERO),
                what: What::Insert(values),
            })
        }
        ChangeRequest::Update {
            table,
            key,
            row,
            add,
            base,
        } => {
            let table = named(table)?;
            let set = columns_from_json(&table, row)?;
            let add = columns_from_json(&table, add)?;
            if let Some((position, _)) = add.iter().find(|(at, _)| set.iter().any(|(s, _)| s == at))
            {
                let name = &table.columns[*position].name;
                return Err(format!("column {name} is both set and added to"));
            }
            Ok(Draft {
                key: key_from_json(&table, key)?,
                table,
                base: version(*base)?,
                what: What::Update { set, add },
            })
        }
        ChangeRequest::Delete { table, key, base } => {
            let table = named(table)?;
            Ok(Draft {
                key: key_from_json(&table, key)?,
                table,
                base: version(*base)?,
                what: What::Delete,
            })
        }
    }
}

fn version(base: Option<u64>) -> Result<Option<Version>, String> {
    match base {
        Some(base) if base >= Version::LIMIT => Err("`base` is a version of a pull".into()),
        base => Ok(base.map(Version)),
    }
}

type Seen = Option<(Row, RowMeta)>;

/// What drafts come to.
struct Sealed {
    changes: Vec<Change>,
    /// Of which drafts.
    positions: Vec<usize>,
    /// The version that rows were read at.
    sent: Version,
}

/// Computes the changes from the rows as far as the author may see them. The rows may be far larger
/// than what is done to them: one of them is in memory at a time.
async fn seal<R: Reader>(
    reader: &mut R,
    context: &SessionContext,
    identity: &Identity,
    drafts: Vec<Draft>,
    by_version: bool,
) -> Result<Sealed, StorageError> {
    let granted = context.plan.rules().reader(identity);
    let (head, grants) = reader.grants(&granted.grantees).await?;
    let sight = Sight::new(granted, &grants, head.version);
    let mut sealed = Sealed {
        changes: Vec::new(),
        positions: Vec::new(),
        sent: head.version,
    };
    for (position, draft) in drafts.into_iter().enumerate() {
        let seen = as_seen(reader, &sight, &draft).await?;
        if let Some((_, meta)) = &seen {
            sealed.sent = sealed.sent.max(meta.version);
        }
        if let Some(change) = draft.seal(seen, by_version) {
            sealed.positions.push(position);
            sealed.changes.push(change);
        }
    }
    Ok(sealed)
}

/// The row that a draft changes, if the author may see it.
async fn as_seen<R: Reader>(
    reader: &mut R,
    sight: &Sight,
    draft: &Draft,
) -> Result<Seen, StorageError> {
    if matches!(draft.what, What::Insert(_)) {
        return Ok(None);
    }
    let key = std::slice::from_ref(&draft.key);
    let read = reader.rows(draft.table.number, key, usize::MAX).await?;
    let row = read.rows.into_iter().next();
    let row = row.map(|(_, row, meta)| (row, meta));
    Ok(row.filter(|(_, meta)| meta.buckets.iter().any(|bucket| sight.sees(bucket))))
}

impl Draft {
    /// What it takes in memory.
    fn bytes(&self) -> usize {
        let (set, add) = match &self.what {
            What::Insert(set) => (&set[..], &[][..]),
            What::Update { set, add } => (&set[..], &add[..]),
            What::Delete => (&[][..], &[][..]),
        };
        let values = set.iter().chain(add);
        let values = values.map(|(_, value)| match value {
            Value::Text(text) => text.len(),
            Value::Blob(bytes) => bytes.len(),
            Value::Null | Value::Integer(_) | Value::Real(_) => 0,
        });
        let each = (set.len() + add.len()) * size_of::<(usize, Value)>();
        size_of::<Self>() + self.key.as_bytes().len() + each + values.sum::<usize>()
    }

    /// The change, computed as a replica does at sealing; `None` if it would change nothing, unless
    /// it is still to be judged `by_version` (PL7).
    fn seal(self, seen: Seen, by_version: bool) -> Option<Change> {
        let table = &self.table;
        let now = seen
            .as_ref()
            .map_or(Version::ZERO, |(_, meta)| meta.version);
        let edit = |(position, value): (usize, Value)| ColumnEdit {
            column: table.columns[position].number,
            edit: Edit::Set(value),
        };
        let op = match self.what {
            What::Insert(values) => Op::Insert(values.into_iter().map(edit).collect()),
            What::Delete => Op::Delete,
            What::Update { set, add } => {
                let mut edits = match seen {
                    Some((before, _)) => {
                        let mut after = before.clone();
                        for (position, value) in set {
                            after.0[position] = value;
                        }
                        match diff_row(table, Some(&before), Some(&after)) {
                            Some(Op::Update(edits)) => edits,
                            Some(Op::Insert(_) | Op::Delete) | None => Vec::new(),
                        }
                    }
                    // Nothing to compare with: the pipeline says what it says of such rows.
                    None => set.into_iter().map(edit).collect(),
                };
                edits.extend(add.into_iter().map(|(position, value)| ColumnEdit {
                    column: table.columns[position].number,
                    edit: Edit::Add(value),
                }));
                if edits.is_empty() && !by_version {
                    return None;
                }
                Op::Update(edits)
            }
        };
        Some(Change {
            table: table.number,
            key: self.key,
            base: self.base.unwrap_or(now),
            op,
        })
    }
}

fn respond(
    context: &SessionContext,
    result: PushResult,
    positions: &[usize],
) -> Result<Json<PushResponse>, ApiError> {
    let version = match result.verdict {
        Verdict::Accepted(version) => version,
        Verdict::Refused(mut refusal) => {
            // As the request counts, which may name rows that do not change.
            let sealed = refusal.change.and_then(|at| usize::try_from(at).ok());
            let asked = sealed.and_then(|at| positions.get(at));
            refusal.change = asked.and_then(|at| u32::try_from(*at).ok());
            return Err(refusal.into());
        }
    };
    let schema = context.plan.schema();
    let lost = result.lost.into_iter().filter_map(|lost| {
        let table = schema.by_number(lost.table)?;
        let column = lost.column.map(syncline_core::ColumnNumber);
        let position = column.and_then(|number| table.position_of(number));
        Some(Lost {
            table: table.name.clone(),
            key: key_to_json(table, &RowKey::from_bytes(&lost.key).ok()?),
            column: position.map(|position| table.columns[position].name.clone()),
            reason: lost.reason,
        })
    });
    Ok(Json(PushResponse {
        id: result
            .id
            .0
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        version: version.0,
        lost: lost.collect(),
    }))
}
