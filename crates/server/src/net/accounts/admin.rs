//! What an operator does with accounts, beside a running server or without one.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::Value;
use syncline_core::Timestamp;
use syncline_store::{
    StorageError,
    accounts::{Account, AccountRecords, AccountStore, AuditEvent, Purpose, transact},
};

use super::{audit, end, is_address, password};

/// Accounts read at once.
const PAGE: usize = 1_000;
/// Claims that tokens have anyway.
const RESERVED: [&str; 9] = [
    "sub",
    "exp",
    "nbf",
    "iat",
    "iss",
    "aud",
    "sid",
    "email",
    "email_verified",
];

/// Why an operator's wish is not done.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("{0}")]
    Malformed(String),
    #[error("there is no account {0}; `syncline users list` shows those there are")]
    NotFound(String),
    #[error("{0} has an account already")]
    Taken(String),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// `email` as it is kept and compared.
///
/// # Errors
/// A sentence, if it is none.
pub fn email(text: &str) -> Result<String, String> {
    let email = text.trim().to_lowercase();
    if is_address(&email) {
        return Ok(email);
    }
    Err("that is no e-mail address: write for example ana@example.com".into())
}

/// A password that nobody guesses, for an account whose owner sets another one.
///
/// # Errors
/// No random bytes.
pub fn random_password() -> Result<String, StorageError> {
    let mut random = [0; 15];
    getrandom::fill(&mut random).map_err(|error| StorageError::Failed(error.to_string().into()))?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(random))
}

/// A UUID, version 4.
pub(super) fn new_id() -> Result<String, StorageError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| StorageError::Failed(error.to_string().into()))?;
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    ))
}

/// All accounts, by address.
///
/// # Errors
/// The storage's.
pub fn list(store: &dyn AccountStore) -> Result<Vec<Account>, StorageError> {
    let mut all: Vec<Account> = Vec::new();
    loop {
        let after = all
            .last()
            .map_or_else(String::new, |last| last.email.clone());
        let page = transact(store, |records| records.accounts(&after, PAGE))?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// Adds an account whose address counts as confirmed.
///
/// # Errors
/// [`AdminError`].
pub fn add(
    store: &dyn AccountStore,
    address: &str,
    new_password: &str,
    claims: &BTreeMap<String, Value>,
    now: Timestamp,
) -> Result<Account, AdminError> {
    let email = email(address).map_err(AdminError::Malformed)?;
    let claims = checked_claims(claims)?;
    let account = Account {
        id: new_id()?,
        password: hashed(new_password, &email)?,
        email,
        created: now,
        verified: Some(now),
        disabled: None,
        claims,
    };
    transact(store, |records| {
        if records.account_of(&account.email)?.is_some() {
            return Ok(Err(AdminError::Taken(account.email.clone())));
        }
        records.put_account(&account)?;
        note(records, "account_added", &account, now)?;
        Ok(Ok(account.clone()))
    })?
}

/// What is done to an account.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Nobody signs in to it; its logins end.
    Disable,
    Enable,
    /// Its logins end.
    Password(String),
    /// In place of the claims it had.
    Claims(BTreeMap<String, Value>),
    /// For ever, with its logins. Its rows stay.
    Remove,
}

/// Changes the account with this address or id.
///
/// # Errors
/// [`AdminError`].
pub fn change(
    store: &dyn AccountStore,
    who: &str,
    change: &Change,
    now: Timestamp,
) -> Result<Account, AdminError> {
    let find = |records: &mut dyn AccountRecords| match records.account(who)? {
        Some(account) => Ok(Some(account)),
        None => records.account_of(&who.trim().to_lowercase()),
    };
    let not_found = || AdminError::NotFound(who.to_owned());
    // Hashing takes a while: not inside the transaction.
    let found = transact(store, find)?.ok_or_else(not_found)?;
    let phc = match change {
        Change::Password(new) => Some(hashed(new, &found.email)?),
        Change::Disable | Change::Enable | Change::Claims(_) | Change::Remove => None,
    };
    let claims = match change {
        Change::Claims(claims) => Some(checked_claims(claims)?),
        Change::Disable | Change::Enable | Change::Password(_) | Change::Remove => None,
    };
    transact(store, |records| {
        let Some(mut account) = find(records)? else {
            return Ok(Err(not_found()));
        };
        let (kind, ends) = match change {
            Change::Disable => {
                account.disabled = account.disabled.or(Some(now));
                ("account_disabled", true)
            }
            Change::Enable => {
                account.disabled = None;
                ("account_enabled", false)
            }
            Change::Password(_) => ("password_set", true),
            Change::Claims(_) => ("claims_set", false),
            Change::Remove => ("account_removed", true),
        };
        if let Some(phc) = &phc {
            account.password.clone_from(phc);
            records.remove_tickets(&account.id, Purpose::Reset)?;
        }
        if let Some(claims) = &claims {
            account.claims.clone_from(claims);
        }
        if ends {
            end(records, &account.id, |_| true, now)?;
        }
        match change {
            Change::Remove => records.remove_account(&account.id)?,
            Change::Disable | Change::Enable | Change::Password(_) | Change::Claims(_) => {
                records.put_account(&account)?;
            }
        }
        note(records, kind, &account, now)?;
        Ok(Ok(account))
    })?
}

fn note(
    records: &mut dyn AccountRecords,
    kind: &str,
    account: &Account,
    now: Timestamp,
) -> Result<(), StorageError> {
    let event = AuditEvent {
        at: now,
        kind: kind.into(),
        actor: "operator".into(),
        subject: account.id.clone(),
        ..AuditEvent::default()
    };
    audit::note(records, event)
}

fn hashed(new_password: &str, email: &str) -> Result<String, AdminError> {
    if let Some(why) = password::weakness(new_password, email) {
        return Err(AdminError::Malformed(why));
    }
    let phc = password::hash(new_password.as_bytes());
    Ok(phc.map_err(|error| StorageError::Failed(error.into()))?)
}

fn checked_claims(claims: &BTreeMap<String, Value>) -> Result<String, AdminError> {
    if let Some(name) = claims.keys().find(|name| RESERVED.contains(&name.as_str())) {
        let sentence = format!("`{name}` is set by the server and cannot be a claim");
        return Err(AdminError::Malformed(sentence));
    }
    let text = serde_json::to_string(claims);
    Ok(text.map_err(|error| StorageError::Failed(error.into()))?)
}
