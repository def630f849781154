//! The user's devices: this one, and the others (spec LB20, LB21).

use std::time::Duration;

use serde::Deserialize;
use syncline_core::{DeviceId, DeviceName, Timestamp, Version};

use crate::{
    api::Api,
    manager::SyncManager,
    sync_error::{Error, ErrorKind},
    system,
    worker::Core,
};

/// This device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalDevice {
    /// `None` before a server was met.
    pub device_id: Option<DeviceId>,
    /// What the user's device list calls it, as of the last contact.
    pub device_name: String,
    /// Operating system and program.
    pub platform: String,
    /// Whose file this is; `None` before a server was met.
    pub user: Option<String>,
    /// The user took it off the list: it does not sync, and keeps everything, until
    /// [`SyncManager::register_device`].
    pub is_deregistered: bool,
}

/// A device of the user's, as the server knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// For ever.
    pub id: DeviceId,
    /// What people call it.
    pub name: String,
    /// Operating system and program.
    pub platform: String,
    /// When it was registered.
    pub first_seen: Timestamp,
    /// When it was last connected; now, if it is.
    pub last_seen: Timestamp,
    /// Whether it has a session with the server.
    pub is_connected: bool,
    /// Whether it is this one.
    pub is_this: bool,
    /// The newest checkpoint that it is known to have applied; `None` while it has to load
    /// everything.
    pub checkpoint: Option<Version>,
    /// How much older that is than the newest change that it may lack; zero if it lacks none.
    pub behind: Option<Duration>,
}

#[derive(Deserialize)]
pub(crate) struct DevicesAnswer {
    devices: Vec<DeviceAnswer>,
}

#[derive(Deserialize)]
pub(crate) struct DeviceAnswer {
    id: String,
    name: String,
    platform: String,
    first_seen_ms: u64,
    last_seen_ms: u64,
    connected: bool,
    checkpoint: Option<u64>,
    behind_ms: Option<u64>,
}

impl DeviceAnswer {
    /// `None` if the id is none.
    fn device(self, this: Option<DeviceId>) -> Option<Device> {
        let id = DeviceId::from_hex(&self.id)?;
        Some(Device {
            id,
            name: self.name,
            platform: self.platform,
            first_seen: Timestamp::from_millis(self.first_seen_ms),
            last_seen: Timestamp::from_millis(self.last_seen_ms),
            is_connected: self.connected,
            is_this: this == Some(id),
            checkpoint: self.checkpoint.map(Version),
            behind: self.behind_ms.map(Duration::from_millis),
        })
    }
}

impl SyncManager {
    /// This device, as the user's device list has it.
    ///
    /// # Errors
    /// [`ErrorKind::File`], [`ErrorKind::Closed`].
    pub async fn local_device(&self) -> Result<LocalDevice, Error> {
        self.ask(|core| local(core)).await
    }

    /// The user's devices, those that were connected last first.
    ///
    /// # Errors
    /// [`ErrorKind::NotConfigured`], [`ErrorKind::NotConnected`], [`ErrorKind::Authentication`].
    pub async fn devices(&self) -> Result<Vec<Device>, Error> {
        self.ask_async(async |core| {
            let api = Api::new(&core.connection()?)?;
            let this = local(&core)?.device_id;
            let answer = api.devices().await?;
            let devices = answer.devices.into_iter().map(|answer| answer.device(this));
            let devices: Option<Vec<Device>> = devices.collect();
            devices.ok_or_else(|| api.strange("a device without an id").into())
        })
        .await
    }

    /// Gives this device a name, which the user's list has after the next connection, and has a
    /// device that was taken off the list registered anew then, under another id: what waits is
    /// sent. So it is for a person to call, not for every start of an app.
    ///
    /// Needs no server. A file that has not met one is registered when it does.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for what is no name: 1 to 200 characters, none that cannot be seen;
    /// [`ErrorKind::File`].
    pub async fn register_device(&self, name: impl Into<String>) -> Result<LocalDevice, Error> {
        let name = checked(&name.into())?;
        let device = self.ask(move |core| {
            core.with(|replica| {
                if replica.device_name()?.0 != name.as_str() {
                    replica.set_device_name(name.as_str())?;
                }
                replica.register_anew(system::now())
            })?;
            core.shared.config().device_name = Some(name.as_str().to_owned());
            local(core)
        });
        let device = device.await?;
        self.foreground();
        Ok(device)
    }

    /// Gives one of the user's devices another name. This one may be named without a connection:
    /// then the list has it after the next.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the user has no such device, [`ErrorKind::Invalid`] for what is
    /// no name, and as [`SyncManager::devices`].
    pub async fn rename_device(
        &self,
        device: DeviceId,
        name: impl Into<String>,
    ) -> Result<(), Error> {
        let name = checked(&name.into())?;
        self.ask_async(async move |core| {
            let is_this = local(&core)?.device_id == Some(device);
            let asked = async {
                let api = Api::new(&core.connection()?)?;
                Ok::<(), Error>(api.rename_device(device, name.as_str()).await?)
            };
            match asked.await {
                Ok(()) if is_this => {
                    core.with(|replica| replica.heard_device_name(name.as_str()))?;
                }
                Ok(()) => {}
                Err(error) if is_this && may_be_told_later(&error) => {
                    core.with(|replica| replica.set_device_name(name.as_str()))?;
                }
                Err(error) => return Err(error),
            }
            if is_this {
                core.shared.config().device_name = Some(name.as_str().to_owned());
            }
            Ok(())
        })
        .await
    }

    /// Takes one of the user's devices off the list: its session ends, and it does not sync any
    /// more until somebody registers it anew there. It keeps its rows and what it has not sent.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the user has no such device, and as [`SyncManager::devices`].
    pub async fn deregister_device(&self, device: DeviceId) -> Result<(), Error> {
        self.remove(device, false).await
    }

    /// As [`SyncManager::deregister_device`], and has the device remove what it synced, and what
    /// it has not sent, with its next contact: rows, metadata, and what they left in its file. It
    /// may be asked for later, too, and is not taken back.
    ///
    /// # Errors
    /// The same.
    pub async fn wipe_device(&self, device: DeviceId) -> Result<(), Error> {
        self.remove(device, true).await
    }

    async fn remove(&self, device: DeviceId, wipe: bool) -> Result<(), Error> {
        self.ask_async(async move |core| {
            let api = Api::new(&core.connection()?)?;
            api.deregister_device(device, wipe).await?;
            if local(&core)?.device_id == Some(device) {
                core.with(|replica| replica.deregistered())?;
            }
            Ok(())
        })
        .await
    }
}

fn local(core: &Core) -> Result<LocalDevice, Error> {
    let found = core.with(|replica| Ok((replica.status()?, replica.device_name()?)))?;
    let configured = core.shared.config().device_name.clone();
    Ok(match found {
        Some((status, (name, platform))) => LocalDevice {
            device_id: Some(status.device),
            device_name: name,
            platform,
            user: status.user,
            is_deregistered: status.deregistered,
        },
        None => LocalDevice {
            device_id: None,
            device_name: configured.unwrap_or_else(system::device_name),
            platform: system::platform(),
            user: None,
            is_deregistered: false,
        },
    })
}

/// Whether the next Hello says what the server could not be told now.
fn may_be_told_later(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotConfigured | ErrorKind::NotConnected | ErrorKind::NotFound
    )
}

fn checked(name: &str) -> Result<DeviceName, Error> {
    DeviceName::new(name).map_err(|error| Error::invalid(error.to_string()))
}
