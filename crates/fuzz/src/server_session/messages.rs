//! What a hostile device says: well formed, and wrong in everything that can be wrong.

use arbitrary::{Arbitrary as _, Unstructured};
use syncline_core::{
    BucketId, Change, Changeset, ChangesetId, ColumnEdit, ColumnNumber, Cursor, DeviceId, Edit,
    Hlc, Lease, Op, Piece, RowKey, TableNumber, Timestamp, Value, Version,
    wire::{
        CURSORS_MAX, ClientMessage, Credit, Hello, Load, LoadPosition, PROTOCOL, Ping, Push,
        PushPart, Subscribe, Subscription, TokenRenewal, encode_changeset,
    },
};

use super::{Bench, SHARED};
use crate::values::{few_bytes, value};

pub(super) fn message(
    bench: &mut Bench,
    u: &mut Unstructured<'_>,
) -> arbitrary::Result<ClientMessage> {
    Ok(match u8::arbitrary(u)? % 9 {
        0 => ClientMessage::Hello(hello(bench, u)?),
        1..=3 => {
            let changeset = changeset(bench, u)?;
            ClientMessage::Push(Push {
                id: changeset.id,
                body: encode_changeset(&changeset),
                parts: 0,
            })
        }
        4 => ClientMessage::Push(Push {
            id: ChangesetId([u8::arbitrary(u)?; 16]),
            body: Vec::new(),
            parts: u32::arbitrary(u)? >> (u8::arbitrary(u)? % 32),
        }),
        5 => ClientMessage::PushPart(PushPart {
            id: ChangesetId([u8::arbitrary(u)?; 16]),
            index: u32::from(u8::arbitrary(u)? % 4),
            bytes: few_bytes(u, 255)?,
        }),
        6 => ClientMessage::Credit(Credit {
            bytes: u64::arbitrary(u)? >> (u8::arbitrary(u)? % 64),
            checkpoint: Option::<u64>::arbitrary(u)?.map(Version),
        }),
        7 => ClientMessage::Load(Load {
            positions: positions(bench, u)?,
        }),
        _ => match u8::arbitrary(u)? % 4 {
            3 => ClientMessage::Subscribe(Subscribe {
                number: u64::from(u8::arbitrary(u)?),
                add: vec![subscription(u)?],
                drop: vec![subscription(u)?],
            }),
            0 => ClientMessage::Token(TokenRenewal {
                token: char::from(b'a' + u8::arbitrary(u)? % 4).to_string(),
            }),
            1 => ClientMessage::Ping(Ping {
                sent: Timestamp(u64::arbitrary(u)?),
                now: Timestamp(u64::arbitrary(u)?),
            }),
            _ => ClientMessage::Unknown(u32::arbitrary(u)?),
        },
    })
}

fn subscription(u: &mut Unstructured<'_>) -> arbitrary::Result<Subscription> {
    Ok(Subscription {
        table: table(u)?,
        column: Option::<u8>::arbitrary(u)?.map(|number| ColumnNumber(u32::from(number % 8))),
        key: match bool::arbitrary(u)? {
            true => Some(few_bytes(u, 40)?),
            false => None,
        },
    })
}

fn table(u: &mut Unstructured<'_>) -> arbitrary::Result<TableNumber> {
    let byte = u8::arbitrary(u)?;
    Ok(TableNumber(match byte {
        // Where the tables of the schema are, and the engine's own.
        0..200 => 16 + u32::from(byte % 6),
        _ => u32::from(byte % 20),
    }))
}

fn positions(bench: &Bench, u: &mut Unstructured<'_>) -> arbitrary::Result<Vec<LoadPosition>> {
    let mut positions = Vec::new();
    for _ in 0..u8::arbitrary(u)? % 8 {
        let bucket = match u8::arbitrary(u)? % 3 {
            0 => None,
            1 => Some(BucketId([u8::arbitrary(u)?; 16])),
            _ => u.choose(&bench.buckets).ok().copied(),
        };
        positions.push(LoadPosition {
            bucket,
            table: table(u)?,
            after: match u8::arbitrary(u)? % 3 {
                0 => None,
                1 => Some(u.choose(&bench.keys)?.clone()),
                _ => Some(few_bytes(u, 9)?),
            },
        });
    }
    Ok(positions)
}

/// A Hello that goes on where the last one was, or says something else.
pub(super) fn hello(bench: &mut Bench, u: &mut Unstructured<'_>) -> arbitrary::Result<Hello> {
    let flags = u8::arbitrary(u)?;
    let (lease, next) = (bench.lease, bench.lease.wrapping_add(1));
    if flags & 1 == 0 {
        bench.lease = next;
    }
    let mut cursors = bench.cursors.clone();
    if flags & 2 != 0 {
        cursors.truncate(usize::from(u8::arbitrary(u)?) % 4);
    }
    if flags & 4 != 0 {
        cursors.insert(
            0,
            Cursor {
                version: Version(u64::arbitrary(u)?),
                tag: syncline_core::Tag([u8::arbitrary(u)?; 8]),
                mac: syncline_core::Tag([u8::arbitrary(u)?; 8]),
            },
        );
        cursors.truncate(CURSORS_MAX);
    }
    Ok(Hello {
        protocol: if flags & 8 == 0 {
            PROTOCOL
        } else {
            u32::from(u8::arbitrary(u)? % 3)
        },
        device: DeviceId(
            [if flags & 16 == 0 {
                0x33
            } else {
                u8::arbitrary(u)?
            }; 16],
        ),
        lease: if lease == 0 {
            Lease::default()
        } else {
            Lease([lease; 16])
        },
        next_lease: Lease([next; 16]),
        device_name: "a device".into(),
        platform: "fuzz".into(),
        server: if flags & 32 == 0 {
            DeviceId::default()
        } else {
            bench.context.server
        },
        schema_hash: if flags & 64 == 0 {
            bench.context.info_hash
        } else {
            0
        },
        cursors,
        tables: if flags & 128 == 0 {
            None
        } else {
            Some(vec![table(u)?, table(u)?])
        },
        buckets_count: u64::from(u8::arbitrary(u)?),
        buckets_sum: u64::from(u8::arbitrary(u)?),
        loading: if flags & 2 == 0 {
            Vec::new()
        } else {
            positions(bench, u)?
        },
        credit: if flags & 1 == 0 {
            1 << 40
        } else {
            u64::from(u16::arbitrary(u)?)
        },
        now: bench.world.now,
        renamed: flags & 8 != 0,
        register_anew: false,
        subscriptions: None,
        subscribed: 0,
        loads_again: flags & 16 != 0,
    })
}

fn changeset(bench: &mut Bench, u: &mut Unstructured<'_>) -> arbitrary::Result<Changeset> {
    let flags = u8::arbitrary(u)?;
    let number = if flags & 1 == 0 {
        bench.number
    } else {
        u64::from(u8::arbitrary(u)?)
    };
    if flags & 3 == 0 {
        bench.number += 1;
    }
    let mut changes = Vec::new();
    for _ in 0..1 + u8::arbitrary(u)? % 4 {
        changes.push(change(bench, u)?);
    }
    let places = (u32::from(flags)..).take(changes.len()).collect();
    Ok(Changeset {
        id: ChangesetId([u8::arbitrary(u)?; 16]),
        number,
        depends: if flags & 4 == 0 {
            Vec::new()
        } else {
            vec![u64::from(u8::arbitrary(u)?)]
        },
        hlc: if flags & 8 == 0 {
            Hlc::at(bench.world.now)
        } else {
            Hlc::at(Timestamp(u64::arbitrary(u)?))
        },
        changes,
        require_unchanged: flags & 16 != 0,
        may_be_applied_already: flags & 32 != 0,
        after: (flags & 64 != 0).then_some(Version(u64::from(flags))),
        piece: match flags & 128 != 0 {
            true => Some(Piece {
                whole: ChangesetId([u8::arbitrary(u)?; 16]),
                places,
            }),
            false => None,
        },
    })
}

fn change(bench: &Bench, u: &mut Unstructured<'_>) -> arbitrary::Result<Change> {
    const KEYS: [&str; 8] = [
        "private",
        SHARED,
        "t-shared",
        "t-private",
        "m-eve",
        "own",
        "other",
        "l",
    ];
    let table = table(u)?;
    let row = match u8::arbitrary(u)? % 3 {
        0 => Value::Integer(i64::from(u8::arbitrary(u)? % 16)),
        1 => value(u)?,
        _ => Value::Text((*u.choose(&KEYS)?).to_owned()),
    };
    let Ok(key) = RowKey::encode([&row]) else {
        return Err(arbitrary::Error::IncorrectFormat);
    };
    // Numbers of columns that are there, most of the time, and as many as an insert needs.
    let columns: Vec<ColumnNumber> = match bench.context.plan.schema().by_number(table) {
        Some(table) => table.columns.iter().map(|column| column.number).collect(),
        None => vec![ColumnNumber(1), ColumnNumber(2)],
    };
    let kind = u8::arbitrary(u)?;
    let mut edits = Vec::new();
    for (position, column) in columns.iter().enumerate() {
        if kind % 3 == 0 && position == 0 {
            let edit = Edit::Set(row.clone());
            edits.push(ColumnEdit {
                column: *column,
                edit,
            });
            continue;
        }
        if kind % 3 != 0 && bool::arbitrary(u)? {
            continue;
        }
        let edit = match u8::arbitrary(u)? % 8 {
            0..=2 => Edit::Set(Value::Text((*u.choose(&KEYS)?).to_owned())),
            3 => Edit::Set(value(u)?),
            4 => Edit::Set(Value::Text("eve".into())),
            5 => Edit::Add(value(u)?),
            6 => Edit::Items {
                add: vec![format!("\"{}\"", u8::arbitrary(u)?)],
                remove: vec![format!("\"{}\"", u8::arbitrary(u)?)],
            },
            _ => Edit::Decide {
                base: value(u)?,
                new: value(u)?,
            },
        };
        edits.push(ColumnEdit {
            column: *column,
            edit,
        });
    }
    let newest = bench
        .cursors
        .first()
        .map_or(Version::ZERO, |cursor| cursor.version);
    Ok(Change {
        table,
        key,
        base: match u8::arbitrary(u)? % 3 {
            0 => Version::ZERO,
            1 => newest,
            _ => Version(u64::arbitrary(u)?),
        },
        op: match kind % 3 {
            0 => Op::Insert(edits),
            1 => Op::Update(edits),
            _ => Op::Delete,
        },
    })
}
