//! The words of a column's text, each with its place in it.

use std::ops::Range;

use sqlparser::{
    dialect::SQLiteDialect,
    tokenizer::{Location, Token, Tokenizer},
};

use super::error::Mistake;

/// A column's text, cut into SQL tokens.
pub(super) struct Tokens<'a> {
    text: &'a str,
    tokens: Vec<(Token, Range<usize>)>,
    next: usize,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a str) -> Result<Self, Mistake> {
        let dialect = SQLiteDialect {};
        let tokens = Tokenizer::new(&dialect, text)
            .tokenize_with_location()
            .map_err(|error| {
                let at = places(text, [error.location]).first().copied();
                Mistake::new(
                    at.unwrap_or(text.len()),
                    error.message.to_lowercase(),
                    "SQL words",
                    "close what was opened: quotes with quotes, `(` with `)`",
                )
            })?;
        let starts = places(text, tokens.iter().map(|token| token.span.start));
        let ends = starts.iter().skip(1).copied().chain([text.len()]);
        let tokens = tokens
            .into_iter()
            .zip(starts.iter().zip(ends))
            .map(|(token, (&start, end))| (token.token, start..end.max(start)))
            .filter(|(token, _)| !matches!(token, Token::Whitespace(_)))
            .collect();
        Ok(Self {
            text,
            tokens,
            next: 0,
        })
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.next >= self.tokens.len()
    }

    /// Where the next token starts; the text's end after the last.
    pub(super) fn at(&self) -> usize {
        self.tokens
            .get(self.next)
            .map_or(self.text.len(), |(_, span)| span.start)
    }

    /// The next token as it is written; empty at the end.
    pub(super) fn shown(&self) -> &'a str {
        self.tokens
            .get(self.next)
            .map_or("", |(_, span)| self.text[span.clone()].trim_end())
    }

    /// The next token if it is a word without quotes, in lower case.
    pub(super) fn word(&self) -> Option<String> {
        let Token::Word(word) = self.peek()? else {
            return None;
        };
        word.quote_style
            .is_none()
            .then(|| word.value.to_lowercase())
    }

    pub(super) fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(token, _)| token)
    }

    pub(super) fn advance(&mut self) {
        self.next += 1;
    }

    /// Takes the next token if it is this word.
    pub(super) fn accept(&mut self, word: &str) -> bool {
        let found = self.word().is_some_and(|found| found == word);
        self.next += usize::from(found);
        found
    }

    /// Takes this word, or says that it is missing after `before`.
    pub(super) fn expect(&mut self, word: &str, before: &str) -> Result<(), Mistake> {
        if self.accept(word) {
            return Ok(());
        }
        Err(self.mistake(
            format!("`{before} {word}`"),
            format!("write `{before} {word}`"),
        ))
    }

    /// Takes a name, in quotes or not.
    pub(super) fn name(&mut self, expected: &str, suggestion: &str) -> Result<String, Mistake> {
        let name = match self.peek() {
            Some(Token::Word(word)) => word.value.clone(),
            Some(Token::DoubleQuotedString(name)) => name.clone(),
            _ => return Err(self.mistake(expected, suggestion)),
        };
        self.advance();
        Ok(name)
    }

    /// Takes everything from `(` to the `)` that closes it and returns what is between.
    pub(super) fn group(&mut self, suggestion: &str) -> Result<&'a str, Mistake> {
        let open = self.at();
        if self.peek() != Some(&Token::LParen) {
            return Err(self.mistake("`(`", suggestion));
        }
        let mut depth = 0usize;
        while let Some((token, span)) = self.tokens.get(self.next) {
            self.next += 1;
            depth += usize::from(*token == Token::LParen);
            depth -= usize::from(*token == Token::RParen);
            if depth == 0 {
                return Ok(self.text[open + 1..span.start].trim());
            }
        }
        Err(Mistake::new(open, "`(` is never closed", "`)`", suggestion))
    }

    /// Takes `(a, b)`.
    pub(super) fn names(&mut self, suggestion: &str) -> Result<Vec<String>, Mistake> {
        if self.peek() != Some(&Token::LParen) {
            return Err(self.mistake("`(`", suggestion));
        }
        let mut names = Vec::new();
        loop {
            self.advance();
            names.push(self.name("the name of a column", suggestion)?);
            match self.peek() {
                Some(Token::Comma) => {}
                Some(Token::RParen) => break,
                _ => return Err(self.mistake("`,` or `)`", suggestion)),
            }
        }
        self.advance();
        Ok(names)
    }

    /// The next token is not what it should be.
    pub(super) fn mistake(
        &self,
        expected: impl Into<String>,
        suggestion: impl Into<String>,
    ) -> Mistake {
        let message = match self.shown() {
            "" => "it ends too early".to_owned(),
            found => format!("`{found}` is not understood here"),
        };
        Mistake::new(self.at(), message, expected, suggestion)
    }

    /// The text from `start` to the end of the token taken last.
    pub(super) fn since(&self, start: usize) -> &'a str {
        let end = match self.next.checked_sub(1) {
            Some(last) => self.tokens[last].1.end,
            None => start,
        };
        self.text[start..end].trim()
    }
}

/// The bytes at lines and columns, both from 1 and columns in characters; the places ascend.
fn places(text: &str, at: impl IntoIterator<Item = Location>) -> Vec<usize> {
    let mut chars = text.char_indices().peekable();
    let mut here = Location { line: 1, column: 1 };
    let bytes = at.into_iter().map(|at| {
        while here < at
            && let Some((_, c)) = chars.next()
        {
            here = match c {
                '\n' => Location {
                    line: here.line + 1,
                    column: 1,
                },
                _ => Location {
                    column: here.column + 1,
                    ..here
                },
            };
        }
        chars.peek().map_or(text.len(), |&(at, _)| at)
    });
    bytes.collect()
}
