//! Canonical values against what SQLite really stores, and the vectors of the specification.

use proptest::prelude::*;
use rusqlite::{
    Connection,
    types::{ToSqlOutput, Value as Sql, ValueRef},
};

use super::*;
use crate::{sql::declared_type, vectors};

fn any_value() -> impl Strategy<Value = Value> {
    let numeric_text = prop_oneof![
        "[ \t]{0,2}[+-]?[0-9]{0,20}",
        "[+-]?[0-9]{0,6}\\.?[0-9]{0,6}(e[+-]?[0-9]{1,2})? ?",
        "[0-9x+.eE-]{0,8}",
        "[0-9 .e\\x00]{0,6}",
        Just("0x10".to_owned()),
        Just("inf".to_owned()),
        Just("nan".to_owned()),
        Just("1\0".to_owned()),
        Just("\u{a0}1".to_owned()),
    ];
    let uuid =
        "[{]?[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}[}]?";
    let real = prop_oneof![
        any::<f64>(),
        (-1000i32..1000, -3..3i32).prop_map(|(n, e)| f64::from(n) * 10f64.powi(e)),
        any::<i64>().prop_map(|n| n as f64),
        prop::sample::select(vec![
            0.0,
            -0.0,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
            9_223_372_036_854_774_784.0,
            9_223_372_036_854_775_808.0,
            -9_223_372_036_854_775_808.0,
            5e-324,
        ]),
    ];
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::Integer),
        prop::sample::select(vec![0, 1, i64::MAX, i64::MIN, 1 << 53, (1 << 53) + 1])
            .prop_map(Value::Integer),
        real.prop_map(Value::Real),
        numeric_text.prop_map(Value::Text),
        uuid.prop_map(Value::Text),
        ".{0,8}".prop_map(Value::Text),
        prop::collection::vec(any::<u8>(), 0..6).prop_map(Value::Blob),
    ]
}

fn any_type() -> impl Strategy<Value = ColumnType> {
    prop::sample::select(ColumnType::ALL)
}

/// A table with a column of each type, named after it.
fn database() -> Connection {
    let columns: Vec<_> = ColumnType::ALL
        .iter()
        .map(|&ty| format!("\"{}\" {}", ty.as_str(), declared_type(ty)))
        .collect();
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch(&format!("CREATE TABLE t({})", columns.join(", ")))
        .unwrap();
    db
}

thread_local! {
    static DATABASE: Connection = database();
}

fn stored(value: &Value, ty: ColumnType) -> Value {
    DATABASE.with(|db| {
        let bound = match value.clone() {
            Value::Null => ToSqlOutput::Owned(Sql::Null),
            Value::Integer(n) => ToSqlOutput::Owned(Sql::Integer(n)),
            Value::Real(x) => ToSqlOutput::Owned(Sql::Real(x)),
            Value::Text(text) => ToSqlOutput::Owned(Sql::Text(text)),
            Value::Blob(bytes) => ToSqlOutput::Owned(Sql::Blob(bytes)),
        };
        db.execute("DELETE FROM t", []).unwrap();
        let column = ty.as_str();
        db.execute(&format!("INSERT INTO t(\"{column}\") VALUES (?)"), [bound])
            .unwrap();
        db.query_row(&format!("SELECT \"{column}\" FROM t"), [], |row| {
            Ok(match row.get_ref(0)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(n) => Value::Integer(n),
                ValueRef::Real(x) => Value::Real(x),
                ValueRef::Text(text) => Value::Text(String::from_utf8(text.to_vec()).unwrap()),
                ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
            })
        })
        .unwrap()
    })
}

/// What CE1 compares.
fn class_and_bytes(value: &Value) -> (u8, Vec<u8>) {
    match value {
        Value::Null => (1, Vec::new()),
        Value::Integer(n) => (2, n.to_le_bytes().to_vec()),
        Value::Real(x) => (3, x.to_bits().to_le_bytes().to_vec()),
        Value::Text(text) => (4, text.clone().into_bytes()),
        Value::Blob(bytes) => (5, bytes.clone()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn ce2_canonical_twice_is_canonical_once(value in any_value(), ty in any_type()) {
        let once = value.clone().canonical(ty);
        prop_assert!(!value.is_surely_canonical(ty) || once == value);
        prop_assert_eq!(once.clone().canonical(ty), once);
    }

    #[test]
    fn ce2_sqlite_stores_canonical_values_as_they_are(value in any_value(), ty in any_type()) {
        let canonical = value.canonical(ty);
        prop_assert_eq!(stored(&canonical, ty), canonical);
    }

    /// Whatever a program writes into a declared column is as canonical as what it meant to write.
    #[test]
    fn ce2_what_sqlite_stores_is_as_canonical_as_what_was_written(
        value in any_value(),
        ty in any_type(),
    ) {
        // SQLite rounds reals to 15 or 17 digits when it makes them text; see CE6.
        prop_assume!(!(matches!(value, Value::Real(_)) && declared_type(ty) == "TEXT"));
        prop_assert_eq!(stored(&value, ty).canonical(ty), value.canonical(ty));
    }

    #[test]
    fn ce1_values_are_the_same_exactly_when_class_and_bytes_are(
        a in any_value(),
        b in any_value(),
        ty in any_type(),
    ) {
        for (a, b) in [(a.clone(), b.clone()), (a.clone().canonical(ty), b.canonical(ty)), (a.clone(), a)] {
            prop_assert_eq!(a == b, class_and_bytes(&a) == class_and_bytes(&b), "{:?} {:?}", a, b);
        }
    }

    #[test]
    fn ce3_no_canonical_value_is_nan_or_minus_zero(value in any_value(), ty in any_type()) {
        if let Value::Real(x) = value.canonical(ty) {
            prop_assert!(!x.is_nan());
            prop_assert!(x != 0.0 || x.is_sign_positive());
        }
    }

    #[test]
    fn ce4_whole_numbers_are_integers_however_they_are_written(
        n in prop_oneof![any::<i64>(), -1000..1000i64],
        spaces in "[ \\t\\n\\r]{0,2}",
        ty in prop::sample::select(vec![
            ColumnType::Integer,
            ColumnType::Boolean,
            ColumnType::Timestamp,
        ]),
    ) {
        let integer = Value::Integer(n);
        prop_assert_eq!(integer.clone().canonical(ty), integer.clone());
        let texts = [
            format!("{spaces}{n}{spaces}"),
            format!("{n:+}"),
            format!("{n}\0 and more"),
        ];
        for text in texts {
            prop_assert_eq!(Value::from(text).canonical(ty), integer.clone());
        }
        // As a double only where the double is that number.
        #[expect(clippy::cast_precision_loss, reason = "compared with what it became")]
        let x = n as f64;
        let expected = if x < 9_223_372_036_854_775_808.0 && x > -9_223_372_036_854_775_808.0 {
            #[expect(clippy::cast_possible_truncation, reason = "in range")]
            Value::Integer(x as i64)
        } else {
            Value::Real(x)
        };
        prop_assert_eq!(Value::Real(x).canonical(ty), expected);
    }

    #[test]
    fn ce5_a_real_column_holds_reals(n in any::<i64>(), x in any::<f64>()) {
        #[expect(clippy::cast_precision_loss, reason = "what the column does")]
        let nearest = n as f64;
        for written in [Value::Integer(n), Value::from(n.to_string())] {
            prop_assert_eq!(written.canonical(ColumnType::Real), Value::Real(nearest));
        }
        prop_assume!(x.is_finite());
        for text in [format!("{x}"), format!(" {x:e} "), format!("{x:?}")] {
            prop_assert_eq!(Value::from(text).canonical(ColumnType::Real), Value::Real(x + 0.0));
        }
    }

    #[test]
    fn ce7_text_is_never_normalised(value in ".{0,12}", spaces in "[ \\t\\x00\u{a0}]{0,2}") {
        let text = format!("{spaces}{value}{spaces}");
        for ty in [ColumnType::Text, ColumnType::Json, ColumnType::Blob, ColumnType::Any] {
            prop_assert_eq!(Value::from(&*text).canonical(ty), Value::from(&*text));
        }
    }

    #[test]
    fn ce8_every_spelling_of_a_uuid_is_one_value(
        bytes in any::<[u8; 16]>(),
        hyphens in prop::collection::vec(any::<bool>(), 7),
        upper in prop::collection::vec(any::<bool>(), 32),
        braces in any::<bool>(),
    ) {
        let digits = crate::ids::ChangesetId(bytes).to_string();
        let mut spelled = String::new();
        for (i, digit) in digits.chars().enumerate() {
            if i % 4 == 0 && i > 0 && hyphens[i / 4 - 1] {
                spelled.push('-');
            }
            spelled.push(if upper[i] { digit.to_ascii_uppercase() } else { digit });
        }
        let expected = format!(
            "{}-{}-{}-{}-{}",
            &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]
        );
        if braces {
            spelled = format!("{{{spelled}}}");
        }
        prop_assert_eq!(Value::from(&*spelled).canonical(ColumnType::Uuid), Value::from(expected));
        // What is nearly one stays as it is.
        for other in [
            format!("{spelled}0"),
            format!(" {spelled}"),
            format!("{{{spelled}"),
            format!("-{spelled}"),
            spelled.replacen(['0', '1', '2', '3', '4', '5', '6', '7'], "g", 1),
        ] {
            if other != spelled {
                prop_assert_eq!(Value::from(&*other).canonical(ColumnType::Uuid), Value::from(other));
            }
        }
        let blob = Value::Blob(bytes.to_vec());
        prop_assert_eq!(blob.clone().canonical(ColumnType::Uuid), blob);
    }

    #[test]
    fn ce9_blob_and_any_change_nothing_but_nan_and_minus_zero(value in any_value()) {
        let expected = match &value {
            Value::Real(x) if x.is_nan() => Value::Null,
            Value::Real(x) if *x == 0.0 => Value::Real(0.0),
            Value::Real(_) | Value::Null | Value::Integer(_) | Value::Text(_) | Value::Blob(_) => value.clone(),
        };
        for ty in [ColumnType::Blob, ColumnType::Any] {
            prop_assert_eq!(value.clone().canonical(ty), expected.clone());
        }
    }

    #[test]
    fn ce6_reals_as_text_read_as_the_same_real(x in any::<f64>()) {
        prop_assume!(x.is_finite());
        let text = real_text(x);
        prop_assert_eq!(number(&text).map(real), Some(Value::Real(x + 0.0)), "{}", text);
    }

    /// Reals with few decimal digits; with more, SQLite shows the inexact seventeenth.
    #[test]
    fn ce6_short_reals_have_the_layout_sqlite_gives_them(
        n in -9_999..9_999i32,
        factor in prop_oneof![(0..6).prop_map(|e| 0.5f64.powi(e)), (0..17).prop_map(|e| 10f64.powi(e))],
    ) {
        let real = Value::Real(f64::from(n) * factor + 0.0);
        prop_assert_eq!(stored(&real, ColumnType::Text), real.canonical(ColumnType::Text));
    }
}

#[test]
fn ce3_nan_is_null_and_minus_zero_is_zero_in_every_type() {
    for &ty in ColumnType::ALL {
        assert_eq!(Value::Real(f64::NAN).canonical(ty), Value::Null);
        assert_eq!(Value::Real(-f64::NAN).canonical(ty), Value::Null);
        let zero = Value::Real(0.0).canonical(ty);
        assert_eq!(Value::Real(-0.0).canonical(ty), zero);
        assert_eq!(stored(&zero, ty), zero);
        let infinite = [f64::INFINITY, f64::NEG_INFINITY].map(|x| Value::Real(x).canonical(ty));
        if declared_type(ty) == "TEXT" {
            assert_eq!(infinite, [Value::from("Inf"), Value::from("-Inf")]);
        } else {
            assert_eq!(
                infinite,
                [f64::INFINITY, f64::NEG_INFINITY].map(Value::Real)
            );
        }
    }
}

#[test]
fn ce4_what_is_no_number_stays() {
    let texts = [
        "",
        " ",
        ".",
        "e5",
        "1e",
        "1e+",
        "+",
        "--1",
        "+-1",
        "1 2",
        "0x10",
        "0b1",
        "1_000",
        "inf",
        "nan",
        "Infinity",
        "\u{a0}1",
        "\u{661}",
        "½",
        "1,5",
        "true",
        "\x001",
        "2026-11-21",
        "2026-11-21T00:00:00Z",
        "10:00",
    ];
    for ty in [
        ColumnType::Integer,
        ColumnType::Boolean,
        ColumnType::Timestamp,
        ColumnType::Real,
    ] {
        for text in texts {
            let value = Value::from(text);
            assert_eq!(value.clone().canonical(ty), value, "{}", ty.as_str());
            assert_eq!(stored(&value, ty), value, "{}", ty.as_str());
        }
    }
    // Just past the integers on either side.
    for x in [
        9_223_372_036_854_775_808.0,
        -9_223_372_036_854_775_808.0,
        1e300,
        0.5,
    ] {
        let real = Value::Real(x);
        assert_eq!(real.clone().canonical(ColumnType::Integer), real);
        assert_eq!(stored(&real, ColumnType::Integer), real);
    }
}

#[test]
fn ce7_the_same_json_and_the_same_letter_are_different_texts() {
    for (ty, one, other) in [
        (ColumnType::Json, "{\"a\":1}", "{\"a\": 1}"),
        (ColumnType::Json, "1", "1.0"),
        (ColumnType::Text, "\u{e9}", "e\u{301}"),
        (ColumnType::Text, "a", "A"),
        (ColumnType::Text, "a", "a "),
        (ColumnType::Text, "a", "a\0"),
    ] {
        assert_ne!(
            Value::from(one).canonical(ty),
            Value::from(other).canonical(ty)
        );
    }
}

#[test]
fn ce_vectors_are_canonical_and_stored_as_such() {
    for (ty, value, canonical) in vectors::values() {
        assert_eq!(
            value.clone().canonical(ty),
            canonical,
            "{value:?} as {}",
            ty.as_str()
        );
        assert_eq!(
            stored(&canonical, ty),
            canonical,
            "{value:?} as {}",
            ty.as_str()
        );
    }
}
