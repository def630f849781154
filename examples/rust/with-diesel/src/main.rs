//! An app without async whose rows are read and written with diesel, kept in step by Syncline.
//!
//! `cargo run -p with-diesel -- tasks.db`, with SYNCLINE_URL and SYNCLINE_TOKEN, or without.

use diesel::{connection::SimpleConnection, prelude::*};
use syncline::{Config, Tables, blocking::SyncManager};

diesel::table! {
    tasks (id) {
        id -> Text,
        title -> Text,
    }
}

fn main() -> anyhow::Result<()> {
    let file = std::env::args().nth(1).unwrap_or_else(|| "tasks.db".into());
    let mut db = SqliteConnection::establish(&file)?;
    db.batch_execute(
        "PRAGMA busy_timeout = 5000;
         CREATE TABLE IF NOT EXISTS tasks (id TEXT PRIMARY KEY, title TEXT NOT NULL)",
    )?;

    let sync = SyncManager::open(&file, Config::from_env()?)?;
    diesel::insert_into(tasks::table)
        .values((
            tasks::id.eq(syncline::new_id()),
            tasks::title.eq("written with diesel"),
        ))
        .execute(&mut db)?;
    if sync.handle().is_sync_available() {
        let done = sync.sync(Tables::All, |p| {
            println!("{:>3} % {}", p.percentage, p.message)
        })?;
        println!(
            "{} sent, {} received",
            done.sent.total(),
            done.received.total()
        );
    }
    println!("{} tasks", tasks::table.count().get_result::<i64>(&mut db)?);
    sync.close();
    Ok(())
}
