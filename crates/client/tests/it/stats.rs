//! Statistics, history, this device, health, and taking everything out again.

use syncline::{Config, HealthStatus, SyncManager, Tables};

use crate::support::{Bed, NOTES, rows, sql};

#[tokio::test]
async fn lb13_statistics_and_the_history_of_syncs_outlive_the_app() {
    let mut bed = Bed::dev();
    let path = bed.file("notes.db", NOTES);
    sql(
        &path,
        "INSERT INTO notes VALUES ('n1', 'Milk', NULL), ('n2', 'Tea', NULL)",
    );
    let sync = bed.open("notes.db", "ana").await;
    let before = sync.stats().await.unwrap();
    assert_eq!((before.total_records, before.last_sync_time), (0, None));
    sync.seed(Tables::All, |_| {}).await.unwrap();
    sync.sync(Tables::All, |_| {}).await.unwrap();
    sql(&path, "UPDATE notes SET title = 'Oat milk' WHERE id = 'n1'");
    assert_eq!(sync.stats().await.unwrap().pending_operations, 1);
    bed.stop();
    sync.update_config(|config| config.max_retries(0)).unwrap();
    sync.sync(Tables::All, |_| {}).await.unwrap_err();
    sync.close().await;

    let again = SyncManager::open(&path, Config::new()).await.unwrap();
    let stats = again.stats().await.unwrap();
    assert_eq!((stats.total_records, stats.pending_operations), (2, 1));
    assert!(stats.last_sync_time.is_some());
    let history: Vec<_> = stats
        .sync_history
        .iter()
        .map(|sync| (sync.operation.as_str(), sync.sent, sync.error.is_some()))
        .collect();
    assert_eq!(
        history,
        [("sync", 0, true), ("sync", 0, false), ("seed", 2, false)]
    );
}

#[tokio::test]
async fn lb13_health_is_one_of_four_words() {
    let mut bed = Bed::dev();
    let path = bed.file("notes.db", NOTES);
    let sync = SyncManager::open(&path, Config::new()).await.unwrap();
    let health = async |wanted: HealthStatus| {
        let health = sync.health().await.unwrap();
        assert_eq!(health.status, wanted, "{}", health.message);
        health.status.name()
    };
    assert_eq!(health(HealthStatus::NoProvider).await, "no-provider");
    sync.update_config(|_| bed.config("ana")).unwrap();
    assert_eq!(health(HealthStatus::Healthy).await, "healthy");
    let url = bed.config("ana").url().unwrap().to_owned();
    sync.update_config(|config| config.server(&url, "no token").unwrap())
        .unwrap();
    assert_eq!(health(HealthStatus::Invalid).await, "invalid");
    bed.stop();
    assert_eq!(health(HealthStatus::Disconnected).await, "disconnected");
}

#[tokio::test]
async fn lb13_this_device_has_a_name_before_and_an_id_after_it_met_a_server() {
    let bed = Bed::dev();
    bed.file("notes.db", NOTES);
    let config = bed.config("ana").device_name("Ana's laptop");
    let sync = SyncManager::open(bed.path("notes.db"), config)
        .await
        .unwrap();
    let device = sync.local_device().await.unwrap();
    assert_eq!(
        (device.device_id, device.device_name.as_str()),
        (None, "Ana's laptop")
    );
    sync.sync(Tables::All, |_| {}).await.unwrap();
    let device = sync.local_device().await.unwrap();
    assert!(device.device_id.is_some() && device.platform.contains("syncline"));
    assert_eq!(device.user.as_deref(), Some("ana"));
    assert_eq!(device.device_name, "Ana's laptop");
    let id = device.device_id.unwrap();
    sync.rename_device(id, "Laptop").await.unwrap();
    assert_eq!(sync.local_device().await.unwrap().device_name, "Laptop");
}

#[tokio::test]
async fn lb14_detaching_leaves_rows_and_a_schema_that_is_byte_for_byte_the_apps() {
    let bed = Bed::dev();
    let path = bed.file("notes.db", NOTES);
    sql(&path, "INSERT INTO notes VALUES ('n1', 'Milk', NULL)");
    let schema = "SELECT type, name, sql FROM sqlite_schema ORDER BY name";
    let before = rows(&path, schema);
    let sync = bed.open("notes.db", "ana").await;
    sync.queue().enqueue("mail", None, &"hello").await.unwrap();
    sync.sync(Tables::All, |_| {}).await.unwrap();
    assert_ne!(rows(&path, schema), before);
    sql(&path, "INSERT INTO notes VALUES ('n2', 'Tea', NULL)");
    sync.row_status("notes", vec!["n2".into()]).await.unwrap();
    assert_eq!(sync.detach().await.unwrap(), 1);
    assert_eq!(rows(&path, schema), before);
    assert_eq!(rows(&path, "SELECT count(*) FROM notes"), "2");

    let offline = SyncManager::open(&path, Config::new()).await.unwrap();
    offline
        .queue()
        .enqueue("mail", None, &"hello")
        .await
        .unwrap();
    assert_eq!(offline.detach().await.unwrap(), 0);
    assert_eq!(rows(&path, schema), before);
}
