//! Rules that do not fit, and what is said about them.

use super::testkit::{refusal, schema, tracker};

/// What is said about a rule on `tasks`.
fn refused(rule: &str) -> String {
    let mut tables = tracker();
    let tasks = tables.pop().unwrap().read(rule);
    tables.push(tasks);
    let error = refusal(&schema(tables));
    format!("{rule}\n    {error} @{:?}", error.offset)
}

#[test]
fn ru3_what_does_not_fit_is_refused_with_the_clause_and_a_way_to_say_it() {
    let rules = [
        "title =",
        "",
        "title = 'a' title",
        "title LIKE 'a%'",
        "lower(title) = 'a'",
        "points + 1 > 2",
        "title = 5",
        "points = '5'",
        "done = 2",
        "title = NULL",
        "nothing = 1",
        "other.title = 'x'",
        "old.title = 'x'",
        "title",
        "created_at > now()",
        "project_id NOT IN (SELECT project_id FROM project_members WHERE user_id = auth.uid())",
        "NOT EXISTS (SELECT 1 FROM project_members WHERE user_id = auth.uid())",
        "project_id IN (SELECT project_id FROM members WHERE user_id = auth.uid())",
        "project_id IN (SELECT id FROM project_members WHERE user_id = auth.uid() LIMIT 1)",
        "project_id IN (SELECT project_id FROM project_members UNION SELECT id FROM projects)",
        "auth.uid() = (SELECT owner_id FROM projects WHERE id = tasks.project_id)",
        "_owner = auth.uid() AND project_id IN readable(projects)",
        "auth.claim('x') = '1' AND project_id IN readable(projects)",
        "project_id IN writable(projects)",
        "points IN readable(projects)",
        "project_id IN readable(nowhere)",
        "project_id NOT IN readable(projects)",
        "id IN readable(tasks)",
        "title <> auth.uid()",
        "EXISTS (SELECT 1 FROM project_members WHERE project_id = tasks.project_id AND user_id = auth.uid() AND role = tasks.title)",
        "EXISTS (SELECT 1 FROM project_members WHERE role = 'x')",
        "auth.uid() IN (SELECT user_id FROM project_members WHERE project_id = id)",
        "project_id IN (SELECT m.project_id FROM project_members m WHERE m.project_id IN (SELECT n.project_id FROM project_members n WHERE n.user_id = auth.uid()))",
        "auth.jwt() -> 'a' = 'x'",
        "auth.jwt() = 'x'",
        "title ->> 'a' = 'x'",
        "title::integer = 5",
        "(id, title) IN (SELECT id, name FROM projects)",
        "CASE WHEN done THEN TRUE ELSE FALSE END",
        "auth.uid() = 5 OR done = 'yes'",
        "_created_at > 'yesterday'",
        "EXISTS (SELECT 1 FROM project_members WHERE user_id = auth.uid() LIMIT 0)",
        "EXISTS (SELECT 1 FROM project_members WHERE user_id = auth.uid() LIMIT 1 OFFSET 1)",
        "(current_setting('request.jwt.claims', true))::json ->> 'sub' = title",
    ];
    let said: Vec<String> = rules.iter().map(|rule| refused(rule)).collect();
    insta::assert_snapshot!(said.join("\n"), @"
    title =
        tables.tasks.read: not a condition in SQL (Expected: an expression, found: EOF): `title =`; write a condition as in row-level security, such as `user_id = auth.uid()` @None

        tables.tasks.read: the rule is empty: ``; leave it out to deny everybody, or write `TRUE` to allow everybody @None
    title = 'a' title
        tables.tasks.read: the condition ends before this: `title`; write one condition, joined by AND and OR @Some(12)
    title LIKE 'a%'
        tables.tasks.read: patterns match differently in SQLite and PostgreSQL: `title LIKE 'a%'`; compare whole values with `=` or `IN (…)`, or keep a column that says it @Some(0)
    lower(title) = 'a'
        tables.tasks.read: this function cannot be used in rules: `lower(title)`; functions are auth.uid(), auth.role(), auth.email(), auth.claim('name') and auth.jwt() ->> 'name' @Some(0)
    points + 1 > 2
        tables.tasks.read: rules do not compute values: `points + 1`; compare columns with values as they are, or keep the result in a column @Some(0)
    title = 5
        tables.tasks.read: the two sides can never be equal: their types differ: `title = 5`; write the number as text: `'5'` @Some(0)
    points = '5'
        tables.tasks.read: the two sides can never be equal: their types differ: `points = '5'`; write the number without quotes: `5` @Some(0)
    done = 2
        tables.tasks.read: the two sides can never be equal: their types differ: `done = 2`; compare a boolean with TRUE or FALSE @Some(0)
    title = NULL
        tables.tasks.read: a comparison with NULL is never true: `title = NULL`; write `IS NULL` or `IS NOT NULL` @Some(0)
    nothing = 1
        tables.tasks.read: `tasks` has no column `nothing`: `nothing`; columns are `id`, `project_id`, `title`, `done`, `points` @Some(0)
    other.title = 'x'
        tables.tasks.read: there is no `other` here: `other.title`; name one of `tasks` @Some(0)
    old.title = 'x'
        tables.tasks.read: there is no `old` here: `old.title`; `old.` is there in update, delete and write rules, `new.` in create, update and write rules @Some(0)
    title
        tables.tasks.read: not a condition: it is neither a comparison nor a boolean column: `title`; compare it, for example `title = …` or `title IS NOT NULL` @Some(0)
    created_at > now()
        tables.tasks.read: `tasks` has no column `created_at`: `created_at`; columns are `id`, `project_id`, `title`, `done`, `points` @Some(0)
    project_id NOT IN (SELECT project_id FROM project_members WHERE user_id = auth.uid())
        tables.tasks.read: a lookup in another table cannot be negated: `project_id NOT IN (SELECT project_id FROM project_members WHERE user_id = auth.uid())`; say who may, not who may not: keep a row for everybody who may, or a column in the row itself @Some(0)
    NOT EXISTS (SELECT 1 FROM project_members WHERE user_id = auth.uid())
        tables.tasks.read: a lookup in another table cannot be negated: `NOT EXISTS (SELECT 1 FROM project_members WHERE user_id = auth.uid())`; say who may, not who may not: keep a row for everybody who may, or a column in the row itself @Some(0)
    project_id IN (SELECT project_id FROM members WHERE user_id = auth.uid())
        tables.tasks.read: there is no table `members`: `project_id IN (SELECT project_id FROM members WHERE user_id = auth.uid())`; add [tables.members] to the file, or name one that is there: `projects`, `project_members`, `tasks` @Some(0)
    project_id IN (SELECT id FROM project_members WHERE user_id = auth.uid() LIMIT 1)
        tables.tasks.read: a subquery in a rule has only SELECT, FROM, JOIN … ON and WHERE: `project_id IN (SELECT id FROM project_members WHERE user_id = auth.uid() LIMIT 1)`; leave the rest out, or keep its result in a column @Some(0)
    project_id IN (SELECT project_id FROM project_members UNION SELECT id FROM projects)
        tables.tasks.read: a subquery cannot be a UNION: `project_id IN (SELECT project_id FROM project_members UNION SELECT id FROM projects)`; write one lookup for each part, joined by OR @Some(0)
    auth.uid() = (SELECT owner_id FROM projects WHERE id = tasks.project_id)
        tables.tasks.read: a subquery may have several rows where one value is expected: `(SELECT owner_id FROM projects WHERE id = tasks.project_id)`; write `value IN (SELECT …)` or `EXISTS (SELECT 1 …)` @Some(13)
    _owner = auth.uid() AND project_id IN readable(projects)
        tables.tasks.read: two links to people in one conjunction: a row can be in the buckets of only one of them: `project_id IN readable(projects)`; keep one of them here; put the other into the read rule of a parent table and write `column IN readable(parent)`, or join them by OR @Some(24)
    auth.claim('x') = '1' AND project_id IN readable(projects)
        tables.tasks.read: the row lies in its parent's buckets, so it is seen by all who see the parent: a condition on the user cannot be added: `project_id IN readable(projects)`; put the condition on the user into the read rule of `projects` @Some(26)
    project_id IN writable(projects)
        tables.tasks.read: a read rule cannot inherit a write rule: `project_id IN writable(projects)`; write `column IN readable(parent)` @Some(0)
    points IN readable(projects)
        tables.tasks.read: the two sides can never be equal: their types differ: `points IN readable(projects)`; compare columns of the same type @Some(0)
    project_id IN readable(nowhere)
        tables.tasks.read: there is no table `nowhere`: `project_id IN readable(nowhere)`; add [tables.nowhere] to the file, or name one that is there @Some(0)
    project_id NOT IN readable(projects)
        tables.tasks.read: a rule cannot be inherited negated: `project_id NOT IN readable(projects)`; write `column IN readable(parent_table)` @Some(0)
    id IN readable(tasks)
        tables.tasks.read: the rule inherits from itself (tasks → tasks): `readable(tasks)`; write the rule of one of them out, with `column IN (SELECT …)` @None
    title <> auth.uid()
        tables.tasks.read: a row and a user, or rows of two tables, can be linked only by one `=`: `title <> auth.uid()`; link them by `column = auth.uid()`, `column IN (SELECT …)` or `column IN readable(parent)`, and compare each alone with values @Some(0)
    EXISTS (SELECT 1 FROM project_members WHERE project_id = tasks.project_id AND user_id = auth.uid() AND role = tasks.title)
        tables.tasks.read: the lookup branches: each table on the way from the row to the user is linked by one column to the one before and by one to the one after: `role = tasks.title`; leave out all but one link, or give a table on the way a read rule of its own and write `column IN readable(parent)` @Some(103)
    EXISTS (SELECT 1 FROM project_members WHERE role = 'x')
        tables.tasks.read: the lookup in `project_members` is linked neither to the row nor to the user: `role = 'x'`; compare a column of `project_members` with a column of the row or `auth.uid()` @Some(44)
    auth.uid() IN (SELECT user_id FROM project_members WHERE project_id = id)
        tables.tasks.read: `project_id` means the column of `project_members` here, which SQL finds first: `project_id = id`; write `tasks.project_id`, or `project_members.project_id` if that is meant @Some(57)
    project_id IN (SELECT m.project_id FROM project_members m WHERE m.project_id IN (SELECT n.project_id FROM project_members n WHERE n.user_id = auth.uid()))
        tables.tasks.read: `project_members` is looked up twice in one chain: `project_id IN (SELECT m.project_id FROM project_members m WHERE m.project_id IN (SELECT n.project_id FROM project_members n WHERE n.user_id = auth.uid()))`; give the table in between a read rule of its own and write `column IN readable(parent)` @Some(0)
    auth.jwt() -> 'a' = 'x'
        tables.tasks.read: `->` gives JSON, which cannot be compared: `auth.jwt() -> 'a'`; end it with `->>`, which gives text @Some(0)
    auth.jwt() = 'x'
        tables.tasks.read: the whole token is no value: `auth.jwt()`; take a claim of it: `auth.jwt() ->> 'name'` @Some(0)
    title ->> 'a' = 'x'
        tables.tasks.read: members of JSON columns cannot be used in rules: `title ->> 'a'`; keep the value in a column of its own @Some(0)
    title::integer = 5
        tables.tasks.read: the cast would change the value, and databases do not agree how: `title::INTEGER`; leave out the cast and compare with a value of the same type @Some(0)
    (id, title) IN (SELECT id, name FROM projects)
        tables.tasks.read: several columns cannot be compared at once: `(id, title)`; compare one column, or write EXISTS (SELECT 1 FROM t WHERE t.a = a AND …) @Some(0)
    CASE WHEN done THEN TRUE ELSE FALSE END
        tables.tasks.read: CASE cannot be used in rules: `CASE WHEN done THEN true ELSE false END`; write the cases with AND and OR @Some(0)
    auth.uid() = 5 OR done = 'yes'
        tables.tasks.read: the two sides can never be equal: their types differ: `done = 'yes'`; compare a boolean with TRUE or FALSE @Some(18)
    _created_at > 'yesterday'
        tables.tasks.read: not a moment in UTC: `_created_at > 'yesterday'`; write `'2026-01-31'`, `'2026-01-31T12:00:00Z'` or microseconds since 1970 @Some(0)
    EXISTS (SELECT 1 FROM project_members WHERE user_id = auth.uid() LIMIT 0)
        tables.tasks.read: a subquery in a rule has only SELECT, FROM, JOIN … ON and WHERE: `EXISTS (SELECT 1 FROM project_members WHERE user_id = auth.uid() LIMIT 0)`; leave the rest out, or keep its result in a column @Some(0)
    EXISTS (SELECT 1 FROM project_members WHERE user_id = auth.uid() LIMIT 1 OFFSET 1)
        tables.tasks.read: a subquery in a rule has only SELECT, FROM, JOIN … ON and WHERE: `EXISTS (SELECT 1 FROM project_members WHERE user_id = auth.uid() LIMIT 1 OFFSET 1)`; leave the rest out, or keep its result in a column @Some(0)
    (current_setting('request.jwt.claims', true))::json ->> 'sub' = title
        tables.tasks.read: only the token says who asks: `current_setting('request.jwt.claims', true)`; write `auth.uid()` or `auth.claim('name')` @Some(1)
    ");
}

#[test]
fn ru9_limits_are_named() {
    let ors = |count: usize, each: &dyn Fn(usize) -> String| {
        (0..count).map(each).collect::<Vec<_>>().join(" OR ")
    };
    let links = |count| ors(count, &|i| format!("title = auth.claim('c{i}')"));
    let list = |count: usize| {
        format!(
            "points IN ({})",
            (0..count)
                .map(|i| i.to_string())
                .collect::<Vec<_>>()
                .join(", ")
        )
    };
    let nested = |depth: usize| format!("{}done{}", "(".repeat(depth), ")".repeat(depth));
    let path = |count: usize| format!("auth.jwt() {} ->> 'z' = 'x'", "-> 'a'".repeat(count));
    let fits = [
        links(32),
        list(256),
        ors(300, &|i| format!("points = {i}")),
        nested(20),
        path(7),
    ];
    for rule in &fits {
        let mut tables = tracker();
        let tasks = tables.pop().unwrap().read(rule);
        tables.push(tasks);
        assert!(
            crate::rules::Rules::compile(&schema(tables), &[0; 32]).is_ok(),
            "{rule}"
        );
    }
    let refused = [
        links(33),
        format!("({}) AND ({})", links(6), links(6)),
        list(257),
        nested(60),
        path(8),
        ors(900, &|i| format!("points = {i}")),
    ];
    let said: Vec<String> = refused
        .iter()
        .map(|rule| {
            let said = self::refused(rule);
            let (_, said) = said.split_once('\n').unwrap();
            let (message, suggestion) = (said.split(": `").next(), said.rsplit("`; ").next());
            format!("{} … {}", message.unwrap().trim(), suggestion.unwrap())
        })
        .collect();
    insta::assert_snapshot!(said.join("\n"), @"
    tables.tasks.read: written as alternatives, the rule has more than 32 branches … move alternatives into a table of who may what, or into the read rule of a parent @None
    tables.tasks.read: written as alternatives, the rule has more than 32 branches … move alternatives into a table of who may what, or into the read rule of a parent @None
    tables.tasks.read: the list has more than 256 values … keep the values in a table and write `column IN (SELECT … FROM t)` @Some(0)
    tables.tasks.read: the condition nests deeper than 40 levels … write it flatter @None
    tables.tasks.read: the path into the token has more than 8 members … put the claim higher in the token @Some(0)
    tables.tasks.read: the rule is longer than 8192 bytes … keep long lists of values in a table and write `column IN (SELECT … FROM that table)` @None
    ");
}

#[test]
fn ru9_hostile_texts_end_in_a_message() {
    let texts = [
        "(".repeat(8_000),
        "NOT ".repeat(2_000) + "done",
        "- ".repeat(4_000) + "1",
        format!(
            "NOT EXISTS (SELECT 1 FROM projects WHERE {}done)",
            "done AND ".repeat(880)
        ),
        format!(
            "title IN (SELECT id FROM projects WHERE {}name)",
            "name OR ".repeat(990)
        ),
        format!("{}1 = 1", "1 + ".repeat(2_000)),
        format!("{}'x' = 'x'", "title || ".repeat(880)),
        format!("title{} = 'x'", "::text".repeat(1_300)),
        format!("title{} = 'x'", " -> 'a'".repeat(1_100)),
        "CASE WHEN ".repeat(800),
        "EXISTS (SELECT 1 WHERE ".repeat(300),
        "title = 'unfinished".to_owned(),
        "title = $$x$$".to_owned(),
        "title = E'\\n' AND \u{0} = 1".to_owned(),
        "\u{202e}".repeat(100),
        "x".repeat(9_000),
    ];
    for text in texts {
        let said = refused(&text);
        assert!(said.len() < text.len() + 1_500, "{}", said.len());
    }
}

#[test]
fn ru3_every_rule_that_does_not_fit_is_told() {
    let mut tables = tracker();
    for table in &mut tables {
        table.rules.read = Some("nothing".into());
        table.rules.update = Some("TRUE AND".into());
    }
    let errors = crate::rules::Rules::compile(&schema(tables), &[0; 32]).unwrap_err();
    let told: Vec<_> = errors
        .iter()
        .map(|e| format!("{}.{}", e.table, e.rule))
        .collect();
    assert_eq!(
        told,
        [
            "projects.read",
            "projects.update",
            "project_members.read",
            "project_members.update",
            "tasks.read",
            "tasks.update",
        ]
    );
}

#[test]
fn ru4_names_that_sql_would_take_otherwise_are_refused() {
    // Here `id` is no column of the inner table, so it is the outer one's: as meant.
    let rule = "auth.uid() IN (SELECT user_id FROM project_members WHERE project_id = id)";
    let compile = |columns: &str| {
        let members = super::testkit::table("project_members", columns);
        let projects = super::testkit::table("projects", "id text, name text").read(rule);
        crate::rules::Rules::compile(&schema([projects, members]), &[0; 32])
    };
    let rules = compile("project_id text, user_id text, role text").unwrap();
    insta::assert_snapshot!(rules.describe("projects"), @"
    projects: read by users listed in project_members (project_id, user_id)
    projects: written by nobody
    ");
    let error = compile("id text, project_id text, user_id text")
        .unwrap_err()
        .swap_remove(0);
    insta::assert_snapshot!(error, @"tables.projects.read: `id` means the column of `project_members` here, which SQL finds first: `project_id = id`; write `projects.id`, or `project_members.id` if that is meant");
}
