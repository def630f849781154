//! The quickstart of README.md: what follows these lines is shown there as it stands.
#![expect(
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "an app prints, and looks at the events it likes"
)]

use rusqlite::Connection;
use syncline::{Config, Event, Resolution, SyncManager, Tables};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let db = Connection::open("notes.db")?; // your database, your schema; any process may write it
    db.execute_batch("CREATE TABLE IF NOT EXISTS notes (id TEXT PRIMARY KEY, title TEXT)")?;

    // SYNCLINE_URL and SYNCLINE_TOKEN. Without them everything below still works, offline.
    let sync = SyncManager::open("notes.db", Config::from_env()?).await?;
    let mut events = sync.events();
    sync.start_auto_sync(); // at start, on reconnect, a moment after each write

    db.execute(
        "INSERT INTO notes VALUES (?1, 'Milk')",
        [syncline::new_id()],
    )?;
    let done = sync
        .sync(Tables::All, |p| {
            println!("{:>3} % {}", p.percentage, p.message);
        })
        .await?;
    println!(
        "{} records, {} conflicts",
        done.records_processed,
        done.conflicts.len()
    );

    while let Some(event) = events.next().await {
        match event {
            Event::RowsChanged(r) => println!("{} changed {} of {}", r.by, r.ids.len(), r.table),
            Event::ConflictDetected(c) => sync.resolve(c.id, Resolution::Mine).await?,
            Event::ChangeRefused(r) => eprintln!("{} was undone: {}", r.row, r.reason),
            _ => {}
        }
    }
    Ok(())
}
