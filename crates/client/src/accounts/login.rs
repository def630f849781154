//! Somebody who is signed in.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use serde::{Deserialize, Serialize};

use super::{AccountError, Accounts, kept::Place, requests};
use crate::{
    credentials::{Connection, Token},
    error::ClientError,
    resolver::BoxFuture,
    system::until,
    tokens::{AccessToken, Renewer, TokenError, TokenProvider},
};

/// An access token that is good for less than this is not begun with.
const LEFT_MIN: std::time::Duration = std::time::Duration::from_secs(2);

/// Who somebody is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// What rules see as `auth.uid()`; never anybody else's.
    pub id: String,
    /// Empty in tokens that are not of an account.
    #[serde(default, deserialize_with = "text_if_any")]
    pub email: String,
    /// Whether the address was confirmed.
    #[serde(default)]
    pub email_verified: bool,
    /// What the operator says of this user, as rules see it.
    #[serde(default)]
    pub claims: BTreeMap<String, serde_json::Value>,
}

fn text_if_any<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Somebody who signed in, on this machine: [`crate::Config::login`] syncs as them.
///
/// Its tokens renew themselves. Clones are the same login, and so are those that other programs
/// of this user have of it.
#[derive(Debug, Clone)]
pub struct Login {
    accounts: Accounts,
    user: Arc<Mutex<User>>,
    renewer: Renewer,
}

impl Login {
    pub(super) fn new(accounts: Accounts, user: User) -> Self {
        let id = user.id.clone();
        let user = Arc::new(Mutex::new(user));
        let url = accounts.url().to_owned();
        let tokens = LoginTokens {
            accounts: accounts.clone(),
            id,
            user: Arc::clone(&user),
            quiet: Arc::default(),
        };
        Self {
            accounts,
            user,
            renewer: Renewer::new(url, tokens),
        }
    }

    /// Who is signed in, as of the last token.
    #[must_use]
    pub fn user(&self) -> User {
        let user = self.user.lock();
        user.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The server's address.
    #[must_use]
    pub fn url(&self) -> &str {
        self.accounts.url()
    }

    /// Asks the server who is signed in.
    ///
    /// # Errors
    /// [`AccountError::SignedOut`] if the login was ended.
    pub async fn current_user(&self) -> Result<User, AccountError> {
        let (connection, renewer) = (self.accounts.connection.clone(), self.renewer.clone());
        let user = self.accounts.elsewhere(async move || {
            let token = renewer.token().await.map_err(|e| of_token(&e))?;
            match requests::user(&connection, &token).await {
                Err(AccountError::SignedOut(_)) => {
                    let token = renewer.instead_of(&token).await.map_err(|e| of_token(&e))?;
                    requests::user(&connection, &token).await
                }
                answer => answer,
            }
        });
        let user = user.await?;
        let mut known = self.user.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone_from(&user);
        Ok(user)
    }

    /// An access token for requests of the app's own; to be asked for anew for each of them.
    ///
    /// # Errors
    /// [`AccountError::SignedOut`] if the login was ended, [`AccountError::Unreachable`].
    pub async fn access_token(&self) -> Result<String, AccountError> {
        let renewer = self.renewer.clone();
        let token = self.accounts.elsewhere(async move || {
            let token = renewer.token().await;
            token.map_err(|error| of_token(&error))
        });
        Ok(token.await?.as_str().to_owned())
    }

    /// Changes the password. Other logins of the account are ended.
    ///
    /// # Errors
    /// [`AccountError::Credentials`] if `current` is not it, [`AccountError::WeakPassword`],
    /// [`AccountError::TooFast`], [`AccountError::SignedOut`].
    pub async fn change_password(&self, current: &str, new: &str) -> Result<(), AccountError> {
        let (connection, renewer) = (self.accounts.connection.clone(), self.renewer.clone());
        let body = serde_json::json!({ "current": current, "new": new });
        let changed = self.accounts.elsewhere(async move || {
            let token = renewer.token().await.map_err(|e| of_token(&e))?;
            let Err(error) = requests::change_password(&connection, &token, &body).await else {
                return Ok(());
            };
            let AccountError::Stale(_) = &error else {
                return Err(error);
            };
            // The password was wrong, unless the token is what was not taken.
            requests::user(&connection, &token).await?;
            Err(AccountError::Credentials)
        });
        changed.await
    }

    /// Ends the login, here and at the server. What it synced stays, and what was not sent waits.
    ///
    /// # Errors
    /// [`AccountError::Unreachable`]: then the login is gone from this machine all the same, and
    /// ends at the server when it was not used for 30 days. [`AccountError::Kept`].
    pub async fn sign_out(&self) -> Result<(), AccountError> {
        self.end(false).await
    }

    /// As [`Login::sign_out`], with every other login of the account, wherever it is.
    ///
    /// # Errors
    /// The same; but if the server cannot be reached nothing was done.
    pub async fn sign_out_everywhere(&self) -> Result<(), AccountError> {
        self.end(true).await
    }

    async fn end(&self, everywhere: bool) -> Result<(), AccountError> {
        let (connection, place) = (
            self.accounts.connection.clone(),
            self.accounts.place.clone(),
        );
        let id = self.user().id;
        self.renewer.forget().await;
        let ended = self.accounts.elsewhere(async move || {
            let _lock = place.lock()?;
            let Some(kept) = place.read()?.filter(|kept| kept.user.id == id) else {
                return Ok(());
            };
            let Some(refresh) = &kept.refresh_token else {
                return place.forget();
            };
            let ended = requests::sign_out(&connection, refresh, everywhere).await;
            match ended {
                Err(error) if everywhere => Err(error),
                ended => place.forget().and(ended),
            }
        });
        ended.await
    }

    pub(crate) fn renewer(&self) -> &Renewer {
        &self.renewer
    }
}

/// The login at the server at `url`, if there is one.
///
/// # Errors
/// [`ClientError::Credentials`] if it cannot be read, [`ClientError::BadUrl`].
pub fn login_at(url: &str) -> Result<Option<Login>, ClientError> {
    let connection = Connection::new(url, Token::new(""))?;
    let folder = Accounts::folder()?;
    let accounts = Accounts::kept_in(connection, &folder);
    accounts.login().map_err(|error| of_account(url, &error))
}

/// The login that was begun last on this machine, whatever its server.
///
/// # Errors
/// [`ClientError::Credentials`].
pub fn last_login() -> Result<Option<Login>, ClientError> {
    match Place::all(&Accounts::folder()?).first() {
        Some(kept) => login_at(&kept.url),
        None => Ok(None),
    }
}

/// The tokens of a login: read from its file, and renewed there.
struct LoginTokens {
    accounts: Accounts,
    /// Whose.
    id: String,
    user: Arc<Mutex<User>>,
    quiet: Arc<Mutex<Quiet>>,
}

/// Until when the server does not want to be asked for another token.
#[derive(Debug, Default)]
struct Quiet(Option<Instant>);

impl Quiet {
    fn check(&self) -> Result<(), AccountError> {
        let left = self
            .0
            .map(|until| until.saturating_duration_since(Instant::now()));
        match left.filter(|left| !left.is_zero()) {
            Some(wait) => Err(AccountError::TooFast { wait }),
            None => Ok(()),
        }
    }
}

impl TokenProvider for LoginTokens {
    fn token<'a>(
        &'a self,
        last: Option<&'a str>,
    ) -> BoxFuture<'a, Result<AccessToken, TokenError>> {
        let (connection, place) = (
            self.accounts.connection.clone(),
            self.accounts.place.clone(),
        );
        let (id, user) = (self.id.clone(), Arc::clone(&self.user));
        let quiet = Arc::clone(&self.quiet);
        let last = last.map(str::to_owned);
        Box::pin(async move {
            let renewed = self.accounts.elsewhere(async move || {
                renewed(&connection, &place, &id, &user, &quiet, last.as_deref()).await
            });
            renewed.await.map_err(|error| {
                if let AccountError::SignedOut(said) = error {
                    TokenError::SignedOut(said)
                } else {
                    TokenError::Later(error.to_string())
                }
            })
        })
    }
}

/// The access token in the file, or the next one.
async fn renewed(
    connection: &Connection,
    place: &Place,
    id: &str,
    user: &Mutex<User>,
    quiet: &Mutex<Quiet>,
    last: Option<&str>,
) -> Result<AccessToken, AccountError> {
    // Who has the lock is the only one who uses the refresh token. What another program was
    // given meanwhile is in the file then.
    let _lock = place.lock()?;
    let nobody = || AccountError::nobody(&connection.url);
    let kept = place.read()?.ok_or_else(nobody)?;
    if kept.user.id != id {
        let url = &connection.url;
        let who = &kept.user.email;
        return Err(AccountError::SignedOut(format!(
            "{who} is signed in at {url} now: sign in again as who this was for"
        )));
    }
    let is_good = until(kept.expires()) > LEFT_MIN;
    if is_good && last != Some(kept.access_token.as_str()) {
        let expires = kept.expires();
        return Ok(AccessToken::until(kept.access_token, expires));
    }
    let over = |said: &str| AccountError::SignedOut(format!("{said} ({})", kept.user.email));
    let Some(refresh) = &kept.refresh_token else {
        return Err(over("this login is over: sign in again"));
    };
    quiet
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .check()?;
    let tokens = match requests::refresh(connection, refresh).await {
        Ok(tokens) => tokens,
        Err(AccountError::SignedOut(said)) => {
            // Nobody asks again with it. Who it was stays known.
            let mut ended = kept.clone();
            (ended.refresh_token, ended.expires_ms) = (None, 0);
            place.write(&ended)?;
            return Err(over(&said));
        }
        Err(error) => {
            if let AccountError::TooFast { wait } = &error {
                let until = Instant::now().checked_add(*wait);
                quiet.lock().unwrap_or_else(PoisonError::into_inner).0 = until;
            }
            return Err(error);
        }
    };
    // On the disk before anything is done with what came.
    let next = kept.renewed(&tokens);
    place.write(&next)?;
    let expires = next.expires();
    *user.lock().unwrap_or_else(PoisonError::into_inner) = next.user;
    Ok(AccessToken::until(next.access_token, expires))
}

fn of_token(error: &ClientError) -> AccountError {
    if let ClientError::SignedOut { message } = error {
        AccountError::SignedOut(message.clone())
    } else {
        AccountError::of_client(error)
    }
}

fn of_account(url: &str, error: &AccountError) -> ClientError {
    if let AccountError::Kept { path, reason } = error {
        let (path, reason) = (path.clone(), reason.clone());
        ClientError::Credentials { path, reason }
    } else {
        ClientError::signed_out(url, Some(&error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn li3_no_other_token_is_asked_for_before_the_server_allows_it() {
        let nothing = Quiet::default();
        assert_eq!(nothing.check(), Ok(()));
        let hour = std::time::Duration::from_secs(3_600);
        let told = Quiet(Instant::now().checked_add(hour));
        let Err(AccountError::TooFast { wait }) = told.check() else {
            panic!("it may be asked for");
        };
        assert!(wait <= hour && wait > hour / 2, "{wait:?}");
        assert_eq!(Quiet(Some(Instant::now())).check(), Ok(()), "it is over");
    }
}
