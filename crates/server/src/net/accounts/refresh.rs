//! Refresh tokens: good once, each followed by the next; one that comes again ends the login.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use syncline_core::Timestamp;
use syncline_store::{
    StorageError,
    accounts::{Account, AccountRecords, AuditEvent, Login, LoginId},
};

use super::audit;

/// A login that nobody uses ends after this.
const IDLE_MAX: Duration = Duration::from_secs(30 * 86_400);
/// The last token is answered again for so long: the answer may have been lost, or two windows
/// have asked at once.
const GRACE: Duration = Duration::from_secs(10);
/// Logins that one account may have; the one that was used longest ago makes room.
const LOGINS_MAX: usize = 100;
const PREFIX: &str = "slr_";

/// A refresh token as its holder has it: what names the login, and what proves it.
struct Secret {
    name: [u8; 16],
    proof: [u8; 32],
}

impl Secret {
    fn read(token: &str) -> Option<Self> {
        let text = token.strip_prefix(PREFIX)?;
        let bytes: [u8; 48] = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        let (name, proof) = bytes.split_at(16);
        Some(Self {
            name: name.try_into().ok()?,
            proof: proof.try_into().ok()?,
        })
    }

    fn write(&self) -> String {
        let mut bytes = self.name.to_vec();
        bytes.extend_from_slice(&self.proof);
        format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The login's public name does not lead back to the token.
    fn login(&self) -> LoginId {
        let hash = blake3::derive_key("syncline login name", &self.name);
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        LoginId(id)
    }

    fn hash(&self) -> [u8; 32] {
        blake3::derive_key("syncline refresh token", &self.proof)
    }

    /// The token after this one: the same whenever it is asked for, and nobody's guess.
    fn next(&self, seed: &[u8; 32]) -> Self {
        Self {
            name: self.name,
            proof: *blake3::keyed_hash(seed, &self.proof).as_bytes(),
        }
    }
}

/// The login that a refresh token names, whether or not it is good.
pub(crate) fn login_of(token: &str) -> Option<LoginId> {
    Secret::read(token).map(|secret| secret.login())
}

/// Whether `token` is, or was just before, the one that is good for `login`.
pub(crate) fn proves(token: &str, login: &Login) -> bool {
    Secret::read(token).is_some_and(|secret| {
        let hash = secret.hash();
        same(&hash, &login.current) || login.previous.is_some_and(|old| same(&hash, &old))
    })
}

/// In a time that does not depend on where they differ.
fn same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    blake3::Hash::from_bytes(*one) == blake3::Hash::from_bytes(*other)
}

/// Begins a login of `account`.
pub(crate) fn begin(
    records: &mut dyn AccountRecords,
    account: &Account,
    client: &str,
    now: Timestamp,
) -> Result<(LoginId, String), StorageError> {
    let mut random = [0; 80];
    getrandom::fill(&mut random).map_err(|error| StorageError::Failed(error.to_string().into()))?;
    let mut secret = Secret {
        name: [0; 16],
        proof: [0; 32],
    };
    let mut seed = [0; 32];
    secret.name.copy_from_slice(&random[..16]);
    secret.proof.copy_from_slice(&random[16..48]);
    seed.copy_from_slice(&random[48..]);
    for old in records.logins(&account.id)?.iter().skip(LOGINS_MAX - 1) {
        records.end_login(old.id, now)?;
    }
    let id = secret.login();
    records.put_login(&Login {
        id,
        account: account.id.clone(),
        created: now,
        renewed: now,
        expires: later(now, IDLE_MAX),
        current: secret.hash(),
        previous: None,
        seed,
        client: client.into(),
    })?;
    Ok((id, secret.write()))
}

/// What a refresh token led to.
pub(crate) enum Renewed {
    /// The login goes on, with this token.
    Good(LoginId, Account, String),
    /// Unknown, expired, or its account is gone: sign in again.
    Gone,
    /// It was used before; the login has been ended.
    Reused(LoginId),
}

/// Exchanges a refresh token for the next one.
pub(crate) fn renew(
    records: &mut dyn AccountRecords,
    token: &str,
    address: &str,
    now: Timestamp,
) -> Result<Renewed, StorageError> {
    let Some(secret) = Secret::read(token) else {
        return Ok(Renewed::Gone);
    };
    let Some(mut login) = records.login(secret.login())? else {
        return Ok(Renewed::Gone);
    };
    let account = records.account(&login.account)?;
    let Some(account) = account.filter(|account| account.disabled.is_none()) else {
        records.end_login(login.id, now)?;
        return Ok(Renewed::Gone);
    };
    if now >= login.expires {
        records.end_login(login.id, now)?;
        return Ok(Renewed::Gone);
    }
    let hash = secret.hash();
    let next = secret.next(&login.seed);
    if same(&hash, &login.current) {
        login.previous = Some(login.current);
        login.current = next.hash();
        login.renewed = now;
        login.expires = later(now, IDLE_MAX);
        records.put_login(&login)?;
        return Ok(Renewed::Good(login.id, account, next.write()));
    }
    let is_previous = login.previous.is_some_and(|old| same(&hash, &old));
    if is_previous && now <= later(login.renewed, GRACE) {
        return Ok(Renewed::Good(login.id, account, next.write()));
    }
    // Somebody has a copy, and nobody can tell who: both have to sign in again.
    records.end_login(login.id, now)?;
    let event = AuditEvent {
        at: now,
        kind: "refresh_reused".into(),
        subject: account.id,
        address: address.into(),
        detail: format!("login {} was ended", login.id.to_hex()),
        ..AuditEvent::default()
    };
    audit::note(records, event)?;
    Ok(Renewed::Reused(login.id))
}

pub(crate) fn later(time: Timestamp, by: Duration) -> Timestamp {
    Timestamp(
        time.0
            .saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)),
    )
}
