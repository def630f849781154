//! The recorded bytes of every message, with fixed ids: what old peers out there send and expect.
//!
//! After a deliberate change, `UPDATE_VECTORS=1 cargo test -p syncline-core golden` writes
//! `testdata/protocol/v1.json` anew. A vector that changed, rather than one that was added,
//! breaks every released peer.

use std::{collections::BTreeMap, fmt::Write, fs, path::PathBuf};

use minicbor::Decoder;

use crate::{
    change::{Change, Changeset, ColumnEdit, Edit, MemberEdit, Op, PathEdit, Piece},
    hlc::Hlc,
    ids::{
        BucketId, ChangesetId, ColumnNumber, Cursor, DeviceId, Lease, TableNumber, Tag, Timestamp,
        Version,
    },
    key::RowKey,
    value::Value,
    wire::*,
};

#[test]
fn wi3_golden_vectors_are_what_this_build_writes_and_reads() {
    let mut vectors = BTreeMap::new();
    for (name, message) in client_messages() {
        vectors.insert(format!("client/{name}"), hex(&encode_client(&message)));
    }
    for (name, message) in server_messages() {
        vectors.insert(format!("server/{name}"), hex(&encode_server(&message)));
    }
    for (name, changeset) in changesets() {
        vectors.insert(
            format!("changeset/{name}"),
            hex(&encode_changeset(&changeset)),
        );
    }
    for (name, body) in row_bodies() {
        vectors.insert(format!("row/{name}"), hex(&body.encode()));
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/protocol/v1.json");
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        let json = serde_json::to_string_pretty(&vectors).unwrap();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, json + "\n").unwrap();
    }
    let recorded: BTreeMap<String, String> =
        serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(vectors, recorded);

    for (name, message) in client_messages() {
        assert_eq!(
            decode_client(&unhex(&recorded[&format!("client/{name}")])),
            Ok(message)
        );
    }
    for (name, message) in server_messages() {
        assert_eq!(
            decode_server(&unhex(&recorded[&format!("server/{name}")])),
            Ok(message)
        );
    }
    for (name, changeset) in changesets() {
        let bytes = unhex(&recorded[&format!("changeset/{name}")]);
        assert_eq!(decode_changeset(&bytes), Ok(changeset));
    }
    for (name, body) in row_bodies() {
        let bytes = unhex(&recorded[&format!("row/{name}")]);
        assert_eq!(RowBody::decode(&bytes), Ok((body, bytes.len())));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

/// The payload of a plain frame. Golden messages are short.
pub(super) fn plain(frame: &[u8]) -> Vec<u8> {
    assert_eq!(frame[0], 0);
    frame[1..].to_vec()
}

/// Kind, number of fields and encoded fields of a payload.
pub(super) fn split(payload: &[u8]) -> (u32, u64, &[u8]) {
    let mut d = Decoder::new(payload);
    d.array().unwrap();
    let kind = d.u32().unwrap();
    let fields = d
        .map()
        .unwrap()
        .unwrap_or_else(|| panic!("kind {kind} has a map of known length"));
    (kind, fields, &payload[d.position()..])
}

fn version(n: u64) -> Version {
    Version(1_700_000_000_000_000 + n)
}
fn cursor() -> Cursor {
    Cursor {
        version: version(9),
        tag: Tag([0x11; 8]),
        mac: Tag([0x22; 8]),
    }
}
fn bucket(n: u8) -> BucketId {
    BucketId([n; 16])
}
fn key() -> RowKey {
    RowKey::encode(&[Value::Integer(42), Value::from("a\0b")]).unwrap()
}
fn now() -> Timestamp {
    Timestamp(1_700_000_000_123_456)
}
fn refusal() -> Refusal {
    Refusal {
        code: code::FORBIDDEN.to_owned(),
        message: "tasks: the write rule does not allow it".to_owned(),
        retry: false,
        retry_after_ms: Some(250),
        change: Some(3),
        fatal: false,
    }
}

pub(super) fn client_messages() -> Vec<(&'static str, ClientMessage)> {
    let hello = Hello {
        protocol: 1,
        device: DeviceId([0xD1; 16]),
        lease: Lease([0x1E; 16]),
        next_lease: Lease([0x2E; 16]),
        device_name: "laptop".to_owned(),
        platform: "linux syncline/0.1.0".to_owned(),
        server: DeviceId([0x5E; 16]),
        schema_hash: u64::MAX,
        cursors: vec![cursor(), Cursor::default()],
        tables: Some(vec![TableNumber(1), TableNumber(300)]),
        buckets_count: 2,
        buckets_sum: 3,
        loading: vec![LoadPosition {
            bucket: Some(bucket(0xB0)),
            table: TableNumber(1),
            after: Some(key().as_bytes().to_vec()),
        }],
        credit: 1 << 20,
        now: now(),
        renamed: false,
        register_anew: false,
        subscriptions: None,
        subscribed: 0,
        loads_again: false,
    };
    let wishes = Hello {
        renamed: true,
        register_anew: true,
        ..hello.clone()
    };
    let again = Hello {
        loads_again: true,
        ..hello.clone()
    };
    let subscription = |column, key: &[u8]| Subscription {
        table: TableNumber(1),
        column,
        key: Some(key.to_vec()),
    };
    let row = subscription(None, key().as_bytes());
    let value = subscription(Some(ColumnNumber(3)), key().as_bytes());
    let whole = Subscription {
        key: None,
        ..row.clone()
    };
    let subscribed = Hello {
        subscriptions: Some(vec![row.clone(), value, whole.clone()]),
        subscribed: 7,
        ..hello.clone()
    };
    let first = Hello {
        lease: Lease::default(),
        server: DeviceId::default(),
        schema_hash: 0,
        cursors: Vec::new(),
        tables: None,
        buckets_count: 0,
        buckets_sum: 0,
        loading: vec![LoadPosition {
            bucket: None,
            table: TableNumber(2),
            after: None,
        }],
        ..hello.clone()
    };
    let id = ChangesetId([0xC5; 16]);
    vec![
        ("hello", ClientMessage::Hello(hello)),
        ("hello_first", ClientMessage::Hello(first)),
        ("hello_wishes", ClientMessage::Hello(wishes)),
        ("hello_loads_again", ClientMessage::Hello(again)),
        ("hello_subscribed", ClientMessage::Hello(subscribed)),
        (
            "subscribe",
            ClientMessage::Subscribe(Subscribe {
                number: 8,
                add: vec![row],
                drop: vec![whole],
            }),
        ),
        (
            "push",
            ClientMessage::Push(Push {
                id,
                body: b"body".to_vec(),
                parts: 0,
            }),
        ),
        (
            "push_in_parts",
            ClientMessage::Push(Push {
                id,
                body: Vec::new(),
                parts: 2,
            }),
        ),
        (
            "push_part",
            ClientMessage::PushPart(PushPart {
                id,
                index: 1,
                bytes: b"part".to_vec(),
            }),
        ),
        (
            "credit",
            ClientMessage::Credit(Credit {
                bytes: 65_536,
                checkpoint: None,
            }),
        ),
        (
            "credit_checkpoint",
            ClientMessage::Credit(Credit {
                bytes: 65_536,
                checkpoint: Some(version(9)),
            }),
        ),
        (
            "token",
            ClientMessage::Token(TokenRenewal {
                token: "a.b.c".to_owned(),
            }),
        ),
        (
            "ping",
            ClientMessage::Ping(Ping {
                sent: now(),
                now: now(),
            }),
        ),
        (
            "load",
            ClientMessage::Load(Load {
                positions: vec![LoadPosition {
                    bucket: Some(bucket(0xB0)),
                    table: TableNumber(1),
                    after: None,
                }],
            }),
        ),
    ]
}

pub(super) fn server_messages() -> Vec<(&'static str, ServerMessage)> {
    let lost = LostEdit {
        table: TableNumber(1),
        key: key().as_bytes().to_vec(),
        column: Some(4),
        reason: "older".to_owned(),
    };
    let result = |verdict, lost| {
        ServerMessage::PushResult(PushResult {
            id: ChangesetId([0xC5; 16]),
            verdict,
            lost,
        })
    };
    let rows: Vec<u8> = row_bodies()[..1]
        .iter()
        .flat_map(|(_, body)| body.encode())
        .collect();
    let record = Record {
        body: row_bodies()[1].1.encode(),
        buckets: vec![1, 0],
    };
    let (digest, live) = (
        BucketDigest {
            bucket: bucket(0xB0),
            table: TableNumber(1),
            count: 3,
            sum: u64::MAX,
        },
        LiveBucket {
            bucket: bucket(0xB0),
            table: TableNumber(1),
        },
    );
    let page = Page {
        version: version(7),
        parts: vec![PagePart {
            bucket: bucket(0xB0),
            table: TableNumber(1),
            after: None,
            to: Some(key().as_bytes().to_vec()),
            rows,
            count: 1,
        }],
        remaining: Some(1000),
    };
    vec![
        ("welcome", ServerMessage::Welcome(Box::new(welcome()))),
        ("welcome_further_schema", {
            let mut welcome = welcome();
            let table = welcome.schema.iter_mut().flat_map(|info| &mut info.tables);
            for table in table {
                table.strict = Some(true);
                table.checks = Some(vec!["id <> notes".to_owned()]);
                table.further_indexes = Some(vec![FurtherIndexInfo {
                    unique: true,
                    terms: "lower(notes) DESC".to_owned(),
                    condition: Some("notes <> ''".to_owned()),
                }]);
                table.columns[0].declared = Some("VARCHAR(36)".to_owned());
                table.columns[1].generated = true;
                table.columns[1].computed = Some(ComputedInfo {
                    expression: "upper(id)".to_owned(),
                    stored: true,
                });
            }
            ServerMessage::Welcome(Box::new(welcome))
        }),
        ("welcome_continue", {
            let resume = Resume::Continue;
            ServerMessage::Welcome(Box::new(Welcome {
                schema: None,
                resume,
                ..welcome()
            }))
        }),
        (
            "welcome_named",
            ServerMessage::Welcome(Box::new(Welcome {
                schema: None,
                resume: Resume::Continue,
                device_name: Some("laptop".to_owned()),
                ..welcome()
            })),
        ),
        (
            "welcome_head",
            ServerMessage::Welcome(Box::new(Welcome {
                schema: None,
                resume: Resume::Continue,
                head: Some(version(3)),
                ..welcome()
            })),
        ),
        (
            "welcome_quota",
            ServerMessage::Welcome(Box::new(Welcome {
                schema: None,
                resume: Resume::Continue,
                quota: Some(Quota {
                    rows: Some(Share {
                        owned: 900,
                        max: 1_000,
                    }),
                    bytes: None,
                }),
                ..welcome()
            })),
        ),
        (
            "welcome_subscriptions",
            ServerMessage::Welcome(Box::new(Welcome {
                schema: None,
                resume: Resume::Continue,
                subscriptions_max: Some(1_000),
                ..welcome()
            })),
        ),
        (
            "accepted",
            result(Verdict::Accepted(version(8)), vec![lost]),
        ),
        ("refused", result(Verdict::Refused(refusal()), Vec::new())),
        (
            "grants",
            ServerMessage::Grants(Grants {
                full: false,
                add: vec![bucket(1)],
                drop: vec![bucket(2)],
                reload: vec![bucket(3)],
                released: Vec::new(),
                released_tables: Vec::new(),
            }),
        ),
        (
            "grants_released",
            ServerMessage::Grants(Grants {
                full: false,
                add: Vec::new(),
                drop: vec![bucket(2)],
                reload: Vec::new(),
                released: vec![bucket(2)],
                released_tables: Vec::new(),
            }),
        ),
        (
            "grants_released_tables",
            ServerMessage::Grants(Grants {
                full: true,
                add: Vec::new(),
                drop: Vec::new(),
                reload: Vec::new(),
                released: Vec::new(),
                released_tables: vec![TableNumber(101)],
            }),
        ),
        ("page", ServerMessage::Page(page)),
        (
            "changes",
            ServerMessage::Changes(Changes {
                buckets: vec![bucket(1), bucket(2)],
                records: vec![record],
            }),
        ),
        (
            "checkpoint",
            ServerMessage::Checkpoint(Checkpoint {
                cursor: cursor(),
                digests: vec![digest],
                live: vec![live],
                caught_up: true,
                now: now(),
                loading: 2,
                subscribed: 0,
            }),
        ),
        (
            "checkpoint_subscribed",
            ServerMessage::Checkpoint(Checkpoint {
                cursor: cursor(),
                digests: Vec::new(),
                live: Vec::new(),
                caught_up: true,
                now: now(),
                loading: 0,
                subscribed: 8,
            }),
        ),
        (
            "refusal",
            ServerMessage::Refusal(Refusal {
                fatal: true,
                ..refusal()
            }),
        ),
        (
            "pong",
            ServerMessage::Pong(Ping {
                sent: now(),
                now: Timestamp(now().0 + 1),
            }),
        ),
    ]
}

fn welcome() -> Welcome {
    let column = |name: &str, number, ty: &str| ColumnInfo {
        name: name.to_owned(),
        number,
        ty: ty.to_owned(),
        not_null: number == 1,
        default: (number == 2).then(|| "'[]'".to_owned()),
        check: None,
        collate: None,
        generated: false,
        merge: "last-write-wins".to_owned(),
        merge_paths: vec![("goals".to_owned(), "set".to_owned())],
        computed: None,
        declared: None,
        encrypted: None,
    };
    let table = TableInfo {
        name: "tasks".to_owned(),
        number: 1,
        columns: vec![column("id", 1, "uuid"), column("notes", 2, "json")],
        primary_key: vec![0],
        uniques: vec![vec![1, 0]],
        indexes: vec![vec![1]],
        foreign_keys: vec![ForeignKeyInfo {
            columns: vec![1],
            parent: "projects".to_owned(),
            parent_columns: Vec::new(),
            on_delete: "cascade".to_owned(),
        }],
        without_rowid: false,
        autoincrement: false,
        on_demand: true,
        update_wins: false,
        further_indexes: None,
        checks: None,
        strict: None,
    };
    Welcome {
        protocol: 1,
        server: DeviceId([0x5E; 16]),
        device: DeviceId([0xD1; 16]),
        lease: Lease([0x2E; 16]),
        user: "ada".to_owned(),
        now: now(),
        schema: Some(SchemaInfo {
            tables: vec![table],
        }),
        resume: Resume::Reload {
            reason: ReloadReason::Diverged,
            common: Some(cursor()),
        },
        next_number: 12,
        pushes_max: 64,
        horizon: version(0),
        device_name: None,
        subscriptions_max: None,
        quota: None,
        head: None,
    }
}

pub(super) fn changesets() -> Vec<(&'static str, Changeset)> {
    let edit = |column, edit| ColumnEdit {
        column: ColumnNumber(column),
        edit,
    };
    let texts = |items: &[&str]| {
        items
            .iter()
            .map(|&item| item.to_owned())
            .collect::<Vec<_>>()
    };
    let member = |path: &str, edit| MemberEdit {
        path: path.to_owned(),
        edit,
    };
    let items = || (texts(&["\"a\""]), texts(&["1", "2"]));
    let insert = Op::Insert(vec![
        edit(1, Edit::Set(Value::Integer(-42))),
        edit(2, Edit::Set(Value::Real(0.5))),
        edit(3, Edit::Set(Value::from("text"))),
        edit(4, Edit::Set(Value::Blob(vec![0, 255]))),
        edit(5, Edit::Set(Value::Null)),
    ]);
    let update = Op::Update(vec![
        edit(2, Edit::Add(Value::Real(-1.25))),
        edit(
            3,
            Edit::Items {
                add: items().0,
                remove: items().1,
            },
        ),
        edit(4, Edit::Append(texts(&["{}"]))),
        edit(
            5,
            Edit::Decide {
                base: Value::Null,
                new: Value::from("mine"),
            },
        ),
        edit(
            6,
            Edit::Members(vec![
                member("a", PathEdit::Set("[1]".to_owned())),
                member("b", PathEdit::Remove),
                member("c", PathEdit::Add(Value::Integer(1))),
                member(
                    "d",
                    PathEdit::Items {
                        add: items().0,
                        remove: items().1,
                    },
                ),
                member("e", PathEdit::Append(texts(&["null"]))),
                member(
                    "f",
                    PathEdit::Decide {
                        base: None,
                        new: Some("true".to_owned()),
                    },
                ),
            ]),
        ),
    ]);
    let change = |table, base, op| Change {
        table: TableNumber(table),
        key: key(),
        base,
        op,
    };
    let every_operation = Changeset {
        id: ChangesetId([0xC5; 16]),
        number: 12,
        depends: vec![3, 11],
        hlc: Hlc(0x018B_CFE5_6800_0007),
        changes: vec![
            change(1, Version::ZERO, insert),
            change(2, version(1), update),
            change(3, version(2), Op::Delete),
        ],
        require_unchanged: true,
        may_be_applied_already: true,
        after: None,
        piece: None,
    };
    let plain = Changeset {
        depends: Vec::new(),
        changes: Vec::new(),
        require_unchanged: false,
        may_be_applied_already: false,
        ..every_operation.clone()
    };
    let after = Changeset {
        after: Some(version(3)),
        ..plain.clone()
    };
    let (whole, places) = (ChangesetId([0xC6; 16]), vec![0, 3, 300]);
    let piece = Changeset {
        piece: Some(Piece { whole, places }),
        ..every_operation.clone()
    };
    vec![
        ("every_operation", every_operation),
        ("empty", plain),
        ("after", after),
        ("piece", piece),
    ]
}

pub(super) fn row_bodies() -> Vec<(&'static str, RowBody)> {
    let columns = vec![
        (ColumnNumber(1), Value::Integer(42)),
        (ColumnNumber(3), Value::Null),
    ];
    let whole = RowState::Whole {
        columns: columns.clone(),
        owner: "ada".to_owned(),
        created: version(1),
    };
    let in_page = RowBody {
        table: TableNumber(1),
        key: key(),
        version: version(5),
        state: whole,
        author: "ada".to_owned(),
        changeset: ChangesetId::default(),
        hlc: Hlc::default(),
    };
    let in_log = |state| RowBody {
        state,
        changeset: ChangesetId([0xC5; 16]),
        hlc: Hlc(0x018B_CFE5_6800_0007),
        ..in_page.clone()
    };
    vec![
        ("in_page", in_page.clone()),
        ("columns", in_log(RowState::Columns(columns))),
        ("deleted", in_log(RowState::Deleted)),
        (
            "removed",
            RowBody {
                author: String::new(),
                ..in_log(RowState::Removed)
            },
        ),
        (
            "released",
            RowBody {
                author: String::new(),
                ..in_log(RowState::Released)
            },
        ),
    ]
}
