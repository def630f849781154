//! Opening a session: which device this is (spec SE2).

use syncline_core::{
    DeviceId, Lease, Timestamp, UserId,
    wire::{Refusal, code},
};

use crate::{
    EXTERNAL,
    meta::DeviceState,
    storage::{Group, Ledger, Storage, StorageError},
    want::{Loaded, Want},
};

/// Longest name and platform that are kept, in characters.
const NAME_CHARS_MAX: usize = 200;

/// What a Hello and its token say about the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceHello {
    pub device: DeviceId,
    pub lease: Lease,
    pub next_lease: Lease,
    pub user: UserId,
    pub name: String,
    pub platform: String,
}

/// The device that the session is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceOpened {
    /// As it is on disk now; its id is another than the Hello's if `forked_from` is set.
    pub state: DeviceState,
    /// The file is a copy or a restored backup of this device's: its cursors bear its MAC.
    pub forked_from: Option<DeviceId>,
}

/// Why no session is opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenDeviceError {
    /// To be told to the device.
    #[error("{}", .0.message)]
    Refused(Box<Refusal>),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Checks and renews the lease, durably. `fresh` is a random id, used if the file turns out to be
/// a copy.
///
/// # Errors
/// [`OpenDeviceError::Refused`] for another user's device or an empty lease. On any error nothing
/// changed.
pub async fn open_device<S: Storage>(
    storage: &mut S,
    hello: &DeviceHello,
    fresh: DeviceId,
    now: Timestamp,
) -> Result<DeviceOpened, OpenDeviceError> {
    if hello.next_lease == Lease::default() {
        return Err(refused(code::MALFORMED, "the next lease is empty"));
    }
    let mut group = storage.begin().await?;
    let mut loaded = Loaded::default();
    group
        .load(&[Want::Device(hello.device)], &mut loaded)
        .await?;
    let known = loaded.devices.remove(&hello.device).flatten();
    let opened = match judge(known, hello, fresh, now) {
        Ok(opened) => opened,
        Err(error) => {
            group.rollback().await;
            return Err(error);
        }
    };
    let ledger = Ledger {
        devices: vec![opened.state.clone()],
        ..Ledger::default()
    };
    group.write_ledger(&ledger).await?;
    group.commit().await?;
    Ok(opened)
}

fn judge(
    known: Option<DeviceState>,
    hello: &DeviceHello,
    fresh: DeviceId,
    now: Timestamp,
) -> Result<DeviceOpened, OpenDeviceError> {
    let registered = |id: DeviceId, forked: bool| DeviceState {
        id,
        user: hello.user.clone(),
        name: shortened(&hello.name),
        platform: shortened(&hello.platform),
        lease: hello.next_lease,
        previous_lease: hello.lease,
        last_number: 0,
        forked,
        first_seen: now,
        last_seen: now,
    };
    let usable = hello.device != DeviceId::default() && hello.device != EXTERNAL;
    match known {
        Some(device) if device.user != hello.user => {
            let message = "this file belongs to another user; sign in as that user, or detach it";
            Err(refused(code::WRONG_USER, message))
        }
        Some(device) if is_lease_holder(&device, hello) => {
            let mut state = DeviceState {
                name: shortened(&hello.name),
                platform: shortened(&hello.platform),
                last_seen: now,
                ..device
            };
            if state.lease == hello.lease {
                (state.previous_lease, state.lease) = (hello.lease, hello.next_lease);
            }
            Ok(DeviceOpened {
                state,
                forked_from: None,
            })
        }
        None if usable && hello.lease == Lease::default() => Ok(DeviceOpened {
            state: registered(hello.device, false),
            forked_from: None,
        }),
        Some(_) | None => Ok(DeviceOpened {
            state: registered(fresh, true),
            forked_from: Some(hello.device),
        }),
    }
}

/// The current lease, or the exchange whose answer was lost.
fn is_lease_holder(device: &DeviceState, hello: &DeviceHello) -> bool {
    device.lease == hello.lease
        || (device.previous_lease, device.lease) == (hello.lease, hello.next_lease)
}

fn shortened(text: &str) -> String {
    text.chars().take(NAME_CHARS_MAX).collect()
}

fn refused(code: &str, message: &str) -> OpenDeviceError {
    OpenDeviceError::Refused(Box::new(Refusal {
        code: code.to_owned(),
        message: message.to_owned(),
        retry: false,
        retry_after_ms: None,
        change: None,
        fatal: true,
    }))
}
