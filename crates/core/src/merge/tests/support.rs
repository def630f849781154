//! Columns, authors and values for the tests of this module.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::{
    change::Edit,
    hlc::Hlc,
    ids::{ChangesetId, ColumnNumber, DeviceId, Version},
    merge::{
        ColumnState, Incoming, Merged,
        json::{Json, canonical},
        merge,
    },
    schema::{Column, ColumnType, MergeStrategy},
    value::Value,
};

pub(super) const STRATEGIES: [MergeStrategy; 9] = [
    MergeStrategy::LastWriteWins,
    MergeStrategy::ServerWins,
    MergeStrategy::ClientWins,
    MergeStrategy::MergeFields,
    MergeStrategy::Set,
    MergeStrategy::Append,
    MergeStrategy::Counter,
    MergeStrategy::Collaborative,
    MergeStrategy::Manual,
];

pub(super) fn column(merge: MergeStrategy) -> Column {
    let ty = if merge == MergeStrategy::Counter {
        ColumnType::Any
    } else {
        ColumnType::Json
    };
    Column {
        encrypted: None,
        name: "c".into(),
        number: ColumnNumber(1),
        ty,
        not_null: false,
        default: None,
        check: None,
        collate: None,
        generated: false,
        computed: None,
        declared: None,
        merge,
        merge_paths: BTreeMap::new(),
    }
}

/// A JSON column with a strategy for each of several members.
pub(super) fn with_paths(merge: MergeStrategy) -> Column {
    let paths = [
        ("a", MergeStrategy::Set),
        ("b", MergeStrategy::Append),
        ("c", MergeStrategy::Counter),
        ("d", MergeStrategy::Manual),
        ("e", MergeStrategy::MergeFields),
        ("e.a", MergeStrategy::Counter),
        ("f.a", MergeStrategy::ClientWins),
    ];
    let merge_paths = paths
        .into_iter()
        .map(|(path, merge)| (path.to_owned(), merge))
        .collect();
    Column {
        merge_paths,
        ..column(merge)
    }
}

pub(super) fn any_column() -> impl Strategy<Value = Column> {
    let merge = prop::sample::select(&STRATEGIES[..]);
    (merge, any::<bool>()).prop_map(|(merge, paths)| {
        if paths {
            with_paths(merge)
        } else {
            column(merge)
        }
    })
}

/// Changeset `n` of a device, stamped `hlc`, by an author who had version `base`.
pub(super) fn by(device: u8, n: u8, hlc: u64, base: u64) -> Incoming {
    Incoming {
        hlc: Hlc(hlc),
        changeset: ChangesetId([n; 16]),
        device: DeviceId([device; 16]),
        base: Version(base),
        is_insert: false,
    }
}

/// A server's column: merges what arrives and gives each effect the next version.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) column: Column,
    pub(super) value: Value,
    pub(super) state: ColumnState,
    pub(super) version: u64,
}

impl Server {
    /// Holds `value`, written at version 1 by a device that takes no part.
    pub(super) fn new(column: &Column, value: &Value) -> Self {
        let mut state = ColumnState::default();
        state.clock.hlc = Hlc(1);
        let state = state.at(Version(1));
        Self {
            column: column.clone(),
            value: value.clone(),
            state,
            version: 1,
        }
    }

    pub(super) fn take(&mut self, edit: Option<&Edit>, incoming: &Incoming) -> Option<Merged> {
        let merged = merge(&self.column, &self.value, &self.state, edit?, incoming).unwrap();
        self.value = merged.value.clone();
        self.version += 1;
        if let Some(state) = merged.state.clone() {
            self.state = state.at(Version(self.version));
        }
        Some(merged)
    }
}

pub(super) fn text(json: &str) -> Value {
    Value::Text(json.into())
}

/// What has to be equal when two values of `column` are said to be: the JSON they hold, and of
/// sets only which items.
pub(super) fn meaning(column: &Column, value: &Value) -> String {
    let Some(json) = value.as_text().and_then(Json::parse) else {
        return format!("{value:?}");
    };
    let loose = |json: &Json<'_>, merge| match json {
        Json::Array(array) if merge == MergeStrategy::Set => {
            format!(
                "{:?}",
                array.items().map(canonical).collect::<BTreeSet<_>>()
            )
        }
        Json::Scalar(_) | Json::Array(_) | Json::Object(_) => canonical(json),
    };
    match &json {
        Json::Object(object) => {
            let member = |(key, value): (String, &Json<'_>)| {
                let merge = column
                    .merge_paths
                    .get(&key)
                    .copied()
                    .unwrap_or(column.merge);
                let text = loose(value, merge);
                (key, text)
            };
            format!(
                "{:?}",
                object.members().map(member).collect::<BTreeMap<_, _>>()
            )
        }
        Json::Scalar(_) | Json::Array(_) => loose(&json, column.merge),
    }
}

/// JSON of small members, so that two of them often share places; in one of three layouts.
pub(crate) fn json_text() -> impl Strategy<Value = String> {
    (tree(), 0..3_u8).prop_map(|(tree, layout)| match layout {
        0 => tree.to_string(),
        1 => tree.to_string().replace(',', ", ").replace(':', ": "),
        _ => serde_json::to_string_pretty(&tree).unwrap(),
    })
}

fn tree() -> impl Strategy<Value = serde_json::Value> {
    const SCALARS: [&str; 10] = [
        "null",
        "true",
        "0",
        "1",
        "1.0",
        "7",
        "-2.5",
        "\"\"",
        "\"x\"",
        "\"é\\n\"",
    ];
    let leaf = prop::sample::select(&SCALARS[..]).prop_map(|s| serde_json::from_str(s).unwrap());
    leaf.prop_recursive(4, 24, 5, |inner| {
        let key = prop::sample::select(&["a", "b", "c", "d", "e", "f", "", "x.y", "\\"][..]);
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::Array),
            3 => prop::collection::btree_map(key, inner, 0..5).prop_map(|members| {
                serde_json::Value::Object(members.into_iter().map(|(k, v)| (k.into(), v)).collect())
            }),
        ]
    })
}

/// Canonical values of every kind, JSON texts most of all.
pub(super) fn value() -> impl Strategy<Value = Value> {
    let other = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::Integer),
        (-5_i64..5).prop_map(Value::Integer),
        prop::num::f64::NORMAL.prop_map(Value::Real),
        (-50_i32..50).prop_map(|n| Value::Real(f64::from(n) / 4.0 + 0.1)),
        Just(text("no json")),
        Just(text("{\"a\":1,\"a\":2}")),
        Just(Value::Blob(vec![1, 2])),
    ];
    prop_oneof![1 => other, 3 => json_text().prop_map(Value::Text)]
}

/// Arrays of few distinct items.
pub(super) fn items() -> impl Strategy<Value = Value> {
    prop::collection::btree_set(0..6_u8, 0..5)
        .prop_map(|items| text(&serde_json::to_string(&items).unwrap()))
}

/// Documents of one shape: `o` an object, `l` a list, the rest scalars, each perhaps absent.
pub(super) fn document() -> impl Strategy<Value = Value> {
    let scalar = || prop::option::of(0..4_u8);
    (
        scalar(),
        scalar(),
        scalar(),
        scalar(),
        prop::collection::vec(0..3_u8, 0..3),
    )
        .prop_map(|(a, b, x, y, list)| {
            let member = |key: &str, value: Option<u8>| value.map(|v| format!("\"{key}\":{v}"));
            let join = |parts: Vec<Option<String>>| {
                parts.into_iter().flatten().collect::<Vec<_>>().join(",")
            };
            let inner = join(vec![member("x", x), member("y", y)]);
            let outer = [
                Some(format!("\"o\":{{{inner}}}")),
                Some(format!("\"l\":{list:?}")),
            ];
            let all = [member("a", a), member("b", b)]
                .into_iter()
                .chain(outer)
                .collect();
            text(&format!("{{{}}}", join(all)))
        })
}
