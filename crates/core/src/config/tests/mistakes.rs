//! Mistakes as people make them, and what they are told.

use insta::assert_snapshot;

use super::*;

#[test]
fn cf1_not_toml() {
    assert_snapshot!(mistakes("[server]\nlisten = 127.0.0.1:7117"), @r#"syncline.toml:2:15: invalid float (expected the end of the line; put texts in quotes, "like this", and lists in [ ])"#);
    assert_snapshot!(mistakes("[server]\nlisten = localhost"), @r#"syncline.toml:2:10: string values must be quoted (expected literal string; put texts in quotes, "like this", and lists in [ ])"#);
    assert_snapshot!(mistakes("[server\nlisten = \"a:1\""), @"syncline.toml:1:8: unclosed table (expected `]`; write what is missing)");
    assert_snapshot!(mistakes("[tables.a]\nread = \"true"), @r#"syncline.toml:2:13: invalid basic string (expected `"`; put texts in quotes, "like this", and lists in [ ])"#);
    assert_snapshot!(mistakes("[tables.a]\nread = \"true\"\nread = \"false\""), @"syncline.toml:3:1: duplicate key (expected each key once; keep one of the two)");
    assert_snapshot!(mistakes("[tables.a]\n[tables.b]\n[tables.a]"), @"syncline.toml:3:9: duplicate key (expected each key once; keep one of the two)");
    assert_snapshot!(mistakes("[tables.a]\nmerge = { a = \"set\" b = \"set\" }"), @"syncline.toml:2:21: missing comma between key-value pairs (expected `,`; write what is missing)");
    assert_snapshot!(mistakes("tables:\n  a: b"), @r#"
    syncline.toml:1:7: invalid unquoted key (expected letters, numbers, `-`, `_`; put names with other letters in quotes: "größe" = …)
    syncline.toml:1:8: key with no value (expected `=`; write `key = "text"`, and sections as `[tables.name]`)
    syncline.toml:2:6: key with no value (expected `=`; write `key = "text"`, and sections as `[tables.name]`)
    "#);
}

#[test]
fn cf2_unknown_keys() {
    assert_snapshot!(mistakes("[sever]"), @"syncline.toml:1:2: unknown key `sever` (expected `server`, `limits` or `tables`; write `server`)");
    assert_snapshot!(mistakes("[table.tasks]"), @"syncline.toml:1:2: unknown key `table` (expected `server`, `limits` or `tables`; write `tables`)");
    assert_snapshot!(mistakes("[server]\nlisen = \"a:1\"\nport = 80\ncolour = \"red\""), @r"
    syncline.toml:2:1: unknown key `server.lisen` (expected `listen`, `admin_listen`, `data`, `database`, `origins`, `trusted_proxies`, `retention_days`, `history_days`, `audit_days`, `hsts_days`, `sign_up`, `verify_email`, `app_url`, `smtp`, `smtp_password_file`, `mail_from`, `provider_issuer`, `provider_audience`, `provider_jwks`, `provider_secret_file`, `tls_cert`, `tls_key`, `acme_domains`, `acme_contact`, `acme_directory`, `acme_ca_file` or `schema`; write `listen`)
    syncline.toml:3:1: unknown key `server.port` (expected `listen`, `admin_listen`, `data`, `database`, `origins`, `trusted_proxies`, `retention_days`, `history_days`, `audit_days`, `hsts_days`, `sign_up`, `verify_email`, `app_url`, `smtp`, `smtp_password_file`, `mail_from`, `provider_issuer`, `provider_audience`, `provider_jwks`, `provider_secret_file`, `tls_cert`, `tls_key`, `acme_domains`, `acme_contact`, `acme_directory`, `acme_ca_file` or `schema`; write `listen`)
    syncline.toml:4:1: unknown key `server.colour` (expected `listen`, `admin_listen`, `data`, `database`, `origins`, `trusted_proxies`, `retention_days`, `history_days`, `audit_days`, `hsts_days`, `sign_up`, `verify_email`, `app_url`, `smtp`, `smtp_password_file`, `mail_from`, `provider_issuer`, `provider_audience`, `provider_jwks`, `provider_secret_file`, `tls_cert`, `tls_key`, `acme_domains`, `acme_contact`, `acme_directory`, `acme_ca_file` or `schema`; take it out)
    ");
    assert_snapshot!(mistakes("[tables.t]\nread_rule = \"true\"\nselect = \"true\""), @r"
    syncline.toml:2:1: unknown key `tables.t.read_rule` (expected `columns`, `primary_key`, `unique`, `indexes`, `foreign_keys`, `checks`, `without_rowid`, `strict`, `read`, `write`, `create`, `update`, `delete`, `force`, `sync`, `on_delete`, `merge`, `renamed_from` or `renamed`; take it out)
    syncline.toml:3:1: unknown key `tables.t.select` (expected `columns`, `primary_key`, `unique`, `indexes`, `foreign_keys`, `checks`, `without_rowid`, `strict`, `read`, `write`, `create`, `update`, `delete`, `force`, `sync`, `on_delete`, `merge`, `renamed_from` or `renamed`; write `read`)
    ");
}

#[test]
fn cf4_server() {
    assert_snapshot!(mistakes("server = \"localhost\""), @"syncline.toml:1:10: server is a string (expected a table; write a section [server])");
    assert_snapshot!(mistakes("[server]\nlisten = 7117"), @r#"syncline.toml:2:10: server.listen is a number (expected an address and a port; write for example "127.0.0.1:7117")"#);
    assert_snapshot!(mistakes("[server]\nlisten = \"7117\"\nadmin_listen = \"localhost:99999\""), @r#"
    syncline.toml:2:10: server.listen is `7117` (expected an address and a port; write for example "127.0.0.1:7117")
    syncline.toml:3:16: server.admin_listen is `localhost:99999` (expected an address and a port; write for example "127.0.0.1:7117")
    "#);
    assert_snapshot!(mistakes("[server]\ndata = \"\"\nretention_days = \"30\""), @r"
    syncline.toml:2:8: server.data is empty (expected the folder for the server's files; take it out or fill it in)
    syncline.toml:3:18: server.retention_days is a string (expected a number of days from 1 to 3650; write for example 30)
    ");
    assert_snapshot!(mistakes("[server]\nretention_days = 0"), @"syncline.toml:2:18: server.retention_days is 0 (expected a number of days from 1 to 3650; write for example 30)");
    assert_snapshot!(mistakes("[server]\norigins = \"https://a.example\""), @r#"syncline.toml:2:11: server.origins is a string (expected a list of strings; write ["https://a.example"])"#);
    assert_snapshot!(mistakes("[server]\norigins = [\"*\", \"https://a.example/app\", \"a.example\"]"), @r#"
    syncline.toml:2:12: `*` cannot be used here (expected scheme and host of an app's pages, without a path; write for example "https://app.example.com")
    syncline.toml:2:17: `https://a.example/app` cannot be used here (expected scheme and host of an app's pages, without a path; write for example "https://app.example.com")
    syncline.toml:2:42: `a.example` cannot be used here (expected scheme and host of an app's pages, without a path; write for example "https://app.example.com")
    "#);
    assert_snapshot!(mistakes("[server]\ntrusted_proxies = [\"10.0.0.0/33\"]"), @r#"syncline.toml:2:20: `10.0.0.0/33` cannot be used here (expected an IP address or network; write for example "10.0.0.0/8" or "::1")"#);
    assert_snapshot!(mistakes("[server]\nschema = \"auto\""), @r#"syncline.toml:2:10: server.schema is `auto` (expected `managed` or `external`; write "managed" to have tables created from this file, "external" to have them only read)"#);
}

#[test]
fn cf16_limits() {
    assert_snapshot!(mistakes("[limits]\nchangeset_rows = \"many\"\nrow_bytes = 10"), @r"
    syncline.toml:2:18: limits.changeset_rows is a string (expected a number of rows from 1 to 100000; write for example 100000)
    syncline.toml:3:13: limits.row_bytes is 10 (expected a number of bytes from 1024 to 67108864; write for example 67108864)
    ");
    assert_snapshot!(mistakes("[limits]\nbytes_per_second = 1000\nchangeset_bytes = 1_000_000_000\nuser_connections = 0"), @r"
    syncline.toml:2:20: limits.bytes_per_second is 1000 (expected a number of bytes from 262144 to 4294967295; write for example 33554432)
    syncline.toml:3:19: limits.changeset_bytes is 1000000000 (expected a number of bytes from 1024 to 67108864; write for example 67108864)
    syncline.toml:4:20: limits.user_connections is 0 (expected a number of connections from 1 to 4294967295; write for example 64)
    ");
    assert_snapshot!(mistakes("[limits]\nrows = 10"), @"syncline.toml:2:1: unknown key `limits.rows` (expected `user_connections`, `device_subscriptions`, `messages_per_second`, `bytes_per_second`, `user_requests_per_second`, `address_requests_per_second`, `user_reads`, `changeset_rows`, `changeset_bytes`, `row_bytes`, `user_rows`, `user_bytes` or `device_rows`; write `user_rows`)");
    assert_snapshot!(mistakes("[limits]\nuser_rows = -1\nuser_bytes = \"1 GB\""), @r"
    syncline.toml:2:13: limits.user_rows is -1 (expected a number of rows from 0 to 1000000000000000; write for example 1000000)
    syncline.toml:3:14: limits.user_bytes is a string (expected a number of bytes from 0 to 1000000000000000; write for example 1000000)
    ");
    assert_snapshot!(mistakes("[server]\nmessages_per_second = 100"), @"syncline.toml:2:1: unknown key `server.messages_per_second` (expected `listen`, `admin_listen`, `data`, `database`, `origins`, `trusted_proxies`, `retention_days`, `history_days`, `audit_days`, `hsts_days`, `sign_up`, `verify_email`, `app_url`, `smtp`, `smtp_password_file`, `mail_from`, `provider_issuer`, `provider_audience`, `provider_jwks`, `provider_secret_file`, `tls_cert`, `tls_key`, `acme_domains`, `acme_contact`, `acme_directory`, `acme_ca_file` or `schema`; write `it in [limits]`)");
}

#[test]
fn cf4_a_database_is_a_file() {
    assert_snapshot!(mistakes("[server]\ndatabase = \"postgres://db.example/app\""), @"syncline.toml:2:12: server.database is in PostgreSQL, which this version cannot use yet (expected a file; write the path of an SQLite file, or leave it out for one in `data`)");
    assert_snapshot!(mistakes("[server]\ndatabase = \"mysql://db.example/app\""), @"syncline.toml:2:12: server.database is an address of `mysql` (expected a file; write the path of an SQLite file, or leave it out for one in `data`)");
    for file in [
        "app.db",
        "C:\\\\data\\\\app.db",
        "./a b/app.db",
        "/var/app.db",
    ] {
        parse(&format!("[server]\ndatabase = \"{file}\""));
    }
}

#[test]
fn cf5_tables() {
    assert_snapshot!(mistakes("[[tables]]\nname = \"t\""), @"syncline.toml:1:1: tables is a list (expected a table; write a section [tables.NAME] for each table)");
    assert_snapshot!(mistakes("[tables]\nt = \"id uuid\""), @"syncline.toml:2:5: tables.t is a string (expected a table; write a section [tables.t])");
    assert_snapshot!(mistakes("[tables.syncline_tx]"), @"syncline.toml:1:9: tables.syncline_tx has a reserved name (expected a table of an app; take it out, or rename the table)");
    assert_snapshot!(mistakes("[tables.a]\n[tables.A]"), @"syncline.toml:2:9: tables.A is there already: SQL does not tell upper from lower case (expected each table once; keep one of the two)");
    assert_snapshot!(mistakes("[tables.a]\ncolumns = [\"id\"]"), @r#"syncline.toml:2:11: tables.a.columns is a list (expected a table; write columns = { id = "uuid primary key", title = "text" })"#);
    assert_snapshot!(mistakes("[tables.a]\ncolumns = { id = { type = \"uuid\" } }"), @r#"syncline.toml:2:18: tables.a.columns.id is a table (expected a string; write type and constraints in quotes, for example "text not null")"#);
    assert_snapshot!(of_columns("ID = \"text\""), @"syncline.toml:2:38: tables.t.columns.ID is there already: SQL does not tell upper from lower case (expected each column once; keep one of the two)");
    assert_snapshot!(mistakes("[tables.a]\nsync = \"lazy\"\non_delete = \"cascade\""), @r#"
    syncline.toml:2:8: tables.a.sync is `lazy` (expected `auto` or `on_demand`; write "on_demand" to send rows only when an app asks for them)
    syncline.toml:3:13: tables.a.on_delete is `cascade` (expected `delete-wins` or `update-wins`: what happens to a row that one device deleted while another changed it; what happens to children of a deleted row is written in their column: "uuid references parent on delete cascade")
    "#);
    assert_snapshot!(mistakes("[tables.a]\nunique = [[\"a\"]]"), @"syncline.toml:2:1: tables.a.unique is said of a table without columns (expected a table with `columns`, or nothing: it is taken from the database as it is; add `columns`, or take this out)");
}

#[test]
fn cf6_types() {
    assert_snapshot!(of_columns("a = \"varchar(20)\""), @"syncline.toml:2:43: tables.t.columns.a: `varchar` is no type of a column (expected a type: `text`, `integer`, `real`, `boolean`, `json`, `blob`, `timestamp`, `uuid` or `any`; write `text`)");
    assert_snapshot!(of_columns("a = \"text(20)\""), @"syncline.toml:2:47: tables.t.columns.a: `(` is not understood here (expected no length: types have none; write `text`, and a limit as `check (length(name) <= 100)`)");
    assert_snapshot!(of_columns("a = \"jsonb\", b = \"decimal(10,2)\", c = \"serial\""), @r"
    syncline.toml:2:43: tables.t.columns.a: `jsonb` is no type of a column (expected a type: `text`, `integer`, `real`, `boolean`, `json`, `blob`, `timestamp`, `uuid` or `any`; write `json`)
    syncline.toml:2:56: tables.t.columns.b: `decimal` is no type of a column (expected a type: `text`, `integer`, `real`, `boolean`, `json`, `blob`, `timestamp`, `uuid` or `any`; write `integer` and count in the smallest unit (cents), or `real`)
    syncline.toml:2:77: tables.t.columns.c: `serial` is no type of a column (expected a type: `text`, `integer`, `real`, `boolean`, `json`, `blob`, `timestamp`, `uuid` or `any`; write `integer primary key autoincrement`)
    ");
    assert_snapshot!(of_columns("a = \"txt\", b = \"colour\""), @r"
    syncline.toml:2:43: tables.t.columns.a: `txt` is no type of a column (expected a type: `text`, `integer`, `real`, `boolean`, `json`, `blob`, `timestamp`, `uuid` or `any`; write `text`)
    syncline.toml:2:54: tables.t.columns.b: `colour` is no type of a column (expected a type: `text`, `integer`, `real`, `boolean`, `json`, `blob`, `timestamp`, `uuid` or `any`; write `any` for a column of no type)
    ");
    assert_snapshot!(of_columns("a = \"\", b = \"not null\""), @r#"
    syncline.toml:2:43: tables.t.columns.a: the type is missing (expected a type: `text`, `integer`, `real`, `boolean`, `json`, `blob`, `timestamp`, `uuid` or `any`; begin with the type, for example "text")
    syncline.toml:2:51: tables.t.columns.b: `not` is no type of a column (expected a type: `text`, `integer`, `real`, `boolean`, `json`, `blob`, `timestamp`, `uuid` or `any`; write the type first, or `any` for none)
    "#);
}

#[test]
fn cf7_constraints() {
    assert_snapshot!(of_columns("a = \"text not nul\""), @"syncline.toml:2:52: tables.t.columns.a: `nul` is not understood here (expected `not null`; write `not null`)");
    assert_snapshot!(of_columns("a = \"text requird\", b = \"text nullable\""), @r"
    syncline.toml:2:48: tables.t.columns.a: `requird` is not understood here (expected `primary key`, `not null`, `default`, `unique`, `check`, `collate`, `references`, `generated`, `declared` or `encrypted`; take it out)
    syncline.toml:2:68: tables.t.columns.b: `nullable` is not understood here (expected `primary key`, `not null`, `default`, `unique`, `check`, `collate`, `references`, `generated`, `declared` or `encrypted`; take `nullable` out: a column may be NULL unless it says `not null`)
    ");
    assert_snapshot!(of_columns("a = \"text, not null\""), @"syncline.toml:2:47: tables.t.columns.a: `,` is not understood here (expected `primary key`, `not null`, `default`, `unique`, `check`, `collate`, `references`, `generated`, `declared` or `encrypted`; leave out the comma)");
    assert_snapshot!(of_columns("a = \"text not null not null\""), @"syncline.toml:2:57: tables.t.columns.a: `not` is there twice (expected each constraint once; take one out)");
    assert_snapshot!(of_columns("a = \"text default now()\", b = \"text default open\""), @r"
    syncline.toml:2:56: tables.t.columns.a: `now` is not understood here (expected a literal, or an expression in parentheses; write `default current_timestamp`)
    syncline.toml:2:82: tables.t.columns.b: `open` is not understood here (expected a literal, or an expression in parentheses; write 'open' for a text, (…) around an expression)
    ");
    assert_snapshot!(of_columns("a = 'text default \"open\"'"), @r#"syncline.toml:2:56: tables.t.columns.a: "open" in double quotes is a name (expected a literal, or an expression in parentheses; write 'open')"#);
    assert_snapshot!(of_columns("a = \"integer default\", b = \"integer default - \""), @r"
    syncline.toml:2:58: tables.t.columns.a: it ends too early (expected a literal, or an expression in parentheses; write for example `default 0`)
    syncline.toml:2:84: tables.t.columns.b: it ends too early (expected a number; write for example `default -1`)
    ");
    assert_snapshot!(of_columns("a = \"text check length(a) > 0\""), @"syncline.toml:2:54: tables.t.columns.a: `length` is not understood here (expected `(`; write `check (length(name) > 0)`)");
    assert_snapshot!(of_columns("a = \"text check (length(a) > 0\", b = \"text check ()\""), @r"
    syncline.toml:2:54: tables.t.columns.a: `(` is never closed (expected `)`; write `check (length(name) > 0)`)
    syncline.toml:2:81: tables.t.columns.b: `check ()` says nothing (expected an expression; write the expression between the parentheses, or leave out `check`)
    ");
    assert_snapshot!(of_columns("a = \"text default 'it\""), @"syncline.toml:2:56: tables.t.columns.a: unterminated string literal (expected SQL words; close what was opened: quotes with quotes, `(` with `)`)");
    assert_snapshot!(of_columns("a = \"text generated always stored\", b = \"text generated always as ()\", c = \"integer generated by default as identity\""), @r#"
    syncline.toml:2:65: tables.t.columns.a: `stored` is not understood here (expected `as`; write `generated always as (upper(name))`, or `generated` alone: then the database says how)
    syncline.toml:2:84: tables.t.columns.b: `as ()` says nothing (expected an expression; write the expression between the parentheses, or leave out `as`)
    syncline.toml:2:132: tables.t.columns.c: `by` is not understood here (expected `always as`; write `integer primary key autoincrement`)
    "#);
    assert_snapshot!(of_columns("a = \"text declared VARCHAR\", b = \"text declared 'VARCHAR(1) CHECK (0)'\""), @r#"
    syncline.toml:2:57: tables.t.columns.a: `VARCHAR` is not understood here (expected the name of a type in single quotes; write for example `declared 'VARCHAR(20)'`)
    syncline.toml:2:86: tables.t.columns.b: `'VARCHAR(1) CHECK (0)'` is not understood here (expected the name of a type in single quotes; write for example `declared 'VARCHAR(20)'`)
    "#);
    assert_snapshot!(of_columns("é = \"text  nott null\""), @r#"syncline.toml:2:38: invalid unquoted key (expected letters, numbers, `-`, `_`; put names with other letters in quotes: "größe" = …)"#);
}

#[test]
fn cf15_indexes_that_are_more_than_columns() {
    assert_snapshot!(mistakes("[tables.t]\ncolumns = { a = \"uuid primary key\" }\nchecks = [\"a <> (1\"]\nunique = [\"(lower(a)\"]\nindexes = [\"() where a\", \"(a) if b\", \"(a) where\", \"(a) where a) --\"]"), @r#"
    syncline.toml:3:11: tables.t.checks has a text that is no condition (expected an SQL condition on the columns of the table; write for example checks = ["starts < ends"])
    syncline.toml:4:11: tables.t.unique: `(` is never closed (expected `)`; write for example "(lower(name)) where done = 0")
    syncline.toml:5:12: tables.t.indexes: it is no index (expected columns or expressions in parentheses, and `where` a condition; write for example "(lower(name)) where done = 0")
    syncline.toml:5:26: tables.t.indexes: `if` is not understood here (expected `where`, or the end; write for example "(lower(name)) where done = 0")
    syncline.toml:5:38: tables.t.indexes: it is no index (expected columns or expressions in parentheses, and `where` a condition; write for example "(lower(name)) where done = 0")
    syncline.toml:5:51: tables.t.indexes: it is no index (expected columns or expressions in parentheses, and `where` a condition; write for example "(lower(name)) where done = 0")
    "#);
}

#[test]
fn cf8_keys() {
    assert_snapshot!(mistakes("[tables.t]\ncolumns = { a = \"text\" }"), @r#"syncline.toml:1:9: tables.t has no primary key (expected a primary key: it is how devices know that they mean the same row; write id = "uuid primary key", or primary_key = ["a", "b"] for several columns)"#);
    assert_snapshot!(mistakes("[tables.t]\ncolumns = { a = \"text primary key\", b = \"text primary key\" }"), @r#"syncline.toml:2:41: tables.t has `primary key` on 2 columns (expected one; take it out of both and write primary_key = ["a", "b"])"#);
    assert_snapshot!(mistakes("[tables.t]\nprimary_key = [\"a\", \"bb\"]\ncolumns = { a = \"text\", b = \"text\" }"), @"syncline.toml:2:21: tables.t.primary_key: no column `bb` (expected `a` or `b`; add the column, or take this out)");
    assert_snapshot!(mistakes("[tables.t]\nprimary_key = \"a\"\ncolumns = { a = \"text\" }"), @r#"syncline.toml:2:15: tables.t.primary_key is a string (expected a list of strings; write ["a"])"#);
    assert_snapshot!(mistakes("[tables.t]\nprimary_key = [\"a\"]\ncolumns = { a = \"text primary key\" }"), @"syncline.toml:3:17: tables.t has two primary keys (expected the key in one place; take `primary key` out of the column, or take out `primary_key`)");
    assert_snapshot!(mistakes("[tables.t]\ncolumns = { a = \"text primary key null\" }"), @"syncline.toml:2:17: tables.t.columns.a is a key and may be NULL (expected a key that every row has; take out `null`: two rows without a key could not be told apart)");
    assert_snapshot!(mistakes("[tables.t]\ncolumns = { a = \"text primary key autoincrement\" }"), @"syncline.toml:2:17: tables.t.columns.a is `autoincrement` and no integer (expected `integer primary key autoincrement`; make it an integer, or take out `autoincrement`)");
    assert_snapshot!(of_columns("n = \"text auto_increment\""), @"syncline.toml:2:48: tables.t.columns.n: `auto_increment` is not understood here (expected `primary key`, `not null`, `default`, `unique`, `check`, `collate`, `references`, `generated`, `declared` or `encrypted`; write `integer primary key autoincrement`)");
    assert_snapshot!(mistakes("[tables.t]\ncolumns = { a = \"uuid primary key\" }\nunique = [\"a\"]\nindexes = [[\"b\"], [], [\"a\", \"A\"]]"), @r#"
    syncline.toml:3:11: tables.t.unique is a string (expected a list of lists of columns; write [["a"]])
    syncline.toml:4:13: tables.t.indexes: no column `b` (expected `a`; add the column, or take this out)
    syncline.toml:4:19: tables.t.indexes names no column (expected names of columns; take it out)
    syncline.toml:4:29: tables.t.indexes names `A` twice (expected each column once; take one out)
    "#);
}

#[test]
fn cf9_references() {
    assert_snapshot!(of_columns("p = \"uuid references project\""), @"syncline.toml:2:48: tables.t: reference to the unknown table `project` (expected a table of this file; add [tables.project], or take the reference out)");
    assert_snapshot!(mistakes("[tables.projects]\ncolumns = { id = \"uuid primary key\", name = \"text\" }\n[tables.t]\ncolumns = { id = \"uuid primary key\", a = \"uuid references project\", b = \"text references projects (nam)\", c = \"text references projects (name)\" }"), @r"
    syncline.toml:4:48: tables.t: reference to the unknown table `project` (expected a table of this file; write `references projects`)
    syncline.toml:4:79: tables.t: projects has no column `nam` (expected `id` or `name`; write `references projects (name)`)
    syncline.toml:4:117: tables.t: what it refers to in projects is not unique (expected the parent's primary key or a unique column; write `references projects`, or make the column there `unique`)
    ");
    assert_snapshot!(of_columns("p = \"uuid references t on delete casacde\""), @"syncline.toml:2:71: tables.t.columns.p: `on delete casacde` is not understood (expected `cascade`, `restrict`, `set null`, `set default` or `no action`; write for example `on delete cascade`)");
    assert_snapshot!(of_columns("p = \"uuid references t on update cascade\""), @"syncline.toml:2:64: tables.t.columns.p: `on update` has nothing to do (expected `on delete`; take it out: the key of a row that syncs never changes)");
    assert_snapshot!(of_columns("p = \"uuid references t deferrable\", q = \"uuid references\""), @r"
    syncline.toml:2:61: tables.t.columns.p: `deferrable` is not understood here (expected `on delete`, or the next constraint; take it out: references are checked when a whole changeset is in)
    syncline.toml:2:94: tables.t.columns.q: it ends too early (expected the name of a table; write `references parent`)
    ");
    assert_snapshot!(of_columns("p = \"uuid not null references t on delete set null\""), @"syncline.toml:2:42: tables.t.columns.p is `not null` and `on delete set null` (expected a column that may be NULL; take out `not null`, or write `on delete cascade`)");
    assert_snapshot!(mistakes("[tables.t]\nprimary_key = [\"a\", \"b\"]\nforeign_keys = [\"(a) references t\", \"a references t\"]\ncolumns = { a = \"text\", b = \"text\" }"), @r#"
    syncline.toml:3:22: tables.t: the reference is of 1, what it refers to in t of 2 (expected as many columns on both sides; write foreign_keys = ["(a, b) references parent (x, y)"])
    syncline.toml:3:38: tables.t.foreign_keys: `a` is not understood here (expected `(`; write "(a, b) references parent (x, y)")
    "#);
}

#[test]
fn cf10_rules() {
    assert_snapshot!(mistakes("[tables.t]\nread = true\nwrite = \"\""), @r#"
    syncline.toml:2:8: tables.t.read is true or false (expected an SQL condition as a string; write "true", in quotes)
    syncline.toml:3:9: tables.t.write is empty (expected an SQL condition; write "true" to allow everything, or take it out to allow nothing)
    "#);
    assert_snapshot!(mistakes("[tables.t]\ncolumns = { id = \"uuid primary key\" }\nforce = { user_id = \"auth.uid()\" }"), @"syncline.toml:3:11: tables.t.force.user_id: no column `user_id` (expected `id`; add the column, or take this out)");
    assert_snapshot!(mistakes("[tables.t]\nforce = \"auth.uid()\""), @r#"syncline.toml:2:9: tables.t.force is a string (expected a table; write force = { user_id = "auth.uid()" })"#);
}

#[test]
fn cf11_merge() {
    let merge = |merge: &str| {
        let columns =
            "id = \"uuid primary key\", title = \"text\", tags = \"json\", n = \"integer\"";
        mistakes(&format!(
            "[tables.t]\ncolumns = {{ {columns} }}\nmerge = {merge}"
        ))
    };
    assert_snapshot!(merge("\"set\""), @r#"syncline.toml:3:9: tables.t.merge is a string (expected a table of columns; write merge = { "*" = "set" } for the whole table)"#);
    assert_snapshot!(merge("{ tag = \"set\" }"), @"syncline.toml:3:11: tables.t.merge.tag: no column `tag` (expected `id`, `title`, `tags` or `n`; write `tags`)");
    assert_snapshot!(merge("{ tags = \"union\", n = \"countr\" }"), @r#"
    syncline.toml:3:18: tables.t.merge.tags is `union` (expected a strategy: `last-write-wins`, `server-wins`, `client-wins`, `merge-fields`, `set`, `append`, `counter` or `manual`; write "set")
    syncline.toml:3:31: tables.t.merge.n is `countr` (expected a strategy: `last-write-wins`, `server-wins`, `client-wins`, `merge-fields`, `set`, `append`, `counter` or `manual`; write "counter")
    "#);
    assert_snapshot!(merge("{ title = \"counter\", n = \"set\" }"), @r#"
    syncline.toml:3:11: tables.t.merge.title is `counter`, and title is text (expected an integer or real column; write "last-write-wins", or "manual" to ask a person)
    syncline.toml:3:30: tables.t.merge.n is `set`, and n is integer (expected a json column; write "last-write-wins", or "manual" to ask a person)
    "#);
    assert_snapshot!(merge("{ title = \"append\" }"), @"syncline.toml:3:11: tables.t.merge.title is `append`, and title is text (expected a json column; write the column's type as json, if it holds JSON)");
    assert_snapshot!(merge("{ title = \"collaborative\" }"), @r#"syncline.toml:3:19: tables.t.merge.title is `collaborative`, which this version does not have yet (expected a strategy that it has; write "manual", so that no text is lost, or take it out)"#);
    assert_snapshot!(merge("{ id = \"server-wins\" }"), @"syncline.toml:3:11: tables.t.merge.id is a key column (expected a column that apps change; take it out: there is nothing to merge)");
    assert_snapshot!(merge("{ \"title.a\" = \"set\", \"tags..a\" = \"set\" }"), @r#"
    syncline.toml:3:11: tables.t.merge.title.a: title is text, which has nothing inside (expected a path in a json column; declare `title` as json, or take it out)
    syncline.toml:3:30: tables.t.merge.tags..a: `.a` is no path (expected names of members joined by dots; `\.` is a dot in a name; write for example "settings.goals")
    "#);
    assert_snapshot!(merge("{ \"*\" = \"counter\" }"), @"syncline.toml:3:11: tables.t.merge.* is `counter`, which fits some types only (expected `last-write-wins`, `server-wins`, `client-wins` or `manual`; name the columns that it is for)");
    assert_snapshot!(merge("{ tags = { a = { b = 3 } }, nope.b = \"set\" }"), @r"
    syncline.toml:3:30: tables.t.merge.tags.a.b is a number (expected a string; put it in quotes)
    syncline.toml:3:46: tables.t.merge.nope.b: no column `nope` (expected `id`, `title`, `tags` or `n`; add the column, or take it out)
    ");
}

#[test]
fn cf12_renames() {
    assert_snapshot!(mistakes("[tables.a]\nrenamed_from = \"b\"\n[tables.b]"), @"syncline.toml:2:16: tables.a: `b` was renamed and is still there (expected an old name that is gone; take out the rename, or what still has the old name)");
    assert_snapshot!(mistakes("[tables.a]\ncolumns = { id = \"uuid primary key\", x = \"text\" }\nrenamed = { x = \"id\", y = \"z\" }"), @r"
    syncline.toml:3:17: tables.a: `id` was renamed and is still there (expected an old name that is gone; take out the rename, or what still has the old name)
    syncline.toml:3:23: tables.a.renamed.y: no column `y` (expected `id` or `x`; add the column, or take this out)
    ");
}

#[test]
fn cf1_all_mistakes_are_told_in_order_of_place() {
    assert_snapshot!(mistakes("
[server]
lisen = \"127.0.0.1:7117\"

[tables.tasks]
columns = { id = \"uuid primary\", title = \"txt\" }
merge   = { titel = \"set\" }
reed    = \"true\"
"), @r"
    syncline.toml:3:1: unknown key `server.lisen` (expected `listen`, `admin_listen`, `data`, `database`, `origins`, `trusted_proxies`, `retention_days`, `history_days`, `audit_days`, `hsts_days`, `sign_up`, `verify_email`, `app_url`, `smtp`, `smtp_password_file`, `mail_from`, `provider_issuer`, `provider_audience`, `provider_jwks`, `provider_secret_file`, `tls_cert`, `tls_key`, `acme_domains`, `acme_contact`, `acme_directory`, `acme_ca_file` or `schema`; write `listen`)
    syncline.toml:6:31: tables.tasks.columns.id: it ends too early (expected `primary key`; write `primary key`)
    syncline.toml:6:43: tables.tasks.columns.title: `txt` is no type of a column (expected a type: `text`, `integer`, `real`, `boolean`, `json`, `blob`, `timestamp`, `uuid` or `any`; write `text`)
    syncline.toml:7:13: tables.tasks.merge.titel: no column `titel` (expected `id` or `title`; write `title`)
    syncline.toml:8:1: unknown key `tables.tasks.reed` (expected `columns`, `primary_key`, `unique`, `indexes`, `foreign_keys`, `checks`, `without_rowid`, `strict`, `read`, `write`, `create`, `update`, `delete`, `force`, `sync`, `on_delete`, `merge`, `renamed_from` or `renamed`; write `read`)
    ");
}

#[test]
fn cf1_rules_that_do_not_fit_are_told_with_everything_else() {
    // What a column without a type or a table without a key would mean to a rule is not made up.
    assert_snapshot!(mistakes("
[tables.lists]
columns = { id = \"uuid primry key\", public = \"bool\" }
read    = \"_owner = auth.uid() OR public OR public = 7\"

[tables.tasks]
read    = \"list IN readable(lists) OR now() > 1\"
columns = { id = \"uuid primary key\", list = \"uuid\" }
merge   = { titel = \"set\" }
write   = \"lis = auth.uid()\"
"), @r"
    syncline.toml:3:24: tables.lists.columns.id: `primry` is not understood here (expected `primary key`, `not null`, `default`, `unique`, `check`, `collate`, `references`, `generated`, `declared` or `encrypted`; write `primary`)
    syncline.toml:3:47: tables.lists.columns.public: `bool` is no type of a column (expected a type: `text`, `integer`, `real`, `boolean`, `json`, `blob`, `timestamp`, `uuid` or `any`; write `boolean`)
    syncline.toml:7:39: tables.tasks.read: the result would change without any row changing: `now()` (expected a rule in one of the forms that can be synced; keep a column that says it, and let a program change it in time)
    syncline.toml:9:13: tables.tasks.merge.titel: no column `titel` (expected `id` or `list`; add the column, or take it out)
    syncline.toml:10:12: tables.tasks.write: `tasks` has no column `lis`: `lis` (expected a rule in one of the forms that can be synced; columns are `id`, `list`)
    ");
}

#[test]
fn cf10_a_rule_that_does_not_compile_has_a_place() {
    let text = "[tables.t]\ncolumns = { id = \"uuid primary key\", a = \"text\" }\nread = \"\"\"\n_owner = auth.uid()\n  OR random() = 1\"\"\"\nforce = { a = \"nope()\" }\n";
    let config = parse(text);
    let errors = crate::rules::Rules::compile(&config.schema, &[0; 32]).expect_err("mistakes");
    let located: Vec<_> = errors
        .iter()
        .map(|error| config.locate(error).to_string())
        .collect();
    assert_snapshot!(located.join("\n"), @r"
    syncline.toml:5:6: tables.t.read: the result would change without any row changing: `random()` (expected a rule in one of the forms that can be synced; keep a column that says it, and let a program change it in time)
    syncline.toml:6:16: tables.t.force: this function cannot be used in rules: `nope()` (expected a rule in one of the forms that can be synced; functions are auth.uid(), auth.role(), auth.email(), auth.claim('name') and auth.jwt() ->> 'name')
    ");
}

/// Deep in one of the ways that a text can be.
#[test]
fn cf1_no_depth_makes_the_reader_crash() {
    let deep = |open: &str, inner: &str, close: &str| {
        format!("{}{inner}{}", open.repeat(20_000), close.repeat(20_000))
    };
    for text in [
        format!("a = {}", deep("[", "1", "]")),
        format!("a = {}", deep("[", "", "")),
        format!("a = {}", deep("{ a = ", "1", " }")),
        format!("[{}]", deep("a.", "a", "")),
        format!("{} = 1", deep("a.", "a", "")),
        deep("[", "a", "]"),
    ] {
        assert!(Config::parse("syncline.toml", &text).is_err());
    }
    for column in [
        format!("text check {}", deep("(", "1", ")")),
        format!("text default {}", deep("(", "1", ")")),
        format!("text default {}", deep("-", "1", "")),
        deep("text ", "", ""),
        format!("text references t {}", deep("(", "id", ")")),
    ] {
        let text =
            format!("[tables.t]\ncolumns = {{ id = \"uuid primary key\", a = \"{column}\" }}");
        let _read = Config::parse("syncline.toml", &text).is_ok();
    }
    for rule in [
        deep("(", "true", ")"),
        deep("NOT ", "true", ""),
        deep("true AND ", "true", ""),
        deep("true OR (", "true", ")"),
        deep("id IN (SELECT id FROM t WHERE ", "true", ")"),
        deep("CASE WHEN ", "true", " THEN true END"),
        deep("- ", "1", ""),
        deep("id = ", "1", ""),
        deep("id::", "text", ""),
        deep("f(", "1", ")"),
        deep("[", "1", "]"),
        deep("'' || ", "''", ""),
    ] {
        for rule in [&*rule, &rule[..rule.floor_char_boundary(8_000)]] {
            let text = format!(
                "[tables.t]\ncolumns = {{ id = \"uuid primary key\" }}\nread = \"{rule}\"\nupdate = \"{rule}\""
            );
            let config = parse(&text);
            let errors = crate::rules::Rules::compile(&config.schema, &[0; 32]).expect_err("deep");
            assert!(!errors.is_empty());
        }
    }
}

#[test]
fn cf11_each_column_and_path_has_one_strategy() {
    let table =
        "[tables.t]\ncolumns = { id = \"uuid primary key\", tags = \"json\", s = \"json\" }\n";
    assert_snapshot!(mistakes(&format!("{table}merge = {{ tags = \"set\", TAGS = \"append\", \"s.a\" = \"set\", s.a = \"append\" }}")), @"
    syncline.toml:3:25: tables.t.merge.TAGS has a strategy already (expected one strategy for each column and path; keep one of the two)
    syncline.toml:3:63: tables.t.merge.s.a has a strategy already (expected one strategy for each column and path; keep one of the two)
    ");
}

#[test]
fn cf1_a_byte_order_mark_says_nothing() {
    let config = parse("\u{feff}[server]\r\nretention_days = 7\r\n");
    assert_eq!(config.server.retention_days, 7);
    assert_snapshot!(mistakes("\u{feff}[sever]\r\n"), @"syncline.toml:1:2: unknown key `sever` (expected `server`, `limits` or `tables`; write `server`)");
}

#[test]
fn en3_an_encrypted_column_is_nothing_that_the_server_has_to_read() {
    let table = |text: &str, more: &str| {
        format!(
            "[tables.t]\ncolumns = {{ id = \"uuid primary key\", a = \"text\", s = \"{text}\" }}\n{more}"
        )
    };
    let in_columns = [
        ("text encrypted unique", "is encrypted and unique"),
        (
            "text encrypted default 'x'",
            "is encrypted and has a default",
        ),
        (
            "text check (length(s) > 1) encrypted",
            "is encrypted and in a check",
        ),
        (
            "text collate nocase encrypted",
            "is encrypted and has a collation",
        ),
        (
            "uuid encrypted references t",
            "is encrypted and a reference",
        ),
        (
            "text encrypted declared 'CLOB'",
            "is encrypted and declared as another type",
        ),
        ("text encrypted generated", "is encrypted and generated"),
        ("text encrypted encrypted", "`encrypted` is there twice"),
        ("text encryptd", "write `encrypted`"),
    ];
    for (text, expected) in in_columns {
        let told = mistakes(&table(text, ""));
        assert!(told.contains(expected), "{text}: {told}");
        assert!(told.starts_with("syncline.toml:2:"), "{text}: {told}");
    }
    let beside = [
        ("indexes = [[\"a\", \"s\"]]", "is encrypted and in an index"),
        ("indexes = [\"(lower(s))\"]", "is encrypted and in an index"),
        ("unique = [[\"a\", \"s\"]]", "is encrypted and unique"),
        ("checks = [\"a < s\"]", "is encrypted and in a check"),
        (
            "foreign_keys = [\"(s) references t\"]",
            "is encrypted and a reference",
        ),
        (
            "merge = { s = \"manual\" }",
            "is `manual`, and s is encrypted",
        ),
        (
            "renamed = { s = \"r\" }",
            "tables.t.renamed.s: s is encrypted",
        ),
        (
            "renamed_from = \"u\"",
            "tables.t.renamed_from: s is encrypted",
        ),
        (
            "merge = { s = \"counter\" }",
            "is `counter`, and s is encrypted",
        ),
        (
            "merge = { \"s.x\" = \"set\" }",
            "is `set`, and s is encrypted",
        ),
        (
            "merge = { \"*\" = \"manual\" }",
            "is `manual`, and s is encrypted",
        ),
    ];
    for (more, expected) in beside {
        let told = mistakes(&table("text encrypted", more));
        assert!(told.contains(expected), "{more}: {told}");
    }
    let rules = [
        ("read = \"s = auth.uid()\"", "the column is encrypted"),
        ("write = \"new.s = 'x'\"", "the column is encrypted"),
        ("force = { s = \"auth.uid()\" }", "the column is encrypted"),
    ];
    for (more, expected) in rules {
        let told = parse(&table("text encrypted", more)).rule_mistakes();
        let told: Vec<_> = told.iter().map(ToString::to_string).collect();
        assert!(
            told.len() == 1 && told[0].contains(expected),
            "{more}: {told:?}"
        );
    }
    let key = mistakes("[tables.t]\ncolumns = { id = \"uuid primary key encrypted\" }");
    assert!(
        key.contains("is encrypted and part of the primary key"),
        "{key}"
    );
}

#[test]
fn en3_an_encrypted_column_is_written_as_it_was_read() {
    let text = "[tables.t]\ncolumns = { id = \"uuid primary key\", s = \"integer not null encrypted\" }\n\
                merge = { s = \"server-wins\" }";
    let config = parse(text);
    let column = &config.schema.tables[0].columns[1];
    assert_eq!(column.encrypted, Some(crate::ColumnType::Integer));
    assert_eq!(column.ty, crate::ColumnType::Blob);
    let again = parse(&config.to_toml());
    assert_eq!(again.schema, config.schema, "{}", config.to_toml());
}
