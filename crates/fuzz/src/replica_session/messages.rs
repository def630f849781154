//! What a hostile server says: well formed, and wrong in everything that can be wrong.

use arbitrary::{Arbitrary as _, Unstructured};
use syncline_core::{
    BucketId, ChangesetId, Cursor, DeviceId, Hlc, Lease, RowKey, TableNumber, Tag, Timestamp,
    Value, Version,
    digest::Digest,
    wire::{
        BucketDigest, Changes, Checkpoint, Grants, LiveBucket, LostEdit, PROTOCOL, Page, PagePart,
        Ping, PushResult, Record, Refusal, ReloadReason, Resume, RowBody, RowState, SchemaInfo,
        ServerMessage, Verdict, Welcome, code,
    },
};

use super::Bench;
use crate::values::{few_bytes, value};

/// What an honest server says first; `flags` choose between continuing and loading.
pub(super) fn sound_welcome(bench: &Bench, flags: u8) -> ServerMessage {
    let resume = match flags % 4 {
        0 => Resume::Continue,
        1 => Resume::Reload {
            reason: ReloadReason::Rules,
            common: None,
        },
        _ => Resume::Reload {
            reason: ReloadReason::New,
            common: None,
        },
    };
    ServerMessage::Welcome(Box::new(Welcome {
        protocol: PROTOCOL,
        server: DeviceId([9; 16]),
        device: bench.device,
        lease: bench.next_lease,
        user: "ada".into(),
        now: bench.now,
        schema: Some(SchemaInfo::from_schema(&bench.schema)),
        resume,
        next_number: 1 + u64::from(flags >> 6),
        pushes_max: 16,
        horizon: Version::ZERO,
        device_name: None,
        subscriptions_max: Some(1_000),
        quota: None,
        head: (flags & 32 == 0).then_some(Version(bench.version)),
    }))
}

fn bucket(u: &mut Unstructured<'_>) -> arbitrary::Result<BucketId> {
    Ok(BucketId([u8::arbitrary(u)? % 4; 16]))
}

fn version(bench: &mut Bench, u: &mut Unstructured<'_>) -> arbitrary::Result<Version> {
    Ok(match u8::arbitrary(u)? {
        0..200 => {
            bench.version += 1;
            Version(bench.version)
        }
        200..240 => Version(
            bench
                .version
                .saturating_sub(u64::from(u8::arbitrary(u)? % 8)),
        ),
        240..248 => Version::ZERO,
        _ => Version(u64::arbitrary(u)?),
    })
}

fn cursor(bench: &mut Bench, u: &mut Unstructured<'_>) -> arbitrary::Result<Cursor> {
    Ok(Cursor {
        version: version(bench, u)?,
        tag: Tag([u8::arbitrary(u)?; 8]),
        mac: Tag([1; 8]),
    })
}

fn table(u: &mut Unstructured<'_>) -> arbitrary::Result<TableNumber> {
    let byte = u8::arbitrary(u)?;
    Ok(TableNumber(match byte {
        0..220 => 20 + u32::from(byte % 3),
        220..240 => 1,
        _ => u32::from(byte % 32),
    }))
}

fn row_key(u: &mut Unstructured<'_>) -> arbitrary::Result<RowKey> {
    const KEYS: [&str; 4] = ["a", "i", "j", "k"];
    let value = match u8::arbitrary(u)? % 4 {
        0 => Value::Integer(i64::from(u8::arbitrary(u)? % 4)),
        1 => value(u)?,
        _ => Value::Text((*u.choose(&KEYS)?).to_owned()),
    };
    RowKey::encode([&value]).map_err(|_| arbitrary::Error::IncorrectFormat)
}

fn body(bench: &mut Bench, u: &mut Unstructured<'_>, whole: bool) -> arbitrary::Result<RowBody> {
    let table = table(u)?;
    let key = row_key(u)?;
    let columns: Vec<_> = match bench.schema.by_number(table) {
        Some(table) => table.columns.iter().map(|column| column.number).collect(),
        None => Vec::new(),
    };
    let mut values = Vec::new();
    let first = key
        .decode()
        .ok()
        .and_then(|values| values.into_iter().next());
    let kind = if whole { 0 } else { u8::arbitrary(u)? % 5 };
    for (position, column) in columns.into_iter().enumerate() {
        if position == 0 {
            if kind == 0 {
                values.push((column, first.clone().unwrap_or(Value::Null)));
            }
            continue;
        }
        match u8::arbitrary(u)? {
            0..160 => values.push((column, Value::Integer(i64::from(u8::arbitrary(u)? % 4)))),
            160..220 => values.push((column, Value::Text("a".into()))),
            220..240 => values.push((column, value(u)?)),
            _ => {}
        }
    }
    let version = version(bench, u)?;
    Ok(RowBody {
        table,
        key,
        version,
        state: match kind {
            0 => RowState::Whole {
                columns: values,
                owner: "ada".into(),
                created: Version(version.0.min(bench.version)),
            },
            1 | 2 => RowState::Columns(values),
            3 => RowState::Deleted,
            4 => RowState::Released,
            _ => RowState::Removed,
        },
        author: "ben".into(),
        changeset: match u8::arbitrary(u)? {
            0..40 => bench.pushed.first().copied().unwrap_or_default(),
            byte => ChangesetId([byte; 16]),
        },
        hlc: Hlc::at(bench.now),
    })
}

pub(super) fn message(
    bench: &mut Bench,
    u: &mut Unstructured<'_>,
) -> arbitrary::Result<ServerMessage> {
    Ok(match u8::arbitrary(u)? % 12 {
        0 => {
            let ServerMessage::Welcome(mut welcome) = sound_welcome(bench, u8::arbitrary(u)?)
            else {
                return Err(arbitrary::Error::IncorrectFormat);
            };
            welcome.device = DeviceId([u8::arbitrary(u)?; 16]);
            welcome.lease = Lease([u8::arbitrary(u)?; 16]);
            welcome.next_number = u64::arbitrary(u)?;
            welcome.now = Timestamp(u64::arbitrary(u)?);
            welcome.horizon = version(bench, u)?;
            welcome.pushes_max = u32::from(u8::arbitrary(u)?);
            if bool::arbitrary(u)? {
                let common = Some(cursor(bench, u)?);
                let reason = ReloadReason::Diverged;
                welcome.resume = Resume::Reload { reason, common };
            }
            if let Some(schema) = &mut welcome.schema {
                match u8::arbitrary(u)? {
                    0..128 => welcome.schema = None,
                    128..160 => schema.tables.reverse(),
                    160..200 => drop(schema.tables.pop()),
                    byte => {
                        let at = usize::from(byte) % schema.tables.len();
                        schema.tables[at].name.push('x');
                    }
                }
            }
            ServerMessage::Welcome(welcome)
        }
        1 => ServerMessage::Grants(Grants {
            full: bool::arbitrary(u)?,
            add: vec![bucket(u)?, bucket(u)?],
            drop: if bool::arbitrary(u)? {
                vec![bucket(u)?]
            } else {
                Vec::new()
            },
            reload: if bool::arbitrary(u)? {
                vec![bucket(u)?]
            } else {
                Vec::new()
            },
            released: if bool::arbitrary(u)? {
                vec![bucket(u)?]
            } else {
                Vec::new()
            },
            released_tables: Vec::new(),
        }),
        2 | 3 => {
            let mut parts = Vec::new();
            for _ in 0..u8::arbitrary(u)? % 3 {
                parts.push(part(bench, u)?);
            }
            ServerMessage::Page(Page {
                version: version(bench, u)?,
                parts,
                remaining: Option::<u64>::arbitrary(u)?,
            })
        }
        4..=6 => {
            let mut records = Vec::new();
            for _ in 0..u8::arbitrary(u)? % 5 {
                records.push(Record {
                    body: body(bench, u, false)?.encode(),
                    buckets: vec![u32::from(u8::arbitrary(u)? % 4)],
                });
            }
            ServerMessage::Changes(Changes {
                buckets: vec![bucket(u)?, bucket(u)?, bucket(u)?],
                records,
            })
        }
        7 | 8 => ServerMessage::Checkpoint(Checkpoint {
            cursor: cursor(bench, u)?,
            digests: if u8::arbitrary(u)? < 200 {
                Vec::new()
            } else {
                let Digest { count, sum } = Digest::default();
                vec![BucketDigest {
                    bucket: bucket(u)?,
                    table: table(u)?,
                    count,
                    sum,
                }]
            },
            live: if bool::arbitrary(u)? {
                vec![LiveBucket {
                    bucket: bucket(u)?,
                    table: table(u)?,
                }]
            } else {
                Vec::new()
            },
            caught_up: bool::arbitrary(u)?,
            now: if u8::arbitrary(u)? < 240 {
                bench.now
            } else {
                Timestamp(u64::arbitrary(u)?)
            },
            loading: u64::from(u8::arbitrary(u)? % 2),
            subscribed: 0,
        }),
        9 => {
            let id = match u8::arbitrary(u)? {
                0..220 => bench.pushed.first().copied().unwrap_or_default(),
                byte => ChangesetId([byte; 16]),
            };
            let verdict = if bool::arbitrary(u)? {
                Verdict::Accepted(version(bench, u)?)
            } else {
                Verdict::Refused(refusal(u)?)
            };
            let lost = if u8::arbitrary(u)? < 200 {
                Vec::new()
            } else {
                vec![LostEdit {
                    table: table(u)?,
                    key: few_bytes(u, 9)?,
                    column: Option::<u32>::arbitrary(u)?,
                    reason: "older".into(),
                }]
            };
            ServerMessage::PushResult(PushResult { id, verdict, lost })
        }
        10 => ServerMessage::Refusal(refusal(u)?),
        _ => match u8::arbitrary(u)? % 2 {
            0 => ServerMessage::Pong(Ping {
                sent: Timestamp(u64::arbitrary(u)?),
                now: Timestamp(u64::arbitrary(u)?),
            }),
            _ => ServerMessage::Unknown(u32::arbitrary(u)?),
        },
    })
}

fn part(bench: &mut Bench, u: &mut Unstructured<'_>) -> arbitrary::Result<PagePart> {
    let mut rows = Vec::new();
    let mut count = 0;
    for _ in 0..u8::arbitrary(u)? % 4 {
        body(bench, u, true)?.encode_into(&mut rows);
        count += 1;
    }
    let end = |u: &mut Unstructured<'_>| {
        Ok::<_, arbitrary::Error>(match u8::arbitrary(u)? {
            0..180 => None,
            180..240 => Some(row_key(u)?.as_bytes().to_vec()),
            _ => Some(few_bytes(u, 9)?),
        })
    };
    Ok(PagePart {
        bucket: bucket(u)?,
        table: table(u)?,
        after: end(u)?,
        to: end(u)?,
        rows,
        count: if u8::arbitrary(u)? < 230 {
            count
        } else {
            u32::arbitrary(u)?
        },
    })
}

fn refusal(u: &mut Unstructured<'_>) -> arbitrary::Result<Refusal> {
    const CODES: [&str; 20] = [
        code::PROTOCOL,
        code::MALFORMED,
        code::UNAUTHORIZED,
        code::WRONG_SERVER,
        code::WRONG_USER,
        code::DEREGISTERED,
        code::GAP,
        code::DEPENDS_ON,
        code::FORBIDDEN,
        code::ID_TAKEN,
        code::ROW_GONE,
        code::CONSTRAINT,
        code::SCHEMA,
        code::BASE,
        code::CHANGED,
        code::TOO_LARGE,
        code::MAYBE_APPLIED,
        code::ID_REUSED,
        code::UNAVAILABLE,
        "never heard of",
    ];
    Ok(Refusal {
        code: (*u.choose(&CODES)?).to_owned(),
        message: "no".into(),
        retry: bool::arbitrary(u)?,
        retry_after_ms: Option::<u64>::arbitrary(u)?,
        change: Option::<u32>::arbitrary(u)?,
        fatal: u8::arbitrary(u)? > 200,
    })
}
