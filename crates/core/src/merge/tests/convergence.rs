//! What concurrent edits come to, whatever the order of their arrival.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::support::{Server, by, column, document, items, meaning, text, value, with_paths};
use crate::{
    hlc::Hlc,
    ids::Timestamp,
    merge::{Lost, apply, diff},
    schema::{Column, MergeStrategy},
    value::Value,
};

/// Every order in which three edits of `base`, by three devices, can arrive, gives one meaning.
fn check_orders(column: &Column, base: &Value, new: [&Value; 3], hlcs: [u64; 3]) {
    let outcome = |order: [usize; 3]| {
        let mut server = Server::new(column, base);
        for i in order {
            let n = u8::try_from(i).unwrap() + 1;
            server.take(diff(column, base, new[i]).as_ref(), &by(n, n, hlcs[i], 1));
        }
        meaning(column, &server.value)
    };
    let orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    let outcomes: BTreeSet<_> = orders.into_iter().map(outcome).collect();
    assert_eq!(
        outcomes.len(),
        1,
        "{base:?} became {new:?}, which became {outcomes:?}"
    );
}

fn hlcs() -> impl Strategy<Value = [u64; 3]> {
    // Few readings, so that ties occur.
    [2..5_u64, 2..5_u64, 2..5_u64]
}

proptest! {
    #[test]
    fn me6_last_write_wins_in_every_order((base, a, b, c) in (value(), value(), value(), value()), hlcs in hlcs()) {
        check_orders(&column(MergeStrategy::LastWriteWins), &base, [&a, &b, &c], hlcs);
    }

    #[test]
    fn me8_sets_converge_in_every_order((base, a, b, c) in (items(), items(), items(), items()), hlcs in hlcs()) {
        check_orders(&column(MergeStrategy::Set), &base, [&a, &b, &c], hlcs);
    }

    #[test]
    fn me10_counters_add_up_in_every_order(numbers in [-100..100_i64, -100..100_i64, -100..100_i64, -100..100_i64], hlcs in hlcs()) {
        let [base, a, b, c] = numbers.map(Value::Integer);
        check_orders(&column(MergeStrategy::Counter), &base, [&a, &b, &c], hlcs);
        let mut server = Server::new(&column(MergeStrategy::Counter), &base);
        for (n, new) in [(1, &a), (2, &b), (3, &c)] {
            server.take(diff(&server.column, &base, new).as_ref(), &by(n, n, 2, 1));
        }
        let [base, a, b, c] = numbers;
        prop_assert_eq!(server.value, Value::Integer(a + b + c - 2 * base));
    }

    #[test]
    fn me14_fields_converge_in_every_order(
        (base, a, b, c) in (document(), document(), document(), document()), hlcs in hlcs(),
    ) {
        check_orders(&column(MergeStrategy::MergeFields), &base, [&a, &b, &c], hlcs);
    }

    #[test]
    fn me14_documents_born_twice_become_one(
        (a, b, c) in (document(), document(), document()), hlcs in hlcs(),
    ) {
        let column = column(MergeStrategy::MergeFields);
        check_orders(&column, &text("{}"), [&a, &b, &c], hlcs);
    }

    #[test]
    fn me9_appended_items_of_all_are_kept((base, a, b) in (items(), items(), items())) {
        let column = column(MergeStrategy::Append);
        let grown = |more: &Value| {
            let list = |value: &Value| serde_json::from_str::<Vec<u8>>(value.as_text().unwrap()).unwrap();
            let all = [list(&base), list(more)].concat();
            (Value::Text(serde_json::to_string(&all).unwrap()), list(more))
        };
        let ((new_a, more_a), (new_b, more_b)) = (grown(&a), grown(&b));
        let mut server = Server::new(&column, &base);
        server.take(diff(&column, &base, &new_a).as_ref(), &by(1, 1, 9, 1));
        server.take(diff(&column, &base, &new_b).as_ref(), &by(2, 2, 5, 1));
        let expected = [serde_json::from_str(base.as_text().unwrap()).unwrap(), more_a, more_b].concat();
        let now: Vec<u8> = serde_json::from_str(server.value.as_text().unwrap()).unwrap();
        prop_assert_eq!(now, expected);
    }

    /// However its clock jumps, and whatever another device does elsewhere in the document: what a
    /// device wrote last at a place that only it writes is what the place holds.
    #[test]
    fn me4_a_device_never_loses_to_itself(
        merge in prop::sample::select(&super::support::STRATEGIES[..]),
        mine in prop::collection::vec((1..200_u64, 0..9_i64, any::<bool>()), 1..6),
    ) {
        let column = Column { merge: MergeStrategy::MergeFields, ..column(merge) };
        let mut server = Server::new(&column, &text(r#"{"mine":0,"theirs":0}"#));
        server.state.clock.hlc = Hlc(100);
        let mut own = server.value.clone();
        for (n, (hlc, number, other)) in (1..).zip(&mine) {
            if *other {
                let theirs = text(&format!(r#"{{"mine":0,"theirs":{}}}"#, number + 10));
                let edit = diff(&column, &text(r#"{"mine":0,"theirs":0}"#), &theirs);
                server.take(edit.as_ref(), &by(2, 100 + n, *hlc, 1));
            }
            let new = text(&format!(r#"{{"mine":{number},"theirs":0}}"#));
            server.take(diff(&column, &own, &new).as_ref(), &by(1, n, *hlc, 1));
            own = new;
        }
        let (_, last, _) = mine.last().unwrap();
        let expected = format!("\"mine\":{last}");
        prop_assert!(server.value.as_text().unwrap().contains(&expected), "{:?}", server.value);
    }

    /// The same for whole values, where nobody else writes.
    #[test]
    fn me4_a_device_alone_always_gets_its_way(
        paths in any::<bool>(),
        merge in prop::sample::select(&super::support::STRATEGIES[..]),
        mine in prop::collection::vec((1..200_u64, value()), 1..5),
    ) {
        let column = if paths { with_paths(merge) } else { column(merge) };
        let mut server = Server::new(&column, &Value::Null);
        let mut own = Value::Null;
        for (n, (hlc, new)) in (1..).zip(mine) {
            let edit = diff(&column, &own, &new.clone().canonical(column.ty));
            let merged = server.take(edit.as_ref(), &by(1, n, hlc, 1));
            prop_assert_eq!(merged.and_then(|merged| merged.lost), None);
            if let Some(edit) = edit {
                own = apply(&column, &own, &edit).unwrap();
            }
            prop_assert_eq!(meaning(&column, &server.value), meaning(&column, &own));
        }
    }

    /// A clock that is ahead, by however much, decides for at most a minute.
    #[test]
    fn me5_a_lying_clock_gains_at_most_a_minute(lie in 0..u64::MAX >> 16, now in 0..1_u64 << 40) {
        let column = column(MergeStrategy::LastWriteWins);
        let mut server = Server::new(&column, &text("base"));
        let now = Timestamp::from_millis(now);
        let liar = Hlc(lie << 16).clamped(now);
        server.take(diff(&column, &text("base"), &text("lie")).as_ref(), &by(1, 1, liar.0, 1));
        let honest = Hlc::at(now.plus_millis(Hlc::SKEW_MAX_MILLIS + 1));
        server.take(diff(&column, &text("base"), &text("truth")).as_ref(), &by(2, 2, honest.0, 1));
        prop_assert_eq!(server.value, text("truth"));
    }
}

/// A device in the model of sets: what it saw, and what it did since.
#[derive(Debug, Default, Clone)]
struct Author {
    base: u64,
    shown: Value,
    /// Additions (by number) that it knows.
    seen: BTreeSet<usize>,
    unsent: Vec<(crate::change::Edit, u64)>,
}

proptest! {
    /// An item is there exactly if somebody added it and nobody who saw that addition removed it.
    #[test]
    fn me8_only_what_was_seen_is_removed(
        actions in prop::collection::vec((0..3_usize, 0..4_u8, 0..4_u8), 1..40),
    ) {
        let column = column(MergeStrategy::Set);
        let mut server = Server::new(&column, &text("[]"));
        let mut authors = vec![Author { base: 1, shown: text("[]"), ..Author::default() }; 3];
        let mut additions: Vec<(u8, bool)> = Vec::new(); // item, removed
        let mut arrived: BTreeSet<usize> = BTreeSet::new();
        let mut own: Vec<Vec<(usize, usize)>> = vec![Vec::new(); 3]; // (edit count, addition)
        let mut counts = [0_usize; 3];
        let mut changesets = 0_u8;
        let push = |i: usize, authors: &mut Vec<Author>, server: &mut Server, changesets: &mut u8| {
            let author = &mut authors[i];
            if author.unsent.is_empty() { return false; }
            let (edit, hlc) = author.unsent.remove(0);
            *changesets += 1;
            let device = u8::try_from(i).unwrap() + 1;
            server.take(Some(&edit), &by(device, *changesets, hlc, author.base));
            true
        };
        let mut sent = [0_usize; 3];
        for (hlc, (i, action, item)) in (2..).zip(actions) {
            match action {
                0 | 1 => {
                    let mut set: BTreeSet<u8> =
                        serde_json::from_str(authors[i].shown.as_text().unwrap()).unwrap();
                    let changed = if action == 0 { set.insert(item) } else { set.remove(&item) };
                    if !changed { continue; }
                    let new = text(&serde_json::to_string(&set).unwrap());
                    let edit = diff(&column, &authors[i].shown, &new).unwrap();
                    let author = &mut authors[i];
                    author.unsent.push((edit, hlc));
                    author.shown = new;
                    counts[i] += 1;
                    if action == 0 {
                        author.seen.insert(additions.len());
                        own[i].push((counts[i], additions.len()));
                        additions.push((item, false));
                    } else {
                        for &n in &author.seen {
                            additions[n].1 |= additions[n].0 == item;
                        }
                    }
                }
                2 => if push(i, &mut authors, &mut server, &mut changesets) {
                    sent[i] += 1;
                    arrived.extend(own[i].iter().filter(|(at, _)| *at == sent[i]).map(|(_, n)| n));
                },
                _ => if authors[i].unsent.is_empty() {
                    authors[i].base = server.version;
                    authors[i].shown = server.value.clone();
                    authors[i].seen = arrived.clone();
                },
            }
        }
        for i in 0..3 {
            while push(i, &mut authors, &mut server, &mut changesets) {}
        }
        let expected: BTreeSet<u8> =
            additions.iter().filter(|(_, removed)| !removed).map(|(item, _)| *item).collect();
        let now: BTreeSet<u8> = serde_json::from_str(server.value.as_text().unwrap()).unwrap();
        prop_assert_eq!(now, expected);
    }
}

#[test]
fn me6_equal_stamps_leave_the_server_alone() {
    let column = column(MergeStrategy::LastWriteWins);
    let mut server = Server::new(&column, &text("base"));
    server.take(
        diff(&column, &text("base"), &text("first")).as_ref(),
        &by(1, 7, 5, 1),
    );
    let merged = server.take(
        diff(&column, &text("base"), &text("second")).as_ref(),
        &by(2, 7, 5, 1),
    );
    assert_eq!(merged.unwrap().lost, Some(Lost::Older));
    assert_eq!(server.value, text("first"));
}
