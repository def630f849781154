//! `syncline users` and `syncline audit`, beside a server that runs.

use crate::support::{Scratch, Server, exit};

#[test]
fn ac12_an_operator_keeps_accounts_beside_the_running_server() {
    let scratch = Scratch::new();
    let _server = Server::dev(&scratch, "data");
    let users = |args: &[&str]| {
        let all: Vec<&str> = [&["users"], args, &["--data", "data"]].concat();
        scratch.run(&all)
    };
    let added = users(&["add", "Ana@example.com", "--claim", "role=editor"]);
    let added = added.expect(exit::DONE).one("user_changed");
    assert_eq!(added["email"], "ana@example.com");
    let password = added["password"].as_str().expect("one was made");
    assert!(password.len() >= 20, "{password}");
    users(&["add", "ana@example.com"]).expect(exit::ALREADY_THERE);
    users(&["add", "no address"]).expect(exit::USAGE);
    users(&["add", "eve@example.com", "--claim", "sub=root"]).expect(exit::USAGE);
    scratch.write("password", "four quick red hens\n");
    let ben = users(&["add", "ben@example.com", "--password-file", "password"]);
    assert!(ben.expect(exit::DONE).one("user_changed")["password"].is_null());
    scratch.write("weak", "password1234\n");
    users(&[
        "reset-password",
        "ben@example.com",
        "--password-file",
        "weak",
    ])
    .expect(exit::USAGE);

    users(&["disable", "ben@example.com"]).expect(exit::DONE);
    users(&[
        "claims",
        added["id"].as_str().expect("an id"),
        "role=owner",
        "level=3",
    ])
    .expect(exit::DONE);
    let listed = users(&["list"]).expect(exit::DONE).all("user");
    assert_eq!(listed.len(), 2);
    assert_eq!(
        listed[0]["claims"],
        serde_json::json!({ "role": "owner", "level": 3 })
    );
    assert_eq!(
        (&listed[0]["disabled"], &listed[1]["disabled"]),
        (&false.into(), &true.into())
    );
    users(&["enable", "ben@example.com"]).expect(exit::DONE);
    users(&["remove", "ben@example.com"]).expect(exit::DONE);
    users(&["remove", "ben@example.com"]).expect(exit::NOT_FOUND);
    let said = scratch
        .say(&["users", "list", "--data", "data"])
        .expect(exit::DONE)
        .stdout;
    assert!(
        said.contains("ana@example.com") && said.contains("1 account"),
        "{said}"
    );

    let audit = |args: &[&str]| {
        let all: Vec<&str> = [&["audit", "--data", "data"], args].concat();
        scratch.run(&all).expect(exit::DONE)
    };
    let kinds: Vec<String> = audit(&[])
        .all("audit_record")
        .iter()
        .map(|record| record["kind"].as_str().expect("a kind").to_owned())
        .collect();
    let all = [
        "account_removed",
        "account_enabled",
        "claims_set",
        "account_disabled",
        "account_added",
        "account_added",
    ];
    assert_eq!(kinds, all);
    let of_ana = audit(&["--user", "ana@example.com"]).all("audit_record");
    assert_eq!(of_ana.len(), 2);
    assert_eq!(audit(&["--limit", "1"]).all("audit_record").len(), 1);
    assert_eq!(audit(&["--verify"]).one("audit_verified")["records"], 6);
    let database = scratch.path("data/syncline.db");
    crate::support::sql(
        &database,
        "UPDATE syncline_audit SET kind = 'nothing' WHERE number = 2",
    );
    scratch
        .run(&["audit", "--verify", "--data", "data"])
        .expect(exit::DIFFERS);
    scratch
        .run(&["users", "list", "--data", "elsewhere"])
        .expect(exit::NOT_FOUND);
}
