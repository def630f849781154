//! Splits the SQL text that `sqlite_schema` keeps into tokens: just enough of SQLite's lexer to
//! find a clause without being fooled by quotes, comments and parentheses.

/// One token; comments and white space are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    pub kind: Kind,
    pub text: &'a str,
    /// Byte offset in the text.
    pub start: usize,
}

/// What a [`Token`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A keyword, bare name or number.
    Word,
    /// `"name"`, `[name]` or `` `name` ``.
    Quoted,
    /// `'text'`.
    Text,
    /// One character of punctuation.
    Symbol,
}

impl Token<'_> {
    /// Byte offset behind it.
    #[must_use]
    pub fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// Whether it is this keyword, in any case.
    #[must_use]
    pub fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    /// Whether it is this character of punctuation.
    #[must_use]
    pub fn is_symbol(&self, symbol: &str) -> bool {
        self.kind == Kind::Symbol && self.text == symbol
    }

    /// The name this token stands for.
    #[must_use]
    pub fn name(&self) -> String {
        let Some(quote) = self.text.chars().next() else {
            return String::new();
        };
        let close = match quote {
            '[' => return self.text[1..].trim_end_matches(']').to_owned(),
            '"' | '`' | '\'' => quote,
            _ => return self.text.to_owned(),
        };
        let inner = &self.text[1..];
        let inner = inner.strip_suffix(close).unwrap_or(inner);
        inner.replace(&format!("{close}{close}"), &close.to_string())
    }
}

/// The tokens of `sql`. Unterminated quotes run to the end.
#[must_use]
pub fn tokens(sql: &str) -> Vec<Token<'_>> {
    let mut out = Vec::new();
    let mut start = 0;
    while let Some(first) = sql[start..].chars().next() {
        let rest = &sql[start..];
        let (kind, len) = match first {
            c if c.is_ascii_whitespace() => (None, 1),
            '-' if rest.starts_with("--") => (None, rest.find('\n').map_or(rest.len(), |i| i + 1)),
            '/' if rest.starts_with("/*") => {
                (None, rest[2..].find("*/").map_or(rest.len(), |i| i + 4))
            }
            '\'' => (Some(Kind::Text), quoted_len(rest, '\'')),
            '"' | '`' => (Some(Kind::Quoted), quoted_len(rest, first)),
            '[' => (
                Some(Kind::Quoted),
                rest.find(']').map_or(rest.len(), |i| i + 1),
            ),
            c if is_word(c) => (
                Some(Kind::Word),
                rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            ),
            c => (Some(Kind::Symbol), c.len_utf8()),
        };
        if let Some(kind) = kind {
            out.push(Token {
                kind,
                text: &rest[..len],
                start,
            });
        }
        start += len;
    }
    out
}

/// Whether `text` can stand between parentheses as one expression that ends where they do: for
/// text from a stranger that becomes part of a statement. A subquery is none: SQLite takes no
/// subqueries in the expressions of a schema, and one could read other tables.
#[must_use]
pub fn is_closed_expression(text: &str) -> bool {
    let whole = format!("({text})");
    let (mut depth, mut end) = (0_usize, 0);
    for token in tokens(&whole) {
        // Between tokens there is white space only: comments could hide what follows.
        let gap_is_blank = whole[end..token.start].trim_ascii().is_empty();
        let is_closed = depth == 0 && end > 0;
        // `$` begins a parameter, whose name SQLite reads in a way of its own.
        let is_strange = token.text.contains(['\0', ';', '$', '?', '@', '#'])
            && matches!(token.kind, Kind::Word | Kind::Symbol);
        // Every query has one of them, also one that begins with WITH.
        let is_query = token.is_word("SELECT") || token.is_word("VALUES");
        if !gap_is_blank || is_closed || is_strange || is_query || whole.contains('\0') {
            return false;
        }
        match token.text {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        end = token.end();
    }
    depth == 0 && end == whole.len()
}

/// Whether `text` is the name of a type as SQLite takes it in a column's definition, and nothing
/// besides: words, and numbers in parentheses at the end.
#[must_use]
pub fn is_type_name(text: &str) -> bool {
    let (words, rest) = text
        .find('(')
        .map_or((text, ""), |open| text.split_at(open));
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ' ';
    let numbers = rest
        .strip_prefix('(')
        .and_then(|rest| rest.trim_end().strip_suffix(')'));
    let is_size = |c: char| c.is_ascii_digit() || matches!(c, ' ' | ',' | '+' | '-');
    // The words with which a constraint begins would end the type's name.
    let constraints = [
        "CONSTRAINT",
        "PRIMARY",
        "NOT",
        "NULL",
        "UNIQUE",
        "CHECK",
        "DEFAULT",
        "COLLATE",
        "REFERENCES",
        "GENERATED",
        "ALWAYS",
        "AS",
        "ON",
    ];
    let is_free = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && !constraints.iter().any(|c| c.eq_ignore_ascii_case(word))
    };
    !words.trim().is_empty()
        && words.chars().all(plain)
        && words.split_whitespace().all(is_free)
        && (rest.is_empty() || numbers.is_some_and(|n| !n.is_empty() && n.chars().all(is_size)))
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

/// The length of a quoted token at the start of `rest`; a doubled quote does not end it.
fn quoted_len(rest: &str, quote: char) -> usize {
    let bytes = rest.as_bytes();
    let mut i = 1;
    while i < bytes.len() {
        if bytes[i] == quote as u8 {
            if bytes.get(i + 1) != Some(&(quote as u8)) {
                return i + 1;
            }
            i += 1;
        }
        i += 1;
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_comments_and_names() {
        let sql = "CREATE -- (\n\"a\"\"b\" /* ' */ [c d]`e` 'it''s' ü1,";
        let found: Vec<_> = tokens(sql).iter().map(|t| (t.kind, t.name())).collect();
        let expected = [
            (Kind::Word, "CREATE"),
            (Kind::Quoted, "a\"b"),
            (Kind::Quoted, "c d"),
            (Kind::Quoted, "e"),
            (Kind::Text, "it's"),
            (Kind::Word, "ü1"),
            (Kind::Symbol, ","),
        ];
        assert_eq!(found, expected.map(|(kind, name)| (kind, name.to_owned())));
    }

    #[test]
    fn an_expression_from_a_stranger_ends_where_its_parentheses_do() {
        let closed = [
            "1",
            "'it''s ; -- fine'",
            "length(title) <= 200 AND (a OR b)",
            "datetime('now')",
            "x'00ff' || \"a)b\" || [c(d]",
            "json_extract(s, '$.a')",
            "\"values\" <> 'select'",
        ];
        for text in closed {
            assert!(is_closed_expression(text), "{text}");
        }
        let open = [
            "",
            "1); DROP TABLE t; --",
            "1)) ; ATTACH 'x' AS y; --",
            "1 -- ",
            "1 /* ",
            "1 /* */",
            "'",
            "\"",
            "[",
            "`",
            "a) (b",
            "(",
            ")",
            "1; 2",
            "(SELECT secret FROM others)",
            "1 + (values(2))",
            "(WITH a AS (SELECT 1) SELECT * FROM a)",
            "$a(')",
            "?1",
            "@a",
            "1\0",
        ];
        for text in open {
            let text = text.replace("\\0", "\0");
            assert!(!is_closed_expression(&text) || text.is_empty(), "{text:?}");
        }
    }

    #[test]
    fn names_of_types_are_nothing_else() {
        for name in ["INT", "varchar(20)", "DOUBLE PRECISION", "DECIMAL (10, -2)"] {
            assert!(is_type_name(name), "{name}");
        }
        let others = [
            "",
            " ",
            "TEXT NOT NULL",
            "TEXT COLLATE x",
            "TEXT)",
            "TEXT, b",
            "TEXT(1) CHECK (0)",
            "\"TEXT\"",
            "TEXT(a)",
            "TEXT()",
            "2",
            "TEXT--",
        ];
        for text in others {
            assert!(!is_type_name(text), "{text}");
        }
    }

    #[test]
    fn what_does_not_end_runs_to_the_end() {
        for sql in ["'abc", "\"abc", "[abc", "/* abc", "-- abc"] {
            assert!(tokens(sql).len() <= 1, "{sql}");
        }
    }
}
