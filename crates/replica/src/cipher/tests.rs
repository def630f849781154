//! Rules EN2 of docs/spec/encryption.md.

use proptest::prelude::*;
use syncline_core::{RowKey, Value, envelope};

use super::{Cell, EncryptionKey, Keyring, Unreadable, padded_length};

fn keys(first: u8) -> Keyring {
    Keyring::new(&EncryptionKey::new([first; 32]), &[])
}

fn row(id: &str) -> RowKey {
    RowKey::encode(&[Value::Text(id.into())]).expect("a key")
}

fn cell(key: &RowKey) -> Cell<'_> {
    let (table, column) = ("people", "notes");
    Cell { table, column, key }
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::Integer),
        any::<u64>().prop_map(|bits| Value::Real(f64::from_bits(bits))),
        any::<String>().prop_map(Value::Text),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(Value::Blob),
        // What looks like padding or like an envelope.
        proptest::collection::vec(prop_oneof![Just(0), Just(0x80), Just(0xE1)], 0..80)
            .prop_map(Value::Blob),
    ]
}

/// Bit for bit: NaN is a value, too.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Real(a), Value::Real(b)) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}

proptest! {
    #[test]
    fn en2_what_was_sealed_opens_as_it_was_and_always_looks_the_same(value in value()) {
        let (keys, key) = (keys(7), row("p1"));
        let sealed = keys.seal(&cell(&key), &value).expect("a key");
        prop_assert!(envelope::is_sealed(&Value::Blob(sealed.clone())));
        prop_assert_eq!(Some(sealed.clone()), keys.seal(&cell(&key), &value));
        let (opened, is_current) = keys.open(&cell(&key), &sealed).expect("its own envelope");
        prop_assert!(is_current && same(&opened, &value), "{opened:?}");
    }

    #[test]
    fn en2_an_envelope_opens_nowhere_else_and_not_once_it_was_changed(
        value in value(),
        at in any::<prop::sample::Index>(),
        flip in 1..=255_u8,
    ) {
        let (keys, key, other) = (keys(7), row("p1"), row("p2"));
        let sealed = keys.seal(&cell(&key), &value).expect("a key");
        let elsewhere = [
            Cell { table: "persons", ..cell(&key) },
            Cell { column: "salary", ..cell(&key) },
            // What is joined otherwise is another cell.
            Cell { table: "peoplen", column: "otes", ..cell(&key) },
            cell(&other),
        ];
        for cell in elsewhere {
            prop_assert!(matches!(keys.open(&cell, &sealed), Err(Unreadable::Forged(_))));
        }
        prop_assert!(matches!(
            self::keys(8).open(&cell(&key), &sealed),
            Err(Unreadable::UnknownKey(_))
        ));
        let mut changed = sealed.clone();
        let at = at.index(changed.len());
        changed[at] ^= flip;
        prop_assert!(keys.open(&cell(&key), &changed).is_err());
        prop_assert!(keys.open(&cell(&key), &sealed[..sealed.len() - 1]).is_err());
    }

    #[test]
    fn en2_bytes_of_strangers_open_as_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (keys, key) = (keys(7), row("p1"));
        prop_assert!(keys.open(&cell(&key), &bytes).is_err());
        let id = keys.ids().next().expect("a key");
        let mut named = vec![envelope::FORMAT];
        named.extend(id.0);
        named.extend(bytes);
        prop_assert!(keys.open(&cell(&key), &named).is_err());
    }

    #[test]
    fn en2_the_length_says_little(length in 1..200_000_usize) {
        let padded = padded_length(length);
        prop_assert!(padded >= length && padded >= 32);
        prop_assert!(padded <= 32 || padded * 8 <= length * 9 + 8, "{length} became {padded}");
        prop_assert!(padded_length(padded) == padded);
    }
}

#[test]
fn en2_numbers_and_short_texts_are_of_one_length() {
    let (keys, key) = (keys(7), row("p1"));
    let values = [
        Value::Integer(0),
        Value::Integer(i64::MIN),
        Value::Real(1.5),
        Value::Text("".into()),
        Value::Text("a short note of thirty letters".into()),
        Value::Blob(vec![0; 30]),
    ];
    for value in values {
        let sealed = keys.seal(&cell(&key), &value).expect("a key");
        assert_eq!(sealed.len(), envelope::HEAD_BYTES + 32, "{value:?}");
    }
    assert_eq!(keys.seal(&cell(&key), &Value::Null), None);
}

/// The format, so that a change of it is noticed: files of servers have such envelopes.
#[test]
fn en2_the_envelope_of_a_known_value_is_this_one() {
    let (keys, key) = (keys(7), row("p1"));
    let sealed = keys
        .seal(&cell(&key), &Value::Text("hello".into()))
        .expect("a key");
    let hex: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
    insta::assert_snapshot!(hex);
}

#[test]
fn en7_older_keys_open_and_the_first_one_seals() {
    let (old, new) = (EncryptionKey::new([1; 32]), EncryptionKey::new([2; 32]));
    let (before, after) = (
        Keyring::new(&old, &[]),
        Keyring::new(&new, std::slice::from_ref(&old)),
    );
    let key = row("p1");
    let value = Value::Integer(5);
    let sealed = before.seal(&cell(&key), &value).expect("a key");
    assert_eq!(after.open(&cell(&key), &sealed), Ok((value.clone(), false)));
    let again = after.seal(&cell(&key), &value).expect("a key");
    assert_eq!(
        before.open(&cell(&key), &again),
        Err(Unreadable::UnknownKey(new.id()))
    );
}

#[test]
fn en8_a_key_is_never_shown_and_its_text_is_read_again() {
    let key = EncryptionKey::new(std::array::from_fn(|i| {
        u8::try_from(i).expect("below 32") * 7
    }));
    let text = key.to_text();
    assert_eq!(text.parse::<EncryptionKey>().as_ref(), Ok(&key));
    let shown = format!("{key:?} {:?}", Keyring::new(&key, &[]));
    assert!(
        !shown.contains(&text["syncline-key-".len()..][..8]),
        "{shown}"
    );
    for bad in [
        "",
        "syncline-key-",
        "syncline-key-00",
        &text[1..],
        &format!("{}g", &text[..text.len() - 1]),
    ] {
        assert!(bad.parse::<EncryptionKey>().is_err(), "{bad}");
    }
}
