//! `syncline devices`: the devices of a user, and which of them may sync.

use std::time::Duration;

use serde_json::json;
use syncline::{
    Device, DeviceId,
    engine::{self, ClientError},
};

use super::{connection, log, managed};
use crate::{
    args::{Devices, DevicesAction},
    exit::{Exit, Failure},
    moment,
    output::{Output, counted},
};

/// How much of an id is shown, and mostly enough to name a device.
const ID_SHOWN: usize = 12;

pub(crate) fn run(args: Devices, verbose: u8, output: &Output) -> anyhow::Result<Exit> {
    log(verbose);
    let Devices {
        file,
        action,
        server,
    } = args;
    if !engine::is_attached(&file)? {
        return Err(ClientError::NotAttached(file).into());
    }
    let known = || connection(&file, &server, output);
    let listed = || -> anyhow::Result<Vec<Device>> {
        managed(&file, Some(&known()?), async |manager| {
            manager.devices().await
        })
    };
    match action.unwrap_or(DevicesAction::List) {
        DevicesAction::Register { name } => {
            let device = managed(&file, None, async |manager| {
                let before = manager.local_device().await?;
                let name = name.unwrap_or_else(|| before.device_name.clone());
                let after = manager.register_device(name).await?;
                Ok((before.is_deregistered, after.device_name))
            });
            let (is_anew, name) = device?;
            let sentence = match is_anew {
                true => format!("the next sync registers this file as a new device, {name}"),
                false => format!("this device is {name} from the next sync on"),
            };
            let object = json!({ "type": "device_registered", "name": name, "anew": is_anew });
            output.result(&sentence, &object);
        }
        DevicesAction::List => {
            let devices = listed()?;
            for device in &devices {
                output.result(&sentence(device), &object(device));
            }
            output.line(&counted(devices.len() as u64, "device"));
        }
        DevicesAction::Rename { id, name } => {
            let device = find(&listed()?, &id)?;
            managed(&file, Some(&known()?), async |manager| {
                manager.rename_device(device, name.clone()).await
            })?;
            let object = json!({
                "type": "device_renamed", "id": device.to_string(), "name": name.trim(),
            });
            output.result("renamed", &object);
        }
        DevicesAction::Remove { id, wipe } => {
            let device = match DeviceId::from_hex(&id).filter(|_| wipe) {
                // It may not be listed any more.
                Some(device) => device,
                None => find(&listed()?, &id)?,
            };
            managed(&file, Some(&known()?), async |manager| match wipe {
                true => manager.wipe_device(device).await,
                false => manager.deregister_device(device).await,
            })?;
            let id = device.to_string();
            let object = json!({ "type": "device_removed", "id": id, "wipe": wipe });
            let sentence = match wipe {
                true => "removed: what it synced is wiped there as soon as it is heard of",
                false => "removed: it does not sync any more, and keeps what it has",
            };
            output.result(sentence, &object);
        }
    }
    Ok(Exit::Done)
}

/// The device whose id begins with `prefix`.
fn find(devices: &[Device], prefix: &str) -> Result<DeviceId, Failure> {
    let begins = |device: &&Device| !prefix.is_empty() && device.id.to_string().starts_with(prefix);
    let found: Vec<_> = devices.iter().filter(begins).collect();
    match found[..] {
        [device] => Ok(device.id),
        [] => Err(Failure::new(
            Exit::NotFound,
            format!("you have no device {prefix}; `syncline devices` lists those you have"),
        )),
        _ => Err(Failure::new(
            Exit::NotFound,
            format!(
                "{} devices begin with {prefix}: give more of it",
                found.len()
            ),
        )),
    }
}

fn sentence(device: &Device) -> String {
    let id = device.id.to_string();
    let this = if device.is_this { ", this one" } else { "" };
    let seen = match device.is_connected {
        true => "connected".to_owned(),
        false => format!("last seen {}", moment::shown(device.last_seen)),
    };
    let behind = match device.behind {
        None => "has everything still to load".to_owned(),
        Some(Duration::ZERO) => "has everything".to_owned(),
        Some(behind) => format!("{} behind", roughly(behind)),
    };
    format!(
        "{}  {}{this}\n    {}, {seen}, {behind}",
        &id[..ID_SHOWN],
        device.name,
        device.platform
    )
}

/// A length of time as people say it.
fn roughly(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => counted(seconds.max(1), "second"),
        seconds @ 120..7_200 => counted(seconds / 60, "minute"),
        seconds @ 7_200..172_800 => counted(seconds / 3_600, "hour"),
        seconds => counted(seconds / 86_400, "day"),
    }
}

fn object(device: &Device) -> serde_json::Value {
    json!({
        "type": "device", "id": device.id.to_string(), "name": device.name,
        "platform": device.platform, "this": device.is_this, "connected": device.is_connected,
        "first_seen_ms": device.first_seen.as_millis(),
        "last_seen_ms": device.last_seen.as_millis(),
        "checkpoint": device.checkpoint.map(|checkpoint| checkpoint.0),
        "behind_ms": device.behind.map(|behind| behind.as_millis()),
    })
}
