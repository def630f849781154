//! The schema as the server tells it to replicas: structure and merge strategies, never rules.

use minicbor::{Decode, Encode};

/// The tables a user's replica may hold, with the numbers that travel instead of names.
#[derive(Debug, Clone, PartialEq, Default, Encode, Decode)]
#[cbor(map)]
pub struct SchemaInfo {
    #[n(0)]
    pub tables: Vec<TableInfo>,
}

/// One table; the fields mean what [`crate::Table`]'s mean. Fields from 11 on are left out where
/// they say nothing, so the hash of a schema without them is what it was before there were any.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct TableInfo {
    #[n(0)]
    pub name: String,
    #[n(1)]
    pub number: u32,
    #[n(2)]
    pub columns: Vec<ColumnInfo>,
    #[n(3)]
    pub primary_key: Vec<u32>,
    #[n(4)]
    pub uniques: Vec<Vec<u32>>,
    #[n(5)]
    pub indexes: Vec<Vec<u32>>,
    #[n(6)]
    pub foreign_keys: Vec<ForeignKeyInfo>,
    #[n(7)]
    pub without_rowid: bool,
    #[n(8)]
    pub autoincrement: bool,
    #[n(9)]
    pub on_demand: bool,
    #[n(10)]
    pub update_wins: bool,
    #[n(11)]
    pub further_indexes: Option<Vec<FurtherIndexInfo>>,
    #[n(12)]
    pub checks: Option<Vec<String>>,
    #[n(13)]
    pub strict: Option<bool>,
}

/// One column; the fields mean what [`crate::Column`]'s mean.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct ColumnInfo {
    #[n(0)]
    pub name: String,
    #[n(1)]
    pub number: u32,
    /// Names of types and strategies are spelled as in `syncline.toml`; an unknown type is
    /// `any`, an unknown strategy last-write-wins.
    #[n(2)]
    pub ty: String,
    #[n(3)]
    pub not_null: bool,
    #[n(4)]
    pub default: Option<String>,
    #[n(5)]
    pub check: Option<String>,
    #[n(6)]
    pub collate: Option<String>,
    #[n(7)]
    pub generated: bool,
    #[n(8)]
    pub merge: String,
    /// Path, strategy.
    #[n(9)]
    pub merge_paths: Vec<(String, String)>,
    #[n(10)]
    pub computed: Option<ComputedInfo>,
    #[n(11)]
    pub declared: Option<String>,
    /// The type of what is sealed in it; absent for a column that is not encrypted.
    #[n(12)]
    pub encrypted: Option<String>,
}

/// How a generated column is computed.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct ComputedInfo {
    #[n(0)]
    pub expression: String,
    #[n(1)]
    pub stored: bool,
}

/// An index that is more than a list of columns.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct FurtherIndexInfo {
    #[n(0)]
    pub unique: bool,
    #[n(1)]
    pub terms: String,
    #[n(2)]
    pub condition: Option<String>,
}

/// One foreign key.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct ForeignKeyInfo {
    #[n(0)]
    pub columns: Vec<u32>,
    #[n(1)]
    pub parent: String,
    #[n(2)]
    pub parent_columns: Vec<String>,
    /// As SQL spells it: `cascade`, `set null`, …; empty for no action.
    #[n(3)]
    pub on_delete: String,
}
