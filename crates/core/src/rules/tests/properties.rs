//! Buckets, direct evaluation and SQL say the same of random rules, rows and people.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*};

use super::{
    oracle::Oracle,
    random::{Draw, Step, draw, identity, readable_schema, steps, writable_schema},
    testkit::Db,
};
use crate::{
    ids::{BucketId, TableNumber},
    key::RowKey,
    rules::{Facts, Grant, Identity, Proposed, Stored},
};

impl Db {
    fn drawn(&self, draw: &Draw) -> Stored {
        let table = self.schema.tables[draw.table].name.clone();
        self.row_of(&table, draw.owner, draw.values.clone())
    }
}

/// Grants and buckets kept as the server keeps them: one row change after the other.
#[derive(Debug, Default)]
struct Kept {
    grants: BTreeMap<Grant, u64>,
    buckets: BTreeMap<(TableNumber, RowKey), Vec<BucketId>>,
}

impl Kept {
    fn change(&mut self, db: &mut Db, id: (TableNumber, RowKey), after: Option<Stored>) {
        let before = db.rows.get(&id).cloned();
        let lost = before.as_ref().map_or_else(Vec::new, |row| grants(db, row));
        match &after {
            Some(row) => db.rows.insert(id.clone(), row.clone()),
            None => db.rows.remove(&id),
        };
        let gained = after.as_ref().map_or_else(Vec::new, |row| grants(db, row));
        if let (Some(before), Some(after)) = (&before, &after)
            && db.rules.same_grants(before, after)
        {
            assert_eq!(lost, gained);
        }
        for grant in gained {
            *self.grants.entry(grant).or_insert(0) += 1;
        }
        for grant in lost {
            let count = self
                .grants
                .get_mut(&grant)
                .expect("what is lost was granted");
            *count -= 1;
            if *count == 0 {
                self.grants.remove(&grant);
            }
        }
        self.rebucket(db, &id, before.as_ref());
    }

    /// Buckets of the row and, if they changed, of the rows that inherit them.
    fn rebucket(&mut self, db: &Db, id: &(TableNumber, RowKey), before: Option<&Stored>) {
        let row = db.rows.get(id);
        let old = self.buckets.remove(id);
        let new = row.map(|row| {
            let Ok(buckets) = db.rules.buckets(row, db);
            buckets
        });
        if let (Some(before), Some(row)) = (before, row)
            && before != row
            && db.rules.same_buckets(before, row)
        {
            assert_eq!(old, new);
        }
        if let Some(new) = &new {
            self.buckets.insert(id.clone(), new.clone());
        }
        if old == new {
            return;
        }
        for (child, column, value) in db.rules.child_lookups(id.0, &id.1) {
            let Ok(children) = db.matching(child, column, &value);
            for child in children {
                self.rebucket(db, &(child.table, child.key.clone()), None);
            }
        }
    }
}

fn grants(db: &Db, row: &Stored) -> Vec<Grant> {
    let Ok(grants) = db.rules.grants(row, db);
    grants
}

/// What is asked for in all ways, by the values that the rows have.
fn asked_in_all_ways(db: &Db, identity: &Identity) -> BTreeSet<BucketId> {
    let rows = db.rows.values();
    let wanted = rows.flat_map(|row| {
        let wanted = db.rules.wanted_for(row, identity);
        wanted.into_iter().map(move |wanted| (row.table, wanted))
    });
    wanted
        .flat_map(|(table, wanted)| db.rules.demanded(table, &wanted))
        .collect()
}

fn run(db: &mut Db, kept: &mut Kept, steps: &[Step]) {
    for step in steps {
        match step {
            Step::Put(draw) => {
                let row = db.drawn(draw);
                kept.change(db, (row.table, row.key.clone()), Some(row));
            }
            Step::Delete(index) if !db.rows.is_empty() => {
                let id = db
                    .rows
                    .keys()
                    .nth(index.index(db.rows.len()))
                    .cloned()
                    .unwrap();
                kept.change(db, id, None);
            }
            Step::Delete(_) => {}
        }
    }
}

proptest! {
    #[test]
    fn ru15_ru16_ru17_ru19_buckets_looking_and_sql_agree(
        schema in readable_schema(),
        steps in steps(40),
        people in vec(identity(), 1..4),
    ) {
        let mut db = Db::new(schema);
        let mut kept = Kept::default();
        run(&mut db, &mut kept, &steps);
        prop_assert_eq!(&kept.grants, &db.all_grants(), "kept and from scratch");
        for (id, row) in &db.rows {
            let Ok(buckets) = db.rules.buckets(row, &db);
            prop_assert_eq!(&kept.buckets[id], &buckets, "kept and from scratch");
        }
        let oracle = Oracle::new(&db.schema, db.rows.values());
        for identity in &people {
            let granted: BTreeSet<BucketId> =
                db.granted(identity, &kept.grants).into_iter().collect();
            for table in &db.schema.tables {
                let shown = oracle.readable(table, identity);
                for row in db.rows.values().filter(|row| row.table == table.number) {
                    let by_sql = shown.contains(&row.row.0[0]);
                    let Ok(by_looking) = db.rules.may_read(identity, row, &db);
                    let id = (row.table, row.key.clone());
                    let by_buckets = kept.buckets[&id].iter().any(|b| granted.contains(b));
                    prop_assert_eq!(by_sql, by_looking, "SQL and looking: {:?} {:?}", table.rules.read, row);
                    prop_assert_eq!(by_sql, by_buckets, "SQL and buckets: {:?} {:?}", table.rules.read, row);
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn ru7_a_bucket_begins_with_its_family(
        schema in readable_schema(),
        steps in steps(30),
        people in vec(identity(), 1..4),
    ) {
        let mut db = Db::new(schema);
        let mut kept = Kept::default();
        run(&mut db, &mut kept, &steps);
        let mut heads: BTreeMap<&[u8], &[TableNumber]> = BTreeMap::new();
        for ((table, _), buckets) in &kept.buckets {
            for bucket in buckets {
                let tables = db.rules.tables_of(*bucket);
                prop_assert!(tables.contains(table), "its rows are found: {bucket} {table:?}");
                prop_assert!(tables.is_sorted());
                prop_assert_eq!(*heads.entry(&bucket.0[..4]).or_insert(tables), tables);
            }
        }
        let granted = kept.grants.keys().map(|grant| grant.bucket);
        let fixed = people.iter().flat_map(|identity| db.rules.reader(identity).fixed);
        for bucket in granted.chain(fixed) {
            prop_assert!(!db.rules.tables_of(bucket).is_empty(), "what is granted can be loaded");
        }
        let mut unknown = [0; 16];
        while heads.contains_key(&unknown[..4]) {
            unknown[0] += 1;
        }
        prop_assert_eq!(db.rules.tables_of(BucketId(unknown)), &[]);
    }
}

/// One change for each row drawn: a put, or the deletion of what is there.
fn changeset(db: &Db, draws: &[(Draw, bool)]) -> Vec<Proposed> {
    let mut changes: BTreeMap<(TableNumber, RowKey), Proposed> = BTreeMap::new();
    for (draw, delete) in draws {
        let row = db.drawn(draw);
        let id = (row.table, row.key.clone());
        let before = db.rows.get(&id).cloned();
        let after = (!delete || before.is_none()).then_some(row);
        changes.insert(id, Proposed { before, after });
    }
    changes.into_values().collect()
}

/// Which changes SQL admits: rounds over facts to which the rows of admitted changes are added.
fn admitted_by_sql(db: &Db, identity: &Identity, changes: &[Proposed]) -> Vec<usize> {
    let mut oracle = Oracle::new(&db.schema, db.rows.values());
    let mut admitted = Vec::new();
    loop {
        let allowed = |i: &usize| {
            let (old, new) = (changes[*i].before.as_ref(), changes[*i].after.as_ref());
            let table = db.schema.by_number(old.or(new).unwrap().table).unwrap();
            let Some(rule) = &table.rules.write else {
                return false;
            };
            let mut images = [old, new].into_iter().flatten();
            images.all(|image| oracle.writable(rule, image, old, new, identity))
        };
        let pending = (0..changes.len()).filter(|i| !admitted.contains(i));
        let next: Vec<usize> = pending.filter(allowed).collect();
        if next.is_empty() {
            return admitted;
        }
        for row in next.iter().filter_map(|&i| changes[i].after.as_ref()) {
            oracle.add(row);
        }
        admitted.extend(next);
    }
}

proptest! {
    #[test]
    fn ru20_ru21_ru22_ru23_admission_is_the_least_fixpoint_of_sql(
        schema in writable_schema(),
        steps in steps(8),
        draws in vec((draw(), prop::bool::weighted(0.1)), 1..12),
        identity in identity(),
        shift in any::<usize>(),
    ) {
        let mut db = Db::new(schema);
        run(&mut db, &mut Kept::default(), &steps);
        let changes = changeset(&db, &draws);
        let by_sql = admitted_by_sql(&db, &identity, &changes);
        let all = db.admit(&identity, &changes);
        prop_assert_eq!(all.is_ok(), by_sql.len() == changes.len());
        prop_assert!(all.is_ok_and(|()| true) || !by_sql.contains(&all.unwrap_err()));
        // What SQL admits is admitted without the rest, in any order.
        let mut some: Vec<Proposed> = by_sql.iter().map(|&i| changes[i].clone()).collect();
        let turn = shift % some.len().max(1);
        some.rotate_left(turn);
        prop_assert_eq!(db.admit(&identity, &some), Ok(()));
        some.reverse();
        prop_assert_eq!(db.admit(&identity, &some), Ok(()));
        // One more is never admitted.
        for i in (0..changes.len()).filter(|i| !by_sql.contains(i)) {
            some.push(changes[i].clone());
            prop_assert!(db.admit(&identity, &some).is_err());
            some.pop();
        }
    }
}

proptest! {
    #[test]
    fn su9_whoever_asks_in_all_ways_is_sent_all_that_they_may_see(
        schema in readable_schema(),
        steps in steps(40),
        people in vec(identity(), 1..4),
    ) {
        let mut db = Db::new(schema);
        run(&mut db, &mut Kept::default(), &steps);
        for identity in &people {
            let granted: BTreeSet<BucketId> =
                db.granted(identity, &db.all_grants()).into_iter().collect();
            let asked = asked_in_all_ways(&db, identity);
            for row in db.rows.values() {
                let Ok(buckets) = db.rules.buckets(row, &db);
                let (mut seen, mut sent) = (buckets.iter(), buckets.iter());
                if seen.any(|bucket| granted.contains(bucket)) {
                    let is_sent = |bucket| !db.rules.is_on_demand(bucket) || asked.contains(&bucket);
                    prop_assert!(sent.any(|b| granted.contains(b) && is_sent(*b)), "{row:?}");
                }
            }
        }
    }
}
