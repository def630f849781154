//! Who may change what, and which changes carry one another.

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::json;

use super::testkit::{Db, refusal, schema, table, tracker, user};
use crate::{
    ids::UserId,
    rules::{ADMISSION_ROUNDS_MAX, Identity, Proposed, Stored},
    value::Value,
};

/// The tracker with the rules that its users expect.
fn ruled() -> Db {
    let [projects, members, tasks] = <[_; 3]>::try_from(tracker()).unwrap();
    let editors = "_owner = auth.uid() OR id IN (SELECT project_id FROM project_members \
                   WHERE user_id = auth.uid() AND role = 'editor')";
    Db::new(schema([
        projects
            .read("_owner = auth.uid() OR id IN (SELECT project_id FROM project_members WHERE user_id = auth.uid())")
            .create("_owner = auth.uid()")
            .update(editors)
            .delete("_owner = auth.uid()"),
        members.read("project_id IN readable(projects)").write("project_id IN writable(projects)"),
        tasks
            .read("project_id IN readable(projects)")
            .write("project_id IN writable(projects) AND (old.done IS NULL OR NOT old.done)"),
    ]))
}

fn project(db: &Db, id: &str, owner: &str) -> Stored {
    let owner_id = Value::from(owner);
    db.row(
        "projects",
        owner,
        [id.into(), "name".into(), owner_id, 0.into(), Value::Null],
    )
}

fn member(db: &Db, id: &str, project: &str, user: &str, role: &str) -> Stored {
    db.row(
        "project_members",
        "",
        [id.into(), project.into(), user.into(), role.into()],
    )
}

fn task(db: &Db, id: &str, project: &str, done: i64) -> Stored {
    db.row(
        "tasks",
        "",
        [
            id.into(),
            project.into(),
            "title".into(),
            done.into(),
            Value::Null,
        ],
    )
}

impl Db {
    fn with(mut self, rows: impl IntoIterator<Item = Stored>) -> Self {
        for row in rows {
            self.rows.insert((row.table, row.key.clone()), row);
        }
        self
    }
}

#[test]
fn ru1_a_change_without_a_rule_is_admitted_for_nobody() {
    let db = Db::new(schema(tracker()));
    let row = project(&db, "p", "ann");
    assert_eq!(db.admit(&user("ann"), &[db.put(row.clone())]), Err(0));
    assert_eq!(db.admit(&user("ann"), &[db.delete(&row)]), Err(0));
    assert!(!db.sees(&user("ann"), &row));
    assert_eq!(db.admit(&user("ann"), &[]), Ok(()));
}

#[test]
fn ru21_a_project_and_its_first_membership_and_task_are_created_together() {
    let db = ruled();
    let changes = [
        db.put(task(&db, "t", "p", 0)),
        db.put(member(&db, "m", "p", "ann", "editor")),
        db.put(project(&db, "p", "ann")),
    ];
    assert_eq!(db.admit(&user("ann"), &changes), Ok(()));
    assert_eq!(
        db.admit(&user("bob"), &changes),
        Err(0),
        "the project is Ann's"
    );
    assert_eq!(db.admit(&Identity::default(), &changes), Err(0));
}

#[test]
fn ru21_nobody_makes_himself_a_member() {
    let start = ruled();
    let (mine, member_of) = (
        project(&start, "p", "ann"),
        member(&start, "m", "p", "ann", "editor"),
    );
    let db = start.with([mine.clone(), member_of.clone()]);
    let own = db.put(member(&db, "n", "p", "bob", "editor"));
    assert_eq!(db.admit(&user("bob"), std::slice::from_ref(&own)), Err(0));
    let twice = [own.clone(), db.put(member(&db, "o", "p", "bob", "editor"))];
    assert_eq!(
        db.admit(&user("bob"), &twice),
        Err(0),
        "not by each other either"
    );
    let taken = db.put(member(&db, "m", "p", "bob", "editor"));
    assert_eq!(
        db.admit(&user("bob"), &[taken]),
        Err(0),
        "nor by taking over a membership"
    );
    let stolen = Stored {
        owner: Some(UserId("bob".into())),
        ..mine
    };
    assert_eq!(
        db.admit(&user("bob"), &[db.put(stolen), own.clone()]),
        Err(0)
    );
    assert_eq!(db.admit(&user("ann"), &[own]), Ok(()), "Ann may invite him");
}

#[test]
fn ru20_an_update_needs_the_rule_before_and_after() {
    let start = ruled();
    let rows = [
        project(&start, "p", "ann"),
        project(&start, "q", "bob"),
        task(&start, "t", "p", 0),
        task(&start, "d", "p", 1),
    ];
    let db = start.with(rows);
    let retitle = |id, project| db.put(task(&db, id, project, 0));
    assert_eq!(db.admit(&user("ann"), &[retitle("t", "p")]), Ok(()));
    assert_eq!(
        db.admit(&user("ann"), &[retitle("t", "q")]),
        Err(0),
        "into another's project"
    );
    assert_eq!(
        db.admit(&user("bob"), &[retitle("t", "q")]),
        Err(0),
        "out of another's project"
    );
    assert_eq!(
        db.admit(&user("ann"), &[retitle("d", "p")]),
        Err(0),
        "a done task stays"
    );
    assert_eq!(
        db.admit(&user("ann"), &[db.delete(&task(&db, "d", "p", 1))]),
        Err(0)
    );
    assert_eq!(
        db.admit(&user("ann"), &[db.delete(&task(&db, "t", "p", 0))]),
        Ok(())
    );
}

#[test]
fn ru22_a_lost_membership_counts_from_the_next_changeset() {
    let start = ruled();
    let membership = member(&start, "m", "p", "bob", "editor");
    let db = start
        .clone()
        .with([project(&start, "p", "ann"), membership.clone()]);
    let leaving = [db.delete(&membership), db.put(task(&db, "t", "p", 0))];
    assert_eq!(db.admit(&user("bob"), &leaving), Ok(()));
    let demoted = [
        db.put(member(&db, "m", "p", "bob", "guest")),
        db.put(task(&db, "t", "p", 0)),
    ];
    assert_eq!(db.admit(&user("bob"), &demoted), Ok(()));
    let left = start.clone().with([project(&start, "p", "ann")]);
    assert_eq!(left.admit(&user("bob"), &leaving[1..]), Err(0));
}

#[test]
fn ru10_write_rules_take_several_links_and_both_images() {
    let [projects, members, tasks] = <[_; 3]>::try_from(tracker()).unwrap();
    let start = Db::new(schema([
        projects.read("_owner = auth.uid()").write("_owner = auth.uid()"),
        members,
        tasks.write(
            "old.project_id IN readable(projects) AND new.project_id IN writable(projects) \
             AND EXISTS (SELECT 1 FROM project_members m WHERE m.project_id = new.project_id AND m.user_id = auth.uid()) \
             AND new.points >= old.points AND new.title <> auth.uid()",
        ),
    ]));
    let rows = [
        project(&start, "p", "ann"),
        project(&start, "q", "ann"),
        project(&start, "r", "ann"),
        member(&start, "m", "q", "ann", "any"),
        task(&start, "t", "p", 0),
    ];
    let mut db = start.with(rows);
    let points = |project: &str, points: f64| {
        db.row(
            "tasks",
            "",
            [
                "t".into(),
                project.into(),
                "title".into(),
                0.into(),
                points.into(),
            ],
        )
    };
    let (start, more, less) = (points("p", 2.0), points("q", 3.0), points("q", 1.0));
    let elsewhere = points("r", 3.0);
    db.rows.insert((start.table, start.key.clone()), start);
    assert_eq!(db.admit(&user("ann"), &[db.put(more.clone())]), Ok(()));
    assert_eq!(
        db.admit(&user("ann"), &[db.put(less)]),
        Err(0),
        "fewer points"
    );
    assert_eq!(
        db.admit(&user("ann"), &[db.put(elsewhere)]),
        Err(0),
        "no member there"
    );
    assert_eq!(db.admit(&user("title"), &[db.put(more)]), Err(0));
}

#[test]
fn ru23_changes_wait_for_one_another_in_any_order_through_sixteen_rows() {
    let db = Db::new(schema([table(
        "steps",
        "id text, before text, user_id text",
    )
    .create(
        "before = 'start' OR before IN (SELECT s.id FROM steps s WHERE s.user_id = auth.uid())",
    )]));
    let ladder = |length: usize| -> Vec<Proposed> {
        let name = |i: usize| {
            if i == 0 {
                "start".to_owned()
            } else {
                format!("s{i:02}")
            }
        };
        let steps = (1..=length)
            .rev()
            .map(|i| [name(i).into(), name(i - 1).into(), "ann".into()]);
        steps
            .map(|values| db.put(db.row("steps", "", values)))
            .collect()
    };
    assert_eq!(
        db.admit(&user("ann"), &ladder(ADMISSION_ROUNDS_MAX)),
        Ok(())
    );
    assert_eq!(
        db.admit(&user("ann"), &ladder(ADMISSION_ROUNDS_MAX + 1)),
        Err(0)
    );
    let mut forwards = ladder(ADMISSION_ROUNDS_MAX + 1);
    forwards.reverse();
    assert_eq!(db.admit(&user("ann"), &forwards), Err(ADMISSION_ROUNDS_MAX));
    assert_eq!(
        db.admit(&user("bob"), &ladder(2)),
        Err(0),
        "the steps are Ann's"
    );
}

#[test]
fn ru13_write_rules_inherit_without_cycles() {
    let tables = |first: &str, second: &str| {
        schema([
            table("a", "id text, b_id text").write(first),
            table("b", "id text, a_id text").write(second),
        ])
    };
    let said = refusal(&tables("b_id IN writable(b)", "a_id IN writable(a)"));
    insta::assert_snapshot!(said, @"tables.a.write: the rule inherits from itself (a → b → a): `writable(b)`; write the rule of one of them out, with `column IN (SELECT …)`");
    // The create rule of one may ask for the update rule of the other: that is no cycle.
    let db = Db::new(schema([
        table("a", "id text, b_id text")
            .create("b_id IN writable(b)")
            .update("_owner = auth.uid()"),
        table("b", "id text, a_id text").write("a_id IN writable(a)"),
    ]));
    let first = db.row("a", "ann", ["a".into(), "b".into()]);
    let second = db.row("b", "ann", ["b".into(), "a".into()]);
    let both = [db.put(first.clone()), db.put(second.clone())];
    assert_eq!(
        db.admit(&user("ann"), &both),
        Err(0),
        "neither is there before the other"
    );
    let db = db.with([first, second.clone()]);
    let another = db.put(db.row("a", "bob", ["c".into(), "b".into()]));
    assert_eq!(
        db.admit(&user("ann"), &[another.clone(), db.put(second)]),
        Ok(())
    );
    assert_eq!(db.admit(&user("bob"), &[another]), Err(0));
}

#[test]
fn ru24_forced_columns_are_read_in_the_columns_type() {
    let columns = "id text, user_id uuid, number integer, tenant text, kind text, flag boolean";
    let db = Db::new(schema([table("t", columns)
        .force("user_id", "auth.uid()")
        .force("number", "auth.claim('number')")
        .force("tenant", "auth.jwt() -> 'app' ->> 'tenant'")
        .force("kind", "'web'")
        .force("flag", "TRUE")]));
    let number = db.schema.tables[0].number;
    let identity = user("0A0B0C0D-0000-0000-0000-000000000001")
        .claim("number", json!("17"))
        .claim("app", json!({ "tenant": 5 }));
    let expected = [
        (5, Value::Integer(1)),
        (4, "web".into()),
        (2, 17.into()),
        (3, "5".into()),
        (1, "0a0b0c0d-0000-0000-0000-000000000001".into()),
    ];
    let mut forced = db.rules.forced(&identity, number);
    forced.sort_by_key(|(position, _)| [0, 4, 2, 3, 1, 0][*position]);
    assert_eq!(forced, expected);
    let nobody = db.rules.forced(&Identity::default(), number);
    assert!(
        nobody
            .iter()
            .all(|(at, value)| value.is_null() == [1, 2, 3].contains(at))
    );
    let said =
        |column, value| refusal(&schema([table("t", columns).force(column, value)])).to_string();
    let all = [
        said("user_id", "tenant"),
        said("owner", "auth.uid()"),
        said("number", "'x'"),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    tables.t.force: not a value known without the row: `tenant`; write `column = "auth.uid()"`, a claim or a literal
    tables.t.force: not a column that can be set: `owner`; name a column of the table
    tables.t.force: the two sides can never be equal: their types differ: `'x'`; compare with a value of the column's type
    "#);
}

/// What a stranger may try: rows of any kind in somebody else's project and in his own.
fn attempt() -> impl Strategy<Value = (usize, &'static str, &'static str, &'static str, bool)> {
    let id = || select(vec!["p", "q", "x", "y"]);
    let name = select(vec!["ann", "bob"]);
    (0..3_usize, id(), id(), name, prop::bool::weighted(0.2))
}

proptest! {
    #[test]
    fn ru21_no_changeset_of_a_stranger_reaches_into_a_project(
        attempts in vec(attempt(), 1..8),
    ) {
        let start = ruled();
        let rows = [
            project(&start, "p", "ann"),
            member(&start, "m", "p", "ann", "editor"),
            task(&start, "t", "p", 0),
        ];
        let db = start.with(rows);
        let mut after = db.clone();
        let mut changes = std::collections::BTreeMap::new();
        for (kind, id, project_id, name, delete) in attempts {
            let row = match kind {
                0 => project(&db, id, "bob"),
                1 => member(&db, id, project_id, name, "editor"),
                _ => task(&db, id, project_id, 0),
            };
            let id = (row.table, row.key.clone());
            let before = db.rows.get(&id).cloned();
            // The server keeps who inserted a row.
            let owner = before.as_ref().map_or(row.owner.clone(), |before| before.owner.clone());
            let row = Stored { owner, ..row };
            changes.insert(id, Proposed { before, after: (!delete).then_some(row) });
        }
        let list: Vec<Proposed> = changes.values().cloned().collect();
        if db.admit(&user("bob"), &list).is_ok() {
            for (id, change) in changes {
                match change.after {
                    Some(row) => after.rows.insert(id, row),
                    None => after.rows.remove(&id),
                };
            }
        }
        for row in db.rows.values() {
            prop_assert_eq!(after.rows.get(&(row.table, row.key.clone())), Some(row));
            prop_assert!(!after.sees(&user("bob"), row), "{:?}", row);
        }
    }
}
