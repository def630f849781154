//! Whole files as people write them, with policies as they have them already.

use insta::assert_snapshot;

use super::*;
use crate::rules::Rules;

/// Every mistake of the file, or every rule in words.
fn checked(text: &str) -> String {
    let config = match Config::parse("syncline.toml", text) {
        Ok(config) => config,
        Err(mistakes) => return mistakes.iter().map(|m| format!("{m}\n")).collect(),
    };
    match Rules::compile(&config.schema, &[0; 32]) {
        Ok(rules) => config
            .schema
            .tables
            .iter()
            .map(|table| rules.describe(&table.name) + "\n")
            .collect(),
        Err(errors) => errors
            .iter()
            .map(|error| config.locate(error).to_string() + "\n")
            .collect(),
    }
}

const POLICIES: &str = r#"
[tables.projects]
columns = { id = "integer primary key autoincrement", name = "text not null", created_at = "timestamp default current_timestamp" }
read    = """
  auth.uid() IN (
    SELECT user_id FROM project_members
    WHERE project_id = id
  )"""
update  = """
  auth.uid() IN (
    SELECT user_id FROM project_members
    WHERE project_id = id
    AND role IN ('owner', 'editor')
  )"""
[tables.project_members]
columns     = { project_id = "integer references projects", user_id = "uuid", role = "text" }
primary_key = ["project_id", "user_id"]
[tables.responses]
columns = { id = "integer primary key", project_id = "integer references projects", answer = "text" }
read    = "project_id IN (SELECT project_id FROM project_members WHERE user_id = auth.uid())"
write   = "project_id IN (SELECT project_id FROM project_members WHERE user_id = auth.uid())"
"#;

const PROJECTS: &str = r#"
[server]                                   # every key also as flag --listen, SYNCLINE_LISTEN
listen = "127.0.0.1:7117"                  # also admin_listen, data, database, origins
[tables.projects]
columns = { id = "uuid primary key", name = "text not null", tags = "json", notes = "text", settings = "json", budget = "integer default 0" }
indexes = [["name"]]
read    = "_owner = auth.uid() OR id IN (SELECT project_id FROM project_members WHERE user_id = auth.uid())"
write   = "_owner = auth.uid() OR id IN (SELECT project_id FROM project_members WHERE user_id = auth.uid() AND role = 'editor')"
merge   = { tags = "set", budget = "manual", "settings.goals" = "set" }      # default: "last-write-wins"
[tables.tasks]
columns = { id = "uuid primary key", project_id = "uuid references projects on delete cascade", title = "text not null default ''", done = "boolean" }
read    = "project_id IN readable(projects)"         # as the parent row
write   = "project_id IN writable(projects)"
force   = { }                                        # columns set by the server
sync    = "on_demand"                                # only when a client asks for a project
[tables.project_members]
columns = { project_id = "uuid references projects", user_id = "text", role = "text" }
primary_key = ["project_id", "user_id"]
read = "user_id = auth.uid()"
write = "project_id IN writable(projects)"
"#;

#[test]
fn cf10_the_rules_of_a_whole_file_compile() {
    assert_snapshot!(checked(PROJECTS), @r"
    projects: read by its owner; by users listed in project_members (project_id, user_id)
    projects: written by its owner; by users listed in project_members (project_id, user_id) with role = 'editor'
    tasks: read by readers of its row in projects (project_id)
    tasks: written by writers of its row in projects (project_id)
    tasks: on a device only while it subscribes
    project_members: read by the user in `user_id`
    project_members: written by writers of its row in projects (project_id)
    ");
    assert_snapshot!(checked(POLICIES), @r"
    projects: read by users listed in project_members (project_id, user_id)
    projects: created by nobody
    projects: updated by users listed in project_members (project_id, user_id) with role IN ('owner', 'editor')
    projects: deleted by nobody
    project_members: read by nobody
    project_members: written by nobody
    responses: read by users listed in project_members (project_id, user_id)
    responses: written by users listed in project_members (project_id, user_id)
    ");
}

/// What a policy means without names of tables depends on the columns there are.
#[test]
fn cf10_a_name_that_sql_would_find_elsewhere_is_told_with_its_place() {
    let own_id = POLICIES.replace(
        "columns     = { project_id",
        "columns     = { id = \"integer\", project_id",
    );
    assert_snapshot!(checked(&own_id), @"
    syncline.toml:7:11: tables.projects.read: `id` means the column of `project_members` here, which SQL finds first: `project_id = id` (expected a rule in one of the forms that can be synced; write `projects.id`, or `project_members.id` if that is meant)
    syncline.toml:12:11: tables.projects.update: `id` means the column of `project_members` here, which SQL finds first: `project_id = id` (expected a rule in one of the forms that can be synced; write `projects.id`, or `project_members.id` if that is meant)
    ");
}

#[test]
fn cf5_what_this_version_does_not_do_is_said() {
    let config = parse(PROJECTS);
    let rules = Rules::compile(&config.schema, &[0; 32]).unwrap();
    assert_eq!(rules.advice(), &[] as &[String], "all of it is done");
}

#[test]
fn cf11_a_strategy_to_come_is_refused_with_what_to_write_now() {
    let text = PROJECTS.replace("tags = \"set\"", "notes = \"collaborative\"");
    assert_snapshot!(checked(&text), @r#"syncline.toml:9:21: tables.projects.merge.notes is `collaborative`, which this version does not have yet (expected a strategy that it has; write "manual", so that no text is lost, or take it out)"#);
}

#[test]
fn cf10_a_table_that_a_rule_names_has_to_be_in_the_file() {
    let (alone, _) = PROJECTS.split_once("[tables.tasks]").unwrap();
    assert_snapshot!(checked(alone), @"
    syncline.toml:7:35: tables.projects.read: there is no table `project_members`: `id IN (SELECT project_id FROM project_members WHERE user_id = auth.uid())` (expected a rule in one of the forms that can be synced; add [tables.project_members] to the file, or name one that is there: `projects`)
    syncline.toml:8:35: tables.projects.write: there is no table `project_members`: `id IN (SELECT project_id FROM project_members WHERE user_id = auth.uid() AND role = 'editor')` (expected a rule in one of the forms that can be synced; add [tables.project_members] to the file, or name one that is there: `projects`)
    ");
}
