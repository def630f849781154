//! The keys of one table of the file, taken one by one; what is left is a mistake.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{
    error::Mistakes,
    nearest::{nearest, one_of},
};

pub(super) type Name<'a> = Spanned<DeString<'a>>;
pub(super) type Node<'a> = Spanned<DeValue<'a>>;

/// The keys of a table in order of place.
pub(super) struct Keys<'t, 'i> {
    /// How people find the table: `tables.tasks`; empty for the file itself.
    path: String,
    entries: Vec<(&'t Name<'i>, &'t Node<'i>)>,
    known: Vec<&'static str>,
}

impl<'t, 'i> Keys<'t, 'i> {
    pub(super) fn new(path: &str, table: &'t DeTable<'i>) -> Self {
        Self {
            path: path.to_owned(),
            entries: in_order(table),
            known: Vec::new(),
        }
    }

    /// The path of the key called `name`.
    pub(super) fn path(&self, name: &str) -> String {
        joined(&self.path, name)
    }

    /// Takes the key called `name`, which is known from here on.
    pub(super) fn take(&mut self, name: &'static str) -> Option<(&'t Name<'i>, &'t Node<'i>)> {
        self.known.push(name);
        let at = self
            .entries
            .iter()
            .position(|(key, _)| key.get_ref() == name)?;
        Some(self.entries.remove(at))
    }

    pub(super) fn boolean(&mut self, name: &'static str, m: &mut Mistakes) -> Option<bool> {
        let (_, node) = self.take(name)?;
        let value = node.get_ref().as_bool();
        if value.is_none() {
            let suggestion = "write it without quotes";
            wrong_type(node, &self.path(name), "`true` or `false`", suggestion, m);
        }
        value
    }

    pub(super) fn texts(&mut self, name: &'static str, m: &mut Mistakes) -> Option<Texts<'t>> {
        let (_, node) = self.take(name)?;
        texts(node, &self.path(name), m)
    }

    pub(super) fn table(
        &mut self,
        name: &'static str,
        example: &str,
        m: &mut Mistakes,
    ) -> Option<&'t DeTable<'i>> {
        let (_, node) = self.take(name)?;
        table(node, &self.path(name), example, m)
    }

    /// Says of every key that was not taken that it is unknown.
    pub(super) fn finish(self, synonyms: &[(&str, &str)], m: &mut Mistakes) {
        for (key, _) in &self.entries {
            let name = key.get_ref().as_ref();
            let synonym = synonyms
                .iter()
                .find(|(other, _)| name.eq_ignore_ascii_case(other));
            let meant = synonym
                .map(|(_, meant)| *meant)
                .or_else(|| nearest(name, self.known.iter().copied()));
            let suggestion = match meant {
                Some(meant) => format!("write `{meant}`"),
                None => "take it out".to_owned(),
            };
            m.add(
                key.span().start,
                format!("unknown key `{}`", self.path(name)),
                one_of(self.known.iter().copied()),
                suggestion,
            );
        }
    }
}

/// `a.b`, or `b` where there is no `a`.
pub(super) fn joined(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// The entries of a table as the file has them.
pub(super) fn in_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<(&'t Name<'i>, &'t Node<'i>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

pub(super) fn text<'t>(node: &'t Node<'_>, path: &str, m: &mut Mistakes) -> Option<&'t str> {
    let value = node.get_ref().as_str();
    if value.is_none() {
        wrong_type(node, path, "a string", "put it in quotes", m);
    }
    value
}

/// Strings and where they are.
pub(super) type Texts<'t> = Vec<(&'t str, Range<usize>)>;

/// A list of strings.
pub(super) fn texts<'t>(node: &'t Node<'_>, path: &str, m: &mut Mistakes) -> Option<Texts<'t>> {
    let Some(items) = node.get_ref().as_array() else {
        let suggestion = match node.get_ref().as_str() {
            Some(text) => format!("write [{}]", quoted(text)),
            None => "write a list such as [\"a\", \"b\"]".to_owned(),
        };
        wrong_type(node, path, "a list of strings", &suggestion, m);
        return None;
    };
    let mut all = Vec::new();
    for item in items.iter() {
        all.push((text(item, path, m)?, item.span()));
    }
    Some(all)
}

pub(super) fn table<'t, 'i>(
    node: &'t Node<'i>,
    path: &str,
    example: &str,
    m: &mut Mistakes,
) -> Option<&'t DeTable<'i>> {
    let value = node.get_ref().as_table();
    if value.is_none() {
        wrong_type(node, path, "a table", &format!("write {example}"), m);
    }
    value
}

pub(super) fn wrong_type(
    node: &Node<'_>,
    path: &str,
    expected: &str,
    suggestion: &str,
    m: &mut Mistakes,
) {
    let found = match node.get_ref().type_str() {
        "boolean" => "true or false".to_owned(),
        "array" => "a list".to_owned(),
        "integer" => "a number".to_owned(),
        "float" => "a number".to_owned(),
        other => format!("a {other}"),
    };
    m.add(
        node.span().start,
        format!("{path} is {found}"),
        expected,
        suggestion,
    );
}

/// `text` as a TOML string on one line.
pub(super) fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    // JSON leaves DEL as it is, TOML does not take it.
    json.replace('\x7F', "\\u007f")
}
