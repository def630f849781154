//! Indexes over compiled rules: what a table, a column or a bucket concerns.

use std::collections::BTreeSet;

use super::{
    branch::Link,
    compile::{Compiled, Placed, Source},
    cond::Cond,
    hash::on_demand,
    term::{Field, Term},
};
use crate::ids::{FamilyId, TableNumber};

impl Compiled {
    /// Which tables each source concerns, and which columns matter.
    pub(super) fn index(&mut self) {
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
    }

    /// In which tables rows of which families can lie.
    pub(super) fn index_bucket_tables(&mut self) {
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
            self.collect_descendants(at, false, &mut tables);
            for (number, demanded) in tables {
                for &family in &families {
                    let head = match demanded {
                        true => self.key.head(on_demand(family)),
                        false => self.key.head(family),
                    };
                    if demanded {
                        self.on_demand.insert(head);
                    }
                    let known = self.bucket_tables.entry(head).or_default();
                    if let Err(place) = known.binary_search(&number) {
                        known.insert(place, number);
                    }
                }
            }
        }
    }

    /// The table itself and all that inherit from it, directly or not, and whether their rows lie
    /// in buckets on demand for it.
    fn collect_descendants(
        &self,
        at: usize,
        demanded: bool,
        out: &mut BTreeSet<(TableNumber, bool)>,
    ) {
        let demanded = demanded || self.tables[at].on_demand;
        if out.insert((self.tables[at].number, demanded)) {
            for (child, _) in &self.tables[at].children {
                if let Some(&child) = self.by_number.get(child) {
                    self.collect_descendants(child, demanded, out);
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
