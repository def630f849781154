//! Accounts: signing up and in, tokens, passwords (docs/spec/accounts.md).
//!
//! Everything here is the same work for an account that is there and one that is not: what
//! differs is in the answer to its owner's mailbox alone.

mod access;
pub mod admin;
pub mod audit;
pub(crate) mod http;
mod keys;
mod mail;
pub mod password;
mod recovery;
mod refresh;
mod refusals;
mod repeats;
#[cfg(test)]
mod tests;
mod throttle;
mod watch;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use lettre::Address;
use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use syncline_core::{DeviceId, Timestamp, config::ServerConfig, rules::Identity, wire::Refusal};
use syncline_store::{
    StorageError,
    accounts::{
        Account, AccountRecords, AccountStore, AuditEvent, AuditRecord, AuditWant, LoginId,
        Purpose, look, transact,
    },
};
use tokio::sync::Notify;

pub(crate) use self::refusals::Refused;
use self::{
    access::Access,
    keys::{Keys, Subject},
    mail::{Letter, Mailer},
    password::{Busy, Hasher},
    refresh::Renewed,
    repeats::Repeats,
    throttle::Throttle,
    watch::{Ended, Told},
};
pub(crate) use self::{
    keys::{ACCESS_TTL, login_of},
    watch::watch,
};
use super::clock;
use crate::session::Proof;

/// Longest e-mail address that there can be, in bytes.
const EMAIL_BYTES_MAX: usize = 254;

/// Why somebody does not get what they asked for.
#[derive(Debug)]
pub(crate) enum AccountError {
    /// The same for an address that nobody has, a wrong password, an address that was not
    /// confirmed and an account that is disabled.
    Credentials,
    /// A refresh token, link or code that is not good (any more).
    Stale(&'static str),
    TooFast(Duration),
    Busy,
    SignUpClosed,
    EmailTaken,
    Malformed(String),
    WeakPassword(String),
    Storage(StorageError),
}

impl From<Busy> for AccountError {
    fn from(_: Busy) -> Self {
        Self::Busy
    }
}
impl From<StorageError> for AccountError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// What a sign-in gives.
#[derive(Debug, Clone)]
pub(crate) struct Tokens {
    pub(crate) access: String,
    pub(crate) refresh: String,
    pub(crate) account: Account,
}

/// What a sign-up led to.
#[derive(Debug)]
pub(crate) enum SignedUp {
    /// A mail says how it goes on, whoever has the address.
    Mailed,
    SignedIn(Box<Tokens>),
}

/// One server's accounts.
#[derive(Debug)]
pub(crate) struct Accounts {
    store: Arc<dyn AccountStore>,
    server: DeviceId,
    keys: RwLock<Keys>,
    ended: Mutex<Ended>,
    /// What the committer told of devices, to be written down at the next look.
    told: Mutex<Vec<Told>>,
    refusals: Mutex<Repeats<Refused>>,
    access: Mutex<Repeats<Access>>,
    look: Notify,
    hasher: Hasher,
    throttle: Throttle,
    mailer: Mailer,
    sign_up: bool,
    verify_email: bool,
    audit_days: u32,
}

impl Accounts {
    /// Opens them as configured.
    pub(crate) fn open(
        store: Arc<dyn AccountStore>,
        server: DeviceId,
        config: &ServerConfig,
        dev: bool,
    ) -> Result<Self, String> {
        let now = clock::now();
        let keys = transact(&*store, |records| Keys::load(records, server, now))
            .map_err(|error| error.to_string())?;
        let mailer = Mailer::new(config, dev)?;
        let verify_email = config.verify_email && !dev;
        if config.sign_up && verify_email && !mailer.can_send() {
            return Err(
                "server.sign_up is on and addresses are to be confirmed, but no mail can be sent: \
                 set server.smtp, or server.verify_email = false"
                    .into(),
            );
        }
        let accounts = Self {
            store,
            server,
            keys: RwLock::new(keys),
            ended: Mutex::default(),
            told: Mutex::default(),
            refusals: Mutex::default(),
            access: Mutex::default(),
            look: Notify::new(),
            hasher: Hasher::new()?,
            throttle: Throttle::default(),
            mailer,
            sign_up: config.sign_up || dev,
            verify_email,
            audit_days: config.audit_days,
        };
        accounts
            .look_for_ended(now)
            .map_err(|error| error.to_string())?;
        Ok(accounts)
    }

    pub(crate) fn issuer(&self) -> String {
        self.keys.read().issuer().to_owned()
    }

    /// The public keys, as JSON.
    pub(crate) fn public_keys(&self) -> Value {
        self.keys.read().public().clone()
    }

    /// What a token proves that says it is ours.
    pub(crate) fn verify(&self, token: &str, kid: &str) -> Result<Proof, Refusal> {
        let proof = self.keys.read().verify(token, kid)?;
        match login_of(&proof.identity) {
            Some(login) if !self.has_ended(login) => Ok(proof),
            Some(_) | None => Err(super::auth::unauthorized(
                "this login was ended: sign in again",
            )),
        }
    }

    pub(crate) fn has_ended(&self, login: LoginId) -> bool {
        self.ended.lock().logins.contains_key(&login)
    }

    /// Makes an account. With addresses to be confirmed the answer does not tell whether there
    /// was one already.
    pub(crate) async fn sign_up(
        self: &Arc<Self>,
        email: &str,
        password: &str,
        client: &str,
        from: IpAddr,
    ) -> Result<SignedUp, AccountError> {
        if !self.sign_up {
            return Err(AccountError::SignUpClosed);
        }
        let email = checked_email(email)?;
        check_strength(password, &email)?;
        let now = clock::now();
        self.throttle
            .may_make(from, now)
            .map_err(AccountError::TooFast)?;
        let phc = self.hash(password).await?;
        let verified = (!self.verify_email).then_some(now);
        let made = self
            .transact({
                let email = email.clone();
                move |records| make(records, &email, phc, verified, from, now)
            })
            .await?;
        match made {
            None if self.verify_email => {
                self.send_ticket(None, email.clone(), Purpose::Verify)
                    .await?;
                self.mail(email, Letter::AlreadyThere);
                Ok(SignedUp::Mailed)
            }
            None => Err(AccountError::EmailTaken),
            Some(account) if self.verify_email => {
                self.send_ticket(Some(account), email, Purpose::Verify)
                    .await?;
                Ok(SignedUp::Mailed)
            }
            Some(account) => {
                let tokens = self.begin(account, client, from).await?;
                Ok(SignedUp::SignedIn(Box::new(tokens)))
            }
        }
    }

    pub(crate) async fn sign_in(
        self: &Arc<Self>,
        email: &str,
        password: &str,
        client: &str,
        from: IpAddr,
    ) -> Result<Tokens, AccountError> {
        let email = checked_email(email)?;
        let account = self.check_password(&email, password, from).await?;
        self.begin(account, client, from).await
    }

    /// The account with this address and password, if it may be used.
    async fn check_password(
        self: &Arc<Self>,
        email: &str,
        password: &str,
        from: IpAddr,
    ) -> Result<Account, AccountError> {
        let now = clock::now();
        self.throttle
            .attempt(email, from, now)
            .map_err(AccountError::TooFast)?;
        let found = self
            .transact({
                let email = email.to_owned();
                move |records| records.account_of(&email)
            })
            .await?;
        let phc = found.as_ref().map(|account| account.password.as_str());
        let is_short = password.len() <= password::PASSWORD_BYTES_MAX;
        let tried = if is_short { password } else { "" };
        let is_right = self.hasher.verify(tried, phc).await? && is_short;
        let verify_email = self.verify_email;
        let may = |account: &Account| {
            account.disabled.is_none() && (account.verified.is_some() || !verify_email)
        };
        match found.filter(|account| is_right && may(account)) {
            Some(account) => {
                self.throttle.succeeded(email, from);
                Ok(account)
            }
            None => {
                let event = AuditEvent {
                    at: now,
                    kind: "sign_in_failed".into(),
                    subject: email.to_owned(),
                    address: from.to_string(),
                    ..AuditEvent::default()
                };
                self.transact(move |records| audit::note(records, event))
                    .await?;
                Err(AccountError::Credentials)
            }
        }
    }

    /// Begins a login, unless the account changed since it was looked at.
    async fn begin(
        self: &Arc<Self>,
        seen: Account,
        client: &str,
        from: IpAddr,
    ) -> Result<Tokens, AccountError> {
        let client: String = client
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect();
        let now = clock::now();
        let begun = self
            .transact(move |records| {
                let account = records.account(&seen.id)?;
                let is_same = |a: &Account| a.disabled.is_none() && a.password == seen.password;
                let Some(account) = account.filter(is_same) else {
                    return Ok(None);
                };
                let (login, refresh) = refresh::begin(records, &account, &client, now)?;
                let event = AuditEvent {
                    at: now,
                    kind: "signed_in".into(),
                    actor: account.id.clone(),
                    subject: account.id.clone(),
                    address: from.to_string(),
                    detail: format!("login {}", login.to_hex()),
                };
                audit::note(records, event)?;
                Ok(Some((account, login, refresh)))
            })
            .await?;
        let (account, login, refresh) = begun.ok_or(AccountError::Credentials)?;
        self.tokens(account, login, refresh, now)
    }

    /// The next tokens for a refresh token.
    pub(crate) async fn refresh(
        self: &Arc<Self>,
        token: &str,
        from: IpAddr,
    ) -> Result<Tokens, AccountError> {
        let now = clock::now();
        let token = token.to_owned();
        let renewed = self
            .transact(move |records| refresh::renew(records, &token, &from.to_string(), now))
            .await?;
        match renewed {
            Renewed::Good(login, account, refresh) => self.tokens(account, login, refresh, now),
            Renewed::Gone => Err(AccountError::Stale("this login is over: sign in again")),
            Renewed::Reused(login) => {
                tracing::warn!(login = login.to_hex(), "a refresh token was used twice");
                self.look.notify_one();
                Err(AccountError::Stale(
                    "this refresh token was used before, so its login was ended on every device \
                     that has it: sign in again",
                ))
            }
        }
    }

    fn tokens(
        &self,
        account: Account,
        login: LoginId,
        refresh: String,
        now: Timestamp,
    ) -> Result<Tokens, AccountError> {
        let subject = Subject {
            account: account.id.clone(),
            login,
            claims: claims_of(&account),
        };
        let access = self.keys.read().issue(&subject, now);
        let access = access.map_err(|error| StorageError::Failed(error.into()))?;
        Ok(Tokens {
            access,
            refresh,
            account,
        })
    }

    /// Ends the login of a refresh token; one that is not good is as good as signed out.
    pub(crate) async fn sign_out(
        self: &Arc<Self>,
        token: &str,
        everywhere: bool,
        from: IpAddr,
    ) -> Result<(), AccountError> {
        let Some(id) = refresh::login_of(token) else {
            return Ok(());
        };
        let token = token.to_owned();
        let now = clock::now();
        self.transact(move |records| {
            let login = records.login(id)?;
            let Some(login) = login.filter(|login| refresh::proves(&token, login)) else {
                return Ok(());
            };
            end(records, &login.account, |one| everywhere || one == id, now)?;
            let event = AuditEvent {
                at: now,
                kind: "signed_out".into(),
                actor: login.account.clone(),
                subject: login.account,
                address: from.to_string(),
                detail: if everywhere {
                    "everywhere".into()
                } else {
                    String::new()
                },
            };
            audit::note(records, event)
        })
        .await?;
        self.look.notify_one();
        Ok(())
    }

    /// The account of somebody who shows a token of ours.
    pub(crate) async fn account_of(
        self: &Arc<Self>,
        identity: &Identity,
    ) -> Result<Option<Account>, AccountError> {
        if login_of(identity).is_none() {
            return Ok(None);
        }
        let Some(user) = identity.user.clone() else {
            return Ok(None);
        };
        Ok(self
            .transact(move |records| records.account(&user.0))
            .await?)
    }

    /// A part of the audit log, the newest first.
    pub(crate) async fn audit(&self, want: AuditWant) -> Result<Vec<AuditRecord>, StorageError> {
        let store = Arc::clone(&self.store);
        let task =
            tokio::task::spawn_blocking(move || look(&*store, |records| records.audit(&want)));
        task.await
            .map_err(|panic| StorageError::Failed(panic.into()))?
    }

    async fn hash(&self, password: &str) -> Result<String, AccountError> {
        let phc = self.hasher.hash(password).await?;
        let failed = || StorageError::Failed("the password could not be hashed".into());
        Ok(phc.ok_or_else(failed)?)
    }

    /// One transaction, on a thread that may block.
    async fn transact<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn AccountRecords) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let store = Arc::clone(&self.store);
        let task = tokio::task::spawn_blocking(move || transact(&*store, work));
        task.await
            .map_err(|panic| StorageError::Failed(panic.into()))?
    }
}

/// Ends the logins of an account that `which` picks.
fn end(
    records: &mut dyn AccountRecords,
    account: &str,
    which: impl Fn(LoginId) -> bool,
    now: Timestamp,
) -> Result<(), StorageError> {
    for login in records.logins(account)? {
        if which(login.id) {
            records.end_login(login.id, now)?;
        }
    }
    Ok(())
}

/// Adds an account, unless the address has one.
fn make(
    records: &mut dyn AccountRecords,
    email: &str,
    password: String,
    verified: Option<Timestamp>,
    from: IpAddr,
    now: Timestamp,
) -> Result<Option<Account>, StorageError> {
    let is_there = records.account_of(email)?.is_some();
    let account = Account {
        id: admin::new_id()?,
        email: email.to_owned(),
        password,
        created: now,
        verified,
        disabled: None,
        claims: "{}".into(),
    };
    let kind = if is_there {
        "sign_up_repeated"
    } else {
        "signed_up"
    };
    let event = AuditEvent {
        at: now,
        kind: kind.into(),
        subject: if is_there {
            email.to_owned()
        } else {
            account.id.clone()
        },
        address: from.to_string(),
        ..AuditEvent::default()
    };
    audit::note(records, event)?;
    if is_there {
        return Ok(None);
    }
    records.put_account(&account)?;
    Ok(Some(account))
}

/// What rules may look at in the tokens of an account (spec AC7).
#[must_use]
pub fn claims_of(account: &Account) -> BTreeMap<String, Value> {
    let mut claims: BTreeMap<String, Value> =
        serde_json::from_str(&account.claims).unwrap_or_default();
    claims.insert("email".into(), account.email.clone().into());
    claims.insert("email_verified".into(), account.verified.is_some().into());
    claims
}

/// The address as it is compared.
fn checked_email(email: &str) -> Result<String, AccountError> {
    admin::email(email).map_err(AccountError::Malformed)
}

fn check_strength(password: &str, email: &str) -> Result<(), AccountError> {
    match password::weakness(password, email) {
        Some(why) => Err(AccountError::WeakPassword(why)),
        None => Ok(()),
    }
}

fn is_address(text: &str) -> bool {
    text.len() <= EMAIL_BYTES_MAX && text.parse::<Address>().is_ok()
}
