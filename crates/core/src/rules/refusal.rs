//! A clause that rules cannot use, before it is known which table's rule it is in.

use sqlparser::{
    ast::{Expr, Spanned},
    tokenizer::Location,
};

use super::RuleError;

/// Clauses longer than this are shown shortened.
const CLAUSE_CHARS_MAX: usize = 200;

/// Why a rule text cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) clause: Clause,
    pub(super) message: String,
    pub(super) suggestion: String,
}

/// A piece of a rule's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clause {
    pub(super) text: String,
    pub(super) offset: Option<usize>,
}

impl Clause {
    /// Text that stands for itself.
    pub(super) fn new(text: &str) -> Self {
        let mut short: String = text.chars().take(CLAUSE_CHARS_MAX).collect();
        if short.len() < text.len() {
            short.push('…');
        }
        Self {
            text: short,
            offset: None,
        }
    }

    /// The part of `source` that `expr` was parsed from.
    pub(super) fn of(source: &str, expr: &Expr) -> Self {
        // The parser sees `IN (readable(t))` where people write `IN readable(t)`.
        let mut text = expr.to_string();
        for name in ["readable", "writable"] {
            let wrapped = format!("IN ({name}(");
            while let Some(start) = text.find(&wrapped) {
                let Some(end) = text[start..].find("))").map(|at| start + at) else {
                    break;
                };
                text.replace_range(end..end + 2, ")");
                text.replace_range(start..start + wrapped.len(), &format!("IN {name}("));
            }
        }
        // Spans leave out some first words, such as NOT; the text itself is sure where it occurs.
        let place = source
            .find(&text)
            .or_else(|| offset(source, expr.span().start));
        Self::new(&text).at(place)
    }

    /// The same clause at a known place.
    pub(super) fn at(self, offset: Option<usize>) -> Self {
        Self { offset, ..self }
    }
}

impl Refusal {
    pub(super) fn new(
        clause: Clause,
        message: impl Into<String>,
        suggestion: impl Into<String>,
    ) -> Self {
        Self {
            clause,
            message: message.into(),
            suggestion: suggestion.into(),
        }
    }

    /// Names the table and the rule.
    pub(super) fn within(self, table: &str, rule: &'static str) -> RuleError {
        RuleError {
            table: table.to_owned(),
            rule,
            clause: self.clause.text,
            message: self.message,
            suggestion: self.suggestion,
            offset: self.clause.offset,
        }
    }
}

/// The byte offset of a place that the parser names by line and column.
pub(super) fn offset(source: &str, place: Location) -> Option<usize> {
    if place.line == 0 || place.column == 0 {
        return None;
    }
    let (mut line, mut column) = (1, 1);
    for (at, char) in source.char_indices() {
        if (line, column) == (place.line, place.column) {
            return Some(at);
        }
        if char == '\n' {
            (line, column) = (line + 1, 1);
        } else {
            column += 1;
        }
    }
    ((line, column) == (place.line, place.column)).then_some(source.len())
}
