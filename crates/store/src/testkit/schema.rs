//! Tables to be declared.

use std::collections::BTreeMap;

use syncline_core::{
    Column, ColumnType, MergeStrategy, Schema, Table, TableNumber,
    schema::{ForeignKey, OnDelete, RuleTexts, SyncMode},
};

/// A table to be declared; numbers come from the storage.
#[must_use]
pub fn table(name: &str, columns: Vec<Column>) -> Table {
    Table {
        name: name.to_owned(),
        number: TableNumber(0),
        columns,
        primary_key: vec![0],
        uniques: Vec::new(),
        indexes: Vec::new(),
        foreign_keys: Vec::new(),
        without_rowid: false,
        autoincrement: false,
        further_indexes: Vec::new(),
        checks: Vec::new(),
        strict: false,
        sync: SyncMode::Auto,
        update_wins: false,
        rules: RuleTexts::default(),
        force: BTreeMap::new(),
    }
}

/// A column that may be NULL and merges by last-write-wins.
#[must_use]
pub fn column(name: &str, ty: ColumnType) -> Column {
    Column {
        name: name.to_owned(),
        number: syncline_core::ColumnNumber(0),
        ty,
        not_null: false,
        default: None,
        check: None,
        collate: None,
        generated: false,
        computed: None,
        declared: None,
        merge: MergeStrategy::LastWriteWins,
        encrypted: None,
        merge_paths: BTreeMap::new(),
    }
}

fn merged(name: &str, ty: ColumnType, merge: MergeStrategy) -> Column {
    Column {
        merge,
        ..column(name, ty)
    }
}

fn required(name: &str, ty: ColumnType) -> Column {
    Column {
        not_null: true,
        ..column(name, ty)
    }
}

/// Projects with members, and tasks below them; notes of one's own with integer keys, which
/// updates revive; labels that are unique.
#[must_use]
pub fn demo_schema() -> Schema {
    use ColumnType::{Boolean, Integer, Json, Text};
    let mine_or_member = |role: &str| {
        let members = "SELECT project_id FROM members WHERE user_id = auth.uid()";
        format!("_owner = auth.uid() OR id IN ({members}{role})")
    };
    let mut projects = table(
        "projects",
        vec![
            required("id", Text),
            required("name", Text),
            merged("budget", Integer, MergeStrategy::Manual),
            merged("tags", Json, MergeStrategy::Set),
        ],
    );
    projects.rules.read = Some(mine_or_member(""));
    projects.rules.write = Some(mine_or_member(" AND role = 'editor'"));

    let mut members = table(
        "members",
        vec![
            required("id", Text),
            required("project_id", Text),
            required("user_id", Text),
            required("role", Text),
        ],
    );
    members.rules.read = Some("user_id = auth.uid() OR project_id IN readable(projects)".into());
    members.rules.write = Some("project_id IN writable(projects)".into());

    let mut tasks = table(
        "tasks",
        vec![
            required("id", Text),
            column("project_id", Text),
            Column {
                default: Some("'untitled'".into()),
                ..required("title", Text)
            },
            column("done", Boolean),
            merged("effort", Integer, MergeStrategy::Counter),
            column("edited_by", Text),
        ],
    );
    tasks.foreign_keys.push(ForeignKey {
        columns: vec![1],
        parent: "projects".into(),
        parent_columns: Vec::new(),
        on_delete: OnDelete::Cascade,
    });
    tasks.rules.read = Some("project_id IN readable(projects)".into());
    tasks.rules.write = Some("project_id IN writable(projects)".into());
    tasks.force.insert("edited_by".into(), "auth.uid()".into());

    let mut notes = table("notes", vec![required("id", Integer), column("body", Text)]);
    notes.update_wins = true;
    notes.rules.read = Some("_owner = auth.uid()".into());
    notes.rules.write = Some("_owner = auth.uid()".into());

    let mut labels = table("labels", vec![required("id", Text), required("name", Text)]);
    labels.uniques.push(vec![1]);
    labels.rules.read = Some("auth.uid() IS NOT NULL".into());
    labels.rules.write = Some("auth.uid() IS NOT NULL".into());

    Schema {
        tables: vec![projects, members, tasks, notes, labels],
    }
}
