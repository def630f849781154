//! Who somebody is: tokens signed with this server's secret (HS256, `sub`, `exp`, claims).

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use syncline_core::{
    Timestamp, UserId,
    rules::Identity,
    wire::{Refusal, code},
};

use crate::session::Proof;

/// Shortest secret in bytes that is taken.
pub const SECRET_BYTES_MIN: usize = 32;
/// Longest token in bytes that is looked at.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Longest user id in bytes.
pub(crate) const USER_BYTES_MAX: usize = 255;
/// How far the clocks of issuer and server may differ, in seconds.
pub(crate) const LEEWAY_SECONDS: u64 = 10;

/// Signs and verifies tokens.
pub struct Auth {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Auth(secret)")
    }
}

/// A token cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("the token secret has {0} bytes, at least {SECRET_BYTES_MIN} are needed")]
    ShortSecret(usize),
    #[error("a user id has 1 to {USER_BYTES_MAX} bytes")]
    User,
    #[error("`{0}` is set by the server and cannot be a claim")]
    ReservedClaim(String),
    #[error("the token could not be signed: {0}")]
    Sign(String),
}

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    /// Seconds since 1970.
    exp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iat: Option<u64>,
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

impl Auth {
    /// Tokens signed with `secret`.
    ///
    /// # Errors
    /// [`AuthError::ShortSecret`].
    pub fn new(secret: &[u8]) -> Result<Self, AuthError> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(AuthError::ShortSecret(secret.len()));
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_required_spec_claims(&["exp", "sub"]);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.validate_aud = false;
        Ok(Self {
            encoding: EncodingKey::from_secret(secret),
            decoding: DecodingKey::from_secret(secret),
            validation,
        })
    }

    /// A token for `user` until `expires`.
    ///
    /// # Errors
    /// A user id or claim that cannot be.
    pub fn issue(
        &self,
        user: &str,
        claims: BTreeMap<String, serde_json::Value>,
        now: Timestamp,
        expires: Timestamp,
    ) -> Result<String, AuthError> {
        if user.is_empty() || user.len() > USER_BYTES_MAX {
            return Err(AuthError::User);
        }
        const RESERVED: [&str; 6] = ["sub", "exp", "nbf", "iat", "iss", "aud"];
        if let Some(reserved) = claims.keys().find(|name| RESERVED.contains(&name.as_str())) {
            return Err(AuthError::ReservedClaim(reserved.clone()));
        }
        let claims = Claims {
            sub: user.to_owned(),
            exp: expires.as_millis() / 1000,
            nbf: None,
            iat: Some(now.as_millis() / 1000),
            others: claims,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
            .map_err(|error| AuthError::Sign(error.to_string()))
    }

    /// The identity that `token` proves at this moment, and until when.
    ///
    /// # Errors
    /// A refusal that says what is wrong with the token and what to do.
    pub fn verify(&self, token: &str) -> Result<Proof, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(unauthorized("the token is too long"));
        }
        let data = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation)
            .map_err(|error| said_of(&error))?;
        let user = data.claims.sub;
        if user.is_empty() || user.len() > USER_BYTES_MAX {
            return Err(unauthorized("the token names no user (`sub`)"));
        }
        let seconds = data.claims.exp.saturating_add(LEEWAY_SECONDS);
        Ok(Proof {
            identity: Arc::new(Identity {
                user: Some(UserId(user)),
                claims: data.claims.others,
            }),
            expires: Some(Timestamp(seconds.saturating_mul(1_000_000))),
        })
    }
}

/// What is wrong with a token, and what to do.
pub(crate) fn said_of(error: &jsonwebtoken::errors::Error) -> Refusal {
    use jsonwebtoken::errors::ErrorKind;
    if matches!(error.kind(), ErrorKind::ExpiredSignature) {
        unauthorized("the token has expired: get a fresh one")
    } else if matches!(error.kind(), ErrorKind::ImmatureSignature) {
        unauthorized("the token is not valid yet: check the clocks")
    } else if matches!(error.kind(), ErrorKind::InvalidSignature) {
        unauthorized("the token was not signed by this server: get one from it")
    } else {
        unauthorized("the token cannot be read: copy it whole, or get a fresh one")
    }
}

/// What a token says of its issuer and its key. Nothing of this is believed: it only chooses by
/// what the token is verified, which then has to fit all of it.
pub(crate) fn named_by(token: &str) -> Option<(String, String)> {
    #[derive(Deserialize)]
    struct Issuer {
        iss: String,
    }
    #[derive(Deserialize)]
    struct Key {
        kid: String,
    }
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let mut parts = token.split('.');
    let mut part = || BASE64_URL_SAFE_NO_PAD.decode(parts.next()?).ok();
    let (header, claims) = (part()?, part()?);
    let named: Issuer = serde_json::from_slice(&claims).ok()?;
    let key = serde_json::from_slice::<Key>(&header).map(|key| key.kid);
    Some((named.iss, key.unwrap_or_default()))
}

/// The refusal for a missing or bad token.
pub(crate) fn unauthorized(message: &str) -> Refusal {
    Refusal {
        code: code::UNAUTHORIZED.into(),
        message: message.into(),
        retry: false,
        retry_after_ms: None,
        change: None,
        fatal: true,
    }
}

#[cfg(test)]
mod tests;
