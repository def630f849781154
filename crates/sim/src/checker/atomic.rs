//! Transactions show whole or not at all: pairs of rows whose values add up to zero.

use std::collections::BTreeMap;

use anyhow::bail;

/// Judges the values of pairs, each with the pair's name.
///
/// # Errors
/// The pair of which half shows.
pub(crate) fn check_pairs<'a>(
    values: impl Iterator<Item = (&'a String, i64)>,
) -> anyhow::Result<()> {
    let mut sums: BTreeMap<&String, (i64, u32)> = BTreeMap::new();
    for (pair, value) in values {
        let (sum, halves) = sums.entry(pair).or_default();
        *sum += value;
        *halves += 1;
    }
    match sums
        .iter()
        .find(|(_, (sum, halves))| *sum != 0 || halves % 2 != 0)
    {
        Some((pair, _)) => bail!("half of a transaction shows in {pair}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(values: &[(&str, i64)]) -> Result<(), String> {
        let values: Vec<_> = values
            .iter()
            .map(|(pair, n)| ((*pair).to_owned(), *n))
            .collect();
        check_pairs(values.iter().map(|(pair, n)| (pair, *n))).map_err(|error| error.to_string())
    }

    #[test]
    fn half_of_a_transaction_is_caught() {
        assert_eq!(judge(&[]), Ok(()));
        assert_eq!(judge(&[("p", 7), ("p", -7), ("q", 1), ("q", -1)]), Ok(()));
        let half = Err("half of a transaction shows in p".to_owned());
        assert_eq!(judge(&[("p", 7)]), half, "only one half");
        assert_eq!(judge(&[("p", 7), ("p", -6)]), half, "halves of two");
        assert_eq!(judge(&[("p", 0)]), half, "half of nothing");
    }
}
