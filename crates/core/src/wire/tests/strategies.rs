//! Arbitrary messages, changesets and bodies.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, option, prelude::*};

use crate::{
    change::{Change, Changeset, ColumnEdit, Edit, MemberEdit, Op, PathEdit, Piece},
    hlc::Hlc,
    ids::{
        BucketId, ChangesetId, ColumnNumber, Cursor, DeviceId, Lease, TableNumber, Tag, Timestamp,
        Version,
    },
    key::RowKey,
    schema::{ColumnType, MergeStrategy},
    value::Value,
    wire::*,
};

pub(super) fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        ".{0,12}",
        Just("ß\0\u{10FFFF}".to_owned())
    ]
}

pub(super) fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::Integer),
        prop_oneof![any::<f64>(), Just(f64::INFINITY), Just(5e-324)]
            .prop_map(|x| Value::Real(x).canonical(ColumnType::Any)),
        text().prop_map(Value::Text),
        vec(any::<u8>(), 0..12).prop_map(Value::Blob),
    ]
}

pub(super) fn key() -> impl Strategy<Value = RowKey> {
    vec(
        value().prop_filter("a key has no NULL", |v| !v.is_null()),
        1..3,
    )
    .prop_map(|values| RowKey::encode(&values).expect("short and without NULL"))
}

fn version() -> impl Strategy<Value = Version> {
    (0..Version::LIMIT).prop_map(Version)
}
fn table() -> impl Strategy<Value = TableNumber> {
    prop_oneof![0..3u32, any::<u32>()].prop_map(TableNumber)
}
fn changeset_id() -> impl Strategy<Value = ChangesetId> {
    prop_oneof![Just([0; 16]), any::<[u8; 16]>()].prop_map(ChangesetId)
}
fn bucket() -> impl Strategy<Value = BucketId> {
    any::<[u8; 16]>().prop_map(BucketId)
}
fn buckets() -> impl Strategy<Value = Vec<BucketId>> {
    vec(bucket(), 0..4)
}
fn device() -> impl Strategy<Value = DeviceId> {
    any::<[u8; 16]>().prop_map(DeviceId)
}
fn lease() -> impl Strategy<Value = Lease> {
    any::<[u8; 16]>().prop_map(Lease)
}
fn timestamp() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp)
}
fn cursor() -> impl Strategy<Value = Cursor> {
    (version(), any::<[u8; 8]>(), any::<[u8; 8]>()).prop_map(|(version, tag, mac)| Cursor {
        version,
        tag: Tag(tag),
        mac: Tag(mac),
    })
}
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..40), vec(Just(7), 0..4000)]
}
fn refusal() -> impl Strategy<Value = Refusal> {
    (
        text(),
        text(),
        any::<bool>(),
        option::of(any::<u64>()),
        option::of(any::<u32>()),
        any::<bool>(),
    )
        .prop_map(
            |(code, message, retry, retry_after_ms, change, fatal)| Refusal {
                code,
                message,
                retry,
                retry_after_ms,
                change,
                fatal,
            },
        )
}

pub(super) fn client_message() -> impl Strategy<Value = ClientMessage> {
    prop_oneof![
        hello().prop_map(ClientMessage::Hello),
        (changeset_id(), bytes(), any::<u32>())
            .prop_map(|(id, body, parts)| ClientMessage::Push(Push { id, body, parts })),
        (changeset_id(), any::<u32>(), bytes())
            .prop_map(|(id, index, bytes)| ClientMessage::PushPart(PushPart { id, index, bytes })),
        (any::<u64>(), option::of(version()))
            .prop_map(|(bytes, checkpoint)| ClientMessage::Credit(Credit { bytes, checkpoint })),
        text().prop_map(|token| ClientMessage::Token(TokenRenewal { token })),
        (timestamp(), timestamp()).prop_map(|(sent, now)| ClientMessage::Ping(Ping { sent, now })),
        vec(load_position(), 0..3).prop_map(|positions| ClientMessage::Load(Load { positions })),
        (
            any::<u64>(),
            vec(subscription(), 0..3),
            vec(subscription(), 0..3)
        )
            .prop_map(|(number, add, drop)| ClientMessage::Subscribe(Subscribe {
                number,
                add,
                drop
            })),
    ]
}

fn subscription() -> impl Strategy<Value = Subscription> {
    let column = option::of(any::<u32>().prop_map(ColumnNumber));
    (table(), column, option::of(bytes())).prop_map(|(table, column, key)| Subscription {
        table,
        column,
        key,
    })
}

fn load_position() -> impl Strategy<Value = LoadPosition> {
    (option::of(bucket()), table(), option::of(bytes())).prop_map(|(bucket, table, after)| {
        LoadPosition {
            bucket,
            table,
            after,
        }
    })
}

fn hello() -> impl Strategy<Value = Hello> {
    let who = (
        any::<u32>(),
        device(),
        lease(),
        lease(),
        text(),
        text(),
        device(),
    );
    let what = (
        any::<u64>(),
        vec(cursor(), 0..3),
        option::of(vec(table(), 0..3)),
        any::<u64>(),
        any::<u64>(),
        vec(load_position(), 0..3),
        any::<u64>(),
        timestamp(),
    );
    let subscriptions = option::of(vec(subscription(), 0..3));
    let wishes = (any::<[bool; 3]>(), subscriptions, any::<u64>());
    (who, what, wishes).prop_map(|(who, what, wishes)| {
        let ([renamed, register_anew, loads_again], subscriptions, subscribed) = wishes;
        let (protocol, device, lease, next_lease, device_name, platform, server) = who;
        let (schema_hash, cursors, tables, buckets_count, buckets_sum, loading, credit, now) = what;
        Hello {
            protocol,
            device,
            lease,
            next_lease,
            device_name,
            platform,
            server,
            schema_hash,
            cursors,
            tables,
            buckets_count,
            buckets_sum,
            loading,
            credit,
            now,
            renamed,
            register_anew,
            subscriptions,
            subscribed,
            loads_again,
        }
    })
}

pub(super) fn server_message() -> impl Strategy<Value = ServerMessage> {
    prop_oneof![
        welcome().prop_map(|welcome| ServerMessage::Welcome(Box::new(welcome))),
        push_result().prop_map(ServerMessage::PushResult),
        (
            any::<bool>(),
            [(); 4].map(|()| buckets()),
            vec(any::<u32>().prop_map(TableNumber), 0..4)
        )
            .prop_map(|(full, lists, released_tables)| {
                let [add, drop, reload, released] = lists;
                ServerMessage::Grants(Grants {
                    full,
                    add,
                    drop,
                    reload,
                    released,
                    released_tables,
                })
            }),
        page().prop_map(ServerMessage::Page),
        (buckets(), vec((bytes(), vec(any::<u32>(), 0..4)), 0..4)).prop_map(
            |(buckets, records)| {
                let records = records
                    .into_iter()
                    .map(|(body, buckets)| Record { body, buckets })
                    .collect();
                ServerMessage::Changes(Changes { buckets, records })
            }
        ),
        checkpoint().prop_map(ServerMessage::Checkpoint),
        refusal().prop_map(ServerMessage::Refusal),
        (timestamp(), timestamp()).prop_map(|(sent, now)| ServerMessage::Pong(Ping { sent, now })),
    ]
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let reason = prop_oneof![
        Just(ReloadReason::New),
        Just(ReloadReason::Horizon),
        Just(ReloadReason::Diverged),
        Just(ReloadReason::Rules),
    ];
    let resume = prop_oneof![
        Just(Resume::Continue),
        (reason, option::of(cursor()))
            .prop_map(|(reason, common)| Resume::Reload { reason, common }),
    ];
    let who = (
        any::<u32>(),
        device(),
        device(),
        lease(),
        text(),
        timestamp(),
    );
    let how = (
        option::of(schema_info()),
        resume,
        any::<u64>(),
        any::<u32>(),
        version(),
        option::of(text()),
        option::of(any::<u32>()),
        (option::of(quota()), option::of(version())),
    );
    (who, how).prop_map(|(who, how)| {
        let (protocol, server, device, lease, user, now) = who;
        let (
            schema,
            resume,
            next_number,
            pushes_max,
            horizon,
            device_name,
            subscriptions_max,
            (quota, head),
        ) = how;
        Welcome {
            protocol,
            server,
            device,
            lease,
            user,
            now,
            schema,
            resume,
            next_number,
            pushes_max,
            horizon,
            device_name,
            subscriptions_max,
            quota,
            head,
        }
    })
}

fn quota() -> impl Strategy<Value = Quota> {
    let share = || any::<(u64, u64)>().prop_map(|(owned, max)| Share { owned, max });
    let shares = (option::of(share()), option::of(share()));
    shares.prop_map(|(rows, bytes)| Quota { rows, bytes })
}

pub(super) fn schema_info() -> impl Strategy<Value = SchemaInfo> {
    vec(table_info(), 0..3).prop_map(|tables| SchemaInfo { tables })
}

fn table_info() -> impl Strategy<Value = TableInfo> {
    let positions = || vec(0..3u32, 1..3);
    let lists = move || vec(positions(), 0..3);
    let on_delete = prop_oneof![
        Just(""),
        Just("cascade"),
        Just("set null"),
        Just("set default")
    ];
    let foreign_key = (positions(), text(), vec(text(), 0..3), on_delete).prop_map(
        |(columns, parent, parent_columns, on_delete)| ForeignKeyInfo {
            columns,
            parent,
            parent_columns,
            on_delete: on_delete.to_owned(),
        },
    );
    let structure = (text(), any::<u32>(), vec(column_info(), 3..5), positions());
    (
        structure,
        lists(),
        lists(),
        vec(foreign_key, 0..2),
        any::<[bool; 5]>(),
        (
            option::of(vec(further_index(), 1..3)),
            option::of(vec(expression(), 1..3)),
        ),
    )
        .prop_map(
            |(
                (name, number, columns, primary_key),
                uniques,
                indexes,
                foreign_keys,
                flags,
                more,
            )| {
                let [without_rowid, autoincrement, on_demand, update_wins, strict] = flags;
                let (further_indexes, checks) = more;
                let mut columns: Vec<ColumnInfo> = columns;
                if strict {
                    columns.iter_mut().for_each(|column| column.declared = None);
                }
                TableInfo {
                    name,
                    number,
                    columns,
                    primary_key,
                    uniques,
                    indexes,
                    foreign_keys,
                    without_rowid,
                    autoincrement,
                    on_demand,
                    update_wins,
                    further_indexes,
                    checks,
                    strict: strict.then_some(true),
                }
            },
        )
}

fn expression() -> impl Strategy<Value = String> {
    prop::sample::select(&["0", "'it''s'", "length(\"a)\") < 5"][..]).prop_map(str::to_owned)
}

fn further_index() -> impl Strategy<Value = FurtherIndexInfo> {
    (any::<bool>(), expression(), option::of(expression())).prop_map(
        |(unique, terms, condition)| FurtherIndexInfo {
            unique,
            terms,
            condition,
        },
    )
}

fn column_info() -> impl Strategy<Value = ColumnInfo> {
    let ty = prop::sample::select(ColumnType::ALL).prop_map(|ty| ty.as_str().to_owned());
    let merge = || {
        prop::sample::select(MergeStrategy::ALL).prop_map(|strategy| strategy.as_str().to_owned())
    };
    let paths = proptest::collection::btree_map(text(), merge(), 0..2)
        .prop_map(|paths: BTreeMap<_, _>| paths.into_iter().collect());
    let constraints = (
        option::of(expression()),
        option::of(expression()),
        option::of(text()),
    );
    let declared = prop::sample::select(&["CLOB", "VARCHAR(20)", "NATIVE CHARACTER(9)"][..]);
    let more = (
        option::of((expression(), any::<bool>())),
        option::of(declared.prop_map(str::to_owned)),
    );
    (
        text(),
        any::<u32>(),
        ty,
        any::<[bool; 2]>(),
        constraints,
        merge(),
        paths,
        more,
    )
        .prop_map(
            |(name, number, ty, [not_null, generated], constraints, merge, merge_paths, more)| {
                let (default, check, collate) = constraints;
                let (computed, declared) = more;
                let computed = computed.filter(|_| generated);
                let declared = declared.filter(|_| ["text", "json", "uuid"].contains(&ty.as_str()));
                let encrypted = (ty == "blob").then(|| "text".to_owned());
                ColumnInfo {
                    name,
                    number,
                    ty,
                    not_null,
                    default,
                    check,
                    collate,
                    generated,
                    merge,
                    merge_paths,
                    computed: computed
                        .map(|(expression, stored)| ComputedInfo { expression, stored }),
                    declared,
                    encrypted,
                }
            },
        )
}

fn push_result() -> impl Strategy<Value = PushResult> {
    let lost = (table(), bytes(), option::of(any::<u32>()), text()).prop_map(
        |(table, key, column, reason)| LostEdit {
            table,
            key,
            column,
            reason,
        },
    );
    let verdict = prop_oneof![
        version().prop_map(Verdict::Accepted),
        refusal().prop_map(Verdict::Refused),
    ];
    (changeset_id(), verdict, vec(lost, 0..3)).prop_map(|(id, verdict, lost)| PushResult {
        id,
        verdict,
        lost,
    })
}

fn page() -> impl Strategy<Value = Page> {
    let part = (
        bucket(),
        table(),
        option::of(bytes()),
        option::of(bytes()),
        bytes(),
        any::<u32>(),
    )
        .prop_map(|(bucket, table, after, to, rows, count)| PagePart {
            bucket,
            table,
            after,
            to,
            rows,
            count,
        });
    (version(), vec(part, 0..3), option::of(any::<u64>())).prop_map(
        |(version, parts, remaining)| Page {
            version,
            parts,
            remaining,
        },
    )
}

fn checkpoint() -> impl Strategy<Value = Checkpoint> {
    let digest =
        (bucket(), table(), any::<u64>(), any::<u64>()).prop_map(|(bucket, table, count, sum)| {
            BucketDigest {
                bucket,
                table,
                count,
                sum,
            }
        });
    let live = (bucket(), table()).prop_map(|(bucket, table)| LiveBucket { bucket, table });
    let end = (any::<bool>(), timestamp(), any::<u64>(), any::<u64>());
    (cursor(), vec(digest, 0..3), vec(live, 0..3), end).prop_map(
        |(cursor, digests, live, (caught_up, now, loading, subscribed))| Checkpoint {
            cursor,
            digests,
            live,
            caught_up,
            now,
            loading,
            subscribed,
        },
    )
}

/// What it is a piece of: with a place for each change.
fn piece_of(changes: usize, whole: ChangesetId, steps: &[u16]) -> Piece {
    let steps = steps.iter().copied().chain(std::iter::repeat(0));
    let places = steps.take(changes).scan(0, |next: &mut u32, step| {
        let place = *next + u32::from(step);
        *next = place + 1;
        Some(place)
    });
    let places = places.collect();
    Piece { whole, places }
}

pub(super) fn changeset() -> impl Strategy<Value = Changeset> {
    let depends = proptest::collection::btree_set(0..1000u64, 0..4);
    let head = (
        changeset_id(),
        1000..u64::MAX,
        depends,
        any::<u64>(),
        any::<[bool; 2]>(),
        option::of(version()),
        option::of((changeset_id(), vec(any::<u16>(), 0..3))),
    );
    (head, vec(change(), 0..5)).prop_map(|(head, mut changes)| {
        let (id, number, depends, hlc, flags, after, piece) = head;
        let mut seen = BTreeSet::new();
        changes.retain(|change: &Change| seen.insert((change.table, change.key.clone())));
        let piece = piece.map(|(whole, steps)| piece_of(changes.len(), whole, &steps));
        let [require_unchanged, may_be_applied_already] = flags;
        let depends = depends.into_iter().collect();
        let hlc = Hlc(hlc);
        Changeset {
            id,
            number,
            depends,
            hlc,
            changes,
            require_unchanged,
            may_be_applied_already,
            after,
            piece,
        }
    })
}

fn change() -> impl Strategy<Value = Change> {
    let edits = || {
        proptest::collection::btree_map(any::<u32>(), edit(), 0..4).prop_map(|edits| {
            edits
                .into_iter()
                .map(|(column, edit)| ColumnEdit {
                    column: ColumnNumber(column),
                    edit,
                })
                .collect::<Vec<_>>()
        })
    };
    let op = prop_oneof![
        edits().prop_map(Op::Insert),
        edits().prop_map(Op::Update),
        Just(Op::Delete)
    ];
    (table(), key(), version(), op).prop_map(|(table, key, base, op)| Change {
        table,
        key,
        base,
        op,
    })
}

fn number() -> impl Strategy<Value = Value> {
    value().prop_filter("a number", |v| {
        matches!(v, Value::Integer(_) | Value::Real(_))
    })
}

fn edit() -> impl Strategy<Value = Edit> {
    let texts = || vec(text(), 0..3);
    let path_edit = prop_oneof![
        text().prop_map(PathEdit::Set),
        Just(PathEdit::Remove),
        number().prop_map(PathEdit::Add),
        (texts(), texts()).prop_map(|(add, remove)| PathEdit::Items { add, remove }),
        texts().prop_map(PathEdit::Append),
        (option::of(text()), option::of(text()))
            .prop_map(|(base, new)| PathEdit::Decide { base, new }),
    ];
    let members = proptest::collection::btree_map(text(), path_edit, 0..3).prop_map(|members| {
        let members = members
            .into_iter()
            .map(|(path, edit)| MemberEdit { path, edit });
        Edit::Members(members.collect())
    });
    prop_oneof![
        4 => value().prop_map(Edit::Set),
        1 => number().prop_map(Edit::Add),
        1 => (texts(), texts()).prop_map(|(add, remove)| Edit::Items { add, remove }),
        1 => texts().prop_map(Edit::Append),
        1 => (value(), value()).prop_map(|(base, new)| Edit::Decide { base, new }),
        1 => members,
    ]
}

pub(super) fn row_body() -> impl Strategy<Value = RowBody> {
    let columns = || vec((any::<u32>().prop_map(ColumnNumber), value()), 0..5);
    let state = prop_oneof![
        (columns(), text(), version()).prop_map(|(columns, owner, created)| RowState::Whole {
            columns,
            owner,
            created
        }),
        columns().prop_map(RowState::Columns),
        Just(RowState::Deleted),
        Just(RowState::Removed),
        Just(RowState::Released),
    ];
    (
        table(),
        key(),
        version(),
        state,
        text(),
        changeset_id(),
        any::<u64>(),
    )
        .prop_map(
            |(table, key, version, state, author, changeset, hlc)| RowBody {
                table,
                key,
                version,
                state,
                author,
                changeset,
                hlc: Hlc(hlc),
            },
        )
}
