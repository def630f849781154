//! Bytes from strangers: an error, never a panic, never more memory than they deserve.

use minicbor::Encoder;
use proptest::{collection::vec, prelude::*, sample::Index};

use super::strategies as any_;
use crate::{
    change::{Change, Changeset, ColumnEdit, Edit, Op},
    ids::{ChangesetId, ColumnNumber, TableNumber, Version},
    key::{KEY_BYTES_MAX, RowKey},
    value::Value,
    wire::*,
};

fn decode_everything(bytes: &[u8]) {
    drop(decode_client(bytes));
    drop(decode_server(bytes));
    drop(decode_changeset(bytes));
    drop(RowBody::decode(bytes));
    let _ = RowBody::decode_all(bytes).count();
    drop(RowKey::from_bytes(bytes));
}

proptest! {
    #[test]
    fn wi5_no_bytes_make_a_decoder_panic(bytes in vec(any::<u8>(), 0..300)) {
        decode_everything(&bytes);
        for flag in [0, 1] {
            let mut framed = vec![flag];
            framed.extend(&bytes);
            decode_everything(&framed);
        }
    }

    #[test]
    fn wi5_no_damaged_message_makes_a_decoder_panic(
        message in any_::server_message(),
        hello in any_::client_message(),
        changeset in any_::changeset(),
        body in any_::row_body(),
        edits in vec((any::<Index>(), any::<u8>()), 1..4),
        cut in any::<Index>(),
    ) {
        let encoded = [
            encode_server(&message),
            encode_client(&hello),
            encode_changeset(&changeset),
            body.encode(),
        ];
        for mut bytes in encoded {
            decode_everything(&bytes[..cut.index(bytes.len())]);
            for (at, byte) in &edits {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            decode_everything(&bytes);
        }
    }

    #[test]
    fn wi5_a_frame_that_is_cut_or_continued_is_refused(
        message in any_::server_message(),
        cut in any::<Index>(),
        more in any::<u8>(),
    ) {
        let mut frame = encode_server(&message);
        prop_assert!(decode_server(&frame[..cut.index(frame.len())]).is_err());
        frame.push(more);
        prop_assert!(decode_server(&frame).is_err());
    }
}

#[test]
fn wi6_a_small_frame_that_inflates_without_bound_is_refused() {
    let bomb = encode_client(&ClientMessage::Push(Push {
        id: ChangesetId::default(),
        body: vec![0; CLIENT_INFLATED_BYTES_MAX],
        parts: 0,
    }));
    assert!(bomb.len() < 100_000, "{} bytes", bomb.len());
    let error = decode_client(&bomb).expect_err("inflates past the limit");
    assert_eq!(
        error,
        FrameError::TooLarge {
            limit: CLIENT_INFLATED_BYTES_MAX
        }
    );
    assert_eq!(error.code(), code::TOO_LARGE);
}

#[test]
fn wi6_a_false_length_allocates_nothing() {
    // An array of 2^63 cursors, in a Hello of a few bytes.
    let mut frame = vec![0];
    let mut e = Encoder::new(&mut frame);
    e.array(2)
        .unwrap()
        .u32(1)
        .unwrap()
        .map(1)
        .unwrap()
        .u32(8)
        .unwrap()
        .array(1 << 63)
        .unwrap();
    assert!(matches!(
        decode_client(&frame),
        Err(FrameError::Malformed { kind: Some(1), .. })
    ));
}

/// A frame of this kind whose one field, which no version knows, is `value`.
fn with_field(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[0, 0x82, kind, 0xA1, 0x19, 0x03, 0x84][..], value].concat()
}

#[test]
fn wi5_nothing_lies_deeper_than_the_limit() {
    // Message, map and 30 arrays are the 32 levels that there may be.
    let nested = |levels: usize| [vec![0x81; levels], vec![0x00]].concat();
    assert_eq!(
        decode_server(&with_field(20, &nested(30))),
        Ok(ServerMessage::Unknown(20))
    );
    assert!(decode_server(&with_field(20, &nested(31))).is_err());
    for value in [
        nested(1_000_000),
        vec![0x9F; 1_000_000],
        vec![0xBF; 1_000_000],
        vec![0xC1; 1_000_000],
        [0xA1, 0x00].repeat(1_000),
    ] {
        for kind in [6, 8, 20] {
            for error in [
                decode_client(&with_field(kind, &value)).expect_err("too deep"),
                decode_server(&with_field(kind, &value)).expect_err("too deep"),
            ] {
                assert!(
                    error.to_string().contains("nested deeper than 32"),
                    "{error}"
                );
            }
        }
        // Where a changeset or a row body skips what it does not know.
        let changeset = [&[0xA1, 0x18, 0x63][..], &value].concat();
        let error = decode_changeset(&changeset).expect_err("too deep");
        assert!(
            error.to_string().contains("nested deeper than 32"),
            "{error}"
        );
        let mut body = vec![0x88, 0x10, 0x4B, 0x02, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        body.extend([0x01, 0x60, 0xF6, 0x00, 0x02]);
        body.extend(&value);
        let error = RowBody::decode(&body).expect_err("too deep");
        assert!(
            error.to_string().contains("nested deeper than 32"),
            "{error}"
        );
    }
}

#[test]
fn wi5_a_list_from_a_client_has_its_limit() {
    let ClientMessage::Hello(hello) = super::golden::client_messages()
        .into_iter()
        .find_map(|(_, message)| matches!(message, ClientMessage::Hello(_)).then_some(message))
        .expect("there is a Hello")
    else {
        unreachable!("it was a Hello")
    };
    let position = LoadPosition {
        bucket: None,
        table: TableNumber(16),
        after: None,
    };
    let sent = |cursors: usize, tables: usize, positions: usize| {
        let mut hello = hello.clone();
        hello.cursors = vec![crate::Cursor::default(); cursors];
        hello.tables = Some(vec![TableNumber(1); tables]);
        hello.loading = vec![position.clone(); positions];
        decode_client(&encode_client(&ClientMessage::Hello(hello)))
    };
    assert!(sent(CURSORS_MAX, TABLES_MAX, LOAD_POSITIONS_MAX).is_ok());
    for (answer, what) in [
        (sent(CURSORS_MAX + 1, 0, 0), "32 cursors"),
        (sent(0, TABLES_MAX + 1, 0), "10000 tables"),
        (sent(0, 0, LOAD_POSITIONS_MAX + 1), "20000 positions"),
    ] {
        let error = answer.expect_err(what).to_string();
        assert!(error.contains(&format!("more than {what}")), "{error}");
    }
    let load = |count| {
        let positions = vec![position.clone(); count];
        decode_client(&encode_client(&ClientMessage::Load(Load { positions })))
    };
    assert!(load(LOAD_POSITIONS_MAX).is_ok());
    assert!(load(LOAD_POSITIONS_MAX + 1).is_err());
}

#[test]
fn wi5_a_subscription_names_no_longer_key_than_there_can_be() {
    let one = |length| Subscription {
        table: TableNumber(16),
        column: None,
        key: Some(vec![0; length]),
    };
    let subscribe = |add, drop| {
        let number = 1;
        decode_client(&encode_client(&ClientMessage::Subscribe(Subscribe {
            number,
            add,
            drop,
        })))
    };
    let hello = |subscription| {
        let all = super::golden::client_messages();
        let mut hellos = all.into_iter().filter_map(|(_, message)| {
            let ClientMessage::Hello(hello) = message else {
                return None;
            };
            Some(hello)
        });
        let mut hello = hellos.next().expect("there is a Hello");
        hello.subscriptions = Some(vec![subscription]);
        decode_client(&encode_client(&ClientMessage::Hello(hello)))
    };
    let (longest, longer) = (one(KEY_BYTES_MAX), one(KEY_BYTES_MAX + 1));
    assert!(subscribe(vec![longest.clone()], vec![longest.clone()]).is_ok());
    assert!(hello(longest).is_ok());
    for refused in [
        subscribe(vec![longer.clone()], Vec::new()),
        subscribe(Vec::new(), vec![longer.clone()]),
        hello(longer),
    ] {
        let error = refused.expect_err("too long").to_string();
        assert!(error.contains("more than 8192 bytes"), "{error}");
    }
}

#[test]
fn wi5_versions_stay_below_their_limit() {
    let checkpoint = |version| {
        ServerMessage::Checkpoint(Checkpoint {
            cursor: crate::Cursor {
                version,
                ..crate::Cursor::default()
            },
            digests: Vec::new(),
            live: Vec::new(),
            caught_up: true,
            now: crate::Timestamp(0),
            loading: 0,
            subscribed: 0,
        })
    };
    let largest = checkpoint(Version(Version::LIMIT - 1));
    assert_eq!(decode_server(&encode_server(&largest)), Ok(largest));
    let error = decode_server(&encode_server(&checkpoint(Version(Version::LIMIT))))
        .expect_err("2^53 is no version");
    assert!(error.to_string().contains("below 2^53"), "{error}");
}

#[test]
fn wi5_unusual_frames_are_named() {
    assert_eq!(decode_client(&[]), Err(FrameError::Empty));
    assert_eq!(decode_client(&[2, 0]), Err(FrameError::UnknownFlag(2)));
    assert_eq!(decode_server(&[1, 0xFF]), Err(FrameError::Deflate));
    let not_a_pair = decode_client(&[0, 0x80]).expect_err("an empty array");
    assert!(
        not_a_pair.to_string().contains("a kind and a map"),
        "{not_a_pair}"
    );
}

fn one_change(op: Op) -> Changeset {
    let key = RowKey::encode(&[Value::Integer(1)]).unwrap();
    Changeset {
        id: ChangesetId([1; 16]),
        number: 1,
        depends: Vec::new(),
        hlc: crate::Hlc(0),
        changes: vec![Change {
            table: TableNumber(0),
            key,
            base: Version::ZERO,
            op,
        }],
        require_unchanged: false,
        may_be_applied_already: false,
        after: None,
        piece: None,
    }
}

#[track_caller]
fn refused(changeset: &Changeset, expected: &str) {
    let error = decode_changeset(&encode_changeset(changeset))
        .expect_err("refused")
        .to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn wi10_what_no_replica_would_send_is_refused() {
    let mut twice = one_change(Op::Delete);
    twice.changes.push(twice.changes[0].clone());
    refused(&twice, "two changes of one row");

    let edit = ColumnEdit {
        column: ColumnNumber(3),
        edit: Edit::Set(Value::Null),
    };
    refused(
        &one_change(Op::Update(vec![edit.clone(), edit])),
        "the columns of a change ascend",
    );

    let text = Edit::Add(Value::from("five"));
    let add = ColumnEdit {
        column: ColumnNumber(3),
        edit: text,
    };
    refused(
        &one_change(Op::Update(vec![add])),
        "a counter's difference is a number",
    );

    let mut future = one_change(Op::Delete);
    future.depends = vec![1];
    refused(&future, "earlier numbers only");

    let mut base = one_change(Op::Delete);
    base.changes[0].base = Version(Version::LIMIT);
    refused(&base, "below 2^53");
}

#[test]
fn wi10_a_changeset_has_at_most_the_stated_number_of_changes_and_edits() {
    let mut many = one_change(Op::Delete);
    many.changes = (0..=CHANGES_MAX)
        .map(|i| {
            let key = RowKey::encode(&[Value::Integer(i64::try_from(i).unwrap())]).unwrap();
            Change {
                table: TableNumber(0),
                key,
                base: Version::ZERO,
                op: Op::Delete,
            }
        })
        .collect();
    refused(&many, "more than 100000 changes");
    many.changes.pop();
    assert!(decode_changeset(&encode_changeset(&many)).is_ok());

    // A map that claims more edits than a changeset may have, without any.
    let mut wide = encode_changeset(&one_change(Op::Update(Vec::new())));
    assert_eq!(
        wide.pop(),
        Some(0xA0),
        "the empty map of edits ends the changeset"
    );
    Encoder::new(&mut wide).map(EDITS_MAX as u64 + 1).unwrap();
    let error = decode_changeset(&wide).expect_err("too many edits");
    assert_eq!(
        error,
        ChangesetError::TooLarge {
            what: "edits",
            limit: EDITS_MAX
        }
    );
}

#[test]
fn wi8_places_ascend_one_for_each_change() {
    let changeset = one_change(Op::Delete);
    let with_places = |numbers: &[u32]| {
        let mut bytes = encode_changeset(&changeset);
        bytes[0] += 1;
        let mut e = Encoder::new(&mut bytes);
        e.u32(8).unwrap().array(2).unwrap().bytes(&[7; 16]).unwrap();
        e.encode(numbers).unwrap();
        decode_changeset(&bytes).map_err(|error| error.to_string())
    };
    let piece = with_places(&[300, 1]).unwrap().piece.unwrap();
    assert_eq!((piece.whole.0, piece.places), ([7; 16], vec![300]));
    for (numbers, expected) in [
        (&[1][..], "first and count"),
        (&[4, 0], "each once"),
        (&[4, 2, 5, 1], "each once"),
        (&[4, 2, 1, 1], "each once"),
        (&[u32::MAX, 1], "no 32 bits"),
        (&[0, u32::MAX], "more than 100000 places"),
        (&[0, 60_000, 70_000, 60_000], "more than 100000 places"),
        (&[], "a place for each"),
        (&[4, 2], "a place for each"),
    ] {
        let error = with_places(numbers).expect_err("no places");
        assert!(error.contains(expected), "{numbers:?}: {error}");
    }
}

#[test]
fn wi12_a_default_or_check_that_is_more_than_an_expression_is_left_out() {
    let column = |text: &str| ColumnInfo {
        name: "a".into(),
        number: 1,
        ty: "text".into(),
        not_null: false,
        default: Some(text.into()),
        check: Some(text.into()),
        collate: Some("x\"); DROP TABLE t; --".into()),
        generated: true,
        computed: Some(ComputedInfo {
            expression: text.into(),
            stored: false,
        }),
        declared: Some(text.into()),
        encrypted: None,
        merge: "last-write-wins".into(),
        merge_paths: Vec::new(),
    };
    let table = |text: &str| TableInfo {
        name: "t\"; DROP TABLE u; --".into(),
        number: 16,
        columns: vec![column(text)],
        primary_key: vec![0],
        uniques: Vec::new(),
        indexes: Vec::new(),
        foreign_keys: Vec::new(),
        without_rowid: false,
        autoincrement: false,
        further_indexes: Some(vec![FurtherIndexInfo {
            unique: true,
            terms: text.into(),
            condition: Some(text.into()),
        }]),
        checks: Some(vec![text.into()]),
        strict: None,
        on_demand: false,
        update_wins: false,
    };
    let created = |text: &str| {
        let tables = vec![table(text)];
        let schema = SchemaInfo { tables }.to_schema();
        let indexes = crate::sql::create_indexes(&schema.tables[0]);
        std::iter::once(crate::sql::create_table(&schema.tables[0]))
            .chain(indexes)
            .collect::<Vec<_>>()
            .join("\n")
    };
    for text in [
        "1); ATTACH 'x' AS y; --",
        "1 --",
        "'",
        "1)) STRICT; --",
        "$a(')",
    ] {
        let sql = created(text);
        for word in ["DEFAULT", "CHECK", "INDEX", "GENERATED", "x'"] {
            assert!(!sql.contains(word), "{sql}");
        }
    }
    let sql = created("length(a) < 9");
    assert!(
        sql.contains("DEFAULT (length(a) < 9) CHECK (length(a) < 9)"),
        "{sql}"
    );
    // Names end where their quotes do.
    let names = crate::sql::tokens(&sql);
    let semicolons = names.iter().filter(|token| token.is_symbol(";")).count();
    assert_eq!(semicolons, 0, "{sql}");
}
