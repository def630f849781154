//! Buckets of rows, grants of rows, and what an identity is granted.

use std::collections::BTreeSet;

use super::{
    Facts, Grant, GrantedTo, GranteeId, Identity, Reader, RuleColumn, Stored,
    branch::Hop,
    compile::{Compiled, Granted, Placed, Source},
    cond::{Env, all_hold},
    hash::on_demand,
    judge::{Plain, each},
    term::{Field, Seen, UserSource},
};
use crate::{
    ids::{BucketId, FamilyId, UserId},
    key::RowKey,
};

impl Compiled {
    /// The buckets that `row` lies in.
    pub(super) fn buckets<F: Facts>(
        &self,
        table: usize,
        row: &Stored,
        facts: &F,
    ) -> Result<Vec<BucketId>, F::Missing> {
        let mut buckets = Vec::new();
        self.collect_buckets(table, row, false, facts, &mut buckets)?;
        buckets.sort_unstable();
        buckets.dedup();
        Ok(buckets)
    }

    /// `demanded`: of a row that inherits from this one, whose buckets are on demand.
    fn collect_buckets<F: Facts>(
        &self,
        table: usize,
        row: &Stored,
        demanded: bool,
        facts: &F,
        out: &mut Vec<BucketId>,
    ) -> Result<(), F::Missing> {
        let rules = &self.tables[table];
        let demanded = demanded || rules.on_demand;
        let kind = |family| match demanded {
            true => on_demand(family),
            false => family,
        };
        if let Some(own) = rules.own {
            out.push(self.key.row_bucket(kind(own), &row.key));
        }
        for placement in &rules.placements {
            if !all_hold(&placement.conds, Env::row(row)) {
                continue;
            }
            match placement.place {
                Placed::Family(family, None) => {
                    out.push(self.key.only_bucket(kind(family)));
                }
                Placed::Family(family, Some(field)) => {
                    out.extend(self.key.value_bucket(kind(family), &field.of(row)));
                }
                Placed::Parent(column, parent) => {
                    let rules = &self.tables[parent];
                    if let Some(key) = rules.key_of(Field::from(column).of(row))
                        && let Some(row) = facts.stored(rules.number, &key)?
                    {
                        self.collect_buckets(parent, &row, demanded, facts, out)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// What is granted where `family` is: the buckets of tables that sync always, of those that
    /// sync on demand, or both; as far as rows can lie in them.
    fn kinds(&self, family: FamilyId) -> impl Iterator<Item = FamilyId> {
        let is_used = |family: &FamilyId| self.bucket_tables.contains_key(&self.key.head(*family));
        [family, on_demand(family)].into_iter().filter(is_used)
    }

    /// One grant for each path through `row`.
    pub(super) fn grants<F: Facts>(
        &self,
        table: usize,
        row: &Stored,
        facts: &F,
    ) -> Result<Vec<(Grant, GrantedTo)>, F::Missing> {
        let mut grants = Vec::new();
        each(&self.tables[table].hops, |&(source, position)| {
            let source = &self.sources[source];
            if !all_hold(&source.hops[position].conds, Env::row(row)) {
                return Ok(());
            }
            let facts = &Plain(facts);
            let walk = Walk {
                rules: self,
                facts,
                source,
                row,
                position,
            };
            let (mut grantees, mut buckets) = (Vec::new(), Vec::new());
            walk.to_grantees(position, row, &mut grantees)?;
            // A path that reaches nobody needs no bucket: its rows are not asked for.
            if !grantees.is_empty() {
                walk.to_buckets(position, row, &mut buckets)?;
            }
            for (bucket, is_twin) in buckets {
                grants.extend(grantees.iter().map(|(grantee, to)| {
                    let grant = Grant {
                        grantee: *grantee,
                        bucket,
                    };
                    let to = match is_twin {
                        true => GrantedTo::Twin,
                        false => to.clone(),
                    };
                    (grant, to)
                }));
            }
            Ok(())
        })?;
        grants.sort_unstable_by_key(|(grant, _)| *grant);
        Ok(grants)
    }

    pub(super) fn own_buckets(&self, table: usize, key: &RowKey) -> Vec<BucketId> {
        let own = self.tables[table].own.into_iter();
        own.flat_map(|family| self.kinds(family))
            .map(|family| self.key.row_bucket(family, key))
            .collect()
    }

    /// What `identity` is granted for what it is, and what it is as a grantee.
    pub(super) fn reader(&self, identity: &Identity) -> Reader {
        let env = Env::user(identity);
        let mut fixed = BTreeSet::new();
        for kind in self.fixed.iter().filter(|kind| all_hold(&kind.user, env)) {
            for family in self.kinds(kind.family) {
                match &kind.term {
                    None => {
                        fixed.insert(self.key.only_bucket(family));
                    }
                    Some(term) => {
                        fixed.extend(self.key.value_bucket(family, &term.of(identity)));
                    }
                }
            }
        }
        let sources = self
            .sources
            .iter()
            .filter(|source| all_hold(&source.user, env));
        let grantees: BTreeSet<GranteeId> = sources
            .filter_map(|source| {
                let value = source.end.as_ref().map(|term| term.of(identity));
                self.key.grantee(source.grantee, value.as_ref())
            })
            .collect();
        Reader {
            fixed: fixed.into_iter().collect(),
            grantees: grantees.into_iter().collect(),
        }
    }
}

/// The paths of a source through one row as its hop at `position`.
struct Walk<'a, 'f, F> {
    rules: &'a Compiled,
    facts: &'a Plain<'f, F>,
    source: &'a Source,
    row: &'a Stored,
    position: usize,
}

impl<F: Facts> Walk<'_, '_, F> {
    /// The grantee of each way from `row` as hop `at` to the end.
    fn to_grantees(
        &self,
        at: usize,
        row: &Stored,
        out: &mut Vec<(GranteeId, GrantedTo)>,
    ) -> Result<(), F::Missing> {
        let hop = &self.source.hops[at];
        let key = &self.rules.key;
        let Some(right) = hop.right else {
            let everybody = key.grantee(self.source.grantee, None);
            out.extend(everybody.map(|id| (id, GrantedTo::Others)));
            return Ok(());
        };
        let value = right.of(row);
        let Some(next) = self.source.hops.get(at + 1) else {
            let grantee = key.grantee(self.source.grantee, Some(&value));
            out.extend(grantee.map(|id| (id, self.name(&value))));
            return Ok(());
        };
        let Some(left) = next.left else { return Ok(()) };
        let rows = self.rows(at + 1, next, left, &value)?;
        each(&rows, |row| self.to_grantees(at + 1, row, out))
    }

    /// Who has this value at the end of the way.
    fn name(&self, value: &Seen<'_>) -> GrantedTo {
        let end = self.source.end.as_ref();
        match value {
            Seen::Text(user) if end.is_some_and(|end| end.source == UserSource::Uid) => {
                GrantedTo::User(UserId(user.clone().into_owned()))
            }
            Seen::Null | Seen::Integer(_) | Seen::Real(_) | Seen::Text(_) | Seen::Blob(_) => {
                GrantedTo::Others
            }
        }
    }

    /// The bucket of each way from the start to `row` as hop `at`, and whether it is the second of
    /// two that are granted together.
    fn to_buckets(
        &self,
        at: usize,
        row: &Stored,
        out: &mut Vec<(BucketId, bool)>,
    ) -> Result<(), F::Missing> {
        let Some(before) = at.checked_sub(1) else {
            let key = &self.rules.key;
            let kinds = self.rules.kinds(self.source.bucket.family());
            for (at, family) in kinds.enumerate() {
                let bucket = match self.source.bucket {
                    Granted::Row(_) => Some(key.row_bucket(family, &row.key)),
                    Granted::Only(_) => Some(key.only_bucket(family)),
                    Granted::Left(_) => {
                        let left = self.source.hops[0].left.map(Field::from);
                        left.and_then(|left| key.value_bucket(family, &left.of(row)))
                    }
                };
                out.extend(bucket.map(|bucket| (bucket, at > 0)));
            }
            return Ok(());
        };
        let previous = &self.source.hops[before];
        let (Some(left), Some(right)) = (
            self.source.hops[at].left,
            previous.right.and_then(Field::lookup),
        ) else {
            return Ok(());
        };
        let value = Field::from(left).of(row);
        let rows = self.rows(before, previous, right, &value)?;
        each(&rows, |row| self.to_buckets(before, row, out))
    }

    /// The rows of a neighbouring hop.
    ///
    /// Where the table occurs twice, a path with the row at both places is counted at the first
    /// of them: so nowhere else is the row its own predecessor.
    fn rows(
        &self,
        at: usize,
        hop: &Hop,
        column: RuleColumn,
        value: &Seen<'_>,
    ) -> Result<Vec<Stored>, F::Missing> {
        let mut rows = self.rules.matching(self.facts, hop.table, column, value)?;
        rows.retain(|row| {
            let counted =
                at < self.position && row.table == self.row.table && row.key == self.row.key;
            !counted && all_hold(&hop.conds, Env::row(row))
        });
        Ok(rows)
    }
}
