//! Rights to write that people give one another, in the audit log.

use std::time::Duration;

use serde_json::{Value, json};
use syncline_store::accounts::{AuditEvent, AuditWant, transact};

use super::super::{Net, SOON};

#[tokio::test]
async fn ac17_a_role_that_changes_is_in_the_audit_log_without_the_row() {
    let net = Net::start().await;
    let push = async |user: &str, key: u128, changes: Value| {
        let request = net.post("/v1/push", user);
        let request = request.header("Idempotency-Key", format!("{key:032x}"));
        let answer = request.json(&json!({ "changes": changes })).send().await;
        assert_eq!(answer.expect("an answer").status(), 200, "{changes}");
    };
    let insert = |table: &str, row: Value| json!({ "op": "insert", "table": table, "row": row });
    let member = |id: &str, user: &str, role: &str| {
        let row = json!({ "id": id, "project_id": "canary-p", "user_id": user, "role": role });
        insert("members", row)
    };
    let role = |id: &str, role: &str| {
        let row = json!({ "role": role });
        json!({ "op": "update", "table": "members", "key": { "id": id }, "row": row })
    };
    let project = insert(
        "projects",
        json!({ "id": "canary-p", "name": "canary-name" }),
    );
    let made = [
        project,
        member("m1", "ana", "editor"),
        member("m2", "bob", "viewer"),
    ];
    push("ana", 1, json!(made)).await;
    push("ana", 2, json!([role("m2", "editor")])).await;
    // He goes on to write what he may now: the title says nothing to the log.
    let task = json!({ "id": "canary-t", "project_id": "canary-p", "title": "canary-title" });
    push("bob", 3, json!([insert("tasks", task)])).await;
    // A task that is called like the project comes first, and goes with the role: that hides nothing.
    let like_it = json!({ "id": "canary-p", "project_id": "canary-p", "title": "canary-title" });
    push("ana", 7, json!([insert("tasks", like_it)])).await;
    let hidden = json!({ "op": "delete", "table": "tasks", "key": { "id": "canary-p" } });
    push("ana", 4, json!([role("m2", "viewer"), hidden])).await;
    // A project that comes and goes with all who are in it takes nothing from anybody.
    let delete =
        |table: &str, id: &str| json!({ "op": "delete", "table": table, "key": { "id": id } });
    let other = json!({ "id": "q", "name": "canary-other" });
    let eve = json!({ "id": "m3", "project_id": "q", "user_id": "eve", "role": "editor" });
    push(
        "ana",
        5,
        json!([insert("projects", other), insert("members", eve)]),
    )
    .await;
    push(
        "ana",
        6,
        json!([delete("members", "m3"), delete("projects", "q")]),
    )
    .await;
    net.elsewhere("UPDATE members SET role = 'editor' WHERE id = 'm2'");

    let records = || -> Vec<AuditEvent> {
        let want = AuditWant {
            max: 100,
            ..Default::default()
        };
        let all = transact(&net.store(), |records| records.audit(&want)).expect("it reads");
        all.into_iter().map(|record| record.event).rev().collect()
    };
    let told = tokio::time::timeout(SOON, async {
        loop {
            let found = records();
            let by_others = |event: &AuditEvent| event.detail.ends_with("by another program");
            if found.iter().any(by_others) {
                break found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let told: Vec<_> = told
        .await
        .expect("it is written")
        .iter()
        .map(|event| {
            let (kind, by, user) = (&event.kind, &event.actor, &event.subject);
            format!("{kind} {by} {user}: {}", event.detail)
        })
        .collect();
    let all = told.join("\n");
    assert!(!all.contains("canary"), "{all}");
    let rights = "rights to create, update, delete rows of projects, members, tasks by a row of \
                  members";
    for record in [
        format!("rights_given ana bob: {rights}"),
        format!("rights_taken ana bob: {rights}"),
        format!("rights_given  bob: {rights}, by another program"),
    ] {
        assert_eq!(
            told.iter().filter(|t| **t == record).count(),
            1,
            "{record} in\n{all}"
        );
    }
    assert!(all.contains("rights_given ana eve: "), "{all}");
    assert!(!all.contains("rights_taken ana eve"), "{all}");
    // What she makes is hers without a word.
    assert!(!all.contains("ana ana"), "{all}");
}

#[tokio::test]
async fn ac16_access_is_given_and_written_down_together_or_not_at_all() {
    let net = Net::start().await;
    let push = async |key: u128, changes: Value| {
        let request = net.post("/v1/push", "ana");
        let request = request.header("Idempotency-Key", format!("{key:032x}"));
        let answer = request.json(&json!({ "changes": changes })).send().await;
        answer.expect("an answer").status().as_u16()
    };
    let insert = |table: &str, row: Value| json!({ "op": "insert", "table": table, "row": row });
    let member = |id: &str, user: &str| {
        let row = json!({ "id": id, "project_id": "p", "user_id": user, "role": "editor" });
        insert("members", row)
    };
    let told = |user: &str| -> Vec<String> {
        let want = AuditWant {
            user: Some(user.to_owned()),
            max: 100,
            ..Default::default()
        };
        let all = transact(&net.store(), |records| records.audit(&want)).expect("it reads");
        let all = all.into_iter().rev().map(|record| record.event);
        all.map(|event| format!("{}: {}", event.kind, event.detail))
            .collect()
    };
    let project = insert("projects", json!({ "id": "p", "name": "a name" }));
    assert_eq!(push(1, json!([project, member("m1", "ana")])).await, 200);
    // Whoever has the answer has it from the disk, and the record is there, too.
    assert_eq!(push(2, json!([member("m2", "bob")])).await, 200);
    let of_bob = told("bob");
    assert_eq!(of_bob.len(), 2, "{of_bob:?}");
    assert!(of_bob[0].starts_with("access_given: "), "{of_bob:?}");
    assert!(of_bob[1].starts_with("rights_given: "), "{of_bob:?}");

    // What cannot be written down does not happen.
    net.elsewhere("ALTER TABLE syncline_audit RENAME TO syncline_audit_away");
    let cyd = json!([member("m3", "cyd")]);
    assert_ne!(push(3, cyd.clone()).await, 200);
    let members = || {
        let path = net.folder.path().join("server.db");
        let database = rusqlite::Connection::open(path).expect("the file is there");
        let count = "SELECT count(*) FROM members WHERE user_id = 'cyd'";
        database
            .query_row(count, [], |row| row.get::<_, i64>(0))
            .expect("it counts")
    };
    assert_eq!(members(), 0);
    // And what gives nobody access does.
    let plain = insert("projects", json!({ "id": "q", "name": "a name" }));
    assert_eq!(push(4, json!([plain])).await, 200);

    net.elsewhere("ALTER TABLE syncline_audit_away RENAME TO syncline_audit");
    assert_eq!(push(3, cyd).await, 200, "the same once more");
    let of_cyd = told("cyd");
    assert_eq!((members(), of_cyd.len()), (1, 2), "{of_cyd:?}");
    assert!(
        !of_cyd.join("").contains("times"),
        "counted once: {of_cyd:?}"
    );
}
