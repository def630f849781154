//! Values, edits and refusals byte by byte.

use minicbor::{Decoder, Encoder};
use proptest::prelude::*;

use super::strategies as any_;
use crate::{
    change::{Change, Changeset, ColumnEdit, Edit, MemberEdit, Op, PathEdit},
    ids::{ChangesetId, ColumnNumber, TableNumber, Version},
    key::RowKey,
    schema::ColumnType,
    value::Value,
    wire::{
        value::{decode_value, encode_value},
        *,
    },
};

fn encoded(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_value(&mut Encoder::new(&mut bytes), value);
    bytes
}

fn decoded(bytes: &[u8]) -> Option<Value> {
    let mut d = Decoder::new(bytes);
    let value = decode_value(&mut d).ok()?;
    (d.position() == bytes.len()).then_some(value)
}

proptest! {
    #[test]
    fn wi7_values_come_back_canonical(value in any_::value(), x in any::<f64>(), n in any::<i64>()) {
        prop_assert_eq!(decoded(&encoded(&value)), Some(value));
        let real = Value::Real(x);
        prop_assert_eq!(decoded(&encoded(&real)), Some(real.canonical(ColumnType::Any)));
        prop_assert_eq!(decoded(&encoded(&Value::Integer(n))), Some(Value::Integer(n)));
    }
}

#[test]
fn wi7_values_have_these_bytes() {
    for (value, bytes) in [
        (Value::Null, &[0xF6][..]),
        (Value::Integer(0), &[0x00]),
        (Value::Integer(-1), &[0x20]),
        (
            Value::Integer(i64::MAX),
            &[0x1B, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
        ),
        (
            Value::Integer(i64::MIN),
            &[0x3B, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
        ),
        // A whole number stays a float of 64 bits: 1.0 is not 1.
        (Value::Real(1.0), &[0xFB, 0x3F, 0xF0, 0, 0, 0, 0, 0, 0]),
        (Value::from("é"), &[0x62, 0xC3, 0xA9]),
        (Value::Blob(vec![0xFF]), &[0x41, 0xFF]),
    ] {
        assert_eq!(encoded(&value), bytes, "{value:?}");
        assert_eq!(decoded(bytes), Some(value));
    }
    let minus_zero = [0xFB, 0x80, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(decoded(&minus_zero), Some(Value::Real(0.0)));
    let not_a_number = [0xFB, 0x7F, 0xF8, 0, 0, 0, 0, 0, 1];
    assert_eq!(decoded(&not_a_number), Some(Value::Null));
}

#[test]
fn wi7_what_is_no_value_is_refused() {
    for bytes in [
        &[0xF5][..],                                          // true
        &[0xF7],                                              // undefined
        &[0xF9, 0x3C, 0x00],                                  // a float of 16 bits
        &[0xFA, 0x3F, 0x80, 0x00, 0x00],                      // a float of 32 bits
        &[0x1B, 0x80, 0, 0, 0, 0, 0, 0, 0],                   // 2^63
        &[0x3B, 0x80, 0, 0, 0, 0, 0, 0, 0],                   // -2^63 - 1
        &[0x80],                                              // []
        &[0xA0],                                              // {}
        &[0xC1, 0x00],                                        // a tag
        &[0x7F, 0x61, b'a', 0xFF],                            // a text of unknown length
        &[0x5F, 0x41, 0x01, 0xFF],                            // bytes of unknown length
        &[0x61, 0xFF],                                        // no UTF-8
        &[0x62, b'a'],                                        // cut short
        &[0x7B, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0], // longer than memory
        &[],
    ] {
        assert_eq!(decoded(bytes), None, "{bytes:02x?}");
    }
}

fn update(edits: Vec<ColumnEdit>) -> Changeset {
    Changeset {
        id: ChangesetId([1; 16]),
        number: 1,
        depends: Vec::new(),
        hlc: crate::Hlc(0),
        changes: vec![Change {
            table: TableNumber(16),
            key: RowKey::encode(&[Value::Integer(1)]).unwrap(),
            base: Version::ZERO,
            op: Op::Update(edits),
        }],
        require_unchanged: false,
        may_be_applied_already: false,
        after: None,
        piece: None,
    }
}

/// A changeset that ends with an edit of column 2, as these bytes.
fn with_edit(edit: &[u8]) -> Vec<u8> {
    let mut bytes = encode_changeset(&update(Vec::new()));
    assert_eq!(bytes.pop(), Some(0xA0), "the empty map of edits is last");
    bytes.extend([0xA1, 0x02]);
    bytes.extend(edit);
    bytes
}

fn member(edit: PathEdit) -> Edit {
    let path = "a.b".to_owned();
    Edit::Members(vec![MemberEdit { path, edit }])
}

#[test]
fn wi9_edits_have_these_bytes() {
    let items = |texts: &[&str]| {
        texts
            .iter()
            .map(|&text| text.to_owned())
            .collect::<Vec<_>>()
    };
    let path = |edit: &[u8]| [&[0x83, 0x05, 0x63, b'a', b'.', b'b'][..], edit].concat();
    for (edit, bytes) in [
        (Edit::Set(Value::from("x")), vec![0x61, b'x']),
        (Edit::Set(Value::Null), vec![0xF6]),
        (Edit::Add(Value::Integer(-3)), vec![0x82, 0x01, 0x22]),
        (
            Edit::Items {
                add: items(&["1"]),
                remove: items(&["2", "3"]),
            },
            vec![0x83, 0x02, 0x81, 0x61, b'1', 0x82, 0x61, b'2', 0x61, b'3'],
        ),
        (
            Edit::Append(items(&["1"])),
            vec![0x82, 0x03, 0x81, 0x61, b'1'],
        ),
        (
            Edit::Decide {
                base: Value::Null,
                new: Value::Integer(5),
            },
            vec![0x83, 0x04, 0xF6, 0x05],
        ),
        (
            member(PathEdit::Set("1".to_owned())),
            path(&[0x82, 0x06, 0x61, b'1']),
        ),
        (member(PathEdit::Remove), path(&[0x81, 0x07])),
        (
            member(PathEdit::Add(Value::Integer(1))),
            path(&[0x82, 0x01, 0x01]),
        ),
        (
            member(PathEdit::Append(items(&["1"]))),
            path(&[0x82, 0x03, 0x81, 0x61, b'1']),
        ),
        (
            member(PathEdit::Decide {
                base: None,
                new: Some("1".to_owned()),
            }),
            path(&[0x83, 0x04, 0xF6, 0x61, b'1']),
        ),
    ] {
        let column = ColumnNumber(2);
        let changeset = update(vec![ColumnEdit { column, edit }]);
        let expected = with_edit(&bytes);
        assert_eq!(encode_changeset(&changeset), expected, "{changeset:?}");
        assert_eq!(decode_changeset(&expected), Ok(changeset));
    }
}

#[test]
fn wi9_an_edit_of_another_kind_is_an_error() {
    let path = |edit: &[u8]| [&[0x83, 0x05, 0x61, b'a'][..], edit].concat();
    for edit in [
        vec![0x80],                                                       // no kind
        vec![0x81, 0x08],                                                 // a kind to come
        vec![0x82, 0x06, 0x61, b'1'], // set of a path, without one
        vec![0x81, 0x07],             // remove, without a path
        vec![0x83, 0x01, 0x01, 0x01], // add with one too many
        vec![0x81, 0x01],             // add of nothing
        vec![0x82, 0x01, 0x61, b'1'], // add of a text
        vec![0x82, 0x02, 0x80],       // items without removed ones
        vec![0x82, 0x03, 0x81, 0x01], // append of a number
        vec![0x82, 0x05, 0x61, b'a'], // a path without an edit
        vec![0x85, 0x05, 0x61, b'a', 0x81, 0x07, 0x61, b'a', 0x81, 0x07], // a path twice
        vec![0x9F, 0x01, 0x01, 0xFF], // unknown length
        path(&[0x01]),                // a bare value
        path(&[0x82, 0x06, 0x01]),    // no JSON text
        path(&[0x83, 0x05, 0x61, b'b', 0x07]), // members in members
        path(&[0x81, 0x08]),
    ] {
        let error = decode_changeset(&with_edit(&edit)).expect_err("no edit");
        assert!(matches!(error, ChangesetError::Malformed(_)), "{edit:02x?}");
        assert_eq!(error.code(), code::MALFORMED);
    }
}

/// The codes that the document lists.
fn documented() -> Vec<&'static str> {
    let spec = include_str!("../../../../../docs/spec/wire.md");
    let (_, table) = spec.split_once("| Code | Of | When |").unwrap();
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    rows.map(|row| row.split('`').nth(1).unwrap()).collect()
}

#[test]
fn wi14_every_code_is_documented_once() {
    let source = include_str!("../message/push.rs");
    let (_, module) = source.split_once("pub mod code {").unwrap();
    let (module, _) = module.split_once("\n}").unwrap();
    let mut defined: Vec<_> = module
        .lines()
        .filter_map(|line| line.split_once(": &str = \"")?.1.strip_suffix("\";"))
        .collect();
    let mut documented = documented();
    assert!(defined.contains(&code::MAYBE_APPLIED) && defined.len() > 15);
    defined.sort_unstable();
    documented.sort_unstable();
    assert_eq!(defined, documented);
}

#[test]
fn wi14_a_code_of_another_version_keeps_its_flags() {
    for (retry, fatal) in [(false, false), (true, false), (false, true), (true, true)] {
        let refusal = Refusal {
            code: "quota".to_owned(),
            message: "you have sent enough for today".to_owned(),
            retry,
            retry_after_ms: retry.then_some(86_400_000),
            change: (!fatal).then_some(2),
            fatal,
        };
        let whole = ServerMessage::Refusal(refusal.clone());
        assert_eq!(decode_server(&encode_server(&whole)), Ok(whole));
        let verdict = ServerMessage::PushResult(PushResult {
            id: ChangesetId([1; 16]),
            verdict: Verdict::Refused(refusal),
            lost: Vec::new(),
        });
        assert_eq!(decode_server(&encode_server(&verdict)), Ok(verdict));
    }
}
