//! Tables that sync on demand: which buckets a device gets for what it asks for (spec RU29).

use std::collections::BTreeSet;

use super::{
    Identity, RuleColumn, Stored,
    branch::{Chain, Hop, Link, ReadBranch},
    compile::{Compiled, Granted, Placed, Source},
    cond::{Env, all_hold},
    hash::{BucketHead, on_demand},
    term::{Field, Seen},
};
use crate::{
    ids::{BucketId, TableNumber},
    key::RowKey,
    value::Value,
};

/// What a device asks for: rows on demand that hang below …
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// … the row with this key (or are it).
    Row(RowKey),
    /// … this value of the column.
    Value(RuleColumn, Value),
    /// … nothing: those of the table that are the same for all who see them.
    Table,
}

/// One of the ways in which somebody asks for rows of a table on demand. Whoever asks in all of
/// them has every row that they may see.
#[derive(Debug, Clone, PartialEq)]
pub enum Way {
    /// As [`Wanted::Table`].
    Table,
    /// As [`Wanted::Row`], by the keys of the table's own rows.
    Row,
    /// As [`Wanted::Value`], with the one value of the column that stands for the asker.
    Own(RuleColumn, Value),
    /// As [`Wanted::Value`], with the values that the rows have, which name rows of `parent` where
    /// the rule goes by one.
    Value {
        column: RuleColumn,
        parent: Option<TableNumber>,
    },
}

impl Compiled {
    /// How `identity` asks for rows of a table; none where they come unasked.
    pub(super) fn ways(&self, table: usize, identity: &Identity) -> Vec<Way> {
        let rules = &self.tables[table];
        let mut ways = Vec::new();
        for branch in &rules.read {
            if !all_hold(&branch.user, Env::user(identity)) {
                continue;
            }
            let way = match &branch.link {
                Link::Parent(column, parent) => {
                    let comes_asked = rules.on_demand || self.comes_asked(*parent);
                    comes_asked.then(|| Way::Value {
                        column: *column,
                        parent: Some(self.tables[*parent].number),
                    })
                }
                Link::Everybody | Link::User(..) | Link::Chain(_) if !rules.on_demand => None,
                Link::Chain(Chain { start: None, .. }) => Some(Way::Table),
                // Its rows lie in buckets of their own.
                Link::Everybody | Link::User(..) | Link::Chain(_) if rules.own.is_some() => {
                    Some(Way::Row)
                }
                Link::Everybody => Some(Way::Table),
                Link::User(field, term) => {
                    let value = term.of(identity).into_value();
                    let column = field.lookup().filter(|_| value != Value::Null);
                    column.map(|column| Way::Own(column, value))
                }
                Link::Chain(Chain {
                    start: Some((_, column)),
                    ..
                }) => Some(Way::Value {
                    column: *column,
                    parent: None,
                }),
            };
            ways.extend(way.filter(|way| !ways.contains(way)));
        }
        ways
    }

    /// Whether rows of the table, or of one that it inherits from, come only when asked for.
    fn comes_asked(&self, table: usize) -> bool {
        let rules = &self.tables[table];
        rules.on_demand
            || rules
                .placements
                .iter()
                .any(|placement| match placement.place {
                    Placed::Parent(_, parent) => self.comes_asked(parent),
                    Placed::Family(..) => false,
                })
    }

    /// Whether no row of the table comes unasked.
    fn comes_only_asked(&self, table: usize) -> bool {
        let rules = &self.tables[table];
        let by_parent = |branch: &ReadBranch| match branch.link {
            Link::Parent(_, parent) => self.comes_only_asked(parent),
            Link::Everybody | Link::User(..) | Link::Chain(_) => false,
        };
        rules.on_demand || (!rules.read.is_empty() && rules.read.iter().all(by_parent))
    }

    /// The buckets on demand that are asked for with `wanted` of the table. Whether there is
    /// anything in them, and whether the asker may see it, plays no part.
    pub(super) fn demanded(&self, table: usize, wanted: &Wanted) -> Vec<BucketId> {
        let rules = &self.tables[table];
        let mut found = BTreeSet::new();
        match wanted {
            Wanted::Row(key) => {
                let own = rules.own.map(on_demand);
                found.extend(own.map(|own| self.key.row_bucket(own, key)));
            }
            Wanted::Table => {
                for placement in &rules.placements {
                    if let Placed::Family(family, None) = placement.place {
                        found.insert(self.key.only_bucket(on_demand(family)));
                    }
                }
            }
            Wanted::Value(column, value) => {
                let (field, value) = (Field::from(*column), Seen::from(value));
                for placement in &rules.placements {
                    match placement.place {
                        Placed::Family(family, Some(column)) if column == field => {
                            found.extend(self.key.value_bucket(on_demand(family), &value));
                        }
                        Placed::Parent(column, parent) if Field::from(column) == field => {
                            let parent = &self.tables[parent];
                            if let (Some(own), Some(key)) =
                                (parent.own.map(on_demand), parent.key_of(value.clone()))
                            {
                                found.insert(self.key.row_bucket(own, &key));
                            }
                        }
                        Placed::Family(..) | Placed::Parent(..) => {}
                    }
                }
            }
        }
        found.retain(|bucket| self.on_demand.contains(&head(*bucket)));
        found.into_iter().collect()
    }

    /// Grants of rows' own buckets on demand to those who may read the rows as they may read their
    /// parents: without them nobody could ask for one of several rows below a parent.
    pub(super) fn grant_to_heirs(&mut self) {
        let mut done = BTreeSet::new();
        // Each round goes one table further down; there are no cycles.
        loop {
            let mut added = Vec::new();
            for (at, table) in self.tables.iter().enumerate() {
                let Some(own) = table.own.map(on_demand) else {
                    continue;
                };
                if !self.on_demand.contains(&self.key.head(own)) {
                    continue;
                }
                for (nth, placement) in table.placements.iter().enumerate() {
                    let Placed::Parent(column, parent) = placement.place else {
                        continue;
                    };
                    let (Some(of_parent), Some(key)) =
                        (self.tables[parent].own, self.tables[parent].key)
                    else {
                        continue;
                    };
                    for (number, source) in self.sources.iter().enumerate() {
                        let is_of_parent = match source.bucket {
                            Granted::Row(own) => own == of_parent || own == on_demand(of_parent),
                            Granted::Left(_) | Granted::Only(_) => false,
                        };
                        if !is_of_parent || !done.insert((at, nth, number)) {
                            continue;
                        }
                        let itself = Hop {
                            table: at,
                            left: None,
                            right: Some(Field::from(column)),
                            conds: placement.conds.clone(),
                        };
                        let mut hops = vec![itself];
                        hops.extend(source.hops.clone());
                        hops[1].left = Some(RuleColumn::Column(key));
                        added.push(Source {
                            bucket: Granted::Row(own),
                            hops,
                            ..source.clone()
                        });
                    }
                }
            }
            if added.is_empty() {
                return;
            }
            self.sources.extend(added);
        }
    }
}

/// The first bytes of a bucket's id.
pub(super) fn head(bucket: BucketId) -> BucketHead {
    *bucket.0.first_chunk().expect("an id has 16 bytes")
}

impl super::Rules {
    /// Whether a device is sent the rows of `bucket` only when it asks for them.
    #[must_use]
    pub fn is_on_demand(&self, bucket: BucketId) -> bool {
        self.compiled.on_demand.contains(&head(bucket))
    }

    /// The buckets that a device asks for with `wanted` of `table`: the same whether they have
    /// rows, and whoever may see them. None where nothing of the table can be asked for so.
    #[must_use]
    pub fn demanded(&self, table: TableNumber, wanted: &Wanted) -> Vec<BucketId> {
        self.table(table)
            .map_or_else(Vec::new, |table| self.compiled.demanded(table, wanted))
    }

    /// Whether no row of `table` comes to a device that does not ask for it.
    #[must_use]
    pub fn comes_only_asked(&self, table: TableNumber) -> bool {
        self.table(table)
            .is_some_and(|table| self.compiled.comes_only_asked(table))
    }

    /// How `identity` asks for rows of `table`; none where they come unasked.
    #[must_use]
    pub fn ways(&self, table: TableNumber, identity: &Identity) -> Vec<Way> {
        self.table(table)
            .map_or_else(Vec::new, |table| self.compiled.ways(table, identity))
    }

    /// What `identity` can ask for to be sent this row, as far as it may see it; nothing where rows
    /// of its table come unasked.
    #[must_use]
    pub fn wanted_for(&self, row: &Stored, identity: &Identity) -> Vec<Wanted> {
        let wanted = |way| match way {
            Way::Table => Wanted::Table,
            Way::Row => Wanted::Row(row.key.clone()),
            Way::Own(column, value) => Wanted::Value(column, value),
            Way::Value { column, .. } => {
                Wanted::Value(column, Field::from(column).of(row).into_value())
            }
        };
        let all = self.ways(row.table, identity).into_iter().map(wanted);
        all.filter(|wanted| !matches!(wanted, Wanted::Value(_, Value::Null)))
            .collect()
    }
}
