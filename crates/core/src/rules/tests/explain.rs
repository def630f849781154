//! Explanations say what the judge says, and name what is there and what is missing.

use proptest::{collection::vec, prelude::*};

use super::{
    random::{Step, identity, readable_schema, steps, writable_schema},
    testkit::{Db, schema, table, tracker, user},
};
use crate::{
    rules::{
        Action, Identity, Proposed, Stored, Verdict,
        cond::{Env, all_hold},
        explain::{Alternative, Explainer, Way},
        judge::{Judge, Plain},
        term::Seen,
    },
    schema::Schema,
};

impl Db {
    fn explained(&self, identity: &Identity, action: Action, row: &Stored) -> Verdict {
        let (before, after) = match action {
            Action::Read | Action::Delete => (Some(row.clone()), None),
            Action::Create => (None, Some(row.clone())),
            Action::Update => (Some(row.clone()), Some(row.clone())),
        };
        self.explained_change(identity, action, &Proposed { before, after })
    }

    fn explained_change(&self, identity: &Identity, action: Action, change: &Proposed) -> Verdict {
        let Ok(verdict) = self
            .rules
            .explain(&self.schema, identity, action, change, self);
        verdict
    }

    /// As a person would read it.
    fn told(&self, who: &str, action: Action, row: &Stored) -> String {
        let verdict = self.explained(&user(who), action, row);
        let mut lines = vec![format!("{who} {}: {}", action.as_str(), verdict.allowed)];
        for reason in verdict.reasons {
            let sign = if reason.holds { '+' } else { '-' };
            lines.push(format!(
                "  {sign} {}: {}",
                reason.rule,
                reason.because.join("; ")
            ));
        }
        lines.join("\n")
    }

    fn people(&self, action: Action, row: &Stored) -> String {
        let Ok(people) = self.rules.permitted(&self.schema, action, row, self);
        let line = |one: &crate::rules::Permitted| {
            let through: Vec<String> = one.through.iter().map(ToString::to_string).collect();
            format!("{} | {} | {}", one.who, one.rule, through.join(" < "))
                .trim_end()
                .to_owned()
        };
        people.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    fn filled(schema: Schema, steps: &[Step]) -> Self {
        let mut db = Self::new(schema);
        for step in steps {
            if let Step::Put(draw) = step {
                let table = db.schema.tables[draw.table].name.clone();
                let row = db.row_of(&table, draw.owner, draw.values.clone());
                db.rows.insert((row.table, row.key.clone()), row);
            }
        }
        db
    }
}

fn shared() -> Db {
    let member = "_owner = auth.uid() OR id IN (SELECT project_id FROM project_members WHERE user_id = auth.uid())";
    let editor = "_owner = auth.uid() OR NOT archived AND id IN (SELECT project_id FROM project_members WHERE user_id = auth.uid() AND role IN ('owner', 'editor'))";
    let mut tables = tracker();
    tables[0] = tables[0].clone().read(member).write(editor);
    tables[1] = tables[1].clone().read("project_id IN readable(projects)");
    tables[2] = tables[2]
        .clone()
        .read("project_id IN readable(projects) OR auth.claim('role') = 'support'")
        .write("project_id IN writable(projects)");
    let mut db = Db::new(schema(tables));
    let id = |n: u8| format!("0000000{n}-0000-4000-8000-000000000000");
    db.insert(
        "projects",
        "ann",
        [
            id(1).into(),
            "study".into(),
            "ann".into(),
            1.into(),
            5.into(),
        ],
    );
    for (n, who, role) in [(2, "ben", "editor"), (3, "cyd", "viewer")] {
        db.insert(
            "project_members",
            "ann",
            [id(n).into(), id(1).into(), who.into(), role.into()],
        );
    }
    db.insert(
        "tasks",
        "ann",
        [
            id(4).into(),
            id(1).into(),
            "read".into(),
            0.into(),
            1.5.into(),
        ],
    );
    db
}

fn row(db: &Db, table: &str) -> Stored {
    let number = db.schema.table(table).unwrap().number;
    db.rows
        .values()
        .find(|row| row.table == number)
        .unwrap()
        .clone()
}

#[test]
fn ru27_what_holds_and_what_is_missing_is_said_in_words() {
    let db = shared();
    let (project, task) = (row(&db, "projects"), row(&db, "tasks"));
    let told = [
        db.told("ben", Action::Read, &task),
        db.told("dan", Action::Read, &task),
        db.told("ben", Action::Update, &project),
        db.told("cyd", Action::Delete, &project),
        db.told("dan", Action::Update, &project),
    ];
    insta::assert_snapshot!(told.join("\n"), @"
    ben read: true
      + readers of its row in projects (project_id): row '00000001-0000-4000-8000-000000000000' of projects is readable by users listed in project_members (project_id, user_id); through row '00000002-0000-4000-8000-000000000000' of project_members
      - everybody if auth.claim('role') = 'support': auth.claim('role') = 'support' does not hold: auth.claim('role') is NULL
    dan read: false
      - readers of its row in projects (project_id): row '00000001-0000-4000-8000-000000000000' of projects is not readable by this user: _owner = auth.uid() does not hold: _owner is 'ann', auth.uid() is 'dan'; or there is no row in project_members with project_id = '00000001-0000-4000-8000-000000000000' and user_id = 'dan'
      - everybody if auth.claim('role') = 'support': auth.claim('role') = 'support' does not hold: auth.claim('role') is NULL
    ben update: false
      - its owner: _owner = auth.uid() does not hold: _owner is 'ann', auth.uid() is 'ben'
      - users listed in project_members (project_id, user_id) with role IN ('owner', 'editor') if archived = 0: archived = 0 does not hold: archived is 1
    cyd delete: false
      - its owner: _owner = auth.uid() does not hold: _owner is 'ann', auth.uid() is 'cyd'
      - users listed in project_members (project_id, user_id) with role IN ('owner', 'editor') if archived = 0: archived = 0 does not hold: archived is 1; row '00000003-0000-4000-8000-000000000000' of project_members is there, but role IN ('owner', 'editor') does not hold: role is 'viewer'
    dan update: false
      - its owner: _owner = auth.uid() does not hold: _owner is 'ann', auth.uid() is 'dan'
      - users listed in project_members (project_id, user_id) with role IN ('owner', 'editor') if archived = 0: archived = 0 does not hold: archived is 1; there is no row in project_members with project_id = '00000001-0000-4000-8000-000000000000' and user_id = 'dan' and role IN ('owner', 'editor')
    ");
}

#[test]
fn ru27_everybody_who_may_is_named_with_the_rows_that_say_so() {
    let db = shared();
    let (project, task) = (row(&db, "projects"), row(&db, "tasks"));
    let people = [
        db.people(Action::Read, &task),
        "--".to_owned(),
        db.people(Action::Update, &task),
        "--".to_owned(),
        db.people(Action::Delete, &project),
    ];
    insta::assert_snapshot!(people.join("\n"), @"
    user 'ann' | readers of its row in projects (project_id) | row '00000001-0000-4000-8000-000000000000' of projects
    user 'ben' | readers of its row in projects (project_id) | row '00000001-0000-4000-8000-000000000000' of projects < row '00000002-0000-4000-8000-000000000000' of project_members
    user 'cyd' | readers of its row in projects (project_id) | row '00000001-0000-4000-8000-000000000000' of projects < row '00000003-0000-4000-8000-000000000000' of project_members
    users whose auth.claim('role') is 'support' | everybody if auth.claim('role') = 'support' |
    --
    user 'ann' | writers of its row in projects (project_id) | row '00000001-0000-4000-8000-000000000000' of projects
    --
    user 'ann' | its owner |
    ");
}

#[test]
fn ru27_an_update_is_explained_on_the_row_before_and_the_row_after() {
    let mut tables = tracker();
    tables[0] = tables[0].clone().write("owner_id = auth.uid()");
    let mut db = Db::new(schema(tables));
    let id = "00000001-0000-4000-8000-000000000000";
    let mine = db.insert(
        "projects",
        "ann",
        [id.into(), "study".into(), "ann".into(), 0.into(), 5.into()],
    );
    let given_away = db.row(
        "projects",
        "ann",
        [id.into(), "study".into(), "ben".into(), 0.into(), 5.into()],
    );
    let change = Proposed {
        before: Some(mine),
        after: Some(given_away),
    };
    let verdict = db.explained_change(&user("ann"), Action::Update, &change);
    assert!(!verdict.allowed);
    let lacks = verdict.reasons.iter().find(|reason| !reason.holds).unwrap();
    insta::assert_snapshot!(lacks.because.join("; "), @"the row after: owner_id = auth.uid() does not hold: owner_id is 'ben', auth.uid() is 'ann'");
}

#[test]
fn ru27_where_nobody_may_nothing_is_said() {
    let db = Db::new(schema([table("notes", "id text, text text")]));
    let note = db.row("notes", "ann", ["n".into(), "x".into()]);
    let verdict = db.explained(&user("ann"), Action::Read, &note);
    assert_eq!(
        verdict,
        Verdict {
            allowed: false,
            reasons: Vec::new()
        }
    );
    assert_eq!(db.people(Action::Read, &note), "");
}

impl Way {
    fn fits(&self, judge: &Judge<'_, Plain<'_, Db>>) -> bool {
        let is = self
            .is
            .iter()
            .all(|(term, value)| term.of(judge.identity).equals(&Seen::from(value)));
        let listed = self.listed.iter().all(|chain| {
            let Ok(listed) = judge.chain(chain, Env::user(judge.identity));
            listed
        });
        is && listed && all_hold(&self.conds, Env::user(judge.identity))
    }
}

fn agree(db: &Db, people: &[Identity], action: Action) {
    for identity in people {
        let judge = Judge {
            rules: &db.rules.compiled,
            lookup: &Plain(db),
            identity,
        };
        let explainer = Explainer {
            schema: &db.schema,
            rules: &db.rules.compiled,
            judge,
        };
        for row in db.rows.values() {
            let verdict = db.explained(identity, action, row);
            assert_eq!(verdict.allowed, verdict.reasons.iter().any(|r| r.holds));
            for reason in verdict.reasons.iter().filter(|reason| !reason.holds) {
                assert!(!reason.because.is_empty(), "{row:?} {reason:?}");
            }
            let table = db.rules.compiled.by_number[&row.table];
            let all = Alternative::all(&db.schema, &db.rules.compiled, table, action);
            let may = all.iter().any(|alternative| {
                let Ok(ways) = explainer.ways(alternative, action, row);
                ways.iter().any(|way| way.fits(&explainer.judge))
            });
            assert_eq!(verdict.allowed, may, "{action:?} {identity:?} {row:?}");
        }
    }
}

proptest! {
    #[test]
    fn ru27_explanations_agree_with_the_judge(
        schema in readable_schema(),
        steps in steps(30),
        people in vec(identity(), 1..3),
    ) {
        agree(&Db::filled(schema, &steps), &people, Action::Read);
    }

    #[test]
    fn ru27_explanations_of_writes_agree_with_the_judge(
        schema in writable_schema(),
        steps in steps(30),
        people in vec(identity(), 1..3),
    ) {
        let db = Db::filled(schema, &steps);
        for action in [Action::Create, Action::Update, Action::Delete] {
            agree(&db, &people, action);
        }
    }
}
