//! Compiling: from the branches of all tables to families, placements of rows, and sources of
//! grants.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    RuleColumn, RuleError,
    branch::{Chain, Hop, Link, ReadBranch, WriteBranch},
    cond::Cond,
    definition, describe,
    hash::{self, BucketHead, Key, family},
    inherit,
    rights::Step,
    term::{Field, Term, UserTerm},
    texts::table_rules,
};
use crate::{
    ids::{FamilyId, TableNumber},
    schema::{ColumnType, Schema, Table},
};

/// Everything about the rules of a schema.
#[derive(Debug, Clone)]
pub(super) struct Compiled {
    pub(super) key: Key,
    pub(super) tables: Vec<TableRules>,
    pub(super) by_number: BTreeMap<TableNumber, usize>,
    pub(super) sources: Vec<Source>,
    pub(super) fixed: Vec<Fixed>,
    /// In which tables the rows of a family's buckets can be.
    pub(super) bucket_tables: BTreeMap<BucketHead, Vec<TableNumber>>,
    /// The families among them that a device has to ask for.
    pub(super) on_demand: BTreeSet<BucketHead>,
    /// What to write instead of rules that cost more than they need to.
    pub(super) advice: Vec<String>,
    pub(super) fingerprint: [u8; 32],
}

/// The rules of one table and what follows from them.
#[derive(Debug, Clone)]
pub(super) struct TableRules {
    pub(super) number: TableNumber,
    pub(super) name: String,
    pub(super) types: Vec<ColumnType>,
    /// The key column, where the key has only one.
    pub(super) key: Option<usize>,
    pub(super) read: Vec<ReadBranch>,
    pub(super) create: Vec<WriteBranch>,
    pub(super) update: Vec<WriteBranch>,
    pub(super) delete: Vec<WriteBranch>,
    pub(super) forced: Vec<(usize, Term)>,
    /// The rows, and those that inherit from them, lie in buckets on demand.
    pub(super) on_demand: bool,
    /// The family of the rows' own buckets, where other tables inherit from this one.
    pub(super) own: Option<FamilyId>,
    pub(super) placements: Vec<Placement>,
    /// Sources whose paths lead through rows of this table, and the hop they are.
    pub(super) hops: Vec<(usize, usize)>,
    pub(super) children: Vec<(TableNumber, RuleColumn)>,
    /// Columns that buckets, and that grants, depend on: sorted.
    pub(super) bucket_fields: Vec<Field>,
    pub(super) grant_fields: Vec<Field>,
    /// Columns that rules look rows of this table up by.
    pub(super) lookups: Vec<RuleColumn>,
    /// What its rows are asked by rules for writing others.
    pub(super) steps: Vec<Step>,
    pub(super) words: String,
}

/// A bucket that a row lies in while conditions hold.
#[derive(Debug, Clone)]
pub(super) struct Placement {
    pub(super) conds: Vec<Cond>,
    pub(super) place: Placed,
}

/// Which bucket.
#[derive(Debug, Clone, Copy)]
pub(super) enum Placed {
    /// The family's bucket of the column's value, or its only bucket.
    Family(FamilyId, Option<Field>),
    /// The buckets of the parent.
    Parent(RuleColumn, usize),
}

/// Rows that grant buckets: each path through the hops is one grant.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) bucket: Granted,
    pub(super) hops: Vec<Hop>,
    pub(super) user: Vec<Cond>,
    pub(super) end: Option<UserTerm>,
    /// Hash of what a grantee of this source has to fulfil.
    pub(super) grantee: FamilyId,
}

/// Which bucket a path grants.
#[derive(Debug, Clone, Copy)]
pub(super) enum Granted {
    /// The own bucket of the first hop's row.
    Row(FamilyId),
    /// The bucket of the first hop's `left`.
    Left(FamilyId),
    /// The family's only bucket.
    Only(FamilyId),
}

impl Granted {
    pub(super) fn family(self) -> FamilyId {
        match self {
            Self::Row(family) | Self::Left(family) | Self::Only(family) => family,
        }
    }
}

/// A bucket granted to an identity for what it is, whatever rows there are.
#[derive(Debug, Clone)]
pub(super) struct Fixed {
    pub(super) user: Vec<Cond>,
    pub(super) family: FamilyId,
    pub(super) term: Option<UserTerm>,
}

impl Compiled {
    pub(super) fn new(schema: &Schema, key: &[u8; 32]) -> Result<Self, Vec<RuleError>> {
        let mut errors = Vec::new();
        let mut tables: Vec<TableRules> = (0..schema.tables.len())
            .map(|at| table_rules(schema, at, &mut errors))
            .collect();
        inherit::check(schema, &tables, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        inherit::index(&mut tables);
        let mut compiled = Self {
            key: Key(*key),
            by_number: tables
                .iter()
                .enumerate()
                .map(|(at, table)| (table.number, at))
                .collect(),
            tables,
            sources: Vec::new(),
            fixed: Vec::new(),
            bucket_tables: BTreeMap::new(),
            on_demand: BTreeSet::new(),
            advice: Vec::new(),
            fingerprint: [0; 32],
        };
        let mut definitions = Vec::new();
        for (at, table) in schema.tables.iter().enumerate() {
            definitions.push(compiled.place(schema, at));
            compiled.tables[at].words = describe::table(schema, table, &compiled.tables[at]);
        }
        definitions.sort();
        compiled.fingerprint = compiled.key.fingerprint(&definitions.concat());
        compiled.index_bucket_tables();
        compiled.grant_to_heirs();
        compiled.index();
        compiled.index_rights();
        compiled.advise(schema);
        Ok(compiled)
    }

    /// Families, placements and sources of one table; returns their definition.
    fn place(&mut self, schema: &Schema, at: usize) -> String {
        let table = &schema.tables[at];
        let inherited = !self.tables[at].children.is_empty();
        let key: Vec<&str> = table
            .primary_key
            .iter()
            .map(|&i| &*table.columns[i].name)
            .collect();
        let own =
            inherited.then(|| format!("own bucket of each row of {:?} {key:?}\n", table.name));
        self.tables[at].own = own.as_deref().map(family);
        let mut definitions: Vec<String> = own.into_iter().collect();
        for branch in self.tables[at].read.clone() {
            let definition = definition::of_branch(schema, table, &branch) + "\n";
            if !definitions.contains(&definition) {
                self.place_branch(at, table, &branch, family(&definition));
                definitions.push(definition);
            }
        }
        if self.tables[at].on_demand {
            definitions.push(format!("rows of {:?} on demand\n", table.name));
        }
        definitions.concat()
    }

    fn place_branch(&mut self, at: usize, table: &Table, branch: &ReadBranch, family: FamilyId) {
        let own = self.tables[at].own;
        let grantee = |end: Option<&UserTerm>| {
            hash::family(&definition::of_grantee(table, &branch.user, end))
        };
        let itself = |right: Option<Field>| Hop {
            table: at,
            left: None,
            right,
            conds: branch.row.clone(),
        };
        let (field, source) = match (&branch.link, own) {
            (Link::Parent(column, parent), _) => {
                let place = Placed::Parent(*column, *parent);
                let placement = Placement {
                    conds: branch.row.clone(),
                    place,
                };
                self.tables[at].placements.push(placement);
                return;
            }
            (Link::Everybody | Link::User(..), None) => {
                let (field, term) = match &branch.link {
                    Link::User(field, term) => (Some(*field), Some(term.clone())),
                    Link::Everybody | Link::Chain(_) | Link::Parent(..) => (None, None),
                };
                self.fixed.push(Fixed {
                    user: branch.user.clone(),
                    family,
                    term,
                });
                (Some(field), None)
            }
            (Link::Everybody, Some(own)) => {
                (None, Some((Granted::Row(own), vec![itself(None)], None)))
            }
            (Link::User(field, term), Some(own)) => {
                let hops = vec![itself(Some(*field))];
                (None, Some((Granted::Row(own), hops, Some(term.clone()))))
            }
            (
                Link::Chain(Chain {
                    start: Some((_, column)),
                    hops,
                    end,
                }),
                Some(own),
            ) => {
                let itself = itself(Some(Field::from(*column)));
                let hops = std::iter::once(itself).chain(hops.clone()).collect();
                (None, Some((Granted::Row(own), hops, end.clone())))
            }
            // Any row of the chain will do for every row here: one bucket for all of them rather
            // than a grant for each pair.
            (
                Link::Chain(Chain {
                    start: None,
                    hops,
                    end,
                }),
                _,
            ) => (
                Some(None),
                Some((Granted::Only(family), hops.clone(), end.clone())),
            ),
            (
                Link::Chain(Chain {
                    start: Some((_, column)),
                    hops,
                    end,
                }),
                None,
            ) => {
                let field = Some(Some(Field::from(*column)));
                (
                    field,
                    Some((Granted::Left(family), hops.clone(), end.clone())),
                )
            }
        };
        if let Some(field) = field {
            let place = Placed::Family(family, field);
            self.tables[at].placements.push(Placement {
                conds: branch.row.clone(),
                place,
            });
        }
        if let Some((bucket, hops, end)) = source {
            let grantee = grantee(end.as_ref());
            self.sources.push(Source {
                bucket,
                hops,
                user: branch.user.clone(),
                end,
                grantee,
            });
        }
    }
}
