//! This device as its user's list has it.

use syncline_core::{DeviceId, Lease, Timestamp};

use super::Replica;
use crate::{
    db,
    error::ReplicaError,
    meta::settings::{self, Key},
};

impl Replica {
    /// Remembers what the user's device list calls this device; told with the next session.
    ///
    /// # Errors
    /// The database's.
    pub fn set_device_name(&mut self, name: &str) -> Result<(), ReplicaError> {
        db::immediate(&self.conn, || {
            settings::put(&self.conn, Key::NamedHere, true)?;
            settings::put(&self.conn, Key::DeviceName, name)
        })
    }

    /// Remembers a name that the server has already.
    ///
    /// # Errors
    /// The database's.
    pub fn heard_device_name(&mut self, name: &str) -> Result<(), ReplicaError> {
        db::immediate(&self.conn, || {
            settings::remove(&self.conn, Key::NamedHere)?;
            settings::put(&self.conn, Key::DeviceName, name)
        })
    }

    /// What the user's device list calls this device, as of the last session, and its operating
    /// system and program.
    ///
    /// # Errors
    /// The database's.
    pub fn device_name(&self) -> Result<(String, String), ReplicaError> {
        let get = |key| settings::get::<String>(&self.conn, key);
        Ok((
            get(Key::DeviceName)?.unwrap_or_default(),
            get(Key::Platform)?.unwrap_or_default(),
        ))
    }

    /// Whether the server has said that the user took this device off the list, and nobody has
    /// asked to register it anew since (spec DE5): no session is opened then.
    ///
    /// # Errors
    /// The database's.
    pub fn is_deregistered(&self) -> Result<bool, ReplicaError> {
        let is = |key| Ok::<_, ReplicaError>(settings::get(&self.conn, key)?.unwrap_or(false));
        Ok(is(Key::Deregistered)? && !is(Key::RegisterAnew)?)
    }

    /// Its id and what proves that it is the one: the lease of the last Welcome, and that of the
    /// last Hello. `None` before it met a server.
    ///
    /// # Errors
    /// The database's.
    pub fn proof(&self) -> Result<Option<(DeviceId, Lease, Lease)>, ReplicaError> {
        let get = |key| settings::get_id(&self.conn, key);
        let (device, next) = (get(Key::Device)?, get(Key::NextLease)?);
        let lease = Lease(get(Key::Lease)?.unwrap_or_default());
        let told = |(device, next)| (DeviceId(device), lease, Lease(next));
        Ok(device.zip(next).map(told))
    }

    /// Remembers that the user took this device off the list, as a refusal with this code does.
    ///
    /// # Errors
    /// The database's.
    pub fn deregistered(&mut self) -> Result<(), ReplicaError> {
        settings::put(&self.conn, Key::Deregistered, true)
    }

    /// Has the next session register this file as a new device of the same user: everything that
    /// waits is sent then. Does nothing to a device that was not deregistered.
    ///
    /// # Errors
    /// The database's.
    pub fn register_anew(&mut self, now: Timestamp) -> Result<(), ReplicaError> {
        self.seal(now)?;
        if self.is_deregistered()? {
            settings::put(&self.conn, Key::RegisterAnew, true)?;
        }
        Ok(())
    }
}
