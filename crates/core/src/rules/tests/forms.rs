//! Rules as people write them.

use super::testkit::{Db, KEY, schema, table, tracker, user};
use crate::{
    rules::Rules,
    schema::{Schema, Table},
};

fn with(name: &str, rule: impl FnOnce(Table) -> Table) -> Schema {
    let mut tables = tracker();
    let at = tables.iter().position(|table| table.name == name).unwrap();
    let table = tables.remove(at);
    tables.insert(at, rule(table));
    schema(tables)
}

/// What the rule is read as.
fn read_as(table: &str, rule: &str) -> String {
    let schema = with(table, |table| table.read(rule));
    let rules = Rules::compile(&schema, &KEY).unwrap_or_else(|errors| panic!("{}", errors[0]));
    let words = rules.describe(table);
    let line = words.lines().next().unwrap_or_default().to_owned();
    line.strip_prefix(&format!("{table}: "))
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn ru2_every_spelling_of_a_membership_is_the_same_family() {
    let same = [
        "id IN (SELECT project_id FROM project_members WHERE user_id = auth.uid())",
        "id in (select project_id from public.project_members where auth.uid() = user_id)",
        "projects.id IN (SELECT m.project_id FROM project_members AS m WHERE m.user_id = (SELECT auth.uid()))",
        "auth.uid() IN (SELECT user_id FROM project_members WHERE project_id = projects.id)",
        "(select auth.uid() as uid) IN (SELECT user_id FROM project_members WHERE project_id = projects.id)",
        "EXISTS (SELECT 1 FROM project_members WHERE project_id = projects.id AND user_id = auth.uid())",
        "EXISTS (SELECT * FROM project_members m WHERE m.user_id = auth.uid()::text AND m.project_id = projects.id)",
        "EXISTS (SELECT 1 FROM project_members WHERE project_id = projects.id AND user_id = auth.uid() LIMIT 1)",
        "id = ANY (SELECT project_id FROM project_members WHERE user_id = auth.jwt() ->> 'sub')",
        "(EXISTS ( SELECT 1 FROM project_members pm WHERE ((pm.project_id = projects.id) AND (pm.user_id = CAST(auth.uid() AS text)))))",
        "\"id\" IN (SELECT DISTINCT \"project_id\" FROM \"project_members\" WHERE user_id = auth.claim('sub'))",
        "NOT (NOT id IN (SELECT project_id FROM project_members WHERE user_id = auth.uid()))",
        "FALSE OR (TRUE AND id IN (SELECT project_id FROM project_members WHERE user_id = auth.uid()))",
    ];
    let fingerprint = |rule: &str| {
        let schema = with("projects", |table| table.read(rule));
        Rules::compile(&schema, &KEY)
            .map(|rules| rules.fingerprint())
            .map_err(|e| e[0].to_string())
    };
    for rule in same {
        assert_eq!(fingerprint(rule), fingerprint(same[0]), "{rule}");
    }
    insta::assert_snapshot!(read_as("projects", same[0]), @"read by users listed in project_members (project_id, user_id)");
}

#[test]
fn ru2_common_policies_are_read_as_meant() {
    let policies = [
        ("projects", "TRUE"),
        ("projects", "auth.uid() IS NOT NULL"),
        ("projects", "auth.role() = 'authenticated'"),
        ("projects", "auth.uid() = owner_id"),
        ("projects", "(( SELECT auth.uid() AS uid) = owner_id)"),
        ("projects", "owner_id = auth.uid() OR archived = FALSE"),
        (
            "projects",
            "NOT archived AND owner_id IN (auth.uid(), auth.claim('delegate'))",
        ),
        (
            "projects",
            "owner_id = (auth.jwt() -> 'app_metadata' ->> 'tenant')",
        ),
        ("projects", "(auth.jwt() ->> 'is_admin')::boolean"),
        (
            "projects",
            "auth.claim('role') = 'admin' AND budget BETWEEN 1 AND 10",
        ),
        (
            "projects",
            "_owner = auth.uid() OR id IN (SELECT project_id FROM project_members WHERE user_id = auth.uid())",
        ),
        (
            "projects",
            "auth.uid() IN (SELECT user_id FROM project_members WHERE project_id = projects.id AND role IN ('owner', 'editor'))",
        ),
        ("tasks", "project_id IN readable(projects)"),
        (
            "tasks",
            "project_id IN readable(projects) AND NOT done OR _owner = auth.uid()",
        ),
        (
            "tasks",
            "project_id IN (SELECT project_id FROM project_members WHERE user_id = auth.uid())",
        ),
        (
            "tasks",
            "project_id IN (SELECT id FROM projects WHERE owner_id = auth.uid())",
        ),
        (
            "tasks",
            "project_id IN (SELECT id FROM projects WHERE NOT archived)",
        ),
        (
            "tasks",
            "EXISTS (SELECT 1 FROM projects p JOIN project_members m ON m.project_id = p.id WHERE p.id = tasks.project_id AND NOT p.archived AND m.user_id = auth.uid())",
        ),
        (
            "tasks",
            "project_id IN (SELECT id FROM projects WHERE id IN (SELECT project_id FROM project_members WHERE user_id = auth.uid() AND role <> 'guest'))",
        ),
        (
            "tasks",
            "EXISTS (SELECT 1 FROM project_members WHERE user_id = auth.uid() AND role = 'admin')",
        ),
        (
            "tasks",
            "points > 2.5 AND (title IS NULL OR title <> 'draft')",
        ),
        (
            "project_members",
            "project_id IN (SELECT project_id FROM project_members WHERE user_id = auth.uid())",
        ),
    ];
    let words: Vec<String> = policies
        .iter()
        .map(|(table, rule)| format!("{rule}\n    {}", read_as(table, rule)))
        .collect();
    insta::assert_snapshot!(words.join("\n"), @"
    TRUE
        read by everybody
    auth.uid() IS NOT NULL
        read by everybody if auth.uid() IS NOT NULL
    auth.role() = 'authenticated'
        read by everybody if auth.role() = 'authenticated'
    auth.uid() = owner_id
        read by the user in `owner_id`
    (( SELECT auth.uid() AS uid) = owner_id)
        read by the user in `owner_id`
    owner_id = auth.uid() OR archived = FALSE
        read by the user in `owner_id`; by everybody while archived = 0
    NOT archived AND owner_id IN (auth.uid(), auth.claim('delegate'))
        read by the user in `owner_id` while archived = 0; by users whose auth.claim('delegate') is `owner_id` while archived = 0
    owner_id = (auth.jwt() -> 'app_metadata' ->> 'tenant')
        read by users whose auth.claim('app_metadata', 'tenant') is `owner_id`
    (auth.jwt() ->> 'is_admin')::boolean
        read by everybody if auth.claim('is_admin') = 1
    auth.claim('role') = 'admin' AND budget BETWEEN 1 AND 10
        read by everybody if auth.claim('role') = 'admin' while budget >= 1 AND budget <= 10
    _owner = auth.uid() OR id IN (SELECT project_id FROM project_members WHERE user_id = auth.uid())
        read by its owner; by users listed in project_members (project_id, user_id)
    auth.uid() IN (SELECT user_id FROM project_members WHERE project_id = projects.id AND role IN ('owner', 'editor'))
        read by users listed in project_members (project_id, user_id) with role IN ('owner', 'editor')
    project_id IN readable(projects)
        read by readers of its row in projects (project_id)
    project_id IN readable(projects) AND NOT done OR _owner = auth.uid()
        read by readers of its row in projects (project_id) while done = 0; by its owner
    project_id IN (SELECT project_id FROM project_members WHERE user_id = auth.uid())
        read by users listed in project_members (project_id, user_id)
    project_id IN (SELECT id FROM projects WHERE owner_id = auth.uid())
        read by users listed in projects (id, owner_id)
    project_id IN (SELECT id FROM projects WHERE NOT archived)
        read by everybody while listed in projects (id) with archived = 0
    EXISTS (SELECT 1 FROM projects p JOIN project_members m ON m.project_id = p.id WHERE p.id = tasks.project_id AND NOT p.archived AND m.user_id = auth.uid())
        read by users listed in project_members (project_id, user_id) through projects (id, id) with archived = 0
    project_id IN (SELECT id FROM projects WHERE id IN (SELECT project_id FROM project_members WHERE user_id = auth.uid() AND role <> 'guest'))
        read by users listed in project_members (project_id, user_id) with role <> 'guest' through projects (id, id)
    EXISTS (SELECT 1 FROM project_members WHERE user_id = auth.uid() AND role = 'admin')
        read by users listed in project_members (user_id) with role = 'admin'
    points > 2.5 AND (title IS NULL OR title <> 'draft')
        read by everybody while points > 2.5 AND (title IS NULL OR title <> 'draft')
    project_id IN (SELECT project_id FROM project_members WHERE user_id = auth.uid())
        read by users listed in project_members (project_id, user_id)
    ");
}

#[test]
fn ru2_the_policies_of_an_assessment_tool() {
    let member = "auth.uid() IN (SELECT user_id FROM project_members WHERE project_id = id)";
    let editor = "auth.uid() IN (SELECT user_id FROM project_members WHERE project_id = id AND role IN ('owner', 'editor'))";
    let any = "project_id IN (SELECT project_id FROM project_members WHERE user_id = auth.uid())";
    let mut members = table(
        "project_members",
        "project_id uuid, user_id uuid, role text",
    );
    members.primary_key = vec![0, 1];
    let mut db = Db::new(schema([
        table("projects", "id uuid, name text")
            .read(member)
            .update(editor),
        members,
        table(
            "assessment_responses",
            "id uuid, project_id uuid, answer text",
        )
        .read(any)
        .write(any),
    ]));
    let all = ["projects", "project_members", "assessment_responses"].map(|t| db.rules.describe(t));
    insta::assert_snapshot!(all.join("\n"), @"
    projects: read by users listed in project_members (project_id, user_id)
    projects: created by nobody
    projects: updated by users listed in project_members (project_id, user_id) with role IN ('owner', 'editor')
    projects: deleted by nobody
    project_members: read by nobody
    project_members: written by nobody
    assessment_responses: read by users listed in project_members (project_id, user_id)
    assessment_responses: written by users listed in project_members (project_id, user_id)
    ");
    let id = |n: u8| format!("0000000{n}-0000-4000-8000-00000000000a");
    let project = db.insert("projects", "", [id(1).into(), "study".into()]);
    for (who, role) in [(2, "editor"), (3, "viewer")] {
        db.insert(
            "project_members",
            "",
            [id(1).into(), id(who).into(), role.into()],
        );
    }
    let answer = db.row(
        "assessment_responses",
        "",
        [id(9).into(), id(1).into(), "yes".into()],
    );
    let renamed = db.row("projects", "", [id(1).into(), "other".into()]);
    for (who, sees, renames, answers) in [
        (2, true, true, true),
        (3, true, false, true),
        (4, false, false, false),
    ] {
        let identity = user(&id(who).to_uppercase());
        assert_eq!(db.sees(&identity, &project), sees, "{who}");
        assert_eq!(
            db.admit(&identity, &[db.put(renamed.clone())]).is_ok(),
            renames,
            "{who}"
        );
        assert_eq!(
            db.admit(&identity, &[db.put(answer.clone())]).is_ok(),
            answers,
            "{who}"
        );
    }
}

#[test]
fn ru25_rules_that_cost_more_than_they_need_to_are_named() {
    let projects = |rule: &str| {
        Db::new(schema([
            table("orgs", "id uuid, name text")
                .read("id IN (SELECT org_id FROM org_members WHERE user_id = auth.uid())"),
            table("org_members", "id uuid, org_id uuid, user_id text"),
            table("projects", "id uuid, org_id uuid").read(rule),
            table("tasks", "id uuid, project_id uuid").read("project_id IN readable(projects)"),
        ]))
    };
    let listed = "org_id IN (SELECT org_id FROM org_members WHERE user_id = auth.uid())";
    insta::assert_snapshot!(projects(listed).rules.advice().join("\n"), @"tables.projects.read: every row of org_members is one grant for each row of projects with the same org_id; if those are many, make org_id lead to a table whose read rule looks org_members up, and write `org_id IN readable(that_table)`");
    assert!(
        projects("org_id IN readable(orgs)")
            .rules
            .advice()
            .is_empty()
    );
}

#[test]
fn ru25_rules_are_described_in_words() {
    let db = Db::new(schema([
        table("projects", "id uuid, name text, user_id text")
            .read("_owner = auth.uid() OR id IN (SELECT project_id FROM project_members WHERE user_id = auth.uid())")
            .create("_owner = auth.uid() AND new.name <> ''")
            .update("id IN (SELECT project_id FROM project_members WHERE user_id = auth.uid() AND role = 'editor') AND old.name = new.name")
            .force("user_id", "auth.uid()"),
        table("project_members", "id uuid, project_id uuid, user_id text, role text")
            .read("project_id IN readable(projects)")
            .write("project_id IN writable(projects) AND auth.claim('app', 'plan') = 'pro' OR auth.role() = 'admin'"),
        table("notes", "id uuid, tenant text, day timestamp").read("tenant = auth.claim('tenant') AND day IS NOT NULL"),
    ]));
    let all = ["PROJECTS", "project_members", "notes", "nowhere"].map(|t| db.rules.describe(t));
    insta::assert_snapshot!(all.join("\n"), @"
    projects: read by its owner; by users listed in project_members (project_id, user_id)
    projects: created by its owner if new.name <> ''
    projects: updated by users listed in project_members (project_id, user_id) with role = 'editor' if old.name = new.name
    projects: deleted by nobody
    projects: `user_id` is set to auth.uid() by the server
    project_members: read by readers of its row in projects (project_id)
    project_members: written by writers of its row in projects (project_id) if auth.claim('app', 'plan') = 'pro'; by everybody if auth.role() = 'admin'
    notes: read by users whose auth.claim('tenant') is `tenant` while day IS NOT NULL
    notes: written by nobody
    ");
}

/// A column that apps write is never taken for what the server knows.
#[test]
fn ru4_what_every_row_has_hides_a_column_of_its_name() {
    let mine = table(
        "notes",
        "id text, _OWNER text, _version integer, title text",
    )
    .read("_owner = auth.uid()")
    .write("notes._owner = auth.uid() AND _version > 0");
    let mut db = Db::new(schema(vec![mine]));
    let row = ["n".into(), "eve".into(), 5.into(), "hers".into()];
    let row = db.insert("notes", "ann", row);
    assert!(db.sees(&user("ann"), &row));
    assert!(!db.sees(&user("eve"), &row), "a column gives nobody a row");
    let mut stolen = row.clone();
    stolen.row.0[1] = "ann".into();
    let change = crate::rules::Proposed {
        before: Some(row),
        after: Some(stolen),
    };
    assert_eq!(
        db.admit(&user("eve"), std::slice::from_ref(&change)),
        Err(0)
    );
    assert_eq!(db.admit(&user("ann"), &[change]), Ok(()));
    insta::assert_snapshot!(db.rules.advice().join("\n"), @"
    tables.notes.columns._OWNER: the column syncs like any other, but in rules `_owner` is what the server knows of the row and never this column
    tables.notes.columns._version: the column syncs like any other, but in rules `_version` is what the server knows of the row and never this column
    ");
}
