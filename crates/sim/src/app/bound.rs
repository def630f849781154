//! Statements with their literals bound as parameters, as most apps write them: a statement that
//! comes again with other values is compiled once, with all the triggers it fires.

use rusqlite::{Connection, params_from_iter, types::Value};

/// Runs a statement without results.
pub(super) fn execute(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    let Some((sql, values)) = bind(sql) else {
        return conn.execute_batch(sql);
    };
    let mut statement = conn.prepare_cached(&sql)?;
    statement.execute(params_from_iter(values)).map(drop)
}

/// The statement with `?` in place of its literals, and these; `None` where parameters are not
/// allowed, or might mean something else.
fn bind(sql: &str) -> Option<(String, Vec<Value>)> {
    let verb = sql.split(' ').next()?;
    // A number after BY is a column.
    let has_other = [";", " BY "].iter().any(|other| sql.contains(other));
    if !["INSERT", "UPDATE", "DELETE"].contains(&verb) || has_other {
        return None;
    }
    let mut text = String::with_capacity(sql.len());
    let mut values = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\'' => {
                let length = literal_length(rest)?;
                let inside = &rest[1..length - 1];
                values.push(Value::Text(inside.replace("''", "'")));
                text.push('?');
                length
            }
            '0'..='9' => {
                let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '.';
                let length = rest.find(|c| !is_inside(c)).unwrap_or(rest.len());
                values.push(number(&rest[..length])?);
                text.push('?');
                length
            }
            'a'..='z' | 'A'..='Z' | '_' => {
                let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let length = rest.find(|c| !is_inside(c)).unwrap_or(rest.len());
                // X'00' is a literal of its own kind.
                if rest[length..].starts_with('\'') {
                    return None;
                }
                text.push_str(&rest[..length]);
                length
            }
            '"' | '`' | '[' | '?' | '\u{80}'.. => return None,
            '.' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => return None,
            other => {
                text.push(other);
                1
            }
        };
        rest = &rest[length..];
    }
    Some((text, values))
}

/// How long the text literal is that `sql` begins with, both quotes included.
fn literal_length(sql: &str) -> Option<usize> {
    let mut from = 1;
    loop {
        let end = from + sql[from..].find('\'')?;
        if !sql[end + 1..].starts_with('\'') {
            return Some(end + 1);
        }
        from = end + 2;
    }
}

fn number(text: &str) -> Option<Value> {
    match text.parse() {
        Ok(integer) => Some(Value::Integer(integer)),
        Err(_) => text.parse().ok().map(Value::Real),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_become_parameters() {
        let sql = "UPDATE t2 SET a = 'it''s', b = t2.b + 0.5, c = -3 WHERE d1 = ''";
        let (text, values) = bind(sql).expect("it has literals");
        assert_eq!(
            text,
            "UPDATE t2 SET a = ?, b = t2.b + ?, c = -? WHERE d1 = ?"
        );
        let of = |text: &str| Value::Text(text.to_owned());
        let expected = [of("it's"), Value::Real(0.5), Value::Integer(3), of("")];
        assert_eq!(values, expected);
    }

    #[test]
    fn what_cannot_be_bound_is_left_as_it_is() {
        for sql in [
            "CREATE TABLE t(a DEFAULT 1)",
            "INSERT INTO t VALUES (X'00')",
            "INSERT INTO t VALUES (1); DELETE FROM t",
            "INSERT INTO t VALUES ('open",
            "UPDATE \"t\" SET a = 1",
            "UPDATE größe1 SET a = 1",
            "UPDATE t SET a = .5",
            "INSERT INTO t SELECT a FROM u ORDER BY 1",
        ] {
            assert_eq!(bind(sql), None, "{sql}");
        }
    }
}
