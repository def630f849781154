//! As which edit a change travels: an operation where the strategy has one for what was there and
//! what is there now, the value itself everywhere else (spec ME1).

use super::support::{STRATEGIES, column, text, with_paths};
use crate::{
    change::{Edit, MemberEdit, PathEdit},
    merge::diff,
    schema::{Column, ColumnType, MergeStrategy as S},
    value::Value,
};

fn set(value: &Value) -> Option<Edit> {
    Some(Edit::Set(value.clone()))
}

fn items(add: &[&str], remove: &[&str]) -> Option<Edit> {
    let texts = |items: &[&str]| items.iter().map(ToString::to_string).collect();
    Some(Edit::Items {
        add: texts(add),
        remove: texts(remove),
    })
}

fn appended(items: &[&str]) -> Option<Edit> {
    Some(Edit::Append(
        items.iter().map(ToString::to_string).collect(),
    ))
}

fn decided(base: &Value, new: &Value) -> Option<Edit> {
    Some(Edit::Decide {
        base: base.clone(),
        new: new.clone(),
    })
}

#[test]
fn me1_what_did_not_change_does_not_travel() {
    for merge in STRATEGIES {
        for value in [Value::Null, Value::Integer(1), text("[1]"), text("{}")] {
            assert_eq!(diff(&column(merge), &value, &value), None, "{merge:?}");
            assert_eq!(diff(&with_paths(merge), &value, &value), None, "{merge:?}");
        }
    }
}

#[test]
fn me1_columns_that_are_one_value_travel_as_it() {
    for merge in [
        S::LastWriteWins,
        S::ServerWins,
        S::ClientWins,
        S::Collaborative,
    ] {
        for (before, after) in [
            (text("[1]"), text("[1,2]")),
            (text("{}"), text(r#"{"a":1}"#)),
            (Value::Integer(1), Value::Integer(2)),
            (text("x"), Value::Null),
        ] {
            assert_eq!(
                diff(&column(merge), &before, &after),
                set(&after),
                "{merge:?}"
            );
        }
    }
}

#[test]
fn me7_a_decision_travels_with_what_its_author_saw() {
    for (before, after) in [
        (Value::Integer(1), Value::Integer(2)),
        (Value::Null, text("[1]")),
        (text(r#"{"a":1}"#), text(r#"{"a":2}"#)),
    ] {
        let expected = decided(&before, &after);
        assert_eq!(diff(&column(S::Manual), &before, &after), expected);
    }
    // With paths, a document that is still one travels by its members, anything else whole.
    let column = with_paths(S::Manual);
    let (document, number) = (text(r#"{"x":1}"#), Value::Integer(1));
    assert_eq!(
        diff(&column, &document, &number),
        decided(&document, &number)
    );
    assert_eq!(
        diff(&column, &number, &document),
        decided(&number, &document)
    );
    let decide = PathEdit::Decide {
        base: Some("1".into()),
        new: Some("2".into()),
    };
    let expected = MemberEdit {
        path: "x".into(),
        edit: decide,
    };
    assert_eq!(
        diff(&column, &document, &text(r#"{"x":2}"#)),
        Some(Edit::Members(vec![expected]))
    );
}

#[test]
fn me8_a_set_travels_by_items_between_two_lists_only() {
    let column = column(S::Set);
    let list = text("[1,2]");
    assert_eq!(diff(&column, &list, &text("[2,3]")), items(&["3"], &["1"]));
    assert_eq!(diff(&column, &list, &text("[]")), items(&[], &["1", "2"]));
    for (before, after) in [
        (Value::Null, list.clone()),
        (list.clone(), Value::Null),
        (list.clone(), text("{}")),
        (text("{}"), list.clone()),
        (text("null"), list),
    ] {
        assert_eq!(diff(&column, &before, &after), set(&after));
    }
}

#[test]
fn me9_a_list_travels_by_what_was_put_at_its_end() {
    let column = column(S::Append);
    let list = text("[1,2]");
    assert_eq!(diff(&column, &text("[1]"), &list), appended(&["2"]));
    assert_eq!(diff(&column, &text("[]"), &list), appended(&["1", "2"]));
    // Nothing yet is a list without items; a text that is no list is not.
    assert_eq!(diff(&column, &Value::Null, &list), appended(&["1", "2"]));
    for (before, after) in [
        (text("[2]"), list.clone()),
        (list.clone(), text("[1]")),
        (text("{}"), list.clone()),
        (text("no JSON"), list.clone()),
        (Value::Integer(1), list.clone()),
        (list.clone(), text("{}")),
        (list, Value::Null),
    ] {
        assert_eq!(diff(&column, &before, &after), set(&after));
    }
}

#[test]
fn me10_a_counter_travels_by_the_difference_of_numbers() {
    let column = Column {
        ty: ColumnType::Integer,
        ..column(S::Counter)
    };
    let add = |n| Some(Edit::Add(Value::Integer(n)));
    assert_eq!(
        diff(&column, &Value::Integer(5), &Value::Integer(3)),
        add(-2)
    );
    assert_eq!(diff(&column, &Value::Null, &Value::Integer(3)), add(3));
    for after in [Value::Null, text("x")] {
        assert_eq!(diff(&column, &Value::Integer(5), &after), set(&after));
    }
    assert_eq!(
        diff(&column, &text("x"), &Value::Integer(5)),
        set(&Value::Integer(5))
    );
}

#[test]
fn me11_a_document_travels_by_the_members_that_changed() {
    let by_members = column(S::MergeFields);
    let document = text(r#"{"a":1,"b":{"c":2}}"#);
    let edit = |path: &str, edit| MemberEdit {
        path: path.into(),
        edit,
    };
    assert_eq!(
        diff(&by_members, &document, &text(r#"{"b":{"c":3},"d":4}"#)),
        Some(Edit::Members(vec![
            edit("b.c", PathEdit::Set("3".into())),
            edit("d", PathEdit::Set("4".into())),
            edit("a", PathEdit::Remove),
        ]))
    );
    for other in [Value::Null, text("[1]"), Value::Integer(1)] {
        assert_eq!(diff(&by_members, &document, &other), set(&other));
        assert_eq!(diff(&by_members, &other, &document), set(&document));
    }
}
