//! An app of which only `syncline.toml` is known: its tables, its rules, and people who write at
//! random what its columns take.

mod live;

use std::collections::BTreeMap;

use anyhow::bail;
use syncline_core::{
    config::Config,
    schema::{Column, ColumnType, ForeignKey, MergeStrategy, OnDelete, Schema, SyncMode, Table},
};

pub(crate) use self::live::Live;
use crate::{
    app::{Author, Script},
    schema::TableShape,
};

/// Keys that a table's new rows have: few, so that people meet in the same rows.
const KEYS: u64 = 16;

/// What a configuration says.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) file: String,
    pub(crate) config: String,
    pub(crate) users: Vec<&'static str>,
    pub(crate) shapes: Vec<TableShape>,
    schema: Schema,
    /// What rules and checks compare a column with, by table and column.
    words: BTreeMap<(String, String), Vec<String>>,
}

impl Given {
    /// # Errors
    /// What is wrong with the file, or what cannot be simulated of it.
    pub(crate) fn parse(file: &str, text: &str, users: &[String]) -> anyhow::Result<Self> {
        let config = Config::parse(file, text).map_err(|errors| {
            let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("{}", texts.join("\n"))
        })?;
        let schema = config.schema;
        if schema.tables.is_empty() {
            bail!("{file} names no table");
        }
        if let Some(table) = schema.tables.iter().find(|table| table.columns.is_empty()) {
            bail!(
                "{file} does not say which columns {} has: `syncline init --from APP.db` writes \
                 them down",
                table.name
            );
        }
        if let Some(table) = schema.tables.iter().find(|t| t.sync == SyncMode::OnDemand) {
            bail!(
                "{} syncs on demand only, and no simulated app asks for rows: take its `sync` out \
                 of a copy of {file} to try its rules",
                table.name
            );
        }
        let shapes = schema.tables.iter().map(shape).collect();
        let words = words(&schema, users);
        Ok(Self {
            file: file.to_owned(),
            config: text.to_owned(),
            users: users.iter().map(|user| forever(user)).collect(),
            shapes,
            schema,
            words,
        })
    }

    /// What somebody does next.
    pub(crate) fn script(&self, author: &mut Author<'_>) -> rusqlite::Result<Script> {
        let mut script = Script {
            is_marked: author.rng.percent(40),
            ..Script::default()
        };
        for _ in 0..=author.rng.below(3) {
            let table = author.rng.pick(&self.schema.tables);
            script.statements.extend(self.statement(table, author)?);
        }
        Ok(script)
    }

    fn statement(
        &self,
        table: &Table,
        author: &mut Author<'_>,
    ) -> rusqlite::Result<Option<String>> {
        let name = quoted(&table.name);
        let Some(row) = some_row(table, author)? else {
            return self.insert(table, author).map(Some);
        };
        Ok(Some(match author.rng.below(20) {
            0..=6 => return self.insert(table, author).map(Some),
            7 | 8 => format!("DELETE FROM {name} WHERE {row}"),
            _ => {
                let columns: Vec<usize> = (0..table.columns.len())
                    .filter(|i| !table.is_key(*i) && !table.columns[*i].generated)
                    .collect();
                if columns.is_empty() {
                    return Ok(None);
                }
                let mut sets = Vec::new();
                for _ in 0..=author.rng.below(2) {
                    let column = *author.rng.pick(&columns);
                    let value = self.update(table, column, author)?;
                    sets.push(format!("{} = {value}", quoted(&table.columns[column].name)));
                }
                format!("UPDATE {name} SET {} WHERE {row}", sets.join(", "))
            }
        }))
    }

    fn insert(&self, table: &Table, author: &mut Author<'_>) -> rusqlite::Result<String> {
        let mut names = Vec::new();
        let mut values = Vec::new();
        for (i, column) in table.columns.iter().enumerate() {
            let is_needed = table.is_key(i) || column.not_null;
            if column.generated || (!is_needed && author.rng.percent(25)) {
                continue;
            }
            names.push(quoted(&column.name));
            values.push(match reference(table, i) {
                Some(reference) => self.parent(table, reference, i, author)?,
                None if table.is_key(i) => self.key(table, i, author),
                None => self.value(table, i, author),
            });
        }
        let conflict = author.rng.pick(&["", "", "", " OR IGNORE", " OR REPLACE"]);
        Ok(format!(
            "INSERT{conflict} INTO {}({}) VALUES ({})",
            quoted(&table.name),
            names.join(", "),
            values.join(", ")
        ))
    }

    /// What an update writes: for what merges by operations, what such an app would.
    fn update(
        &self,
        table: &Table,
        at: usize,
        author: &mut Author<'_>,
    ) -> rusqlite::Result<String> {
        if let Some(reference) = reference(table, at) {
            return self.parent(table, reference, at, author);
        }
        let column = &table.columns[at];
        let name = quoted(&column.name);
        let word = word(author);
        Ok(match column.merge {
            MergeStrategy::Counter => format!("coalesce({name}, 0) + {}", 1 + author.rng.below(9)),
            MergeStrategy::Append => {
                format!("json_insert(coalesce({name}, '[]'), '$[#]', {word})")
            }
            MergeStrategy::MergeFields => {
                let member = author.rng.pick(&["a", "b", "c"]);
                format!("json_set(coalesce({name}, '{{}}'), '$.{member}', {word})")
            }
            MergeStrategy::LastWriteWins
            | MergeStrategy::ServerWins
            | MergeStrategy::ClientWins
            | MergeStrategy::Set
            | MergeStrategy::Collaborative
            | MergeStrategy::Manual => self.value(table, at, author),
        })
    }

    fn key(&self, table: &Table, at: usize, author: &mut Author<'_>) -> String {
        let column = &table.columns[at];
        let number = author.rng.below(KEYS);
        match column.ty {
            ColumnType::Integer => number.to_string(),
            ColumnType::Uuid => format!("'00000000-0000-4000-8000-{number:012}'"),
            ColumnType::Blob => format!("X'{number:02x}'"),
            ColumnType::Text | ColumnType::Any if self.has_words(table, column) => {
                self.value(table, at, author)
            }
            ColumnType::Text | ColumnType::Any => format!("'{}-{number}'", sql(&table.name)),
            ColumnType::Real | ColumnType::Boolean | ColumnType::Json | ColumnType::Timestamp => {
                self.value(table, at, author)
            }
        }
    }

    fn has_words(&self, table: &Table, column: &Column) -> bool {
        let place = (table.name.clone(), column.name.clone());
        self.words.contains_key(&place)
    }

    /// A literal that the column takes.
    fn value(&self, table: &Table, at: usize, author: &mut Author<'_>) -> String {
        let column = &table.columns[at];
        let place = (table.name.clone(), column.name.clone());
        if let Some(words) = self.words.get(&place)
            && author.rng.percent(90)
        {
            return author.rng.pick(words).clone();
        }
        if !column.not_null && author.rng.percent(8) {
            return "NULL".into();
        }
        let number = author.rng.below(100);
        match column.ty {
            ColumnType::Integer => number.to_string(),
            ColumnType::Real => format!("{number}.5"),
            ColumnType::Boolean => (number % 2).to_string(),
            ColumnType::Blob => format!("X'{number:02x}'"),
            ColumnType::Uuid => format!("'00000000-0000-4000-8000-{:012}'", number % KEYS),
            ColumnType::Timestamp => format!("'2026-01-{:02}T12:00:00.000Z'", 1 + number % 28),
            ColumnType::Json => match column.merge {
                MergeStrategy::Set | MergeStrategy::Append => {
                    let mut items: Vec<_> = (0..number % 4).map(|_| author.rng.below(6)).collect();
                    items.sort_unstable();
                    items.dedup();
                    let items: Vec<_> = items.iter().map(|i| format!("\"w{i}\"")).collect();
                    format!("'[{}]'", items.join(","))
                }
                MergeStrategy::LastWriteWins
                | MergeStrategy::ServerWins
                | MergeStrategy::ClientWins
                | MergeStrategy::MergeFields
                | MergeStrategy::Counter
                | MergeStrategy::Collaborative
                | MergeStrategy::Manual => format!("'{{\"a\":{number}}}'"),
            },
            ColumnType::Text | ColumnType::Any => word(author),
        }
    }

    /// The key of a row that is there, mostly.
    fn parent(
        &self,
        table: &Table,
        reference: (&ForeignKey, usize),
        at: usize,
        author: &mut Author<'_>,
    ) -> rusqlite::Result<String> {
        let (reference, position) = reference;
        let Some(parent) = self.schema.table(&reference.parent) else {
            return Ok(self.value(table, at, author));
        };
        let column = match reference.parent_columns.get(position) {
            Some(name) => name.clone(),
            None => parent.columns[parent.primary_key[position]].name.clone(),
        };
        let (name, column) = (quoted(&parent.name), quoted(&column));
        let sql = format!("SELECT quote({column}) FROM {name} ORDER BY 1 LIMIT 50");
        let mut statement = author.conn.prepare_cached(&sql)?;
        let found: Vec<String> = statement
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let is_nullable = !table.columns[at].not_null && reference.on_delete != OnDelete::Restrict;
        Ok(
            match found.is_empty() || (is_nullable && author.rng.percent(10)) {
                true => "NULL".into(),
                false => author.rng.pick(&found).clone(),
            },
        )
    }
}

/// A row's key, as SQL finds it again.
fn some_row(table: &Table, author: &mut Author<'_>) -> rusqlite::Result<Option<String>> {
    let columns = table
        .primary_key
        .iter()
        .map(|i| quoted(&table.columns[*i].name));
    let conditions: Vec<_> = columns
        .map(|column| format!("'{} IS ' || quote({column})", sql(&column)))
        .collect();
    let sql = format!(
        "SELECT {} FROM {} ORDER BY 1 LIMIT 60",
        conditions.join(" || ' AND ' || "),
        quoted(&table.name)
    );
    let mut statement = author.conn.prepare_cached(&sql)?;
    let found: Vec<String> = statement
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok((!found.is_empty()).then(|| author.rng.pick(&found).clone()))
}

fn word(author: &mut Author<'_>) -> String {
    format!("'{}{}'", sql(author.name), author.rng.below(100))
}

/// The reference that the column belongs to, and its place in it.
fn reference(table: &Table, at: usize) -> Option<(&ForeignKey, usize)> {
    table.foreign_keys.iter().find_map(|key| {
        let position = key.columns.iter().position(|column| *column == at)?;
        Some((key, position))
    })
}

/// What rules and checks say of columns: who is meant by it, or which words it takes.
fn words(schema: &Schema, users: &[String]) -> BTreeMap<(String, String), Vec<String>> {
    let mut rules = Vec::new();
    for table in &schema.tables {
        let texts = &table.rules;
        let of_table = [
            &texts.read,
            &texts.write,
            &texts.create,
            &texts.update,
            &texts.delete,
        ];
        rules.extend(of_table.into_iter().flatten());
    }
    let rules: Vec<Vec<String>> = rules.into_iter().map(|rule| tokens(rule)).collect();
    let users: Vec<String> = users
        .iter()
        .map(|user| format!("'{}'", sql(user)))
        .collect();
    let mut words = BTreeMap::new();
    for table in &schema.tables {
        for column in &table.columns {
            let is_it = |token: &String| {
                let last = token.rsplit('.').next().unwrap_or_default();
                last.eq_ignore_ascii_case(&column.name)
            };
            let mut found: Vec<String> = Vec::new();
            for rule in &rules {
                for at in (0..rule.len()).filter(|at| is_it(&rule[*at])) {
                    let next = rule.get(at + 1).map(String::as_str);
                    let is_compared = matches!(next, Some("=" | "IN" | "in" | "<>" | "!="));
                    let after = rule
                        .iter()
                        .skip(at + 2)
                        .filter(|token| *token != "(" && *token != ",");
                    for token in after.take_while(|_| is_compared) {
                        match token.as_str() {
                            "auth.uid" => found.extend(users.iter().cloned()),
                            literal if literal.starts_with('\'') => found.push(literal.into()),
                            _ => break,
                        }
                    }
                    // Also the other way round: auth.uid() = column.
                    let before = at.checked_sub(4).map(|from| &rule[from..at]);
                    if before.is_some_and(|before| before[0] == "auth.uid" && before[3] == "=") {
                        found.extend(users.iter().cloned());
                    }
                }
            }
            let check = column.check.as_deref().map(tokens).unwrap_or_default();
            found.extend(check.into_iter().filter(|token| token.starts_with('\'')));
            found.sort();
            found.dedup();
            let is_text = matches!(
                column.ty,
                ColumnType::Text | ColumnType::Any | ColumnType::Uuid
            );
            if is_text && !found.is_empty() {
                words.insert((table.name.clone(), column.name.clone()), found);
            }
        }
    }
    words
}

/// Names with their dots, literals with their quotes, other signs one by one.
fn tokens(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
        let end = match first {
            '\'' => rest[1..].find('\'').map_or(rest.len(), |end| end + 2),
            _ if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        found.push(rest[..end].to_owned());
        rest = rest[end..].trim_start();
    }
    found
}

fn shape(table: &Table) -> TableShape {
    let names = |is_key: bool| -> Vec<&'static str> {
        let columns = (0..table.columns.len()).filter(|i| table.is_key(*i) == is_key);
        columns
            .map(|i| forever(&quoted(&table.columns[i].name)))
            .collect()
    };
    let key = table
        .primary_key
        .iter()
        .map(|i| forever(&quoted(&table.columns[*i].name)));
    let key: Vec<_> = key.collect();
    TableShape {
        name: forever(&table.name),
        key: key.leak(),
        columns: names(false).leak(),
    }
}

/// Names of tables, columns and people of the one configuration that a process simulates.
fn forever(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn sql(text: &str) -> String {
    text.replace('\'', "''")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
[tables.teams]
columns = { id = "uuid primary key", name = "text not null" }
read = "_owner = auth.uid() OR id IN (SELECT team_id FROM members WHERE user_id = auth.uid() AND role = 'editor')"
write = "_owner = auth.uid()"
[tables.members]
columns = { id = "uuid primary key", team_id = "uuid not null references teams on delete cascade", user_id = "text not null", role = "text check (role in ('editor', 'guest'))" }
read = "user_id = auth.uid() OR team_id IN readable(teams)"
write = "team_id IN writable(teams)"
"#;

    #[test]
    fn what_rules_compare_a_column_with_is_what_people_write_there() {
        let users = ["ann".to_owned(), "bob".to_owned()];
        let given = Given::parse("syncline.toml", CONFIG, &users).expect("a configuration");
        let words = |column: &str| {
            given
                .words
                .get(&("members".to_owned(), column.to_owned()))
                .map(|words| words.join(" "))
        };
        assert_eq!(words("user_id").as_deref(), Some("'ann' 'bob'"));
        assert_eq!(words("role").as_deref(), Some("'editor' 'guest'"));
        assert_eq!(words("team_id"), None);
    }

    #[test]
    fn what_cannot_be_simulated_is_said() {
        let users = ["ann".to_owned()];
        let refused = |text: &str| {
            let refused = Given::parse("my.toml", text, &users).expect_err("it is refused");
            refused.to_string()
        };
        assert_eq!(refused(""), "my.toml names no table");
        let told = refused("[tables.notes]\nread = \"_owner = auth.uid()\"\n");
        assert!(
            told.contains("does not say which columns notes has"),
            "{told}"
        );
    }
}
