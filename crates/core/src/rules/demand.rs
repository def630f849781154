//! Tables that sync on demand: which buckets a device gets for what it asks for (spec RU29).

use std::collections::BTreeSet;

use super::{
    RuleColumn,
    branch::Hop,
    compile::{Compiled, Granted, Placed, Source},
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

impl Compiled {
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
}
