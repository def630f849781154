//! What a database must offer to keep accounts: people, their logins, keys and the audit log.
//!
//! Beside [`crate::Storage`], not part of it: accounts have no versions and no log, and a storage
//! without them is whole. Calls block; callers are on threads for that, and a storage with an
//! asynchronous driver waits for it there.

use std::fmt::Debug;

use syncline_core::{DeviceId, Timestamp};

use crate::{meta::Owned, storage::StorageError};

/// Somebody who can sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// What rules see as `auth.uid()`; never given to anybody else.
    pub id: String,
    /// As it is compared: lower case.
    pub email: String,
    /// A PHC string, never the password.
    pub password: String,
    pub created: Timestamp,
    /// When the address was confirmed.
    pub verified: Option<Timestamp>,
    /// Since when nobody signs in to it.
    pub disabled: Option<Timestamp>,
    /// Claims for rules, a JSON object; set by administrators only.
    pub claims: String,
}

/// Names a login; a hash of a part of its refresh token, so that knowing it proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LoginId(pub [u8; 16]);

impl LoginId {
    /// As it stands in tokens.
    #[must_use]
    pub fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads what [`LoginId::to_hex`] writes.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut id = [0; 16];
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(is_hex) {
            return None;
        }
        for (byte, digits) in id.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).ok()?;
            *byte = u8::from_str_radix(digits, 16).ok()?;
        }
        Some(Self(id))
    }
}

/// One sign-in and every refresh token that followed from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub id: LoginId,
    /// [`Account::id`].
    pub account: String,
    pub created: Timestamp,
    pub renewed: Timestamp,
    /// Nothing renews it from then on.
    pub expires: Timestamp,
    /// Hash of the refresh token that is good.
    pub current: [u8; 32],
    /// Hash of the one before, which its holder may not have seen answered.
    pub previous: Option<[u8; 32]>,
    /// The next token is made of this and the one that is good.
    pub seed: [u8; 32],
    /// What signed in, as it called itself.
    pub client: String,
}

/// What a mailed link is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Shows that an address is somebody's own.
    Verify,
    /// Sets another password.
    Reset,
}

/// A mailed link that is still good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Hash of what stands in the link.
    pub hash: [u8; 32],
    pub account: String,
    pub purpose: Purpose,
    pub expires: Timestamp,
}

/// A key that access tokens are signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// `kid`.
    pub id: String,
    pub created: Timestamp,
    /// PKCS #8.
    pub secret: Vec<u8>,
}

impl Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({}, secret)", self.id)
    }
}

/// One line of the audit log. No row contents, no secrets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditEvent {
    pub at: Timestamp,
    /// A stable name: `signed_in`, `sign_in_failed`, …
    pub kind: String,
    /// Who did it, as rules name them; empty where nobody proved who they are.
    pub actor: String,
    /// Whom or what it was done to.
    pub subject: String,
    /// From where it came; empty for what the server or its operator did.
    pub address: String,
    /// More, in words.
    pub detail: String,
}

/// An event in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// From 1, without gaps.
    pub number: u64,
    pub event: AuditEvent,
    /// Of the record before and this event.
    pub chain: [u8; 32],
}

/// A part of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditWant {
    /// Only records before this one.
    pub before: Option<u64>,
    /// Only this kind.
    pub kind: Option<String>,
    /// Only what this user did or what was done to them.
    pub user: Option<String>,
    pub max: usize,
}

/// A database with accounts in it; many may use one at a time.
pub trait AccountStore: Debug + Send + Sync {
    /// Runs `work` in one transaction, alone, and commits durably; with an error of `work`'s
    /// nothing has happened.
    ///
    /// # Errors
    /// The storage's, or `work`'s.
    fn transact(
        &self,
        work: &mut dyn FnMut(&mut dyn AccountRecords) -> Result<(), StorageError>,
    ) -> Result<(), StorageError>;

    /// As [`AccountStore::transact`], for work that only reads: it waits for nobody who writes.
    ///
    /// # Errors
    /// As [`AccountStore::transact`].
    fn look(
        &self,
        work: &mut dyn FnMut(&mut dyn AccountRecords) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.transact(work)
    }
}

/// Runs `work` in one transaction of `store` and answers what it answered.
///
/// # Errors
/// As [`AccountStore::transact`].
pub fn transact<T>(
    store: &dyn AccountStore,
    work: impl FnOnce(&mut dyn AccountRecords) -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    answered(work, |work| store.transact(work))
}

/// As [`transact`], for work that only reads.
///
/// # Errors
/// As [`AccountStore::look`].
pub fn look<T>(
    store: &dyn AccountStore,
    work: impl FnOnce(&mut dyn AccountRecords) -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    answered(work, |work| store.look(work))
}

fn answered<T>(
    work: impl FnOnce(&mut dyn AccountRecords) -> Result<T, StorageError>,
    run: impl FnOnce(
        &mut dyn FnMut(&mut dyn AccountRecords) -> Result<(), StorageError>,
    ) -> Result<(), StorageError>,
) -> Result<T, StorageError> {
    let mut work = Some(work);
    let mut answer = None;
    run(&mut |records| {
        if let Some(work) = work.take() {
            answer = Some(work(records)?);
        }
        Ok(())
    })?;
    answer.ok_or_else(|| StorageError::Failed("the transaction did not run".into()))
}

/// What one transaction reads and writes. Every error is the storage's.
#[expect(
    clippy::missing_errors_doc,
    reason = "every one is that of any read or write"
)]
pub trait AccountRecords {
    fn account(&mut self, id: &str) -> Result<Option<Account>, StorageError>;
    fn account_of(&mut self, email: &str) -> Result<Option<Account>, StorageError>;
    /// By e-mail address, after `after`, at most `max`.
    fn accounts(&mut self, after: &str, max: usize) -> Result<Vec<Account>, StorageError>;
    /// Adds it or writes it anew.
    fn put_account(&mut self, account: &Account) -> Result<(), StorageError>;
    /// With its tickets; its logins are to be ended before.
    fn remove_account(&mut self, id: &str) -> Result<(), StorageError>;

    fn login(&mut self, id: LoginId) -> Result<Option<Login>, StorageError>;
    /// Those of an account, the one that was renewed last first.
    fn logins(&mut self, account: &str) -> Result<Vec<Login>, StorageError>;
    fn put_login(&mut self, login: &Login) -> Result<(), StorageError>;
    /// Remembers that a device used a login.
    fn link_device(&mut self, login: LoginId, device: DeviceId) -> Result<(), StorageError>;
    /// The logins that a device used.
    fn logins_on(&mut self, device: DeviceId) -> Result<Vec<Login>, StorageError>;
    /// Removes a login and says so to everybody who asks [`AccountRecords::ended`].
    fn end_login(&mut self, id: LoginId, at: Timestamp) -> Result<(), StorageError>;
    /// Logins that were ended after the place `after`, in order, each with its place.
    fn ended(&mut self, after: u64) -> Result<Vec<(u64, LoginId)>, StorageError>;

    fn put_ticket(&mut self, ticket: &Ticket) -> Result<(), StorageError>;
    /// Removes the ticket and answers it: it is good once.
    fn take_ticket(&mut self, hash: &[u8; 32]) -> Result<Option<Ticket>, StorageError>;
    /// Removes all tickets of an account for `purpose`.
    fn remove_tickets(&mut self, account: &str, purpose: Purpose) -> Result<(), StorageError>;

    /// The newest first.
    fn signing_keys(&mut self) -> Result<Vec<SigningKey>, StorageError>;
    fn put_signing_key(&mut self, key: &SigningKey) -> Result<(), StorageError>;
    fn remove_signing_key(&mut self, id: &str) -> Result<(), StorageError>;

    /// What a user owns; `None` where it is not counted (spec LI6).
    fn owned(&mut self, user: &str) -> Result<Option<Owned>, StorageError>;

    /// The newest record.
    fn audit_head(&mut self) -> Result<Option<AuditRecord>, StorageError>;
    fn put_audit(&mut self, record: &AuditRecord) -> Result<(), StorageError>;
    /// The newest first.
    fn audit(&mut self, want: &AuditWant) -> Result<Vec<AuditRecord>, StorageError>;

    /// Forgets logins and tickets that have expired, ends of logins before `ends_before`, and
    /// audit records before `audit_before`.
    fn forget(
        &mut self,
        now: Timestamp,
        ends_before: Timestamp,
        audit_before: Timestamp,
    ) -> Result<(), StorageError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_login_reads_back_and_nothing_else_does() {
        let id = LoginId([0xa0; 16]);
        assert_eq!(LoginId::from_hex(&id.to_hex()), Some(id));
        for text in [
            "",
            "a0",
            &"A0".repeat(16),
            &"+1".repeat(16),
            &"ä".repeat(16),
        ] {
            assert_eq!(LoginId::from_hex(text), None, "{text}");
        }
    }
}
