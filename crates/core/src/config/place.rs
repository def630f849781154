//! Where the file says what: from bytes to lines and columns, and from a rule's text to its file.

use std::{collections::BTreeMap, ops::Range};

use super::error::{ConfigError, Mistake};
use crate::rules::RuleError;

/// Where something is written. All places are equal: they are no part of what is said.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place(pub(super) usize);

impl PartialEq for Place {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// The file's name and text, and where its rules are. All sources are equal, as places are.
#[derive(Debug, Clone, Default)]
pub(super) struct Source {
    file: String,
    text: String,
    rules: BTreeMap<RuleName, Range<usize>>,
    tables: BTreeMap<String, usize>,
}

/// Table, rule, and for `force` the column.
type RuleName = (String, &'static str, String);

impl PartialEq for Source {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Source {
    pub(super) fn new(file: &str, text: &str) -> Self {
        Self {
            file: file.to_owned(),
            text: text.to_owned(),
            ..Self::default()
        }
    }

    /// Notes where a table's section starts.
    pub(super) fn add_table(&mut self, table: &str, at: usize) {
        self.tables.insert(table.to_owned(), at);
    }

    /// Where a table's section starts; the file's start for one that is not in it.
    pub(super) fn table(&self, table: &str) -> usize {
        self.tables.get(table).copied().unwrap_or(0)
    }

    /// Where the value of a forced column is.
    pub(super) fn force(&self, table: &str, column: &str) -> Option<usize> {
        let name = (table.to_owned(), "force", column.to_owned());
        Some(self.rules.get(&name)?.start)
    }

    /// Notes that the string at `span`, quotes included, is a rule.
    pub(super) fn rule(
        &mut self,
        table: &str,
        rule: &'static str,
        column: &str,
        span: Range<usize>,
    ) {
        self.rules
            .insert((table.to_owned(), rule, column.to_owned()), span);
    }

    pub(super) fn error(&self, mistake: Mistake) -> ConfigError {
        let (line, column) = self.line_and_column(mistake.at);
        let Mistake {
            message,
            expected,
            suggestion,
            ..
        } = mistake;
        ConfigError {
            file: self.file.clone(),
            line,
            column,
            message,
            expected,
            suggestion,
        }
    }

    /// Offset in the file of a place in the string at `span`, as the string reads.
    pub(super) fn inside(&self, span: &Range<usize>, offset: usize) -> usize {
        let raw = self.text.get(span.clone()).unwrap_or_default();
        span.start + raw_offset(raw, offset)
    }

    pub(super) fn locate(&self, error: &RuleError) -> ConfigError {
        self.error(self.mistake(error))
    }

    /// A rule that did not compile, at its place in the file.
    pub(super) fn mistake(&self, error: &RuleError) -> Mistake {
        let at = match self.place_of(error) {
            Some((span, offset)) => self.inside(span, offset),
            None => 0,
        };
        let RuleError {
            table,
            rule,
            clause,
            message,
            suggestion,
            ..
        } = error;
        Mistake::new(
            at,
            format!("tables.{table}.{rule}: {message}: `{clause}`"),
            "a rule in one of the forms that can be synced",
            suggestion.clone(),
        )
    }

    fn place_of(&self, error: &RuleError) -> Option<(&Range<usize>, usize)> {
        let offset = error.offset.unwrap_or(0);
        let named = |rule: &'static str, column: &str| {
            self.rules
                .get(&(error.table.clone(), rule, column.to_owned()))
        };
        if error.rule == "force" {
            // The clause is the column, or a part of what the column is set to.
            if let Some(span) = named("force", &error.clause) {
                return Some((span, 0));
            }
            let all = self
                .rules
                .iter()
                .filter(|((table, rule, _), _)| *table == error.table && *rule == "force");
            let spans: Vec<_> = all.map(|(_, span)| span).collect();
            let says = |span: &&&Range<usize>| self.text[(**span).clone()].contains(&error.clause);
            return spans
                .iter()
                .find(says)
                .or(spans.first())
                .map(|span| (*span, offset));
        }
        named(error.rule, "")
            .or_else(|| named("write", ""))
            .map(|span| (span, offset))
    }

    fn line_and_column(&self, at: usize) -> (usize, usize) {
        let before = &self.text[..self.text.floor_char_boundary(at)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.bytes().filter(|&b| b == b'\n').count() + 1;
        // No editor counts a byte order mark.
        let text = before[line_start..].trim_start_matches('\u{feff}');
        (line, text.chars().count() + 1)
    }
}

/// Where in the TOML string `raw`, quotes included, its value has the byte `offset`.
fn raw_offset(raw: &str, offset: usize) -> usize {
    let quote = if raw.starts_with('\'') { "'" } else { "\"" };
    let long = raw.starts_with(&quote.repeat(3)) && raw.len() >= 6;
    let mut at = if long { 3 } else { 1 };
    if long {
        // A newline right after the opening quotes is no part of the value.
        let rest = &raw[at..];
        at += if rest.starts_with("\r\n") {
            2
        } else {
            usize::from(rest.starts_with('\n'))
        };
    }
    let mut decoded = 0;
    while decoded < offset {
        let Some(c) = raw.get(at..).and_then(|rest| rest.chars().next()) else {
            break;
        };
        if c == '\\' && quote == "\"" {
            let (taken, gives) = escape(&raw[at..]);
            at += taken;
            decoded += gives;
        } else {
            at += c.len_utf8();
            decoded += c.len_utf8();
        }
    }
    at.min(raw.len())
}

/// How many bytes the escape at the start of `raw` takes, and how many it stands for.
fn escape(raw: &str) -> (usize, usize) {
    let digits = |count: usize| {
        let hex = raw.get(2..2 + count).unwrap_or_default();
        let c = u32::from_str_radix(hex, 16).ok().and_then(char::from_u32);
        (2 + count, c.map_or(1, char::len_utf8))
    };
    match raw.as_bytes().get(1) {
        Some(b'x') => digits(2),
        Some(b'u') => digits(4),
        Some(b'U') => digits(8),
        // A backslash at the end of a line takes away all white space after it.
        Some(b' ' | b'\t' | b'\n' | b'\r') => (
            1 + raw[1..].len() - raw[1..].trim_start_matches([' ', '\t', '\n', '\r']).len(),
            0,
        ),
        Some(_) => (2, 1),
        None => (1, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &str, needle: &str) {
        let parsed = toml::de::DeValue::parse(raw).unwrap();
        let decoded = parsed.get_ref().as_str().unwrap();
        let offset = decoded.find(needle).unwrap();
        let at = raw_offset(raw, offset);
        assert!(raw[at..].starts_with(needle), "{needle} in {raw}: {at}");
    }

    #[test]
    fn cf3_places_in_strings_are_places_in_the_file() {
        check(r#""a = b""#, "b");
        check("'a = b'", "b");
        check(r#""\"é\" \\ = b""#, "b");
        check(r#""\u00e9\U0001F600\x41\t = b""#, "b");
        check("\"\"\"\na\n  = b\"\"\"", "b");
        check("\"\"\"\r\na \\\n    = b\"\"\"", "b");
        check("'''\n\\a = b'''", "b");
    }
}
