//! What a right file says.

use super::*;
use crate::{
    ids::{ColumnNumber, TableNumber},
    schema::{ColumnType, ForeignKey, MergeStrategy, OnDelete, SyncMode, Table},
};

/// The example of the design, in which every key occurs.
const EXAMPLE: &str = r#"
[server]
listen = "0.0.0.0:7117"
admin_listen = "[::1]:7118"
data = "/var/lib/syncline"
database = "app.db"
origins = ["https://app.example.com", "http://localhost:5173"]
trusted_proxies = ["10.0.0.0/8", "::1"]
retention_days = 90
history_days = 0
audit_days = 7
hsts_days = 30
sign_up = true
verify_email = false
app_url = "https://app.example.com/account"
smtp = "smtps://app%40example.com@mail.example.com"
smtp_password_file = "/run/secrets/smtp"
mail_from = "App <no-reply@example.com>"
provider_issuer = "https://id.example.com/"
provider_audience = "app"
provider_jwks = "https://id.example.com/jwks.json"
provider_secret_file = "/run/secrets/jwt"
tls_cert = "/etc/tls/cert.pem"
tls_key = "/etc/tls/key.pem"
acme_domains = ["sync.example.com", "localhost"]
acme_contact = "ops@example.com"
acme_directory = "https://ca.example.com/acme"
acme_ca_file = "/etc/tls/ca.pem"
schema = "external"

[limits]
user_connections = 20
device_subscriptions = 50
messages_per_second = 100
bytes_per_second = 1_000_000
user_requests_per_second = 50
address_requests_per_second = 500
user_reads = 3
changeset_rows = 1_000
changeset_bytes = 1_048_576
row_bytes = 65_536
user_rows = 20_000
user_bytes = 5_000_000_000
device_rows = 300_000

[tables.projects]
columns = { id = "uuid primary key", name = "text not null", tags = "json", settings = "json", budget = "integer default 0" }
indexes = [["name"]]
read  = "_owner = auth.uid()"
write = "_owner = auth.uid()"
merge = { tags = "set", budget = "manual", "settings.goals" = "set", settings.limits."a.b" = "append" }

[tables.tasks]
columns = { id = "integer primary key autoincrement", project_id = "uuid not null REFERENCES projects (id) ON DELETE CASCADE", title = "text not null default '' check (length(title) < 100) collate nocase", done = "boolean default (1 - 1)", price = "real default -1.5 unique", full = "text generated" }
unique = [["project_id", "title"]]
create = "true"
update = "false"
delete = "true"
force  = { TITLE = "auth.uid()" }
sync   = "on_demand"
on_delete = "update-wins"
renamed_from = "todos"
renamed = { done = "finished" }
merge = { "*" = "server-wins", price = "counter" }

[tables.members]
primary_key = ["project_id", "user_id"]
foreign_keys = ["(project_id) references projects"]
without_rowid = true
[tables.members.columns]
project_id = "uuid"
user_id = "text"

[tables.legacy]
read = "true"
merge = { tags = "set", "*" = "manual" }
"#;

fn table<'c>(config: &'c Config, name: &str) -> &'c Table {
    config.schema.table(name).unwrap()
}

#[test]
fn cf4_every_key_of_server_is_read() {
    let server = parse(EXAMPLE).server;
    let expected = ServerConfig {
        listen: "0.0.0.0:7117".into(),
        admin_listen: Some("[::1]:7118".into()),
        data: "/var/lib/syncline".into(),
        database: Some("app.db".into()),
        origins: vec![
            "https://app.example.com".into(),
            "http://localhost:5173".into(),
        ],
        trusted_proxies: vec!["10.0.0.0/8".into(), "::1".into()],
        retention_days: 90,
        history_days: 0,
        audit_days: 7,
        hsts_days: 30,
        sign_up: true,
        verify_email: false,
        app_url: Some("https://app.example.com/account".into()),
        smtp: Some("smtps://app%40example.com@mail.example.com".into()),
        smtp_password_file: Some("/run/secrets/smtp".into()),
        mail_from: Some("App <no-reply@example.com>".into()),
        provider_issuer: Some("https://id.example.com/".into()),
        provider_audience: Some("app".into()),
        provider_jwks: Some("https://id.example.com/jwks.json".into()),
        provider_secret_file: Some("/run/secrets/jwt".into()),
        tls_cert: Some("/etc/tls/cert.pem".into()),
        tls_key: Some("/etc/tls/key.pem".into()),
        acme_domains: vec!["sync.example.com".into(), "localhost".into()],
        acme_contact: Some("ops@example.com".into()),
        acme_directory: "https://ca.example.com/acme".into(),
        acme_ca_file: Some("/etc/tls/ca.pem".into()),
        managed: false,
    };
    assert_eq!(server, expected);
    let limits = LimitsConfig {
        user_connections: 20,
        device_subscriptions: 50,
        messages_per_second: 100,
        bytes_per_second: 1_000_000,
        user_requests_per_second: 50,
        address_requests_per_second: 500,
        user_reads: 3,
        changeset_rows: 1_000,
        changeset_bytes: 1_048_576,
        row_bytes: 65_536,
        user_rows: 20_000,
        user_bytes: 5_000_000_000,
        device_rows: 300_000,
    };
    assert_eq!(parse(EXAMPLE).limits, limits);
    assert_eq!(parse("").server, ServerConfig::default());
    assert_eq!(parse("[server]"), Config::default());
}

#[test]
fn cf6_columns_are_in_the_order_of_the_file() {
    let config = parse(EXAMPLE);
    let tasks = table(&config, "tasks");
    assert_eq!(tasks.number, TableNumber(17));
    let columns: Vec<_> = tasks
        .columns
        .iter()
        .map(|c| (c.name.as_str(), c.number.0, c.ty))
        .collect();
    assert_eq!(
        columns,
        [
            ("id", 1, ColumnType::Integer),
            ("project_id", 2, ColumnType::Uuid),
            ("title", 3, ColumnType::Text),
            ("done", 4, ColumnType::Boolean),
            ("price", 5, ColumnType::Real),
            ("full", 6, ColumnType::Text),
        ]
    );
    assert_eq!(tasks.columns[0].number, ColumnNumber(1));
}

#[test]
fn cf7_constraints_are_read() {
    let config = parse(EXAMPLE);
    let tasks = table(&config, "tasks");
    assert_eq!(tasks.primary_key, [0]);
    assert!(tasks.autoincrement);
    assert_eq!(tasks.uniques, [vec![1, 2], vec![4]]);
    let title = &tasks.columns[2];
    assert!(title.not_null);
    assert_eq!(title.default.as_deref(), Some("''"));
    assert_eq!(title.check.as_deref(), Some("length(title) < 100"));
    assert_eq!(title.collate.as_deref(), Some("nocase"));
    assert_eq!(tasks.columns[3].default.as_deref(), Some("1 - 1"));
    assert_eq!(tasks.columns[4].default.as_deref(), Some("-1.5"));
    assert!(tasks.columns[5].generated);
    let reference = ForeignKey {
        columns: vec![1],
        parent: "projects".into(),
        parent_columns: vec!["id".into()],
        on_delete: OnDelete::Cascade,
    };
    assert_eq!(tasks.foreign_keys, [reference]);
}

#[test]
fn cf8_a_key_of_several_columns_is_a_list() {
    let config = parse(EXAMPLE);
    let members = table(&config, "members");
    assert_eq!(members.primary_key, [0, 1]);
    assert!(members.without_rowid);
    assert!(
        members.columns.iter().all(|column| column.not_null),
        "keys are never NULL"
    );
    assert_eq!(members.foreign_keys[0].parent_columns, Vec::<String>::new());
}

#[test]
fn cf10_rules_are_kept_as_text() {
    let config = parse(EXAMPLE);
    let tasks = table(&config, "tasks");
    assert_eq!(tasks.rules.read, None);
    assert_eq!(tasks.rules.create.as_deref(), Some("true"));
    assert_eq!(
        tasks.force.get("title").map(String::as_str),
        Some("auth.uid()")
    );
    assert_eq!(tasks.sync, SyncMode::OnDemand);
    assert!(tasks.update_wins);
}

#[test]
fn cf11_strategies_of_columns_paths_and_whole_tables() {
    let config = parse(EXAMPLE);
    let projects = table(&config, "projects");
    let merge: Vec<_> = projects.columns.iter().map(|column| column.merge).collect();
    let lww = MergeStrategy::LastWriteWins;
    assert_eq!(
        merge,
        [lww, lww, MergeStrategy::Set, lww, MergeStrategy::Manual]
    );
    let paths: Vec<_> = projects.columns[3].merge_paths.iter().collect();
    assert_eq!(
        paths,
        [
            (&"goals".to_owned(), &MergeStrategy::Set),
            (&"limits.a\\.b".to_owned(), &MergeStrategy::Append),
        ]
    );
    let tasks = table(&config, "tasks");
    assert_eq!(tasks.columns[0].merge, lww, "a key never changes");
    assert_eq!(tasks.columns[1].merge, MergeStrategy::ServerWins);
    assert_eq!(tasks.columns[4].merge, MergeStrategy::Counter);
    assert_eq!(
        tasks.columns[5].merge, lww,
        "a generated column never travels"
    );
}

#[test]
fn cf12_renames_are_read() {
    let renamed = |column: Option<&str>, from: &str| Renamed {
        table: "tasks".into(),
        column: column.map(str::to_owned),
        from: from.into(),
    };
    assert_eq!(
        parse(EXAMPLE).renamed,
        [renamed(None, "todos"), renamed(Some("done"), "finished")]
    );
}

#[test]
fn cf13_a_table_without_columns_is_filled_from_the_database() {
    let mut config = parse(EXAMPLE);
    assert_eq!(config.tables_to_adopt().collect::<Vec<_>>(), ["legacy"]);
    let text = "[tables.Legacy]\ncolumns = { id = \"text primary key\", tags = \"text\", n = \"integer\" }";
    let database = parse(text);
    config.adopt(&database.schema.tables[0]).unwrap();
    let legacy = table(&config, "legacy");
    assert_eq!(legacy.name, "legacy");
    assert_eq!(legacy.rules.read.as_deref(), Some("true"));
    assert_eq!(legacy.primary_key, [0]);
    assert_eq!(legacy.columns[1].merge, MergeStrategy::Set);
    assert_eq!(
        legacy.columns[1].ty,
        ColumnType::Json,
        "a text that merges as JSON is JSON"
    );
    assert_eq!(legacy.columns[2].merge, MergeStrategy::Manual);
    assert_eq!(config.tables_to_adopt().count(), 0);
}

#[test]
fn cf13_mistakes_show_when_the_columns_are_known() {
    let text = "[tables.a]\nforce = { usr = \"auth.uid()\" }\nmerge = { n = \"set\" }";
    let mut config = parse(text);
    let mut database = parse(
        "[tables.a]\ncolumns = { n = \"integer primary key\", user = \"text\", n2 = \"real\" }",
    );
    database.schema.tables[0].primary_key.clear();
    let errors = config
        .adopt(&database.schema.tables[0])
        .expect_err("mistakes");
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(errors.join("\n"), @r#"
    syncline.toml:1:9: tables.a has no primary key in the database (expected a primary key: it is how devices know that they mean the same row; give the table one, or take it out of this file)
    syncline.toml:2:17: tables.a.force.usr: no column `usr` (expected `n`, `user` or `n2`; write `user`)
    syncline.toml:3:11: tables.a.merge.n is `set`, and n is integer (expected a json column; write "last-write-wins", or "manual" to ask a person)
    "#);
}

#[test]
fn cf7_comments_are_no_part_of_a_column() {
    let config = parse(
        "[tables.t.columns]\nid = \"uuid primary key\"\n\
         n = '''integer check (n > 0 -- positive\n) default (1 /* one */ + 1)'''",
    );
    let column = &config.schema.tables[0].columns[1];
    assert_eq!(column.check.as_deref(), Some("n > 0"));
    assert_eq!(column.default.as_deref(), Some("1 + 1"));
    let mut mine = config.schema.clone();
    mine.tables[0].columns[1].default = Some("(2) -- two".into());
    let again = parse(&Config::new(ServerConfig::default(), mine).to_toml());
    assert_eq!(
        again.schema.tables[0].columns[1].default.as_deref(),
        Some("(2)")
    );
}

#[test]
fn cf5_columns_may_have_the_names_of_what_every_row_has() {
    let config = parse(
        "[tables.t]\ncolumns = { id = \"uuid primary key\", _version = \"integer\", _Owner = \"text\" }",
    );
    assert_eq!(config.schema.tables[0].columns.len(), 3);
}
