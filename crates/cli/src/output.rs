//! Where words go: results to standard output, everything else to standard error.

use std::io::{IsTerminal, Write};

use serde_json::{Value, json};

use crate::{
    exit::{self, Exit},
    printable::printable,
};

/// Names listed in one line.
const NAMES_MAX: usize = 10;

/// How to print.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub json: bool,
    pub quiet: bool,
}

impl Output {
    /// A result: the sentence for people, or the object for programs.
    pub(crate) fn result(&self, sentence: &str, object: &Value) {
        let line = if self.json {
            object.to_string()
        } else {
            printable(sentence)
        };
        put(std::io::stdout(), &line);
    }

    /// An object for programs only.
    pub(crate) fn object(&self, object: &Value) {
        if self.json {
            put(std::io::stdout(), &object.to_string());
        }
    }

    /// A line for people only, on standard output.
    pub(crate) fn line(&self, text: &str) {
        if !self.json {
            put(std::io::stdout(), &printable(text));
        }
    }

    /// A remark that may be left out.
    pub(crate) fn note(&self, text: &str) {
        if !self.json && !self.quiet {
            put(std::io::stderr(), &printable(text));
        }
    }

    /// Tables that a server with `--dev` took from this file.
    pub(crate) fn added_there(&self, tables: &[String]) {
        if !tables.is_empty() {
            self.note(&format!(
                "the server did not have {}: added there (--dev), each row for who made it",
                some_of(tables)
            ));
        }
    }

    /// Tables that a server with `--dev` would take from this file.
    pub(crate) fn would_be_added_there(&self, tables: &[String]) {
        if !tables.is_empty() {
            self.note(&format!(
                "the server does not have {}: would be added there (--dev), each row for who made it",
                some_of(tables)
            ));
        }
    }

    /// Something that the person should know whatever else is printed: with `--quiet` too.
    pub(crate) fn warning(&self, code: &str, sentence: &str) {
        self.object(&json!({ "type": "warning", "code": code, "message": sentence }));
        put(
            std::io::stderr(),
            &format!("syncline: warning: {}", printable(sentence)),
        );
    }

    /// Why the command failed.
    pub(crate) fn error(&self, error: &anyhow::Error, exit: Exit) {
        // Each cause once: some errors already say their source.
        let mut sentence = error.to_string();
        for cause in error.chain().skip(1) {
            let cause = cause.to_string();
            if !sentence.contains(&cause) {
                sentence = format!("{sentence}: {cause}");
            }
        }
        if self.json {
            let object = json!({
                "type": "error", "exit": exit as u8, "code": exit::name_of(error),
                "message": sentence,
            });
            put(std::io::stdout(), &object.to_string());
        }
        put(
            std::io::stderr(),
            &format!("syncline: {}", printable(&sentence)),
        );
    }

    /// Whether there is somebody to ask and to draw for.
    pub(crate) fn is_interactive(&self) -> bool {
        !self.json && !self.quiet && std::io::stderr().is_terminal()
    }
}

/// A closed pipe (`| head`) is no reason to panic.
fn put(mut stream: impl Write, line: &str) {
    let _closed = writeln!(stream, "{line}");
}

/// The first names, and how many more there are.
fn some_of(names: &[String]) -> String {
    let listed = names.iter().take(NAMES_MAX).cloned();
    let mut text = listed.collect::<Vec<_>>().join(", ");
    if names.len() > NAMES_MAX {
        text += &format!(" and {} more", names.len() - NAMES_MAX);
    }
    text
}

/// 1234567 as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 row`, `2 rows`.
pub(crate) fn counted(number: u64, what: &str) -> String {
    format!(
        "{} {what}{}",
        grouped(number),
        if number == 1 { "" } else { "s" }
    )
}
