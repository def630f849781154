//! Indexes that are more than a list of columns: `"(lower(name), made desc) where done = 0"`.

use super::{error::Mistake, tokens::Tokens};
use crate::{
    schema::FurtherIndex,
    sql::{is_closed_expression, without_comments},
};

const EXAMPLE: &str = "write for example \"(lower(name)) where done = 0\"";

/// Whether a text says such an index, and is no column's name.
pub(super) fn is_meant(text: &str) -> bool {
    text.trim_ascii_start().starts_with('(')
}

/// Reads the text of one.
pub(super) fn parse(text: &str, unique: bool) -> Result<FurtherIndex, Mistake> {
    let mut tokens = Tokens::new(text)?;
    let terms = without_comments(tokens.group(EXAMPLE)?);
    let at = tokens.at();
    let condition = if tokens.is_at_end() {
        None
    } else if tokens.accept("where") {
        let at = tokens.at();
        Some(without_comments(text.get(at..).unwrap_or_default()))
    } else {
        return Err(tokens.mistake("`where`, or the end", EXAMPLE));
    };
    for part in condition.iter().chain([&terms]) {
        if part.is_empty() || !is_closed_expression(part) {
            let message = "it is no index".to_owned();
            let expected = "columns or expressions in parentheses, and `where` a condition";
            return Err(Mistake::new(at, message, expected, EXAMPLE));
        }
    }
    Ok(FurtherIndex {
        unique,
        terms,
        condition,
    })
}

/// The text again.
pub(super) fn text(index: &FurtherIndex) -> String {
    let terms = without_comments(&index.terms);
    match index.condition.as_deref().map(without_comments) {
        Some(condition) => format!("({terms}) where {condition}"),
        None => format!("({terms})"),
    }
}
