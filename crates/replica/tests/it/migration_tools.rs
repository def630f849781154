//! What migration tools really send to SQLite, statement by statement, with foreign keys on.
//!
//! Tools that wrap a migration into a transaction cannot switch foreign keys off inside it.

use crate::{
    authority::Authority,
    device::{Device, schema},
};

const TABLES: &str = "
    CREATE TABLE users(id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, name TEXT, email TEXT);
    CREATE TABLE posts(
      id INTEGER PRIMARY KEY NOT NULL, user_id INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
      title TEXT);
    CREATE INDEX posts_of_user ON posts(user_id);";

/// Name, the tool's own table, and how it makes `users` anew with `name` NOT NULL.
const TOOLS: [(&str, &str, &str); 9] = [
    (
        "sqlx migrate: the file in one transaction",
        "_sqlx_migrations",
        "CREATE TABLE IF NOT EXISTS _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL,
           installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL,
           checksum BLOB NOT NULL, execution_time BIGINT NOT NULL);
         BEGIN;
         PRAGMA foreign_keys = OFF;
         CREATE TABLE users_new(id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, name TEXT NOT NULL, email TEXT);
         INSERT INTO users_new SELECT * FROM users;
         DROP TABLE users;
         ALTER TABLE users_new RENAME TO users;
         PRAGMA foreign_keys = ON;
         INSERT INTO _sqlx_migrations VALUES (1, 'not null', CURRENT_TIMESTAMP, TRUE, x'00', -1);
         COMMIT;
         UPDATE _sqlx_migrations SET execution_time = 5 WHERE version = 1;",
    ),
    (
        "diesel migration run",
        "__diesel_schema_migrations",
        "CREATE TABLE IF NOT EXISTS __diesel_schema_migrations (version VARCHAR(50) PRIMARY KEY NOT NULL,
           run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP);
         BEGIN IMMEDIATE;
         CREATE TABLE users_new(id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, name TEXT NOT NULL, email TEXT);
         INSERT INTO users_new SELECT * FROM users;
         DROP TABLE users;
         ALTER TABLE users_new RENAME TO users;
         INSERT INTO __diesel_schema_migrations (version) VALUES ('20240101000000');
         COMMIT;",
    ),
    (
        "refinery",
        "refinery_schema_history",
        "CREATE TABLE IF NOT EXISTS refinery_schema_history(
           version INT4 PRIMARY KEY, name VARCHAR(255), applied_on VARCHAR(255), checksum VARCHAR(255));
         BEGIN;
         CREATE TABLE users2(id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, name TEXT NOT NULL, email TEXT);
         INSERT INTO users2 SELECT * FROM users;
         DROP TABLE users;
         ALTER TABLE users2 RENAME TO users;
         INSERT INTO refinery_schema_history VALUES (1, 'not_null', '2024-01-01T00:00:00Z', '1');
         COMMIT;",
    ),
    (
        "Django: remake, in atomic()",
        "django_migrations",
        r#"CREATE TABLE "django_migrations" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT,
           "app" varchar(255) NOT NULL, "name" varchar(255) NOT NULL, "applied" datetime NOT NULL);
         BEGIN;
         CREATE TABLE "new__users" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "name" varchar(10) NOT NULL, "email" text NULL);
         INSERT INTO "new__users" ("id", "email", "name") SELECT "id", "email", coalesce("name", '') FROM "users";
         DROP TABLE "users";
         ALTER TABLE "new__users" RENAME TO "users";
         INSERT INTO "django_migrations" ("app", "name", "applied") VALUES ('app', '0002', '2024-01-01');
         COMMIT;"#,
    ),
    (
        "Alembic: batch_alter_table",
        "alembic_version",
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num));
         BEGIN;
         CREATE TABLE _alembic_tmp_users (id INTEGER NOT NULL, name VARCHAR NOT NULL, email TEXT, PRIMARY KEY (id));
         INSERT INTO _alembic_tmp_users (id, name, email) SELECT users.id, users.name, users.email FROM users;
         DROP TABLE users;
         ALTER TABLE _alembic_tmp_users RENAME TO users;
         INSERT INTO alembic_version (version_num) VALUES ('abc');
         COMMIT;",
    ),
    (
        "Knex: alterTable",
        "knex_migrations",
        "CREATE TABLE `knex_migrations` (`id` integer not null primary key autoincrement, `name` varchar(255), `batch` integer, `migration_time` datetime);
         CREATE TABLE `knex_migrations_lock` (`index` integer not null primary key autoincrement, `is_locked` integer);
         BEGIN;
         CREATE TABLE `_knex_temp_alter123` (`id` INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, `name` TEXT NOT NULL, `email` TEXT);
         INSERT INTO _knex_temp_alter123 SELECT * FROM users;
         DROP TABLE `users`;
         ALTER TABLE `_knex_temp_alter123` RENAME TO `users`;
         INSERT INTO knex_migrations(name) VALUES ('1.js');
         COMMIT;",
    ),
    (
        "Prisma: RedefineTables",
        "_prisma_migrations",
        r#"CREATE TABLE "_prisma_migrations" ("id" TEXT PRIMARY KEY NOT NULL, "checksum" TEXT NOT NULL);
         PRAGMA defer_foreign_keys=ON;
         PRAGMA foreign_keys=OFF;
         CREATE TABLE "new_users" ("id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, "name" TEXT NOT NULL, "email" TEXT);
         INSERT INTO "new_users" ("email", "id", "name") SELECT "email", "id", "name" FROM "users";
         DROP TABLE "users";
         ALTER TABLE "new_users" RENAME TO "users";
         PRAGMA foreign_keys=ON;
         PRAGMA defer_foreign_keys=OFF;
         INSERT INTO "_prisma_migrations" VALUES ('1', 'x');"#,
    ),
    (
        "Rails: alter_table over a temporary copy",
        "schema_migrations",
        r#"CREATE TABLE "schema_migrations" ("version" varchar NOT NULL PRIMARY KEY);
         CREATE TABLE "ar_internal_metadata" ("key" varchar NOT NULL PRIMARY KEY, "value" varchar);
         BEGIN;
         CREATE TEMPORARY TABLE "ausers" ("id" integer NOT NULL PRIMARY KEY, "name" varchar NOT NULL, "email" varchar);
         INSERT INTO "ausers" ("id","name","email") SELECT "id","name","email" FROM "users";
         DROP TABLE "users";
         CREATE TABLE "users" ("id" integer PRIMARY KEY AUTOINCREMENT NOT NULL, "name" varchar NOT NULL, "email" varchar);
         INSERT INTO "users" ("id","name","email") SELECT "id","name","email" FROM "ausers";
         DROP TABLE "ausers";
         INSERT INTO "schema_migrations" VALUES ('20240101');
         COMMIT;"#,
    ),
    (
        "Entity Framework Core: ef_temp, with what it saves and makes again",
        "__EFMigrationsHistory",
        r#"CREATE TABLE "__EFMigrationsHistory" ("MigrationId" TEXT NOT NULL PRIMARY KEY, "ProductVersion" TEXT NOT NULL);
         BEGIN;
         CREATE TABLE "ef_temp_users" ("id" INTEGER NOT NULL CONSTRAINT "PK_users" PRIMARY KEY AUTOINCREMENT, "name" TEXT NOT NULL, "email" TEXT NULL);
         INSERT INTO "ef_temp_users" ("id", "email", "name") SELECT "id", "email", IFNULL("name", '') FROM "users";
         COMMIT;
         PRAGMA foreign_keys = 0;
         BEGIN;
         DROP TABLE "users";
         ALTER TABLE "ef_temp_users" RENAME TO "users";
         COMMIT;
         PRAGMA foreign_keys = 1;
         INSERT INTO "__EFMigrationsHistory" VALUES ('1', '8.0');"#,
    ),
];

const POSTS: &str = "SELECT * FROM posts ORDER BY id";

#[test]
fn ca11_what_migration_tools_do_reaches_nobody_as_deletes() {
    for (tool, own, statements) in TOOLS {
        let mut server = Authority::new(schema(TABLES));
        let mut device = Device::new(TABLES, 1);
        device.write(
            "INSERT INTO users VALUES (1, 'ada', 'a@x'), (2, 'bob', NULL);
             INSERT INTO posts VALUES (1, 1, 'one'), (2, 2, 'two'), (3, 1, 'three')",
        );
        device.sync(&mut server);
        let mut other = Device::empty(2);
        other.sync(&mut server);
        device.disconnect();
        // Not looked at before the migration, and written to in between and after.
        device.run("PRAGMA foreign_keys = ON; UPDATE posts SET title = 'before' WHERE id = 3");
        device.seal();
        device.run(statements);
        device.run("UPDATE users SET name = 'after' WHERE id = 2; INSERT INTO posts VALUES (4, 2, 'after')");
        device.sync(&mut server);
        other.sync(&mut server);
        let posts = "1|1|one\n2|2|two\n3|1|before\n4|2|after";
        assert_eq!(device.query(POSTS), posts, "{tool}");
        assert_eq!(other.query(POSTS), posts, "{tool}");
        assert_eq!(
            other.query("SELECT * FROM users ORDER BY id"),
            "1|ada|a@x\n2|after|-",
            "{tool}"
        );
        device.assert_equal(&server);
        // Capture is back, and the tool's table is nobody's.
        device.run("DELETE FROM posts WHERE id = 1");
        device.sync(&mut server);
        other.sync(&mut server);
        assert_eq!(other.query("SELECT count(*) FROM posts"), "3", "{tool}");
        let status = device.replica.status().unwrap();
        let tables = status.tables.iter().filter(|table| table.name == own);
        for table in tables {
            let is_left_out = matches!(table.state, syncline_replica::TableState::LeftOut { .. });
            assert!(is_left_out, "{tool}");
        }
    }
}
