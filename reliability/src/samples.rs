//! Numbers that were looked at again and again, and what may be said of them.

use anyhow::{Result, ensure};

use crate::device::Device;

/// The value below which so many in a hundred lie; 0 of none.
pub(crate) fn percentile(values: &[u64], percent: usize) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let at = sorted.len() * percent / 100;
    sorted
        .get(at.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0)
}

/// The second and the last of four parts: the first is for warming up.
pub(crate) fn quarters(values: &[u64]) -> (&[u64], &[u64]) {
    let quarter = values.len() / 4;
    (
        &values[quarter..2 * quarter],
        &values[values.len() - quarter..],
    )
}

/// Of a series that must not grow: the median of its last quarter is at most a tenth, and `slack`,
/// above that of its second.
pub(crate) fn flat(what: &str, unit: &str, values: &[u64], slack: u64) -> Result<()> {
    let (second, last) = quarters(values);
    let (before, after) = (percentile(second, 50), percentile(last, 50));
    println!(
        "  {what}: {before} {unit} in the second quarter, {after} in the last, {} at most",
        values.iter().max().copied().unwrap_or(0)
    );
    ensure!(
        after <= before + before / 10 + slack,
        "GROWS: {what} was {before} {unit} in the second quarter and is {after} in the last"
    );
    Ok(())
}

/// How long each edit of `writer` took until `reader` had it or a newer one, in microseconds, with
/// the moment at which it was made.
pub(crate) fn latencies(writer: &Device, reader: &Device) -> Vec<(u64, u64)> {
    let mut saw = reader.saw.iter().filter(|(name, ..)| *name == writer.name);
    let mut next = saw.next();
    let mut all = Vec::new();
    for &(n, made) in &writer.wrote {
        while next.is_some_and(|(_, seen, _)| *seen < n) {
            next = saw.next();
        }
        let Some((.., at)) = next else { break };
        all.push((made, at.saturating_sub(made)));
    }
    all
}

/// Latencies between these moments, in microseconds.
pub(crate) fn between(all: &[(u64, u64)], from: u64, to: u64) -> Vec<u64> {
    let some = all.iter().filter(|(made, _)| (from..to).contains(made));
    some.map(|(_, took)| *took).collect()
}

/// Now, as apps tell it.
pub(crate) fn micros() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    })
}

/// Half, 95 and 99 in a hundred are at most so many milliseconds.
pub(crate) fn told(values: &[u64]) -> String {
    let millis = |percent| percentile(values, percent) / 1_000;
    format!(
        "p50 {} ms, p95 {} ms, p99 {} ms of {}",
        millis(50),
        millis(95),
        millis(99),
        values.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_that_grows_is_seen_and_one_that_warms_up_is_not() {
        let grows: Vec<u64> = (0..400).map(|n| 1_000 + 2 * n).collect();
        assert!(flat("it", "units", &grows, 100).is_err());
        let warm: Vec<u64> = (0..400).map(|n| 1_000 + 10 * n.min(90)).collect();
        assert!(flat("it", "units", &warm, 0).is_ok());
    }

    #[test]
    fn percentiles_of_few_and_of_none() {
        assert_eq!(percentile(&[], 50), 0);
        assert_eq!(percentile(&[7], 99), 7);
        assert_eq!(percentile(&[3, 1, 2], 50), 2);
    }
}
