//! Keys round trip, sort as SQLite sorts, and nothing else is taken for a key.

use proptest::{collection::vec, prelude::*, sample::Index};
use rusqlite::Connection;

use super::*;
use crate::{schema::ColumnType, vectors};

fn part() -> impl Strategy<Value = Value> {
    let edge = prop::sample::select(vec![0, 1, 1 << 53, (1 << 53) + 1, i64::MAX, i64::MIN]);
    prop_oneof![
        any::<i64>().prop_map(Value::Integer),
        (-5..5i64).prop_map(Value::Integer),
        (edge, -2..2i64).prop_map(|(n, d)| Value::Integer(n.saturating_add(d))),
        any::<f64>().prop_map(Value::Real),
        (-9..9i32).prop_map(|n| Value::Real(f64::from(n) / 2.0)),
        any::<i64>().prop_map(|n| Value::Real(n as f64)),
        "[a-c\0é\u{10FFFF}]{0,4}".prop_map(Value::Text),
        vec(prop_oneof![Just(0u8), Just(255), any::<u8>()], 0..4).prop_map(Value::Blob),
    ]
    .prop_map(|value| value.canonical(ColumnType::Any))
    .prop_filter("a key has no NULL", |value| !value.is_null())
}

/// The values as a key gives them back: integers wherever they are.
fn plain(values: &[Value]) -> Vec<Value> {
    let plain = |value: &Value| {
        let Value::Real(_) = value else {
            return value.clone();
        };
        let number = value.clone().canonical(ColumnType::Integer);
        let lowest = number == Value::Real(i64::MIN as f64);
        if lowest {
            Value::Integer(i64::MIN)
        } else {
            number
        }
    };
    values.iter().map(plain).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn ce10_keys_round_trip(values in vec(part(), 1..4)) {
        let key = RowKey::encode(&values).unwrap();
        prop_assert_eq!(key.decode().unwrap(), plain(&values));
        prop_assert_eq!(RowKey::encode(&key.decode().unwrap()).unwrap(), key.clone());
        prop_assert_eq!(RowKey::from_bytes(key.as_bytes()), Ok(key));
    }

    #[test]
    fn ce11_keys_sort_as_sqlite_sorts(a in vec(part(), 2..3), b in vec(part(), 2..3)) {
        let ours = RowKey::encode(&a).unwrap().cmp(&RowKey::encode(&b).unwrap());
        prop_assert_eq!(ours, sqlite_order(&a, &b), "{:?} against {:?}", a, b);
    }

    #[test]
    fn ce13_only_encodings_are_keys(
        values in vec(part(), 1..3),
        edits in vec((any::<Index>(), any::<u8>()), 1..3),
    ) {
        let mut bytes = RowKey::encode(&values).unwrap().as_bytes().to_vec();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(key) = RowKey::from_bytes(&bytes) {
            let again = RowKey::encode(&key.decode().unwrap()).unwrap();
            prop_assert_eq!(again.as_bytes(), bytes);
        }
    }
}

thread_local! {
    static DATABASE: Connection = Connection::open_in_memory().unwrap();
}

/// How SQLite orders two pairs without affinity.
fn sqlite_order(a: &[Value], b: &[Value]) -> std::cmp::Ordering {
    use rusqlite::types::Value as Sql;
    let sql = |value: &Value| match value.clone() {
        Value::Null => Sql::Null,
        Value::Integer(n) => Sql::Integer(n),
        Value::Real(x) => Sql::Real(x),
        Value::Text(text) => Sql::Text(text),
        Value::Blob(bytes) => Sql::Blob(bytes),
    };
    let values: Vec<_> = a.iter().chain(b).map(sql).collect();
    DATABASE.with(|db| {
        let (less, equal): (bool, bool) = db
            .query_row(
                "SELECT (?1, ?2) < (?3, ?4), (?1, ?2) = (?3, ?4)",
                rusqlite::params_from_iter(values),
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .unwrap();
        match (less, equal) {
            (_, true) => std::cmp::Ordering::Equal,
            (true, false) => std::cmp::Ordering::Less,
            (false, false) => std::cmp::Ordering::Greater,
        }
    })
}

#[test]
fn ce11_the_vectors_ascend() {
    let keys: Vec<_> = vectors::keys()
        .iter()
        .map(|values| RowKey::encode(values).unwrap())
        .collect();
    assert!(keys.is_sorted_by(|a, b| a < b));
}

#[test]
fn ce11_what_an_index_takes_for_equal_is_one_key() {
    let key = |value| RowKey::encode(&[value]).unwrap();
    assert_eq!(key(Value::Real(1.0)), key(Value::Integer(1)));
    assert_eq!(key(Value::Real(-0.0)), key(Value::Integer(0)));
    assert_ne!(key(Value::from("1")), key(Value::Integer(1)));
    assert_ne!(
        key(Value::from("a")),
        key(Value::from("A")),
        "collations are the database's"
    );
}

#[test]
fn ce12_null_and_too_long_are_no_keys() {
    assert_eq!(
        RowKey::encode(&[Value::Integer(1), Value::Null]),
        Err(KeyError::Null)
    );
    assert_eq!(
        RowKey::encode(&[Value::Real(f64::NAN)]),
        Err(KeyError::Null)
    );
    assert_eq!(RowKey::encode(&[]), Err(KeyError::Malformed));
    let longest = Value::Blob(vec![1; KEY_BYTES_MAX - 3]);
    let key = RowKey::encode(std::slice::from_ref(&longest)).unwrap();
    assert_eq!(key.as_bytes().len(), KEY_BYTES_MAX);
    assert_eq!(RowKey::from_bytes(key.as_bytes()), Ok(key));
    assert_eq!(
        RowKey::encode(&[longest, Value::from("")]),
        Err(KeyError::TooLong)
    );
    assert_eq!(
        RowKey::from_bytes(&[BLOB; KEY_BYTES_MAX + 1]),
        Err(KeyError::TooLong)
    );
}

#[test]
fn ce13_other_spellings_are_no_keys() {
    for bytes in [
        &b""[..],
        &[9],
        // A number cut short.
        &[NUMBER, 0, 0],
        // A text without end, with a wrong escape, not in UTF-8, cut inside a character by NUL.
        &[TEXT, b'a', 0],
        &[TEXT, 0, 1, 0, 0],
        &[TEXT, 0xFF, 0, 0],
        &[TEXT, 0xC3, 0, 0xFF, 0xA9, 0, 0],
        // −0.0, NaN, and 1.0 with a rest that it cannot have.
        &[NUMBER, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0],
        &[NUMBER, 0xFF, 0xF8, 0, 0, 0, 0, 0, 0, 0, 0],
        &[NUMBER, 0xBF, 0xF0, 0, 0, 0, 0, 0, 0, 0, 1],
    ] {
        assert_eq!(
            RowKey::from_bytes(bytes),
            Err(KeyError::Malformed),
            "{bytes:02x?}"
        );
    }
}

#[test]
fn a_key_is_shown_as_people_write_it() {
    let key = RowKey::encode(&[
        Value::Integer(-7),
        Value::Real(1.5),
        Value::from("two words"),
        Value::Blob(vec![0, 0xAB]),
    ])
    .unwrap();
    assert_eq!(key.to_string(), "-7,1.5,two words,x'00ab'");
    assert_eq!(format!("{key:?}"), "RowKey(-7,1.5,two words,x'00ab')");
}
