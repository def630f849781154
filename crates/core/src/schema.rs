//! The declared tables: columns, keys, constraints, rules and how each column merges.

use std::collections::BTreeMap;

use crate::ids::{ColumnNumber, TableNumber};

/// The portable type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ColumnType {
    Text,
    Integer,
    Real,
    /// 0 or 1 in SQLite.
    Boolean,
    /// JSON text in SQLite; two texts of the same JSON are different values.
    Json,
    Blob,
    /// As the database has it (text or integer in SQLite); the text travels unchanged.
    Timestamp,
    /// Lower-case hyphenated text in SQLite.
    Uuid,
    /// No declared type: values travel as they are stored.
    Any,
}

/// How concurrent changes of one column, or of one path inside a JSON column, come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum MergeStrategy {
    /// The later (HLC, changeset id) wins.
    #[default]
    LastWriteWins,
    /// What the server has stays.
    ServerWins,
    /// What arrives replaces.
    ClientWins,
    /// A JSON object merged member by member, each by last-write-wins.
    MergeFields,
    /// A JSON array of distinct items: adds and removes are both kept.
    Set,
    /// A JSON array that only grows: items of both sides are kept, in the server's order.
    Append,
    /// A number: differences add up.
    Counter,
    /// Text edited by several people at once.
    Collaborative,
    /// The server's value stays and a person decides.
    Manual,
}

/// When rows of a table reach a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncMode {
    /// All rows the user may see.
    #[default]
    Auto,
    /// Only what an app asks for.
    OnDemand,
}

/// What a foreign key does when its parent goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDelete {
    #[default]
    NoAction,
    Restrict,
    Cascade,
    SetNull,
    SetDefault,
}

macro_rules! names {
    ($type:ident, $what:literal: $($variant:ident $name:literal),* $(,)?) => {
        impl $type {
            #[doc = concat!("Every ", $what, ", in the order of the declaration.")]
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            #[doc = concat!("The name of the ", $what, " in `syncline.toml` and on the wire.")]
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),*
                }
            }

            #[doc = concat!("The ", $what, " with exactly this name.")]
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

names! { ColumnType, "column type":
    Text "text", Integer "integer", Real "real", Boolean "boolean", Json "json", Blob "blob",
    Timestamp "timestamp", Uuid "uuid", Any "any",
}
names! { MergeStrategy, "merge strategy":
    LastWriteWins "last-write-wins", ServerWins "server-wins", ClientWins "client-wins",
    MergeFields "merge-fields", Set "set", Append "append", Counter "counter",
    Collaborative "collaborative", Manual "manual",
}
names! { SyncMode, "sync mode": Auto "auto", OnDemand "on_demand" }

impl OnDelete {
    /// The action as SQL spells it, in lower case; empty for no action.
    #[must_use]
    pub fn as_sql(self) -> &'static str {
        match self {
            Self::NoAction => "",
            Self::Restrict => "restrict",
            Self::Cascade => "cascade",
            Self::SetNull => "set null",
            Self::SetDefault => "set default",
        }
    }

    /// The action that SQL spells like this, in any case; empty or `no action` for none.
    #[must_use]
    pub fn parse(sql: &str) -> Option<Self> {
        let sql = sql.to_ascii_lowercase();
        if sql == "no action" {
            return Some(Self::NoAction);
        }
        [
            Self::NoAction,
            Self::Restrict,
            Self::Cascade,
            Self::SetNull,
            Self::SetDefault,
        ]
        .into_iter()
        .find(|action| action.as_sql() == sql)
    }
}

/// One column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub number: ColumnNumber,
    pub ty: ColumnType,
    /// The type that apps have in it, where devices seal its values before they send them: `ty` is
    /// blob then, for that is what everybody without the key has ([`crate::envelope`]).
    pub encrypted: Option<ColumnType>,
    pub not_null: bool,
    /// The SQL text of the default, without the word DEFAULT.
    pub default: Option<String>,
    /// The SQL text of the column's CHECK, without the word and the outer parentheses.
    pub check: Option<String>,
    /// A collation other than BINARY.
    pub collate: Option<String>,
    /// Computed by the database: never travels.
    pub generated: bool,
    /// How, for a generated column of which that is known: then it can be made elsewhere too.
    pub computed: Option<Computed>,
    /// The type that the database declares, where it is not the one that `ty` is made with
    /// ([`crate::sql::declared_type`]): `VARCHAR(20)`, `DECIMAL`.
    pub declared: Option<String>,
    /// How the whole column merges.
    pub merge: MergeStrategy,
    /// How paths inside this JSON column merge (`"settings.goals"` is `goals` here), longest
    /// path wins. Empty for most columns.
    pub merge_paths: BTreeMap<String, MergeStrategy>,
}

/// How a generated column is computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Computed {
    /// SQL text, without the parentheses around it.
    pub expression: String,
    /// STORED; otherwise VIRTUAL.
    pub stored: bool,
}

/// An index that is more than a list of columns: over expressions, in descending order, by
/// another collation than its columns', or of some rows only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FurtherIndex {
    pub unique: bool,
    /// SQL text of its terms, as between the parentheses of CREATE INDEX.
    pub terms: String,
    /// The condition of the rows that are in it.
    pub condition: Option<String>,
}

/// A reference from `columns` to the `parent` table's `parent_columns`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    /// Positions in [`Table::columns`].
    pub columns: Vec<usize>,
    pub parent: String,
    /// Names, empty for the parent's primary key.
    pub parent_columns: Vec<String>,
    pub on_delete: OnDelete,
}

/// One table that syncs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub name: String,
    pub number: TableNumber,
    /// In the order the table declares them; a [`crate::Row`] is aligned with it.
    pub columns: Vec<Column>,
    /// Positions in `columns`, in key order; never empty.
    pub primary_key: Vec<usize>,
    /// Column positions of each UNIQUE constraint or index besides the primary key.
    pub uniques: Vec<Vec<usize>>,
    /// Column positions of each further index.
    pub indexes: Vec<Vec<usize>>,
    /// What neither `uniques` nor `indexes` can say; unique ones first.
    pub further_indexes: Vec<FurtherIndex>,
    pub foreign_keys: Vec<ForeignKey>,
    /// SQL texts of the CHECKs of the table as a whole.
    pub checks: Vec<String>,
    pub without_rowid: bool,
    /// SQLite's STRICT.
    pub strict: bool,
    pub autoincrement: bool,
    pub sync: SyncMode,
    /// Deleting wins over a concurrent update unless this is set.
    pub update_wins: bool,
    pub rules: RuleTexts,
    /// Columns set by the server: name → expression (`auth.uid()`, a claim, a literal).
    pub force: BTreeMap<String, String>,
}

/// The rules of a table as `syncline.toml` writes them; `None` denies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleTexts {
    pub read: Option<String>,
    pub create: Option<String>,
    pub update: Option<String>,
    pub delete: Option<String>,
    /// The three write rules at once, where they are not given one by one.
    pub write: Option<String>,
}

/// All tables that sync, in the order of their numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Schema {
    pub tables: Vec<Table>,
}

impl Table {
    /// The position of the column called `name` (ASCII case ignored, as SQL does).
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns
            .iter()
            .position(|c| c.name.eq_ignore_ascii_case(name))
    }
    /// The position of the column with this number.
    #[must_use]
    pub fn position_of(&self, number: ColumnNumber) -> Option<usize> {
        self.columns.iter().position(|c| c.number == number)
    }
    /// The table as apps have it: the values of encrypted columns are not sealed there.
    #[must_use]
    pub fn opened(mut self) -> Self {
        for column in &mut self.columns {
            column.ty = column.encrypted.unwrap_or(column.ty);
        }
        self
    }
    /// Whether the column at `position` belongs to the primary key.
    #[must_use]
    pub fn is_key(&self, position: usize) -> bool {
        self.primary_key.contains(&position)
    }
}

impl Schema {
    /// The table called `name` (ASCII case ignored).
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables
            .iter()
            .find(|t| t.name.eq_ignore_ascii_case(name))
    }
    /// Whether the parent of `key` is here and has what it refers to as its primary key or as a
    /// unique combination: a database refuses every write to a table of which that is not so.
    #[must_use]
    pub fn can_refer(&self, key: &ForeignKey) -> bool {
        let Some(parent) = self.table(&key.parent) else {
            return false;
        };
        let named: Option<Vec<usize>> = key
            .parent_columns
            .iter()
            .map(|name| parent.position(name))
            .collect();
        let Some(named) = named else { return false };
        let columns = if named.is_empty() {
            &parent.primary_key
        } else {
            &named
        };
        let same = |list: &[usize]| {
            list.len() == columns.len() && columns.iter().all(|position| list.contains(position))
        };
        columns.len() == key.columns.len()
            && (same(&parent.primary_key) || parent.uniques.iter().any(|unique| same(unique)))
    }
    /// The table with this number.
    #[must_use]
    pub fn by_number(&self, number: TableNumber) -> Option<&Table> {
        self.tables.iter().find(|t| t.number == number)
    }
}
