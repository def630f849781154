//! Tokens that do not last: where the next one comes from, and when it is asked for (spec LB23).

use std::{fmt, future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use syncline_core::Timestamp;
use tokio::sync::Mutex;

use crate::{
    credentials::Token,
    error::ClientError,
    resolver::BoxFuture,
    system::{now, until},
};

/// A token is renewed so long before it ends, or after three quarters of its life.
const AHEAD_MAX: Duration = Duration::from_secs(60);
/// How long a provider may take.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Pauses between attempts to renew; they double.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Longest sleep before the clock is looked at again: it stands still while a machine sleeps.
const SLEEP_MAX: Duration = Duration::from_secs(30);

/// A token, and until when it is good.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken {
    token: Token,
    expires: Option<Timestamp>,
}

impl AccessToken {
    /// A token whose end is read from it, if it is a JWT. Another one is asked for before that,
    /// or when the server does not take it any more.
    #[must_use]
    pub fn new(token: &str) -> Self {
        let token = Token::new(token);
        let expires = token.expires();
        Self { token, expires }
    }

    /// Good for this long from now, as OAuth's `expires_in` has it: whatever a JWT says, and
    /// whether or not this device's clock is right.
    #[must_use]
    pub fn expires_in(mut self, lifetime: Duration) -> Self {
        let micros = u64::try_from(lifetime.as_micros()).unwrap_or(u64::MAX);
        self.expires = Some(Timestamp(now().0.saturating_add(micros)));
        self
    }

    pub(crate) fn until(token: Token, expires: Timestamp) -> Self {
        Self {
            token,
            expires: Some(expires),
        }
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessToken(secret, expires {:?})", self.expires)
    }
}

/// Why there is no token. Every error becomes [`TokenError::Later`] with `?`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenError {
    /// Not now: it is asked for again.
    Later(String),
    /// Not before somebody signs in again.
    SignedOut(String),
}

impl<E: std::error::Error> From<E> for TokenError {
    fn from(error: E) -> Self {
        Self::Later(error.to_string())
    }
}

/// Where an app's tokens come from: the identity provider that it has.
///
/// A function without arguments is one:
///
/// ```no_run
/// # use syncline::{AccessToken, Config, TokenError};
/// # async fn session() -> Result<String, std::io::Error> { Ok(String::new()) }
/// let config = Config::new().token_provider("https://sync.example.com", || async {
///     let token = session().await?; // refreshed by the provider's own library
///     Ok::<_, TokenError>(AccessToken::new(&token))
/// })?;
/// # Ok::<(), syncline::Error>(())
/// ```
///
/// It is asked when a token is needed and before the last one ends, one question at a time, on the
/// engine's own thread, which it must not hold up. An answer that takes more than a minute counts
/// as none.
pub trait TokenProvider: Send + Sync + 'static {
    /// A token that is good now, and another one than `last`, which ends soon or was not taken
    /// by the server.
    fn token<'a>(&'a self, last: Option<&'a str>)
    -> BoxFuture<'a, Result<AccessToken, TokenError>>;
}

impl<F, A> TokenProvider for F
where
    F: Fn() -> A + Send + Sync + 'static,
    A: Future<Output = Result<AccessToken, TokenError>> + Send + 'static,
{
    fn token<'a>(
        &'a self,
        _last: Option<&'a str>,
    ) -> BoxFuture<'a, Result<AccessToken, TokenError>> {
        Box::pin(self())
    }
}

/// The tokens of one provider: all that use it have the same one at a time.
#[derive(Clone)]
pub(crate) struct Renewer(Arc<Inner>);

struct Inner {
    /// The server that takes them.
    url: String,
    provider: Box<dyn TokenProvider>,
    held: Mutex<Option<Held>>,
}

struct Held {
    token: Token,
    renew_at: Option<Timestamp>,
    expires: Option<Timestamp>,
}

impl Held {
    fn new(given: AccessToken) -> Self {
        let now = now();
        let renew_at = given.expires.map(|end| {
            let left = until(end);
            let ahead = AHEAD_MAX.min(left / 4);
            now.plus_millis(u64::try_from((left - ahead).as_millis()).unwrap_or(u64::MAX))
        });
        Self {
            token: given.token,
            renew_at,
            expires: given.expires,
        }
    }

    fn is_due(&self) -> bool {
        self.renew_at.is_some_and(|at| at <= now())
    }

    fn has_expired(&self) -> bool {
        self.expires.is_some_and(|at| at <= now())
    }
}

impl PartialEq for Renewer {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Renewer {}

impl fmt::Debug for Renewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewer(secret)")
    }
}

impl Renewer {
    pub(crate) fn new(url: String, provider: impl TokenProvider) -> Self {
        Self(Arc::new(Inner {
            url,
            provider: Box::new(provider),
            held: Mutex::new(None),
        }))
    }

    /// A token that is good now.
    pub(crate) async fn token(&self) -> Result<Token, ClientError> {
        let mut held = self.0.held.lock().await;
        let last = match &*held {
            Some(found) if !found.is_due() => return Ok(found.token.clone()),
            Some(found) => Some(found.token.clone()),
            None => None,
        };
        match self.ask(last.as_ref()).await {
            Ok(given) => Ok(held.insert(Held::new(given)).token.clone()),
            // As long as it lasts.
            Err(error) if error.is_retryable() => match &*held {
                Some(found) if !found.has_expired() => Ok(found.token.clone()),
                Some(_) | None => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Another token: the server did not take `refused`.
    pub(crate) async fn instead_of(&self, refused: &Token) -> Result<Token, ClientError> {
        let mut held = self.0.held.lock().await;
        match &*held {
            // Somebody was quicker.
            Some(found) if found.token != *refused && !found.is_due() => {
                return Ok(found.token.clone());
            }
            Some(_) | None => {}
        }
        let given = self.ask(Some(refused)).await?;
        Ok(held.insert(Held::new(given)).token.clone())
    }

    /// The token that follows `current`, when it is time for it.
    pub(crate) async fn next(&self, current: &Token) -> Result<Token, ClientError> {
        let mut pause = PAUSE;
        loop {
            let renew_at = match &*self.0.held.lock().await {
                Some(found) if found.token == *current => found.renew_at,
                Some(_) | None => Some(Timestamp::default()),
            };
            let wait = renew_at.map_or(SLEEP_MAX, until);
            if !wait.is_zero() {
                tokio::time::sleep(wait.min(SLEEP_MAX)).await;
                continue;
            }
            match self.token().await {
                Ok(token) if token != *current => return Ok(token),
                // The session ends with its token, and asks again then.
                Ok(_) => {}
                Err(error) if error.is_retryable() => {
                    tracing::info!(%error, "the token is not renewed yet; trying again");
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Forgets the token: the next one is asked for.
    pub(crate) async fn forget(&self) {
        *self.0.held.lock().await = None;
    }

    async fn ask(&self, last: Option<&Token>) -> Result<AccessToken, ClientError> {
        let Inner { url, provider, .. } = &*self.0;
        let last = last.map(Token::as_str);
        let asked = AssertUnwindSafe(async { provider.token(last).await }).catch_unwind();
        let answer = match tokio::time::timeout(ANSWER_MAX, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(TokenError::Later("the token provider panicked".to_owned())),
            Err(_) => {
                let seconds = ANSWER_MAX.as_secs();
                let reason = format!("the token provider gave no answer in {seconds} s");
                Err(TokenError::Later(reason))
            }
        };
        answer.map_err(|error| match error {
            TokenError::Later(reason) => ClientError::NoTokenNow {
                url: url.clone(),
                reason,
            },
            TokenError::SignedOut(reason) => ClientError::signed_out(url, Some(&reason)),
        })
    }
}
