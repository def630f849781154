//! Buckets of tables that sync on demand, and how they are asked for.

use super::testkit::{Db, schema, table, user};
use crate::{
    ids::BucketId,
    key::RowKey,
    rules::{Identity, RuleColumn, Stored, Wanted},
    schema::{SyncMode, Table},
    value::Value,
};

impl Table {
    fn on_demand(mut self) -> Self {
        self.sync = SyncMode::OnDemand;
        self
    }
}

impl Db {
    fn demanded(&self, table: &str, wanted: &Wanted) -> Vec<BucketId> {
        let table = self.schema.table(table).expect("a table");
        self.rules.demanded(table.number, wanted)
    }

    /// Whether the row reaches `identity`, who asks for `asked`.
    fn reaches(&self, identity: &Identity, asked: &[BucketId], row: &Stored) -> bool {
        let Ok(buckets) = self.rules.buckets(row, self);
        let granted = self.granted(identity, &self.all_grants());
        buckets.iter().any(|bucket| {
            let is_sent = !self.rules.is_on_demand(*bucket) || asked.contains(bucket);
            granted.contains(bucket) && is_sent
        })
    }
}

fn key(id: &str) -> RowKey {
    RowKey::encode([&Value::from(id)]).expect("a key")
}

/// Companies with members, their projects, tasks on demand and comments on these.
fn company() -> Db {
    let companies = table("companies", "id text, name text")
        .read("id IN (SELECT company_id FROM members WHERE user_id = auth.uid())");
    let members = table("members", "id text, company_id text, user_id text");
    let projects =
        table("projects", "id text, company_id text").read("company_id IN readable(companies)");
    let tasks = table("tasks", "id text, project_id text")
        .read("project_id IN readable(projects) OR _owner = auth.uid()")
        .on_demand();
    let comments = table("comments", "id text, task_id text").read("task_id IN readable(tasks)");
    let mut db = Db::new(schema([companies, members, projects, tasks, comments]));
    db.insert("companies", "", ["c".into(), "a company".into()]);
    db.insert("members", "", ["m".into(), "c".into(), "bob".into()]);
    for (project, task, comment) in [("p", "t", "x"), ("q", "u", "y")] {
        db.insert("projects", "", [project.into(), "c".into()]);
        db.insert("tasks", "ann", [task.into(), project.into()]);
        db.insert("comments", "", [comment.into(), task.into()]);
    }
    db
}

fn row(db: &Db, table: &str, id: &str) -> Stored {
    let table = db.schema.table(table).expect("a table");
    db.rows[&(table.number, key(id))].clone()
}

#[test]
fn ru29_one_of_several_rows_below_a_common_parent_can_be_asked_for() {
    let db = company();
    let bob = user("bob");
    assert!(db.reaches(&bob, &[], &row(&db, "projects", "p")));
    for (table, id) in [("tasks", "t"), ("comments", "x")] {
        let row = row(&db, table, id);
        assert!(db.sees(&bob, &row), "rules are what they were");
        assert!(!db.reaches(&bob, &[], &row));
    }
    let asked = db.demanded("projects", &Wanted::Row(key("p")));
    for (table, here, elsewhere) in [("tasks", "t", "u"), ("comments", "x", "y")] {
        assert!(db.reaches(&bob, &asked, &row(&db, table, here)));
        assert!(!db.reaches(&bob, &asked, &row(&db, table, elsewhere)));
        let eve = user("eve");
        assert!(!db.reaches(&eve, &asked, &row(&db, table, here)));
    }
    // The company asks for all of its projects, a column's value for what its parent is.
    let all = db.demanded("companies", &Wanted::Row(key("c")));
    assert!(db.reaches(&bob, &all, &row(&db, "tasks", "t")));
    assert!(db.reaches(&bob, &all, &row(&db, "comments", "y")));
    let project = Wanted::Value(RuleColumn::Column(1), "p".into());
    assert_eq!(db.demanded("tasks", &project), asked);
}

#[test]
fn ru29_what_does_not_exist_is_asked_for_like_what_does() {
    let db = company();
    for id in ["p", "no such project"] {
        assert_eq!(db.demanded("projects", &Wanted::Row(key(id))).len(), 1);
    }
    assert!(db.demanded("members", &Wanted::Row(key("m"))).is_empty());
    let name = Wanted::Value(RuleColumn::Column(1), "a company".into());
    assert!(db.demanded("companies", &name).is_empty(), "no rule asks");
}

#[test]
fn ru29_a_table_that_all_see_alike_is_asked_for_whole() {
    let news = table("news", "id text")
        .read("auth.uid() IS NOT NULL")
        .on_demand();
    let mut db = Db::new(schema([news]));
    let item = db.insert("news", "", ["n".into()]);
    let bob = user("bob");
    assert!(!db.reaches(&bob, &[], &item));
    let asked = db.demanded("news", &Wanted::Table);
    assert!(db.reaches(&bob, &asked, &item));
    assert!(!db.reaches(&Identity::default(), &asked, &item));
}
