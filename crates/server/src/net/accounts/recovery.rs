//! Other passwords, and what is sent to mailboxes.

use std::{net::IpAddr, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use syncline_core::rules::Identity;
use syncline_store::{
    StorageError,
    accounts::{Account, AuditEvent, LoginId, Purpose, Ticket},
};

use super::{
    AccountError, Accounts, audit, check_strength, checked_email, clock, end, keys::login_of,
    mail::Letter, refresh::later,
};

/// How long a mailed link is good.
const TICKET_TTL: Duration = Duration::from_secs(30 * 60);

const STALE_CODE: &str = "this link or code is not good any more: ask for another";

/// What shows that an account is somebody's who sets another password for it.
#[derive(Debug, Clone, Copy)]
enum Shown {
    /// The present one; this login stays.
    Password(Option<LoginId>),
    /// The code of a mail.
    Mail,
}

impl Accounts {
    /// Changes the password of who is signed in and knows it; ends every other login.
    pub(crate) async fn change_password(
        self: &Arc<Self>,
        identity: &Identity,
        current: &str,
        new: &str,
        from: IpAddr,
    ) -> Result<(), AccountError> {
        let account = self.account_of(identity).await?;
        let account = account.ok_or(AccountError::Stale(
            "this token is none of an account here: sign in with e-mail and password",
        ))?;
        check_strength(new, &account.email)?;
        let account = self.check_password(&account.email, current, from).await?;
        let phc = self.hash(new).await?;
        let this = login_of(identity);
        self.set_password(account, phc, Shown::Password(this), from)
            .await
    }

    /// Sends a link that sets another password, if there is such an account.
    pub(crate) async fn request_reset(
        self: &Arc<Self>,
        email: &str,
        from: IpAddr,
    ) -> Result<(), AccountError> {
        self.request(email, from, Purpose::Reset).await
    }

    /// Sends the link that confirms an address once more.
    pub(crate) async fn request_verification(
        self: &Arc<Self>,
        email: &str,
        from: IpAddr,
    ) -> Result<(), AccountError> {
        self.request(email, from, Purpose::Verify).await
    }

    async fn request(
        self: &Arc<Self>,
        email: &str,
        from: IpAddr,
        purpose: Purpose,
    ) -> Result<(), AccountError> {
        let email = checked_email(email)?;
        self.throttle
            .may_make(from, clock::now())
            .map_err(AccountError::TooFast)?;
        let found = self
            .transact({
                let email = email.clone();
                move |records| records.account_of(&email)
            })
            .await?;
        let wants = |account: &Account| {
            account.disabled.is_none() && (purpose == Purpose::Reset || account.verified.is_none())
        };
        self.send_ticket(found.filter(wants), email, purpose).await
    }

    /// Makes a ticket and mails it. Without an account the ticket is made all the same, for
    /// nobody: the answer takes as long.
    pub(super) async fn send_ticket(
        self: &Arc<Self>,
        account: Option<Account>,
        email: String,
        purpose: Purpose,
    ) -> Result<(), AccountError> {
        let mut code = [0; 32];
        getrandom::fill(&mut code)
            .map_err(|error| StorageError::Failed(error.to_string().into()))?;
        let is_somebody = account.is_some();
        let ticket = Ticket {
            hash: ticket_hash(&code),
            account: account.map_or_else(String::new, |account| account.id),
            purpose,
            expires: later(clock::now(), TICKET_TTL),
        };
        self.transact(move |records| {
            records.remove_tickets(&ticket.account, purpose)?;
            records.put_ticket(&ticket)
        })
        .await?;
        if is_somebody {
            let code = BASE64_URL_SAFE_NO_PAD.encode(code);
            self.mail(email, Letter::Ticket(purpose, code));
        }
        Ok(())
    }

    /// Sends a mail while its cause is answered already.
    pub(super) fn mail(self: &Arc<Self>, email: String, letter: Letter) {
        if !self.throttle.may_mail(&email, clock::now()) {
            tracing::info!("a mail was not sent: its address has had enough of them for now");
            return;
        }
        let accounts = Arc::clone(self);
        tokio::spawn(async move { accounts.mailer.send(&email, &letter).await });
    }

    /// Confirms an address with the code of a mail.
    pub(crate) async fn verify_email(
        self: &Arc<Self>,
        code: &str,
        from: IpAddr,
    ) -> Result<(), AccountError> {
        let seen = self.redeem(code, Purpose::Verify, from).await?;
        let now = clock::now();
        let done = self.transact(move |records| {
            let account = records.account(&seen.id)?;
            let Some(mut account) = account.filter(|account| account.disabled.is_none()) else {
                return Ok(false);
            };
            account.verified = Some(now);
            let event = AuditEvent {
                at: now,
                kind: "email_verified".into(),
                actor: account.id.clone(),
                subject: account.id.clone(),
                address: from.to_string(),
                ..AuditEvent::default()
            };
            records.put_account(&account)?;
            audit::note(records, event)?;
            Ok(true)
        });
        match done.await? {
            true => Ok(()),
            false => Err(AccountError::Stale(STALE_CODE)),
        }
    }

    /// Sets another password with the code of a mail, and ends every login.
    pub(crate) async fn reset_password(
        self: &Arc<Self>,
        code: &str,
        new: &str,
        from: IpAddr,
    ) -> Result<(), AccountError> {
        // Looked at before the code is used up.
        check_strength(new, "")?;
        let account = self.redeem(code, Purpose::Reset, from).await?;
        let phc = self.hash(new).await?;
        self.set_password(account, phc, Shown::Mail, from).await
    }

    /// Uses up the ticket of a code.
    async fn redeem(
        self: &Arc<Self>,
        code: &str,
        purpose: Purpose,
        from: IpAddr,
    ) -> Result<Account, AccountError> {
        let now = clock::now();
        self.throttle
            .may_make(from, now)
            .map_err(AccountError::TooFast)?;
        let stale = AccountError::Stale(STALE_CODE);
        let Some(code) = BASE64_URL_SAFE_NO_PAD
            .decode(code.trim())
            .ok()
            .and_then(|code| <[u8; 32]>::try_from(code).ok())
        else {
            return Err(stale);
        };
        let account = self
            .transact(move |records| {
                let ticket = records.take_ticket(&ticket_hash(&code))?;
                let is_good = |ticket: &Ticket| ticket.purpose == purpose && now < ticket.expires;
                match ticket.filter(is_good) {
                    Some(ticket) => records.account(&ticket.account),
                    None => Ok(None),
                }
            })
            .await?;
        account
            .filter(|account| account.disabled.is_none())
            .ok_or(stale)
    }

    /// Hashing took its time since the account was `seen`: whatever an operator, or who has the
    /// mails, made of it meanwhile stays.
    async fn set_password(
        self: &Arc<Self>,
        seen: Account,
        phc: String,
        shown: Shown,
        from: IpAddr,
    ) -> Result<(), AccountError> {
        let now = clock::now();
        let email = seen.email.clone();
        let done = self.transact(move |records| {
            let is_still_shown = |account: &Account| match shown {
                Shown::Password(_) => account.password == seen.password,
                Shown::Mail => true,
            };
            let account = records.account(&seen.id)?;
            let may = |account: &Account| account.disabled.is_none() && is_still_shown(account);
            let Some(mut account) = account.filter(may) else {
                return Ok(false);
            };
            account.password = phc;
            let (kind, except) = match shown {
                Shown::Password(this) => ("password_changed", this),
                Shown::Mail => {
                    // Whoever has the mail has the address.
                    account.verified = account.verified.or(Some(now));
                    ("password_reset", None)
                }
            };
            records.put_account(&account)?;
            records.remove_tickets(&account.id, Purpose::Reset)?;
            end(records, &account.id, |one| Some(one) != except, now)?;
            let event = AuditEvent {
                at: now,
                kind: kind.into(),
                actor: account.id.clone(),
                subject: account.id.clone(),
                address: from.to_string(),
                ..AuditEvent::default()
            };
            audit::note(records, event)?;
            Ok(true)
        });
        if !done.await? {
            return Err(AccountError::Stale(
                "the account changed meanwhile: sign in and try once more",
            ));
        }
        self.look.notify_one();
        self.mail(email, Letter::PasswordChanged);
        Ok(())
    }
}

fn ticket_hash(code: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key("syncline mailed code", code)
}
