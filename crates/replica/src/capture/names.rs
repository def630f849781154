//! What the app calls its tables and columns now: `ALTER TABLE … RENAME` writes the new names into
//! our triggers.

use syncline_core::{
    ColumnNumber, TableNumber,
    sql::{Token, tokens},
};

use crate::objects::Objects;

/// Columns of a mark before the row's own.
const HEAD: usize = 4;

/// The captured columns of the table by number, under the names that they have now. One that was
/// dropped still has its last name; none without triggers.
pub(crate) fn names_in_triggers(
    schema: &Objects,
    number: TableNumber,
) -> Vec<(ColumnNumber, String)> {
    // It is simple, and always there.
    let trigger = schema.trigger(&format!("syncline_{}_delete", number.0));
    let sql = trigger.and_then(|trigger| trigger.sql.as_deref());
    sql.and_then(columns).unwrap_or_default()
}

/// The name that the captured table with this number has now: our triggers go with a table that
/// is renamed. `None` if the table is gone, or its triggers are.
pub(crate) fn captured_table(schema: &Objects, number: TableNumber) -> Option<String> {
    let trigger = schema.trigger(&format!("syncline_{}_insert", number.0))?;
    Some(trigger.table.clone())
}

/// The columns of `INSERT INTO mark(…, c1, c2) SELECT …, "a", "b" FROM`, each with its name.
fn columns(sql: &str) -> Option<Vec<(ColumnNumber, String)>> {
    let all = tokens(sql);
    let begin = all.iter().position(|token| token.is_word("BEGIN"))?;
    let body = &all[begin..];
    let open = body.iter().position(|token| token.is_symbol("("))?;
    let select = body.iter().position(|token| token.is_word("SELECT"))?;
    let numbers = body.get(open + 1..select)?.iter();
    let numbers: Vec<ColumnNumber> = numbers
        .filter_map(|token| token.text.strip_prefix('c')?.parse().ok())
        .map(ColumnNumber)
        .collect();
    let mut depth = 0_usize;
    let mut items: Vec<Vec<&Token<'_>>> = vec![Vec::new()];
    for token in &body[select + 1..] {
        match token.text {
            "(" => depth += 1,
            ")" => depth = depth.checked_sub(1)?,
            "," if depth == 0 => items.push(Vec::new()),
            _ if depth == 0 && token.is_word("FROM") => break,
            _ => {}
        }
        if depth == 0 && !token.is_symbol(",") {
            items.last_mut()?.push(token);
        }
    }
    let names: Vec<String> = items
        .get(HEAD..)?
        .iter()
        .map(|item| match item[..] {
            [only] => Some(only.name()),
            _ => None,
        })
        .collect::<Option<_>>()?;
    (names.len() == numbers.len()).then(|| numbers.into_iter().zip(names).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_select() {
        let sql = "CREATE TRIGGER syncline_16_delete BEFORE DELETE ON \"t\" FOR EACH ROW WHEN NOT \
            EXISTS (SELECT 1 FROM m) BEGIN\nINSERT INTO syncline_mark_16(n, seq, at, present, c1, c7)\n \
            SELECT (SELECT n FROM syncline_tx), (SELECT touched FROM syncline_tx), julianday('now'), \
            1, \"id\", \"a \"\"name\"\",\"\n FROM \"t\" AS r; END";
        let expected = [(1, "id"), (7, "a \"name\",")];
        assert_eq!(
            columns(sql),
            Some(
                expected
                    .map(|(c, name)| (ColumnNumber(c), name.to_owned()))
                    .to_vec()
            )
        );
        assert_eq!(columns("CREATE TRIGGER x BEGIN SELECT 1; END"), None);
    }
}
