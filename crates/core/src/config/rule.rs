//! Rules that do not compile are mistakes of the file like others.

use super::{error::Mistakes, place::Source};
use crate::{
    rules::{RuleError, Rules},
    schema::Schema,
};

/// Adds every rule that does not compile.
pub(super) fn check(schema: &Schema, source: &Source, m: &mut Mistakes) {
    for error in errors(schema) {
        m.push(source.mistake(&error));
    }
}

/// The same for a file with other mistakes, in tables as far as they could be read. No rule is
/// blamed for what is told already: that nothing is known of the `unread` columns, and that a
/// table has no key.
pub(super) fn check_beside_others(
    schema: &Schema,
    unread: &[String],
    source: &Source,
    m: &mut Mistakes,
) {
    let mut schema = schema.clone();
    for table in &mut schema.tables {
        if table.primary_key.is_empty() && !table.columns.is_empty() {
            table.primary_key.push(0);
        }
    }
    for error in errors(&schema) {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let mut words = error.clause.split(|c| !is_word(c));
        if !words.any(|word| unread.iter().any(|name| name.eq_ignore_ascii_case(word))) {
            m.push(source.mistake(&error));
        }
    }
}

/// None as long as a table has no columns: what rules may say of them is not known.
fn errors(schema: &Schema) -> Vec<RuleError> {
    if schema.tables.iter().any(|table| table.columns.is_empty()) {
        return Vec::new();
    }
    Rules::compile(schema, &[0; 32]).err().unwrap_or_default()
}
