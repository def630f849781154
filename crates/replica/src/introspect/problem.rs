//! Why a table, or a part of one, cannot sync as it is, and what to do about it.

use std::fmt;

/// Columns of one table: the table of its marks has some more, and SQLite allows 2,000.
pub(super) const COLUMNS_MAX: usize = 1_900;

/// Something that stands in the way of syncing one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachProblem {
    pub table: String,
    pub reason: ProblemReason,
}

/// What the problem is. `Display` gives the reason, [`ProblemReason::fix`] the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProblemReason {
    /// Nothing says which row is which.
    NoPrimaryKey,
    /// Rows exist whose key is partly NULL; without them the table can sync.
    NullKeys { column: String, rows: u64 },
    /// A virtual table; what it indexes may sync.
    Virtual,
    /// The key or an index compares by a collation that only the app's own program has.
    ForeignCollation { index: String, collation: String },
    /// A CHECK, an index or a column is computed by a function that only the app's own program has.
    ForeignFunction { message: String },
    /// It, or a column of it, is called nothing, or by white space.
    NoName,
    /// More columns than the triggers and their table can hold.
    TooManyColumns { columns: usize },
    /// Two rows have keys that are one UUID, spelled differently.
    SameUuid { column: String, key: String },
    /// A UUID key that is spelled so that it cannot be found by its value.
    OddUuid { column: String, key: String },
}

impl ProblemReason {
    /// What a person can do.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::NoPrimaryKey => {
                "give it one: create the table anew with `id TEXT PRIMARY KEY NOT NULL`, copy the \
                 rows with lower(hex(randomblob(16))) as id, and rename it"
                    .into()
            }
            Self::NullKeys { column, .. } => {
                format!("give those rows a value in {column}, or delete them")
            }
            Self::Virtual => "sync the tables it is built from".into(),
            Self::ForeignCollation { index, .. } => {
                format!("create {index} with BINARY, NOCASE or RTRIM")
            }
            Self::ForeignFunction { .. } => {
                "write the expression with SQLite's own functions, or compute it in the app".into()
            }
            Self::NoName => "give it a name: ALTER TABLE … RENAME".into(),
            Self::TooManyColumns { .. } => {
                format!("move columns to another table, so that each has at most {COLUMNS_MAX}")
            }
            Self::SameUuid { .. } => "delete one of the two rows, or give it another key".into(),
            Self::OddUuid { .. } => "write the key in lower case with hyphens".into(),
        }
    }
}

impl fmt::Display for ProblemReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPrimaryKey => f.write_str("it has no primary key"),
            Self::NullKeys { column, rows } => {
                write!(f, "key column {column} is NULL in {rows} rows")
            }
            Self::Virtual => f.write_str("it is a virtual table"),
            Self::ForeignCollation { index, collation } => {
                write!(
                    f,
                    "{index} uses the collation {collation}, which SQLite does not have"
                )
            }
            Self::ForeignFunction { message } => {
                write!(f, "this program cannot write its rows ({message})")
            }
            Self::NoName => f.write_str("it has no name, or a column of it has none"),
            Self::TooManyColumns { columns } => write!(f, "it has {columns} columns"),
            Self::SameUuid { column, key } => {
                write!(
                    f,
                    "two rows have the UUID {key} in {column}, spelled differently"
                )
            }
            Self::OddUuid { column, key } => {
                write!(
                    f,
                    "the UUID {key} in {column} mixes capitals, or has braces"
                )
            }
        }
    }
}

impl fmt::Display for AttachProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "table {} cannot sync: {}; {}",
            self.table,
            self.reason,
            self.reason.fix()
        )
    }
}
