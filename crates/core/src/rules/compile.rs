//! Compiling: rule texts of a schema to branches, placements, sources and their indexes.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    RuleColumn, RuleError,
    branch::{Chain, Hop, IMAGES, Link, ReadBranch, WriteBranch},
    cond::Cond,
    definition, describe,
    hash::{self, BucketHead, Key, family},
    inherit,
    lower::Lowerer,
    normal::{Atom, BRANCHES_MAX, Expr, USER},
    parse::parse,
    refusal::{Clause, Refusal},
    scope::Scopes,
    term::{Field, Place, Term, UserTerm},
};
use crate::{
    ids::{FamilyId, TableNumber},
    schema::{ColumnType, Schema, Table},
    value::Value,
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
            fingerprint: [0; 32],
        };
        let mut definitions = Vec::new();
        for (at, table) in schema.tables.iter().enumerate() {
            definitions.push(compiled.place(schema, at));
            compiled.tables[at].words = describe::table(schema, table, &compiled.tables[at]);
        }
        definitions.sort();
        compiled.fingerprint = compiled.key.fingerprint(&definitions.concat());
        compiled.index();
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

    /// Which tables each source concerns, and which columns matter.
    fn index(&mut self) {
        for (source, Source { hops, .. }) in self.sources.iter().enumerate() {
            for (position, hop) in hops.iter().enumerate() {
                let table = &mut self.tables[hop.table];
                table.hops.push((source, position));
                table.grant_fields.extend(hop.left.map(Field::from));
                table.grant_fields.extend(hop.right);
                fields(&hop.conds, &mut table.grant_fields);
            }
        }
        for table in &mut self.tables {
            for placement in &table.placements {
                fields(&placement.conds, &mut table.bucket_fields);
                match placement.place {
                    Placed::Family(_, field) => table.bucket_fields.extend(field),
                    Placed::Parent(column, _) => table.bucket_fields.push(Field::from(column)),
                }
            }
            for list in [&mut table.bucket_fields, &mut table.grant_fields] {
                list.sort();
                list.dedup();
            }
        }
        self.index_lookups();
        self.index_bucket_tables();
    }

    fn index_bucket_tables(&mut self) {
        for at in 0..self.tables.len() {
            let table = &self.tables[at];
            let placed = table
                .placements
                .iter()
                .filter_map(|placement| match placement.place {
                    Placed::Family(family, _) => Some(family),
                    Placed::Parent(..) => None,
                });
            let families: Vec<FamilyId> = placed.chain(table.own).collect();
            let mut tables = BTreeSet::new();
            self.collect_descendants(at, &mut tables);
            for family in families {
                let known = self.bucket_tables.entry(self.key.head(family)).or_default();
                known.extend(&tables);
                known.sort_unstable();
                known.dedup();
            }
        }
    }

    /// The table itself and all that inherit from it, directly or not.
    fn collect_descendants(&self, at: usize, out: &mut BTreeSet<TableNumber>) {
        if out.insert(self.tables[at].number) {
            for (child, _) in &self.tables[at].children {
                if let Some(&child) = self.by_number.get(child) {
                    self.collect_descendants(child, out);
                }
            }
        }
    }

    fn index_lookups(&mut self) {
        let mut lookups = Vec::new();
        for table in &self.tables {
            let read = table.read.iter().filter_map(|branch| match &branch.link {
                Link::Chain(chain) => Some(chain),
                Link::Everybody | Link::User(..) | Link::Parent(..) => None,
            });
            let write = [&table.create, &table.update, &table.delete];
            let write = write
                .into_iter()
                .flatten()
                .flat_map(|branch| &branch.chains);
            for hop in read.chain(write).flat_map(|chain| &chain.hops) {
                let right = hop.right.and_then(Field::lookup);
                lookups.extend(
                    hop.left
                        .into_iter()
                        .chain(right)
                        .map(|column| (hop.table, column)),
                );
            }
        }
        // A source's own rows are found from the chain as well.
        for Source { hops, .. } in &self.sources {
            for hop in hops.iter().take(hops.len() - 1) {
                let right = hop.right.and_then(Field::lookup);
                lookups.extend(right.map(|column| (hop.table, column)));
            }
        }
        lookups.sort();
        lookups.dedup();
        for (table, column) in lookups {
            self.tables[table].lookups.push(column);
        }
    }
}

fn fields(conds: &[Cond], out: &mut Vec<Field>) {
    for cond in conds {
        cond.terms(&mut |term| match term {
            Term::Field(_, field) => out.push(*field),
            Term::User(_) | Term::Literal(_) => {}
        });
    }
}

/// The branches of the rules of the table at `at`.
fn table_rules(schema: &Schema, at: usize, errors: &mut Vec<RuleError>) -> TableRules {
    let table = &schema.tables[at];
    let mut note = |rule: &'static str, refusal: Refusal| {
        errors.push(refusal.within(&table.name, rule));
    };
    let texts = &table.rules;
    let read = texts
        .read
        .as_deref()
        .map(|text| read_rule(schema, at, text));
    let read = read.transpose().unwrap_or_else(|refusal| {
        note("read", refusal);
        None
    });
    let mut write = |rule: &'static str, text: &Option<String>| {
        let branches = text
            .as_deref()
            .map(|text| write_rule(schema, at, rule, text));
        branches.transpose().unwrap_or_else(|refusal| {
            note(rule, refusal);
            None
        })
    };
    let all = write("write", &texts.write);
    let [create, update, delete] = [
        ("create", &texts.create),
        ("update", &texts.update),
        ("delete", &texts.delete),
    ]
    .map(|(rule, text)| {
        write(rule, text)
            .or_else(|| all.clone())
            .unwrap_or_default()
    });
    let mut forced = Vec::new();
    for (column, text) in &table.force {
        match force(schema, at, column, text) {
            Ok(value) => forced.push(value),
            Err(refusal) => errors.push(refusal.within(&table.name, "force")),
        }
    }
    TableRules {
        number: table.number,
        name: table.name.clone(),
        types: table.columns.iter().map(|column| column.ty).collect(),
        key: match table.primary_key[..] {
            [only] => Some(only),
            _ => None,
        },
        read: read.unwrap_or_default(),
        create,
        update,
        delete,
        forced,
        own: None,
        placements: Vec::new(),
        hops: Vec::new(),
        children: Vec::new(),
        bucket_fields: Vec::new(),
        grant_fields: Vec::new(),
        lookups: Vec::new(),
        words: String::new(),
    }
}

fn read_rule(schema: &Schema, at: usize, text: &str) -> Result<Vec<ReadBranch>, Refusal> {
    let (branches, tables) = branches(schema, at, text, &[], 0)?;
    branches
        .into_iter()
        .map(|atoms| ReadBranch::new(schema, &tables, atoms))
        .collect()
}

fn write_rule(
    schema: &Schema,
    at: usize,
    rule: &str,
    text: &str,
) -> Result<Vec<WriteBranch>, Refusal> {
    let images: &[_] = match rule {
        "create" => &[("new", Place::NEW)],
        "delete" => &[("old", Place::OLD)],
        _ => &[("old", Place::OLD), ("new", Place::NEW)],
    };
    let (branches, tables) = branches(schema, at, text, images, IMAGES | USER)?;
    branches
        .into_iter()
        .map(|atoms| WriteBranch::new(schema, &tables, atoms))
        .collect()
}

fn branches(
    schema: &Schema,
    at: usize,
    text: &str,
    images: &[(&str, Place)],
    together: u64,
) -> Result<(Vec<Vec<Atom>>, Vec<usize>), Refusal> {
    let sql = parse(text)?;
    let mut lowerer = Lowerer::new(text, Scopes::new(schema, at, images));
    let expr: Expr = lowerer.condition(&sql, false)?;
    let branches = expr.packed(together).branches().map_err(|_| {
        Refusal::new(
            Clause::new(text),
            format!("written as alternatives, the rule has more than {BRANCHES_MAX} branches"),
            "move alternatives into a table of who may what, or into the read rule of a parent",
        )
    })?;
    Ok((branches, lowerer.scopes.into_tables()))
}

/// A column that the server sets, and to what.
fn force(schema: &Schema, at: usize, column: &str, text: &str) -> Result<(usize, Term), Refusal> {
    let table = &schema.tables[at];
    let usage = "write `column = \"auth.uid()\"`, a claim or a literal";
    let Some(position) = table
        .position(column)
        .filter(|&i| !table.columns[i].generated)
    else {
        let message = "not a column that can be set";
        return Err(Refusal::new(
            Clause::new(column),
            message,
            "name a column of the table",
        ));
    };
    let sql = parse(text)?;
    let mut lowerer = Lowerer::new(text, Scopes::new(schema, at, &[]));
    let value = lowerer.value_for(&sql, Field::Column(position), table.columns[position].ty)?;
    match value {
        Some(Term::Literal(value)) if value == Value::Null && table.columns[position].not_null => {
            Err(Refusal::new(
                Clause::new(text),
                "the column is NOT NULL",
                usage,
            ))
        }
        Some(term) => Ok((position, term)),
        None => Err(Refusal::new(
            Clause::new(text),
            "not a value known without the row",
            usage,
        )),
    }
}
