//! What diff, apply and coalesce promise for every strategy and every value.

use proptest::prelude::*;

use super::support::{any_column, by, meaning, value};
use crate::merge::{ColumnState, apply, coalesce, diff, merge};

proptest! {
    #[test]
    fn me1_applying_the_difference_gives_the_new_value(
        (column, before, after) in (any_column(), value(), value()),
    ) {
        let before = before.canonical(column.ty);
        let after = after.canonical(column.ty);
        match diff(&column, &before, &after) {
            None => prop_assert_eq!(before, after),
            Some(edit) => {
                let applied = apply(&column, &before, &edit).unwrap();
                prop_assert_eq!(meaning(&column, &applied), meaning(&column, &after), "{:?}", edit);
            }
        }
    }

    #[test]
    fn me2_what_nobody_competes_with_simply_applies(
        (column, before, after) in (any_column(), value(), value()),
    ) {
        let before = before.canonical(column.ty);
        let after = after.canonical(column.ty);
        if let Some(edit) = diff(&column, &before, &after) {
            let merged =
                merge(&column, &before, &ColumnState::default(), &edit, &by(1, 1, 5, 0)).unwrap();
            prop_assert_eq!(&merged.lost, &None);
            prop_assert_eq!(merged.value, apply(&column, &before, &edit).unwrap());
        }
    }

    #[test]
    fn me16_coalesced_edits_have_the_effect_of_both(
        (column, one, two, three) in (any_column(), value(), value(), value()),
    ) {
        let [one, two, three] = [one, two, three].map(|value| value.canonical(column.ty));
        if let (Some(first), Some(second)) = (diff(&column, &one, &two), diff(&column, &two, &three))
            && let Some(both) = coalesce(&column, &first, &second)
        {
            let stepwise = apply(&column, &apply(&column, &one, &first).unwrap(), &second).unwrap();
            let at_once = apply(&column, &one, &both).unwrap();
            prop_assert_eq!(
                meaning(&column, &at_once), meaning(&column, &stepwise),
                "{:?} then {:?} is {:?}", first, second, both
            );
        }
    }
}
