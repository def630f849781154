//! What no pragma tells: CHECKs, collations, AUTOINCREMENT, expressions and conditions of
//! indexes, read from the SQL text in `sqlite_schema`.

use super::tokens::{Kind, Token, tokens};
use crate::schema::Computed;

/// What CREATE TABLE says about one column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnText {
    pub name: String,
    /// Without the word and the outer parentheses; several are joined by AND.
    pub check: Option<String>,
    pub collate: Option<String>,
    pub computed: Option<Computed>,
}

/// What CREATE TABLE says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableText {
    /// In the order of the table.
    pub columns: Vec<ColumnText>,
    /// CHECKs of the table as a whole.
    pub checks: Vec<String>,
    pub autoincrement: bool,
    pub strict: bool,
}

/// What CREATE INDEX says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IndexText {
    /// Each term without ASC or DESC.
    pub terms: Vec<String>,
    /// Aligned with `terms`: whether it is DESC.
    pub descending: Vec<bool>,
    /// The condition of a partial index.
    pub predicate: Option<String>,
}

/// Reads a CREATE TABLE statement as `sqlite_schema` has it.
#[must_use]
pub fn table_text(sql: &str) -> TableText {
    let all = tokens(sql);
    let mut out = TableText::default();
    let (items, end) = list_items(&all);
    let options = all.get(end..).unwrap_or_default();
    out.strict = options.iter().any(|option| option.is_word("STRICT"));
    for item in items {
        let starts_constraint = ["CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"]
            .iter()
            .any(|word| item[0].is_word(word));
        out.autoincrement |= top_level(item).any(|i| item[i].is_word("AUTOINCREMENT"));
        let checks = after(sql, item, "CHECK");
        if starts_constraint {
            out.checks.extend(checks);
            continue;
        }
        let collate = top_level(item)
            .find(|&i| i > 0 && item[i].is_word("COLLATE"))
            .and_then(|i| Some(item.get(i + 1)?.name()));
        let check = match checks.len() {
            0 | 1 => checks.into_iter().next(),
            _ => Some(format!("({})", checks.join(") AND ("))),
        };
        out.columns.push(ColumnText {
            name: item[0].name(),
            check,
            collate,
            computed: computed(sql, item),
        });
    }
    out
}

/// Reads a CREATE INDEX statement as `sqlite_schema` has it.
#[must_use]
pub fn index_text(sql: &str) -> IndexText {
    let all = tokens(sql);
    let (items, end) = list_items(&all);
    let term = |item: &[Token<'_>]| {
        let ordered = item
            .last()
            .is_some_and(|t| t.is_word("ASC") || t.is_word("DESC"));
        let last = if ordered && item.len() > 1 {
            item.len() - 2
        } else {
            item.len() - 1
        };
        sql[item[0].start..item[last].end()].to_owned()
    };
    let rest = all.get(end..).unwrap_or_default();
    let predicate = match rest {
        [word, first, .., last] if word.is_word("WHERE") => {
            Some(sql[first.start..last.end()].to_owned())
        }
        [word, only] if word.is_word("WHERE") => Some(only.text.to_owned()),
        _ => None,
    };
    let descends = |item: &&[Token<'_>]| {
        let last = item.last();
        item.len() > 1 && last.is_some_and(|token| token.is_word("DESC"))
    };
    IndexText {
        descending: items.iter().map(descends).collect(),
        terms: items.into_iter().map(term).collect(),
        predicate: predicate.map(|text| without_comments(&text)),
    }
}

/// The items of the first parenthesised list, and the position behind its end.
fn list_items<'t, 'a>(all: &'t [Token<'a>]) -> (Vec<&'t [Token<'a>]>, usize) {
    let Some(open) = all.iter().position(|t| t.is_symbol("(")) else {
        return (Vec::new(), all.len());
    };
    let (mut items, mut depth, mut from) = (Vec::new(), 0_usize, open + 1);
    for (i, token) in all.iter().enumerate().skip(open) {
        if token.is_symbol("(") {
            depth += 1;
        } else if token.is_symbol(")") {
            depth -= 1;
        }
        if depth == 0 || (depth == 1 && token.is_symbol(",")) {
            if from < i {
                items.push(&all[from..i]);
            }
            from = i + 1;
        }
        if depth == 0 {
            return (items, i + 1);
        }
    }
    (items, all.len())
}

/// Positions in `item` outside parentheses.
fn top_level<'t>(item: &'t [Token<'_>]) -> impl Iterator<Item = usize> + 't {
    let mut depth = 0_usize;
    (0..item.len()).filter(move |&i| {
        let outside = depth == 0;
        if item[i].is_symbol("(") {
            depth += 1;
        } else if item[i].is_symbol(")") {
            depth = depth.saturating_sub(1);
        }
        outside
    })
}

/// What is in the parentheses that follow this word outside of others.
fn after(sql: &str, item: &[Token<'_>], word: &str) -> Vec<String> {
    let inner = |at: usize| {
        let open = item.get(at + 1).filter(|t| t.is_symbol("("))?;
        let close = (at + 2..item.len()).find({
            let mut depth = 1_usize;
            move |&i| {
                if item[i].is_symbol("(") {
                    depth += 1;
                } else if item[i].is_symbol(")") {
                    depth -= 1;
                }
                depth == 0
            }
        })?;
        Some(without_comments(&sql[open.end()..item[close].start]))
    };
    top_level(item)
        .filter(|&i| item[i].is_word(word))
        .filter_map(inner)
        .collect()
}

/// `AS (expression) STORED`, with or without GENERATED ALWAYS.
fn computed(sql: &str, item: &[Token<'_>]) -> Option<Computed> {
    let expression = after(sql, item, "AS").into_iter().next()?;
    let stored = top_level(item).any(|i| i > 0 && item[i].is_word("STORED"));
    Some(Computed { expression, stored })
}

/// `sql` with a space in place of each comment: one that runs to the end of its line would hide
/// what is written after it.
#[must_use]
pub fn without_comments(sql: &str) -> String {
    let (mut out, mut end) = (String::with_capacity(sql.len()), 0);
    for token in tokens(sql) {
        let gap = &sql[end..token.start];
        out.push_str(if gap.trim_ascii().is_empty() {
            gap
        } else {
            " "
        });
        out.push_str(token.text);
        end = token.end();
    }
    out.trim().to_owned()
}

/// The default that SQLite keeps as `sql`, spelled so that it means the same in parentheses too:
/// there a name, in double quotes or none, is no text any more.
#[must_use]
pub fn default_text(sql: &str) -> String {
    let sql = without_comments(sql);
    let all = tokens(&sql);
    let [only] = all[..] else { return sql };
    let is_keyword = || {
        let words = [
            "NULL",
            "TRUE",
            "FALSE",
            "CURRENT_TIME",
            "CURRENT_DATE",
            "CURRENT_TIMESTAMP",
        ];
        words.iter().any(|word| only.is_word(word))
    };
    let is_name = match only.kind {
        Kind::Quoted => true,
        Kind::Word => !only.text.starts_with(|c: char| c.is_ascii_digit()) && !is_keyword(),
        Kind::Text | Kind::Symbol => false,
    };
    if is_name {
        format!("'{}'", only.name().replace('\'', "''"))
    } else {
        sql
    }
}

/// What a CREATE TRIGGER statement fires on: insert, update, delete. All three where the text is
/// not understood.
#[must_use]
pub fn trigger_events(sql: &str) -> [bool; 3] {
    let all = tokens(sql);
    // A trigger's name may be one of the words too: then there are two of them.
    let head = all.iter().take_while(|token| !token.is_word("ON"));
    let mut events = [false; 3];
    for token in head {
        for (event, word) in events.iter_mut().zip(["INSERT", "UPDATE", "DELETE"]) {
            *event |= token.is_word(word);
        }
    }
    if events.contains(&true) {
        events
    } else {
        [true; 3]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clauses_of_a_table() {
        let text = table_text(
            "CREATE TABLE \"t (\"(\n  id INTEGER PRIMARY KEY AUTOINCREMENT, -- a, b\n \
             [check] TEXT COLLATE \"my coll\" CHECK (length(\"check\") > (1)) CHECK(1),\n \
             c DEFAULT 'CHECK (x)' REFERENCES p(a, b), 'd', \
             CONSTRAINT x CHECK (id <> ')'), UNIQUE (c) CHECK (c)) STRICT",
        );
        let column = |name: &str, check: Option<&str>, collate: Option<&str>| ColumnText {
            name: name.into(),
            check: check.map(Into::into),
            collate: collate.map(Into::into),
            computed: None,
        };
        let check = "(length(\"check\") > (1)) AND (1)";
        let expected = [
            column("id", None, None),
            column("check", Some(check), Some("my coll")),
            column("c", None, None),
            column("d", None, None),
        ];
        assert_eq!(text.columns, expected);
        assert_eq!(text.checks, ["id <> ')'", "c"]);
        assert!(text.autoincrement && text.strict);
        assert!(!table_text("CREATE TABLE t (strict, b) WITHOUT ROWID").strict);
    }

    #[test]
    fn how_columns_are_computed() {
        let text = table_text(
            "CREATE TABLE t (a, b TEXT GENERATED ALWAYS AS (upper(a) /* x */ || ')') STORED NOT NULL, \
             c AS (a + (1)), d INT DEFAULT (CAST(1 AS INT)), \"as\" (1), stored AS (1) VIRTUAL)",
        );
        let found: Vec<_> = text
            .columns
            .iter()
            .map(|c| {
                c.computed
                    .as_ref()
                    .map(|c| (c.expression.as_str(), c.stored))
            })
            .collect();
        let expected = [
            None,
            Some(("upper(a) || ')'", true)),
            Some(("a + (1)", false)),
            None,
            None,
            Some(("1", false)),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn comments_are_no_part_of_an_expression() {
        let text = table_text(
            "CREATE TABLE t (a CHECK (a > 0 -- positive )\n), b CHECK (/* ( */ b <> '--' /*x*/ AND b))",
        );
        let checks: Vec<_> = text.columns.iter().map(|c| c.check.as_deref()).collect();
        assert_eq!(checks, [Some("a > 0"), Some("b <> '--' AND b")]);
        for check in checks.into_iter().flatten() {
            assert!(crate::sql::is_closed_expression(check), "{check}");
        }
        assert_eq!(without_comments("1 -- one"), "1");
        assert_eq!(without_comments("'a\n--b'"), "'a\n--b'");
        assert_eq!(without_comments("/* nothing */"), "");
    }

    #[test]
    fn clauses_of_an_index() {
        let text = index_text(
            "CREATE UNIQUE INDEX i ON t(lower(a, 'x,y') DESC, b COLLATE NOCASE, \"desc\")\n \
             WHERE (deleted = 0) AND b <> ')'",
        );
        assert_eq!(
            text.terms,
            ["lower(a, 'x,y')", "b COLLATE NOCASE", "\"desc\""]
        );
        assert_eq!(text.descending, [true, false, false]);
        assert_eq!(
            text.predicate.as_deref(),
            Some("(deleted = 0) AND b <> ')'")
        );
        assert_eq!(
            index_text("CREATE INDEX i ON t(a) WHERE b")
                .predicate
                .as_deref(),
            Some("b")
        );
        assert_eq!(index_text("CREATE INDEX i ON t(a)").predicate, None);
    }

    #[test]
    fn events_of_a_trigger() {
        let cases = [
            (
                "CREATE TRIGGER x AFTER INSERT ON t BEGIN DELETE FROM u; END",
                [true, false, false],
            ),
            (
                "CREATE TRIGGER \"delete\" UPDATE OF a, b ON t BEGIN SELECT 1; END",
                [false, true, false],
            ),
            (
                "CREATE TRIGGER y /* update */ before delete on t BEGIN SELECT 1; END",
                [false, false, true],
            ),
            ("", [true, true, true]),
        ];
        for (sql, expected) in cases {
            assert_eq!(trigger_events(sql), expected, "{sql}");
        }
    }
}
