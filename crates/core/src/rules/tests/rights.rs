//! Which rows give rights to write others, and what their change gives and takes.

use super::testkit::{Db, schema, table, tracker};
use crate::{
    ids::UserId,
    rules::{Right, Stored},
    value::Value,
};

const EDITORS: &str = "EXISTS (SELECT 1 FROM project_members m WHERE m.project_id = projects.id \
                       AND m.user_id = auth.uid() AND m.role IN ('owner', 'editor'))";
const OWNERS: &str = "EXISTS (SELECT 1 FROM project_members m WHERE m.project_id = projects.id \
                      AND m.user_id = auth.uid() AND m.role = 'owner')";
const P: &str = "6f1b7f4e-6f0a-4a4e-9d0f-0c1d2e3f4a5b";
const Q: &str = "7f1b7f4e-6f0a-4a4e-9d0f-0c1d2e3f4a5b";

fn ruled() -> Db {
    let [projects, members, tasks] = <[_; 3]>::try_from(tracker()).unwrap();
    let notes = table("notes", "id uuid, project_id uuid, body text");
    let update = format!("NOT archived AND ({EDITORS} OR owner_id = auth.uid())");
    Db::new(schema([
        projects.read("TRUE").update(&update).delete(OWNERS),
        members.read("TRUE"),
        tasks.write("project_id IN writable(projects)"),
        notes.create("project_id IN writable(projects)"),
    ]))
}

fn member(db: &Db, project: &str, user: &str, role: &str) -> Stored {
    let id = Value::from("m");
    db.row(
        "project_members",
        "",
        [id, project.into(), user.into(), role.into()],
    )
}

fn project(db: &Db, owner: &str, archived: i64) -> Stored {
    let name = Value::from("name");
    let values = [P.into(), name, owner.into(), archived.into(), Value::Null];
    db.row("projects", owner, values)
}

/// As `bob +update projects` and the like.
fn words(db: &Db, rights: &[Right]) -> Vec<String> {
    let mut words = Vec::new();
    for right in rights {
        let user = right.user.as_ref().map_or("several", |user| &user.0);
        let sign = if right.given { '+' } else { '-' };
        for (table, action) in &right.allowed {
            let table = &db.schema.by_number(*table).unwrap().name;
            words.push(format!("{user} {sign}{} {table}", action.as_str()));
        }
    }
    words.sort();
    words
}

#[test]
fn ac17_a_role_that_changes_gives_and_takes_what_depends_on_it_and_nothing_else() {
    let db = ruled();
    let as_role = |role| member(&db, P, "bob", role);
    let change = |before, after| {
        let (before, after) = (as_role(before), as_role(after));
        words(&db, &db.rules.rights(Some(&before), Some(&after)))
    };
    let editing = |sign| {
        [
            format!("bob {sign}create notes"),
            format!("bob {sign}create tasks"),
            format!("bob {sign}delete tasks"),
            format!("bob {sign}update projects"),
            format!("bob {sign}update tasks"),
        ]
    };
    assert_eq!(change("editor", "viewer"), editing('-'));
    assert_eq!(change("viewer", "editor"), editing('+'));
    // Both may edit, one way or the other: only what differs.
    assert_eq!(change("owner", "editor"), ["bob -delete projects"]);
    assert_eq!(change("viewer", "guest"), [""; 0]);
    assert_eq!(change("editor", "editor"), [""; 0]);
    let viewer = as_role("viewer");
    assert_eq!(db.rules.rights(None, Some(&viewer)), []);

    let editor = as_role("editor");
    let come = db.rules.rights(None, Some(&editor));
    assert_eq!(words(&db, &come), editing('+'));
    let project = project(&db, "ana", 0);
    assert_eq!(come[0].link, Some((project.table, project.key)));
    assert_eq!(
        words(&db, &db.rules.rights(Some(&editor), None)),
        editing('-')
    );

    // Of another project, or somebody else's: taken here, given there.
    let moved = member(&db, Q, "bob", "editor");
    let moved = words(&db, &db.rules.rights(Some(&editor), Some(&moved)));
    assert_eq!(moved.len(), 10, "{moved:?}");
    let eve = member(&db, P, "eve", "editor");
    let handed = db.rules.rights(Some(&editor), Some(&eve));
    let users: Vec<_> = handed.iter().map(|r| (r.given, r.user.clone())).collect();
    let named = |name: &str| Some(UserId(name.into()));
    assert_eq!(users, [(false, named("bob")), (true, named("eve"))]);
}

#[test]
fn ac17_what_others_inherit_from_gives_rights_by_its_own_columns() {
    let db = ruled();
    let of_ana = project(&db, "ana", 0);
    let of_bob = project(&db, "bob", 0);
    let handed = words(&db, &db.rules.rights(Some(&of_ana), Some(&of_bob)));
    for who in ["ana -update tasks", "bob +update tasks"] {
        assert!(handed.iter().any(|word| word == who), "{handed:?}");
    }
    let archived = project(&db, "ana", 1);
    let taken = db.rules.rights(Some(&of_ana), Some(&archived));
    assert!(taken.iter().all(|right| !right.given), "{taken:?}");
    let words = words(&db, &taken);
    for who in ["ana -update tasks", "several -update tasks"] {
        assert!(words.iter().any(|word| word == who), "{words:?}");
    }
    // It gives nobody anything by coming to be, nor takes it by going.
    assert_eq!(db.rules.rights(None, Some(&of_ana)), []);
    assert_eq!(db.rules.rights(Some(&of_ana), None), []);
}

#[test]
fn ac17_rows_on_the_way_concern_several_and_read_rules_that_are_asked_count() {
    let [projects, members, tasks] = <[_; 3]>::try_from(tracker()).unwrap();
    let teams = table("teams", "id uuid, project_id uuid, team text");
    let people = table("people", "id uuid, team text, user_id text");
    let chain = "EXISTS (SELECT 1 FROM teams t JOIN people p ON p.team = t.team \
                 WHERE t.project_id = projects.id AND p.user_id = auth.uid())";
    let db = Db::new(schema([
        projects.read(chain),
        members,
        tasks.delete("project_id IN readable(projects)"),
        teams,
        people,
    ]));
    let team = db.row("teams", "", ["t".into(), P.into(), "red".into()]);
    let person = db.row("people", "", ["p".into(), "red".into(), "bob".into()]);
    let told = |stored| words(&db, &db.rules.rights(None, Some(stored)));
    assert_eq!(told(&team), ["several +delete tasks"]);
    assert_eq!(told(&person), ["bob +delete tasks"]);
}
