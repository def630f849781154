//! Catching what other programs write: inboxes and the triggers that fill them.
//!
//! A trigger only marks: it copies the image that a row had before the first change into the
//! table's inbox, under the row's key. Everything else is read when marks are taken. Nothing but
//! built-in SQL is used, so it works whatever SQLite the writer has.
//!
//! For our own writes no trigger fires where none but ours is there ([`crate::triggers`]). Where they
//! fire, ours are switched off by a row of `syncline_capture`, inside the transaction, so that no
//! other program ever sees them switched off.

use rusqlite::Connection;
use syncline_core::planted;
use syncline_core::{Table, sql::quote};

use crate::{
    catalog::inbox_name,
    fault::Result,
    introspect::{Found, FoundIndex, Term},
};

/// How far a table's rows are still to be compared with the ledger (`syncline_pending.sweep`).
pub(crate) mod sweep {
    /// Marks are complete.
    pub(crate) const NONE: i64 = 0;
    /// Rows that were there before the triggers are looked at in key order.
    pub(crate) const ROWS: i64 = 1;
    /// The triggers were gone for a while: every row is compared with its hash.
    pub(crate) const RESCAN_ROWS: i64 = 2;
    /// Then every row of the ledger that the table does not have any more.
    pub(crate) const RESCAN_LEDGER: i64 = 3;
}

/// One trigger.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Trigger {
    pub(crate) name: String,
    pub(crate) sql: String,
}

/// The triggers that a table needs.
pub(crate) fn triggers(table: &Table, found: &Found) -> Vec<Trigger> {
    let text = MarkText::new(table);
    let evictions = evictions(&text, table, found);
    let trigger = |event: &str, when: &str, body: String| {
        let name = format!("syncline_{}_{}_{}", table.number.0, when, event).to_lowercase();
        let sql = format!(
            "CREATE TRIGGER {} {when} {event} ON {} \
             WHEN (SELECT off FROM syncline_capture) = 0 BEGIN\n{body}{}END",
            quote(&name),
            quote(&table.name),
            text.pending,
        );
        Trigger { name, sql }
    };
    vec![
        trigger("INSERT", "BEFORE", evictions.clone()),
        trigger("INSERT", "AFTER", text.absent("NEW")),
        trigger("UPDATE", "BEFORE", evictions),
        trigger(
            "UPDATE",
            "AFTER",
            text.image("OLD", "") + &text.absent("NEW"),
        ),
        trigger("DELETE", "AFTER", text.image("OLD", "")),
    ]
}

/// The rows that a new one would evict under REPLACE, found through each unique index.
fn evictions(text: &MarkText, table: &Table, found: &Found) -> String {
    let mut out = String::new();
    if planted!(OutsideEvictionUnseen) {
        return out;
    }
    let rowid_key = found.key.iter().map(|&position| Term::Column {
        position,
        collation: "BINARY".into(),
        descending: false,
    });
    let key = FoundIndex {
        made_as: None,
        unique: true,
        of_key: true,
        terms: rowid_key.collect(),
        condition: None,
    };
    // An INTEGER PRIMARY KEY has no index of its own.
    let needs_key = !found.indexes.iter().any(|index| index.of_key);
    let indexes = found.indexes.iter().filter(|index| index.unique);
    for index in indexes.chain(needs_key.then_some(&key)) {
        let condition = index_condition(index, found);
        out += &text.image(
            "t",
            &format!("FROM {} AS t WHERE {condition} AND", quote(&table.name)),
        );
    }
    out
}

/// Whether the row `t` has the place in the index that the row NEW takes.
fn index_condition(index: &FoundIndex, found: &Found) -> String {
    let columns: Vec<_> = found
        .columns
        .iter()
        .map(|column| quote(&column.name))
        .collect();
    let exposed: Vec<_> = columns
        .iter()
        .map(|name| format!("NEW.{name} AS {name}"))
        .collect();
    // The same text on both sides: here its names are the columns of `t`, there those of NEW.
    let of_new = |text: &str| format!("(SELECT {text}\n FROM (SELECT {}))", exposed.join(", "));
    let mut parts: Vec<String> = index
        .terms
        .iter()
        .map(|term| match term {
            Term::Column {
                position,
                collation,
                ..
            } => {
                let name = &columns[*position];
                format!("t.{name} COLLATE {} = NEW.{name}", quote(collation))
            }
            Term::Expression { text, .. } => format!("({text}\n) = {}", of_new(text)),
        })
        .collect();
    if let Some(condition) = &index.condition {
        parts.push(format!("({condition}\n)"));
        parts.push(of_new(&format!("({condition}\n)")));
    }
    parts.join(" AND ")
}

/// The statements that mark one row.
struct MarkText {
    inbox: String,
    /// Names of the table's key columns.
    keys: Vec<String>,
    /// Names of the other columns, with the inbox's names for them.
    others: Vec<(String, String)>,
    pending: String,
}

impl MarkText {
    fn new(table: &Table) -> Self {
        let number = table.number.0;
        let columns = table.columns.iter().enumerate();
        Self {
            inbox: quote(&inbox_name(table.number)),
            keys: table
                .primary_key
                .iter()
                .map(|&p| quote(&table.columns[p].name))
                .collect(),
            others: columns
                .filter(|(position, column)| !column.generated && !table.is_key(*position))
                .map(|(_, column)| (quote(&column.name), format!("c{}", column.number.0)))
                .collect(),
            pending: format!(
                "INSERT INTO syncline_pending(table_no) SELECT {number} WHERE NOT EXISTS \
                 (SELECT 1 FROM syncline_pending WHERE table_no = {number});\n"
            ),
        }
    }

    /// Marks rows with the image that `row` has; `from` is a FROM with a condition and AND.
    fn image(&self, row: &str, from: &str) -> String {
        let mut names = self.key_names();
        names.push("existed".into());
        names.extend(self.others.iter().map(|(_, name)| name.clone()));
        let mut values: Vec<_> = self.keys.iter().map(|key| format!("{row}.{key}")).collect();
        values.push("1".into());
        values.extend(
            self.others
                .iter()
                .map(|(column, _)| format!("{row}.{column}")),
        );
        self.insert(row, &names, &values, from)
    }

    /// Marks the key of `row` as one that did not exist.
    fn absent(&self, row: &str) -> String {
        let mut names = self.key_names();
        names.push("existed".into());
        let mut values: Vec<_> = self.keys.iter().map(|key| format!("{row}.{key}")).collect();
        values.push("0".into());
        self.insert(row, &names, &values, "")
    }

    fn key_names(&self) -> Vec<String> {
        (1..=self.keys.len()).map(|i| format!("k{i}")).collect()
    }

    /// The unary plus takes the affinity off, so that the inbox's own index serves.
    fn insert(&self, row: &str, names: &[String], values: &[String], from: &str) -> String {
        let known: Vec<_> = (1..=self.keys.len())
            .zip(&self.keys)
            .map(|(i, key)| format!("i.k{i} = +{row}.{key}"))
            .collect();
        let not_null: Vec<_> = self
            .keys
            .iter()
            .map(|key| format!("{row}.{key} IS NOT NULL"))
            .collect();
        format!(
            "INSERT INTO {inbox}({names}) SELECT {values} {from} {not_null} AND NOT EXISTS \
             (SELECT 1 FROM {inbox} AS i WHERE {known});\n",
            inbox = self.inbox,
            names = names.join(", "),
            values = values.join(", "),
            from = if from.is_empty() { "WHERE" } else { from },
            not_null = not_null.join(" AND "),
            known = known.join(" AND "),
        )
    }
}

/// Makes the inbox of `table`, or gives it the columns that the table has got since.
pub(crate) fn prepare_inbox(conn: &Connection, table: &Table) -> Result<()> {
    let inbox = inbox_name(table.number);
    let text = MarkText::new(table);
    if !conn.table_exists(None, inbox.as_str())? {
        let keys: Vec<_> = text.key_names();
        let others: String = text
            .others
            .iter()
            .map(|(_, name)| format!(", {name}"))
            .collect();
        let not_null: Vec<_> = keys.iter().map(|key| format!("{key} NOT NULL")).collect();
        conn.execute_batch(&format!(
            "CREATE TABLE {}({}, existed INTEGER NOT NULL{others}, PRIMARY KEY({})) WITHOUT ROWID",
            quote(&inbox),
            not_null.join(", "),
            keys.join(", "),
        ))?;
        return Ok(());
    }
    let known: Vec<String> = conn
        .prepare("SELECT name FROM pragma_table_xinfo(?1)")?
        .query_map([&inbox], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for (_, name) in text.others.iter().filter(|(_, name)| !known.contains(name)) {
        conn.execute_batch(&format!("ALTER TABLE {} ADD COLUMN {name}", quote(&inbox)))?;
    }
    Ok(())
}

/// Our triggers on a table, in order of name: what lies between them and `triggers` was lost.
pub(crate) fn installed(conn: &Connection, table: &str) -> Result<Vec<Trigger>> {
    let sql = r"SELECT name, sql FROM sqlite_schema
                WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE
                AND name LIKE 'syncline\_%' ESCAPE '\' ORDER BY name";
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_map([table], |row| {
        Ok(Trigger {
            name: row.get(0)?,
            sql: row.get(1)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn drop_triggers(conn: &Connection, table: &str) -> Result<()> {
    for trigger in installed(conn, table)? {
        conn.execute_batch(&format!("DROP TRIGGER {}", quote(&trigger.name)))?;
    }
    Ok(())
}

/// A fingerprint of triggers as they lie in the database.
pub(crate) fn fingerprint(triggers: &[Trigger]) -> [u8; 32] {
    let mut sorted: Vec<_> = triggers.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut hash = blake3::Hasher::new();
    for trigger in sorted {
        hash.update(trigger.sql.as_bytes()).update(&[0]);
    }
    *hash.finalize().as_bytes()
}
