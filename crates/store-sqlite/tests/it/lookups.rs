//! Indexes that rules need, and what the log is asked.

use std::sync::Arc;

use syncline_core::{
    BucketId, ChangesetId,
    ColumnType::Text,
    DeviceId, Hlc, Tag, Version,
    rules::{GranteeId, RuleColumn},
};
use syncline_store::{GrantChange, Group as _, Ledger, Loaded, LogEntry, Storage as _, Want};

use crate::support::{World, as_is, config, now, table};

#[test]
fn what_rules_look_up_has_an_index() {
    let mut members = table(
        "members",
        &[("id", Text), ("project", Text), ("person", Text)],
    );
    members.indexes = vec![vec![2, 1]];
    let mut world = World::new(&[members]);
    let number = world.number("members");
    let columns = [0, 1, 2].map(|i| (number, RuleColumn::Column(i)));
    let lookups = [&columns[..], &[(number, RuleColumn::Owner)]].concat();
    let made = now(world.storage.prepare_lookups(&lookups)).unwrap();
    assert_eq!(
        made,
        ["made an index on members.project, because rules look rows up by it"],
        "the others have one"
    );
    let plan = |sql: &str| -> String {
        let sql = format!("EXPLAIN QUERY PLAN {sql}");
        world.other().query_row(&sql, [], |row| row.get(3)).unwrap()
    };
    let found = plan("SELECT id FROM members WHERE project = 'p'");
    assert!(found.contains("syncline_ix_"), "{found}");
    let found =
        plan("SELECT key FROM syncline_rows WHERE table_no = 9 AND owner = 'ada' AND deleted = 0");
    assert!(found.contains("syncline_rows_owner"), "{found}");
    let again = now(world.storage.prepare_lookups(&lookups)).unwrap();
    assert_eq!(again, Vec::<String>::new());
}

/// Devices would otherwise be told of another schema after the first start.
#[test]
fn an_index_for_lookups_is_not_part_of_the_schema() {
    let mut world = World::empty();
    world.shell("CREATE TABLE notes(id TEXT PRIMARY KEY NOT NULL, folder TEXT)");
    let config = config(&[as_is("notes")]);
    let before = world.apply_config(&config, false, &[]).unwrap().schema;
    let lookups = [(world.number("notes"), RuleColumn::Column(1))];
    assert_eq!(
        now(world.storage.prepare_lookups(&lookups)).unwrap().len(),
        1
    );
    world.restart();
    let after = world.apply_config(&config, false, &[]).unwrap().schema;
    assert_eq!(after, before);
}

/// A changeset may delete very many rows, and the next one write to them all.
#[test]
fn pl18_an_entry_is_read_once_for_all_its_versions() {
    let mut world = World::empty();
    let entry = |version, bucket| LogEntry {
        version: Version(version),
        tag: Tag([7; 8]),
        changeset: ChangesetId([u8::try_from(version).unwrap(); 16]),
        user: None,
        device: DeviceId([9; 16]),
        number: 1,
        hlc: Hlc(1),
        grants: vec![GrantChange {
            grantee: GranteeId([1; 16]),
            bucket,
            granted: false,
        }],
        records: Vec::new(),
        digests: Vec::new(),
    };
    let (one, two) = (BucketId([1; 16]), BucketId([2; 16]));
    let ledger = Ledger {
        entries: vec![Arc::new(entry(100, one)), Arc::new(entry(200, two))],
        ..Ledger::default()
    };
    let mut group = now(world.storage.begin()).unwrap();
    now(group.write_ledger(&ledger)).unwrap();
    let wants = [150, 50, 200, 100, 101, 201].map(|version| Want::LostBy(Version(version)));
    let mut loaded = Loaded::default();
    now(group.load(&wants, &mut loaded)).unwrap();
    now(group.rollback());
    let lost = |version| &loaded.lost_by[&Version(version)];
    let buckets = |version| Vec::from_iter(lost(version).iter().map(|grant| grant.bucket));
    let found = [50, 100, 101, 150, 200, 201].map(buckets);
    assert_eq!(
        found,
        [
            vec![one],
            vec![one],
            vec![two],
            vec![two],
            vec![two],
            vec![]
        ]
    );
    assert!(Arc::ptr_eq(lost(50), lost(100)));
    assert!(Arc::ptr_eq(lost(101), lost(150)) && Arc::ptr_eq(lost(150), lost(200)));
}
