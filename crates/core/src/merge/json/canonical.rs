//! The canonical text of a JSON value: equal values have equal texts (spec ME11).

use std::fmt::Write as _;

use super::{Json, scan};

/// No white space, members sorted by key, strings with the fewest escapes, numbers as
/// [`number`] says. For comparison only: nothing stores it in place of what an app wrote.
pub(crate) fn canonical(value: &Json<'_>) -> String {
    let mut out = String::new();
    write_to(&mut out, value);
    out
}

fn write_to(out: &mut String, value: &Json<'_>) {
    match value {
        Json::Scalar(text) => match text.as_bytes().first() {
            Some(b'"') => {
                let text = scan::decoded(text).expect("the scanner decoded this string before");
                out.push_str(&string(&text));
            }
            Some(b'-' | b'0'..=b'9') => out.push_str(&number(text)),
            _ => out.push_str(text),
        },
        Json::Array(array) => {
            out.push('[');
            for (i, item) in array.items().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                write_to(out, item);
            }
            out.push(']');
        }
        Json::Object(object) => {
            out.push('{');
            for (i, key) in object.index.keys().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                out.push_str(&string(key));
                out.push(':');
                write_to(out, object.get(key).expect("the index names live members"));
            }
            out.push('}');
        }
    }
}

/// `text` quoted, with quotes, backslashes and control characters escaped.
pub(super) fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("writing to a string works");
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The exact decimal value: sign, digits without zeros at either end, `e` and the power of ten
/// unless that is zero. `1.50` is `15e-1`, `100` and `1e2` are `1e2`, every zero is `0`.
///
/// A power of ten beyond ±10^17 leaves the text as it is.
fn number(text: &str) -> String {
    let (sign, text_abs) = text
        .strip_prefix('-')
        .map_or(("", text), |rest| ("-", rest));
    let (mantissa, power) = text_abs.split_once(['e', 'E']).unwrap_or((text_abs, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return "0".into();
    }
    let zeros = digits.len() - digits.trim_end_matches('0').len();
    let shift = i64::try_from(zeros)
        .ok()
        .zip(i64::try_from(fraction.len()).ok());
    let power: Option<i64> = power
        .parse()
        .ok()
        .filter(|power: &i64| power.abs() <= POWER_MAX);
    let Some((power, (zeros, fraction))) = power.zip(shift) else {
        return text.to_owned();
    };
    match power + zeros - fraction {
        0 => format!("{sign}{significant}"),
        power => format!("{sign}{significant}e{power}"),
    }
}

const POWER_MAX: i64 = 100_000_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn me11_numbers_compare_by_exact_value() {
        let check = |text, expected: &str| assert_eq!(number(text), expected, "{text}");
        for zero in ["0", "-0", "0.000", "0e9", "-0.0E-3"] {
            check(zero, "0");
        }
        for hundred in ["100", "1e2", "1.0E+2", "0.1e3", "1000e-1", "100.00"] {
            check(hundred, "1e2");
        }
        check("1.50", "15e-1");
        check("-12", "-12");
        check("90071992547409931", "90071992547409931");
        check("1e999999999999999999999", "1e999999999999999999999");
    }
}
