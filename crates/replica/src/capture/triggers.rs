//! The SQL that marks what is touched (spec CA1–CA6, CA9).
//!
//! The invariant of all triggers: before a row with key K changes for the first time under
//! transaction number N, a mark (N, K) holds its image, or says that there was no row. A mark is
//! never replaced. Whoever changes the row, by whatever statement, finds it marked or marks it;
//! so the order of triggers, the app's among them, does not matter. Marking too much is harmless:
//! what did not change gives no change.
//!
//! Every `INSERT`, or the `WHEN` of its trigger, says `NOT EXISTS`, and none `OR IGNORE`, because
//! the conflict clause of the app's statement overrides those of triggers. The mark table has no
//! constraint, so a mark can never make the app's statement fail.
//!
//! Most inserts evict nothing: what marks only the new key is a trigger of its own, and cheap. An
//! `INSERT … SELECT` that reads the table it writes takes a temporary one, so where the `WHEN`
//! has looked already, the statement does not.

mod rows;

use syncline_core::Table;

use rows::Found;

use crate::{
    introspect::shape::{Shape, ShapeIndex},
    sql::{all, list, literal, quoted},
};

/// The number of the transaction, of which [`MARK_HEAD`] makes the first column.
const NUMBER: &str = "(SELECT n FROM syncline_tx)";

/// Columns of every mark before the row's own: transaction number, order, Julian day, presence.
const MARK_HEAD: &str = "n, seq, at, present";

/// What goes into them but presence. Scalar subqueries, not a join: should the one row of
/// `syncline_tx` be missing, marks are still made.
const HEAD_VALUES: &str =
    "(SELECT n FROM syncline_tx), (SELECT touched FROM syncline_tx), julianday('now')";

/// Ends every trigger, so that one look at `syncline_tx` says whether there are marks.
const BUMP: &str = "UPDATE syncline_tx SET touched = touched + 1;";

/// Up to this many columns, triggers let the app drop a column: see [`Plan::image_source`].
/// The natural join grows an expression of this depth, and SQLite allows 1,000.
const DROPPABLE_COLUMNS_MAX: usize = 500;

/// The schema objects that capture one table.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    shape: &'a Shape,
    mark: String,
    prefix: String,
    table: String,
    /// Captured columns: as the app names them, and in the mark.
    columns: Vec<(String, String)>,
    keys: Vec<Key>,
    /// The new row's values are parameters, numbered as the shape's columns; else they are NEW's.
    is_bound: bool,
}

#[derive(Debug)]
struct Key {
    /// Quoted.
    name: String,
    in_mark: String,
    takes_null: bool,
}

/// A statement that creates an object of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SchemaObject {
    pub(super) name: String,
    pub(super) sql: String,
}

/// The name of the mark table of the table with this number.
pub(super) fn mark_table(table: &Table) -> String {
    format!("syncline_mark_{}", table.number.0)
}

/// The name of the column in the mark table that holds the column at `position`.
pub(super) fn mark_column(table: &Table, position: usize) -> String {
    format!("c{}", table.columns[position].number.0)
}

/// The ways in which a row of the table, `r`, can be in the place of another row: a condition
/// each, with the other row's values as parameters numbered as the columns of `shape`.
pub(crate) fn rivals(table: &Table, shape: &Shape) -> Vec<String> {
    let plan = Plan {
        is_bound: true,
        ..Plan::new(table, shape)
    };
    let by_indexes = plan.further_unique_indexes().map(|i| plan.same_terms(i));
    [plan.same_key()].into_iter().chain(by_indexes).collect()
}

impl<'a> Plan<'a> {
    /// `shape` is what the database has of `table`: all its columns but generated ones, and the
    /// same primary key.
    pub(super) fn new(table: &Table, shape: &'a Shape) -> Self {
        let captured = (0..table.columns.len()).filter(|&p| !table.columns[p].generated);
        let key = |&p: &usize| {
            let position = shape.position(&table.columns[p].name);
            Key {
                name: quoted(&table.columns[p].name),
                in_mark: mark_column(table, p),
                takes_null: position.is_none_or(|position| shape.key_takes_null(position)),
            }
        };
        Self {
            shape,
            mark: mark_table(table),
            prefix: format!("syncline_{}", table.number.0),
            table: quoted(&shape.name),
            columns: captured
                .map(|p| (quoted(&table.columns[p].name), mark_column(table, p)))
                .collect(),
            keys: table.primary_key.iter().map(key).collect(),
            is_bound: false,
        }
    }

    /// The table of the marks and its index.
    pub(super) fn storage(&self) -> Vec<SchemaObject> {
        let columns = list(&self.columns, |(_, in_mark)| in_mark.clone());
        let keys = list(&self.keys, |key| key.in_mark.clone());
        let index = format!("{}_key", self.mark);
        vec![
            SchemaObject {
                sql: format!("CREATE TABLE {}({MARK_HEAD}, {columns})", self.mark),
                name: self.mark.clone(),
            },
            SchemaObject {
                sql: format!("CREATE INDEX {index} ON {}({keys}, n)", self.mark),
                name: index,
            },
        ]
    }

    /// In this order: SQLite fires the newest trigger first, so rows that an insert evicts are
    /// marked before its key. Were it otherwise, a changeset would have them the other way round.
    pub(super) fn triggers(&self) -> Vec<SchemaObject> {
        let new = format!("{} AND NOT {}", self.not_marked("NEW"), self.is_there());
        let mut out = vec![self.trigger("insert", "BEFORE INSERT", Some(new), &self.absent())];
        out.extend(self.next_rowid());
        let rivals = self.rivals();
        out.push(self.trigger(
            "evict",
            "BEFORE INSERT",
            Some(self.is_any_of(&rivals)),
            &self.images_of(&rivals),
        ));
        for (name, event) in [("update", "BEFORE UPDATE"), ("delete", "BEFORE DELETE")] {
            let when = Some(self.not_marked("OLD"));
            let body = format!("{};", self.image(&self.old().condition));
            out.push(self.trigger(name, event, when, &body));
        }
        // The row that moves is marked, too, so that its old key goes before its new one comes.
        let moved: Vec<_> = [self.old()].into_iter().chain(rivals).collect();
        let body = format!(
            "{}\n{}",
            self.images_of(&moved),
            self.absent_unless_marked()
        );
        out.push(self.trigger("move", "BEFORE UPDATE", self.moves(), &body));
        let late = |name, event| {
            let when = Some(self.not_marked("NEW"));
            self.trigger(name, event, when, &self.absent())
        };
        if self.insert_makes_key_late() {
            out.push(late("inserted", "AFTER INSERT"));
        }
        if self.update_makes_key_late() {
            out.push(late("moved", "AFTER UPDATE"));
        }
        out
    }

    fn trigger(&self, name: &str, event: &str, when: Option<String>, body: &str) -> SchemaObject {
        let name = format!("{}_{name}", self.prefix);
        let when = when.map(|when| format!(" WHEN {when}")).unwrap_or_default();
        let sql = format!(
            "CREATE TRIGGER {name} {event} ON {} FOR EACH ROW{when} BEGIN\n{body}\n{BUMP}\nEND",
            self.table
        );
        SchemaObject { name, sql }
    }

    fn is_any_of(&self, rows: &[Found]) -> String {
        let is_there = |found: &Found| {
            let Found {
                source, condition, ..
            } = found;
            format!("EXISTS (SELECT 1 FROM {source} WHERE {condition})")
        };
        let all: Vec<_> = rows.iter().map(is_there).collect();
        all.join(" OR ")
    }

    /// Marks these rows, with their images, as far as they are not marked. In one statement where
    /// they can be named by their rowids: SQLite parses all triggers whenever the file is opened.
    fn images_of(&self, rows: &[Found]) -> String {
        let unmarked =
            |condition: &str| format!("{} AND {};", self.image(condition), self.not_marked("r"));
        let Some(name) = self.shape.rowid_name.filter(|_| rows.len() > 1) else {
            let all: Vec<_> = rows
                .iter()
                .map(|found| unmarked(&found.condition))
                .collect();
            return all.join("\n");
        };
        let rowids = rows.iter().map(|found| match &found.rowid {
            Some(rowid) => format!("SELECT {rowid}"),
            None => format!(
                "SELECT r.{name} FROM {} WHERE {}",
                found.source, found.condition
            ),
        });
        let rowids: Vec<_> = rowids.collect();
        unmarked(&format!("r.{name} IN ({})", rowids.join(" UNION ALL ")))
    }

    /// When an update can touch another key or evict a row. Not `UPDATE OF`, which does not see
    /// a key set by the name `rowid`. `None`: always.
    fn moves(&self) -> Option<String> {
        let mut names: Vec<String> = self.keys.iter().map(|key| key.name.clone()).collect();
        for index in self.further_unique_indexes() {
            let name = |position: usize| quoted(&self.shape.columns[position].name);
            names.extend(index.plain_columns()?.into_iter().map(name));
        }
        names.extend(self.hidden_rowid().map(str::to_owned));
        names.sort_unstable();
        names.dedup();
        let changed = |name| format!("+NEW.{name} IS NOT +OLD.{name} COLLATE BINARY");
        Some(
            names
                .into_iter()
                .map(changed)
                .collect::<Vec<_>>()
                .join(" OR "),
        )
    }

    /// In a BEFORE trigger a rowid that SQLite will choose is -1. Marks the one it will choose,
    /// so that the app's triggers on the new row find it marked; should the guess be wrong, the
    /// AFTER trigger marks the right one.
    fn next_rowid(&self) -> Option<SchemaObject> {
        let key = self.keys.first().filter(|_| self.shape.rowid_key)?;
        let largest = format!("(SELECT max(r.{}) FROM {} AS r)", key.name, self.table);
        let next = if self.shape.autoincrement {
            let table = literal(&self.shape.name);
            format!(
                "max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = {table}), 0), \
                 coalesce({largest}, 0)) + 1"
            )
        } else {
            format!("coalesce({largest}, 0) + 1")
        };
        let (mark, column, name) = (&self.mark, &key.in_mark, &key.name);
        let when = format!(
            "(NEW.{name} IS NULL OR NEW.{name} = -1) AND NOT EXISTS (SELECT 1 FROM {mark} AS m \
             WHERE m.{column} = {next} AND m.n = {NUMBER})"
        );
        let body = format!(
            "INSERT INTO {mark}({MARK_HEAD}, {column})\n VALUES({HEAD_VALUES}, 0, {next});"
        );
        Some(self.trigger("next", "BEFORE INSERT", Some(when), &body))
    }

    /// Whether the key of a new row can be another than BEFORE INSERT sees: a rowid, or a default
    /// that is computed after it.
    fn insert_makes_key_late(&self) -> bool {
        let has_default = |&p: &usize| self.shape.columns[p].default.is_some();
        self.shape.rowid_key || self.shape.primary_key.iter().any(has_default)
    }

    /// `UPDATE OR REPLACE` puts the default where a NOT NULL column would become NULL.
    fn update_makes_key_late(&self) -> bool {
        let columns = self
            .shape
            .primary_key
            .iter()
            .map(|&p| &self.shape.columns[p]);
        columns
            .into_iter()
            .any(|column| column.not_null && column.default.is_some())
    }

    /// Marks the rows of the table that fulfil `condition` over `r`, with their images.
    fn image(&self, condition: &str) -> String {
        format!(
            "INSERT INTO {}({MARK_HEAD}, {})\n SELECT {HEAD_VALUES}, 1, {}\n FROM {}\n WHERE {condition}",
            self.mark,
            list(&self.columns, |(_, in_mark)| in_mark.clone()),
            list(&self.columns, |(name, _)| name.clone()),
            self.image_source(),
        )
    }

    /// Marks the key NEW, which has no mark, as one without a row.
    fn absent(&self) -> String {
        format!(
            "{}VALUES({HEAD_VALUES}, 0, {});",
            self.keys_into_mark(),
            self.new_key()
        )
    }

    /// The same, if it has none.
    fn absent_unless_marked(&self) -> String {
        format!(
            "{}SELECT {HEAD_VALUES}, 0, {}\n WHERE {};",
            self.keys_into_mark(),
            self.new_key(),
            self.not_marked("NEW"),
        )
    }

    fn keys_into_mark(&self) -> String {
        let keys = list(&self.keys, |key| key.in_mark.clone());
        format!("INSERT INTO {}({MARK_HEAD}, {keys})\n ", self.mark)
    }

    fn new_key(&self) -> String {
        list(&self.keys, |key| format!("NEW.{}", key.name))
    }

    /// The table as `r`, so that an unqualified column name means its column, or NULL once the
    /// app has dropped that column: ALTER TABLE DROP COLUMN refuses to drop a column that a
    /// trigger needs. (In a natural left join a name on both sides is the left one's.)
    fn image_source(&self) -> String {
        if self.columns.len() > DROPPABLE_COLUMNS_MAX {
            return format!("{} AS r", self.table);
        }
        let nulls = list(&self.columns, |(name, _)| format!("NULL AS {name}"));
        format!("{} AS r NATURAL LEFT JOIN (SELECT {nulls})", self.table)
    }

    /// The key `of` (`r`, OLD or NEW) has no mark under the present number. Unary plus takes the
    /// column's affinity away: marks are compared as they are stored.
    fn not_marked(&self, of: &str) -> String {
        let same = all(&self.keys, |key| {
            let is = if key.takes_null { "IS" } else { "=" };
            format!("m.{} {is} +{of}.{}", key.in_mark, key.name)
        });
        format!(
            "NOT EXISTS (SELECT 1 FROM {} AS m WHERE {same} AND m.n = {NUMBER})",
            self.mark
        )
    }

    fn further_unique_indexes(&self) -> impl Iterator<Item = &ShapeIndex> {
        self.shape
            .indexes
            .iter()
            .filter(|index| index.unique && !index.is_primary_key)
    }

    /// The rowid where it is not the key.
    fn hidden_rowid(&self) -> Option<&'static str> {
        self.shape.rowid_name.filter(|_| !self.shape.rowid_key)
    }
}
