//! Edits from strangers: refused or harmless, never a panic.

use proptest::prelude::*;

use super::support::{Server, any_column, by, column, json_text, text, value};
use crate::{
    change::{Edit, MemberEdit, PathEdit},
    merge::{ColumnState, apply, coalesce, merge},
    schema::MergeStrategy as S,
    value::Value,
};

fn texts() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(
        prop_oneof![4 => json_text(), 1 => Just("[".to_owned())],
        0..3,
    )
}

fn path() -> impl Strategy<Value = String> {
    let member = prop::sample::select(&["a", "b", "c", "d", "e", "f", "\\e", "x\\.y", "\\\\"][..]);
    let good = prop::collection::vec(member, 1..3).prop_map(|members| members.join("."));
    prop_oneof![9 => good, 1 => "[ae.\\\\=]{0,4}"]
}

fn path_edit() -> impl Strategy<Value = PathEdit> {
    let text = || json_text();
    prop_oneof![
        text().prop_map(PathEdit::Set),
        Just(PathEdit::Remove),
        value().prop_map(PathEdit::Add),
        (texts(), texts()).prop_map(|(add, remove)| PathEdit::Items { add, remove }),
        texts().prop_map(PathEdit::Append),
        (prop::option::of(text()), prop::option::of(text()))
            .prop_map(|(base, new)| PathEdit::Decide { base, new }),
    ]
}

fn edit() -> impl Strategy<Value = Edit> {
    let member = (path(), path_edit()).prop_map(|(path, edit)| MemberEdit { path, edit });
    prop_oneof![
        1 => value().prop_map(Edit::Set),
        1 => value().prop_map(Edit::Add),
        1 => (texts(), texts()).prop_map(|(add, remove)| Edit::Items { add, remove }),
        1 => texts().prop_map(Edit::Append),
        1 => (value(), value()).prop_map(|(base, new)| Edit::Decide { base, new }),
        3 => prop::collection::vec(member, 0..4).prop_map(Edit::Members),
    ]
}

proptest! {
    /// Any edits by any devices at any base: refused, or merged; and refused without regard to
    /// what the column holds, unless a sum overflows.
    #[test]
    fn me3_no_edit_breaks_anything(
        column in any_column(),
        start in value(),
        edits in prop::collection::vec((1..4_u8, 1..9_u64, 0..6_u64, edit()), 1..8),
    ) {
        let mut server = Server::new(&column, &start.canonical(column.ty));
        for (n, (device, hlc, base, edit)) in (1..).zip(&edits) {
            let incoming = by(*device, n, *hlc, *base);
            match merge(&column, &server.value, &server.state, edit, &incoming) {
                Ok(_) => {
                    let before = server.value.clone();
                    let merged = server.take(Some(edit), &incoming).unwrap();
                    prop_assert!(merged.state.is_some() || merged.value == before);
                }
                Err(error) if error.reason.contains("too large") => {}
                Err(_) => prop_assert!(apply(&column, &Value::Null, edit).is_err()),
            }
            for (.., other) in &edits {
                if let Some(both) = coalesce(&column, edit, other) {
                    let _applies = apply(&column, &server.value, &both).is_ok();
                }
            }
        }
    }
}

#[test]
fn me3_malformed_edits_are_refused_even_where_they_would_lose() {
    let member = |path: &str, edit| {
        Edit::Members(vec![MemberEdit {
            path: path.into(),
            edit,
        }])
    };
    let deep = format!("{}{}", "[".repeat(128), "]".repeat(128));
    let inner = format!("{}{}", "[".repeat(127), "]".repeat(127));
    let path_130 = vec!["a"; 130].join(".");
    let refused = [
        Edit::Add("1".into()),
        Edit::Add(Value::Null),
        Edit::Add(f64::INFINITY.into()),
        Edit::Append(vec!["nope".into()]),
        Edit::Append(vec![deep.clone()]),
        Edit::Items {
            add: vec!["1".into(), "{".into()],
            remove: Vec::new(),
        },
        Edit::Items {
            add: Vec::new(),
            remove: vec!["'a'".into()],
        },
        member("", PathEdit::Set("1".into())),
        member("a..b", PathEdit::Remove),
        member("a", PathEdit::Set("01".into())),
        member("a", PathEdit::Set(deep)),
        member("a.b", PathEdit::Set(inner.clone())),
        member(
            "a",
            PathEdit::Decide {
                base: Some("[".into()),
                new: None,
            },
        ),
        member("a", PathEdit::Add("x".into())),
        member(&path_130, PathEdit::Remove),
    ];
    let column = column(S::ServerWins);
    let server = Server::new(&column, &text("{}"));
    for edit in refused {
        assert!(apply(&column, &text("{}"), &edit).is_err(), "{edit:?}");
        let merged = merge(
            &column,
            &server.value,
            &server.state,
            &edit,
            &by(1, 1, 1, 0),
        );
        assert!(merged.is_err(), "{edit:?}");
    }
    let allowed = member("a", PathEdit::Set(inner));
    apply(&column, &text("{}"), &allowed).unwrap();
}

#[test]
fn me3_nesting_without_end_is_a_plain_value() {
    let column = column(S::MergeFields);
    let deep = text(&"{\"a\":".repeat(1_000_000));
    let merged = merge(
        &column,
        &deep,
        &ColumnState::default(),
        &Edit::Set(deep.clone()),
        &by(1, 1, 1, 0),
    );
    assert_eq!(merged.unwrap().value, deep);
}
