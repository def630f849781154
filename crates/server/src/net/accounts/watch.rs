//! What happens elsewhere: logins that end, devices that come and go, keys that grow old.

use std::{collections::BTreeMap, sync::Weak, time::Duration};

use syncline_core::{DeviceId, Timestamp};
use syncline_store::{
    StorageError,
    accounts::{AccountRecords, AuditEvent, LoginId, look, transact},
};

use super::{ACCESS_TTL, Accounts, audit, clock, keys::Keys, refresh::later, repeats};
use crate::net::{Backend, Shared};

/// How soon a login that was ended elsewhere is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// So many looks until keys are changed and what has expired is forgotten.
const LOOKS_PER_UPKEEP: u32 = 240;

/// What happened to a device.
#[derive(Debug, Clone, Copy)]
pub(super) enum Told {
    Opened(LoginId, DeviceId),
    Deregistered(DeviceId),
}

/// Logins whose access tokens may still be around.
#[derive(Debug, Default)]
pub(super) struct Ended {
    pub(super) logins: BTreeMap<LoginId, Timestamp>,
    pub(super) place: u64,
}

impl Accounts {
    /// A session of a login opened a device. Waits for nothing.
    pub(crate) fn device_opened(&self, login: LoginId, device: DeviceId) {
        self.tell(Told::Opened(login, device));
    }

    /// A device was deregistered: logins that it used end. Waits for nothing.
    pub(crate) fn device_deregistered(&self, device: DeviceId) {
        self.tell(Told::Deregistered(device));
    }

    fn tell(&self, told: Told) {
        self.told.lock().push(told);
        self.look.notify_one();
    }

    /// Writes down what was told of devices, in its order.
    fn write_told(&self, now: Timestamp) -> Result<(), StorageError> {
        let told = std::mem::take(&mut *self.told.lock());
        if told.is_empty() {
            return Ok(());
        }
        let written = transact(&*self.store, |records| {
            for told in &told {
                match *told {
                    Told::Opened(login, device) => records.link_device(login, device)?,
                    Told::Deregistered(device) => deregistered(records, device, now)?,
                }
            }
            Ok(())
        });
        if written.is_err() {
            // Once more at the next look, before what came meanwhile.
            self.told.lock().splice(0..0, told);
        }
        written
    }

    /// Writes down what may have happened often; at the end, what waits for its minute, too.
    pub(super) fn write_repeats(&self, now: Timestamp, is_end: bool) -> Result<(), StorageError> {
        repeats::write(&self.refusals, &*self.store, now, is_end)?;
        repeats::write(&self.access, &*self.store, now, is_end)
    }

    /// Writes down all that is left to be written: the server stops.
    ///
    /// # Errors
    /// The storage's.
    pub(crate) fn finish(&self) -> Result<(), StorageError> {
        let now = clock::now();
        self.write_told(now)?;
        self.write_repeats(now, true)
    }

    /// Logins that were ended since the last look, here or by another program.
    pub(super) fn look_for_ended(&self, now: Timestamp) -> Result<Vec<LoginId>, StorageError> {
        let place = self.ended.lock().place;
        let found = look(&*self.store, |records| records.ended(place))?;
        let mut ended = self.ended.lock();
        let until = later(now, 2 * ACCESS_TTL);
        for (place, login) in &found {
            ended.place = ended.place.max(*place);
            ended.logins.insert(*login, until);
        }
        Ok(found.into_iter().map(|(_, login)| login).collect())
    }

    fn upkeep(&self, now: Timestamp) -> Result<(), StorageError> {
        let ends = Timestamp(now.0.saturating_sub(micros(4 * ACCESS_TTL)));
        let days = Duration::from_secs(u64::from(self.audit_days) * 86_400);
        let audit = Timestamp(now.0.saturating_sub(micros(days)));
        let keys = transact(&*self.store, |records| {
            records.forget(now, ends, audit)?;
            Keys::load(records, self.server, now)
        })?;
        if keys.is_old(now) {
            tracing::warn!("the signing key is old and could not be changed");
        }
        *self.keys.write() = keys;
        self.ended.lock().logins.retain(|_, until| *until > now);
        Ok(())
    }
}

/// Tells sessions whose logins have ended, and keeps keys fresh, as long as the server lives.
pub(crate) async fn watch<B: Backend>(shared: Weak<Shared<B>>) {
    for round in 1_u32.. {
        let Some(accounts) = shared.upgrade().and_then(|shared| shared.accounts.clone()) else {
            return;
        };
        let _woken = tokio::time::timeout(LOOK_EVERY, accounts.look.notified()).await;
        let is_upkeep = round.is_multiple_of(LOOKS_PER_UPKEEP);
        let looked = tokio::task::spawn_blocking(move || {
            let now = clock::now();
            if is_upkeep {
                accounts.upkeep(now)?;
            }
            accounts.write_told(now)?;
            accounts.write_repeats(now, false)?;
            accounts.look_for_ended(now)
        });
        let Some(shared) = shared.upgrade() else {
            return;
        };
        match looked.await {
            Ok(Ok(ended)) => {
                for login in ended {
                    shared.presences.sign_out(login);
                }
            }
            Ok(Err(StorageError::Busy)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "accounts could not be looked at"),
            Err(error) => tracing::error!(%error, "looking at accounts panicked"),
        }
    }
}

/// Ends the logins that a device used: nobody gets a token there without signing in again.
fn deregistered(
    records: &mut dyn AccountRecords,
    device: DeviceId,
    now: Timestamp,
) -> Result<(), StorageError> {
    let logins = records.logins_on(device)?;
    for login in &logins {
        records.end_login(login.id, now)?;
    }
    let account = logins.first().map(|login| login.account.clone());
    let event = AuditEvent {
        at: now,
        kind: "device_deregistered".into(),
        subject: account.unwrap_or_default(),
        detail: format!("device {device}, {} logins ended", logins.len()),
        ..AuditEvent::default()
    };
    audit::note(records, event)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
