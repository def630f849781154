//! The file again, from the configuration: what `syncline init` writes.

use std::fmt::Write;

use super::{
    Config, LimitsConfig, Renamed, ServerConfig,
    column_write::{column_text, foreign_key_text},
    further,
    keys::quoted,
    merge::{Chosen, What},
};
use crate::{
    schema::{ForeignKey, MergeStrategy, SyncMode, Table},
    sql::without_comments,
};

const HEAD: &str = "\
# What syncs, to whom and how it merges. `syncline check` reads this file and says every mistake.
# All keys, with examples: docs/spec/configuration.md
";

const SERVER: &str = "
# Each key is also a flag (--listen) and a variable (SYNCLINE_LISTEN), which come first.
[server]
";

const RULES: &str = "
# read says who sees a row, write who may change it; create, update and delete say it one by one.
# What no rule allows is denied. `_owner` is who inserted the row: no column is needed for it.
";

impl Config {
    /// The file that says this, with comments for people; the same for equal configurations.
    ///
    /// Reading it gives an equal configuration, except that references to tables that are not in
    /// it are left out, with a comment.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut out = String::from(HEAD);
        server(&mut out, &self.server);
        limits(&mut out, &self.limits);
        for (i, table) in self.schema.tables.iter().enumerate() {
            out.push_str(if i == 0 { RULES } else { "\n" });
            self.table(&mut out, table);
        }
        out
    }

    fn table(&self, out: &mut String, table: &Table) {
        let path = format!("tables.{}", key(&table.name));
        line(out, format_args!("[{path}]"));
        let renames = || {
            self.renamed
                .iter()
                .filter(|renamed| renamed.table == table.name)
        };
        for Renamed { column, from, .. } in renames() {
            if column.is_none() {
                pair(out, "renamed_from", &text(from));
            }
        }
        structure(out, table);
        rules(out, table);
        if !table.force.is_empty() {
            let force = table
                .force
                .iter()
                .map(|(name, value)| (key(name), text(value)));
            pair(out, "force", &inline(force));
        }
        if table.sync == SyncMode::OnDemand {
            pair(out, "sync", &text(table.sync.as_str()));
        }
        if table.update_wins {
            pair(out, "on_delete", &text("update-wins"));
        }
        let columns = renames().filter_map(|r| Some((key(r.column.as_deref()?), text(&r.from))));
        let columns: Vec<_> = columns.collect();
        if !columns.is_empty() {
            pair(out, "renamed", &inline(columns.into_iter()));
        }
        let foreign_keys = self.table_foreign_keys(out, table);
        columns_section(out, table, &path, &foreign_keys);
        self.merge_section(out, table, &path);
    }

    /// Writes the references that no column can have, and returns those that columns have.
    fn table_foreign_keys<'t>(&self, out: &mut String, table: &'t Table) -> Vec<&'t ForeignKey> {
        let mut of_columns: Vec<&ForeignKey> = Vec::new();
        let mut of_table = Vec::new();
        for foreign in &table.foreign_keys {
            let taken = of_columns
                .iter()
                .any(|other| other.columns == foreign.columns);
            if self.schema.table(&foreign.parent).is_none() {
                let parent = foreign.parent.escape_debug();
                line(
                    out,
                    format_args!("# Not kept: a reference to {parent}, which does not sync."),
                );
            } else if foreign.columns.len() == 1 && !taken {
                of_columns.push(foreign);
            } else {
                of_table.push(text(&foreign_key_text(table, foreign)));
            }
        }
        if !of_table.is_empty() {
            pair(out, "foreign_keys", &format!("[{}]", of_table.join(", ")));
        }
        of_columns
    }

    fn merge_section(&self, out: &mut String, table: &Table, path: &str) {
        let mut entries: Vec<(String, MergeStrategy)> = Vec::new();
        for column in &table.columns {
            if column.merge != MergeStrategy::LastWriteWins {
                entries.push((key(&column.name), column.merge));
            }
            for (member, strategy) in &column.merge_paths {
                entries.push((key(&format!("{}.{member}", column.name)), *strategy));
            }
        }
        for Chosen { what, strategy, .. } in
            self.origin.waiting.get(&table.name).into_iter().flatten()
        {
            let name = match what {
                What::Rest => key("*"),
                What::Key(name) => key(name),
                What::Nested(column, members) => {
                    let names = std::iter::once(column).chain(members).map(|name| key(name));
                    names.collect::<Vec<_>>().join(".")
                }
            };
            entries.push((name, *strategy));
        }
        if entries.is_empty() {
            return;
        }
        line(out, format_args!("\n[{path}.merge]"));
        for (name, strategy) in entries {
            pair(out, &name, &text(strategy.as_str()));
        }
    }
}

fn server(out: &mut String, server: &ServerConfig) {
    let ServerConfig {
        listen,
        admin_listen,
        data,
        database,
        origins,
        trusted_proxies,
        retention_days,
        history_days,
        audit_days,
        hsts_days,
        sign_up,
        verify_email,
        app_url,
        smtp,
        smtp_password_file,
        mail_from,
        provider_issuer,
        provider_audience,
        provider_jwks,
        provider_secret_file,
        tls_cert,
        tls_key,
        acme_domains,
        acme_contact,
        acme_directory,
        acme_ca_file,
        managed,
    } = server;
    out.push_str(SERVER);
    pair(out, "listen", &text(listen));
    if let Some(admin_listen) = admin_listen {
        pair(out, "admin_listen", &text(admin_listen));
    }
    pair(out, "data", &text(data));
    if let Some(database) = database {
        pair(out, "database", &text(database));
    }
    for (name, list) in [
        ("origins", origins),
        ("trusted_proxies", trusted_proxies),
        ("acme_domains", acme_domains),
    ] {
        if !list.is_empty() {
            let items: Vec<_> = list.iter().map(|item| text(item)).collect();
            pair(out, name, &format!("[{}]", items.join(", ")));
        }
    }
    pair(out, "retention_days", &retention_days.to_string());
    let usual = ServerConfig::default();
    for (name, value, usual) in [
        ("history_days", history_days, usual.history_days),
        ("audit_days", audit_days, usual.audit_days),
        ("hsts_days", hsts_days, usual.hsts_days),
    ] {
        if *value != usual {
            pair(out, name, &value.to_string());
        }
    }
    for (name, value, usual) in [
        ("sign_up", sign_up, usual.sign_up),
        ("verify_email", verify_email, usual.verify_email),
    ] {
        if *value != usual {
            pair(out, name, &value.to_string());
        }
    }
    for (name, value) in [
        ("app_url", app_url),
        ("smtp", smtp),
        ("smtp_password_file", smtp_password_file),
        ("mail_from", mail_from),
        ("provider_issuer", provider_issuer),
        ("provider_audience", provider_audience),
        ("provider_jwks", provider_jwks),
        ("provider_secret_file", provider_secret_file),
        ("tls_cert", tls_cert),
        ("tls_key", tls_key),
        ("acme_contact", acme_contact),
        ("acme_ca_file", acme_ca_file),
    ] {
        if let Some(value) = value {
            pair(out, name, &text(value));
        }
    }
    if *acme_directory != usual.acme_directory {
        pair(out, "acme_directory", &text(acme_directory));
    }
    pair(
        out,
        "schema",
        &text(if *managed { "managed" } else { "external" }),
    );
}

/// Only what is not usual.
fn limits(out: &mut String, limits: &LimitsConfig) {
    let usual = LimitsConfig::default();
    if *limits == usual {
        return;
    }
    out.push_str("\n[limits]\n");
    for limit in LimitsConfig::KEYS {
        let value = (limit.get)(limits);
        if value != (limit.get)(&usual) {
            pair(out, limit.name, &value.to_string());
        }
    }
}

/// Keys and indexes that are more than one column's.
fn structure(out: &mut String, table: &Table) {
    let names = |positions: &[usize]| {
        let names = positions
            .iter()
            .map(|&position| text(&table.columns[position].name));
        format!("[{}]", names.collect::<Vec<_>>().join(", "))
    };
    let lists = |lists: Vec<&Vec<usize>>, unique: bool| {
        let further = table.further_indexes.iter();
        let further = further.filter(|index| index.unique == unique);
        let lists = lists.into_iter().map(|list| names(list));
        let all: Vec<_> = lists
            .chain(further.map(|index| text(&further::text(index))))
            .collect();
        (!all.is_empty()).then(|| format!("[{}]", all.join(", ")))
    };
    if table.primary_key.len() > 1 {
        pair(out, "primary_key", &names(&table.primary_key));
    }
    let uniques: Vec<_> = table
        .uniques
        .iter()
        .filter(|unique| unique.len() > 1)
        .collect();
    if let Some(uniques) = lists(uniques, true) {
        pair(out, "unique", &uniques);
    }
    if let Some(indexes) = lists(table.indexes.iter().collect(), false) {
        pair(out, "indexes", &indexes);
    }
    if !table.checks.is_empty() {
        let checks = table
            .checks
            .iter()
            .map(|check| text(&without_comments(check)));
        let checks = checks.collect::<Vec<_>>().join(", ");
        pair(out, "checks", &format!("[{checks}]"));
    }
    if table.without_rowid {
        pair(out, "without_rowid", "true");
    }
    if table.strict {
        pair(out, "strict", "true");
    }
}

fn rules(out: &mut String, table: &Table) {
    let rules = &table.rules;
    for (name, rule) in [
        ("read", &rules.read),
        ("write", &rules.write),
        ("create", &rules.create),
        ("update", &rules.update),
        ("delete", &rules.delete),
    ] {
        if let Some(rule) = rule {
            pair(out, name, &text(rule));
        }
    }
}

fn columns_section(out: &mut String, table: &Table, path: &str, foreign_keys: &[&ForeignKey]) {
    if table.columns.is_empty() {
        return;
    }
    line(out, format_args!("\n[{path}.columns]"));
    for (position, column) in table.columns.iter().enumerate() {
        let reference = foreign_keys
            .iter()
            .find(|foreign| foreign.columns == [position]);
        pair(
            out,
            &key(&column.name),
            &text(&column_text(table, position, reference.copied())),
        );
    }
}

fn pair(out: &mut String, name: &str, value: &str) {
    line(out, format_args!("{name} = {value}"));
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("writing to memory cannot fail");
}

/// `{ a = "x", b = "y" }`.
fn inline(pairs: impl Iterator<Item = (String, String)>) -> String {
    let pairs: Vec<_> = pairs
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    format!("{{ {} }}", pairs.join(", "))
}

fn key(name: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if !name.is_empty() && name.bytes().all(bare) {
        name.to_owned()
    } else {
        quoted(name)
    }
}

/// A string as people would write it: over several lines if it has some, and without escapes
/// where that is possible.
fn text(text: &str) -> String {
    let control = text
        .chars()
        .any(|c| c.is_control() && c != '\n' && c != '\t');
    if control {
        quoted(text)
    } else if text.contains('\n') && !text.contains("'''") && !text.ends_with('\'') {
        format!("'''\n{text}'''")
    } else if text.contains('\n') || (text.contains(['"', '\\']) && text.contains('\'')) {
        quoted(text)
    } else if text.contains(['"', '\\']) {
        format!("'{text}'")
    } else {
        format!("\"{text}\"")
    }
}
