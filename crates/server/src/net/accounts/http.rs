//! `/v1/auth/…` (spec AC2).

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use syncline_core::wire::{Quota, Share, code};
use syncline_store::accounts::Account;

use super::{ACCESS_TTL, AccountError, Accounts, SignedUp, Tokens};
use crate::{
    net::{
        Backend, Shared, body::Body, caller::Caller, error::ApiError, http::NOT_FOUND, peer::From,
    },
    quota::quota,
};

/// Largest body of these requests.
const BODY_BYTES_MAX: usize = 16 * 1024;
const NO_STORE: [(header::HeaderName, &str); 1] = [(header::CACHE_CONTROL, "no-store")];

pub(crate) fn router<B: Backend>() -> Router<Arc<Shared<B>>> {
    Router::new()
        .route("/v1/auth/sign-up", post(sign_up::<B>))
        .route("/v1/auth/sign-in", post(sign_in::<B>))
        .route("/v1/auth/refresh", post(refresh::<B>))
        .route("/v1/auth/sign-out", post(sign_out::<B>))
        .route("/v1/auth/user", get(user::<B>))
        .route("/v1/auth/password", put(change_password::<B>))
        .route("/v1/auth/password/forgotten", post(forgotten::<B>))
        .route("/v1/auth/password/reset", post(reset_password::<B>))
        .route("/v1/auth/verify", post(verify_email::<B>))
        .route("/v1/auth/verify/again", post(verify_again::<B>))
        .route("/.well-known/jwks.json", get(public_keys::<B>))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    email: String,
    password: String,
    /// What signs in, for the list of logins.
    #[serde(default)]
    client: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefreshRequest {
    refresh_token: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignOutRequest {
    refresh_token: String,
    #[serde(default)]
    everywhere: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PasswordRequest {
    current: String,
    new: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EmailRequest {
    email: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CodeRequest {
    code: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResetRequest {
    code: String,
    password: String,
}

#[derive(Serialize)]
struct TokensResponse {
    access_token: String,
    token_type: &'static str,
    /// In seconds.
    expires_in: u64,
    refresh_token: String,
    user: UserResponse,
}

#[derive(Serialize)]
struct CurrentUserResponse {
    #[serde(flatten)]
    user: UserResponse,
    quota: QuotaResponse,
}

/// What is not limited is null.
#[derive(Serialize)]
struct QuotaResponse {
    rows: Option<ShareResponse>,
    bytes: Option<ShareResponse>,
}

#[derive(Serialize)]
struct ShareResponse {
    owned: u64,
    max: u64,
}

impl std::convert::From<Share> for ShareResponse {
    fn from(Share { owned, max }: Share) -> Self {
        Self { owned, max }
    }
}

#[derive(Serialize)]
struct UserResponse {
    id: String,
    email: Option<String>,
    email_verified: bool,
    claims: BTreeMap<String, Value>,
}

impl std::convert::From<&Account> for UserResponse {
    fn from(account: &Account) -> Self {
        Self {
            id: account.id.clone(),
            email: Some(account.email.clone()),
            email_verified: account.verified.is_some(),
            claims: serde_json::from_str(&account.claims).unwrap_or_default(),
        }
    }
}

impl IntoResponse for Tokens {
    fn into_response(self) -> Response {
        let body = TokensResponse {
            user: (&self.account).into(),
            access_token: self.access,
            token_type: "bearer",
            expires_in: ACCESS_TTL.as_secs(),
            refresh_token: self.refresh,
        };
        (NO_STORE, Json(body)).into_response()
    }
}

impl std::convert::From<AccountError> for ApiError {
    fn from(error: AccountError) -> Self {
        let error = match error {
            AccountError::Credentials => (
                StatusCode::UNAUTHORIZED,
                code::UNAUTHORIZED,
                "e-mail address or password is wrong, or the address was not confirmed yet: look \
                 for our mail, or ask for another password"
                    .to_owned(),
            ),
            AccountError::Stale(sentence) => (
                StatusCode::UNAUTHORIZED,
                code::UNAUTHORIZED,
                sentence.to_owned(),
            ),
            AccountError::TooFast(wait) => {
                let sentence = format!("too many attempts: wait {} seconds", wait.as_secs().max(1));
                let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, code::TOO_FAST, sentence);
                error.refusal.retry_after_ms =
                    Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1));
                return error;
            }
            AccountError::Busy => {
                let sentence = "too many people sign in at this moment: try again";
                let mut error =
                    Self::new(StatusCode::TOO_MANY_REQUESTS, code::UNAVAILABLE, sentence);
                error.refusal.retry_after_ms = Some(2_000);
                return error;
            }
            AccountError::SignUpClosed => (
                StatusCode::FORBIDDEN,
                code::FORBIDDEN,
                "nobody signs up here by himself: ask who runs this server for an account".into(),
            ),
            AccountError::EmailTaken => (
                StatusCode::CONFLICT,
                "email_taken",
                "this address has an account: sign in, or ask for another password".into(),
            ),
            AccountError::Malformed(sentence) => {
                (StatusCode::BAD_REQUEST, code::MALFORMED, sentence)
            }
            AccountError::WeakPassword(sentence) => {
                (StatusCode::BAD_REQUEST, "weak_password", sentence)
            }
            AccountError::Storage(error) => return error.into(),
        };
        Self::new(error.0, error.1, error.2)
    }
}

pub(crate) fn accounts<B: Backend>(shared: &Shared<B>) -> Result<&Arc<Accounts>, ApiError> {
    shared.accounts.as_ref().ok_or_else(|| {
        let sentence = "this server keeps no accounts: its operator makes tokens";
        ApiError::new(StatusCode::NOT_FOUND, NOT_FOUND, sentence)
    })
}

fn sent() -> Response {
    (
        StatusCode::ACCEPTED,
        NO_STORE,
        Json(json!({ "sent": true })),
    )
        .into_response()
}

async fn sign_up<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    From(from): From,
    Body(request): Body<Credentials>,
) -> Result<Response, ApiError> {
    let Credentials {
        email,
        password,
        client,
    } = request;
    let signed_up = accounts(&shared)?
        .sign_up(&email, &password, &client, from)
        .await?;
    Ok(match signed_up {
        SignedUp::Mailed => sent(),
        SignedUp::SignedIn(tokens) => (StatusCode::CREATED, *tokens).into_response(),
    })
}

async fn sign_in<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    From(from): From,
    Body(request): Body<Credentials>,
) -> Result<Tokens, ApiError> {
    let Credentials {
        email,
        password,
        client,
    } = request;
    let accounts = accounts(&shared)?;
    Ok(accounts.sign_in(&email, &password, &client, from).await?)
}

async fn refresh<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    From(from): From,
    Body(request): Body<RefreshRequest>,
) -> Result<Tokens, ApiError> {
    let accounts = accounts(&shared)?;
    Ok(accounts.refresh(&request.refresh_token, from).await?)
}

async fn sign_out<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    From(from): From,
    Body(request): Body<SignOutRequest>,
) -> Result<StatusCode, ApiError> {
    let accounts = accounts(&shared)?;
    accounts
        .sign_out(&request.refresh_token, request.everywhere, from)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn user<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    Caller(proof): Caller,
) -> Result<Response, ApiError> {
    let identity = proof.identity;
    let account = match &shared.accounts {
        Some(accounts) => accounts.account_of(&identity).await?,
        None => None,
    };
    let user = match account {
        Some(account) => UserResponse::from(&account),
        // Somebody else's token, or the operator's.
        None => UserResponse {
            id: identity
                .user
                .clone()
                .map_or_else(String::new, |user| user.0),
            email: None,
            email_verified: false,
            claims: identity.claims.clone(),
        },
    };
    let (context, user_id) = (shared.context(), identity.user.clone());
    let runtime = tokio::runtime::Handle::current();
    let read = move |reader: &mut B::Reader| {
        runtime.block_on(quota(&context.plan, reader, user_id.as_ref()))
    };
    let Quota { rows, bytes } = shared.readers.run(read).await?;
    let quota = QuotaResponse {
        rows: rows.map(ShareResponse::from),
        bytes: bytes.map(ShareResponse::from),
    };
    Ok((NO_STORE, Json(CurrentUserResponse { user, quota })).into_response())
}

async fn change_password<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    From(from): From,
    Caller(proof): Caller,
    Body(request): Body<PasswordRequest>,
) -> Result<StatusCode, ApiError> {
    let accounts = accounts(&shared)?;
    let PasswordRequest { current, new } = request;
    accounts
        .change_password(&proof.identity, &current, &new, from)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn forgotten<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    From(from): From,
    Body(request): Body<EmailRequest>,
) -> Result<Response, ApiError> {
    let accounts = accounts(&shared)?;
    accounts.request_reset(&request.email, from).await?;
    Ok(sent())
}

async fn reset_password<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    From(from): From,
    Body(request): Body<ResetRequest>,
) -> Result<StatusCode, ApiError> {
    let accounts = accounts(&shared)?;
    accounts
        .reset_password(&request.code, &request.password, from)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn verify_email<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    From(from): From,
    Body(request): Body<CodeRequest>,
) -> Result<StatusCode, ApiError> {
    accounts(&shared)?.verify_email(&request.code, from).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn verify_again<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    From(from): From,
    Body(request): Body<EmailRequest>,
) -> Result<Response, ApiError> {
    let accounts = accounts(&shared)?;
    accounts.request_verification(&request.email, from).await?;
    Ok(sent())
}

async fn public_keys<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
) -> Result<Response, ApiError> {
    let keys = accounts(&shared)?.public_keys();
    let header = [(header::CACHE_CONTROL, "public, max-age=300")];
    Ok((header, Json(keys)).into_response())
}
