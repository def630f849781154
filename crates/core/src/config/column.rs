//! A column's text: a portable type and the usual SQL constraints.

use sqlparser::tokenizer::Token;

use super::{
    error::Mistake,
    nearest::{nearest, one_of},
    tokens::Tokens,
};
use crate::{
    schema::{ColumnType, Computed, OnDelete},
    sql::{is_type_name, without_comments},
};

/// What a column's text says.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct ColumnText {
    /// `None` where the text could not be read.
    pub(super) ty: Option<ColumnType>,
    pub(super) primary_key: bool,
    pub(super) autoincrement: bool,
    pub(super) not_null: bool,
    /// `null` was written: harmless but on a key.
    pub(super) null: bool,
    pub(super) unique: bool,
    pub(super) generated: bool,
    /// Where `encrypted` is, in the column's text.
    pub(super) encrypted: Option<usize>,
    pub(super) computed: Option<Computed>,
    pub(super) declared: Option<String>,
    pub(super) default: Option<String>,
    pub(super) check: Option<String>,
    pub(super) collate: Option<String>,
    pub(super) references: Option<Reference>,
}

/// `references parent (columns) on delete …`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reference {
    /// Where `references` is, in the column's text.
    pub(super) at: usize,
    pub(super) parent: String,
    /// Empty for the parent's primary key.
    pub(super) columns: Vec<String>,
    pub(super) on_delete: OnDelete,
}

const CONSTRAINTS: [&str; 10] = [
    "primary key",
    "not null",
    "default",
    "unique",
    "check",
    "collate",
    "references",
    "generated",
    "declared",
    "encrypted",
];

/// Types of other databases, and what to write for them.
const FOREIGN_TYPES: &[(&[&str], &str)] = &[
    (
        &[
            "varchar",
            "char",
            "character",
            "nvarchar",
            "nchar",
            "clob",
            "string",
            "str",
        ],
        "text",
    ),
    (
        &[
            "int", "bigint", "smallint", "tinyint", "int2", "int4", "int8", "long", "number",
        ],
        "integer",
    ),
    (
        &["serial", "bigserial", "identity"],
        "integer primary key autoincrement",
    ),
    (&["float", "double", "float4", "float8"], "real"),
    (&["bool", "bit"], "boolean"),
    (&["jsonb", "object", "array"], "json"),
    (&["bytea", "binary", "varbinary", "bytes"], "blob"),
    (
        &["datetime", "date", "time", "timestamptz", "timestampz"],
        "timestamp",
    ),
    (&["guid", "uniqueidentifier"], "uuid"),
    (&["decimal", "numeric", "money"], "integer"),
];

/// Reads a column's text, up to its first mistake.
pub(super) fn parse(text: &str) -> Result<ColumnText, Mistake> {
    let mut tokens = Tokens::new(text)?;
    let mut column = ColumnText {
        ty: Some(column_type(&mut tokens)?),
        ..ColumnText::default()
    };
    while !tokens.is_at_end() {
        constraint(&mut tokens, &mut column)?;
    }
    Ok(column)
}

/// Reads `(a, b) references parent (x, y) on delete …`.
pub(super) fn parse_foreign_key(text: &str) -> Result<(Vec<String>, Reference), Mistake> {
    let mut tokens = Tokens::new(text)?;
    let columns = tokens.names("write \"(a, b) references parent (x, y)\"")?;
    let at = tokens.at();
    tokens.expect("references", "(…)")?;
    let reference = reference(&mut tokens, at)?;
    if !tokens.is_at_end() {
        return Err(tokens.mistake("the end", "take out what follows"));
    }
    Ok((columns, reference))
}

fn column_type(tokens: &mut Tokens<'_>) -> Result<ColumnType, Mistake> {
    let names = || ColumnType::ALL.iter().map(|ty| ty.as_str());
    let expected = format!("a type: {}", one_of(names()));
    let Some(word) = tokens.word() else {
        let mut mistake = tokens.mistake(expected, "begin with the type, for example \"text\"");
        if tokens.is_at_end() {
            mistake.message = "the type is missing".to_owned();
        }
        return Err(mistake);
    };
    if let Some(ty) = ColumnType::parse(&word) {
        tokens.advance();
        if tokens.peek() == Some(&Token::LParen) {
            return Err(tokens.mistake(
                "no length: types have none",
                format!("write `{word}`, and a limit as `check (length(name) <= 100)`"),
            ));
        }
        return Ok(ty);
    }
    let foreign = FOREIGN_TYPES
        .iter()
        .find(|(names, _)| names.contains(&word.as_str()));
    let suggestion = match foreign {
        Some((_, "integer")) if matches!(word.as_str(), "decimal" | "numeric" | "money") => {
            "write `integer` and count in the smallest unit (cents), or `real`".to_owned()
        }
        Some((_, meant)) => format!("write `{meant}`"),
        None if CONSTRAINTS
            .iter()
            .any(|name| name.split(' ').next() == Some(&word)) =>
        {
            "write the type first, or `any` for none".to_owned()
        }
        None => match nearest(&word, names()) {
            Some(meant) => format!("write `{meant}`"),
            None => "write `any` for a column of no type".to_owned(),
        },
    };
    Err(Mistake::new(
        tokens.at(),
        format!("`{word}` is no type of a column"),
        expected,
        suggestion,
    ))
}

fn constraint(tokens: &mut Tokens<'_>, column: &mut ColumnText) -> Result<(), Mistake> {
    let at = tokens.at();
    let word = tokens.word().unwrap_or_default();
    let twice = match word.as_str() {
        "primary" => {
            tokens.advance();
            tokens.expect("key", "primary")?;
            column.autoincrement = tokens.accept("autoincrement");
            std::mem::replace(&mut column.primary_key, true)
        }
        "not" => {
            tokens.advance();
            tokens.expect("null", "not")?;
            std::mem::replace(&mut column.not_null, true)
        }
        "null" => {
            tokens.advance();
            std::mem::replace(&mut column.null, true)
        }
        "unique" => {
            tokens.advance();
            std::mem::replace(&mut column.unique, true)
        }
        "default" => {
            tokens.advance();
            column.default.replace(default(tokens)?).is_some()
        }
        "check" => {
            tokens.advance();
            let check = tokens.group("write `check (length(name) > 0)`")?;
            column.check.replace(filled(check, at, "check")?).is_some()
        }
        "collate" => {
            tokens.advance();
            let name = tokens.name("a collation", "write for example `collate nocase`")?;
            let binary = name.eq_ignore_ascii_case("binary");
            std::mem::replace(&mut column.collate, (!binary).then_some(name)).is_some()
        }
        "references" => {
            tokens.advance();
            column.references.replace(reference(tokens, at)?).is_some()
        }
        "generated" => {
            tokens.advance();
            let twice = std::mem::replace(&mut column.generated, true);
            column.computed = computed(tokens, at)?.or(column.computed.take());
            twice
        }
        "declared" => {
            tokens.advance();
            column.declared.replace(declared(tokens)?).is_some()
        }
        "encrypted" => {
            tokens.advance();
            column.encrypted.replace(at).is_some()
        }
        _ => return Err(unknown_constraint(tokens, &word)),
    };
    if !twice {
        return Ok(());
    }
    Err(Mistake::new(
        at,
        format!("`{word}` is there twice"),
        "each constraint once",
        "take one out",
    ))
}

fn unknown_constraint(tokens: &Tokens<'_>, word: &str) -> Mistake {
    let suggestion = match word {
        "auto_increment" | "autoincrement" | "identity" => {
            "write `integer primary key autoincrement`".to_owned()
        }
        "pk" | "key" => "write `primary key`".to_owned(),
        "required" | "notnull" | "nonnull" => "write `not null`".to_owned(),
        "nullable" | "optional" => {
            format!("take `{word}` out: a column may be NULL unless it says `not null`")
        }
        "foreign" | "fk" => "write `references parent`".to_owned(),
        "on" => "write `references parent on delete …`".to_owned(),
        "constraint" => "leave out `constraint` and its name".to_owned(),
        "precision" => "write `real`".to_owned(),
        "unsigned" => "write `integer check (name >= 0)`".to_owned(),
        _ if tokens.peek() == Some(&Token::Comma) => "leave out the comma".to_owned(),
        _ => match nearest(word, CONSTRAINTS.iter().flat_map(|c| c.split(' '))) {
            Some(meant) => format!("write `{meant}`"),
            None => "take it out".to_owned(),
        },
    };
    tokens.mistake(one_of(CONSTRAINTS), suggestion)
}

/// A literal, a signed number, one of SQL's words, or an expression in parentheses; the text
/// without the outermost parentheses.
fn default(tokens: &mut Tokens<'_>) -> Result<String, Mistake> {
    const EXPECTED: &str = "a literal, or an expression in parentheses";
    let start = tokens.at();
    match tokens.peek() {
        Some(Token::LParen) => {
            let group = tokens.group("write `default (expression)`")?;
            return filled(group, start, "default");
        }
        Some(Token::Plus | Token::Minus) => {
            tokens.advance();
            if !matches!(tokens.peek(), Some(Token::Number(..))) {
                return Err(tokens.mistake("a number", "write for example `default -1`"));
            }
        }
        Some(Token::Number(..) | Token::SingleQuotedString(_) | Token::HexStringLiteral(_)) => {}
        Some(Token::DoubleQuotedString(text)) => return Err(double_quoted(start, text)),
        Some(Token::Word(word)) if word.quote_style == Some('"') => {
            return Err(double_quoted(start, &word.value));
        }
        Some(Token::Word(word)) => {
            let known = [
                "null",
                "true",
                "false",
                "current_timestamp",
                "current_date",
                "current_time",
            ];
            if !known.contains(&word.value.to_lowercase().as_str()) {
                let word = word.value.clone();
                return Err(default_word(tokens, &word));
            }
        }
        _ => return Err(tokens.mistake(EXPECTED, "write for example `default 0`")),
    }
    tokens.advance();
    Ok(tokens.since(start).to_owned())
}

fn double_quoted(at: usize, text: &str) -> Mistake {
    Mistake::new(
        at,
        format!("\"{text}\" in double quotes is a name"),
        "a literal, or an expression in parentheses",
        format!("write '{}'", text.replace('\'', "''")),
    )
}

fn default_word(tokens: &Tokens<'_>, word: &str) -> Mistake {
    let suggestion = match word.to_lowercase().as_str() {
        "now" => "write `default current_timestamp`".to_owned(),
        "gen_random_uuid" | "uuid" | "uuid_generate_v4" | "newid" => {
            "leave it out: the app makes ids, so that they work offline".to_owned()
        }
        _ => format!("write '{word}' for a text, (…) around an expression"),
    };
    tokens.mistake("a literal, or an expression in parentheses", suggestion)
}

/// What is between parentheses, which must not be nothing.
fn filled(text: &str, at: usize, word: &str) -> Result<String, Mistake> {
    let text = without_comments(text);
    if !text.is_empty() {
        return Ok(text);
    }
    let suggestion = format!("write the expression between the parentheses, or leave out `{word}`");
    Err(Mistake::new(
        at,
        format!("`{word} ()` says nothing"),
        "an expression",
        suggestion,
    ))
}

fn reference(tokens: &mut Tokens<'_>, at: usize) -> Result<Reference, Mistake> {
    let parent = tokens.name("the name of a table", "write `references parent`")?;
    let columns = if tokens.peek() == Some(&Token::LParen) {
        tokens.names("write `references parent (id)`")?
    } else {
        Vec::new()
    };
    let mut on_delete = OnDelete::NoAction;
    while tokens.accept("on") {
        let place = tokens.at();
        if tokens.accept("update") {
            return Err(Mistake::new(
                place,
                "`on update` has nothing to do",
                "`on delete`",
                "take it out: the key of a row that syncs never changes",
            ));
        }
        tokens.expect("delete", "on")?;
        on_delete = action(tokens)?;
    }
    if matches!(
        tokens.word().as_deref(),
        Some("deferrable" | "initially" | "match")
    ) {
        return Err(tokens.mistake(
            "`on delete`, or the next constraint",
            "take it out: references are checked when a whole changeset is in",
        ));
    }
    Ok(Reference {
        at,
        parent,
        columns,
        on_delete,
    })
}

fn action(tokens: &mut Tokens<'_>) -> Result<OnDelete, Mistake> {
    let mut words = tokens.word().unwrap_or_default();
    let at = tokens.at();
    if matches!(words.as_str(), "set" | "no") {
        tokens.advance();
        words.push(' ');
        words.push_str(&tokens.word().unwrap_or_default());
    }
    let Some(action) = OnDelete::parse(&words).filter(|_| !words.is_empty()) else {
        return Err(Mistake::new(
            at,
            format!("`on delete {}` is not understood", words.trim()),
            "`cascade`, `restrict`, `set null`, `set default` or `no action`",
            "write for example `on delete cascade`",
        ));
    };
    tokens.advance();
    Ok(action)
}

/// `always as (expression) stored`; nothing where only the database knows the expression.
fn computed(tokens: &mut Tokens<'_>, at: usize) -> Result<Option<Computed>, Mistake> {
    const EXAMPLE: &str = "write `generated always as (upper(name))`, or `generated` alone: then \
                           the database says how";
    if tokens.word().as_deref() == Some("by") {
        return Err(tokens.mistake("`always as`", "write `integer primary key autoincrement`"));
    }
    let always = tokens.accept("always");
    if !tokens.accept("as") {
        return if always {
            Err(tokens.mistake("`as`", EXAMPLE))
        } else {
            Ok(None)
        };
    }
    let expression = filled(tokens.group(EXAMPLE)?, at, "as")?;
    let stored = tokens.accept("stored");
    if !stored {
        tokens.accept("virtual");
    }
    Ok(Some(Computed { expression, stored }))
}

/// The type that SQLite is to declare, in single quotes.
fn declared(tokens: &mut Tokens<'_>) -> Result<String, Mistake> {
    const EXAMPLE: &str = "write for example `declared 'VARCHAR(20)'`";
    let text = match tokens.peek() {
        Some(Token::SingleQuotedString(text)) if is_type_name(text) => text.clone(),
        _ => return Err(tokens.mistake("the name of a type in single quotes", EXAMPLE)),
    };
    tokens.advance();
    Ok(text)
}
