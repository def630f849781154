//! Indexes that rules need.

use syncline_core::{ColumnType::Text, rules::RuleColumn};
use syncline_store::Storage as _;

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
