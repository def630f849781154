//! The file as a whole: `[server]`, `[limits]` and `[tables.…]`.

use toml::de::DeTable;

use super::{
    Config, check,
    error::{ConfigError, Mistakes},
    keys::{Keys, in_order, joined, table as as_table},
    limits,
    place::Source,
    rule, server,
    table::{self, TableText},
};
use crate::{
    builtin::FIRST_OWN,
    ids::TableNumber,
    schema::{Schema, Table},
};

pub(super) fn parse(file: &str, text: &str) -> Result<Config, Vec<ConfigError>> {
    let mut source = Source::new(file, text);
    let mut m = Mistakes::default();
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for error in errors {
            not_toml(&error, text, &mut m);
        }
        return m.or(&source, Config::default());
    }
    let mut keys = Keys::new("", document.get_ref());
    let mut config = Config::default();
    if let Some(table) = keys.table("server", "a section [server]", &mut m) {
        config.server = server::parse(table, &mut m);
    }
    if let Some(table) = keys.table("limits", "a section [limits]", &mut m) {
        config.limits = limits::parse(table, &mut m);
    }
    let tables = keys.table("tables", "a section [tables.NAME] for each table", &mut m);
    keys.finish(
        &[
            ("table", "tables"),
            ("schema", "tables"),
            ("limit", "limits"),
        ],
        &mut m,
    );
    if let Some(tables) = tables {
        let unread = read_tables(&mut config, &mut source, tables, &mut m);
        if let Some(unread) = unread.filter(|_| !m.is_empty()) {
            rule::check_beside_others(&config.schema, &unread, &source, &mut m);
        }
    }
    config.origin.source = source;
    let source = config.origin.source.clone();
    m.or(&source, config)
}

/// The columns that could not be read; `None` if there are whole tables of which nothing is known.
fn read_tables(
    config: &mut Config,
    source: &mut Source,
    tables: &DeTable<'_>,
    m: &mut Mistakes,
) -> Option<Vec<String>> {
    let mut all = true;
    let mut unread = Vec::new();
    let mut texts: Vec<TableText> = Vec::new();
    let mut schema = Schema::default();
    for (key, node) in in_order(tables) {
        let name = key.get_ref().as_ref();
        let path = joined("tables", name);
        let Some(keys) = as_table(node, &path, &format!("a section [{path}]"), m) else {
            all = false;
            continue;
        };
        if !check::table_name(name, key.span().start, &schema, m) {
            all = false;
            continue;
        }
        let number = u32::try_from(schema.tables.len()).unwrap_or(u32::MAX);
        let number = TableNumber(FIRST_OWN.0.saturating_add(number));
        let (table, text): (Table, _) =
            table::parse(name, number, key.span().start, keys, source, m);
        schema.tables.push(table);
        texts.push(text);
    }
    check::references(&schema, &texts, m);
    check::renames(&schema, &texts, m);
    for text in texts {
        unread.extend(text.unread);
        config
            .renamed
            .extend(text.renamed.into_iter().map(|(renamed, _)| renamed));
        if !text.merge.is_empty()
            && schema
                .table(&text.name)
                .is_some_and(|t| t.columns.is_empty())
        {
            config.origin.waiting.insert(text.name, text.merge);
        }
    }
    config.schema = schema;
    all.then_some(unread)
}

/// What makes the text no TOML, with what people usually meant.
fn not_toml(error: &toml::de::Error, text: &str, m: &mut Mistakes) {
    let at = error.span().map_or(text.len(), |span| span.start);
    let (message, expected) = match error.message().split_once(", expected ") {
        Some((message, expected)) => (message, expected),
        None => (error.message(), "TOML"),
    };
    let has = |part| message.contains(part);
    let (expected, suggestion) = if has("duplicate key") {
        ("each key once", "keep one of the two")
    } else if has("unclosed") || has("comma") {
        (expected, "write what is missing")
    } else if has("unquoted key") {
        (
            expected,
            "put names with other letters in quotes: \"größe\" = …",
        )
    } else if has("no value") {
        (
            expected,
            "write `key = \"text\"`, and sections as `[tables.name]`",
        )
    } else {
        let expected = if expected == "nothing" {
            "the end of the line"
        } else {
            expected
        };
        (
            expected,
            "put texts in quotes, \"like this\", and lists in [ ]",
        )
    };
    m.add(at, message, expected, suggestion);
}
