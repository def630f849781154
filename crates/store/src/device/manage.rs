//! What users and sessions change of devices.

use std::collections::BTreeMap;

use syncline_core::{DeviceId, DeviceName, Timestamp, UserId, Version};

use super::load_one;
use crate::{
    meta::DeviceState,
    storage::{Group, Ledger, Storage, StorageError},
    want::{Loaded, Want},
};

/// Gives a user's device another name, durably; `None` if the user has no such device, whoever
/// else may have it.
///
/// # Errors
/// The storage's; then nothing changed.
pub async fn rename_device<S: Storage>(
    storage: &mut S,
    user: &UserId,
    device: DeviceId,
    name: &DeviceName,
) -> Result<Option<DeviceState>, StorageError> {
    change(storage, user, device, |mut state| {
        if state.deregistered.is_some() {
            return None;
        }
        name.as_str().clone_into(&mut state.name);
        Some(state)
    })
    .await
}

/// Takes a device off its user's list, durably (spec DE4): no session of it is opened any more, and
/// nothing is taken from one that is open. `None` if the user has no such device, whoever else may
/// have it; doing it again changes nothing but that `wipe` may be asked for later: that what it
/// synced is removed there (spec DE8).
///
/// # Errors
/// The storage's; then nothing changed.
pub async fn deregister_device<S: Storage>(
    storage: &mut S,
    user: &UserId,
    device: DeviceId,
    wipe: bool,
    now: Timestamp,
) -> Result<Option<DeviceState>, StorageError> {
    change(storage, user, device, |mut state| {
        state.deregistered.get_or_insert(now);
        state.wipe |= wipe;
        Some(state)
    })
    .await
}

async fn change<S: Storage>(
    storage: &mut S,
    user: &UserId,
    device: DeviceId,
    change: impl FnOnce(DeviceState) -> Option<DeviceState>,
) -> Result<Option<DeviceState>, StorageError> {
    let mut group = storage.begin().await?;
    let known = load_one(&mut group, device).await?;
    let own = known.filter(|state| state.user == *user);
    let Some(state) = own.and_then(change) else {
        group.rollback().await;
        return Ok(None);
    };
    let ledger = Ledger {
        devices: vec![state.clone()],
        ..Ledger::default()
    };
    group.write_ledger(&ledger).await?;
    group.commit().await?;
    Ok(Some(state))
}

/// How a device was last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceSeen {
    pub at: Timestamp,
    /// The newest checkpoint that it is known to have applied; `None` if nothing new is known.
    pub checkpoint: Option<Version>,
}

/// Writes down how devices were seen, all in one transaction; those that are not known are left
/// out.
///
/// # Errors
/// The storage's; then nothing changed.
pub async fn note_devices<S: Storage>(
    storage: &mut S,
    seen: &BTreeMap<DeviceId, DeviceSeen>,
) -> Result<(), StorageError> {
    let mut group = storage.begin().await?;
    let wants: Vec<Want> = seen.keys().map(|device| Want::Device(*device)).collect();
    let mut loaded = Loaded::default();
    group.load(&wants, &mut loaded).await?;
    let known = loaded.devices.into_values().flatten();
    let devices = known.filter_map(|state| {
        let seen = seen.get(&state.id)?;
        Some(DeviceState {
            last_seen: state.last_seen.max(seen.at),
            checkpoint: seen.checkpoint.unwrap_or(state.checkpoint),
            ..state
        })
    });
    let ledger = Ledger {
        devices: devices.collect(),
        ..Ledger::default()
    };
    group.write_ledger(&ledger).await?;
    group.commit().await
}
