//! An app whose rows are read and written with sqlx, kept in step by Syncline.
//!
//! `cargo run -p with-sqlx -- tasks.db`, with SYNCLINE_URL and SYNCLINE_TOKEN, or without.

use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use syncline::{Config, SyncManager, Tables};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let file = std::env::args().nth(1).unwrap_or_else(|| "tasks.db".into());
    let options = SqliteConnectOptions::new()
        .filename(&file)
        .create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS tasks (id TEXT PRIMARY KEY, title TEXT NOT NULL)")
        .execute(&pool)
        .await?;

    let sync = SyncManager::open(&file, Config::from_env()?).await?;
    sqlx::query("INSERT INTO tasks VALUES (?1, ?2)")
        .bind(syncline::new_id())
        .bind("written with sqlx")
        .execute(&pool)
        .await?;
    if sync.is_sync_available() {
        let done = sync
            .sync(Tables::All, |p| {
                println!("{:>3} % {}", p.percentage, p.message)
            })
            .await?;
        println!(
            "{} sent, {} received",
            done.sent.total(),
            done.received.total()
        );
    }
    let (tasks,): (i64,) = sqlx::query_as("SELECT count(*) FROM tasks")
        .fetch_one(&pool)
        .await?;
    println!("{tasks} tasks");
    sync.close().await;
    Ok(())
}
