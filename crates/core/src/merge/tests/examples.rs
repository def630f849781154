//! Examples of every strategy, as a reader of the specification would work them out.

use super::support::{Server, by, column, text, with_paths};
use crate::{
    change::{Edit, MemberEdit, PathEdit},
    hlc::Hlc,
    ids::{ColumnNumber, Version},
    merge::{ColumnState, Lost, apply, coalesce, diff, merge},
    schema::{Column, ColumnType, MergeStrategy as S},
    value::Value,
};

/// Two devices edit `base` at version 1, the second with the later clock; both arrive in order.
/// Gives the value and what came of the second edit.
fn both(column: &Column, base: &Value, first: &Value, second: &Value) -> (Value, Option<Lost>) {
    in_turn(column, base, (first, 10), (second, 20))
}

fn in_turn(
    column: &Column,
    base: &Value,
    (first, first_hlc): (&Value, u64),
    (second, second_hlc): (&Value, u64),
) -> (Value, Option<Lost>) {
    let mut server = Server::new(column, base);
    server.take(diff(column, base, first).as_ref(), &by(1, 1, first_hlc, 1));
    let merged = server.take(
        diff(column, base, second).as_ref(),
        &by(2, 2, second_hlc, 1),
    );
    (server.value, merged.and_then(|merged| merged.lost))
}

#[test]
fn me2_a_write_that_the_author_saw_does_not_compete() {
    for merge in super::support::STRATEGIES {
        let column = column(merge);
        let mut server = Server::new(&column, &text("\"a\""));
        server.take(
            diff(&column, &text("\"a\""), &text("\"b\"")).as_ref(),
            &by(1, 1, 90, 1),
        );
        let seen = server.value.clone();
        let merged = server.take(
            diff(&column, &seen, &text("\"c\"")).as_ref(),
            &by(2, 2, 3, 2),
        );
        assert_eq!(
            (server.value, merged.unwrap().lost),
            (text("\"c\""), None),
            "{merge:?}"
        );
        assert!(
            server.state.clock.hlc > Hlc(90),
            "the order of the log is the order of clocks"
        );
    }
}

#[test]
fn me6_last_write_wins_by_clock_whatever_arrives_first() {
    let column = column(S::LastWriteWins);
    let (base, a, b) = (text("base"), text("a"), text("b"));
    assert_eq!(
        in_turn(&column, &base, (&a, 10), (&b, 20)),
        (b.clone(), None)
    );
    assert_eq!(
        in_turn(&column, &base, (&a, 20), (&b, 10)),
        (a.clone(), Some(Lost::Older))
    );
    // The changeset id decides between equal readings.
    assert_eq!(in_turn(&column, &base, (&a, 10), (&b, 10)), (b, None));
}

#[test]
fn me6_server_wins_and_client_wins_ignore_clocks() {
    let (base, a, b) = (text("base"), text("a"), text("b"));
    for clocks in [(10, 20), (20, 10)] {
        let outcome = |merge| in_turn(&column(merge), &base, (&a, clocks.0), (&b, clocks.1));
        assert_eq!(outcome(S::ServerWins), (a.clone(), Some(Lost::ServerWins)));
        assert_eq!(outcome(S::ClientWins), (b.clone(), None));
    }
}

#[test]
fn me7_manual_keeps_the_value_and_shows_all_three() {
    let column = Column {
        ty: ColumnType::Integer,
        ..column(S::Manual)
    };
    let (base, a, b) = (Value::Integer(1), Value::Integer(2), Value::Integer(3));
    let lost = Lost::Conflict {
        base: base.clone(),
        mine: b.clone(),
        theirs: a.clone(),
    };
    assert_eq!(both(&column, &base, &a, &b), (a.clone(), Some(lost)));
    assert_eq!(
        both(&column, &base, &a, &a),
        (a.clone(), None),
        "the same decision twice"
    );

    // There and back again: what the author saw is what is there.
    let mut server = Server::new(&column, &base);
    server.take(diff(&column, &base, &a).as_ref(), &by(1, 1, 10, 1));
    server.take(diff(&column, &a, &base).as_ref(), &by(1, 2, 11, 2));
    let merged = server.take(diff(&column, &base, &b).as_ref(), &by(2, 3, 5, 1));
    assert_eq!((server.value, merged.unwrap().lost), (b, None));
}

#[test]
fn me7_manual_compares_json_and_not_its_layout() {
    let column = column(S::Manual);
    let (base, a) = (text("{\"x\": 1.0}"), text("{\"y\":2}"));
    let mut server = Server::new(&column, &text("[]"));
    server.take(
        diff(&column, &text("[]"), &text("{ \"x\":1 }")).as_ref(),
        &by(1, 1, 10, 1),
    );
    let merged = server.take(diff(&column, &base, &a).as_ref(), &by(2, 2, 5, 1));
    assert_eq!((server.value, merged.unwrap().lost), (a, None));
}

#[test]
fn me8_a_set_keeps_both_sides_and_the_servers_order() {
    let check = |base: &str, first: &str, second: &str, expected: &str| {
        let outcome = both(&column(S::Set), &text(base), &text(first), &text(second));
        assert_eq!(outcome, (text(expected), None), "{base} {first} {second}");
    };
    check(
        r#"["a","b"]"#,
        r#"["a","b","c"]"#,
        r#"["d","b"]"#,
        r#"["b","c","d"]"#,
    );
    check(
        r#"["a", "b"]"#,
        r#"["a", "b", "x"]"#,
        r#"["b"]"#,
        r#"["b", "x"]"#,
    );
    check("[1]", "[1,2]", "[1,2.0]", "[1,2]");
    check(
        "[]",
        r#"[{"x":1,"y":2}]"#,
        r#"[{"y":2,"x":1}]"#,
        r#"[{"x":1,"y":2}]"#,
    );
}

#[test]
fn me8_sets_born_twice_become_one() {
    for (first, second) in [(10, 20), (20, 10)] {
        let outcome = in_turn(
            &column(S::Set),
            &Value::Null,
            (&text("[1, 2]"), first),
            (&text("[2, 3]"), second),
        );
        assert_eq!(outcome, (text("[1, 2, 3]"), None));
    }
}

#[test]
fn me8_an_addition_nobody_saw_survives_a_removal() {
    let column = column(S::Set);
    let mut server = Server::new(&column, &text("[1,2]"));
    // Removed and added again behind the back of device 2, which removes what it saw.
    server.take(
        diff(&column, &text("[1,2]"), &text("[1]")).as_ref(),
        &by(1, 1, 10, 1),
    );
    server.take(
        diff(&column, &text("[1]"), &text("[1,2]")).as_ref(),
        &by(1, 2, 11, 1),
    );
    let merged = server.take(
        diff(&column, &text("[1,2]"), &text("[]")).as_ref(),
        &by(2, 3, 99, 1),
    );
    assert_eq!(server.value, text("[2]"));
    assert_eq!(
        merged.unwrap().lost,
        Some(Lost::Older),
        "a part had no effect"
    );
}

#[test]
fn me8_an_item_of_two_births_survives_one_authors_removal() {
    let column = column(S::Set);
    let mut server = Server::new(&column, &Value::Null);
    let born = diff(&column, &Value::Null, &text("[1]"));
    server.take(born.as_ref(), &by(1, 1, 10, 1));
    server.take(born.as_ref(), &by(2, 2, 11, 1));
    let gone = diff(&column, &text("[1]"), &text("[]"));
    server.take(gone.as_ref(), &by(2, 3, 12, 1));
    assert_eq!(
        server.value,
        text("[1]"),
        "device 2 did not know that device 1 wanted it too"
    );
    server.take(gone.as_ref(), &by(1, 4, 13, 3));
    assert_eq!(server.value, text("[]"), "device 1 had seen all there was");
}

#[test]
fn me8_what_is_gone_already_needs_no_removal() {
    let column = column(S::Set);
    let mut server = Server::new(&column, &text("[1,2]"));
    let gone = diff(&column, &text("[1,2]"), &text("[1]"));
    server.take(gone.as_ref(), &by(1, 1, 10, 1));
    let merged = server.take(gone.as_ref(), &by(2, 2, 11, 1)).unwrap();
    assert_eq!(
        (merged.value, merged.state, merged.lost),
        (text("[1]"), None, None)
    );
}

#[test]
fn me8_a_set_that_becomes_something_else_is_a_plain_value() {
    let column = column(S::Set);
    assert_eq!(
        diff(&column, &text("[1]"), &Value::Null),
        Some(Edit::Set(Value::Null))
    );
    assert_eq!(
        diff(&column, &text("[1]"), &text("nope")),
        Some(Edit::Set(text("nope")))
    );
    let (value, lost) = both(&column, &text("[1]"), &text("nope"), &text("[1,2]"));
    assert_eq!((value, lost), (text("nope"), Some(Lost::Older)));
    let (value, lost) = both(&column, &text("[1]"), &text("[1,2]"), &text("nope"));
    assert_eq!((value, lost), (text("nope"), None));
}

#[test]
fn me9_appended_items_follow_each_other() {
    let column = column(S::Append);
    let (value, lost) = both(&column, &text("[1]"), &text("[1,2]"), &text("[1,2]"));
    assert_eq!(
        (value, lost),
        (text("[1,2,2]"), None),
        "equal items of two authors are two"
    );
    let (value, _) = in_turn(
        &column,
        &Value::Null,
        (&text("[1]"), 20),
        (&text("[2]"), 10),
    );
    assert_eq!(value, text("[1,2]"));
    // Rewriting the list is a plain value.
    assert_eq!(
        diff(&column, &text("[1,2]"), &text("[2]")),
        Some(Edit::Set(text("[2]")))
    );
    let (value, lost) = in_turn(
        &column,
        &text("[1]"),
        (&text("[1,2]"), 20),
        (&text("[]"), 10),
    );
    assert_eq!((value, lost), (text("[1,2]"), Some(Lost::Older)));
}

#[test]
fn me10_counters_add_differences() {
    let column = column(S::Counter);
    let check = |base: Value, first: Value, second: Value, expected: Value| {
        assert_eq!(both(&column, &base, &first, &second), (expected, None));
    };
    check(5.into(), 7.into(), 4.into(), 6.into());
    check(Value::Null, 1.into(), 1.into(), 2.into());
    check(0.5.into(), 1.0.into(), 0.75.into(), 1.25.into());
    check(1.into(), 3.into(), 1.5.into(), 3.5.into());
}

#[test]
fn me10_a_counter_that_cannot_be_exact_is_a_plain_value() {
    let column = column(S::Counter);
    let set = |before: Value, after: Value| {
        assert_eq!(
            diff(&column, &before, &after),
            Some(Edit::Set(after)),
            "{before:?}"
        );
    };
    set(Value::Integer(i64::MIN), Value::Integer(1));
    set(1e16.into(), 1.0.into());
    set(f64::MAX.into(), f64::MIN.into());
    set(2.5.into(), 3.into());
    set(1.into(), "one".into());
    set(1.into(), Value::Null);
}

#[test]
fn me10_a_sum_past_64_bits_is_refused() {
    let column = column(S::Counter);
    let most = Value::Integer(i64::MAX);
    let error = apply(&column, &most, &Edit::Add(1.into())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "column c: the sum is too large for a number"
    );
    // Where somebody has put a text, there is nothing to add to.
    assert_eq!(
        apply(&column, &"text".into(), &Edit::Add(1.into())),
        Ok("text".into())
    );
    let (value, lost) = both(&column, &1.into(), &"text".into(), &2.into());
    assert_eq!((value, lost), ("text".into(), Some(Lost::Older)));
}

#[test]
fn me11_what_nobody_touched_keeps_its_text() {
    let check = |before: &str, after: &str, expected: &str| {
        let column = column(S::MergeFields);
        let edit = diff(&column, &text(before), &text(after)).unwrap();
        assert_eq!(
            apply(&column, &text(before), &edit),
            Ok(text(expected)),
            "{edit:?}"
        );
    };
    // Numbers, escapes and order of the rest stay as written; a new member takes over the spacing.
    check(
        r#"{"z": 1.10, "big": 123456789012345678901234567890, "é": "\u00e9"}"#,
        r#"{"a":1,"big":123456789012345678901234567890,"z":1.1,"é":"é"}"#,
        r#"{"z": 1.10, "big": 123456789012345678901234567890, "é": "\u00e9", "a": 1}"#,
    );
    check(
        "{\n  \"a\": 1\n}",
        "{\"a\":1,\"b\":2}",
        "{\n  \"a\": 1,\n  \"b\": 2\n}",
    );
    check("{ \"a\":1, \"b\":2 }", "{\"b\":3}", "{ \"b\":3 }");
    check("{}", "{\"a\":{}}", "{\"a\":{}}");
    check("{\"a\":1}", "{ }", "{}");
    // Layout alone does not travel.
    check("{\"a\":1}", "{ \"a\" : 1.0 }", "{\"a\":1}");
}

#[test]
fn me13_each_path_competes_alone() {
    let column = column(S::MergeFields);
    let base = text(r#"{"a":1,"b":{"c":1,"d":1}}"#);
    let first = text(r#"{"a":2,"b":{"c":2,"d":1}}"#);
    let second = text(r#"{"a":3,"b":{"c":1,"d":3}}"#);
    let (value, lost) = in_turn(&column, &base, (&first, 20), (&second, 10));
    assert_eq!(value, text(r#"{"a":2,"b":{"c":2,"d":3}}"#));
    assert_eq!(lost, Some(Lost::Older), "`a` was lost");
}

#[test]
fn me13_a_removed_member_stays_removed_against_older_edits() {
    let column = column(S::MergeFields);
    let base = text(r#"{"a":{"x":1}}"#);
    let (gone, kept) = (text("{}"), text(r#"{"a":{"x":2}}"#));
    let outcome = in_turn(&column, &base, (&gone, 20), (&kept, 10));
    assert_eq!(outcome, (gone.clone(), Some(Lost::Older)));
    let outcome = in_turn(&column, &base, (&gone, 10), (&kept, 20));
    assert_eq!(outcome, (kept.clone(), None));
    let outcome = in_turn(&column, &base, (&kept, 20), (&gone, 10));
    assert_eq!(outcome, (kept, Some(Lost::Older)));
}

#[test]
fn me13_writing_a_whole_is_later_than_all_that_was_inside() {
    let column = column(S::MergeFields);
    let mut server = Server::new(&column, &text(r#"{"a":{"x":1}}"#));
    let edit = |from: &str, to: &str| diff(&column, &text(from), &text(to));
    server.take(
        edit(r#"{"a":{"x":1}}"#, r#"{"a":{"x":2}}"#).as_ref(),
        &by(1, 1, 90, 1),
    );
    // Device 2 saw that, whatever its clock says.
    server.take(
        edit(r#"{"a":{"x":2}}"#, r#"{"a":3}"#).as_ref(),
        &by(2, 2, 10, 2),
    );
    let late = edit(r#"{"a":{"x":1}}"#, r#"{"a":{"x":4}}"#);
    let merged = server.take(late.as_ref(), &by(3, 3, 80, 1));
    assert_eq!(
        (server.value, merged.unwrap().lost),
        (text(r#"{"a":3}"#), Some(Lost::Older))
    );
}

#[test]
fn me15_paths_have_strategies_of_their_own() {
    let mut column = with_paths(S::LastWriteWins);
    column.merge_paths.insert("g.h".into(), S::ServerWins);
    let base = text(r#"{"a":[1],"b":[1],"c":1,"d":1,"e":{"a":1,"x":1},"g":{"h":1},"z":[1]}"#);
    let first = text(r#"{"a":[1,2],"b":[1,2],"c":2,"d":2,"e":{"a":2,"x":2},"g":{"h":2},"z":[2]}"#);
    let second = text(r#"{"a":[3],"b":[1,3],"c":4,"d":3,"e":{"a":4,"y":3},"g":{"h":3},"z":[3]}"#);
    let (value, lost) = both(&column, &base, &first, &second);
    let theirs = r#"{"a":[2,3],"b":[1,2,3],"c":5,"d":2,"e":{"a":5,"y":3},"g":{"h":2},"z":[3]}"#;
    assert_eq!(value, text(theirs));
    let shown = |d: u8| text(&theirs.replace("\"d\":2", &format!("\"d\":{d}")));
    let conflict = Lost::Conflict {
        base: shown(1),
        mine: shown(3),
        theirs: shown(2),
    };
    assert_eq!(lost, Some(conflict));
}

#[test]
fn me16_edits_are_joined_by_meaning() {
    let check = |merge, first: Edit, second: Edit, expected: Option<Edit>| {
        assert_eq!(coalesce(&column(merge), &first, &second), expected);
    };
    let set = |text: &str| Edit::Set(super::support::text(text));
    let items = |add: &[&str], remove: &[&str]| Edit::Items {
        add: add.iter().map(ToString::to_string).collect(),
        remove: remove.iter().map(ToString::to_string).collect(),
    };
    let decide = |base: i64, new: i64| Edit::Decide {
        base: base.into(),
        new: new.into(),
    };
    let member = |path: &str, json: &str| MemberEdit {
        path: path.into(),
        edit: PathEdit::Set(json.into()),
    };
    check(S::LastWriteWins, set("a"), set("b"), Some(set("b")));
    check(
        S::Counter,
        Edit::Add(2.into()),
        Edit::Add(3.into()),
        Some(Edit::Add(5.into())),
    );
    check(
        S::Counter,
        Edit::Add(i64::MAX.into()),
        Edit::Add(1.into()),
        None,
    );
    check(
        S::Counter,
        Edit::Set(2.into()),
        Edit::Add(3.into()),
        Some(Edit::Set(5.into())),
    );
    check(
        S::Set,
        items(&["1", "2"], &["3"]),
        items(&["3"], &["1"]),
        Some(items(&["2", "3"], &["1"])),
    );
    check(S::Manual, decide(1, 2), decide(2, 3), Some(decide(1, 3)));
    check(
        S::MergeFields,
        Edit::Members(vec![member("a", "{\"x\":1}"), member("b.c", "1")]),
        Edit::Members(vec![member("a.y", "2"), member("b", "3")]),
        Some(Edit::Members(vec![
            member("a", "{\"x\":1,\"y\":2}"),
            member("b", "3"),
        ])),
    );
}

#[test]
fn me13_clocks_below_the_horizon_are_forgotten() {
    let column = column(S::MergeFields);
    let mut server = Server::new(&column, &text("{\"a\":1,\"b\":1}"));
    let edit = |from: &str, to: &str| diff(&column, &text(from), &text(to));
    server.take(edit("{\"a\":1}", "{\"a\":2}").as_ref(), &by(1, 1, 10, 1)); // version 2
    server.take(edit("{\"b\":1}", "{\"b\":2}").as_ref(), &by(2, 2, 10, 1)); // version 3
    assert_eq!(
        server.state.members.keys().collect::<Vec<_>>(),
        ["", "a", "b"]
    );
    server.state.prune(Version(2));
    assert_eq!(server.state.members.keys().collect::<Vec<_>>(), ["", "b"]);
    server.state.prune(Version(3));
    assert!(server.state.members.is_empty());
}

#[test]
fn me13_the_clocks_of_a_column_are_bounded() {
    let column = column(S::MergeFields);
    let members: Vec<String> = (0..10_000).map(|n| format!("\"m{n}\":1")).collect();
    let big = text(&format!("{{{}}}", members.join(",")));
    let edit = diff(&column, &text("{}"), &big).unwrap();
    let state = ColumnState::default();
    let merged = merge(&column, &text("{}"), &state, &edit, &by(1, 1, 10, 0)).unwrap();
    let state = merged.state.unwrap().at(Version(2));
    assert!(state.members.len() <= ColumnState::MEMBERS_MAX);
    assert!(
        state
            .members
            .values()
            .all(|clock| clock.version <= Version(2))
    );
    // What was folded away still competes.
    let edit = diff(&column, &text("{\"m0\":1}"), &text("{\"m0\":2}")).unwrap();
    let merged = merge(&column, &merged.value, &state, &edit, &by(2, 2, 5, 1)).unwrap();
    assert_eq!(merged.lost, Some(Lost::Older));
    assert_eq!(column.number, ColumnNumber(1));
}
