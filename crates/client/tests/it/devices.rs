//! The user's devices: listed, named, taken off the list and back.

use std::{sync::Arc, time::Duration};

use syncline::{
    BoxFuture, Config, Device, DeviceId, Error, ErrorKind, Event, HealthStatus, LocalDevice,
    Provider, SyncManager, Tables, blocking,
};

use crate::support::{Bed, NOTES, NOTES_CONFIG, sql, until, wait_for};

async fn synced(bed: &Bed, file: &str, user: &str, name: &str) -> SyncManager {
    bed.file(file, NOTES);
    let config = bed.config(user).device_name(name);
    let sync = SyncManager::open(bed.path(file), config).await.unwrap();
    sync.sync(Tables::All, |_| {}).await.unwrap();
    sync
}

fn names(devices: &[Device]) -> Vec<&str> {
    devices.iter().map(|device| device.name.as_str()).collect()
}

async fn id(sync: &SyncManager) -> DeviceId {
    sync.local_device().await.unwrap().device_id.unwrap()
}

#[tokio::test]
async fn lb20_devices_are_listed_and_named_by_their_user_alone() {
    let mut bed = Bed::with(NOTES_CONFIG);
    let phone = synced(&bed, "phone.db", "ana", "Phone").await;
    let laptop = synced(&bed, "laptop.db", "ana", "Laptop").await;
    let stranger = synced(&bed, "stranger.db", "ben", "Brick").await;
    let devices = laptop.devices().await.unwrap();
    assert_eq!(names(&devices), ["Laptop", "Phone"]);
    let this: Vec<bool> = devices.iter().map(|device| device.is_this).collect();
    assert_eq!(this, [true, false]);
    assert!(
        devices
            .iter()
            .all(|device| device.platform.contains("syncline"))
    );
    assert!(devices[1].first_seen <= devices[1].last_seen);
    assert_eq!(names(&stranger.devices().await.unwrap()), ["Brick"]);

    laptop
        .rename_device(id(&phone).await, "Ana's phone")
        .await
        .unwrap();
    assert_eq!(
        names(&phone.devices().await.unwrap()),
        ["Laptop", "Ana's phone"]
    );
    phone.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(
        phone.local_device().await.unwrap().device_name,
        "Ana's phone"
    );
    for change in [
        stranger.rename_device(id(&phone).await, "mine").await,
        stranger.rename_device(DeviceId([7; 16]), "mine").await,
        stranger.deregister_device(id(&phone).await).await,
    ] {
        assert_eq!(change.unwrap_err().kind(), ErrorKind::NotFound);
    }
    for bad in ["", " \t", "a\u{1b}[2J", &"x".repeat(201)] {
        let error = phone
            .rename_device(id(&phone).await, bad)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{bad:?}");
    }

    // This one is named without a server, which hears of it later.
    bed.stop();
    phone
        .rename_device(id(&phone).await, "Telephone")
        .await
        .unwrap();
    let error = phone
        .rename_device(id(&laptop).await, "Notebook")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected);
    bed.restart();
    phone.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(
        names(&laptop.devices().await.unwrap()),
        ["Telephone", "Laptop"]
    );
}

#[tokio::test]
async fn lb20_a_list_says_how_far_behind_a_device_is() {
    let bed = Bed::dev();
    let phone = synced(&bed, "phone.db", "ana", "Phone").await;
    let laptop = synced(&bed, "laptop.db", "ana", "Laptop").await;
    sql(
        &bed.path("laptop.db"),
        "INSERT INTO notes VALUES ('n1', 'Milk', NULL)",
    );
    laptop.update_config(|config| config.live(true)).unwrap();
    let mut events = laptop.events();
    laptop.start_auto_sync();
    wait_for(&mut events, |event| {
        matches!(event, Event::SyncCompleted(_)).then_some(())
    })
    .await;
    let end = std::time::Instant::now() + crate::support::PATIENCE;
    loop {
        let devices = phone.devices().await.unwrap();
        let [there, here] = &devices[..] else {
            panic!("{devices:?}")
        };
        assert_eq!(
            (there.name.as_str(), here.name.as_str()),
            ("Laptop", "Phone")
        );
        let is_in_step = there.is_connected && there.behind == Some(Duration::ZERO);
        let is_behind = !here.is_connected && here.behind != Some(Duration::ZERO);
        if is_in_step && is_behind {
            return;
        }
        assert!(std::time::Instant::now() < end, "{devices:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn lb20_a_device_that_was_removed_stops_says_why_and_comes_back_when_it_is_asked_to() {
    let bed = Bed::dev();
    let phone = synced(&bed, "phone.db", "ana", "Phone").await;
    let laptop = synced(&bed, "laptop.db", "ana", "Laptop").await;
    phone.update_config(|config| config.live(true)).unwrap();
    let mut events = phone.events();
    phone.start_auto_sync();
    wait_for(&mut events, |event| {
        matches!(event, Event::SyncCompleted(_)).then_some(())
    })
    .await;
    let before = id(&phone).await;
    laptop.deregister_device(before).await.unwrap();
    let error = wait_for(&mut events, |event| match event {
        Event::SyncError(error) => Some(error.clone()),
        _ => None,
    })
    .await;
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Deregistered, "deregistered")
    );
    assert!(!error.is_retryable());
    assert_eq!(names(&laptop.devices().await.unwrap()), ["Laptop"]);

    sql(
        &bed.path("phone.db"),
        "INSERT INTO notes VALUES ('n1', 'Milk', NULL)",
    );
    assert!(phone.local_device().await.unwrap().is_deregistered);
    assert_eq!(phone.health().await.unwrap().status, HealthStatus::Invalid);
    phone.close().await;
    let phone = bed.open("phone.db", "ana").await;
    let mut events = phone.events();
    phone.start_auto_sync();
    wait_for(&mut events, |event| {
        matches!(event, Event::SyncError(_)).then_some(())
    })
    .await;
    let error = phone.sync(Tables::All, |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deregistered);
    assert!(
        error.to_string().contains("1 changeset that was not sent"),
        "{error}"
    );
    assert_eq!(phone.status().await.unwrap().unwrap().waiting, 1);
    assert_eq!(bed.at_server("SELECT count(*) FROM notes"), "0");

    let device = phone.register_device("New phone").await.unwrap();
    assert!(!device.is_deregistered);
    phone.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(bed.at_server("SELECT title FROM notes"), "Milk");
    assert_ne!(id(&phone).await, before);
    assert_eq!(
        names(&laptop.devices().await.unwrap()),
        ["New phone", "Laptop"]
    );
    // What others write comes as before.
    sql(
        &bed.path("laptop.db"),
        "INSERT INTO notes VALUES ('n2', 'Tea', NULL)",
    );
    laptop.sync(Tables::All, |_| {}).await.unwrap();
    phone.sync(Tables::All, |_| {}).await.unwrap();
    until("the row is there", || {
        crate::support::rows(&bed.path("phone.db"), "SELECT count(*) FROM notes") == "2"
    })
    .await;
}

#[tokio::test]
async fn lb20_a_device_may_remove_itself() {
    let bed = Bed::dev();
    let phone = synced(&bed, "phone.db", "ana", "Phone").await;
    phone.deregister_device(id(&phone).await).await.unwrap();
    assert!(phone.status().await.unwrap().unwrap().deregistered);
    let error = phone.sync(Tables::All, |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deregistered);
    assert_eq!(names(&phone.devices().await.unwrap()), [""; 0]);
}

/// What an app has in its tests.
#[derive(Debug)]
struct Pretended;

impl Provider for Pretended {
    fn name(&self) -> &str {
        "pretended"
    }
    fn is_connected(&self) -> bool {
        false
    }
    fn validate_connection(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
    fn register_device(&self, name: &str) -> BoxFuture<'_, Result<LocalDevice, Error>> {
        let device_name = name.to_owned();
        Box::pin(async {
            Ok(LocalDevice {
                device_id: None,
                device_name,
                platform: "test".into(),
                user: None,
                is_deregistered: false,
            })
        })
    }
    fn registered_devices(&self) -> BoxFuture<'_, Result<Vec<Device>, Error>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn rename_device(&self, _: DeviceId, _: &str) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
    fn deregister_device(&self, _: DeviceId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
}

/// An app's screen, whatever it syncs with.
async fn screen(provider: Option<Arc<dyn Provider>>) -> String {
    let Some(provider) = provider else {
        return "offline".to_owned();
    };
    let valid = provider.validate_connection().await.is_ok();
    let devices = provider
        .registered_devices()
        .await
        .map_or(0, |devices| devices.len());
    format!("{}, valid: {valid}, {devices} devices", provider.name())
}

#[tokio::test]
async fn lb21_a_provider_is_there_while_a_server_is_configured() {
    let mut bed = Bed::dev();
    bed.file("notes.db", NOTES);
    let sync = SyncManager::open(bed.path("notes.db"), Config::new())
        .await
        .unwrap();
    assert_eq!(screen(sync.provider()).await, "offline");
    sync.update_config(|_| bed.config("ana")).unwrap();
    let provider = sync.provider().unwrap();
    assert!(!provider.is_connected());
    let device = provider.register_device("My Laptop").await.unwrap();
    assert_eq!(
        (device.device_id, device.device_name.as_str()),
        (None, "My Laptop")
    );
    sync.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(
        screen(sync.provider()).await,
        "syncline, valid: true, 1 devices"
    );
    let device = provider.registered_devices().await.unwrap().remove(0);
    assert_eq!((device.name.as_str(), device.is_this), ("My Laptop", true));
    provider.rename_device(device.id, "Laptop").await.unwrap();
    assert_eq!(sync.local_device().await.unwrap().device_name, "Laptop");
    provider.deregister_device(device.id).await.unwrap();
    let error = provider.validate_connection().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deregistered);
    provider.register_device("Laptop").await.unwrap();
    provider.validate_connection().await.unwrap();
    bed.stop();
    let error = provider.validate_connection().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected);
    assert_eq!(
        screen(Some(Arc::new(Pretended))).await,
        "pretended, valid: true, 0 devices"
    );
}

#[test]
fn lb11_devices_need_no_runtime() {
    let bed = Bed::dev();
    let path = bed.file("notes.db", NOTES);
    let sync = blocking::SyncManager::open(&path, bed.config("ana")).unwrap();
    sync.register_device("Phone").unwrap();
    sync.sync(Tables::All, |_| {}).unwrap();
    let devices = sync.devices().unwrap();
    assert_eq!(names(&devices), ["Phone"]);
    sync.rename_device(devices[0].id, "Telephone").unwrap();
    assert_eq!(sync.local_device().unwrap().device_name, "Telephone");
    let provider = sync.provider().unwrap();
    sync.wait(provider.deregister_device(devices[0].id))
        .unwrap();
    assert_eq!(sync.devices().unwrap(), []);
}

#[tokio::test]
async fn de10_a_device_that_is_wiped_tells_its_app_what_went_and_what_was_unsent() {
    let bed = Bed::dev();
    let phone = synced(&bed, "phone.db", "ana", "Phone").await;
    let laptop = synced(&bed, "laptop.db", "ana", "Laptop").await;
    let notes = "INSERT INTO notes VALUES ('n1', 'marmalade', NULL)";
    sql(&bed.path("phone.db"), notes);
    phone.sync(Tables::All, |_| {}).await.unwrap();
    phone
        .queue()
        .enqueue("mail", None, &"marmalade")
        .await
        .unwrap();
    sql(&bed.path("phone.db"), "UPDATE notes SET status = 'unsent'");
    laptop.wipe_device(id(&phone).await).await.unwrap();
    let mut events = phone.events();
    phone.start_auto_sync();
    let wiped = wait_for(&mut events, |event| match event {
        Event::Wiped(wiped) => Some(wiped.clone()),
        _ => None,
    })
    .await;
    assert_eq!((wiped.rows, wiped.unsent), (1, 1));
    let (table, key) = &wiped.unsent_rows[0];
    assert_eq!((table.as_str(), key.to_string().as_str()), ("notes", "n1"));
    let error = phone.sync(Tables::All, |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deregistered);
    assert!(error.to_string().contains("as the user asked"), "{error}");
    assert!(phone.local_device().await.unwrap().is_deregistered);
    assert!(phone.queue().operations().await.unwrap().is_empty());
    assert_eq!(phone.stats().await.unwrap().total_records, 0);
    phone.close().await;
    for file in ["phone.db", "phone.db-wal"] {
        let bytes = std::fs::read(bed.path(file)).unwrap_or_default();
        assert!(!bytes.windows(9).any(|part| part == b"marmalade"), "{file}");
    }

    let phone = SyncManager::open(bed.path("phone.db"), bed.config("ana"))
        .await
        .unwrap();
    phone.register_device("Phone again").await.unwrap();
    phone.sync(Tables::All, |_| {}).await.unwrap();
    assert_eq!(
        crate::support::rows(&bed.path("phone.db"), "SELECT title FROM notes"),
        "marmalade"
    );
    phone.close().await;
}
