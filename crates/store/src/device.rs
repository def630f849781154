//! Devices: which one a session is for (spec SE2), what they are called, and which of them may
//! not come back (spec DE1–DE5).

mod manage;

pub use manage::{DeviceSeen, deregister_device, note_devices, rename_device};

use syncline_core::planted;
use syncline_core::{
    DeviceId, DeviceName, Lease, Timestamp, UserId, Version,
    device::told_of_itself,
    wire::{Hello, Refusal, code},
};

use crate::{
    EXTERNAL,
    meta::DeviceState,
    storage::{Group, Ledger, Storage, StorageError},
    want::{Loaded, Want},
};

/// Platform of the device as which all of a user's pushes over HTTP count.
pub const HTTP_PLATFORM: &str = "http";

/// What a Hello and its token say about the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceHello {
    pub device: DeviceId,
    pub lease: Lease,
    pub next_lease: Lease,
    pub user: UserId,
    pub name: String,
    /// Whether the name was given on the device since it last heard its name from here.
    pub renamed: bool,
    pub platform: String,
    /// A deregistered device is to come back, under another id.
    pub register_anew: bool,
}

impl DeviceHello {
    /// What `hello` says, on a connection of `user`.
    #[must_use]
    pub fn new(hello: &Hello, user: UserId) -> Self {
        Self {
            device: hello.device,
            lease: hello.lease,
            next_lease: hello.next_lease,
            user,
            name: hello.device_name.clone(),
            renamed: hello.renamed,
            platform: hello.platform.clone(),
            register_anew: hello.register_anew,
        }
    }
}

/// The device that the session is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceOpened {
    /// As it is on disk now; its id is another than the Hello's if `forked_from` is set.
    pub state: DeviceState,
    /// The file is a copy or a restored backup of this device's, or it is this device's and was
    /// registered anew: its cursors bear its MAC.
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
/// a copy, or is registered anew.
///
/// # Errors
/// [`OpenDeviceError::Refused`] for another user's device, a deregistered one or an empty lease.
/// On any error nothing changed.
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
    let known = load_one(&mut group, hello.device).await?;
    let spent = known.as_ref().and_then(|device| spent_by(device, hello));
    let opened = match judge(known, hello, fresh, now) {
        Ok(opened) => opened,
        Err(error) => {
            group.rollback().await;
            return Err(error);
        }
    };
    let ledger = Ledger {
        devices: spent.into_iter().chain([opened.state.clone()]).collect(),
        ..Ledger::default()
    };
    group.write_ledger(&ledger).await?;
    group.commit().await?;
    Ok(opened)
}

async fn load_one<G: Group>(
    group: &mut G,
    device: DeviceId,
) -> Result<Option<DeviceState>, StorageError> {
    let mut loaded = Loaded::default();
    group.load(&[Want::Device(device)], &mut loaded).await?;
    Ok(loaded.devices.remove(&device).flatten())
}

fn judge(
    known: Option<DeviceState>,
    hello: &DeviceHello,
    fresh: DeviceId,
    now: Timestamp,
) -> Result<DeviceOpened, OpenDeviceError> {
    let name = DeviceName::told(&hello.name).as_str().to_owned();
    let platform = told_of_itself(&hello.platform);
    let registered = |id: DeviceId, forked: bool| DeviceState {
        id,
        user: hello.user.clone(),
        name: name.clone(),
        platform: platform.clone(),
        lease: hello.next_lease,
        previous_lease: hello.lease,
        last_number: 0,
        forked,
        first_seen: now,
        last_seen: now,
        checkpoint: Version::ZERO,
        deregistered: None,
        wipe: false,
    };
    let usable = hello.device != DeviceId::default() && hello.device != EXTERNAL;
    match known {
        Some(device) if device.user != hello.user => {
            let message = "this file belongs to another user; sign in as that user, or detach it";
            Err(refused(code::WRONG_USER, message))
        }
        // What it synced goes first.
        Some(device) if device.deregistered.is_some() && (device.wipe || !hello.register_anew) => {
            Err(OpenDeviceError::Refused(Box::new(deregistered())))
        }
        Some(device) if device.deregistered.is_none() && is_lease_holder(&device, hello) => {
            let mut state = DeviceState {
                platform,
                last_seen: now,
                ..device
            };
            if hello.renamed {
                state.name = name;
            }
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
    planted!(LeaseUnchecked)
        || (device.lease == hello.lease && device.lease != Lease::default())
        || (device.previous_lease, device.lease) == (hello.lease, hello.next_lease)
}

/// The device whose file turned out to be copied, if a copy of it says `hello`: which of the two
/// sent what nobody can tell from its number any more, so that the file that was copied is to hear
/// of it, too. From now on it has no lease, which nobody holds; the last one is kept for DE9.
fn spent_by(device: &DeviceState, hello: &DeviceHello) -> Option<DeviceState> {
    let is_copied = device.user == hello.user
        && device.deregistered.is_none()
        && device.platform != HTTP_PLATFORM
        && device.lease != Lease::default()
        && !is_lease_holder(device, hello);
    is_copied.then(|| DeviceState {
        previous_lease: device.lease,
        lease: Lease::default(),
        ..device.clone()
    })
}

/// Whether the user of a deregistered device wants removed what it synced; to be told to who has
/// a lease of it alone, whatever the token (spec DE9).
#[must_use]
pub fn is_to_be_wiped(device: &DeviceState, leases: [Lease; 2]) -> bool {
    // In a time that does not depend on where they differ.
    let hash = |lease: Lease| blake3::hash(&lease.0);
    let last = match device.lease == Lease::default() {
        true => device.previous_lease,
        false => device.lease,
    };
    let is_its = |lease| lease != Lease::default() && hash(lease) == hash(last);
    device.deregistered.is_some() && device.wipe && leases.into_iter().any(is_its)
}

/// What a device hears that its user took off the list (spec DE4).
#[must_use]
pub fn deregistered() -> Refusal {
    refusal(
        code::DEREGISTERED,
        "this device was removed from its user's list of devices; what it has not sent stays in \
         the file; register it anew to go on",
    )
}

fn refused(code: &str, message: &str) -> OpenDeviceError {
    OpenDeviceError::Refused(Box::new(refusal(code, message)))
}

fn refusal(code: &str, message: &str) -> Refusal {
    Refusal {
        code: code.to_owned(),
        message: message.to_owned(),
        retry: false,
        retry_after_ms: None,
        change: None,
        fatal: true,
    }
}
