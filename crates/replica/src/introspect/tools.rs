//! Tables that other tools keep in an app's file and that are not the app's data.

/// Names of bookkeeping tables, in lower case.
const TABLES: &[&str] = &[
    "__diesel_schema_migrations",
    "__drizzle_migrations",
    "__efmigrationshistory",
    "__efmigrationslock",
    "_litestream_lock",
    "_litestream_seq",
    "_prisma_migrations",
    "_sqlx_migrations",
    "_yoyo_log",
    "_yoyo_migration",
    "_yoyo_version",
    "alembic_version",
    "android_metadata",
    "ar_internal_metadata",
    "atlas_schema_revisions",
    "d1_migrations",
    "databasechangelog",
    "databasechangeloglock",
    "diesel_schema_migrations",
    "django_migrations",
    "doctrine_migration_versions",
    "flyway_schema_history",
    "goose_db_version",
    "gorp_migrations",
    "grdb_migrations",
    "knex_migrations",
    "knex_migrations_lock",
    "kysely_migration",
    "kysely_migration_lock",
    "migratehistory",
    "migrations",
    "mikro_orm_migrations",
    "phinxlog",
    "refinery_schema_history",
    "room_master_table",
    "schema_migrations",
    "seaql_migrations",
    "sequelizemeta",
    "typeorm_metadata",
    "yoyo_lock",
];

/// Whether a table of this name belongs to a migration or replication tool.
pub(crate) fn is_bookkeeping(table: &str) -> bool {
    TABLES
        .binary_search(&table.to_ascii_lowercase().as_str())
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_for_the_search() {
        assert!(TABLES.is_sorted());
        assert!(is_bookkeeping("SequelizeMeta"));
        assert!(!is_bookkeeping("tasks"));
    }
}
