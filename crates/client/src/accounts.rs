//! Accounts that a server keeps: signing up, in and out, and passwords (spec LB22).

mod error;
mod kept;
mod login;
mod requests;

use std::{path::PathBuf, sync::Arc};

use tokio::sync::Semaphore;

pub use self::{
    error::AccountError,
    login::{Login, User, last_login, login_at},
};
use self::{kept::Place, requests::Tokens};
use crate::{
    credentials::{Connection, Token, unusable},
    error::ClientError,
    private,
    sync_error::Error,
};

/// Requests of one [`Accounts`] at a time; others wait.
const REQUESTS_MAX: usize = 4;

/// The accounts of one server.
///
/// Who signs in has a [`Login`], which stays on this machine until it is signed out: one for each
/// server, in a file that only this user reads, so that all programs of the user that know the
/// server share it. Passwords are not kept.
///
/// ```no_run
/// use syncline::{Accounts, Config, SyncManager};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let accounts = Accounts::new("https://sync.example.com")?;
/// let login = match accounts.login()? {
///     Some(login) => login,
///     None => accounts.sign_in("ana@example.com", "three brown foxes").await?,
/// };
/// println!("hello {}", login.user().email);
/// let sync = SyncManager::open("notes.db", Config::new().login(&login)).await?;
/// # Ok(()) }
/// ```
///
/// What waits here works in any executor, and with [`crate::blocking::wait`] in none.
#[derive(Debug, Clone)]
pub struct Accounts {
    connection: Connection,
    place: Place,
    turns: Arc<Semaphore>,
}

/// What signing up led to.
#[derive(Debug, Clone)]
pub enum SignUp {
    /// A mail is on its way to the address. The account can be used once it was confirmed with
    /// the code in it: [`Accounts::verify_email`].
    Mailed,
    /// The account is ready, and signed in.
    SignedIn(Login),
}

impl Accounts {
    /// The accounts of the server at `url` (`https://sync.example.com`, no path). Nothing is
    /// asked yet.
    ///
    /// Logins are kept in `$SYNCLINE_HOME/logins`, which is `~/.local/share/syncline/logins`
    /// unless set.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for something that is no address; [`crate::ErrorKind::File`]
    /// if no folder is known to keep logins in.
    pub fn new(url: &str) -> Result<Self, Error> {
        let connection = Connection::new(url, Token::new(""))?;
        Ok(Self::kept_in(connection, &Self::folder()?))
    }

    /// Keeps logins in `folder` instead, which is made, and made this user's alone.
    #[must_use]
    pub fn keep_logins_in(self, folder: impl Into<PathBuf>) -> Self {
        Self::kept_in(self.connection, &folder.into())
    }

    fn folder() -> Result<PathBuf, ClientError> {
        let home = private::home().map_err(|error| unusable("logins".as_ref(), &error))?;
        Ok(home.join("logins"))
    }

    fn kept_in(connection: Connection, folder: &std::path::Path) -> Self {
        if connection.is_in_clear() {
            tracing::warn!(url = %connection.url, "passwords are sent without encryption");
        }
        Self {
            place: Place::new(folder, &connection.url),
            connection,
            turns: Arc::new(Semaphore::new(REQUESTS_MAX)),
        }
    }

    /// The server's address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.connection.url
    }

    /// Who signed in on this machine and has not signed out. The server may have ended the login
    /// meanwhile: then whatever uses it says so.
    ///
    /// # Errors
    /// [`AccountError::Kept`].
    pub fn login(&self) -> Result<Option<Login>, AccountError> {
        let kept = self.place.read()?;
        Ok(kept.map(|kept| Login::new(self.clone(), kept.user)))
    }

    /// Makes an account for `email`.
    ///
    /// # Errors
    /// [`AccountError::SignUpClosed`], [`AccountError::WeakPassword`],
    /// [`AccountError::EmailTaken`] where addresses need not be confirmed,
    /// [`AccountError::Malformed`] for what is no address, [`AccountError::TooFast`].
    pub async fn sign_up(&self, email: &str, password: &str) -> Result<SignUp, AccountError> {
        let body = requests::credentials(email, password);
        let accounts = self.clone();
        let tokens = self
            .elsewhere(
                async move || match requests::sign_up(&accounts.connection, &body).await? {
                    None => Ok(None),
                    Some(tokens) => accounts.begun(tokens).await.map(Some),
                },
            )
            .await?;
        Ok(match tokens {
            None => SignUp::Mailed,
            Some(user) => SignUp::SignedIn(Login::new(self.clone(), user)),
        })
    }

    /// Signs in. The login takes the place of a former one on this machine.
    ///
    /// # Errors
    /// [`AccountError::Credentials`] for a wrong address or password, or one that was not
    /// confirmed; [`AccountError::TooFast`], also for the right ones.
    pub async fn sign_in(&self, email: &str, password: &str) -> Result<Login, AccountError> {
        let body = requests::credentials(email, password);
        let accounts = self.clone();
        let user = self
            .elsewhere(async move || {
                let tokens = requests::sign_in(&accounts.connection, &body).await?;
                accounts.begun(tokens).await
            })
            .await?;
        Ok(Login::new(self.clone(), user))
    }

    /// Keeps a new login, and ends the one whose place it takes.
    async fn begun(&self, tokens: Tokens) -> Result<User, AccountError> {
        if let Some(former) = self.place.begin(&tokens)? {
            // Of the same person or of another: nobody has its tokens any more.
            let ended = requests::sign_out(&self.connection, &former, false).await;
            if let Err(error) = ended {
                tracing::info!(%error, "the former login was not signed out");
            }
        }
        Ok(tokens.user)
    }

    /// Has a mail sent with a code for another password, if `email` has an account: which is not
    /// told.
    ///
    /// # Errors
    /// [`AccountError::TooFast`].
    pub async fn forgot_password(&self, email: &str) -> Result<(), AccountError> {
        self.post(
            "/v1/auth/password/forgotten",
            serde_json::json!({ "email": email }),
        )
        .await
    }

    /// Sets another password with the code from a mail. Every login of the account ends.
    ///
    /// # Errors
    /// [`AccountError::Stale`] for a code that is not good any more,
    /// [`AccountError::WeakPassword`].
    pub async fn reset_password(&self, code: &str, password: &str) -> Result<(), AccountError> {
        let body = serde_json::json!({ "code": code, "password": password });
        self.post("/v1/auth/password/reset", body).await
    }

    /// Confirms an address with the code from a mail.
    ///
    /// # Errors
    /// [`AccountError::Stale`] for a code that is not good any more.
    pub async fn verify_email(&self, code: &str) -> Result<(), AccountError> {
        self.post("/v1/auth/verify", serde_json::json!({ "code": code }))
            .await
    }

    /// Has the mail with the code sent again, if `email` has an account that was not confirmed:
    /// which is not told.
    ///
    /// # Errors
    /// [`AccountError::TooFast`].
    pub async fn send_verification_again(&self, email: &str) -> Result<(), AccountError> {
        self.post(
            "/v1/auth/verify/again",
            serde_json::json!({ "email": email }),
        )
        .await
    }

    async fn post(&self, path: &'static str, body: serde_json::Value) -> Result<(), AccountError> {
        let connection = self.connection.clone();
        self.elsewhere(async move || requests::post(&connection, path, &body).await.map(drop))
            .await
    }

    /// Does something on a thread with a runtime of its own: sockets, locks and disks hold up
    /// nobody, and who waits needs no runtime (spec LB11). It is done even if nobody waits.
    async fn elsewhere<T: Send + 'static, F>(
        &self,
        work: impl FnOnce() -> F + Send + 'static,
    ) -> Result<T, AccountError>
    where
        F: Future<Output = Result<T, AccountError>>,
    {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let (answer_to, answer) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new().name("syncline-login".into());
        thread
            .spawn(move || {
                let _turn = turn;
                crate::transport::install_tls();
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                let done = runtime
                    .map_err(|error| AccountError::thread(&error))
                    .and_then(|runtime| runtime.block_on(work()));
                // Nobody may be waiting any more.
                let _gone = answer_to.send(done);
            })
            .map_err(|error| AccountError::thread(&error))?;
        answer
            .await
            .unwrap_or_else(|_| Err(AccountError::Unreachable("the request broke off".into())))
    }
}
