//! The vectors of `docs/spec/canonical.md` and `testdata/canonical.json`: one list, checked
//! against this code, SQLite, the file and the document.
//!
//! After a deliberate change, `UPDATE_VECTORS=1 cargo test -p syncline-core vectors` writes both
//! anew. A vector that changed, rather than one that was added, makes old rows differ.

use std::{fmt::Write, fs, path::PathBuf};

use serde_json::{Value as Json, json};

use crate::{
    digest::{Digest, content_hash, next_tag, receipt},
    ids::{ChangesetId, ColumnNumber, TableNumber, Tag, Version},
    key::RowKey,
    row::Row,
    schema::{Column, ColumnType, MergeStrategy, RuleTexts, SyncMode, Table},
    value::Value,
};

fn text(text: &str) -> Value {
    Value::from(text)
}

/// Type of the column, value as written, canonical value.
pub(crate) fn values() -> Vec<(ColumnType, Value, Value)> {
    use ColumnType::*;
    use Value::{Blob as Bytes, Integer as Int, Null, Real as Double};
    const UUID: &str = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";
    vec![
        (Integer, Null, Null),
        (Integer, Int(i64::MIN), Int(i64::MIN)),
        (Integer, Double(3.0), Int(3)),
        (Integer, Double(-0.0), Int(0)),
        (Integer, Double(3.5), Double(3.5)),
        (Integer, Double(1e18), Int(1_000_000_000_000_000_000)),
        (
            Integer,
            Double(9_223_372_036_854_775_808.0),
            Double(9_223_372_036_854_775_808.0),
        ),
        (Integer, Double(f64::INFINITY), Double(f64::INFINITY)),
        (Integer, Double(f64::NAN), Null),
        (Integer, text(" 12 "), Int(12)),
        (Integer, text("1e3"), Int(1000)),
        (Integer, text("1.5"), Double(1.5)),
        (Integer, text("0x10"), text("0x10")),
        (Integer, text("twelve"), text("twelve")),
        (Integer, Bytes(b"12".to_vec()), Bytes(b"12".to_vec())),
        (Boolean, Int(1), Int(1)),
        (Boolean, Double(1.0), Int(1)),
        (Boolean, text("true"), text("true")),
        (
            Timestamp,
            text("2026-11-21T10:00:00.000Z"),
            text("2026-11-21T10:00:00.000Z"),
        ),
        (
            Timestamp,
            text("2026-11-21 10:00:00"),
            text("2026-11-21 10:00:00"),
        ),
        (Timestamp, Int(1_795_255_200_000), Int(1_795_255_200_000)),
        (Timestamp, text("20261121"), Int(20_261_121)),
        (Real, Int(3), Double(3.0)),
        (
            Real,
            Int(9_007_199_254_740_993),
            Double(9_007_199_254_740_992.0),
        ),
        (Real, Double(-0.0), Double(0.0)),
        (Real, Double(f64::NEG_INFINITY), Double(f64::NEG_INFINITY)),
        (Real, text("1e-3"), Double(0.001)),
        (Real, text("n/a"), text("n/a")),
        (Text, text("e\u{301}"), text("e\u{301}")),
        (Text, text("a\0b"), text("a\0b")),
        (Text, text(""), text("")),
        (Text, Int(12), text("12")),
        (Text, Double(1.0), text("1.0")),
        (Text, Double(1.5e300), text("1.5e+300")),
        (
            Json,
            text("{\"b\": 1, \"a\": 2}"),
            text("{\"b\": 1, \"a\": 2}"),
        ),
        (Json, text("5"), text("5")),
        (Json, Int(5), text("5")),
        (
            Uuid,
            text("3F2504E0-4F89-41D3-9A0C-0305E82C3301"),
            text(UUID),
        ),
        (Uuid, text("{3f2504e04f8941d39a0c0305e82c3301}"), text(UUID)),
        (
            Uuid,
            text("3f25-04e0-4f89-41d3-9a0c-0305-e82c-3301"),
            text(UUID),
        ),
        (
            Uuid,
            text("3f2504e0-4f89-41d3-9a0c"),
            text("3f2504e0-4f89-41d3-9a0c"),
        ),
        (Uuid, text("User-1"), text("User-1")),
        (Uuid, Bytes(vec![0x3f; 16]), Bytes(vec![0x3f; 16])),
        (Blob, Int(3), Int(3)),
        (Blob, text("12"), text("12")),
        (Any, Double(1.0), Double(1.0)),
        (Any, Int(1), Int(1)),
        (Any, Double(-0.0), Double(0.0)),
        (Any, text("1"), text("1")),
    ]
}

/// Keys in ascending order.
pub(crate) fn keys() -> Vec<Vec<Value>> {
    use Value::{Blob, Integer, Real};
    vec![
        vec![Real(f64::NEG_INFINITY)],
        vec![Integer(i64::MIN)],
        vec![Integer(-1)],
        vec![Real(-0.5)],
        vec![Integer(0)],
        vec![Integer(1)],
        vec![Integer(1), text("a")],
        vec![Integer(1), text("b")],
        vec![Real(1.5)],
        vec![Integer(2)],
        vec![Integer(9_007_199_254_740_992)],
        vec![Integer(9_007_199_254_740_993)],
        vec![Integer(i64::MAX)],
        vec![Real(9_223_372_036_854_775_808.0)],
        vec![Real(f64::INFINITY)],
        vec![text("")],
        vec![text(""), text("a")],
        vec![text("A")],
        vec![text("a")],
        vec![text("a\0")],
        vec![text("a\u{1}")],
        vec![text("aa")],
        vec![text("é")],
        vec![Blob(Vec::new())],
        vec![Blob(vec![0, 0xFF])],
        vec![Blob(vec![1])],
    ]
}

fn json(value: &Value) -> Json {
    match value {
        Value::Null => json!("null"),
        Value::Integer(n) => json!({ "integer": n.to_string() }),
        Value::Real(x) if x.is_nan() => json!({ "real": "NaN" }),
        Value::Real(x) => json!({ "real": format!("{x:?}") }),
        Value::Text(text) => json!({ "text": text }),
        Value::Blob(bytes) => json!({ "blob": hex(bytes) }),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").unwrap();
        out
    })
}

/// `integer` 3, as the document shows it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(n) => format!("integer `{n}`"),
        Value::Real(x) => format!("real `{x:?}`"),
        Value::Text(text) => format!("text `{}`", format!("{text:?}").replace("\\\"", "\"")),
        Value::Blob(bytes) => format!("blob `{}`", hex(bytes)),
    }
}

fn table() -> Table {
    let column = |number, ty| Column {
        name: format!("c{number}"),
        number: ColumnNumber(number),
        ty,
        not_null: false,
        default: None,
        check: None,
        collate: None,
        generated: number == 9,
        computed: None,
        declared: None,
        merge: MergeStrategy::LastWriteWins,
        encrypted: None,
        merge_paths: std::collections::BTreeMap::new(),
    };
    Table {
        name: "t".to_owned(),
        number: TableNumber(17),
        // Out of order on purpose: the hash goes by number.
        columns: vec![
            column(2, ColumnType::Text),
            column(1, ColumnType::Integer),
            column(3, ColumnType::Real),
            column(9, ColumnType::Text),
            column(4, ColumnType::Blob),
        ],
        primary_key: vec![1],
        uniques: Vec::new(),
        indexes: Vec::new(),
        foreign_keys: Vec::new(),
        without_rowid: false,
        autoincrement: false,
        further_indexes: Vec::new(),
        checks: Vec::new(),
        strict: false,
        sync: SyncMode::Auto,
        update_wins: false,
        rules: RuleTexts::default(),
        force: std::collections::BTreeMap::new(),
    }
}

fn all() -> Json {
    let values: Vec<_> = values()
        .iter()
        .map(|(ty, value, canonical)| {
            json!({ "type": ty.as_str(), "value": json(value), "canonical": json(canonical) })
        })
        .collect();
    let keys: Vec<_> = keys()
        .iter()
        .map(|values| {
            let key = RowKey::encode(values).unwrap();
            let values: Vec<_> = values.iter().map(json).collect();
            json!({ "values": values, "key": hex(key.as_bytes()) })
        })
        .collect();
    let (number, key) = (
        TableNumber(17),
        RowKey::encode(&[Value::Integer(42)]).unwrap(),
    );
    let version = Version(1_700_000_000_000_000);
    let row = Row(vec![
        text("title"),
        Value::Integer(42),
        Value::Null,
        text("generated"),
        Value::Blob(vec![0, 1]),
    ]);
    let changeset = ChangesetId([0xC5; 16]);
    let mut digest = Digest::default();
    digest.add(number, &key, version);
    digest.add(number, &key, Version(version.0 + 1));
    json!({
        "values": values,
        "keys": keys,
        "receipt": {
            "table": 17,
            "key": hex(key.as_bytes()),
            "version": version.0.to_string(),
            "receipt": receipt(number, &key, version).to_string(),
            "digest_with_next_version": {
                "count": digest.count.to_string(),
                "sum": digest.sum.to_string(),
            },
        },
        "content_hash": {
            "columns": { "1": json(&row.0[1]), "2": json(&row.0[0]), "3": "null", "4": json(&row.0[4]) },
            "hash": content_hash(&table(), &row).to_string(),
        },
        "tag": {
            "previous": "1111111111111111",
            "changeset": changeset.to_string(),
            "tag": next_tag(Tag([0x11; 8]), changeset).to_string(),
        },
    })
}

fn markdown() -> String {
    let mut out = String::from("| Column | Written | Canonical |\n|---|---|---|\n");
    for (ty, value, canonical) in values() {
        let (value, canonical) = (shown(&value), shown(&canonical));
        writeln!(out, "| {} | {value} | {canonical} |", ty.as_str()).unwrap();
    }
    out.push_str("\nKeys in their order:\n\n| Values | Encoded |\n|---|---|\n");
    for values in keys() {
        let key = RowKey::encode(&values).unwrap();
        let values: Vec<_> = values.iter().map(shown).collect();
        writeln!(out, "| {} | `{}` |", values.join(", "), hex(key.as_bytes())).unwrap();
    }
    out
}

const BEGIN: &str =
    "<!-- vectors: written by the test `ce_vectors_are_in_the_file_and_the_document` -->\n\n";
const END: &str = "\n<!-- end of vectors -->";

#[test]
fn ce_vectors_are_in_the_file_and_the_document() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (file, document) = (
        root.join("testdata/canonical.json"),
        root.join("docs/spec/canonical.md"),
    );
    let spec = fs::read_to_string(&document).unwrap();
    let (before, rest) = spec
        .split_once(BEGIN)
        .expect("the document has a place for the vectors");
    let (table, after) = rest.split_once(END).expect("the place has an end");
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        let json = serde_json::to_string_pretty(&all()).unwrap();
        fs::write(&file, json + "\n").unwrap();
        fs::write(
            &document,
            format!("{before}{BEGIN}{}{END}{after}", markdown()),
        )
        .unwrap();
    } else {
        assert_eq!(table, markdown());
    }
    let recorded: Json = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(recorded, all());
}

#[test]
fn di3_a_column_that_is_null_everywhere_changes_no_hash() {
    let mut table = table();
    let row = Row(vec![
        text("title"),
        Value::Integer(42),
        Value::Real(0.5),
        Value::Null,
        Value::Null,
    ]);
    let before = content_hash(&table, &row);
    table.columns.remove(4);
    assert_eq!(content_hash(&table, &Row(row.0[..4].to_vec())), before);
}

#[test]
fn di2_a_digest_forgets_order_and_what_was_taken_out() {
    let key = |n| RowKey::encode(&[Value::Integer(n)]).unwrap();
    let (mut one, mut other) = (Digest::default(), Digest::default());
    for n in 0..50 {
        one.add(TableNumber(1), &key(n), Version(7));
        other.add(TableNumber(1), &key(49 - n), Version(7));
    }
    other.add(TableNumber(1), &key(3), Version(8));
    assert_ne!(one, other);
    other.remove(TableNumber(1), &key(3), Version(8));
    assert_eq!(one, other);
}

#[test]
fn di1_a_receipt_is_the_hash_of_table_version_and_key() {
    let key = RowKey::encode(&[Value::Integer(1), text("a")]).unwrap();
    let mut bytes = vec![0x11, 0, 0, 0];
    bytes.extend([0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x00]);
    bytes.extend(key.as_bytes());
    let hash = blake3::hash(&bytes);
    let expected = u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap());
    let version = Version(0x0002_0304_0506_0708);
    assert_eq!(receipt(TableNumber(0x11), &key, version), expected);

    let other = RowKey::encode(&[Value::Integer(1), text("b")]).unwrap();
    assert_ne!(receipt(TableNumber(0x11), &other, version), expected);
    assert_ne!(receipt(TableNumber(0x12), &key, version), expected);
    assert_ne!(
        receipt(TableNumber(0x11), &key, Version(version.0 + 1)),
        expected
    );
}

#[test]
fn di3_a_long_row_is_hashed_like_a_short_one() {
    let table = table();
    for length in [0, 1_000, 64 * 1024 - 60, 64 * 1024, 200_000] {
        let row = Row(vec![
            Value::Text("x".repeat(length)),
            Value::Integer(42),
            Value::Real(0.5),
            Value::Blob(vec![7; length / 2]),
            Value::Null,
        ]);
        let mut columns: Vec<_> = table.columns.iter().zip(&row.0).collect();
        columns.retain(|(column, value)| !column.generated && !value.is_null());
        columns.sort_by_key(|(column, _)| column.number);
        let mut bytes = Vec::new();
        for (column, value) in columns {
            bytes.extend(column.number.0.to_le_bytes());
            let (class, value) = match value {
                Value::Null => continue,
                Value::Integer(n) => (2, n.to_le_bytes().to_vec()),
                Value::Real(x) => (3, x.to_bits().to_le_bytes().to_vec()),
                Value::Text(text) => (4, with_length(text.as_bytes())),
                Value::Blob(bytes) => (5, with_length(bytes)),
            };
            bytes.push(class);
            bytes.extend(value);
        }
        let hash = blake3::hash(&bytes);
        let expected = u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap());
        assert_eq!(content_hash(&table, &row), expected, "{length}");
    }
}

fn with_length(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

#[test]
fn di4_receipts_and_content_hashes_tell_different_things() {
    let table = table();
    let row = |title: &str| {
        let values = [
            text(title),
            Value::Integer(42),
            Value::Null,
            Value::Null,
            Value::Null,
        ];
        Row(values.to_vec())
    };
    let received = |row: &Row, version| {
        let mut digest = Digest::default();
        digest.add(table.number, &row.key(&table).unwrap(), Version(version));
        digest
    };
    let (sent, flipped) = (row("milk"), row("silk"));
    // A flipped bit is in no receipt: only the content hash knows.
    assert_eq!(received(&sent, 7), received(&flipped, 7));
    assert_ne!(content_hash(&table, &sent), content_hash(&table, &flipped));
    // A row that was written again with the same values was received again: only receipts know.
    assert_ne!(received(&sent, 7), received(&sent, 8));
    assert_eq!(
        content_hash(&table, &sent),
        content_hash(&table, &row("milk"))
    );
}
