//! The requests of `/v1/auth/…` (spec AC2).

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{AccountError, User};
use crate::{
    api::{Answer, Api},
    credentials::{Connection, Token},
    system,
};

/// A refresh token whose answer was lost is answered again for ten seconds from its first use
/// (spec AC8): so an attempt is given up early enough for another one.
const REFRESH_MAX: Duration = Duration::from_secs(4);

/// What signing in and refreshing give.
#[derive(Debug, Deserialize)]
pub(super) struct Tokens {
    pub(super) access_token: Token,
    /// In seconds.
    pub(super) expires_in: u64,
    pub(super) refresh_token: Token,
    pub(super) user: User,
}

pub(super) fn credentials(email: &str, password: &str) -> Value {
    json!({ "email": email, "password": password, "client": system::device_name() })
}

/// `None`: a mail was sent.
pub(super) async fn sign_up(
    connection: &Connection,
    body: &Value,
) -> Result<Option<Tokens>, AccountError> {
    let answer = post(connection, "/v1/auth/sign-up", body).await?;
    match answer.status {
        StatusCode::ACCEPTED => Ok(None),
        _ => read(connection, &answer).map(Some),
    }
}

pub(super) async fn sign_in(connection: &Connection, body: &Value) -> Result<Tokens, AccountError> {
    let answer = send(
        connection,
        Method::POST,
        "/v1/auth/sign-in",
        None,
        Some(body),
    )
    .await;
    match answer {
        Err(AccountError::Stale(_)) => Err(AccountError::Credentials),
        answer => read(connection, &answer?),
    }
}

/// The tokens after `refresh`. An answer that was lost is asked for once more, while the server
/// still gives the same.
pub(super) async fn refresh(
    connection: &Connection,
    refresh: &Token,
) -> Result<Tokens, AccountError> {
    let body = json!({ "refresh_token": refresh });
    let mut left = 2;
    loop {
        left -= 1;
        let api = api(connection)?;
        let asked = api.answer(
            Method::POST,
            "/v1/auth/refresh",
            None,
            Some(body.to_string()),
        );
        let failure = match tokio::time::timeout(REFRESH_MAX, asked).await {
            Ok(Ok(answer)) => {
                let answer = judged(&api, answer).map_err(ended)?;
                return read(connection, &answer);
            }
            Ok(Err(error)) => AccountError::of_client(&error),
            Err(_) => {
                let url = &connection.url;
                AccountError::Unreachable(format!("the server at {url} gives no answer"))
            }
        };
        if left == 0 {
            return Err(failure);
        }
    }
}

pub(super) async fn sign_out(
    connection: &Connection,
    refresh: &Token,
    everywhere: bool,
) -> Result<(), AccountError> {
    let body = json!({ "refresh_token": refresh, "everywhere": everywhere });
    post(connection, "/v1/auth/sign-out", &body).await.map(drop)
}

pub(super) async fn user(connection: &Connection, token: &Token) -> Result<User, AccountError> {
    let answer = send(connection, Method::GET, "/v1/auth/user", Some(token), None).await;
    read(connection, &answer.map_err(ended)?)
}

pub(super) async fn change_password(
    connection: &Connection,
    token: &Token,
    body: &Value,
) -> Result<(), AccountError> {
    let path = "/v1/auth/password";
    let answer = send(connection, Method::PUT, path, Some(token), Some(body)).await;
    answer.map(drop)
}

pub(super) async fn post(
    connection: &Connection,
    path: &str,
    body: &Value,
) -> Result<Answer, AccountError> {
    send(connection, Method::POST, path, None, Some(body)).await
}

fn ended(error: AccountError) -> AccountError {
    if let AccountError::Stale(said) = error {
        AccountError::SignedOut(said)
    } else {
        error
    }
}

async fn send(
    connection: &Connection,
    method: Method,
    path: &str,
    token: Option<&Token>,
    body: Option<&Value>,
) -> Result<Answer, AccountError> {
    let api = api(connection)?;
    let answer = api
        .answer(method, path, token, body.map(Value::to_string))
        .await
        .map_err(|error| AccountError::of_client(&error))?;
    judged(&api, answer)
}

fn api(connection: &Connection) -> Result<Api, AccountError> {
    Api::new(connection).map_err(|error| AccountError::of_client(&error))
}

fn read<T: for<'de> Deserialize<'de>>(
    connection: &Connection,
    answer: &Answer,
) -> Result<T, AccountError> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        let url = &connection.url;
        AccountError::Refused {
            code: "not_a_syncline".to_owned(),
            message: format!("{url} answers, but not like a Syncline server: {error}"),
        }
    })
}

/// A refusal is an error.
fn judged(api: &Api, answer: Answer) -> Result<Answer, AccountError> {
    if answer.status.is_success() {
        return Ok(answer);
    }
    let Some(refusal) = answer.refusal() else {
        return Err(AccountError::of_client(&api.failure(
            answer.status,
            answer.retry_after,
            &answer.body,
        )));
    };
    let message = refusal.message;
    Err(match (answer.status, refusal.code.as_str()) {
        (StatusCode::TOO_MANY_REQUESTS, _) => AccountError::TooFast {
            wait: Duration::from_millis(refusal.retry_after_ms.unwrap_or(1_000)),
        },
        (_, "unauthorized") => AccountError::Stale(message),
        (_, "email_taken") => AccountError::EmailTaken,
        (_, "weak_password") => AccountError::WeakPassword(message),
        (_, "malformed") => AccountError::Malformed(message),
        (StatusCode::FORBIDDEN, _) => AccountError::SignUpClosed,
        (StatusCode::NOT_FOUND, _) => AccountError::NoAccounts,
        _ if refusal.retry => AccountError::Unreachable(message),
        (_, code) => AccountError::Refused {
            code: code.to_owned(),
            message,
        },
    })
}
