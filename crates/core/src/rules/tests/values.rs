//! How values compare, and what the token's values are.

use rusqlite::Connection;
use serde_json::json;

use super::testkit::{Db, schema, table, user};
use crate::{
    rules::{
        Identity,
        cond::Comparison,
        term::{Seen, Shape, UserSource, UserTerm},
    },
    schema::ColumnType,
    value::Value,
};

fn values() -> Vec<Value> {
    let mut values = vec![Value::Null];
    let integers = [0, 1, -1, 2, i64::MAX, i64::MIN, (1 << 53) + 1, 1 << 60];
    values.extend(integers.map(Value::from));
    let powers = [
        0.0,
        1.0,
        -1.0,
        0.5,
        1.5,
        -0.5,
        9_007_199_254_740_992.0,
        9.223_372_036_854_776e18,
    ];
    values.extend(powers.map(Value::from));
    values.extend([-9.223_372_036_854_776e18, 1e300, -1e300, f64::INFINITY].map(Value::from));
    values.extend(["", "1", "1.0", "a", "A", "ä", "a\0b", "ab"].map(Value::from));
    values.extend([vec![], vec![0x31], vec![0x61], vec![0xff]].map(Value::Blob));
    values
}

#[test]
fn ru5_values_compare_as_sqlite_compares_them_without_affinity() {
    let sql = Connection::open_in_memory().unwrap();
    let ops = [
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::Less,
        Comparison::LessOrEqual,
        Comparison::Greater,
        Comparison::GreaterOrEqual,
    ];
    for a in &values() {
        for b in &values() {
            for op in ops {
                let query = format!("SELECT ?1 {} ?2", op.sql());
                let theirs: Option<bool> = sql.query_row(&query, [a, b], |row| row.get(0)).unwrap();
                let ours = Seen::from(a).compare(&Seen::from(b)).map(|o| op.allows(o));
                assert_eq!(ours, theirs, "{a:?} {} {b:?}", op.sql());
            }
        }
    }
}

#[test]
fn ru6_every_canonical_value_that_equals_another_is_looked_up_and_hashed_alike() {
    let types = [
        ColumnType::Text,
        ColumnType::Integer,
        ColumnType::Real,
        ColumnType::Boolean,
        ColumnType::Blob,
        ColumnType::Timestamp,
        ColumnType::Any,
    ];
    for a in &values() {
        for b in &values() {
            let (mut left, mut right) = (Vec::new(), Vec::new());
            let hashed = Seen::from(a).encode(&mut left) && Seen::from(b).encode(&mut right);
            let equal = Seen::from(a).equals(&Seen::from(b));
            assert_eq!(hashed && left == right, equal, "{a:?} {b:?}");
            for ty in types {
                let stored = b.clone().canonical(ty);
                let equal = Seen::from(a).equals(&Seen::from(&stored));
                let found = Seen::from(a).forms(ty).contains(&stored);
                assert_eq!(found, equal, "{a:?} looked up where {stored:?} is, {ty:?}");
            }
        }
    }
}

#[test]
fn ru8_claims_are_read_as_what_they_are_compared_with() {
    let shapes = [
        Shape::Text,
        Shape::Uuid,
        Shape::Number,
        Shape::Boolean,
        Shape::Natural,
    ];
    let claims = [
        json!("a"),
        json!("7"),
        json!("07"),
        json!("-7.5"),
        json!("1e3"),
        json!("9223372036854775808"),
        json!("true"),
        json!("0A0B0C0D-0000-0000-0000-000000000001"),
        json!(7),
        json!(7.5),
        json!(18_446_744_073_709_551_615_u64),
        json!(true),
        json!(null),
        json!({}),
        json!(["a"]),
    ];
    let mut lines = Vec::new();
    for claim in claims {
        let identity = Identity::default().claim("x", claim.clone());
        let read = shapes.map(|shape| {
            let term = UserTerm {
                source: UserSource::Claim(vec!["x".into()]),
                shape,
            };
            format!("{:?}", term.of(&identity).into_value())
        });
        lines.push(format!("{claim}: {}", read.join(", ")));
    }
    insta::assert_snapshot!(lines.join("\n"), @r#"
    "a": Text("a"), Text("a"), Null, Null, Text("a")
    "7": Text("7"), Text("7"), Integer(7), Null, Text("7")
    "07": Text("07"), Text("07"), Null, Null, Text("07")
    "-7.5": Text("-7.5"), Text("-7.5"), Real(-7.5), Null, Text("-7.5")
    "1e3": Text("1e3"), Text("1e3"), Null, Null, Text("1e3")
    "9223372036854775808": Text("9223372036854775808"), Text("9223372036854775808"), Null, Null, Text("9223372036854775808")
    "true": Text("true"), Text("true"), Null, Integer(1), Text("true")
    "0A0B0C0D-0000-0000-0000-000000000001": Text("0A0B0C0D-0000-0000-0000-000000000001"), Text("0a0b0c0d-0000-0000-0000-000000000001"), Null, Null, Text("0A0B0C0D-0000-0000-0000-000000000001")
    7: Text("7"), Text("7"), Integer(7), Null, Integer(7)
    7.5: Text("7.5"), Text("7.5"), Real(7.5), Null, Real(7.5)
    18446744073709551615: Text("18446744073709551615"), Text("18446744073709551615"), Null, Null, Null
    true: Text("true"), Text("true"), Null, Integer(1), Integer(1)
    null: Null, Null, Null, Null, Null
    {}: Null, Null, Null, Null, Null
    ["a"]: Null, Null, Null, Null, Null
    "#);
}

#[test]
fn ru8_the_user_and_the_role() {
    let of = |identity: &Identity, source: UserSource| {
        UserTerm {
            source,
            shape: Shape::Text,
        }
        .of(identity)
        .into_value()
    };
    let nobody = Identity::default();
    assert_eq!(of(&nobody, UserSource::Uid), Value::Null);
    assert_eq!(of(&nobody, UserSource::Role), "anon".into());
    assert_eq!(of(&user("ann"), UserSource::Uid), "ann".into());
    assert_eq!(of(&user("ann"), UserSource::Role), "authenticated".into());
    assert_eq!(
        of(&user("ann").claim("role", json!("admin")), UserSource::Role),
        "admin".into()
    );
    let nested = user("ann").claim("app", json!({ "a": { "b": "c" } }));
    let path = |path: &[&str]| UserSource::Claim(path.iter().map(|&p| p.into()).collect());
    assert_eq!(of(&nested, path(&["app", "a", "b"])), "c".into());
    assert_eq!(of(&nested, path(&["app", "a"])), Value::Null);
    assert_eq!(of(&nested, path(&["app", "x", "b"])), Value::Null);
}

#[test]
fn ru8_two_subjects_are_never_one_user_to_a_number_column() {
    let mut db = Db::new(schema([
        table("t", "id text, user_id integer").read("user_id = auth.uid()")
    ]));
    let row = db.insert("t", "", ["r".into(), 7.into()]);
    assert!(db.sees(&user("7"), &row));
    for other in ["07", "+7", " 7", "7.0", "7e0", "seven", ""] {
        assert!(!db.sees(&user(other), &row), "{other:?}");
    }
}

#[test]
fn ru12_unknown_is_not_true_even_negated() {
    let rules = [
        ("name = 'x'", false),
        ("NOT (name = 'x')", false),
        ("NOT (name = 'x' AND id = 'r')", false),
        ("NOT (name = 'x' AND id = 's')", true),
        ("name = 'x' OR id = 'r'", true),
        ("name IS NULL", true),
        ("NOT (name IS NOT NULL)", true),
        ("name NOT IN ('x', 'y')", false),
        ("NOT done", false),
        ("done IS NOT TRUE", true),
        ("NOT (done IS TRUE)", true),
        ("done IS FALSE", false),
        ("name BETWEEN 'a' AND 'z'", false),
        ("NOT name BETWEEN 'a' AND 'z'", false),
    ];
    for (rule, expected) in rules {
        let mut db = Db::new(schema([
            table("t", "id text, name text, done boolean").read(rule)
        ]));
        let row = db.insert("t", "", ["r".into(), Value::Null, Value::Null]);
        assert_eq!(db.sees(&Identity::default(), &row), expected, "{rule}");
    }
}

#[test]
fn ru4_moments_compare_with_text() {
    let rules = [
        ("_created_at = 1000", true),
        ("_created_at >= '1970-01-01T00:00:00.001Z'", true),
        ("_created_at > '1970-01-01T00:00:00.001Z'", false),
        ("_created_at < '1970-01-02'", true),
        ("_last_modified_at = '1970-01-01 00:00:00.002Z'", true),
        (
            "_version = 2000 AND _last_modified_by = 'ann' AND _owner = 'ann'",
            true,
        ),
        ("_created_at > '2000-02-29'", false),
    ];
    for (rule, expected) in rules {
        let mut db = Db::new(schema([table("t", "id text").read(rule)]));
        let row = db.insert("t", "ann", ["r".into()]);
        assert_eq!(db.sees(&Identity::default(), &row), expected, "{rule}");
    }
}
