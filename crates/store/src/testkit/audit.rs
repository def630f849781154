//! What a storage keeps of digests, members and grants, beside what its rows say.

use std::collections::BTreeMap;

use syncline_core::{
    BucketId, RowKey, TableNumber, UserId, Value,
    digest::Digest,
    rules::{Facts, Grant, Identity, RuleColumn, Stored},
};

use super::{World, block_on};
use crate::{Context, Group, LoadedRow, PageWant, Reader, Room, Storage};

/// Kept and computed anew; equal in a storage that is as it should be (spec PL11, PL15).
#[derive(Debug)]
pub struct Audit {
    pub maintained: Derived,
    pub anew: Derived,
}

/// What follows from rows and rules.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Derived {
    /// Only of (bucket, table)s with rows.
    pub digests: BTreeMap<(BucketId, TableNumber), Digest>,
    pub members: BTreeMap<(BucketId, TableNumber), Vec<RowKey>>,
    /// With the number of paths; only of the users asked for.
    pub grants: BTreeMap<Grant, u64>,
}

/// All live rows, for rules.
#[derive(Debug, Default)]
struct Rows {
    rows: BTreeMap<(TableNumber, RowKey), Stored>,
    /// Only rows up to this one are there.
    last: Option<(TableNumber, RowKey)>,
}

impl Audit {
    /// Looks at everything in `world`'s storage, and at the grants of `users`.
    pub fn of<S: Storage, R: Reader>(world: &mut World<S>, reader: &mut R, users: &[&str]) -> Self {
        Self::over(&mut world.storage, &world.context, reader, users)
    }

    /// The same for any storage with its schema and rules.
    pub fn over<S: Storage, R: Reader>(
        storage: &mut S,
        context: &Context,
        reader: &mut R,
        users: &[&str],
    ) -> Self {
        let loaded = block_on(live_rows(storage, context));
        let rules = context.rules();
        let readers = users.iter().map(|user| {
            let user = Some(UserId((*user).to_owned()));
            rules.reader(&Identity {
                user,
                claims: BTreeMap::new(),
            })
        });
        let mut grantees: Vec<_> = readers.flat_map(|reader| reader.grantees).collect();
        grantees.sort_unstable();
        grantees.dedup();

        let mut anew = Derived::default();
        let mut rows = Rows::default();
        for ((table, key), row) in &loaded {
            let stored = Stored {
                table: *table,
                key: key.clone(),
                row: row.row.clone().expect("a live row"),
                owner: row.meta.owner.clone(),
                created: row.meta.created,
                version: row.meta.version,
                author: row.meta.author.clone(),
            };
            rows.rows.insert((*table, key.clone()), stored);
        }
        let all: Vec<Stored> = rows.rows.values().cloned().collect();
        for stored in &all {
            rows.last = None;
            let Ok(buckets) = rules.buckets(stored, &rows);
            for bucket in buckets {
                let place = (bucket, stored.table);
                anew.digests.entry(place).or_default().add(
                    stored.table,
                    &stored.key,
                    stored.version,
                );
                anew.members
                    .entry(place)
                    .or_default()
                    .push(stored.key.clone());
            }
            rows.last = Some((stored.table, stored.key.clone()));
            let Ok(grants) = rules.grants(stored, &rows);
            for grant in grants
                .into_iter()
                .filter(|grant| grantees.contains(&grant.grantee))
            {
                *anew.grants.entry(grant).or_insert(0) += 1;
            }
        }
        let maintained = maintained(storage, reader, &anew, &loaded, &grantees);
        Self { maintained, anew }
    }
}

async fn live_rows<S: Storage>(
    storage: &mut S,
    context: &Context,
) -> BTreeMap<(TableNumber, RowKey), LoadedRow> {
    let mut found = BTreeMap::new();
    let mut group = storage.begin().await.expect("a group begins");
    for table in &context.schema().tables {
        let rows = group
            .scan(table.number, None, Room::ALL)
            .await
            .expect("rows are read");
        found.extend(
            rows.into_iter()
                .map(|(key, row)| ((table.number, key), row)),
        );
    }
    group.rollback().await;
    found
}

fn maintained<S: Storage, R: Reader>(
    storage: &mut S,
    reader: &mut R,
    anew: &Derived,
    loaded: &BTreeMap<(TableNumber, RowKey), LoadedRow>,
    grantees: &[syncline_core::rules::GranteeId],
) -> Derived {
    let mut derived = Derived::default();
    let of_rows = loaded
        .iter()
        .flat_map(|((table, _), row)| row.meta.buckets.iter().map(|bucket| (*bucket, *table)));
    let mut places: Vec<_> = of_rows.chain(anew.digests.keys().copied()).collect();
    places.sort_unstable();
    places.dedup();
    for (bucket, table) in places {
        let want = PageWant {
            bucket,
            table,
            after: None,
        };
        let page = block_on(reader.pages(&[want], usize::MAX)).expect("pages are read");
        let part = &page.parts[0];
        let bodies = syncline_core::wire::RowBody::decode_all(&part.rows);
        let keys: Vec<_> = bodies.map(|body| body.expect("a body").key).collect();
        derived.digests.insert(
            (bucket, table),
            part.digest.expect("the whole bucket was read"),
        );
        if !keys.is_empty() {
            derived.members.insert((bucket, table), keys);
        }
    }
    derived
        .digests
        .retain(|_, digest| *digest != Digest::default());
    let (_, granted) = block_on(reader.grants(grantees)).expect("grants are read");
    let wants: Vec<_> = granted
        .iter()
        .map(|(grant, _)| crate::Want::GrantCount(*grant))
        .collect();
    let mut counts = crate::Loaded::default();
    block_on(async {
        let mut group = storage.begin().await.expect("a group begins");
        group
            .load(&wants, &mut counts)
            .await
            .expect("counts are read");
        group.rollback().await;
    });
    derived.grants = counts.grants;
    derived
}

impl Facts for Rows {
    type Missing = std::convert::Infallible;

    fn stored(&self, table: TableNumber, key: &RowKey) -> Result<Option<Stored>, Self::Missing> {
        let place = (table, key.clone());
        let hidden = self.last.as_ref().is_some_and(|last| place > *last);
        Ok(self.rows.get(&place).filter(|_| !hidden).cloned())
    }

    fn matching(
        &self,
        table: TableNumber,
        column: RuleColumn,
        value: &Value,
    ) -> Result<Vec<Stored>, Self::Missing> {
        let is_it = |stored: &Stored| match column {
            RuleColumn::Column(position) => !value.is_null() && stored.row.0[position] == *value,
            RuleColumn::Owner => stored.owner.as_ref().map(|o| o.0.as_str()) == value.as_text(),
        };
        let rows = self.rows.iter().filter(|(place, _)| place.0 == table);
        let seen = rows.filter(|(place, _)| self.last.as_ref().is_none_or(|last| *place <= last));
        Ok(seen
            .map(|(_, stored)| stored)
            .filter(|stored| is_it(stored))
            .cloned()
            .collect())
    }
}
