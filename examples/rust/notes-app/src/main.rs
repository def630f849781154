//! The back end of a desktop app, as a Tauri app has it: commands over sqlx, integer keys given by
//! SQLite, a search index, sqlx migrations. Syncline is three lines of it: open, attach, sync.
//!
//! `cargo run -p notes-app -- notes.db add Home "Milk" "two litres"`, then `list`, `find milk`,
//! `edit ID BODY`, `remove ID`, `sync`, `watch`; with SYNCLINE_URL and SYNCLINE_TOKEN, or without.

use anyhow::{Context as _, bail};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use syncline::{Config, Event, SyncManager, Tables};

/// What a Tauri app would `manage`.
struct App {
    db: SqlitePool,
    sync: SyncManager,
}

type Note = (i64, String, String, String);

impl App {
    async fn start(file: &str) -> anyhow::Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .foreign_keys(true);
        let db = SqlitePool::connect_with(options).await?;
        sqlx::migrate!().run(&db).await?;
        let sync = SyncManager::open(file, Config::from_env()?).await?;
        // Used before there is a server: ids that two devices give twice are told apart later.
        sync.attach().await?;
        Ok(Self { db, sync })
    }

    async fn add(&self, notebook: &str, title: &str, body: &str) -> anyhow::Result<i64> {
        let mut transaction = self.db.begin().await?;
        let known = sqlx::query_as("SELECT id FROM notebooks WHERE name = ?1")
            .bind(notebook)
            .fetch_optional(&mut *transaction)
            .await?;
        let notebook = match known {
            Some((id,)) => id,
            None => sqlx::query("INSERT INTO notebooks(name) VALUES (?1)")
                .bind(notebook)
                .execute(&mut *transaction)
                .await?
                .last_insert_rowid(),
        };
        let id = sqlx::query("INSERT INTO notes(notebook, title, body) VALUES (?1, ?2, ?3)")
            .bind(notebook)
            .bind(title)
            .bind(body)
            .execute(&mut *transaction)
            .await?
            .last_insert_rowid();
        transaction.commit().await?;
        Ok(id)
    }

    async fn edit(&self, id: i64, body: &str) -> anyhow::Result<u64> {
        let done = sqlx::query("UPDATE notes SET body = ?2 WHERE id = ?1")
            .bind(id)
            .bind(body)
            .execute(&self.db)
            .await?;
        Ok(done.rows_affected())
    }

    async fn remove(&self, id: i64) -> anyhow::Result<u64> {
        let done = sqlx::query("DELETE FROM notes WHERE id = ?1")
            .bind(id)
            .execute(&self.db)
            .await?;
        Ok(done.rows_affected())
    }

    async fn list(&self) -> anyhow::Result<Vec<Note>> {
        let notes = "SELECT notes.id, notebooks.name, title, body
                     FROM notes JOIN notebooks ON notebooks.id = notebook ORDER BY title";
        Ok(sqlx::query_as(notes).fetch_all(&self.db).await?)
    }

    async fn find(&self, words: &str) -> anyhow::Result<Vec<Note>> {
        let notes = "SELECT notes.id, notebooks.name, notes.title, notes.body
                     FROM notes_search JOIN notes ON notes.id = notes_search.rowid
                     JOIN notebooks ON notebooks.id = notebook
                     WHERE notes_search MATCH ?1 ORDER BY notes.title";
        Ok(sqlx::query_as(notes).bind(words).fetch_all(&self.db).await?)
    }

    async fn sync(&self) -> anyhow::Result<()> {
        let done = self.sync.sync(Tables::All, |_| {}).await?;
        println!("{} sent, {} received", done.sent.total(), done.received.total());
        Ok(())
    }

    /// What a window is told: which rows changed because of somebody else.
    async fn watch(&self) {
        let mut events = self.sync.events();
        self.sync.start_auto_sync();
        while let Some(event) = events.next().await {
            if let Event::RowsChanged(changed) = event {
                println!("changed: {}", changed.table);
            }
        }
    }
}

fn show(notes: &[Note]) {
    for (_, notebook, title, body) in notes {
        println!("{notebook}: {title}: {body}");
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (file, command) = words.split_first().context("which file?")?;
    let app = App::start(file).await?;
    match command {
        ["add", notebook, title, body] => drop(app.add(notebook, title, body).await?),
        ["edit", id, body] => drop(app.edit(id.parse()?, body).await?),
        ["remove", id] => drop(app.remove(id.parse()?).await?),
        ["list"] => show(&app.list().await?),
        ["find", words] => show(&app.find(words).await?),
        ["id", title] => {
            let notes = app.list().await?;
            let note = notes.iter().find(|note| note.2 == *title);
            println!("{}", note.context("no such note")?.0);
        }
        ["sync"] => app.sync().await?,
        ["watch"] => app.watch().await,
        _ => bail!("add NOTEBOOK TITLE BODY, edit ID BODY, remove ID, id TITLE, list, find WORDS, sync or watch"),
    }
    app.sync.close().await;
    Ok(())
}
