//! From a rule's text to the parser's syntax tree, within limits.

use sqlparser::{
    ast::Expr,
    dialect::PostgreSqlDialect,
    keywords::Keyword,
    parser::{Parser, ParserError},
    tokenizer::{Location, Token, TokenWithSpan, Tokenizer},
};

use super::refusal::{Clause, Refusal, offset};

/// Longest rule text in bytes.
pub const RULE_BYTES_MAX: usize = 8 * 1024;

/// How deep parentheses, subqueries and operators may nest.
const DEPTH_MAX: usize = 40;

/// Parses one condition.
pub(super) fn parse(text: &str) -> Result<Expr, Refusal> {
    if text.len() > RULE_BYTES_MAX {
        return Err(Refusal::new(
            Clause::new(text),
            format!("the rule is longer than {RULE_BYTES_MAX} bytes"),
            "keep long lists of values in a table and write `column IN (SELECT … FROM that table)`",
        ));
    }
    if text.trim().is_empty() {
        return Err(Refusal::new(
            Clause::new(""),
            "the rule is empty",
            "leave it out to deny everybody, or write `TRUE` to allow everybody",
        ));
    }
    let mut tokens = Vec::new();
    Tokenizer::new(&PostgreSqlDialect {}, text)
        .tokenize_with_location_into_buf(&mut tokens)
        .map_err(|error| malformed(text, &error.message, Some(error.location)))?;
    let mut parser = Parser::new(&PostgreSqlDialect {})
        .with_recursion_limit(DEPTH_MAX)
        .with_tokens_with_locations(inheritance_in_parentheses(tokens));
    let expr = parser
        .parse_expr()
        .map_err(|error| unparsed(text, &error))?;
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        let clause = Clause::new(&rest.token.to_string()).at(offset(text, rest.span.start));
        let message = "the condition ends before this";
        return Err(Refusal::new(
            clause,
            message,
            "write one condition, joined by AND and OR",
        ));
    }
    Ok(expr)
}

/// Puts the parentheses of SQL around `readable(t)` in `column IN readable(t)`.
fn inheritance_in_parentheses(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len() + 4);
    let mut after_in = false;
    let mut close_after_next_parenthesis = false;
    for token in tokens {
        let span = token.span;
        let inherits = matches!(&token.token, Token::Word(word) if is_inheritance(&word.value));
        if after_in && inherits {
            out.push(TokenWithSpan::new(Token::LParen, span));
            close_after_next_parenthesis = true;
        }
        let closes = close_after_next_parenthesis && token.token == Token::RParen;
        if !matches!(token.token, Token::Whitespace(_)) {
            after_in = matches!(&token.token, Token::Word(word) if word.keyword == Keyword::IN);
        }
        out.push(token);
        if closes {
            out.push(TokenWithSpan::new(Token::RParen, span));
            close_after_next_parenthesis = false;
        }
    }
    out
}

/// Whether `name` is one of the two ways to inherit.
pub(super) fn is_inheritance(name: &str) -> bool {
    name.eq_ignore_ascii_case("readable") || name.eq_ignore_ascii_case("writable")
}

fn unparsed(text: &str, error: &ParserError) -> Refusal {
    match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => {
            malformed(text, message, location(message))
        }
        ParserError::RecursionLimitExceeded => Refusal::new(
            Clause::new(text),
            format!("the condition nests deeper than {DEPTH_MAX} levels"),
            "write it flatter",
        ),
    }
}

fn malformed(text: &str, message: &str, place: Option<Location>) -> Refusal {
    let offset = place.and_then(|place| offset(text, place));
    let rest = offset.map_or(text, |at| &text[at..]);
    let message = message.split(" at Line: ").next().unwrap_or(message);
    Refusal::new(
        Clause::new(if rest.is_empty() { text } else { rest }).at(offset),
        format!("not a condition in SQL ({message})"),
        "write a condition as in row-level security, such as `user_id = auth.uid()`",
    )
}

/// The parser tells places only within its messages: `… at Line: 1, Column: 7`.
fn location(message: &str) -> Option<Location> {
    let (_, place) = message.rsplit_once(" at Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    Some(Location::new(
        line.parse().ok()?,
        column.trim().parse().ok()?,
    ))
}
