//! Which buckets rows lie in, who is granted them, and how the two stay apart.

use std::collections::BTreeSet;

use serde_json::json;

use super::testkit::{Db, KEY, refusal, schema, table, tracker, user};
use crate::{
    ids::{BucketId, TableNumber},
    key::RowKey,
    rules::{Facts, Identity, RuleColumn, Rules, Stored},
    schema::{Schema, Table},
    value::Value,
};

impl Db {
    fn buckets(&self, row: &Stored) -> BTreeSet<BucketId> {
        let Ok(buckets) = self.rules.buckets(row, self);
        assert!(
            buckets.is_sorted_by(|a, b| a < b),
            "sorted, without doubles"
        );
        buckets.into_iter().collect()
    }

    fn grant_count(&self, row: &Stored) -> usize {
        let Ok(grants) = self.rules.grants(row, self);
        grants.len()
    }
}

const MEMBERS: &str = "id IN (SELECT project_id FROM project_members WHERE user_id = auth.uid())";

/// Projects seen by owner and members, tasks as their project.
fn shared(read: &str) -> Schema {
    let [projects, members, tasks] = <[_; 3]>::try_from(tracker()).unwrap();
    let tasks = tasks.read("project_id IN readable(projects)");
    schema([projects.read(read), members, tasks])
}

fn project(db: &mut Db, id: &str, owner: &str) -> Stored {
    let row = [
        id.into(),
        "name".into(),
        owner.into(),
        0.into(),
        Value::Null,
    ];
    db.insert("projects", owner, row)
}

fn member(db: &mut Db, id: &str, project: &str, user: &str) -> Stored {
    db.insert(
        "project_members",
        "",
        [id.into(), project.into(), user.into(), "guest".into()],
    )
}

fn task(db: &mut Db, id: &str, project: &str) -> Stored {
    let row = [
        id.into(),
        project.into(),
        "title".into(),
        0.into(),
        Value::Null,
    ];
    db.insert("tasks", "", row)
}

#[test]
fn ru14_ru15_a_membership_is_one_grant_however_many_rows_hang_below() {
    let mut db = Db::new(shared(&format!("_owner = auth.uid() OR {MEMBERS}")));
    let parent = project(&mut db, "p", "ann");
    let tasks: Vec<Stored> = (0..20)
        .map(|i| task(&mut db, &format!("t{i}"), "p"))
        .collect();
    let membership = member(&mut db, "m", "p", "bob");
    assert_eq!(db.buckets(&parent).len(), 1);
    assert!(
        tasks
            .iter()
            .all(|task| db.buckets(task) == db.buckets(&parent))
    );
    assert_eq!(db.grant_count(&membership), 1);
    assert_eq!(db.grant_count(&parent), 2, "its owner and its member");
    assert_eq!(db.grant_count(&tasks[0]), 0);
    assert!(db.sees(&user("ann"), &tasks[0]) && db.sees(&user("bob"), &tasks[0]));
    assert!(!db.sees(&user("eve"), &tasks[0]) && !db.sees(&Identity::default(), &tasks[0]));
}

#[test]
fn ru15_losing_one_of_two_memberships_keeps_the_row() {
    let mut db = Db::new(shared(MEMBERS));
    let parent = project(&mut db, "p", "ann");
    let first = member(&mut db, "m", "p", "bob");
    let both = member(&mut db, "n", "p", "bob");
    let [count] = db.all_grants().into_values().collect::<Vec<_>>()[..] else {
        panic!("one grant")
    };
    assert_eq!(count, 2);
    db.rows.remove(&(first.table, first.key));
    assert!(db.sees(&user("bob"), &parent));
    db.rows.remove(&(both.table, both.key));
    assert!(!db.sees(&user("bob"), &parent));
}

#[test]
fn ru14_tables_nobody_inherits_from_have_a_bucket_for_each_value() {
    let [projects, members, tasks] = <[_; 3]>::try_from(tracker()).unwrap();
    let rule = "project_id IN (SELECT project_id FROM project_members WHERE user_id = auth.uid()) \
                OR _owner = auth.uid() OR title = 'open to all'";
    let mut db = Db::new(schema([projects, members, tasks.read(rule)]));
    let (a, b) = (task(&mut db, "a", "p"), task(&mut db, "b", "p"));
    let elsewhere = task(&mut db, "c", "q");
    let row = [
        "d".into(),
        Value::Null,
        "open to all".into(),
        0.into(),
        Value::Null,
    ];
    let open = db.insert("tasks", "ann", row);
    assert_eq!(db.buckets(&a), db.buckets(&b));
    assert!(db.buckets(&a).is_disjoint(&db.buckets(&elsewhere)));
    assert_eq!(db.buckets(&open).len(), 2, "its owner's and everybody's");
    let membership = member(&mut db, "m", "p", "bob");
    assert_eq!(db.grant_count(&membership), 1);
    assert_eq!(
        db.grant_count(&open),
        0,
        "what one is granted for oneself is no grant"
    );
    let fixed = db.rules.reader(&user("ann")).fixed;
    assert_eq!(db.buckets(&open), fixed.into_iter().collect());
}

#[test]
fn ru14_a_row_of_two_levels_lies_in_its_own_bucket_and_its_parents() {
    let mut db = Db::new(schema([
        table("orgs", "id text, name text").read("_owner = auth.uid()"),
        table("projects", "id text, org_id text, open boolean")
            .read("_owner = auth.uid() OR open AND org_id IN readable(orgs)"),
        table("tasks", "id text, project_id text").read("project_id IN readable(projects)"),
    ]));
    let org = db.insert("orgs", "ann", ["o".into(), "org".into()]);
    let open = db.insert("projects", "bob", ["p".into(), "o".into(), 1.into()]);
    let closed = db.insert("projects", "bob", ["q".into(), "o".into(), 0.into()]);
    let task = db.insert("tasks", "", ["t".into(), "p".into()]);
    let orphan = db.insert("tasks", "", ["u".into(), "none".into()]);
    assert_eq!(db.buckets(&open).len(), 2);
    assert!(db.buckets(&open).is_superset(&db.buckets(&org)));
    assert_eq!(db.buckets(&closed).len(), 1);
    assert_eq!(db.buckets(&task), db.buckets(&open));
    assert!(db.buckets(&orphan).is_empty());
    assert!(db.sees(&user("ann"), &task) && db.sees(&user("bob"), &task));
    assert!(!db.sees(&user("ann"), &closed));
    let inheriting = db.rules.inheriting(org.table);
    assert_eq!(inheriting, [(open.table, RuleColumn::Column(1))]);
    let lookups = db.rules.child_lookups(open.table, &open.key);
    assert_eq!(lookups, [(task.table, RuleColumn::Column(1), "p".into())]);
}

#[test]
fn ru15_every_column_that_rows_are_looked_up_by_is_told() {
    let rule = "name IN (SELECT m.role FROM project_members m WHERE m.user_id = auth.uid())";
    let db = Db::new(shared(rule));
    let named: Vec<String> = db
        .rules
        .lookups()
        .into_iter()
        .map(|(table, column)| {
            let table = db.schema.by_number(table).unwrap();
            let RuleColumn::Column(position) = column else {
                return "_owner".into();
            };
            format!("{}.{}", table.name, table.columns[position].name)
        })
        .collect();
    let expected = [
        "projects.name",
        "project_members.user_id",
        "project_members.role",
        "tasks.project_id",
    ];
    assert_eq!(named, expected);
}

#[test]
fn ru13_a_key_that_is_a_number_is_found_in_every_form() {
    let mut db = Db::new(schema([
        table("parents", "id integer, name text").read("_owner = auth.uid()"),
        table("reals", "id text, parent real").read("parent IN readable(parents)"),
        table("anys", "id text, parent any").read("parent IN readable(parents)"),
    ]));
    let parent = db.insert("parents", "ann", [1.into(), "one".into()]);
    let children = [
        db.insert("reals", "", ["a".into(), 1.0.into()]),
        db.insert("anys", "", ["b".into(), 1.0.into()]),
        db.insert("anys", "", ["c".into(), 1.into()]),
    ];
    assert!(children.iter().all(|child| db.sees(&user("ann"), child)));
    let other = db.insert("anys", "", ["d".into(), "1".into()]);
    assert!(!db.sees(&user("ann"), &other));
    let lookups = db.rules.child_lookups(parent.table, &parent.key);
    let found: Vec<Stored> = lookups
        .into_iter()
        .flat_map(|(table, column, value)| {
            let Ok(rows) = db.matching(table, column, &value);
            rows
        })
        .collect();
    assert_eq!(found.len(), 3);
    assert!(children.iter().all(|child| found.contains(child)));
}

#[test]
fn ru11_people_listed_anywhere_see_all_and_cost_one_grant_each() {
    let admins =
        "EXISTS (SELECT 1 FROM project_members WHERE user_id = auth.uid() AND role = 'guest')";
    let mut db = Db::new(shared(admins));
    let projects: Vec<Stored> = ["p", "q", "r"]
        .iter()
        .map(|id| project(&mut db, id, "ann"))
        .collect();
    let task = task(&mut db, "t", "q");
    let membership = member(&mut db, "m", "none", "bob");
    assert_eq!(db.grant_count(&membership), 1);
    assert!(
        projects
            .iter()
            .chain([&task])
            .all(|row| db.sees(&user("bob"), row))
    );
    assert!(!db.sees(&user("ann"), &task));
}

#[test]
fn ru11_a_table_may_occur_in_its_own_chain() {
    let rule = "project_id IN (SELECT project_id FROM project_members WHERE user_id = auth.uid())";
    let [projects, members, tasks] = <[_; 3]>::try_from(tracker()).unwrap();
    let reactions = table("reactions", "id text, member_id uuid");
    // Once seen by value, once with buckets of its own.
    for inherit in ["FALSE", "member_id IN readable(project_members)"] {
        let mut db = Db::new(schema([
            projects.clone(),
            members.clone().read(rule),
            tasks.clone(),
            reactions.clone().read(inherit),
        ]));
        let (ann, bob) = (
            member(&mut db, "m", "p", "ann"),
            member(&mut db, "n", "p", "bob"),
        );
        let eve = member(&mut db, "o", "q", "eve");
        for (who, row, expected) in [
            ("ann", &bob, true),
            ("bob", &ann, true),
            ("ann", &ann, true),
            ("eve", &ann, false),
        ] {
            assert_eq!(db.sees(&user(who), row), expected, "{who} {row:?}");
        }
        assert!(db.sees(&user("eve"), &eve));
        let total: u64 = db.all_grants().values().sum();
        assert_eq!(
            total,
            if inherit == "FALSE" { 3 } else { 5 },
            "each pair once"
        );
    }
}

#[test]
fn ru16_readers_that_a_rule_tells_apart_are_never_the_same_grantee() {
    let rule = format!("auth.claim('plan') = 'pro' AND {MEMBERS} OR auth.claim('team') = name");
    let mut db = Db::new(shared(&rule));
    let parent = project(&mut db, "p", "ann");
    member(&mut db, "m", "p", "bob");
    let pro = |name: &str| user(name).claim("plan", json!("pro"));
    assert!(db.sees(&pro("bob"), &parent));
    assert!(!db.sees(&user("bob"), &parent), "not on the plan");
    assert!(!db.sees(&pro("eve"), &parent), "not a member");
    assert!(db.sees(&Identity::default().claim("team", json!("name")), &parent));
    assert!(!db.sees(&user("name"), &parent), "a user is no claim");
    assert!(!db.sees(&Identity::default().claim("team", json!("bob")), &parent));
    let grantees = |identity: &Identity| db.rules.reader(identity).grantees.len();
    let counts = [
        grantees(&Identity::default()),
        grantees(&user("bob")),
        grantees(&pro("bob")),
    ];
    assert_eq!(counts, [0, 0, 1]);
}

#[test]
fn ru16_everybody_is_a_grantee_like_others() {
    let mut db = Db::new(shared("NOT archived AND auth.role() = 'authenticated'"));
    let parent = project(&mut db, "p", "ann");
    let row = [
        "q".into(),
        "old".into(),
        "ann".into(),
        1.into(),
        Value::Null,
    ];
    let archived = db.insert("projects", "ann", row);
    assert_eq!((db.grant_count(&parent), db.grant_count(&archived)), (1, 0));
    assert!(db.sees(&user("eve"), &parent));
    assert!(!db.sees(&Identity::default(), &parent));
    assert!(!db.sees(&user("ann"), &archived));
}

#[test]
fn ru7_ids_survive_renumbering_and_differ_with_the_key() {
    let first = Db::new(shared(MEMBERS));
    let mut tables = shared(MEMBERS).tables;
    tables.reverse();
    let reordered = Db::new(schema(tables));
    let moved = |db: &Db| {
        let mut db = db.clone();
        let row = project(&mut db, "p", "ann");
        member(&mut db, "m", "p", "bob");
        let grants: Vec<_> = db.all_grants().into_keys().collect();
        (db.buckets(&row), grants, db.rules.reader(&user("bob")))
    };
    assert_eq!(moved(&first), moved(&reordered));
    assert_eq!(first.rules.fingerprint(), reordered.rules.fingerprint());
    let other = Rules::compile(&shared(MEMBERS), &[8; 32]).unwrap();
    assert_ne!(first.rules.fingerprint(), other.fingerprint());
    let (buckets, grants, reader) = moved(&first);
    // Ids are kept in ledgers: they must not change from one version of the engine to the next.
    let ids = format!("{buckets:?}\n{grants:?}\n{reader:?}");
    insta::assert_snapshot!(ids, @"
    {BucketId(d5a35c0c848644789a1ae79b43b6855b)}
    [Grant { grantee: GranteeId([59, 44, 198, 122, 41, 221, 146, 187, 190, 49, 49, 169, 134, 220, 12, 66]), bucket: BucketId(d5a35c0c848644789a1ae79b43b6855b) }]
    Reader { fixed: [], grantees: [GranteeId([59, 44, 198, 122, 41, 221, 146, 187, 190, 49, 49, 169, 134, 220, 12, 66])] }
    ");
    let shown = format!("{:?}", first.rules);
    assert!(!shown.contains("7, 7, 7, 7"), "the key is not shown");
}

#[test]
fn ru18_the_fingerprint_follows_what_buckets_mean() {
    let fingerprint = |schema: &Schema| Rules::compile(schema, &KEY).unwrap().fingerprint();
    let base = shared(MEMBERS);
    let with = |change: &dyn Fn(&mut Table)| {
        let mut schema = base.clone();
        schema.tables.iter_mut().for_each(change);
        fingerprint(&schema)
    };
    let same: [&dyn Fn(&mut Table); 3] = [
        &|table| table.rules.write = Some("TRUE".into()),
        &|table| table.number = TableNumber(table.number.0 + 7),
        &|table| {
            table
                .columns
                .iter_mut()
                .for_each(|column| column.number.0 += 3);
        },
    ];
    for (i, change) in same.into_iter().enumerate() {
        assert_eq!(fingerprint(&base), with(change), "{i}");
    }
    let other: [&dyn Fn(&mut Table); 4] = [
        &|table| {
            table.rules.read = table
                .rules
                .read
                .as_ref()
                .map(|r| format!("{r} AND id <> 'x'"));
        },
        &|table| table.rules.read = None,
        &|table| {
            if table.name == "project_members" {
                table.columns[2].ty = crate::ColumnType::Uuid;
            }
        },
        &|table| {
            if table.name == "projects" {
                table.rules.read = Some(MEMBERS.replace("user_id", "role"));
            }
        },
    ];
    let prints: BTreeSet<_> = other
        .into_iter()
        .map(with)
        .chain([fingerprint(&base)])
        .collect();
    assert_eq!(prints.len(), 5);
}

#[test]
fn ru19_rows_that_differ_only_elsewhere_grant_the_same() {
    let mut db = Db::new(shared(&format!("{MEMBERS} AND NOT archived")));
    let before = project(&mut db, "p", "ann");
    let renamed = db.row(
        "projects",
        "ann",
        ["p".into(), "other".into(), Value::Null, 0.into(), 5.into()],
    );
    assert!(db.rules.same_grants(&before, &renamed) && db.rules.same_buckets(&before, &renamed));
    let archived = db.row(
        "projects",
        "ann",
        ["p".into(), "name".into(), Value::Null, 1.into(), 5.into()],
    );
    assert!(!db.rules.same_grants(&before, &archived));
}

#[test]
fn ru13_read_rules_inherit_four_levels_without_cycles() {
    let level = |i: usize| {
        let parent = format!("parent IN readable(t{})", i + 1);
        table(&format!("t{i}"), "id text, parent text").read(&parent)
    };
    let top =
        |i: usize| table(&format!("t{i}"), "id text, parent text").read("_owner = auth.uid()");
    let mut db = Db::new(schema((0..4).map(level).chain([top(4)])));
    let rows: Vec<Stored> = (0..5)
        .map(|i| db.insert(&format!("t{i}"), "ann", ["x".into(), "x".into()]))
        .collect();
    assert!(rows.iter().all(|row| db.sees(&user("ann"), row)));
    assert_eq!(db.buckets(&rows[0]).len(), 4);
    let deep = refusal(&schema((0..5).map(level).chain([top(5)])));
    let cycle = refusal(&schema([
        level(0),
        table("t1", "id text, parent text").read("parent IN readable(t0)"),
    ]));
    let mut composite = top(1);
    composite.primary_key = vec![0, 1];
    let composite = refusal(&schema([level(0), composite]));
    insta::assert_snapshot!(format!("{deep}\n{cycle}\n{composite}"), @"
    tables.t0.read: rules are inherited through more than 4 tables (t0 → t1 → t2 → t3 → t4 → t5): `readable(t1)`; write the rule of one of them out, with `column IN (SELECT …)`
    tables.t0.read: the rule inherits from itself (t0 → t1 → t0): `readable(t1)`; write the rule of one of them out, with `column IN (SELECT …)`
    tables.t0.read: the key of `t1` has several columns: `parent IN readable(t1)`; write the rule of the parent out, with `column IN (SELECT …)`
    ");
}

#[test]
fn ru17_rows_of_unknown_tables_are_nobodys() {
    let db = Db::new(shared("TRUE"));
    let mut row = db.row(
        "projects",
        "ann",
        ["p".into(), Value::Null, Value::Null, 0.into(), Value::Null],
    );
    row.table = TableNumber(7);
    row.key = RowKey::encode([&Value::from("p")]).unwrap();
    assert!(!db.sees(&user("ann"), &row));
    assert_eq!(db.grant_count(&row), 0);
    assert_eq!(db.admit(&user("ann"), &[db.put(row)]), Err(0));
}
