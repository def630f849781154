//! Migrations of the app's own tables.

use std::{future::Future, path::PathBuf};

use syncline_replica::Migrated;

use crate::{manager::SyncManager, sync_error::Error, system};

impl SyncManager {
    /// Runs a migration of the app's own between sealing what was written before it and following
    /// what it did: `manager.migrate(async |_file| sqlx::migrate!().run(&pool).await)`.
    ///
    /// The migration works with a connection of its own to the file, whose path it is given; it
    /// may also call a migration tool. Nothing is lost when an app migrates without this: what
    /// changed is noticed at the next look. Called, it says what that was. A migration that fails
    /// is followed as far as it went; its own result is returned as it is.
    ///
    /// # Errors
    /// [`crate::ErrorKind::File`], [`crate::ErrorKind::Closed`].
    pub async fn migrate<T, Fut>(
        &self,
        migration: impl FnOnce(PathBuf) -> Fut,
    ) -> Result<(T, Migrated), Error>
    where
        Fut: Future<Output = T>,
    {
        let before = self
            .ask(|core| core.with(|replica| replica.begin_migration(system::now())))
            .await?;
        let result = migration(self.shared().path.clone()).await;
        let migrated = self
            .ask(move |core| match before {
                Some(before) => core.with(|replica| replica.end_migration(&before, system::now())),
                None => Ok(None),
            })
            .await?;
        Ok((result, migrated.unwrap_or_default()))
    }
}
